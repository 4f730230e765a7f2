// The operators LinearBF16, LinearF32, LinearNBits and GatherBF16.
#pragma once

#include "operator.h"

namespace specc {

// y [..., columns] = x [..., k] times the weights.
template <bool BF16>
class LinearDense {
 public:
  static constexpr const char* kName = BF16 ? "LinearBF16" : "LinearF32";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, BF16 ? ort::kBFloat16 : ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr size_t kRequired = 2;
  static constexpr bool kVariadicLast = false;

  explicit LinearDense(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  int64_t columns_;
};

// y [..., columns] = x [..., k] in 8 bits times weights of 4 or 8 bits.
class LinearNBits {
 public:
  static constexpr const char* kName = "LinearNBits";
  // activations, weights, scales (fp32 or fp16), zero points
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kUint8, ort::kUndefined, ort::kUint8, ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr size_t kRequired = 3;
  static constexpr bool kVariadicLast = false;

  explicit LinearNBits(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  int64_t columns_;
  int bits_, block_;
};

// Rows of a table that stands in LinearBF16's panels, such as the embedding of a model whose head is tied to it.
class GatherBF16 {
 public:
  static constexpr const char* kName = "GatherBF16";
  static constexpr ort::ElementType kInputs[] = {ort::kInt64, ort::kBFloat16};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr size_t kRequired = 2;
  static constexpr bool kVariadicLast = false;

  explicit GatherBF16(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  int64_t columns_, k_;
};

}  // namespace specc
