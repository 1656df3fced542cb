// What a run printed, the code that it ran, and its files.

import { fileAddress, get } from "./api.js";
import { card, empty, h } from "./dom.js";
import { bytes, moment } from "./format.js";

export async function consoleTab(body, run, signal) {
  if (!run.consoles.length) return void body.append(empty("No console output", "The collector `environment` records it, which is on unless the settings say:", 'collectors = []'));
  for (const name of run.consoles) {
    const { lines, first, total } = await get("console", { run: run.key, name }, signal);
    const text = h("pre", { class: "console", tabindex: 0, "aria-label": name }, plain(lines));
    let start = first;
    const earlier = h("button", { type: "button", hidden: !start, onclick: async () => {
      const page = await get("console", { run: run.key, name, before: start }, signal);
      text.prepend(plain(page.lines) + "\n");
      start = page.first;
      earlier.hidden = !start;
    } }, "Show earlier lines");
    body.append(card(name.replace("console/", ""), [h("span", { class: "soft" }, `${total.toLocaleString("en")} lines`), earlier], text));
    text.scrollTop = text.scrollHeight;
  }
}

/** Without the escapes that colour a terminal. */
const plain = (lines) => lines.join("\n").replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "");

export async function codeTab(body, run, signal) {
  const facts = Object.entries(run.params).filter(([name]) => name.startsWith("env/git/"));
  if (!run.git_commit && !facts.length) return void body.append(empty("No code recorded", "The collector `git` does it, in a repository, with:", "pip install 'tracelet[git]'"));
  body.append(card("Commit", null, h("table", null, h("tbody", null, [["commit", run.git_commit || "–"], ...facts.map(([name, value]) => [name.slice(8), String(value)])].map(([name, value]) =>
    h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "wrap mono" }, value)))))));
  const patches = run.files.filter(({ name, path }) => /\.(patch|diff)$/.test(name) || /\.(patch|diff)$/.test(path));
  if (!patches.length) body.append(h("p", { class: "soft" }, "Nothing differed from the commit, or the difference was not recorded."));
  for (const patch of patches) {
    const answer = await fetch(fileAddress(run.key, patch.path, true), { signal });
    const isText = (answer.headers.get("content-type") || "").startsWith("text/plain");
    const download = h("a", { href: fileAddress(run.key, patch.path), download: true }, "download");
    body.append(card(patch.name, download, isText ? diff(await answer.text()) : h("p", { class: "body soft" }, "Too large to be shown.")));
  }
}

const MAX_LINES = 5000;

function diff(text) {
  const lines = text.split("\n");
  const kind = (line) => (/^(diff |--- |\+\+\+ |index )/.test(line) ? "file" : line.startsWith("@@") ? "at" : line.startsWith("+") ? "add" : line.startsWith("-") ? "cut" : null);
  return h("div", { class: "diff mono", tabindex: 0, role: "region", "aria-label": "Difference" }, lines.slice(0, MAX_LINES).map((line) => h("div", { class: kind(line) }, line)), lines.length > MAX_LINES && h("div", { class: "at" }, `… ${lines.length - MAX_LINES} more lines`));
}

export function filesTab(body, run) {
  if (!run.files.length) return void body.append(empty("No files", "Keep one with the run:", 'run.log_artifact("model.pt", type="model")'));
  body.append(h("div", { class: "card scroll" }, h("table", null, h("thead", null, h("tr", null, ["Name", "Type", "Size", "Kept"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", null, run.files.map((file) => h("tr", null, h("td", null, file.bytes === null ? file.name : h("a", { href: fileAddress(run.key, file.path), download: true }, file.name)), h("td", null, file.kind || "–"), h("td", { class: "number" }, bytes(file.bytes)), h("td", null, moment(file.time_s))))))));
}
