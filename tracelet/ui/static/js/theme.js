// Before the first paint: what was chosen, else what the system says.
const stored = localStorage.getItem("tracelet-theme");
const dark = stored ? stored === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = dark ? "dark" : "light";
