// Depthwise 3 x 3 convolutions with "same" padding, and their gradients: NHWC,
// float32. stencil.h defines the tiles.

#include <vector>

#include "stencil.h"

namespace mtnet {
namespace {

constexpr int64_t kBand = 8;     // Rows of a task.
constexpr int64_t kBlock = 256;  // Channels of a task.

// Computes the gradients of a tile of input pixels, and adds the tile's part to
// the gradient of the taps (9, channels). `seen` points to the output gradients
// around the tile.
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
        // The output below and right of a pixel has used the tap above and left
        // of the centre for it, so the taps are in reverse order.
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

// The same for a stride of 2. A tile of outputs that starts at (y, x) handles
// the input pixels of rows 2 y and 2 y + 1, from column 2 x on. Only these
// outputs and those one below or one to the right have used these pixels:
// `grads` points to the output gradients of rows y and y + 1.
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
        // Even rows are used by the centre tap, odd rows by the last tap and,
        // for the output row below, by the first tap.
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

// The part of a task: a band of rows and a block of channels of one image.
Part PartOf(int64_t task, int64_t height, int64_t channels) {
  const int64_t blocks = CeilDiv(channels, kBlock);
  const int64_t bands = CeilDiv(height, kBand);
  const int64_t begin = task % blocks * kBlock;
  const int64_t first = task / blocks % bands * kBand;
  return {task / blocks / bands, first, std::min(height, first + kBand), begin,
          std::min(channels, begin + kBlock)};
}

template <int kStride>
void Forward(ffi::ThreadPool pool, const Pixels& x, const Depthwise& layer,
             float* out, const Shape& shape, int64_t dilation) {
  const int64_t images = shape[0], height = shape[1], width = shape[2];
  const int64_t channels = shape[3];
  const int64_t tasks =
      images * CeilDiv(height, kBand) * CeilDiv(channels, kBlock);
  ParallelFor(pool, tasks, [&](int64_t task) {
    std::vector<float> nowhere(channels);
    const Part part = PartOf(task, height, channels);
    ForwardPart<kStride>(
        x, layer, part, dilation, out + part.image * height * width * channels,
        {1, height, width, channels}, 0, channels, nowhere.data());
  });
}

ffi::Error DepthwiseForward(ffi::ThreadPool pool, Images x, Taps taps,
                            ffi::Result<Images> out, int64_t stride,
                            int64_t dilation) {
  const std::vector<float> zeros(x.dimensions()[3]);
  const Pixels pixels(x.typed_data(), ShapeOf(x), zeros.data());
  const auto forward = stride == 1 ? Forward<1> : Forward<2>;
  forward(pool, pixels, {taps.typed_data(), zeros.data()}, out->typed_data(),
          ShapeOf(*out), dilation);
  return ffi::Error::Success();
}

// Calls body(part, sums) for every part, and adds up the sums, which are the
// gradients of the taps. Each band of each image has its own sums, so that
// threads need not wait for each other, and the result does not depend on their
// number.
template <class Body>
void SumOfTaps(ffi::ThreadPool pool, int64_t images, int64_t height,
               int64_t channels, float* total, const Body& body) {
  const int64_t blocks = CeilDiv(channels, kBlock);
  const int64_t bands = images * CeilDiv(height, kBand);
  std::vector<float> sums(bands * 9 * channels);
  ParallelFor(pool, bands * blocks, [&](int64_t task) {
    body(PartOf(task, height, channels),
         sums.data() + task / blocks * 9 * channels);
  });
  AddUp(sums, 9 * channels, total);
}

void Backward(ffi::ThreadPool pool, const Pixels& x, const float* taps,
              const Pixels& grad, float* x_grad, float* taps_grad,
              const Shape& shape, int64_t dilation) {
  const int64_t images = shape[0], height = shape[1], width = shape[2];
  const int64_t channels = shape[3];
  SumOfTaps(pool, images, height, channels, taps_grad,
            [&](const Part& part, float* sums) {
              std::vector<float> nowhere(channels);
              OverTiles(part, width, dilation, [&](int64_t y, int64_t column) {
                const float* from[kTile];
                float* to[kTile];
                for (int t = 0; t < kTile; ++t) {
                  from[t] = x.at(part.image, y, column + t * dilation);
                  to[t] = At(x_grad, shape, part.image, y,
                             column + t * dilation, nowhere.data());
                }
                BackwardTile(Around<1>(grad, part.image, y, column, dilation),
                             taps, channels, from, to, sums, part.begin,
                             part.end);
              });
            });
}

void BackwardOfPairs(ffi::ThreadPool pool, const Pixels& x, const float* taps,
                     const Pixels& grad, float* x_grad, float* taps_grad,
                     const Shape& shape) {
  const int64_t images = shape[0], channels = shape[3];
  const int64_t rows = CeilDiv(shape[1], 2), columns = CeilDiv(shape[2], 2);
  SumOfTaps(pool, images, rows, channels, taps_grad,
            [&](const Part& part, float* sums) {
              std::vector<float> nowhere(channels);
              OverTiles(part, columns, 1, [&](int64_t y, int64_t column) {
                GradsOfPairs grads;
                const float* from[2][2 * kTile];
                float* to[2][2 * kTile];
                for (int row = 0; row < 2; ++row) {
                  for (int t = 0; t <= kTile; ++t) {
                    grads[row][t] = grad.at(part.image, y + row, column + t);
                  }
                  for (int t = 0; t < 2 * kTile; ++t) {
                    from[row][t] =
                        x.at(part.image, 2 * y + row, 2 * column + t);
                    to[row][t] = At(x_grad, shape, part.image, 2 * y + row,
                                    2 * column + t, nowhere.data());
                  }
                }
                BackwardTileOfPairs(grads, taps, channels, from, to, sums,
                                    part.begin, part.end);
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
