#include "stages.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace specc {
namespace {

constexpr int kSpins = 1000;  // pauses, some 40 microseconds, before a thread lets others have its core

// The parts of all stages in one line. Each thread takes the next part, and waits until the stages before it are done.
// The thread with the first part that is not done never waits. So all go on, however many threads there are.
struct Line {
  explicit Line(const std::vector<Stage>& all) : stages(all), starts(1, 0) {
    for (const Stage& stage : all) starts.push_back(starts.back() + stage.parts);
  }

  const std::vector<Stage>& stages;
  std::vector<int64_t> starts;
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int64_t> done{0};
};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until the stages before `stage` are done.
void wait_for(const Line& line, size_t stage, int64_t part, int64_t worker) {
  const int64_t before = line.starts[stage];
  size_t next = stage;
  while (next < line.stages.size() && !line.stages[next].ask) ++next;
  bool more = next < line.stages.size();
  if (next != stage && more) part = worker % line.stages[next].parts;
  int64_t step = 0;
  for (int spins = 0; line.done.load(std::memory_order_acquire) < before;) {
    if (more) {
      more = line.stages[next].ask(part, step++);
    } else {
      ++spins < kSpins ? pause() : std::this_thread::yield();
    }
  }
}

void work(Line& line, int64_t worker) {
  size_t stage = 0;
  for (;;) {
    const int64_t item = line.next.fetch_add(1, std::memory_order_relaxed);
    if (item >= line.starts.back()) return;
    while (item >= line.starts[stage + 1]) ++stage;
    const int64_t part = item - line.starts[stage];
    wait_for(line, stage, part, worker);
    line.stages[stage].run(part);
    line.done.fetch_add(1, std::memory_order_acq_rel);
  }
}

}  // namespace

void run_stages(const Call& call, const std::vector<Stage>& stages) {
  if (stages.size() == 1) return call.parallel(stages[0].parts, stages[0].run);
  int64_t most = 1;
  for (const Stage& stage : stages) most = std::max(most, stage.parts);
  static const int64_t processors = std::max(1u, std::thread::hardware_concurrency());
  Line line(stages);
  call.parallel(std::min(most, processors), [&](int64_t worker) { work(line, worker); });
}

void run_alone(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages)
    for (int64_t part = 0; part < stage.parts; ++part) stage.run(part);
}

}  // namespace specc
