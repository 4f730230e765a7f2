#include "huge_pages.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace specc {

namespace {

constexpr const char* kMaps = "/proc/self/maps";
constexpr const char* kPageSize = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

// The text of a file, or an empty one where there is no such file.
std::string Text(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Bytes of a huge page; 0 where the kernel has none.
uintptr_t PageSize() { return uintptr_t(std::strtoull(Text(kPageSize).c_str(), nullptr, 10)); }

}  // namespace

std::vector<HugePages::Range> HugePages::Anonymous(const std::string& maps) {
  std::vector<Range> ranges;
  std::istringstream lines(maps);
  for (std::string line; std::getline(lines, line);) {
    unsigned long long start = 0, end = 0, inode = 0;
    char access[5] = "", name[8] = "";
    // The address, the access, the offset in the file, its device and its number, and a name if there is one.
    const int fields = std::sscanf(line.c_str(), "%llx-%llx %4s %*x %*s %llu %7s", &start, &end, access, &inode, name);
    if (fields < 4 || inode || std::string(access) != "rw-p") continue;
    if (fields == 5 && std::string(name) != "[heap]") continue;
    if (!ranges.empty() && ranges.back().second == start) {
      ranges.back().second = uintptr_t(end);
    } else {
      ranges.emplace_back(uintptr_t(start), uintptr_t(end));
    }
  }
  return ranges;
}

std::vector<HugePages::Range> HugePages::Added(const std::vector<Range>& before, const std::vector<Range>& after, uintptr_t page) {
  std::vector<Range> added;
  auto keep = [&](uintptr_t start, uintptr_t end) {
    start = (start + page - 1) / page * page;
    end = end / page * page;
    if (start < end) added.emplace_back(start, end);
  };
  auto old = before.begin();
  for (auto [start, end] : after) {
    while (old != before.end() && old->second <= start) ++old;
    for (auto each = old; each != before.end() && each->first < end; ++each) {
      if (start < each->first) keep(start, each->first);
      start = std::max(start, each->second);
    }
    if (start < end) keep(start, end);
  }
  return added;
}

#ifdef __linux__
HugePages::HugePages() : before_(PageSize() ? Anonymous(Text(kMaps)) : std::vector<Range>{}) {}

void HugePages::Join() const {
  constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1: join the pages now.
  const uintptr_t page = PageSize();
  if (!page) return;
  for (const auto& [start, end] : Added(before_, Anonymous(Text(kMaps)), page)) {
    // A kernel that refuses leaves small pages, and nothing else changes.
    madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
    madvise(reinterpret_cast<void*>(start), end - start, kCollapse);
  }
}
#else
HugePages::HugePages() = default;
void HugePages::Join() const {}
#endif

}  // namespace specc
