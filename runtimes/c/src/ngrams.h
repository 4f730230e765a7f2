// An index of a text that grows: for each n-gram, where it last ended.
#pragma once

#include <cstddef>
#include <map>
#include <utility>

#include "tokens.h"

namespace specc {

class NgramIndex {
 public:
  // `longest`: tokens of the longest n-gram that is looked up.
  explicit NgramIndex(size_t longest) : longest_(longest) {}

  // Begins another text.
  void Clear();

  // Returns what followed the last tokens of a text and a draft where they occur earlier, or nothing. After a match of
  // fewer tokens than the longest, it copies fewer. A match has `shortest` tokens at least.
  Tokens After(const Tokens& text, size_t count, const Tokens& drafted = {}, size_t shortest = 1);

  // Returns how many of the last tokens occur earlier, and `count` tokens that followed them there; 0 and nothing if
  // none do.
  std::pair<size_t, Tokens> LongestMatch(const Tokens& text, size_t count);

 private:
  // The length of the longest match, and where it ended last; 0 if there is none.
  std::pair<size_t, size_t> Find(const Tokens& text, const Tokens& drafted, size_t shortest);
  void Add(const Tokens& text, size_t end);

  size_t longest_, indexed_ = 0;
  std::map<Tokens, size_t> last_end_;
};

}  // namespace specc
