// Losses and predictions, one vector of samples (a strip of a panel) at a time.
//
// `z` is the strip's first output; the next output of the same samples is `stride` further. A loss
// leaves its gradient in place of the outputs, and per sample what its value is summed up from.
// Columns that only pad, or are not trained on, get a gradient too: nobody uses it.
#pragma once

#include <math.h>

namespace {

// What is known and found of each column (sample) of a block.
template <class T>
struct Columns {
  T* label;       // a whole number; -1 for padding
  T* prediction;  // a whole number
  T* term;        // the loss of the sample, before `Rule::value`
  T* extra;       // second part of it
};

// Index of the first maximum.
template <class T>
Vec<T> argmax(const T* z, long stride, long n) {
  using V = Vec<T>;
  V top = V::load(z), index = V::set(0);
  for (long o = 1; o < n; o++) {
    V x = V::load(z + o * stride);
    auto better = gt(x, top);
    top = select(better, x, top);
    index = select(better, V::set(static_cast<T>(o)), index);
  }
  return index;
}

// Mean of -log softmax(z)[label].
template <class T>
struct CrossEntropy {
  using V = Vec<T>;
  static constexpr bool uses_targets = false;

  // What the sum over samples is divided by.
  static double terms(long samples, long) { return static_cast<double>(samples); }
  static double value(T term, T extra) { return ::log(static_cast<double>(term)) + extra; }

  static void strip(T* z, long stride, long n, const T*, long, V label, V scale, bool gradient,
                    T* term, T* extra) {
    V top = V::load(z), chosen = V::set(0);
    for (long o = 1; o < n; o++) top = max(top, V::load(z + o * stride));
    V sum = V::set(0);
    for (long o = 0; o < n; o++) {
      V x = V::load(z + o * stride) - top;
      chosen = select(eq(label, V::set(static_cast<T>(o))), x, chosen);
      x = exp(x);
      sum = sum + x;
      if (gradient) x.store(z + o * stride);
    }
    sum.store(term);
    (V::set(0) - chosen).store(extra);
    if (!gradient) return;
    // softmax - 1 is rounded as torch rounds it: once softmax rounds to 1, the sample stops
    // teaching ("softmax collapse", arXiv 2501.04697), and runs are to reproduce that.
    for (long o = 0; o < n; o++) {
      V hit = select(eq(label, V::set(static_cast<T>(o))), V::set(1), V::set(0));
      ((V::load(z + o * stride) / sum - hit) * scale).store(z + o * stride);
    }
  }
  static double gradient_scale(long samples, long) { return 1.0 / static_cast<double>(samples); }
};

// Mean over samples and outputs of (z - target[label])^2.
template <class T>
struct MeanSquares {
  using V = Vec<T>;
  static constexpr bool uses_targets = true;

  static double terms(long samples, long outputs) { return static_cast<double>(samples * outputs); }
  static double value(T term, T) { return static_cast<double>(term); }

  static void strip(T* z, long stride, long n, const T* target, long target_stride, V, V scale,
                    bool gradient, T* term, T*) {
    V sum = V::set(0);
    for (long o = 0; o < n; o++) {
      V x = V::load(z + o * stride) - V::load(target + o * target_stride);
      sum = fma(x, x, sum);
      if (gradient) (x * scale).store(z + o * stride);
    }
    sum.store(term);
  }
  static double gradient_scale(long samples, long outputs) {
    return 2.0 / static_cast<double>(samples * outputs);
  }
};

// Mean over samples and outputs of max(0, 1 - target[label] z).
template <class T>
struct Hinge {
  using V = Vec<T>;
  static constexpr bool uses_targets = true;

  static double terms(long samples, long outputs) { return static_cast<double>(samples * outputs); }
  static double value(T term, T) { return static_cast<double>(term); }

  static void strip(T* z, long stride, long n, const T* target, long target_stride, V, V scale,
                    bool gradient, T* term, T*) {
    const V zero = V::set(0);
    V sum = zero;
    for (long o = 0; o < n; o++) {
      const V side = V::load(target + o * target_stride);
      const V short_of = V::set(1) - side * V::load(z + o * stride);
      sum = sum + max(zero, short_of);  // this order keeps NaN
      if (gradient) select(gt(short_of, zero), zero - side * scale, zero).store(z + o * stride);
    }
    sum.store(term);
  }
  static double gradient_scale(long samples, long outputs) { return 1.0 / terms(samples, outputs); }
};

// The one place where a loss's name becomes its code.
template <class T, class Call>
auto with_loss(Loss loss, Call&& call) {
  switch (loss) {
    case Loss::cross_entropy: return call(CrossEntropy<T>());
    case Loss::mse: return call(MeanSquares<T>());
    case Loss::hinge: return call(Hinge<T>());
  }
  unknown_value();
}

}  // namespace
