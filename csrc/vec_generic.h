// Vectors of 16 bytes from compiler extensions: SSE2 on any x86-64, NEON on aarch64, whatever the
// compiler makes of them elsewhere. Same interface as vec_avx2.h, which has the comments.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
typedef int64_t Int2 __attribute__((vector_size(16)));

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr long width = 4;
  Float4 v;
  static Vec load(const float* p) {
    Vec x;
    memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static Vec set(float x) { return {Float4{x, x, x, x}}; }
  void store(float* p) const { memcpy(p, &v, sizeof v); }
};

template <>
struct Vec<double> {
  static constexpr long width = 2;
  Double2 v;
  static Vec load(const double* p) {
    Vec x;
    memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static Vec set(double x) { return {Double2{x, x}}; }
  void store(double* p) const { memcpy(p, &v, sizeof v); }
};

using F = Vec<float>;
using D = Vec<double>;

// A comparison's result: all ones or all zeros in each lane.
inline Int4 bits(F a) { return (Int4)a.v; }
inline Int2 bits(D a) { return (Int2)a.v; }

inline F operator+(F a, F b) { return {a.v + b.v}; }
inline D operator+(D a, D b) { return {a.v + b.v}; }
inline F operator-(F a, F b) { return {a.v - b.v}; }
inline D operator-(D a, D b) { return {a.v - b.v}; }
inline F operator*(F a, F b) { return {a.v * b.v}; }
inline D operator*(D a, D b) { return {a.v * b.v}; }
inline F operator/(F a, F b) { return {a.v / b.v}; }
inline D operator/(D a, D b) { return {a.v / b.v}; }

#if defined(__aarch64__)
inline F fma(F a, F b, F c) { return {(Float4)vfmaq_f32(c.v, a.v, b.v)}; }
inline D fma(D a, D b, D c) { return {(Double2)vfmaq_f64(c.v, a.v, b.v)}; }
inline F sqrt(F a) { return {(Float4)vsqrtq_f32(a.v)}; }
inline D sqrt(D a) { return {(Double2)vsqrtq_f64(a.v)}; }
constexpr long kAccumulators = 24;  // of 32 registers
#else
// Rounded twice: without the instruction, a correctly rounded fma would be a call a lane.
inline F fma(F a, F b, F c) { return {a.v * b.v + c.v}; }
inline D fma(D a, D b, D c) { return {a.v * b.v + c.v}; }
#if defined(__SSE2__)
inline F sqrt(F a) { return {_mm_sqrt_ps(a.v)}; }
inline D sqrt(D a) { return {_mm_sqrt_pd(a.v)}; }
#else
inline F sqrt(F a) {
  for (int i = 0; i < 4; i++) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
inline D sqrt(D a) {
  for (int i = 0; i < 2; i++) a.v[i] = __builtin_sqrt(a.v[i]);
  return a;
}
#endif
constexpr long kAccumulators = 8;  // of 16 registers; products need some too
#endif

inline F gt(F a, F b) { return {(Float4)(a.v > b.v)}; }
inline D gt(D a, D b) { return {(Double2)(a.v > b.v)}; }
inline F eq(F a, F b) { return {(Float4)(a.v == b.v)}; }
inline D eq(D a, D b) { return {(Double2)(a.v == b.v)}; }
inline F select(F m, F a, F b) { return {(Float4)((bits(m) & bits(a)) | (~bits(m) & bits(b)))}; }
inline D select(D m, D a, D b) { return {(Double2)((bits(m) & bits(a)) | (~bits(m) & bits(b)))}; }

inline F min(F a, F b) { return select(gt(b, a), a, b); }
inline D min(D a, D b) { return select(gt(b, a), a, b); }
inline F max(F a, F b) { return select(gt(a, b), a, b); }
inline D max(D a, D b) { return select(gt(a, b), a, b); }

template <int n>
F shift_left(F a) {
  return {(Float4)(bits(a) << n)};
}
template <int n>
D shift_left(D a) {
  return {(Double2)(bits(a) << n)};
}

inline float sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline double sum(D a) { return a.v[0] + a.v[1]; }

template <class T>
struct Transpose {
  static constexpr long size = Vec<T>::width;
  static void block(const T* const* src, long offset, T* dst, long ld) {
    for (long i = 0; i < size; i++)
      for (long j = 0; j < size; j++) dst[j * ld + i] = src[i][offset + j];
  }
};

}  // namespace
