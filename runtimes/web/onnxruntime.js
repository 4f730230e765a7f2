// ONNX Runtime's WebAssembly module, called through its C interface, which is that of onnxruntime/wasm/api.h.
//
// The package's own JavaScript copies every tensor into the module before a call and out of it afterwards, caches too.
// Here tensors lie in the module's memory: a call reads and writes rows in place, as docs/bundle-format.md asks for.

import { SpeccError, firstLine } from "../javascript/errors.js";

/**
 * @typedef {import("../javascript/engine.js").Buffer} Buffer
 * @typedef {Buffer & { handle: number }} WasmTensor
 */

/** By dtype: ONNX's number of the type, and its array in JavaScript. */
const TYPES = {
  float32: /** @type {const} */ ([1, Float32Array]),
  int64: /** @type {const} */ ([7, BigInt64Array]),
  bool: /** @type {const} */ ([9, Uint8Array]),
  uint8: /** @type {const} */ ([2, Uint8Array]),
  int32: /** @type {const} */ ([6, Int32Array]),
};
const ALL_OPTIMIZATIONS = 99;
const ERRORS_ONLY = 3;
const ON_CPU = 1;
const POINTER = 4; // bytes of an address in 32-bit WebAssembly
const MOST_BYTES = 2 ** (8 * POINTER);

/** ONNX Runtime in WebAssembly. A thread of JavaScript has one. */
export class WasmRuntime {
  name = "onnxruntime-web";
  /** @type {number[]} */
  #tensors = [];
  /** @type {number[]} */
  #addresses = []; // of what lives as long as the runtime

  /**
   * @param {any} module
   * @param {string} version
   */
  constructor(module, version) {
    this.module = module;
    this.version = version;
  }

  /**
   * Loads the module.
   * @param {object} options
   * @param {any} options.factory the default export of the package's ort-wasm-simd-threaded.mjs.
   * @param {string} options.version of the package.
   * @param {number} options.threads of one engine; above 1 the page must be isolated from other origins.
   */
  static async create({ factory, version, threads }) {
    let module;
    try {
      module = await factory({ numThreads: threads });
    } catch (error) {
      throw new SpeccError(`this browser cannot start onnxruntime-web (${firstLine(error)}); use one with SIMD in WebAssembly`);
    }
    const runtime = new WasmRuntime(module, version);
    runtime.#check(module._OrtInit(threads, ERRORS_ONLY), "cannot start");
    return runtime;
  }

  /**
   * Makes a tensor of zeros in the module's memory.
   * @param {string} dtype
   * @param {number[]} shape
   * @returns {WasmTensor}
   */
  tensor(dtype, shape) {
    const type = TYPES[/** @type {keyof typeof TYPES} */ (dtype)];
    if (!type) throw new SpeccError(`this runtime has no tensors of ${dtype}; compile the bundle with --dtype fp32`);
    const [code, Numbers] = type;
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = count * Numbers.BYTES_PER_ELEMENT;
    const address = this.keep(bytes);
    const data = new Numbers(this.module.HEAPU8.buffer, address, count).fill(/** @type {never} */ (code === 7 ? 0n : 0));
    const handle = this.#withStack((stack) => {
      const dimensions = stack(POINTER * shape.length);
      shape.forEach((size, i) => this.module.setValue(dimensions + POINTER * i, size, "i32"));
      return this.module._OrtCreateTensor(code, address, bytes, dimensions, shape.length, ON_CPU);
    });
    if (!handle) throw new SpeccError(`onnxruntime-web refuses a tensor (${this.#error()}); compile the bundle again`);
    this.#tensors.push(handle);
    return { data, shape, handle };
  }

  /**
   * Loads an engine's file.
   * @param {import("../javascript/bundle.js").Bundle} bundle
   * @param {import("../javascript/bundle.js").EngineSpec} spec
   * @param {import("../javascript/engine.js").Progress} [progress]
   */
  async load(bundle, spec, progress) {
    const { module } = this;
    const [graph, weights] = await Promise.all([
      bundle.read(spec.file),
      bundle.weights(spec.weights, (bytes) => progress?.(spec.weights, bytes, bundle.files[spec.weights].bytes)),
    ]);
    const address = this.allocate(graph.length);
    module.HEAPU8.set(graph, address);
    const options = module._OrtCreateSessionOptions(ALL_OPTIMIZATIONS, true, true, 0, false, 0, 0, ERRORS_ONLY, 0, 0);
    module.mountExternalData(spec.weights, weights);
    try {
      const session = await module._OrtCreateSession(address, graph.length, options);
      if (!session) throw new SpeccError(`onnxruntime-web cannot load ${spec.file} (${this.#error()}); compile the bundle again`);
      return new WasmFile(this, session);
    } catch (error) {
      if (error instanceof SpeccError) throw error;
      const reason = firstLine(error);
      throw new SpeccError(`${spec.file} does not fit into this browser's memory (${reason}); close other pages, or take a smaller bundle`);
    } finally {
      module.unmountExternalData();
      module._OrtReleaseSessionOptions(options);
      module._free(address);
    }
  }

  /**
   * Returns the address of memory that nothing else uses.
   * @param {number} bytes
   */
  allocate(bytes) {
    // A number that is too large for an address would become a small one.
    const address = bytes < MOST_BYTES ? this.module._malloc(bytes) : 0;
    if (!address) throw new SpeccError(`this browser has no memory for ${bytes} bytes more; close other pages, or take a smaller bundle`);
    return address;
  }

  /**
   * Returns the address of memory that is freed with the runtime.
   * @param {number} bytes
   */
  keep(bytes) {
    const address = this.allocate(bytes);
    this.#addresses.push(address);
    return address;
  }

  /** Frees the tensors, and what binds them to engines. */
  close() {
    for (const handle of this.#tensors.splice(0)) this.module._OrtReleaseTensor(handle);
    for (const address of this.#addresses.splice(0)) this.module._free(address);
  }

  /**
   * Raises an error if a function of the module failed.
   * @param {number} status
   * @param {string} what
   */
  #check(status, what) {
    if (status) throw new SpeccError(`onnxruntime-web ${what} (${this.#error()}); load the page again, or compile the bundle again`);
  }

  /**
   * Runs a bound graph.
   * @param {number[]} values of `_OrtRun`.
   */
  run(values) {
    let status;
    try {
      status = this.module._OrtRun(...values);
    } catch (error) {
      throw new SpeccError(`onnxruntime-web stopped (${firstLine(error)}); load the page again with a smaller context`);
    }
    this.#check(status, "cannot run an engine");
  }

  /** Returns the module's last error, in one line. */
  #error() {
    return this.#withStack((stack) => {
      const place = stack(2 * POINTER);
      this.module._OrtGetLastError(place, place + POINTER);
      const text = this.module.getValue(place + POINTER, "*");
      return text ? this.module.UTF8ToString(text).split("\n")[0] : "no reason given";
    });
  }

  /**
   * Calls a function that gets memory on the module's stack, and frees it afterwards.
   * @template T
   * @param {(allocate: (bytes: number) => number) => T} work
   * @returns {T}
   */
  #withStack(work) {
    const top = this.module.stackSave();
    try {
      return work(this.module.stackAlloc);
    } finally {
      this.module.stackRestore(top);
    }
  }

  /**
   * Returns the names and shapes of a session's inputs.
   * @param {number} session
   */
  inputs(session) {
    const { module } = this;
    return this.#withStack((stack) => {
      const place = stack(2 * POINTER);
      this.#check(module._OrtGetInputOutputCount(session, place, place + POINTER), "cannot read an engine");
      const count = module.getValue(place, "i32");
      /** @type {Map<string, (number | string)[]>} */
      const shapes = new Map();
      for (let i = 0; i < count; i++) {
        this.#check(module._OrtGetInputOutputMetadata(session, i, place, place + POINTER), "cannot read an engine");
        const name = module.getValue(place, "*");
        const metadata = module.getValue(place + POINTER, "*");
        // The type, the number of dimensions, an address of each one's name or 0, and each one's size.
        const rank = module.getValue(metadata + POINTER, "i32");
        const names = metadata + 2 * POINTER;
        const shape = Array.from({ length: rank }, (_, axis) => {
          const symbol = module.getValue(names + POINTER * axis, "*");
          return symbol ? module.UTF8ToString(symbol) : module.getValue(names + POINTER * (rank + axis), "i32");
        });
        shapes.set(module.UTF8ToString(name), shape);
        module._OrtFree(name);
        module._OrtFree(metadata);
      }
      return shapes;
    });
  }
}

/** An engine's file that is loaded. */
class WasmFile {
  /**
   * @param {WasmRuntime} runtime
   * @param {number} session
   */
  constructor(runtime, session) {
    this.runtime = runtime;
    this.session = session;
    this.shapes = runtime.inputs(session);
  }

  /** @param {string} input */
  dimensions(input) {
    return this.shapes.get(input) ?? [];
  }

  /**
   * Returns a function that runs the graph over some tensors.
   * @param {Record<string, Buffer>} inputs
   * @param {Record<string, Buffer>} outputs
   */
  bind(inputs, outputs) {
    const [inputNames, inputValues] = this.#arrays(inputs);
    const [outputNames, outputValues] = this.#arrays(outputs);
    const counts = [Object.keys(inputs).length, Object.keys(outputs).length];
    const values = [this.session, inputNames, inputValues, counts[0], outputNames, counts[1], outputValues, 0];
    return () => this.runtime.run(values);
  }

  close() {
    this.runtime.module._OrtReleaseSession(this.session);
  }

  /**
   * Writes names and tensors into the module's memory, where they stay.
   * @param {Record<string, Buffer>} tensors
   */
  #arrays(tensors) {
    const { module } = this.runtime;
    const write = (/** @type {number[]} */ addresses) => {
      const array = this.runtime.keep(POINTER * addresses.length);
      addresses.forEach((address, i) => module.setValue(array + POINTER * i, address, "*"));
      return array;
    };
    const names = Object.keys(tensors).map((name) => {
      const bytes = module.lengthBytesUTF8(name) + 1;
      const address = this.runtime.keep(bytes);
      module.stringToUTF8(name, address, bytes);
      return address;
    });
    return [write(names), write(Object.values(tensors).map((tensor) => /** @type {WasmTensor} */ (tensor).handle))];
  }
}
