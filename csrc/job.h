// What a caller asks of a worker: plain pointers and sizes, the same for every level and dtype.
//
// Letters: M models (cells), D data sets, N training samples, V validation samples, B batch,
// K tokens a sample, P vocabulary, E embedding width, I inputs, O outputs, C classes,
// G parameter tensors, T curve steps, H further thresholds.
#pragma once

#include <stdint.h>

enum class Dtype { float32, float64 };
enum class Activation { tanh, relu, leaky_relu, square };
enum class Loss { cross_entropy, mse, hinge };
enum class Prediction { argmax, nearest, sign };
enum class Optimizer { adamw, sgd };
// Which accuracy of the training set counts: that of the epoch's batches, each before its update,
// or that of the whole set after the update.
enum class TrainAccuracy { running, after };
// With an accuracy of the whole set: whether the loss that goes with it is that of the step's batch
// before its update, or that of the whole set, too.
enum class TrainLoss { before, after };

constexpr int kMaxLayers = 4;
constexpr int kMaxTensors = 1 + 2 * kMaxLayers;
constexpr int kMaxSlots = 2;  // tensors that an optimizer keeps beside a parameter

// What is noted of one set's right predictions whenever it is evaluated.
struct Counts {
  long need;                 // as many make its time,
  int64_t* time;             // [M] the first evaluated step with them, or -1
  const int64_t* need_more;  // [H] further needs,
  int64_t* crossings;        // [M, H] and their times
  int64_t *correct, *best;   // [M] at the last evaluation, and the most at any; -1: none yet
};

struct Job {
  Dtype dtype;
  int layers;
  long sizes[kMaxLayers + 1];  // I0, H1, ..., O
  long vocabulary;             // P; 0 where the inputs are dense. E is sizes[0]
  long tokens;                 // K
  bool activate_embedding;     // the activation is applied to the sum of the embeddings, too
  bool bias;                   // every layer has one,
  bool output_bias;            // or every layer but the last
  Activation activation;
  Loss loss;
  Prediction predict;
  Optimizer optimizer;
  double beta1, beta2, eps;  // of adamw
  double momentum;           // of sgd

  long models;  // M
  int tensors;  // G, in the order [embedding]?, W0, [b0]?, W1, [b1]?, ...
  void* params[kMaxTensors];           // real [M, ...]
  void* slots[kMaxSlots][kMaxTensors];  // real [M, ...], in the optimizer's order
  const double* lr;                    // [G, M]
  const double* weight_decay;          // [G, M]
  const double* decay_memorised;       // [G, M]: from the step after the training set's time on;
                                       // or null

  long train_count, val_count, batch, classes;  // N, V, B, C
  const void* x_train;                          // real [D, N, I0] or int32 [D, N, K]
  const void* x_val;                            // real [D, V, I0] or int32 [D, V, K]
  const int32_t* y_train;                       // [D, N]
  const int32_t* y_val;                         // [D, V]
  const void* targets;                          // real [D, C, O] or null
  const int32_t* data_index;                    // [M]

  const int32_t* order;        // [R, epochs, N]; null: the whole training set in its own order
  const int32_t* order_index;  // [M]
  long order_epochs, first_epoch;
  long steps_per_epoch;  // N / B rounded down: the remainder is dropped; rounded up: a short batch

  TrainAccuracy train_accuracy;
  TrainLoss recorded_loss;
  const int64_t* eval_steps;  // null: at the end of every epoch
  long eval_count;
  long further;  // H
  Counts train, val;
  bool stop;  // a cell ends once both sets have their time

  int64_t *step, *diverged_at, *epoch_correct;  // [M]
  double* epoch_loss;                           // [M]
  const int64_t* curve_steps;                   // [T]
  long curve_count;
  float *train_loss, *val_loss, *train_acc, *val_acc;  // [M, T]

  const int64_t* norm_steps;  // [S]: steps after which the first layer's norm is measured
  long norm_count;
  float* spectral_norm;  // [M, S]

  long until;

  // Whether narrow.h has its passes.
  bool narrow() const { return layers == 2 && sizes[2] == 1 && vocabulary == 0; }
  // Whether layer l has a bias.
  bool biased(int l) const { return bias && (output_bias || l + 1 < layers); }
};

// How a worker and the thread that waits for it talk: both sides use __atomic builtins.
struct Progress {
  const int* stop;  // nonzero: finish the step under way and write the cell back
  int64_t* steps;   // steps done so far by this worker
};
