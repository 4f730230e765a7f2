#include "linear.h"

#include <algorithm>
#include <cstring>

#include "variants.h"

namespace specc {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;  // weights of a task: enough to outweigh handing it to a thread
constexpr int64_t kMaxTasks = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Splits the panels over threads. Which thread computes a column changes no bit of it.
template <class Body>
void over_panels(const Call& call, int64_t panels, int64_t bytes, int64_t rows, const Body& body) {
  const int64_t work = bytes * std::max<int64_t>(1, rows / 8);
  const int64_t tasks = std::max<int64_t>(1, std::min({panels, kMaxTasks, work / kTaskBytes}));
  call.parallel(tasks, [&](int64_t task) { body(panels * task / tasks, panels * (task + 1) / tasks); });
}

Shape with_last(Shape shape, int64_t last) {
  shape.back() = last;
  return shape;
}

void require_columns(int64_t columns) {
  require(columns > 0, "the attribute columns is " + std::to_string(columns) + "; it must be positive");
}

void require_activations(const Tensor& x) {
  require(!x.shape.empty(), "the activations are a scalar; they need at least one dimension");
}

void require_shape(const char* what, const Tensor& tensor, const Shape& expected) {
  require(tensor.shape == expected, std::string(what) + " have the shape " + to_string(tensor.shape) + "; " +
                                        to_string(expected) + " is needed");
}

}  // namespace

template <bool BF16>
LinearDense<BF16>::LinearDense(const Attributes& attributes) : columns_(attributes.integer("columns")) {
  require_columns(columns_);
}

template <bool BF16>
void LinearDense<BF16>::compute(const Call& call) const {
  const Tensor x = call.input(0), w = call.input(1);
  require_activations(x);
  const int64_t k = x.shape.back(), panels = ceil_div(columns_, kPanel);
  require_shape("the weights", w, BF16 ? Shape{panels, ceil_div(k, 2), kPanel, 2} : Shape{panels, k, kPanel});
  auto* y = static_cast<float*>(call.output(0, with_last(x.shape, columns_)));
  const int64_t rows = k ? x.size() / k : 0;
  if (!rows) return std::fill_n(y, k ? 0 : x.size() * columns_, 0.0f), void();
  const Dense d{x.as<float>(), y, w.data, rows, k, columns_};
  const DenseFn run = BF16 ? active().linear_bf16 : active().linear_f32;
  over_panels(call, panels, w.size() * (BF16 ? 2 : 4), rows,
              [&](int64_t first, int64_t last) { run(d, first, last); });
}

template class LinearDense<true>;
template class LinearDense<false>;

LinearNBits::LinearNBits(const Attributes& attributes)
    : columns_(attributes.integer("columns")),
      bits_(static_cast<int>(attributes.integer("bits"))),
      block_(static_cast<int>(attributes.integer("block_size"))) {
  require_columns(columns_);
  require(bits_ == 4 || bits_ == 8, "the attribute bits is " + std::to_string(bits_) + "; give 4 or 8");
  require(block_ == 32 || block_ == 64 || (block_ == 16 && bits_ == 8),
          "the attribute block_size is " + std::to_string(block_) + "; give 32 or 64, or 16 with 8 bits");
}

void LinearNBits::compute(const Call& call) const {
  const Tensor x = call.input(0), w = call.input(1), scales = call.input(2);
  const Tensor zeros = call.inputs() > 3 ? call.input(3) : Tensor{};
  const Tensor offsets = call.inputs() > 4 ? call.input(4) : Tensor{};
  require_activations(x);
  const int64_t k = x.shape.back(), panels = ceil_div(columns_, kPanel), blocks = ceil_div(k, block_);
  const int64_t steps = block_ / 4;
  require_shape("the weights", w, bits_ == 4 ? Shape{panels, blocks, steps, 64} : Shape{panels, blocks, steps, 2, 64});
  require_shape("the scales", scales, {panels, blocks, kPanel});
  require(scales.type == ort::kFloat || scales.type == ort::kFloat16, "the scales must be fp32 or fp16");
  if (zeros.data) require_shape("the zero points", zeros, {panels, blocks, kPanel});
  if (offsets.data) require_shape("the offsets", offsets, {panels, blocks, kPanel});
  require(!zeros.data || !offsets.data, "weights have zero points or offsets, not both");
  auto* y = static_cast<float*>(call.output(0, with_last(x.shape, columns_)));
  const int64_t rows = k ? x.size() / k : 0;
  if (!rows) return std::fill_n(y, k ? 0 : x.size() * columns_, 0.0f), void();

  // Kept between calls; a kernel may run in several threads at once.
  thread_local std::vector<int8_t> q;
  thread_local std::vector<float> row_scales;
  thread_local std::vector<int32_t> starts;
  q.resize(rows * blocks * block_);
  row_scales.resize(rows * blocks);
  starts.resize(rows * blocks);
  int8_t* const q_data = q.data();  // a worker's own vectors are others
  float* const scale_data = row_scales.data();
  int32_t* const start_data = starts.data();
  const int factor = offsets.data ? 1 : zeros.data ? -1 : bits_ == 4 ? -8 : -128;
  const int64_t parts = rows * k >= 8192 ? std::min<int64_t>(rows, 8) : 1;
  call.parallel(parts, [&](int64_t part) {
    const int64_t row = rows * part / parts, end = rows * (part + 1) / parts;
    active().quantize(x.as<float>() + row * k, end - row, k, block_, factor, q_data + row * blocks * block_,
                      scale_data + row * blocks, start_data + row * blocks);
  });
  NBits n{};
  n.x = {q_data, scale_data, start_data};
  n.y = y;
  n.w = w.as<uint8_t>();
  n.scales = scales.data;
  n.zeros = zeros.as<uint8_t>();
  n.offsets = offsets.as<float>();
  n.rows = rows;
  n.columns = columns_;
  n.blocks = blocks;
  n.bits = bits_;
  n.block = block_;
  n.half_scales = scales.type == ort::kFloat16;
  over_panels(call, panels, w.size() * 2, rows,
              [&](int64_t first, int64_t last) { active().linear_nbits(n, first, last); });
}

GatherBF16::GatherBF16(const Attributes& attributes)
    : columns_(attributes.integer("columns")), k_(attributes.integer("k")) {
  require_columns(columns_);
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
    require(id >= 0 && id < columns_,
            "the id " + std::to_string(id) + " is outside the table of " + std::to_string(columns_) + " rows");
    const uint16_t* from = w.as<uint16_t>() + id / kPanel * pairs * kPanel * 2 + id % kPanel * 2;
    for (int64_t i = 0; i < k_; ++i) {
      const uint32_t bits = static_cast<uint32_t>(from[i / 2 * kPanel * 2 + i % 2]) << 16;
      std::memcpy(y + i, &bits, 4);
    }
  }
}

}  // namespace specc
