// A program that replays a bundle's golden outputs by every recipe that libspecc has.
//
//   specc-replay BUNDLE [ROUNDS | --json]
//   specc-replay --help
//
// It prints a line for each recipe: how its tokens compare with the golden ones, and its speed. With --json it prints first a
// line for each recipe that it leaves out, and then one for each recipe and case, with its tokens, as `specc test --runtime`
// reads them. The exit status is 1 if a recipe diverged, and 2 if the bundle cannot be used.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "specc.h"

namespace {

using Tokens = std::vector<int64_t>;

constexpr double kTolerance = 0.001;  // The widest gap of a near-tie, as for specc test.

constexpr const char* kUnwritable = "cannot write the output; free some space, or write it elsewhere";
constexpr const char* kHelp =
    "usage: specc-replay BUNDLE [ROUNDS | --json]\n"
    "\n"
    "Replays a bundle's golden outputs by every recipe that libspecc has, and prints a line for each.\n"
    "\n"
    "  ROUNDS   how often each golden case is decoded; default: 1\n"
    "  --json   print the tokens of each recipe and case, for specc test --runtime\n"
    "  --help   print this text\n"
    "\n"
    "SPECC_ONNXRUNTIME names ONNX Runtime's library. The exit status is 1 if a recipe diverged, and 2 if the bundle cannot be used.\n";

struct Case {
  Tokens prompt, golden;
  std::vector<double> gaps;
};

int Fail(const std::string& message) {
  std::fprintf(stderr, "specc-replay: error: %s\n", message.c_str());
  return 2;
}

// Token ids of a case. nlohmann-json would cut 1.5 to 1.
Tokens TokenIds(const nlohmann::json& list) {
  for (const auto& token : list) {
    if (!token.is_number_integer()) throw std::runtime_error("token " + token.dump() + " is not a whole number");
  }
  return list;
}

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto data = nlohmann::json::parse(line, nullptr, false);
    const auto has_list = [&](const char* name) { return data.is_object() && data.contains(name) && data[name].is_array(); };
    if (!has_list("prompt_ids") || !has_list("token_ids") || !has_list("gaps")) {
      throw std::runtime_error("golden case " + std::to_string(cases.size()) + " has no prompt_ids, token_ids and gaps");
    }
    cases.push_back({TokenIds(data["prompt_ids"]), TokenIds(data["token_ids"]), data["gaps"]});
  }
  return cases;
}

// Why golden cases cannot be those of a model, or an empty text. A test of no case, or of one that any answer passes, would
// prove nothing.
std::string Fault(const std::vector<Case>& cases, const nlohmann::json& model, double tolerance) {
  if (cases.empty()) return "there are no golden cases";
  std::map<Tokens, size_t> prompts;  // The number of the case that each belongs to.
  const int64_t context = model.at("context"), vocabulary = model.at("vocab_size");
  for (size_t number = 0; number < cases.size(); number++) {
    const Case& each = cases[number];
    const std::string name = "golden case " + std::to_string(number) + " has ";
    if (each.prompt.empty() || each.golden.empty() || int64_t(each.prompt.size() + each.golden.size()) > context) {
      return name + std::to_string(each.prompt.size()) + " and " + std::to_string(each.golden.size()) + " tokens, of a context of " +
             std::to_string(context);
    }
    if (each.gaps.size() != each.golden.size()) {
      return name + std::to_string(each.gaps.size()) + " gaps for " + std::to_string(each.golden.size()) + " tokens";
    }
    for (const Tokens* tokens : {&each.prompt, &each.golden}) {
      for (int64_t token : *tokens) {
        if (token < 0 || token >= vocabulary) return name + "token " + std::to_string(token) + ", and the vocabulary has " + std::to_string(vocabulary);
      }
    }
    const size_t first = prompts.emplace(each.prompt, number).first->second;
    if (first != number) return name + "the prompt of golden case " + std::to_string(first) + ", and a copy proves nothing";
    size_t ties = 0;
    for (double gap : each.gaps) {
      if (!(gap >= 0)) return name + "the gap " + std::to_string(gap) + "; gaps are 0 or more";
      ties += gap < tolerance;
    }
    if (2 * ties > each.gaps.size()) {
      return name + std::to_string(ties) + " of " + std::to_string(each.gaps.size()) + " gaps below the tolerance of " +
             std::to_string(tolerance) + ", so nearly any answer would pass";
    }
  }
  return "";
}

// The recipes of the bundle that libspecc leaves out: their names, and the reasons.
std::vector<std::pair<std::string, std::string>> LeftOut(const nlohmann::json& manifest, const specc_model* model) {
  std::set<std::string> names;
  for (size_t index = 0; const char* recipe = specc_recipe(model, index); index++) names.insert(recipe);
  std::vector<std::pair<std::string, std::string>> recipes;
  for (const auto& recipe : manifest.at("recipes")) {
    const std::string name = recipe.at("name"), drafter = recipe.at("drafter"), rule = recipe.value("acceptance", "match");
    if (names.count(name)) continue;
    std::string reason = "libspecc lacks drafter " + drafter + ", version " + std::to_string(recipe.value("drafter_version", 1)) +
                         ", with rule " + rule + ", version " + std::to_string(recipe.value("acceptance_version", 1));
    const nlohmann::json parameters = recipe.value("parameters", nlohmann::json::object());
    std::string names_of_parameters;
    for (const auto& [parameter, value] : parameters.items()) {
      names_of_parameters += (names_of_parameters.empty() ? ", and parameters " : ", ") + parameter;
    }
    recipes.emplace_back(name, reason + names_of_parameters);
  }
  return recipes;
}

int Append(void* answer, const int64_t* tokens, size_t count) {
  static_cast<Tokens*>(answer)->insert(static_cast<Tokens*>(answer)->end(), tokens, tokens + count);
  return 0;
}

double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

int Replay(int count, char** arguments) {
  for (int index = 1; index < count; index++) {
    const std::string argument = arguments[index];
    if (argument == "--help" || argument == "-h") return std::fputs(kHelp, stdout) < 0 || std::fflush(stdout) ? Fail(kUnwritable) : 0;
  }
  if (count < 2 || count > 3) return Fail("give a bundle: specc-replay BUNDLE [ROUNDS | --json]");
  const std::string path = arguments[1];
  if (path[0] == '-') return Fail("there is no option " + path + "; give a bundle: specc-replay BUNDLE [ROUNDS | --json]");
  const std::string option = count > 2 ? arguments[2] : "1";
  const bool json = option == "--json";
  const bool is_number = !option.empty() && option.size() < 9 && option.find_first_not_of("0123456789") == std::string::npos;
  const int rounds = json ? 1 : is_number ? std::atoi(option.c_str()) : 0;
  if (rounds < 1) return Fail("ROUNDS is " + option + "; give a number of 1 or more, or --json");
  specc_model* model = nullptr;
  specc_session* session = nullptr;
  specc_options options{};
  options.threads = 1;
  if (specc_open(path.c_str(), &options, &model) || specc_session_open(model, &session)) return Fail(specc_error());
  std::vector<Case> cases;
  nlohmann::json manifest;
  double tolerance = 0;
  std::string fault;
  try {
    manifest = nlohmann::json::parse(std::ifstream(path + "/manifest.json"));
    if (!manifest.at("files").contains("golden.jsonl")) throw std::runtime_error("the manifest does not list it");
    cases = ReadCases(path + "/golden.jsonl");
    tolerance = std::min(manifest.value("near_tie_tolerance", kTolerance), kTolerance);
    fault = Fault(cases, manifest.at("model"), tolerance);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return Fail(path + "/golden.jsonl: " + e.what() + "; compile the bundle again");
  }
  if (!fault.empty()) return Fail(path + "/golden.jsonl: " + fault + "; compile the bundle again");
  const auto left_out = LeftOut(manifest, model);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // Who reads the lines learns of each as it comes.
  for (const auto& [name, reason] : left_out) {
    if (json) std::printf("%s\n", nlohmann::json({{"recipe", name}, {"left_out", reason}}).dump().c_str());
  }
  bool diverged = false;
  for (size_t index = 0; const char* recipe = specc_recipe(model, index); index++) {
    int identical = 0, near_ties = 0, others = 0;
    double seconds = 0;
    size_t tokens = 0;
    for (int round = 0; round < rounds; round++) {
      for (size_t number = 0; number < cases.size(); number++) {
        const Case& each = cases[number];
        Tokens answer;
        specc_stats stats;
        double start = ProcessorSeconds();
        if (specc_generate(session, each.prompt.data(), each.prompt.size(), recipe, each.golden.size(), Append, &answer, &stats)) {
          return Fail(specc_error());
        }
        seconds += ProcessorSeconds() - start;
        tokens += answer.size();
        size_t at = 0;
        while (at < each.golden.size() && at < answer.size() && answer[at] == each.golden[at]) at++;
        bool same = at == each.golden.size(), near = !same && at < answer.size() && each.gaps[at] < tolerance;
        (same ? identical : near ? near_ties : others)++;
        if (!json) continue;
        const nlohmann::json line = {{"recipe", recipe},
                                     {"case", number},
                                     {"token_ids", answer},
                                     {"seconds", stats.seconds},
                                     {"mean_acceptance_length", stats.mean_acceptance_length}};
        std::printf("%s\n", line.dump().c_str());
      }
    }
    diverged |= others > 0;
    if (json) continue;
    std::printf("%-22s %d identical, %d near-tie, %d diverged, %.1f tokens per processor second\n", recipe, identical, near_ties,
                others, double(tokens) / seconds);
  }
  for (const auto& [name, reason] : left_out) {
    if (!json) std::printf("%-22s not replayed: %s\n", name.c_str(), reason.c_str());
  }
  specc_session_close(session);
  specc_close(model);
  if (std::fflush(stdout) || std::ferror(stdout)) return Fail(kUnwritable);
  return diverged ? 1 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return Replay(count, arguments);
  } catch (const std::bad_alloc&) {
    return Fail("there is too little memory; free some");
  }
}
