#include "scheduler.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// Decaying moments of a parameter without gradient end as subnormal numbers, whose arithmetic is
// many times slower; they are flushed to zero instead. Set per thread: the caller's is untouched.
// Without moments there is no such pile of them, and where weights themselves decay to nothing, the
// step at which an output underflows to 0 is one that runs are to reproduce.
void flush_subnormals(Optimizer optimizer) {
  if (optimizer != Optimizer::adamw) return;
#if defined(__SSE2__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#elif defined(__aarch64__)
  uint64_t fpcr;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  asm volatile("msr fpcr, %0" : : "r"(fpcr | (1u << 24)));
#endif
}

struct Free {
  void operator()(void* p) const { free(p); }
};
using Scratch = std::unique_ptr<void, Free>;
constexpr size_t kSmallPage = 4096;

// One block for all workers, in pages of 2 MB where the system grants them: a tile of weight updates
// touches a page a row (MNIST's first layer in float64 took 2.15 ms with 4 KB pages, 1.65 ms so).
Scratch allocate(size_t bytes) {
  size_t page = kSmallPage;
#if defined(MADV_HUGEPAGE)
  constexpr size_t kHugePage = 1u << 21;
  if (bytes > kHugePage / 2) page = kHugePage;
#endif
  bytes = (bytes + page - 1) / page * page;
  void* p = nullptr;
  if (posix_memalign(&p, page, bytes) != 0) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (page == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
#endif
  return Scratch(p);
}

bool frozen(const Job& job, long cell) {
  return job.step[cell] >= job.until || job.diverged_at[cell] >= 0 ||
         (job.stop && job.train.time[cell] >= 0 && job.val.time[cell] >= 0);
}

struct alignas(64) Worker {  // a cache line each: workers count every step
  int64_t steps = 0;
  void* scratch = nullptr;
};

}  // namespace

void train(const Job& job, const Level& level, const std::vector<int32_t>& cells, int threads,
           const Tick& tick) {
  std::vector<int32_t> queue;
  for (int32_t cell : cells)
    if (!frozen(job, cell)) queue.push_back(cell);
  std::stable_sort(queue.begin(), queue.end(),
                   [&](int32_t a, int32_t b) { return job.step[a] < job.step[b]; });
  if (queue.empty()) return;

  const size_t bytes = level.scratch_bytes(job);
  const char* poison_name = getenv("GROKFAST_POISON");
  const bool poison = poison_name && *poison_name && strcmp(poison_name, "0") != 0;
  std::vector<Worker> workers(std::min<size_t>(static_cast<size_t>(threads), queue.size()));
  const size_t apart = (bytes + kSmallPage - 1) / kSmallPage * kSmallPage;
  const Scratch scratch = allocate(apart * workers.size());
  for (size_t k = 0; k < workers.size(); k++)
    workers[k].scratch = static_cast<char*>(scratch.get()) + k * apart;

  int stop = 0;
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::condition_variable done;
  size_t running = 0;
  auto work = [&](Worker& worker) {
    flush_subnormals(job.optimizer);
    const Progress progress{&stop, &worker.steps};
    for (size_t i; (i = next.fetch_add(1)) < queue.size();) {
      if (__atomic_load_n(&stop, __ATOMIC_RELAXED)) break;
      if (poison) memset(worker.scratch, 0xff, bytes);  // every real is NaN
      level.train_cell(job, queue[i], worker.scratch, progress);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    running--;
    done.notify_one();
  };

  std::vector<std::thread> pool;
  std::exception_ptr error;
  try {
    pool.reserve(workers.size());
    for (Worker& worker : workers) {
      {
        const std::lock_guard<std::mutex> lock(mutex);
        running++;
      }
      try {
        pool.emplace_back(work, std::ref(worker));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        running--;
        throw;
      }
    }
    std::unique_lock<std::mutex> lock(mutex);
    while (!done.wait_for(lock, std::chrono::milliseconds(100), [&] { return running == 0; })) {
      lock.unlock();
      int64_t steps = 0;
      for (const Worker& worker : workers)
        steps += __atomic_load_n(&worker.steps, __ATOMIC_RELAXED);
      if (tick && tick(steps)) __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
      lock.lock();
    }
  } catch (...) {
    error = std::current_exception();
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
  }
  for (std::thread& thread : pool) thread.join();
  if (error) std::rethrow_exception(error);
}
