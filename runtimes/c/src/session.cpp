#include "session.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "error.h"

namespace specc {

namespace {

// The path of slots whose tokens are the target's own, and the target's token behind it: the rule `match`.
std::pair<std::vector<size_t>, int64_t> Accept(const Draft& draft, const Engine& target) {
  std::vector<std::vector<size_t>> paths{{0}};
  while (true) {
    int64_t token = target.Likeliest(paths[0].back());
    std::vector<std::vector<size_t>> longer;  // Several children may hold one token. Then all of them are followed.
    for (const auto& path : paths) {
      for (size_t slot = path.back() + 1; slot < draft.tokens.size(); slot++) {
        if (size_t(draft.parents[slot]) != path.back() || draft.tokens[slot] != token) continue;
        longer.push_back(path);
        longer.back().push_back(slot);
      }
    }
    if (longer.empty()) return {paths[0], token};
    paths = std::move(longer);
  }
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

const Recipe& Session::Choose(const std::string& name) const {
  const auto& recipes = model_.bundle.recipes;
  const std::string& wanted = name.empty() ? model_.bundle.default_recipe : name;
  auto found = std::find_if(recipes.begin(), recipes.end(), [&](const Recipe& r) { return r.name == wanted; });
  if (found == recipes.end()) {
    std::string names;
    for (const Recipe& recipe : recipes) names += (names.empty() ? "" : ", ") + recipe.name;
    throw Error("the bundle has no recipe '" + wanted + "', only " + names);
  }
  if (Knows(*found)) return *found;
  const Recipe* best = nullptr;  // The fastest one that this library has. Every bundle has `plain`.
  for (const Recipe& recipe : recipes) {
    if (Knows(recipe) && (!best || recipe.speed_up > best->speed_up)) best = &recipe;
  }
  if (!best) throw Error("libspecc has the drafter of no recipe of the bundle; compile it with --recipe prompt-lookup");
  return *best;
}

Engine& Session::EngineNamed(const std::string& name) {
  auto& engine = engines_[name];
  if (!engine) {
    Naming(model_.bundle.path, [&] {
      const EngineSpec& spec = model_.bundle.Engine(name);
      auto& rows = rows_[spec.cache];
      if (!rows) rows = std::make_unique<Rows>(model_.bundle.caches.at(spec.cache));
      engine = std::make_unique<Engine>(model_, spec, *rows, cancelled_);
    });
  }
  return *engine;
}

int64_t Session::Prefill(const Tokens& prompt) {
  size_t rows = size_t(std::mismatch(committed_.begin(), committed_.end(), prompt.begin(), prompt.end()).first - committed_.begin());
  rows = std::min(rows, prompt.size() - 1);  // The last token runs again, since its outputs are wanted.
  for (auto& [name, states] : states_) states.resize(committed_.empty() ? 0 : states.size() / committed_.size() * rows);
  committed_.resize(rows);
  Engine& engine = EngineNamed(prompt.size() - rows == 1 ? "decode" : "prefill");
  while (true) {
    size_t count = std::min(engine.spec.slots, prompt.size() - rows);
    const Tokens tokens(prompt.begin() + std::ptrdiff_t(rows), prompt.begin() + std::ptrdiff_t(rows + count));
    engine.Run(tokens, rows);
    std::vector<size_t> all(count);
    std::iota(all.begin(), all.end(), size_t{0});
    Commit(engine, tokens, all);
    rows += count;
    if (rows == prompt.size()) return engine.Likeliest(engine.last_row() ? 0 : count - 1);
  }
}

void Session::Commit(Engine& target, const Tokens& tokens, const std::vector<size_t>& path) {
  target.rows.Commit(committed_.size(), path);
  for (size_t slot : path) committed_.push_back(tokens[slot]);
  for (const auto& [name, states] : target.states()) {
    const size_t size = states.size() / target.spec.slots;
    for (size_t slot : path) {
      auto row = states.begin() + std::ptrdiff_t(slot * size);
      states_[name].insert(states_[name].end(), row, row + std::ptrdiff_t(size));
    }
  }
}

Engine& Session::Verifier(const Recipe& recipe, const Draft& draft) {
  for (const std::string& name : recipe.verify) {
    if (model_.bundle.Engine(name).Fits(draft.parents)) return EngineNamed(name);
  }
  throw Error("a draft of recipe " + recipe.name + " fits none of its engines; compile the bundle again");
}

Counts Session::Generate(const int64_t* prompt, size_t prompt_tokens, const std::string& recipe_name, size_t max_new_tokens,
                         const OnTokens& on_tokens) {
  const Bundle& bundle = model_.bundle;
  if (!prompt_tokens || prompt_tokens >= bundle.context) {
    throw Error("the prompt has " + std::to_string(prompt_tokens) + " tokens; give 1 to " + std::to_string(bundle.context - 1));
  }
  const Tokens tokens(prompt, prompt + prompt_tokens);
  for (int64_t token : tokens) {
    if (token < 0 || size_t(token) >= bundle.vocab_size) {
      throw Error("the prompt has token " + std::to_string(token) + "; the vocabulary has 0 to " + std::to_string(bundle.vocab_size - 1));
    }
  }
  const Recipe& recipe = Choose(recipe_name);
  try {
    return Decode(tokens, recipe, prompt_tokens + std::min(max_new_tokens, bundle.context - prompt_tokens), on_tokens);
  } catch (...) {
    Forget();  // A row may lack its token, or its state.
    throw;
  }
}

void Session::Forget() {
  drafters_.clear();
  committed_.clear();
  states_.clear();
  cached_texts_.clear();
}

Counts Session::Decode(const Tokens& prompt, const Recipe& recipe, size_t end, const OnTokens& on_tokens) {
  auto& drafter = drafters_[recipe.name];
  if (!drafter) {
    drafter = MakeDrafter(recipe, {[this](const std::string& name) -> Engine& { return EngineNamed(name); }, &states_, &cached_texts_});
  }
  drafter->Begin();
  Counts counts;
  counts.recipe = recipe.name;
  const double start = Seconds();
  try {
    Tokens first{Prefill(prompt)};
    counts.prefill_seconds = Seconds() - start;
    Continue(prompt, std::move(first), recipe, *drafter, end, on_tokens, counts);
  } catch (const Cancelled&) {
    if (!counts.new_tokens) counts.prefill_seconds = Seconds() - start;
  }
  counts.seconds = Seconds() - start - counts.prefill_seconds;
  return counts;
}

void Session::Continue(const Tokens& prompt, Tokens step, const Recipe& recipe, Drafter& drafter, size_t end, const OnTokens& on_tokens,
                       Counts& counts) {
  Tokens text = prompt;
  while (true) {
    auto last = std::find_first_of(step.begin(), step.end(), model_.bundle.eos.begin(), model_.bundle.eos.end());
    bool ended = last != step.end();
    step.erase(ended ? last + 1 : last, step.end());
    if (text.size() + step.size() >= end) {
      step.resize(end - text.size());
      ended = true;
    }
    text.insert(text.end(), step.begin(), step.end());
    counts.new_tokens += step.size();
    if (!on_tokens(step.data(), step.size()) || ended || cancelled_) break;

    const size_t pending = text.size() - 1;
    Draft draft = drafter.Propose(text, end - text.size() - 1);
    Engine& target = Verifier(recipe, draft);
    target.Run(draft.tokens, pending, {nullptr, 0, nullptr, &draft.parents});
    counts.target_calls++;
    auto [path, token] = Accept(draft, target);
    drafter.Observe(text, draft, target);
    Commit(target, draft.tokens, path);
    step.clear();
    for (size_t slot : path) {
      if (slot) step.push_back(draft.tokens[slot]);
    }
    step.push_back(token);
    if (draft.tokens.size() > 1) {
      counts.drafts++;
      counts.drafted += draft.tokens.size() - 1;
      counts.accepted += path.size() - 1;
    }
  }
}

}  // namespace specc
