// 3 x 3 convolutions with few channels: NHWC, float32.
//
// Each tile of outputs (see tile.h) sums over all taps and channels.

#include "rows.h"
#include "tile.h"

namespace mtnet {
namespace {

constexpr int64_t kBand = 4;  // Output rows of a task.

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
            // The three taps of a row are contiguous, and so are their pixels.
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

}  // namespace mtnet
