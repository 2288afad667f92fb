#include "parse.h"

#include <algorithm>

#include "reader.h"

namespace {

template <class T>
void check_range(const std::string& field, const T* values, long count, long least, long below) {
  for (long i = 0; i < count; i++)
    if (values[i] < least || values[i] >= below)
      bad(field, std::to_string(values[i]) + " at flat index " + std::to_string(i),
          "values of " + std::to_string(least) + " to " + std::to_string(below - 1));
}

void check_ascending(const char* field, const int64_t* values, long count) {
  for (long i = 1; i < count; i++)
    if (values[i] <= values[i - 1])
      bad(field, std::to_string(values[i]) + " after " + std::to_string(values[i - 1]),
          "strictly ascending steps");
}

constexpr long kMost = 1L << 31;  // of any size; exact as a float64 and safe to multiply by a few

void parse_network(const Reader& read, Job& job) {
  job.dtype =
      read.choice<Dtype>("dtype", {{"float32", Dtype::float32}, {"float64", Dtype::float64}});
  const py::object sizes = read.get("sizes");
  const std::string expected = "a list of 2 to 5 ints";
  if (!py::isinstance<py::sequence>(sizes) || py::isinstance<py::str>(sizes))
    throw py::type_error("sizes: got " + text(sizes) + ", expected " + expected);
  const py::sequence list = sizes;
  if (list.size() < 2 || list.size() > kMaxLayers + 1) bad("sizes", text(sizes), expected);
  job.layers = static_cast<int>(list.size()) - 1;
  for (size_t i = 0; i < list.size(); i++)
    job.sizes[i] = Reader::integer("sizes[" + std::to_string(i) + "]", list[i], 1, 1L << 20);
  const py::object embedding = read.get("embedding");
  if (!embedding.is_none()) {
    if (!py::isinstance<py::sequence>(embedding) || py::len(embedding) != 2)
      throw py::type_error("embedding: got " + text(embedding) + ", expected None or (P, E)");
    const py::sequence pair = embedding;
    job.vocabulary = Reader::integer("embedding[0]", pair[0], 1, 1L << 20);
    Reader::integer("embedding[1]", pair[1], job.sizes[0], job.sizes[0]);
  }
  job.activate_embedding = read.boolean("activate_embedding");
  if (job.activate_embedding && !job.vocabulary)
    bad("activate_embedding", "True", "False for a model without embedding");
  job.bias = read.boolean("bias");
  job.output_bias = read.boolean("output_bias");
  job.activation = read.choice<Activation>("activation", {{"tanh", Activation::tanh},
                                                          {"relu", Activation::relu},
                                                          {"leaky_relu", Activation::leaky_relu},
                                                          {"square", Activation::square}});
  job.loss = read.choice<Loss>("loss", {{"cross_entropy", Loss::cross_entropy},
                                        {"mse", Loss::mse},
                                        {"hinge", Loss::hinge}});
  job.predict = read.choice<Prediction>("predict", {{"argmax", Prediction::argmax},
                                                    {"nearest", Prediction::nearest},
                                                    {"sign", Prediction::sign}});
  if (job.predict == Prediction::sign && job.sizes[job.layers] != 1)
    bad("predict", "'sign'",
        "'argmax' or 'nearest' for " + std::to_string(job.sizes[job.layers]) + " outputs");
  job.optimizer = read.choice<Optimizer>(
      "optimizer", {{"adamw", Optimizer::adamw}, {"sgd", Optimizer::sgd}});
  job.beta1 = read.number("beta1", 0, 1);
  job.beta2 = read.number("beta2", 0, 1);
  job.eps = read.number("eps", 0, 1);
  job.momentum = read.number("momentum", 0, 1);
  job.classes = read.integer("num_classes", 1, 1L << 20);
  if (job.loss == Loss::cross_entropy && job.classes > job.sizes[job.layers])
    bad("num_classes", std::to_string(job.classes),
        "at most the " + std::to_string(job.sizes[job.layers]) + " outputs, for cross_entropy");
}

// What an optimizer keeps beside each parameter, by the names of grokfast/optimizers.py.
std::vector<const char*> slot_names(Optimizer optimizer) {
  switch (optimizer) {
    case Optimizer::adamw: return {"exp_avg", "exp_avg_sq"};
    case Optimizer::sgd: return {"momentum_buffer"};
  }
  throw std::logic_error("an optimizer without a list of its slots");
}

void parse_parameters(const Reader& read, Job& job, const char* real) {
  job.tensors = job.layers + (job.vocabulary ? 1 : 0);
  for (int l = 0; l < job.layers; l++) job.tensors += job.biased(l);
  std::vector<long> shape;
  read.input<int32_t>("data_index", "int32", {-1}, &shape);
  job.models = shape[0];
  std::vector<std::pair<const char*, void**>> lists = {{"params", job.params}};
  for (const char* name : slot_names(job.optimizer))
    lists.emplace_back(name, job.slots[lists.size() - 1]);
  for (const auto& [field, pointers] : lists) {
    const py::object value = read.get(field);
    const std::string expected = "a list of " + std::to_string(job.tensors) + " arrays";
    if (!py::isinstance<py::sequence>(value) || py::isinstance<py::str>(value))
      throw py::type_error(field + (": got " + text(value)) + ", expected " + expected);
    const py::sequence list = value;
    if (static_cast<int>(list.size()) != job.tensors)
      bad(field, std::to_string(list.size()) + " items", expected);
    int g = 0;
    auto tensor = [&](const std::vector<long>& dims) {
      pointers[g] = read.array(field + ("[" + std::to_string(g) + "]"), list[g], real, dims, true);
      g++;
    };
    if (job.vocabulary) tensor({job.models, job.vocabulary, job.sizes[0]});
    for (int l = 0; l < job.layers; l++) {
      tensor({job.models, job.sizes[l + 1], job.sizes[l]});
      if (job.biased(l)) tensor({job.models, job.sizes[l + 1]});
    }
  }
  job.lr = read.input<double>("lr", "float64", {job.tensors, job.models});
  job.weight_decay = read.input<double>("weight_decay", "float64", {job.tensors, job.models});
  if (!read.get("weight_decay_memorised").is_none())
    job.decay_memorised =
        read.input<double>("weight_decay_memorised", "float64", {job.tensors, job.models});
}

void parse_data(const Reader& read, Job& job, const char* real) {
  const bool tokens = job.vocabulary > 0;
  const char* dtype = tokens ? "int32" : real;
  const long width = tokens ? -1 : job.sizes[0], outputs = job.sizes[job.layers];
  std::vector<long> train, val;
  job.x_train = read.input<void>("x_train", dtype, {-1, -1, width}, &train);
  const long sets = train[0];
  job.train_count = train[1];
  job.tokens = tokens ? train[2] : 0;
  job.x_val = read.input<void>("x_val", dtype, {sets, -1, train[2]}, &val);
  job.val_count = val[1];
  if (sets < 1 || job.train_count < 1 || job.train_count >= kMost || (tokens && job.tokens < 1))
    bad("x_train", shape_text(train), "at least one data set, sample and token");
  if (job.val_count < 1 || job.val_count >= kMost)
    bad("x_val", shape_text(val), "at least one validation sample");
  if (tokens) {
    check_range("x_train", static_cast<const int32_t*>(job.x_train),
                sets * job.train_count * job.tokens, 0, job.vocabulary);
    check_range("x_val", static_cast<const int32_t*>(job.x_val), sets * job.val_count * job.tokens,
                0, job.vocabulary);
  }
  job.y_train = read.input<int32_t>("y_train", "int32", {sets, job.train_count});
  job.y_val = read.input<int32_t>("y_val", "int32", {sets, job.val_count});
  check_range("y_train", job.y_train, sets * job.train_count, 0, job.classes);
  check_range("y_val", job.y_val, sets * job.val_count, 0, job.classes);
  if (!read.get("targets").is_none())
    job.targets = read.input<void>("targets", real, {sets, job.classes, outputs});
  else if (job.loss != Loss::cross_entropy || job.predict != Prediction::argmax)
    bad("targets", "None", "an array [D, C, O], for mse, hinge, nearest or sign");
  job.data_index = read.input<int32_t>("data_index", "int32", {job.models});
  check_range("data_index", job.data_index, job.models, 0, sets);
}

void parse_batches(const Reader& read, Job& job) {
  job.batch = read.integer("batch_size", 1, job.train_count);
  const long whole = job.train_count / job.batch, rest = job.train_count % job.batch;
  job.steps_per_epoch = read.integer("steps_per_epoch", whole, whole + (rest > 0));
  job.first_epoch = read.integer("first_epoch", 0, 1L << 62);
  if (read.get("order").is_none()) {
    if (job.batch != job.train_count)
      bad("order", "None", "an array [R, epochs, N], for minibatches");
    return;
  }
  std::vector<long> shape;
  job.order = read.input<int32_t>("order", "int32", {-1, -1, job.train_count}, &shape);
  job.order_epochs = shape[1];
  job.order_index = read.input<int32_t>("order_index", "int32", {job.models});
  check_range("order", job.order, shape[0] * shape[1] * shape[2], 0, job.train_count);
  check_range("order_index", job.order_index, job.models, 0, shape[0]);
}

void parse_counts(const Reader& read, const Job& job, const char* set, Counts& counts) {
  const std::string name = set;
  const std::vector<long> each = {job.models};
  counts.need = read.integer("need_" + name, 0, 1L << 62);
  counts.time = read.output<int64_t>("t_" + name, "int64", each);
  counts.need_more = read.input<int64_t>("need_" + name + "_more", "int64", {job.further});
  counts.crossings =
      read.output<int64_t>(name + "_crossings", "int64", {job.models, job.further});
  counts.correct = read.output<int64_t>(name + "_correct", "int64", each);
  counts.best = read.output<int64_t>("best_" + name + "_correct", "int64", each);
}

void parse_records(const Reader& read, Job& job) {
  std::vector<long> shape;
  job.train_accuracy = read.choice<TrainAccuracy>(
      "train_accuracy", {{"running", TrainAccuracy::running}, {"after", TrainAccuracy::after}});
  job.recorded_loss = read.choice<TrainLoss>(
      "recorded_loss", {{"before", TrainLoss::before}, {"after", TrainLoss::after}});
  if (job.recorded_loss == TrainLoss::after && job.train_accuracy != TrainAccuracy::after)
    bad("recorded_loss", "'after'", "'before' with a running train_accuracy");
  if (!read.get("eval_steps").is_none()) {
    job.eval_steps = read.input<int64_t>("eval_steps", "int64", {-1}, &shape);
    job.eval_count = shape[0];
    check_ascending("eval_steps", job.eval_steps, job.eval_count);
  }
  read.input<int64_t>("need_train_more", "int64", {-1}, &shape);
  job.further = shape[0];
  parse_counts(read, job, "train", job.train);
  parse_counts(read, job, "val", job.val);
  job.stop = read.boolean("stop");
  job.step = read.output<int64_t>("step", "int64", {job.models});
  job.diverged_at = read.output<int64_t>("diverged_at", "int64", {job.models});
  job.epoch_correct = read.output<int64_t>("epoch_correct", "int64", {job.models});
  job.epoch_loss = read.output<double>("epoch_loss", "float64", {job.models});
  job.curve_steps = read.input<int64_t>("curve_steps", "int64", {-1}, &shape);
  job.curve_count = shape[0];
  check_ascending("curve_steps", job.curve_steps, job.curve_count);
  const std::vector<long> curve = {job.models, job.curve_count};
  job.train_loss = read.output<float>("train_loss", "float32", curve);
  job.val_loss = read.output<float>("val_loss", "float32", curve);
  job.train_acc = read.output<float>("train_acc", "float32", curve);
  job.val_acc = read.output<float>("val_acc", "float32", curve);
  if (!read.get("norm_steps").is_none()) {
    if (job.vocabulary) bad("norm_steps", "an array", "None for a model with embedding");
    job.norm_steps = read.input<int64_t>("norm_steps", "int64", {-1}, &shape);
    job.norm_count = shape[0];
    check_ascending("norm_steps", job.norm_steps, job.norm_count);
    job.spectral_norm = read.output<float>("spectral_norm", "float32", {job.models, shape[0]});
  }
  job.until = read.integer("until", 0, 1L << 62);
}

void parse_cells(const Reader& read, const Job& job, Request& request) {
  std::vector<long> shape;
  const int32_t* cells = read.input<int32_t>("cells", "int32", {-1}, &shape);
  request.cells.assign(cells, cells + shape[0]);
  check_range("cells", cells, shape[0], 0, job.models);
  std::vector<int32_t> sorted = request.cells;
  std::sort(sorted.begin(), sorted.end());
  const auto twin = std::adjacent_find(sorted.begin(), sorted.end());
  if (twin != sorted.end())
    bad("cells", "cell " + std::to_string(*twin) + " twice", "distinct cells");
  for (int32_t cell : request.cells) {
    const int64_t step = job.step[cell];
    if (step < 0 || step > 1L << 62)
      bad("step", std::to_string(step) + " of cell " + std::to_string(cell), "at least 0");
    if (!job.order || step >= job.until) continue;
    const long from = step / job.steps_per_epoch, to = (job.until - 1) / job.steps_per_epoch;
    if (from < job.first_epoch || to - job.first_epoch >= job.order_epochs)
      bad("order",
          "epochs " + std::to_string(job.first_epoch) + " to " +
              std::to_string(job.first_epoch + job.order_epochs - 1),
          "epochs " + std::to_string(from) + " to " + std::to_string(to) + " for cell " +
              std::to_string(cell));
  }
}

}  // namespace

Request parse(const py::dict& dict) {
  Request request;
  Job& job = request.job;
  const Reader read(dict, request);
  parse_network(read, job);
  const char* real = job.dtype == Dtype::float32 ? "float32" : "float64";
  parse_parameters(read, job, real);
  parse_data(read, job, real);
  parse_batches(read, job);
  parse_records(read, job);
  parse_cells(read, job, request);
  request.threads = static_cast<int>(read.integer("threads", 1, 4096));
  const py::object level = read.get("level");
  if (!level.is_none()) {
    if (!py::isinstance<py::str>(level))
      throw py::type_error("level: got " + text(level) + ", expected None or a str");
    request.level = level.cast<std::string>();
    if (request.level.empty()) bad("level", "''", "None or the name of a level");
  }
  request.tick = read.get("tick");
  if (!request.tick.is_none() && !PyCallable_Check(request.tick.ptr()))
    throw py::type_error("tick: got " + text(request.tick) + ", expected None or a callable");
  return request;
}
