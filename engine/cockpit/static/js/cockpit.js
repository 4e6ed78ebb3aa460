// The cockpit page: one animation loop draws canvases from `latest`, panels follow signals.
import { get, login } from "./api.js";
import { Alerts, Badges, Header } from "./badges.js";
import { Blotter } from "./blotter.js";
import { FlattenOverlay, HelpOverlay, hotkeys } from "./flatten.js";
import { age, num, pct, signed, tone } from "./format.js";
import { HeatMap, Ladder, readColors, ribbon } from "./ladder.js";
import { flush, latest, s, toast } from "./store.js";
import { focus, open } from "./stream.js";
import { Ticket } from "./ticket.js";
import { Panel, Toast, applyMode, effect, html, render, signal, streamStale, useEffect, useRef, LoginPanel } from "./ui.js";
import { PnlChart, feedChart, pastOfTheDay } from "./chart.js";

const ribbons = new Map();
const ladderTable = signal(null);
let ladder = null, heat = null;

const Symbols = () => {
  const models = new Map((s.models.value ?? []).map((m) => [m.symbol, m]));
  const held = new Map((s.positions.value ?? []).map((p) => [p.symbol, p]));
  const threshold = s.fixed.value?.limits.confidence ?? 0.7;
  const blocked = new Set(s.trading_state.value?.blocked_symbols ?? []);
  return html`<${Panel} title="Symbols" className="symbols" extra=${html`<span class="muted">regime ribbon: last 15 min</span>`}>
    <div class="scroll" tabindex="0"><table class="grid watch"><thead><tr><th scope="col">Symbol</th><th scope="col" class="n">Mid</th><th scope="col" class="n">Age</th><th scope="col" class="n">Pos</th><th scope="col">Regime</th><th scope="col" class="n">Conf</th><th scope="col">Ribbon</th></tr></thead><tbody>
    ${(s.quotes.value ?? []).map((q) => {
      const m = models.get(q.symbol), p = held.get(q.symbol);
      const stale = streamStale.value || q.age_s === null || (q.session_open && q.age_s > q.stale_after_s);
      const flag = q.halted ? "HALT" : blocked.has(q.symbol) ? "BLOCK" : !q.session_open ? "CLOSED" : stale ? "STALE" : "";
      return html`<tr key=${q.symbol} class=${`${q.symbol === s.focus.value ? "focus" : ""} ${stale ? "stale" : ""}`} onClick=${() => q.tradable && focus(q.symbol)}>
        <th scope="row">${q.tradable ? html`<button class="link" aria-pressed=${q.symbol === s.focus.value} onClick=${() => focus(q.symbol)}>${q.symbol}</button>` : q.symbol}${flag ? html` <em class="flag">${flag}</em>` : ""}</th>
        <td class="n">${num(q.mid, q.tradable ? 2 : 0)}</td><td class=${`n ${stale ? "bad-text" : "muted"}`}>${age(q.age_s)}</td><td class=${`n ${tone(p?.qty)}`}>${q.tradable ? (p?.qty ? signed(p.qty) : "0") : ""}</td>
        ${m ? html`<td>${m.warming ? html`<span class="muted">warming</span>` : html`<span class=${`regime r${m.regime % 6}`}><i aria-hidden="true"></i>${m.regime}${m.valid ? "" : " invalid"}</span>`}</td><td class=${`n ${!m.warming && m.confidence_ema < threshold ? "warn-text" : ""}`}>${m.warming ? "–" : num(m.confidence_ema, 2)}</td>
        <td class="ribbon"><canvas ref=${(c) => (c ? ribbons.set(q.symbol, c) : ribbons.delete(q.symbol))} aria-hidden="true"></canvas></td>` : html`<td colspan="3" class="muted">index ${signed(s.account.value?.index_move_pct, 2)}% in 5 min</td>`}</tr>`;
    })}</tbody></table></div></${Panel}>`;
};

const Depth = () => {
  const ref = useRef(null), map = useRef(null);
  useEffect(() => {
    ladder = new Ladder(ref.current, (price, side) => (s.limitPick.value = { price, side, at: performance.now() }));
    heat = new HeatMap(map.current);
    latest.onBook = (book) => { if (!book) heat.clear(); };
    latest.dirty = true;
  }, []);
  const quote = (s.quotes.value ?? []).find((q) => q.symbol === s.focus.value);
  const stale = streamStale.value || (quote && quote.session_open && (quote.age_s === null || quote.age_s > quote.stale_after_s));
  const t = ladderTable.value;
  return html`<${Panel} title=${`Depth ${s.focus.value ?? ""}`} className=${`depth ${stale ? "is-stale" : ""}`} extra=${html`<span class=${stale ? "bad-text" : "muted"}>${stale ? `STALE ${age(quote?.age_s)}` : `${num(quote?.spread_bps, 2)} bps · fair ${num(quote?.fair_value, 2)}`}</span>`}>
    <div class="depth-body"><canvas class="ladder" ref=${ref} aria-hidden="true"></canvas><canvas class="heat" ref=${map} aria-hidden="true"></canvas></div>
    <table class="sr" aria-label="Depth of the focused symbol"><thead><tr><th>Bid size</th><th>Bid</th><th>Ask</th><th>Ask size</th></tr></thead><tbody>${(t ?? []).map((r) => html`<tr>${r.map((c) => html`<td>${c}</td>`)}</tr>`)}</tbody></table>
  </${Panel}>`;
};

const spoken = signal("");
let spokeAt = 0;
effect(() => {
  const t = s.trading_state.value, a = s.account.value;
  if (!t || !a) return;
  const now = performance.now();
  const bad = (s.guardrails.value ?? []).filter((g) => g.state === "TRIPPED" || g.state === "WARN").map((g) => `${g.name} ${g.state}`);
  const text = `${t.state}. ${bad.join(", ") || "guardrails quiet"}. Day P and L ${num(a.day_pnl_usd)} dollars.`;
  if (now - spokeAt > 15000 || !spoken.peek().startsWith(t.state)) { spokeAt = now; spoken.value = text; }
});

const Page = () => html`<div class="frame" aria-hidden="true"></div>
  ${streamStale.value && s.fixed.value ? html`<div class="stream-lost" role="alert">NO FRAMES for ${age(s.stream.value.age)}: what you see is old. Flatten, pause and cancel still work.</div>` : ""}
  <${Header} page="cockpit" /><main class="cockpit"><h1 class="sr">Cockpit</h1><${Badges} />
  <div class="left"><${Symbols} /><${Ticket} /></div><${Depth} />
  <div class="right"><${PnlChart} /><${Alerts} /></div><${Blotter} /></main>
  <${FlattenOverlay} /><${HelpOverlay} /><${Toast} /><div class="sr" aria-live="polite">${spoken.value}</div>`;

let ribbonAt = 0, tableAt = 0;
function frame(now) {
  flush(now);
  heat?.sample(now);
  if (latest.dirty) { latest.dirty = false; ladder?.draw(); }
  heat?.draw();
  if (now - ribbonAt > 1000 && latest.history) {
    ribbonAt = now;
    const threshold = s.fixed.value?.limits.confidence ?? 0.7;
    for (const m of latest.models ?? []) {
      const h = latest.history.regimes.symbols[m.symbol];
      if (!h) continue;
      h.regime.push(m.warming ? 255 : m.regime); h.confidence.push(m.warming ? null : m.confidence_ema);
      if (h.regime.length > 900) { h.regime.shift(); h.confidence.shift(); }
      const canvas = ribbons.get(m.symbol);
      if (canvas) ribbon(canvas, h.regime, h.confidence, threshold);
    }
    feedChart();
  }
  if (now - tableAt > 2000 && latest.book) {
    tableAt = now;
    const b = latest.book;
    ladderTable.value = Array.from({ length: Math.max(b.bids.length, b.asks.length) }, (_, i) => [b.bids[i]?.[1], b.bids[i]?.[0], b.asks[i]?.[0], b.asks[i]?.[1]]);
  }
  requestAnimationFrame(frame);
}

async function start() {
  const root = document.getElementById("app");
  root.textContent = "";
  try {
    await login();
  } catch (error) {
    if (error.status !== 401 && error.status !== 429) { render(html`<p class="boot">${error.message}</p>`, root); setTimeout(start, 2000); return; }
    render(html`<${LoginPanel} error=${error.message.includes("key") ? error.message : ""} onKey=${(k) => { location.hash = `k=${k}`; start(); }} />`, root);
    return;
  }
  readColors();
  render(html`<${Page} />`, root);
  hotkeys();
  latest.history = await get("/api/history").catch(() => null);
  pastOfTheDay();
  open();
  requestAnimationFrame(frame);
}

effect(applyMode);
document.addEventListener("l2-disarmed", (e) => toast(`disarmed: ${e.detail}`, "warn"));
start();
