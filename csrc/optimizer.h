// The update rule: applied vector by vector where a gradient is made, so that no gradient of a
// weight matrix is ever stored. Another rule is another struct with `of` and `update`.
#pragma once

#include <math.h>

namespace {

// torch.optim.AdamW; the bias corrections come in double from the number of the update.
template <class T>
struct AdamW {
  using V = Vec<T>;
  V decay, rate1, beta2, rate2, scale2, eps, step;

  static AdamW of(const Job& job, int tensor, long cell, int64_t update) {
    double lr = job.lr[tensor * job.models + cell];
    double wd = job.weight_decay[tensor * job.models + cell];
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

  void update(T* p, T* m, T* v, V g) const {
    V avg = V::load(m), sq = V::load(v);
    avg = fma(rate1, g - avg, avg);
    sq = fma(rate2 * g, g, beta2 * sq);
    V denominator = fma(sqrt(sq), scale2, eps);
    avg.store(m);
    sq.store(v);
    fma(step, avg / denominator, V::load(p) * decay).store(p);
  }
};

// Rounded up to whole vectors: everything after `count` must be there to be overwritten.
template <class T, class Rule>
void update_all(const Rule& rule, long count, T* p, T* m, T* v, const T* g) {
  for (long i = 0; i < count; i += Vec<T>::width)
    rule.update(p + i, m + i, v + i, Vec<T>::load(g + i));
}

}  // namespace
