// Token ids.
#pragma once

#include <cstdint>
#include <vector>

namespace specc {

using Tokens = std::vector<int64_t>;

}  // namespace specc
