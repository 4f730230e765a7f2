// The operators TreeAttention and ProjectedAttention.
#pragma once

#include "attention_call.h"
#include "operator.h"

namespace specc {

// Attention of N slots over caches.
//
// Inputs: query, key, value packed [1, N, (heads + 2 kv_heads) size], and those of AttentionCall.
// Outputs: [1, N, heads size]; keys and values of each lane.
class TreeAttention {
 public:
  static constexpr const char* kName = "TreeAttention";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kInt64, ort::kInt64, ort::kInt64, ort::kFloat,
                                                 ort::kFloat, ort::kBool,  ort::kFloat, ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat, ort::kFloat};
  static constexpr size_t kRequired = 2;
  static constexpr bool kVariadicLast = true;

  explicit TreeAttention(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  HeadSettings settings_;
};

// Attention with the products around it in one node, and the sum and the norm behind them, as GatedMLP has them.
//
// Inputs: x [1, N, k]; residual [1, N, columns] and norm [columns], or both absent; the inputs of a
// Matrix for the product that gives queries, keys and values, and for the one behind attention; those of AttentionCall.
// Outputs: out, or the product without a norm, [1, N, columns]; sum [1, N, columns], which may be absent; keys and values
// of each lane.
class ProjectedAttention {
 public:
  static constexpr const char* kName = "ProjectedAttention";
  static constexpr ort::ElementType kInputs[] = {
      ort::kFloat,     ort::kFloat,     ort::kFloat,                            // x, residual, norm
      ort::kUndefined, ort::kUndefined, ort::kUint8, ort::kFloat, ort::kFloat,  // queries, keys and values
      ort::kUndefined, ort::kUndefined, ort::kUint8, ort::kFloat, ort::kFloat,  // the product behind attention
      ort::kInt64,     ort::kInt64,     ort::kInt64, ort::kFloat, ort::kFloat,  // AttentionCall's
      ort::kBool,      ort::kFloat,     ort::kFloat,
  };
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat, ort::kFloat, ort::kFloat};
  static constexpr size_t kRequired = 1;
  static constexpr bool kVariadicLast = true;

  explicit ProjectedAttention(const Attributes& attributes);
  void compute(const Call& call) const;

 private:
  HeadSettings settings_;
  int64_t size_, columns_;
  float epsilon_;
};

}  // namespace specc
