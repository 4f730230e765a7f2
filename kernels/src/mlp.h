// The operator GatedMLP.
#pragma once

#include "operator.h"

namespace specc {

// A gated feed-forward network in one node: h = silu(x gate) * (x up), y = h down. With a residual and a norm's weights
// it also gives what the next layer reads: sum = y + residual, and out = sum / sqrt(mean(sum^2) + epsilon) * norm.
//
// Inputs: x [.., k]; residual [.., columns] and norm [columns], or both absent; then the inputs of a Matrix
// for gate, for up and for down, whose form is told by its panels.
// Outputs: out, or y without a norm, [.., columns]; sum [.., columns], which may be absent.
class GatedMLP {
 public:
  static constexpr const char* kName = "GatedMLP";
  static constexpr ort::ElementType kInputs[] = {
      ort::kFloat,     ort::kFloat,     ort::kFloat,                            // x, residual, norm
      ort::kUndefined, ort::kUndefined, ort::kUint8, ort::kFloat, ort::kFloat,  // gate
      ort::kUndefined, ort::kUndefined, ort::kUint8, ort::kFloat, ort::kFloat,  // up
      ort::kUndefined, ort::kUndefined, ort::kUint8, ort::kFloat, ort::kFloat,  // down
  };
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat, ort::kFloat};
  static constexpr size_t kRequired = 1;
  static constexpr bool kVariadicLast = false;

  explicit GatedMLP(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  int64_t hidden_, columns_;
  float epsilon_;
};

}  // namespace specc
