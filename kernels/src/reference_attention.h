// TreeAttention as it is specified: one query, one key and one size at a time.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "exponential.h"
#include "variants.h"

namespace specc {
namespace {

constexpr int kSumLanes = 16;

inline float widened(float value) { return value; }
inline float widened(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline float exponential(float x) {
  if (x < kExpSmallest) return 0.0f;
  const float shifted = std::fma(x, kLog2E, kRoundToInteger), n = shifted - kRoundToInteger;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float sum = kSeries[0];
  for (int i = 1; i < 8; ++i) sum = std::fma(sum, r, kSeries[i]);
  return std::isnan(x) ? x : std::ldexp(sum, static_cast<int>(n));
}

inline float capped(float x, float cap) {
  const float twice = (x + x) / cap, bounded = twice > kTanhLargest ? kTanhLargest : twice;
  return cap * (1.0f - 2.0f / (exponential(bounded) + 1.0f));
}

// The rows that a slot sees, each with its key, in ascending order of keys.
inline std::vector<std::pair<int64_t, int64_t>> rows_seen(const Attention& a, int64_t slot) {
  std::vector<std::pair<int64_t, int64_t>> seen;
  for (int64_t row = a.oldest ? a.oldest[slot] : 0; row < a.past; ++row) {
    const int64_t in_span = row - (a.past - a.span);
    if (!(a.hidden && in_span >= 0 && a.hidden[slot * a.span + in_span])) seen.emplace_back(row, row);
  }
  int64_t key = a.past;
  for (int64_t j = 0; j < a.slots; ++j) {
    const uint8_t state = a.seen[slot * a.slots + j];
    if (state == kSeen) seen.emplace_back(a.past + j, key);
    if (state != kUnseen) ++key;
  }
  return seen;
}

template <class Row>
void attend(const Attention& a, int64_t kv_head, int64_t chunk) {
  const int64_t group = a.heads / a.kv_heads;
  const Row* keys = static_cast<const Row*>(a.keys) + kv_head * a.capacity * a.size;
  const Row* values = static_cast<const Row*>(a.values) + kv_head * a.capacity * a.size;
  for (int64_t slot = 0; slot < a.slots; ++slot)
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const float* query = a.query + (slot * a.heads + head) * a.size;
      std::vector<std::pair<int64_t, int64_t>> rows;
      for (const auto& seen : rows_seen(a, slot))
        if (seen.second / kChunk == chunk) rows.push_back(seen);
      std::vector<float> weights;
      float maximum = -std::numeric_limits<float>::infinity();
      for (const auto& [row, key] : rows) {
        float score = 0.0f;
        for (int64_t d = 0; d < a.size; ++d) score = std::fma(query[d], widened(keys[row * a.size + d]), score);
        if (a.softcap > 0) score = capped(score, a.softcap);
        weights.push_back(score);
        if (score > maximum || std::isnan(score)) maximum = score;
      }
      float sums[kSumLanes] = {};
      const int64_t place = (chunk * a.slots + slot) * a.heads + head;
      float* const out = a.partial + place * a.size;
      for (int64_t d = 0; d < a.size; ++d) out[d] = 0.0f;
      for (size_t i = 0; i < rows.size(); ++i) {
        weights[i] = exponential(weights[i] - maximum);
        sums[rows[i].second % kSumLanes] += weights[i];
        for (int64_t d = 0; d < a.size; ++d)
          out[d] = std::fma(weights[i], widened(values[rows[i].first * a.size + d]), out[d]);
      }
      for (int half = kSumLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
      a.maximum[place] = maximum;
      a.total[place] = sums[0];
    }
}

inline void join(const Attention& a, int64_t chunks, const float* sinks, float* out, int64_t first, int64_t last) {
  const int64_t rows = a.slots * a.heads;
  for (int64_t row = first; row < last; ++row) {
    float maximum = sinks ? sinks[row % a.heads] : -std::numeric_limits<float>::infinity();
    for (int64_t c = 0; c < chunks; ++c)
      if (a.maximum[c * rows + row] > maximum) maximum = a.maximum[c * rows + row];
    float total = sinks ? exponential(sinks[row % a.heads] - maximum) : 0.0f;
    float* const to = out + row * a.size;
    for (int64_t d = 0; d < a.size; ++d) to[d] = 0.0f;
    for (int64_t c = 0; c < chunks; ++c) {
      const float weight = exponential(a.maximum[c * rows + row] - maximum);
      total = std::fma(weight, a.total[c * rows + row], total);
      for (int64_t d = 0; d < a.size; ++d) to[d] = std::fma(weight, a.partial[(c * rows + row) * a.size + d], to[d]);
    }
    for (int64_t d = 0; d < a.size; ++d) to[d] /= total;
  }
}

}  // namespace
}  // namespace specc
