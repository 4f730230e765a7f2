// Chromium without a window.

import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
const VARIABLE = "SPECC_CHROMIUM"; // names the program, if it is not on PATH
const TICKS_PER_SECOND = 100; // of the counters in /proc, on every Linux that Node runs on

/** Returns the path of Chromium. */
export function findBrowser() {
  const chosen = process.env[VARIABLE];
  const folders = (process.env.PATH ?? "").split(delimiter);
  const candidates = chosen ? [chosen] : NAMES.flatMap((name) => folders.map((folder) => join(folder, name)));
  const path = candidates.find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (path) return path;
  throw new Error(
    chosen
      ? `${VARIABLE} is ${chosen}, which is no program; give the path of Chromium`
      : `there is no Chromium on PATH (${NAMES.join(", ")}); install it, or give its path as ${VARIABLE}`,
  );
}

/**
 * Opens a page in Chromium.
 * @param {string} url
 * @returns {{ process: import("node:child_process").ChildProcess, close: () => Promise<void> }}
 */
export function openPage(url) {
  const profile = mkdtempSync(join(tmpdir(), "specc-chromium-"));
  const options = ["--headless", `--user-data-dir=${profile}`, "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"];
  // Chromium refuses to run as root with its sandbox, as continuous integration does.
  if (process.getuid?.() === 0) options.push("--no-sandbox");
  const child = spawn(findBrowser(), [...options, url], { stdio: "ignore", detached: true });
  const ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
  const close = async () => {
    try {
      // The group has Chromium's own processes, too.
      if (child.pid && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { process: child, close };
}

/**
 * Returns the processor seconds that the processes of a group have used, or null where /proc does not say.
 * @param {number} group
 */
export function processorSeconds(group) {
  let ticks = 0;
  let count = 0;
  try {
    for (const name of readdirSync("/proc").filter((each) => /^\d+$/.test(each))) {
      let line;
      try {
        line = readFileSync(`/proc/${name}/stat`, "utf8");
      } catch {
        continue; // It has ended meanwhile.
      }
      // Behind the program's name, which may have spaces: state, parent, group, and at 11 and 12 the times.
      const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
      if (Number(fields[2]) !== group) continue;
      ticks += Number(fields[11]) + Number(fields[12]);
      count++;
    }
  } catch {
    return null;
  }
  return count ? ticks / TICKS_PER_SECOND : null;
}
