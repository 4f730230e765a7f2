#include "argmax.h"

#include "variants.h"

namespace specc {
namespace {

constexpr int64_t kSerialValues = 1 << 16;  // values that one thread reads sooner than it shares them

}  // namespace

void ArgMax::compute(const Call& call) const {
  const Tensor x = call.input(0);
  require(!x.shape.empty() && x.shape.back() > 0, "the logits have the shape ", x.shape, "; [.., n] is needed");
  const int64_t n = x.shape.back(), rows = x.size() / n;
  Shape shape = x.shape;
  shape.resize(shape.size() - 1);
  auto* const y = static_cast<int64_t*>(call.output(0, shape));
  const auto row = [&](int64_t i) { y[i] = active().largest(x.as<float>() + i * n, n); };
  if (rows * n >= kSerialValues) return call.parallel(rows, row);
  for (int64_t i = 0; i < rows; ++i) row(i);
}

}  // namespace specc
