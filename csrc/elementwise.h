// Elementary functions and activations on vectors.
#pragma once

namespace {

inline Vec<float> clamp(Vec<float> x, float most) {
  return min(Vec<float>::set(most), max(Vec<float>::set(-most), x));  // this order keeps NaN
}

template <class T, int n>
Vec<T> polynomial(Vec<T> x, const T (&c)[n]) {  // c[0] x^(n-1) + ... + c[n-1]
  Vec<T> y = Vec<T>::set(c[0]);
  _Pragma("GCC unroll 8") for (int i = 1; i < n; i++) y = fma(y, x, Vec<T>::set(c[i]));
  return y;
}

// 2^n for whole n in the exponent range: adding 1.5 * 2^23 + 127 leaves n + 127 in the low bits of
// the mantissa, from where a shift moves it into the exponent.
inline Vec<float> power_of_two(Vec<float> n) {
  return shift_left<23>(n + Vec<float>::set(12582912.0f + 127.0f));
}
inline Vec<double> power_of_two(Vec<double> n) {
  return shift_left<52>(n + Vec<double>::set(6755399441055744.0 + 1023.0));
}

inline Vec<float> nearest_whole(Vec<float> x) {
  const Vec<float> magic = Vec<float>::set(12582912.0f);
  return (x + magic) - magic;
}
inline Vec<double> nearest_whole(Vec<double> x) {
  const Vec<double> magic = Vec<double>::set(6755399441055744.0);
  return (x + magic) - magic;
}

// e^x for x <= 88; below -87 it stays at e^-87 = 1.6e-38. Cephes expf, 1 ulp.
inline Vec<float> exp(Vec<float> x) {
  using V = Vec<float>;
  static const float c[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                            4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  x = max(V::set(-87.0f), x);
  V n = nearest_whole(x * V::set(1.44269504088896341f));
  V r = fma(n, V::set(2.12194440e-4f), fma(n, V::set(-0.693359375f), x));
  V y = fma(polynomial(r, c), r * r, r) + V::set(1);
  return y * power_of_two(n);
}

// e^x for |x| <= 700, clamped below. Cephes exp, 1 ulp.
inline Vec<double> exp(Vec<double> x) {
  using V = Vec<double>;
  static const double p[] = {1.26177193074810590878e-4, 3.02994407707441961300e-2,
                             9.99999999999999999910e-1};
  static const double q[] = {3.00198505138664455042e-6, 2.52448340349684104192e-3,
                             2.27265548208155028766e-1, 2.00000000000000000009e0};
  x = max(V::set(-700.0), x);
  V n = nearest_whole(x * V::set(1.4426950408889634074));
  V r = fma(n, V::set(-1.42860682030941723212e-6), fma(n, V::set(-6.93145751953125e-1), x));
  V z = r * r;
  V px = r * polynomial(z, p);
  V y = fma(V::set(2), px / (polynomial(z, q) - px), V::set(1));
  return y * power_of_two(n);
}

// x P(x^2) / Q(x^2), minimax in relative error (1.6e-8) on |x| <= 8.6, where tanh is 1 to half an
// ulp; coefficients then searched for the least rounding error. 5 ulp (2.7e-7), never beyond 1.
inline Vec<float> tanh(Vec<float> x) {
  static const float p[] = {1.39617287e-08f, 2.10434828e-05f, 3.52192251e-3f, 0.134031937f, 1.0f};
  static const float q[] = {8.02373904e-07f, 3.32873111e-4f, 2.59771477e-2f, 0.467365175f, 1.0f};
  x = clamp(x, 8.60585022f);
  Vec<float> z = x * x;
  return clamp(x * polynomial(z, p) / polynomial(z, q), 1.0f);
}

// Cephes tanh: a rational function below 0.625, 1 - 2 / (e^2x + 1) above; 2 ulp.
inline Vec<double> tanh(Vec<double> x) {
  using V = Vec<double>;
  static const double p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                             -1.61468768441708447952e3};
  static const double q[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                             4.84406305325125486048e3};
  V z = x * x;
  V small = fma(x * z, polynomial(z, p) / polynomial(z, q), x);
  V size = max(V::set(0) - x, x);
  V large = V::set(1) - V::set(2) / (exp(min(V::set(40), size + size)) + V::set(1));
  large = select(gt(V::set(0), x), V::set(0) - large, large);
  return select(gt(size, V::set(0.625)), large, small);  // NaN: small, which is NaN
}

// An activation gives its value at z and, for the backward pass, its slope: from the value h, or
// where that does not tell (`keeps_input`) from z, which the forward pass then keeps.
struct Identity {
  static constexpr bool keeps_input = false;
  template <class V>
  static V value(V z) { return z; }
  template <class V>
  static V slope(V) { return V::set(1); }
};

struct Tanh {
  static constexpr bool keeps_input = false;
  template <class V>
  static V value(V z) { return tanh(z); }
  template <class V>
  static V slope(V h) { return fma(V::set(0) - h, h, V::set(1)); }
};

struct Relu {
  static constexpr bool keeps_input = false;
  template <class V>
  static V value(V z) { return max(V::set(0), z); }
  template <class V>
  static V slope(V h) { return select(gt(h, V::set(0)), V::set(1), V::set(0)); }
};

struct LeakyRelu {
  static constexpr bool keeps_input = false;
  template <class V>
  static V value(V z) { return select(gt(z, V::set(0)), z, z * V::set(0.1)); }
  template <class V>
  static V slope(V h) { return select(gt(h, V::set(0)), V::set(1), V::set(0.1)); }
};

struct Square {
  static constexpr bool keeps_input = true;
  template <class V>
  static V value(V z) { return z * z; }
  template <class V>
  static V slope(V z) { return z + z; }
};

// The one place where an activation's name becomes its code.
template <class Call>
auto with_activation(Activation activation, Call&& call) {
  switch (activation) {
    case Activation::tanh: return call(Tanh());
    case Activation::relu: return call(Relu());
    case Activation::leaky_relu: return call(LeakyRelu());
    case Activation::square: return call(Square());
  }
  unknown_value();
}

inline bool keeps_input(Activation activation) {
  return with_activation(activation, [](auto rule) { return decltype(rule)::keeps_input; });
}

}  // namespace
