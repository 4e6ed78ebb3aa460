// Numbers and times as people at a desk read them. A number that is not known is a dash.
export const DASH = "–";
const nf = (digits) => new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const formats = [0, 1, 2, 3, 4].map(nf);

export const num = (v, digits = 0) => (v === null || v === undefined || Number.isNaN(v) ? DASH : formats[digits].format(v));
export const usd = (v, digits = 0) => (v === null || v === undefined ? DASH : `${v < 0 ? "−" : ""}$${formats[digits].format(Math.abs(v))}`);
export const signed = (v, digits = 0) => (v === null || v === undefined ? DASH : `${v > 0 ? "+" : v < 0 ? "−" : ""}${formats[digits].format(Math.abs(v))}`);
export const signedUsd = (v, digits = 0) => (v === null || v === undefined ? DASH : `${v > 0 ? "+" : v < 0 ? "−" : ""}$${formats[digits].format(Math.abs(v))}`);
export const pct = (v, digits = 0) => (v === null || v === undefined ? DASH : `${formats[digits].format(v * 100)}%`);
export const tone = (v) => (v > 0 ? "up" : v < 0 ? "down" : "");

export function age(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 0) seconds = 0;
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  if (seconds < 120) return `${Math.round(seconds)}s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)}h`;
  return `${Math.round(seconds / 86400)}d`;
}

export const clock = (iso) => (iso ? new Date(iso).toLocaleTimeString("en-GB", { hour12: false }) : DASH);
export const millis = (iso) => (iso ? `${new Date(iso).toLocaleTimeString("en-GB", { hour12: false })}.${iso.slice(20, 23)}` : DASH);
export const since = (iso, serverMs) => (iso ? Math.max(0, (serverMs - Date.parse(iso)) / 1000) : null);

export function micros(us) {
  if (us === null || us === undefined) return DASH;
  if (us < 1000) return `${us < 10 ? us.toFixed(1) : Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
}
