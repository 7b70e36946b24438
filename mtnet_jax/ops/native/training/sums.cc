// Sums over all pixels, per channel, for the statistics of batch norm.
//
// Sums come in pairs, and one pass computes both. It adds several pixels at a
// time, so that the running sums are read and written once for all of them.

#include <vector>

#include "loops.h"

namespace mtnet {
namespace {

constexpr int kRows = 8;         // Pixels at a time.
constexpr int64_t kChunk = 128;  // Pixels of a task.

// Adds kCount pixels to the sums (2, channels). For a vector of channels of a
// pixel, `terms` returns the pair of vectors to add.
template <int kCount, class Terms>
void AddRows(int64_t pixel, int64_t channels, float* sums, const Terms& terms) {
  OverChannels(0, channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V first = Load<V>(sums + c), second = Load<V>(sums + channels + c);
#pragma GCC unroll 8
    for (int row = 0; row < kCount; ++row) {
      const auto [one, other] = terms(zero, (pixel + row) * channels + c, c);
      first += one;
      second += other;
    }
    Store<V>(sums + c, first);
    Store<V>(sums + channels + c, second);
  });
}

// Sums the pairs over all pixels: in float over the pixels of a task, in double
// over the tasks. The order does not depend on the number of threads.
template <class Terms>
void Sum(ffi::ThreadPool pool, int64_t pixels, int64_t channels,
         const Terms& terms, float* first, float* second) {
  const int64_t chunks = CeilDiv(pixels, kChunk);
  std::vector<float> parts(chunks * 2 * channels);
  ParallelFor(pool, chunks, [&](int64_t chunk) {
    float* sums = parts.data() + chunk * 2 * channels;
    int64_t pixel = chunk * kChunk;
    const int64_t end = std::min(pixels, pixel + kChunk);
    for (; pixel + kRows <= end; pixel += kRows) {
      AddRows<kRows>(pixel, channels, sums, terms);
    }
    for (; pixel < end; ++pixel) AddRows<1>(pixel, channels, sums, terms);
  });
  std::vector<double> total(2 * channels);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const float* sums = parts.data() + chunk * 2 * channels;
    for (int64_t i = 0; i < 2 * channels; ++i) total[i] += sums[i];
  }
  std::copy(total.begin(), total.begin() + channels, first);
  std::copy(total.begin() + channels, total.end(), second);
}

template <class V>
struct Pair {
  V one, other;
};

ffi::Error Moments(ffi::ThreadPool pool, Images x, ffi::Result<Channels> sums,
                   ffi::Result<Channels> squares) {
  const float* values = x.typed_data();
  const int64_t channels = sums->dimensions()[0];
  Sum(
      pool, x.element_count() / channels, channels,
      [values](auto zero, int64_t at, int64_t) {
        using V = decltype(zero);
        const V value = Load<V>(values + at);
        return Pair<V>{value, value * value};
      },
      sums->typed_data(), squares->typed_data());
  return ffi::Error::Success();
}

ffi::Error GradientSums(ffi::ThreadPool pool, Images grad, Images x,
                        Channels mean, ffi::Result<Channels> sums,
                        ffi::Result<Channels> products) {
  const float* grads = grad.typed_data();
  const float* values = x.typed_data();
  const float* means = mean.typed_data();
  const int64_t channels = sums->dimensions()[0];
  Sum(
      pool, x.element_count() / channels, channels,
      [=](auto zero, int64_t at, int64_t c) {
        using V = decltype(zero);
        const V slope = Load<V>(grads + at);
        return Pair<V>{slope,
                       slope * (Load<V>(values + at) - Load<V>(means + c))};
      },
      sums->typed_data(), products->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_moments, Moments,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Ret<Channels>()
                                  .Ret<Channels>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_gradient_sums, GradientSums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Arg<Channels>()
                                  .Ret<Channels>()
                                  .Ret<Channels>());

}  // namespace mtnet
