// The C interface: exceptions become numbers and a line of text.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "error.h"
#include "session.h"
#include "specc.h"

struct specc_model {
  specc::Model model;
  std::vector<std::string> recipes;
};

struct specc_session {
  explicit specc_session(specc::Model& model) : session(model) {}

  specc::Session session;
  specc::Tokens answer;  // Of specc_generate_all.

  std::mutex mutex;  // For what follows.
  std::condition_variable ended;
  bool decodes = false, closes = false, is_awaited = false;  // Whether who closes it waits for the end of the answer.
  std::thread::id decoder;  // The thread that decodes.
};

namespace {

constexpr int kMostThreads = 4096;

thread_local std::string last_error;

// Marks a session as decoding, and throws if it decodes another answer: of another thread, or of its own callback. Deletes a
// session that its callback closed.
class Decoding {
 public:
  explicit Decoding(specc_session& session) : session_(session) {
    const std::lock_guard<std::mutex> lock(session.mutex);
    if (session.decodes || session.closes) {
      throw specc::Error("the session decodes another answer; wait for its end, or open another session");
    }
    session.decodes = true;
    session.decoder = std::this_thread::get_id();
    session.session.Resume();
  }
  ~Decoding() {
    std::unique_lock<std::mutex> lock(session_.mutex);
    session_.decodes = false;
    const bool is_last = session_.closes && !session_.is_awaited;
    session_.ended.notify_all();
    lock.unlock();
    if (is_last) delete &session_;
  }
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
    last_error = "there is too little memory; close other sessions, or compile with a smaller --max-seq-len";
  } catch (const std::out_of_range&) {
    last_error = "an engine does not return what its recipe reads; compile the bundle again";
  } catch (const specc::Error& e) {
    last_error = e.what();
  } catch (const std::exception& e) {
    last_error = std::string(e.what()) + "; compile the bundle again";
  } catch (...) {
    last_error = "the function that gets the tokens threw an exception; let it return a number other than 0";
  }
  for (char& c : last_error) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return 1;
}

// Decodes an answer, and calls `ended` while the session is still marked as decoding.
template <typename Take, typename Ended>
int Generate(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe, size_t max_new_tokens,
                    specc_stats* stats, Take take, Ended ended) {
  if (stats) *stats = {};
  const int status = Guarded([&] {
    if (!session || (!prompt && prompt_tokens)) throw specc::Error("specc_generate needs a session and a prompt");
    if (max_new_tokens < 1) throw specc::Error("max_new_tokens is 0; give 1 or more");
    const Decoding decoding(*session);
    const specc::Counts counts = session->session.Generate(prompt, prompt_tokens, recipe ? recipe : "", max_new_tokens, take);
    ended();
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

}  // namespace

extern "C" {

const char* specc_version(void) { return SPECC_VERSION; }

const char* specc_error(void) { return last_error.c_str(); }

int specc_open(const char* path, const specc_options* options, specc_model** model) {
  const specc_options defaults{};
  const specc_options& chosen = options ? *options : defaults;
  if (model) *model = nullptr;
  const int status = Guarded([&] {
    if (!path || !*path || !model) throw specc::Error("specc_open needs a path, and a place for the model");
    if (chosen.threads < 0 || chosen.threads > kMostThreads) {
      throw specc::Error("threads is " + std::to_string(chosen.threads) + "; give 0 to " + std::to_string(kMostThreads));
    }
    std::unique_ptr<specc_model> opened(new specc_model{{path, chosen.onnxruntime ? chosen.onnxruntime : "", chosen.threads}, {}});
    for (const auto& recipe : opened->model.bundle.recipes) {
      if (specc::Knows(recipe)) opened->recipes.push_back(recipe.name);
    }
    *model = opened.release();
  });
  CopyText(last_error, chosen.error, chosen.error_size);
  return status;
}

void specc_close(specc_model* model) { delete model; }

const char* specc_recipe(const specc_model* model, size_t index) {
  return model && index < model->recipes.size() ? model->recipes[index].c_str() : nullptr;
}

int specc_session_open(specc_model* model, specc_session** session) {
  if (session) *session = nullptr;
  return Guarded([&] {
    if (!model || !session) throw specc::Error("specc_session_open needs a model, and a place for the session");
    *session = new specc_session(model->model);
  });
}

void specc_session_close(specc_session* session) {
  if (!session) return;
  {
    std::unique_lock<std::mutex> lock(session->mutex);
    session->closes = true;
    if (session->decodes) {
      session->session.Cancel();
      if (session->decoder == std::this_thread::get_id()) return;  // The answer that calls back deletes it at its end.
      session->is_awaited = true;
      session->ended.wait(lock, [&] { return !session->decodes; });
    }
  }
  delete session;
}

int specc_generate(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                   size_t max_new_tokens, specc_on_tokens on_tokens, void* user, specc_stats* stats) {
  auto take = [&](const int64_t* tokens, size_t count) { return !on_tokens || on_tokens(user, tokens, count) == 0; };
  return Generate(session, prompt, prompt_tokens, recipe, max_new_tokens, stats, take, [] {});
}

int specc_generate_all(specc_session* session, const int64_t* prompt, size_t prompt_tokens, const char* recipe,
                       size_t max_new_tokens, const int64_t** tokens, specc_stats* stats) {
  specc::Tokens answer;
  answer.reserve(1);  // A cancelled answer may have no tokens, and its place is not NULL either.
  auto append = [&](const int64_t* step, size_t count) {
    answer.insert(answer.end(), step, step + count);
    return true;
  };
  if (tokens) *tokens = nullptr;
  if (!tokens || !stats) return Guarded([] { throw specc::Error("specc_generate_all needs places for the tokens and for stats"); });
  return Generate(session, prompt, prompt_tokens, recipe, max_new_tokens, stats, append, [&] {
    session->answer = std::move(answer);
    *tokens = session->answer.data();
  });
}

void specc_cancel(specc_session* session) {
  if (session) session->session.Cancel();
}

}  // extern "C"
