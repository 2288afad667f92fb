// The spectral norm of a layer's weights, in float64 whatever they are kept in: the root of the
// largest eigenvalue of their Gram matrix. Squaring costs small singular values their digits, not
// the largest one.
#pragma once

#include <math.h>

namespace {

class SpectralNorm {
 public:
  // Of weights [out, in]; the smaller side is that of the Gram matrix.
  SpectralNorm(Arena& arena, long out, long in)
      : turned_(in > out),
        rows_(turned_ ? in : out),
        n_(turned_ ? out : in),
        ld_(leading_dimension<double>(n_)),
        matrix_(arena.take<double>(rows_ * ld_)),
        gram_(arena.take<double>(n_ * ld_)),
        packed_(arena.take<double>(rows_ * kMaxVecs * kWidth)),
        v_(arena.take<double>(ld_)),
        w_(arena.take<double>(ld_)),
        diagonal_(arena.take<double>(n_)),
        beside_(arena.take<double>(n_)) {}

  void put(long o, long i, double weight) {
    matrix_[turned_ ? i * ld_ + o : o * ld_ + i] = weight;
  }

  // Of the weights put in; NaN where they are not finite.
  double value() {
    multiply();
    for (long i = 0; i < n_; i++)
      if (!(gram_[i * ld_ + i] - gram_[i * ld_ + i] == 0)) return NAN;  // sums of squares
    tridiagonalise();
    return ::sqrt(largest());
  }

 private:
  using V = Vec<double>;
  static constexpr long kWidth = V::width;

  double* at(long row) { return matrix_ + row * ld_; }

  // gram = matrix^T matrix, with zeros behind the last column.
  void multiply() {
    const long padded = round_up(n_, kWidth);
    for (long r = 0; r < rows_; r++) fill<double>(at(r) + n_, padded - n_, 0);
    const Split columns(padded / kWidth, kMaxVecs);
    auto source = [&](long p, long k0, long n) {
      const long width = columns.count(p) * kWidth;
      for (long k = 0; k < n; k++)
        for (long j = 0; j < width; j += kWidth)
          V::load(at(k0 + k) + columns.begin(p) * kWidth + j).store(packed_ + k * width + j);
      return static_cast<const double*>(packed_);
    };
    auto done = [&](long row, long rows, long p, const double* c) {
      const long width = columns.count(p) * kWidth;
      for (long r = 0; r < rows; r++)
        for (long j = 0; j < width; j += kWidth)
          V::load(c + r * width + j).store(gram_ + (row + r) * ld_ + columns.begin(p) * kWidth + j);
    };
    product<double>(n_, columns, Split(rows_, rows_), matrix_, 1, ld_, source, nullptr, done);
  }

  // Householder reflections leave the diagonal and what stands beside it (Golub and Van Loan,
  // Matrix Computations, 8.3.1); the matrix keeps both its triangles, for rows to be whole vectors.
  void tridiagonalise() {
    const long padded = round_up(n_, kWidth);
    for (long k = 0; k < n_; k++) {
      const double* row = gram_ + k * ld_;
      diagonal_[k] = row[k];
      beside_[k] = 0;
      if (k + 1 == n_) break;
      const long from = (k + 1) / kWidth * kWidth;  // v and w are 0 up to k and behind the end
      fill<double>(v_ + from, padded - from, 0);
      for (long j = k + 1; j < n_; j++) v_[j] = row[j];
      const double square = dot(v_, v_, from, padded), first = v_[k + 1];
      beside_[k] = first > 0 ? -::sqrt(square) : ::sqrt(square);
      v_[k + 1] -= beside_[k];
      const double size = square - first * beside_[k];  // |v|^2 / 2
      if (!(size > 0)) continue;  // nothing to reflect
      reflect(k + 1, from, padded, 1 / size);
    }
  }

  // gram = H gram H with H = 1 - scale v v^T, from row and column `begin` on.
  void reflect(long begin, long from, long padded, double scale) {
    fill<double>(w_ + from, padded - from, 0);
    for (long i = begin; i < n_; i++) {
      const V x = V::set(v_[i]);
      const double* row = gram_ + i * ld_;
      for (long j = from; j < padded; j += kWidth)
        fma(x, V::load(row + j), V::load(w_ + j)).store(w_ + j);
    }
    for (long j = from; j < begin; j++) w_[j] = 0;
    const V share = V::set(-scale * scale / 2 * dot(v_, w_, from, padded)), by = V::set(scale);
    for (long j = from; j < padded; j += kWidth)
      fma(share, V::load(v_ + j), by * V::load(w_ + j)).store(w_ + j);
    for (long i = begin; i < n_; i++) {
      const V v = V::set(-v_[i]), w = V::set(-w_[i]);
      double* row = gram_ + i * ld_;
      for (long j = from; j < padded; j += kWidth)
        fma(v, V::load(w_ + j), fma(w, V::load(v_ + j), V::load(row + j))).store(row + j);
    }
  }

  static double dot(const double* a, const double* b, long from, long to) {
    V total = V::set(0);
    for (long j = from; j < to; j += kWidth) total = fma(V::load(a + j), V::load(b + j), total);
    return sum(total);
  }

  // The largest eigenvalue, which is not negative, by bisection to the last digits.
  double largest() const {
    double low = 0, high = 0;
    for (long i = 0; i < n_; i++) {  // Gershgorin's circles
      const double reach = fabs(beside_[i]) + (i > 0 ? fabs(beside_[i - 1]) : 0);
      if (diagonal_[i] > low) low = diagonal_[i];
      if (diagonal_[i] + reach > high) high = diagonal_[i] + reach;
    }
    while (high - low > 1e-14 * high) {
      const double middle = low + (high - low) / 2;
      (above_all(middle) ? high : low) = middle;
    }
    return low + (high - low) / 2;
  }

  // Whether every eigenvalue is less than x: all pivots of the matrix less x are negative.
  bool above_all(double x) const {
    double pivot = diagonal_[0] - x;
    for (long i = 1; i < n_ && pivot < 0; i++)
      pivot = diagonal_[i] - x - beside_[i - 1] * beside_[i - 1] / pivot;
    return pivot < 0;
  }

  const bool turned_;
  const long rows_, n_, ld_;  // of matrix_ [rows, ld], used up to n
  double *matrix_, *gram_, *packed_, *v_, *w_, *diagonal_, *beside_;
};

}  // namespace
