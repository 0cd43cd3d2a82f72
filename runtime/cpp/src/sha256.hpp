// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace atrous::core {

/// Digests bytes that come in pieces.
class Sha256 {
  public:
    void update(const void* bytes, std::size_t count);
    /// The digest as 64 lower-case hex digits; ends the object's use.
    std::string hex();

  private:
    void compress(const std::uint8_t* block);

    static constexpr std::size_t kBlockBytes = 64;
    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, kBlockBytes> waiting_{};
    std::size_t waiting_bytes_ = 0;
    std::uint64_t total_bytes_ = 0;
};

}  // namespace atrous::core
