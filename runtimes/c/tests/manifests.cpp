// A program that opens one bundle with many manifests, for tests with manifests that were changed at random.
//
//   specc-manifests BUNDLE FILE
//
// FILE has a line with the size in bytes before each manifest. Each is written into the bundle, which is opened; then one of
// its recipes decodes a few tokens, another one each time, and all is closed. Standard output gets a line for each manifest: `ok`, or the first error.
// One process tries all, so ONNX Runtime is loaded once, and the leak sanitizer sees what any of them left.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "specc.h"

namespace {

constexpr size_t kTokens = 10;
const std::vector<int64_t> kPrompt = {5, 6, 7, 5, 6, 7, 5, 6};  // Its end occurs earlier, so lookup finds something.

// Opens the bundle, decodes by one recipe and closes all. Returns the error, or an empty text.
std::string Try(const char* bundle, size_t number) {
  specc_options options{};
  options.threads = 1;
  specc_model* model = nullptr;
  if (specc_open(bundle, &options, &model)) return specc_error();
  std::string error;
  specc_session* session = nullptr;
  if (specc_session_open(model, &session)) error = specc_error();
  size_t recipes = 0;
  while (specc_recipe(model, recipes)) recipes++;
  const char* recipe = specc_recipe(model, number % std::max<size_t>(recipes, 1));
  specc_stats stats;
  if (session && specc_generate(session, kPrompt.data(), kPrompt.size(), recipe, kTokens, nullptr, nullptr, &stats)) error = stats.error;
  specc_session_close(session);
  specc_close(model);
  return error;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const std::string bundle = arguments[1];
  std::ifstream manifests(arguments[2], std::ios::binary);
  size_t number = 0;
  for (std::string line; std::getline(manifests, line);) {
    std::string manifest(std::stoul(line), '\0');
    manifests.read(manifest.data(), std::streamsize(manifest.size()));
    std::ofstream(bundle + "/manifest.json", std::ios::binary | std::ios::trunc) << manifest;
    const std::string error = Try(bundle.c_str(), number++);
    std::puts(error.empty() ? "ok" : error.c_str());
    std::fflush(stdout);
  }
  return 0;
}
