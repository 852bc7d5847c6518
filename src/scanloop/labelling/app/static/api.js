// Requests to our own server: JSON, with the session's token, and refusals as errors that say what kind they are.

export class Refusal extends Error {
  constructor(code, body, retryAfter) {
    super(body.message ?? "");
    this.code = code;
    this.kind = body.kind ?? "fault";
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.code === 429 || this.code >= 500;
  }
}

export class NoConnection extends Error {
  get isPassing() {
    return true;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    throw new NoConnection(String(error));
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(response.status, body, Number(response.headers.get("Retry-After") ?? 0));
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": document.body.dataset.csrf };
  const response = await ask(path, { method: "POST", headers, body: body === undefined ? null : JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function image(path) {
  return (await ask(path)).blob();
}

export const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
