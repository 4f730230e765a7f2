// Engines: the sessions of a model, and what one conversation binds to them.
#pragma once

#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle.h"
#include "growth.h"
#include "ort.h"
#include "tokens.h"

namespace specc {

// What the slots of one call read beside their tokens.
struct Inputs {
  const float* states = nullptr;  // What a trained head reads, a row for each token; null for other engines.
  size_t floats = 0;              // The number of floats in `states`.
  const Growth* growth = nullptr;  // How the slots stand in a tree that grows; null for a chain, and for other engines.
  const std::vector<int64_t>* parents = nullptr;  // How they stand in any tree; null for a chain, and for other engines.
};

// A bundle with ONNX Runtime's sessions, one a file. All conversations share them and the packed weights.
class Model {
 public:
  Model(const std::string& path, const std::string& onnxruntime, int threads);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // The session of an engine's file. It is opened when it is first used.
  OrtSession* Session(const EngineSpec& engine);

  const Bundle bundle;
  const Ort ort;

 private:
  void SetOptions(OrtSessionOptions* options, const EngineSpec& engine);
  void ShareWeights(OrtSessionOptions* options, const EngineSpec& engine);

  int threads_;
  Owned<OrtEnv> env_;
  Owned<OrtMemoryInfo> cpu_;
  Owned<OrtPrepackedWeights> packed_;
  std::mutex mutex_;
  struct Weights;
  std::map<std::string, std::shared_ptr<Weights>> weights_;  // By file, read once.
  std::map<std::string, Owned<OrtSession>> sessions_;        // By file. They end before the weights that they read.
};

// Floats that are zero at first. A page takes memory when it is first written, so rows that no text reaches take none.
class Zeros {
 public:
  Zeros() = default;
  // Throws std::bad_alloc.
  explicit Zeros(size_t count);

  float* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<float, void (*)(void*)> data_{nullptr, std::free};
  size_t size_ = 0;
};

// The rows of one cache of one conversation.
struct Rows {
  explicit Rows(const CacheSpec& spec);
  // Moves the rows of a path of slots, ascending, behind the first `start` rows.
  void Commit(size_t start, const std::vector<size_t>& path);

  size_t capacity;
  struct Buffer {
    Zeros values;
    int64_t heads, size;
  };
  std::map<std::string, Buffer> buffers;  // By "LAYER.key" and "LAYER.value".
};

// What a call throws once its conversation is cancelled.
struct Cancelled {};

// An engine bound to the rows of one conversation.
class Engine {
 public:
  // `cancelled`: whether no further call may begin.
  Engine(Model& model, const EngineSpec& spec, Rows& rows, const std::atomic<bool>& cancelled);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Runs tokens, one in each of the first slots, behind `past_len` rows. Throws Error if they do not fit, or Cancelled.
  void Run(const Tokens& tokens, size_t past_len, const Inputs& inputs = {});

  // Outputs of the last run. They throw std::out_of_range for a slot or a rank that the engine does not return.

  // The likeliest token after a slot.
  int64_t Likeliest(size_t slot) const { return output_ids_.at(slot); }
  // The token of a rank after a slot, if the engine has `top_k`. A head that guesses several tokens has ranks for each.
  int64_t Ranked(size_t slot, size_t rank, size_t guess = 0) const { return top_ids_.at((slot * guesses_ + guess) * ranks_ + rank); }
  // The natural logarithm of its probability.
  float Logprob(size_t slot, size_t rank) const { return top_logprobs_.at(slot * guesses_ * ranks_ + rank); }
  size_t ranks() const { return ranks_; }
  // Whether the outputs have one row, that of the last token.
  bool last_row() const { return !row_.empty(); }
  // The states [slots, size] that the engine returns for trained heads, by the name of the head.
  const std::map<std::string, std::vector<float>>& states() const { return states_; }
  // The state that a head returns for the slot behind one of its own.
  std::vector<float> NextState(size_t slot) const;

  const EngineSpec& spec;
  Rows& rows;

 private:
  void Bind(const Tensor& tensor, bool is_input, void* data, size_t bytes, ElementType type);
  // Binds a tensor to a buffer of its own, of zeros.
  template <typename T>
  void BindBuffer(const Tensor& tensor, bool is_input, std::vector<T>& values, ElementType type);
  void BindRows(const Tensor& tensor, bool is_input);
  void BindInput(const Tensor& tensor);
  void BindOutput(const Tensor& tensor);
  void FillStates(size_t count, const Inputs& inputs);
  void FillParents(size_t count, const std::vector<int64_t>* parents);
  void FillGrowth(const Growth& growth);

  Model& model_;
  const std::atomic<bool>& cancelled_;
  const std::string path_;  // Of its file.
  OrtSession* session_;
  Owned<OrtMemoryInfo> cpu_;
  std::vector<Owned<OrtValue>> bound_;
  Owned<OrtIoBinding> binding_;
  std::vector<int64_t> input_ids_, past_len_, row_, parents_, depth_, output_ids_, top_ids_;
  std::vector<uint8_t> mask_;
  std::vector<float> top_logprobs_, state_, next_state_;
  std::map<std::string, std::vector<float>> states_;
  size_t guesses_ = 1, ranks_ = 0;
};

}  // namespace specc
