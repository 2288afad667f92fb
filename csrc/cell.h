// One cell's run: which samples when, what is counted, evaluated and recorded, and when it ends.
#pragma once

namespace {

// Net: Network or Narrow.
template <class T, class Net>
class Cell {
 public:
  Cell(Arena& arena, const Job& job)
      : job_(job),
        full_(job.order == nullptr),
        spare_(full_ ? least(job.val_count, round_up(job.batch, kWidth) - job.batch) : 0),
        parts_(parts_of(job.batch).parts),
        batch_(Block<T>::of(arena, job, least(job.batch + spare_, kBlock), true)),
        val_(Block<T>::of(arena, job, least(longest(job), val_block(job)), false)),
        net_(arena, job, least(job.batch, kBlock), parts_),
        outputs_(arena, job),
        norm_(arena, job.norm_count ? job.sizes[1] : 0, job.norm_count ? job.sizes[0] : 0) {}

  void run(long cell, const Progress& progress) {
    begin(cell);
    for (;;) {
      const bool more = step_ < job_.until && !__atomic_load_n(progress.stop, __ATOMIC_RELAXED);
      if (!more && !evaluate_) break;
      const Tally batch = more ? forward() : Tally{};
      if (evaluate_) evaluate(more, batch);
      if (!more || finished()) break;
      if (!(batch.loss - batch.loss == 0)) {  // infinite or NaN
        diverged_at_ = step_ + 1;
        break;
      }
      advance(batch);
      __atomic_store_n(progress.steps, __atomic_load_n(progress.steps, __ATOMIC_RELAXED) + 1,
                       __ATOMIC_RELAXED);
    }
    end();
  }

 private:
  // What is found of samples.
  struct Tally {
    long samples = 0, correct = 0;
    double loss = 0;  // sum or mean
    float accuracy() const {
      return static_cast<float>(static_cast<double>(correct) / static_cast<double>(samples));
    }
  };

  static constexpr long kWidth = Vec<T>::width;
  // Samples taken through the net at once in training: their activations stay in L2. A batch of 200
  // fits, whose update then needs no gradient in memory; the modular net (500 -> 97) takes the same
  // time with 96 to 288 (within 5%, Zen 4).
  static constexpr long kBlock = 240;
  // Vectors of validation samples taken through the net at once: enough to pay for the weights'
  // way from L3, few enough that the activations stay in L2.
  static constexpr long kValVecs = 24;

  static Split parts_of(long rows) { return Split(ceil_div(rows, kWidth), kBlock / kWidth); }
  static long val_block(const Job& job) {
    return job.narrow() || embeds_in_rows<T>(job) ? kBlock : kValVecs * kWidth;
  }
  // Samples of the largest set that is evaluated.
  static long longest(const Job& job) {
    const bool train = job.train_accuracy == TrainAccuracy::after;
    return train && job.train_count > job.val_count ? job.train_count : job.val_count;
  }

  void begin(long cell) {
    cell_ = cell;
    step_ = job_.step[cell];
    diverged_at_ = -1;
    epoch_correct_ = job_.epoch_correct[cell];
    epoch_loss_ = job_.epoch_loss[cell];
    evaluate_ = false;
    curve_ = eval_ = measured_ = 0;

    const long d = job_.data_index[cell], outputs = job_.sizes[job_.layers];
    targets_ =
        job_.targets ? static_cast<const T*>(job_.targets) + d * job_.classes * outputs : nullptr;
    train_ = samples(job_.x_train, job_.y_train, job_.train_count, d);
    validation_ = samples(job_.x_val, job_.y_val, job_.val_count, d);

    net_.load(cell);
    outputs_.set_targets(targets_);
    if (stays()) load(nullptr, 0, job_.batch, spare_);
  }

  // Whether batch_ holds every step's samples.
  bool stays() const { return full_ && parts_ == 1; }

  Samples<T> samples(const void* x, const int32_t* y, long count, long d) const {
    Samples<T> s{nullptr, nullptr, y + d * count};
    if (job_.vocabulary)
      s.tokens = static_cast<const int32_t*>(x) + d * count * job_.tokens;
    else
      s.x = static_cast<const T*>(x) + d * count * job_.sizes[0];
    return s;
  }

  // Rows of the batch of step k of an epoch.
  long rows(long k) const { return least(job_.batch, job_.train_count - k * job_.batch); }

  // Samples first .. first+count of `order` into batch_, and the first `spare` for validation.
  void load(const int32_t* order, long first, long count, long spare) {
    batch_.resize(count + spare);
    for (long c = 0; c < count; c++)
      batch_.put(job_, c, train_, order ? order[first + c] : first + c, targets_);
    for (long c = 0; c < spare; c++) batch_.put(job_, count + c, validation_, c, targets_);
    batch_.finish(job_);
  }

  // Takes the next step's batch through the net, up to the gradient of its mean loss by the last
  // block's outputs: `advance` goes on from there. The last vector of a full batch has room for
  // validation samples (`spare_`): the forward pass of step i + 1 evaluates them with the very
  // weights that step i left.
  Tally forward() {
    const long epoch = step_ / job_.steps_per_epoch, k = step_ % job_.steps_per_epoch;
    Tally batch{rows(k), 0, 0};
    const int32_t* order = nullptr;
    if (!full_) {
      const long row = job_.order_index[cell_] * job_.order_epochs + epoch - job_.first_epoch;
      order = job_.order + row * job_.train_count + k * job_.batch;
    }
    const Split parts = parts_of(batch.samples);
    with_loss<T>(job_.loss, [&](auto rule) {
      for (long i = 0; i < parts.parts; i++) {
        const long first = parts.begin(i) * kWidth;
        in_part_ = least(parts.count(i) * kWidth, batch.samples - first);
        part_ = {i == 0, i + 1 == parts.parts};
        if (!stays()) load(order, first, in_part_, part_.last ? spare_ : 0);
        net_.forward(batch_);
        outputs_.predict(batch_);
        outputs_.losses(rule, batch_, batch.samples);
        batch.correct += batch_.correct(0, in_part_);
        batch.loss = batch_.loss(rule, 0, in_part_, batch.loss);
        if (!part_.last) net_.backward(batch_, in_part_, part_, cell_, step_ + 1);
      }
      batch.loss =
          static_cast<T>(batch.loss / rule.terms(batch.samples, job_.sizes[job_.layers]));
    });
    return batch;
  }

  // Counts the step that `forward` made ready, and updates the parameters.
  void advance(const Tally& batch) {
    if (step_ % job_.steps_per_epoch == 0) {
      epoch_correct_ = 0;
      epoch_loss_ = 0;
    }
    epoch_correct_ += batch.correct;
    epoch_loss_ += batch.loss;
    last_loss_ = batch.loss;
    net_.backward(batch_, in_part_, part_, cell_, step_ + 1);
    step_++;
    evaluate_ = evaluates();
    measure();
  }

  void measure() {
    while (measured_ < job_.norm_count && job_.norm_steps[measured_] < step_) measured_++;
    if (measured_ == job_.norm_count || job_.norm_steps[measured_] != step_) return;
    net_.first_layer(norm_);
    job_.spectral_norm[cell_ * job_.norm_count + measured_] = static_cast<float>(norm_.value());
  }

  bool evaluates() {
    if (!job_.eval_steps) return step_ % job_.steps_per_epoch == 0;
    while (eval_ < job_.eval_count && job_.eval_steps[eval_] < step_) eval_++;
    return eval_ < job_.eval_count && job_.eval_steps[eval_] == step_;
  }

  // Evaluates the last step. ahead: batch_ holds the next step's forward pass, of which `batch` is
  // the tally, and ends with the spare samples.
  void evaluate(bool ahead, const Tally& batch) {
    evaluate_ = false;
    while (curve_ < job_.curve_count && job_.curve_steps[curve_] < step_) curve_++;
    const bool on_curve = curve_ < job_.curve_count && job_.curve_steps[curve_] == step_;
    const Tally train = train_tally(ahead, batch, on_curve);
    Tally val = ahead ? tally(batch_, in_part_, spare_, on_curve)
                      : judge(validation_, 0, spare_, on_curve, Tally{});
    val = judge(validation_, spare_, job_.val_count - spare_, on_curve, val);
    note(train.correct, job_.train);
    note(val.correct, job_.val);
    if (!on_curve) return;
    const long at = cell_ * job_.curve_count + curve_;
    job_.train_loss[at] = static_cast<float>(train.loss);
    job_.train_acc[at] = train.accuracy();
    job_.val_loss[at] = static_cast<float>(val.loss / terms(job_.val_count));
    job_.val_acc[at] = val.accuracy();
  }

  // Of the training set as far as it counts, with the mean loss.
  Tally train_tally(bool ahead, const Tally& batch, bool on_curve) {
    switch (job_.train_accuracy) {
      case TrainAccuracy::running: {
        const long k = (step_ - 1) % job_.steps_per_epoch;
        const long seen = k * job_.batch + rows(k);
        return {seen, epoch_correct_, epoch_loss_ / static_cast<double>(k + 1)};
      }
      case TrainAccuracy::after: {
        if (!full_ || !ahead) return judge_training(on_curve);
        Tally all = batch;
        if (job_.recorded_loss == TrainLoss::before) all.loss = last_loss_;
        return all;
      }
    }
    unknown_value();
  }

  // The same by forward passes of its own, to the same bits.
  Tally judge_training(bool on_curve) {
    const bool losses = on_curve && job_.recorded_loss == TrainLoss::after;
    Tally all = judge(train_, 0, job_.train_count, losses, Tally{}, true);
    all.loss = losses ? static_cast<T>(all.loss / terms(job_.train_count)) : last_loss_;
    return all;
  }

  double terms(long samples) const {
    return with_loss<T>(job_.loss, [&](auto rule) {
      return rule.terms(samples, job_.sizes[job_.layers]);
    });
  }

  // Adds `samples` of a set from `first` on to `sum`, by forward passes of their own. chained: the
  // losses one by one, as `forward` adds them; else each block's sum.
  Tally judge(const Samples<T>& from, long first, long samples, bool losses, Tally sum,
              bool chained = false) {
    const Split blocks(samples, val_block(job_));
    for (long i = 0; i < blocks.parts; i++) {
      const long count = blocks.count(i);
      val_.resize(count);
      for (long c = 0; c < count; c++)
        val_.put(job_, c, from, first + blocks.begin(i) + c, targets_);
      val_.finish(job_);
      net_.forward(val_);
      outputs_.predict(val_);
      if (losses) with_loss<T>(job_.loss, [&](auto rule) { outputs_.losses(rule, val_, 0); });
      const Tally part = tally(val_, 0, count, losses, chained ? sum.loss : 0);
      sum = {sum.samples + part.samples, sum.correct + part.correct,
             chained ? part.loss : sum.loss + part.loss};
    }
    return sum;
  }

  Tally tally(const Block<T>& block, long first, long samples, bool losses,
              double loss = 0) const {
    Tally sum{samples, block.correct(first, first + samples), loss};
    if (losses)
      with_loss<T>(job_.loss, [&](auto rule) {
        sum.loss = block.loss(rule, first, first + samples, loss);
      });
    return sum;
  }

  void note(long correct, const Counts& counts) const {
    counts.correct[cell_] = correct;
    if (correct > counts.best[cell_]) counts.best[cell_] = correct;
    if (correct >= counts.need) first(counts.time[cell_]);
    for (long h = 0; h < job_.further; h++)
      if (correct >= counts.need_more[h]) first(counts.crossings[cell_ * job_.further + h]);
  }

  void first(int64_t& time) const {
    if (time < 0) time = step_;
  }

  bool finished() const {
    return job_.stop && job_.train.time[cell_] >= 0 && job_.val.time[cell_] >= 0;
  }

  void end() {
    net_.store(cell_);
    job_.step[cell_] = step_;
    job_.diverged_at[cell_] = diverged_at_;
    job_.epoch_correct[cell_] = epoch_correct_;
    job_.epoch_loss[cell_] = epoch_loss_;
  }

  const Job& job_;
  const bool full_;   // the batch is the whole training set
  const long spare_;  // validation samples that ride with the batch
  const long parts_;  // blocks of a batch
  Block<T> batch_, val_;
  Net net_;
  Outputs<T> outputs_;
  SpectralNorm norm_;
  Samples<T> train_, validation_;
  const T* targets_;  // [C, O] or null
  long cell_;
  int64_t step_, diverged_at_, epoch_correct_;
  double epoch_loss_, last_loss_;
  long curve_, eval_, measured_;  // places in the lists of steps
  bool evaluate_;     // the last step is to be evaluated
  Part part_;         // of the batch, that batch_ holds,
  long in_part_;      // and its samples
};

}  // namespace
