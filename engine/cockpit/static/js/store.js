// State of the page. `latest` is mutable and holds what arrived last; signals are refreshed from it a few times a
// second, canvases draw from it in one animation loop.
import { batch, signal } from "../vendor/signals.js";

export const latest = { book: null, quotes: [], models: [], positions: [], history: null, heard: 0, dirty: true };

const SECTIONS = ["clock", "trading_state", "guardrails", "account", "positions", "quotes", "models", "connectivity", "flatten", "recovery", "arm", "services", "latency"];

export const s = Object.fromEntries(SECTIONS.map((name) => [name, signal(null)]));
s.fixed = signal(null);
s.orders = signal([]);
s.fills = signal([]);
s.alerts = signal([]);
s.audit = signal([]);
s.focus = signal(null);
s.stream = signal({ open: false, age: 0, rtt: null });
s.lease = signal(null);
s.focused = signal(document.hasFocus());
s.toast = signal(null);
s.limitPick = signal(null);
s.ticketPick = signal(null);

const KEEP = 500;
const pending = new Map();
let flushed = 0;

export function take(section, value) {
  latest[section] = value;
  latest.dirty = true;
  pending.set(section, value);
}

export function snapshot(data) {
  batch(() => {
    const { mode, instance, instruments, limits } = data;
    s.fixed.value = { mode, instance, instruments, limits };
    for (const name of SECTIONS) if (data[name] !== undefined) {
      latest[name] = data[name];
      s[name].value = data[name];
    }
    s.orders.value = data.orders;
    s.fills.value = data.fills;
    s.alerts.value = [...data.alerts].reverse();
    s.audit.value = [...data.audit].reverse();
    if (!s.focus.value) s.focus.value = instruments.find((i) => i.tradable)?.symbol ?? null;
  });
  pending.clear();
  latest.dirty = true;
}

export function state(data) {
  for (const [name, value] of Object.entries(data)) if (name in s) take(name, value);
}

const byKey = (list, row, key) => [row, ...list.filter((r) => r[key] !== row[key])].slice(0, KEEP);
const incoming = { orders: new Map(), fills: new Map(), alerts: [], audit: [] };

export function order(row) { incoming.orders.delete(row.order_id); incoming.orders.set(row.order_id, row); }
export function fill(row) { incoming.fills.delete(row.exec_id); incoming.fills.set(row.exec_id, row); }
export function alert(row) { incoming.alerts.push(row); }
export function audit(row) { incoming.audit.push(row); }

// Called by the animation loop: signals follow at 10 Hz, which is as fast as anybody reads.
export function flush(now) {
  if (now - flushed < 100) return;
  flushed = now;
  batch(() => {
    for (const [name, value] of pending) s[name].value = value;
    pending.clear();
    for (const [name, key] of [["orders", "order_id"], ["fills", "exec_id"]]) {
      if (!incoming[name].size) continue;
      let list = s[name].value;
      for (const row of incoming[name].values()) list = byKey(list, row, key);
      incoming[name].clear();
      s[name].value = list;
    }
    for (const name of ["alerts", "audit"]) if (incoming[name].length) {
      s[name].value = [...incoming[name].reverse(), ...s[name].value].slice(0, KEEP);
      incoming[name] = [];
    }
    const age = latest.heard ? (performance.now() - latest.heard) / 1000 : 0;
    if (Math.abs(age - s.stream.value.age) > 0.2) s.stream.value = { ...s.stream.value, age };
  });
}

let toastTimer = 0;
export function toast(text, kind = "info") {
  s.toast.value = { text, kind };
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (s.toast.value = null), kind === "bad" ? 9000 : 4500);
}
