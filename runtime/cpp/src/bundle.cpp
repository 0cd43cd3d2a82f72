#include "bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "failure.hpp"
#include "sha256.hpp"

namespace atrous::core {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifestFile = "manifest.json";

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

Manifest read_manifest(const fs::path& folder) {
    std::string content;
    errno = 0;
    try {
        content = read_file(folder / kManifestFile);
    } catch (const std::system_error& error) {
        fail(ATROUS_ERROR_BUNDLE, folder.string(), " is not an atrous bundle: cannot read ", kManifestFile, " (",
             error.code().message(), "). Expected a directory made by `atrous export` or `atrous pack`.");
    }
    try {
        return parse_manifest(content);
    } catch (const Failure& failure) {
        throw Failure(failure.status(), text(folder.string(), ": ", failure.what()));
    }
}

}  // namespace

Bundle::Bundle(const std::string& path) : path_(path), manifest_(read_manifest(path_)) {
    for (const Artifact& artifact : manifest_.artifacts) check_size(artifact);
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
        fail(ATROUS_ERROR_BUNDLE, "cannot read ", path.string(), ": ", error.code().message());
    }
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    const std::string actual = digest.hex();
    if (actual != artifact.sha256) {
        fail(ATROUS_ERROR_BUNDLE, path.string(), " has SHA-256 ", actual, "; the manifest says ", artifact.sha256,
             ". The file was changed or damaged after export: nothing was loaded. Export it again.");
    }
    return bytes;
}

void Bundle::check() const {
    for (const Artifact& artifact : manifest_.artifacts) {
        check_size(artifact);
        read(artifact);
    }
}

}  // namespace atrous::core
