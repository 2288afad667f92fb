// The levels as the rest of the module sees them.
#pragma once

#include <vector>

#include "level.h"

struct CompiledLevel {
  const Level& level;
  bool runnable;  // on this machine
};

// Every compiled level, from the plainest to the widest.
std::vector<CompiledLevel> compiled_levels();
// The named level; where name is null, the one that GROKFAST_NATIVE_LEVEL names, else the widest
// that runs here. Throws std::invalid_argument for a level that is unknown or cannot run.
const Level& choose_level(const char* name);
