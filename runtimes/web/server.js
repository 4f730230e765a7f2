// Serves the page and a bundle, for this machine only.
//
// The headers isolate the page from other origins: only such a page may use several threads.

import { createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { MOST_PORT } from "./numbers.js";

const PAGE = fileURLToPath(new URL(".", import.meta.url));
const MODULES = fileURLToPath(new URL("../javascript/", import.meta.url));
const HOST = "127.0.0.1";
const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/**
 * Starts a server.
 * @param {string} bundle the bundle's folder.
 * @param {object} [options]
 * @param {number} [options.port] 0 takes one that is free.
 * @param {(body: string) => void} [options.report] gets what a page posts to /report.
 * @returns {Promise<{ url: string, close: () => void }>}
 */
export async function serve(bundle, { port = 0, report } = {}) {
  if (!Number.isInteger(port) || port < 0 || port > MOST_PORT) throw new Error(`the port is ${port}; give a whole number from 0 to ${MOST_PORT}`);
  await access(join(bundle, "manifest.json")).catch(() => {
    throw new Error(`${bundle} has no manifest.json; name a bundle that specc compile wrote`);
  });
  const server = createServer((request, response) => {
    const refuse = (/** @type {number} */ status) => response.writeHead(status, HEADERS).end();
    if (request.method === "POST" && request.url === "/report" && report) {
      let body = "";
      request.setEncoding("utf8").on("data", (part) => (body += part));
      request.on("end", () => {
        report(body);
        refuse(204);
      });
      return;
    }
    if (request.method !== "GET") return refuse(405);
    send(request, response, bundle).catch(() => refuse(404));
  });
  await new Promise((resolve, reject) => {
    server.once("error", (error) => reject(new Error(`cannot serve at port ${port} (${error.message}); give another --port`)));
    server.listen(port, HOST, () => resolve(null));
  });
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://${HOST}:${address.port}`, close };
}

/**
 * Returns the file of a path. `normalize` of an absolute path leaves no `..`.
 * @param {string} bundle
 * @param {string} url
 */
function fileOf(bundle, url) {
  const path = normalize(decodeURIComponent(new URL(url, "http://host").pathname));
  for (const [prefix, folder] of Object.entries({ "/bundle/": bundle, "/javascript/": MODULES })) {
    if (path.startsWith(prefix)) return join(folder, path.slice(prefix.length));
  }
  return join(PAGE, path === "/" ? "index.html" : path);
}

/**
 * Sends a file, or says that the browser's copy is still right. Browsers keep what they compiled of such files, too.
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 * @param {string} bundle
 */
async function send(request, response, bundle) {
  const file = fileOf(bundle, request.url ?? "/");
  const status = await stat(file);
  if (!status.isFile()) throw new Error(`${file} is not a file`); // A pipe would never end.
  const { size, mtimeMs } = status;
  const type = TYPES[/** @type {keyof typeof TYPES} */ (extname(file))] ?? "application/octet-stream";
  const headers = { ...HEADERS, "Content-Type": type, "Cache-Control": "no-cache", ETag: `"${size}-${mtimeMs}"` };
  if (request.headers["if-none-match"] === headers.ETag) {
    response.writeHead(304, headers).end();
    return;
  }
  const stream = createReadStream(file);
  await new Promise((resolve, reject) => stream.once("open", resolve).once("error", reject));
  response.writeHead(200, { ...headers, "Content-Length": size });
  stream.pipe(response).on("error", () => stream.destroy());
}
