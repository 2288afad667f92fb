// Vectors of AVX2 + FMA: 8 floats or 4 doubles. Same interface as vec_avx512.h and vec_generic.h.
#pragma once

#include <immintrin.h>

namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr long width = 8;
  __m256 v;
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec set(float x) { return {_mm256_set1_ps(x)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

template <>
struct Vec<double> {
  static constexpr long width = 4;
  __m256d v;
  static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Vec set(double x) { return {_mm256_set1_pd(x)}; }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
};

using F = Vec<float>;
using D = Vec<double>;

inline F operator+(F a, F b) { return {_mm256_add_ps(a.v, b.v)}; }
inline D operator+(D a, D b) { return {_mm256_add_pd(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline D operator-(D a, D b) { return {_mm256_sub_pd(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm256_mul_pd(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
inline D operator/(D a, D b) { return {_mm256_div_pd(a.v, b.v)}; }

// a * b + c
inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline D fma(D a, D b, D c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
inline F sqrt(F a) { return {_mm256_sqrt_ps(a.v)}; }
inline D sqrt(D a) { return {_mm256_sqrt_pd(a.v)}; }

// min and max return b where either is NaN, so that a NaN in b survives.
inline F min(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }
inline D min(D a, D b) { return {_mm256_min_pd(a.v, b.v)}; }
inline F max(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
inline D max(D a, D b) { return {_mm256_max_pd(a.v, b.v)}; }

// Comparisons are false for NaN; select(mask, a, b) is mask ? a : b.
inline F gt(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline D gt(D a, D b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_GT_OQ)}; }
inline F eq(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline D eq(D a, D b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }
inline F select(F m, F a, F b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
inline D select(D m, D a, D b) { return {_mm256_blendv_pd(b.v, a.v, m.v)}; }

// The bits of a shifted left as an integer, lane by lane.
template <int n>
F shift_left(F a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), n))};
}
template <int n>
D shift_left(D a) {
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.v), n))};
}

inline float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline double sum(D a) {
  __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

// dst[j][i] = src[i][j] for a square block, rows of src given one by one.
#define UNROLL _Pragma("GCC unroll 8")  // arrays of registers need it

template <class T>
struct Transpose;

template <>
struct Transpose<float> {
  static constexpr long size = 8;
  static void block(const float* const* src, long offset, float* dst, long ld) {
    __m256 r[8], t[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(src[i] + offset);
    UNROLL for (int i = 0; i < 4; i++) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++) {
      r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
      r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
      r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
      r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++) {
      _mm256_storeu_ps(dst + i * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
      _mm256_storeu_ps(dst + (i + 4) * ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
  }
};

template <>
struct Transpose<double> {
  static constexpr long size = 4;
  static void block(const double* const* src, long offset, double* dst, long ld) {
    __m256d r[4], t[4];
    UNROLL for (int i = 0; i < 4; i++) r[i] = _mm256_loadu_pd(src[i] + offset);
    UNROLL for (int i = 0; i < 2; i++) {
      t[2 * i] = _mm256_unpacklo_pd(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_pd(r[2 * i], r[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++) {
      _mm256_storeu_pd(dst + i * ld, _mm256_permute2f128_pd(t[i], t[i + 2], 0x20));
      _mm256_storeu_pd(dst + (i + 2) * ld, _mm256_permute2f128_pd(t[i], t[i + 2], 0x31));
    }
  }
};

#undef UNROLL

constexpr long kAccumulators = 12;  // of 16 registers; the rest hold the operands

}  // namespace
