/** What a person can mend, said in one line. */
export class SpeccError extends Error {}

const MEMORY = "free some memory, or compile with a smaller --max-seq-len";
const OPERATORS = "take a newer ONNX Runtime, or compile the bundle again with --lowering portable";
/** What helps, by a part of a message of ONNX Runtime or of JavaScript. @type {[RegExp, string][]} */
const REMEDIES = [
  [/alloc|memory|Array buffer|Invalid array length|Invalid typed array length/, MEMORY],
  [/is not a registered|No Op registered|Could not find an implementation/, OPERATORS],
];

/**
 * Returns an error that says in one line what went wrong, and what a person can do.
 * @param {unknown} error that of a library; a SpeccError is returned as it is.
 * @param {string} [what] what could not be done.
 */
export function remedied(error, what) {
  if (error instanceof SpeccError) return error;
  const reason = firstLine(error);
  const remedy = REMEDIES.find(([part]) => part.test(reason))?.[1] ?? "compile the bundle again";
  return new SpeccError(`${what ? `${what}: ` : ""}${reason}; ${remedy}`, { cause: error });
}

/**
 * Returns the first line of what went wrong.
 * @param {unknown} error
 */
export function firstLine(error) {
  return String(error instanceof Error ? error.message : error).split("\n")[0];
}
