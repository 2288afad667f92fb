// The first layer's inputs where they are sums of embeddings, and the embeddings' gradient.
#pragma once

namespace {

template <class T>
struct Embedding {
  using V = Vec<T>;
  static constexpr long kWidth = V::width;

  const Job& job;
  Table<T>& table;
  T* gradient;  // as the table lies
  T* packed;    // a panel of the first layer's weights

  Embedding(Arena& arena, const Job& j, Table<T>& t) : job(j), table(t) {
    gradient = job.vocabulary ? arena.take<T>(table.size()) : nullptr;
    packed = table.rows ? arena.take<T>(job.sizes[1] * kMaxVecs * kWidth) : nullptr;
  }

  // act[0] = what Rule makes of the sum of a column's embeddings, added up in the tokens' order.
  template <class Rule>
  void forward(Rule rule, Block<T>& block) const {
    if (table.rows)
      rows_forward(rule, block);
    else
      columns_forward(block);
  }

  void columns_forward(Block<T>& block) const {
    const T* w = table.values.w;
    for (long c = 0; c < block.vecs() * kWidth; c++)
      for (long e = 0; e < table.width; e++) {
        T x = w[block.tokens[c][0] * table.ld + e];
        for (long k = 1; k < job.tokens; k++) x += w[block.tokens[c][k] * table.ld + e];
        *block.act[0].at(e, c) = x;
      }
  }

  template <class Rule>
  void rows_forward(Rule, Block<T>& block) const {
    const Panels<T>& rows = block.rows;
    for (long p = 0; p < rows.split.parts; p++) {
      const long width = rows.width(p), first = rows.split.begin(p) * kWidth;
      T* out = rows.panel(p);
      for (long c = 0; c < block.vecs() * kWidth; c++, out += width)
        each_vector<T>(width, [&](long j) {
          Rule::value(sum_at(block, c, first + j)).store(out + j);
        });
    }
    transpose(rows, table.width, block.act[0]);
  }

  V sum_at(const Block<T>& block, long c, long feature) const {
    const int32_t* token = block.tokens[c];
    V x = V::load(table.values.w + token[0] * table.ld + feature);
    for (long k = 1; k < job.tokens; k++)
      x = x + V::load(table.values.w + token[k] * table.ld + feature);
    return x;
  }

  void clear_gradient() { fill<T>(gradient, table.size(), 0); }

  // Adds what the first `batch` columns contribute, from the gradients of their sums in act[0].
  void columns_backward(const Block<T>& block, long batch) {
    for (long c = 0; c < batch; c++)
      for (long k = 0; k < job.tokens; k++)
        for (long e = 0; e < table.width; e++)
          gradient[block.tokens[c][k] * table.ld + e] += *block.act[0].at(e, c);
  }

  // The same from `delta` [out, ld], the gradient of the first layer's outputs, and its weights:
  // each tile of the sums' gradient is made in rows, as it is added, and kept nowhere.
  template <class Rule>
  void rows_backward(Rule, const Block<T>& block, long batch, const Layer<T>& layer, const T* delta,
                     long ld) {
    const Panels<T>& inputs = block.rows;
    auto source = [&](long p, long, long) {
      const T* from = layer.weight.w + inputs.split.begin(p) * kWidth;
      const long width = inputs.width(p);
      for (long o = 0; o < layer.out; o++)
        each_vector<T>(width, [&](long j) {
          V::load(from + o * layer.ld + j).store(packed + o * width + j);
        });
      return static_cast<const T*>(packed);
    };
    auto done = [&](long row, long rows, long p, const T* c) {
      const long width = inputs.width(p), first = inputs.split.begin(p) * kWidth;
      const T* h = inputs.panel(p) + row * width;
      for (long r = 0; r < rows; r++) {
        const int32_t* token = block.tokens[row + r];
        each_vector<T>(width, [&](long j) {
          const long i = r * width + j;
          const V kept = Rule::keeps_input ? sum_at(block, row + r, first + j) : V::load(h + i);
          const V g = V::load(c + i) * Rule::slope(kept);
          for (long k = 0; k < job.tokens; k++) {
            T* to = gradient + token[k] * table.ld + first + j;
            (V::load(to) + g).store(to);
          }
        });
      }
    };
    product<T>(batch, inputs.split, Split(layer.out, layer.out), delta, 1, ld, source, nullptr,
               done);
  }

  template <class Rule>
  void update(const Rule& rule) {
    const long rows = table.rows ? table.vocabulary : 1;
    const long count = table.rows ? table.width : table.size();
    for (long i = 0; i < rows * table.ld; i += table.ld)
      update_all(rule, count, table.values.from(i), gradient + i);
  }
};

}  // namespace
