// Engines: the sessions of a model, and what one conversation binds to them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle.h"
#include "ort.h"

namespace specc {

using Tokens = std::vector<int64_t>;

// A bundle with ONNX Runtime's sessions, one a file. All conversations share them and the packed weights.
class Model {
 public:
  Model(const std::string& path, const std::string& onnxruntime, int threads);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // The session of an engine's file. It is opened when it is first used.
  OrtSession* Session(const EngineSpec& engine);

  const Bundle bundle;
  const Ort ort;

 private:
  OrtSessionOptions* Options(const EngineSpec& engine);
  void ShareWeights(OrtSessionOptions* options, const EngineSpec& engine);

  int threads_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* cpu_ = nullptr;
  OrtPrepackedWeights* packed_ = nullptr;
  std::mutex mutex_;
  std::map<std::string, OrtSession*> sessions_;
  struct Weights;
  std::map<std::string, std::unique_ptr<Weights>> weights_;  // By file, read once.
};

// The rows of one cache of one conversation.
struct Rows {
  explicit Rows(const CacheSpec& spec);
  // Moves the rows of a path of slots, ascending, behind the first `start` rows.
  void Commit(size_t start, const std::vector<size_t>& path);

  size_t capacity;
  struct Buffer {
    std::vector<float> values;
    int64_t heads, size;
  };
  std::map<std::string, Buffer> buffers;  // By "LAYER.key" and "LAYER.value".
};

// An engine bound to the rows of one conversation.
class Engine {
 public:
  Engine(Model& model, const EngineSpec& spec, Rows& rows);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Runs tokens, one in each of the first slots, behind `past_len` rows. `states` has the states that a trained head
  // reads beside them, a row a token; null for other engines.
  void Run(const int64_t* tokens, size_t count, size_t past_len, const float* states = nullptr);

  // The likeliest token after a slot.
  int64_t Likeliest(size_t slot) const { return output_ids_[slot]; }
  // The token of a rank after a slot, if the engine has `top_k`.
  int64_t Ranked(size_t slot, size_t rank) const { return top_ids_[slot * ranks_ + rank]; }
  // The natural logarithm of the probability of the likeliest token after a slot, if the engine has `top_k`.
  float Logprob(size_t slot) const { return top_logprobs_[slot * ranks_]; }
  size_t ranks() const { return ranks_; }
  // Whether the outputs have one row, that of the last token.
  bool last_row() const { return !row_.empty(); }
  // The states [slots, size] that the engine returns for trained heads, by the name of the head.
  const std::map<std::string, std::vector<float>>& states() const { return states_; }
  // The state that a head returns for the slot behind one of its own.
  const float* NextState(size_t slot) const { return next_state_.data() + slot * state_size_; }

  const EngineSpec& spec;
  Rows& rows;

 private:
  void Bind(const Tensor& tensor, bool is_input, void* data, size_t bytes, ElementType type);

  Model& model_;
  OrtSession* session_;
  OrtIoBinding* binding_ = nullptr;
  OrtMemoryInfo* cpu_ = nullptr;
  std::vector<OrtValue*> bound_;
  std::vector<int64_t> input_ids_, past_len_, row_, output_ids_, top_ids_;
  std::vector<float> top_logprobs_, state_, next_state_;
  std::map<std::string, std::vector<float>> states_;
  size_t ranks_ = 0, state_size_ = 0;
};

}  // namespace specc
