// A matrix of weights in panels, and the activations that it is multiplied by.
#pragma once

#include <memory>
#include <vector>

#include "operator.h"
#include "stages.h"
#include "variants.h"

namespace specc {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory of one call. A first megabyte is kept between the calls of a thread; of the calls, one runs at a time.
class Scratch {
 public:
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
  }

 private:
  void* bytes(int64_t count);

  int64_t used_ = 0;
  std::vector<std::unique_ptr<char[]>> more_;
};

// How weights stand in panels: bf16 or fp32, or numbers of few bits with a scale for each block.
struct Form {
  ort::ElementType type;
  int bits = 0, block = 0;  // of numbers of few bits

  bool quantized() const { return type == ort::kUint8; }
  bool operator==(const Form& other) const {
    return type == other.type && bits == other.bits && block == other.block;
  }
};

inline Shape with_last(Shape shape, int64_t last) {
  shape.back() = last;
  return shape;
}

// Throws std::runtime_error unless the attribute is positive.
inline void require_positive(const char* attribute, int64_t value) {
  require(value > 0, "the attribute ", attribute, " is ", value, "; it must be positive");
}

// Throws std::runtime_error unless the kernels read blocks of that size.
void require_block(int bits, int block);

// Tells the form of panels by their type and shape. Throws std::runtime_error where no kernel reads such panels.
Form form_of(const Tensor& panels);

// Rows that are multiplied: fp32, and for numbers of few bits also in 8 bits.
struct Activations {
  const float* x;
  int64_t rows, k;
  int8_t* q;
  float* scales;
  int32_t* starts;
};

class Matrix {
 public:
  // Panels, scales, zero points, offsets, a bias for each column. Of dense weights the second to fourth are absent.
  static constexpr size_t kInputs = 5;

  // Reads inputs of a call from `first` on. Throws std::runtime_error unless they are a matrix [k, columns].
  Matrix(const Call& call, size_t first, const Form& form, int64_t k, int64_t columns);

  // Whether activations that are quantised for this matrix serve the other one.
  bool shares_activations(const Matrix& other) const { return form_ == other.form_ && factor_ == other.factor_; }

  // Returns rows to multiply. Their values in 8 bits are filled in by the stages of `prepare`.
  Activations activations(const float* x, int64_t rows, Scratch& scratch) const;

  // Adds the stage that quantises activations, where the matrix needs it.
  void prepare(const Activations& a, std::vector<Stage>& stages) const;

  // Returns the stage that computes y [rows, columns].
  Stage stage(const Activations& a, float* y) const;

  // How many tasks the panels are split into. Which task computes a column changes no bit of it. Threads take them in
  // order, and each is smaller than the one before. So a thread reads long runs of weights, and all end together.
  int64_t tasks(int64_t rows) const;
  int64_t first_of(int64_t task, int64_t tasks) const {
    const int64_t left = tasks - task;
    return panels_ - panels_ * left * left / (tasks * tasks);
  }

  // Computes the columns of panels `first` to `last` - 1 of each row of y [rows, columns], the bias included.
  void multiply(const Activations& a, float* y, int64_t first, int64_t last) const;

  // Asks memory for a page of weights, `step` pages behind the start of a panel. Returns whether to go on.
  bool ask(int64_t panel, int64_t step) const;

 private:
  void product(const Activations& a, float* y, int64_t first, int64_t last) const;

  Form form_;
  int64_t k_, columns_, panels_, blocks_;
  int factor_ = 0;
  Tensor w_, scales_, zeros_, offsets_, bias_;
};

}  // namespace specc
