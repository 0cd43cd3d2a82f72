#include "png_file.hpp"

#include <png.h>

#include <stdexcept>

namespace {

png_image new_image() {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    return image;
}

[[noreturn]] void fail(png_image& image, const std::string& path) {
    const std::string why = image.message;
    png_image_free(&image);
    throw std::runtime_error(path + ": " + why);
}

}  // namespace

Pixels read_png(const std::string& path) {
    png_image image = new_image();
    if (png_image_begin_read_from_file(&image, path.c_str()) == 0) fail(image, path);
    image.format = PNG_FORMAT_RGB;
    Pixels pixels{static_cast<int>(image.height), static_cast<int>(image.width), {}};
    pixels.rgb.resize(PNG_IMAGE_SIZE(image));
    if (png_image_finish_read(&image, nullptr, pixels.rgb.data(), 0, nullptr) == 0) fail(image, path);
    return pixels;
}

void write_png(const std::string& path, const Pixels& pixels) {
    png_image image = new_image();
    image.width = static_cast<png_uint_32>(pixels.width);
    image.height = static_cast<png_uint_32>(pixels.height);
    image.format = PNG_FORMAT_RGB;
    if (png_image_write_to_file(&image, path.c_str(), 0, pixels.rgb.data(), 0, nullptr) == 0) fail(image, path);
}
