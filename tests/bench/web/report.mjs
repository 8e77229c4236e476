// Ratios of medians, as a table for the terminal, as Markdown in README.md, and as JSON.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * A line of the report: `ours` and `peer` are samples of `unit`, and a ratio above 1 means that we are ahead. `less` says that less is
 * better.
 */
export function line(name, unit, ours, peer, { less = false, goal = null } = {}) {
  const measured = [...ours, ...peer].every(Number.isFinite);
  const [a, b] = measured ? [median(ours), median(peer)] : [null, null];
  return { name, unit, ours: a, peer: b, ratio: measured ? (less ? b / a : a / b) : null, goal, samples: { ours, peer } };
}

export function hardware() {
  const [{ model }] = cpus();
  return { cpu: model.trim(), threads: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30), system: `${process.platform} ${process.arch}` };
}

/** The commit that is checked out, with + where files differ from it; "unknown" outside a clone. */
export function commit(root) {
  const git = (...args) => execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    return git("rev-parse", "--short=12", "HEAD") + (git("status", "--porcelain", "--untracked-files=no") ? "+" : "");
  } catch {
    return "unknown";
  }
}

function figure(value) {
  if (value === null) return "not measured";
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function cells({ name, unit, ours, peer, ratio, goal }) {
  const met = goal === null ? "" : ratio >= goal ? `≥ ${goal}: met` : `≥ ${goal}: missed`;
  return [name, unit, figure(ours), figure(peer), figure(ratio), met];
}

const HEAD = ["what", "unit", "ours", "peer", "ratio", "goal"];

/** For the terminal. */
export function table(lines) {
  const rows = [HEAD, ...lines.map(cells)];
  const widths = HEAD.map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) => row.map((cell, i) => (i < 2 || i > 4 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  ").trimEnd()).join("\n");
}

/** What was measured, with what and when, for people. */
export function markdown({ hardware, versions, settings, ratios }, command) {
  const versionText = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
  return [
    `\`${command}\`, ${new Date().toISOString().slice(0, 10)}: ${hardware.cpu}, ${hardware.threads} threads, ${hardware.memoryGiB} GiB, ${hardware.system}.`,
    `${versionText}.`,
    `${settings}.`,
    "",
    `| ${HEAD.join(" | ")} |`,
    "|---|---|---:|---:|---:|---|",
    ...ratios.map((one) => `| ${cells(one).join(" | ")} |`),
  ].join("\n");
}

const [BEGIN, END] = ["<!-- tests/bench/web: begin -->", "<!-- tests/bench/web: end -->"];

/** Puts `text` between the markers of a file. */
export function write(path, text) {
  const old = readFileSync(path, "utf8");
  const [begin, end] = [old.indexOf(BEGIN), old.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${path}: no "${BEGIN}" with "${END}" after it; put them where the table shall be`);
  writeFileSync(path, `${old.slice(0, begin + BEGIN.length)}\n${text}\n${old.slice(end)}`);
}
