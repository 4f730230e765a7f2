#include "attention_op.h"

#include "matrix.h"
#include "residual.h"

namespace specc {
namespace {

// Inputs of ProjectedAttention.
enum Input : size_t { kX, kResidual, kNorm, kPacked, kOut = kPacked + Matrix::kInputs, kCall = kOut + Matrix::kInputs };

}  // namespace

TreeAttention::TreeAttention(const Attributes& attributes) : settings_(attributes) {}

void TreeAttention::compute(const Call& call) const {
  const Tensor packed = call.input(0);
  const int64_t heads = settings_.packed();
  require(packed.shape.size() == 3 && packed.shape[0] == 1 && packed.shape[2] % heads == 0,
          "query, key and value have the shape ", packed.shape, "; [1, slots, ", heads, " * size] is needed");
  const int64_t slots = packed.shape[1], size = packed.shape[2] / heads;
  Scratch scratch;
  const AttentionCall attention(call, settings_, 1, 1, slots, size, scratch);
  auto* const out = static_cast<float*>(call.output(0, {1, slots, settings_.heads * size}));
  std::vector<Stage> stages;
  attention.add(packed.as<float>(), out, stages);
  attention.is_small() ? run_alone(stages) : run_stages(call, stages);
}

ProjectedAttention::ProjectedAttention(const Attributes& attributes)
    : settings_(attributes),
      size_(attributes.integer("head_size")),
      columns_(attributes.integer("columns")),
      epsilon_(attributes.real("epsilon", 0.0f)) {
  require_positive("head_size", size_);
  require_positive("columns", columns_);
}

void ProjectedAttention::compute(const Call& call) const {
  const Tensor x = call.input(kX);
  require(x.shape.size() == 3 && x.shape[0] == 1 && x.shape[2] > 0,
          "the activations have the shape ", x.shape, "; [1, slots, k] is needed");
  const int64_t slots = x.shape[1], k = x.shape[2], width = settings_.packed() * size_, mixed = settings_.heads * size_;
  const Matrix first(call, kPacked, form_of(call.input(kPacked)), k, width);
  const Matrix last(call, kOut, form_of(call.input(kOut)), mixed, columns_);
  Scratch scratch;
  const Residual residual(call, kResidual, {1, slots, columns_}, epsilon_, scratch);
  const AttentionCall attention(call, settings_, kCall, 2, slots, size_, scratch);
  if (!slots) return;

  auto* const packed = scratch.take<float>(slots * width);
  auto* const out = scratch.take<float>(slots * mixed);
  const Activations a = first.activations(x.as<float>(), slots, scratch);
  const Activations b = last.activations(out, slots, scratch);
  std::vector<Stage> stages;
  first.prepare(a, stages);
  stages.push_back(first.stage(a, packed));
  attention.add(packed, out, stages);
  last.prepare(b, stages);
  stages.push_back(last.stage(b, residual.product()));
  residual.finish(slots, stages);
  run_stages(call, stages);
}

}  // namespace specc
