// The growth of a token tree by an engine that runs some slots of it a call (a Frontier).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace specc {

// The next part of a tree. Its rows are scratch, behind the rows that earlier calls left.
struct Growth {
  size_t rows = 0;                            // Rows of the tree that earlier calls left.
  std::vector<std::vector<uint8_t>> visible;  // For each slot a byte for each row of the tree up to its own: 1 if it sees it.

  // The growth that runs a chain of so many slots in one call.
  static Growth Chain(size_t slots);
};

// A planner of the calls that grow one tree, in order. The first call runs node 0.
class TreeGrower {
 public:
  // Plans the next part: nodes whose parents earlier calls ran.
  Growth Grow(const std::vector<size_t>& nodes, const std::vector<int64_t>& parents);

 private:
  size_t rows_ = 0;
  std::map<int64_t, std::vector<uint8_t>> visible_{{-1, {}}};  // By node. Node -1 stands for the committed rows.
};

}  // namespace specc
