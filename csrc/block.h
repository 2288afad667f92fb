// A block of samples, one a column, and everything computed of them on the way through the net.
#pragma once

namespace {

// Samples of one split of a data set.
template <class T>
struct Samples {
  const T* x;             // [count, I0], or null
  const int32_t* tokens;  // [count, K], or null
  const int32_t* label;   // [count]
};

template <class T>
struct Block {
  long count;                     // columns in use
  Panels<T> act[kMaxLayers + 1];  // act[l] [inputs of layer l, columns]; act[L] the outputs.
                                  // The backward pass replaces them by their gradients.
  Panels<T> kept[kMaxLayers];     // what the slope of the activation in act[l] is taken from
  Panels<T> rows;                 // act[0] turned over, where it is made from rows of embeddings
  Panels<T> target, score;        // [O, columns] for losses by target; [C, columns] for nearest
  // Of a narrow net, in place of act[0] and act[1]: samples in rows.
  T* input;  // [count, input_ld]
  long input_ld;
  T* reached;        // what the units so far add to the output [count, vector]
  Panels<T> hidden;  // what the slopes of the units are taken from [count, units]; only to learn
  Columns<T> column;
  const T** target_row;    // target of each column, for losses by target
  const T** row;           // dense inputs of each column
  const int32_t** tokens;  // or its tokens

  // learns: whether the backward pass is to come.
  static Block of(Arena& arena, const Job& job, long capacity, bool learns) {
    Block block{};
    const long padded = round_up(capacity, Vec<T>::width);
    if (job.narrow())
      block.take_rows(arena, job, capacity, learns);
    else
      block.take_columns(arena, job, capacity);
    block.act[job.layers] = arena.panels<T>(job.sizes[job.layers], capacity);
    if (with_loss<T>(job.loss, [](auto rule) { return decltype(rule)::uses_targets; })) {
      block.target = arena.panels<T>(job.sizes[job.layers], capacity);
      block.target_row = arena.take<const T*>(padded);
    }
    if (job.predict == Prediction::nearest) block.score = arena.panels<T>(job.classes, capacity);
    block.column.label = arena.take<T>(padded);
    block.column.prediction = arena.take<T>(padded);
    block.column.term = arena.take<T>(padded);
    block.column.extra = arena.take<T>(padded);
    if (job.vocabulary)
      block.tokens = arena.take<const int32_t*>(padded);
    else
      block.row = arena.take<const T*>(padded);
    return block;
  }

  void take_rows(Arena& arena, const Job& job, long capacity, bool learns) {
    input_ld = leading_dimension<T>(job.sizes[0]);
    input = arena.take<T>(capacity * input_ld);
    reached = arena.take<T>(capacity * Vec<T>::width);
    if (learns) hidden = arena.panels<T>(capacity, job.sizes[1]);
  }

  void take_columns(Arena& arena, const Job& job, long capacity) {
    for (int l = job.vocabulary ? 0 : 1; l < job.layers; l++)
      act[l] = arena.panels<T>(job.sizes[l], capacity);
    for (int l = 1; l < job.layers; l++)
      kept[l] = keeps_input(job.activation) ? arena.panels<T>(job.sizes[l], capacity) : act[l];
    if (embeds_in_rows<T>(job)) rows = arena.panels<T>(capacity, job.sizes[0]);
  }

  // Calls call(panel, column of the panel, column) for every vector of columns.
  template <class Call>
  void each_strip(Call&& call) const {
    constexpr long width = Vec<T>::width;
    const Split split = panels();
    for (long p = 0; p < split.parts; p++)
      for (long j = 0; j < split.count(p); j++) call(p, j * width, (split.begin(p) + j) * width);
  }

  long vecs() const { return ceil_div(count, Vec<T>::width); }
  Split panels() const { return Split(vecs(), kMaxVecs); }

  // A block may hold fewer columns than it was made for.
  void resize(long columns) {
    count = columns;
    for (Panels<T>& m : act) m.split = panels();
    for (Panels<T>& m : kept) m.split = panels();
    target.split = score.split = panels();
  }

  // Puts sample `index` of `from` in column c. targets: [C, outputs], or null.
  void put(const Job& job, long c, const Samples<T>& from, long index, const T* targets) {
    const int32_t label = from.label[index];
    column.label[c] = static_cast<T>(label);
    if (from.tokens)
      tokens[c] = from.tokens + index * job.tokens;
    else
      row[c] = from.x + index * job.sizes[0];
    if (target_row) target_row[c] = targets + label * job.sizes[job.layers];
  }

  // Ends filling. Columns past the last repeat it, which is as finite as any, and match no label.
  void finish(const Job& job) {
    for (long c = count; c < vecs() * Vec<T>::width; c++) {
      column.label[c] = -1;
      if (tokens)
        tokens[c] = tokens[count - 1];
      else
        row[c] = row[count - 1];
      if (target_row) target_row[c] = target_row[count - 1];
    }
    if (!target_row) return;
    const long outputs = job.sizes[job.layers];
    for (long p = 0; p < target.split.parts; p++)
      Gather<T>{target_row, count, outputs, target.panel(p)}.columns(
          target.split.begin(p) * Vec<T>::width, target.width(p), 0, outputs);
  }

  // Right predictions in columns begin .. end.
  long correct(long begin, long end) const {
    long n = 0;
    for (long c = begin; c < end; c++) n += column.prediction[c] == column.label[c];
    return n;
  }

  // `sum` and the losses of columns begin .. end, added in that order.
  template <class Rule>
  double loss(Rule, long begin, long end, double sum) const {
    for (long c = begin; c < end; c++) sum += Rule::value(column.term[c], column.extra[c]);
    return sum;
  }
};

}  // namespace
