// The part of ONNX Runtime's C API that libspecc needs, declared by position.
//
// ONNX Runtime's wheels carry no headers. Its C API is a table of function pointers that only grows, so a position never
// changes once it is released. Positions are those of API version 17 (ONNX Runtime 1.17).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace specc {

constexpr uint32_t kApiVersion = 17;

enum class ElementType : int { kFloat = 1, kInt64 = 7, kBool = 9, kFloat16 = 10, kBFloat16 = 16, kUint8 = 2, kInt32 = 6 };

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtMemoryInfo;
struct OrtValue;
struct OrtIoBinding;
struct OrtPrepackedWeights;

// ONNX Runtime, opened when the process runs. Every method throws Error with ONNX Runtime's own message.
class Ort {
 public:
  // Opens the library. An empty path takes $SPECC_ONNXRUNTIME, or the system's.
  explicit Ort(const std::string& path);

  // Throws Error if an engine needs a newer release of ONNX Runtime, or operators of another library.
  void CheckNeeds(const std::string& engine, const std::map<std::string, std::string>& needs) const;

  template <typename... Types, typename... Arguments>
  void Call(size_t position, Arguments... arguments) const {
    Check(reinterpret_cast<OrtStatus* (*)(Types...)>(api_[position])(arguments...));
  }

  template <typename T>
  void Release(size_t position, T* object) const {
    if (object) reinterpret_cast<void (*)(T*)>(api_[position])(object);
  }

 private:
  void Check(OrtStatus* status) const;

  const void* const* api_;
  std::string version_;  // Such as 1.32.0.
};

// An object of ONNX Runtime, which is released with its owner.
template <typename T>
class Owned {
 public:
  // `release`: the position of the function that releases it.
  Owned(const Ort& ort, size_t release) : ort_(&ort), release_(release) {}
  Owned(Owned&& other) noexcept : ort_(other.ort_), release_(other.release_), object_(std::exchange(other.object_, nullptr)) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() { ort_->Release(release_, object_); }

  T* get() const { return object_; }
  // Where a function that makes the object writes it.
  T** place() { return &object_; }

 private:
  const Ort* ort_;
  size_t release_;
  T* object_ = nullptr;
};

// Positions in the table of function pointers.
enum Position : size_t {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kDisableTelemetryEvents = 6,
  kCreateSession = 7,
  kCreateSessionOptions = 10,
  kSetIntraOpNumThreads = 24,
  kCreateTensorWithData = 49,
  kCreateCpuMemoryInfo = 69,
  kReleaseEnv = 92,
  kReleaseStatus = 93,
  kReleaseMemoryInfo = 94,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseSessionOptions = 100,
  kAddSessionConfigEntry = 130,
  kRunWithBinding = 133,
  kCreateIoBinding = 134,
  kReleaseIoBinding = 135,
  kBindInput = 136,
  kBindOutput = 137,
  kAddInitializer = 150,
  kCreatePrepackedWeights = 166,
  kReleasePrepackedWeights = 167,
  kCreateSessionWithPrepackedWeights = 168,
};

}  // namespace specc
