#include "parameters.h"

#include <cmath>

#include "error.h"

namespace specc {

namespace {

using nlohmann::json;

constexpr size_t kMostTokens = 127, kMostSlots = 4096, kMostRates = 16;

[[noreturn]] void Refuse(const Recipe& recipe, const char* name, const std::string& expected) {
  const std::string value = recipe.parameters.value(name, json()).dump().substr(0, 60);
  throw Error("recipe " + recipe.name + ": " + name + " is " + value + "; it must be " + expected + ": compile the bundle again");
}

// The parameter, or null if the recipe has none.
json Value(const Recipe& recipe, const char* name) {
  if (!recipe.parameters.is_object()) throw Error("recipe " + recipe.name + " has no map of parameters; compile the bundle again");
  return recipe.parameters.value(name, json());
}

bool IsProbability(const json& value) { return value.is_number() && value >= 0 && value <= 1; }

bool IsCount(const json& value, size_t most) { return value.is_number_integer() && value >= 1 && value <= most; }

}  // namespace

size_t CountOf(const Recipe& recipe, const char* name) {
  const json value = Value(recipe, name);
  if (!IsCount(value, kMostTokens)) Refuse(recipe, name, "a whole number from 1 to 127");
  return value;
}

double ProbabilityOf(const Recipe& recipe, const char* name, double missing) {
  const json value = Value(recipe, name);
  if (value.is_null()) return missing;
  if (!IsProbability(value)) Refuse(recipe, name, "a probability from 0 to 1");
  return value;
}

std::vector<double> ProbabilitiesOf(const Recipe& recipe, const char* name) {
  const json values = Value(recipe, name);
  bool right = values.is_array() && !values.empty() && values.size() <= kMostRates;
  for (const json& value : values) right = right && IsProbability(value);
  if (!right) Refuse(recipe, name, "1 to 16 probabilities");
  return values;
}

std::vector<int64_t> TreeOf(const Recipe& recipe) {
  const json values = Value(recipe, "tree");
  bool right = values.is_array() && !values.empty() && values.size() <= kMostSlots && values[0] == -1;
  for (size_t slot = 1; right && slot < values.size(); slot++) {
    right = values[slot].is_number_integer() && values[slot] >= 0 && values[slot] < slot;
  }
  if (!right) Refuse(recipe, "tree", "the parent of each slot, -1 for the first");
  return values;
}

std::vector<std::pair<size_t, double>> StepCostsOf(const Recipe& recipe) {
  const json values = Value(recipe, "step_costs");
  if (values.is_null()) return {};
  std::vector<std::pair<size_t, double>> costs;
  bool right = values.is_array();
  for (const json& pair : values) {
    right = right && pair.is_array() && pair.size() == 2 && IsCount(pair[0], kMostTokens + 1) && pair[1].is_number() && pair[1] > 0;
    if (!right) break;
    right = costs.empty() ? pair[0] == 1 : pair[0] > costs.back().first;
    costs.emplace_back(pair[0], pair[1]);
  }
  if (!right) Refuse(recipe, "step_costs", "pairs of slots and a cost, from one slot on");
  return costs;
}

}  // namespace specc
