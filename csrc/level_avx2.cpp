// AVX2 and FMA: the fast level of most x86-64 machines since 2013.
#include "vec_avx2.h"

#include "engine.h"

static bool runnable() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

extern const Level kAvx2 = {"avx2", runnable, scratch_bytes, train_cell, peak};
