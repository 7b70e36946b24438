// Shared by all loops: XLA's threads and arrays, and vectors of channels.

#ifndef MTNET_JAX_NATIVE_LOOPS_H_
#define MTNET_JAX_NATIVE_LOOPS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace mtnet {

namespace ffi = xla::ffi;

using Images = ffi::BufferR4<ffi::F32>;  // (images, rows, columns, channels)
using Taps = ffi::BufferR4<ffi::F32>;    // (rows, columns, channels, features)
using Channels = ffi::BufferR1<ffi::F32>;

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls body(i) for every i in [0, count), in any order, on several threads.
//
// The calling thread takes part, and waits only for calls that other threads
// have begun. It must not wait for the pool, because it may itself be a thread
// of the pool, and all others may be waiting in the same way.
template <class Body>
void ParallelFor(ffi::ThreadPool pool, int64_t count, const Body& body) {
  struct Progress {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  auto progress = std::make_shared<Progress>();
  // A helper may start after this function has returned. It then finds nothing
  // to do and does not use the body, which no longer exists.
  auto work = [progress, count, &body] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      body(i);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t helpers = std::min(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) {
    auto helper = work;
    pool.Schedule(std::move(helper));
  }
  work();
  while (progress->done.load(std::memory_order_acquire) < count) {
    std::this_thread::yield();
  }
}

// Adds up consecutive parts of `size` floats, in order.
inline void AddUp(const std::vector<float>& parts, int64_t size, float* total) {
  std::fill(total, total + size, 0.0f);
  for (auto part = parts.begin(); part != parts.end(); part += size) {
    for (int64_t i = 0; i < size; ++i) total[i] += part[i];
  }
}

// A vector of kLanes floats. Load and Store do not require aligned memory.
template <int kLanes>
struct Vector {
  typedef float Type __attribute__((vector_size(kLanes * sizeof(float))));
};
template <>
struct Vector<1> {
  typedef float Type;
};

template <class V>
inline V Load(const float* from) {
  V values;
  std::memcpy(&values, from, sizeof(V));
  return values;
}

template <class V>
inline void Store(float* to, V values) {
  std::memcpy(to, &values, sizeof(V));
}

// Loads the nth vector after an address.
template <class V>
inline V LoadNth(const float* from, int n) {
  return Load<V>(from + n * (sizeof(V) / sizeof(float)));
}

template <class V>
inline void StoreNth(float* to, int n, V values) {
  Store<V>(to + n * (sizeof(V) / sizeof(float)), values);
}

// A ReLU or the identity: raises values to a floor of 0 or -inf. Keeps NaNs.
class Floor {
 public:
  explicit Floor(bool relu)
      : floor_(relu ? 0.0f : -std::numeric_limits<float>::infinity()) {}

  template <class V>
  V operator()(V values) const {
    const V floor = floor_ + V{};
    return floor > values ? floor : values;
  }

 private:
  float floor_;
};

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Calls body(zero vector, c) for the channels [c, c + lanes) of the vector,
// until all of [begin, end) are done. The last channels use shorter vectors, of
// at least 4 lanes. Fewer channels are rare and done one by one, because each
// length of vectors adds to the compile time.
template <int kWidth = kLanes, class Body>
inline void OverChannels(int64_t begin, int64_t end, const Body& body) {
  for (; begin + kWidth <= end; begin += kWidth) {
    body(typename Vector<kWidth>::Type{}, begin);
  }
  if constexpr (kWidth > 1) {
    OverChannels<(kWidth > 4 ? kWidth / 2 : 1)>(begin, end, body);
  }
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_LOOPS_H_
