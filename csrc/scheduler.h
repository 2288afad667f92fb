// Threads over cells.
#pragma once

#include <functional>
#include <vector>

#include "level.h"

// Called now and then from the thread that called `train`; true asks every worker to stop.
using Tick = std::function<bool(int64_t steps_done)>;

// Trains `cells` on `threads` workers, each taking the cell with most steps left next. Returns when
// all are done, or written back after a tick asked to stop; passes on what a tick throws.
void train(const Job& job, const Level& level, const std::vector<int32_t>& cells, int threads,
           const Tick& tick);
