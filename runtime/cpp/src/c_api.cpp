// The C interface: validates arguments, finds handles, and turns every exception into a status and a text.
#include <atomic>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>

#include "atrous/atrous.h"
#include "bundle.hpp"
#include "catalogue.hpp"
#include "failure.hpp"
#include "handles.hpp"
#include "native/isa.hpp"
#include "segmenter.hpp"
#include "structs.hpp"
#include "version.hpp"

namespace atrous::core {

std::uintptr_t next_handle() {
    static std::atomic<std::uintptr_t> last{0};
    return ++last;
}

namespace {

constexpr int kMaxSide = 65536;

thread_local std::string last_error;

// Never destroyed: programs close handles as late as in their own static destructors.
Handles<atrous_bundle, const Bundle>& bundles() {
    static auto* const handles = new Handles<atrous_bundle, const Bundle>("bundle");
    return *handles;
}
Handles<atrous_segmenter, Segmenter>& segmenters() {
    static auto* const handles = new Handles<atrous_segmenter, Segmenter>("segmenter");
    return *handles;
}
Handles<atrous_job, Job>& jobs() {
    static auto* const handles = new Handles<atrous_job, Job>("job");
    return *handles;
}

atrous_status report(const Outcome& outcome) noexcept {
    if (outcome.status == ATROUS_OK) return ATROUS_OK;
    try {
        last_error = outcome.text;
    } catch (...) {
        last_error.clear();
    }
    return outcome.status;
}

/// Runs what a function of the interface does.
template <typename Call>
atrous_status guarded(const Call& call) noexcept {
    try {
        call();
        return ATROUS_OK;
    } catch (...) {
        return report(outcome_of_exception());
    }
}

template <typename Pointer>
void require(const Pointer* pointer, const char* name) {
    if (pointer == nullptr) fail(ATROUS_ERROR_ARGUMENT, name, " is null");
}

void require_aligned(const void* pointer, int bytes, const char* name) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0) return;
    fail(ATROUS_ERROR_ARGUMENT, name, " does not begin on a multiple of ", bytes, " bytes, as its values do");
}

Options to_options(const atrous_options* given) {
    Options options;
    if (given == nullptr) return options;
    const atrous_options defaults = ATROUS_OPTIONS_INIT;
    const atrous_options values = read_struct(given, defaults, offsetof(atrous_options, crf_storage), "options");
    if (values.backend != nullptr) options.backend = values.backend;
    if (values.precision != nullptr) options.precision = values.precision;
    if (values.threads < 0) fail(ATROUS_ERROR_ARGUMENT, "threads must be 0 (all cores) or more; got ", values.threads);
    if (values.device < 0) fail(ATROUS_ERROR_ARGUMENT, "device must be 0 or more; got ", values.device);
    if (values.crf != 0 && values.crf != 1) fail(ATROUS_ERROR_ARGUMENT, "crf must be 0 or 1; got ", values.crf);
    if (values.crf_iterations < -1) {
        fail(ATROUS_ERROR_CRF, "crf_iterations must be 0 or more, or -1 for the bundle's; got ", values.crf_iterations);
    }
    options.threads = values.threads;
    options.device = values.device;
    options.has_crf = values.crf == 1;
    options.crf_iterations = values.crf_iterations;
    const std::string storage = values.crf_storage != nullptr ? values.crf_storage : "fp32";
    if (storage != "fp32" && storage != "unorm16") {
        fail(ATROUS_ERROR_CRF, "crf_storage must be fp32 or unorm16; got ", storage);
    }
    options.crf_has_fractions = storage == "unorm16";
    options.crf_class_floor = values.crf_class_floor;
    return options;
}

/// `given`, or `least` for 0, if rows so far apart neither overlap nor leave the address space, and begin on whole
/// values of `value_bytes`.
std::int64_t checked_row_bytes(std::int64_t given, std::int64_t least, int rows, int value_bytes, const char* name) {
    if (given == 0) return least;
    if (given % value_bytes != 0) {
        fail(ATROUS_ERROR_ARGUMENT, name, " is ", given, "; expected a multiple of ", value_bytes,
             ", the bytes of a value");
    }
    if (given < least || given > PTRDIFF_MAX / rows) {
        fail(ATROUS_ERROR_ARGUMENT, name, " is ", given, "; expected at least ", least,
             ", the bytes of a row, or 0 for packed rows");
    }
    return given;
}

/// The format of pixels, whether or not it is the network's.
PixelFormat to_format(const atrous_frame& values) {
    if (values.format == ATROUS_RGB8 || values.format == ATROUS_BGR8) {
        if ((values.channels != 0 && values.channels != 3) || values.dtype != ATROUS_UINT8) {
            fail(ATROUS_ERROR_ARGUMENT, "RGB and BGR have 3 channels of ATROUS_UINT8; got ", values.channels,
                 " of dtype ", values.dtype, ". Other bands are ATROUS_BANDS");
        }
        return {};
    }
    if (values.format != ATROUS_BANDS) {
        fail(ATROUS_ERROR_ARGUMENT, "unknown format ", values.format,
             "; expected ATROUS_RGB8, ATROUS_BGR8 or ATROUS_BANDS");
    }
    if (values.channels < 1 || values.channels > kMaxBands) {
        fail(ATROUS_ERROR_ARGUMENT, "ATROUS_BANDS has 1 to ", kMaxBands, " channels; got ", values.channels);
    }
    constexpr Sample samples[] = {Sample::uint8, Sample::uint16, Sample::float32};
    if (values.dtype < 0 || values.dtype >= static_cast<int>(std::size(samples))) {
        fail(ATROUS_ERROR_ARGUMENT, "unknown dtype ", values.dtype, "; expected ATROUS_UINT8, _UINT16 or _FLOAT32");
    }
    return {values.channels, samples[values.dtype]};
}

int label_bytes_of(const atrous_frame& values) {
    if (values.label_dtype == ATROUS_UINT8) return 1;
    if (values.label_dtype == ATROUS_UINT16) return 2;
    fail(ATROUS_ERROR_ARGUMENT, "labels are ATROUS_UINT8 or ATROUS_UINT16; got dtype ", values.label_dtype);
}

/// What is beyond the sizes and the memory, which every frame has.
void check_memory(const atrous_frame& values) {
    if (values.memory != ATROUS_HOST && values.memory != ATROUS_DEVICE) {
        fail(ATROUS_ERROR_ARGUMENT, "unknown memory ", values.memory, "; expected ATROUS_HOST or ATROUS_DEVICE");
    }
    if (values.reserved != 0 || values.reserved2 != 0) fail(ATROUS_ERROR_ARGUMENT, "frame->reserved must be 0");
    if (values.memory == ATROUS_HOST && values.stream != nullptr) {
        fail(ATROUS_ERROR_ARGUMENT, "a stream goes with ATROUS_DEVICE; memory of the host has none");
    }
}

Frame to_frame(const atrous_frame* given) {
    const atrous_frame defaults = ATROUS_FRAME_INIT;
    const atrous_frame values = read_struct(given, defaults, offsetof(atrous_frame, channels), "frame");
    const PixelFormat format = to_format(values);
    const int label_bytes = label_bytes_of(values);
    check_memory(values);
    for (const int side : {values.height, values.width}) {
        if (side < 1 || side > kMaxSide) {
            fail(ATROUS_ERROR_ARGUMENT, "a picture of ", values.height, "x", values.width, " pixels; expected 1x1 to ",
                 kMaxSide, "x", kMaxSide);
        }
    }
    require(values.pixels, "frame->pixels");
    require(values.labels, "frame->labels");
    require_aligned(values.pixels, format.sample_bytes(), "frame->pixels");
    require_aligned(values.labels, label_bytes, "frame->labels");
    const int rows = values.height;
    const std::int64_t row_bytes = std::int64_t{format.bytes()} * values.width;
    return {static_cast<const std::uint8_t*>(values.pixels),
            format,
            {values.height, values.width},
            checked_row_bytes(values.pixel_row_bytes, row_bytes, rows, format.sample_bytes(), "pixel_row_bytes"),
            values.format == ATROUS_BGR8,
            static_cast<std::uint8_t*>(values.labels),
            label_bytes,
            checked_row_bytes(values.label_row_bytes, std::int64_t{label_bytes} * values.width, rows, label_bytes,
                              "label_row_bytes"),
            values.probabilities,
            values.memory == ATROUS_DEVICE,
            values.stream};
}

/// A wrong ATROUS_ISA must stop the opening, not a later call.
void check_isa() {
    try {
        active_isa();
    } catch (const std::exception& error) {
        fail(ATROUS_ERROR_ARGUMENT, error.what());
    }
}

void write_timings(const Timings& timings, atrous_timings* out) {
    if (out == nullptr) return;
    atrous_timings values = ATROUS_TIMINGS_INIT;
    values.preprocess_ms = timings.ms[static_cast<int>(Stage::preprocess)];
    values.inference_ms = timings.ms[static_cast<int>(Stage::inference)];
    values.postprocess_ms = timings.ms[static_cast<int>(Stage::postprocess)];
    values.crf_ms = timings.ms[static_cast<int>(Stage::crf)];
    values.total_ms = timings.total_ms;
    write_struct(out, values, sizeof(atrous_timings), "timings");
}

/// Before any work is done: a struct that cannot be filled must not cost a result.
void check_timings(atrous_timings* out) {
    if (out != nullptr) write_struct(out, atrous_timings ATROUS_TIMINGS_INIT, sizeof(atrous_timings), "timings");
}

void finish(const Outcome& outcome, atrous_timings* timings) {
    if (outcome.status != ATROUS_OK) throw Failure(outcome.status, outcome.text);
    write_timings(outcome.timings, timings);
}

int32_t code_of(Resize resize) {
    switch (resize) {
        case Resize::stretch:
            return ATROUS_RESIZE_STRETCH;
        case Resize::letterbox:
            return ATROUS_RESIZE_LETTERBOX;
        default:
            return ATROUS_RESIZE_NONE;
    }
}

}  // namespace
}  // namespace atrous::core

using namespace atrous::core;

extern "C" {

const char* atrous_status_name(atrous_status status) {
    static const char* const names[] = {
        "ATROUS_OK",           "ATROUS_PENDING",           "ATROUS_ERROR_ARGUMENT", "ATROUS_ERROR_HANDLE",
        "ATROUS_ERROR_BUNDLE", "ATROUS_ERROR_ENGINE",      "ATROUS_ERROR_SHAPE",    "ATROUS_ERROR_CRF",
        "ATROUS_ERROR_DEVICE", "ATROUS_ERROR_UNAVAILABLE", "ATROUS_ERROR_MEMORY",   "ATROUS_ERROR_INTERNAL"};
    const auto index = static_cast<std::size_t>(status);
    return index < std::size(names) ? names[index] : "unknown status";
}

const char* atrous_last_error(void) {
    return last_error.c_str();
}

uint32_t atrous_abi_version(void) {
    return ATROUS_ABI_VERSION;
}

const char* atrous_version(void) {
    return kVersion;
}

const char* atrous_engines(void) {
    static const std::string* const names = [] {
        auto* const joined = new std::string;
        for (const Backend& backend : catalogue()) *joined += (joined->empty() ? "" : " ") + backend.name;
        return joined;
    }();
    return names->c_str();
}

atrous_status atrous_bundle_open(const char* path, atrous_bundle** bundle) {
    return guarded([&] {
        require(bundle, "bundle");
        *bundle = nullptr;
        require(path, "path");
        *bundle = bundles().add(std::make_shared<const Bundle>(path));
    });
}

atrous_status atrous_bundle_check(const atrous_bundle* bundle) {
    return guarded([&] { bundles().find(bundle)->check(); });
}

atrous_status atrous_bundle_is_current(const atrous_bundle* bundle, int32_t* is_current) {
    return guarded([&] {
        require(is_current, "is_current");
        *is_current = bundles().find(bundle)->is_current() ? 1 : 0;
    });
}

atrous_status atrous_bundle_close(atrous_bundle* bundle) {
    return guarded([&] { bundles().take(bundle); });
}

atrous_status atrous_bundle_get_info(const atrous_bundle* bundle, atrous_bundle_info* info) {
    return guarded([&] {
        const auto opened = bundles().find(bundle);
        const Manifest& manifest = opened->manifest();
        const SizePolicy& size = manifest.input.size;
        const atrous::PixelFormat format = manifest.input.format();
        write_struct(info,
                     {0,
                      static_cast<int32_t>(manifest.classes.size()),
                      manifest.ignore_index.value_or(-1),
                      code_of(manifest.input.resize),
                      size.min.height,
                      size.min.width,
                      size.opt.height,
                      size.opt.width,
                      size.max.height,
                      size.max.width,
                      size.multiple,
                      size.offset,
                      manifest.output.stride,
                      manifest.crf ? 1 : 0,
                      manifest.name.c_str(),
                      manifest.created_by.c_str(),
                      manifest.license.c_str(),
                      format.channels,
                      static_cast<int32_t>(format.sample),
                      manifest.label_bytes() == 2 ? ATROUS_UINT16 : ATROUS_UINT8,
                      manifest.input.bands ? 1 : 0},
                     offsetof(atrous_bundle_info, channels), "info");
    });
}

atrous_status atrous_bundle_get_band(const atrous_bundle* bundle, int32_t index, atrous_band* band) {
    return guarded([&] {
        const auto opened = bundles().find(bundle);
        const auto& bands = opened->manifest().input.bands;
        const int count = bands ? static_cast<int>(bands->names.size()) : 0;
        if (index < 0 || index >= count) {
            fail(ATROUS_ERROR_ARGUMENT, "there is no band ", index, "; the bundle has ", count,
                 bands ? "" : ": it takes RGB in bytes");
        }
        const auto [low, high] = bands->ranges[index];
        write_struct(band, {0, 0, low, high, bands->names[index].c_str()}, sizeof(atrous_band), "band");
    });
}

atrous_status atrous_bundle_get_class(const atrous_bundle* bundle, int32_t index, atrous_class* entry) {
    return guarded([&] {
        const auto opened = bundles().find(bundle);
        const auto& classes = opened->manifest().classes;
        if (index < 0 || index >= static_cast<int32_t>(classes.size())) {
            fail(ATROUS_ERROR_ARGUMENT, "there is no class ", index, "; the bundle has ", classes.size());
        }
        const ClassInfo& found = classes[index];
        write_struct(entry, {0, {found.color[0], found.color[1], found.color[2], 0}, found.name.c_str()},
                     sizeof(atrous_class), "entry");
    });
}

atrous_status atrous_segmenter_open(const atrous_bundle* bundle, const atrous_options* options,
                                    atrous_segmenter** segmenter) {
    return guarded([&] {
        require(segmenter, "segmenter");
        *segmenter = nullptr;
        const auto opened = bundles().find(bundle);
        const Options wanted = to_options(options);
        check_isa();
        *segmenter = segmenters().add(std::make_shared<Segmenter>(open_pipeline(opened, wanted), wanted.has_crf));
    });
}

atrous_status atrous_segmenter_close(atrous_segmenter* segmenter) {
    return guarded([&] { segmenters().take(segmenter)->stop(); });
}

atrous_status atrous_segmenter_get_info(const atrous_segmenter* segmenter, atrous_segmenter_info* info) {
    return guarded([&] {
        const auto opened = segmenters().find(segmenter);
        const Description& found = opened->description();
        write_struct(info,
                     {0, opened->has_crf() ? 1 : 0, found.backend.c_str(), found.device.c_str(),
                      found.precision.c_str(), found.artifact.c_str(), found.note.c_str()},
                     sizeof(atrous_segmenter_info), "info");
    });
}

atrous_status atrous_run(atrous_segmenter* segmenter, const atrous_frame* frame, atrous_timings* timings) {
    return guarded([&] {
        const auto opened = segmenters().find(segmenter);
        check_timings(timings);
        finish(opened->run(to_frame(frame)), timings);
    });
}

atrous_status atrous_submit(atrous_segmenter* segmenter, const atrous_frame* frame, atrous_job** job) {
    return guarded([&] {
        require(job, "job");
        *job = nullptr;
        const auto opened = segmenters().find(segmenter);
        const auto submitted = opened->submit(to_frame(frame));
        try {
            *job = jobs().add(submitted);
        } catch (...) {  // a job without a handle must not write to memory that nobody keeps for it
            submitted->drop("out of memory for its handle");
            throw;
        }
    });
}

atrous_status atrous_job_wait(atrous_job* job, int32_t timeout_ms, atrous_timings* timings) {
    bool is_pending = false;
    const atrous_status status = guarded([&] {
        const auto found = jobs().find(job);
        check_timings(timings);
        const Outcome* const outcome = found->wait(timeout_ms);
        is_pending = outcome == nullptr;
        if (outcome != nullptr) finish(*outcome, timings);
    });
    return is_pending ? ATROUS_PENDING : status;
}

atrous_status atrous_job_close(atrous_job* job) {
    return guarded([&] { jobs().take(job)->drop("the job was closed"); });
}

}  // extern "C"
