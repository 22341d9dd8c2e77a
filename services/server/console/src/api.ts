/** Calls of the stack's API: who asks, what went wrong, and events as they come. */
import { signal } from "@preact/signals";

export type Json = any;

/** What the stack said of a request that failed. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

/** Whether the last request reached the stack. */
export const reachable = signal(true);

const kept = (name: string) => {
  const value = signal(sessionStorage.getItem(name) ?? "");
  value.subscribe((text) => (text ? sessionStorage.setItem(name, text) : sessionStorage.removeItem(name)));
  return value;
};

/** Sent as `authorization: Bearer …`; forgotten with the tab. */
export const apiKey = kept("llama-stack.key");
/** Sent as `x-llama-stack-tenant`. */
export const tenant = kept("llama-stack.tenant");

function headers(json: boolean): Record<string, string> {
  const all: Record<string, string> = { accept: "application/json, text/event-stream" };
  if (json) all["content-type"] = "application/json";
  if (apiKey.value) all.authorization = `Bearer ${apiKey.value}`;
  if (tenant.value) all["x-llama-stack-tenant"] = tenant.value;
  return all;
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const isForm = body instanceof FormData;
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers: headers(body !== undefined && !isForm),
      body: body === undefined ? undefined : isForm ? body : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    reachable.value = false;
    throw new ApiError("the stack does not answer", 0, "unreachable");
  }
  reachable.value = true;
  if (!answer.ok) throw await failure(answer);
  return answer;
}

async function failure(answer: Response): Promise<ApiError> {
  const text = await answer.text().catch(() => "");
  try {
    const { error } = JSON.parse(text);
    return new ApiError(error.message, answer.status, error.code, error.param);
  } catch {
    return new ApiError(text.slice(0, 400) || answer.statusText, answer.status);
  }
}

export const get = async (path: string, signal?: AbortSignal): Promise<Json> => (await send("GET", path, undefined, signal)).json();
export const text = async (path: string): Promise<string> => (await send("GET", path)).text();
export const post = async (path: string, body: unknown, signal?: AbortSignal): Promise<Json> =>
  (await send("POST", path, body, signal)).json();
export const remove = async (path: string): Promise<Json> => (await send("DELETE", path)).json();

/** Server-sent events of a POST, or of a GET where there is no body. Ends with the stream; `[DONE]` is not told. */
export async function* events(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<Json> {
  const answer = await send(body === undefined ? "GET" : "POST", path, body, signal);
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const data = block
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart())
          .join("\n");
        if (!data || data === "[DONE]") continue;
        const event = JSON.parse(data);
        if (event.error && !event.type) throw new ApiError(event.error.message, 200, event.error.code, event.error.param);
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) {
      reachable.value = false;
      throw new ApiError("the stack went away while it answered", 0, "unreachable");
    }
    throw error;
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** Every page of a list that goes on `after` its last id. */
export async function everything(path: string, most = 500): Promise<Json[]> {
  const all: Json[] = [];
  let after = "";
  while (all.length < most) {
    const page = await get(`${path}${path.includes("?") ? "&" : "?"}limit=100${after && `&after=${encodeURIComponent(after)}`}`);
    all.push(...page.data);
    if (!page.has_more || !page.last_id) break;
    after = page.last_id;
  }
  return all;
}
