// The kernel gradient of 3 x 3 convolutions with few channels: NHWC, float32.
//
// Each tile of the kernel gradient (see tile.h) sums over the pixels of a row.

#include <vector>

#include "rows.h"
#include "tile.h"

namespace mtnet {
namespace {

constexpr int64_t kLongBand = 16;  // Output rows whose inputs a task copies.
constexpr int64_t kSums = 64;      // Maximum number of partial sums.

ffi::Error Conv3x3KernelGradient(ffi::ThreadPool pool, Images x, Images grad,
                                 ffi::Result<Taps> taps_grad, int64_t stride,
                                 int64_t pad) {
  const auto in = x.dimensions(), out = grad.dimensions();
  const int64_t height = out[1], width = out[2];
  const int64_t channels = in[3], features = out[3];
  const int64_t bands = CeilDiv(height, kLongBand);
  const int64_t all = in[0] * bands;
  const int64_t size = 9 * channels * features;
  // The number of partial sums, and with it the result, does not depend on the
  // number of threads.
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
