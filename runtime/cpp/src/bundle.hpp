// A bundle on disk: nothing in it is loaded before its path, size and SHA-256 have been checked.
#pragma once

#include <filesystem>
#include <string>

#include "manifest.hpp"

namespace atrous::core {

class Bundle {
  public:
    /// Validates the manifest; every listed file must lie inside the bundle, exist, and have the stated size.
    /// Throws Failure(BUNDLE).
    explicit Bundle(const std::string& path);

    const Manifest& manifest() const { return manifest_; }
    const std::filesystem::path& path() const { return path_; }

    /// The bytes of an artifact, hashed before they are given out: what is checked is what is loaded.
    std::string read(const Artifact& artifact) const;
    /// Hashes every artifact; throws at the first that differs from the manifest.
    void check() const;
    /// Where an artifact lies; throws where that is outside the bundle.
    std::filesystem::path path_of(const Artifact& artifact) const;

  private:
    void check_size(const Artifact& artifact) const;

    std::filesystem::path path_;
    Manifest manifest_;
};

}  // namespace atrous::core
