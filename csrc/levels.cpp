// Which levels there are, which run here, which one is used.
#include <stdlib.h>
#include <string.h>

#include <stdexcept>
#include <string>

#include "level.h"

#if defined(__x86_64__)
static const Level* const kLevels[] = {&kBaseline, &kAvx2, &kAvx512};
#else
static const Level* const kLevels[] = {&kPortable};
#endif
static constexpr int kCount = sizeof kLevels / sizeof kLevels[0];

const Level* const* compiled_levels(int* count) {
  *count = kCount;
  return kLevels;
}

static std::string names(bool only_runnable) {
  std::string list;
  for (const Level* level : kLevels)
    if (!only_runnable || level->runnable())
      list += (list.empty() ? "" : ", ") + std::string(level->name);
  return list;
}

const Level& choose_level(const char* name) {
  std::string source = "level";
  if (!name) {
    name = getenv("GROKFAST_NATIVE_LEVEL");
    source = "GROKFAST_NATIVE_LEVEL";
  }
  if (!name || !*name) {
    for (int i = kCount; i-- > 0;)
      if (kLevels[i]->runnable()) return *kLevels[i];
    throw std::invalid_argument("no level of grokfast._native runs on this machine");
  }
  for (const Level* level : kLevels) {
    if (strcmp(level->name, name) != 0) continue;
    if (level->runnable()) return *level;
    throw std::invalid_argument(source + ": '" + name + "' does not run on this machine; " +
                                names(true) + " would");
  }
  throw std::invalid_argument(source + ": unknown level '" + name + "'; known here are " +
                              names(false));
}
