#include "residual.h"

#include <algorithm>

namespace specc {
namespace {

constexpr int64_t kSerialValues = 1 << 12;  // values that one thread normalises sooner than it shares them
constexpr int64_t kParts = 8;

}  // namespace

Residual::Residual(const Call& call, size_t first, const Shape& shape, float epsilon, Scratch& scratch)
    : columns_(shape.back()), epsilon_(epsilon), residual_(call.input(first)), norm_(call.input(first + 1)) {
  require(!residual_.data == !norm_.data, "a residual needs the weights of a norm, and they need a residual");
  out_ = static_cast<float*>(call.output(0, shape));
  sum_ = out_;
  if (!norm_.data) return;
  require(residual_.shape == shape, "the residual has the shape ", residual_.shape, "; ", shape, " is needed");
  require_shape("the weights of the norm", norm_, {columns_});
  sum_ = static_cast<float*>(call.output(1, shape));
  if (!sum_) sum_ = scratch.take<float>(residual_.size());
}

void Residual::finish(int64_t rows, std::vector<Stage>& stages) const {
  if (!norm_.data) return;
  const int64_t parts = rows * columns_ >= kSerialValues ? std::min(rows, kParts) : 1;
  const auto rows_of = [this, rows, parts](int64_t part) {
    for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      float* const sum = sum_ + row * columns_;
      active().add_norm(sum, residual_.as<float>() + row * columns_, norm_.as<float>(), epsilon_, columns_, sum,
                        out_ + row * columns_);
    }
  };
  stages.push_back({parts, rows_of});
}

}  // namespace specc
