// LinearNBits, for the instruction set that the file is compiled for.
//
// Within a block the products are sums of integers, which are exact in any order. Over blocks each result is one chain
// in ascending order, begun at zero: sum = fma(float(integers) * scale of the weights, scale of the row, sum), where
// offsets add fma(offset, sum of the row's integers, ..) to the product. So a result depends on its row and its column
// alone, and all variants give equal bits.
#pragma once

#include "simd.h"
#include "variants.h"

namespace specc {
namespace {

// One register of 32-bit integers. Sixteen columns take kParts of them.
#if defined(__AVX512F__)
using Part = __m512i;
constexpr int kParts = 1;
#elif defined(__AVX2__)
using Part = __m256i;
constexpr int kParts = 2;
#else
using Part = int32x4_t;
constexpr int kParts = 4;
#endif

struct I16 {
  Part part[kParts];
};

SPECC_INLINE int32_t word(const int8_t* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

// Makes GCC compute a sum here. Else it puts off the additions of a whole block, and stores what is left to add in memory.
SPECC_INLINE void finish(Part& sum) {
#if defined(__AVX512VNNI__)
  (void)sum;  // an instruction multiplies and sums
#elif defined(__AVX2__)
  asm("" : "+v"(sum));
#else
  asm("" : "+w"(sum));
#endif
}

// Each instruction set defines operations on a register, and:
// - kSigned: whether weights of 8 bits are read as signed numbers, which is 128 less.
// - kNarrow: whether sums with weights of 4 bits have 16 bits, two for each column, until `widened` adds the two.
// - dot4: adds the dot product of four weights and four activations to each lane; Bits bounds the weights. Where products
//   are first added in pairs of 16 bits, signs of 8-bit weights go to the activations: a pair is 2 * 128 * 127 at most.
// - kNBitsRows: how many rows are multiplied at once.
// - kNBitsSteps: how often the loop over four values is unrolled.
#if defined(__AVX512F__)

SPECC_INLINE Part spread(int32_t value) { return _mm512_set1_epi32(value); }
SPECC_INLINE Part add(Part a, Part b) { return _mm512_add_epi32(a, b); }
SPECC_INLINE Part multiply(Part a, Part b) { return _mm512_mullo_epi32(a, b); }
SPECC_INLINE Part multiply_short(Part a, Part b) { return _mm512_madd_epi16(a, b); }
SPECC_INLINE F16 to_float(const I16& a) { return {_mm512_cvtepi32_ps(a.part[0])}; }
SPECC_INLINE void unpack4(const uint8_t* p, Part& low, Part& high) {
  const __m512i mask = _mm512_set1_epi8(15), packed = _mm512_loadu_si512(p);
  low = _mm512_and_si512(packed, mask);
  high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
}
SPECC_INLINE I16 load_bytes(const uint8_t* p) {
  return {{_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}};
}

#if defined(__AVX512VNNI__)

constexpr bool kSigned = false, kNarrow = false;
SPECC_INLINE Part load8(const uint8_t* p) { return _mm512_loadu_si512(p); }
template <int Bits>
SPECC_INLINE Part dot4(Part sum, Part weights, const int8_t* x) {
  return _mm512_dpbusd_epi32(sum, weights, spread(word(x)));
}
template <int Bits>
constexpr int kNBitsRows = 8;
constexpr int kNBitsSteps = 16;

#else

constexpr bool kSigned = true, kNarrow = true;
SPECC_INLINE Part widened(Part sums) { return _mm512_madd_epi16(sums, _mm512_set1_epi16(1)); }
SPECC_INLINE Part load8(const uint8_t* p) {
  return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(0x80)));
}
template <int Bits>
SPECC_INLINE Part dot4(Part sum, Part weights, const int8_t* x) {
  const __m512i values = spread(word(x));
  if constexpr (Bits == 4) {
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(weights, values));
  } else {
    const __m512i turned = _mm512_mask_sub_epi8(values, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), values);
    return add(sum, widened(_mm512_maddubs_epi16(_mm512_abs_epi8(weights), turned)));
  }
}
template <int Bits>
constexpr int kNBitsRows = 8;
constexpr int kNBitsSteps = 2;

#endif

#elif defined(__AVX2__)

SPECC_INLINE Part spread(int32_t value) { return _mm256_set1_epi32(value); }
SPECC_INLINE Part add(Part a, Part b) { return _mm256_add_epi32(a, b); }
SPECC_INLINE Part multiply(Part a, Part b) { return _mm256_mullo_epi32(a, b); }
SPECC_INLINE Part multiply_short(Part a, Part b) { return _mm256_madd_epi16(a, b); }
SPECC_INLINE F16 to_float(const I16& a) { return {{_mm256_cvtepi32_ps(a.part[0]), _mm256_cvtepi32_ps(a.part[1])}}; }
SPECC_INLINE void unpack4(const uint8_t* p, Part& low, Part& high) {
  const __m256i mask = _mm256_set1_epi8(15), packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  low = _mm256_and_si256(packed, mask);
  high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
}
SPECC_INLINE I16 load_bytes(const uint8_t* p) {
  return {{_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))}};
}

constexpr bool kSigned = true, kNarrow = true;
SPECC_INLINE Part widened(Part sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
SPECC_INLINE Part load8(const uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_xor_si256(bytes, _mm256_set1_epi8(static_cast<char>(0x80)));
}
template <int Bits>
SPECC_INLINE Part dot4(Part sum, Part weights, const int8_t* x) {
  const __m256i values = spread(word(x));
  if constexpr (Bits == 4) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
  } else {
    return add(sum, widened(_mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(values, weights))));
  }
}
template <int Bits>
constexpr int kNBitsRows = Bits == 4 ? 6 : 4;
constexpr int kNBitsSteps = 8;

#else

SPECC_INLINE Part spread(int32_t value) { return vdupq_n_s32(value); }
SPECC_INLINE Part add(Part a, Part b) { return vaddq_s32(a, b); }
SPECC_INLINE Part multiply(Part a, Part b) { return vmulq_s32(a, b); }
SPECC_INLINE Part multiply_short(Part a, Part b) { return vmulq_s32(a, b); }
SPECC_INLINE F16 to_float(const I16& a) {
  F16 r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(a.part[i]);
  return r;
}
SPECC_INLINE void unpack4(const uint8_t* p, Part& low, Part& high) {
  const uint8x16_t packed = vld1q_u8(p);
  low = vreinterpretq_s32_u8(vandq_u8(packed, vdupq_n_u8(15)));
  high = vreinterpretq_s32_u8(vshrq_n_u8(packed, 4));
}
SPECC_INLINE I16 load_bytes(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}

constexpr bool kSigned = true, kNarrow = false;
SPECC_INLINE Part load8(const uint8_t* p) { return vreinterpretq_s32_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80))); }
template <int Bits>
SPECC_INLINE Part dot4(Part sum, Part weights, const int8_t* x) {
  const int8x16_t a = vreinterpretq_s8_s32(weights), b = vreinterpretq_s8_s32(spread(word(x)));
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, a, b);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
template <int Bits>
constexpr int kNBitsRows = 8;
constexpr int kNBitsSteps = 2;

#endif

constexpr int kNBitsAhead = 3072;  // bytes between the weights that are asked for and those in use

template <bool Half>
SPECC_INLINE F16 load_scales(const void* scales, int64_t at) {
  if constexpr (Half) return widen_half(static_cast<const uint16_t*>(scales) + at);
  return load(static_cast<const float*>(scales) + at);
}

// Returns what, times the start of a row, is added to the sums of a block: zero points, or 128 where weights with offsets
// are read as 128 less.
template <int Bits>
SPECC_INLINE I16 load_points(const NBits& n, int64_t at) {
  constexpr int kLess = kSigned && Bits == 8 ? 128 : 0;
  I16 points;
  if (n.zeros) points = load_bytes(n.zeros + at);
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part)
    points.part[part] = n.zeros ? add(points.part[part], spread(-kLess)) : spread(kLess);
  return points;
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
  // Of 32 values a pair of columns' bytes adds up to 8 * 2 * 15 * 127 = 30480, which fits in 16 bits.
  constexpr bool kNarrowSums = kNarrow && Bits == 4;
  constexpr int kRun = kNarrowSums ? 32 : Block;
  constexpr int kTogether = M <= 2 ? kParts : 1;  // parts whose sums fit in registers
  static constexpr int32_t kNone[M] = {};
  F16 sums[M][2];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = zero();
  const int8_t* q = n.x.q + row * Block;
  const float* scales = n.x.scales + row;
  const int32_t* starts = n.x.starts + row;
  const bool from_zero = n.zeros || n.offsets || (kSigned && Bits == 8);
  int64_t at = panel * n.blocks * kPanel;
  const uint8_t* w = n.w + panel * n.blocks * kBytes;
  for (int64_t b = 0; b < n.blocks; ++b) {
    const int32_t* const begin = from_zero ? kNone : starts;
    constexpr int kBlocks = kNBitsAhead / kBytes;
    ask_ahead<kBlocks * kScaleBytes, kScaleBytes>(static_cast<const uint8_t*>(n.scales) + at * kScale);
    if (n.offsets) ask_ahead<kBlocks * kPanel * 4, kPanel * 4>(reinterpret_cast<const uint8_t*>(n.offsets + at));
    I16 dots[M][2];
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part)
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) dots[m][0].part[part] = dots[m][1].part[part] = spread(begin[m]);
#pragma GCC unroll 2
    for (int from = 0; from < Block; from += kRun)
#pragma GCC unroll 4
      for (int first = 0; first < kParts; first += kTogether) {
        // Else GCC keeps the activations of one part for the next one, for which there are too few registers.
        const int8_t* x = q;
        if constexpr (kTogether < kParts) asm volatile("" : "+r"(x));
        Part sums[M][2][kTogether];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
          for (int v = 0; v < 2; ++v)
#pragma GCC unroll 4
            for (int p = 0; p < kTogether; ++p)
              sums[m][v][p] = kNarrowSums ? spread(0) : dots[m][v].part[first + p];
#pragma GCC unroll kNBitsSteps
        for (int i = from; i < from + kRun; i += 4) {
          const uint8_t* const group = w + i * kPanel * Bits / 8;
          if (first == 0) ask_ahead<kNBitsAhead, Bits * 16>(group);
#pragma GCC unroll 4
          for (int p = 0; p < kTogether; ++p) {
            Part low, high;
            const uint8_t* const part = group + (first + p) * sizeof(Part);
            if constexpr (Bits == 4) {
              unpack4(part, low, high);
            } else {
              low = load8(part);
              high = load8(part + 64);
            }
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
              sums[m][0][p] = dot4<Bits>(sums[m][0][p], low, x + m * Block + i);
              sums[m][1][p] = dot4<Bits>(sums[m][1][p], high, x + m * Block + i);
              finish(sums[m][0][p]);
              finish(sums[m][1][p]);
            }
          }
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
          for (int v = 0; v < 2; ++v)
#pragma GCC unroll 4
            for (int p = 0; p < kTogether; ++p) {
              Part& dot = dots[m][v].part[first + p];
              if constexpr (kNarrowSums) dot = add(dot, widened(sums[m][v][p]));
              else dot = sums[m][v][p];
            }
      }
    if (n.zeros || (kSigned && Bits == 8 && n.offsets)) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const I16 points = load_points<Bits>(n, at + v * kLanes);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
          for (int part = 0; part < kParts; ++part) {
            const Part start = spread(starts[m]), point = points.part[part];
            const Part more = Bits == 4 ? multiply_short(point, start) : multiply(point, start);
            dots[m][v].part[part] = add(dots[m][v].part[part], more);
          }
      }
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
  constexpr int kRows = kNBitsRows<Bits>;
  const int64_t groups = (n.rows + kRows - 1) / kRows;
  for (int64_t panel = first; panel < last; ++panel)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t row = n.rows * g / groups;
      nbits_choose<Bits, Block, kRows, Half>(n.rows * (g + 1) / groups - row, n, row, panel);
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
