#include "engine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "error.h"

namespace specc {

namespace {

constexpr int kErrors = 3;  // ONNX Runtime's severity from which on it logs.
constexpr int kAllocator = 0, kMemory = 0;
constexpr const char* kSpinMicroseconds = "80";  // Threads that wait longer sleep.

size_t Count(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (int64_t size : shape) count *= size_t(size);
  return count;
}

constexpr const char* kStates = "state_";  // The names of outputs that trained heads read begin with it.

bool Begins(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

// A weights file in memory, as the operating system maps it, and its tensors.
struct Model::Weights {
  explicit Weights(const std::string& path) {
    int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) throw Error("cannot read " + path + "; compile the bundle again");
    bytes = size_t(status.st_size);
    data = static_cast<char*>(mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0));
    close(file);
    if (data == MAP_FAILED) throw Error("cannot map " + path + "; free some memory");
    uint64_t length = 0;
    if (bytes >= 8) std::memcpy(&length, data, 8);
    if (bytes < 8 || length > bytes - 8) throw Error(path + " is not safetensors; compile the bundle again");
    header = nlohmann::json::parse(data + 8, data + 8 + length);
    content = data + 8 + length;
  }
  ~Weights() { munmap(data, bytes); }

  char *data, *content;
  size_t bytes;
  nlohmann::json header;
  std::vector<OrtValue*> values;  // Tensors over `content`. Sessions read them as long as they live.
};

Model::Model(const std::string& path, const std::string& onnxruntime, int threads)
    : bundle(path), ort(onnxruntime), threads_(threads) {
  ort.Call<int, const char*, OrtEnv**>(kCreateEnv, kErrors, "specc", &env_);
  ort.Call<const OrtEnv*>(kDisableTelemetryEvents, env_);
  ort.Call<int, int, OrtMemoryInfo**>(kCreateCpuMemoryInfo, kAllocator, kMemory, &cpu_);
  ort.Call<OrtPrepackedWeights**>(kCreatePrepackedWeights, &packed_);
}

Model::~Model() {
  for (auto& [file, session] : sessions_) ort.Release(kReleaseSession, session);
  for (auto& [file, weights] : weights_) {
    for (OrtValue* value : weights->values) ort.Release(kReleaseValue, value);
  }
  ort.Release(kReleasePrepackedWeights, packed_);
  ort.Release(kReleaseMemoryInfo, cpu_);
  ort.Release(kReleaseEnv, env_);
}

OrtSession* Model::Session(const EngineSpec& engine) {
  std::lock_guard<std::mutex> lock(mutex_);
  OrtSession*& session = sessions_[engine.file];
  if (!session) {
    OrtSessionOptions* options = Options(engine);
    const std::string path = bundle.path + "/" + engine.file;
    try {
      ort.Call<OrtEnv*, const char*, OrtSessionOptions*, OrtPrepackedWeights*, OrtSession**>(
          kCreateSessionWithPrepackedWeights, env_, path.c_str(), options, packed_, &session);
    } catch (...) {
      ort.Release(kReleaseSessionOptions, options);
      throw;
    }
    ort.Release(kReleaseSessionOptions, options);
  }
  return session;
}

OrtSessionOptions* Model::Options(const EngineSpec& engine) {
  OrtSessionOptions* options = nullptr;
  ort.Call<OrtSessionOptions**>(kCreateSessionOptions, &options);
  int threads = threads_ ? threads_ : engine.threads;
  ort.Call<OrtSessionOptions*, int>(kSetIntraOpNumThreads, options, threads);
  ort.Call<OrtSessionOptions*, const char*, const char*>(kAddSessionConfigEntry, options,
                                                         "session.intra_op.spin_duration_us", kSpinMicroseconds);
  ShareWeights(options, engine);
  return options;
}

// Gives a session the weights in memory, so that all sessions share them and what ONNX Runtime packs of them.
void Model::ShareWeights(OrtSessionOptions* options, const EngineSpec& engine) {
  auto& weights = weights_[engine.weights];
  if (!weights) weights = std::make_unique<Weights>(bundle.path + "/" + engine.weights);
  const std::string prefix = engine.model == "target" ? "" : engine.model + ".";
  for (const auto& [name, tensor] : weights->header.items()) {
    if (name == "__metadata__" || !Begins(name, prefix)) continue;
    const std::string dtype = tensor.at("dtype");
    ElementType type = dtype == "F32" ? ElementType::kFloat : ElementType::kUint8;
    if (dtype != "F32" && dtype != "U8") continue;
    auto shape = tensor.at("shape").get<std::vector<int64_t>>();
    auto offsets = tensor.at("data_offsets").get<std::vector<size_t>>();
    OrtValue* value = nullptr;
    ort.Call<const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**>(
        kCreateTensorWithData, cpu_, weights->content + offsets.at(0), offsets.at(1) - offsets.at(0), shape.data(),
        shape.size(), int(type), &value);
    for (const char* suffix : {"", ".rows"}) {
      const std::string inside = name.substr(prefix.size()) + suffix;
      ort.Call<OrtSessionOptions*, const char*, const OrtValue*>(kAddInitializer, options, inside.c_str(), value);
    }
    weights->values.push_back(value);
  }
}

Rows::Rows(const CacheSpec& spec) : capacity(spec.capacity) {
  for (const auto& [layer, shape] : spec.layers) {
    for (const char* kind : {".key", ".value"}) {
      buffers[layer + kind] = {std::vector<float>(size_t(shape.first * shape.second) * capacity), shape.first, shape.second};
    }
  }
}

void Rows::Commit(size_t start, const std::vector<size_t>& path) {
  if (path.back() < path.size()) return;
  for (auto& [name, buffer] : buffers) {
    size_t size = size_t(buffer.size);
    for (size_t head = 0; head < size_t(buffer.heads); head++) {
      float* rows = buffer.values.data() + head * capacity * size;
      for (size_t i = 0; i < path.size(); i++) {
        if (path[i] != i) std::copy_n(rows + (start + path[i]) * size, size, rows + (start + i) * size);
      }
    }
  }
}

Engine::Engine(Model& model, const EngineSpec& spec, Rows& rows)
    : spec(spec), rows(rows), model_(model), session_(model.Session(spec)) {
  model.ort.Call<OrtSession*, OrtIoBinding**>(kCreateIoBinding, session_, &binding_);
  model.ort.Call<int, int, OrtMemoryInfo**>(kCreateCpuMemoryInfo, kAllocator, kMemory, &cpu_);
  auto floats = [&](const Tensor& tensor, bool is_input, std::vector<float>& values) {
    values.assign(Count(tensor.shape), 0);
    Bind(tensor, is_input, values.data(), values.size() * sizeof(float), ElementType::kFloat);
  };
  auto integers = [&](const Tensor& tensor, bool is_input, std::vector<int64_t>& values) {
    values.assign(Count(tensor.shape), 0);
    Bind(tensor, is_input, values.data(), values.size() * sizeof(int64_t), ElementType::kInt64);
  };
  for (bool is_input : {true, false}) {
    for (const Tensor& tensor : is_input ? spec.inputs : spec.outputs) {
      const std::string& name = tensor.name;
      const std::string kind = name.substr(0, name.find('.'));
      if (kind == "past_key_values" || kind == "present") {
        auto found = rows.buffers.find(name.substr(kind.size() + 1));
        if (found == rows.buffers.end()) throw Error("engine " + spec.name + " has no rows for " + name);
        auto& values = found->second.values;
        if (Count(tensor.shape) != values.size()) throw Error("engine " + spec.name + ": " + name + " has another shape than its cache");
        Bind(tensor, is_input, values.data(), values.size() * sizeof(float), ElementType::kFloat);
      } else if (name == "input_ids") {
        integers(tensor, true, input_ids_);
      } else if (name == "past_len") {
        integers(tensor, true, past_len_);
      } else if (name == "row") {
        integers(tensor, true, row_);
      } else if (name == "ids") {
        integers(tensor, false, output_ids_);
      } else if (name == "top_ids") {
        integers(tensor, false, top_ids_);
        ranks_ = size_t(tensor.shape.at(2));
      } else if (name == "top_logprobs") {
        floats(tensor, false, top_logprobs_);
      } else if (name == "state" && is_input) {
        floats(tensor, true, state_);
        state_size_ = size_t(tensor.shape.at(2));
      } else if (name == "next_state") {
        floats(tensor, false, next_state_);
      } else if (Begins(name, kStates)) {
        floats(tensor, false, states_[name.substr(std::string(kStates).size())]);
      } else if (is_input) {
        throw Error("engine " + spec.name + " has an input " + name + ", which libspecc does not fill");
      }  // Other outputs, such as logits, are not fetched.
    }
  }
  if (input_ids_.empty() || past_len_.empty() || output_ids_.empty()) throw Error("engine " + spec.name + " lacks an input or an output");
}

Engine::~Engine() {
  for (OrtValue* value : bound_) model_.ort.Release(kReleaseValue, value);
  model_.ort.Release(kReleaseIoBinding, binding_);
  model_.ort.Release(kReleaseMemoryInfo, cpu_);
}

void Engine::Bind(const Tensor& tensor, bool is_input, void* data, size_t bytes, ElementType type) {
  OrtValue* value = nullptr;
  model_.ort.Call<const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**>(
      kCreateTensorWithData, cpu_, data, bytes, tensor.shape.data(), tensor.shape.size(), int(type), &value);
  bound_.push_back(value);
  model_.ort.Call<OrtIoBinding*, const char*, const OrtValue*>(is_input ? kBindInput : kBindOutput, binding_,
                                                               tensor.name.c_str(), value);
}

void Engine::Run(const int64_t* tokens, size_t count, size_t past_len, const float* states) {
  if (count > input_ids_.size() || past_len + input_ids_.size() > rows.capacity) {
    throw Error("engine " + spec.name + " has no room for " + std::to_string(count) + " tokens behind " +
                std::to_string(past_len) + " rows; ask for fewer tokens");
  }
  std::copy_n(tokens, count, input_ids_.begin());
  past_len_[0] = int64_t(past_len);
  if (!row_.empty()) row_[0] = int64_t(count) - 1;
  if (state_.empty() != (states == nullptr)) throw Error("engine " + spec.name + " and its recipe do not fit; compile the bundle again");
  if (states) std::copy_n(states, count * state_size_, state_.begin());
  model_.ort.Call<OrtSession*, const void*, const OrtIoBinding*>(kRunWithBinding, session_, nullptr, binding_);
}

}  // namespace specc
