// Plain 3 x 3 convolutions of NHWC float32 with stride 1, of few channels.
//
// A tile of outputs, some pixels of a row by some features, stays in registers
// while all taps and channels are added to it. The rows that a task reads are
// first copied with their border of zeros, so that every tap is at a distance
// known beforehand.

#include <type_traits>
#include <vector>

#include "loops.h"

namespace mtnet {
namespace {

// Tiles that fill the registers: 32 of AVX-512, 16 of others.
#if defined(__AVX512F__)
constexpr int kPixels = 12;
constexpr int kChannels = 8;
#else
constexpr int kPixels = 6;
constexpr int kChannels = 4;
#endif
constexpr int64_t kBand = 4;       // Output rows of a task.
constexpr int64_t kLongBand = 16;  // Rows at once where a kernel is summed up.
constexpr int64_t kSums = 64;  // Of a kernel's gradient, before they are added.

// Calls body(zero vector, number of vectors, f) for blocks of one or two
// vectors of features from f on.
template <class Body>
inline void OverFeatures(int64_t features, const Body& body) {
  using V = typename Vector<kLanes>::Type;
  constexpr int64_t kWidth = 2 * kLanes;
  int64_t f = 0;
  for (; f + kWidth <= features; f += kWidth) {
    body(V{}, std::integral_constant<int, 2>{}, f);
  }
  OverChannels(f, features, [&](auto zero, int64_t c) {
    body(zero, std::integral_constant<int, 1>{}, c);
  });
}

// Calls body(number, first) for blocks of so many, then of half as many, ...
template <int kCount, class Body>
inline void InBlocks(int64_t begin, int64_t end, const Body& body) {
  for (; begin + kCount <= end; begin += kCount) {
    body(std::integral_constant<int, kCount>{}, begin);
  }
  if constexpr (kCount > 1) InBlocks<kCount / 2>(begin, end, body);
}

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

// A tile of sums: kCount of them beside each other, each kVectors vectors of
// features.
template <class V, int kVectors, int kCount>
struct Tile {
  V sums[kCount][kVectors] = {};

  // Adds `count` products of a vector of features with kCount numbers, which
  // lie `between` apart. The next product's are `step` further on.
  void Add(const float* numbers, int64_t between, int64_t step,
           const float* vectors, int64_t features, int64_t count) {
    for (int64_t n = 0; n < count; ++n) {
      V those[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        those[v] = LoadNth<V>(vectors + n * features, v);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          sums[i][v] += numbers[i * between + n * step] * those[v];
        }
      }
    }
  }

  void Read(const float* from, int64_t features) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sums[i][v] = LoadNth<V>(from + i * features, v);
      }
    }
  }

  void Write(float* to, int64_t features) const {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        StoreNth<V>(to + i * features, v, sums[i][v]);
      }
    }
  }
};

ffi::Error Conv3x3(ffi::ThreadPool pool, Images x, Taps taps,
                   ffi::Result<Images> out, int64_t pad) {
  const auto in = x.dimensions();
  const int64_t height = out->dimensions()[1], width = out->dimensions()[2];
  const int64_t channels = in[3], features = out->dimensions()[3];
  const int64_t bands = CeilDiv(height, kBand);
  ParallelFor(pool, in[0] * bands, [&](int64_t task) {
    const int64_t image = task / bands, first = task % bands * kBand;
    const int64_t count = std::min(kBand, height - first);
    Rows rows(x.typed_data() + image * in[1] * in[2] * channels, in[1], in[2],
              channels, pad, kBand + 2);
    rows.Copy(first, count + 2);
    OverFeatures(features, [&](auto zero, auto vectors, int64_t f) {
      for (int64_t y = 0; y < count; ++y) {
        float* row = out->typed_data() +
                     (image * height + first + y) * width * features + f;
        const auto make = [&](auto pixels, int64_t column) {
          Tile<decltype(zero), vectors, pixels> tile;
          for (int64_t i = 0; i < 9; ++i) {
            tile.Add(rows[y + i / 3] + (column + i % 3) * channels, channels, 1,
                     taps.typed_data() + i * channels * features + f, features,
                     channels);
          }
          tile.Write(row + column * features, features);
        };
        if (width < kPixels) {
          InBlocks<kPixels / 2>(0, width, make);
          continue;
        }
        // The last one makes some pixels again: a tile of few takes as long.
        for (int64_t column = 0; column < width; column += kPixels) {
          make(std::integral_constant<int, kPixels>{},
               std::min(column, width - kPixels));
        }
      }
    });
  });
  return ffi::Error::Success();
}

ffi::Error Conv3x3KernelGradient(ffi::ThreadPool pool, Images x, Images grad,
                                 ffi::Result<Taps> taps_grad, int64_t pad) {
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
              channels, pad, kLongBand + 2);
    rows.Copy(first, rows_here + 2);
    OverFeatures(features, [&](auto zero, auto vectors, int64_t f) {
      for (int64_t y = 0; y < rows_here; ++y) {
        const float* grads = grad.typed_data() +
                             (image * height + first + y) * width * features +
                             f;
        for (int64_t tap = 0; tap < 9; ++tap) {
          const float* pixels = rows[y + tap / 3] + tap % 3 * channels;
          InBlocks<kChannels>(0, channels, [&](auto number, int64_t c) {
            float* sums = part + (tap * channels + c) * features + f;
            Tile<decltype(zero), vectors, number> tile;
            tile.Read(sums, features);
            tile.Add(pixels + c, 1, channels, grads, features, width);
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
                                  .Ret<Images>()
                                  .Attr<int64_t>("pad"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_conv3x3_kernel_gradient,
                              Conv3x3KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Taps>()
                                  .Attr<int64_t>("pad"));

}  // namespace mtnet
