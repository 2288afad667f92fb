// What every machine can run: SSE2 on x86-64 ("baseline"), 16-byte vectors elsewhere ("portable").
#include "vec_generic.h"

#include "engine.h"

#if defined(__x86_64__)
extern const Level kBaseline = {"baseline", scratch_bytes, train_cell, peak};
#else
extern const Level kPortable = {"portable", scratch_bytes, train_cell, peak};
#endif
