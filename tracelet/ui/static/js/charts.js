// All series of the chosen runs, a chart each, grouped by what stands before the last `/`.

import { get } from "./api.js";
import { Chart, colorOf } from "./chart.js";
import { empty, h, replace, select } from "./dom.js";
import { parameter } from "./format.js";
import { follow } from "./live.js";
import { expectPlotly } from "./plotly.js";
import { chip, HOW_TO_BEGIN, valueOf } from "./runs.js";
import { link, query, update } from "./state.js";

const NEWEST = 5;
const FIRST_CHARTS = 120;

export async function chartsPage(place, signal) {
  expectPlotly();
  let { rows } = await get("runs", { limit: 5000 }, signal);
  if (!rows.length) return void place.append(empty("No runs yet", "Record one, and come back:", HOW_TO_BEGIN));
  const keys = query().getAll("run");
  rows = keys.length ? keys.map((key) => rows.find((row) => row.key === key)).filter(Boolean) : rows.slice(0, NEWEST);
  if (!rows.length) return void place.append(empty("None of these runs is here", "Choose some in the table of runs."));
  place.append(h("h1", { class: "skip" }, "Charts"));
  await new ChartsView(place, signal, rows, "scalar").open();
}

/** The charts of some runs, with the controls above them. Also a tab of a run's page. */
export class ChartsView {
  constructor(place, signal, rows, kind) {
    Object.assign(this, { place, signal, runs: rows, kind, charts: [] });
    const found = query();
    this.x = found.get("x") || "";
    this.log = found.get("log") || "";
    this.smooth = Number(found.get("smooth")) || 0;
    this.zoom = found.get("zoom") ? found.get("zoom").split(",").map(Number) : null;
    this.all = found.get("all") === "1";
    this.clip = found.get("clip") === "1";
    this.pinned = new Set(found.getAll("pin"));
    this.shown = FIRST_CHARTS;
    this.setGroups(found.get("by") || "");
    signal.addEventListener("abort", () => this.close());
    addEventListener("tracelet-theme", () => this.refresh(), { signal });
  }

  async open() {
    this.series = (await get("names", { run: this.keys() }, this.signal)).series.filter(({ kind }) => !this.kind || kind === this.kind);
    this.grid = h("div");
    this.place.append(this.controls(), this.legend(), this.grid);
    this.drawGrid();
    follow(this.keys(), this.signal, async () => {
      const names = (await get("names", { run: this.keys() }, this.signal)).series.filter(({ kind }) => !this.kind || kind === this.kind);
      const isNew = names.length !== this.series.length;
      this.series = names;
      if (isNew) this.drawGrid();
      else this.refresh();
    });
  }

  keys() {
    return this.runs.map((run) => run.key);
  }

  setGroups(by) {
    this.by = by;
    if (!by) return void (this.groups = null);
    if (by === "ranks") return void (this.groups = this.runs.map((run) => ({ label: run.name, runs: [run.key] })));
    const groups = new Map();
    for (const run of this.runs) {
      const label = by === "all" ? "all runs" : `${by}=${parameter(valueOf(run, by) ?? "none")}`;
      groups.set(label, [...(groups.get(label) || []), run.key]);
    }
    this.groups = [...groups].map(([label, runs]) => ({ label, runs }));
  }

  controls() {
    const set = (name, value) => {
      this[name] = value;
      update({ [name]: value === true ? "1" : value || null });
      this.refresh();
    };
    const toggle = (label, axis) => {
      const button = h("button", { type: "button", "aria-pressed": String(this.log.includes(axis)), onclick: () => {
        const on = !this.log.includes(axis);
        button.setAttribute("aria-pressed", String(on));
        set("log", on ? this.log + axis : this.log.replace(axis, ""));
      } }, label);
      return button;
    };
    const search = h("input", { type: "search", class: "grow", placeholder: "Search: ^val/|loss  (/)", "aria-label": "Metrics that match a regular expression", value: query().get("match") });
    search.addEventListener("input", () => (update({ match: search.value }), this.drawGrid()));
    const weight = h("output", null, this.smooth || "off");
    const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: this.smooth, "aria-label": "Smoothing", oninput: () => {
      weight.textContent = Number(slider.value) || "off";
      clearTimeout(this.timer);
      this.timer = setTimeout(() => set("smooth", Number(slider.value)), 120);
    } });
    const axes = [["", "as defined"], ["step", "step"], ["epoch", "epoch"], ["relative", "relative time"], ["wall", "wall time"], ...this.series.map(({ name }) => [name, name])].filter(([key], index, all) => all.findIndex(([other]) => other === key) === index);
    const params = [...new Set(this.runs.flatMap((run) => [...Object.keys(run.params).map((name) => `params.${name}`), ...Object.keys(run.tags).map((name) => `tag.${name}`)]))];
    this.reset = h("button", { type: "button", class: "quiet", hidden: !this.zoom, onclick: () => this.onZoom(null) }, "Reset zoom");
    return h("div", { class: "bar sticky" }, search,
      h("label", null, "Smooth", slider, weight),
      select("x", this.x, axes, (x) => ((this.zoom = null), update({ zoom: null }), (this.reset.hidden = true), set("x", x))),
      toggle("log x", "x"), toggle("log y", "y"),
      select("Band over", this.by, [["", "nothing"], ["ranks", "ranks of each run"], ...(this.runs.length > 1 ? [["all", "all runs"], ...params.map((key) => [key, key])] : [])], (by) => (this.setGroups(by), update({ by }), replace(this.keyPlace, ...this.keyItems()), this.refresh())),
      h("label", { title: "Also points that a resumed run has computed again" }, h("input", { type: "checkbox", checked: this.all, onchange: (event) => set("all", event.target.checked) }), "superseded"),
      h("label", { title: "Leave the highest and lowest percent out of the y-axis" }, h("input", { type: "checkbox", checked: this.clip, onchange: (event) => set("clip", event.target.checked) }), "clip outliers"),
      this.reset);
  }

  legend() {
    this.keyPlace = h("div", { class: "legend", "aria-label": "Runs and their colours", role: "group" });
    return replace(this.keyPlace, ...this.keyItems());
  }

  keyItems() {
    if (this.groups) return this.groups.map(({ label, runs }, index) => h("span", null, h("span", { class: "swatch", color: colorOf(index) }), `${label} (${runs.length})`));
    return this.runs.map((run, index) => h("span", null, h("span", { class: "swatch", color: colorOf(index) }), h("a", { href: link("/run", { run: run.key }) }, run.name), " ", h("span", { class: "soft mono" }, run.id), " ",
      run.status !== "finished" && chip(run.status)));
  }

  drawGrid() {
    let pattern = null;
    try {
      pattern = new RegExp(query().get("match") || "", "i");
    } catch {
      return; // Half typed.
    }
    const old = new Map(this.charts.map((chart) => [chart.name, chart]));
    const names = this.series.map(({ name }) => name).filter((name) => pattern.test(name));
    const sections = new Map(this.pinned.size ? [["Pinned", names.filter((name) => this.pinned.has(name))]] : []);
    for (const name of names.slice(0, this.shown)) {
      if (this.pinned.has(name)) continue;
      const prefix = name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "metrics";
      sections.set(prefix, [...(sections.get(prefix) || []), name]);
    }
    const chartOf = (name) => old.get(name) || new Chart(name, this, [this.pin(name)]);
    const made = [...sections].map(([prefix, members]) => [prefix, members.map(chartOf)]);
    this.charts = made.flatMap(([, members]) => members);
    for (const chart of old.values()) if (!this.charts.includes(chart)) chart.close();
    const more = names.length > this.shown && h("button", { type: "button", onclick: () => ((this.shown += 200), this.drawGrid()) }, `Show more: ${names.length - this.shown} charts`);
    if (!names.length) return void replace(this.grid, this.series.length
      ? empty("No metric matches", `None of ${this.series.length} does. The search takes a regular expression:`, "^val/ | loss$")
      : empty(this.kind === "system" ? "No system curves" : "No metrics yet", this.kind === "system" ? "They come with the collector `system`:" : "Log one in the run:", this.kind === "system" ? "pip install 'tracelet[system]'" : 'run.log_metric("loss", 0.5)'));
    replace(this.grid, made.map(([prefix, members]) => [h("div", { class: "section" }, h("h2", null, prefix), h("span", { class: "soft" }, members.length)), h("div", { class: "charts" }, members.map((chart) => chart.element))]), more);
  }

  pin(name) {
    const button = h("button", { type: "button", class: "quiet", title: "Pin to the top", "aria-label": `Pin: ${name}`, "aria-pressed": String(this.pinned.has(name)), onclick: () => {
      this.pinned.has(name) ? this.pinned.delete(name) : this.pinned.add(name);
      button.setAttribute("aria-pressed", String(this.pinned.has(name)));
      update({ pin: [...this.pinned] });
      this.drawGrid();
    } }, "⚲");
    return button;
  }

  onZoom(range) {
    this.zoom = range;
    this.reset.hidden = !range;
    update({ zoom: range && range.join(",") });
    this.refresh();
  }

  refresh() {
    for (const chart of this.charts) chart.refresh();
  }

  close() {
    for (const chart of this.charts) chart.close();
  }
}
