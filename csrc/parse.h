// From the dictionary that Python hands over to a checked Job.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "job.h"

struct Request {
  Job job{};
  std::vector<int32_t> cells;
  int threads = 1;
  std::string level;  // empty: the default one
  pybind11::object tick;
  std::vector<pybind11::object> alive;  // keeps every array of `job` in memory
};

// Throws ValueError or TypeError naming the field, what was given and what is expected.
Request parse(const pybind11::dict& job);
