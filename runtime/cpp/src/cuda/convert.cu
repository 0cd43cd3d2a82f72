// Pictures of a caller, with any distance between rows and in either order of channels → packed RGB.
#include <cstdint>

/// out [height, width, 3] = pixels, `row_bytes` from one row to the next; with `swap`, B and R change places.
extern "C" __global__ void convert_to_rgb(const uint8_t* pixels, int64_t row_bytes, int height, int width, int swap,
                                          uint8_t* out) {
    const int64_t count = int64_t{height} * width;
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; at < count; at += step) {
        const uint8_t* pixel = pixels + at / width * row_bytes + at % width * 3;
        out[3 * at] = pixel[swap != 0 ? 2 : 0];
        out[3 * at + 1] = pixel[1];
        out[3 * at + 2] = pixel[swap != 0 ? 0 : 2];
    }
}
