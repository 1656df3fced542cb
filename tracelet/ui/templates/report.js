// Draws each chart of a report when it comes into sight. The figures are in the page; see report.py.
"use strict";
{
  const figures = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const logarithmic = new Set();

  const layout = (id) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "x unified",
      font: { color: colour("--text"), size: 12 }, margin: { l: 44, r: 12, t: 8, b: 36 }, height: 260,
      xaxis: { ...axis, title: { text: figures[id].x } },
      yaxis: { ...axis, type: logarithmic.has(id) ? "log" : "linear" },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      showlegend: figures[id].data.filter((trace) => trace.showlegend !== false).length > 1,
      legend: { orientation: "h", y: -0.35 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
    };
  };
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const draw = (place) => {
    place.dataset.drawn = "yes";
    Plotly.react(place, figures[place.id].data, layout(place.id), options);
  };

  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot").forEach((place) => sight.observe(place));

  const again = () => document.querySelectorAll(".plot[data-drawn]").forEach(draw);
  const theme = () => { document.documentElement.dataset.theme = dark.matches ? "dark" : "light"; again(); };
  dark.addEventListener("change", theme);
  theme();

  document.querySelectorAll("button[data-log]").forEach((button) => button.addEventListener("click", () => {
    const id = button.dataset.log;
    if (!logarithmic.delete(id)) logarithmic.add(id);
    button.setAttribute("aria-pressed", logarithmic.has(id));
    draw(document.getElementById(id));
  }));
  const differing = document.getElementById("differing");
  if (differing) differing.addEventListener("change", () =>
    document.body.classList.toggle("only-differing", differing.checked));
}
