// Asks every two seconds whether something has come, as long as the page is there and one of its runs is running.

import { get } from "./api.js";

const EVERY_MS = 2000;

export async function follow(runs, signal, onChange) {
  const light = document.getElementById("live");
  let before = null;
  while (!signal.aborted) {
    let facts;
    try {
      if (!document.hidden) facts = (await get("pulse", { run: runs }, signal)).runs;
    } catch {
      if (signal.aborted) return;
      light.textContent = "no answer";
    }
    if (facts) {
      const now = JSON.stringify(facts);
      const running = Object.values(facts).some((run) => run.status === "running");
      light.textContent = running ? "live" : "";
      if (before !== null && now !== before) await onChange(facts);
      before = now;
      if (!running) return;
    }
    await new Promise((wake) => setTimeout(wake, EVERY_MS));
  }
}
