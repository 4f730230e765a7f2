// The operator ArgMax: the likeliest token of each row of logits.
#pragma once

#include "operator.h"

namespace specc {

// y [..] int64: for each row of x [.., n] fp32 the place of the first of its largest values. NaN counts as no value; a
// row in which no value is above minus infinity gives 0.
class ArgMax {
 public:
  static constexpr const char* kName = "ArgMax";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kInt64};
  static constexpr size_t kRequired = 1;
  static constexpr bool kVariadicLast = false;

  explicit ArgMax(const Attributes&) {}
  void compute(const Call& call) const;
};

}  // namespace specc
