// Trains a few tiny networks of every kind without Python, for sanitizers and Valgrind: checks that
// chunks, order, threads and interruption change no bit, and prints a checksum of each kind.
//
// driver [level] [steps]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "levels.h"
#include "scheduler.h"

namespace {

constexpr long kModels = 3, kSets = 2, kEpochs = 64;

struct Case {
  const char* name;
  std::vector<long> sizes;
  long vocabulary, tokens, train, val, batch, classes;
  Activation activation;
  Loss loss;
  Prediction predict;
  bool activate_embedding = false, bias = true;
  TrainAccuracy train_accuracy = TrainAccuracy::running;
  bool short_batch = false;  // the remainder of an epoch is a batch, and not dropped
  Optimizer optimizer = Optimizer::adamw;
  double momentum = 0;
  bool output_bias = true;
  TrainLoss recorded_loss = TrainLoss::before;
  long norm_every = 0;     // steps between measurements of the first layer's norm; 0: none
  bool memorised = false;  // the decay changes once half of the training samples are right
};

const Case kCases[] = {
    {"toy ce", {1, 33, 29, 19}, 10, 2, 45, 10, 45, 19, Activation::tanh, Loss::cross_entropy,
     Prediction::argmax},
    {"toy mse", {1, 33, 29, 30}, 10, 2, 45, 10, 45, 19, Activation::tanh, Loss::mse,
     Prediction::nearest},
    {"minibatch", {45, 31, 17, 10}, 0, 0, 24, 50, 8, 10, Activation::relu, Loss::mse,
     Prediction::argmax},
    {"wide input", {784, 13, 10}, 0, 0, 20, 30, 10, 10, Activation::relu, Loss::mse,
     Prediction::argmax},
    {"depth 1", {3, 5}, 7, 3, 9, 3, 9, 5, Activation::tanh, Loss::cross_entropy,
     Prediction::argmax},
    {"square", {6, 17, 8}, 5, 2, 15, 7, 15, 8, Activation::square, Loss::mse, Prediction::nearest},
    {"depth 4", {2, 17, 1, 9, 4}, 0, 0, 12, 5, 4, 4, Activation::leaky_relu, Loss::cross_entropy,
     Prediction::argmax},
    {"ones", {1, 1, 1}, 1, 1, 1, 1, 1, 1, Activation::tanh, Loss::cross_entropy,
     Prediction::argmax},
    {"blocks", {17, 11}, 22, 2, 251, 245, 251, 11, Activation::square, Loss::mse,
     Prediction::argmax, true, false, TrainAccuracy::after},
    {"dropped", {33, 7}, 14, 2, 29, 19, 8, 7, Activation::square, Loss::cross_entropy,
     Prediction::argmax, true, false, TrainAccuracy::after},
    {"short", {3, 18, 5}, 9, 3, 29, 6, 8, 5, Activation::tanh, Loss::mse, Prediction::nearest, true,
     true, TrainAccuracy::running, true},
    {"dense", {19, 21, 6}, 0, 0, 250, 9, 250, 6, Activation::leaky_relu, Loss::mse,
     Prediction::nearest, false, false, TrainAccuracy::after},
    {"parity", {19, 37, 1}, 0, 0, 29, 9, 8, 2, Activation::relu, Loss::hinge, Prediction::sign,
     false, true, TrainAccuracy::after, true, Optimizer::sgd, 0, false, TrainLoss::after, 2, true},
    {"narrow", {7, 50, 1}, 0, 0, 250, 245, 250, 3, Activation::square, Loss::mse,
     Prediction::nearest, false, true, TrainAccuracy::after, false, Optimizer::sgd, 0.9, true,
     TrainLoss::after, 1},
    {"narrower", {3, 1, 1}, 0, 0, 12, 7, 5, 2, Activation::tanh, Loss::hinge, Prediction::sign,
     false, false, TrainAccuracy::running, true},
    {"momentum", {19, 21, 6}, 0, 0, 26, 9, 8, 6, Activation::relu, Loss::hinge, Prediction::argmax,
     false, true, TrainAccuracy::after, false, Optimizer::sgd, 0.9, false, TrainLoss::after, 3,
     true},
    {"sgd", {33, 1}, 7, 2, 45, 10, 45, 2, Activation::tanh, Loss::hinge, Prediction::sign, true,
     true, TrainAccuracy::after, false, Optimizer::sgd, 0, false, TrainLoss::after, 0, true},
};

class Random {  // xorshift64*
 public:
  double uniform() {  // in [-1, 1)
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<double>((state_ * 2685821657736338717u) >> 11) / (1ull << 52) - 1;
  }
  int32_t below(long n) {
    return static_cast<int32_t>((uniform() + 1) / 2 * static_cast<double>(n));
  }

 private:
  uint64_t state_ = 88172645463325252u;
};

// A case with its data and the state of its models.
template <class T>
class Problem {
 public:
  explicit Problem(const Case& c) {
    const bool tokens = c.vocabulary > 0;
    job_.dtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    job_.layers = static_cast<int>(c.sizes.size()) - 1;
    for (size_t i = 0; i < c.sizes.size(); i++) job_.sizes[i] = c.sizes[i];
    job_.vocabulary = c.vocabulary, job_.tokens = c.tokens;
    job_.activate_embedding = c.activate_embedding;
    job_.bias = c.bias, job_.output_bias = c.output_bias;
    job_.activation = c.activation, job_.loss = c.loss, job_.predict = c.predict;
    job_.optimizer = c.optimizer;
    job_.beta1 = 0.9, job_.beta2 = 0.999, job_.eps = 1e-8, job_.momentum = c.momentum;
    job_.models = kModels;
    if (tokens) add_tensor(c.vocabulary * c.sizes[0], 0.5);
    for (int l = 0; l < job_.layers; l++) {
      add_tensor(c.sizes[l] * c.sizes[l + 1], 1 / sqrt(static_cast<double>(c.sizes[l])));
      if (job_.biased(l)) add_tensor(c.sizes[l + 1], 0.5);
    }
    lr_.assign(job_.tensors * kModels, 3e-3), wd_.assign(job_.tensors * kModels, 0.5);
    job_.lr = lr_.data(), job_.weight_decay = wd_.data();
    wd_memorised_.assign(job_.tensors * kModels, 2.5);
    job_.decay_memorised = c.memorised ? wd_memorised_.data() : nullptr;

    job_.train_count = c.train, job_.val_count = c.val;
    job_.batch = c.batch, job_.classes = c.classes;
    job_.steps_per_epoch = c.train / c.batch + c.short_batch;
    const long width = tokens ? c.tokens : c.sizes[0];
    job_.x_train = inputs(kSets * c.train * width, c.vocabulary);
    job_.x_val = inputs(kSets * c.val * width, c.vocabulary);
    job_.y_train = indices(kSets * c.train, c.classes);
    job_.y_val = indices(kSets * c.val, c.classes);
    job_.targets = reals(kSets * c.classes * c.sizes.back(), 1);
    job_.data_index = indices(kModels, kSets);
    if (c.batch < c.train) {
      job_.order = indices(2 * kEpochs * c.train, c.train);
      job_.order_index = indices(kModels, 2);
      job_.order_epochs = kEpochs;
    }
    job_.train_accuracy = c.train_accuracy, job_.recorded_loss = c.recorded_loss;
    needs_.assign({2, c.train / 2});
    job_.further = static_cast<long>(needs_.size());
    job_.train.need = c.memorised ? c.train / 2 : c.train + 1, job_.val.need = c.val + 1;
    for (int64_t** values : {&job_.step, &job_.epoch_correct}) *values = counters(0);
    for (int64_t** values : {&job_.train.time, &job_.val.time, &job_.diverged_at})
      *values = counters(-1);
    for (Counts* counts : {&job_.train, &job_.val}) {
      counts->need_more = needs_.data();
      counts->crossings = counters(-1, job_.further);
      counts->correct = counters(-1), counts->best = counters(-1);
    }
    epoch_loss_.assign(kModels, 0);
    job_.epoch_loss = epoch_loss_.data();
    for (long step = 1; step <= 64; step++)
      if (step % job_.steps_per_epoch == 0) curve_steps_.push_back(step);
    job_.curve_steps = curve_steps_.data();
    job_.curve_count = static_cast<long>(curve_steps_.size());
    for (long step = 1; c.norm_every && step <= 64; step += c.norm_every)
      norm_steps_.push_back(step);
    job_.norm_steps = norm_steps_.data();
    job_.norm_count = static_cast<long>(norm_steps_.size());
    norms_.assign(kModels * norm_steps_.size(), -1.0f);
    job_.spectral_norm = norms_.data();
    curves_.assign(4 * kModels * curve_steps_.size(), -1.0f);
    float** curves[] = {&job_.train_loss, &job_.val_loss, &job_.train_acc, &job_.val_acc};
    for (int i = 0; i < 4; i++) *curves[i] = curves_.data() + i * kModels * job_.curve_count;
  }
  Problem(const Problem&) = delete;

  void train(const Level& level, std::vector<int32_t> cells, long until, int threads,
             const Tick& tick = nullptr) {
    job_.until = until;
    ::train(job_, level, cells, threads, tick);
  }
  // No records, so that steps without number fit.
  void forget_records() { job_.curve_count = 0; }
  const Job& job() const { return job_; }

  uint64_t checksum() const {
    uint64_t hash = 14695981039346656037u;
    auto add = [&](const auto& values) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
      for (size_t i = 0; i < values.size() * sizeof values[0]; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    };
    for (const auto& tensor : state_) add(tensor);
    for (const auto& values : counters_) add(values);
    add(epoch_loss_), add(curves_), add(norms_);
    return hash;
  }

 private:
  void add_tensor(long size, double bound) {
    job_.params[job_.tensors] = state_.emplace_back(kModels * size).data();
    for (T& x : state_.back()) x = static_cast<T>(bound * random_.uniform());
    for (auto& slot : job_.slots) slot[job_.tensors] = state_.emplace_back(kModels * size).data();
    job_.tensors++;
  }
  const T* reals(long count, double bound) {
    std::vector<T>& values = reals_.emplace_back(count);
    for (T& x : values) x = static_cast<T>(bound * random_.uniform());
    return values.data();
  }
  const int32_t* indices(long count, long below) {
    std::vector<int32_t>& values = indices_.emplace_back(count);
    for (int32_t& x : values) x = random_.below(below);
    return values.data();
  }
  const void* inputs(long count, long vocabulary) {
    if (vocabulary) return indices(count, vocabulary);
    return reals(count, 1);
  }
  int64_t* counters(int64_t value, long count = 1) {
    return counters_.emplace_back(kModels * count, value).data();
  }

  Job job_{};
  Random random_;
  std::vector<std::vector<T>> state_, reals_;
  std::vector<std::vector<int32_t>> indices_;
  std::vector<std::vector<int64_t>> counters_;
  std::vector<double> lr_, wd_, wd_memorised_, epoch_loss_;
  std::vector<int64_t> curve_steps_, needs_, norm_steps_;
  std::vector<float> curves_, norms_;
};

const std::vector<int32_t> kAll = {0, 1, 2};
bool failed = false;

void expect(bool condition, const Case& c, const char* what) {
  if (condition) return;
  printf("FAILED: %s: %s\n", c.name, what);
  failed = true;
}

template <class T>
void check(const Case& c, const Level& level, long steps) {
  Problem<T> straight(c);
  straight.train(level, kAll, steps, 1);
  for (int cell : kAll)
    expect(straight.job().step[cell] == steps && straight.job().diverged_at[cell] < 0, c,
           "a cell is not at its last step");
  Problem<T> chunked(c);
  for (long until = 1; until <= steps; until++) chunked.train(level, {2, 0, 1}, until, 1);
  expect(chunked.checksum() == straight.checksum(), c, "chunks of one step change the result");
  Problem<T> threaded(c);
  threaded.train(level, {1, 2, 0}, steps, 2);
  expect(threaded.checksum() == straight.checksum(), c, "two threads change the result");
  printf("%-10s %s %016llx\n", c.name, sizeof(T) == 4 ? "float32" : "float64",
         static_cast<unsigned long long>(straight.checksum()));
}

// Stops a run that would last for ever, at whatever step that is; the same steps without a stop
// must give the same.
void check_interrupt(const Case& c, const Level& level) {
  Problem<float> stopped(c), straight(c);
  stopped.forget_records(), straight.forget_records();
  stopped.train(level, kAll, 1L << 40, 2, [](int64_t) { return true; });
  for (int32_t cell : kAll) {
    const long step = static_cast<long>(stopped.job().step[cell]);
    if (step) straight.train(level, {cell}, step, 1);
  }
  expect(stopped.checksum() == straight.checksum(), c, "an interrupt changes the result");
  Problem<float> thrown(c);
  thrown.forget_records();
  bool caught = false;
  try {
    thrown.train(level, kAll, 1L << 40, 2, [](int64_t) -> bool { throw 1; });
  } catch (int) {
    caught = true;
  }
  expect(caught, c, "what a tick throws is lost");
}

}  // namespace

int main(int argc, char** argv) {
  const Level& level = choose_level(argc > 1 ? argv[1] : nullptr);
  const long steps = argc > 2 ? atol(argv[2]) : 12;
  printf("level %s, %ld steps\n", level.name, steps);
  for (const Case& c : kCases) {
    check<float>(c, level, steps);
    check<double>(c, level, steps);
  }
  check_interrupt(kCases[0], level);
  puts(failed ? "FAILED" : "ok");
  return failed;
}
