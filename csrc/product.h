// Matrix products, tile by tile, over any source of right-hand panels.
#pragma once

namespace {

// Which part of a sum over samples a product makes: the first starts at zero, the last ends it.
struct Part {
  bool first = true, last = true;
};

struct Nothing {
  void operator()(long, long, long) const {}
};

// C[rows, columns] = A[rows, depth] * B[depth, columns], A(r, k) = a[r * rs + k * ks].
//
// source(p, k0, n) gives rows k0 .. k0+n of panel p of B, contiguous.
// ahead(row, rows, p) may fetch what done will need; the tile is computed meanwhile.
// done(row, rows, p, c) gets each finished tile c [rows, width of p].
// Where B comes in several blocks of k, or in several parts, the sums between them are kept in
// `partial`; storing and loading them changes no bit.
template <class T, class Source, class Done, class Ahead = Nothing>
void product(long rows, Split columns, Split depth, const T* a, long rs, long ks, Source&& source,
             const Panels<T>* partial, Done&& done, Ahead&& ahead = Nothing(), Part part = Part()) {
  constexpr long kWidth = Vec<T>::width;
  alignas(64) T c[kMaxTileVecs * kWidth];
  for (long block = 0; block < depth.parts; block++) {
    const bool first = block == 0 && part.first;
    const bool last = block + 1 == depth.parts && part.last;
    const long k0 = depth.begin(block), n = depth.count(block);
    for (long p = 0; p < columns.parts; p++) {
      const long vecs = columns.count(p);
      const T* b = source(p, k0, n);
      const Split tiles(rows, max_rows(vecs));
      for (long t = 0; t < tiles.parts; t++) {
        const long row = tiles.begin(t), count = tiles.count(t);
        T* sums = first && last ? nullptr : partial->panel(p) + row * vecs * kWidth;
        if (last) ahead(row, count, p);
        choose_tile<T>(count, vecs)(n, a + row * rs + k0 * ks, rs, ks, b, first ? nullptr : sums,
                                    last ? c : sums);
        if (last) done(row, count, p, static_cast<const T*>(c));
      }
    }
  }
}

// dst = src^T, for the used rows of src; both in panels.
template <class T>
void transpose(const Panels<T>& src, long columns, const Panels<T>& dst) {
  constexpr long kSize = Transpose<T>::size, kWidth = Vec<T>::width;
  const T* rows[kSize];
  for (long p = 0; p < dst.split.parts; p++) {
    const long first = dst.split.begin(p) * kWidth, wide = dst.width(p);
    for (long q = 0; q < src.split.parts; q++) {
      const long begin = src.split.begin(q) * kWidth, width = src.width(q);
      const long end = least(begin + width, round_up(columns, kSize));
      for (long i = 0; i < wide; i += kSize) {
        for (long k = 0; k < kSize; k++) rows[k] = src.panel(q) + (first + i + k) * width;
        for (long j = begin; j < end; j += kSize)
          Transpose<T>::block(rows, j - begin, dst.panel(p) + j * wide + i, wide);
      }
    }
  }
}

// Rows of a data set, wherever they lie, as the right-hand side of a product.
template <class T>
struct Gather {
  const T* const* rows;  // [count], and repeated ones up to a whole vector
  long count, width;     // width of a row
  T* buffer;

  // Panel of the matrix whose columns are the rows of the data: [n, lanes], columns from `column`.
  const T* columns(long column, long lanes, long k0, long n) const {
    constexpr long kSize = Transpose<T>::size;
    for (long j = 0; j < lanes; j += kSize) {
      const T* block[kSize];
      for (long i = 0; i < kSize; i++) block[i] = rows[column + j + i] + k0;
      long k = 0;
      for (; k + kSize <= n; k += kSize)
        Transpose<T>::block(block, k, buffer + k * lanes + j, lanes);
      for (; k < n; k++)
        for (long i = 0; i < kSize; i++) buffer[k * lanes + j + i] = block[i][k];
    }
    return buffer;
  }

  // Panel of the data as it is: [count, lanes] from feature `column` on, zero past the last.
  const T* features(long column, long lanes) const {
    const long here = least(lanes, width - column);
    for (long b = 0; b < count; b++) {
      T* out = buffer + b * lanes;
      const T* in = rows[b] + column;
      if (here == lanes) {
        for (long j = 0; j < lanes; j += Vec<T>::width) Vec<T>::load(in + j).store(out + j);
      } else {
        for (long j = 0; j < here; j++) out[j] = in[j];
        for (long j = here; j < lanes; j++) out[j] = 0;
      }
    }
    return buffer;
  }
};

}  // namespace
