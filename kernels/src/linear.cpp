#include "linear.h"

#include <algorithm>
#include <cstring>

#include "matrix.h"

namespace specc {
namespace {

// y [..., columns] = x [..., k] times the weights.
void product(const Call& call, const Form& form, int64_t columns) {
  const Tensor x = call.input(0);
  require(!x.shape.empty(), "the activations are a scalar; they need at least one dimension");
  const int64_t k = x.shape.back();
  const Matrix matrix(call, 1, form, k, columns);
  auto* const y = static_cast<float*>(call.output(0, with_last(x.shape, columns)));
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < x.shape.size(); ++i) rows *= x.shape[i];
  if (!rows) return;
  if (!k) return std::fill_n(y, rows * columns, 0.0f), void();  // sums of nothing
  Scratch scratch;
  const Activations a = matrix.activations(x.as<float>(), rows, scratch);
  std::vector<Stage> stages;
  matrix.prepare(a, stages);
  stages.push_back(matrix.stage(a, y));
  run_stages(call, stages);
}

}  // namespace

template <bool BF16>
LinearDense<BF16>::LinearDense(const Attributes& attributes) : columns_(attributes.integer("columns")) {
  require_positive("columns", columns_);
}

template <bool BF16>
void LinearDense<BF16>::compute(const Call& call) const {
  product(call, {BF16 ? ort::kBFloat16 : ort::kFloat}, columns_);
}

template class LinearDense<true>;
template class LinearDense<false>;

LinearNBits::LinearNBits(const Attributes& attributes)
    : columns_(attributes.integer("columns")),
      bits_(static_cast<int>(attributes.integer("bits"))),
      block_(static_cast<int>(attributes.integer("block_size"))) {
  require_positive("columns", columns_);
  require(bits_ == 4 || bits_ == 8, "the attribute bits is ", bits_, "; give 4 or 8");
  require_block(bits_, block_);
}

void LinearNBits::compute(const Call& call) const { product(call, {ort::kUint8, bits_, block_}, columns_); }

GatherBF16::GatherBF16(const Attributes& attributes)
    : columns_(attributes.integer("columns")), k_(attributes.integer("k")) {
  require_positive("columns", columns_);
}

void GatherBF16::compute(const Call& call) const {
  const Tensor ids = call.input(0), w = call.input(1);
  const int64_t pairs = ceil_div(k_, 2);
  require_shape("the weights", w, {ceil_div(columns_, kPanel), pairs, kPanel, 2});
  Shape shape = ids.shape;
  shape.push_back(k_);
  auto* y = static_cast<float*>(call.output(0, shape));
  for (int64_t row = 0; row < ids.size(); ++row, y += k_) {
    const int64_t id = ids.as<int64_t>()[row];
    require(id >= 0 && id < columns_, "the id ", id, " is outside the table of ", columns_, " rows");
    const uint16_t* from = w.as<uint16_t>() + id / kPanel * pairs * kPanel * 2 + id % kPanel * 2;
    for (int64_t i = 0; i < k_; ++i) {
      const uint32_t bits = static_cast<uint32_t>(from[i / 2 * kPanel * 2 + i % 2]) << 16;
      std::memcpy(y + i, &bits, 4);
    }
  }
}

}  // namespace specc
