#include "stages.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace specc {
namespace {

// After so long a wait a thread sleeps: the other one has lost its core.
constexpr std::chrono::microseconds kSpin(60);

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
  std::atomic<int> asleep{0};
  std::mutex mutex;
  std::condition_variable stage_done;
};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A thread first says that it sleeps and then looks whether the parts are done. Who does the last part counts it first
// and then looks whether threads sleep. So one of the two sees the other.
void sleep_until(Line& line, int64_t count) {
  std::unique_lock<std::mutex> lock(line.mutex);
  ++line.asleep;
  line.stage_done.wait(lock, [&] { return line.done.load() >= count; });
  --line.asleep;
}

// Waits until the stages before `stage` are done.
void wait_for(Line& line, size_t stage, int64_t part, int64_t worker) {
  const int64_t before = line.starts[stage];
  if (line.done.load(std::memory_order_acquire) >= before) return;
  size_t next = stage;
  while (next < line.stages.size() && !line.stages[next].ask) ++next;
  bool more = next < line.stages.size();
  if (next != stage && more) part = worker % line.stages[next].parts;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t step = 0; line.done.load(std::memory_order_acquire) < before;) {
    if (more) {
      more = line.stages[next].ask(part, step++);
    } else if (std::chrono::steady_clock::now() - start < kSpin) {
      pause();
    } else {
      sleep_until(line, before);
    }
  }
}

// Counts a part as done, and wakes the threads that wait for its stage.
void finish(Line& line, size_t stage) {
  if (line.done.fetch_add(1) + 1 != line.starts[stage + 1] || !line.asleep.load()) return;
  const std::lock_guard<std::mutex> lock(line.mutex);
  line.stage_done.notify_all();
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
    finish(line, stage);
  }
}

}  // namespace

int64_t processors() {
  static const int64_t count = std::max(1u, std::thread::hardware_concurrency());
  return count;
}

void run_stages(const Call& call, const std::vector<Stage>& stages) {
  if (stages.size() == 1) return call.parallel(stages[0].parts, stages[0].run);
  int64_t most = 1;
  for (const Stage& stage : stages) most = std::max(most, stage.parts);
  Line line(stages);
  call.parallel(std::min(most, processors()), [&](int64_t worker) { work(line, worker); });
}

void run_alone(const std::vector<Stage>& stages) {
  for (const Stage& stage : stages)
    for (int64_t part = 0; part < stage.parts; ++part) stage.run(part);
}

}  // namespace specc
