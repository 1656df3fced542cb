// What a run printed, the code that it ran, and its files.

import { fileAddress, get } from "./api.js";
import { card, empty, h } from "./dom.js";
import { bytes, moment } from "./format.js";
import { link } from "./state.js";

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
  const patches = run.artifacts.made.flatMap(({ files }) => files).filter(({ name }) => /\.(patch|diff)$/.test(name));
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
  const { made, used } = run.artifacts;
  if (used.length) body.append(card("Used", null, h("table", null, h("tbody", null, used.map((one) => h("tr", null, h("td", null, `${one.name}:${one.version}`), h("td", null, one.type || "–"),
    h("td", null, "of ", h("a", { href: link("/run", { run: one.run_uuid, tab: "files" }) }, one.run_id))))))));
  if (!made.length) return void body.append(empty("No artifacts", "Keep one with the run:", 'run.log_artifact("model.pt", type="model")'));
  const heads = ["Name", "Type", "Step", "Size", "Kept", "Used by", "Files", "SHA-256"];
  const size = (one) => (one.reference ? "elsewhere" : bytes(one.bytes));
  body.append(h("div", { class: "card scroll" }, h("table", null, h("thead", null, h("tr", null, heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody", null, made.map((one) => h("tr", null,
    h("td", { class: "name" }, `${one.name}:${one.version} `, one.aliases.map((alias) => h("span", { class: "tag" }, alias))), h("td", null, one.type), h("td", { class: "number" }, one.step ?? "–"),
    h("td", { class: "number" }, size(one)), h("td", null, moment(one.time_s)), h("td", null, one.used_by.map((id) => [h("a", { href: link("/run", { run: id }) }, id), " "])),
    h("td", { class: "wrap files" }, one.reference ? (/^https?:/.test(one.reference) ? h("a", { href: one.reference, rel: "noreferrer" }, one.reference) : one.reference) : one.files.map((file) => h("div", null, h("a", { href: fileAddress(run.key, file.path), download: true }, file.name), " ", h("span", { class: "soft" }, bytes(file.bytes)))),
      one.changed.length > 0 && h("div", { class: "soft" }, `changed since: ${one.changed.join(", ")}`)),
    h("td", { class: "mono", title: one.digest }, (one.digest || "–").replace("sha256:", "").slice(0, 12))))))));
}
