// A run's parameters (and how they differ from another run's), attempts, deliveries, alerts, environment.

import { get } from "./api.js";
import { card, h, replace, select } from "./dom.js";
import { duration, moment, natural, number, parameter } from "./format.js";
import { chip } from "./runs.js";
import { link, query, update } from "./state.js";

const isEnvironment = (name) => name.startsWith("env/");

export async function overviewTab(body, run, signal) {
  const { rows } = await get("runs", { limit: 500 }, signal);
  const parameters = h("div");
  const others = [["", "nothing"], ...rows.filter((row) => row.key !== run.key).map((row) => [row.key, `${row.name} (${row.id})`])];
  const show = async (key) => {
    update({ vs: key });
    const other = key ? await get("run", { run: key }, signal) : null;
    replace(parameters, parameterTable(run.params, other, (name) => !isEnvironment(name), "The run has no parameters."));
  };
  body.append(h("div", { class: "columns" },
    h("div", null, card("Parameters", others.length > 1 && select("against", query().get("vs") || "", others, show), parameters),
      run.alerts.length > 0 && card("Alerts", null, table(["Step", "Series", "What"], run.alerts.map(({ step, value }) => [number(step), value.series, value.text])))),
    h("div", null, card("Last values", h("a", { href: link("/run", { run: run.key, tab: "charts" }) }, "Charts"), latest(run)),
      card("Delivery", null, deliveries(run)),
      card("Attempts", null, table(["", "Began", "Took", "Status", "Went back to"], run.attempts.map((one) => [one.number, moment(one.began_s), duration(one.last_s - one.began_s), chip(one.status), one.rewound_to === null ? "–" : `step ${one.rewound_to}`]))),
      card("Environment", null, parameterTable(run.params, null, isEnvironment, "Not recorded: the collector `environment` does it.")))));
  await show(query().get("vs") || "");
}

const table = (heads, rows) => h("div", { class: "scroll" }, h("table", null, h("thead", null, h("tr", null, heads.map((text) => h("th", { scope: "col" }, text)))),
  h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell) => h("td", { class: "wrap" }, cell)))))));

function parameterTable(params, other, isShown, nothing) {
  const names = [...new Set([...Object.keys(params), ...Object.keys(other?.params || {})])].filter(isShown).sort(natural);
  if (!names.length) return h("p", { class: "body soft" }, nothing);
  const text = (found, name) => (name in found ? parameter(found[name]) : "–");
  return h("div", { class: "scroll" }, h("table", null,
    other && h("thead", null, h("tr", null, ["", "this run", other.name].map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", null, names.map((name) => {
      const mine = text(params, name), theirs = other && text(other.params, name);
      return h("tr", { class: other && mine !== theirs ? "differs" : null }, h("th", { scope: "row" }, name.replace(/^env\//, "")), h("td", { class: "wrap" }, mine), other && h("td", { class: "wrap" }, theirs));
    }))));
}

function latest(run) {
  const names = Object.keys(run.latest).sort(natural);
  if (!names.length) return h("p", { class: "body soft" }, "No metric was logged.");
  return h("div", { class: "scroll" }, h("table", null, h("tbody", null, names.slice(0, 100).map((name) => h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "number" }, number(run.latest[name])))))));
}

function deliveries(run) {
  if (!run.delivery.length) return h("p", { class: "body soft" }, "Sent nowhere so far. Send it with: ", h("code", null, `tracelet sync ${run.id} --to mlflow`));
  return table(["Backend", "State", "Delivered", "Waiting", "Rejected", ""], run.delivery.map((one) => [one.backend, one.state, number(one.delivered), number(one.waiting), number(one.rejected),
    one.url ? h("a", { href: one.url, rel: "noreferrer", target: "_blank" }, "open") : one.error || ""]));
}
