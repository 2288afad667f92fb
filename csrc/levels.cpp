#include "levels.h"

#include <stdlib.h>
#include <string.h>

#include <stdexcept>
#include <string>

// Whether a level runs is asked here and not in its own file, which is compiled for the level and
// may hold its instructions anywhere.
std::vector<CompiledLevel> compiled_levels() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
  return {{kBaseline, true}, {kAvx2, avx2}, {kAvx512, avx512}};
#else
  return {{kPortable, true}};
#endif
}

const Level& choose_level(const char* name) {
  const std::vector<CompiledLevel> levels = compiled_levels();
  std::string source = "level";
  if (!name) {
    name = getenv("GROKFAST_NATIVE_LEVEL");
    source = "GROKFAST_NATIVE_LEVEL";
  }
  std::string known, runnable;
  const Level* widest = nullptr;
  for (const CompiledLevel& each : levels) {
    known += (known.empty() ? "" : ", ") + std::string(each.level.name);
    if (!each.runnable) continue;
    runnable += (runnable.empty() ? "" : ", ") + std::string(each.level.name);
    widest = &each.level;
  }
  if (!name || !*name) return *widest;
  for (const CompiledLevel& each : levels) {
    if (strcmp(each.level.name, name) != 0) continue;
    if (each.runnable) return each.level;
    throw std::invalid_argument(source + ": got '" + name +
                                "', which does not run on this machine; expected one of " +
                                runnable);
  }
  throw std::invalid_argument(source + ": got '" + name + "', expected one of " + known);
}
