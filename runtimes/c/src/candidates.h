// Candidates for a draft tree: nodes from several sources, each with the chance that it is accepted.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "drafters.h"

namespace specc {

// How many nodes of a tree pay: as many of its best nodes as give most tokens for the cost of a step. Without costs, all
// that fit.
class NodeBudget {
 public:
  // Reads `num_speculative_tokens` and `step_costs`. Throws Error if they are wrong.
  explicit NodeBudget(const Recipe& recipe);

  // The nodes to draft, the likeliest first. Of equals the earlier is the better. Node 0 does not count.
  std::vector<size_t> Best(const std::vector<double>& values) const;

  size_t nodes() const { return nodes_; }

 private:
  size_t nodes_;
  std::vector<double> costs_;  // Of a step with 0, 1, ... nodes; empty if no costs are known.
};

// The nodes of a growing tree. A node comes after its parent, and stands for one path of tokens.
class Candidates {
 public:
  // `share`: the chance that the text goes on as the head says, and not as a copy says.
  Candidates(int64_t pending, const NodeBudget& budget, double share);

  // Adds a path below the pending token, with the share of each node.
  void AddPath(const Tokens& tokens, const std::vector<double>& values);

  // Adds the children of nodes: the head's likeliest tokens after each. Node level[i] had row `row` + i of the engine's
  // outputs, and row `state_row` + i of the states that it returns.
  void AddLevel(const std::vector<size_t>& level, const Engine& engine, size_t row, size_t state_row);

  // The nodes of the last level that are to be drafted as yet, `most` of them at most, in ascending order.
  std::vector<size_t> BestOfLastLevel(size_t most) const;

  // The draft of the best nodes.
  Draft Best() const;

  // What the children of a node read. The node was in a level.
  const std::vector<float>& StateOf(size_t node) const { return states_.at(node); }
  const Tokens& tokens() const { return tokens_; }
  const std::vector<int64_t>& parents() const { return parents_; }

 private:
  // Adds a node, or adds to the value of the one that is there, and returns it.
  size_t Add(size_t parent, int64_t token, double value);

  const NodeBudget& budget_;
  Tokens tokens_;
  std::vector<int64_t> parents_;
  std::vector<double> values_;  // If two sources propose one path, their shares add up.
  std::map<size_t, std::vector<float>> states_;
  std::map<size_t, double> reach_;  // The chance of a node by the head alone.
  std::map<std::pair<size_t, int64_t>, size_t> node_of_;  // By parent and token.
  std::set<size_t> last_level_;
};

}  // namespace specc
