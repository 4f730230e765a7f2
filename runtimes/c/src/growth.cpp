#include "growth.h"

namespace specc {

Growth Growth::Chain(size_t slots) {
  Growth growth;
  for (size_t row = 1; row <= slots; row++) growth.visible.emplace_back(row, uint8_t{1});
  return growth;
}

Growth TreeGrower::Grow(const std::vector<size_t>& nodes, const std::vector<int64_t>& parents) {
  Growth growth{rows_, {}};
  for (size_t node : nodes) {
    std::vector<uint8_t> visible = visible_.at(parents.at(node));
    visible.resize(rows_++, 0);
    visible.push_back(1);
    visible_[int64_t(node)] = visible;
    growth.visible.push_back(std::move(visible));
  }
  return growth;
}

}  // namespace specc
