// What a step does: drafters, trees, engines, the loop.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DRAFTERS } from "../../../runtimes/javascript/drafters.js";
import { fits } from "../../../runtimes/javascript/engine.js";
import { judge, replay } from "../../../runtimes/javascript/golden.js";
import { NgramIndex } from "../../../runtimes/javascript/ngram_index.js";
import { choose } from "../../../runtimes/javascript/recipes.js";
import { Model } from "../../../runtimes/javascript/session.js";
import { TreeDraft } from "../../../runtimes/javascript/tree_draft.js";
import { accept } from "../../../runtimes/javascript/tree.js";
import { example } from "./examples.js";
import { RECIPES, ToyRuntime, answer, toyBundle } from "./toy.js";

const PROMPT = [3, 9, 4, 1, 7, 3, 9, 4, 1, 7, 3];

async function decode(session, prompt, request) {
  const steps = [];
  const answering = session.steps(prompt, request);
  let step = await answering.next();
  for (; !step.done; step = await answering.next()) steps.push(step.value);
  return { steps, tokens: steps.flatMap((each) => each.tokens), stats: step.value };
}

for (const open of [false, true]) {
  for (const { name } of RECIPES) {
    test(`${name} gives the tokens of the target with engines of ${open ? "any" : "one"} width`, async () => {
      const runtime = new ToyRuntime();
      const session = new Model(toyBundle({ open }), runtime).session();
      for (const prompt of [PROMPT, [5], PROMPT.concat([2, 8, 20, 6]), PROMPT.slice(0, 6)]) {
        const { steps, tokens, stats } = await decode(session, prompt, { recipe: name, maxNewTokens: 40 });
        assert.deepEqual(tokens, answer(prompt, 40));
        assert.equal(stats.newTokens, tokens.length);
        assert.equal(stats.targetCalls, steps.length - 1);
        assert.equal(stats.recipe, name);
      }
      const { stats } = await decode(session, PROMPT, { recipe: name, maxNewTokens: 40 });
      assert.ok(name === "plain" ? stats.drafts === 0 : stats.accepted > 0, "a drafter that is never right tests nothing");
      assert.equal(stats.meanAcceptanceLength, stats.drafts ? 1 + stats.accepted / stats.drafts : 1);
    });
  }
}

test("an engine of any width runs as many slots as a draft has", async () => {
  const runtime = new ToyRuntime();
  const { steps } = await decode(new Model(toyBundle({ open: true }), runtime).session(), PROMPT, { maxNewTokens: 20 });
  const widths = runtime.calls.slice(2).map((call) => call.width);
  assert.deepEqual(widths, steps.slice(1).map((step) => step.draft.tokens.length));
  assert.deepEqual(runtime.calls.slice(0, 2).map((call) => [call.width, call.past]), [[8, 0], [3, 8]]);
});

test("the first token waits for no engine of a draft", async () => {
  const runtime = new ToyRuntime();
  const steps = new Model(toyBundle({ open: true }), runtime).session().steps(PROMPT, { recipe: "cascade", maxNewTokens: 9 });
  await steps.next();
  assert.deepEqual(runtime.loads, ["decode"]);
  await steps.next();
  assert.deepEqual(runtime.loads.toSorted(), ["decode", "draft", "verify-3", "verify-6"]);
});

test("rows of a prompt that begins alike are used again", async () => {
  const runtime = new ToyRuntime();
  const session = new Model(toyBundle(), runtime).session();
  await decode(session, PROMPT, { recipe: "plain", maxNewTokens: 4 });
  runtime.calls.length = 0;
  const prompt = [...PROMPT.slice(0, 9), 30, 31];
  const { tokens } = await decode(session, prompt, { recipe: "plain", maxNewTokens: 4 });
  assert.deepEqual(tokens, answer(prompt, 4));
  assert.deepEqual(runtime.calls[0], { engine: "prefill", width: 8, past: 9 });
});

test("leaving the loop ends the answer, and the session goes on", async () => {
  const session = new Model(toyBundle(), new ToyRuntime()).session();
  const first = [];
  for await (const step of session.steps(PROMPT, { maxNewTokens: 30 })) {
    first.push(...step.tokens);
    if (first.length > 3) break;
  }
  assert.deepEqual(first, answer(PROMPT, 30).slice(0, first.length));
  assert.deepEqual((await decode(session, PROMPT, { maxNewTokens: 30 })).tokens, answer(PROMPT, 30));
});

test("an answer that is not wanted any more ends before the next call, also while the prompt is read, and the session goes on", async () => {
  for (const open of [false, true]) {
    for (const calls of [0, 1, 2, 3]) {
      const runtime = new ToyRuntime();
      const session = new Model(toyBundle({ open }), runtime).session();
      const prompt = Array.from({ length: 24 }, (_, i) => (7 * i) % 31); // Three calls.
      const isWanted = async () => runtime.calls.length < calls;
      const { tokens, stats } = await decode(session, prompt, { recipe: "plain", isWanted });
      assert.equal(runtime.calls.length, calls);
      assert.deepEqual(tokens, calls < 3 ? [] : answer(prompt, 1));
      assert.deepEqual([stats.newTokens, stats.targetCalls, stats.meanAcceptanceLength], [tokens.length, 0, 1]);
      assert.deepEqual((await decode(session, prompt, { maxNewTokens: 9 })).tokens, answer(prompt, 9));
      assert.equal(runtime.calls.filter(({ past }) => past < 24).length, calls < 3 ? 3 : 4, "rows of earlier calls serve again");
    }
  }
});

test("an answer ends at the context, and at an end-of-sequence token", async () => {
  const session = new Model(toyBundle(), new ToyRuntime()).session();
  const { tokens } = await decode(session, PROMPT, { maxNewTokens: 1000 });
  assert.equal(PROMPT.length + tokens.length, 64);
  const [token] = answer(PROMPT, 6).slice(-1);
  const ending = toyBundle({ change: (m) => ({ ...m, model: { ...m.model, eos_token_ids: [token] } }) });
  const ended = await decode(new Model(ending, new ToyRuntime()).session(), PROMPT, { maxNewTokens: 40 });
  assert.deepEqual(ended.tokens, answer(PROMPT, 40).slice(0, ended.tokens.length));
  assert.equal(ended.tokens.indexOf(token), ended.tokens.length - 1);
});

test("a smaller context keeps fewer rows", async () => {
  const session = new Model(toyBundle(), new ToyRuntime(), { context: 24 }).session();
  const { tokens } = await decode(session, PROMPT, { maxNewTokens: 100 });
  assert.deepEqual(tokens, answer(PROMPT, 24 - PROMPT.length));
  await assert.rejects(decode(session, Array(24).fill(1)), { message: "the prompt has 24 tokens; give 1 to 23" });
});

test("bad requests are one line", async () => {
  const session = new Model(toyBundle(), new ToyRuntime()).session();
  const busy = session.steps(PROMPT);
  await busy.next();
  const refusal = (prompt, request) => decode(session, prompt, request).then(() => null, (error) => error.message);
  assert.match(await refusal(PROMPT), /^this session decodes another answer; wait/);
  await busy.return();
  assert.match(await refusal([]), /^the prompt has 0 tokens; give 1 to 63$/);
  for (const token of [1.5, -1, 40, NaN, "1", 1n]) {
    assert.equal(await refusal([1, token]), `the prompt has token ${token}; the vocabulary has 0 to 39`);
  }
  for (const prompt of ["def", undefined, null, { length: 1 }, 5]) {
    assert.equal(await refusal(prompt ?? null), `the prompt is ${typeof (prompt ?? null)}; give an array of token ids`);
  }
  assert.match(await refusal(PROMPT, { recipe: "plai" }), /^the bundle has no recipe 'plai', only plain, /);
  for (const maxNewTokens of [0, -1, 1.5, NaN, Infinity, "8"]) {
    const message = `maxNewTokens is ${maxNewTokens}; give a whole number of 1 or more`;
    assert.equal(await refusal(PROMPT, { maxNewTokens }), message);
  }
  assert.equal(await refusal(PROMPT, { maxNewTokens: Number.MAX_SAFE_INTEGER }), null);
});

test("a context that keeps no rows is refused", () => {
  for (const context of [1, 0, -1, 1.5, NaN, Infinity, "64", null]) {
    const message = `context is ${context}; give a whole number of 2 or more`;
    assert.throws(() => new Model(toyBundle(), new ToyRuntime(), { context }), { message });
  }
  assert.equal(new Model(toyBundle(), new ToyRuntime(), { context: 2 }).context, 2);
});

test("closing a model frees the files that were loaded and the rows, though another file failed", async () => {
  const runtime = new ToyRuntime();
  const freed = [];
  const load = runtime.load.bind(runtime);
  runtime.load = async (bundle, spec) => {
    if (spec.name === "verify-3") throw new Error("no room");
    return { ...(await load(bundle, spec)), close: () => freed.push(spec.name) };
  };
  runtime.close = () => freed.push("rows");
  const model = new Model(toyBundle({ open: true }), runtime);
  await assert.rejects(decode(model.session(), PROMPT, { maxNewTokens: 9 }), { message: "toy cannot load verify-3.onnx: no room; compile the bundle again" });
  assert.deepEqual((await decode(model.session(), PROMPT, { recipe: "plain", maxNewTokens: 9 })).tokens, answer(PROMPT, 9));
  await model.close();
  assert.deepEqual(freed, ["decode", "rows"]);
});

test("a recipe that is lacking is named, and the fastest of the others runs", () => {
  const lacks = (change, reason) => {
    const recipes = RECIPES.map((recipe) => (recipe.name === "prompt-lookup" ? { ...recipe, ...change } : recipe));
    const { recipe, note } = choose(toyBundle({ recipes }), new ToyRuntime());
    assert.equal(recipe.name, "cascade");
    assert.equal(note, `the recipe prompt-lookup needs ${reason}; cascade runs instead`);
  };
  lacks({ drafter: "medusa" }, "the drafter medusa, which this runtime does not have");
  lacks({ drafter: "toString" }, "the drafter toString, which this runtime does not have");
  lacks({ drafter_version: 2 }, "version 2 of the drafter prompt-lookup, and this runtime has version 1");
  lacks({ acceptance_version: 2 }, "version 2 of the acceptance rule match, which this runtime does not have");
  lacks({ acceptance: "typical" }, "version 1 of the acceptance rule typical, which this runtime does not have");
  lacks({ parameters: { ...RECIPES[1].parameters, x: 1 } }, "the parameter x of the drafter prompt-lookup, which this runtime does not have");
  lacks({ parameters: {} }, "the parameter prompt_lookup_num_tokens, which the bundle does not give");
  assert.equal(choose(toyBundle(), new ToyRuntime()).note, null);
});

test("golden outputs are replayed by the recipe that is named, and one that cannot run is refused", async () => {
  const recipes = RECIPES.map((recipe) => (recipe.name === "prompt-lookup" ? { ...recipe, drafter: "medusa" } : recipe));
  const bundle = toyBundle({ recipes });
  const golden = { prompt_ids: PROMPT, token_ids: answer(PROMPT, 9), gaps: Array(9).fill(1) };
  bundle.read = async () => new TextEncoder().encode(JSON.stringify(golden));
  const runtime = new ToyRuntime();
  const replayed = async (names) => {
    const rows = [];
    for await (const { recipe, stats, verdict } of replay(new Model(bundle, runtime), names)) rows.push([recipe, stats.recipe, verdict]);
    return rows;
  };
  const refused = (name, message) => assert.rejects(replayed(["plain", name]), { message });
  await refused("prompt-lookup", "the recipe prompt-lookup needs the drafter medusa, which this runtime does not have; name another one");
  await refused("nope", `the bundle has no recipe 'nope', only ${RECIPES.map(({ name }) => name).join(", ")}`);
  assert.deepEqual(runtime.calls, []);
  assert.deepEqual(await replayed(["cascade"]), [["cascade", "cascade", "identical"]]);
});

test("an operator that is missing is named", () => {
  const needing = (needs, name = "verify-6") =>
    toyBundle({ change: (m) => ({ ...m, engines: m.engines.map((e) => (e.name === name ? { ...e, needs } : e)) }) });
  const note = (needs) => choose(needing(needs), new ToyRuntime()).note;
  assert.equal(note({ onnxruntime: "1.22", "com.microsoft::GroupQueryAttention": "1.30" }), null);
  assert.match(note({ "specc::RowsMatMul": "0.3.0" }), /needs specc::RowsMatMul, which toy does not have; plain runs instead$/);
  assert.match(note({ "com.microsoft::New": "1.31" }), /needs com.microsoft::New of ONNX Runtime 1.31, and toy is 1.30.0; plain runs/);
  const none = needing({ "specc::RowsMatMul": "0.3.0" }, "decode");
  const recipes = RECIPES.slice(0, 2);
  none.recipes = none.recipes.slice(0, recipes.length);
  assert.throws(() => choose(none, new ToyRuntime()), { message: /^no recipe of the bundle can run: prompt-lookup needs specc::RowsMatMul/ });
});

test("example 10: the mask and the depths of a frontier", async () => {
  const { slots, span, rows_before: before, calls } = example(10);
  const engine = { slots, run: async (call) => (seen.push(call), { topIds: () => [11, 21, 12, 22] }) };
  const seen = [];
  // A root, two children, and a child of each, which the last call does not run, since it has no children.
  const tree = [-1, 0, 0, 1, 2, 3, 4];
  const text = Array(before).fill(5).concat([7]);
  await new TreeDraft({ tree }, { draft: engine }).open().propose(text);
  assert.equal(seen.length, calls.length);
  calls.forEach((expected, i) => {
    const { pastLen, depths, sees, tokens } = seen[i];
    assert.equal(pastLen, expected.past_len);
    assert.equal(tokens.length, expected.input_ids.length);
    assert.deepEqual(depths, expected.depth);
    expected.sees.forEach((rows, slot) => {
      const first = pastLen + slots - span;
      const hidden = Array.from({ length: span }, (_, column) => column).filter((column) => !sees(slot, first + column));
      assert.deepEqual(hidden, expected.columns[slot]);
      assert.ok(rows.every((row) => sees(slot, row)));
    });
  });
});

test("example 11: drafts of prompt-lookup", () => {
  for (const { text, draft } of example(11)) {
    assert.deepEqual(new NgramIndex(3).after(text, 4), draft);
    const { make: Lookup } = DRAFTERS["prompt-lookup"];
    const drafting = new Lookup({ prompt_lookup_num_tokens: 4, max_matching_ngram_size: 3 }, {}).open();
    assert.deepEqual(drafting.propose(text, 2).tokens, [text.at(-1), ...draft.slice(0, 2)]);
  }
});

test("example 12: the engine that verifies", () => {
  const { tree } = example(12);
  const spec = { block: { topology: { parents: tree.parents } } };
  assert.ok(tree.fits.every((parents) => fits(spec, parents)));
  assert.ok(tree.does_not_fit.every((parents) => !fits(spec, parents)));
  const frontier = { block: { topology: { slots: 3, span: 8 } } };
  assert.deepEqual([[-1, 0, 1], [-1, 0, 0], [-1, 0, 1, 2]].map((parents) => fits(frontier, parents)), [true, false, false]);
  const free = { block: { topology: { slots: 3 } } };
  assert.deepEqual([[-1, 0, 0], [-1, 0, 1, 2]].map((parents) => fits(free, parents)), [true, false]);
});

test("example 13: siblings that hold one token", () => {
  const { parents, tokens, ids, path, token } = example(13);
  assert.deepEqual(accept({ tokens, parents }, (slot) => ids[slot]), { path, token });
});

test("example 15: golden outputs", () => {
  const { answers, near_tie_tolerance: tolerance, ...golden } = example(15);
  for (const { token_ids: tokens, verdict } of answers) assert.equal(judge(golden, tokens, tolerance), verdict);
});

test("example 23: a tree, level by level", async () => {
  const { tree, slots, rows_before: before, calls } = example(23);
  const seen = [];
  // Row i of a call gives the tokens 100, 101, … of its slots' children, so that a child's token names its parent and rank.
  const topIds = (i) => [0, 1, 2].map((rank) => 100 * (seen.at(-1).tokens[i] + 1) + rank);
  const engine = { slots, run: async (call) => (seen.push(call), { topIds }) };
  const text = Array(before).fill(5).concat([0]);
  const { tokens } = await new TreeDraft({ tree }, { draft: engine }).open().propose(text);
  assert.deepEqual(seen.map((call) => [call.pastLen, call.depths]), calls.map((call) => [call.past_len, call.depth]));
  assert.deepEqual(seen.map((call) => call.tokens), calls.map((call) => call.slots.map((slot) => tokens[slot])));
  const ranks = tree.map((parent, slot) => tree.slice(0, slot).filter((other) => other === parent).length);
  tree.slice(1).forEach((parent, i) => assert.equal(tokens[i + 1], 100 * (tokens[parent] + 1) + ranks[i + 1]));
  assert.deepEqual(calls.flatMap((call) => call.children), tree.slice(1).map((_, i) => i + 1));
});
