// A program that decodes requests of its standard input, for benchmarks/bench_runtimes.py.
//
//   specc-requests BUNDLE
//
// A line of the input is {"prompt": [token ids], "count": tokens, "recipe": name}. Each gets a line of the output:
// {"tokens": [token ids], "seconds": processor time}. Engines have one thread.

#include <cstdio>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "specc.h"

namespace {

int Fail(const std::string& message) {
  std::fprintf(stderr, "specc-requests: error: %s\n", message.c_str());
  return 2;
}

double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 2) return Fail("give a bundle: specc-requests BUNDLE");
  specc_model* model = nullptr;
  specc_session* session = nullptr;
  specc_options options{};
  options.threads = 1;
  if (specc_open(arguments[1], &options, &model) || specc_session_open(model, &session)) return Fail(specc_error());
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = nlohmann::json::parse(line);
    const std::vector<int64_t> prompt = request.at("prompt");
    const std::string recipe = request.at("recipe");
    const size_t count = request.at("count");
    const int64_t* tokens = nullptr;
    specc_stats stats;
    const double start = ProcessorSeconds();
    if (specc_generate_all(session, prompt.data(), prompt.size(), recipe.c_str(), count, &tokens, &stats)) {
      return Fail(specc_error());
    }
    const double seconds = ProcessorSeconds() - start;
    const std::vector<int64_t> answer(tokens, tokens + stats.new_tokens);
    std::cout << nlohmann::json{{"tokens", answer}, {"seconds", seconds}} << std::endl;
  }
  specc_session_close(session);
  specc_close(model);
  return 0;
}
