// One chart: a metric over runs. Loads when it is seen, loads again what is zoomed into, and tells the others where the
// pointer is. Only charts that are seen are loaded, drawn and fitted, each in its turn; the others when they will be.

import { get } from "./api.js";
import { color, h } from "./dom.js";
import { plotly } from "./plotly.js";
import { link } from "./state.js";
import { inTurn } from "./turns.js";

export const COLORS = ["#4c6ef5", "#e8590c", "#2f9e44", "#c2255c", "#1098ad", "#9c36b5", "#b08900", "#868e96", "#74b816", "#d6336c"];
export const colorOf = (index) => COLORS[index % COLORS.length];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const UNITS = { relative: "seconds", wall: "time" };

export class Chart {
  /** `view` is what all charts of the page share: runs, groups, x, log, smooth, zoom, all; and `charts`, all of them. */
  constructor(name, view, buttons = []) {
    this.name = name;
    this.view = view;
    this.isSeen = false;
    this.plot = h("div", { class: "plot waiting" });
    this.foot = h("footer");
    const tool = (label, text, onclick) => h("button", { type: "button", class: "quiet", title: label, "aria-label": `${label}: ${name}`, onclick }, text);
    this.element = h(
      "section",
      { class: "card chart", "data-metric": name },
      h("header", null, h("h2", { title: name }, name), h("div", { class: "right" }, buttons,
        tool("Wide", "⤢", () => this.widen()),
        tool("Save as PNG", "PNG", () => this.save("png")),
        tool("Save as SVG", "SVG", () => this.save("svg")),
        h("a", { class: "button quiet", download: true, href: this.csvAddress(), "aria-label": `All points as CSV: ${name}`, title: "All points as CSV" }, "CSV"),
      )),
      this.plot,
      this.foot,
    );
    this.observer = new IntersectionObserver((entries) => {
      this.isSeen = entries.at(-1).isIntersecting;
      if (!this.isSeen) this.drop();
      else if (this.isStale) this.load();
      else this.fit();
    }, { rootMargin: "200px" });
    this.observer.observe(this.element);
    this.isStale = true;
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.plot);
  }

  /** Let it have the width that it has on the page. */
  fit() {
    inTurn(`fit ${this.name}`, () => {
      const isWrong = this.drawn && this.isSeen && this.plot.offsetParent && this.plot.clientWidth !== this.plot._fullLayout.width;
      if (isWrong) window.Plotly.relayout(this.plot, { autosize: true });
    });
  }

  /** It has left the screen before it was there: let the others come first. */
  drop() {
    if (!this.isLoading) return;
    this.request.abort();
    this.isLoading = false;
    this.isStale = true;
  }

  csvAddress() {
    const { runs, x, all } = this.view;
    return link("/api/csv", { run: runs.map((run) => run.key), name: this.name, x, all: all ? "1" : null });
  }

  /** What is shown is old: load it now if it is seen, else when it will be. */
  refresh() {
    this.isStale = true;
    return this.isSeen ? this.load() : null;
  }

  async load() {
    this.isStale = false;
    this.request?.abort();
    this.request = new AbortController();
    this.isLoading = true;
    const { signal } = this.request;
    const { x, zoom, smooth, all, groups } = this.view;
    const [from, to] = zoom || [];
    const points = Math.max(300, Math.min(2000, Math.round(this.plot.clientWidth * 1.5)));
    const common = { name: this.name, x, from, to, all: all ? "1" : null };
    try {
      const [Plotly, traces] = await Promise.all([plotly(), groups ? this.bands(common, signal) : this.curves({ ...common, points, smooth }, signal)]);
      inTurn(`draw ${this.name}`, () => signal.aborted || this.draw(Plotly, traces).catch((error) => this.tell(error)));
    } catch (error) {
      if (!signal.aborted) this.tell(error);
    }
  }

  tell(error) {
    this.isLoading = false;
    this.foot.textContent = error.message;
    this.plot.classList.remove("waiting");
  }

  async curves(query, signal) {
    const { runs, smooth } = this.view;
    const { series } = await get("series", { ...query, run: runs.map((run) => run.key) }, signal);
    const traces = [], notes = [];
    let total = 0, shown = 0; // Of what can be drawn.
    for (const one of series) {
      const index = runs.findIndex((run) => run.key === one.run);
      const line = { color: colorOf(index), width: 1.5, dash: DASHES[Math.floor(index / COLORS.length) % DASHES.length] };
      const label = runs[index].name;
      const x = this.places(one.x);
      this.xLabel = one.x_label;
      total += one.total - one.not_finite;
      shown += one.x.length;
      const dots = one.x.length < 2 ? "markers" : "lines";
      if (smooth > 0) {
        traces.push({ x, y: one.y, mode: dots, line: { ...line, width: 1 }, opacity: 0.25, hoverinfo: "skip", type: "scatter" });
        traces.push({ x, y: one.smooth, mode: dots, line: { ...line, width: 2 }, name: label, customdata: one.y, type: "scatter", hovertemplate: "%{y:.4~g} (%{customdata:.4~g})" });
      } else traces.push({ x, y: one.y, mode: dots, line, marker: { color: line.color }, name: label, type: "scatter", hovertemplate: "%{y:.4~g}" });
      if (one.not_finite) {
        traces.push({ x: this.places(one.marks.map((mark) => mark[0])), y: one.marks.map(() => 0.03), text: one.marks.map((mark) => mark[1]), yaxis: "y2",
          mode: "markers", marker: { color: line.color, symbol: "x", size: 7 }, name: label, type: "scatter", hovertemplate: "%{text}" });
        notes.push(`${one.not_finite} not finite (✕)`);
      }
    }
    if (shown < total) notes.unshift(`${shown.toLocaleString("en")} of ${total.toLocaleString("en")} points; zoom in for more`);
    if (!series.length) notes.push("none of these runs has it");
    this.foot.textContent = [...new Set(notes)].join(" · ");
    return traces;
  }

  async bands(query, signal) {
    const answers = await Promise.all(this.view.groups.map((group) => get("band", { ...query, run: group.runs, points: 300, ranks: this.view.by === "ranks" ? "1" : null }, signal)));
    this.foot.textContent = "mean, with the least and the greatest value";
    return answers.flatMap((band, index) => {
      this.xLabel = band.x_label;
      const x = this.places(band.x), edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", type: "scatter" };
      return [
        { ...edge, y: band.low },
        { ...edge, y: band.high, fill: "tonexty", fillcolor: colorOf(index) + "2e" },
        { x, y: band.mean, mode: "lines", line: { color: colorOf(index), width: 2 }, name: this.view.groups[index].label, type: "scatter", hovertemplate: "%{y:.4~g}" },
      ];
    });
  }

  places(x) {
    return this.view.x === "wall" ? x.map((seconds) => new Date(seconds * 1000).toISOString()) : x;
  }

  async draw(Plotly, traces) {
    this.isLoading = false;
    const soft = color("--soft"), line = color("--line"), { log, zoom, x } = this.view;
    const range = zoom && (x === "wall" ? this.places(zoom) : log.includes("x") ? zoom.map((end) => Math.log10(Math.max(end, 1e-9))) : zoom);
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: { size: 11 }, automargin: true };
    const layout = {
      margin: { l: 48, r: 12, t: 6, b: 34 }, showlegend: false, hovermode: "x unified", dragmode: "zoom", uirevision: JSON.stringify(zoom),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 12, color: soft },
      hoverlabel: { bgcolor: color("--card"), bordercolor: line, font: { color: color("--text"), size: 12 }, namelength: 28 },
      xaxis: { ...axis, type: x === "wall" ? "date" : log.includes("x") ? "log" : "linear", title: { text: escaped(UNITS[this.xLabel] || this.xLabel || ""), font: { size: 11 }, standoff: 4 },
        showspikes: true, spikemode: "across", spikethickness: 1, spikecolor: soft, spikedash: "solid", ...(range ? { range } : { autorange: true }) },
      yaxis: { ...axis, type: log.includes("y") ? "log" : "linear", exponentformat: "e", ...(this.view.clip ? this.withoutOutliers(traces) : { autorange: true }) },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    };
    for (const trace of traces) if (trace.name) trace.name = escaped(trace.name);
    await Plotly.react(this.plot, traces, layout, { displayModeBar: false, responsive: false, doubleClick: "autosize", showTips: false });
    if (!this.drawn) this.listen(Plotly);
    this.drawn = true;
    this.plot.classList.remove("waiting");
  }

  withoutOutliers(traces) {
    const log = this.view.log.includes("y");
    const values = traces.filter((trace) => !trace.yaxis).flatMap((trace) => trace.y).filter((y) => !log || y > 0).sort((a, b) => a - b);
    if (!values.length) return { autorange: true };
    const [low, high] = [0.01, 0.99].map((part) => values[Math.round(part * (values.length - 1))]).map((end) => (log ? Math.log10(end) : end));
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return { range: [low - room, high + room] };
  }

  listen(Plotly) {
    this.plot.on("plotly_relayout", (change) => {
      const low = change["xaxis.range[0]"], high = change["xaxis.range[1]"];
      if (low !== undefined) this.view.onZoom([low, high].map((end) => this.number(end)));
      else if (change["xaxis.autorange"] && this.view.zoom) this.view.onZoom(null);
    });
    this.plot.on("plotly_hover", (event) => {
      if (!event.event) return; // Ours.
      this.point(({ plot }) => Plotly.Fx.hover(plot, { xval: event.xvals?.[0] ?? event.points[0].x }, ["xy"]));
    });
    this.plot.on("plotly_unhover", () => this.point(({ plot }) => Plotly.Fx.unhover(plot)));
  }

  /** Show in the other charts where the pointer is, or that it has left. */
  point(show) {
    for (const other of this.view.charts) if (other !== this) inTurn(`point ${other.name}`, () => other.drawn && other.isSeen && show(other));
  }

  number(end) {
    if (this.view.x === "wall") return Date.parse(end.replace(" ", "T") + (end.endsWith("Z") ? "" : "Z")) / 1000;
    return this.view.log.includes("x") ? 10 ** end : end;
  }

  widen() {
    this.element.classList.toggle("wide");
    this.refresh();
  }

  async save(format) {
    const Plotly = await plotly();
    await Plotly.downloadImage(this.plot, { format, filename: this.name.replace(/[^\w.-]+/g, "_"), width: 1000, height: 600, scale: format === "png" ? 2 : 1 });
  }

  close() {
    this.request?.abort();
    this.observer.disconnect();
    this.sizes.disconnect();
    if (this.drawn) window.Plotly.purge(this.plot);
    this.drawn = this.isSeen = false;
  }
}

/** Plotly reads a little HTML in names: nothing of a run may be read so. */
export const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
