// Preact, htm and signals in one place, and the small parts that every panel uses.
import { Component, h, render } from "../vendor/preact.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import htm from "../vendor/htm.js";
import { computed, effect, signal, useSignal } from "../vendor/signals.js";
import { age } from "./format.js";
import { s } from "./store.js";

export const html = htm.bind(h);
export { Component, computed, effect, h, render, signal, useEffect, useRef, useSignal, useState };

export const Panel = ({ title, extra, className = "", children }) => html`
  <section class=${`panel ${className}`} aria-label=${title}>
    <header class="panel-head"><h2>${title}</h2><div class="panel-extra">${extra}</div></header>
    <div class="panel-body">${children}</div>
  </section>`;

export const Toast = () => {
  const t = s.toast.value;
  return html`<div class=${`toast ${t ? t.kind : "none"}`} role="status" aria-live="assertive">${t?.text ?? ""}</div>`;
};

export function applyMode() {
  const mode = s.fixed.value?.mode;
  if (mode) document.documentElement.dataset.mode = mode;
}

export const replay = computed(() => s.fixed.value?.mode === "REPLAY");
export const streamStale = computed(() => !s.stream.value.open || s.stream.value.age > 2);

export const ConnectionLamp = () => {
  const st = s.stream.value;
  const c = s.connectivity.value;
  const stale = streamStale.value;
  const link = c?.link === "UP";
  return html`<div class="lamps">
    <span class=${`lamp ${stale ? "bad" : "good"}`} title="Age of the newest frame from the server">
      <i aria-hidden="true">${stale ? "✕" : "●"}</i>stream ${stale ? `silent ${age(st.age)}` : age(st.age)}${!stale && st.rtt ? html` <small>${st.rtt.toFixed(0)} ms</small>` : ""}</span>
    <span class=${`lamp ${link ? "good" : "bad"}`} title=${c ? `${c.gateway}, owner ${c.owner}, epoch ${c.epoch}` : ""}>
      <i aria-hidden="true">${link ? "●" : "✕"}</i>broker ${c?.words ?? "unknown"}${link ? html` <small>${c.rtt_ms ?? "–"} ms</small>` : c?.down_s ? ` ${age(c.down_s)}` : ""}</span>
    <span class=${`lamp ${s.focused.value ? "good" : "warn"}`} title="Hotkeys work while this page has the focus. Press ? for the list">
      <i aria-hidden="true">${s.focused.value ? "●" : "○"}</i>hotkeys ${s.focused.value ? "live" : "off: click here"}</span>
  </div>`;
};

export const LoginPanel = ({ error, onKey }) => {
  const field = useRef(null);
  const submit = (e) => { e.preventDefault(); onKey(field.current.value.trim().replace(/^.*#k=/, "")); };
  return html`<main class="login"><h1>L2 DASH</h1>
    <p>This browser is not logged in. On the host, run</p><pre>l2dash login</pre>
    <p>and open the address it prints, or paste its key here. A key works once, for ten minutes.</p>
    <form onSubmit=${submit}><label for="key">One-time key</label><input id="key" ref=${field} autocomplete="off" spellcheck="false" /><button class="primary">Log in</button></form>
    ${error ? html`<p class="bad-text" role="alert">${error}</p>` : ""}</main>`;
};

export const Boot = ({ children }) => {
  const [state, set] = useState({ phase: "wait", error: "" });
  useEffect(() => { children.boot(set); }, []);
  if (state.phase === "in") return html`<${children.page} />`;
  if (state.phase === "out") return html`<${LoginPanel} error=${state.error} onKey=${(k) => { location.hash = `k=${k}`; children.boot(set); }} />`;
  return html`<p class="boot">Connecting…</p>`;
};
