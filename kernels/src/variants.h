// The variants of each kernel, and which of them this processor runs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace specc {

constexpr int kPanel = 32;  // columns of a panel: two AVX-512 registers of fp32

// Rows of activations and of results, and the panels of weights between them.
struct Dense {
  const float* x;    // [rows, k], a row after `k` values
  float* y;          // [rows, columns]
  const void* w;     // bf16 [panels, ceil(k / 2), 32, 2] or fp32 [panels, k, 32]
  int64_t rows;
  int64_t k;
  int64_t columns;
};

// Computes the columns of panels `first` to `last` - 1 of each row.
using DenseFn = void (*)(const Dense&, int64_t first, int64_t last);

// The activations of LinearNBits: each row and block has a scale, and the value that its integer sums begin with.
// That is the sum of the block's 8-bit values times the negative zero point of the weights, or times -1 where each
// column has a zero point of its own. With offsets it is the sum itself, and integer sums begin with 0. Either fits in 16
// bits but for 8-bit weights without zero points of their own. The rows of one block stand together, so that a kernel
// reaches those that it multiplies at once from one address.
struct Quantized {
  const int8_t* q;        // [blocks, rows, block]
  const float* scales;    // [blocks, rows]
  const int32_t* starts;  // [blocks, rows]
};

struct NBits {
  Quantized x;
  float* y;                 // [rows, columns]
  const uint8_t* w;         // 4 bits [panels, blocks, block / 4, 64], 8 bits [panels, blocks, block / 4, 2, 64]
  const void* scales;       // fp32 or fp16 [panels, blocks, 32]
  const uint8_t* zeros;     // [panels, blocks, 32], or null where all are 8 (4 bits) or 128 (8 bits)
  const float* offsets;     // [panels, blocks, 32], added to each weight where zero points are 0, or null
  int64_t rows;
  int64_t columns;
  int64_t blocks;
  int bits;                 // 4 or 8
  int block;                // 32 or 64
  bool half_scales;         // scales are fp16
};

using NBitsFn = void (*)(const NBits&, int64_t first, int64_t last);

// Quantises the blocks `first` to `last` - 1 of `rows` rows of `k` values to int8, and fills the last block with zeros. A
// start is a block's sum times `factor`.
using QuantizeFn = void (*)(const float* x, int64_t rows, int64_t k, int block, int factor, int8_t* q, float* scales,
                            int32_t* starts, int64_t first, int64_t last);

// Whether a slot sees another: not at all, or, being its ancestor, unless it is too far away for a window.
enum Seen : uint8_t { kUnseen = 0, kSeen = 1, kTooFar = 2 };

constexpr int64_t kChunk = 256;  // keys whose softmax is computed together; a multiple of kScoreKeys

// One lane's attention: N slots over a cache whose first `past` rows are in use, and whose next N are the slots'.
//
// A slot sees the rows before `past` from `oldest` on that `hidden` does not hide, and of the slots' rows those that
// are kSeen. The key of a row is its number, but for the slots' rows it is `past` plus how many before it are not
// kUnseen. So the keys of a slot in a tree are those of one-token decoding along its path, and its
// sums are too: they depend on the order of keys and on their numbers, never on what other slots there are.
struct Attention {
  const float* query;      // [slots, heads, size], rotated and scaled
  const void* keys;        // [kv_heads, capacity, size], fp32 or bf16
  const void* values;      // [kv_heads, capacity, size]
  float* partial;          // [chunks, slots, heads, size]: sums of weights times values
  float* maximum;          // [chunks, slots, heads]
  float* total;            // [chunks, slots, heads]: sums of weights
  const uint8_t* seen;     // [slots, slots] of Seen
  const uint8_t* hidden;   // [slots, span]: which of the `span` rows before `past` a slot does not see, or null
  const int64_t* oldest;   // [slots]: the first row that a slot may see, or null where that is 0
  int64_t span;
  int64_t slots;
  int64_t heads;
  int64_t kv_heads;
  int64_t capacity;
  int64_t size;
  int64_t past;
  float softcap;           // 0 where scores are not capped
};

// Computes the partial results of one chunk of keys for the queries of one key-value head.
using AttendFn = void (*)(const Attention&, int64_t kv_head, int64_t chunk);

// Joins the chunks of rows `first` to `last` - 1 of [slots, heads]: out [slots, heads, size]. `sinks` [heads] may be null.
using JoinFn = void (*)(const Attention&, int64_t chunks, const float* sinks, float* out, int64_t first, int64_t last);

// Gates `count` values: out = silu(gate) * value, where silu(x) = x / (1 + exp(-x)). `out` may be `gates`.
using GateFn = void (*)(const float* gates, const float* values, float* out, int64_t count);

// Adds a row of `count` values to the residual, and normalises it: sum = x + residual, and
// out = sum / sqrt(mean(sum^2) + epsilon) * weight. `sum` may be `x`.
using AddNormFn = void (*)(const float* x, const float* residual, const float* weight, float epsilon, int64_t count,
                           float* sum, float* out);

// Returns the place of the first of the largest values. NaN counts as no value. Where none is above minus infinity, that
// is 0.
using LargestFn = int64_t (*)(const float* x, int64_t count);

struct Variant {
  const char* name;
  DenseFn linear_bf16;
  DenseFn linear_f32;
  QuantizeFn quantize;
  NBitsFn linear_nbits;
  AttendFn attend[2];  // over rows in fp32 and in bf16
  JoinFn join;
  GateFn gate;
  AddNormFn add_norm;
  LargestFn largest;
};

// Every variant that was built, slowest first; null members fall back to the variant before.
const Variant* const* variants(size_t* count);

// Whether this processor and operating system run the variant.
bool supported(const Variant& variant);

// The kernels in use: for each the fastest that is supported and that SPECC_KERNELS_DISABLE does not name.
const Variant& active();

// Take the kernels of no variant faster than `name`. Returns false where no such variant is built or supported.
bool limit(const char* name);

}  // namespace specc
