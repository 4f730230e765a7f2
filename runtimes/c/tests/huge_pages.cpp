// A program that checks which memory libspecc asks huge pages for. Its exit status is the number of faults.

#include "../src/huge_pages.h"

#include <cstdio>

namespace {

using specc::HugePages;
using Ranges = std::vector<HugePages::Range>;

// Memory as /proc/self/maps lists it: of a program, the heap in two parts, without a name, of a file, of a thread's stack.
constexpr const char* kMaps =
    "00400000-00420000 rw-p 00020000 fe:00 1234 /bin/a program\n"
    "01000000-01400000 rw-p 00000000 00:00 0                                  [heap]\n"
    "01400000-01800000 rw-p 00000000 00:00 0                                  [heap]\n"
    "7f0000000000-7f0000300000 rw-p 00000000 00:00 0 \n"
    "7f0000300000-7f0000500000 r--p 00000000 00:00 0 \n"
    "7f0000500000-7f0000600000 rw-s 00000000 00:01 77 /dev/shm/x\n"
    "7f0000700000-7f0000800000 rw-p 00000000 00:00 0 \n"
    "7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n"
    "no line of the kernel\n";

int faults = 0;

void Expect(const char* what, const Ranges& found, const Ranges& expected) {
  if (found == expected) return;
  faults++;
  std::printf("%s gives", what);
  for (const auto& [start, end] : found) std::printf(" %zx-%zx", size_t(start), size_t(end));
  std::puts("");
}

}  // namespace

int main() {
  Expect("a map", HugePages::Anonymous(kMaps), {{0x1000000, 0x1800000}, {0x7f0000000000, 0x7f0000300000}, {0x7f0000700000, 0x7f0000800000}});
  Expect("all new", HugePages::Added({}, {{0x100, 0x510}}, 0x100), {{0x100, 0x500}});
  Expect("nothing new", HugePages::Added({{0x100, 0x500}}, {{0x100, 0x500}}, 0x100), {});
  Expect("memory that grew at both ends", HugePages::Added({{0x310, 0x380}}, {{0x080, 0x610}}, 0x100), {{0x100, 0x300}, {0x400, 0x600}});
  Expect("memory that was freed", HugePages::Added({{0x100, 0x900}}, {{0x200, 0x300}, {0xa00, 0xb00}}, 0x100), {{0xa00, 0xb00}});
  Expect("one old part of two new ones", HugePages::Added({{0x300, 0x700}}, {{0x100, 0x400}, {0x600, 0x900}}, 0x100), {{0x100, 0x300}, {0x700, 0x900}});
  Expect("less than a page", HugePages::Added({}, {{0x110, 0x2f0}}, 0x100), {});
  return faults;
}
