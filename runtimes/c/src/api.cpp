// The C interface: exceptions become numbers and a line of text.

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "error.h"
#include "session.h"
#include "specc.h"

struct specc_model {
  specc::Model model;
  std::vector<std::string> recipes;
};

struct specc_session {
  specc::Session session;
  specc::Tokens answer;  // Of specc_generate_all.
  std::atomic<bool> decodes{false};
};

namespace {

thread_local std::string last_error;

// Marks a session as decoding, and throws if it decodes another answer: of another thread, or of its own callback.
class Decoding {
 public:
  explicit Decoding(specc_session& session) : session_(session) {
    if (session.decodes.exchange(true)) {
      throw specc::Error("the session decodes another answer; wait for its end, or open another session");
    }
  }
  ~Decoding() { session_.decodes = false; }
  Decoding(const Decoding&) = delete;
  Decoding& operator=(const Decoding&) = delete;

 private:
  specc_session& session_;
};

// Copies text into a buffer of so many bytes, cut if need be. The buffer may be null.
void CopyText(const std::string& text, char* buffer, size_t size) {
  if (!buffer || !size) return;
  buffer[text.copy(buffer, size - 1)] = 0;
}

template <typename Work>
int Guarded(Work work) {
  try {
    work();
    last_error.clear();
    return 0;
  } catch (const std::bad_alloc&) {
    last_error = "there is too little memory; close other sessions";
  } catch (const std::out_of_range&) {
    last_error = "an engine does not return what its recipe reads; compile the bundle again";
  } catch (const std::exception& e) {
    last_error = e.what();
    for (char& c : last_error) {
      if (c == '\n' || c == '\r') c = ' ';
    }
  }
  return 1;
}

}  // namespace

extern "C" {

const char* specc_version(void) { return SPECC_VERSION; }

const char* specc_error(void) { return last_error.c_str(); }

int specc_open(const char* path, const specc_options* options, specc_model** model) {
  const specc_options defaults{};
  const specc_options& chosen = options ? *options : defaults;
  const int status = Guarded([&] {
    if (!path || !model) throw specc::Error("specc_open needs a path, and a place for the model");
    if (chosen.threads < 0) throw specc::Error("threads is " + std::to_string(chosen.threads) + "; give 0 or more");
    auto* opened = new specc_model{{path, chosen.onnxruntime ? chosen.onnxruntime : "", chosen.threads}, {}};
    for (const auto& recipe : opened->model.bundle.recipes) {
      if (specc::Knows(recipe)) opened->recipes.push_back(recipe.name);
    }
    *model = opened;
  });
  CopyText(last_error, chosen.error, chosen.error_size);
  return status;
}

void specc_close(specc_model* model) { delete model; }

const char* specc_recipe(const specc_model* model, size_t index) {
  return model && index < model->recipes.size() ? model->recipes[index].c_str() : nullptr;
}

int specc_session_open(specc_model* model, specc_session** session) {
  return Guarded([&] {
    if (!model || !session) throw specc::Error("specc_session_open needs a model, and a place for the session");
    *session = new specc_session{specc::Session(model->model), {}};
  });
}

void specc_session_close(specc_session* session) { delete session; }

int specc_generate(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                   size_t max_new_tokens, specc_on_tokens on_tokens, void* user, specc_stats* stats) {
  if (stats) *stats = {};
  const int status = Guarded([&] {
    if (!session || (!prompt && prompt_tokens)) throw specc::Error("specc_generate needs a session and a prompt");
    if (max_new_tokens < 1) throw specc::Error("max_new_tokens is 0; give 1 or more");
    const Decoding decoding(*session);
    auto take = [&](const int64_t* tokens, size_t count) { return !on_tokens || on_tokens(user, tokens, count) == 0; };
    const specc::Tokens tokens(prompt, prompt + prompt_tokens);
    const specc::Counts counts = session->session.Generate(tokens, recipe ? recipe : "", max_new_tokens, take);
    if (!stats) return;
    CopyText(counts.recipe, stats->recipe, sizeof(stats->recipe));
    stats->new_tokens = counts.new_tokens;
    stats->drafts = counts.drafts;
    stats->drafted = counts.drafted;
    stats->accepted = counts.accepted;
    stats->target_calls = counts.target_calls;
    stats->prefill_seconds = counts.prefill_seconds;
    stats->seconds = counts.seconds;
    stats->mean_acceptance_length = counts.drafts ? 1 + double(counts.accepted) / double(counts.drafts) : 1;
  });
  if (stats) CopyText(last_error, stats->error, sizeof(stats->error));
  return status;
}

int specc_generate_all(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                       size_t max_new_tokens, const int64_t** tokens, specc_stats* stats) {
  auto append = [](void* answer, const int64_t* step, size_t count) {
    static_cast<specc::Tokens*>(answer)->insert(static_cast<specc::Tokens*>(answer)->end(), step, step + count);
    return 0;
  };
  specc::Tokens answer;
  const int status = specc_generate(session, prompt, prompt_tokens, recipe, max_new_tokens, append, &answer, stats);
  if (session && (!status || !answer.empty())) session->answer = std::move(answer);
  if (tokens) *tokens = session && !status ? session->answer.data() : nullptr;
  return status;
}

void specc_cancel(specc_session* session) {
  if (session) session->session.Cancel();
}

}  // extern "C"
