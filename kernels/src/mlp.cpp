#include "mlp.h"

#include <algorithm>

#include "matrix.h"
#include "residual.h"

namespace specc {
namespace {

enum Input : size_t { kX, kResidual, kNorm, kGate, kUp = kGate + Matrix::kInputs, kDown = kUp + Matrix::kInputs };

}  // namespace

GatedMLP::GatedMLP(const Attributes& attributes)
    : hidden_(attributes.integer("hidden")),
      columns_(attributes.integer("columns")),
      epsilon_(attributes.real("epsilon", 0.0f)) {
  require_positive("hidden", hidden_);
  require_positive("columns", columns_);
}

void GatedMLP::compute(const Call& call) const {
  const Tensor x = call.input(kX);
  require(!x.shape.empty() && x.shape.back() > 0, "the activations have the shape ", x.shape, "; [.., k] is needed");
  const int64_t k = x.shape.back(), rows = x.size() / k, hidden = hidden_;
  const Matrix gate(call, kGate, form_of(call.input(kGate)), k, hidden);
  const Matrix up(call, kUp, form_of(call.input(kUp)), k, hidden);
  const Matrix down(call, kDown, form_of(call.input(kDown)), hidden, columns_);
  require(gate.shares_activations(up), "gate and up stand in panels of two forms; one form is needed");
  Scratch scratch;
  const Residual residual(call, kResidual, with_last(x.shape, columns_), epsilon_, scratch);
  if (!rows) return;

  const Activations a = gate.activations(x.as<float>(), rows, scratch);
  auto* const gates = scratch.take<float>(rows * hidden);
  auto* const values = scratch.take<float>(rows * hidden);
  const Activations h = down.activations(gates, rows, scratch);
  const int64_t tasks = gate.tasks(rows);
  std::vector<Stage> stages;
  gate.prepare(a, stages);
  stages.push_back({tasks,
                    [&](int64_t task) {
                      const int64_t first = gate.first_of(task, tasks), last = gate.first_of(task + 1, tasks);
                      gate.multiply(a, gates, first, last);
                      up.multiply(a, values, first, last);
                      const int64_t start = first * kPanel, count = std::min(last * kPanel, hidden) - start;
                      for (int64_t at = start; at < rows * hidden; at += hidden)
                        active().gate(gates + at, values + at, gates + at, count);
                    },
                    [&](int64_t task, int64_t step) { return gate.ask(gate.first_of(task, tasks), step); }});
  down.prepare(h, stages);
  stages.push_back(down.stage(h, residual.product()));
  residual.finish(rows, stages);
  run_stages(call, stages);
}

}  // namespace specc
