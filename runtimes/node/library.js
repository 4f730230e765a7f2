// The functions of libspecc, by koffi. specc.h says what each of them does.

import koffi from "koffi";

// ONNX Runtime runs on the thread that calls, which koffi gives 128 KiB of stack unless it is told otherwise.
koffi.config({ async_stack_size: 4 << 20 });

const ERROR_SIZE = 512;
koffi.struct("specc_options", {
  onnxruntime: "const char *",
  threads: "int",
  error: "void *",
  error_size: "size_t",
});
koffi.struct("specc_stats", {
  recipe: koffi.array("char", 64, "String"),
  new_tokens: "size_t",
  drafts: "size_t",
  drafted: "size_t",
  accepted: "size_t",
  target_calls: "size_t",
  prefill_seconds: "double",
  seconds: "double",
  mean_acceptance_length: "double",
  error: koffi.array("char", ERROR_SIZE, "String"),
});
const OnTokens = koffi.pointer(koffi.proto("int specc_on_tokens(void *user, const void *tokens, size_t count)"));

const MOST_CALLS = 64; // koffi refuses more than 256 at once, and most of them would wait for a thread anyway.
let running = 0;
/** @type {((value: unknown) => void)[]} */
const waiting = [];

/** @typedef {ReturnType<typeof load>} Library */

/**
 * Loads libspecc.
 * @param {string} path the path of the library, or a name that the system's loader finds.
 */
export function load(path) {
  try {
    return functions(koffi.load(path));
  } catch (error) {
    const reason = /** @type {Error} */ (error).message.split("\n")[0];
    throw new Error(`cannot load libspecc at ${path} (${reason}); build runtimes/c, and give its path as SPECC_LIBRARY`);
  }
}

/**
 * Declares the functions of libspecc. Throws if the library lacks one.
 * @param {any} library
 */
function functions(library) {
  const open = library.func("int specc_open(const char *path, specc_options *options, _Out_ void **model)");
  const generate = library.func(
    "int specc_generate(void *session, const int64_t *prompt, size_t prompt_tokens, const char *recipe, " +
      "size_t max_new_tokens, specc_on_tokens *on_tokens, void *user, _Out_ specc_stats *stats)",
  );
  const generateAll = library.func(
    "int specc_generate_all(void *session, const int64_t *prompt, size_t prompt_tokens, const char *recipe, " +
      "size_t max_new_tokens, _Out_ void **tokens, _Out_ specc_stats *stats)",
  );
  const openSession = library.func("int specc_session_open(void *model, _Out_ void **session)");
  const error = library.func("const char *specc_error()");
  const version = library.func("const char *specc_version()");

  return {
    version: () => `libspecc ${version()}`,
    closeModel: library.func("void specc_close(void *model)"),
    recipe: library.func("const char *specc_recipe(void *model, size_t index)"),
    closeSession: library.func("void specc_session_close(void *session)"),
    cancel: library.func("void specc_cancel(void *session)"),

    /**
     * Opens a bundle on a thread of its own.
     * @param {string} bundle
     * @param {string | null} onnxruntime
     * @param {number} threads
     * @returns {Promise<unknown>} the model's handle.
     */
    async openModel(bundle, onnxruntime, threads) {
      const reason = Buffer.alloc(ERROR_SIZE);
      const model = [null];
      const options = { onnxruntime, threads, error: reason, error_size: ERROR_SIZE };
      if (await asynchronous(open, bundle, options, model)) throw new Error(text(reason));
      return model[0];
    },

    /**
     * Begins a conversation.
     * @param {unknown} model
     * @returns {unknown} the session's handle.
     */
    openSession(model) {
      const session = [null];
      if (openSession(model, session)) throw new Error(error());
      return session[0];
    },

    /**
     * Decodes a whole answer on a thread of its own. Nothing crosses to this thread before its end.
     * @param {unknown} session
     * @param {BigInt64Array} prompt
     * @param {string | null} recipe
     * @param {number} maxNewTokens
     */
    async generateAll(session, prompt, recipe, maxNewTokens) {
      const tokens = [null];
      /** @type {any} */
      const stats = {};
      if (await asynchronous(generateAll, session, prompt, prompt.length, recipe, maxNewTokens, tokens, stats)) {
        throw new Error(stats.error);
      }
      return { tokens: decoded(tokens[0], stats.new_tokens), counts: stats };
    },

    /**
     * Decodes an answer on a thread of its own.
     * @param {unknown} session
     * @param {BigInt64Array} prompt
     * @param {string | null} recipe
     * @param {number} maxNewTokens
     * @param {(tokens: number[]) => boolean} onTokens gets the tokens of each step, and returns whether to go on.
     */
    async generate(session, prompt, recipe, maxNewTokens, onTokens) {
      const callback = koffi.register(
        (/** @type {unknown} */ _user, /** @type {bigint} */ tokens, /** @type {number | bigint} */ count) =>
          onTokens(decoded(tokens, count)) ? 0 : 1,
        OnTokens,
      );
      try {
        /** @type {any} */
        const stats = {};
        const size = prompt.length;
        if (await asynchronous(generate, session, prompt, size, recipe, maxNewTokens, callback, null, stats)) {
          throw new Error(stats.error);
        }
        return stats;
      } finally {
        koffi.unregister(callback);
      }
    },
  };
}

/**
 * Reads tokens.
 * @param {any} address
 * @param {number | bigint} count
 * @returns {number[]}
 */
function decoded(address, count) {
  return Array.from(koffi.decode(address, "int64_t", Number(count)), Number);
}

/**
 * Calls a function of the library on a thread of koffi's.
 * @param {any} call
 * @param {unknown[]} values
 * @returns {Promise<number>} what it returns.
 */
async function asynchronous(call, ...values) {
  while (running >= MOST_CALLS) await new Promise((resolve) => waiting.push(resolve));
  running++;
  try {
    return await new Promise((resolve, reject) => {
      call.async(...values, (/** @type {Error | null} */ error, /** @type {number} */ status) =>
        error ? reject(error) : resolve(status),
      );
    });
  } finally {
    running--;
    waiting.shift()?.(undefined);
  }
}

/**
 * Reads a text that ends with a zero byte.
 * @param {Buffer} buffer
 */
function text(buffer) {
  return buffer.toString("utf8", 0, buffer.indexOf(0));
}

