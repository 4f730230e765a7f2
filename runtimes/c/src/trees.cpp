#include "trees.h"

#include <algorithm>
#include <cmath>

#include "growth.h"
#include "parameters.h"

namespace specc {

namespace {

constexpr double kLeast = 1e-9;  // Probability that is left, so that nothing is divided by 0.

// An engine that grows trees behind a text, over the target's rows or over rows of its own.
class TreeEngine {
 public:
  TreeEngine(const Recipe& recipe, const Context& context)
      : engine_(context.EngineOf(recipe, "draft")),
        prefill_(context.HasEngine(recipe, "prefill") ? &context.EngineOf(recipe, "prefill") : nullptr),
        text_(prefill_ ? &(*context.cached_texts)[engine_.spec.cache] : nullptr) {}

  // Runs the pending token, the root of a tree, and before it the tokens that a cache of its own lacks. Returns the row
  // of the outputs that belongs to it.
  size_t RunRoot(const Tokens& text, const Growth& root) {
    committed_ = text.size() - 1;
    tree_rows_ = 0;
    if (!prefill_) {
      engine_.Run({text.back()}, committed_, {nullptr, 0, &root});
      return 0;
    }
    const size_t pending = committed_;
    size_t row = size_t(std::mismatch(text_->begin(), text_->end(), text.begin(), text.end()).first - text_->begin());
    row = std::min(row, pending);
    text_->resize(row);
    if (text.size() - row > engine_.spec.slots) {
      while (row < pending) row += Extend(*prefill_, text, row, pending);
    }
    const size_t last = row;
    Extend(engine_, text, row, text.size());
    committed_ = text.size();  // The root's row is a committed one of this cache.
    tree_rows_ = 1;
    return engine_.last_row() ? 0 : pending - last;
  }

  // Runs a further part of the tree: some nodes of it.
  void Run(const Tokens& tree, const std::vector<size_t>& nodes, const Growth& growth) {
    Tokens tokens;
    for (size_t node : nodes) tokens.push_back(tree[node]);
    engine_.Run(tokens, committed_ + growth.rows - tree_rows_, {nullptr, 0, &growth});
  }

  const Engine& engine() const { return engine_; }

 private:
  size_t Extend(Engine& engine, const Tokens& text, size_t row, size_t end) {
    const size_t count = std::min(engine.spec.slots, end - row);
    const Tokens tokens(text.begin() + std::ptrdiff_t(row), text.begin() + std::ptrdiff_t(row + count));
    engine.Run(tokens, row);
    text_->insert(text_->end(), tokens.begin(), tokens.end());
    return count;
  }

  Engine& engine_;
  Engine* prefill_;  // Null if the rows are the target's.
  Tokens* text_;     // The tokens of the rows of its own cache.
  size_t committed_ = 0, tree_rows_ = 0;  // Rows of the cache, and how many of the tree's are among them.
};

class StaticTree : public Drafter {
 public:
  StaticTree(const Recipe& recipe, const Context& context) : draft_(recipe, context), parents_(TreeOf(recipe)), children_(parents_.size()) {
    std::vector<size_t> depth(parents_.size());
    for (size_t slot = 1; slot < parents_.size(); slot++) {
      const auto parent = size_t(parents_[slot]);
      children_[parent].push_back(slot);
      depth[slot] = depth[parent] + 1;
    }
    TreeGrower grower;
    root_ = grower.Grow({0}, parents_);
    const size_t deepest = *std::max_element(depth.begin(), depth.end());
    for (size_t level = 1; level < deepest; level++) {
      std::vector<size_t> inner;
      for (size_t slot = 0; slot < parents_.size(); slot++) {
        if (depth[slot] == level && !children_[slot].empty()) inner.push_back(slot);
      }
      const size_t slots = draft_.engine().spec.slots;
      for (size_t start = 0; start < inner.size(); start += slots) {
        const auto begin = inner.begin() + std::ptrdiff_t(start);
        std::vector<size_t> part(begin, begin + std::ptrdiff_t(std::min(slots, inner.size() - start)));
        Growth growth = grower.Grow(part, parents_);
        parts_.push_back({std::move(part), std::move(growth)});
      }
    }
  }

  Draft Propose(const Tokens& text, size_t) override {
    Draft draft{Tokens(parents_.size(), text.back()), parents_};
    if (parents_.size() == 1) return draft;
    Fill(draft.tokens, {0}, draft_.RunRoot(text, root_));
    for (const Part& part : parts_) {
      draft_.Run(draft.tokens, part.nodes, part.growth);
      Fill(draft.tokens, part.nodes, 0);
    }
    return draft;
  }

 private:
  struct Part {
    std::vector<size_t> nodes;
    Growth growth;
  };

  // Gives the children of some slots the likeliest tokens, from the outputs from a row on.
  void Fill(Tokens& tokens, const std::vector<size_t>& slots, size_t row) {
    const Engine& engine = draft_.engine();
    for (size_t i = 0; i < slots.size(); i++) {
      const auto& children = children_[slots[i]];
      for (size_t rank = 0; rank < std::min(children.size(), engine.ranks()); rank++) {
        tokens[children[rank]] = engine.Ranked(row + i, rank);
      }
    }
  }

  TreeEngine draft_;
  std::vector<int64_t> parents_;
  std::vector<std::vector<size_t>> children_;
  Growth root_;
  std::vector<Part> parts_;
};

class DynamicTree : public Drafter {
 public:
  DynamicTree(const Recipe& recipe, const Context& context)
      : draft_(recipe, context), most_(1 + CountOf(recipe, "num_speculative_tokens")), depth_(CountOf(recipe, "max_depth")) {}

  Draft Propose(const Tokens& text, size_t room) override {
    const Engine& engine = draft_.engine();
    const double least = 1.0 / double(most_);
    Draft draft{{text.back()}, {-1}};
    TreeGrower grower;
    size_t row = draft_.RunRoot(text, grower.Grow({0}, draft.parents));
    std::vector<Node> level{{1, 0}};
    for (size_t depth = 0; depth < std::min(depth_, room); depth++) {
      if (depth) {
        std::vector<size_t> nodes;
        for (const Node& node : level) nodes.push_back(node.second);
        draft_.Run(draft.tokens, nodes, grower.Grow(nodes, draft.parents));
        row = 0;
      }
      std::vector<Node> below;
      for (size_t i = 0; i < level.size(); i++) {
        double value = level[i].first;  // The part of the parent's probability that its further children can have.
        double rest = 1;
        for (size_t rank = 0; rank < engine.ranks() && value > least && draft.tokens.size() < most_; rank++) {
          const double probability = std::exp(double(engine.Logprob(row + i, rank)));
          const double share = probability / std::max(rest, kLeast);
          rest -= probability;
          below.emplace_back(value * share, draft.tokens.size());
          draft.tokens.push_back(engine.Ranked(row + i, rank));
          draft.parents.push_back(int64_t(level[i].second));
          value *= 1 - share;
        }
      }
      level.clear();
      for (const Node& node : below) {
        if (node.first > least) level.push_back(node);
      }
      std::sort(level.rbegin(), level.rend());
      level.resize(std::min(level.size(), engine.spec.slots));
      if (level.empty() || draft.tokens.size() == most_) break;
    }
    return draft;
  }

 private:
  using Node = std::pair<double, size_t>;  // The value that is left for the children, and the slot.

  TreeEngine draft_;
  size_t most_, depth_;
};

}  // namespace

std::unique_ptr<Drafter> MakeStaticTree(const Recipe& recipe, const Context& context) {
  return std::make_unique<StaticTree>(recipe, context);
}

std::unique_ptr<Drafter> MakeDynamicTree(const Recipe& recipe, const Context& context) {
  return std::make_unique<DynamicTree>(recipe, context);
}

}  // namespace specc
