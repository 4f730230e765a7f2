// LinearBF16 and LinearF32, for the instruction set that the file is compiled for.
//
// Each result is one chain of fused multiply-adds over k in ascending order, begun at zero. Rows and columns are
// tiled; k never is, so a result depends on its row and its column alone. The AVX2, AVX-512 and NEON variants and the
// scalar reference give equal bits.
#pragma once

#include "simd.h"
#include "variants.h"

namespace specc {
namespace {

// How many rows of bf16 and of fp32 are multiplied at once, and up to how many of them a tile is a whole panel. With more it
// is half of one. Sums and weights have to fit in registers.
#if defined(__AVX512F__)
constexpr int kRowsBF16 = 12, kRowsF32 = 12, kWholePanels = 12;
#elif defined(__AVX2__)
constexpr int kRowsBF16 = 5, kRowsF32 = 6, kWholePanels = 2;
#else
constexpr int kRowsBF16 = 4, kRowsF32 = 4, kWholePanels = 0;
#endif
constexpr int vectors_of(int64_t rows) { return rows <= kWholePanels ? 2 : 1; }
constexpr int kDenseAhead = 8192;  // bytes between the weights that are asked for and those in use

// Weights of sixteen columns, and of kDepth values of k at a time.
struct BF16Weights {
  static constexpr int kDepth = 2;
  static constexpr int kBytes = 2;
  static constexpr int kRows = kRowsBF16;
  static SPECC_INLINE F16 load(const uint8_t* w, int v, int p) {
    const auto* const words = reinterpret_cast<const uint16_t*>(w) + v * 2 * kLanes;
    return p == 0 ? widen_low(words) : widen_high(words);
  }
};

struct F32Weights {
  static constexpr int kDepth = 1;
  static constexpr int kBytes = 4;
  static constexpr int kRows = kRowsF32;
  static SPECC_INLINE F16 load(const uint8_t* w, int v, int) {
    return specc::load(reinterpret_cast<const float*>(w) + v * kLanes);
  }
};

// Row `m` of the activations. Rows are reached from every third, so that few registers hold addresses.
SPECC_INLINE const float* row_at(const float* const (&base)[4], int64_t k, int m) { return base[m / 3] + (m % 3) * k; }

template <class Weights, int M, int V>
__attribute__((noinline)) void tile(const Dense& d, int64_t row, const uint8_t* w, float* y, int64_t columns,
                                   const uint8_t* next, int64_t every) {
  F16 sums[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[m][v] = zero();
  const int64_t k = d.k;
  const float* x = d.x + row * k;
  const float* base[4] = {x, x + 3 * k, x + 6 * k, x + 9 * k};
  int64_t i = 0, steps = 0;
  for (; i + Weights::kDepth <= k; i += Weights::kDepth) {
    if (next) {
      if (++steps == every) steps = 0, next = ask_for_next<Weights::kDepth * Weights::kBytes * kPanel / 2>(next);
    } else {
      ask_ahead<kDenseAhead, Weights::kDepth * Weights::kBytes * V * kLanes>(w);
    }
#pragma GCC unroll 2
    for (int p = 0; p < Weights::kDepth; ++p) {
      F16 weights[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) weights[v] = Weights::load(w, v, p);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const F16 value = broadcast(row_at(base, k, m) + i + p);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[m][v] = fma(value, weights[v], sums[m][v]);
      }
    }
    w += kPanel * Weights::kDepth * Weights::kBytes;
  }
  if constexpr (Weights::kDepth == 2) {
    if (i < k) {  // k is odd: the upper halves are padding, which may not touch the sums
      for (int v = 0; v < V; ++v) {
        const F16 low = Weights::load(w, v, 0);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) sums[m][v] = fma(broadcast(row_at(base, k, m) + i), low, sums[m][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t left = columns - v * kLanes;
      if (left > 0) store_some(y + (row + m) * d.columns + v * kLanes, sums[m][v], left);
    }
}

template <class Weights, int M>
SPECC_INLINE void tiles(int64_t rows, const Dense& d, int64_t row, const uint8_t* w, float* y, int64_t columns,
                        const uint8_t* next, int64_t every) {
  if (rows == M) return tile<Weights, M, vectors_of(M)>(d, row, w, y, columns, next, every);
  if constexpr (M > 1) tiles<Weights, M - 1>(rows, d, row, w, y, columns, next, every);
}

template <class Weights>
void dense(const Dense& d, int64_t first, int64_t last) {
  // Rows are done in blocks. The first pass over a panel brings it from memory, and the others find it in the cache. If
  // each asked for the weights that it is about to use, memory would idle during the others. That costs time where weights
  // take as long to read as to multiply by, or a pass reads parts of lines. There each pass asks for a part of the next
  // panel. The weights of a step stand in two lines: of two passes each asks for one, and of more in fewer steps.
  constexpr bool kInParts = vectors_of(Weights::kRows) == 1 || Weights::kBytes == 4;
  const int64_t blocks = (d.rows + Weights::kRows - 1) / Weights::kRows;
  const int64_t deep = (d.k + Weights::kDepth - 1) / Weights::kDepth * Weights::kDepth;
  const int64_t bytes = deep * kPanel * Weights::kBytes;
  for (int64_t panel = first; panel < last; ++panel) {
    const uint8_t* w = static_cast<const uint8_t*>(d.w) + panel * bytes;
    int64_t pass = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t row = d.rows * block / blocks;
      const int64_t rows = d.rows * (block + 1) / blocks - row;
      const int vectors = vectors_of(rows);
      const int64_t passes = blocks * (vectors == 1 ? 2 : 1), every = (passes + 1) / 2;
      const bool parts = kInParts && passes > 1;
      for (int column = 0; column < kPanel; column += vectors * kLanes) {
        const int64_t at = panel * kPanel + column;
        if (at >= d.columns) break;
        const uint8_t* next = parts ? w + bytes + pass * bytes / (2 * every) : nullptr;
        ++pass;
        tiles<Weights, Weights::kRows>(rows, d, row, w + column * Weights::kDepth * Weights::kBytes, d.y + at,
                                    d.columns - at, next, every);
      }
    }
  }
}

}  // namespace
}  // namespace specc
