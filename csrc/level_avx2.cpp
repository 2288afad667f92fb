// AVX2 and FMA: the fast level of most x86-64 machines since 2013.
#include "vec_avx2.h"

#include "engine.h"

extern const Level kAvx2 = {"avx2", scratch_bytes, train_cell, peak};
