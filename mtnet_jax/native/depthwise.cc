// Depthwise 3 x 3 convolutions of NHWC float32, "same" padding.
//
// Outputs are made in tiles of a row, all channels of a block at a time, so
// that a tap's weights are read once per tile, and an input once for the taps
// that meet it. Pixels outside the image are pointers to zeros: no copy with a
// border is made.

#include <array>
#include <vector>

#include "parallel.h"

namespace mtnet {
namespace {

constexpr int kTile = 7;  // Outputs at once: 7 divides 14, 28, 56, 112.
constexpr int64_t kBand = 8;  // Rows of a task.
constexpr int64_t kBlock = 256;  // Channels of a task.

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One batch of images; a pixel outside, or of no image, is zeros.
class Pixels {
 public:
  Pixels(const float* data, const ffi::Buffer<ffi::F32>::Dimensions& shape,
         const float* zeros)
      : data_(data),
        height_(shape[1]),
        width_(shape[2]),
        channels_(shape[3]),
        zeros_(zeros) {}

  const float* at(int64_t image, int64_t y, int64_t x) const {
    if (y < 0 || y >= height_ || x < 0 || x >= width_) return zeros_;
    return data_ + ((image * height_ + y) * width_ + x) * channels_;
  }

 private:
  const float* data_;
  int64_t height_, width_, channels_;
  const float* zeros_;
};

// The pixels that a tile of outputs sees: 3 rows of (kTile - 1) * stride + 3.
template <int kStride>
using Seen =
    std::array<std::array<const float*, (kTile - 1) * kStride + 3>, 3>;

// out[t] = sum over i, j of taps[i][j] * seen[i][t * stride + j].
template <int kStride>
void ForwardTile(const Seen<kStride>& seen, const float* taps,
                 int64_t channels, float* const* out, int64_t begin,
                 int64_t end) {
  OverChannels(begin, end, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V sums[kTile] = {};
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      V tap[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        tap[j] = Load<V>(taps + (3 * i + j) * channels + c);
      }
#pragma GCC unroll 16
      for (int k = 0; k < (kTile - 1) * kStride + 3; ++k) {
        const V value = Load<V>(seen[i][k] + c);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          if ((k - j) % kStride == 0 && k >= j && (k - j) / kStride < kTile) {
            sums[(k - j) / kStride] += tap[j] * value;
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) Store<V>(out[t] + c, sums[t]);
  });
}

// For outputs' gradients seen around each input pixel: that pixel's gradient,
// and what it adds to the taps' (9, channels).
void BackwardTile(const Seen<1>& seen, const float* taps, int64_t channels,
                  const float* const* in, float* const* in_grad,
                  float* taps_grad, int64_t begin, int64_t end) {
  OverChannels(begin, end, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V sums[kTile] = {};
    V pixels[kTile];
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) pixels[t] = Load<V>(in[t] + c);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      V tap[3];
      V tap_grad[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        // An output below and right of a pixel met it with a tap above and
        // left of the middle.
        const int64_t at = (8 - 3 * i - j) * channels + c;
        tap[j] = Load<V>(taps + at);
        tap_grad[j] = Load<V>(taps_grad + at);
      }
#pragma GCC unroll 16
      for (int k = 0; k < kTile + 2; ++k) {
        const V value = Load<V>(seen[i][k] + c);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          if (k >= j && k - j < kTile) {
            sums[k - j] += tap[j] * value;
            tap_grad[j] += pixels[k - j] * value;
          }
        }
      }
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        Store<V>(taps_grad + (8 - 3 * i - j) * channels + c, tap_grad[j]);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) Store<V>(in_grad[t] + c, sums[t]);
  });
}

// Calls body(image, y, x of a tile's first pixel, begin, end) for all tiles of
// a task's rows and channels. Pixels of a tile lie `dilation` apart.
template <class Body>
void OverTiles(int64_t task, int64_t height, int64_t width, int64_t channels,
               int64_t dilation, const Body& body) {
  const int64_t blocks = CeilDiv(channels, kBlock);
  const int64_t bands = CeilDiv(height, kBand);
  const int64_t begin = task % blocks * kBlock;
  const int64_t end = std::min(channels, begin + kBlock);
  const int64_t first = task / blocks % bands * kBand;
  const int64_t image = task / blocks / bands;
  for (int64_t y = first; y < std::min(height, first + kBand); ++y) {
    for (int64_t phase = 0; phase < std::min(dilation, width); ++phase) {
      for (int64_t x = phase; x < width; x += kTile * dilation) {
        body(image, y, x, begin, end);
      }
    }
  }
}

int64_t Tasks(int64_t images, int64_t height, int64_t channels) {
  return images * CeilDiv(height, kBand) * CeilDiv(channels, kBlock);
}

template <int kStride>
Seen<kStride> Around(const Pixels& pixels, int64_t image, int64_t y, int64_t x,
                     int64_t dilation) {
  Seen<kStride> seen;
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t k = 0; k < static_cast<int64_t>(seen[i].size()); ++k) {
      seen[i][k] = pixels.at(image, y * kStride + (i - 1) * dilation,
                             x * kStride + (k - 1) * dilation);
    }
  }
  return seen;
}

template <int kStride>
void Forward(ffi::ThreadPool pool, Buffer x, Buffer taps, int64_t dilation,
             Result out) {
  const auto shape = out->dimensions();
  const int64_t images = shape[0], height = shape[1], width = shape[2];
  const int64_t channels = shape[3];
  const std::vector<float> zeros(channels);
  const Pixels pixels(x.typed_data(), x.dimensions(), zeros.data());
  ParallelFor(pool, Tasks(images, height, channels), [&](int64_t task) {
    float nowhere[kBlock];
    OverTiles(task, height, width, channels, dilation,
              [&](int64_t image, int64_t y, int64_t x, int64_t begin,
                  int64_t end) {
                float* to[kTile];
                for (int t = 0; t < kTile; ++t) {
                  const int64_t column = x + t * dilation;
                  to[t] = column < width
                              ? out->typed_data() +
                                    ((image * height + y) * width + column) *
                                        channels
                              : nowhere - begin;
                }
                ForwardTile<kStride>(
                    Around<kStride>(pixels, image, y, x, dilation),
                    taps.typed_data(), channels, to, begin, end);
              });
  });
}

ffi::Error DepthwiseForward(ffi::ThreadPool pool, Buffer x, Buffer taps,
                            Result out, int64_t stride, int64_t dilation) {
  if (stride == 1) {
    Forward<1>(pool, x, taps, dilation, out);
  } else {
    Forward<2>(pool, x, taps, dilation, out);
  }
  return ffi::Error::Success();
}

ffi::Error DepthwiseBackward(ffi::ThreadPool pool, Buffer x, Buffer taps,
                             Buffer grad, Result x_grad, Result taps_grad,
                             int64_t dilation) {
  const auto shape = x.dimensions();
  const int64_t images = shape[0], height = shape[1], width = shape[2];
  const int64_t channels = shape[3];
  const std::vector<float> zeros(channels);
  const Pixels pixels(x.typed_data(), shape, zeros.data());
  const Pixels grads(grad.typed_data(), shape, zeros.data());
  // Of every image's every band, so that threads need not wait for each other
  // and sums are the same however many there are.
  const int64_t bands = images * CeilDiv(height, kBand);
  std::vector<float> parts(bands * 9 * channels);
  ParallelFor(pool, Tasks(images, height, channels), [&](int64_t task) {
    float nowhere[kBlock];
    float* part =
        parts.data() + task / CeilDiv(channels, kBlock) * 9 * channels;
    OverTiles(task, height, width, channels, dilation,
              [&](int64_t image, int64_t y, int64_t x, int64_t begin,
                  int64_t end) {
                const float* from[kTile];
                float* to[kTile];
                for (int t = 0; t < kTile; ++t) {
                  const int64_t column = x + t * dilation;
                  from[t] = pixels.at(image, y, column);
                  to[t] = column < width
                              ? x_grad->typed_data() +
                                    ((image * height + y) * width + column) *
                                        channels
                              : nowhere - begin;
                }
                BackwardTile(Around<1>(grads, image, y, x, dilation),
                             taps.typed_data(), channels, from, to, part,
                             begin, end);
              });
  });
  float* total = taps_grad->typed_data();
  std::fill(total, total + 9 * channels, 0.0f);
  for (int64_t band = 0; band < bands; ++band) {
    const float* part = parts.data() + band * 9 * channels;
    for (int64_t i = 0; i < 9 * channels; ++i) total[i] += part[i];
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace mtnet

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    mtnet_depthwise_forward, mtnet::DepthwiseForward,
    xla::ffi::Ffi::Bind()
        .Ctx<xla::ffi::ThreadPool>()
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
        .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
        .Attr<int64_t>("stride")
        .Attr<int64_t>("dilation"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    mtnet_depthwise_backward, mtnet::DepthwiseBackward,
    xla::ffi::Ffi::Bind()
        .Ctx<xla::ffi::ThreadPool>()
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
        .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
        .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
        .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
        .Attr<int64_t>("dilation"));
