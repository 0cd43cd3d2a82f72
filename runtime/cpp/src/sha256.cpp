#include "sha256.hpp"

#include <algorithm>
#include <cstring>

namespace atrous::core {
namespace {

constexpr std::uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t word, int bits) {
    return (word >> bits) | (word << (32 - bits));
}

}  // namespace

void Sha256::compress(const std::uint8_t* block) {
    std::uint32_t schedule[64];
    for (int i = 0; i < 16; ++i) {
        schedule[i] = std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
                      std::uint32_t{block[4 * i + 2]} << 8 | std::uint32_t{block[4 * i + 3]};
    }
    for (int i = 16; i < 64; ++i) {
        const std::uint32_t near = schedule[i - 2];
        const std::uint32_t far = schedule[i - 15];
        schedule[i] = schedule[i - 16] + (rotate(far, 7) ^ rotate(far, 18) ^ (far >> 3)) + schedule[i - 7] +
                      (rotate(near, 17) ^ rotate(near, 19) ^ (near >> 10));
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (int i = 0; i < 64; ++i) {
        const std::uint32_t choice = (e & f) ^ (~e & g);
        const std::uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
        const std::uint32_t first =
            h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + kRoundConstants[i] + schedule[i];
        const std::uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + second;
    }
    const std::uint32_t added[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state_[i] += added[i];
}

void Sha256::update(const void* bytes, std::size_t count) {
    const auto* next = static_cast<const std::uint8_t*>(bytes);
    total_bytes_ += count;
    while (count > 0) {
        if (waiting_bytes_ == 0 && count >= kBlockBytes) {
            compress(next);
            next += kBlockBytes;
            count -= kBlockBytes;
            continue;
        }
        const std::size_t taken = std::min(count, kBlockBytes - waiting_bytes_);
        std::memcpy(waiting_.data() + waiting_bytes_, next, taken);
        next += taken;
        count -= taken;
        waiting_bytes_ += taken;
        if (waiting_bytes_ == kBlockBytes) {
            compress(waiting_.data());
            waiting_bytes_ = 0;
        }
    }
}

std::string Sha256::hex() {
    const std::uint64_t bits = total_bytes_ * 8;
    // A one bit, zeros up to the last 8 bytes of a block, and the length in bits.
    std::uint8_t ending[2 * kBlockBytes] = {0x80};
    const std::size_t zeros = (2 * kBlockBytes - 9 - waiting_bytes_) % kBlockBytes;
    for (int i = 0; i < 8; ++i) ending[1 + zeros + i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
    update(ending, 1 + zeros + 8);
    std::string digits;
    for (const std::uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 0xf];
    }
    return digits;
}

}  // namespace atrous::core
