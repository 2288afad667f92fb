// The passes of one network over a block of samples, forward and backward, with samples along the
// vectors. narrow.h has the other way.
//
// A batch goes through in one block or more. Every gradient is one chain of additions over the
// samples in order, kept between blocks, so its bits do not depend on where blocks end; the last
// block's backward pass ends in the update.
#pragma once

namespace {

template <class T>
struct Network {
  using V = Vec<T>;
  static constexpr long kWidth = V::width;

  const Job& job;
  Model<T> model;
  T* packed;       // a panel of gathered data
  Panels<T> flip;  // transposed inputs of one layer [batch, in]
  T* delta[2];     // gradient of a layer's outputs in rows [out, delta_ld]; layers take turns
  long delta_ld;
  T* sums;         // gradient of a bias
  Embedding<T> embedding;
  // Gradients between the blocks of a batch; unused where one block takes it all.
  Panels<T> weight_sums[kMaxLayers];  // [out, in]
  T* bias_sums[kMaxLayers]{};         // [out, vector]

  // For batches of `parts` blocks of at most `batch` samples.
  Network(Arena& arena, const Job& j, long batch, long parts)
      : job(j), model(Model<T>::of(arena, j)), embedding(arena, j, model.table) {
    long widest = 0;  // of all layers' outputs
    for (int l = 1; l <= job.layers; l++)
      if (job.sizes[l] > widest) widest = job.sizes[l];
    long inputs = 0;  // of the layers whose inputs get transposed
    for (int l = turned(0) ? 0 : 1; l < job.layers; l++)
      if (job.sizes[l] > inputs) inputs = job.sizes[l];
    const long depth = batch > kGatherDepth ? batch : kGatherDepth;
    packed = job.vocabulary ? nullptr : arena.take<T>(depth * kMaxVecs * kWidth);
    flip = inputs ? arena.panels<T>(batch, inputs) : Panels<T>{};
    delta_ld = leading_dimension<T>(batch);
    delta[0] = arena.take<T>(widest * delta_ld);
    delta[1] = arena.take<T>(widest * delta_ld);
    sums = arena.take<T>(round_up(widest, kWidth));
    for (int l = 0; l < job.layers; l++) {
      weight_sums[l] = parts > 1 ? arena.panels<T>(job.sizes[l + 1], job.sizes[l]) : Panels<T>{};
      if (parts > 1 && job.biased(l)) bias_sums[l] = arena.take<T>(job.sizes[l + 1] * kWidth);
    }
  }

  void load(long cell) { model.load(job, cell); }
  void store(long cell) const { model.store(job, cell); }

  void first_layer(SpectralNorm& norm) const {
    const Layer<T>& layer = model.layer[0];
    for (long o = 0; o < layer.out; o++)
      for (long i = 0; i < layer.in; i++)
        norm.put(o, i, static_cast<double>(layer.weight.w[o * layer.ld + i]));
  }

  // Whether the inputs of layer l are there in rows only once they are transposed.
  bool turned(int l) const { return l > 0 || (job.vocabulary > 0 && !model.table.rows); }

  // Calls call with the activation that makes act[l].
  template <class Call>
  void with_rule(int l, Call&& call) const {
    if (l == job.layers || (l == 0 && !job.activate_embedding))
      call(Identity());
    else
      with_activation(job.activation, call);
  }

  // Rows of gathered data that go into one panel: 20 KB, which leaves L1 room for the weights.
  static constexpr long kGatherDepth = 20480 / (kMaxVecs * kWidth * sizeof(T));

  void forward(Block<T>& block) {
    if (job.vocabulary) with_rule(0, [&](auto rule) { embedding.forward(rule, block); });
    for (int l = 0; l < job.layers; l++)
      with_rule(l + 1, [&](auto rule) { layer_forward<decltype(rule)>(block, l); });
  }

  template <class Rule>
  void layer_forward(Block<T>& block, int l) {
    const Layer<T>& layer = model.layer[l];
    const Panels<T> from = block.act[l], to = block.act[l + 1];
    auto done = [&](long row, long rows, long p, const T* c) {
      const long width = to.width(p);
      T* out = to.panel(p) + row * width;
      for (long r = 0; r < rows; r++) {
        const V bias = V::set(layer.bias.w ? layer.bias.w[row + r] : 0);
        each_vector<T>(width, [&](long j) {
          const long i = r * width + j;
          const V z = V::load(c + i) + bias;
          if constexpr (Rule::keeps_input) z.store(block.kept[l + 1].panel(p) + row * width + i);
          Rule::value(z).store(out + i);
        });
      }
    };
    if (l > 0 || job.vocabulary) {
      auto source = [&](long p, long, long) { return static_cast<const T*>(from.panel(p)); };
      product<T>(layer.out, to.split, Split(layer.in, layer.in), layer.weight.w, layer.ld, 1,
                 source, nullptr, done);
    } else {
      const Gather<T> gather{block.row, block.count, layer.in, packed};
      auto source = [&](long p, long k0, long n) {
        return gather.columns(to.split.begin(p) * kWidth, to.width(p), k0, n);
      };
      product<T>(layer.out, to.split, Split(layer.in, kGatherDepth), layer.weight.w, layer.ld, 1,
                 source, &to, done);
    }
  }

  // From the gradient of the outputs, which `losses` left in act[L]: adds up every parameter's
  // gradient over the first `batch` columns. The last part of a batch ends in update number
  // `update`; the others are whole vectors.
  void backward(Block<T>& block, long batch, Part part, long cell, int64_t update) {
    with_optimizer<T>(job, [&](auto kind) {
      backward<typename decltype(kind)::type>(block, batch, part, cell, update);
    });
  }

  template <class Rule>
  void backward(Block<T>& block, long batch, Part part, long cell, int64_t update) {
    if (job.vocabulary && part.first) embedding.clear_gradient();
    rows_of(block.act[job.layers], job.sizes[job.layers], delta[job.layers & 1]);
    int tensor = job.tensors;
    for (int l = job.layers - 1; l >= 0; l--) {
      if (turned(l)) transpose(block.act[l], batch, flip_for(l));
      // The gradient of the inputs comes first: it takes the weights before their update.
      with_rule(l, [&](auto act) { inputs_backward(act, block, l, batch); });
      if (job.biased(l)) update_bias(Rule::of(job, --tensor, cell, update), l, batch, part);
      update_weights(Rule::of(job, --tensor, cell, update), block, l, batch, part);
    }
    if (job.vocabulary && part.last) embedding.update(Rule::of(job, 0, cell, update));
  }

  template <class Rule>
  void inputs_backward(Rule rule, Block<T>& block, int l, long batch) {
    if (l == 0 && model.table.rows)
      return embedding.rows_backward(rule, block, batch, model.layer[0], delta[1], delta_ld);
    if (!turned(l)) return;  // dense inputs
    layer_backward<Rule>(block, l);
    if (l == 0) embedding.columns_backward(block, batch);
  }

  Panels<T> flip_for(int l) const {
    Panels<T> m = flip;
    m.split = Split(ceil_div(job.sizes[l], kWidth), kMaxVecs);
    return m;
  }

  static void copy_rows(const T* from, long rows, long width, T* to, long ld) {
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < width; j += kWidth) V::load(from + r * width + j).store(to + r * ld + j);
  }

  void rows_of(const Panels<T>& m, long rows, T* to) const {
    for (long p = 0; p < m.split.parts; p++)
      copy_rows(m.panel(p), rows, m.width(p), to + m.split.begin(p) * kWidth, delta_ld);
  }

  // act[l] becomes the gradient of the loss by what entered the activation that made it.
  template <class Rule>
  void layer_backward(Block<T>& block, int l) {
    const Layer<T>& layer = model.layer[l];
    const Panels<T> from = block.act[l + 1], to = block.act[l];
    T* rows_out = delta[l & 1];
    auto source = [&](long p, long, long) { return static_cast<const T*>(from.panel(p)); };
    auto done = [&](long row, long rows, long p, const T* c) {
      const long width = to.width(p);
      T* act = to.panel(p) + row * width;
      const T* kept = l > 0 ? block.kept[l].panel(p) + row * width : act;
      T* out = rows_out + row * delta_ld + to.split.begin(p) * kWidth;
      for (long r = 0; r < rows; r++)
        each_vector<T>(width, [&](long j) {
          const long i = r * width + j;
          const V g = V::load(c + i) * Rule::slope(V::load(kept + i));
          g.store(act + i);
          if (l > 0) g.store(out + r * delta_ld + j);
        });
    };
    product<T>(layer.in, to.split, Split(layer.out, layer.out), layer.weight.w, 1, layer.ld, source,
               nullptr, done);
  }

  template <class Rule>
  void update_weights(const Rule& rule, const Block<T>& block, int l, long batch, Part part) {
    Layer<T>& layer = model.layer[l];
    const Split columns(ceil_div(layer.in, kWidth), kMaxVecs);
    auto done = [&](long row, long rows, long p, const T* g) {
      const long at = row * layer.ld + columns.begin(p) * kWidth;
      const long width = columns.count(p) * kWidth;
      const Values<T> to = layer.weight.from(at);
      for (long r = 0; r < rows; r++)
        each_vector<T>(width, [&](long j) {
          rule.update(to, r * layer.ld + j, V::load(g + r * width + j));
        });
    };
    // Each is needed once a step, so it comes from L2 or L3.
    auto ahead = [&](long row, long rows, long p) {
      const long bytes = columns.count(p) * kWidth * static_cast<long>(sizeof(T));
      for (long r = 0; r < rows; r++) {
        const long i = (row + r) * layer.ld + columns.begin(p) * kWidth;
        prefetch(layer.weight.w + i, bytes);
        for (int s = 0; s < Rule::slots; s++) prefetch(layer.weight.slot[s] + i, bytes);
      }
    };
    const T* grad = delta[(l + 1) & 1];
    if (l > 0 || job.vocabulary) {
      const Panels<T> inputs = turned(l) ? flip_for(l) : block.rows;
      auto source = [&](long p, long, long) { return static_cast<const T*>(inputs.panel(p)); };
      product<T>(layer.out, columns, Split(batch, batch), grad, delta_ld, 1, source,
                 &weight_sums[l], done, ahead, part);
    } else {
      const Gather<T> gather{block.row, batch, layer.in, packed};
      auto source = [&](long p, long, long) {
        return gather.features(columns.begin(p) * kWidth, columns.count(p) * kWidth);
      };
      product<T>(layer.out, columns, Split(batch, batch), grad, delta_ld, 1, source,
                 &weight_sums[l], done, ahead, part);
    }
  }

  template <class Rule>
  void update_bias(const Rule& rule, int l, long batch, Part part) {
    Layer<T>& layer = model.layer[l];
    const T* grad = delta[(l + 1) & 1];
    const long whole = batch / kWidth * kWidth;
    static const T lane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const auto tail = gt(V::set(static_cast<T>(batch - whole)), V::load(lane));
    for (long o = 0; o < layer.out; o++) {
      const T* g = grad + o * delta_ld;
      V total = part.first ? V::set(0) : V::load(bias_sums[l] + o * kWidth);
      for (long b = 0; b < whole; b += kWidth) total = total + V::load(g + b);
      if (whole < batch) total = total + select(tail, V::load(g + whole), V::set(0));
      if (part.last)
        sums[o] = sum(total);
      else
        total.store(bias_sums[l] + o * kWidth);
    }
    if (part.last) update_all(rule, layer.out, layer.bias, sums);
  }
};

}  // namespace
