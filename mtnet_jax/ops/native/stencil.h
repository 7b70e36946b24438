// Depthwise 3 x 3 convolutions, tile by tile.
//
// A tile is several output pixels of a row. Each weight is read once per tile,
// and each input pixel once for the three taps of a kernel row. Pixels outside
// of the image are pointers to zeros, so that no padded copy is needed.

#ifndef MTNET_JAX_NATIVE_STENCIL_H_
#define MTNET_JAX_NATIVE_STENCIL_H_

#include <array>

#include "loops.h"

namespace mtnet {

constexpr int kTile = 7;  // Outputs of a tile: 7 divides 14, 28, 56, 112.

using Shape = std::array<int64_t, 4>;  // Images, rows, columns, channels.

inline Shape ShapeOf(const Images& images) {
  const auto sizes = images.dimensions();
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

// The address of a pixel's first channel; `outside` if it is not in the image.
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

// Rows [first, last) of an image, channels [begin, end).
struct Part {
  int64_t image, first, last, begin, end;
};

// Calls body(y, x) for all tiles of a part, where (y, x) is the first pixel of
// the tile. The pixels of a tile are `dilation` apart.
template <class Body>
void OverTiles(const Part& part, int64_t width, int64_t dilation,
               const Body& body) {
  for (int64_t y = part.first; y < part.last; ++y) {
    for (int64_t phase = 0; phase < std::min(dilation, width); ++phase) {
      for (int64_t x = phase; x < width; x += kTile * dilation) body(y, x);
    }
  }
}

// The pixels that a tile of outputs reads: 3 rows of (kTile - 1) * stride + 3.
template <int kStride>
using Seen = std::array<std::array<const float*, (kTile - 1) * kStride + 3>, 3>;

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

// A depthwise convolution with its bias and ReLUs.
struct Depthwise {
  const float* taps;         // (9, channels).
  const float* shift;        // Per channel, added to the output.
  bool relu_before = false;  // Applies a ReLU to the inputs.
  bool relu_after = false;   // Applies a ReLU to the outputs.
};

// out[t] = sum over i, j of taps[i][j] * seen[i][t * stride + j].
template <int kStride>
void ForwardTile(const Seen<kStride>& seen, const Depthwise& layer,
                 int64_t channels, float* const* out, int64_t begin,
                 int64_t end) {
  const Floor before(layer.relu_before), after(layer.relu_after);
  OverChannels(begin, end, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V sums[kTile];
    const V shift = Load<V>(layer.shift + c);
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) sums[t] = shift;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      V tap[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        tap[j] = Load<V>(layer.taps + (3 * i + j) * channels + c);
      }
#pragma GCC unroll 16
      for (int k = 0; k < (kTile - 1) * kStride + 3; ++k) {
        const V value = before(Load<V>(seen[i][k] + c));
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          if ((k - j) % kStride == 0 && k >= j && (k - j) / kStride < kTile) {
            sums[(k - j) / kStride] += tap[j] * value;
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) Store<V>(out[t] + c, after(sums[t]));
  });
}

// Computes a part of a convolution's outputs. `to` is one image of the given
// shape, whose first row is row `first` of the outputs. `nowhere` is a buffer
// for one pixel: the outputs of a tile that are outside of the image.
template <int kStride>
void ForwardPart(const Pixels& x, const Depthwise& layer, const Part& part,
                 int64_t dilation, float* to, const Shape& shape, int64_t first,
                 int64_t channels, float* nowhere) {
  OverTiles(part, shape[2], dilation, [&](int64_t y, int64_t column) {
    float* out[kTile];
    for (int t = 0; t < kTile; ++t) {
      out[t] = At(to, shape, 0, y - first, column + t * dilation, nowhere);
    }
    ForwardTile<kStride>(Around<kStride>(x, part.image, y, column, dilation),
                         layer, channels, out, part.begin, part.end);
  });
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_STENCIL_H_
