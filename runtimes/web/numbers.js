// Numbers of the command line, and their bounds.

export const MOST_PORT = 65535;
export const MOST_THREADS = 64; // Each one is a worker of the browser.

/**
 * Reads a whole number as a person typed it. Throws if it is none, or out of bounds.
 * @param {string} name what it is, for the error.
 * @param {string} text
 * @param {number} least
 * @param {number} most
 */
export function readNumber(name, text, least, most) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= least && number <= most) return number;
  throw new Error(`${name} is ${JSON.stringify(text)}; give a whole number from ${least} to ${most}`);
}
