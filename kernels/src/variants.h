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
// column has a zero point of its own. Either fits in 16 bits but for 8-bit weights without zero points of their own.
struct Quantized {
  const int8_t* q;        // [rows, blocks * block]
  const float* scales;    // [rows, blocks]
  const int32_t* starts;  // [rows, blocks]
};

struct NBits {
  Quantized x;
  float* y;                 // [rows, columns]
  const uint8_t* w;         // 4 bits [panels, blocks, block / 4, 64], 8 bits [panels, blocks, block / 4, 2, 64]
  const void* scales;       // fp32 or fp16 [panels, blocks, 32]
  const uint8_t* zeros;     // [panels, blocks, 32], or null where all are 8 (4 bits) or 128 (8 bits)
  int64_t rows;
  int64_t columns;
  int64_t blocks;
  int bits;                 // 4 or 8
  int block;                // 32 or 64
  bool half_scales;         // scales are fp16
};

using NBitsFn = void (*)(const NBits&, int64_t first, int64_t last);

// Quantises `rows` rows of `k` values to int8, and fills the last block with zeros. A start is a block's sum times
// `factor`.
using QuantizeFn = void (*)(const float* x, int64_t rows, int64_t k, int block, int factor, int8_t* q, float* scales,
                            int32_t* starts);

struct Variant {
  const char* name;
  DenseFn linear_bf16;
  DenseFn linear_f32;
  QuantizeFn quantize;
  NBitsFn linear_nbits;
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
