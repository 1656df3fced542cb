// The table of runs: search, filters, sorting, columns, grouping, selection.

import { get } from "./api.js";
import { empty, h, menu, replace, select } from "./dom.js";
import { ago, duration, moment, natural, number, parameter } from "./format.js";
import { link, query, update } from "./state.js";

const PAGE = 200;
const EVERY_MS = 4000;
export const HOW_TO_BEGIN = `import tracelet

with tracelet.Experiment("first") as run:
    run.log_metric("loss", 0.5)`;

export const chip = (status) => h("span", { class: `chip ${status}` }, status);
const tags = (found) => Object.entries(found).map(([key, value]) => h("span", { class: "tag" }, value ? `${key}=${value}` : key));

export async function runsPage(place, signal) {
  const page = new RunsPage(place, signal);
  await page.load();
  page.watch();
}

class RunsPage {
  constructor(place, signal) {
    this.signal = signal;
    this.limit = PAGE;
    const found = query();
    this.selected = new Set(found.getAll("run"));
    this.search = h("input", { type: "search", class: "grow", placeholder: "Search name, id, project, tag  (/)", "aria-label": "Search runs", value: found.get("search") });
    this.filter = h("input", { type: "text", class: "grow mono", placeholder: "status=finished, params.lr>0.01, metric.val/acc>=0.9", "aria-label": "Filter expressions, divided by commas",
      value: found.getAll("filter").join(", ") });
    this.search.addEventListener("input", () => this.ask({ search: this.search.value }));
    this.filter.addEventListener("change", () => this.ask({ filter: this.filter.value.split(",").map((text) => text.trim()).filter(Boolean) }));
    this.tools = h("span");
    this.actions = h("div", { class: "bar sticky", "aria-live": "polite" });
    this.body = h("div");
    this.fault = h("div");
    place.append(h("h1", { class: "skip" }, "Runs"), h("div", { class: "bar" }, this.search, this.filter, this.tools), this.fault, this.actions, this.body);
  }

  ask(changes) {
    update(changes);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 150);
  }

  async load() {
    const found = query();
    try {
      this.facts = await get("runs", { search: found.get("search"), filter: found.getAll("filter"), sort: found.get("sort"), limit: this.limit }, this.signal);
    } catch (error) {
      if (this.signal.aborted) return;
      if (this.facts) return void replace(this.fault, h("p", { class: "note bad", role: "alert" }, error.message));
      if (!found.getAll("filter").length) throw error;
      this.facts = { rows: [], total: 0, all: 1, keys: { params: [], metric: [], tag: [] }, main: [], unreadable: [], directory: "" };
      replace(this.fault, h("p", { class: "note bad", role: "alert" }, error.message));
      return this.draw();
    }
    replace(this.fault, this.facts.unreadable.map(({ path, why }) => h("p", { class: "note warn" }, `${path} can't be read: ${why}`)));
    this.draw();
  }

  async watch() {
    while (!this.signal.aborted) {
      await new Promise((wake) => setTimeout(wake, EVERY_MS));
      const isLive = !this.facts.all || this.facts.rows.some((row) => row.status === "running");
      document.getElementById("live").textContent = this.facts.rows.some((row) => row.status === "running") ? "live" : "";
      if (!this.signal.aborted && !document.hidden && isLive && !document.querySelector("details.menu[open]")) await this.load();
    }
  }

  /** The columns of parameters and metrics that are shown, as `params.lr`, `metric.val/loss`, `tag.team`. */
  columns() {
    const chosen = query().getAll("col");
    if (chosen.length) return chosen.filter((key) => key !== "none");
    const { rows, keys, main } = this.facts;
    const has = (name) => rows.filter((row) => name in row.params).length >= rows.length / 2;
    const varies = (name) => has(name) && new Set(rows.map((row) => JSON.stringify(row.params[name]))).size > 1;
    return [...main.map((name) => `metric.${name}`), ...keys.params.filter(varies).slice(0, 4).map((name) => `params.${name}`)];
  }

  draw() {
    const { rows, total, all, directory } = this.facts;
    document.getElementById("place").textContent = directory;
    if (!all) {
      replace(this.tools);
      replace(this.actions);
      return void replace(this.body, empty("No runs yet", `There are none in ${directory}. Record one, and it appears here by itself:`, HOW_TO_BEGIN));
    }
    this.drawTools();
    this.drawActions();
    if (!rows.length) return void replace(this.body, empty("No run answers to this", `None of ${all} runs does. Shorten the search, or write a filter such as:`, "status=finished, metric.val/acc>=0.9"));
    const more = rows.length < total && h("button", { type: "button", onclick: () => ((this.limit += 1000), this.load()) }, "Show more");
    replace(this.body, h("div", { class: "card scroll" }, this.table(rows)), h("div", { class: "bar" }, h("span", { class: "soft" }, `${rows.length} of ${total} runs`), more));
  }

  drawTools() {
    const { keys } = this.facts, shown = new Set(this.columns());
    const choices = Object.entries(keys).flatMap(([group, names]) => names.map((name) => `${group}.${name}`));
    const boxes = choices.map((key) => h("label", null, h("input", { type: "checkbox", checked: shown.has(key), onchange: (event) => {
      event.target.checked ? shown.add(key) : shown.delete(key);
      update({ col: shown.size ? [...shown] : ["none"] });
      this.draw();
    } }), key));
    const groups = [["", "nothing"], ["project", "project"], ["status", "status"], ["name", "name"], ...choices.filter((key) => !key.startsWith("metric.")).map((key) => [key, key])];
    if (!this.tools.querySelector("details[open]"))
      replace(this.tools, h("span", { class: "bar" }, menu("Columns", boxes), select("Group by", query().get("group") || "", groups, (group) => (update({ group }), this.draw()))));
  }

  drawActions() {
    const runs = [...this.selected];
    update({ run: runs });
    const to = (path, label, least) => h("a", { class: "button", href: runs.length < least ? "#" : link(path, { run: runs }), "aria-disabled": runs.length < least ? "true" : null }, label);
    replace(this.actions, h("span", { class: "soft" }, runs.length ? `${runs.length} selected` : "Select runs to see them together"),
      runs.length > 0 && [to("/charts", "Charts", 1), to("/compare", "Compare", 2), h("button", { type: "button", class: "quiet", onclick: () => (this.selected.clear(), this.draw()) }, "Clear")]);
  }

  table(rows) {
    const columns = this.columns();
    const everything = h("input", { type: "checkbox", "aria-label": "Select all runs that are shown", checked: rows.every((row) => this.selected.has(row.key)), onchange: (event) => {
      for (const row of rows) event.target.checked ? this.selected.add(row.key) : this.selected.delete(row.key);
      this.draw();
    } });
    const head = h("tr", null, h("th", null, everything), this.header("Name", "name"), this.header("Status", "status"), this.header("Started", "started"), this.header("Time", "duration", true), this.header("Step", "step", true),
      columns.map((key) => this.header(key.slice(key.indexOf(".") + 1), key, !key.startsWith("tag."))), h("th", null, "Project"), h("th", null, "Tags"));
    const group = query().get("group");
    return h("table", null, h("caption", { class: "skip" }, "Runs"), h("thead", null, head), h("tbody", null, group ? this.grouped(rows, columns, group) : rows.map((row) => this.row(row, columns))));
  }

  header(label, key, isNumber) {
    const [sorted, direction] = (query().get("sort") || "started:desc").split(/:(asc|desc)$/);
    const is = sorted === key, down = direction === "desc";
    const next = `${key}:${is ? (down ? "asc" : "desc") : key === "name" || key === "status" ? "asc" : "desc"}`;
    return h("th", { class: isNumber ? "number" : null, scope: "col", "aria-sort": is ? (down ? "descending" : "ascending") : null },
      h("button", { type: "button", title: `Sort by ${key}`, onclick: () => this.ask({ sort: next }) }, label, is && (down ? " ↓" : " ↑")));
  }

  row(row, columns) {
    const box = h("input", { type: "checkbox", "aria-label": `Select ${row.name} (${row.id})`, checked: this.selected.has(row.key), onchange: (event) => {
      event.target.checked ? this.selected.add(row.key) : this.selected.delete(row.key);
      this.drawActions();
    } });
    return h("tr", null, h("td", null, box), h("td", null, h("a", { class: "name", href: link("/run", { run: row.key }) }, row.name), " ", h("span", { class: "soft mono" }, row.id)),
      h("td", null, chip(row.status)), h("td", { title: moment(row.started_s) }, ago(row.started_s)), h("td", { class: "number" }, duration(row.duration_s)), h("td", { class: "number" }, number(row.last_step)),
      columns.map((key) => cell(row, key)), h("td", null, row.project), h("td", null, tags(row.tags)));
  }

  grouped(rows, columns, group) {
    const groups = new Map();
    for (const row of rows) {
      const label = parameter(valueOf(row, group) ?? "none");
      groups.set(label, [...(groups.get(label) || []), row]);
    }
    return [...groups].sort((a, b) => a[0] - b[0] || natural(a[0], b[0])).flatMap(([label, members]) => [
      h("tr", { class: "group" }, h("td"), h("th", { scope: "rowgroup", colspan: 5 }, `${group}: ${label} (${members.length}) `,
        h("a", { href: link("/charts", { run: members.map((row) => row.key) }) }, "charts")),
        columns.map((key) => h("td", { class: "number", title: "mean of the group" }, mean(members.map((row) => valueOf(row, key))))), h("td"), h("td")),
      ...members.map((row) => this.row(row, columns)),
    ]);
  }
}

export function valueOf(row, key) {
  const dot = key.indexOf("."), name = key.slice(dot + 1);
  if (dot < 0) return row[key];
  return { params: row.params, metric: row.metrics, tag: row.tags }[key.slice(0, dot)]?.[name];
}

function cell(row, key) {
  const value = valueOf(row, key), isNumber = typeof value === "number" || value === undefined;
  return h("td", { class: isNumber ? "number" : null }, value === undefined ? h("span", { class: "soft" }, "–") : key.startsWith("metric.") ? number(value) : parameter(value));
}

function mean(values) {
  const known = values.filter((value) => typeof value === "number");
  return known.length ? `⌀ ${number(known.reduce((sum, value) => sum + value, 0) / known.length)}` : "";
}
