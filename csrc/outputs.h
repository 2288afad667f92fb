// What is made of a net's outputs: predictions, losses and the gradient that the backward pass
// begins with.
#pragma once

namespace {

template <class T>
struct Outputs {
  using V = Vec<T>;
  static constexpr long kWidth = V::width;

  const Job& job;
  T* half_square;    // |target row|^2 / 2 [C], for nearest
  const T* targets;  // [C, O] or null

  Outputs(Arena& arena, const Job& j) : job(j), targets(nullptr) {
    half_square = job.predict == Prediction::nearest ? arena.take<T>(job.classes) : nullptr;
  }

  void set_targets(const T* of_data) {  // [C, O] or null
    targets = of_data;
    if (!half_square) return;
    const long outputs = job.sizes[job.layers];
    for (long c = 0; c < job.classes; c++) {
      T sum = 0;
      for (long o = 0; o < outputs; o++) sum += targets[c * outputs + o] * targets[c * outputs + o];
      half_square[c] = sum / 2;
    }
  }

  // Fills in the predictions of the block, from its outputs.
  void predict(Block<T>& block) const {
    switch (job.predict) {
      case Prediction::argmax: return choose(block, block.act[job.layers], job.sizes[job.layers]);
      case Prediction::nearest: score(block); return choose(block, block.score, job.classes);
      case Prediction::sign: return side(block);
    }
    unknown_value();
  }

  static void choose(Block<T>& block, const Panels<T>& score, long choices) {
    block.each_strip([&](long p, long lane, long column) {
      argmax(score.panel(p) + lane, score.width(p), choices)
          .store(block.column.prediction + column);
    });
  }

  // |z - t|^2 is least where z . t - |t|^2 / 2 is greatest.
  void score(Block<T>& block) const {
    const Panels<T>& out = block.act[job.layers];
    const long outputs = job.sizes[job.layers];
    auto source = [&](long p, long, long) { return static_cast<const T*>(out.panel(p)); };
    auto done = [&](long row, long rows, long p, const T* c) {
      const long width = block.score.width(p);
      T* score = block.score.panel(p) + row * width;
      for (long r = 0; r < rows; r++)
        each_vector<T>(width, [&](long j) {
          const long i = r * width + j;
          (V::load(c + i) - V::set(half_square[row + r])).store(score + i);
        });
    };
    product<T>(job.classes, block.score.split, Split(outputs, outputs), targets, outputs, 1, source,
               nullptr, done);
  }

  // A sample's class where its one output has the sign of that class's target, else none: an output
  // of 0 is on neither side.
  void side(Block<T>& block) const {
    const Panels<T>& out = block.act[job.layers];
    const V none = V::set(-2), zero = V::set(0);
    block.each_strip([&](long p, long lane, long column) {
      const V z = V::load(out.panel(p) + lane), label = V::load(block.column.label + column);
      V found = none;
      for (long c = 0; c < job.classes; c++) {
        const V own = V::set(static_cast<T>(c));
        const V here = select(gt(z * V::set(targets[c]), zero), own, none);
        found = select(eq(label, own), here, found);
      }
      found.store(block.column.prediction + column);
    });
  }

  // Fills in the loss of every column; with `samples` > 0 also replaces the outputs by the gradient
  // of the mean loss of that many samples.
  template <class Rule>
  void losses(Rule, Block<T>& block, long samples) const {
    const Panels<T>& out = block.act[job.layers];
    const long outputs = job.sizes[job.layers];
    const V scale = V::set(
        samples > 0 ? static_cast<T>(Rule::gradient_scale(samples, outputs)) : static_cast<T>(0));
    block.each_strip([&](long p, long lane, long column) {
      const Panels<T>& target = block.target;
      Rule::strip(out.panel(p) + lane, out.width(p), outputs,
                  Rule::uses_targets ? target.panel(p) + lane : nullptr,
                  Rule::uses_targets ? target.width(p) : 0, V::load(block.column.label + column),
                  scale, samples > 0, block.column.term + column, block.column.extra + column);
    });
  }
};

}  // namespace
