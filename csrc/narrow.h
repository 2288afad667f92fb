// The passes of a dense net with one hidden layer and one output, as those of sparse parity, with
// hidden units along the vectors: samples are broadcast from rows as they are, so that nothing is
// transposed, and an update pads the 500 units and not the 50 inputs to whole vectors.
//
// Units that only pad have weights of 0 and keep them: what they would add to an output is 0.
#pragma once

namespace {

template <class T>
struct Narrow {
  using V = Vec<T>;
  static constexpr long kWidth = V::width;

  const Job& job;
  const long in, units, padded;
  Panels<T> panels;             // [in, units]: how `first` lies
  Values<T> first, bias;        // of the hidden layer; a bias that the net has not is 0
  Values<T> last, output_bias;  // [units] and [1]
  T *slope, *delta;             // gradient of outputs [batch]; of a panel's units [batch, width]
  // Gradients between the blocks of a batch; unused where one block takes it all.
  Panels<T> first_sums;      // [in, units]
  T *bias_sums, *last_sums;  // [units]
  T output_sum = 0;

  // For batches of `parts` blocks of at most `batch` samples.
  Narrow(Arena& arena, const Job& j, long batch, long parts)
      : job(j), in(j.sizes[0]), units(j.sizes[1]), padded(round_up(units, kWidth)) {
    panels = arena.panels<T>(in, units);
    first = {panels.data, {}};
    for (int s = 0; s < slots_of<T>(job); s++) first.slot[s] = arena.panels<T>(in, units).data;
    bias = take_values<T>(arena, job, padded);
    last = take_values<T>(arena, job, padded);
    output_bias = take_values<T>(arena, job, kWidth);
    slope = arena.take<T>(round_up(batch, kWidth));
    delta = arena.take<T>(batch * kMaxVecs * kWidth);
    first_sums = parts > 1 ? arena.panels<T>(in, units) : Panels<T>{};
    bias_sums = parts > 1 ? arena.take<T>(padded) : nullptr;
    last_sums = parts > 1 ? arena.take<T>(padded) : nullptr;
  }

  void load(long cell) {
    fill<T>(bias.w, padded, 0);
    fill<T>(output_bias.w, kWidth, 0);
    each_array(0, first, [&](void* of_job, T* w) {
      const T* from = static_cast<const T*>(of_job) + cell * units * in;
      each_weight([&](long unit, long i, long at) {
        w[at] = unit < units ? from[unit * in + i] : 0;
      });
    });
    each_row([&](int g, long count, const Values<T>& row) {
      each_array(g, row, [&](void* of_job, T* w) {
        fill<T>(w, round_up(count, kWidth), 0);
        load_rows<T>(of_job, cell, 1, count, w, count);
      });
    });
  }

  void store(long cell) const {
    each_array(0, first, [&](void* of_job, const T* w) {
      T* to = static_cast<T*>(of_job) + cell * units * in;
      each_weight([&](long unit, long i, long at) {
        if (unit < units) to[unit * in + i] = w[at];
      });
    });
    each_row([&](int g, long count, const Values<T>& row) {
      each_array(g, row, [&](void* of_job, const T* w) {
        store_rows<T>(of_job, cell, 1, count, w, count);
      });
    });
  }

  void first_layer(SpectralNorm& norm) const {
    each_weight([&](long unit, long i, long at) {
      if (unit < units) norm.put(unit, i, static_cast<double>(first.w[at]));
    });
  }

  // Fills in the outputs; a block that learns keeps what its hidden units came to.
  void forward(Block<T>& block) const {
    with_activation(job.activation, [&](auto rule) { forward(rule, block); });
  }

  // Adds up every parameter's gradient, and ends in the update: as Network's.
  void backward(Block<T>& block, long batch, Part part, long cell, int64_t update) {
    with_optimizer<T>(job, [&](auto kind) {
      with_activation(job.activation, [&](auto rule) {
        backward<typename decltype(kind)::type>(rule, block, batch, part, cell, update);
      });
    });
  }

 private:
  // Calls visit(tensor index, length, values) for all parameters but the first layer's weights.
  template <class Visit>
  void each_row(Visit&& visit) const {
    if (job.biased(0)) visit(1, units, bias);
    visit(tensor_of_last(), units, last);
    if (job.biased(1)) visit(tensor_of_last() + 1, 1, output_bias);
  }
  int tensor_of_last() const { return job.biased(0) ? 2 : 1; }

  // Calls visit(array of the job, array here) for a parameter and what is kept beside it.
  template <class Visit>
  void each_array(int g, const Values<T>& values, Visit&& visit) const {
    visit(job.params[g], values.w);
    for (int s = 0; s < slots_of<T>(job); s++) visit(job.slots[s][g], values.slot[s]);
  }

  // Calls call(unit, input, index here) for all of the first layer's weights, padding included.
  template <class Call>
  void each_weight(Call&& call) const {
    for (long p = 0; p < panels.split.parts; p++) {
      const long width = panels.width(p), begin = panels.panel(p) - panels.data;
      for (long i = 0; i < in; i++)
        for (long j = 0; j < width; j++)
          call(panels.split.begin(p) * kWidth + j, i, begin + i * width + j);
    }
  }

  template <class Rule>
  void forward(Rule, Block<T>& block) const {
    for (long c = 0; c < block.count; c++) {
      memcpy(block.input + c * block.input_ld, block.row[c], in * sizeof(T));
      V::set(0).store(block.reached + c * kWidth);
    }
    auto source = [&](long p, long, long) { return static_cast<const T*>(panels.panel(p)); };
    auto done = [&](long row, long rows, long p, const T* c) {
      const long width = panels.width(p), unit = panels.split.begin(p) * kWidth;
      T* hidden = block.hidden.data ? block.hidden.panel(p) + row * width : nullptr;
      for (long r = 0; r < rows; r++) {
        T* reached = block.reached + (row + r) * kWidth;
        V total = V::load(reached);
        each_vector<T>(width, [&](long j) {
          const V z = V::load(c + r * width + j) + V::load(bias.w + unit + j);
          const V h = Rule::value(z);
          if (hidden) (Rule::keeps_input ? z : h).store(hidden + r * width + j);
          total = fma(h, V::load(last.w + unit + j), total);
        });
        total.store(reached);
      }
    };
    product<T>(block.count, panels.split, Split(in, in), block.input, block.input_ld, 1, source,
               nullptr, done);
    const Panels<T>& out = block.act[2];
    for (long p = 0, c = 0; p < out.split.parts; p++)
      for (long j = 0; j < out.width(p) && c < block.count; j++, c++)
        out.panel(p)[j] = sum(V::load(block.reached + c * kWidth)) + output_bias.w[0];
  }

  template <class Optimizer, class Rule>
  void backward(Rule act, const Block<T>& block, long batch, Part part, long cell,
                int64_t update) {
    block.each_strip([&](long p, long lane, long column) {
      if (column < batch) V::load(block.act[2].panel(p) + lane).store(slope + column);
    });
    auto of = [&](int tensor) { return Optimizer::of(job, tensor, cell, update); };
    const Optimizer of_first = of(0), of_bias = of(1), of_last = of(tensor_of_last());
    auto source = [&](long p, long, long) {
      panel_backward(act, block, p, batch, part, of_bias, of_last);
      return static_cast<const T*>(delta);
    };
    auto done = [&](long row, long rows, long p, const T* g) {
      const long width = panels.width(p);
      const Values<T> to = first.from(panels.panel(p) - panels.data + row * width);
      for (long i = 0; i < rows * width; i += kWidth) of_first.update(to, i, V::load(g + i));
    };
    product<T>(in, panels.split, Split(batch, batch), block.input, 1, block.input_ld, source,
               &first_sums, done, Nothing(), part);
    if (!job.biased(1)) return;
    if (part.first) output_sum = 0;
    for (long b = 0; b < batch; b++) output_sum += slope[b];
    if (part.last) of(tensor_of_last() + 1).update(output_bias, 0, V::set(output_sum));
  }

  // The gradient of what enters a panel's units, into `delta`; and the gradient or the update of
  // their bias and of the weights behind them. Its vectors go side by side: one after the other,
  // their sums would wait for each other's additions.
  template <class Rule, class Optimizer>
  void panel_backward(Rule, const Block<T>& block, long p, long batch, Part part,
                      const Optimizer& of_bias, const Optimizer& of_last) {
    const long width = panels.width(p), unit = panels.split.begin(p) * kWidth;
    const T* hidden = block.hidden.panel(p);
    V weight[kMaxVecs]{}, bias_sum[kMaxVecs]{}, last_sum[kMaxVecs]{};
    each_vector<T>(width, [&](long j) {
      const long v = j / kWidth;
      weight[v] = V::load(last.w + unit + j);
      bias_sum[v] = part.first ? V::set(0) : V::load(bias_sums + unit + j);
      last_sum[v] = part.first ? V::set(0) : V::load(last_sums + unit + j);
    });
    for (long b = 0; b < batch; b++) {
      const V g = V::set(slope[b]);
      each_vector<T>(width, [&](long j) {
        const long v = j / kWidth;
        const V kept = V::load(hidden + b * width + j);
        const V d = g * weight[v] * Rule::slope(kept);
        last_sum[v] = fma(g, Rule::keeps_input ? Rule::value(kept) : kept, last_sum[v]);
        bias_sum[v] = bias_sum[v] + d;
        d.store(delta + b * width + j);
      });
    }
    each_vector<T>(width, [&](long j) {
      const long v = j / kWidth, at = unit + j;
      if (!part.last) {
        bias_sum[v].store(bias_sums + at);
        last_sum[v].store(last_sums + at);
        return;
      }
      if (job.biased(0)) of_bias.update(bias, at, bias_sum[v]);
      of_last.update(last, at, last_sum[v]);
    });
  }
};

}  // namespace
