// The whole implementation of a level, on top of a vec_*.h. Included by one translation unit per
// level, each compiled for its own instruction set, so everything has internal linkage and nothing
// comes from the C++ library: an inline function shared between these objects would be merged at
// link time, and a plain machine could end up with the AVX-512 copy.
#pragma once

#include <time.h>

#include "level.h"

namespace {
// Ends every dispatch: a value that no case knows is a fault, not the last case.
[[noreturn]] inline void unknown_value() { __builtin_trap(); }
}  // namespace

#include "micro.h"
#include "layout.h"
#include "elementwise.h"
#include "optimizer.h"
#include "product.h"
#include "loss.h"
#include "spectrum.h"
#include "model.h"
#include "block.h"
#include "outputs.h"
#include "embedding.h"
#include "network.h"
#include "narrow.h"
#include "cell.h"

namespace {

// The one place where a dtype's name becomes its type; call gets a value of it.
template <class Call>
auto with_dtype(Dtype dtype, Call&& call) {
  switch (dtype) {
    case Dtype::float32: return call(float());
    case Dtype::float64: return call(double());
  }
  unknown_value();
}

// Calls call with a worker whose memory is that of `arena`.
template <class Call>
void with_cell(Arena& arena, const Job& job, Call&& call) {
  with_dtype(job.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (job.narrow())
      call(Cell<T, Narrow<T>>(arena, job));
    else
      call(Cell<T, Network<T>>(arena, job));
  });
}

size_t scratch_bytes(const Job& job) {
  Arena arena(nullptr);
  with_cell(arena, job, [](auto&&) {});
  return arena.used();
}

void train_cell(const Job& job, long cell, void* scratch, const Progress& progress) {
  Arena arena(scratch);
  with_cell(arena, job, [&](auto&& worker) { worker.run(cell, progress); });
}

double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The best of many short runs of independent multiply-adds on registers.
template <class T>
double peak_of(double seconds) {
  using V = Vec<T>;
  constexpr long kRounds = 20000;
  const double start = seconds_now();
  double best = 0;
  volatile T scale = static_cast<T>(0.999), offset = static_cast<T>(0.001), sink;
  const V a = V::set(scale), b = V::set(offset);
  for (double now = start; now - start < seconds;) {
    V x[kAccumulators];
    for (long i = 0; i < kAccumulators; i++) x[i] = V::set(offset * static_cast<T>(i));
    const double begin = seconds_now();
    for (long i = 0; i < kRounds; i++)
      _Pragma("GCC unroll 24") for (long j = 0; j < kAccumulators; j++) x[j] = fma(x[j], a, b);
    now = seconds_now();
    V total = b;
    for (const V& v : x) total = total + v;
    sink = sum(total);
    const double rate = 2e-9 * kRounds * kAccumulators * V::width / (now - begin);
    if (rate > best) best = rate;
  }
  (void)sink;
  return best;
}

double peak(Dtype dtype, double seconds) {
  return with_dtype(dtype, [&](auto zero) { return peak_of<decltype(zero)>(seconds); });
}

}  // namespace
