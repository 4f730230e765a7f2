#include "operator.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace specc {
namespace {

const void* const* g_table = nullptr;

template <class R, class... Args>
R call(ort::Position position, Args... args) {
  return reinterpret_cast<R (*)(Args...)>(const_cast<void*>(g_table[position]))(args...);
}

void check(ort::Status* status) {
  if (!status) return;
  const std::string message = call<const char*>(ort::kGetErrorMessage, static_cast<const ort::Status*>(status));
  call<void>(ort::kReleaseStatus, status);
  throw std::runtime_error(message);
}

Tensor tensor_of(const ort::Value* value) {
  Tensor tensor;
  if (!value) return tensor;
  ort::TensorInfo* info = nullptr;
  check(call<ort::Status*>(ort::kGetTensorTypeAndShape, value, &info));
  size_t rank = 0;
  ort::Status* status = call<ort::Status*>(ort::kGetDimensionsCount, static_cast<const ort::TensorInfo*>(info), &rank);
  if (!status && rank <= Shape::kMost) {
    tensor.shape.resize(rank);
    status = call<ort::Status*>(ort::kGetDimensions, static_cast<const ort::TensorInfo*>(info), tensor.shape.data(),
                                rank);
  }
  if (!status)
    status = call<ort::Status*>(ort::kGetTensorElementType, static_cast<const ort::TensorInfo*>(info), &tensor.type);
  call<void>(ort::kReleaseTensorInfo, info);
  check(status);
  tensor.shape.resize(rank);
  check(call<ort::Status*>(ort::kGetTensorMutableData, const_cast<ort::Value*>(value), &tensor.data));
  return tensor;
}

// A loop over ONNX Runtime's threads. Its bodies run after it begins and before it ends. ONNX Runtime sees to that, and
// the thread sanitizer has to be told, since ONNX Runtime is not built with it.
struct Loop {
  void (*body)(void*, size_t);
  void* data;
  char begin = 0, end = 0;
};

#if defined(__SANITIZE_THREAD__)
void release(char& event) { __tsan_release(&event); }
void acquire(char& event) { __tsan_acquire(&event); }
#else
void release(char&) {}
void acquire(char&) {}
#endif

}  // namespace

void set_api(const void* const* table) { g_table = table; }

ort::Status* make_status(const std::string& message) {
  return call<ort::Status*>(ort::kCreateStatus, ort::kInvalidArgument, message.c_str());
}

void Shape::resize(size_t size) {
  require(size <= kMost, "a tensor has ", static_cast<int64_t>(size), " dimensions; the operators take at most ",
          static_cast<int64_t>(kMost));
  size_ = size;
}

std::vector<Tensor> read_constants(const ort::KernelInfo* info, size_t count) {
  std::vector<Tensor> constants(count);
  for (size_t i = 0; i < count; ++i) {
    int constant = 0;
    const ort::Value* value = nullptr;
    check(call<ort::Status*>(ort::kGetConstantInput, info, i, &constant, &value));
    if (constant) constants[i] = tensor_of(value);
  }
  return constants;
}

size_t Call::inputs() const {
  size_t count = 0;
  check(call<ort::Status*>(ort::kGetInputCount, static_cast<const ort::KernelContext*>(context_), &count));
  return count;
}

Tensor Call::input(size_t index) const {
  if (index < constants_.size() && constants_[index].data) return constants_[index];
  const ort::Value* value = nullptr;
  check(call<ort::Status*>(ort::kGetInput, static_cast<const ort::KernelContext*>(context_), index, &value));
  return tensor_of(value);
}

void* Call::output(size_t index, const Shape& shape) const {
  ort::Value* value = nullptr;
  void* data = nullptr;
  check(call<ort::Status*>(ort::kGetOutput, context_, index, shape.data(), shape.size(), &value));
  if (!value) return nullptr;
  check(call<ort::Status*>(ort::kGetTensorMutableData, value, &data));
  return data;
}

void Call::for_each(int64_t count, void (*body)(void*, size_t), void* data) const {
  Loop loop{body, data};
  void (*const part)(void*, size_t) = [](void* all, size_t i) {
    auto& of = *static_cast<Loop*>(all);
    acquire(of.begin);
    of.body(of.data, i);
    release(of.end);
  };
  release(loop.begin);
  check(call<ort::Status*>(ort::kParallelFor, static_cast<const ort::KernelContext*>(context_), part,
                           static_cast<size_t>(count), size_t{0}, static_cast<void*>(&loop)));
  acquire(loop.end);
}

int64_t Attributes::integer(const char* name) const {
  int64_t value = 0;
  check(call<ort::Status*>(ort::kGetAttributeInt64, info_, name, &value));
  return value;
}

int64_t Attributes::integer(const char* name, int64_t absent) const {
  int64_t value = absent;
  if (ort::Status* status = call<ort::Status*>(ort::kGetAttributeInt64, info_, name, &value)) {
    call<void>(ort::kReleaseStatus, status);
    return absent;
  }
  return value;
}

float Attributes::real(const char* name) const {
  float value = 0;
  check(call<ort::Status*>(ort::kGetAttributeFloat, info_, name, &value));
  return value;
}

float Attributes::real(const char* name, float absent) const {
  float value = absent;
  if (ort::Status* status = call<ort::Status*>(ort::kGetAttributeFloat, info_, name, &value)) {
    call<void>(ort::kReleaseStatus, status);
    return absent;
  }
  return value;
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  size_t count = 0;
  int64_t* const nowhere = nullptr;  // asks for the number of values
  if (ort::Status* status = call<ort::Status*>(ort::kGetAttributeArrayInt64, info_, name, nowhere, &count)) {
    call<void>(ort::kReleaseStatus, status);
    return {};
  }
  std::vector<int64_t> values(count);
  if (count) check(call<ort::Status*>(ort::kGetAttributeArrayInt64, info_, name, values.data(), &count));
  return values;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace specc
