// One cell's run: which samples when, what is counted, evaluated and recorded, and when it ends.
#pragma once

namespace {

template <class T>
class Cell {
 public:
  Cell(Arena& arena, const Job& job)
      : job_(job),
        full_(job.order == nullptr),
        spare_(full_ ? least(job.val_count, round_up(job.batch, Vec<T>::width) - job.batch) : 0),
        batch_(Block<T>::of(arena, job, job.batch + spare_)),
        val_(Block<T>::of(arena, job, least(job.val_count, kValVecs * Vec<T>::width))),
        net_(arena, job, job.batch) {}

  void run(long cell, const Progress& progress) {
    begin(cell);
    for (;;) {
      const bool more = step_ < job_.until && !__atomic_load_n(progress.stop, __ATOMIC_RELAXED);
      if (!more && !evaluate_) break;
      bool finite = true;
      double loss = 0;
      long correct = 0;
      // The last vector of a full batch has room for validation samples (`spare_`): the forward
      // pass of step i + 1 evaluates them with the very weights that step i left.
      if (more || spare_ > 0) {
        if (!full_) load_batch();
        net_.forward(batch_);
        net_.predict(batch_, targets_);
        with_loss<T>(job_.loss, [&](auto rule) {
          net_.losses(rule, batch_, job_.batch);
          const T mean = static_cast<T>(batch_.loss(rule, 0, job_.batch) /
                                        rule.terms(job_.batch, job_.sizes[job_.layers]));
          finite = mean - mean == 0;
          loss = mean;
        });
        correct = batch_.correct(0, job_.batch);
      }
      if (evaluate_) evaluate();
      if (!more || finished()) break;
      if (!finite) {
        diverged_at_ = step_ + 1;
        break;
      }
      advance(loss, correct);
      __atomic_store_n(progress.steps, __atomic_load_n(progress.steps, __ATOMIC_RELAXED) + 1,
                       __ATOMIC_RELAXED);
    }
    end();
  }

 private:
  // Vectors of validation samples taken through the net at once: enough to pay for the weights'
  // way from L3, few enough that the activations stay in L2.
  static constexpr long kValVecs = 24;

  void begin(long cell) {
    cell_ = cell;
    step_ = job_.step[cell];
    t_train_ = job_.t_train[cell];
    t_val_ = job_.t_val[cell];
    diverged_at_ = -1;
    epoch_correct_ = job_.epoch_correct[cell];
    epoch_loss_ = job_.epoch_loss[cell];
    evaluate_ = false;
    curve_ = eval_ = 0;
    steps_per_epoch_ = job_.train_count / job_.batch;

    const long d = job_.data_index[cell], outputs = job_.sizes[job_.layers];
    targets_ =
        job_.targets ? static_cast<const T*>(job_.targets) + d * job_.classes * outputs : nullptr;
    train_ = samples(job_.x_train, job_.y_train, job_.train_count, d);
    validation_ = samples(job_.x_val, job_.y_val, job_.val_count, d);

    net_.model.load(job_, cell);
    net_.set_targets(targets_);
    batch_.resize(job_.batch + spare_);
    if (!full_) return;
    for (long c = 0; c < job_.batch; c++) batch_.put(job_, c, train_, c, targets_);
    for (long c = 0; c < spare_; c++) batch_.put(job_, job_.batch + c, validation_, c, targets_);
    batch_.pad();
  }

  Samples<T> samples(const void* x, const int32_t* y, long count, long d) const {
    Samples<T> s{nullptr, nullptr, y + d * count};
    if (job_.vocabulary)
      s.tokens = static_cast<const int32_t*>(x) + d * count * job_.tokens;
    else
      s.x = static_cast<const T*>(x) + d * count * job_.sizes[0];
    return s;
  }

  void load_batch() {
    const long epoch = step_ / steps_per_epoch_, k = step_ % steps_per_epoch_;
    const long row = job_.order_index[cell_] * job_.order_epochs + epoch - job_.first_epoch;
    const int32_t* order = job_.order + row * job_.train_count + k * job_.batch;
    for (long c = 0; c < job_.batch; c++) batch_.put(job_, c, train_, order[c], targets_);
    batch_.pad();
  }

  // Counts a step whose gradient is ready, and updates the parameters.
  void advance(double loss, long correct) {
    if (step_ % steps_per_epoch_ == 0) {
      epoch_correct_ = 0;
      epoch_loss_ = 0;
    }
    epoch_correct_ += correct;
    epoch_loss_ += loss;
    net_.backward(batch_, job_.batch, cell_, step_ + 1);
    step_++;
    evaluate_ = evaluates();
    if (job_.snapshot_every > 0 && step_ % job_.snapshot_every == 0) snapshot();
  }

  bool evaluates() {
    if (step_ % steps_per_epoch_) return false;
    if (!job_.eval_steps) return true;
    while (eval_ < job_.eval_count && job_.eval_steps[eval_] < step_) eval_++;
    return eval_ < job_.eval_count && job_.eval_steps[eval_] == step_;
  }

  void evaluate() {
    evaluate_ = false;
    while (curve_ < job_.curve_count && job_.curve_steps[curve_] < step_) curve_++;
    const bool on_curve = curve_ < job_.curve_count && job_.curve_steps[curve_] == step_;
    long correct = batch_.correct(job_.batch, job_.batch + spare_);
    double loss = 0;
    with_loss<T>(job_.loss, [&](auto rule) {
      if (on_curve) loss = batch_.loss(rule, job_.batch, job_.batch + spare_);
      const Split blocks(job_.val_count - spare_, kValVecs * Vec<T>::width);
      for (long i = 0; i < blocks.parts; i++) {
        const long first = spare_ + blocks.begin(i), count = blocks.count(i);
        val_.resize(count);
        for (long c = 0; c < count; c++) val_.put(job_, c, validation_, first + c, targets_);
        val_.pad();
        net_.forward(val_);
        net_.predict(val_, targets_);
        correct += val_.correct(0, count);
        if (!on_curve) continue;
        net_.losses(rule, val_, 0);
        loss += val_.loss(rule, 0, count);
      }
      loss /= rule.terms(job_.val_count, job_.sizes[job_.layers]);
    });
    if (t_train_ < 0 && epoch_correct_ >= job_.need_train) t_train_ = step_;
    if (t_val_ < 0 && correct >= job_.need_val) t_val_ = step_;
    if (!on_curve) return;
    const long at = cell_ * job_.curve_count + curve_;
    job_.train_loss[at] = static_cast<float>(epoch_loss_ / static_cast<double>(steps_per_epoch_));
    job_.train_acc[at] = static_cast<float>(static_cast<double>(epoch_correct_) /
                                            static_cast<double>(job_.train_count));
    job_.val_loss[at] = static_cast<float>(loss);
    job_.val_acc[at] =
        static_cast<float>(static_cast<double>(correct) / static_cast<double>(job_.val_count));
  }

  void snapshot() {
    const long size = job_.vocabulary * job_.sizes[0];
    float* to = job_.embeddings + (cell_ * job_.snapshots + step_ / job_.snapshot_every) * size;
    for (long i = 0; i < size; i++) to[i] = static_cast<float>(net_.model.embedding[i]);
  }

  bool finished() const { return job_.stop && t_train_ >= 0 && t_val_ >= 0; }

  void end() {
    net_.model.store(job_, cell_);
    job_.step[cell_] = step_;
    job_.t_train[cell_] = t_train_;
    job_.t_val[cell_] = t_val_;
    job_.diverged_at[cell_] = diverged_at_;
    job_.epoch_correct[cell_] = epoch_correct_;
    job_.epoch_loss[cell_] = epoch_loss_;
  }

  const Job& job_;
  const bool full_;   // the batch is the whole training set
  const long spare_;  // validation samples that ride with the batch
  Block<T> batch_, val_;
  Network<T> net_;
  Samples<T> train_, validation_;
  const T* targets_;  // [C, O] or null
  long cell_;
  int64_t step_, t_train_, t_val_, diverged_at_, epoch_correct_;
  double epoch_loss_;
  long steps_per_epoch_, curve_, eval_;
  bool evaluate_;  // the last step is to be evaluated
};

}  // namespace
