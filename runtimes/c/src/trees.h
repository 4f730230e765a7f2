// Drafters of token trees by an engine that runs some slots of a tree a call.
#pragma once

#include <memory>

#include "drafters.h"

namespace specc {

// `early-exit` and `static-tree`: one tree, filled level by level. A child of rank r gets the r-th likeliest token.
std::unique_ptr<Drafter> MakeStaticTree(const Recipe& recipe, const Context& context);

// `dynamic-tree`: DySpec's tree by a threshold (Xiong et al. 2024, arXiv:2410.11744).
std::unique_ptr<Drafter> MakeDynamicTree(const Recipe& recipe, const Context& context);

}  // namespace specc
