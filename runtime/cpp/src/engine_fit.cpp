#include "engine_fit.hpp"

#include <cstdlib>
#include <vector>

#include "failure.hpp"

namespace atrous::core {
namespace {

std::vector<int> numbers_of(const std::string& version) {
    std::vector<int> numbers;
    for (const char* at = version.c_str(); *at != '\0';) {
        char* end = nullptr;
        numbers.push_back(static_cast<int>(std::strtol(at, &end, 10)));
        at = *end == '.' && end != at ? end + 1 : end + (end == at && *end != '\0' ? 1 : 0);
    }
    return numbers;
}

/// Of the same major number.
bool is_later(const std::string& version, const std::string& than) {
    const std::vector<int> one = numbers_of(version);
    const std::vector<int> other = numbers_of(than);
    return !one.empty() && !other.empty() && one[0] == other[0] && one >= other;
}

}  // namespace

std::string why_not(const EngineIdentity& identity, const EngineHost& host) {
    if (identity.flavor != host.flavor) {
        return text("is of ", identity.flavor, "; this library runs engines of ", host.flavor);
    }
    if (identity.hardware_compatibility == "ampere+") {
        const std::vector<int> own = numbers_of(host.compute_capability);
        if (own < std::vector<int>{8, 0}) {
            return text("runs from compute capability 8.0 on; ", host.gpu, " has ", host.compute_capability);
        }
    } else if (identity.compute_capability != host.compute_capability) {
        return text("was built for compute capability ", identity.compute_capability, "; ", host.gpu, " has ",
                    host.compute_capability);
    }
    if (identity.version != host.version &&
        !(identity.version_compatible && is_later(host.version, identity.version))) {
        return text("was built by ", identity.flavor, " ", identity.version, "; installed is ", host.version);
    }
    // Within a major version of CUDA, older drivers run newer libraries; across, they do not.
    const std::vector<int> cuda = numbers_of(identity.cuda);
    if (!cuda.empty() && cuda[0] > host.cuda_major) {
        return text("needs a driver for CUDA ", identity.cuda, "; the driver here is for CUDA ", host.cuda_major,
                    ": install a newer one");
    }
    return "";
}

const Artifact& find_engine(const Bundle& bundle, const std::string& precision, const EngineHost& host) {
    std::string reasons;
    std::string have;
    for (const char* known : {"fp32", "fp16", "int8"}) {
        for (const Artifact& artifact : bundle.manifest().artifacts) {
            if (!artifact.engine || artifact.precision != known) continue;
            have += (have.empty() ? "" : ", ") + artifact.file;
            if (precision != "auto" && precision != known) continue;
            const std::string reason = why_not(*artifact.engine, host);
            if (reason.empty()) return artifact;
            reasons += text(reasons.empty() ? "" : "; ", artifact.file, " ", reason);
        }
    }
    const std::string advice = text(". Build one on this machine: atrous build ", bundle.path().string());
    if (reasons.empty()) {
        fail(ATROUS_ERROR_ENGINE, bundle.path().string(), " has no ", precision == "auto" ? "" : precision + " ",
             "engine; it has: ", have.empty() ? "none" : have, advice);
    }
    fail(ATROUS_ERROR_ENGINE, "no engine of ", bundle.path().string(), " fits here: ", reasons, advice);
}

}  // namespace atrous::core
