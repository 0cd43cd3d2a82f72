// Per-pixel feature vectors, produced a tile at a time so that they are never stored for a whole image.
#pragma once

#include <cstdint>

#include "embed_kernels.hpp"

namespace atrous {

/// Where the features of the pixels come from. Implementations are read from several threads at once.
class FeatureSource {
  public:
    virtual ~FeatureSource() = default;
    virtual std::int64_t pixels() const = 0;
    virtual int features() const = 0;
    /// Writes the features of pixels [begin, begin + count) to the first columns of `tile.features`.
    virtual void fill(std::int64_t begin, int count, EmbedTile& tile) const = 0;
};

/// (x / sxy, y / sxy) of an image in scan order.
class PositionFeatures : public FeatureSource {
  public:
    PositionFeatures(int height, int width, float sigma_x_px, float sigma_y_px)
        : height_(height), width_(width), sigma_x_(sigma_x_px), sigma_y_(sigma_y_px) {}
    std::int64_t pixels() const override { return std::int64_t{height_} * width_; }
    int features() const override { return 2; }
    void fill(std::int64_t begin, int count, EmbedTile& tile) const override {
        std::int64_t y = begin / width_;
        int x = static_cast<int>(begin % width_);
        for (int i = 0; i < count; ++i) {
            tile.features[0][i] = static_cast<float>(x) / sigma_x_;
            tile.features[1][i] = static_cast<float>(y) / sigma_y_;
            if (++x == width_) {
                x = 0;
                ++y;
            }
        }
    }

  private:
    int height_, width_;
    float sigma_x_, sigma_y_;
};

/// (x / sxy, y / sxy, r / srgb, g / srgb, b / srgb) of an 8-bit RGB image [H, W, 3].
class ColourFeatures : public FeatureSource {
  public:
    ColourFeatures(const std::uint8_t* rgb, int height, int width, float sigma_x_px, float sigma_y_px,
                   const float (&sigma_rgb)[3])
        : position_(height, width, sigma_x_px, sigma_y_px), rgb_(rgb) {
        for (int c = 0; c < 3; ++c) sigma_rgb_[c] = sigma_rgb[c];
    }
    std::int64_t pixels() const override { return position_.pixels(); }
    int features() const override { return 5; }
    void fill(std::int64_t begin, int count, EmbedTile& tile) const override {
        position_.fill(begin, count, tile);
        const std::uint8_t* pixel = rgb_ + begin * 3;
        for (int i = 0; i < count; ++i) {
            for (int c = 0; c < 3; ++c) {
                tile.features[2 + c][i] = static_cast<float>(pixel[i * 3 + c]) / sigma_rgb_[c];
            }
        }
    }

  private:
    PositionFeatures position_;
    const std::uint8_t* rgb_;
    float sigma_rgb_[3];
};

/// Rows of a float array [features, pixels], taken as they are.
class ArrayFeatures : public FeatureSource {
  public:
    ArrayFeatures(const float* rows, int features, std::int64_t pixels)
        : rows_(rows), features_(features), pixels_(pixels) {}
    std::int64_t pixels() const override { return pixels_; }
    int features() const override { return features_; }
    void fill(std::int64_t begin, int count, EmbedTile& tile) const override {
        for (int f = 0; f < features_; ++f) {
            const float* row = rows_ + f * pixels_ + begin;
            for (int i = 0; i < count; ++i) tile.features[f][i] = row[i];
        }
    }

  private:
    const float* rows_;
    int features_;
    std::int64_t pixels_;
};

}  // namespace atrous
