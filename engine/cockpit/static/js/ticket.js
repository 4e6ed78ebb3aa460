// The order ticket. Orders that add risk need an armed tab; the server decides, and names the field when it says no.
import { TAB, post, randomHex } from "./api.js";
import { num, usd } from "./format.js";
import { s } from "./store.js";
import { Panel, html, replay, streamStale, useEffect, useState } from "./ui.js";

export const Ticket = () => {
  const fixed = s.fixed.value;
  const [form, setForm] = useState({ qty: "10", type: "LMT", limit: "", tif: "DAY" });
  const [errors, setErrors] = useState({});
  const [verdict, setVerdict] = useState(null);
  const [busy, setBusy] = useState(false);
  const symbol = s.focus.value;
  const quote = (s.quotes.value ?? []).find((q) => q.symbol === symbol);
  const position = (s.positions.value ?? []).find((p) => p.symbol === symbol);
  const pick = s.limitPick.value;
  useEffect(() => { if (pick) setForm((f) => ({ ...f, type: "LMT", limit: String(pick.price) })); }, [pick]);
  useEffect(() => { setErrors({}); setForm((f) => ({ ...f, limit: "" })); }, [symbol]);
  const close = s.ticketPick.value;
  useEffect(() => { if (close) setForm((f) => ({ ...f, qty: String(close.qty), type: "MKT", limit: "" })); }, [close]);
  const set = (name) => (e) => setForm({ ...form, [name]: e.target.value });
  const qty = Number(form.qty), price = form.type === "LMT" ? Number(form.limit) : quote?.mid;
  const send = async (side) => {
    setErrors({}); setVerdict(null); setBusy(true);
    const ticket = { symbol, side, qty: /^\d+$/.test(form.qty) ? qty : form.qty, type: form.type, tif: form.tif };
    if (form.type === "LMT") ticket.limit = form.limit === "" ? null : Number(form.limit);
    const body = { ...ticket, mode: fixed.mode, tab: TAB, arm: s.lease.value?.arm ?? "" };
    const result = await post("/api/exec/order", body, { key: randomHex(16) }).catch((error) => ({ error }));
    setBusy(false);
    if (result.error) {
      const problem = result.error.problem ?? {};
      setErrors(Object.fromEntries((problem.errors ?? []).map((e) => [e.field, e.reason])));
      setVerdict({ bad: true, text: `${problem.guardrail ? `${problem.guardrail}: ` : ""}${result.error.message}` });
    } else setVerdict({ bad: false, text: `${side} ${num(qty)} ${symbol}: ${result.state}` });
  };
  const field = (name) => (errors[name] ? "wrong" : "");
  const disabled = busy || streamStale.value || !quote?.tradable || replay.value;
  const armed = !!s.lease.value;
  return html`<${Panel} title=${`Ticket ${symbol ?? ""}`} className="ticket" extra=${html`<span class=${armed ? "armed-mark" : "muted"}>${replay.value ? "replay: nothing is sent" : armed ? "armed" : "reduce only: not armed"}</span>`}>
    <div class="ticket-quote"><span class="bid">${num(quote?.bid, 2)}</span><span class="muted">${quote?.spread_bps ? `${num(quote.spread_bps, 2)} bps` : "–"}</span><span class="ask">${num(quote?.ask, 2)}</span></div>
    <div class="fields">
      <label>Qty<input inputmode="numeric" aria-label="Quantity" class=${field("qty")} value=${form.qty} onInput=${set("qty")} /></label>
      <label>Type<select value=${form.type} onChange=${set("type")}><option>LMT</option><option>MKT</option></select></label>
      <label>Limit<input inputmode="decimal" aria-label="Limit price" class=${field("limit")} value=${form.type === "MKT" ? "" : form.limit} disabled=${form.type === "MKT"} placeholder=${form.type === "MKT" ? "market" : num(quote?.mid, 2)} onInput=${set("limit")} /></label>
      <label>TIF<select value=${form.tif} onChange=${set("tif")}><option>DAY</option><option>IOC</option><option>GTC</option></select></label></div>
    <div class="sides"><button class="buy" data-testid="buy" disabled=${disabled} onClick=${() => send("BUY")}>BUY</button><button class="sell" data-testid="sell" disabled=${disabled} onClick=${() => send("SELL")}>SELL</button></div>
    <p class="ticket-note">${verdict ? html`<span role="status" class=${verdict.bad ? "bad-text" : "good-text"} data-testid="verdict">${verdict.text}</span>` : html`<span class="muted">${position?.qty ? `holding ${num(position.qty)} at ${num(position.avg_cost, 2)} ` : "flat "}· value ${usd(qty > 0 && price > 0 ? qty * price : null)} of ${usd(fixed?.limits.order_notional_usd)}</span>`}</p>
  </${Panel}>`;
};
