// Plain 3 x 3 convolutions of NHWC float32, of few channels.
//
// Tiles of outputs (see tile.h) gather all taps and channels. The rows that a
// task reads are first copied with their border of zeros, so that every tap is
// at a distance known beforehand.

#include <vector>

#include "tile.h"

namespace mtnet {
namespace {

constexpr int64_t kBand = 4;       // Output rows of a task.
constexpr int64_t kLongBand = 16;  // Rows at once where a kernel is summed up.
constexpr int64_t kSums = 64;  // Of a kernel's gradient, before they are added.

// Rows of one image with `pad` zeros around it.
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

  // Takes `count` rows, from this one of the padded image on.
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

ffi::Error Conv3x3(ffi::ThreadPool pool, Images x, Taps taps, Channels scale,
                   Channels shift, ffi::Result<Images> out, int64_t stride,
                   int64_t pad, int64_t relu) {
  const auto in = x.dimensions();
  const int64_t height = out->dimensions()[1], width = out->dimensions()[2];
  const int64_t channels = in[3], features = out->dimensions()[3];
  const int64_t bands = CeilDiv(height, kBand);
  const Floor floor(relu != 0);
  ParallelFor(pool, in[0] * bands, [&](int64_t task) {
    const int64_t image = task / bands, first = task % bands * kBand;
    const int64_t count = std::min(kBand, height - first);
    Rows rows(x.typed_data() + image * in[1] * in[2] * channels, in[1], in[2],
              channels, pad, (kBand - 1) * stride + 3);
    rows.Copy(first * stride, (count - 1) * stride + 3);
    OverFeatures(0, features, [&](auto zero, auto vectors, int64_t f) {
      for (int64_t y = 0; y < count; ++y) {
        float* row = out->typed_data() +
                     (image * height + first + y) * width * features + f;
        const auto make = [&](auto pixels, int64_t column) {
          Tile<decltype(zero), vectors, pixels> tile;
          for (int64_t i = 0; i < 3; ++i) {
            // The taps of a row lie one after the other, and so do its pixels.
            tile.Add(rows[y * stride + i] + column * stride * channels,
                     stride * channels, 1,
                     taps.typed_data() + i * 3 * channels * features + f,
                     features, 3 * channels);
          }
          tile.Write(row + column * features, features, [&](auto sum, int v) {
            using V = decltype(sum);
            return floor(sum * LoadNth<V>(scale.typed_data() + f, v) +
                         LoadNth<V>(shift.typed_data() + f, v));
          });
        };
        OverPixels(width, make);
      }
    });
  });
  return ffi::Error::Success();
}

ffi::Error Conv3x3KernelGradient(ffi::ThreadPool pool, Images x, Images grad,
                                 ffi::Result<Taps> taps_grad, int64_t stride,
                                 int64_t pad) {
  const auto in = x.dimensions(), out = grad.dimensions();
  const int64_t height = out[1], width = out[2];
  const int64_t channels = in[3], features = out[3];
  const int64_t bands = CeilDiv(height, kLongBand);
  const int64_t all = in[0] * bands;
  const int64_t size = 9 * channels * features;
  // So many sums, whatever the number of threads: it is the same then.
  const int64_t count = std::min(all, kSums);
  std::vector<float> parts(count * size);
  const auto add_band = [&](int64_t band, float* part) {
    const int64_t image = band / bands, first = band % bands * kLongBand;
    const int64_t rows_here = std::min(kLongBand, height - first);
    Rows rows(x.typed_data() + image * in[1] * in[2] * channels, in[1], in[2],
              channels, pad, (kLongBand - 1) * stride + 3);
    rows.Copy(first * stride, (rows_here - 1) * stride + 3);
    OverFeatures(0, features, [&](auto zero, auto vectors, int64_t f) {
      for (int64_t y = 0; y < rows_here; ++y) {
        const float* grads = grad.typed_data() +
                             (image * height + first + y) * width * features +
                             f;
        for (int64_t tap = 0; tap < 9; ++tap) {
          const float* pixels = rows[y * stride + tap / 3] + tap % 3 * channels;
          InBlocks<kChannels>(0, channels, [&](auto number, int64_t c) {
            float* sums = part + (tap * channels + c) * features + f;
            Tile<decltype(zero), vectors, number> tile;
            tile.Read(sums, features);
            tile.Add(pixels + c, 1, stride * channels, grads, features, width);
            tile.Write(sums, features);
          });
        }
      }
    });
  };
  ParallelFor(pool, count, [&](int64_t task) {
    const int64_t end = (task + 1) * all / count;
    for (int64_t band = task * all / count; band < end; ++band) {
      add_band(band, parts.data() + task * size);
    }
  });
  AddUp(parts, size, taps_grad->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_conv3x3, Conv3x3,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Taps>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad")
                                  .Attr<int64_t>("relu"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_conv3x3_kernel_gradient,
                              Conv3x3KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Taps>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad"));

}  // namespace mtnet
