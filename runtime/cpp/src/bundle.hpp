// A bundle on disk: nothing in it is loaded before its path, size and SHA-256 have been checked. A writer may replace
// it at any moment, in one step where the filesystem can exchange two folders and by letting it step aside elsewhere.
#pragma once

#include <filesystem>
#include <string>

#include "manifest.hpp"

namespace atrous::core {

class Bundle {
  public:
    /// Validates the manifest; every listed file must lie inside the bundle, exist, and have the stated size. A bundle
    /// that is replaced meanwhile is opened again. Throws Failure(BUNDLE).
    explicit Bundle(const std::string& path);

    const Manifest& manifest() const { return manifest_; }
    const std::filesystem::path& path() const { return path_; }

    /// The bytes of an artifact, hashed before they are given out: what is checked is what is loaded.
    /// Throws Failure(BUNDLE), which says so where the bundle was replaced.
    std::string read(const Artifact& artifact) const;
    /// Hashes every artifact; throws at the first that differs from the manifest.
    void check() const;
    /// False if the bundle at the path was changed or replaced after this one was opened.
    bool is_current() const;
    /// Where an artifact lies; throws where that is outside the bundle.
    std::filesystem::path path_of(const Artifact& artifact) const;

  private:
    void check_sizes() const;
    void check_size(const Artifact& artifact) const;
    /// Throws Failure(BUNDLE) with the pieces, or with the reason where the bundle was replaced.
    template <typename... Pieces>
    [[noreturn]] void refuse(const Artifact& artifact, const Pieces&... pieces) const;

    std::filesystem::path path_;
    std::string text_;  ///< of the manifest
    Manifest manifest_;
};

}  // namespace atrous::core
