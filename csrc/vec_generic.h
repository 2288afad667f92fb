// Vectors of 16 bytes from compiler extensions: SSE2 on any x86-64, NEON on aarch64, whatever the
// compiler makes of them elsewhere. Same interface as vec_avx2.h, which has the comments.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

// 64 makes registers as wide as AVX-512's out of whatever there is: how the code for that width is
// tested on machines without it.
#ifndef GROKFAST_VECTOR_BYTES
#define GROKFAST_VECTOR_BYTES 16
#endif

typedef float Floats __attribute__((vector_size(GROKFAST_VECTOR_BYTES)));
typedef double Doubles __attribute__((vector_size(GROKFAST_VECTOR_BYTES)));
typedef int32_t Ints __attribute__((vector_size(GROKFAST_VECTOR_BYTES)));
typedef int64_t Longs __attribute__((vector_size(GROKFAST_VECTOR_BYTES)));

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr long width = GROKFAST_VECTOR_BYTES / 4;
  Floats v;
  static Vec load(const float* p) {
    Vec x;
    memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static Vec set(float x) { return {x - Floats{}}; }
  void store(float* p) const { memcpy(p, &v, sizeof v); }
};

template <>
struct Vec<double> {
  static constexpr long width = GROKFAST_VECTOR_BYTES / 8;
  Doubles v;
  static Vec load(const double* p) {
    Vec x;
    memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static Vec set(double x) { return {x - Doubles{}}; }
  void store(double* p) const { memcpy(p, &v, sizeof v); }
};

using F = Vec<float>;
using D = Vec<double>;

// A comparison's result: all ones or all zeros in each lane.
inline Ints bits(F a) { return (Ints)a.v; }
inline Longs bits(D a) { return (Longs)a.v; }

inline F operator+(F a, F b) { return {a.v + b.v}; }
inline D operator+(D a, D b) { return {a.v + b.v}; }
inline F operator-(F a, F b) { return {a.v - b.v}; }
inline D operator-(D a, D b) { return {a.v - b.v}; }
inline F operator*(F a, F b) { return {a.v * b.v}; }
inline D operator*(D a, D b) { return {a.v * b.v}; }
inline F operator/(F a, F b) { return {a.v / b.v}; }
inline D operator/(D a, D b) { return {a.v / b.v}; }

#if defined(__aarch64__) && GROKFAST_VECTOR_BYTES == 16
inline F fma(F a, F b, F c) { return {(Floats)vfmaq_f32(c.v, a.v, b.v)}; }
inline D fma(D a, D b, D c) { return {(Doubles)vfmaq_f64(c.v, a.v, b.v)}; }
inline F sqrt(F a) { return {(Floats)vsqrtq_f32(a.v)}; }
inline D sqrt(D a) { return {(Doubles)vsqrtq_f64(a.v)}; }
#else
// Rounded twice: without the instruction, a correctly rounded fma would be a call a lane.
inline F fma(F a, F b, F c) { return {a.v * b.v + c.v}; }
inline D fma(D a, D b, D c) { return {a.v * b.v + c.v}; }
inline F sqrt(F a) {
  for (long i = 0; i < F::width; i++) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
inline D sqrt(D a) {
  for (long i = 0; i < D::width; i++) a.v[i] = __builtin_sqrt(a.v[i]);
  return a;
}
#endif

#if defined(__aarch64__) || GROKFAST_VECTOR_BYTES == 64
constexpr long kAccumulators = 24;  // of 32 registers
#else
constexpr long kAccumulators = 8;  // of 16 registers; products need some too
#endif

inline F gt(F a, F b) { return {(Floats)(a.v > b.v)}; }
inline D gt(D a, D b) { return {(Doubles)(a.v > b.v)}; }
inline F eq(F a, F b) { return {(Floats)(a.v == b.v)}; }
inline D eq(D a, D b) { return {(Doubles)(a.v == b.v)}; }
inline F select(F m, F a, F b) { return {(Floats)((bits(m) & bits(a)) | (~bits(m) & bits(b)))}; }
inline D select(D m, D a, D b) { return {(Doubles)((bits(m) & bits(a)) | (~bits(m) & bits(b)))}; }

inline F min(F a, F b) { return select(gt(b, a), a, b); }
inline D min(D a, D b) { return select(gt(b, a), a, b); }
inline F max(F a, F b) { return select(gt(a, b), a, b); }
inline D max(D a, D b) { return select(gt(a, b), a, b); }

template <int n>
F shift_left(F a) {
  return {(Floats)(bits(a) << n)};
}
template <int n>
D shift_left(D a) {
  return {(Doubles)(bits(a) << n)};
}

template <class V>
auto fold(V a) {
  for (long half = V::width / 2; half > 0; half /= 2)
    for (long i = 0; i < half; i++) a.v[i] = a.v[i] + a.v[i + half];
  return a.v[0];
}
inline float sum(F a) { return fold(a); }
inline double sum(D a) { return fold(a); }

template <class T>
struct Transpose {
  static constexpr long size = Vec<T>::width;
  static void block(const T* const* src, long offset, T* dst, long ld) {
    for (long i = 0; i < size; i++)
      for (long j = 0; j < size; j++) dst[j * ld + i] = src[i][offset + j];
  }
};

}  // namespace
