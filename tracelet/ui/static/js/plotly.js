// Loads Plotly once, for the first page with charts. The style sheets that it makes get the page's nonce.

let loading = null;

/** Begin to load it, while the server reads; the chart that needs it tells if that fails. */
export const expectPlotly = () => void plotly().catch(() => {});

export function plotly() {
  loading ??= new Promise((done, failed) => {
    const make = document.createElement.bind(document);
    const nonce = document.documentElement.dataset.nonce;
    document.createElement = (tag, ...rest) => {
      const element = make(tag, ...rest);
      if (tag === "style") element.nonce = nonce;
      return element;
    };
    const script = make("script");
    script.src = "/plotly.js";
    script.onload = () => done(window.Plotly);
    script.onerror = () => failed(new Error("Plotly can't be loaded: is the server still running?"));
    document.head.append(script);
  });
  return loading;
}
