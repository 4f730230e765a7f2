// Huge pages for what ONNX Runtime packs of the weights.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace specc {

// A request to the kernel to join the pages of memory that is allocated from the constructor to `Join`.
//
// A step reads all weights, and so many small pages cost more time than the weights. Many kernels give huge pages on request
// only. ONNX Runtime does not ask, and its container of packed weights takes no allocator of ours. So the process's map of its
// memory is read before and after. The request changes no content. Where the kernel refuses it, pages stay small.
class HugePages {
 public:
  HugePages();
  void Join() const;

  using Range = std::pair<uintptr_t, uintptr_t>;  // The first address, and the one behind the last.

  // The private memory without a file that a text in the form of /proc/self/maps lists, ascending.
  static std::vector<Range> Anonymous(const std::string& maps);
  // The parts of `after` that are not in `before`, cut to whole pages of `page` bytes. Both ascend.
  static std::vector<Range> Added(const std::vector<Range>& before, const std::vector<Range>& after, uintptr_t page);

 private:
  std::vector<Range> before_;
};

}  // namespace specc
