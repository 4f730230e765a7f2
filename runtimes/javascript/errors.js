/** What a person can mend, said in one line. */
export class SpeccError extends Error {}

/**
 * Returns the first line of what went wrong.
 * @param {unknown} error
 */
export function firstLine(error) {
  return String(error instanceof Error ? error.message : error).split("\n")[0];
}
