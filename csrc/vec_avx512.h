// Vectors of AVX-512F: 16 floats or 8 doubles. Same interface as vec_avx2.h, which has comments.
#pragma once

// GCC 12 warns of its own header: gcc.gnu.org/bugzilla/show_bug.cgi?id=105593.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr long width = 16;
  __m512 v;
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

template <>
struct Vec<double> {
  static constexpr long width = 8;
  __m512d v;
  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec set(double x) { return {_mm512_set1_pd(x)}; }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
};

using F = Vec<float>;
using D = Vec<double>;

inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline D operator+(D a, D b) { return {_mm512_add_pd(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline D operator-(D a, D b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm512_mul_pd(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline D operator/(D a, D b) { return {_mm512_div_pd(a.v, b.v)}; }

inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline D fma(D a, D b, D c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
inline F sqrt(F a) { return {_mm512_sqrt_ps(a.v)}; }
inline D sqrt(D a) { return {_mm512_sqrt_pd(a.v)}; }

inline F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline D min(D a, D b) { return {_mm512_min_pd(a.v, b.v)}; }
inline F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline D max(D a, D b) { return {_mm512_max_pd(a.v, b.v)}; }

inline __mmask16 gt(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
inline __mmask8 gt(D a, D b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ); }
inline __mmask16 eq(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline __mmask8 eq(D a, D b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
inline F select(__mmask16 m, F a, F b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }
inline D select(__mmask8 m, D a, D b) { return {_mm512_mask_blend_pd(m, b.v, a.v)}; }

template <int n>
F shift_left(F a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), n))};
}
template <int n>
D shift_left(D a) {
  return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.v), n))};
}

inline float sum(F a) { return _mm512_reduce_add_ps(a.v); }
inline double sum(D a) { return _mm512_reduce_add_pd(a.v); }

// Blocks of a quarter of a register: the same bits, and no 16 x 16 shuffle network to maintain.
template <class T>
struct Transpose;

template <>
struct Transpose<float> {
  static constexpr long size = 4;
  static void block(const float* const* src, long offset, float* dst, long ld) {
    __m128 a = _mm_loadu_ps(src[0] + offset), b = _mm_loadu_ps(src[1] + offset);
    __m128 c = _mm_loadu_ps(src[2] + offset), d = _mm_loadu_ps(src[3] + offset);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(dst, a);
    _mm_storeu_ps(dst + ld, b);
    _mm_storeu_ps(dst + 2 * ld, c);
    _mm_storeu_ps(dst + 3 * ld, d);
  }
};

template <>
struct Transpose<double> {
  static constexpr long size = 2;
  static void block(const double* const* src, long offset, double* dst, long ld) {
    const __m128d a = _mm_loadu_pd(src[0] + offset), b = _mm_loadu_pd(src[1] + offset);
    _mm_storeu_pd(dst, _mm_unpacklo_pd(a, b));
    _mm_storeu_pd(dst + ld, _mm_unpackhi_pd(a, b));
  }
};

constexpr long kAccumulators = 24;  // of 32 registers: a batch of 48 floats is one tile wide

}  // namespace
