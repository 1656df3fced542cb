// Asks the server. A failure is an Error with the server's own words.

import { link } from "./state.js";

export async function get(name, parameters, signal) {
  const answer = await fetch(link(`/api/${name}`, parameters), { signal });
  const facts = await answer.json().catch(() => ({ error: `the server answered ${answer.status}: is it still running?` }));
  if (!answer.ok) throw new Error(facts.error);
  return facts;
}

export const fileAddress = (run, path, show) => link("/file", { run, path, show: show ? "1" : null });
