// Depth ladder and heat map of the focused symbol, on canvases. Best prices in the middle; the view recentres by itself
// unless the pointer is over it, so that a click never lands on a price that has just moved there.
import { latest } from "./store.js";

const ROW = 19;
let colors = {};

export function readColors() {
  const css = getComputedStyle(document.documentElement);
  for (const name of ["bid", "ask", "text", "muted", "line", "panel", "own", "accent", "faint", "warn", "r0", "r1", "r2", "r3", "r4", "r5"]) colors[name] = css.getPropertyValue(`--${name}`).trim();
  latest.dirty = true;
}

export function fit(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: w, clientHeight: h } = canvas;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [g, w, h];
}

export class Ladder {
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.center = null;
    this.hover = null;
    this.frozen = false;
    canvas.addEventListener("pointermove", (e) => { this.hover = e.offsetY; this.frozen = true; latest.dirty = true; });
    canvas.addEventListener("pointerleave", () => { this.hover = null; this.frozen = false; latest.dirty = true; });
    canvas.addEventListener("click", (e) => {
      const book = latest.book;
      if (!book || this.center === null) return;
      const ticks = this.center + Math.floor(this.rows / 2) - Math.floor((e.offsetY - this.top) / ROW);
      onPick(+(ticks * book.tick_size).toFixed(4), e.offsetX < canvas.clientWidth / 2 ? "BUY" : "SELL");
    });
  }

  draw() {
    const [g, w, h] = fit(this.canvas);
    g.clearRect(0, 0, w, h);
    const book = latest.book;
    g.font = "12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
    g.textBaseline = "middle";
    if (!book || (!book.bids.length && !book.asks.length)) {
      g.fillStyle = colors.muted;
      g.textAlign = "center";
      g.fillText(book ? "no book" : "waiting for the book…", w / 2, h / 2);
      this.center = null;
      return;
    }
    const tick = book.tick_size;
    const inTicks = (p) => Math.round(p / tick);
    const best = book.bids[0]?.[0] ?? book.asks[0][0] - tick;
    const target = inTicks(best);
    this.rows = Math.max(6, Math.floor(h / ROW));
    this.top = Math.floor((h - this.rows * ROW) / 2);
    const half = Math.floor(this.rows / 2);
    // a row of slack before following: the eye should not have to
    if (this.center === null || (!this.frozen && Math.abs(target - this.center) > Math.max(1, half / 4)) || Math.abs(target - this.center) > half * 3) this.center = target;
    const bids = new Map(book.bids.map(([p, q]) => [inTicks(p), q]));
    const asks = new Map(book.asks.map(([p, q]) => [inTicks(p), q]));
    const own = new Map();
    for (const [p, q] of book.own ?? []) own.set(inTicks(p), (own.get(inTicks(p)) ?? 0) + q);
    const most = Math.max(1, ...bids.values(), ...asks.values());
    const tag = 38, mid = Math.round(w / 2), price = 40, bar = mid - price - (own.size ? tag : 4);
    const digits = tick < 0.01 ? 4 : 2;
    const bestBid = target, bestAsk = book.asks.length ? inTicks(book.asks[0][0]) : target + 1;
    for (let row = 0; row < this.rows; row++) {
      const t = this.center + half - row, y = this.top + row * ROW, cy = y + ROW / 2;
      const b = bids.get(t), a = asks.get(t), o = own.get(t);
      if (t > bestBid && t < bestAsk) { g.fillStyle = colors.faint; g.fillRect(mid - price, y, price * 2, ROW); }
      if (this.hover !== null && Math.floor((this.hover - this.top) / ROW) === row) { g.fillStyle = colors.faint; g.fillRect(0, y, w, ROW); }
      if (b) {
        const width = Math.max(2, (bar - 4) * Math.sqrt(b / most));
        g.globalAlpha = t === bestBid ? 0.42 : 0.24; g.fillStyle = colors.bid; g.fillRect(mid - price - width, y + 1, width, ROW - 2); g.globalAlpha = 1;
        g.fillStyle = colors.text; g.textAlign = "right"; g.fillText(b.toLocaleString("en-US"), mid - price - 6, cy);
      }
      if (a) {
        const width = Math.max(2, (bar - 4) * Math.sqrt(a / most));
        g.globalAlpha = t === bestAsk ? 0.42 : 0.24; g.fillStyle = colors.ask; g.fillRect(mid + price, y + 1, width, ROW - 2); g.globalAlpha = 1;
        g.fillStyle = colors.text; g.textAlign = "left"; g.fillText(a.toLocaleString("en-US"), mid + price + 6, cy);
      }
      g.textAlign = "center";
      g.fillStyle = t === bestBid ? colors.bid : t === bestAsk ? colors.ask : b || a ? colors.text : colors.muted;
      if (t === bestBid || t === bestAsk) g.font = "bold 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
      g.fillText((t * tick).toFixed(digits), mid, cy);
      g.font = "12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
      if (o) {
        g.fillStyle = colors.own;
        const x = o > 0 ? 1 : w - tag + 1;
        g.fillRect(x, y + 2, tag - 3, ROW - 4);
        g.fillStyle = "#10141d"; g.textAlign = "center"; g.fillText(`${o > 0 ? "B" : "S"}${Math.abs(o)}`, x + tag / 2 - 1, cy);
      }
      if (book.last && inTicks(book.last) === t) { g.strokeStyle = colors.accent; g.strokeRect(mid - price + 1.5, y + 1.5, price * 2 - 3, ROW - 3); }
    }
    if (this.frozen) { g.fillStyle = colors.warn; g.textAlign = "left"; g.fillText("recentre held", 4, h - 8); }
  }
}

const COLUMNS = 240;

export class HeatMap {
  constructor(canvas) {
    this.canvas = canvas;
    this.columns = [];
    this.sampled = 0;
    this.drawn = 0;
  }

  clear() { this.columns = []; }

  sample(now) {
    const book = latest.book;
    if (!book || now - this.sampled < 250) return;
    this.sampled = now;
    this.columns.push({ bids: book.bids, asks: book.asks, mid: book.mid, last: book.last });
    if (this.columns.length > COLUMNS) this.columns.shift();
    this.stale = true;
  }

  draw() {
    if (!this.stale && this.canvas.clientHeight === this.height) return;
    this.stale = false;
    this.height = this.canvas.clientHeight;
    const [g, w, h] = fit(this.canvas);
    g.clearRect(0, 0, w, h);
    const columns = this.columns;
    const tick = latest.book?.tick_size;
    const now = columns[columns.length - 1];
    if (!now?.mid || !tick) return;
    const mids = columns.map((c) => c.mid).filter(Boolean);
    const reach = Math.max(12 * tick, Math.max(...mids) - now.mid, now.mid - Math.min(...mids)) + 4 * tick;
    const y = (p) => h / 2 - ((p - now.mid) / reach) * (h / 2);
    const height = Math.max(1, (tick / reach) * (h / 2));
    const width = w / COLUMNS;
    let most = 1;
    for (const c of columns) for (const [, q] of c.bids) if (q > most) most = q;
    columns.forEach((c, i) => {
      const x = w - (columns.length - i) * width;
      for (const [rows, color] of [[c.bids, colors.bid], [c.asks, colors.ask]]) {
        g.fillStyle = color;
        for (const [p, q] of rows) { g.globalAlpha = 0.08 + 0.72 * (q / most) ** 1.4; g.fillRect(x, y(p) - height / 2, width + 0.6, height + 0.4); }
      }
    });
    g.globalAlpha = 1;
    g.strokeStyle = colors.text;
    g.lineWidth = 1.2;
    g.beginPath();
    columns.forEach((c, i) => { if (c.mid) g.lineTo(w - (columns.length - i) * width, y(c.mid)); });
    g.stroke();
    g.fillStyle = colors.muted; g.font = "10px ui-monospace, monospace"; g.textBaseline = "top"; g.textAlign = "left";
    g.fillText("depth, last 60 s", 4, 3);
  }
}

// Regime ribbon of one symbol: colour says the regime, height the confidence, gaps mean warming.
export function ribbon(canvas, regimes, confidence, threshold) {
  const [g, w, h] = fit(canvas);
  g.clearRect(0, 0, w, h);
  const n = regimes.length;
  if (!n) return;
  const span = 900;
  for (let x = 0; x < w; x++) {
    const i = n - 1 - Math.floor(((w - 1 - x) / w) * span);
    if (i < 0 || regimes[i] === 255) continue;
    const c = confidence[i] ?? 0.5;
    const height = Math.max(2, h * Math.max(0, (c - 0.3) / 0.7));
    g.fillStyle = colors[`r${regimes[i] % 6}`];
    g.fillRect(x, h - height, 1, height);
  }
  const y = h - h * ((threshold - 0.3) / 0.7);
  g.fillStyle = colors.muted;
  g.globalAlpha = 0.7;
  for (let x = 0; x < w; x += 4) g.fillRect(x, Math.round(y), 2, 1);
  g.globalAlpha = 1;
}

export const regimeColor = (r) => colors[`r${r % 6}`];
