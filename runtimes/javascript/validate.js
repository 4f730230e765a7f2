// The fields and types of a manifest, by manifest.schema.json.

const DIALECT = "2020-12";

/**
 * Returns a function that says what in a manifest is not as its schema says, or null.
 * @param {any} Validator that of @cfworker/json-schema.
 * @param {any} schema the content of manifest.schema.json.
 * @returns {(manifest: any) => string | null}
 */
export function validator(Validator, schema) {
  const checker = new Validator(schema, DIALECT, true);
  return (manifest) => {
    const { valid, errors } = checker.validate(manifest);
    if (valid) return null;
    const { instanceLocation, error } = errors[errors.length - 1];
    return `${instanceLocation.replace(/^#\/?/, "") || "it"}: ${error.replace(/\.$/, "")}`;
  };
}
