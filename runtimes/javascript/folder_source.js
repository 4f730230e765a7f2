// A bundle in a folder, for Node.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { SpeccError } from "./errors.js";

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
    try {
      return new Uint8Array(await readFile(join(this.name, file)));
    } catch {
      throw new SpeccError(`cannot read ${join(this.name, file)}; name a bundle that specc compile wrote`);
    }
  }
}
