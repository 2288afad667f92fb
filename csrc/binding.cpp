// grokfast._native as Python sees it.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "levels.h"
#include "parse.h"
#include "scheduler.h"

namespace py = pybind11;

namespace {

const Level& level_of(const std::string& name) {
  return choose_level(name.empty() ? nullptr : name.c_str());
}

void train_job(const py::dict& dict) {
  const Request request = parse(dict);
  const Level& level = level_of(request.level);
  const Tick tick = [&](int64_t steps) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (request.tick.is_none()) return false;
    const int answer = PyObject_IsTrue(request.tick(steps).ptr());
    if (answer < 0) throw py::error_already_set();
    return answer == 1;
  };
  const py::gil_scoped_release released;
  train(request.job, level, request.cells, request.threads, tick);
}

size_t scratch_bytes_of(const py::dict& dict) {
  const Request request = parse(dict);
  return level_of(request.level).scratch_bytes(request.job);
}

py::dict levels() {
  py::list compiled, runnable;
  for (const CompiledLevel& each : compiled_levels()) {
    compiled.append(each.level.name);
    if (each.runnable) runnable.append(each.level.name);
  }
  py::dict result;
  result["compiled"] = compiled;
  result["runnable"] = runnable;
  result["active"] = choose_level(nullptr).name;
  return result;
}

double peak(const py::object& level, double seconds, const std::string& dtype) {
  if (!(seconds > 0 && seconds <= 60))
    throw py::value_error("seconds: got " + std::to_string(seconds) + ", expected 0 to 60");
  if (dtype != "float32" && dtype != "float64")
    throw py::value_error("dtype: got '" + dtype + "', expected 'float32' or 'float64'");
  const Level& chosen = level_of(level.is_none() ? "" : level.cast<std::string>());
  const py::gil_scoped_release released;
  return chosen.peak(dtype == "float32" ? Dtype::float32 : Dtype::float64, seconds);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Trains many small networks, each in one core's cache.";
  m.def("train", &train_job, py::arg("job"),
        "Trains job['cells'] to step job['until'], in place. ValueError or TypeError names a field "
        "that is not as it should be; what job['tick'] raises passes through, after every worker "
        "has written its cell back.");
  m.def("levels", &levels,
        "Instruction set levels: dict of compiled, runnable (lists) and active (str).");
  m.def("peak", &peak, py::arg("level") = py::none(), py::arg("seconds") = 0.2,
        py::arg("dtype") = "float32", "Measured GFLOP/s of multiply-adds on one core.");
  m.def("scratch_bytes", &scratch_bytes_of, py::arg("job"), "Working memory of one worker.");
}
