#include "bundle.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "error.h"
#include "manifest_text.h"
#include "sha256.h"

namespace specc {

namespace {

using nlohmann::json;

constexpr int64_t kMostSize = 2147483647;
constexpr double kMostNumbers = 1e12;  // Of one tensor.
constexpr double kTolerance = 0.001;   // Of a near-tie in fp32.

// Throws Error if a folder, a pipe or a device has the place of a file: a program that reads a pipe waits for ever.
void CheckIsFile(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(path + " is not a file; compile the bundle again");
  }
}

std::string ReadFile(const std::string& path) {
  CheckIsFile(path);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot read " + path + "; name a bundle that specc compile wrote");
  std::string content{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) throw Error("cannot read " + path + "; copy the bundle again");
  return content;
}

std::string DigestOfFile(const std::string& path, uint64_t expected_bytes) {
  CheckIsFile(path);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + " is missing; compile the bundle again");
  Sha256 digest;
  std::vector<char> buffer(1 << 16);
  uint64_t bytes = 0;
  while (file) {
    file.read(buffer.data(), std::streamsize(buffer.size()));
    digest.Add(buffer.data(), size_t(file.gcount()));
    bytes += uint64_t(file.gcount());
  }
  return bytes == expected_bytes ? digest.Finish() : "";
}

// A path inside the bundle: neither absolute nor with a part that leads out of it.
void CheckPath(const std::string& name) {
  if (name.empty() || name[0] == '/' || name.find('\\') != std::string::npos || ("/" + name + "/").find("/../") != std::string::npos) {
    throw Error("the manifest lists the path '" + name + "', which is not inside the bundle; compile it again");
  }
}

// A size, of which no product of a few overflows. Throws Error.
int64_t Size(const json& value) {
  if (!value.is_number_integer() || value < 1 || value > kMostSize) {
    throw Error("the manifest has the size " + value.dump() + "; sizes are 1 to 2147483647: compile the bundle again");
  }
  return value;
}

std::vector<Tensor> Tensors(const json& list) {
  std::vector<Tensor> tensors;
  for (const json& each : list) {
    Tensor tensor{each.at("name"), each.at("dtype"), {}};
    double count = 1;
    for (const json& size : each.at("shape")) {
      tensor.shape.push_back(Size(size));
      count *= double(tensor.shape.back());
    }
    if (count > kMostNumbers) throw Error(tensor.name + " is larger than any memory; compile the bundle again");
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// Throws Error if a part of the manifest names something that is not there.
void CheckNames(const Bundle& bundle, const json& manifest) {
  auto check = [](bool is_there, const std::string& what, const std::string& name, const std::string& by) {
    if (!is_there) throw Error("the bundle has no " + what + " '" + name + "', which " + by + " names; compile it again");
  };
  std::set<std::string> engines;  // Of all backends.
  for (const json& each : manifest.at("engines")) engines.insert(each.at("name").get<std::string>());
  for (const EngineSpec& engine : bundle.engines) {
    for (const std::string& file : {engine.file, engine.weights}) check(manifest.at("files").contains(file), "file", file, "engine " + engine.name);
    check(bundle.caches.count(engine.cache) > 0, "cache", engine.cache, "engine " + engine.name);
  }
  bool has_default = false;
  for (const Recipe& recipe : bundle.recipes) {
    has_default |= recipe.name == bundle.default_recipe;
    for (const std::string& name : recipe.verify) check(engines.count(name) > 0, "engine", name, "recipe " + recipe.name);
    for (const auto& [role, name] : recipe.engines) check(engines.count(name) > 0, "engine", name, "recipe " + recipe.name);
  }
  check(has_default, "recipe", bundle.default_recipe, "default_recipe");
}

// The gap of two logits below which either token is right. Logits of narrow weights alone are further apart.
double Tolerance(const json& value, const std::string& weights) {
  const double most = weights == "fp32" ? kTolerance : 1;
  if (!value.is_number() || value < 0 || value > most) {
    throw Error("near_tie_tolerance is " + value.dump() + "; of a target in " + weights + " it is 0 to " + (weights == "fp32" ? "0.001" : "1") +
                ": compile the bundle again");
  }
  return value;
}

// `weights`: the file of an engine that names none.
EngineSpec ParseEngine(const json& data, const std::string& weights) {
  const json& block = data.at("block");
  EngineSpec spec;
  spec.name = data.at("name");
  spec.file = data.at("file");
  spec.weights = data.value("weights", "");
  if (spec.weights.empty()) spec.weights = weights;
  spec.cache = block.value("cache", kTarget);
  spec.model = block.value("model", kTarget);
  const json threads = data.value("threads", json(0u));
  if (!threads.is_number_unsigned() || threads > 4096) throw Error("engine " + spec.name + " has no number of threads from 0 to 4096; compile the bundle again");
  spec.threads = threads;
  spec.inputs = Tensors(data.at("inputs"));
  spec.outputs = Tensors(data.at("outputs"));
  spec.layers = block.value("layers", json::object());
  spec.needs = data.value("needs", std::map<std::string, std::string>());
  const json& topology = block.at("topology");
  if (topology.contains("parents")) {
    spec.parents = topology["parents"].get<std::vector<int64_t>>();
    for (size_t slot = 0; slot < spec.parents.size(); slot++) {
      const int64_t parent = spec.parents[slot];
      if (slot ? parent < 0 || parent >= int64_t(slot) : parent != -1) {
        throw Error("slot " + std::to_string(slot) + " of engine " + spec.name + " has the parent " + std::to_string(parent) +
                    ", which makes no tree; compile the bundle again");
      }
    }
  } else {
    spec.topology = topology.contains("span") ? Topology::kFrontier : Topology::kParents;
  }
  auto ids = std::find_if(spec.inputs.begin(), spec.inputs.end(), [](const Tensor& tensor) { return tensor.name == "input_ids"; });
  if (ids == spec.inputs.end() || ids->shape.size() != 2 || ids->shape[0] != 1) {
    throw Error("engine " + spec.name + " has no input_ids [1, slots]; compile the bundle again");
  }
  spec.slots = size_t(ids->shape[1]);
  return spec;
}

}  // namespace

bool EngineSpec::Fits(const std::vector<int64_t>& draft_parents) const {
  if (draft_parents.size() > slots) return false;
  if (topology == Topology::kParents) return true;
  if (topology == Topology::kTree) {
    return draft_parents.size() <= parents.size() && std::equal(draft_parents.begin(), draft_parents.end(), parents.begin());
  }
  for (size_t slot = 0; slot < draft_parents.size(); slot++) {
    if (draft_parents[slot] != int64_t(slot) - 1) return false;
  }
  return true;
}

Bundle::Bundle(const std::string& path) : path(path) {
  const std::string file = path + "/manifest.json";
  const json manifest = Naming(file, [&] { return ParseManifest(ReadFile(file), file); });
  std::map<std::string, std::pair<uint64_t, std::string>> files;  // Bytes and digest of each.
  Naming(file, [&] {
    for (const auto& [name, each] : manifest.at("files").items()) {
      CheckPath(name);
      files[name] = {each.at("bytes").get<uint64_t>(), each.at("sha256").get<std::string>()};
    }
  });
  for (const auto& [name, expected] : files) {
    if (DigestOfFile(path + "/" + name, expected.first) != expected.second) throw Error(path + "/" + name + " was changed; compile the bundle again");
  }
  Naming(file, [&] {
    const json& model = manifest.at("model");
    eos = model.at("eos_token_ids").get<std::vector<int64_t>>();
    context = size_t(Size(model.at("context")));
    vocab_size = size_t(Size(model.at("vocab_size")));
    default_recipe = manifest.at("default_recipe");
    for (const json& each : manifest.at("engines")) {
      if (each.at("backend") != "onnx" || each.at("block").value("lanes", json(1)) != 1) continue;
      engines.push_back(ParseEngine(each, manifest.value("weights", "weights.safetensors")));
      if (engines.back().name == "decode") near_tie_tolerance = Tolerance(manifest.value("near_tie_tolerance", json(kTolerance)), each["block"].value("weights", "fp32"));
    }
    for (const auto& [name, cache] : manifest.at("caches").items()) {
      const std::string dtype = cache.value("dtype", "float32");
      if (dtype != "float32") throw Error("cache " + name + " has rows of " + dtype + ", and libspecc has float32; compile with --lowering fast and --dtype fp32");
      CacheSpec& spec = caches[name];
      spec.capacity = size_t(Size(cache.at("capacity")));
      for (const auto& [layer, shape] : cache.at("layers").items()) {
        spec.layers[layer] = {Size(shape.at(0)), Size(shape.at(1))};
        if (double(spec.capacity) * double(spec.layers[layer].first) * double(spec.layers[layer].second) > kMostNumbers) {
          throw Error("cache " + name + " is larger than any memory; compile the bundle again");
        }
      }
    }
    for (const json& each : manifest.at("recipes")) {
      Recipe recipe{each.at("name"), each.at("drafter"), each.value("acceptance", "match"), each.at("verify"), {}, each.value("parameters", json::object())};
      recipe.engines = each.value("engines", std::map<std::string, std::string>());
      recipe.drafter_version = each.value("drafter_version", 1);
      recipe.acceptance_version = each.value("acceptance_version", 1);
      for (const json& row : manifest.value("measured", json::array())) {
        if (row.value("recipe", "") == recipe.name) recipe.speed_up = row.value("speedup", 0.0);
      }
      recipes.push_back(std::move(recipe));
    }
    CheckNames(*this, manifest);
  });
}

const EngineSpec& Bundle::Engine(const std::string& name) const {
  for (const EngineSpec& engine : engines) {
    if (engine.name == name) return engine;
  }
  throw Error("the bundle has no engine '" + name + "' of the backend onnx; compile it again");
}

}  // namespace specc
