// One model in the worker's own layout: parameters and slots, rows padded to whole vectors.
#pragma once

namespace {

template <class T>
struct Layer {
  long in, out, ld;  // weights are [out, ld], used up to `in`
  Values<T> weight, bias;  // bias [out, padded], or null

  static Layer of(Arena& arena, const Job& job, int l) {
    const long in = job.sizes[l], out = job.sizes[l + 1];
    Layer layer{in, out, leading_dimension<T>(in), {}, {}};
    layer.weight = take_values<T>(arena, job, out * layer.ld);
    if (job.biased(l)) layer.bias = take_values<T>(arena, job, round_up(out, Vec<T>::width));
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

// The embeddings: token t at values.w + t * ld.
template <class T>
struct Table {
  long vocabulary, width, ld;  // P, E
  bool rows;                   // of whole vectors
  Values<T> values;

  static Table of(Arena& arena, const Job& job) {
    const bool rows = embeds_in_rows<T>(job);
    const long width = job.sizes[0];
    const long ld = rows ? leading_dimension<T>(width) : width;
    Table table{job.vocabulary, width, ld, rows, {}};
    table.values = take_values<T>(arena, job, table.size());
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
    for (int l = 0; l < job.layers; l++) model.layer[l] = Layer<T>::of(arena, job, l);
    return model;
  }

  // Calls visit(tensor index, rows, columns, leading dimension, values).
  template <class Visit>
  void each_tensor(Visit&& visit) const {
    int g = 0;
    if (table.vocabulary) visit(g++, table.vocabulary, table.width, table.ld, table.values);
    for (int l = 0; l < layers; l++) {
      const Layer<T>& a = layer[l];
      visit(g++, a.out, a.in, a.ld, a.weight);
      if (a.bias.w) visit(g++, 1, a.out, round_up(a.out, Vec<T>::width), a.bias);
    }
  }

  void load(const Job& job, long cell) {
    each_tensor([&](int g, long rows, long cols, long ld, const Values<T>& to) {
      load_rows(job.params[g], cell, rows, cols, to.w, ld);
      for (int s = 0; s < slots_of<T>(job); s++)
        load_rows(job.slots[s][g], cell, rows, cols, to.slot[s], ld);
    });
  }

  void store(const Job& job, long cell) const {
    each_tensor([&](int g, long rows, long cols, long ld, const Values<T>& from) {
      store_rows(job.params[g], cell, rows, cols, from.w, ld);
      for (int s = 0; s < slots_of<T>(job); s++)
        store_rows(job.slots[s][g], cell, rows, cols, from.slot[s], ld);
    });
  }
};

}  // namespace
