// P&L and drawdown against its limit (uPlot).
import uPlot from "../vendor/uplot.js";
import { signedUsd, usd } from "./format.js";
import { latest, s } from "./store.js";
import { Panel, html, useEffect, useRef } from "./ui.js";

let plot = null;
let data = [[], [], [], []];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function load() {
  const e = latest.history?.equity;
  data = e ? [[...e.t], [...e.day_pnl_usd], e.drawdown_usd.map((v) => (v === null ? null : -v)), e.t.map(() => null)] : [[], [], [], []];
}

// The past of the day comes after the page: until then the chart holds what it has seen itself.
export function pastOfTheDay() {
  load();
  plot?.setData(data);
}

export function feedChart() {
  const a = latest.account, c = latest.clock;
  if (!a || !c || !plot) return;
  const t = Math.round(c.server_ms / 1000);
  if (t <= (data[0][data[0].length - 1] ?? 0)) return;
  data[0].push(t); data[1].push(a.day_pnl_usd); data[2].push(a.drawdown_usd === null ? null : -a.drawdown_usd); data[3].push(null);
  if (data[0].length > 6000) data.forEach((column) => column.splice(0, 1000));
  const limit = a.drawdown_limit_usd;
  data[3] = data[0].map(() => -limit);
  plot.setData(data);
}

export const PnlChart = ({ title = "P&L and drawdown" }) => {
  const ref = useRef(null);
  useEffect(() => {
    load();
    const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const size = () => ({ width: ref.current.clientWidth, height: ref.current.clientHeight });
    plot = new uPlot({
      ...size(), cursor: { y: false }, legend: { show: false }, padding: [8, 8, 0, 0],
      scales: { y: { range: (u, min, max) => { const pad = Math.max(50, (max - min) * 0.15); return [Math.min(min - pad, -100), Math.max(max + pad, 100)]; } } },
      axes: [{ ...axis, size: 26, space: 90, values: (u, ts) => ts.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: ts.length > 1 && ts[1] - ts[0] < 60 ? "2-digit" : undefined })) }, { ...axis, size: 58, values: (u, vs) => vs.map((v) => usd(v)) }],
      series: [{}, { label: "Day P&L", stroke: css("--accent"), width: 1.6, points: { show: false }, fill: css("--accent-soft") }, { label: "Drawdown", stroke: css("--warn"), width: 1.2, dash: [5, 4], points: { show: false } }, { label: "Limit", stroke: css("--bad"), width: 1.2, dash: [2, 3], auto: false, points: { show: false } }],
    }, data, ref.current);
    plot.setData(data);
    const observer = new ResizeObserver(() => plot.setSize(size()));
    observer.observe(ref.current);
    return () => { observer.disconnect(); plot.destroy(); plot = null; };
  }, []);
  const a = s.account.value ?? {};
  return html`<${Panel} title=${title} className="pnl" extra=${html`<span class="key k-pnl">P&L ${signedUsd(a.day_pnl_usd)}</span><span class="key k-dd">drawdown ${usd(a.drawdown_usd)} of ${usd(a.drawdown_limit_usd)}</span>`}>
    <div class="chart" ref=${ref} role="img" aria-label=${`Day P and L ${signedUsd(a.day_pnl_usd)}, drawdown ${usd(a.drawdown_usd)} of ${usd(a.drawdown_limit_usd)}`}></div></${Panel}>`;
};
