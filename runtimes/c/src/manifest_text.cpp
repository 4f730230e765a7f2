#include "manifest_text.h"

#include <map>
#include <set>
#include <vector>

#include "error.h"
#include "sha256.h"

namespace specc {

namespace {

using nlohmann::json;
using Names = std::set<std::string>;

constexpr int kOldestSchema = 2, kSchema = 3;
constexpr size_t kDigest = 64, kAfterDigest = 4;  // Characters: the digits, and what follows them at the end of the file.
constexpr int kMostNesting = 32;
constexpr size_t kShown = 60;  // Characters of a value in a message.
constexpr const char* kRemedy = "; compile the bundle again";

// The fields of each kind of object, as docs/bundle-format.md has them.
const Names kManifest = {"schema", "model", "engines", "caches", "recipes", "default_recipe", "versions", "files", "weights", "measured",
                         "provisional", "near_tie_tolerance", "width_invariance", "extra", "manifest_sha256"};
const Names kModel = {"source", "revision", "architecture", "vocab_size", "layers", "context", "eos_token_ids", "generation_config"};
const Names kEngine = {"name", "backend", "file", "block", "layers", "inputs", "outputs", "passes", "weights", "needs", "commit",
                       "weight_inputs", "threads"};
const Names kTensor = {"name", "dtype", "shape"};
const Names kPass = {"name", "changed", "nodes_before", "nodes_after", "seconds", "note"};
const Names kCache = {"capacity", "layers", "dtype"};
const Names kFile = {"bytes", "sha256"};
const Names kBlock = {"topology", "outputs", "layers", "last_row", "weights", "model", "cache", "lanes", "inputs", "quantized_group", "quantized_bits", "pruning"};
const Names kTopology = {"parents", "slots", "span", "tokens", "head"};
const Names kPruning = {"after", "tokens"};
const Names kLayers = {"skip_attention", "skip_mlp", "exit_after", "start_after", "parallel_group", "bridge"};
const Names kInvariance = {"backend", "holds", "difference", "changed", "tokens", "slots", "slots_agree"};
const Names kRecipe = {"name", "drafter", "verify", "acceptance", "lossless", "engines", "parameters", "rule_parameters", "drafter_version",
                       "acceptance_version"};

// Throws Error if an object has a field that is not among `names`. Names that begin with x- belong to tools.
void CheckFields(const json& object, const Names& names, const std::string& where) {
  for (const auto& [name, value] : object.items()) {
    if (!names.count(name) && name.rfind("x-", 0) != 0) throw Error(where + " has a field '" + name + "' that the format does not have" + kRemedy);
  }
}

// As CheckFields, for each item of an array or of a map.
void CheckEach(const json& list, const Names& names, const std::string& where) {
  for (const json& object : list) CheckFields(object, names, where);
}

void CheckEngine(const json& engine) {
  const std::string where = "engine " + engine.at("name").get<std::string>();
  const json& block = engine.at("block");
  CheckFields(engine, kEngine, where);
  CheckEach(engine.at("inputs"), kTensor, where);
  CheckEach(engine.at("outputs"), kTensor, where);
  CheckEach(engine.value("passes", json::array()), kPass, where);
  CheckFields(block, kBlock, where);
  CheckFields(block.at("topology"), kTopology, where);
  CheckFields(block.value("layers", json::object()), kLayers, where);
  const json pruning = block.value("pruning", json());
  if (!pruning.is_null()) CheckFields(pruning, kPruning, where);
}

void CheckAllFields(const json& manifest) {
  CheckFields(manifest, kManifest, "the manifest");
  CheckFields(manifest.at("model"), kModel, "model");
  for (const json& engine : manifest.at("engines")) CheckEngine(engine);
  CheckEach(manifest.at("caches"), kCache, "a cache");
  CheckEach(manifest.at("files"), kFile, "a file");
  CheckEach(manifest.at("recipes"), kRecipe, "a recipe");
  const json invariance = manifest.value("width_invariance", json());
  if (!invariance.is_null()) CheckFields(invariance, kInvariance, "width_invariance");
}

// Watches the parser, and keeps the first fault of a text that JSON itself allows.
class Watcher {
 public:
  bool operator()(int depth, json::parse_event_t event, const json& value) {
    if (!fault.empty()) return false;  // The parser leaves out what follows, so the names that are open are not known.
    if (depth > kMostNesting) fault = "is nested too deep";
    if (event == json::parse_event_t::object_start) open_.emplace_back();
    if (event == json::parse_event_t::object_end && !open_.empty()) open_.pop_back();
    if (event == json::parse_event_t::key && !open_.empty() && !open_.back().insert(value.get<std::string>()).second) fault = "has a name twice in an object";
    if (value.is_string() && !IsPrintable(value.get_ref<const std::string&>())) fault = "has a text with a control character";
    return fault.empty();
  }

  std::string fault;  // Empty if there is none.

 private:
  // Control characters are those below a space, and U+007F to U+009F, which are two bytes in UTF-8 but for the first.
  static bool IsPrintable(const std::string& text) {
    unsigned char last = 0;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f || (last == 0xc2 && byte < 0xa0)) return false;
      last = byte;
    }
    return true;
  }

  std::vector<Names> open_;  // The names of each object that is not at its end yet.
};

}  // namespace

json ParseManifest(std::string content, const std::string& path) {
  if (content.size() < kDigest + kAfterDigest) throw Error(path + " is too short" + kRemedy);
  const size_t start = content.size() - kDigest - kAfterDigest;
  json manifest;
  Watcher watcher;
  try {
    manifest = json::parse(content, [&](int depth, json::parse_event_t event, json& value) { return watcher(depth, event, value); });
  } catch (const json::exception&) {
    throw Error(path + " is not JSON" + kRemedy);
  }
  if (!watcher.fault.empty()) throw Error(path + " " + watcher.fault + kRemedy);
  if (!manifest.is_object()) throw Error(path + " is not a manifest" + kRemedy);
  if (!manifest.contains("schema") || !manifest["schema"].is_number_integer()) {
    const std::string value = manifest.contains("schema") ? manifest["schema"].dump().substr(0, kShown) : "none";
    throw Error("the schema of " + path + " is " + value + ", and this library reads 2 and 3" + kRemedy);
  }
  const int64_t schema = manifest["schema"];
  if (schema < kOldestSchema || schema > kSchema) {
    throw Error("the bundle has schema " + std::to_string(schema) + ", and this library reads 2 and 3" +
                (schema > kSchema ? "; use a newer library" : kRemedy));
  }
  const std::string digits = content.substr(start, kDigest);
  content.replace(start, kDigest, kDigest, '0');
  Sha256 digest;
  digest.Add(content.data(), content.size());
  if (digest.Finish() != digits) throw Error(path + " was changed" + kRemedy);
  CheckAllFields(manifest);
  return manifest;
}

}  // namespace specc
