// onnxruntime-node as the runtime of engines' files. Tensors are arrays of JavaScript, which its calls use in place.

import { join } from "node:path";

/**
 * @typedef {import("../javascript/engine.js").Buffer} Buffer
 * @typedef {Buffer & { tensor: any }} NodeTensor
 */

/** @type {Record<string, any>} */
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array, uint8: Uint8Array, int32: Int32Array };
const ERRORS_ONLY = 3;

/** ONNX Runtime in Node. */
export class OnnxRuntime {
  name = "onnxruntime-node";
  /** @type {Set<string>} */
  #checked = new Set();

  /**
   * @param {any} ort the package.
   * @param {string} version of the package.
   * @param {string} folder of the bundle.
   * @param {number} threads of one engine; 0 leaves it to ONNX Runtime.
   */
  constructor(ort, version, folder, threads) {
    this.ort = ort;
    this.version = version;
    this.folder = folder;
    this.threads = threads;
  }

  /**
   * Makes a tensor of zeros.
   * @param {string} dtype
   * @param {number[]} shape
   * @returns {NodeTensor}
   */
  tensor(dtype, shape) {
    const data = new ARRAYS[dtype](shape.reduce((a, b) => a * b, 1));
    return { data, shape, tensor: new this.ort.Tensor(dtype, data, shape) };
  }

  /**
   * Loads an engine's file, which finds its weights beside it. Both are checked before.
   * @param {import("../javascript/bundle.js").Bundle} bundle
   * @param {import("../javascript/bundle.js").EngineSpec} spec
   */
  async load(bundle, spec) {
    for (const file of [spec.file, spec.weights]) {
      if (!this.#checked.has(file)) await bundle.read(file);
      this.#checked.add(file);
    }
    const session = await this.ort.InferenceSession.create(join(this.folder, spec.file), {
      logSeverityLevel: ERRORS_ONLY,
      ...(this.threads && { intraOpNumThreads: this.threads }),
    });
    /** @type {Map<string, (number | string)[]>} */
    const shapes = new Map(session.inputMetadata.map((/** @type {any} */ each) => [each.name, each.shape]));
    const values = (/** @type {Record<string, Buffer>} */ tensors) =>
      Object.fromEntries(Object.entries(tensors).map(([name, each]) => [name, /** @type {NodeTensor} */ (each).tensor]));
    return {
      dimensions: (/** @type {string} */ input) => shapes.get(input) ?? [],
      bind(/** @type {Record<string, Buffer>} */ inputs, /** @type {Record<string, Buffer>} */ outputs) {
        const [feeds, fetches] = [values(inputs), values(outputs)];
        return () => session.run(feeds, fetches);
      },
      close: () => void session.release(),
    };
  }
}
