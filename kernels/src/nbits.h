// LinearNBits, for the instruction set that the file is compiled for.
//
// Within a block the products are sums of integers, which are exact in any order. Over blocks each result is one chain
// in ascending order, begun at zero: sum = fma(float(integers) * scale of the weights, scale of the row, sum), where
// offsets add fma(offset, sum of the row's integers, ..) to the product. So a result depends on its row and its column alone, and all variants give equal bits.
#pragma once

#include "simd.h"
#include "variants.h"

namespace specc {
namespace {

#if defined(__AVX512F__)

struct I16 {
  __m512i v;
};
SPECC_INLINE F16 to_float(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
SPECC_INLINE void unpack4(const uint8_t* p, I16& low, I16& high) {
  const __m512i mask = _mm512_set1_epi8(15), packed = _mm512_loadu_si512(p);
  low.v = _mm512_and_si512(packed, mask);
  high.v = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
}
SPECC_INLINE I16 load8(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
SPECC_INLINE int32_t word(const int8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

// sum + the dot product of four unsigned weights and four signed activations in each lane; Bits bounds the weights
template <int Bits>
SPECC_INLINE I16 dot4(I16 sum, I16 weights, const int8_t* x) {
  const __m512i values = _mm512_set1_epi32(word(x));
#if defined(__AVX512VNNI__)
  return {_mm512_dpbusd_epi32(sum.v, weights.v, values)};
#else
  const __m512i ones = _mm512_set1_epi16(1);
  if constexpr (Bits == 4) {
    const __m512i pairs = _mm512_maddubs_epi16(weights.v, values);
    return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(pairs, ones))};
  } else {  // in two parts, since a pair of products of 8 bits does not fit in 16
    const __m512i top = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i low = _mm512_maddubs_epi16(_mm512_andnot_si512(top, weights.v), values);
    const __m512i high = _mm512_maddubs_epi16(_mm512_and_si512(top, weights.v), values);
    const __m512i both = _mm512_add_epi32(_mm512_madd_epi16(low, ones), _mm512_madd_epi16(high, ones));
    return {_mm512_add_epi32(sum.v, both)};
  }
#endif
}
// zeros * value, both of which fit in 16 bits
SPECC_INLINE I16 times(I16 zeros, int32_t value) { return {_mm512_madd_epi16(zeros.v, _mm512_set1_epi32(value))}; }
SPECC_INLINE I16 load_zeros(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
SPECC_INLINE I16 iset(const int32_t* value) { return {_mm512_set1_epi32(*value)}; }
SPECC_INLINE I16 add(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }

constexpr int kNBitsRows = 8;
#if defined(__AVX512VNNI__)
constexpr int kNBitsSteps = 16;
#else
constexpr int kNBitsSteps = 2;
#endif

#elif defined(__AVX2__)

struct I16 {
  __m256i v[2];
};
SPECC_INLINE I16 iset(const int32_t* value) {
  const __m256i v = _mm256_set1_epi32(*value);
  return {{v, v}};
}
SPECC_INLINE I16 add(I16 a, I16 b) {
  for (int i = 0; i < 2; ++i) a.v[i] = _mm256_add_epi32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 to_float(I16 a) { return {{_mm256_cvtepi32_ps(a.v[0]), _mm256_cvtepi32_ps(a.v[1])}}; }
SPECC_INLINE I16 load8(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))}};
}
SPECC_INLINE void unpack4(const uint8_t* p, I16& low, I16& high) {
  const __m256i mask = _mm256_set1_epi8(15);
  const I16 packed = load8(p);
  for (int i = 0; i < 2; ++i) {
    low.v[i] = _mm256_and_si256(packed.v[i], mask);
    high.v[i] = _mm256_and_si256(_mm256_srli_epi16(packed.v[i], 4), mask);
  }
}
template <int Bits>
SPECC_INLINE I16 dot4(I16 sum, I16 weights, const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  const __m256i values = _mm256_set1_epi32(word), ones = _mm256_set1_epi16(1);
  const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
  for (int i = 0; i < 2; ++i) {
    if constexpr (Bits == 4) {
      const __m256i pairs = _mm256_maddubs_epi16(weights.v[i], values);
      sum.v[i] = _mm256_add_epi32(sum.v[i], _mm256_madd_epi16(pairs, ones));
    } else {  // in two parts, since a pair of products of 8 bits does not fit in 16
      const __m256i low = _mm256_maddubs_epi16(_mm256_andnot_si256(top, weights.v[i]), values);
      const __m256i high = _mm256_maddubs_epi16(_mm256_and_si256(top, weights.v[i]), values);
      const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
      sum.v[i] = _mm256_add_epi32(sum.v[i], both);
    }
  }
  return sum;
}
SPECC_INLINE I16 times(I16 zeros, int32_t value) {
  for (int i = 0; i < 2; ++i) zeros.v[i] = _mm256_madd_epi16(zeros.v[i], _mm256_set1_epi32(value));
  return zeros;
}
SPECC_INLINE I16 load_zeros(const uint8_t* p) {
  return {{_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))}};
}

constexpr int kNBitsRows = 2, kNBitsSteps = 2;

#else

struct I16 {
  int32x4_t v[4];
};
SPECC_INLINE I16 iset(const int32_t* value) {
  const int32x4_t v = vdupq_n_s32(*value);
  return {{v, v, v, v}};
}
SPECC_INLINE I16 add(I16 a, I16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
  return a;
}
SPECC_INLINE F16 to_float(I16 a) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(a.v[i]);
  return r;
}
SPECC_INLINE I16 load8(const uint8_t* p) {
  I16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_s32_u8(vld1q_u8(p + 16 * i));
  return r;
}
SPECC_INLINE void unpack4(const uint8_t* p, I16& low, I16& high) {
  for (int i = 0; i < 4; ++i) {
    const uint8x16_t packed = vld1q_u8(p + 16 * i);
    low.v[i] = vreinterpretq_s32_u8(vandq_u8(packed, vdupq_n_u8(15)));
    high.v[i] = vreinterpretq_s32_u8(vshrq_n_u8(packed, 4));
  }
}
SPECC_INLINE int32x4_t sdot(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, a, b);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
template <int Bits>
SPECC_INLINE I16 dot4(I16 sum, I16 weights, const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(word));
  for (int i = 0; i < 4; ++i) {
    const uint8x16_t w = vreinterpretq_u8_s32(weights.v[i]);
    if constexpr (Bits == 4) {
      sum.v[i] = sdot(sum.v[i], vreinterpretq_s8_u8(w), values);
    } else {  // w = (w - 128) + 128 = signed + 127 + 1
      const int8x16_t less = vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80)));
      sum.v[i] = sdot(sum.v[i], less, values);
      sum.v[i] = sdot(sum.v[i], vdupq_n_s8(127), values);
      sum.v[i] = sdot(sum.v[i], vdupq_n_s8(1), values);
    }
  }
  return sum;
}
SPECC_INLINE I16 times(I16 zeros, int32_t value) {
  for (int i = 0; i < 4; ++i) zeros.v[i] = vmulq_n_s32(zeros.v[i], value);
  return zeros;
}
SPECC_INLINE I16 load_zeros(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}

constexpr int kNBitsRows = 4, kNBitsSteps = 2;

#endif

constexpr int kNBitsAhead = 3072;  // bytes between the weights that are asked for and those in use

template <bool Half>
SPECC_INLINE F16 load_scales(const void* scales, int64_t at) {
  if constexpr (Half) return widen_half(static_cast<const uint16_t*>(scales) + at);
  return load(static_cast<const float*>(scales) + at);
}

// sums += the products of one block, where `dots` are its sums of integers.
template <int M, bool Offsets>
SPECC_INLINE void add_block(const I16 (&dots)[M][2], const F16 (&weights)[2], const float* offsets, const float* scales,
                            const int32_t* starts, F16 (&sums)[M][2]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    const F16 scale = broadcast(scales + m);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      F16 product = mul(to_float(dots[m][v]), weights[v]);
      if constexpr (Offsets) product = fma(load(offsets + v * kLanes), all(static_cast<float>(starts[m])), product);
      sums[m][v] = fma(product, scale, sums[m][v]);
    }
  }
}

// The sums of M rows and a whole panel, which are kept in memory between blocks.
template <int Bits, int Block, int M, bool Half>
void nbits_rows(const NBits& n, int64_t row, int64_t panel) {
  constexpr int kBytes = kPanel * Block * Bits / 8;  // of a block of a panel
  constexpr int kScale = Half ? 2 : 4, kScaleBytes = kPanel * kScale;
  static constexpr int32_t kNone[M] = {};
  F16 sums[M][2];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = zero();
  const int8_t* q = n.x.q + row * Block;
  const float* scales = n.x.scales + row;
  const int32_t* starts = n.x.starts + row;
  const bool from_zero = n.zeros || n.offsets;
  int64_t at = panel * n.blocks * kPanel;
  const uint8_t* w = n.w + panel * n.blocks * kBytes;
  for (int64_t b = 0; b < n.blocks; ++b) {
    const int32_t* const begin = from_zero ? kNone : starts;
    constexpr int kBlocks = kNBitsAhead / kBytes;
    ask_ahead<kBlocks * kScaleBytes, kScaleBytes>(static_cast<const uint8_t*>(n.scales) + at * kScale);
    if (n.offsets) ask_ahead<kBlocks * kPanel * 4, kPanel * 4>(reinterpret_cast<const uint8_t*>(n.offsets + at));
    I16 dots[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) dots[m][0] = dots[m][1] = iset(begin + m);
#pragma GCC unroll kNBitsSteps
    for (int i = 0; i < Block; i += 4) {
      I16 low, high;
      const uint8_t* const p = w + i * kPanel * Bits / 8;
      ask_ahead<kNBitsAhead, Bits * 16>(p);
      if constexpr (Bits == 4) {
        unpack4(p, low, high);
      } else {
        low = load8(p);
        high = load8(p + 64);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        dots[m][0] = dot4<Bits>(dots[m][0], low, q + m * Block + i);
        dots[m][1] = dot4<Bits>(dots[m][1], high, q + m * Block + i);
      }
    }
    if (n.zeros) {
      const I16 zeros[2] = {load_zeros(n.zeros + at), load_zeros(n.zeros + at + kLanes)};
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) dots[m][v] = add(dots[m][v], times(zeros[v], starts[m]));
    }
    const F16 weights[2] = {load_scales<Half>(n.scales, at), load_scales<Half>(n.scales, at + kLanes)};
    if (n.offsets) {
      add_block<M, true>(dots, weights, n.offsets + at, scales, starts, sums);
    } else {
      add_block<M, false>(dots, weights, nullptr, scales, starts, sums);
    }
    w += kBytes;
    at += kPanel;
    q += n.rows * Block;
    scales += n.rows;
    starts += n.rows;
  }
  const int64_t column = panel * kPanel, columns = n.columns - column < kPanel ? n.columns - column : kPanel;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* const y = n.y + (row + m) * n.columns + column;
    store_some(y, sums[m][0], columns);
    if (columns > kLanes) store_some(y + kLanes, sums[m][1], columns - kLanes);
  }
}

template <int Bits, int Block, int M, bool Half>
SPECC_INLINE void nbits_choose(int64_t rows, const NBits& n, int64_t row, int64_t panel) {
  if (rows == M) return nbits_rows<Bits, Block, M, Half>(n, row, panel);
  if constexpr (M > 1) nbits_choose<Bits, Block, M - 1, Half>(rows, n, row, panel);
}

template <int Bits, int Block, bool Half>
void nbits_panels(const NBits& n, int64_t first, int64_t last) {
  const int64_t groups = (n.rows + kNBitsRows - 1) / kNBitsRows;
  for (int64_t panel = first; panel < last; ++panel)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t row = n.rows * g / groups;
      nbits_choose<Bits, Block, kNBitsRows, Half>(n.rows * (g + 1) / groups - row, n, row, panel);
    }
}

template <int Bits, int Block>
void nbits_block(const NBits& n, int64_t first, int64_t last) {
  if (n.half_scales) return nbits_panels<Bits, Block, true>(n, first, last);
  nbits_panels<Bits, Block, false>(n, first, last);
}

void nbits(const NBits& n, int64_t first, int64_t last) {
  if (n.bits == 4) return n.block == 32 ? nbits_block<4, 32>(n, first, last) : nbits_block<4, 64>(n, first, last);
  if (n.block == 16) return nbits_block<8, 16>(n, first, last);
  n.block == 32 ? nbits_block<8, 32>(n, first, last) : nbits_block<8, 64>(n, first, last);
}

}  // namespace
}  // namespace specc
