// What an operator does, with one lock per action so that a double click is one request.
import { TAB, post } from "./api.js";
import { s, toast } from "./store.js";
import { signal } from "../vendor/signals.js";

const busy = new Set();
export const inFlight = signal(0);

export async function once(name, action) {
  if (busy.has(name)) return null;
  busy.add(name);
  inFlight.value++;
  try {
    return await action();
  } catch (error) {
    toast(error.message, "bad");
    return null;
  } finally {
    busy.delete(name);
    inFlight.value--;
  }
}

export const pause = (reason) => once("pause", () => post("/api/exec/pause", { reason }));
export const resume = () => once("resume", async () => {
  const r = await post("/api/exec/resume", { reason: "resume from the cockpit" });
  toast(`resume: ${r.state}`, "good");
  return r;
});
export const reconnect = () => once("reconnect", async () => {
  await post("/api/exec/reconnect", { reason: "reconnect from the cockpit" });
  toast("reconnect asked for", "good");
});
export const cancelAll = () => once("cancel-all", async () => {
  await post("/api/exec/cancel", { all: true, reason: "cancel all from the cockpit" });
  toast("cancel of all orders asked for", "good");
});
export const cancel = (order_id) => once(`cancel-${order_id}`, async () => {
  const r = await post("/api/exec/cancel", { order_id });
  toast(`order ${r.state}`, "good");
});
export const acknowledge = () => once("ack", async () => {
  await post("/api/alerts/acknowledge", { reason: "acknowledged in the cockpit" });
  toast("alerts acknowledged", "good");
});
export const arm = () => once("arm", async () => {
  s.lease.value = await post("/api/exec/arm", { tab: TAB, mode: s.fixed.value.mode });
  toast(`armed in ${s.fixed.value.mode}`, "good");
});
export const disarm = () => once("arm", async () => {
  s.lease.value = null;
  await post("/api/exec/disarm", { tab: TAB });
});
export const flattenNow = (reason) => post("/api/exec/flatten-all", { reason });
