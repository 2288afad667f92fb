// One instruction set level: the functions that its translation unit exports.
#pragma once

#include <stddef.h>

#include "job.h"

struct Level {
  const char* name;
  size_t (*scratch_bytes)(const Job&);
  // Trains one cell to job.until, or until it is frozen or told to stop.
  // scratch: 64-byte aligned, scratch_bytes long, content of no meaning.
  void (*train_cell)(const Job&, long cell, void* scratch, const Progress&);
  double (*peak)(Dtype, double seconds);  // FMA GFLOP/s of one core
};

#if defined(__x86_64__)
extern const Level kBaseline, kAvx2, kAvx512;
#else
extern const Level kPortable;
#endif
