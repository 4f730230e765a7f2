// Attention within one call of a kernel, as the stages of its work.
#pragma once

#include <vector>

#include "operator.h"
#include "stages.h"

namespace specc {

class Scratch;

// The attributes of operators that attend.
struct HeadSettings {
  explicit HeadSettings(const Attributes& attributes);

  int64_t packed() const { return heads + 2 * kv_heads; }  // heads of queries, keys and values

  int64_t heads, kv_heads, window;
  float scale, softcap;
  bool interleaved;
  std::vector<int64_t> tree;
};

// Attention of N slots over caches, whose rows from `past_len` on become the slots'.
//
// Inputs: past_len [lanes]; widths [lanes], how many slots each lane has, or absent for one lane; positions [1, N], for
// rotation and windows; cos and sin [.., R / 2] or absent; mask [N, T], true where a slot sees one of the last T rows of
// its lane, or absent; sinks [heads] or absent; then past keys and past values of each lane, [1, kv_heads, capacity, size].
// Outputs: keys and values of each lane, which may be the past's own memory.
//
// Without a mask, a lane's slots are those of `tree`, words of 64 bits of which bit j of slot i's says that i sees j,
// ceil(N / 64) words a slot; without `tree` they are a chain.
class AttentionCall {
 public:
  static constexpr size_t kFixed = 7;  // inputs before the caches

  // Reads the inputs from `first` on, and makes the outputs from `output` on. Throws std::runtime_error if they do not fit.
  AttentionCall(const Call& call, const HeadSettings& settings, size_t first, size_t output, int64_t slots,
                int64_t size, Scratch& scratch);
  ~AttentionCall();

  // Adds the stages from queries, keys and values, packed [N, (heads + 2 kv_heads) size], to out [N, heads size].
  void add(const float* packed, float* out, std::vector<Stage>& stages) const;

  // Whether one thread does it all sooner than it wakes another.
  bool is_small() const;

 private:
  struct Lane;

  void see(Lane& lane, const Tensor& mask, const int64_t* positions) const;
  void append(const Lane& lane, int64_t kv_head, const float* packed) const;
  void join(const Lane& lane, int64_t first, int64_t last, float* out) const;

  const HeadSettings& settings_;
  int64_t slots_, size_, half_, work_ = 0;
  Tensor positions_, cos_, sin_, sinks_;
  std::vector<Lane> lanes_;
};

}  // namespace specc
