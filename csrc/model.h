// One model in the worker's own layout: parameters and both moments, rows padded to whole vectors.
#pragma once

namespace {

template <class T>
struct Layer {
  long in, out, ld;  // weights are [out, ld], used up to `in`
  T *w, *w_avg, *w_sq;
  T *b, *b_avg, *b_sq;  // [out, padded], or null

  static Layer of(Arena& arena, long in, long out, bool bias) {
    Layer layer{in, out, leading_dimension<T>(in), {}, {}, {}, {}, {}, {}};
    layer.w = arena.take<T>(out * layer.ld);
    layer.w_avg = arena.take<T>(out * layer.ld);
    layer.w_sq = arena.take<T>(out * layer.ld);
    if (!bias) return layer;
    layer.b = arena.take<T>(round_up(out, Vec<T>::width));
    layer.b_avg = arena.take<T>(round_up(out, Vec<T>::width));
    layer.b_sq = arena.take<T>(round_up(out, Vec<T>::width));
    return layer;
  }
};

// Whether embeddings lie in rows of whole vectors, which are summed up vector by vector. Otherwise
// they lie one after the other and are summed up number by number: less work where one is shorter
// than a vector. No bit depends on it.
template <class T>
bool embeds_in_rows(const Job& job) {
  return job.vocabulary > 0 && (job.activate_embedding || job.sizes[0] >= Vec<T>::width);
}

// The embeddings: token t at w + t * ld.
template <class T>
struct Table {
  long vocabulary, width, ld;  // P, E
  bool rows;                   // of whole vectors
  T *w, *w_avg, *w_sq;

  static Table of(Arena& arena, const Job& job) {
    const bool rows = embeds_in_rows<T>(job);
    const long width = job.sizes[0];
    const long ld = rows ? leading_dimension<T>(width) : width;
    Table table{job.vocabulary, width, ld, rows, {}, {}, {}};
    table.w = arena.take<T>(table.size());
    table.w_avg = arena.take<T>(table.size());
    table.w_sq = arena.take<T>(table.size());
    return table;
  }

  long size() const { return round_up(vocabulary * ld, Vec<T>::width); }
};

template <class T>
void load_rows(const void* from, long cell, long rows, long cols, T* to, long ld) {
  const T* src = static_cast<const T*>(from) + cell * rows * cols;
  for (long r = 0; r < rows; r++) memcpy(to + r * ld, src + r * cols, cols * sizeof(T));
}

template <class T>
void store_rows(void* into, long cell, long rows, long cols, const T* from, long ld) {
  T* dst = static_cast<T*>(into) + cell * rows * cols;
  for (long r = 0; r < rows; r++) memcpy(dst + r * cols, from + r * ld, cols * sizeof(T));
}

template <class T>
struct Model {
  int layers;
  Layer<T> layer[kMaxLayers];
  Table<T> table;  // vocabulary 0 where the inputs are dense

  static Model of(Arena& arena, const Job& job) {
    Model model{};
    model.layers = job.layers;
    if (job.vocabulary) model.table = Table<T>::of(arena, job);
    for (int l = 0; l < job.layers; l++)
      model.layer[l] = Layer<T>::of(arena, job.sizes[l], job.sizes[l + 1], job.bias);
    return model;
  }

  // Calls visit(tensor index, rows, columns, leading dimension, values, first, second moment).
  template <class Visit>
  void each_tensor(Visit&& visit) const {
    int g = 0;
    if (table.vocabulary)
      visit(g++, table.vocabulary, table.width, table.ld, table.w, table.w_avg, table.w_sq);
    for (int l = 0; l < layers; l++) {
      const Layer<T>& a = layer[l];
      visit(g++, a.out, a.in, a.ld, a.w, a.w_avg, a.w_sq);
      if (a.b) visit(g++, 1, a.out, round_up(a.out, Vec<T>::width), a.b, a.b_avg, a.b_sq);
    }
  }

  void load(const Job& job, long cell) {
    each_tensor([&](int g, long rows, long cols, long ld, T* p, T* m, T* v) {
      load_rows(job.params[g], cell, rows, cols, p, ld);
      load_rows(job.exp_avg[g], cell, rows, cols, m, ld);
      load_rows(job.exp_avg_sq[g], cell, rows, cols, v, ld);
    });
  }

  void store(const Job& job, long cell) const {
    each_tensor([&](int g, long rows, long cols, long ld, T* p, T* m, T* v) {
      store_rows(job.params[g], cell, rows, cols, p, ld);
      store_rows(job.exp_avg[g], cell, rows, cols, m, ld);
      store_rows(job.exp_avg_sq[g], cell, rows, cols, v, ld);
    });
  }
};

}  // namespace
