// Decodes on a thread of its own, so that the page goes on. Messages of the page are `open`, `generate` and `stop`.

import { SpeccError, firstLine } from "../javascript/errors.js";
import { lacking } from "../javascript/recipes.js";
import { openModel, openText } from "./model.js";

/** @typedef {import("../javascript/session.js").Model} Model */

/** @type {Model} */
let model;
/** @type {import("../javascript/session.js").Session} */
let session;
/** @type {import("../javascript/text.js").Text} */
let text;
let isStopped = false;

/** @type {Record<string, (message: any) => Promise<void> | void>} */
const ACTIONS = { open, generate, stop: () => void (isStopped = true) };

self.onmessage = async ({ data }) => {
  try {
    await ACTIONS[data.type](data);
  } catch (error) {
    const remedy = error instanceof SpeccError ? "" : "; load the page again, or use another browser";
    self.postMessage({ type: "error", message: firstLine(error) + remedy });
  }
};

/**
 * Opens a bundle, and loads what the first token needs. `runs`: a request follows at once.
 * @param {{ url: string, threads?: number, context?: number, recipe?: string, runs: boolean }} message
 */
async function open({ url, threads, context, recipe: name, runs }) {
  const progress = (/** @type {string} */ file, /** @type {number} */ bytes, /** @type {number} */ ofBytes) =>
    self.postMessage({ type: "progress", file, bytes, ofBytes });
  model = await openModel(url, { threads, context, progress });
  const { bundle, runtime } = model;
  session = model.session();
  let choice;
  [text, choice] = await Promise.all([openText(bundle), session.prepare(name)]);
  const others = bundle.recipes.filter((recipe) => !model.recipes.includes(recipe.name));
  self.postMessage({
    type: "ready",
    source: bundle.model.source,
    context: Math.min(model.context, bundle.model.context),
    samples: Boolean(bundle.model.generation_config?.do_sample),
    recipes: model.recipes,
    recipe: choice.recipe.name,
    note: choice.note,
    lacking: others.map((recipe) => `${recipe.name} needs ${lacking(bundle, recipe, runtime)}`),
  });
  if (!runs) await keepFiles();
}

/**
 * Decodes an answer, and posts each step.
 * @param {{ prompt: string, recipe: string, maxNewTokens: number }} message
 */
async function generate({ prompt, recipe, maxNewTokens }) {
  isStopped = false;
  const ids = text.encode(prompt);
  const writer = text.stream(ids);
  const label = (/** @type {number} */ token) => text.decode([token]);
  const isWanted = async () => {
    await messages();
    return !isStopped;
  };
  const steps = session.steps(ids, { recipe, maxNewTokens, isWanted });
  for (;;) {
    const { done, value } = await steps.next();
    if (done) {
      self.postMessage({ type: "end", stats: isStopped ? null : value, tail: writer.end(), promptTokens: ids.length });
      return await keepFiles();
    }
    const { tokens, draft, path, engine } = value;
    // The accepted tokens and the target's own are written apart, since the page shows which is which.
    const accepted = writer.push(tokens.slice(0, Math.max(0, path.length - 1)));
    const own = writer.push(tokens.slice(Math.max(0, path.length - 1)));
    const tree = draft && { labels: draft.tokens.map(label), parents: draft.parents, path };
    self.postMessage({ type: "step", accepted, own, tree, engine, count: tokens.length });
  }
}

/** Keeps what was read for the next visit. */
async function keepFiles() {
  await /** @type {import("./http_source.js").HttpSource} */ (model.bundle.source).keep();
  self.postMessage({ type: "kept" });
}

const { port1, port2 } = new MessageChannel();

/** Lets messages of the page come in. A timer would wait for four milliseconds. */
function messages() {
  return new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
}
