// The update rule: applied vector by vector where a gradient is made, so that no gradient of a
// weight matrix is ever stored. Another rule is another struct with `slots`, `of` and `update`, and
// a line of `with_optimizer`.
#pragma once

#include <math.h>

namespace {

// Values of a parameter in the worker's layout, and what the optimizer keeps beside each.
template <class T>
struct Values {
  T* w;
  T* slot[kMaxSlots];  // as many as the optimizer uses; the others are null

  Values from(long i) const {
    Values v{w + i, {}};
    for (int s = 0; s < kMaxSlots; s++) v.slot[s] = slot[s] ? slot[s] + i : nullptr;
    return v;
  }
};

// The decay of a cell's next update.
inline double decay_of(const Job& job, int tensor, long cell) {
  const bool memorised = job.decay_memorised && job.train.time[cell] >= 0;
  return (memorised ? job.decay_memorised : job.weight_decay)[tensor * job.models + cell];
}

// torch.optim.AdamW; the bias corrections come in double from the number of the update.
template <class T>
struct AdamW {
  using V = Vec<T>;
  static constexpr int slots = 2;  // the gradient's first and second moment
  V decay, rate1, beta2, rate2, scale2, eps, step;

  static AdamW of(const Job& job, int tensor, long cell, int64_t update) {
    double lr = job.lr[tensor * job.models + cell];
    double wd = decay_of(job, tensor, cell);
    double number = static_cast<double>(update);
    double correction1 = 1 - ::pow(job.beta1, number);
    double correction2 = 1 - ::pow(job.beta2, number);
    auto set = [](double x) { return V::set(static_cast<T>(x)); };
    return {set(1 - lr * wd),
            set(1 - job.beta1),
            set(job.beta2),
            set(1 - job.beta2),
            set(1 / ::sqrt(correction2)),
            set(job.eps),
            set(-lr / correction1)};
  }

  void update(const Values<T>& p, long i, V g) const {
    V avg = V::load(p.slot[0] + i), sq = V::load(p.slot[1] + i);
    avg = fma(rate1, g - avg, avg);
    sq = fma(rate2 * g, g, beta2 * sq);
    V denominator = fma(sqrt(sq), scale2, eps);
    avg.store(p.slot[0] + i);
    sq.store(p.slot[1] + i);
    fma(step, avg / denominator, V::load(p.w + i) * decay).store(p.w + i);
  }
};

// torch.optim.SGD: the decay is part of the gradient, and the velocity begins with the first one.
// Without momentum it keeps nothing.
template <class T, bool moving>
struct Sgd {
  using V = Vec<T>;
  static constexpr int slots = moving;  // the velocity
  V decay, momentum, step;

  static Sgd of(const Job& job, int tensor, long cell, int64_t) {
    auto set = [](double x) { return V::set(static_cast<T>(x)); };
    return {set(decay_of(job, tensor, cell)), set(job.momentum),
            set(-job.lr[tensor * job.models + cell])};
  }

  void update(const Values<T>& p, long i, V g) const {
    const V w = V::load(p.w + i);
    g = fma(decay, w, g);
    if constexpr (moving) {
      g = fma(momentum, V::load(p.slot[0] + i), g);
      g.store(p.slot[0] + i);
    }
    fma(step, g, w).store(p.w + i);
  }
};

template <class Rule>
struct Kind {
  using type = Rule;
};

// The one place where an optimizer's name becomes its code; call gets a Kind of it.
template <class T, class Call>
auto with_optimizer(const Job& job, Call&& call) {
  switch (job.optimizer) {
    case Optimizer::adamw: return call(Kind<AdamW<T>>());
    case Optimizer::sgd:
      return job.momentum == 0 ? call(Kind<Sgd<T, false>>()) : call(Kind<Sgd<T, true>>());
  }
  unknown_value();
}

// Slots in use.
template <class T>
int slots_of(const Job& job) {
  return with_optimizer<T>(job, [](auto kind) { return decltype(kind)::type::slots; });
}

template <class T>
Values<T> take_values(Arena& arena, const Job& job, long count) {
  Values<T> v{arena.take<T>(count), {}};
  for (int s = 0; s < slots_of<T>(job); s++) v.slot[s] = arena.take<T>(count);
  return v;
}

// Rounded up to whole vectors: everything after `count` must be there to be overwritten.
template <class T, class Rule>
void update_all(const Rule& rule, long count, const Values<T>& p, const T* g) {
  for (long i = 0; i < count; i += Vec<T>::width) rule.update(p, i, Vec<T>::load(g + i));
}

}  // namespace
