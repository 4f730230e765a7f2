#include "drafters.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace specc {

namespace {

constexpr size_t kMostAnswers = 1 << 17;  // n-grams of the table; a larger one is emptied.

size_t Number(const Recipe& recipe, const char* name) {
  auto found = recipe.parameters.find(name);
  if (found == recipe.parameters.end() || !found->is_number_unsigned()) {
    throw Error("recipe " + recipe.name + " lacks the number " + name + "; compile the bundle again");
  }
  return found->get<size_t>();
}

class Plain : public Drafter {
 public:
  Draft Propose(const Tokens& text, size_t) override { return Draft::Chain({text.back()}); }
};

// Where each n-gram of a text that grows ended last.
class NgramIndex {
 public:
  explicit NgramIndex(size_t longest) : longest_(longest) {}

  void Clear() {
    indexed_ = 0;
    last_end_.clear();
  }

  // Returns what followed the last tokens of a text and a draft where they occur earlier, or nothing. After a match of
  // fewer tokens than the longest, it copies fewer.
  Tokens After(const Tokens& text, size_t count, const Tokens& drafted = {}, size_t shortest = 1) {
    Add(text, drafted.empty() ? text.size() - 1 : text.size());  // The last n-gram must not find itself.
    Tokens tail(text.end() - std::ptrdiff_t(std::min(longest_, text.size())), text.end());
    tail.insert(tail.end(), drafted.begin(), drafted.end());
    for (size_t size = std::min(longest_, tail.size()); size >= shortest && size > 0; size--) {
      auto found = last_end_.find(Tokens(tail.end() - std::ptrdiff_t(size), tail.end()));
      if (found == last_end_.end()) continue;
      count = std::max<size_t>(1, count / (1 + longest_ - size));
      Tokens source(text.begin() + std::ptrdiff_t(found->second), text.begin() + std::ptrdiff_t(std::min(found->second + count, text.size())));
      source.insert(source.end(), drafted.begin(), drafted.end());
      Tokens copy(count);
      for (size_t i = 0; i < count; i++) copy[i] = source[i % source.size()];
      return copy;
    }
    return {};
  }

 private:
  void Add(const Tokens& text, size_t end) {
    for (size_t last = indexed_ + 1; last <= end; last++) {
      for (size_t size = 1; size <= std::min(longest_, last); size++) {
        last_end_[Tokens(text.begin() + std::ptrdiff_t(last - size), text.begin() + std::ptrdiff_t(last))] = last;
      }
    }
    indexed_ = std::max(indexed_, end);
  }

  size_t longest_, indexed_ = 0;
  std::map<Tokens, size_t> last_end_;
};

class PromptLookup : public Drafter {
 public:
  explicit PromptLookup(const Recipe& recipe)
      : count_(Number(recipe, "prompt_lookup_num_tokens")), index_(Number(recipe, "max_matching_ngram_size")) {}

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
      : count_(Number(recipe, "prompt_lookup_num_tokens")), longest_(Number(recipe, "max_matching_ngram_size")), index_(longest_) {}

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
  explicit TokenRecycling(const Recipe& recipe) : parents_(recipe.parameters.at("tree").get<std::vector<int64_t>>()) {}

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
      : engine_(context.engine(recipe.engines.at("draft"))), count_(Number(recipe, "num_speculative_tokens")),
        threshold_(recipe.parameters.value("assistant_confidence_threshold", 0.0)) {}

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens tokens{text.back()};
    while (tokens.size() <= std::min(count_, room)) {
      engine_.Run(&tokens.back(), 1, text.size() - 1 + tokens.size() - 1);
      tokens.push_back(engine_.Likeliest(0));
      if (threshold_ > 0 && std::exp(engine_.Logprob(0)) < threshold_) break;
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
      : engine_(context.engine(recipe.engines.at("draft"))), count_(Number(recipe, "num_speculative_tokens")),
        copied_(Number(recipe, "prompt_lookup_num_tokens")), shortest_(Number(recipe, "min_matching_ngram_size")),
        threshold_(recipe.parameters.value("assistant_confidence_threshold", 0.0)), index_(Number(recipe, "max_matching_ngram_size")) {}

  void Begin() override { index_.Clear(); }

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens tokens{text.back()}, copy = index_.After(text, copied_, {}, shortest_);
    for (size_t i = 0; i < std::min(count_, room) && copy.empty(); i++) {
      engine_.Run(&tokens.back(), 1, text.size() - 1 + tokens.size() - 1);
      tokens.push_back(engine_.Likeliest(0));
      if (threshold_ > 0 && std::exp(engine_.Logprob(0)) < threshold_) break;
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

// A chain by a trained head (EAGLE, Li et al. 2024). Row i of its cache is token i + 1 beside the target's state at token i.
// Rows of drafted tokens stand on the head's own states, and are run again once the target has verified the tokens.
class Eagle : public Drafter {
 public:
  Eagle(const Recipe& recipe, const Context& context)
      : draft_(context.engine(recipe.engines.at("draft"))), feed_(context.engine(recipe.engines.at("feed"))),
        prefill_(context.engine(recipe.engines.at("prefill"))), count_(Number(recipe, "num_speculative_tokens")),
        threshold_(recipe.parameters.value("assistant_confidence_threshold", 0.0)), states_(*context.states),
        text_((*context.head_texts)[draft_.spec.cache]) {}

  Draft Propose(const Tokens& text, size_t room) override {
    auto found = states_.find(draft_.spec.model);
    const size_t pending = text.size() - 1;
    if (!room || !pending || found == states_.end()) return Draft::Chain({text.back()});
    const std::vector<float>& states = found->second;
    const size_t size = states.size() / pending;
    // A row depends on all tokens up to its own. The last row runs in any case, for its outputs.
    size_t same = size_t(std::mismatch(text_.begin(), text_.end(), text.begin(), text.end()).first - text_.begin());
    size_t row = std::min(same ? same - 1 : 0, pending - 1);
    Engine* engine = nullptr;
    size_t width = 0;
    for (; row < pending; row += width) {
      engine = pending - row <= feed_.spec.slots() ? &feed_ : &prefill_;
      width = std::min(engine->spec.slots(), pending - row);
      engine->Run(&text[row + 1], width, row, &states[row * size]);
    }
    text_ = text;
    Tokens tokens{text.back()};
    size_t slot = engine->last_row() ? 0 : width - 1;
    std::vector<float> state(engine->NextState(width - 1), engine->NextState(width - 1) + size);
    while (true) {
      tokens.push_back(engine->Likeliest(slot));
      if (tokens.size() > std::min(count_, room) || (threshold_ > 0 && std::exp(engine->Logprob(slot)) < threshold_)) break;
      engine = &draft_;
      slot = 0;
      draft_.Run(&tokens.back(), 1, pending + tokens.size() - 2, state.data());
      state.assign(draft_.NextState(0), draft_.NextState(0) + size);
    }
    return Draft::Chain(std::move(tokens));
  }

 private:
  Engine &draft_, &feed_, &prefill_;
  size_t count_;
  double threshold_;
  const std::map<std::string, std::vector<float>>& states_;
  Tokens& text_;
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

const std::map<std::string, Maker>& Makers() {
  static const std::map<std::string, Maker> makers = {
      {"plain", [](const Recipe&, const Context&) -> std::unique_ptr<Drafter> { return std::make_unique<Plain>(); }},
      {"prompt-lookup", FromText<PromptLookup>},
      {"recycled-lookup", FromText<RecycledLookup>},
      {"token-recycling", FromText<TokenRecycling>},
      {"layer-skip", WithEngines<LayerSkip>},
      {"cascade", WithEngines<Cascade>},
      {"eagle", WithEngines<Eagle>},
  };
  return makers;
}

}  // namespace

Draft Draft::Chain(Tokens tokens) {
  Draft draft{std::move(tokens), {}};
  for (size_t slot = 0; slot < draft.tokens.size(); slot++) draft.parents.push_back(int64_t(slot) - 1);
  return draft;
}

std::unique_ptr<Drafter> MakeDrafter(const Recipe& recipe, const Context& context) {
  return Makers().at(recipe.drafter)(recipe, context);
}

// The library has version 1 of each algorithm.
bool Knows(const Recipe& recipe) {
  return Makers().count(recipe.drafter) && recipe.acceptance == "match" && recipe.drafter_version == 1 &&
         recipe.acceptance_version == 1;
}

}  // namespace specc
