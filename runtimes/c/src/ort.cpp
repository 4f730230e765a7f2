#include "ort.h"

#include <dlfcn.h>

#include <cstdlib>
#include <sstream>
#include <vector>

#include "error.h"

namespace specc {

namespace {

struct ApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

constexpr const char* kMemory = "free some memory, or compile with a smaller --max-seq-len";
constexpr const char* kOperators = "take a newer ONNX Runtime, or compile the bundle again with --lowering portable";

// What helps, by a part of ONNX Runtime's message.
const std::vector<std::pair<std::string, std::string>> kRemedies = {
    {"bad_alloc", kMemory},
    {"allocat", kMemory},
    {"memory", kMemory},
    {"is not a registered", kOperators},
    {"No Op registered", kOperators},
    {"Could not find an implementation", kOperators},
};

// The numbers of a version. Text behind them does not count.
std::vector<int> Numbers(const std::string& version) {
  std::vector<int> numbers;
  std::istringstream text(version);
  for (int number = 0; text >> number; text.ignore(1)) numbers.push_back(number);
  return numbers;
}

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
    const std::string reason = dlerror();
    const bool is_full = reason.find("memory") != std::string::npos || reason.find("failed to map") != std::string::npos;
    throw Error("cannot open ONNX Runtime at " + name + " (" + reason + "); " + (is_full ? kMemory : "set SPECC_ONNXRUNTIME to its library"));
  }
  auto* get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (!get_base) throw Error(name + " is not ONNX Runtime's library; set SPECC_ONNXRUNTIME to it");
  version_ = get_base()->GetVersionString();
  api_ = get_base()->GetApi(kApiVersion);
  if (!api_) {
    throw Error(name + " is ONNX Runtime " + version_ + ", and libspecc needs 1.17 or newer; install a newer one");
  }
}

void Ort::CheckNeeds(const std::string& engine, const std::map<std::string, std::string>& needs) const {
  for (const auto& [name, least] : needs) {
    if (name != "onnxruntime" && name.rfind("com.microsoft::", 0) != 0) {
      throw Error("engine " + engine + " needs " + name + ", which libspecc has not; compile with --lowering fast");
    }
    if (Numbers(version_) < Numbers(least)) {
      throw Error("engine " + engine + " needs " + name + " of ONNX Runtime " + least + ", and this is " + version_ + "; install a newer one");
    }
  }
}

void Ort::Check(OrtStatus* status) const {
  if (!status) return;
  std::string message = reinterpret_cast<const char* (*)(const OrtStatus*)>(api_[kGetErrorMessage])(status);
  Release(kReleaseStatus, status);
  for (const auto& [part, remedy] : kRemedies) {
    if (message.find(part) != std::string::npos) throw Error("ONNX Runtime: " + message + "; " + remedy);
  }
  throw Error("ONNX Runtime: " + message + "; compile the bundle again");
}

}  // namespace specc
