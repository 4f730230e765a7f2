#include "bundle.h"

#include <algorithm>
#include <fstream>

#include "error.h"
#include "sha256.h"

namespace specc {

namespace {

using nlohmann::json;

constexpr int kOldestSchema = 2, kSchema = 3;
constexpr size_t kDigest = 64, kAfterDigest = 4;  // Characters: the digits, and what follows them at the end of the file.
constexpr int kMostNesting = 32;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot read " + path + "; name a bundle that specc compile wrote");
  std::string content{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) throw Error("cannot read " + path);
  return content;
}

std::string DigestOfFile(const std::string& path, uint64_t expected_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + " is missing; compile the bundle again");
  Sha256 digest;
  std::vector<char> buffer(1 << 20);
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

json ParseManifest(const std::string& path) {
  std::string content = ReadFile(path);
  if (content.size() < kDigest + kAfterDigest) throw Error(path + " is too short; compile the bundle again");
  size_t start = content.size() - kDigest - kAfterDigest;
  json manifest;
  try {
    bool too_deep = false;
    manifest = json::parse(content, [&](int depth, json::parse_event_t, json&) {
      too_deep |= depth > kMostNesting;
      return !too_deep;
    });
    if (too_deep) throw Error(path + " is nested too deep; compile the bundle again");
  } catch (const json::exception&) {
    throw Error(path + " is not JSON; compile the bundle again");
  }
  if (!manifest.is_object() || !manifest.contains("schema") || !manifest["schema"].is_number_integer()) {
    throw Error(path + " is not a manifest; compile the bundle again");
  }
  int64_t schema = manifest["schema"];
  if (schema < kOldestSchema || schema > kSchema) {
    throw Error("the bundle has schema " + std::to_string(schema) + ", and this library reads 2 and 3; " +
                (schema > kSchema ? "use a newer library" : "compile the bundle again"));
  }
  std::string digits = content.substr(start, kDigest);
  content.replace(start, kDigest, kDigest, '0');
  Sha256 digest;
  digest.Add(content.data(), content.size());
  if (digest.Finish() != digits) throw Error(path + " was changed; compile the bundle again");
  return manifest;
}

std::vector<Tensor> Tensors(const json& list) {
  std::vector<Tensor> tensors;
  for (const json& each : list) tensors.push_back({each.at("name"), each.at("dtype"), each.at("shape")});
  return tensors;
}

EngineSpec ParseEngine(const json& data) {
  const json& block = data.at("block");
  EngineSpec spec;
  spec.name = data.at("name");
  spec.file = data.at("file");
  spec.weights = data.at("weights");
  spec.cache = block.at("cache");
  spec.model = block.at("model");
  spec.threads = data.at("threads");
  spec.inputs = Tensors(data.at("inputs"));
  spec.outputs = Tensors(data.at("outputs"));
  if (block.at("topology").contains("parents")) spec.parents = block["topology"]["parents"].get<std::vector<int64_t>>();
  return spec;
}

}  // namespace

bool EngineSpec::Fits(const std::vector<int64_t>& draft_parents) const {
  return draft_parents.size() <= parents.size() && std::equal(draft_parents.begin(), draft_parents.end(), parents.begin());
}

Bundle::Bundle(const std::string& path) : path(path) {
  const json manifest = ParseManifest(path + "/manifest.json");
  try {
    for (const auto& [name, file] : manifest.at("files").items()) {
      CheckPath(name);
      if (DigestOfFile(path + "/" + name, file.at("bytes")) != file.at("sha256")) {
        throw Error(path + "/" + name + " was changed; compile the bundle again");
      }
    }
    const json& model = manifest.at("model");
    eos = model.at("eos_token_ids").get<std::vector<int64_t>>();
    context = model.at("context");
    vocab_size = model.at("vocab_size");
    default_recipe = manifest.at("default_recipe");
    for (const json& each : manifest.at("engines")) {
      if (each.at("backend") != "onnx" || each.at("block").at("lanes") != 1) continue;
      if (!manifest["files"].contains(each.at("file"))) throw Error("engine " + each.at("name").get<std::string>() + " has no file");
      for (const auto& [need, version] : each.at("needs").items()) {
        if (need.rfind("specc::", 0) == 0) throw Error("an engine needs " + need + ", which libspecc has not; compile with --lowering fast");
      }
      engines.push_back(ParseEngine(each));
    }
    for (const auto& [name, cache] : manifest.at("caches").items()) {
      if (cache.at("dtype") != "float32") throw Error("cache " + name + " has rows of " + cache["dtype"].get<std::string>() + "; libspecc has float32");
      CacheSpec& spec = caches[name];
      spec.capacity = cache.at("capacity");
      for (const auto& [layer, shape] : cache.at("layers").items()) spec.layers[layer] = {shape.at(0), shape.at(1)};
    }
    for (const json& each : manifest.at("recipes")) {
      Recipe recipe{each.at("name"), each.at("drafter"), each.at("acceptance"), each.at("verify"), each.at("engines"), each.at("parameters")};
      for (const json& row : manifest.at("measured")) {
        if (row.value("recipe", "") == recipe.name) recipe.speed_up = row.value("speedup", 0.0);
      }
      recipes.push_back(std::move(recipe));
    }
  } catch (const json::exception& e) {
    throw Error(path + "/manifest.json: " + e.what() + "; compile the bundle again");
  }
}

const EngineSpec& Bundle::Engine(const std::string& name) const {
  for (const EngineSpec& engine : engines) {
    if (engine.name == name) return engine;
  }
  throw Error("the bundle has no engine '" + name + "' of the backend onnx; compile it again");
}

}  // namespace specc
