// Images, figures, sound, films, tables, texts, and histograms over time.

import { fileAddress, get } from "./api.js";
import { card, color, empty, h, replace } from "./dom.js";
import { moment, number } from "./format.js";
import { query, update } from "./state.js";

const KINDS = ["image", "figure", "histogram", "table", "text", "audio", "video"];

export async function mediaTab(body, run, signal) {
  const shown = run.records.filter(({ type }) => KINDS.includes(type)).sort((a, b) => KINDS.indexOf(a.type) - KINDS.indexOf(b.type));
  if (!shown.length) return void body.append(empty("No media", "Log an image, a table, a text, or a histogram:", 'run.log_image("samples", array, step)'));
  const place = h("div");
  let wanted;
  const show = async (all) => {
    wanted = all;
    const chosen = shown.filter(({ count }) => all || count > 0);
    const cards = await Promise.all(chosen.map(async ({ type, name }) => {
      const part = h("div");
      await addPage(part, run, type, name, 0, all, signal);
      return card(name, h("span", { class: "soft" }, type), part);
    }));
    if (wanted === all) replace(place, ...cards);
  };
  const all = query().get("all") === "1";
  if (shown.some(({ superseded }) => superseded > 0))
    body.append(h("div", { class: "bar" }, h("label", { title: "Also what was logged at steps that a resumed run has computed again" }, h("input", { type: "checkbox", checked: all, onchange: ({ target }) => (update({ all: target.checked && "1" }), show(target.checked)) }), "superseded")));
  body.append(place);
  await show(all);
}

async function addPage(place, run, type, name, offset, all, signal) {
  const { records, total } = await get("records", { run: run.key, type, name, offset, all: all && "1" }, signal);
  const rest = offset + records.length;
  const more = rest < total && h("button", { type: "button", onclick: () => (more.remove(), addPage(place, run, type, name, rest, all, signal)) }, `Show more: ${total - rest}`);
  if (type === "histogram") place.append(histograms(records));
  else if (type === "table") place.append(...records.map((record) => table(record)));
  else if (type === "text") place.append(...records.map((record) => h("div", { class: "body" }, caption(record), h("pre", { class: "console", tabindex: 0 }, record.value))));
  else place.append(h("div", { class: "body gallery" }, records.map((record) => medium(run, type, name, record))));
  if (more) place.append(more);
}

const caption = (record) => h("div", { class: "soft" }, record.step === null ? moment(record.time_s) : `step ${record.step}`);

function medium(run, type, name, record) {
  const address = fileAddress(run.key, record.value, true);
  const label = `${name}, ${record.step === null ? "no step" : `step ${record.step}`}`;
  const shown = type === "audio" ? h("audio", { src: address, controls: true, preload: "none", "aria-label": label })
    : type === "video" ? h("video", { src: address, controls: true, preload: "metadata", "aria-label": label })
    : h("img", { src: address, alt: label, loading: "lazy" });
  return h("figure", null, shown, h("figcaption", null, record.step === null ? moment(record.time_s) : `step ${record.step}`, " · ", h("a", { href: fileAddress(run.key, record.value), download: true }, "download")));
}

function table({ value, step }) {
  return h("div", { class: "scroll" }, h("table", null, h("caption", { class: "soft" }, [step === null ? "" : `step ${step} `, value.total > value.rows.length ? `the first ${value.rows.length} of ${value.total} rows` : ""]),
    h("thead", null, h("tr", null, value.columns.map((name) => h("th", { scope: "col" }, String(name))))),
    h("tbody", null, value.rows.map((row) => h("tr", null, row.map((cell) => h("td", { class: "wrap" }, cell)))))));
}

const BINS = 60;

/** Over time: a column for each record, the darker the more lies there. */
function histograms(records) {
  const ordered = [...records].reverse();
  const low = Math.min(...ordered.map(({ value }) => value.edges[0])), high = Math.max(...ordered.map(({ value }) => value.edges.at(-1)));
  const size = (high - low) / BINS || 1;
  const columns = ordered.map(({ value }) => {
    const column = new Array(BINS).fill(0);
    value.counts.forEach((count, at) => {
      const from = (value.edges[at] - low) / size, to = (value.edges[at + 1] - low) / size || from + 1e-9;
      for (let bin = Math.max(0, Math.floor(from)); bin < Math.min(BINS, to); bin++) column[bin] += (count * (Math.min(to, bin + 1) - Math.max(from, bin))) / (to - from);
    });
    return column;
  });
  const steps = ordered.map(({ step }, index) => step ?? index);
  const label = `${ordered.length} histograms, steps ${steps[0]} to ${steps.at(-1)}, values ${number(low)} to ${number(high)}`;
  const canvas = h("canvas", { class: "heat", role: "img", "aria-label": label, width: columns.length * 8, height: BINS * 4 });
  const paint = canvas.getContext("2d"), [red, green, blue] = color("--accent").match(/\w\w/g).map((part) => parseInt(part, 16));
  columns.forEach((column, x) => {
    const most = Math.max(...column) || 1;
    column.forEach((count, bin) => {
      paint.fillStyle = `rgba(${red}, ${green}, ${blue}, ${Math.sqrt(count / most)})`;
      paint.fillRect(x * 8, (BINS - 1 - bin) * 4, 8, 4);
    });
  });
  return h("figure", { class: "body" }, canvas, h("figcaption", null, label));
}
