// Depthwise 3 x 3 convolutions of NHWC float32, "same" padding.
//
// Outputs are made in tiles of a row, all channels of a block at a time, so
// that a tap's weights are read once per tile, and an input once for the taps
// that meet it. Pixels outside the image are pointers to zeros: no copy with a
// border is made.

#include <array>
#include <vector>

#include "loops.h"

namespace mtnet {
namespace {

constexpr int kTile = 7;         // Outputs at once: 7 divides 14, 28, 56, 112.
constexpr int64_t kBand = 8;     // Rows of a task.
constexpr int64_t kBlock = 256;  // Channels of a task.

using Shape = std::array<int64_t, 4>;  // Images, rows, columns, channels.

Shape ShapeOf(const Images& images) {
  const auto sizes = images.dimensions();
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

// A pixel's first channel; `outside` for one outside its image.
template <class Float>
inline Float* At(Float* data, const Shape& shape, int64_t image, int64_t y,
                 int64_t x, Float* outside) {
  if (y < 0 || y >= shape[1] || x < 0 || x >= shape[2]) return outside;
  return data + ((image * shape[1] + y) * shape[2] + x) * shape[3];
}

// A batch of images surrounded by zeros.
class Pixels {
 public:
  Pixels(const float* data, const Shape& shape, const float* zeros)
      : data_(data), shape_(shape), zeros_(zeros) {}

  const float* at(int64_t image, int64_t y, int64_t x) const {
    return At(data_, shape_, image, y, x, zeros_);
  }

 private:
  const float* data_;
  Shape shape_;
  const float* zeros_;
};

// The pixels that a tile of outputs sees: 3 rows of (kTile - 1) * stride + 3.
template <int kStride>
using Seen = std::array<std::array<const float*, (kTile - 1) * kStride + 3>, 3>;

// out[t] = sum over i, j of taps[i][j] * seen[i][t * stride + j].
template <int kStride>
void ForwardTile(const Seen<kStride>& seen, const float* taps, int64_t channels,
                 float* const* out, int64_t begin, int64_t end) {
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

// The same at a stride of 2. A tile of outputs at (y, x) owns the input pixels
// of rows 2 y and 2 y + 1, and of columns 2 x, 2 x + 1 and so on. These met it
// or the outputs after it: `grads` are rows y and y + 1 of them.
using GradsOfPairs = std::array<std::array<const float*, kTile + 1>, 2>;

void BackwardTileOfPairs(const GradsOfPairs& grads, const float* taps,
                         int64_t channels, const float* const (*in)[2 * kTile],
                         float* const (*in_grad)[2 * kTile], float* taps_grad,
                         int64_t begin, int64_t end) {
  OverChannels(begin, end, [&](auto zero, int64_t c) {
    using V = decltype(zero);
#pragma GCC unroll 2
    for (int row = 0; row < 2; ++row) {
      V sums[2 * kTile] = {};
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        // The middle tap meets even rows, the first and the last odd ones; the
        // first from the output below.
        if ((i + 1) % 2 != row) continue;
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          const int64_t at = (3 * i + j) * channels + c;
          const V tap = Load<V>(taps + at);
          V tap_grad = Load<V>(taps_grad + at);
#pragma GCC unroll 16
          for (int t = 0; t < kTile; ++t) {
            const V value = Load<V>(grads[i == 0][t + (j == 0)] + c);
            const int column = 2 * t + (j + 1) % 2;
            sums[column] += tap * value;
            tap_grad += Load<V>(in[row][column] + c) * value;
          }
          Store<V>(taps_grad + at, tap_grad);
        }
      }
#pragma GCC unroll 16
      for (int t = 0; t < 2 * kTile; ++t) {
        Store<V>(in_grad[row][t] + c, sums[t]);
      }
    }
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
void Forward(ffi::ThreadPool pool, const Pixels& x, const float* taps,
             float* out, const Shape& shape, int64_t dilation) {
  const auto [images, height, width, channels] = shape;
  const int64_t tasks =
      images * CeilDiv(height, kBand) * CeilDiv(channels, kBlock);
  ParallelFor(pool, tasks, [&](int64_t task) {
    std::vector<float> nowhere(channels);
    OverTiles(
        task, height, width, channels, dilation,
        [&](int64_t image, int64_t y, int64_t column, int64_t begin,
            int64_t end) {
          float* to[kTile];
          for (int t = 0; t < kTile; ++t) {
            to[t] =
                At(out, shape, image, y, column + t * dilation, nowhere.data());
          }
          ForwardTile<kStride>(Around<kStride>(x, image, y, column, dilation),
                               taps, channels, to, begin, end);
        });
  });
}

ffi::Error DepthwiseForward(ffi::ThreadPool pool, Images x, Taps taps,
                            ffi::Result<Images> out, int64_t stride,
                            int64_t dilation) {
  const std::vector<float> zeros(x.dimensions()[3]);
  const Pixels pixels(x.typed_data(), ShapeOf(x), zeros.data());
  const auto forward = stride == 1 ? Forward<1> : Forward<2>;
  forward(pool, pixels, taps.typed_data(), out->typed_data(), ShapeOf(*out),
          dilation);
  return ffi::Error::Success();
}

// Calls body(task, its part of the taps' gradient), and adds the parts up.
// There is one of every image's every band, so that threads need not wait for
// each other and sums are the same however many there are.
template <class Body>
void SumOfTaps(ffi::ThreadPool pool, int64_t images, int64_t height,
               int64_t channels, float* total, const Body& body) {
  const int64_t blocks = CeilDiv(channels, kBlock);
  const int64_t bands = images * CeilDiv(height, kBand);
  std::vector<float> parts(bands * 9 * channels);
  ParallelFor(pool, bands * blocks, [&](int64_t task) {
    body(task, parts.data() + task / blocks * 9 * channels);
  });
  AddUp(parts, 9 * channels, total);
}

void Backward(ffi::ThreadPool pool, const Pixels& x, const float* taps,
              const Pixels& grad, float* x_grad, float* taps_grad,
              const Shape& shape, int64_t dilation) {
  const auto [images, height, width, channels] = shape;
  SumOfTaps(pool, images, height, channels, taps_grad,
            [&](int64_t task, float* part) {
              std::vector<float> nowhere(channels);
              OverTiles(task, height, width, channels, dilation,
                        [&](int64_t image, int64_t y, int64_t column,
                            int64_t begin, int64_t end) {
                          const float* from[kTile];
                          float* to[kTile];
                          for (int t = 0; t < kTile; ++t) {
                            from[t] = x.at(image, y, column + t * dilation);
                            to[t] = At(x_grad, shape, image, y,
                                       column + t * dilation, nowhere.data());
                          }
                          BackwardTile(
                              Around<1>(grad, image, y, column, dilation), taps,
                              channels, from, to, part, begin, end);
                        });
            });
}

void BackwardOfPairs(ffi::ThreadPool pool, const Pixels& x, const float* taps,
                     const Pixels& grad, float* x_grad, float* taps_grad,
                     const Shape& shape) {
  const int64_t images = shape[0], channels = shape[3];
  const int64_t rows = CeilDiv(shape[1], 2), columns = CeilDiv(shape[2], 2);
  SumOfTaps(
      pool, images, rows, channels, taps_grad, [&](int64_t task, float* part) {
        std::vector<float> nowhere(channels);
        OverTiles(task, rows, columns, channels, 1,
                  [&](int64_t image, int64_t y, int64_t column, int64_t begin,
                      int64_t end) {
                    GradsOfPairs grads;
                    const float* from[2][2 * kTile];
                    float* to[2][2 * kTile];
                    for (int row = 0; row < 2; ++row) {
                      for (int t = 0; t <= kTile; ++t) {
                        grads[row][t] = grad.at(image, y + row, column + t);
                      }
                      for (int t = 0; t < 2 * kTile; ++t) {
                        from[row][t] = x.at(image, 2 * y + row, 2 * column + t);
                        to[row][t] = At(x_grad, shape, image, 2 * y + row,
                                        2 * column + t, nowhere.data());
                      }
                    }
                    BackwardTileOfPairs(grads, taps, channels, from, to, part,
                                        begin, end);
                  });
      });
}

ffi::Error DepthwiseBackward(ffi::ThreadPool pool, Images x, Taps taps,
                             Images grad, ffi::Result<Images> x_grad,
                             ffi::Result<Taps> taps_grad, int64_t stride,
                             int64_t dilation) {
  const Shape shape = ShapeOf(x);
  const std::vector<float> zeros(shape[3]);
  const Pixels pixels(x.typed_data(), shape, zeros.data());
  const Pixels grads(grad.typed_data(), ShapeOf(grad), zeros.data());
  if (stride == 1) {
    Backward(pool, pixels, taps.typed_data(), grads, x_grad->typed_data(),
             taps_grad->typed_data(), shape, dilation);
  } else {
    BackwardOfPairs(pool, pixels, taps.typed_data(), grads,
                    x_grad->typed_data(), taps_grad->typed_data(), shape);
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_depthwise_forward, DepthwiseForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Taps>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("dilation"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_depthwise_backward, DepthwiseBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Taps>()
                                  .Arg<Images>()
                                  .Ret<Images>()
                                  .Ret<Taps>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("dilation"));

}  // namespace mtnet
