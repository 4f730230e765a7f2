// A runtime and a bundle without ONNX Runtime. A slot's answer depends on each row that it sees, in order, so a row that is
// wrong, missing or at another place changes the text.

import { Bundle } from "../../../runtimes/javascript/bundle.js";

export const VOCABULARY = 40;
const CAPACITY = 96;
const RANKS = 4;

const tensor = (name, dtype, shape) => ({ name, dtype, shape });
const ROWS = ["key", "value"].map((kind) => `0.${kind}`);

/** Returns the answers after a row of tokens, likeliest first. `skill` 1 is the target; a lower one errs now and then. */
function ranked(tokens, skill) {
  const hash = tokens.reduce((sum, token, i) => (sum * 5 + token + i) % 9973, 7);
  const best = tokens.length % 7 < 5 ? tokens[Math.max(0, tokens.length - 4)] : hash % VOCABULARY;
  const errs = skill < 1 && hash % 3 === 0;
  return Array.from({ length: RANKS }, (_, rank) => (best + 3 * (rank + (errs ? 1 : 0))) % VOCABULARY);
}

export class ToyRuntime {
  name = "toy";
  version = "1.30.0";
  calls = [];
  loads = [];

  tensor(dtype, shape) {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = { int64: BigInt64Array, float32: Float32Array, bool: Uint8Array }[dtype];
    return { data: new data(count), shape };
  }

  async load(bundle, spec) {
    const runtime = this;
    this.loads.push(spec.name);
    return {
      dimensions: (name) => spec.inputs.find((input) => input.name === name).shape.map((size, axis) => {
        if (spec.open && name === "input_ids" && axis === 1) return "slots";
        return name.startsWith("past_key_values") && axis === 2 ? "capacity" : size;
      }),
      bind: (inputs, outputs) => () => runtime.run(spec, inputs, outputs),
      close() {},
    };
  }

  run(spec, inputs, outputs) {
    const ids = Array.from(inputs.input_ids.data, Number);
    const past = Number(inputs.past_len.data[0]);
    const rows = inputs["past_key_values.0.key"];
    const capacity = rows.shape[2];
    const { topology } = spec.block;
    const parents = topology.parents && ids.map((_, slot) => (spec.open ? slot - 1 : topology.parents[slot]));
    this.calls.push({ engine: spec.name, width: ids.length, past });
    const answers = ids.map((token, slot) => {
      // The rows that the slot sees, by position.
      const seen = [];
      if (inputs.mask) {
        const span = inputs.mask.shape[1];
        for (let row = 0; row < past + ids.length; row++) {
          const column = row - (past + ids.length - span);
          if (column < 0 || inputs.mask.data[slot * span + column]) seen.push(row);
        }
        // A position that does not follow from the rows that are seen answers something else.
        const isPadding = inputs.mask.data.subarray(slot * span, (slot + 1) * span).every((bit) => bit);
        if (!isPadding && past + Number(inputs.depth.data[slot]) !== seen.length - 1) throw new Error("depth and mask disagree");
      } else {
        for (let row = 0; row < past; row++) seen.push(row);
        const path = [];
        for (let at = slot; at >= 0; at = parents[at]) path.unshift(past + at);
        seen.push(...path);
      }
      rows.data[past + slot] = token;
      return ranked(seen.map((row) => (row === past + slot ? token : rows.data[row])), spec.skill ?? 1);
    });
    if (past + ids.length > capacity) throw new Error("a call writes behind the cache");
    const only = spec.block.last_row ? [answers[Number(inputs.row.data[0])]] : answers;
    only.forEach((best, slot) => {
      outputs.ids.data[slot] = BigInt(best[0]);
      if (!outputs.top_ids) return;
      best.forEach((token, rank) => {
        outputs.top_ids.data[slot * RANKS + rank] = BigInt(token);
        outputs.top_logprobs.data[slot * RANKS + rank] = Math.log([0.7, 0.2, 0.1, 0.05][rank]);
      });
    });
  }
}

function engine(name, topology, { ranks = false, lastRow = false, open = false, skill = 1 } = {}) {
  const width = topology.parents?.length ?? topology.slots;
  const rows = ROWS.map((row) => tensor(`past_key_values.${row}`, "float32", [1, 1, CAPACITY, 1]));
  const inputs = [tensor("input_ids", "int64", [1, width]), tensor("past_len", "int64", [1]), ...rows];
  if (topology.span) inputs.push(tensor("mask", "bool", [width, topology.span]), tensor("depth", "int64", [width]));
  if (lastRow) inputs.push(tensor("row", "int64", [1]));
  const count = lastRow ? 1 : width;
  const outputs = [tensor("ids", "int64", [1, count]), tensor("logits", "float32", [1, count, VOCABULARY])];
  if (ranks) outputs.push(tensor("top_ids", "int64", [1, count, RANKS]), tensor("top_logprobs", "float32", [1, count, RANKS]));
  outputs.push(...ROWS.map((row) => tensor(`present.${row}`, "float32", [1, 1, CAPACITY, 1])));
  const block = { topology, cache: "target", last_row: lastRow, lanes: 1 };
  return { name, backend: "onnx", file: `${name}.onnx`, weights: "", needs: {}, block, inputs, outputs, open, skill };
}

const line = (slots) => ({ parents: Array.from({ length: slots }, (_, slot) => slot - 1) });
export const TREE = [-1, 0, 0, 1, 1, 2, 3, 0, 6];
const LOOKUP = { prompt_lookup_num_tokens: 5, max_matching_ngram_size: 3 };

export const RECIPES = [
  { name: "plain", drafter: "plain", verify: ["decode"] },
  { name: "prompt-lookup", drafter: "prompt-lookup", verify: ["decode", "verify-3", "verify-6"], parameters: LOOKUP },
  { name: "recycled-lookup", drafter: "recycled-lookup", verify: ["decode", "verify-3", "verify-6"], parameters: LOOKUP },
  {
    name: "layer-skip",
    drafter: "layer-skip",
    verify: ["decode", "verify-3", "verify-6"],
    engines: { draft: "draft" },
    parameters: { num_speculative_tokens: 4, assistant_confidence_threshold: 0.1 },
  },
  {
    name: "cascade",
    drafter: "cascade",
    verify: ["decode", "verify-3", "verify-6"],
    engines: { draft: "draft" },
    parameters: { num_speculative_tokens: 2, min_matching_ngram_size: 2, ...LOOKUP },
  },
  { name: "token-recycling", drafter: "token-recycling", verify: ["verify-tree"], parameters: { tree: TREE, vocab_size: VOCABULARY } },
  {
    name: "early-exit",
    drafter: "early-exit",
    verify: ["verify-tree"],
    engines: { draft: "draft-tree" },
    parameters: { tree: TREE },
  },
];

/** Returns a bundle whose engines are toys. `open` engines run any width. */
export function toyBundle({ open = false, recipes = RECIPES, change = (manifest) => manifest } = {}) {
  const engines = [
    engine("prefill", line(8), { lastRow: true }),
    engine("decode", line(1), { open }),
    engine("verify-3", line(3), { open }),
    engine("verify-6", line(6), { open }),
    engine("verify-tree", { parents: TREE }, { ranks: true }),
    engine("draft", line(1), { ranks: true, skill: 0.5 }),
    engine("draft-tree", { slots: 2, span: 12 }, { ranks: true, skill: 0.5 }),
  ];
  const manifest = change({
    schema: 3,
    model: { vocab_size: VOCABULARY, context: 64, eos_token_ids: [VOCABULARY - 1] },
    files: {},
    engines,
    caches: { target: { capacity: CAPACITY, layers: { 0: [1, 1] }, dtype: "float32" } },
    recipes,
    default_recipe: "prompt-lookup",
    measured: [{ recipe: "cascade", speedup: 1.5 }, { recipe: "prompt-lookup", speedup: 1.2 }],
  });
  return new Bundle({ name: "toy", read: async () => new Uint8Array() }, manifest);
}

/** Returns the answer that the target gives, token by token. */
export function answer(prompt, count) {
  const text = [...prompt];
  while (text.length < prompt.length + count) {
    text.push(ranked(text, 1)[0]);
    if (text.at(-1) === VOCABULARY - 1) break;
  }
  return text.slice(prompt.length);
}
