// Ctrl/Cmd+F. One press pauses at once and shows what will be closed, with two seconds until it happens; a second press
// or a hold of 600 ms fires at once; Esc stops the countdown and leaves the PAUSE.
import { flattenNow, pause, reconnect } from "./actions.js";
import { num, usd } from "./format.js";
import { readColors } from "./ladder.js";
import { s, toast } from "./store.js";
import { effect, html, replay, signal, useEffect, useRef } from "./ui.js";

const COUNTDOWN_MS = 2000, HOLD_MS = 600, DOUBLE_MS = 900;
export const overlay = signal(null); // {phase: "countdown"|"stopped"|"fired"|"failed", deadline, left, error, id}
export const help = signal(false);
let timer = 0, holdTimer = 0, lastReconnect = -Infinity;

export function begin(how) {
  if (replay.value) return toast("a replay: nothing can be flattened", "warn");
  if (overlay.value && ["countdown", "stopped"].includes(overlay.value.phase)) return fire(`${how}, second press`);
  if (overlay.value?.phase === "fired") return;
  pause(`${how}: pause before flatten`);
  overlay.value = { phase: "countdown", deadline: performance.now() + COUNTDOWN_MS, left: COUNTDOWN_MS };
  clearInterval(timer);
  timer = setInterval(() => {
    const o = overlay.value;
    if (o?.phase !== "countdown") return clearInterval(timer);
    const left = Math.max(0, o.deadline - performance.now());
    if (left <= 0) return fire(`${how}, countdown`);
    overlay.value = { ...o, left };
  }, 50);
}

export async function fire(how) {
  clearInterval(timer);
  if (overlay.value?.phase === "fired") return;
  overlay.value = { phase: "fired", id: null };
  try {
    const { flatten_id } = await flattenNow(how);
    overlay.value = { ...overlay.value, id: flatten_id };
  } catch (error) {
    overlay.value = { phase: "failed", error: error.message };
  }
}

export function stop() {
  clearInterval(timer);
  clearTimeout(holdTimer);
  if (overlay.value?.phase === "countdown") {
    overlay.value = { ...overlay.value, phase: "stopped" };
    toast("flatten stopped; the PAUSE stays until you resume", "warn");
    setTimeout(() => { if (overlay.value?.phase === "stopped") overlay.value = null; }, 250);
  } else overlay.value = null;
}

const typing = (e) => e.isComposing || e.keyCode === 229;

export function hotkeys() {
  const focused = () => (s.focused.value = document.hasFocus());
  addEventListener("focus", focused);
  addEventListener("blur", () => { clearTimeout(holdTimer); focused(); });
  setInterval(focused, 1000);
  document.addEventListener("keydown", (e) => {
    if (typing(e)) return;
    const key = e.key.toLowerCase();
    const chord = (e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey;
    if (chord && key === "f") {
      e.preventDefault();
      if (e.repeat) return;
      const first = !overlay.value;
      begin("hotkey");
      if (first && overlay.value) { clearTimeout(holdTimer); holdTimer = setTimeout(() => fire("hotkey, held"), HOLD_MS); }
    } else if (e.ctrlKey && !e.metaKey && !e.altKey && !e.shiftKey && key === "r") {
      e.preventDefault();
      if (e.repeat) return;
      if (replay.value) return toast("a replay: there is no broker to reconnect", "warn");
      const up = s.connectivity.value?.link === "UP";
      const now = performance.now();
      if (!up || now - lastReconnect < DOUBLE_MS) { lastReconnect = -Infinity; reconnect(); }
      else { lastReconnect = now; toast("the broker link is up: press Ctrl+R again to reconnect it all the same", "warn"); }
    } else if (key === "escape") {
      if (help.value) help.value = false;
      else if (overlay.value) { e.preventDefault(); stop(); }
    } else if (e.key === "?" && !["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement?.tagName)) {
      e.preventDefault();
      help.value = !help.value;
    }
  }, true);
  document.addEventListener("keyup", (e) => {
    if (["f", "control", "meta"].includes(e.key.toLowerCase())) clearTimeout(holdTimer);
  }, true);
}

const Rows = () => {
  const quotes = new Map((s.quotes.value ?? []).map((q) => [q.symbol, q]));
  const held = (s.positions.value ?? []).filter((p) => p.qty);
  const working = (s.orders.value ?? []).filter((o) => o.open).length;
  let cost = 0;
  const rows = held.map((p) => {
    const q = quotes.get(p.symbol);
    const half = q?.ask && q?.bid ? ((q.ask - q.bid) / 2) * Math.abs(p.qty) : null;
    cost += half ?? 0;
    return html`<tr><th scope="row">${p.symbol}</th><td>${p.qty > 0 ? "SELL" : "BUY"} ${num(Math.abs(p.qty))}</td><td>${usd(Math.abs(p.exposure_usd ?? 0))}</td><td>${usd(half, 2)}</td></tr>`;
  });
  return html`<table class="grid"><thead><tr><th scope="col">Symbol</th><th scope="col">Close</th><th scope="col">Value</th><th scope="col">Half spread</th></tr></thead>
    <tbody>${rows.length ? rows : html`<tr><td colspan="4" class="muted">no confirmed position; working orders are cancelled</td></tr>`}</tbody>
    <tfoot><tr><th scope="row">${working} working order${working === 1 ? "" : "s"} cancelled</th><td></td><td>${usd(held.reduce((t, p) => t + Math.abs(p.exposure_usd ?? 0), 0))}</td><td>≈ ${usd(cost, 2)}</td></tr></tfoot></table>`;
};

const Progress = ({ id }) => {
  const f = s.flatten.value;
  const ours = f && (f.flatten_id === id || f.running);
  const flat = ours && f.state === "FLAT";
  const remaining = ours ? f.remaining : [];
  return html`<div class="flat-progress">
    <p class="flat-state" data-testid="flatten-state">${flat ? "FLAT, confirmed by the broker" : ours ? `${f.state.replaceAll("_", " ")}, round ${f.rounds}` : "requested"}</p>
    <p class="muted">${ours && f.sent_ms !== null ? `closing orders sent after ${num(f.sent_ms, 1)} ms. ` : ""}${flat && f.flat_ms !== null ? `flat after ${num(f.flat_ms, 0)} ms. ` : ""}
      ${remaining.length ? `still open: ${remaining.join(", ")}.` : ""} ${flat ? "" : "Entries are paused; nothing re-enters meanwhile."}</p></div>`;
};

export const FlattenOverlay = () => {
  const o = overlay.value;
  const box = useRef(null);
  useEffect(() => { if (o) box.current?.focus(); }, [!!o]);
  if (!o) return null;
  const counting = o.phase === "countdown";
  return html`<div class="veil" role="presentation"><div class=${`dialog flatten phase-${o.phase}`} role="alertdialog" aria-modal="true" aria-labelledby="ft" tabindex="-1" ref=${box} data-testid="flatten-overlay">
    <h2 id="ft">${o.phase === "fired" ? "Flattening" : o.phase === "failed" ? "Flatten was not taken" : "Flatten everything"}</h2>
    ${counting || o.phase === "stopped" ? html`
      <p class="paused-line">PAUSED: no new entries. ${s.fixed.value?.mode} account ${s.account.value?.account ?? ""}</p>
      <${Rows} />
      <div class="countdown" aria-live="assertive"><b data-testid="countdown">${counting ? (o.left / 1000).toFixed(1) : "stopped"}</b>${counting ? html`<i><em style=${{ width: `${(o.left / COUNTDOWN_MS) * 100}%` }}></em></i>` : ""}</div>
      <p class="keys"><kbd>Ctrl</kbd>/<kbd>⌘</kbd>+<kbd>F</kbd> again or hold: now · <kbd>Esc</kbd> stop, stay paused</p>
      <div class="buttons"><button onClick=${stop}>Stop (Esc)</button><button class="danger" onClick=${() => fire("overlay button")}>Flatten now</button></div>` : ""}
    ${o.phase === "fired" ? html`<${Progress} id=${o.id} /><div class="buttons"><button onClick=${stop}>Close (Esc)</button></div>` : ""}
    ${o.phase === "failed" ? html`<p class="bad-text" role="alert">${o.error}</p><p>On the host: <code>l2dash flatten</code>, or <code>l2dash flatten --direct</code> past every process.</p>
      <div class="buttons"><button onClick=${stop}>Close</button><button class="danger" onClick=${() => { overlay.value = null; begin("retry"); }}>Try again</button></div>` : ""}
  </div></div>`;
};

export const HelpOverlay = () => help.value ? html`<div class="veil" onClick=${(e) => { if (e.target === e.currentTarget) help.value = false; }}><div class="dialog" role="dialog" aria-modal="true" aria-label="Hotkeys">
  <h2>Hotkeys</h2><table class="grid keys-table"><tbody>
  <tr><td><kbd>Ctrl</kbd> or <kbd>⌘</kbd> + <kbd>F</kbd></td><td>pause at once, flatten in 2 s; again or held: flatten now</td></tr>
  <tr><td><kbd>Esc</kbd></td><td>stop the countdown; the PAUSE stays</td></tr>
  <tr><td><kbd>Ctrl</kbd> + <kbd>R</kbd></td><td>reconnect the broker: once when the link is down, twice when it is up</td></tr>
  <tr><td><kbd>?</kbd></td><td>this list</td></tr></tbody></table>
  <label class="check"><input type="checkbox" checked=${document.documentElement.dataset.palette === "safe"} onChange=${(e) => palette(e.target.checked)} /> blue and orange instead of green and red</label>
  <p class="muted">Hotkeys work while this page has the focus: the lamp at the top says so. In Safari ⌘R reloads the page; use Ctrl+R.</p></div></div>` : null;

export function palette(safe) {
  document.documentElement.dataset.palette = safe ? "safe" : "";
  try { localStorage.setItem("palette", safe ? "safe" : ""); } catch { /* a private window forgets it */ }
  readColors();
}
try { if (localStorage.getItem("palette") === "safe") document.documentElement.dataset.palette = "safe"; } catch { /* no storage */ }

// Press and hold: a click alone does nothing but say how.
export const HoldButton = () => {
  const ref = useRef(null);
  const held = useRef({ timer: 0, done: false });
  const down = (e) => {
    if (e.repeat) return;
    ref.current.classList.add("holding");
    held.current.done = false;
    clearTimeout(held.current.timer);
    held.current.timer = setTimeout(() => { held.current.done = true; ref.current.classList.remove("holding"); pause("flatten button: pause before flatten"); fire("flatten button, held"); }, HOLD_MS);
  };
  const up = () => {
    clearTimeout(held.current.timer);
    if (ref.current.classList.contains("holding") && !held.current.done) toast("hold the button for 0.6 s to flatten everything", "warn");
    ref.current.classList.remove("holding");
  };
  const key = (fn) => (e) => { if (e.key === " " || e.key === "Enter") { e.preventDefault(); fn(e); } };
  return html`<button class="flatten-button" ref=${ref} data-testid="flatten-button" onPointerDown=${down} onPointerUp=${up} onPointerLeave=${up} onPointerCancel=${up}
    onKeyDown=${key(down)} onKeyUp=${key(up)} onBlur=${up} title="Hold to stop entries, cancel everything and close every position"><span>FLATTEN</span><small>hold</small></button>`;
};

effect(() => { document.documentElement.classList.toggle("overlay-open", !!overlay.value || help.value); });
