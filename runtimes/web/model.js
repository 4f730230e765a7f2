// Opens the bundle of a URL in the browser.

import { Validator } from "./node_modules/@cfworker/json-schema/dist/esm/index.js";
import { openBundle } from "../javascript/bundle.js";
import { SpeccError, firstLine } from "../javascript/errors.js";
import { Model, checkContext } from "../javascript/session.js";
import { readText } from "../javascript/text.js";
import { validator } from "../javascript/validate.js";
import { HttpSource } from "./http_source.js";
import { MOST_THREADS } from "./numbers.js";
import { WasmRuntime } from "./onnxruntime.js";

// Workers have no import maps, so packages are named by their files.
const ONNXRUNTIME = new URL("./node_modules/onnxruntime-web/", import.meta.url);
const TOKENIZERS = new URL("./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs", import.meta.url);
const SCHEMA = new URL("../javascript/manifest.schema.json", import.meta.url);
const MOST_DEFAULT_THREADS = 4;

/**
 * Returns how many threads an engine gets: half of the processors, or one where the page is not isolated from other origins,
 * since such a page may not share memory.
 */
export function defaultThreads() {
  return globalThis.crossOriginIsolated ? Math.min(MOST_DEFAULT_THREADS, Math.ceil(navigator.hardwareConcurrency / 2)) : 1;
}

/**
 * Opens a bundle. Engines are loaded when a recipe first needs them.
 * @param {string} url
 * @param {object} [options]
 * @param {number} [options.threads]
 * @param {number} [options.context] tokens of prompt and answer that rows are kept for.
 * @param {import("../javascript/engine.js").Progress} [options.progress]
 */
export async function openModel(url, { threads = defaultThreads(), context, progress } = {}) {
  if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
    throw new SpeccError(`threads is ${threads}; give a whole number from 1 to ${MOST_THREADS}`);
  }
  if (context !== undefined) checkContext(context);
  if (threads > 1 && !globalThis.crossOriginIsolated) {
    throw new SpeccError(`this page may not use ${threads} threads; serve it with the headers of serve.js, or give threads=1`);
  }
  const source = new HttpSource(url);
  const [bundle, { version }, { default: factory }] = await Promise.all([
    needed(json(SCHEMA)).then((schema) => openBundle(source, validator(Validator, schema))),
    needed(json(new URL("package.json", ONNXRUNTIME))),
    needed(import(new URL("dist/ort-wasm-simd-threaded.mjs", ONNXRUNTIME).href)),
  ]);
  // The weights come while the browser compiles ONNX Runtime, which begins when the manifest is known to be right.
  fetchFirst(bundle, progress).catch(() => {});
  return new Model(bundle, await WasmRuntime.create({ factory, version, threads }), { context, progress });
}

/**
 * Reads a file of JSON beside this one.
 * @param {URL} file
 */
async function json(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} is not there`);
  return response.json();
}

/**
 * Waits for a file that this package needs.
 * @template T
 * @param {Promise<T>} loading
 */
async function needed(loading) {
  try {
    return await loading;
  } catch (error) {
    throw new SpeccError(`a file of this page cannot be loaded (${firstLine(error)}); run npm ci --ignore-scripts in runtimes/web`);
  }
}

/**
 * Begins to read the weights that the first token needs.
 * @param {import("../javascript/bundle.js").Bundle} bundle
 * @param {import("../javascript/engine.js").Progress} [progress]
 */
async function fetchFirst(bundle, progress) {
  const file = bundle.engine("decode")?.weights;
  if (file !== undefined) await bundle.weights(file, (bytes) => progress?.(file, bytes, bundle.files[file].bytes));
}

/**
 * Reads a bundle's tokenizer.
 * @param {import("../javascript/bundle.js").Bundle} bundle
 */
export function openText(bundle) {
  return readText(bundle, needed(import(TOKENIZERS.href)).then(({ Tokenizer }) => Tokenizer));
}
