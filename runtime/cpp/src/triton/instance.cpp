#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>

#include "model.hpp"
#include "status.hpp"

namespace atrous::triton {

namespace {

constexpr std::int64_t kMaxSide = 65536;

std::uint64_t now_ns() {
    using namespace std::chrono;
    return static_cast<std::uint64_t>(duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count());
}

/// The images of a request.
struct Images {
    const std::uint8_t* pixels;
    std::int64_t count;
    int height, width;
};

/// Which outputs a request names.
struct Wanted {
    bool labels = false, confidence = false, probabilities = false;
};

Wanted wanted_outputs(TRITONBACKEND_Request* request) {
    Wanted wanted;
    std::uint32_t count = 0;
    require(TRITONBACKEND_RequestOutputCount(request, &count));
    for (std::uint32_t i = 0; i < count; ++i) {
        const char* name = nullptr;
        require(TRITONBACKEND_RequestOutputName(request, i, &name));
        const std::string output = name;
        wanted.labels |= output == "LABELS";
        wanted.confidence |= output == "CONFIDENCE";
        wanted.probabilities |= output == "PROBABILITIES";
    }
    return wanted;
}

std::string text_of(const std::int64_t* shape, std::uint32_t axes) {
    std::string text = "[";
    for (std::uint32_t i = 0; i < axes; ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + "]";
}

/// Pixels where Triton has them, or copied together where they lie in pieces or not as their type must.
const std::uint8_t* gather(TRITONBACKEND_Input* input, std::uint32_t pieces, std::uint64_t bytes,
                           std::int64_t alignment, std::vector<std::uint8_t>& copy) {
    std::uint64_t done = 0;
    for (std::uint32_t i = 0; i < pieces; ++i) {
        const void* piece = nullptr;
        std::uint64_t length = 0;
        TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
        std::int64_t id = 0;
        require(TRITONBACKEND_InputBuffer(input, i, &piece, &length, &memory, &id));
        if (memory == TRITONSERVER_MEMORY_GPU) {
            fail(TRITONSERVER_ERROR_UNSUPPORTED, "IMAGE lies on a GPU; this backend takes it in the host's memory");
        }
        const auto* begin = static_cast<const std::uint8_t*>(piece);
        if (pieces == 1 && length == bytes && reinterpret_cast<std::uintptr_t>(begin) % alignment == 0) return begin;
        if (length > bytes - done) break;
        if (done == 0) copy.resize(bytes);
        if (length != 0) std::memcpy(copy.data() + done, begin, length);
        done += length;
    }
    if (done != bytes) fail(TRITONSERVER_ERROR_INVALID_ARG, "IMAGE has other bytes than its shape says");
    return copy.data();
}

Images read_images(TRITONBACKEND_Request* request, const Layout& layout, std::vector<std::uint8_t>& copy) {
    TRITONBACKEND_Input* input = nullptr;
    require(TRITONBACKEND_RequestInput(request, "IMAGE", &input));
    TRITONSERVER_DataType type;
    const std::int64_t* shape = nullptr;
    std::uint32_t axes = 0, pieces = 0;
    std::uint64_t bytes = 0;
    require(TRITONBACKEND_InputProperties(input, nullptr, &type, &shape, &axes, &bytes, &pieces));
    const std::int64_t* image = shape + (layout.has_batches ? 1 : 0);
    if (type != layout.image_type || axes != (layout.has_batches ? 4u : 3u) || image[2] != layout.channels) {
        fail(TRITONSERVER_ERROR_INVALID_ARG, "IMAGE must be ", layout.has_batches ? "[N, " : "[", "height, width, ",
             layout.channels, "] of the bundle's type; got ", text_of(shape, axes));
    }
    const std::int64_t count = layout.has_batches ? shape[0] : 1;
    if (count < 1 || image[0] < 1 || image[1] < 1 || image[0] > kMaxSide || image[1] > kMaxSide) {
        fail(TRITONSERVER_ERROR_INVALID_ARG, "an image has 1 to ", kMaxSide, " pixels a side; got IMAGE ",
             text_of(shape, axes));
    }
    return {gather(input, pieces, bytes, layout.value_bytes, copy), count, static_cast<int>(image[0]),
            static_cast<int>(image[1])};
}

/// Memory of an output, in which all images of the request have their part.
template <typename Value>
Value* make_output(TRITONBACKEND_Response* response, const char* name, TRITONSERVER_DataType type,
                   std::vector<std::int64_t> shape, bool has_batches) {
    std::uint64_t bytes = sizeof(Value);
    for (const std::int64_t length : shape) bytes *= static_cast<std::uint64_t>(length);
    if (!has_batches) shape.erase(shape.begin());
    TRITONBACKEND_Output* output = nullptr;
    require(TRITONBACKEND_ResponseOutput(response, &output, name, type, shape.data(),
                                         static_cast<std::uint32_t>(shape.size())));
    void* buffer = nullptr;
    TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
    std::int64_t id = 0;
    require(TRITONBACKEND_OutputBuffer(output, &buffer, bytes, &memory, &id));
    if (memory == TRITONSERVER_MEMORY_GPU || reinterpret_cast<std::uintptr_t>(buffer) % sizeof(Value) != 0) {
        fail(TRITONSERVER_ERROR_UNSUPPORTED, name, " would go to memory of a GPU, or to an odd address of the host's");
    }
    return static_cast<Value*>(buffer);
}

/// Largest probability of each pixel in 255ths, rounded as NumPy's rint.
void write_confidence(const float* probabilities, int classes, std::int64_t pixels, std::uint8_t* confidence) {
    for (std::int64_t i = 0; i < pixels; ++i) {
        float largest = 0.0f;
        for (int c = 0; c < classes; ++c) largest = std::max(largest, probabilities[c * pixels + i]);
        confidence[i] = static_cast<std::uint8_t>(std::nearbyint(largest * 255.0f));
    }
}

}  // namespace

std::int64_t Instance::answer(TRITONBACKEND_Request* request, TRITONBACKEND_Response* response) {
    const Images images = read_images(request, layout_, pixels_);
    const Wanted wanted = wanted_outputs(request);
    const std::int64_t pixels = std::int64_t{images.height} * images.width;
    const std::int64_t label_bytes = layout_.is_wide ? 2 : 1;
    const std::vector<std::int64_t> map = {images.count, images.height, images.width};
    const std::vector<std::int64_t> maps = {images.count, layout_.classes, images.height, images.width};

    std::uint8_t* labels = nullptr;
    std::uint8_t* confidence = nullptr;
    float* probabilities = nullptr;
    const bool batched = layout_.has_batches;
    if (wanted.labels && layout_.is_wide) {
        auto* wide = make_output<std::uint16_t>(response, "LABELS", TRITONSERVER_TYPE_UINT16, map, batched);
        labels = reinterpret_cast<std::uint8_t*>(wide);
    } else if (wanted.labels) {
        labels = make_output<std::uint8_t>(response, "LABELS", TRITONSERVER_TYPE_UINT8, map, batched);
    } else {
        labels_.resize(pixels * label_bytes);
    }
    if (wanted.confidence) {
        confidence = make_output<std::uint8_t>(response, "CONFIDENCE", TRITONSERVER_TYPE_UINT8, map, batched);
    }
    if (wanted.probabilities) {
        probabilities = make_output<float>(response, "PROBABILITIES", TRITONSERVER_TYPE_FP32, maps, batched);
    } else if (wanted.confidence) {
        probabilities_.resize(pixels * layout_.classes);
    }

    atrous_frame frame = ATROUS_FRAME_INIT;
    frame.format = layout_.has_bands ? ATROUS_BANDS : ATROUS_RGB8;
    frame.channels = layout_.channels;
    frame.dtype = layout_.dtype;
    frame.label_dtype = layout_.is_wide ? ATROUS_UINT16 : ATROUS_UINT8;
    frame.height = images.height;
    frame.width = images.width;
    for (std::int64_t i = 0; i < images.count; ++i) {
        frame.pixels = images.pixels + i * pixels * layout_.channels * layout_.value_bytes;
        frame.labels = labels != nullptr ? labels + i * pixels * label_bytes : labels_.data();
        frame.probabilities = probabilities != nullptr ? probabilities + i * pixels * layout_.classes
                              : confidence != nullptr  ? probabilities_.data()
                                                       : nullptr;
        segmenter_.run(frame);
        if (confidence != nullptr) {
            write_confidence(frame.probabilities, layout_.classes, pixels, confidence + i * pixels);
        }
    }
    return images.count;
}

void Instance::execute(TRITONBACKEND_ModelInstance* self, TRITONBACKEND_Request** requests, std::uint32_t count) {
    const std::uint64_t begin = now_ns();
    std::uint64_t images = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint64_t start = now_ns();
        TRITONBACKEND_Response* response = nullptr;
        TRITONSERVER_Error* error = guarded([&] {
            require(TRITONBACKEND_ResponseNew(&response, requests[i]));
            images += static_cast<std::uint64_t>(answer(requests[i], response));
        });
        const std::uint64_t end = now_ns();
        const bool succeeded = error == nullptr;
        if (response != nullptr) {
            ignore(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
        }
        ignore(error);  // which sending copies
        ignore(TRITONBACKEND_ModelInstanceReportStatistics(self, requests[i], succeeded, start, start, end, now_ns()));
        ignore(TRITONBACKEND_RequestRelease(requests[i], TRITONSERVER_REQUEST_RELEASE_ALL));
    }
    const std::uint64_t end = now_ns();
    if (images != 0) ignore(TRITONBACKEND_ModelInstanceReportBatchStatistics(self, images, begin, begin, end, end));
}

}  // namespace atrous::triton
