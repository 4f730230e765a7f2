#include "matrix.h"

#include <algorithm>

namespace specc {
namespace {

// A task reads at least kLeastBytes of weights on average, so that handing it to a thread costs little beside it. Tasks of
// more than kMostBytes gain nothing.
constexpr int64_t kLeastBytes = 64 << 10, kMostBytes = 256 << 10;
constexpr int64_t kTasksOfThread = 3;  // with fewer, one thread waits long for the last task of another
constexpr int64_t kMaxTasks = 64;
constexpr int64_t kKeptBytes = 1 << 20;
constexpr int64_t kAskedAtOnce = 1 << 12, kMostAsked = 128 << 10;  // bytes that a waiting thread asks for
constexpr int64_t kLine = 64;
constexpr int64_t kSerialValues = 4096;  // activations that one thread quantises sooner than it shares them
constexpr int64_t kQuantizeParts = 8;

int64_t bytes_of(const Tensor& w) { return w.size() * (w.type == ort::kFloat ? 4 : w.type == ort::kBFloat16 ? 2 : 1); }

Shape shape_of(const Form& form, int64_t panels, int64_t k) {
  if (form.type == ort::kFloat) return {panels, k, kPanel};
  if (form.type == ort::kBFloat16) return {panels, ceil_div(k, 2), kPanel, 2};
  const int64_t blocks = ceil_div(k, form.block), steps = form.block / 4;
  return form.bits == 4 ? Shape{panels, blocks, steps, 64} : Shape{panels, blocks, steps, 2, 64};
}

}  // namespace

void* Scratch::bytes(int64_t count) {
  count = ceil_div(count, kLine) * kLine;
  if (used_ + count <= kKeptBytes) {
    thread_local const std::unique_ptr<char[]> kept(new char[kKeptBytes + kLine]);
    char* const start = kept.get() + (kLine - reinterpret_cast<uintptr_t>(kept.get()) % kLine) % kLine;
    used_ += count;
    return start + used_ - count;
  }
  more_.emplace_back(new char[count]);
  return more_.back().get();
}

void require_block(int bits, int block) {
  require(block == 32 || block == 64 || (block == 16 && bits == 8),
          "the attribute block_size is ", block, "; give 32 or 64, or 16 with 8 bits");
}

Form form_of(const Tensor& panels) {
  const size_t rank = panels.shape.size();
  if ((panels.type == ort::kFloat && rank == 3) || (panels.type == ort::kBFloat16 && rank == 4)) return {panels.type};
  require(panels.type == ort::kUint8 && (rank == 4 || rank == 5),
          "the weights have the shape ", panels.shape, "; panels of fp32, bf16 or uint8 are needed");
  const Form form{panels.type, rank == 4 ? 4 : 8, static_cast<int>(panels.shape[2] * 4)};
  require_block(form.bits, form.block);
  return form;
}

Matrix::Matrix(const Call& call, size_t first, const Form& form, int64_t k, int64_t columns)
    : form_(form),
      k_(k),
      columns_(columns),
      panels_(ceil_div(columns, kPanel)),
      blocks_(form.quantized() ? ceil_div(k, form.block) : 0),
      w_(call.input(first)) {
  require_shape("the weights", w_, shape_of(form, panels_, k));
  const size_t inputs = call.inputs();
  const auto input = [&](size_t kind) { return first + kind < inputs ? call.input(first + kind) : Tensor{}; };
  bias_ = input(4);
  if (bias_.data) require_shape("the biases", bias_, {columns});
  if (!form.quantized()) return;
  scales_ = input(1), zeros_ = input(2), offsets_ = input(3);
  const Shape per_block{panels_, blocks_, kPanel};
  require_shape("the scales", scales_, per_block);
  require(scales_.type == ort::kFloat || scales_.type == ort::kFloat16, "the scales must be fp32 or fp16");
  if (zeros_.data) require_shape("the zero points", zeros_, per_block);
  if (offsets_.data) require_shape("the offsets", offsets_, per_block);
  require(!zeros_.data || !offsets_.data, "weights have zero points or offsets, not both");
  factor_ = offsets_.data ? 1 : zeros_.data ? -1 : form.bits == 4 ? -8 : -128;
}

Activations Matrix::activations(const float* x, int64_t rows, Scratch& scratch) const {
  Activations a{x, rows, k_, nullptr, nullptr, nullptr};
  if (!form_.quantized()) return a;
  a.q = scratch.take<int8_t>(rows * blocks_ * form_.block);
  a.scales = scratch.take<float>(rows * blocks_);
  a.starts = scratch.take<int32_t>(rows * blocks_);
  return a;
}

void Matrix::prepare(const Activations& a, std::vector<Stage>& stages) const {
  if (!form_.quantized()) return;
  const int64_t parts = a.rows * k_ >= kSerialValues ? std::min(blocks_, kQuantizeParts) : 1;
  const auto quantize = [this, a, parts](int64_t part) {
    active().quantize(a.x, a.rows, k_, form_.block, factor_, a.q, a.scales, a.starts, blocks_ * part / parts,
                      blocks_ * (part + 1) / parts);
  };
  stages.push_back({parts, quantize});
}

Stage Matrix::stage(const Activations& a, float* y) const {
  const int64_t count = tasks(a.rows);
  return {count,
          [this, a, y, count](int64_t task) { multiply(a, y, first_of(task, count), first_of(task + 1, count)); },
          [this, count](int64_t task, int64_t step) { return ask(first_of(task, count), step); }};
}

int64_t Matrix::tasks(int64_t rows) const {
  const int64_t work = bytes_of(w_) * (form_.quantized() ? 2 : 1) * std::max<int64_t>(1, rows / 8);
  const int64_t wanted = std::min(kMaxTasks, std::max(kTasksOfThread * processors(), work / kMostBytes));
  return std::max<int64_t>(1, std::min({panels_, wanted, work / kLeastBytes}));
}

void Matrix::multiply(const Activations& a, float* y, int64_t first, int64_t last) const {
  product(a, y, first, last);
  if (!bias_.data) return;
  const float* const bias = bias_.as<float>();
  const int64_t end = std::min(last * kPanel, columns_);
  for (int64_t row = 0; row < a.rows; ++row)
    for (int64_t column = first * kPanel; column < end; ++column) y[row * columns_ + column] += bias[column];
}

void Matrix::product(const Activations& a, float* y, int64_t first, int64_t last) const {
  if (!form_.quantized()) {
    const Dense d{a.x, y, w_.data, a.rows, k_, columns_};
    return (form_.type == ort::kBFloat16 ? active().linear_bf16 : active().linear_f32)(d, first, last);
  }
  NBits n{};
  n.x = {a.q, a.scales, a.starts};
  n.y = y;
  n.w = w_.as<uint8_t>();
  n.scales = scales_.data;
  n.zeros = zeros_.as<uint8_t>();
  n.offsets = offsets_.as<float>();
  n.rows = a.rows;
  n.columns = columns_;
  n.blocks = blocks_;
  n.bits = form_.bits;
  n.block = form_.block;
  n.half_scales = scales_.type == ort::kFloat16;
  active().linear_nbits(n, first, last);
}

bool Matrix::ask(int64_t panel, int64_t step) const {
  const int64_t all = bytes_of(w_), start = all / panels_ * panel + step * kAskedAtOnce;
  const int64_t end = std::min(all, start + kAskedAtOnce);
  for (int64_t i = start; i < end; i += kLine) __builtin_prefetch(w_.as<char>() + i, 0, 2);
  return end < all && (step + 1) * kAskedAtOnce < kMostAsked;
}

}  // namespace specc
