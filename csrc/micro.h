// The one microkernel: a tile of R rows and NV vectors of a matrix product, all sums in registers.
//
// Every output element is one chain of fused multiply-adds over k in ascending order, whatever the
// tile, so its bits do not depend on where it lies in the matrix.
#pragma once

namespace {

constexpr long kMaxVecs = 3;
constexpr long kMaxRows = 12;
constexpr long kMaxTileVecs = kAccumulators;  // R * NV of the largest tile
constexpr long max_rows(long vecs) {
  return kAccumulators / vecs < kMaxRows ? kAccumulators / vecs : kMaxRows;
}

// Calls call(j) for the first column j of every vector in a panel's row of that width. A loop of so
// few rounds costs 5% of a toy step (Zen 3).
template <class T, class Call>
inline void each_vector(long width, Call&& call) {
  static_assert(kMaxVecs == 3);
  call(0);
  if (width > Vec<T>::width) call(Vec<T>::width);
  if (width > 2 * Vec<T>::width) call(2 * Vec<T>::width);
}

// c[r, :] = init[r, :] + sum_k a[r * rs + k * ks] * b[k, :]   (init null: zero)
// b, c and init are contiguous rows of NV vectors.
template <class T>
using Tile = void (*)(long depth, const T* a, long rs, long ks, const T* b, const T* init, T* c);

// The short loops must vanish for the sums to stay in registers: nothing is left to a compiler's
// taste (GCC 12 at -O2 keeps them, at a third of the speed).
#define UNROLL _Pragma("GCC unroll 12")

template <class T, long R, long NV>
void tile(long depth, const T* a, long rs, long ks, const T* b, const T* init, T* c) {
  using V = Vec<T>;
  V acc[R][NV];
  UNROLL for (long r = 0; r < R; r++) {
    UNROLL for (long j = 0; j < NV; j++)
      acc[r][j] = init ? V::load(init + (r * NV + j) * V::width) : V::set(0);
  }
  // Fewer instructions a product, and an end that is easier to foresee: 5% of a toy step.
  _Pragma("GCC unroll 4") for (long k = 0; k < depth; k++) {
    V row[NV];
    UNROLL for (long j = 0; j < NV; j++) row[j] = V::load(b + j * V::width);
    UNROLL for (long r = 0; r < R; r++) {
      const V x = V::set(a[r * rs]);
      UNROLL for (long j = 0; j < NV; j++) acc[r][j] = fma(x, row[j], acc[r][j]);
    }
    a += ks;
    b += NV * V::width;
  }
  UNROLL for (long r = 0; r < R; r++) {
    UNROLL for (long j = 0; j < NV; j++) acc[r][j].store(c + (r * NV + j) * V::width);
  }
}

#undef UNROLL

template <class T, long NV, long R>
Tile<T> tile_of(long rows) {
  if (rows == R) return tile<T, R, NV>;
  if constexpr (R > 1)
    return tile_of<T, NV, R - 1>(rows);
  else
    unknown_value();
}

template <class T>
Tile<T> choose_tile(long rows, long vecs) {
  switch (vecs) {
    case 1: return tile_of<T, 1, max_rows(1)>(rows);
    case 2: return tile_of<T, 2, max_rows(2)>(rows);
    case 3: return tile_of<T, 3, max_rows(3)>(rows);
  }
  unknown_value();
}

}  // namespace
