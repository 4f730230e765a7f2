// Activations in 8 bits, each row and block by its own scale: plain loops that compilers vectorise.
//
// Each value takes one multiplication and one rounding to the nearest even integer, so all variants give equal bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace specc {
namespace {

// Below this a block counts as zero: 127 divided by a smaller maximum may overflow.
constexpr float kSmallest = 0x1p-100f;

inline uint32_t magnitude_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits & 0x7fffffffu;
}

template <int Block>
inline void quantize_block(const float* x, int factor, int8_t* q, float* scale, int32_t* start) {
  uint32_t largest = 0;  // magnitudes compare as integers
  for (int i = 0; i < Block; ++i) {
    const uint32_t bits = magnitude_bits(x[i]);
    largest = bits > largest ? bits : largest;
  }
  float maximum;
  std::memcpy(&maximum, &largest, 4);
  const bool finite = largest < 0x7f800000u;
  if (!finite || maximum < kSmallest) {
    std::memset(q, 0, Block);
    *start = 0;
    const uint32_t nan = 0x7fc00000u;  // the row gives NaN in every column
    if (finite) *scale = 0.0f;
    else std::memcpy(scale, &nan, 4);
    return;
  }
  const float inverse = 127.0f / maximum;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the last bit of a sum with it is a unit
  int32_t total = 0;
  for (int i = 0; i < Block; ++i) {
    const float shifted = x[i] * inverse + kRound;
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    const int32_t value = bits - 0x4b400000;
    q[i] = static_cast<int8_t>(value);
    total += value;
  }
  *scale = maximum / 127.0f;
  *start = factor * total;
}

template <int Block>
inline void quantize_blocks(const float* x, int64_t rows, int64_t k, int factor, int8_t* q, float* scales,
                            int32_t* starts, int64_t first, int64_t last) {
  for (int64_t b = first; b < last; ++b)
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = x + row * k + b * Block;
      float padded[Block];
      if (b * Block + Block > k) {
        std::memset(padded, 0, sizeof padded);
        std::memcpy(padded, from, (k - b * Block) * sizeof(float));
        from = padded;
      }
      const int64_t at = b * rows + row;
      quantize_block<Block>(from, factor, q + at * Block, scales + at, starts + at);
    }
}

void quantize(const float* x, int64_t rows, int64_t k, int block, int factor, int8_t* q, float* scales,
              int32_t* starts, int64_t first, int64_t last) {
  if (block == 16) return quantize_blocks<16>(x, rows, k, factor, q, scales, starts, first, last);
  if (block == 32) return quantize_blocks<32>(x, rows, k, factor, q, scales, starts, first, last);
  quantize_blocks<64>(x, rows, k, factor, q, scales, starts, first, last);
}

}  // namespace
}  // namespace specc
