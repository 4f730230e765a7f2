// What stands between two products of a layer, for the instruction set that the file is compiled for.
//
// The steps are those of variant_scalar.cpp, so all variants give equal bits: of a row's squares sixteen lanes of sums
// are made, which are then joined pairwise.
#pragma once

#include <cmath>

#include "exponential.h"
#include "simd.h"
#include "variants.h"
#include "vector_exponential.h"

namespace specc {
namespace {

// The first `count` lanes; the others are zeros.
SPECC_INLINE F16 load_some(const float* p, int64_t count) {
  if (count >= kLanes) return load(p);
  float lanes[kLanes] = {};
  std::memcpy(lanes, p, count * sizeof(float));
  return load(lanes);
}

// x / (1 + exp(-x)), by exp(-|x|), which is at most one
SPECC_INLINE F16 silu(F16 x) {
  const F16 above = larger(zero(), x), below = sub(zero(), larger(zero(), sub(zero(), x)));
  const F16 power = exponential(sub(below, above));
  return divide(fma(below, power, above), add(all(1.0f), power));
}

void gate(const float* gates, const float* values, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    store_some(out + i, mul(silu(load_some(gates + i, left)), load_some(values + i, left)), left);
  }
}

void add_norm(const float* x, const float* residual, const float* weight, float epsilon, int64_t count, float* sum,
              float* out) {
  F16 squares = zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    const F16 total = add(load_some(x + i, count - i), load_some(residual + i, count - i));
    squares = fma(total, total, squares);
    store_some(sum + i, total, count - i);
  }
  const F16 factor = all(1.0f / std::sqrt(sum_lanes(squares) / static_cast<float>(count) + epsilon));
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    store_some(out + i, mul(mul(load_some(sum + i, left), factor), load_some(weight + i, left)), left);
  }
}

}  // namespace
}  // namespace specc
