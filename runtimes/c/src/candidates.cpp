#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "parameters.h"

namespace specc {

NodeBudget::NodeBudget(const Recipe& recipe) : nodes_(CountOf(recipe, "num_speculative_tokens")) {
  const auto pairs = StepCostsOf(recipe);
  if (pairs.empty()) return;
  if (pairs.back().first < 1 + nodes_) {
    throw Error("recipe " + recipe.name + ": step_costs ends before " + std::to_string(1 + nodes_) + " slots; compile the bundle again");
  }
  auto pair = pairs.begin();
  for (size_t count = 0; count <= nodes_; count++) {
    while (pair->first <= count) pair++;
    costs_.push_back(pair->second);
  }
}

std::vector<size_t> NodeBudget::Best(const std::vector<double>& values) const {
  std::vector<size_t> order(values.size() - 1);
  std::iota(order.begin(), order.end(), size_t{1});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(std::min(order.size(), nodes_));
  if (costs_.empty()) return order;
  size_t best = 0;
  double tokens = 1, speed = tokens / costs_[0];
  for (size_t count = 1; count <= order.size(); count++) {
    tokens += values[order[count - 1]];
    if (tokens / costs_[count] <= speed) continue;
    speed = tokens / costs_[count];
    best = count;
  }
  order.resize(best);
  return order;
}

Candidates::Candidates(int64_t pending, const NodeBudget& budget, double share)
    : budget_(budget), tokens_{pending}, parents_{-1}, values_{1}, reach_{{0, share}} {}

void Candidates::AddPath(const Tokens& tokens, const std::vector<double>& values) {
  size_t node = 0;
  for (size_t i = 0; i < tokens.size(); i++) node = Add(node, tokens[i], values[i]);
}

void Candidates::AddLevel(const std::vector<size_t>& level, const Engine& engine, size_t row, size_t state_row) {
  last_level_.clear();
  for (size_t i = 0; i < level.size(); i++) {
    states_[level[i]] = engine.NextState(state_row + i);
    for (size_t rank = 0; rank < std::min(engine.ranks(), budget_.nodes()); rank++) {
      const double probability = std::min(1.0, double(std::exp(engine.Logprob(row + i, rank))));
      const double reach = reach_.at(level[i]) * probability;
      const size_t child = Add(level[i], engine.Ranked(row + i, rank), reach);
      reach_[child] = reach;
      last_level_.insert(child);
    }
  }
}

std::vector<size_t> Candidates::BestOfLastLevel(size_t most) const {
  std::vector<size_t> best;
  for (size_t node : budget_.Best(values_)) {
    if (best.size() < most && last_level_.count(node)) best.push_back(node);
  }
  std::sort(best.begin(), best.end());
  return best;
}

Draft Candidates::Best() const {
  std::vector<size_t> nodes = budget_.Best(values_);
  std::sort(nodes.begin(), nodes.end());
  std::map<int64_t, int64_t> slot_of{{0, 0}};
  Draft draft{{tokens_[0]}, {-1}};
  for (size_t node : nodes) {
    slot_of[int64_t(node)] = int64_t(draft.tokens.size());
    draft.tokens.push_back(tokens_[node]);
    draft.parents.push_back(slot_of.at(parents_[node]));  // A parent is as likely as its child, and comes before it.
  }
  return draft;
}

size_t Candidates::Add(size_t parent, int64_t token, double value) {
  auto [found, is_new] = node_of_.try_emplace({parent, token}, tokens_.size());
  if (is_new) {
    tokens_.push_back(token);
    parents_.push_back(int64_t(parent));
    values_.push_back(0);
  }
  values_[found->second] += value;
  return found->second;
}

}  // namespace specc
