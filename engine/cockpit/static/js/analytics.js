// The analytics page: latency, connectivity, services, model health, exposure and equity.
import { get, login } from "./api.js";
import { Badges, Header } from "./badges.js";
import { PnlChart, feedChart } from "./chart.js";
import { FlattenOverlay, HelpOverlay, hotkeys } from "./flatten.js";
import { DASH, age, micros, num, pct, signed, signedUsd, tone, usd } from "./format.js";
import { readColors } from "./ladder.js";
import { flush, latest, s } from "./store.js";
import { open } from "./stream.js";
import { LoginPanel, Panel, Toast, applyMode, effect, html, render, signal, streamStale } from "./ui.js";

const Latency = () => html`<${Panel} title="Latency" className="latency" extra=${html`<span class="muted">since start, per hop</span>`}>
  <div class="scroll" tabindex="0"><table class="grid"><thead><tr><th scope="col">Hop</th><th scope="col" class="n">p50</th><th scope="col" class="n">p90</th><th scope="col" class="n">p99</th><th scope="col" class="n">p99.9</th><th scope="col" class="n">Samples</th></tr></thead>
  <tbody>${(s.latency.value ?? []).map((h) => html`<tr key=${h.hop} class=${h.hop === "tick_to_order" ? "strong" : ""}><th scope="row">${h.words} <small class="muted by">${h.service}</small></th>${["p50_us", "p90_us", "p99_us", "p99_9_us"].map((k) => html`<td class="n">${micros(h[k])}</td>`)}<td class="n muted">${num(h.count)}</td></tr>`)}</tbody></table></div></${Panel}>`;

const Connectivity = () => {
  const c = s.connectivity.value ?? {};
  const item = (name, value, bad) => html`<div><dt>${name}</dt><dd class=${bad ? "bad-text" : ""}>${value}</dd></div>`;
  const most = Math.max(1, ...(c.rtt_samples_ms ?? []));
  return html`<${Panel} title="Connectivity" className="connectivity" extra=${html`<span class="muted">${c.gateway ?? ""}</span>`}>
    <dl class="facts">${item("Link", c.words ?? DASH, c.link !== "UP")}${item("Round trip", c.rtt_ms === null || c.rtt_ms === undefined ? DASH : `${num(c.rtt_ms, 2)} ms`)}${item("Last message", age(c.last_message_s))}${item("Reconciled", c.reconciled ? "yes" : "open", !c.reconciled)}
    ${item("Farms down", c.farms_down ?? DASH, c.farms_down > 0)}${item("Reconnects", c.reconnects ?? DASH)}${item("Owner", `${c.owner ?? DASH} #${c.epoch ?? DASH}`)}${item("Lease", c.lease_ms === null || c.lease_ms === undefined ? DASH : `${num(c.lease_ms)} ms left`, c.lease_ms <= 0)}
    ${item("Working / unknown", `${c.working_orders ?? DASH} / ${c.unknown_orders ?? DASH}`, c.unknown_orders > 0)}${item("Order efficiency", `${num(c.order_efficiency, 1)} of ${num(c.order_efficiency_limit, 0)}`, c.order_efficiency > c.order_efficiency_limit)}${item("Clock offset", `${num(c.clock_offset_ms, 1)} ms`)}</dl>
    <div class="rtt" role="img" aria-label=${`last round trips ${(c.rtt_samples_ms ?? []).join(", ")} ms`}>${(c.rtt_samples_ms ?? []).map((v) => html`<i style=${{ height: `${Math.max(6, (v / most) * 100)}%` }} title=${`${v} ms`}></i>`)}</div>
    <table class="grid ages"><thead><tr><th scope="col">Data age</th>${(s.quotes.value ?? []).map((q) => html`<th scope="col" class="n">${q.symbol}</th>`)}</tr></thead><tbody><tr><th scope="row">now</th>${(s.quotes.value ?? []).map((q) => html`<td class=${`n ${q.session_open && (q.age_s === null || q.age_s > q.stale_after_s) ? "bad-text" : ""}`}>${age(q.age_s)}</td>`)}</tr></tbody></table></${Panel}>`;
};

const Services = () => html`<${Panel} title="Services" className="services"><div class="scroll" tabindex="0"><table class="grid"><thead><tr><th scope="col">Service</th><th scope="col">State</th><th scope="col" class="n">Heartbeat</th><th scope="col" class="n">Pid</th><th scope="col" class="n">Core</th><th scope="col" class="n">Lag</th><th scope="col" class="n">Lost</th><th scope="col" class="n">Up</th><th scope="col" class="n">Starts</th></tr></thead>
  <tbody>${(s.services.value ?? []).map((r) => html`<tr key=${r.name}><th scope="row" title=${r.does}>${r.name}</th><td><span class=${`status ${r.status}`}><i aria-hidden="true">${r.status === "pass" ? "●" : r.status === "warn" ? "◔" : "✕"}</i>${r.state}</span>${r.reason ? html` <small class="muted">${r.reason}</small>` : ""}</td><td class="n">${age(r.heartbeat_age_s)}</td><td class="n">${r.pid ?? DASH}</td><td class="n">${r.core ?? "any"}</td><td class="n">${num(r.lag)}</td><td class=${`n ${r.lost ? "warn-text" : ""}`}>${num(r.lost)}</td><td class="n">${age(r.uptime_s)}</td><td class="n">${r.incarnation}</td></tr>`)}</tbody></table></div></${Panel}>`;

const Models = () => {
  const threshold = s.fixed.value?.limits.confidence ?? 0.7;
  return html`<${Panel} title="Model health" className="models"><div class="scroll" tabindex="0"><table class="grid"><thead><tr><th scope="col">Symbol</th><th scope="col">Regime</th><th scope="col">Probabilities</th><th scope="col" class="n">Confidence</th><th scope="col" class="n">EMA</th><th scope="col" class="n">Move</th><th scope="col" class="n">Invalid</th><th scope="col" class="n">PSI</th><th scope="col" class="n">Model</th><th scope="col">Valid</th></tr></thead>
  <tbody>${(s.models.value ?? []).map((m) => html`<tr key=${m.symbol}><th scope="row">${m.symbol}</th><td>${m.warming ? html`<span class="muted">warming</span>` : html`<span class=${`regime r${m.regime % 6}`}><i aria-hidden="true"></i>${m.regime}</span>`}</td>
    <td><span class="stack" role="img" aria-label=${m.probability.map((p) => pct(p)).join(", ")}>${m.probability.map((p, i) => html`<i class=${`r${i % 6}`} style=${{ width: `${p * 100}%` }}></i>`)}</span></td>
    <td class="n">${num(m.confidence, 3)}</td><td class=${`n ${!m.warming && m.confidence_ema < threshold ? "warn-text" : ""}`}>${num(m.confidence_ema, 3)}</td><td class=${`n ${tone(m.expected_move_bps)}`}>${signed(m.expected_move_bps, 2)} bps</td><td class="n">${pct(m.invalid_share, 1)}</td><td class=${`n ${m.psi > 0.25 ? "warn-text" : ""}`}>${num(m.psi, 3)}</td><td class="n muted">${m.model_id}</td><td>${m.valid ? "yes" : html`<b class="bad-text">no</b>`}</td></tr>`)}</tbody></table></div></${Panel}>`;
};

// Versions come from files that change when somebody trains: asked for once a minute, and at once when the model changes.
const versions = signal([]);
let versionsAt = -Infinity, versionSeen = 0;
function askVersions(now) {
  const serving = latest.models[0]?.model_id ?? 0;
  if (now - versionsAt < 60000 && serving === versionSeen) return;
  versionsAt = now;
  versionSeen = serving;
  get("/api/models").then((answer) => (versions.value = answer.models)).catch(() => {});
}

const folds = (m) => m.walk_forward.map((f) => {
  const k = Object.keys(f).filter((name) => name.startsWith("loglik_k")).map((name) => Number(name.slice(8))).sort((a, b) => b - a);
  return k.length > 1 ? `${num(f[`loglik_k${k[0]}`], 2)} (one regime ${num(f[`loglik_k${k[k.length - 1]}`], 2)})` : DASH;
}).join(" · ");

const Versions = () => html`<${Panel} title="Model versions" className="versions" extra=${html`<span class="muted">log-likelihood per bar, forward in time: higher is better</span>`}><div class="scroll" tabindex="0"><table class="grid"><thead><tr><th scope="col" class="n">Version</th><th scope="col">Serves</th><th scope="col">Made of</th><th scope="col">Trained</th><th scope="col" title="per fold, with all regimes and with one, in standardised units">Walk-forward</th><th scope="col" class="n" title="in raw units: versions compare">Hold-out, raw</th><th scope="col" class="n">Incumbent then</th><th scope="col" class="n">Does not fit</th><th scope="col" class="n">Next bar</th><th scope="col">Gate</th></tr></thead>
  <tbody>${versions.value.map((m) => html`<tr key=${m.version} class=${m.serves === "current" ? "strong" : ""}><th scope="row" class="n">${m.version}</th><td>${m.serves || "–"}</td><td>${m.error ? html`<b class="bad-text">${m.error}</b>` : m.provenance}</td><td>${m.trained?.slice(0, 16).replace("T", " ") ?? DASH}</td><td>${folds(m)}</td><td class="n">${num(m.holdout?.loglik, 3)}</td><td class="n muted">${m.incumbent ? `${num(m.incumbent.holdout_loglik, 3)} (${m.incumbent.version})` : DASH}</td><td class="n">${pct(m.holdout?.invalid_share, 1)}</td><td class="n" title="correlation of the regime with the return of the next bar">${signed(m.worth?.regime_return_correlation_next_bar, 3)}</td><td>${m.promoted === null ? DASH : m.promoted ? "promoted" : html`<span class="warn-text" title=${m.reasons.join("; ")}>kept out: ${m.reasons[0] ?? ""}</span>`}</td></tr>`)}
  ${versions.value.length ? "" : html`<tr><td class="muted empty" colspan="10">no model yet</td></tr>`}</tbody></table><p class="muted note">${versions.value[0]?.note ?? ""}</p></div></${Panel}>`;

const Exposure = () => {
  const rows = s.positions.value ?? [], a = s.account.value ?? {};
  return html`<${Panel} title="Positions" className="exposure" extra=${html`<span>gross ${usd(a.gross_usd)}</span><span>net ${signedUsd(a.net_usd)}</span><span class="muted">max ${usd(a.max_position_usd)}</span>`}>
    <div class="scroll" tabindex="0"><table class="grid"><thead><tr><th scope="col">Symbol</th><th scope="col" class="n">Qty</th><th scope="col">Short, long: share of the breaker's limit</th><th scope="col" class="n">Exposure</th><th scope="col" class="n">Unrealised</th><th scope="col" class="n">Realised</th></tr></thead><tbody>
    ${rows.map((p) => { const share = Math.min(1, p.used ?? 0) * 50; return html`<tr key=${p.symbol}><th scope="row">${p.symbol}</th><td class=${`n ${tone(p.qty)}`}>${signed(p.qty)}</td><td><span class="exposure-bar"><i class=${p.qty < 0 ? "short" : "long"} style=${p.qty < 0 ? { left: `${50 - share}%`, width: `${share}%` } : { left: "50%", width: `${share}%` }}></i></span></td><td class="n">${signedUsd(p.exposure_usd)}</td><td class=${`n ${tone(p.unrealized_usd)}`}>${signedUsd(p.unrealized_usd, 2)}</td><td class=${`n ${tone(p.realized_usd)}`}>${signedUsd(p.realized_usd, 2)}</td></tr>`; })}</tbody></table></div></${Panel}>`;
};

const Page = () => html`<div class="frame" aria-hidden="true"></div>
  ${streamStale.value && s.fixed.value ? html`<div class="stream-lost" role="alert">NO FRAMES for ${age(s.stream.value.age)}: what you see is old.</div>` : ""}
  <${Header} page="analytics" /><main class="analytics" tabindex="0"><h1 class="sr">Analytics</h1><${Badges} /><${Latency} /><${Connectivity} /><${Services} /><${PnlChart} title="Equity: day P&L and drawdown" /><${Exposure} /><${Models} /><${Versions} /></main>
  <${FlattenOverlay} /><${HelpOverlay} /><${Toast} />`;

let fed = 0;
function frame(now) {
  flush(now);
  if (now - fed > 1000) { fed = now; feedChart(); askVersions(now); }
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
  latest.history = await get("/api/history").catch(() => null);
  render(html`<${Page} />`, root);
  hotkeys();
  open();
  requestAnimationFrame(frame);
}

effect(applyMode);
start();
