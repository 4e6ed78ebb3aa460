// Mode, trading state, account and the eight badges. Never by colour alone: each has a word and a sign.
import { acknowledge, arm, disarm, pause, resume } from "./actions.js";
import { post } from "./api.js";
import { age, num, pct, signedUsd, since, tone, usd } from "./format.js";
import { HoldButton, help } from "./flatten.js";
import { s, toast } from "./store.js";
import { ConnectionLamp, Panel, html, replay, signal, streamStale, useState } from "./ui.js";

const SIGN = { OK: "✓", WARMING: "◔", WARN: "!", STALE: "?", TRIPPED: "✕", WAIT: "…" };
const resetOpen = signal(null);

function shown(badge) {
  const { value: v, limit, unit } = badge;
  if (badge.name === "KILL") return [badge.state === "OK" ? "clear" : "latched", ""];
  if (unit === "USD") return [usd(v), usd(limit)];
  const digits = unit === "%" || unit === "bps" ? 2 : unit === "ms" ? (v < 10 ? 1 : 0) : 0;
  const tail = unit === "%" ? "%" : unit ? ` ${unit.replace("per s", "/s")}` : "";
  return [num(v, digits), `${num(limit, limit % 1 ? 2 : 0)}${tail}`];
}

export const Badges = () => {
  const list = s.guardrails.value ?? [];
  const now = s.clock.value?.server_ms ?? Date.now();
  return html`<section class="badges" aria-label="Guardrails">${list.map((b) => {
    const [value, limit] = shown(b);
    const state = streamStale.value ? "STALE" : b.state;
    const share = b.limit > 0 && b.value !== null ? Math.min(1, Math.abs(b.value) / b.limit) : b.state === "TRIPPED" ? 1 : 0;
    const acted = state === "TRIPPED" || state === "WAIT" || (state === "WARN" && b.symbols.length);
    const reason = streamStale.value ? "no frames from the server" : b.reason;
    return html`<article class=${`badge ${state}`} data-badge=${b.name} data-state=${state} key=${b.name} title=${`${b.name}: ${b.reason}${b.symbols.length ? ` [${b.symbols.join(", ")}]` : ""}. On breach: ${b.does}`}>
      <header><h3>${b.name}</h3><span class="word"><i aria-hidden="true">${SIGN[state] ?? "?"}</i>${state}</span></header>
      <div class="figures"><b>${value}</b>${limit ? html`<span>/ ${limit}</span>` : ""}</div>
      <div class="bar"><i style=${{ width: `${share * 100}%` }}></i></div>
      <div class="why"><p>${acted ? html`<b class="did">${b.does}</b> · ` : ""}${reason || "–"}${b.name === "KILL" && state !== "OK" ? html` <a href="/api/incident/latest?text" target="_blank" rel="noopener">report</a>` : ""}</p><time title="in this state for">${age(since(b.since, now))}</time></div></article>`;
  })}</section>`;
};

const ResetDialog = () => {
  const open = resetOpen.value;
  const [reason, setReason] = useState("");
  if (!open) return null;
  const recovery = s.recovery.value ?? {};
  const send = async () => {
    try {
      const r = await post("/api/exec/reset", { reason, ...(open.override ? { override_day_lock: true } : {}) });
      toast(`reset: ${r.state}`, "good");
      resetOpen.value = null;
    } catch (error) {
      resetOpen.value = { ...open, reasons: error.problem?.reasons ?? [error.message] };
    }
  };
  return html`<div class="veil"><div class="dialog" role="dialog" aria-modal="true" aria-label="Release KILL">
    <h2>Release KILL</h2>
    <ul class="checks"><li>${recovery.flat_since ? "✓ confirmed flat" : "✕ not confirmed flat"}</li><li>${recovery.cooling_s > 0 ? `✕ cooling for another ${num(recovery.cooling_s)} s` : "✓ cooled down"}</li>
    <li>${recovery.day_locked ? "✕ locked until the next session" : "✓ the day is not locked"}</li></ul>
    ${open.reasons?.length ? html`<ul class="bad-text" role="alert">${open.reasons.map((r) => html`<li>${r}</li>`)}</ul>` : ""}
    <label class="field">Who and why <input value=${reason} maxlength="120" onInput=${(e) => setReason(e.target.value)} /></label>
    ${recovery.day_locked ? html`<label class="check"><input type="checkbox" checked=${!!open.override} onChange=${(e) => (resetOpen.value = { ...open, override: e.target.checked })} /> override the day lock, in my name</label>` : ""}
    <p class="muted">Restarting algo and ml-service alone releases nothing.</p>
    <div class="buttons"><button onClick=${() => (resetOpen.value = null)}>Close</button><button class="primary" onClick=${send} disabled=${!reason.trim()}>Reset</button></div></div></div>`;
};

const Controls = ({ page }) => {
  if (replay.value) return html`<div class="controls"><span class="replay-note" data-testid="replay-note">a recorded session:<br />nothing can be sent</span></div>`;
  if (page !== "cockpit") return html`<div class="controls"><${HoldButton} /></div>`;
  const state = s.trading_state.value?.state;
  const lease = s.lease.value;
  return html`<div class="controls">
    ${state === "KILLED" ? html`<button class="primary" onClick=${() => (resetOpen.value = { reasons: [] })}>Reset…</button>`
      : state === "PAUSED" ? html`<button class="primary" data-testid="resume" onClick=${resume}>Resume</button>`
      : html`<button data-testid="pause" onClick=${() => pause("pause from the cockpit")}>Pause</button>`}
    <button class=${lease ? "armed" : ""} data-testid="arm" aria-pressed=${!!lease} onClick=${lease ? disarm : arm} disabled=${state === "KILLED" || streamStale.value}
      title="Arming lets this tab send orders that add risk. Lost on reload, when hidden, on KILL and after 15 idle minutes">${lease ? "ARMED" : "Arm"}</button>
    <${HoldButton} /></div>`;
};

export const Header = ({ page }) => {
  const t = s.trading_state.value, a = s.account.value ?? {}, mode = s.fixed.value?.mode ?? "";
  const used = a.drawdown_usd !== null && a.drawdown_limit_usd ? a.drawdown_usd / a.drawdown_limit_usd : 0;
  return html`<header class="top">
    <div class="mode-mark" data-testid="mode" aria-label=${`Mode ${mode}`}>${mode}</div>
    <nav aria-label="Pages"><a href="/cockpit" aria-current=${page === "cockpit" ? "page" : null}>Cockpit</a><a href="/analytics" aria-current=${page === "analytics" ? "page" : null}>Analytics</a></nav>
    <div class=${`trading ${t?.state ?? ""}`} data-testid="trading-state"><b>${replay.value ? "REPLAY" : t?.state ?? "…"}</b><span title=${t?.reasons?.join("\n") ?? ""}>${replay.value ? s.clock.value?.server?.slice(0, 19).replace("T", " ") : t?.reasons?.length ? t.reasons[0] + (t.reasons.length > 1 ? ` (+${t.reasons.length - 1})` : "") : "entries allowed"}</span></div>
    <dl class="money">
      <div><dt>Equity</dt><dd>${usd(a.equity_usd)}</dd></div>
      <div><dt>Day P&L</dt><dd class=${tone(a.day_pnl_usd)}>${signedUsd(a.day_pnl_usd)}</dd></div>
      <div class="dd"><dt>Drawdown <small>of ${usd(a.drawdown_limit_usd)}</small></dt><dd>${usd(a.drawdown_usd)}<i class=${`bar ${used >= 0.8 ? "hot" : ""}`}><em style=${{ width: `${Math.min(100, used * 100)}%` }}></em></i></dd></div>
      <div><dt>Gross</dt><dd>${usd(a.gross_usd)}<small> ${pct(a.max_position_usd ? (a.gross_usd ?? 0) / a.max_position_usd : null)}</small></dd></div>
    </dl>
    <${ConnectionLamp} />
    <${Controls} page=${page} />
    <button class="help-button" aria-label="Hotkeys" onClick=${() => (help.value = true)}>?</button>
    <${ResetDialog} />
  </header>`;
};

export const Alerts = () => {
  const list = s.alerts.value;
  return html`<${Panel} title="Alerts" className="alerts" extra=${replay.value ? "" : html`<button class="small" onClick=${acknowledge}>Acknowledge</button>`}>
    <ol class="alert-list" tabindex="0">${list.slice(0, 60).map((a) => html`<li key=${a.id} class=${a.severity}><time>${a.time?.slice(11, 19)}</time><b>${a.severity === "ROUTINE" || a.severity === "INFO" ? a.kind : a.severity}</b><span title=${a.text}><em>${a.symbol ?? a.service}</em> ${a.text}</span></li>`)}
    ${list.length ? "" : html`<li class="muted empty">nothing so far</li>`}</ol></${Panel}>`;
};
