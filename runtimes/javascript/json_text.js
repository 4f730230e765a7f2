// What JSON.parse does not say about a text.

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;
const MOST_NESTING = 32;

/**
 * Returns what is wrong with a JSON text that JSON.parse accepts: an object has a name twice, or values are nested too
 * deep. Returns null if nothing is.
 * @param {string} text
 * @returns {string | null}
 */
export function fault(text) {
  /** @type {(Set<string> | null)[]} */
  const open = []; // The names of each object that is open; null stands for an array.
  let last = "";
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") {
      open.push(token === "{" ? new Set() : null);
      if (open.length > MOST_NESTING) return `values are nested more than ${MOST_NESTING} deep`;
    } else if (token === "}" || token === "]") {
      open.pop();
    } else if (token === ":") {
      const names = /** @type {Set<string>} */ (open.at(-1));
      const name = JSON.parse(last);
      if (names.has(name)) return `an object has the name ${JSON.stringify(name)} twice`;
      names.add(name);
    }
    last = token;
  }
  return null;
}
