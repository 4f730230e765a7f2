// A bundle's manifest, checked. docs/bundle-format.md is the specification.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace specc {

struct Tensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
};

// How the slots of an engine can stand: in a tree that is baked in, in any tree, or in a part of a tree that grows.
enum class Topology { kTree, kParents, kFrontier };

constexpr const char* kTarget = "target";  // The model that is decoded, and its cache.

// An engine of the backend onnx.
struct EngineSpec {
  std::string name, file, weights, cache, model;
  size_t slots = 0;
  Topology topology = Topology::kTree;
  std::vector<int64_t> parents;  // Of a baked tree; empty for other topologies.
  std::vector<Tensor> inputs, outputs;
  nlohmann::json layers;  // Those that the block leaves out.
  std::map<std::string, std::string> needs;  // The least version of what must be on the machine, by name.
  int threads = 0;

  // Whether the engine can run a draft with these parents.
  bool Fits(const std::vector<int64_t>& draft_parents) const;
};

struct CacheSpec {
  size_t capacity = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> layers;  // Heads and size, by the layer's name.
};

struct Recipe {
  std::string name, drafter, acceptance;
  std::vector<std::string> verify;
  std::map<std::string, std::string> engines;  // The drafter's, by its own name for each.
  nlohmann::json parameters;
  double speed_up = 0;  // As the compiler measured it; 0 if it did not.
  int drafter_version = 1, acceptance_version = 1;  // Of their algorithms.
};

struct Bundle {
  // Reads a bundle and compares the digest of each file. Throws Error.
  explicit Bundle(const std::string& path);

  const EngineSpec& Engine(const std::string& name) const;

  std::string path, default_recipe;
  std::vector<int64_t> eos;
  size_t context = 0, vocab_size = 0;
  double near_tie_tolerance = 0;
  std::vector<EngineSpec> engines;
  std::map<std::string, CacheSpec> caches;
  std::vector<Recipe> recipes;
};

}  // namespace specc
