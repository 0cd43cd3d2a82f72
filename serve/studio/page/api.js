// Requests to the server, and what its errors become.

const ROOT = "/studio/api";

// A refusal of the server, in its words.
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isAbort = (error) => error?.name === "AbortError";

let token = takeToken();

// The token stands behind the # of the first address, which no server sees, and leaves the address bar at once.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname);
    sessionStorage.setItem("atrous-token", given);
  }
  return given ?? sessionStorage.getItem("atrous-token");
}

export function setToken(value) {
  token = value;
  sessionStorage.setItem("atrous-token", value);
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(ROOT + path, { ...options, headers });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Refusal(0, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    message = sentence((await response.json()).error);
  } catch {
    // no JSON: a proxy's answer
  }
  throw new Refusal(response.status, message);
}

// The server's messages begin small, as those of a library do.
function sentence(text) {
  const whole = /[.!?]$/.test(text) ? text : `${text}.`;
  return whole[0].toUpperCase() + whole.slice(1);
}

export const getConfig = async () => (await request("/config")).json();

export async function sendImage(blob) {
  const response = await request("/images", { method: "POST", body: blob });
  return response.json();
}

export async function getPicture(id) {
  const response = await request(`/images/${id}/picture`);
  return createImageBitmap(await response.blob());
}

// The PNG of what `query` asks for, its step between pixels, and the server's time by stage in milliseconds.
export async function getMap(id, kind, query, signal) {
  const start = performance.now();
  const response = await request(`/images/${id}/${kind}?${new URLSearchParams(query)}`, { signal });
  const blob = await response.blob();
  return {
    blob,
    step: Number(response.headers.get("X-Atrous-Step")),
    stages: parseTiming(response.headers.get("Server-Timing") ?? ""),
    elapsed: performance.now() - start,
  };
}

export async function writeCrf(parameters) {
  const headers = { "Content-Type": "application/json" };
  const response = await request("/crf", { method: "PUT", headers, body: JSON.stringify(parameters) });
  return response.json();
}

function parseTiming(text) {
  const stages = {};
  for (const [, name, duration] of text.matchAll(/([\w-]+);dur=([\d.]+)/g)) stages[name] = Number(duration);
  return stages;
}
