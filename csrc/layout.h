// Where matrices lie in a worker's scratch memory.
//
// Whatever is computed in whole vectors is padded to whole vectors, and the padding holds anything,
// NaN included: no result is taken from it (GROKFAST_POISON fills it with NaN to prove it).
//
// A matrix whose columns are the vector dimension is cut into panels of at most kMaxVecs vectors,
// each panel contiguous [rows, width]: the microkernel then reads one short stream that fits in L1
// (contiguous panels: 100 GFLOP/s for dX; panels inside rows of 48 floats: 63-75; Zen 3, peak 105).
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

constexpr long ceil_div(long a, long b) { return (a + b - 1) / b; }
constexpr long round_up(long a, long b) { return ceil_div(a, b) * b; }
constexpr long least(long a, long b) { return a < b ? a : b; }

// n things cut into the fewest parts of at most `most` each, their sizes differing by at most one.
struct Split {
  long parts, size, larger;  // the first `larger` parts have size + 1
  Split() = default;
  Split(long n, long most) {
    parts = n > 0 ? ceil_div(n, most) : 0;
    size = n > 0 ? n / parts : 0;
    larger = n > 0 ? n % parts : 0;
  }
  long begin(long p) const { return p * size + least(p, larger); }
  long count(long p) const { return size + (p < larger); }
  // The part that thing i is in.
  long holder(long i) const {
    const long border = larger * (size + 1);
    return i < border ? i / (size + 1) : larger + (i - border) / size;
  }
};

template <class T>
struct Panels {
  T* data;
  long rows;    // allocated: a multiple of the vector width
  Split split;  // of the columns, in vectors
  T* panel(long p) const { return data + rows * split.begin(p) * Vec<T>::width; }
  long width(long p) const { return split.count(p) * Vec<T>::width; }
  T* at(long row, long column) const {
    const long p = split.holder(column / Vec<T>::width);
    return panel(p) + row * width(p) + column - split.begin(p) * Vec<T>::width;
  }
};

// Hands out pieces of one block of memory; with a null block it only measures.
class Arena {
 public:
  explicit Arena(void* block) : base_(reinterpret_cast<uintptr_t>(block)) {}
  template <class T>
  T* take(long count) {
    uintptr_t at = base_ + used_;
    used_ += round_up(count * static_cast<long>(sizeof(T)), 64);
    return reinterpret_cast<T*>(at);
  }
  template <class T>
  Panels<T> panels(long rows, long cols) {
    constexpr long width = Vec<T>::width;
    rows = round_up(rows, width);
    long vecs = ceil_div(cols, width);
    return {take<T>(rows * vecs * width), rows, Split(vecs, kMaxVecs)};
  }
  size_t used() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

// Starts fetching memory that is about to be overwritten.
inline void prefetch(const void* p, long bytes) {
  constexpr long kLine = 64;
  const char *at = static_cast<const char*>(p), *end = at + bytes;
  __builtin_prefetch(at, 1);
  for (at += kLine; at < end - kLine / 2; at += kLine) __builtin_prefetch(at, 1);
  __builtin_prefetch(end - 1, 1);
  asm volatile("");  // GCC 12 takes a function that only prefetches for one that does nothing
}

template <class T>
void fill(T* p, long count, T value) {
  for (long i = 0; i < count; i++) p[i] = value;
}

// Distance of the rows of a row-major matrix of `cols` columns, in elements. A distance of a
// multiple of 128 bytes would put the rows of a column into few sets of the L1 cache.
template <class T>
long leading_dimension(long cols) {
  long ld = round_up(cols, Vec<T>::width);
  return ld * static_cast<long>(sizeof(T)) % 128 ? ld : ld + Vec<T>::width;
}

}  // namespace
