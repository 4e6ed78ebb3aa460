// The event stream: one EventSource per page; the browser resumes it by Last-Event-ID, we only reopen what it gave up.
import { TAB, get, post } from "./api.js";
import { alert, audit, fill, latest, order, s, snapshot, state, take } from "./store.js";

let source = null;
let wait = 250;

export function open() {
  const symbol = s.focus.value ? `&symbol=${encodeURIComponent(s.focus.value)}` : "";
  source = new EventSource(`/api/stream?tab=${TAB}${symbol}`);
  const on = (name, handler) =>
    source.addEventListener(name, (event) => {
      latest.heard = performance.now();
      handler(JSON.parse(event.data));
    });
  on("snapshot", (data) => {
    wait = 250;
    snapshot(data);
    s.stream.value = { ...s.stream.value, open: true, age: 0 };
  });
  on("state", state);
  on("book", (book) => {
    take_book(book);
  });
  on("order", order);
  on("fill", fill);
  on("alert", alert);
  on("audit", audit);
  on("guardrail", () => {});
  on("resync", () => {});
  on("disarm", (data) => {
    s.lease.value = null;
    document.dispatchEvent(new CustomEvent("l2-disarmed", { detail: data.reason }));
  });
  on("heartbeat", async (beat) => {
    try {
      const { rtt_ms } = await post("/api/stream/ack", { tab: TAB, nonce: beat.nonce });
      s.stream.value = { ...s.stream.value, rtt: rtt_ms };
    } catch { /* the age of the stream says it */ }
  });
  source.onopen = () => { latest.heard = performance.now(); };
  source.onerror = () => {
    s.stream.value = { ...s.stream.value, open: false };
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(reopen, wait);
    wait = Math.min(5000, wait * 2);
  };
}

async function reopen() {
  try {
    await get("/api/session");
  } catch (error) {
    if (error.status === 401) return location.reload();
  }
  open();
}

function take_book(book) {
  if (book.symbol !== s.focus.value) return;
  latest.book = book;
  latest.bookAt = performance.now();
  latest.dirty = true;
  latest.onBook?.(book);
}

export function focus(symbol) {
  if (s.focus.value === symbol) return;
  s.focus.value = symbol;
  latest.book = null;
  latest.onBook?.(null);
  latest.dirty = true;
  post("/api/stream/focus", { tab: TAB, symbol }).catch(() => {});
}

// A page that leaves says so: its arm lease ends and its stream's end is not taken for a loss.
addEventListener("pagehide", () => {
  post("/api/stream/leave", { tab: TAB }, { keepalive: true }).catch(() => {});
  source?.close();
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden && s.lease.value) {
    s.lease.value = null;
    post("/api/exec/disarm", { tab: TAB }, { keepalive: true }).catch(() => {});
  }
});

export { take };
