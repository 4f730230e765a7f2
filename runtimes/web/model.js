// Opens the bundle of a URL in the browser.

import { Validator } from "./node_modules/@cfworker/json-schema/dist/esm/index.js";
import { openBundle } from "../javascript/bundle.js";
import { SpeccError } from "../javascript/errors.js";
import { Model } from "../javascript/session.js";
import { Text } from "../javascript/text.js";
import { validator } from "../javascript/validate.js";
import { HttpSource } from "./http_source.js";
import { WasmRuntime } from "./onnxruntime.js";

// Workers have no import maps, so packages are named by their files.
const ONNXRUNTIME = new URL("./node_modules/onnxruntime-web/", import.meta.url);
const TOKENIZERS = new URL("./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs", import.meta.url);
const SCHEMA = new URL("../javascript/manifest.schema.json", import.meta.url);
const MOST_THREADS = 4;

/**
 * Returns how many threads an engine gets: half of the processors, or one where the page is not isolated from other origins,
 * since such a page may not share memory.
 */
export function defaultThreads() {
  return globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, Math.ceil(navigator.hardwareConcurrency / 2)) : 1;
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
  if (threads > 1 && !globalThis.crossOriginIsolated) {
    throw new SpeccError(`this page may not use ${threads} threads; serve it with the headers of serve.js, or give threads=1`);
  }
  const json = async (/** @type {URL} */ file) => (await fetch(file)).json();
  const source = new HttpSource(url);
  const opening = json(SCHEMA).then((schema) => openBundle(source, validator(Validator, schema)));
  // The weights come while the browser compiles ONNX Runtime.
  opening.then((bundle) => fetchFirst(bundle, progress)).catch(() => {});
  const [{ version }, { default: factory }] = await Promise.all([
    json(new URL("package.json", ONNXRUNTIME)),
    import(new URL("dist/ort-wasm-simd-threaded.mjs", ONNXRUNTIME).href),
  ]);
  const [runtime, bundle] = await Promise.all([WasmRuntime.create({ factory, version, threads }), opening]);
  return new Model(bundle, runtime, { context, progress });
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
export async function openText(bundle) {
  const [{ Tokenizer }, tokenizer, config] = await Promise.all([
    import(TOKENIZERS.href),
    bundle.json("tokenizer.json"),
    bundle.json("tokenizer_config.json"),
  ]);
  return new Text(new Tokenizer(tokenizer, config), tokenizer);
}
