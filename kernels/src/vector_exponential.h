// exp in sixteen lanes, in the steps that exponential.h has the constants of.
#pragma once

#include "exponential.h"
#include "simd.h"

namespace specc {
namespace {

SPECC_INLINE F16 exponential(F16 x) {
  const F16 shifted = fma(x, all(kLog2E), all(kRoundToInteger));
  const F16 n = sub(shifted, all(kRoundToInteger));
  F16 r = fma(n, all(-kLn2High), x);
  r = fma(n, all(-kLn2Low), r);
  F16 sum = all(kSeries[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) sum = fma(sum, r, all(kSeries[i]));
  return zero_below(times_power(sum, shifted), x, all(kExpSmallest));
}

}  // namespace
}  // namespace specc
