// AVX-512F: half the instructions of AVX2 and twice the registers.
#include "vec_avx512.h"

#include "engine.h"

extern const Level kAvx512 = {"avx512", scratch_bytes, train_cell, peak};
