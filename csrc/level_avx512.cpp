// AVX-512F: half the instructions of AVX2 and twice the registers.
#include "vec_avx512.h"

#include "engine.h"

static bool runnable() { return __builtin_cpu_supports("avx512f"); }

extern const Level kAvx512 = {"avx512", runnable, scratch_bytes, train_cell, peak};
