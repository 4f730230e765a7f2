// The operator TreeAttention.
#pragma once

#include "operator.h"

namespace specc {

// Attention of N slots over caches, whose rows from `past_len` on become the slots'.
//
// Inputs: query, key, value packed [1, N, (heads + 2 kv_heads) size]; past_len [lanes]; widths [lanes], how many
// slots each lane has, or absent for one lane; positions [1, N], for rotation and windows; cos and sin [.., R / 2] or
// absent; mask [N, T], true where a slot sees one of the last T rows of its lane, or absent; sinks [heads] or absent;
// then past keys and past values of each lane, [1, kv_heads, capacity, size].
// Outputs: [1, N, heads size]; keys and values of each lane, which may be the past's own memory.
//
// Without a mask, a lane's slots are those of `tree`, words of 64 bits of which bit j of slot i's says that i sees j,
// ceil(N / 64) words a slot; without `tree` they are a chain.
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
  struct Lane;

  void append(const Lane& lane, const float* packed, const int64_t* positions, const float* cos, const float* sin,
              int64_t half, float* query) const;
  void see(Lane& lane, const Tensor& mask, const int64_t* positions) const;

  int64_t heads_, kv_heads_, window_;
  float scale_, softcap_;
  bool interleaved_;
  std::vector<int64_t> tree_;
};

}  // namespace specc
