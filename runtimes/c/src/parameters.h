// Parameters of a recipe, checked: a stranger may have written the manifest.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "bundle.h"

namespace specc {

// A number of tokens, 1 to 127. Throws Error if the recipe has no such parameter.
size_t CountOf(const Recipe& recipe, const char* name);

// A probability. Throws Error if the parameter is there and is none.
double ProbabilityOf(const Recipe& recipe, const char* name, double missing);

// One to 16 probabilities.
std::vector<double> ProbabilitiesOf(const Recipe& recipe, const char* name);

// The parameter `tree`: the parent of each slot. Slot 0 has -1, and every other slot a parent before itself.
std::vector<int64_t> TreeOf(const Recipe& recipe);

// Pairs of slots and a cost, from one slot on, ascending; empty if the recipe has none.
std::vector<std::pair<size_t, double>> StepCostsOf(const Recipe& recipe);

}  // namespace specc
