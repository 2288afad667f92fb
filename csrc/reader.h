// Reads the fields of a job's dictionary one by one; an error names field, value and what would do.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "parse.h"

namespace py = pybind11;

[[noreturn]] inline void bad(const std::string& field, const std::string& got,
                             const std::string& expected) {
  throw py::value_error(field + ": got " + got + ", expected " + expected);
}

inline std::string text(const py::handle& value) { return py::str(py::repr(value)); }

inline std::string shape_text(const std::vector<long>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

class Reader {
 public:
  Reader(const py::dict& job, Request& request) : job_(job), request_(request) {}

  py::object get(const std::string& field) const {
    if (!job_.contains(field)) bad(field, "no such key", "one in the job");
    return job_[field.c_str()];
  }

  long integer(const std::string& field, long least, long most) const {
    return integer(field, get(field), least, most);
  }
  static long integer(const std::string& field, const py::handle& value, long least, long most) {
    const std::string range = "an int of " + std::to_string(least) + " to " + std::to_string(most);
    py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) {
      PyErr_Clear();
      throw py::type_error(field + ": got " + text(value) + ", expected " + range);
    }
    int overflow = 0;
    const long long n = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow || n < least || n > most) bad(field, text(value), range);
    return static_cast<long>(n);
  }

  double number(const char* field, double least, double below) const {
    const py::object value = get(field);
    const double x = PyFloat_AsDouble(value.ptr());
    const std::string expected =
        "a number in [" + std::to_string(least) + ", " + std::to_string(below) + ")";
    if (PyErr_Occurred()) {
      PyErr_Clear();
      throw py::type_error(std::string(field) + ": got " + text(value) + ", expected " + expected);
    }
    if (!(x >= least && x < below)) bad(field, text(value), expected);
    return x;
  }

  bool boolean(const char* field) const {
    const py::object value = get(field);
    if (!py::isinstance<py::bool_>(value))
      throw py::type_error(std::string(field) + ": got " + text(value) + ", expected a bool");
    return value.cast<bool>();
  }

  template <class E>
  E choice(const char* field, const std::vector<std::pair<const char*, E>>& choices) const {
    const py::object value = get(field);
    std::string expected;
    for (const auto& [name, result] : choices) {
      if (py::isinstance<py::str>(value) && value.cast<std::string>() == name) return result;
      expected += (expected.empty() ? "" : ", ") + std::string("'") + name + "'";
    }
    bad(field, text(value), choices.size() > 1 ? "one of " + expected : expected);
  }

  // A C-contiguous aligned array of just this dtype and shape. -1 in the shape: any size.
  void* array(const std::string& field, const py::object& value, const char* dtype,
              const std::vector<long>& shape, bool written,
              std::vector<long>* actual = nullptr) const {
    const std::string expected = std::string("a C-contiguous ") + dtype + " array " +
                                 shape_text(shape) + (written ? " to write to" : "");
    if (!py::isinstance<py::array>(value))
      throw py::type_error(field + ": got " + std::string(py::str(py::type::of(value))) +
                           ", expected " + expected);
    const py::array a = py::reinterpret_borrow<py::array>(value);
    std::vector<long> got(a.shape(), a.shape() + a.ndim());
    bool fits = got.size() == shape.size();
    for (size_t i = 0; fits && i < got.size(); i++) fits = shape[i] < 0 || got[i] == shape[i];
    std::string fault;
    if (!a.dtype().equal(py::dtype(dtype)) || !fits)
      fault = std::string(py::str(py::object(a.dtype()))) + " " + shape_text(got);
    else if (!(a.flags() & py::array::c_style))
      fault = "an array that is not C-contiguous";
    else if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
      fault = "an array that is not aligned";
    else if (written && !a.writeable())
      fault = "a read-only array";
    if (!fault.empty()) bad(field, fault, expected);
    request_.alive.push_back(value);
    if (actual) *actual = got;
    return const_cast<void*>(a.data());
  }
  template <class T>
  const T* input(const std::string& field, const char* dtype, const std::vector<long>& shape,
                 std::vector<long>* actual = nullptr) const {
    return static_cast<const T*>(array(field, get(field), dtype, shape, false, actual));
  }
  template <class T>
  T* output(const std::string& field, const char* dtype, const std::vector<long>& shape) const {
    return static_cast<T*>(array(field, get(field), dtype, shape, true));
  }

 private:
  const py::dict& job_;
  Request& request_;
};
