// A bundle in a directory, whose files are read here and not by libspecc: those of its text and its golden cases.

import { openBundle } from "../javascript/bundle.js";
import { FolderSource } from "../javascript/folder_source.js";

/**
 * Opens a bundle that a runtime has opened before, and that therefore was validated. Its files are checked when they are read.
 * @param {string} path
 */
export function openFolder(path) {
  return openBundle(new FolderSource(path), () => null);
}
