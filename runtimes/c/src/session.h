// A conversation: its rows, and the loop that decodes an answer.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "drafters.h"
#include "engine.h"

namespace specc {

// Counts and times of one answer.
struct Counts {
  std::string recipe;
  size_t new_tokens = 0, drafts = 0, drafted = 0, accepted = 0, target_calls = 0;
  double prefill_seconds = 0, seconds = 0;
};

class Session {
 public:
  explicit Session(Model& model) : model_(model) {}

  // Decodes an answer. `on_tokens` gets the tokens of each step, and ends the answer by returning false.
  Counts Generate(const Tokens& prompt, const std::string& recipe, size_t max_new_tokens,
                  const std::function<bool(const int64_t*, size_t)>& on_tokens);

  void Cancel() { cancelled_ = true; }

 private:
  const Recipe& Choose(const std::string& name) const;
  Engine& EngineNamed(const std::string& name);
  int64_t Prefill(const Tokens& prompt);
  // Commits slots of the target's last run: their rows, their tokens, and what trained heads read of them.
  void Commit(Engine& target, const Tokens& tokens, const std::vector<size_t>& path);
  Engine& Verifier(const Recipe& recipe, const Draft& draft);

  Model& model_;
  std::map<std::string, std::unique_ptr<Rows>> rows_;  // By the name of the cache.
  std::map<std::string, std::unique_ptr<Engine>> engines_;
  std::map<std::string, std::unique_ptr<Drafter>> drafters_;  // By the name of the recipe.
  Tokens committed_;  // The token of each committed row of the target.
  std::map<std::string, std::vector<float>> states_;  // Of these rows, by the name of the head.
  std::map<std::string, Tokens> cached_texts_;        // The text whose rows each other cache has.
  std::atomic<bool> cancelled_{false};
};

}  // namespace specc
