// A bundle behind a URL. Files are streamed, and kept in the browser's Cache API by their digests.

import { SpeccError, firstLine } from "../javascript/errors.js";

const CACHE = "specc-bundles";
const PROTOCOLS = ["http:", "https:"];
const DIGEST = "sha256"; // the parameter of a URL under which a file is kept

/** A bundle's files behind a URL. */
export class HttpSource {
  /** @type {(() => Promise<void>)[]} */
  #keepers = []; // each writes a file that was read to the cache

  /** @param {string} url of the bundle's folder. Each file is asked for with its query, such as a token. */
  constructor(url) {
    try {
      if (!url) throw new Error("it is empty");
      this.base = new URL(url, globalThis.location?.href);
      const { protocol, username, password } = this.base;
      if (!PROTOCOLS.includes(protocol) || username || password) throw new Error("a browser fetches no files from it");
      if (!this.base.pathname.endsWith("/")) this.base.pathname += "/";
    } catch {
      throw new SpeccError(`the bundle's URL ${JSON.stringify(url)} is not one; give that of a folder that specc compile wrote`);
    }
    this.name = shown(this.base).replace(/\/$/, "");
  }

  /**
   * Reads a file, from the cache if it is there.
   * @param {string} file
   * @param {import("../javascript/bundle.js").FileSpec} [expected]
   * @param {(bytes: number) => void} [progress]
   */
  async read(file, expected, progress) {
    const url = this.#address(file);
    if (!expected) return receive(url, await get(url, "no-cache"));
    const cache = await openCache();
    const key = bare(url); // Another token for the server changes no file.
    key.searchParams.set(DIGEST, expected.sha256);
    const kept = await cache?.match(key);
    // A download of the file that was cut, or that is old, gives other bytes; what is kept has the digest that the key says.
    const content = await receive(url, kept ?? (await get(url, "no-store")), expected.bytes, progress);
    if (!kept && cache && content.length === expected.bytes) this.#keepers.push(() => keep(cache, key, content));
    return content;
  }

  /** Writes the files that were read to the cache. That takes time, so answers come first. */
  async keep() {
    for (const keeper of this.#keepers.splice(0)) await keeper();
  }

  /**
   * Forgets a file, so that it is fetched again.
   * @param {string} file
   */
  async forget(file) {
    await this.keep();
    const cache = await openCache();
    await cache?.delete(this.#address(file), { ignoreSearch: true });
  }

  /** @param {string} file */
  #address(file) {
    const url = new URL(file.split("/").map(encodeURIComponent).join("/"), this.base);
    url.search = this.base.search;
    return url;
  }
}

/**
 * Returns a URL without its query.
 * @param {URL} url
 */
function bare(url) {
  const copy = new URL(url);
  copy.search = copy.hash = "";
  return copy;
}

/**
 * Returns a URL as messages show it. A query may be a secret.
 * @param {URL} url
 */
function shown(url) {
  return bare(url).href;
}

/**
 * Asks a server for a file.
 * @param {URL} url
 * @param {RequestCache} cache
 */
async function get(url, cache) {
  let response;
  try {
    response = await fetch(url, { cache });
  } catch (error) {
    throw new SpeccError(`cannot read ${shown(url)} (${firstLine(error)}); does its server run, and does it allow this page (CORS)?`);
  }
  if (!response.ok) throw new SpeccError(`cannot read ${shown(url)}: the server answers ${response.status}; give the URL of a bundle`);
  return response;
}

/**
 * Reads an answer.
 * @param {URL} url
 * @param {Response} response
 * @param {number} [bytes] how many bytes there must be, if that is known.
 * @param {(bytes: number) => void} [progress]
 */
async function receive(url, response, bytes, progress) {
  if (bytes === undefined || !response.body) {
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      throw new SpeccError(`${shown(url)} broke off (${firstLine(error)}); load the page again`);
    }
  }
  let content;
  try {
    content = new Uint8Array(bytes);
  } catch {
    throw new SpeccError(`${shown(url)} has ${bytes} bytes, and this browser has no memory for them; take a smaller bundle`);
  }
  let count = 0;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (count + value.length > bytes) {
        await reader.cancel();
        throw new SpeccError(`${shown(url)} has more than the ${bytes} bytes that the manifest says; copy the bundle again`);
      }
      content.set(value, count);
      count += value.length;
      progress?.(count);
    }
  } catch (error) {
    if (error instanceof SpeccError) throw error;
    throw new SpeccError(`${shown(url)} broke off after ${count} of ${bytes} bytes (${firstLine(error)}); load the page again`);
  }
  return content.subarray(0, count);
}

/** Returns the cache, or null where the browser has none for this page. */
async function openCache() {
  try {
    return (await globalThis.caches?.open(CACHE)) ?? null;
  } catch {
    return null; // Private windows may refuse it.
  }
}

/**
 * Writes a file to the cache, and drops what was kept of an older bundle at its URL.
 * @param {Cache} cache
 * @param {URL} key
 * @param {Uint8Array} content
 */
async function keep(cache, key, content) {
  try {
    await cache.delete(bare(key), { ignoreSearch: true });
    await cache.put(key, new Response(/** @type {BodyInit} */ (content)));
  } catch {
    // There is no room. The file is fetched again next time.
  }
}
