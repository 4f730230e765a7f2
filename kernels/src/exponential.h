// The constants of exp, which the reference and the vectors compute in the same steps so that their bits are equal.
//
// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its series, whose rest after the seventh power is below 1e-8.
#pragma once

namespace specc {

constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e4p-1f;        // few bits, so that n times it is exact
constexpr float kLn2Low = 0x1.7f7d1cp-20f;      // ln 2 less the former
constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23: the last bit of a sum with it is a unit
constexpr float kExpSmallest = -87.0f;          // below, the result is zero
constexpr float kTanhLargest = 40.0f;           // twice an argument of tanh: above, the result is one
constexpr float kSeries[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};

}  // namespace specc
