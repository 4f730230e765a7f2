// Drafters: where drafts come from. docs/bundle-format.md specifies each algorithm under its name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine.h"

namespace specc {

// Tokens in the slots of a tree; the first is the pending token.
struct Draft {
  Tokens tokens;
  std::vector<int64_t> parents;

  static Draft Chain(Tokens tokens);
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  // Begins an answer to another text. What belongs to all texts, such as a table of answers, stays.
  virtual void Begin() {}
  // Proposes what may follow a text, `room` tokens deep at most.
  virtual Draft Propose(const Tokens& text, size_t room) = 0;
  // Learns from the target's answers in all slots of a draft. `text` ended with the draft's first token.
  virtual void Observe(const Tokens& text, const Draft& draft, const Engine& target) { (void)text, (void)draft, (void)target; }
};

// What a drafter may use of its conversation.
struct Context {
  // The engine that a recipe names for its drafter. Throws Error if it names none.
  Engine& EngineOf(const Recipe& recipe, const std::string& name) const;
  // Whether the recipe names such an engine.
  bool HasEngine(const Recipe& recipe, const std::string& name) const { return recipe.engines.count(name) > 0; }

  std::function<Engine&(const std::string& name)> engine;
  // What a trained head reads of each committed row of the target, [rows, size] by the name of the head.
  const std::map<std::string, std::vector<float>>* states;
  // The text whose rows each cache but the target's has, by the name of the cache.
  std::map<std::string, Tokens>* cached_texts;
};

// Makes the drafter of a recipe that this library has.
std::unique_ptr<Drafter> MakeDrafter(const Recipe& recipe, const Context& context);

// What this library lacks of a recipe: its drafter, its acceptance rule or a parameter; empty if it has all. It has version 1 of
// each algorithm.
std::string Lack(const Recipe& recipe);
inline bool Knows(const Recipe& recipe) { return Lack(recipe).empty(); }

}  // namespace specc
