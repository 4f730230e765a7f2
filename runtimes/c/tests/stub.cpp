// A library in the place of ONNX Runtime, for tests of libspecc alone: it loads no engine, and a run fills the outputs with
// numbers at random. So thousands of bundles are tried in the time that ONNX Runtime takes for tens, and the memory that
// libspecc binds is read and written in full under sanitizers.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../src/ort.h"

namespace {

using specc::ElementType;

struct Object {
  virtual ~Object() = default;
};

struct Value : Object {
  char* data;
  size_t bytes;
  int type;
};

struct Binding : Object {
  std::vector<Value> inputs, outputs;
};

struct Status : Object {};

std::mt19937 generator(7);

void* Make(void** place) {
  *place = new Object;
  return nullptr;
}

void Release(Object* object) { delete object; }

const char* Message(const void*) { return "the tensor's buffer has another size than its shape"; }

size_t Size(int type) {
  switch (ElementType(type)) {
    case ElementType::kInt64: return 8;
    case ElementType::kFloat: return 4;
    default: return 1;
  }
}

// CreateTensorWithDataAsOrtValue. As ONNX Runtime does, it refuses a buffer that the shape does not fit.
void* CreateTensor(const void*, void* data, size_t bytes, const int64_t* shape, size_t dimensions, int type, void** place) {
  size_t count = 1;
  for (size_t i = 0; i < dimensions; i++) count *= size_t(shape[i]);
  if (count * Size(type) > bytes) return new Status;
  auto* value = new Value;
  value->data = static_cast<char*>(data);
  value->bytes = bytes;
  value->type = type;
  *place = value;
  return nullptr;
}

void* CreateBinding(void*, void** place) {
  *place = new Binding;
  return nullptr;
}

void* BindInput(Binding* binding, const char*, const Value* value) {
  binding->inputs.push_back(*value);
  return nullptr;
}

void* BindOutput(Binding* binding, const char*, const Value* value) {
  binding->outputs.push_back(*value);
  return nullptr;
}

}  // namespace

// Is called at the beginning of each run, for tests that do something meanwhile.
extern "C" __attribute__((visibility("default"))) void (*specc_stub_on_run)();
void (*specc_stub_on_run)() = nullptr;

namespace {

// RunWithBinding: reads all inputs, and fills outputs with small numbers, so that tokens occur again.
void* Run(void*, const void*, const Binding* binding) {
  if (specc_stub_on_run) specc_stub_on_run();
  volatile char sum = 0;
  for (const Value& value : binding->inputs) {
    for (size_t i = 0; i < value.bytes; i += 64) sum = char(sum + value.data[i]);
    if (value.bytes) sum = char(sum + value.data[value.bytes - 1]);
  }
  for (const Value& value : binding->outputs) {
    if (value.type == int(ElementType::kInt64)) {
      for (size_t i = 0; i < value.bytes / 8; i++) reinterpret_cast<int64_t*>(value.data)[i] = int64_t(generator() % 8);
    } else if (value.type == int(ElementType::kFloat)) {
      for (size_t i = 0; i < value.bytes / 4; i += 1 + value.bytes / 65536) reinterpret_cast<float*>(value.data)[i] = -float(generator() % 5);
    }
  }
  return nullptr;
}

void* Succeed() { return nullptr; }

// CreateEnv, CreateCpuMemoryInfo and CreateSessionWithPrepackedWeightsContainer have their place behind other arguments.
void* CreateEnv(int, const char*, void** place) { return Make(place); }
void* CreateMemoryInfo(int, int, void** place) { return Make(place); }
void* CreateSession(const void*, const char*, const void*, void*, void** place) { return Make(place); }

constexpr size_t kPositions = 300;

const void* const* Api(uint32_t) {
  static const void* table[kPositions];
  auto set = [](size_t position, auto* function) { table[position] = reinterpret_cast<const void*>(function); };
  for (size_t i = 0; i < kPositions; i++) set(i, Succeed);
  for (size_t release : {specc::kReleaseEnv, specc::kReleaseStatus, specc::kReleaseMemoryInfo, specc::kReleaseSession, specc::kReleaseValue,
                         specc::kReleaseSessionOptions, specc::kReleaseIoBinding, specc::kReleasePrepackedWeights}) {
    set(release, Release);
  }
  set(specc::kGetErrorMessage, Message);
  set(specc::kCreateEnv, CreateEnv);
  set(specc::kCreateCpuMemoryInfo, CreateMemoryInfo);
  set(specc::kCreateSessionOptions, Make);
  set(specc::kCreatePrepackedWeights, Make);
  set(specc::kCreateSessionWithPrepackedWeights, CreateSession);
  set(specc::kCreateTensorWithData, CreateTensor);
  set(specc::kCreateIoBinding, CreateBinding);
  set(specc::kBindInput, BindInput);
  set(specc::kBindOutput, BindOutput);
  set(specc::kRunWithBinding, Run);
  return table;
}

const char* Version() { return "1.99.0"; }

struct ApiBase {
  const void* const* (*get_api)(uint32_t);
  const char* (*version)();
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const ApiBase* OrtGetApiBase() {
  static const ApiBase base{Api, Version};
  return &base;
}
