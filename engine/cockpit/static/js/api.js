// Calls to the server. A POST is never retried by itself; every failure is one sentence.
export const TAB = randomHex(8);

export function randomHex(bytes) {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function read(response) {
  const text = await response.text();
  let data = {};
  try {
    data = text ? JSON.parse(text) : {};
  } catch {
    data = { detail: text.slice(0, 200) };
  }
  if (!response.ok) throw new Refused(response.status, data);
  return data;
}

export async function get(path) {
  return read(await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" }));
}

export async function post(path, body = {}, { key, keepalive } = {}) {
  const headers = { "Content-Type": "application/json", "X-L2Dash": "1" };
  if (key) headers["Idempotency-Key"] = key;
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), keepalive: !!keepalive, cache: "no-store" });
  } catch {
    throw new Refused(0, { detail: "the cockpit server does not answer; l2dash flatten and l2dash pause work without it" });
  }
  return read(response);
}

// One-time key in the hash: posted once, then gone from the address and the history.
export async function login() {
  const match = /^#k=([\w-]+)$/.exec(location.hash);
  if (match) {
    history.replaceState(null, "", location.pathname);
    await post("/api/login", { k: match[1] });
  }
  return get("/api/session");
}
