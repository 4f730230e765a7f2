#include "drafters.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "error.h"
#include "heads.h"
#include "ngrams.h"
#include "parameters.h"
#include "trees.h"

namespace specc {

namespace {

constexpr size_t kMostAnswers = 1 << 17;  // n-grams of the table; a larger one is emptied.

class Plain : public Drafter {
 public:
  Draft Propose(const Tokens& text, size_t) override { return Draft::Chain({text.back()}); }
};

class PromptLookup : public Drafter {
 public:
  explicit PromptLookup(const Recipe& recipe)
      : count_(CountOf(recipe, "prompt_lookup_num_tokens")), index_(CountOf(recipe, "max_matching_ngram_size")) {}

  void Begin() override { index_.Clear(); }

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens copy = index_.After(text, count_);
    copy.resize(std::min(copy.size(), room));
    copy.insert(copy.begin(), text.back());
    return Draft::Chain(std::move(copy));
  }

 private:
  size_t count_;
  NgramIndex index_;
};

class RecycledLookup : public Drafter {
 public:
  explicit RecycledLookup(const Recipe& recipe)
      : count_(CountOf(recipe, "prompt_lookup_num_tokens")), longest_(CountOf(recipe, "max_matching_ngram_size")), index_(longest_) {}

  void Begin() override { index_.Clear(); }

  Draft Propose(const Tokens& text, size_t room) override {
    size_t most = std::min(count_, room);
    Tokens drafted = index_.After(text, count_);
    drafted.resize(std::min(drafted.size(), most));
    while (drafted.size() < most) {
      Tokens before(text.end() - std::ptrdiff_t(std::min(longest_, text.size())), text.end());
      before.insert(before.end(), drafted.begin(), drafted.end());
      auto answer = answers_.find(Tokens(before.end() - std::ptrdiff_t(std::min(longest_, before.size())), before.end()));
      if (answer == answers_.end()) break;
      drafted.push_back(answer->second);
    }
    drafted.insert(drafted.begin(), text.back());
    return Draft::Chain(std::move(drafted));
  }

  void Observe(const Tokens& text, const Draft& draft, const Engine& target) override {
    if (answers_.size() > kMostAnswers) answers_.clear();
    size_t pending = text.size() - 1, before = std::min(longest_ - 1, pending);
    Tokens tokens(text.begin() + std::ptrdiff_t(pending - before), text.begin() + std::ptrdiff_t(pending));
    tokens.insert(tokens.end(), draft.tokens.begin(), draft.tokens.end());
    for (size_t end = longest_; end <= tokens.size(); end++) {
      Tokens ngram(tokens.begin() + std::ptrdiff_t(end - longest_), tokens.begin() + std::ptrdiff_t(end));
      answers_[std::move(ngram)] = target.Likeliest(end - 1 - before);
    }
  }

 private:
  size_t count_, longest_;
  NgramIndex index_;
  std::map<Tokens, int64_t> answers_;
};

// A tree whose nodes get the successors that their parents' tokens had when the target last ran them.
class TokenRecycling : public Drafter {
 public:
  explicit TokenRecycling(const Recipe& recipe) : parents_(TreeOf(recipe)) {}

  Draft Propose(const Tokens& text, size_t) override {
    Draft draft{{text.back()}, parents_};
    std::vector<size_t> children(parents_.size());
    for (size_t slot = 1; slot < parents_.size(); slot++) {
      size_t parent = size_t(parents_[slot]), rank = children[parent]++;
      auto found = successors_.find(draft.tokens[parent]);
      draft.tokens.push_back(found == successors_.end() || rank >= found->second.size() ? 0 : found->second[rank]);
    }
    return draft;
  }

  void Observe(const Tokens&, const Draft& draft, const Engine& target) override {
    for (size_t slot = 0; slot < draft.tokens.size(); slot++) {
      Tokens& likeliest = successors_[draft.tokens[slot]];
      likeliest.resize(target.ranks());
      for (size_t rank = 0; rank < likeliest.size(); rank++) likeliest[rank] = target.Ranked(slot, rank);
    }
  }

 private:
  std::vector<int64_t> parents_;
  std::map<int64_t, Tokens> successors_;
};

// A chain by an engine over the target's rows, such as the target in 4 bits or with fewer layers.
class LayerSkip : public Drafter {
 public:
  LayerSkip(const Recipe& recipe, const Context& context)
      : engine_(context.EngineOf(recipe, "draft")), count_(CountOf(recipe, "num_speculative_tokens")),
        threshold_(ProbabilityOf(recipe, "assistant_confidence_threshold", 0)) {}

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens tokens{text.back()};
    while (tokens.size() <= std::min(count_, room)) {
      engine_.Run({tokens.back()}, text.size() - 1 + tokens.size() - 1);
      tokens.push_back(engine_.Likeliest(0));
      if (threshold_ > 0 && std::exp(engine_.Logprob(0, 0)) < threshold_) break;
    }
    return Draft::Chain(std::move(tokens));
  }

 private:
  Engine& engine_;
  size_t count_;
  double threshold_;
};

// Prompt lookup; where it finds nothing, one token of an engine, and lookup again.
class Cascade : public Drafter {
 public:
  Cascade(const Recipe& recipe, const Context& context)
      : engine_(context.EngineOf(recipe, "draft")), count_(CountOf(recipe, "num_speculative_tokens")),
        copied_(CountOf(recipe, "prompt_lookup_num_tokens")), shortest_(CountOf(recipe, "min_matching_ngram_size")),
        threshold_(ProbabilityOf(recipe, "assistant_confidence_threshold", 0)), index_(CountOf(recipe, "max_matching_ngram_size")) {}

  void Begin() override { index_.Clear(); }

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens tokens{text.back()}, copy = index_.After(text, copied_, {}, shortest_);
    for (size_t i = 0; i < std::min(count_, room) && copy.empty(); i++) {
      engine_.Run({tokens.back()}, text.size() - 1 + tokens.size() - 1);
      tokens.push_back(engine_.Likeliest(0));
      if (threshold_ > 0 && std::exp(engine_.Logprob(0, 0)) < threshold_) break;
      copy = index_.After(text, copied_, Tokens(tokens.begin() + 1, tokens.end()), shortest_);
    }
    tokens.insert(tokens.end(), copy.begin(), copy.end());
    tokens.resize(std::min(tokens.size(), 1 + room));
    return Draft::Chain(std::move(tokens));
  }

 private:
  Engine& engine_;
  size_t count_, copied_, shortest_;
  double threshold_;
  NgramIndex index_;
};

using Maker = std::unique_ptr<Drafter> (*)(const Recipe&, const Context&);

template <typename T>
std::unique_ptr<Drafter> FromText(const Recipe& recipe, const Context&) {
  return std::make_unique<T>(recipe);
}

template <typename T>
std::unique_ptr<Drafter> WithEngines(const Recipe& recipe, const Context& context) {
  return std::make_unique<T>(recipe, context);
}

// A drafter that the library has, and the parameters that its algorithm has.
struct Kind {
  Maker make;
  std::set<std::string> parameters;
};

const std::map<std::string, Kind>& Kinds() {
  const auto plain = [](const Recipe&, const Context&) -> std::unique_ptr<Drafter> { return std::make_unique<Plain>(); };
  static const std::set<std::string> lookup = {"prompt_lookup_num_tokens", "max_matching_ngram_size"};
  static const std::set<std::string> chain = {"num_speculative_tokens", "assistant_confidence_threshold"};
  static const std::set<std::string> cascade = {"num_speculative_tokens", "assistant_confidence_threshold", "prompt_lookup_num_tokens",
                                                "max_matching_ngram_size", "min_matching_ngram_size"};
  static const std::map<std::string, Kind> kinds = {
      {"plain", {plain, {}}},
      {"prompt-lookup", {FromText<PromptLookup>, lookup}},
      {"recycled-lookup", {FromText<RecycledLookup>, lookup}},
      {"token-recycling", {FromText<TokenRecycling>, {"tree", "vocab_size"}}},
      {"layer-skip", {WithEngines<LayerSkip>, chain}},
      {"cascade", {WithEngines<Cascade>, cascade}},
      {"early-exit", {MakeStaticTree, {"tree"}}},
      {"static-tree", {MakeStaticTree, {"tree"}}},
      {"dynamic-tree", {MakeDynamicTree, {"num_speculative_tokens", "max_depth"}}},
      {"eagle", {MakeEagle, chain}},
      {"eagle-cascade", {MakeEagleCascade, cascade}},
      {"eagle-tree", {MakeEagleTree, {"num_speculative_tokens", "max_depth", "step_costs"}}},
      {"eagle-lookup", {MakeEagleLookup, {"num_speculative_tokens", "max_depth", "step_costs", "match_rates"}}},
      {"medusa", {MakeMedusa, {"tree"}}},
  };
  return kinds;
}

// Whether a parameter that an algorithm lacks has the value that changes nothing.
bool IsNeutral(const std::string& name, const nlohmann::json& value) {
  static const std::map<std::string, nlohmann::json> neutral = {{"num_assistant_tokens_schedule", "constant"},
                                                               {"target_acceptance_rate", 0},
                                                               {"rejection_threshold", 1},
                                                               {"acceptance_head", ""},
                                                               {"fallback_threshold", 0},
                                                               {"margin_threshold", 0},
                                                               {"gate", ""},
                                                               {"gate_threshold", 0}};
  const auto found = neutral.find(name);
  return found != neutral.end() && found->second == value;
}

}  // namespace

Draft Draft::Chain(Tokens tokens) {
  Draft draft{std::move(tokens), {}};
  for (size_t slot = 0; slot < draft.tokens.size(); slot++) draft.parents.push_back(int64_t(slot) - 1);
  return draft;
}

Engine& Context::EngineOf(const Recipe& recipe, const std::string& name) const {
  auto found = recipe.engines.find(name);
  if (found == recipe.engines.end()) throw Error("recipe " + recipe.name + " names no engine " + name + "; compile the bundle again");
  return engine(found->second);
}

std::unique_ptr<Drafter> MakeDrafter(const Recipe& recipe, const Context& context) {
  return Kinds().at(recipe.drafter).make(recipe, context);
}

std::string Lack(const Recipe& recipe) {
  const auto kind = Kinds().find(recipe.drafter);
  if (kind == Kinds().end() || recipe.drafter_version != 1) {
    return "drafter " + recipe.drafter + ", version " + std::to_string(recipe.drafter_version);
  }
  if (recipe.acceptance != "match" || recipe.acceptance_version != 1) {
    return "rule " + recipe.acceptance + ", version " + std::to_string(recipe.acceptance_version);
  }
  for (const auto& [name, value] : recipe.parameters.items()) {
    if (!kind->second.parameters.count(name) && !IsNeutral(name, value)) return "parameter " + name + " of drafter " + recipe.drafter;
  }
  return "";
}

}  // namespace specc
