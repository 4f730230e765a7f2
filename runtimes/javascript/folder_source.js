// A bundle in a folder, for Node.

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

import { SpeccError, firstLine } from "./errors.js";

/** A bundle's files on a disk. */
export class FolderSource {
  /** @param {string} path */
  constructor(path) {
    this.name = path;
  }

  /**
   * Reads a file.
   * @param {string} file
   */
  async read(file) {
    const path = join(this.name, file);
    try {
      // A program that reads a pipe waits for ever.
      if ((await stat(path)).isFile()) return new Uint8Array(await readFile(path));
    } catch (error) {
      const isMissing = /** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT";
      throw new SpeccError(`cannot read ${path}${isMissing ? "" : ` (${firstLine(error)})`}; name a bundle that specc compile wrote`);
    }
    throw new SpeccError(`${path} is not a file; compile the bundle again`);
  }
}
