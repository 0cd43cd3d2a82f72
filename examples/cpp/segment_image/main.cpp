// One image in, its overlay out: segment_image BUNDLE IN.png OUT.png [--crf]
#include <atrous/atrous.hpp>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "png_file.hpp"

namespace {

/// Lays the classes' colours over the image, 60 % of them.
void lay_over(Pixels& picture, const atrous::Result& result, const std::vector<atrous::ClassInfo>& classes) {
    constexpr float kAlpha = 0.6f;
    for (std::size_t i = 0; i < result.labels.size(); ++i) {
        const auto& color = classes[result.labels[i]].color;
        for (std::size_t c = 0; c < 3; ++c) {
            std::uint8_t& value = picture.rgb[3 * i + c];
            value = static_cast<std::uint8_t>((1 - kAlpha) * static_cast<float>(value) +
                                              (kAlpha * static_cast<float>(color[c]) + 0.5f));
        }
    }
}

void print_shares(const atrous::Result& result, const std::vector<atrous::ClassInfo>& classes) {
    std::vector<std::size_t> counts(classes.size());
    for (const std::uint8_t label : result.labels) ++counts[label];
    for (std::size_t i = 0; i < classes.size(); ++i) {
        if (counts[i] == 0) continue;
        const double share = 100.0 * static_cast<double>(counts[i]) / static_cast<double>(result.labels.size());
        std::printf("%5.1f %%  %s\n", share, classes[i].name.c_str());
    }
}

}  // namespace

int main(int count, char** arguments) {
    const bool has_crf = count == 5 && std::strcmp(arguments[4], "--crf") == 0;
    if (count != 4 && !has_crf) {
        std::fprintf(stderr, "usage: %s BUNDLE IN.png OUT.png [--crf]\n", arguments[0]);
        return 2;
    }
    try {
        atrous::Options options;
        options.crf = has_crf;
        const atrous::Segmenter segmenter(arguments[1], options);
        Pixels picture = read_png(arguments[2]);
        const atrous::Result result = segmenter({picture.rgb.data(), picture.height, picture.width});
        const std::vector<atrous::ClassInfo> classes = segmenter.bundle().classes();
        print_shares(result, classes);
        lay_over(picture, result, classes);
        write_png(arguments[3], picture);
        std::printf("%.1f ms in %s\n", result.timings.total_ms, segmenter.info().backend);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
