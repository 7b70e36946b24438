// Copies of image rows with a border of zeros, so that the offset from a pixel
// to each tap of a convolution is constant.

#ifndef MTNET_JAX_NATIVE_ROWS_H_
#define MTNET_JAX_NATIVE_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mtnet {

// Rows of one image with `pad` pixels of zeros around it.
class Rows {
 public:
  Rows(const float* x, int64_t height, int64_t width, int64_t channels,
       int64_t pad, int64_t count)
      : x_(x),
        height_(height),
        width_(width),
        channels_(channels),
        pad_(pad),
        stride_((width + 2 * pad) * channels),
        rows_(count * stride_) {}

  // Copies `count` rows of the padded image, from row `first` on.
  void Copy(int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = first + i - pad_;
      float* to = rows_.data() + i * stride_;
      if (y < 0 || y >= height_) {
        std::fill(to, to + stride_, 0.0f);
      } else {
        const float* from = x_ + y * width_ * channels_;
        std::copy(from, from + width_ * channels_, to + pad_ * channels_);
      }
    }
  }

  const float* operator[](int64_t i) const {
    return rows_.data() + i * stride_;
  }

 private:
  const float* x_;
  int64_t height_, width_, channels_, pad_, stride_;
  std::vector<float> rows_;
};

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_ROWS_H_
