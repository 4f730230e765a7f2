#include "ort.h"

#include <dlfcn.h>

#include <cstdlib>

#include "error.h"

namespace specc {

namespace {

struct ApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

std::string LibraryPath(const std::string& path) {
  if (!path.empty()) return path;
  const char* variable = std::getenv("SPECC_ONNXRUNTIME");
  return variable && *variable ? variable : "libonnxruntime.so";
}

}  // namespace

Ort::Ort(const std::string& path) {
  const std::string name = LibraryPath(path);
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw Error("cannot open ONNX Runtime at " + name + " (" + dlerror() + "); set SPECC_ONNXRUNTIME to its library");
  }
  auto* get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (!get_base) throw Error(name + " is not ONNX Runtime's library; set SPECC_ONNXRUNTIME to it");
  api_ = get_base()->GetApi(kApiVersion);
  if (!api_) {
    throw Error(name + " is ONNX Runtime " + get_base()->GetVersionString() + "; libspecc needs 1.17 or newer");
  }
}

void Ort::Check(OrtStatus* status) const {
  if (!status) return;
  std::string message = reinterpret_cast<const char* (*)(const OrtStatus*)>(api_[kGetErrorMessage])(status);
  Release(kReleaseStatus, status);
  throw Error("ONNX Runtime: " + message);
}

}  // namespace specc
