// Matrix products, tile by tile.
//
// A tile of outputs, a few pixels times a few features, stays in registers
// while all products are added to it.

#ifndef MTNET_JAX_NATIVE_TILE_H_
#define MTNET_JAX_NATIVE_TILE_H_

#include <type_traits>

#include "loops.h"

namespace mtnet {

// Sizes of tiles that fill the vector registers: AVX-512 has 32, others 16.
#if defined(__AVX512F__)
constexpr int kPixels = 14;
constexpr int kChannels = 8;
constexpr bool kFewRegisters = false;
#else
constexpr int kPixels = 6;
constexpr int kChannels = 4;
constexpr bool kFewRegisters = true;
#endif

// Calls body(zero vector, number of vectors, f) for blocks of two vectors of
// features, and then of one; a block starts at feature f.
template <class Body>
inline void OverFeatures(int64_t begin, int64_t end, const Body& body) {
  using V = typename Vector<kLanes>::Type;
  constexpr int64_t kWidth = 2 * kLanes;
  int64_t f = begin;
  for (; f + kWidth <= end; f += kWidth) {
    body(V{}, std::integral_constant<int, 2>{}, f);
  }
  OverChannels(f, end, [&](auto zero, int64_t c) {
    body(zero, std::integral_constant<int, 1>{}, c);
  });
}

// Calls body(size, first) for blocks of kCount, then of kCount / 2, and so on.
template <int kCount, class Body>
inline void InBlocks(int64_t begin, int64_t end, const Body& body) {
  for (; begin + kCount <= end; begin += kCount) {
    body(std::integral_constant<int, kCount>{}, begin);
  }
  if constexpr (kCount > 1) InBlocks<kCount / 2>(begin, end, body);
}

// Calls make(count, first) for tiles of pixels. The last tile overlaps the one
// before, because a full tile takes no longer than a smaller one.
template <class Make>
inline void OverPixels(int64_t pixels, const Make& make) {
  if (pixels < kPixels) return InBlocks<kPixels / 2>(0, pixels, make);
  for (int64_t pixel = 0; pixel < pixels; pixel += kPixels) {
    make(std::integral_constant<int, kPixels>{},
         std::min(pixel, pixels - kPixels));
  }
}

// A tile of sums: kCount pixels, and kVectors vectors of features for each.
template <class V, int kVectors, int kCount>
struct Tile {
  V sums[kCount][kVectors] = {};

  // Adds `count` products. For the nth product, each of the kCount pixels has a
  // number, at numbers[pixel * between + n * step], which multiplies the
  // features at vectors[n * features].
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

  // Add, for callers that keep values of their own in registers. With few
  // registers, these values would displace some of the loop's, which would then
  // read memory twice as often, so the loop becomes a separate function.
  void AddApart(const float* numbers, int64_t between, int64_t step,
                const float* vectors, int64_t features, int64_t count) {
    if constexpr (kFewRegisters) {
      AddAlone(numbers, between, step, vectors, features, count);
    } else {
      Add(numbers, between, step, vectors, features, count);
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

  // Writes finish(vector of sums, index of the vector) for each vector.
  template <class Finish>
  void Write(float* to, int64_t features, const Finish& finish) const {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        StoreNth<V>(to + i * features, v, finish(sums[i][v], v));
      }
    }
  }

  void Write(float* to, int64_t features) const {
    Write(to, features, [](V sum, int) { return sum; });
  }

 private:
  [[gnu::noinline]] void AddAlone(const float* numbers, int64_t between,
                                  int64_t step, const float* vectors,
                                  int64_t features, int64_t count) {
    // The compiler can keep a local copy in registers, but not *this.
    Tile tile = *this;
    tile.Add(numbers, between, step, vectors, features, count);
    *this = tile;
  }
};

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_TILE_H_
