// What stands behind the last product of half a layer: the residual sum, and the norm that the next half begins with.
#pragma once

#include <vector>

#include "matrix.h"

namespace specc {

// The two outputs of an operator: the product itself, or with a residual and a norm's weights the sum and its norm.
class Residual {
 public:
  // Reads the inputs `first`, the residual, and first + 1, the norm's weights, or neither. Makes the outputs.
  Residual(const Call& call, size_t first, const Shape& shape, float epsilon, Scratch& scratch);

  // Where the product is to be written.
  float* product() const { return sum_; }

  // Adds the stage that is left to do when the product is there.
  void finish(int64_t rows, std::vector<Stage>& stages) const;

 private:
  int64_t columns_;
  float epsilon_;
  Tensor residual_, norm_;
  float *out_, *sum_;
};

}  // namespace specc
