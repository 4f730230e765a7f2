// Chromium without a window.

import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, rmdirSync } from "node:fs";
import { constants as system, tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
const VARIABLE = "SPECC_CHROMIUM"; // names the program, if it is not on PATH
const TICKS_PER_SECOND = 100; // of the counters in /proc, on every Linux that Node runs on

const SIGNALS = /** @type {const} */ (["SIGHUP", "SIGINT", "SIGTERM"]); // that end this process
const SIGNAL_STATUS = 128; // A shell adds it to the number of the signal that ended a process.

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
 * Opens a page in Chromium. If this process ends before the page is closed, also by a signal, Chromium and its folder go first.
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
  const kill = () => {
    try {
      // The group has Chromium's own processes, too. It gets no signal of the terminal.
      if (child.pid && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
  };
  const remove = () => {
    removeSocket(profile);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  const end = () => {
    kill();
    remove();
  };
  const exit = (/** @type {NodeJS.Signals} */ signal) => process.exit(SIGNAL_STATUS + system.signals[signal]);
  process.once("exit", end);
  for (const signal of SIGNALS) process.once(signal, exit);
  const close = async () => {
    kill();
    await ended;
    remove();
    process.off("exit", end);
    for (const signal of SIGNALS) process.off(signal, exit);
  };
  return { process: child, close };
}

/**
 * Removes the folder of the socket that a profile links to. Chromium puts it beside the profile, and keeps it when it is killed.
 * @param {string} profile
 */
function removeSocket(profile) {
  try {
    const folder = dirname(readlinkSync(join(profile, "SingletonSocket")));
    for (const name of ["SingletonSocket", "SingletonCookie"]) rmSync(join(folder, name), { force: true });
    rmdirSync(folder);
  } catch {
    // It has none yet.
  }
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
