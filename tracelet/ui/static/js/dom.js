// Makes elements. Texts become text nodes, always: nothing that a run says is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "href" || name === "src") element.setAttribute(name, safeAddress(value));
    else if (name === "color") element.style[element.namespaceURI === SVG ? "stroke" : "background"] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Our own pages and files, and what is plainly the web. Anything else (`javascript:`) leads nowhere. */
function safeAddress(address) {
  return /^(\/(?!\/)|#|https?:\/\/)/.test(address) ? address : "#";
}

export const replace = (element, ...children) => {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child));
  return element;
};

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function card(title, right, ...body) {
  return h("section", { class: "card" }, h("header", null, h("h2", null, title), h("div", { class: "right" }, right)), ...body);
}

export const empty = (title, text, code) =>
  h("div", { class: "empty" }, h("h1", null, title), h("p", null, text), code && h("pre", { tabindex: 0 }, code));

export const menu = (label, ...items) => h("details", { class: "menu" }, h("summary", null, label), h("div", null, items));

export function select(label, value, options, onchange) {
  const box = h("select", { onchange: () => onchange(box.value) });
  for (const [key, text] of options) box.append(h("option", { value: key, ...(key === value && { selected: true }) }, text));
  return h("label", null, label, box);
}
