// Orders, fills and positions in one pane: tabs, a filter, CSV, and the reason of the last reject.
import { cancel, cancelAll } from "./actions.js";
import { millis, num, signed, signedUsd, tone, usd } from "./format.js";
import { s } from "./store.js";
import { html, replay, signal, useState } from "./ui.js";
import { focus } from "./stream.js";

const tab = signal("orders");
const LAST = { orders: 200, fills: 200 };
const REDUCED = new Set(["REFUSED", "REJECTED"]);

const COLUMNS = {
  orders: [
    ["Time", (o) => millis(o.updated)], ["Symbol", (o) => o.symbol], ["Side", (o) => o.side], ["Qty", (o) => num(o.qty), "n"], ["Limit", (o) => (o.limit === null ? "MKT" : num(o.limit, 2)), "n"],
    ["Filled", (o) => num(o.filled), "n"], ["Avg", (o) => num(o.avg_price, 2), "n"], ["State", (o) => o.state], ["Source", (o) => o.source], ["Reason", (o) => o.reason || ""],
  ],
  fills: [
    ["Time", (f) => millis(f.time)], ["Symbol", (f) => f.symbol], ["Side", (f) => f.side], ["Qty", (f) => num(f.qty), "n"], ["Price", (f) => num(f.price, 2), "n"], ["Commission", (f) => num(f.commission_usd, 2), "n"],
    ["Realised", (f) => signed(f.realized_pnl_usd, 2), "n"], ["Source", (f) => `${f.source}${f.flatten ? " flatten" : ""}${f.replayed ? " replayed" : ""}${f.corrected ? " corrected" : ""}`], ["Execution", (f) => f.exec_id],
  ],
  positions: [
    ["Symbol", (p) => p.symbol], ["Qty", (p) => signed(p.qty), "n"], ["Avg cost", (p) => num(p.avg_cost, 2), "n"], ["Mid", (p) => num(p.mid, 2), "n"], ["Exposure", (p) => usd(p.exposure_usd), "n"], ["Of limit", (p) => (p.used === null ? "–" : `${Math.round(p.used * 100)}%`), "n"],
    ["Unrealised", (p) => signedUsd(p.unrealized_usd, 2), "n"], ["Realised", (p) => signedUsd(p.realized_usd, 2), "n"], ["Working", (p) => (p.working_buy || p.working_sell ? `+${num(p.working_buy)} / −${num(p.working_sell)}` : "–"), "n"], ["Broker", (p) => (p.mismatch_since ? `${signed(p.broker_qty)} DIFFERS` : "agrees")],
  ],
  audit: [["Time", (a) => millis(a.time)], ["Action", (a) => a.action], ["Source", (a) => a.source ?? a.service], ["What", (a) => a.text], ["Id", (a) => a.ref_id]],
};

function csv(name, rows) {
  const quote = (v) => {
    let text = v === null || v === undefined ? "" : String(v);
    if (/^[=+\-@]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`; // a spreadsheet must not run it
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const keys = rows.length ? Object.keys(rows[0]) : [];
  const text = [keys.join(","), ...rows.map((r) => keys.map((k) => quote(r[k])).join(","))].join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `l2dash-${name}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export const Blotter = () => {
  const [filter, setFilter] = useState("");
  const [onlyOpen, setOnlyOpen] = useState(false);
  const which = tab.value;
  const all = { orders: s.orders.value, fills: s.fills.value, positions: s.positions.value ?? [], audit: s.audit.value };
  const words = filter.trim().toUpperCase().split(/\s+/).filter(Boolean);
  const text = (r) => Object.values(r).join(" ").toUpperCase();
  let rows = all[which].filter((r) => words.every((w) => text(r).includes(w)));
  if (which === "positions") rows = [...rows].sort((a, b) => Math.abs(b.exposure_usd ?? 0) - Math.abs(a.exposure_usd ?? 0));
  if (which === "orders" && onlyOpen) rows = rows.filter((o) => o.open);
  const reject = s.orders.value.find((o) => REDUCED.has(o.state));
  const open = s.orders.value.filter((o) => o.open).length;
  const held = all.positions.filter((p) => p.qty).length;
  const counts = { orders: `${open} open`, fills: s.fills.value.length, positions: held, audit: s.audit.value.length };
  const columns = COLUMNS[which];
  return html`<section class="panel blotter" aria-label="Orders, fills and positions" data-testid="blotter">
    <header class="panel-head"><div class="tabs" role="tablist">${Object.keys(COLUMNS).map((name) => html`<button role="tab" id=${`tab-${name}`} aria-controls="blotter-body" aria-selected=${which === name} class=${which === name ? "on" : ""} onClick=${() => (tab.value = name)}>${name[0].toUpperCase() + name.slice(1)} <small>${counts[name]}</small></button>`)}</div>
      <div class="panel-extra">
        ${which === "orders" ? html`<label class="check"><input type="checkbox" checked=${onlyOpen} onChange=${(e) => setOnlyOpen(e.target.checked)} /> open only</label><button class="small" onClick=${cancelAll} disabled=${!open || replay.value}>Cancel all</button>` : ""}
        <input class="filter" type="search" placeholder="filter" aria-label="Filter rows" value=${filter} onInput=${(e) => setFilter(e.target.value)} />
        <button class="small" onClick=${() => csv(which, rows)}>CSV</button></div></header>
    ${reject && which === "orders" ? html`<p class="last-reject" data-testid="last-reject"><b>Last ${reject.state.toLowerCase()}</b> ${reject.symbol} ${reject.side} ${num(reject.qty)}: ${reject.guardrail ? `${reject.guardrail}: ` : ""}${reject.reason}</p>` : ""}
    <div class="panel-body scroll" id="blotter-body" role="tabpanel" aria-labelledby=${`tab-${which}`} tabindex="0"><table class="grid sticky"><thead><tr>${columns.map(([name, , kind]) => html`<th scope="col" class=${kind ?? ""}>${name}</th>`)}${which === "orders" || which === "positions" ? html`<th scope="col"><span class="sr">Action</span></th>` : ""}</tr></thead>
      <tbody>${rows.slice(0, LAST[which] ?? 200).map((r) => html`<tr key=${r.order_id ?? r.exec_id ?? r.symbol ?? r.id} class=${`${r.open === false ? "done" : ""} ${r.state ?? ""}`} onDblClick=${() => r.symbol && focus(r.symbol)}>
        ${columns.map(([name, cell, kind]) => html`<td class=${`${kind ?? ""} ${name === "Side" ? r.side : ""} ${name === "Unrealised" ? tone(r.unrealized_usd) : ""} ${name === "Realised" ? tone(r.realized_usd ?? r.realized_pnl_usd) : ""} ${name === "Qty" && which === "positions" ? tone(r.qty) : ""} ${name === "Reason" || name === "What" ? "wide" : ""}`}>${cell(r)}</td>`)}
        ${which === "orders" ? html`<td>${r.open && !replay.value ? html`<button class="small" onClick=${() => cancel(r.order_id)}>Cancel</button>` : ""}</td>` : ""}${which === "positions" ? html`<td>${r.qty ? html`<button class="small" title="Prepare the closing order in the ticket" onClick=${() => { focus(r.symbol); s.ticketPick.value = { qty: Math.abs(r.qty), at: performance.now() }; }}>Close…</button>` : ""}</td>` : ""}</tr>`)}
        ${rows.length ? "" : html`<tr><td class="muted empty" colspan=${columns.length + 1}>${all[which].length ? "no row fits the filter" : `no ${which} yet`}</td></tr>`}</tbody></table></div></section>`;
};
