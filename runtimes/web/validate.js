// The fields and types of a manifest, by docs/manifest.schema.json.

import { Validator } from "./node_modules/@cfworker/json-schema/dist/esm/index.js";

const DIALECT = "2020-12";

/**
 * Returns a function that says what in a manifest is not as its schema says, or null.
 * @param {any} schema the content of manifest.schema.json.
 * @returns {(manifest: any) => string | null}
 */
export function validator(schema) {
  const checker = new Validator(schema, DIALECT, true);
  return (manifest) => {
    const { valid, errors } = checker.validate(manifest);
    if (valid) return null;
    const { instanceLocation, error } = errors[errors.length - 1];
    return `${instanceLocation.replace(/^#\/?/, "") || "it"}: ${error.replace(/\.$/, "")}`;
  };
}
