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

  // Gets the tokens of each step, and ends the answer by returning false.
  using OnTokens = std::function<bool(const int64_t*, size_t)>;

  // Decodes an answer of `max_new_tokens` tokens at most; the context may have room for fewer. If it throws, the next answer
  // begins anew.
  Counts Generate(const int64_t* prompt, size_t prompt_tokens, const std::string& recipe, size_t max_new_tokens,
                  const OnTokens& on_tokens);

  // Ends an answer after the call of an engine that runs, or the next answer if none is decoded. Tokens that came stay.
  void Cancel() { cancelled_ = true; }
  // Forgets a call of Cancel.
  void Resume() { cancelled_ = false; }

 private:
  // Decodes an answer to a prompt that fits the model, until the text has `end` tokens.
  Counts Decode(const Tokens& prompt, const Recipe& recipe, size_t end, const OnTokens& on_tokens);
  // Decodes from the first step's tokens on, and counts. Throws Cancelled.
  void Continue(const Tokens& prompt, Tokens step, const Recipe& recipe, Drafter& drafter, size_t end, const OnTokens& on_tokens,
                Counts& counts);
  // Forgets all rows, states and tables.
  void Forget();
  const Recipe& Choose(const std::string& name) const;
  Engine& EngineNamed(const std::string& name);
  // Runs the tokens of a prompt that have no row, and returns the token behind it. Throws Cancelled between two calls.
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
