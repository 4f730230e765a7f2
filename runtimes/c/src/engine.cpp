#include "engine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "error.h"
#include "huge_pages.h"

namespace specc {

namespace {

constexpr int kFatal = 4;  // ONNX Runtime's severity from which on it logs. Errors are thrown, and said once.
constexpr int kAllocator = 0, kMemory = 0;
constexpr const char* kSpinMicroseconds = "80";  // Threads that wait longer sleep.

size_t Count(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (int64_t size : shape) count *= size_t(size);
  return count;
}

constexpr const char *kPast = "past_key_values.", *kPresent = "present.";  // Rows, by the beginning of the name.
constexpr const char* kStates = "state_";  // What trained heads read of the target.

bool Begins(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

// A weights file in memory, as the operating system maps it, and its tensors.
struct Model::Weights {
  explicit Weights(const std::string& path) {
    int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) throw Error("cannot read " + path + "; compile the bundle again");
    bytes = size_t(status.st_size);
    if (bytes < 8) {
      close(file);
      throw Error(path + " is not safetensors; compile the bundle again");
    }
    data = static_cast<char*>(mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0));
    close(file);
    if (data == MAP_FAILED) throw Error("cannot map " + path + "; free some memory");
    uint64_t length = 0;
    std::memcpy(&length, data, 8);
    header = length <= bytes - 8 ? nlohmann::json::parse(data + 8, data + 8 + length, nullptr, false) : nlohmann::json();
    if (!header.is_object()) {
      munmap(data, bytes);
      throw Error(path + " is not safetensors; compile the bundle again");
    }
    content = data + 8 + length;
    size = bytes - 8 - length;
  }
  ~Weights() { munmap(data, bytes); }

  // Gives memory back. What is read again, such as rows of an embedding, comes from the file.
  void Release() const { madvise(data, bytes, MADV_DONTNEED); }

  char *data, *content;
  size_t bytes, size;  // Of the file, and of `content`.
  nlohmann::json header;
  std::vector<Owned<OrtValue>> values;  // Tensors over `content`. Sessions read them as long as they live.
};

Model::Model(const std::string& path, const std::string& onnxruntime, int threads)
    : bundle(path), ort(onnxruntime), threads_(threads), env_(ort, kReleaseEnv), cpu_(ort, kReleaseMemoryInfo),
      packed_(ort, kReleasePrepackedWeights) {
  ort.Call<int, const char*, OrtEnv**>(kCreateEnv, kFatal, "specc", env_.place());
  ort.Call<const OrtEnv*>(kDisableTelemetryEvents, env_.get());
  ort.Call<int, int, OrtMemoryInfo**>(kCreateCpuMemoryInfo, kAllocator, kMemory, cpu_.place());
  ort.Call<OrtPrepackedWeights**>(kCreatePrepackedWeights, packed_.place());
}

OrtSession* Model::Session(const EngineSpec& engine) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = sessions_.find(engine.file);
  if (found == sessions_.end()) {
    ort.CheckNeeds(engine.name, engine.needs);
    Owned<OrtSessionOptions> options(ort, kReleaseSessionOptions);
    ort.Call<OrtSessionOptions**>(kCreateSessionOptions, options.place());
    SetOptions(options.get(), engine);
    Owned<OrtSession> session(ort, kReleaseSession);
    const std::string path = bundle.path + "/" + engine.file;
    const HugePages pages;
    Naming(path, [&] {
      ort.Call<OrtEnv*, const char*, OrtSessionOptions*, OrtPrepackedWeights*, OrtSession**>(
          kCreateSessionWithPrepackedWeights, env_.get(), path.c_str(), options.get(), packed_.get(), session.place());
    });
    pages.Join();
    weights_.at(engine.weights)->Release();  // Most of them are packed now, and the copy is what runs read.
    found = sessions_.emplace(engine.file, std::move(session)).first;
  }
  return found->second.get();
}

void Model::SetOptions(OrtSessionOptions* options, const EngineSpec& engine) {
  ort.Call<OrtSessionOptions*, int>(kSetIntraOpNumThreads, options, threads_ ? threads_ : engine.threads);
  ort.Call<OrtSessionOptions*, const char*, const char*>(kAddSessionConfigEntry, options,
                                                         "session.intra_op.spin_duration_us", kSpinMicroseconds);
  ShareWeights(options, engine);
}

// Gives a session the weights in memory, so that all sessions share them and what ONNX Runtime packs of them.
void Model::ShareWeights(OrtSessionOptions* options, const EngineSpec& engine) {
  const std::string path = bundle.path + "/" + engine.weights;
  auto& weights = weights_[engine.weights];
  if (!weights) weights = std::make_shared<Weights>(path);
  const std::string prefix = engine.model == "target" ? "" : engine.model + ".";
  for (const auto& [name, tensor] : weights->header.items()) {
    if (name == "__metadata__" || !Begins(name, prefix)) continue;
    Naming(path + ", tensor " + name, [&, &name = name, &tensor = tensor] {
      const std::string dtype = tensor.at("dtype");
      ElementType type = dtype == "F32" ? ElementType::kFloat : ElementType::kUint8;
      if (dtype != "F32" && dtype != "U8") return;
      auto shape = tensor.at("shape").get<std::vector<int64_t>>();
      auto offsets = tensor.at("data_offsets").get<std::vector<size_t>>();
      if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > weights->size) {
        throw Error("it ends behind the end of the file; compile the bundle again");
      }
      Owned<OrtValue> value(ort, kReleaseValue);
      ort.Call<const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**>(
          kCreateTensorWithData, cpu_.get(), weights->content + offsets[0], offsets[1] - offsets[0], shape.data(),
          shape.size(), int(type), value.place());
      for (const char* suffix : {"", ".rows"}) {
        const std::string inside = name.substr(prefix.size()) + suffix;
        ort.Call<OrtSessionOptions*, const char*, const OrtValue*>(kAddInitializer, options, inside.c_str(), value.get());
      }
      weights->values.push_back(std::move(value));
    });
  }
}

Zeros::Zeros(size_t count) : data_(static_cast<float*>(std::calloc(count, sizeof(float))), std::free), size_(count) {
  if (!data_) throw std::bad_alloc();
}

Rows::Rows(const CacheSpec& spec) : capacity(spec.capacity) {
  for (const auto& [layer, shape] : spec.layers) {
    for (const char* kind : {".key", ".value"}) {
      buffers[layer + kind] = {Zeros(size_t(shape.first * shape.second) * capacity), shape.first, shape.second};
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

Engine::Engine(Model& model, const EngineSpec& spec, Rows& rows, const std::atomic<bool>& cancelled)
    : spec(spec), rows(rows), model_(model), cancelled_(cancelled), path_(model.bundle.path + "/" + spec.file),
      session_(model.Session(spec)), cpu_(model.ort, kReleaseMemoryInfo), binding_(model.ort, kReleaseIoBinding) {
  model.ort.Call<OrtSession*, OrtIoBinding**>(kCreateIoBinding, session_, binding_.place());
  model.ort.Call<int, int, OrtMemoryInfo**>(kCreateCpuMemoryInfo, kAllocator, kMemory, cpu_.place());
  for (const Tensor& tensor : spec.inputs) Begins(tensor.name, kPast) ? BindRows(tensor, true) : BindInput(tensor);
  for (const Tensor& tensor : spec.outputs) Begins(tensor.name, kPresent) ? BindRows(tensor, false) : BindOutput(tensor);
  if (past_len_.empty() || (output_ids_.empty() && top_ids_.empty())) throw Error("engine " + spec.name + " lacks an input or an output; compile the bundle again");
  const size_t slots = input_ids_.size();
  if (parents_.size() != (spec.topology == Topology::kParents ? slots : 0) ||
      depth_.size() != (spec.topology == Topology::kFrontier ? slots : 0) || mask_.size() < depth_.size() * slots) {
    throw Error("engine " + spec.name + " lacks the inputs of its tree; compile the bundle again");
  }
}

template <typename T>
void Engine::BindBuffer(const Tensor& tensor, bool is_input, std::vector<T>& values, ElementType type) {
  if (!values.empty()) throw Error("engine " + spec.name + " has " + tensor.name + " twice; compile the bundle again");
  values.assign(Count(tensor.shape), 0);
  Bind(tensor, is_input, values.data(), values.size() * sizeof(T), type);
}

void Engine::BindRows(const Tensor& tensor, bool is_input) {
  auto buffer = rows.buffers.find(tensor.name.substr(tensor.name.find('.') + 1));
  if (buffer == rows.buffers.end()) throw Error("engine " + spec.name + " has no rows for " + tensor.name + "; compile the bundle again");
  auto& values = buffer->second.values;
  if (Count(tensor.shape) != values.size()) throw Error("engine " + spec.name + ": " + tensor.name + " has another shape than its cache; compile the bundle again");
  Bind(tensor, is_input, values.data(), values.size() * sizeof(float), ElementType::kFloat);
}

void Engine::BindInput(const Tensor& tensor) {
  const std::map<std::string, std::vector<int64_t>*> integers = {
      {"input_ids", &input_ids_}, {"past_len", &past_len_}, {"row", &row_}, {"parents", &parents_}, {"depth", &depth_}};
  auto found = integers.find(tensor.name);
  if (found != integers.end()) {
    BindBuffer(tensor, true, *found->second, ElementType::kInt64);
  } else if (tensor.name == "mask") {
    BindBuffer(tensor, true, mask_, ElementType::kBool);
  } else if (tensor.name == "state") {
    BindBuffer(tensor, true, state_, ElementType::kFloat);
  } else {
    throw Error("engine " + spec.name + " has an input " + tensor.name + ", which libspecc does not fill; compile with --lowering fast");
  }
}

void Engine::BindOutput(const Tensor& tensor) {
  const std::string& name = tensor.name;
  if (name == "ids") {
    BindBuffer(tensor, false, output_ids_, ElementType::kInt64);
  } else if (name == "top_ids") {
    BindBuffer(tensor, false, top_ids_, ElementType::kInt64);
    ranks_ = size_t(tensor.shape.back());
    if (tensor.shape.size() == 4) guesses_ = size_t(tensor.shape[2]);
  } else if (name == "top_logprobs") {
    BindBuffer(tensor, false, top_logprobs_, ElementType::kFloat);
  } else if (name == "next_state") {
    BindBuffer(tensor, false, next_state_, ElementType::kFloat);
  } else if (Begins(name, kStates)) {
    BindBuffer(tensor, false, states_[name.substr(std::string(kStates).size())], ElementType::kFloat);
  }  // Other outputs, such as logits, are not fetched.
}

void Engine::Bind(const Tensor& tensor, bool is_input, void* data, size_t bytes, ElementType type) {
  Owned<OrtValue> value(model_.ort, kReleaseValue);
  model_.ort.Call<const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**>(
      kCreateTensorWithData, cpu_.get(), data, bytes, tensor.shape.data(), tensor.shape.size(), int(type), value.place());
  model_.ort.Call<OrtIoBinding*, const char*, const OrtValue*>(is_input ? kBindInput : kBindOutput, binding_.get(),
                                                               tensor.name.c_str(), value.get());
  bound_.push_back(std::move(value));
}

void Engine::Run(const Tokens& tokens, size_t past_len, const Inputs& inputs) {
  if (cancelled_) throw Cancelled();
  const size_t count = tokens.size();
  if (count < 1 || count > input_ids_.size() || past_len + input_ids_.size() > rows.capacity) {
    throw Error("engine " + spec.name + " has no room for " + std::to_string(count) + " tokens behind " +
                std::to_string(past_len) + " rows; ask for fewer tokens");
  }
  std::copy(tokens.begin(), tokens.end(), input_ids_.begin());
  past_len_[0] = int64_t(past_len);
  if (!row_.empty()) row_[0] = int64_t(count) - 1;
  FillStates(count, inputs);
  if (!parents_.empty()) FillParents(count, inputs.parents);
  if (!depth_.empty()) FillGrowth(inputs.growth ? *inputs.growth : Growth::Chain(count));
  Naming(path_, [&] { model_.ort.Call<OrtSession*, const void*, const OrtIoBinding*>(kRunWithBinding, session_, nullptr, binding_.get()); });
}

void Engine::FillStates(size_t count, const Inputs& inputs) {
  if (inputs.floats != count * (state_.size() / input_ids_.size())) {
    throw Error("engine " + spec.name + " reads other states than its recipe has; compile the bundle again");
  }
  if (inputs.floats) std::copy_n(inputs.states, inputs.floats, state_.begin());
}

void Engine::FillParents(size_t count, const std::vector<int64_t>* parents) {
  // Slots that are not used hang below the one before.
  for (size_t slot = 0; slot < parents_.size(); slot++) {
    parents_[slot] = parents && slot < count ? parents->at(slot) : int64_t(slot) - 1;
  }
}

void Engine::FillGrowth(const Growth& growth) {
  const size_t slots = depth_.size(), span = mask_.size() / slots, used = growth.visible.size();
  if (used > slots || growth.rows + slots > span) throw Error("engine " + spec.name + " has no room for a draft of its recipe; compile the bundle again");
  std::fill(mask_.begin(), mask_.end(), uint8_t{1});  // Slots that are not used see all.
  std::fill(depth_.begin(), depth_.end(), 0);
  const size_t before = span - slots - growth.rows;  // Columns of committed rows, which every slot sees.
  for (size_t slot = 0; slot < used; slot++) {
    const std::vector<uint8_t>& visible = growth.visible[slot];
    uint8_t* row = mask_.data() + slot * span + before;
    std::fill(std::copy(visible.begin(), visible.end(), row), row + span - before, uint8_t{0});
    depth_[slot] = std::count(visible.begin(), visible.end(), 1) - 1 - int64_t(growth.rows);
  }
}

std::vector<float> Engine::NextState(size_t slot) const {
  const size_t size = next_state_.size() / input_ids_.size();
  if (!size || slot >= input_ids_.size()) throw Error("engine " + spec.name + " returns no state; compile the bundle again");
  const auto begin = next_state_.begin() + std::ptrdiff_t(slot * size);
  return {begin, begin + std::ptrdiff_t(size)};
}

}  // namespace specc
