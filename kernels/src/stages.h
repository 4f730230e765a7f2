// Work in stages on ONNX Runtime's threads, for kernels that do several things one after another.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "operator.h"

namespace specc {

// The parts of a stage may run at once and in any order. A stage begins when the stage before it is done.
struct Stage {
  int64_t parts;
  std::function<void(int64_t part)> run;
  // Asks memory for some of what a part reads, and returns whether more is left to ask for in the next step. It may be
  // empty.
  std::function<bool(int64_t part, int64_t step)> ask = nullptr;
};

// How many threads the machine runs at once.
int64_t processors();

// Runs the stages in one loop over the threads. To begin a loop costs microseconds, and to wait for a stage costs less.
// A thread that waits asks memory for what the next stage reads.
void run_stages(const Call& call, const std::vector<Stage>& stages);

// Runs the stages on this thread.
void run_alone(const std::vector<Stage>& stages);

}  // namespace specc
