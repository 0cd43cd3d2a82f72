// PNG files as packed RGB pixels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Pixels {
    int height = 0, width = 0;
    std::vector<std::uint8_t> rgb;  ///< [height, width, 3]
};

/// Throws std::runtime_error.
Pixels read_png(const std::string& path);
void write_png(const std::string& path, const Pixels& pixels);
