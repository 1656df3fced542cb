// The address is the state: every view can be kept, sent, and gone back to.

export const query = () => new URLSearchParams(location.search);

export function link(path, parameters = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== undefined && one !== null && one !== "" && one !== false) found.append(name, one);
  const text = found.toString();
  return path + (text ? `?${text}` : "");
}

/** Change the address in place, without going to another page; `null` takes a part away. */
export function update(changes) {
  const found = query();
  for (const [name, value] of Object.entries(changes)) {
    found.delete(name);
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== undefined && one !== null && one !== "" && one !== false) found.append(name, one);
  }
  const text = found.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
}

export function go(address) {
  history.pushState(null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
}
