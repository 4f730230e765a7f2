// The largest of many values, for the instruction set that the file is compiled for.
#pragma once

#include <limits>

#include "simd.h"
#include "variants.h"

namespace specc {
namespace {

// Finds the block with the largest value, and then its place there.
int64_t largest(const float* x, int64_t count) {
  constexpr int kVectors = 4;  // so that a comparison does not wait for the one before it
  constexpr int64_t kBlock = 1024, kStep = kVectors * kLanes;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  float best = kNone;
  int64_t at = 0;
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t end = count - start < kBlock ? count : start + kBlock;
    F16 tops[kVectors];
    for (F16& top : tops) top = all(kNone);
    int64_t i = start;
    for (; i + kStep <= end; i += kStep)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) tops[v] = larger(load(x + i + v * kLanes), tops[v]);
    float top = largest_lane(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
    for (; i < end; ++i) top = x[i] > top ? x[i] : top;
    if (top > best) best = top, at = start;
  }
  while (best > kNone && x[at] != best) ++at;
  return at;
}

}  // namespace
}  // namespace specc
