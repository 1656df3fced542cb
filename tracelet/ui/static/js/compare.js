// Runs beside one another: what differs, metrics, parallel coordinates, a scatter plot.

import { get } from "./api.js";
import { colorOf, escaped } from "./chart.js";
import { card, color, empty, h, s, select } from "./dom.js";
import { ago, duration, natural, number, parameter } from "./format.js";
import { plotly } from "./plotly.js";
import { chip } from "./runs.js";
import { link, query, update } from "./state.js";

export async function comparePage(place, signal) {
  const keys = query().getAll("run");
  const { rows } = await get("runs", { limit: 1000 }, signal);
  const add = select("Add", "", [["", "a run…"], ...rows.filter((row) => !keys.includes(row.key)).map((row) => [row.key, `${row.name} (${row.id})`])], (key) => key && (update({ run: [...keys, key] }), dispatchEvent(new PopStateEvent("popstate"))));
  place.append(h("h1", { class: "skip" }, "Compare"));
  if (keys.length < 2) return void place.append(h("div", { class: "bar" }, add), empty("Choose two runs or more", "Select them in the table of runs, add one above, or type:", "tracelet compare RUN RUN"));
  const facts = await get("compare", { run: keys }, signal);
  const onlyDifferent = query().get("equal") !== "1";
  const equal = h("input", { type: "checkbox", checked: !onlyDifferent, onchange: (event) => (update({ equal: event.target.checked ? "1" : null }), dispatchEvent(new PopStateEvent("popstate"))) });
  place.append(
    h("div", { class: "bar" }, add, h("label", null, equal, "equal parameters, too"), h("a", { class: "button right", href: link("/charts", { run: keys }) }, "Charts")),
    card("Parameters", null, h("div", { class: "scroll" }, parameters(facts, onlyDifferent))),
    ...plots(facts),
    card("Metrics", h("span", { class: "soft" }, "last value; least and greatest below"), h("div", { class: "scroll" }, metrics(facts))));
}

function heads(facts) {
  return h("thead", null, h("tr", null, h("th"), facts.runs.map((run, index) => h("th", { scope: "col" }, h("span", { class: "swatch", color: colorOf(index) }), h("a", { href: link("/run", { run: facts.keys[index] }) }, run.name), " ", chip(run.status)))));
}

function parameters(facts, onlyDifferent) {
  const row = (name, cells) => {
    const differs = new Set(cells).size > 1;
    return (differs || !onlyDifferent) && h("tr", { class: differs ? "differs" : null }, h("th", { scope: "row" }, name), cells.map((text) => h("td", { class: "wrap" }, text)));
  };
  const fixed = [["id", facts.runs.map((run) => run.id)], ["started", facts.runs.map((run) => ago(run.started_s))], ["time", facts.runs.map((run) => duration(run.duration_s))]].map(([name, cells]) =>
    h("tr", null, h("th", { scope: "row" }, name), cells.map((text) => h("td", null, text))));
  const rows = Object.entries(facts.params).map(([name, cells]) => row(name, cells.map((cell) => (cell ? parameter(cell.value) : "–")))).filter(Boolean);
  const nothing = !rows.length && h("tr", null, h("td", { colspan: facts.runs.length + 1, class: "soft" }, "No parameter differs."));
  return h("table", null, heads(facts), h("tbody", null, fixed, rows, nothing));
}

function metrics(facts) {
  const names = Object.keys(facts.metrics);
  if (!names.length) return h("p", { class: "body soft" }, "These runs have no metrics.");
  return h("table", null, heads(facts), h("tbody", null, names.map((name) => h("tr", null, h("th", { scope: "row" }, name), facts.metrics[name].map((one) =>
    h("td", null, one ? [number(one.last), h("div", { class: "soft" }, `${number(one.min)} … ${number(one.max)}`)] : "–"))))));
}

/** What has a number in each run: parameters that differ, and last values. */
function dimensions(facts) {
  const found = {};
  for (const [name, cells] of Object.entries(facts.params)) {
    const values = cells.map((cell) => cell?.value);
    if (values.every((value) => typeof value === "number") && new Set(values).size > 1) found[name] = values;
  }
  const params = Object.keys(found).filter((name) => !name.startsWith("env/"));
  for (const [name, cells] of Object.entries(facts.metrics)) {
    const values = cells.map((one) => one?.last);
    if (values.every((value) => typeof value === "number") && new Set(values).size > 1) found[name] = values;
  }
  for (const name of Object.keys(found)) if (name.startsWith("env/")) delete found[name];
  return { found, params };
}

function plots(facts) {
  const { found, params } = dimensions(facts), names = Object.keys(found);
  if (names.length < 2) return [];
  const goal = names.filter((name) => !params.includes(name)).sort((a, b) => /loss|acc/.test(b) - /loss|acc/.test(a) || natural(a, b))[0] || names[1];
  let x = query().get("sx") || params[0] || names[0], y = query().get("sy") || goal;
  const plot = h("div", { class: "plot" });
  const draw = async () => {
    update({ sx: x, sy: y });
    const Plotly = await plotly();
    const line = color("--line"), axis = (name) => ({ title: { text: escaped(name) }, gridcolor: line, zerolinecolor: line, automargin: true });
    Plotly.react(plot, [{ type: "scatter", mode: "markers", x: found[x], y: found[y], text: facts.runs.map((run) => escaped(run.name)), marker: { size: 10, color: facts.runs.map((_, index) => colorOf(index)) }, hovertemplate: "%{text}<br>%{x}, %{y:.4~g}<extra></extra>" }],
      { margin: { l: 48, r: 12, t: 6, b: 40 }, height: 280, xaxis: axis(x), yaxis: axis(y), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("--soft"), size: 11 } }, { displayModeBar: false, responsive: true });
  };
  const options = names.map((name) => [name, name]);
  requestAnimationFrame(draw);
  const shown = [...params.slice(0, 6), ...names.filter((name) => !params.includes(name)).slice(0, 4)];
  return [h("div", { class: "columns" },
    card("Parallel coordinates", null, h("div", { class: "body" }, parallel(facts, found, shown))),
    card("Scatter", [select("x", x, options, (name) => ((x = name), draw())), select("y", y, options, (name) => ((y = name), draw()))], h("div", { class: "body" }, plot)))];
}

function parallel(facts, found, names) {
  const width = 640, top = 28, bottom = 270, left = 50, step = (width - 2 * left) / Math.max(1, names.length - 1);
  const ends = names.map((name) => [Math.min(...found[name]), Math.max(...found[name])]);
  const place = (value, [low, high]) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
  const paths = facts.runs.map((run, index) => s("path", { d: names.map((name, at) => `${at ? "L" : "M"}${left + at * step},${place(found[name][index], ends[at])}`).join(""), color: colorOf(index) }, s("title", null, run.name)));
  const axes = names.map((name, at) => {
    const x = left + at * step, text = (y, value) => s("text", { x, y, "text-anchor": "middle" }, value);
    const short = name.length > 16 ? `…${name.slice(-15)}` : name;
    return [s("line", { x1: x, x2: x, y1: top, y2: bottom }), text(11, short), text(24, number(ends[at][1])), text(286, number(ends[at][0]))];
  });
  return s("svg", { class: "parallel", viewBox: `0 0 ${width} 300`, role: "img", "aria-label": `Parallel coordinates: ${names.join(", ")}` }, axes, paths);
}
