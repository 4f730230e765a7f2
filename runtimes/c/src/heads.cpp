#include "heads.h"

#include <algorithm>
#include <cmath>

#include "candidates.h"
#include "ngrams.h"
#include "parameters.h"

namespace specc {

namespace {

// A head over the text. Row i of its cache is token i + 1 beside the target's state at token i. Rows of drafted tokens
// stand on the head's own states, and are run again once the target has verified the tokens.
class Head {
 public:
  Head(const Recipe& recipe, const Context& context)
      : draft(context.EngineOf(recipe, "draft")), states_(*context.states), text_((*context.cached_texts)[draft.spec.cache]) {
    for (const char* name : {"feed", "prefill"}) {
      if (context.HasEngine(recipe, name)) readers_.push_back(&context.EngineOf(recipe, name));
    }
    // The engine of drafts may leave out layers, which only the tokens of the text run.
    if (readers_.empty() || draft.spec.layers == readers_[0]->spec.layers) readers_.push_back(&draft);
    auto narrower = [](const Engine* a, const Engine* b) { return a->spec.slots < b->spec.slots; };
    std::stable_sort(readers_.begin(), readers_.end(), narrower);
  }

  // Runs the tokens of a text that the head's cache lacks, the pending one last. Returns false if there is no state
  // before the pending token.
  bool Read(const Tokens& text) {
    const size_t pending = text.size() - 1;
    auto found = states_.find(draft.spec.model);
    if (!pending || found == states_.end()) return false;
    const std::vector<float>& states = found->second;
    const size_t state_size = states.size() / pending;
    const bool has_rows = draft.spec.cache != kTarget;
    size_t row = has_rows ? RowsOf(text) : pending - 1;  // A head without rows runs the pending token alone.
    while (true) {
      const size_t left = pending - row, most = readers_.back()->spec.slots;
      const size_t width = left <= most ? left : std::min(most, left - 1);
      Engine& engine = **std::find_if(readers_.begin(), readers_.end(), [&](Engine* e) { return e->spec.slots >= width; });
      const Tokens tokens(text.begin() + std::ptrdiff_t(row + 1), text.begin() + std::ptrdiff_t(row + 1 + width));
      engine.Run(tokens, has_rows ? row : 0, {states.data() + row * state_size, width * state_size, nullptr});
      row += width;
      if (row < pending) continue;
      if (has_rows) text_ = text;
      reader = &engine;
      state_row = width - 1;
      output_row = engine.last_row() ? 0 : width - 1;
      return true;
    }
  }

  // Runs drafted tokens behind the text, of which `rows` have a row.
  void Run(const Tokens& tokens, size_t rows, const std::vector<float>& states, const Growth* growth) {
    draft.Run(tokens, text_.size() - 1 + rows, {states.data(), states.size(), growth});
  }

  // Drafts a chain behind the pending token, which `Read` ran: `most` tokens at most, until one of less probability than
  // the threshold, or until `ends` says so after a token.
  template <typename Ends>
  void Extend(Tokens& tokens, size_t most, double threshold, const Ends& ends) {
    const Engine* engine = reader;
    size_t row = output_row;
    std::vector<float> state = engine->NextState(state_row);
    while (true) {
      tokens.push_back(engine->Likeliest(row));
      if (threshold > 0 && std::exp(engine->Logprob(row, 0)) < threshold) return;
      if (ends() || tokens.size() > most) return;
      Run({tokens.back()}, tokens.size() - 2, state, nullptr);
      engine = &draft;
      row = 0;
      state = engine->NextState(0);
    }
  }

  Engine& draft;
  // Where the outputs and the state of the pending token are, until the next call of the head.
  Engine* reader = nullptr;
  size_t output_row = 0, state_row = 0;

 private:
  // Drops the rows that are not those of a text, and returns how many stay. The last row runs in any case, for its outputs.
  size_t RowsOf(const Tokens& text) {
    const size_t same = size_t(std::mismatch(text_.begin(), text_.end(), text.begin(), text.end()).first - text_.begin());
    const size_t rows = std::min(same ? same - 1 : 0, text.size() - 2);
    text_.resize(rows ? rows + 1 : 0);
    return rows;
  }

  const std::map<std::string, std::vector<float>>& states_;
  Tokens& text_;                  // The text whose rows the head's cache has: one less than tokens.
  std::vector<Engine*> readers_;  // Narrowest first.
};

class Eagle : public Drafter {
 public:
  Eagle(const Recipe& recipe, const Context& context)
      : head_(recipe, context), count_(CountOf(recipe, "num_speculative_tokens")),
        threshold_(ProbabilityOf(recipe, "assistant_confidence_threshold", 0)) {}

  Draft Propose(const Tokens& text, size_t room) override {
    Tokens tokens{text.back()};
    if (room && head_.Read(text)) head_.Extend(tokens, std::min(count_, room), threshold_, [] { return false; });
    return Draft::Chain(std::move(tokens));
  }

 private:
  Head head_;
  size_t count_;
  double threshold_;
};

// Prompt lookup; where it finds nothing, one token of a head, and lookup again. A draft that begins with a copy runs no head.
class EagleCascade : public Drafter {
 public:
  EagleCascade(const Recipe& recipe, const Context& context)
      : head_(recipe, context), count_(CountOf(recipe, "num_speculative_tokens")),
        copied_(CountOf(recipe, "prompt_lookup_num_tokens")), shortest_(CountOf(recipe, "min_matching_ngram_size")),
        threshold_(ProbabilityOf(recipe, "assistant_confidence_threshold", 0)), index_(CountOf(recipe, "max_matching_ngram_size")) {}

  void Begin() override { index_.Clear(); }

  Draft Propose(const Tokens& text, size_t room) override {
    room = std::min(room, std::max(count_, copied_));
    Tokens tokens{text.back()}, copy = index_.After(text, copied_, {}, shortest_);
    if (room && copy.empty() && head_.Read(text)) {
      head_.Extend(tokens, std::min(count_, room), threshold_, [&] {
        copy = index_.After(text, copied_, Tokens(tokens.begin() + 1, tokens.end()), shortest_);
        return !copy.empty();
      });
    }
    tokens.insert(tokens.end(), copy.begin(), copy.end());
    tokens.resize(std::min(tokens.size(), 1 + room));
    return Draft::Chain(std::move(tokens));
  }

 private:
  Head head_;
  size_t count_, copied_, shortest_;
  double threshold_;
  NgramIndex index_;
};

// A tree that grows level by level. Each level runs the best nodes of the one before, and in the end all are ranked again.
class EagleTree : public Drafter {
 public:
  EagleTree(const Recipe& recipe, const Context& context) : budget_(recipe), head_(recipe, context), depth_(CountOf(recipe, "max_depth")) {}

  Draft Propose(const Tokens& text, size_t room) override {
    if (!room || !head_.Read(text)) return Draft::Chain({text.back()});
    Candidates candidates = Collect(text, room);
    TreeGrower grower;
    std::vector<size_t> level{0};
    grower.Grow(level, candidates.parents());  // The root has a row.
    candidates.AddLevel(level, *head_.reader, head_.output_row, head_.state_row);
    for (size_t depth = 1; depth < std::min(depth_, room); depth++) {
      level = candidates.BestOfLastLevel(head_.draft.spec.slots);
      if (level.empty()) break;
      const Growth growth = grower.Grow(level, candidates.parents());
      Tokens tokens;
      std::vector<float> states;
      for (size_t node : level) {
        tokens.push_back(candidates.tokens()[node]);
        const std::vector<float>& state = candidates.StateOf(size_t(candidates.parents()[node]));
        states.insert(states.end(), state.begin(), state.end());
      }
      head_.Run(tokens, growth.rows - 1, states, &growth);
      candidates.AddLevel(level, head_.draft, 0, 0);
    }
    return candidates.Best();
  }

 protected:
  // The nodes that do not need the head.
  virtual Candidates Collect(const Tokens& text, size_t) { return {text.back(), budget_, 1}; }

  NodeBudget budget_;

 private:
  Head head_;
  size_t depth_;
};

// A tree that holds a copy of the text, too. The more last tokens occur earlier, the likelier the text goes on as there.
class EagleLookup : public EagleTree {
 public:
  EagleLookup(const Recipe& recipe, const Context& context)
      : EagleTree(recipe, context), rates_(ProbabilitiesOf(recipe, "match_rates")), index_(rates_.size()) {}

  void Begin() override { index_.Clear(); }

 protected:
  Candidates Collect(const Tokens& text, size_t room) override {
    const auto [size, copy] = index_.LongestMatch(text, std::min(budget_.nodes(), room));
    std::vector<double> values;
    for (size_t i = 0; i < copy.size(); i++) {
      const double rate = rates_[std::min(size + i, rates_.size()) - 1];
      values.push_back(i ? values.back() * rate : rate);
    }
    Candidates candidates(text.back(), budget_, values.empty() ? 1 : 1 - values[0]);
    candidates.AddPath(copy, values);
    return candidates;
  }

 private:
  std::vector<double> rates_;
  NgramIndex index_;
};

class Medusa : public Drafter {
 public:
  Medusa(const Recipe& recipe, const Context& context) : head_(recipe, context), parents_(TreeOf(recipe)) {
    std::vector<size_t> depth(parents_.size()), children(parents_.size());
    for (size_t slot = 1; slot < parents_.size(); slot++) {
      const auto parent = size_t(parents_[slot]);
      depth[slot] = depth[parent] + 1;
      places_.emplace_back(depth[slot] - 1, children[parent]++);
    }
  }

  Draft Propose(const Tokens& text, size_t room) override {
    if (!room || !head_.Read(text)) return Draft::Chain({text.back()});
    Draft draft{{text.back()}, parents_};
    for (const auto& [guess, rank] : places_) draft.tokens.push_back(head_.reader->Ranked(head_.output_row, rank, guess));
    return draft;
  }

 private:
  Head head_;
  std::vector<int64_t> parents_;
  std::vector<std::pair<size_t, size_t>> places_;  // Of each slot but the first: its guess, and its rank.
};

}  // namespace

std::unique_ptr<Drafter> MakeEagle(const Recipe& recipe, const Context& context) { return std::make_unique<Eagle>(recipe, context); }

std::unique_ptr<Drafter> MakeEagleTree(const Recipe& recipe, const Context& context) {
  return std::make_unique<EagleTree>(recipe, context);
}

std::unique_ptr<Drafter> MakeEagleCascade(const Recipe& recipe, const Context& context) {
  return std::make_unique<EagleCascade>(recipe, context);
}

std::unique_ptr<Drafter> MakeEagleLookup(const Recipe& recipe, const Context& context) {
  return std::make_unique<EagleLookup>(recipe, context);
}

std::unique_ptr<Drafter> MakeMedusa(const Recipe& recipe, const Context& context) { return std::make_unique<Medusa>(recipe, context); }

}  // namespace specc
