// Numbers and times as people read them; the same as on the command line.

export function number(value) {
  if (typeof value !== "number") return value === null || value === undefined ? "–" : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e7) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

export function parameter(value) {
  return typeof value === "string" ? value : typeof value === "number" ? number(value) : JSON.stringify(value) ?? "–";
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${String(minutes % 60).padStart(2, "0")} m` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(unix) {
  const seconds = Date.now() / 1000 - unix;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unix * 1000).toISOString().slice(0, 10);
}

export const moment = (unix) => (unix ? new Date(unix * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "–");

export function bytes(count) {
  if (count === null || count === undefined) return "gone";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) (count /= 1024), power++;
  return `${number(Number(count.toFixed(1)))} ${units[power]}`;
}

/** For sorting: `layer/2` before `layer/10`. */
export const natural = (a, b) => a.localeCompare(b, "en", { numeric: true });
