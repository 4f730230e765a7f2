// Sixteen fp32 lanes and what the kernels do with them, for the instruction set that the file is compiled for.
//
// Every operation is lane by lane and rounds once, so all instruction sets give equal bits. Sums over lanes are written
// out by the kernels in one order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#else
#error "simd.h needs AVX2, AVX-512 or NEON"
#endif

#define SPECC_INLINE inline __attribute__((always_inline))

namespace specc {
namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct F16 {
  __m512 v;
};
SPECC_INLINE F16 zero() { return {_mm512_setzero_ps()}; }
SPECC_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
SPECC_INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
SPECC_INLINE F16 broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
SPECC_INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SPECC_INLINE F16 mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
SPECC_INLINE F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
SPECC_INLINE F16 sub(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
SPECC_INLINE F16 divide(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }

// Of sixteen words of two bf16 the lower halves, or the upper ones, widened.
SPECC_INLINE F16 widen_low(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
}
SPECC_INLINE F16 widen_high(const uint16_t* p) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), mask))};
}
SPECC_INLINE F16 widen_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SPECC_INLINE F16 widen(const uint16_t* p) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
}
// The larger; where one is NaN, b.
SPECC_INLINE F16 larger(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
// 2^n times a, n being the integer in the last bits of `shifted`.
SPECC_INLINE F16 times_power(F16 a, F16 shifted) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), exponent))};
}
// a, or zero where x is less than the bound.
SPECC_INLINE F16 zero_below(F16 a, F16 x, F16 bound) {
  return {_mm512_mask_mov_ps(a.v, _mm512_cmp_ps_mask(x.v, bound.v, _CMP_LT_OQ), _mm512_setzero_ps())};
}

#elif defined(__AVX2__)

struct F16 {
  __m256 v[2];
};
SPECC_INLINE F16 zero() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
SPECC_INLINE F16 load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
SPECC_INLINE void store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.v[0]);
  _mm256_storeu_ps(p + 8, a.v[1]);
}
SPECC_INLINE F16 broadcast(const float* p) {
  const __m256 v = _mm256_broadcast_ss(p);
  return {{v, v}};
}
SPECC_INLINE F16 fma(F16 a, F16 b, F16 c) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
SPECC_INLINE F16 mul(F16 a, F16 b) { return {{_mm256_mul_ps(a.v[0], b.v[0]), _mm256_mul_ps(a.v[1], b.v[1])}}; }
SPECC_INLINE F16 add(F16 a, F16 b) { return {{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1])}}; }
SPECC_INLINE F16 sub(F16 a, F16 b) { return {{_mm256_sub_ps(a.v[0], b.v[0]), _mm256_sub_ps(a.v[1], b.v[1])}}; }
SPECC_INLINE F16 divide(F16 a, F16 b) { return {{_mm256_div_ps(a.v[0], b.v[0]), _mm256_div_ps(a.v[1], b.v[1])}}; }
SPECC_INLINE F16 widen_low(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 2; ++i) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16 * i));
    r.v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  }
  return r;
}
SPECC_INLINE F16 widen_high(const uint16_t* p) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  F16 r;
  for (int i = 0; i < 2; ++i) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16 * i));
    r.v[i] = _mm256_castsi256_ps(_mm256_and_si256(words, mask));
  }
  return r;
}
SPECC_INLINE F16 widen_half(const uint16_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))}};
}
SPECC_INLINE F16 widen(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 2; ++i) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i)));
    r.v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  }
  return r;
}
// The larger; where one is NaN, b.
SPECC_INLINE F16 larger(F16 a, F16 b) { return {{_mm256_max_ps(a.v[0], b.v[0]), _mm256_max_ps(a.v[1], b.v[1])}}; }
// 2^n times a, n being the integer in the last bits of `shifted`.
SPECC_INLINE F16 times_power(F16 a, F16 shifted) {
  for (int i = 0; i < 2; ++i) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted.v[i]), 23);
    a.v[i] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v[i]), exponent));
  }
  return a;
}
// a, or zero where x is less than the bound.
SPECC_INLINE F16 zero_below(F16 a, F16 x, F16 bound) {
  for (int i = 0; i < 2; ++i)
    a.v[i] = _mm256_andnot_ps(_mm256_cmp_ps(x.v[i], bound.v[i], _CMP_LT_OQ), a.v[i]);
  return a;
}

#else

struct F16 {
  float32x4_t v[4];
};
SPECC_INLINE F16 broadcast(const float* p) {
  const float32x4_t v = vdupq_n_f32(*p);
  return {{v, v, v, v}};
}
SPECC_INLINE F16 zero() {
  const float z = 0.0f;
  return broadcast(&z);
}
SPECC_INLINE F16 load(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
SPECC_INLINE void store(float* p, F16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
SPECC_INLINE F16 fma(F16 a, F16 b, F16 c) {
  for (int i = 0; i < 4; ++i) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}
SPECC_INLINE F16 mul(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vmulq_f32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 add(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_f32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 sub(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vsubq_f32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 divide(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vdivq_f32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 widen_low(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 4; ++i)
    r.v[i] = vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(vld1q_u16(p + 8 * i)), 16));
  return r;
}
SPECC_INLINE F16 widen_high(const uint16_t* p) {
  const uint32x4_t mask = vdupq_n_u32(0xffff0000u);
  F16 r;
  for (int i = 0; i < 4; ++i)
    r.v[i] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(vld1q_u16(p + 8 * i)), mask));
  return r;
}
SPECC_INLINE F16 widen_half(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}
SPECC_INLINE F16 widen(const uint16_t* p) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}
// The larger; where one is NaN, b.
SPECC_INLINE F16 larger(F16 a, F16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
  return a;
}
// 2^n times a, n being the integer in the last bits of `shifted`.
SPECC_INLINE F16 times_power(F16 a, F16 shifted) {
  for (int i = 0; i < 4; ++i) {
    const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted.v[i]), 23);
    a.v[i] = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.v[i]), exponent));
  }
  return a;
}
// a, or zero where x is less than the bound.
SPECC_INLINE F16 zero_below(F16 a, F16 x, F16 bound) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vbicq_u32(vreinterpretq_u32_f32(a.v[i]), vcltq_f32(x.v[i], bound.v[i]));
    a.v[i] = vreinterpretq_f32_u32(bits);
  }
  return a;
}

#endif

SPECC_INLINE F16 all(float value) { return broadcast(&value); }

// The sum of the lanes: those 8 apart first, then 4, 2 and 1.
SPECC_INLINE float sum_lanes(F16 a) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  const __m256 eight = _mm256_add_ps(a.v[0], a.v[1]);
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
#endif
}

// The largest of the lanes; of NaN some lanes may be lost.
SPECC_INLINE float largest_lane(F16 a) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(a.v);
#elif defined(__AVX2__)
  const __m256 eight = _mm256_max_ps(a.v[0], a.v[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
#endif
}

// Asks memory for the Bytes of weights that are used Ahead bytes later. A processor's own prefetcher stops where a page
// ends. One request for each line, into the nearest cache: with a second one, products of 8 rows or more took up to 1.25
// times as long.
template <int Ahead, int Bytes>
SPECC_INLINE void ask_ahead(const uint8_t* p) {
#pragma GCC unroll 4
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + Ahead + i, 0, 3);
}

// Asks memory for Bytes of weights, and returns where the next ones begin.
template <int Bytes>
SPECC_INLINE const uint8_t* ask_for_next(const uint8_t* p) {
#pragma GCC unroll 4
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
  return p + Bytes;
}

// Writes the first `count` lanes.
SPECC_INLINE void store_some(float* p, F16 a, int64_t count) {
  if (count >= kLanes) return store(p, a);
  float lanes[kLanes];
  store(lanes, a);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

}  // namespace
}  // namespace specc
