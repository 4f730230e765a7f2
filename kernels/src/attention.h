// TreeAttention, for the instruction set that the file is compiled for.
//
// The order of every sum is that of reference_attention.h, which says it plainly: a score is one chain of fused
// multiply-adds over the sizes of a head; weights are summed in sixteen lanes by key, then pairwise; values are one
// chain over the keys; chunks are joined in ascending order.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "exponential.h"
#include "simd.h"
#include "variants.h"
#include "vector_exponential.h"

namespace specc {
namespace {

#if defined(__AVX512F__)
constexpr int kScoreVectors = 4;
constexpr int kScoreRows = 6;
constexpr int kValueSums = 24;  // vectors of sums that stay in registers
constexpr int kWide = 4;        // vectors of a head's size that are summed together
#else
constexpr int kScoreVectors = 1;
constexpr int kScoreRows = 4;
constexpr int kValueSums = 4;
constexpr int kWide = 1;
#endif
constexpr int kScoreKeys = kScoreVectors * kLanes;
constexpr int64_t kValueRows = 64;  // rows of values that stay near while all queries take them

SPECC_INLINE F16 load_row(const float* p) { return load(p); }
SPECC_INLINE F16 load_row(const uint16_t* p) { return widen(p); }

// cap * tanh(x / cap), by tanh(z) = 1 - 2 / (exp(2 z) + 1)
SPECC_INLINE F16 capped(F16 x, float cap) {
  const F16 twice = divide(add(x, x), all(cap));
  const F16 bounded = sub(zero(), larger(all(-kTanhLargest), sub(zero(), twice)));
  const F16 fraction = divide(all(2.0f), add(exponential(bounded), all(1.0f)));
  return mul(all(cap), sub(all(1.0f), fraction));
}

SPECC_INLINE float exponential(float x) {
  float lanes[kLanes];
  store(lanes, exponential(all(x)));
  return lanes[0];
}

// Sixteen rows by sixteen sizes, turned: `to` has a row of keys for each size. Inlined, its sixteen addresses would be
// kept over the loop around it, which takes more registers than there are.
template <class Row>
__attribute__((noinline)) void turn(const Row* rows, int64_t stride, float* to, int64_t to_stride) {
#if defined(__AVX512F__)
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = load_row(rows + i * stride).v;
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d x = _mm512_castps_pd(b[i + j]), y = _mm512_castps_pd(b[i + j + 2]);
      a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  // a[i + j]: in its quarter q, size 4 q + j of rows i to i + 3
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 low0 = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), low1 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
    const __m512 high0 = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd), high1 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
    _mm512_storeu_ps(to + j * to_stride, _mm512_shuffle_f32x4(low0, low1, 0x88));
    _mm512_storeu_ps(to + (4 + j) * to_stride, _mm512_shuffle_f32x4(high0, high1, 0x88));
    _mm512_storeu_ps(to + (8 + j) * to_stride, _mm512_shuffle_f32x4(low0, low1, 0xdd));
    _mm512_storeu_ps(to + (12 + j) * to_stride, _mm512_shuffle_f32x4(high0, high1, 0xdd));
  }
#elif defined(__AVX2__)
  for (int first = 0; first < kLanes; first += 8) {
    F16 a[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) a[i] = load_row(rows + (first + i) * stride);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m256 b[8], c[8];
#pragma GCC unroll 4
      for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i].v[half], a[i + 1].v[half]);
        b[i + 1] = _mm256_unpackhi_ps(a[i].v[half], a[i + 1].v[half]);
      }
#pragma GCC unroll 2
      for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          c[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
          c[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
        }
      // c[i + j]: sizes j and 4 + j of rows i to i + 3
      float* const out = to + half * 8 * to_stride + first;
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        _mm256_storeu_ps(out + j * to_stride, _mm256_permute2f128_ps(c[j], c[4 + j], 0x20));
        _mm256_storeu_ps(out + (4 + j) * to_stride, _mm256_permute2f128_ps(c[j], c[4 + j], 0x31));
      }
    }
  }
#else
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    store(lanes, load_row(rows + i * stride));
    for (int j = 0; j < kLanes; ++j) to[j * to_stride + i] = lanes[j];
  }
#endif
}

// Asks for rows that are read soon.
template <class Row>
SPECC_INLINE void ask_rows(const Row* rows, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / sizeof(Row)) __builtin_prefetch(rows + i, 0, 2);
}

// kScoreKeys rows, of which those from `count` on read the last one again. With each square of them it asks for as much
// of `next` and of `other`, if they are not null: memory and arithmetic then go on together.
template <class Row>
void turn_rows(const Row* rows, int64_t count, int64_t size, float* turned, const Row* next, const Row* other) {
  constexpr int64_t kSquare = kLanes * kLanes;
  for (int v = 0; v < kScoreVectors; ++v) {
    const int64_t left = count - v * kLanes;
    if (left <= 0) break;
    const Row* from = rows + v * kLanes * size;
    std::vector<Row> filled;
    if (left < kLanes) {  // rows behind the last one may lie behind the cache
      filled.resize(kLanes * size);
      for (int i = 0; i < kLanes; ++i)
        std::memcpy(filled.data() + i * size, from + std::min<int64_t>(i, left - 1) * size, size * sizeof(Row));
      from = filled.data();
    }
    for (int64_t d = 0; d < size; d += kLanes) {
      const int64_t square = v * kLanes * size + d * kLanes;
      if (next) ask_rows(next + square, kSquare);
      if (other) ask_rows(other + square, kSquare);
      turn(from + d, size, turned + d * kScoreKeys + v * kLanes, kScoreKeys);
    }
  }
}

// Scores of M queries for V vectors of turned keys.
template <int M, int V>
__attribute__((noinline)) void score_tile(const float* const* queries, const float* turned, int64_t size,
                                          float* const* scores) {
  F16 sums[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[m][v] = zero();
  const float* q[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) q[m] = queries[m];
  for (int64_t d = 0; d < size; ++d) {
    F16 keys[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) keys[v] = load(turned + d * kScoreKeys + v * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const F16 value = broadcast(q[m] + d);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[m][v] = fma(value, keys[v], sums[m][v]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(scores[m] + v * kLanes, sums[m][v]);
}

template <int M, int V>
SPECC_INLINE void score_some(int64_t count, const float* const* queries, const float* turned, int64_t size,
                             float* const* scores) {
  if (count >= M) return score_tile<M, V>(queries, turned, size, scores);
  if constexpr (M > 1) score_some<M - 1, V>(count, queries, turned, size, scores);
}

template <int V>
void score_keys(const std::vector<const float*>& queries, const float* turned, int64_t size, float softcap,
                float* const* scores) {
  const int64_t count = static_cast<int64_t>(queries.size());
  for (int64_t q = 0; q < count; q += kScoreRows)
    score_some<kScoreRows, V>(count - q, queries.data() + q, turned, size, scores + q);
  if (softcap > 0)
    for (int64_t q = 0; q < count; ++q)
      for (int v = 0; v < V; ++v) store(scores[q] + v * kLanes, capped(load(scores[q] + v * kLanes), softcap));
}

// Scores of all queries for `keys` turned keys, and for those that fill the last vector.
void score(const std::vector<const float*>& queries, const float* turned, int64_t keys, int64_t size, float softcap,
           float* const* scores) {
  if (keys <= kLanes) return score_keys<1>(queries, turned, size, softcap, scores);
  score_keys<kScoreVectors>(queries, turned, size, softcap, scores);
}

// sums [V vectors] of M queries += weights times values, over `count` rows in order. With each row it asks for one of
// `next`, if that is not null.
template <int M, int V, class Row>
__attribute__((noinline)) void value_tile(const float* const* weights, const Row* values, int64_t count, int64_t size,
                                          float* const* out, const Row* next) {
  F16 sums[M][V];
  const float* w[M];
#pragma GCC unroll 24
  for (int m = 0; m < M; ++m) {
    w[m] = weights[m];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[m][v] = load(out[m] + v * kLanes);
  }
  for (int64_t row = 0; row < count; ++row) {
    if (next) ask_rows(next + row * size, V * kLanes);
    F16 value[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) value[v] = load_row(values + row * size + v * kLanes);
#pragma GCC unroll 24
    for (int m = 0; m < M; ++m) {
      const F16 weight = broadcast(w[m] + row);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[m][v] = fma(weight, value[v], sums[m][v]);
    }
  }
#pragma GCC unroll 24
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out[m] + v * kLanes, sums[m][v]);
}

template <int M, int V, class Row>
SPECC_INLINE void value_some(int64_t queries, const float* const* weights, const Row* values, int64_t count,
                             int64_t size, float* const* out, const Row* next) {
  if (queries >= M) return value_tile<M, V>(weights, values, count, size, out, next);
  if constexpr (M > 1) value_some<M - 1, V>(queries, weights, values, count, size, out, next);
}

// All queries, V vectors of the head's size from `from` on; weights begin at `row`.
template <int V, class Row>
void add_values(int64_t queries, float* const* weights, int64_t row, const Row* values, int64_t count, int64_t size,
                float* const* out, int64_t from, const Row* next) {
  constexpr int M = std::max(1, std::min(kValueSums / V, 6));
  for (int64_t q = 0; q < queries; q += M) {
    const float* w[M];
    float* to[M];
    for (int64_t m = 0; m < M && q + m < queries; ++m) w[m] = weights[q + m] + row, to[m] = out[q + m] + from;
    value_some<M, V>(queries - q, w, values + from, count, size, to, next && !q ? next + from : nullptr);
  }
}

// sums [V vectors] of one query += weights times the values of the slots that it sees. `key` is the first slot's.
template <int V, class Row>
void add_slots(const Attention& a, const uint8_t* seen, const float* weights, const Row* values, int64_t key, float* out) {
  F16 sums[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) sums[v] = load(out + v * kLanes);
  for (int64_t slot = 0; slot < a.slots; ++slot) {
    if (seen[slot] == kUnseen) continue;
    if (seen[slot] == kSeen && key >= 0 && key < kChunk) {
      const F16 weight = broadcast(weights + key);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[v] = fma(weight, load_row(values + slot * a.size + v * kLanes), sums[v]);
    }
    ++key;
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) store(out + v * kLanes, sums[v]);
}

template <class Row>
void attend(const Attention& a, int64_t kv_head, int64_t chunk) {
  const int64_t group = a.heads / a.kv_heads, size = a.size, count = a.slots * group, first = chunk * kChunk;
  const Row* keys = static_cast<const Row*>(a.keys) + kv_head * a.capacity * size;
  const Row* values = static_cast<const Row*>(a.values) + kv_head * a.capacity * size;
  thread_local std::vector<float> buffer, turned;
  thread_local std::vector<const float*> queries;
  thread_local std::vector<float*> scores, out;
  buffer.resize(count * (kChunk + kScoreKeys));
  turned.resize(size * kScoreKeys);
  queries.resize(count), scores.resize(count), out.resize(count);
  const auto at = [&](int64_t q) { return ((q / group) * a.heads) + kv_head * group + q % group; };
  for (int64_t q = 0; q < count; ++q) {
    queries[q] = a.query + at(q) * size;
    out[q] = a.partial + (chunk * a.slots * a.heads + at(q)) * size;
  }

  // Scores of the rows before the slots'.
  const int64_t rows = std::max<int64_t>(0, std::min(kChunk, a.past - first));
  for (int64_t row = 0; row < rows; row += kScoreKeys) {
    const Row* const block = keys + (first + row) * size;
    const Row* const next = row + kScoreKeys < rows ? block + kScoreKeys * size : nullptr;
    const int64_t some = std::min<int64_t>(kScoreKeys, rows - row);
    turn_rows(block, some, size, turned.data(), next, values + (first + row) * size);
    for (int64_t q = 0; q < count; ++q) scores[q] = buffer.data() + q * kChunk + row;
    score(queries, turned.data(), some, size, a.softcap, scores.data());
  }
  // Keys from `used` on, a multiple of four vectors, are of no slot.
  const int64_t used = std::min(kChunk, (a.past + a.slots - first + 4 * kLanes - 1) / (4 * kLanes) * (4 * kLanes));
  const float hidden = -std::numeric_limits<float>::infinity();
  for (int64_t q = 0; q < count; ++q) std::fill_n(buffer.data() + q * kChunk + rows, used - rows, hidden);

  // Those of the slots' rows, moved to the keys that they have for each slot.
  const bool with_slots = first + kChunk > a.past && first < a.past + a.slots;
  if (with_slots) {
    float* const some = buffer.data() + count * kChunk;
    thread_local std::vector<int64_t> next;
    next.assign(a.slots, a.past);
    for (int64_t slot = 0; slot < a.slots; slot += kScoreKeys) {
      const int64_t block = std::min<int64_t>(kScoreKeys, a.slots - slot);
      turn_rows<Row>(keys + (a.past + slot) * size, block, size, turned.data(), nullptr, nullptr);
      for (int64_t q = 0; q < count; ++q) scores[q] = some + q * kScoreKeys;
      score(queries, turned.data(), block, size, a.softcap, scores.data());
      for (int64_t i = 0; i < a.slots; ++i)
        for (int64_t j = 0; j < block; ++j) {
          const uint8_t seen = a.seen[i * a.slots + slot + j];
          if (seen == kUnseen) continue;
          const int64_t key = next[i]++ - first;
          if (seen != kSeen || key < 0 || key >= kChunk) continue;
          for (int64_t g = 0; g < group; ++g)
            buffer[(i * group + g) * kChunk + key] = some[(i * group + g) * kScoreKeys + j];
        }
    }
  }

  for (int64_t q = 0; q < count; ++q) {
    float* const row = buffer.data() + q * kChunk;
    const int64_t slot = q / group;
    if (a.hidden)
      for (int64_t i = std::max<int64_t>(0, a.past - a.span - first); i < rows; ++i)
        if (a.hidden[slot * a.span + first + i - (a.past - a.span)]) row[i] = hidden;
    if (a.oldest) std::fill_n(row, std::clamp<int64_t>(a.oldest[slot] - first, 0, rows), hidden);
    F16 most[4], sums = zero();
    for (F16& one : most) one = all(hidden);
    for (int64_t i = 0; i < used; i += 4 * kLanes)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) most[v] = larger(most[v], load(row + i + v * kLanes));
    float maximum = largest_lane(larger(larger(most[0], most[1]), larger(most[2], most[3])));
    if (maximum == hidden)  // the vectors' maximum may have lost a NaN
      for (int64_t i = 0; i < used; ++i) maximum = std::isnan(row[i]) ? row[i] : maximum;
    if (maximum != hidden) {
      const F16 shift = all(maximum);
      for (int64_t i = 0; i < used; i += kLanes) {
        const F16 weight = exponential(sub(load(row + i), shift));
        store(row + i, weight);
        sums = add(sums, weight);
      }
    }
    const int64_t place = chunk * a.slots * a.heads + at(q);
    a.maximum[place] = maximum;
    a.total[place] = sum_lanes(sums);
    if (maximum == hidden) std::fill_n(row, used, 0.0f);
    std::fill_n(out[q], size, 0.0f);
    scores[q] = row;
  }

  // While values are read, memory is asked for the keys of the task that two threads leave to this one.
  const int64_t later = chunk * a.kv_heads + kv_head + 2, later_first = later / a.kv_heads * kChunk;
  const Row* const later_keys = static_cast<const Row*>(a.keys) + (later % a.kv_heads * a.capacity + later_first) * size;
  for (int64_t row = 0; row < rows; row += kValueRows) {
    const int64_t some = std::min(kValueRows, rows - row);
    const Row* const block = values + (first + row) * size;
    const Row* const next = later_first + row + some <= a.past ? later_keys + row * size : nullptr;
    for (int64_t from = 0; from < size;) {
      if (size - from >= kWide * kLanes) {
        add_values<kWide, Row>(count, scores.data(), row, block, some, size, out.data(), from, next);
        from += kWide * kLanes;
      } else {
        add_values<1, Row>(count, scores.data(), row, block, some, size, out.data(), from, next);
        from += kLanes;
      }
    }
  }
  if (with_slots)
    for (int64_t q = 0; q < count; ++q) {
      const uint8_t* const seen = a.seen + q / group * a.slots;
      for (int64_t from = 0; from < size;) {
        const bool wide = size - from >= kWide * kLanes;
        const auto add = wide ? add_slots<kWide, Row> : add_slots<1, Row>;
        add(a, seen, scores[q], values + a.past * size + from, a.past - first, out[q] + from);
        from += (wide ? kWide : 1) * kLanes;
      }
    }
}

void join(const Attention& a, int64_t chunks, const float* sinks, float* out, int64_t first, int64_t last) {
  const int64_t rows = a.slots * a.heads;
  for (int64_t row = first; row < last; ++row) {
    float maximum = sinks ? sinks[row % a.heads] : -std::numeric_limits<float>::infinity();
    for (int64_t c = 0; c < chunks; ++c) maximum = std::max(maximum, a.maximum[c * rows + row]);
    float total = sinks ? exponential(sinks[row % a.heads] - maximum) : 0.0f;
    float* const to = out + row * a.size;
    std::fill_n(to, a.size, 0.0f);
    for (int64_t c = 0; c < chunks; ++c) {
      const float weight = exponential(a.maximum[c * rows + row] - maximum);
      total = std::fma(weight, a.total[c * rows + row], total);
      for (int64_t d = 0; d < a.size; d += kLanes)
        store(to + d, fma(all(weight), load(a.partial + (c * rows + row) * a.size + d), load(to + d)));
    }
    for (int64_t d = 0; d < a.size; ++d) to[d] /= total;
  }
}

}  // namespace
}  // namespace specc
