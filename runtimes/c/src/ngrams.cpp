#include "ngrams.h"

#include <algorithm>

namespace specc {

namespace {

// Copies tokens from a place of a text on. A copy that reaches the end goes on with what is drafted, and with itself.
Tokens Copy(const Tokens& text, size_t from, size_t count, const Tokens& drafted) {
  Tokens source(text.begin() + std::ptrdiff_t(from), text.begin() + std::ptrdiff_t(std::min(from + count, text.size())));
  source.insert(source.end(), drafted.begin(), drafted.end());
  Tokens copy(count);
  for (size_t i = 0; i < count; i++) copy[i] = source[i % source.size()];
  return copy;
}

}  // namespace

void NgramIndex::Clear() {
  indexed_ = 0;
  last_end_.clear();
}

Tokens NgramIndex::After(const Tokens& text, size_t count, const Tokens& drafted, size_t shortest) {
  auto [size, end] = Find(text, drafted, shortest);
  return size ? Copy(text, end, std::max<size_t>(1, count / (1 + longest_ - size)), drafted) : Tokens{};
}

std::pair<size_t, Tokens> NgramIndex::LongestMatch(const Tokens& text, size_t count) {
  auto [size, end] = Find(text, {}, 1);
  return {size, size ? Copy(text, end, count, {}) : Tokens{}};
}

std::pair<size_t, size_t> NgramIndex::Find(const Tokens& text, const Tokens& drafted, size_t shortest) {
  Add(text, drafted.empty() ? text.size() - 1 : text.size());  // The last n-gram must not find itself.
  Tokens tail(text.end() - std::ptrdiff_t(std::min(longest_, text.size())), text.end());
  tail.insert(tail.end(), drafted.begin(), drafted.end());
  for (size_t size = std::min(longest_, tail.size()); size >= shortest && size > 0; size--) {
    auto found = last_end_.find(Tokens(tail.end() - std::ptrdiff_t(size), tail.end()));
    if (found != last_end_.end()) return {size, found->second};
  }
  return {0, 0};
}

void NgramIndex::Add(const Tokens& text, size_t end) {
  for (size_t last = indexed_ + 1; last <= end; last++) {
    for (size_t size = 1; size <= std::min(longest_, last); size++) {
      last_end_[Tokens(text.begin() + std::ptrdiff_t(last - size), text.begin() + std::ptrdiff_t(last))] = last;
    }
  }
  indexed_ = std::max(indexed_, end);
}

}  // namespace specc
