// One run: a head with the facts, and tabs.

import { get } from "./api.js";
import { ChartsView } from "./charts.js";
import { empty, h } from "./dom.js";
import { ago, duration, moment, number } from "./format.js";
import { codeTab, consoleTab, filesTab } from "./files.js";
import { mediaTab } from "./media.js";
import { overviewTab } from "./overview.js";
import { expectPlotly } from "./plotly.js";
import { chip, HOW_TO_BEGIN } from "./runs.js";
import { link, query } from "./state.js";

const MEDIA = ["image", "figure", "audio", "video", "table", "histogram", "text"];

export async function runPage(place, signal) {
  const key = query().get("run");
  if (!key) return void place.append(empty("Which run?", "Choose one in the table of runs, or record one:", HOW_TO_BEGIN));
  if (["charts", "system"].includes(query().get("tab"))) expectPlotly();
  const run = await get("run", { run: key }, signal);
  document.title = `${run.name} – Tracelet`;
  const row = { key: run.key, id: run.id, name: run.name, status: run.status, params: run.params, tags: run.tags, metrics: run.latest };
  const tabs = [
    ["overview", "Overview", (body) => overviewTab(body, run, signal)],
    ["charts", "Charts", (body) => new ChartsView(body, signal, [row], "scalar").open()],
    ["system", "System", (body) => new ChartsView(body, signal, [row], "system").open()],
    ["media", "Media", (body) => mediaTab(body, run, signal), run.records.filter(({ type }) => MEDIA.includes(type)).length],
    ["console", "Console", (body) => consoleTab(body, run, signal)],
    ["code", "Code", (body) => codeTab(body, run, signal)],
    ["files", "Artifacts", (body) => filesTab(body, run), run.artifacts.made.length],
  ];
  const [id, label, show] = tabs.find(([name]) => name === query().get("tab")) || tabs[0];
  const body = h("div", { role: "tabpanel", "aria-label": label, tabindex: 0 });
  place.append(head(run), ...warnings(run), tabList(tabs, id, run.key), body);
  await show(body);
}

function head(run) {
  const facts = { id: run.id, project: run.project, started: `${moment(run.started_s)} (${ago(run.started_s)})`, [run.ended_s ? "took" : "running for"]: duration(run.duration_s), step: number(run.last_step), where: run.path };
  return h("div", null,
    h("div", { class: "head" }, h("h1", null, run.name), chip(run.status), Object.entries(run.tags).map(([name, value]) => h("span", { class: "tag" }, value ? `${name}=${value}` : name)),
      h("a", { class: "button", href: link("/compare", { run: run.key }) }, "Compare")),
    h("div", { class: "facts" }, Object.entries(facts).map(([name, value]) => h("span", null, `${name} `, h("b", { class: name === "where" || name === "id" ? "mono" : null }, value)))),
    run.description && h("p", null, run.description));
}

function warnings(run) {
  const { damage } = run;
  const faults = [
    run.lost && `${run.lost} records that the disk did not take`,
    damage.records && `${damage.records} damaged records`,
    damage.holes && `${damage.holes} missing records`,
    damage.lines && `${damage.lines} damaged lines`,
    damage.files.length && `unreadable: ${damage.files.join(", ")}`,
  ].filter(Boolean);
  return [
    run.status === "killed" && h("p", { class: "note warn" }, "The process is gone and never said that it ended. Everything that it logged is here."),
    run.error && h("p", { class: "note bad mono" }, run.error),
    faults.length > 0 && h("p", { class: "note warn" }, `Not whole: ${faults.join("; ")}.`),
  ].filter(Boolean);
}

function tabList(tabs, current, key) {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Parts of the run" }, tabs.map(([id, label, , count]) =>
    h("a", { role: "tab", href: link("/run", { run: key, tab: id }), "aria-selected": String(id === current), tabindex: id === current ? 0 : -1 }, label, count > 0 && h("span", { class: "soft" }, ` ${count}`))));
  list.addEventListener("keydown", (event) => {
    const all = [...list.children], at = all.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && at >= 0) all[(at + step + all.length) % all.length].focus();
  });
  return list;
}
