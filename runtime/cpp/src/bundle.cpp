#include "bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <system_error>
#include <thread>

#include "failure.hpp"
#include "sha256.hpp"

namespace atrous::core {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifestFile = "manifest.json";
/// Times that a reader finds the bundle neither at its path nor aside before it is not there.
constexpr int kMisses = 5;
/// How long a reader waits for a bundle that steps aside, on filesystems that cannot exchange two folders.
constexpr std::chrono::seconds kSteppingAside{1};
constexpr std::chrono::milliseconds kPause{10};
constexpr std::size_t kAsideDigits = 16;

/// All of a file. Throws std::system_error.
std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto end = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    // A directory opens, and claims to be endless.
    if (end < 0 || !fs::is_regular_file(path)) {
        throw std::system_error(errno != 0 ? errno : EINVAL, std::generic_category());
    }
    std::string bytes(static_cast<std::size_t>(end), '\0');
    file.seekg(0);
    if (!file.read(bytes.data(), end)) throw std::system_error(EIO, std::generic_category());
    return bytes;
}

/// A name from a manifest for a message: without characters that would end it or move a cursor.
std::string printable(std::string name) {
    for (char& character : name) {
        if (static_cast<unsigned char>(character) < ' ') character = '?';
    }
    return name;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
    return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

/// Where the bundle of a folder stepped aside for a new one and still is, as bundle_folders.py names it; else empty.
fs::path find_aside(const fs::path& folder) {
    std::error_code ignored;
    fs::path target = fs::absolute(folder, ignored).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();  // "NAME.atrous/"
    const std::string beginning = "." + target.filename().string() + ".old.";
    for (const fs::directory_entry& entry : fs::directory_iterator(target.parent_path(), ignored)) {
        const std::string name = entry.path().filename().string();
        const fs::path aside = entry.path() / target.filename();
        if (name.size() == beginning.size() + kAsideDigits && name.compare(0, beginning.size(), beginning) == 0 &&
            fs::is_regular_file(aside / kManifestFile, ignored)) {
            return aside;
        }
    }
    return {};
}

/// Text of a bundle's manifest; waits a little where a bundle has just stepped aside for it.
std::string read_manifest(const fs::path& folder) {
    const auto patience = std::chrono::steady_clock::now() + kSteppingAside;
    int misses = 0;
    while (true) {
        errno = 0;
        try {
            return read_file(folder / kManifestFile);
        } catch (const std::system_error& error) {
            const bool is_absent = error.code().value() == ENOENT;
            const fs::path aside = is_absent ? find_aside(folder) : fs::path();
            // Nothing at either place may also mean that the writer ended between our two looks.
            misses += is_absent && aside.empty() ? 1 : 0;
            if (is_absent && misses < kMisses && std::chrono::steady_clock::now() < patience) {
                std::this_thread::sleep_for(kPause);
                continue;
            }
            const std::string hint = aside.empty()
                                         ? "Expected a directory made by `atrous export` or `atrous pack`."
                                         : text("A writer was killed while it replaced the bundle, which is at ",
                                                aside.string(), ": move it back.");
            fail(ATROUS_ERROR_BUNDLE, folder.string(), " is not an atrous bundle: cannot read ", kManifestFile, " (",
                 error.code().message(), "). ", hint);
        }
    }
}

Manifest judge_manifest(const fs::path& folder, const std::string& content) {
    try {
        return parse_manifest(content);
    } catch (const Failure& failure) {
        throw Failure(failure.status(), text(folder.string(), ": ", failure.what()));
    }
}

}  // namespace

Bundle::Bundle(const std::string& path) : path_(path) {
    std::string failed;  // the manifest that files did not fit: of a bundle that was replaced meanwhile, or damaged
    while (true) {
        text_ = read_manifest(path_);
        manifest_ = judge_manifest(path_, text_);
        try {
            check_sizes();
            return;
        } catch (const Failure&) {
            if (text_ == failed) throw;
            failed = text_;
        }
    }
}

bool Bundle::is_current() const {
    try {
        return read_manifest(path_) == text_;
    } catch (const Failure&) {
        return false;
    }
}

template <typename... Pieces>
void Bundle::refuse(const Artifact& artifact, const Pieces&... pieces) const {
    if (!is_current()) {
        fail(ATROUS_ERROR_BUNDLE, path_.string(), " was changed by another writer since it was opened, and ",
             artifact.file, " with it; open it again");
    }
    fail(ATROUS_ERROR_BUNDLE, pieces...);
}

fs::path Bundle::path_of(const Artifact& artifact) const {
    const fs::path relative(artifact.file);
    const fs::path path = path_ / relative;
    bool escapes = relative.is_absolute() || artifact.file.find_first_of(std::string("\\\0", 2)) != std::string::npos;
    for (const fs::path& part : relative) escapes = escapes || part == "..";
    try {
        // Resolved as well: a symbolic link inside the bundle can point out of it.
        escapes = escapes || !is_inside(fs::weakly_canonical(path), fs::canonical(path_));
    } catch (const fs::filesystem_error& error) {  // a circle of links; a name that no file can have
        fail(ATROUS_ERROR_BUNDLE, path_.string(), ": artifact path '", printable(artifact.file),
             "' is unusable: ", error.code().message());
    }
    if (escapes) {
        fail(ATROUS_ERROR_BUNDLE, path_.string(), ": artifact path '", printable(artifact.file),
             "' leads out of the bundle; refusing to open it");
    }
    return path;
}

void Bundle::check_sizes() const {
    for (const Artifact& artifact : manifest_.artifacts) check_size(artifact);
}

void Bundle::check_size(const Artifact& artifact) const {
    const fs::path path = path_of(artifact);
    std::error_code error;
    if (!fs::is_regular_file(path, error)) {
        fail(ATROUS_ERROR_BUNDLE, path_.string(), ": ", artifact.file,
             " is listed in the manifest but missing. Copy the whole directory again, or export it again.");
    }
    const std::uintmax_t actual = fs::file_size(path, error);
    if (error) fail(ATROUS_ERROR_BUNDLE, "cannot read ", path.string(), ": ", error.message());
    if (actual != artifact.bytes) {
        fail(ATROUS_ERROR_BUNDLE, path.string(), " has ", actual, " bytes; the manifest says ", artifact.bytes,
             ". It is truncated or was replaced.");
    }
}

std::string Bundle::read(const Artifact& artifact) const {
    const fs::path path = path_of(artifact);
    std::string bytes;
    errno = 0;
    try {
        bytes = read_file(path);
    } catch (const std::system_error& error) {
        refuse(artifact, "cannot read ", path.string(), ": ", error.code().message());
    }
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    const std::string actual = digest.hex();
    if (actual != artifact.sha256) {
        refuse(artifact, path.string(), " has SHA-256 ", actual, "; the manifest says ", artifact.sha256,
               ". The file was changed or damaged after export: nothing was loaded. Export it again.");
    }
    return bytes;
}

void Bundle::check() const {
    for (const Artifact& artifact : manifest_.artifacts) read(artifact);
}

}  // namespace atrous::core
