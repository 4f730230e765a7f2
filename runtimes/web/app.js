// The page: it shows what the worker decodes. `?bundle=URL` names the bundle; `prompt`, `recipe`, `tokens`, `threads`,
// `context` and `run` are optional.

import { firstLine } from "../javascript/errors.js";
import { draw, drawHistory } from "./drawing.js";

/**
 * @typedef {import("./drawing.js").Tree} Tree
 * @typedef {import("../javascript/session.js").Stats} Stats
 */

const PLAIN = "plain";
const MEBIBYTE = 1 << 20;
const CANNOT_START = "this browser cannot start the worker; use a newer one, and run npm ci --ignore-scripts in runtimes/web";
const PROMPT = 'import os\n\n\ndef read_lines(path):\n    """Return the lines of a file."""\n';

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const find = (id) => /** @type {T} */ (document.getElementById(id));
const prompt = /** @type {HTMLTextAreaElement} */ (find("prompt"));
const recipe = /** @type {HTMLSelectElement} */ (find("recipe"));
const count = /** @type {HTMLInputElement} */ (find("count"));
const compare = /** @type {HTMLInputElement} */ (find("compare"));
const run = /** @type {HTMLButtonElement} */ (find("run"));
const stop = /** @type {HTMLButtonElement} */ (find("stop"));
const slider = /** @type {HTMLInputElement} */ (find("step"));
const progress = /** @type {HTMLProgressElement} */ (find("progress"));
const answer = find("answer");

const parameters = new URLSearchParams(location.search);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });

/** @type {string[]} */
let queue = []; // recipes that are yet to run
/** @type {Tree[]} */
let trees = [];
let isFollowing = true; // whether the newest step is shown
let isDirty = false;
/** @type {Map<string, Stats>} */
let results = new Map();
/** @type {Map<string, string>} */
let answers = new Map();
let current = "";
let runs = 0;

/** @type {Record<string, (message: any) => void>} */
const ACTIONS = { progress: showProgress, ready, kept, step, end, error };
worker.addEventListener("message", ({ data }) => ACTIONS[data.type](data));
worker.addEventListener("error", (event) => error({ message: event.message || CANNOT_START }));

try {
  open();
} catch (refused) {
  error({ message: firstLine(refused) });
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
stop.addEventListener("click", () => {
  queue = [];
  worker.postMessage({ type: "stop" });
});
slider.addEventListener("input", () => {
  isFollowing = Number(slider.value) === trees.length - 1;
  show();
});

/** Opens the bundle that the page's address names. */
function open() {
  prompt.value = parameters.get("prompt") ?? PROMPT;
  compare.checked = parameters.get("compare") !== "0";
  count.value = String(wholeNumber("tokens") ?? count.value);
  const options = { threads: wholeNumber("threads"), context: wholeNumber("context"), runs: parameters.has("run") };
  const url = parameters.get("bundle");
  if (!url) throw new Error("no bundle is named; add ?bundle=URL to this page's address");
  say("Reading the bundle …");
  worker.postMessage({ type: "open", url, recipe: parameters.get("recipe") ?? undefined, ...options });
}

/**
 * Returns a number of the page's address, or undefined if it is not there.
 * @param {string} name
 */
function wholeNumber(name) {
  const text = parameters.get(name);
  if (text === null) return undefined;
  const value = Number(text);
  if (text.trim() && Number.isSafeInteger(value) && value > 0) return value;
  throw new Error(`${name} is ${JSON.stringify(text)} in this page's address; give a whole number of 1 or more`);
}

/** @param {string} text */
function say(text) {
  find("status").textContent = text;
}

/** @param {{ file: string, bytes: number, ofBytes: number }} message */
function showProgress({ file, bytes, ofBytes }) {
  progress.value = bytes / ofBytes;
  const size = (/** @type {number} */ each) => (each / MEBIBYTE).toFixed(0);
  say(bytes < ofBytes ? `Reading ${file}: ${size(bytes)} of ${size(ofBytes)} MiB` : "Loading the engines …");
}

/**
 * @param {{ source: string, recipes: string[], recipe: string, note: string | null, lacking: string[], context: number,
 *   samples: boolean }} message
 */
function ready({ source, recipes, recipe: name, note, lacking, context, samples }) {
  progress.hidden = true;
  find("source").textContent = source.split("/").at(-1) ?? source;
  recipe.replaceChildren(...recipes.map((each) => new Option(each, each, false, each === name)));
  recipe.title = lacking.length ? `Not here: ${lacking.join("; ")}` : "";
  count.max = String(context - 1);
  count.value = String(Math.min(Number(count.value), context - 1));
  const notes = [note, samples ? "the model's own settings sample; this page decodes greedily" : null].filter(Boolean);
  find("note").textContent = notes.join("; ");
  find("note").hidden = !notes.length;
  say(`Ready: ${recipes.length} of ${recipes.length + lacking.length} recipes run here`);
  recipe.disabled = run.disabled = false;
  if (parameters.has("run")) start();
}

/** Marks that the next visit finds the files in the cache. */
function kept() {
  document.body.dataset.kept = "";
}

function start() {
  runs++;
  find("error").hidden = true;
  results = new Map();
  answers = new Map();
  find("speeds").replaceChildren();
  find("verdict").textContent = "";
  find("warming").hidden = true;
  queue = recipe.value !== PLAIN && compare.checked ? [PLAIN] : [];
  run.disabled = true;
  stop.disabled = false;
  generate(recipe.value);
}

/** @param {string} name */
function generate(name) {
  current = name;
  answers.set(name, "");
  // The steps of plain decoding have no drafts to look at, so those of the recipe stay.
  if (!answers.has(recipe.value) || name === recipe.value) {
    trees = [];
    isFollowing = true;
    answer.replaceChildren();
    find("tree").replaceChildren();
  }
  say(name === PLAIN ? "Decoding without speculation …" : `Decoding by ${name} …`);
  worker.postMessage({ type: "generate", prompt: prompt.value, recipe: name, maxNewTokens: Number(count.value) });
}

/** @param {{ accepted: string, own: string, tree: Tree | null }} message */
function step({ accepted, own, tree }) {
  if (!answers.get(current) && current === recipe.value && !document.body.dataset.firstToken) {
    document.body.dataset.firstToken = (performance.now() / 1000).toFixed(2);
  }
  answers.set(current, answers.get(current) + accepted + own);
  if (current !== recipe.value) return;
  if (accepted) {
    const mark = document.createElement("mark");
    mark.textContent = accepted;
    answer.append(mark);
  }
  answer.append(own);
  if (tree) trees.push(tree);
  if (!isDirty) requestAnimationFrame(show);
  isDirty = true;
}

/** Shows the chosen step. */
function show() {
  isDirty = false;
  if (!trees.length) return;
  slider.disabled = false;
  slider.max = String(trees.length - 1);
  if (isFollowing) slider.value = slider.max;
  const chosen = Number(slider.value);
  const tree = trees[chosen];
  const drafted = tree.labels.length - 1;
  const what = drafted ? `${drafted} drafted, ${tree.path.length - 1} accepted` : "nothing drafted";
  find("step-title").textContent = `Step ${chosen + 1} of ${trees.length}: ${what}`;
  draw(find("tree"), tree);
  drawHistory(find("history"), trees, chosen);
}

/** @param {{ stats: Stats | null, tail: string }} message */
function end({ stats, tail }) {
  answers.set(current, answers.get(current) + tail);
  if (current === recipe.value) answer.append(tail);
  if (stats) results.set(current, stats);
  showSpeeds();
  const next = queue.shift();
  if (next !== undefined) return generate(next);
  run.disabled = false;
  stop.disabled = true;
  say(stats ? "Ready" : "Stopped");
}

/** @param {Stats} stats */
const speed = ({ newTokens, seconds }) => (seconds ? (newTokens - 1) / seconds : 0);

function showSpeeds() {
  const most = Math.max(...[...results.values()].map(speed), 1e-9);
  find("speeds").replaceChildren(
    ...[...results].flatMap(([name, stats]) => {
      const term = document.createElement("dt");
      term.textContent = name === PLAIN ? "without speculation" : `by ${name}`;
      const value = document.createElement("dd");
      value.style.setProperty("--share", String(speed(stats) / most));
      value.className = name === PLAIN ? "plain" : "";
      const steps = stats.targetCalls ? ((stats.newTokens - 1) / stats.targetCalls).toFixed(2) : "0";
      value.textContent = `${speed(stats).toFixed(1)} tokens/s, ${steps} a step`;
      return [term, value];
    }),
  );
  const [fast, plain] = [results.get(recipe.value), results.get(PLAIN)];
  if (!fast || !plain || fast === plain) return;
  const same = answers.get(recipe.value) === answers.get(PLAIN);
  const ratio = speed(fast) / speed(plain);
  find("verdict").textContent = `${ratio.toFixed(2)} × the speed; ${same ? "both texts are equal" : "the texts differ"}`;
  // The answer that came first paid for the compilation.
  find("warming").hidden = runs > 1;
}

/** @param {{ message: string }} message */
function error({ message }) {
  find("error").textContent = message;
  find("error").hidden = false;
  progress.hidden = true;
  run.disabled = recipe.disabled;
  stop.disabled = true;
  queue = [];
  say(recipe.disabled ? "Cannot run" : "Ready");
  // A page whose bundle cannot be opened runs nothing more. The worker has memory and threads.
  if (recipe.disabled) worker.terminate();
}
