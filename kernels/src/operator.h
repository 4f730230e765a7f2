// What the operators share: calls of ONNX Runtime, tensors, errors, loops over its threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort_api.h"

namespace specc {

// Dimensions of a tensor. They take no memory of their own: a node reads some twenty tensors in each call.
class Shape {
 public:
  static constexpr size_t kMost = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dimensions) {
    resize(dimensions.size());
    std::copy(dimensions.begin(), dimensions.end(), dimensions_);
  }

  size_t size() const { return size_; }
  bool empty() const { return !size_; }
  const int64_t* data() const { return dimensions_; }
  int64_t* data() { return dimensions_; }
  int64_t operator[](size_t i) const { return dimensions_[i]; }
  int64_t back() const { return dimensions_[size_ - 1]; }
  int64_t& back() { return dimensions_[size_ - 1]; }
  bool operator==(const Shape& other) const {
    return size_ == other.size_ && std::equal(dimensions_, dimensions_ + size_, other.dimensions_);
  }

  // Throws std::runtime_error where there are more than kMost dimensions.
  void resize(size_t size);
  void push_back(int64_t dimension) {
    resize(size_ + 1);
    back() = dimension;
  }

 private:
  size_t size_ = 0;
  int64_t dimensions_[kMost];
};

// ONNX Runtime's table of functions; set when the library is registered.
void set_api(const void* const* table);
ort::Status* make_status(const std::string& message);

struct Tensor {
  void* data = nullptr;
  Shape shape;
  ort::ElementType type = ort::kUndefined;

  int64_t size(size_t from = 0) const {
    int64_t product = 1;
    for (size_t i = from; i < shape.size(); ++i) product *= shape[i];
    return product;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A call of a kernel. Every method throws std::runtime_error.
class Call {
 public:
  // `constants` are the inputs that are the same in each call, by index; those that are not have no data.
  Call(ort::KernelContext* context, const std::vector<Tensor>& constants) : context_(context), constants_(constants) {}

  size_t inputs() const;
  Tensor input(size_t index) const;  // without data where an optional input is absent
  void* output(size_t index, const Shape& shape) const;

  // Runs body(0) to body(count - 1) on ONNX Runtime's threads, in any order.
  template <class Body>
  void parallel(int64_t count, const Body& body) const {
    if (count == 1) return body(0);
    for_each(count, [](void* b, size_t i) { (*static_cast<const Body*>(b))(static_cast<int64_t>(i)); },
             const_cast<Body*>(&body));
  }

 private:
  void for_each(int64_t count, void (*body)(void*, size_t), void* data) const;

  ort::KernelContext* context_;
  const std::vector<Tensor>& constants_;
};

// Returns the first `count` inputs of a node that are constants of its graph. Those that are not have no data.
std::vector<Tensor> read_constants(const ort::KernelInfo* info, size_t count);

// The attributes of a node.
class Attributes {
 public:
  explicit Attributes(const ort::KernelInfo* info) : info_(info) {}

  int64_t integer(const char* name) const;                       // throws where it is absent
  int64_t integer(const char* name, int64_t absent) const;
  float real(const char* name) const;
  float real(const char* name, float absent) const;
  std::vector<int64_t> integers(const char* name) const;         // empty where it is absent

 private:
  const ort::KernelInfo* info_;
};

std::string to_string(const Shape& shape);
inline std::string to_string(const char* text) { return text; }
inline std::string to_string(int64_t number) { return std::to_string(number); }

// Throws std::runtime_error with the parts as its message unless the condition holds. Only then is the message made.
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) throw std::runtime_error((std::string() + ... + to_string(parts)));
}

// Throws std::runtime_error unless a tensor, which `what` names in the plural, has the expected shape.
inline void require_shape(const char* what, const Tensor& tensor, const Shape& expected) {
  require(tensor.shape == expected, what, " have the shape ", tensor.shape, "; ", expected, " is needed");
}

// One operator's entry. Op has kName, kInputs and kOutputs (types), kRequired (inputs that may not be absent),
// kVariadicLast (the last input and output may be repeated), a constructor from Attributes, and compute(const Call&).
template <class Op>
struct Entry : ort::CustomOp {
  Entry() : ort::CustomOp{} {
    version = ort::kApiVersion;
    GetName = [](const ort::CustomOp*) { return Op::kName; };
    GetExecutionProviderType = [](const ort::CustomOp*) -> const char* { return nullptr; };
    GetInputTypeCount = [](const ort::CustomOp*) { return sizeof Op::kInputs / sizeof *Op::kInputs; };
    GetInputType = [](const ort::CustomOp*, size_t i) { return Op::kInputs[i]; };
    GetOutputTypeCount = [](const ort::CustomOp*) { return sizeof Op::kOutputs / sizeof *Op::kOutputs; };
    GetOutputType = [](const ort::CustomOp*, size_t i) { return Op::kOutputs[i]; };
    GetInputCharacteristic = [](const ort::CustomOp*, size_t i) {
      if (Op::kVariadicLast && i + 1 == sizeof Op::kInputs / sizeof *Op::kInputs) return ort::kVariadic;
      return i < Op::kRequired ? ort::kRequired : ort::kOptional;
    };
    GetOutputCharacteristic = [](const ort::CustomOp*, size_t i) {
      if (Op::kVariadicLast && i + 1 == sizeof Op::kOutputs / sizeof *Op::kOutputs) return ort::kVariadic;
      return i == 0 ? ort::kRequired : ort::kOptional;
    };
    GetInputMemoryType = [](const ort::CustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const ort::CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const ort::CustomOp*) { return 1; };
    GetStartVersion = [](const ort::CustomOp*) { return 1; };
    GetEndVersion = [](const ort::CustomOp*) { return 0x7fffffff; };
    CreateKernelV2 = [](const ort::CustomOp*, const void*, const ort::KernelInfo* info, void** kernel) {
      return guarded([&] {
        *kernel = new Kernel{Op(Attributes(info)), read_constants(info, sizeof Op::kInputs / sizeof *Op::kInputs)};
      });
    };
    KernelComputeV2 = [](void* kernel, ort::KernelContext* context) {
      return guarded([&] {
        const auto& own = *static_cast<const Kernel*>(kernel);
        own.op.compute(Call(context, own.constants));
      });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }

  struct Kernel {
    Op op;
    std::vector<Tensor> constants;
  };

  template <class Body>
  static ort::Status* guarded(const Body& body) {
    try {
      body();
      return nullptr;
    } catch (const std::exception& e) {
      return make_status(std::string("specc::") + Op::kName + ": " + e.what());
    }
  }
};

}  // namespace specc
