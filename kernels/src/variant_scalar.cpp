// The reference: each operator as it is specified, without vectors, tiles or threads.
#include <cmath>
#include <limits>

#include "quantize.h"
#include "reference_attention.h"
#include "variants.h"

namespace specc {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
  return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

template <class Weight>
void dense(const Dense& d, int64_t first, int64_t last, Weight weight) {
  for (int64_t row = 0; row < d.rows; ++row)
    for (int64_t column = first * kPanel; column < last * kPanel && column < d.columns; ++column) {
      float sum = 0.0f;
      for (int64_t i = 0; i < d.k; ++i) sum = std::fma(d.x[row * d.k + i], weight(column, i), sum);
      d.y[row * d.columns + column] = sum;
    }
}

void linear_bf16(const Dense& d, int64_t first, int64_t last) {
  const auto* w = static_cast<const uint16_t*>(d.w);
  const int64_t pairs = (d.k + 1) / 2;
  dense(d, first, last, [&](int64_t column, int64_t i) {
    const int64_t at = ((column / kPanel * pairs + i / 2) * kPanel + column % kPanel) * 2 + i % 2;
    return from_bits(static_cast<uint32_t>(w[at]) << 16);
  });
}

void linear_f32(const Dense& d, int64_t first, int64_t last) {
  const auto* w = static_cast<const float*>(d.w);
  dense(d, first, last,
        [&](int64_t column, int64_t i) { return w[(column / kPanel * d.k + i) * kPanel + column % kPanel]; });
}

int weight_at(const NBits& n, int64_t panel, int64_t b, int column, int i) {
  const int64_t bytes = static_cast<int64_t>(kPanel) * n.block * n.bits / 8;
  const uint8_t* w = n.w + (panel * n.blocks + b) * bytes;
  const int half = column / 16, lane = column % 16 * 4 + i % 4;
  if (n.bits == 8) return w[(i / 4 * 2 + half) * 64 + lane];
  return w[i / 4 * 64 + lane] >> 4 * half & 15;
}

void linear_nbits(const NBits& n, int64_t first, int64_t last) {
  for (int64_t row = 0; row < n.rows; ++row)
    for (int64_t column = first * kPanel; column < last * kPanel && column < n.columns; ++column) {
      const int64_t panel = column / kPanel;
      float sum = 0.0f;
      for (int64_t b = 0; b < n.blocks; ++b) {
        const int64_t at = (panel * n.blocks + b) * kPanel + column % kPanel, in_row = b * n.rows + row;
        const int zero = n.offsets ? 0 : n.zeros ? n.zeros[at] : n.bits == 4 ? 8 : 128;
        int32_t dot = 0;
        for (int i = 0; i < n.block; ++i)
          dot += (weight_at(n, panel, b, column % kPanel, i) - zero) * n.x.q[in_row * n.block + i];
        const float scale = n.half_scales ? from_half(static_cast<const uint16_t*>(n.scales)[at])
                                          : static_cast<const float*>(n.scales)[at];
        float product = static_cast<float>(dot) * scale;
        if (n.offsets) product = std::fma(n.offsets[at], static_cast<float>(n.x.starts[in_row]), product);
        sum = std::fma(product, n.x.scales[in_row], sum);
      }
      n.y[row * n.columns + column] = sum;
    }
}

float silu(float x) {
  const float above = 0.0f > x ? 0.0f : x, below = 0.0f - (0.0f > -x ? 0.0f : 0.0f - x);
  const float power = exponential(below - above);
  return std::fma(below, power, above) / (1.0f + power);
}

void gate(const float* gates, const float* values, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = silu(gates[i]) * values[i];
}

void add_norm(const float* x, const float* residual, const float* weight, float epsilon, int64_t count, float* sum,
              float* out) {
  float squares[kSumLanes] = {};
  for (int64_t i = 0; i < count; ++i) {
    sum[i] = x[i] + residual[i];
    squares[i % kSumLanes] = std::fma(sum[i], sum[i], squares[i % kSumLanes]);
  }
  for (int half = kSumLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) squares[i] += squares[i + half];
  const float factor = 1.0f / std::sqrt(squares[0] / static_cast<float>(count) + epsilon);
  for (int64_t i = 0; i < count; ++i) out[i] = sum[i] * factor * weight[i];
}

int64_t largest(const float* x, int64_t count) {
  float best = -std::numeric_limits<float>::infinity();
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i)
    if (x[i] > best) best = x[i], at = i;
  return at;
}

}  // namespace

extern const Variant kScalar;
const Variant kScalar = {"scalar",     linear_bf16,  linear_f32, quantize,
                         linear_nbits, {attend<float>, attend<uint16_t>}, join,
                         gate,         add_norm,     largest};

}  // namespace specc
