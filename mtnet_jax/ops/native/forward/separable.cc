// Depthwise separable convolutions for evaluation: a depthwise 3 x 3 and a
// pointwise convolution, each followed by a batch norm with fixed statistics
// and, optionally, a ReLU.
//
// A task computes some rows of an image, few enough that the values between the
// two convolutions fit into a core's own cache. This way, memory is read and
// written once, and not once per operation.

#include <vector>

#include "stencil.h"
#include "tile.h"

namespace mtnet {
namespace {

constexpr int64_t kScratch = 160 << 10;  // Maximum of floats between the two.

struct Pointwise {
  const float* matrix;  // (channels, features).
  const float* scale;   // Per feature.
  const float* shift;
  bool relu_after;
  int64_t channels, features;
};

// Copies a matrix into contiguous blocks of features, so that a tile reads
// memory in order.
std::unique_ptr<float[]> Pack(ffi::ThreadPool pool, const Pointwise& layer) {
  const int64_t channels = layer.channels, features = layer.features;
  std::unique_ptr<float[]> packed(new float[channels * features]);
  constexpr int64_t kWidth = 2 * kLanes;
  ParallelFor(pool, CeilDiv(features, kWidth), [&](int64_t task) {
    const int64_t first = task * kWidth;
    OverFeatures(
        first, std::min(features, first + kWidth),
        [&](auto zero, auto vectors, int64_t f) {
          using V = decltype(zero);
          constexpr int64_t kBlock = vectors * sizeof(V) / sizeof(float);
          float* to = packed.get() + f * channels;
          for (int64_t c = 0; c < channels; ++c) {
            for (int v = 0; v < vectors; ++v) {
              StoreNth<V>(to + c * kBlock, v,
                          LoadNth<V>(layer.matrix + c * features + f, v));
            }
          }
        });
  });
  return packed;
}

// Computes out (pixels, features) from in (pixels, stride), of which the first
// `channels` of each pixel are used.
void Mix(const float* in, int64_t pixels, int64_t stride, const float* packed,
         const Pointwise& layer, float* out) {
  const Floor after(layer.relu_after);
  const int64_t channels = layer.channels, features = layer.features;
  OverFeatures(0, features, [&](auto zero, auto vectors, int64_t f) {
    constexpr int64_t kBlock = vectors * sizeof(zero) / sizeof(float);
    const auto make = [&](auto count, int64_t pixel) {
      Tile<decltype(zero), vectors, count> tile;
      tile.AddApart(in + pixel * stride, stride, 1, packed + f * channels,
                    kBlock, channels);
      tile.Write(out + pixel * features + f, features, [&](auto sum, int v) {
        using V = decltype(sum);
        return after(sum * LoadNth<V>(layer.scale + f, v) +
                     LoadNth<V>(layer.shift + f, v));
      });
    };
    OverPixels(pixels, make);
  });
}

template <int kStride>
void Separable(ffi::ThreadPool pool, const Pixels& x,
               const Depthwise& depthwise, const Pointwise& pointwise,
               float* out, const Shape& shape, int64_t dilation) {
  const int64_t images = shape[0], height = shape[1], width = shape[2];
  const int64_t channels = pointwise.channels;
  // The extra lanes avoid strides of a power of two, at which cache lines of
  // different pixels would evict each other.
  const int64_t stride = channels + kLanes;
  const int64_t wanted = std::max(CeilDiv(height * width * stride, kScratch),
                                  CeilDiv(2 * pool.num_threads(), images));
  const int64_t rows = CeilDiv(height, std::min(wanted, height));
  const int64_t bands = CeilDiv(height, rows);
  const auto packed = Pack(pool, pointwise);
  ParallelFor(pool, images * bands, [&](int64_t task) {
    const int64_t image = task / bands, first = task % bands * rows;
    const int64_t last = std::min(height, first + rows);
    std::unique_ptr<float[]> between(
        new float[(last - first) * width * stride]);
    std::vector<float> nowhere(channels);
    ForwardPart<kStride>(x, depthwise, {image, first, last, 0, channels},
                         dilation, between.get(),
                         {1, last - first, width, stride}, first, channels,
                         nowhere.data());
    Mix(between.get(), (last - first) * width, stride, packed.get(), pointwise,
        out + (image * height + first) * width * pointwise.features);
  });
}

ffi::Error SeparableForward(ffi::ThreadPool pool, Images x, Taps taps,
                            Channels between, Taps matrix, Channels scale,
                            Channels shift, ffi::Result<Images> out,
                            int64_t stride, int64_t dilation,
                            int64_t relu_before, int64_t relu_between,
                            int64_t relu_after) {
  if (out->element_count() == 0) return ffi::Error::Success();
  const int64_t channels = x.dimensions()[3];
  const std::vector<float> zeros(channels);
  const Pixels pixels(x.typed_data(), ShapeOf(x), zeros.data());
  const Depthwise depthwise = {taps.typed_data(), between.typed_data(),
                               relu_before != 0, relu_between != 0};
  const Pointwise pointwise = {
      matrix.typed_data(), scale.typed_data(), shift.typed_data(),
      relu_after != 0,     channels,           out->dimensions()[3]};
  const auto separable = stride == 1 ? Separable<1> : Separable<2>;
  separable(pool, pixels, depthwise, pointwise, out->typed_data(),
            ShapeOf(*out), dilation);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtnet_separable, SeparableForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Taps>()
                                  .Arg<Channels>()
                                  .Arg<Taps>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("dilation")
                                  .Attr<int64_t>("relu_before")
                                  .Attr<int64_t>("relu_between")
                                  .Attr<int64_t>("relu_after"));

}  // namespace mtnet
