/** What views share: where we are, what the stack has, how the page looks. */
import { type Signal, effect, signal } from "@preact/signals";
import { ApiError, type Json, apiKey, get, reachable, tenant } from "./api";

/** The view: the part of the address after `#/`, or `docs` by its path. */
export const route = signal(read());

function read(): string[] {
  if (location.pathname === "/docs") return ["docs", ...location.hash.replace(/^#\/?/, "").split("/").filter(Boolean)];
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  return parts.length > 0 ? parts.map(decodeURIComponent) : ["chat"];
}
addEventListener("hashchange", () => (route.value = read()));
addEventListener("popstate", () => (route.value = read()));

export function go(...parts: string[]) {
  const target = parts[0] === "docs" ? "/docs" : `/#/${parts.map(encodeURIComponent).join("/")}`;
  history.pushState(null, "", target);
  route.value = read();
}

/** `""`: as the system says. */
export const theme = signal(localStorage.getItem("llama-stack.theme") ?? "");
effect(() => {
  if (theme.value) {
    document.documentElement.dataset.theme = theme.value;
    localStorage.setItem("llama-stack.theme", theme.value);
  } else {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("llama-stack.theme");
  }
});

/**
 * The last entry of a list, which goes on changing. It is shown at most once a frame, since who waits for the page would else
 * wait for each word of an answer, and no more once it is not in the list.
 */
export function growing<T extends object>(list: Signal<T[]>, before: T[], entry: T) {
  let shown: T | undefined;
  let due = 0;
  const now = () => {
    cancelAnimationFrame(due);
    due = 0;
    const next = { ...entry };
    if (!shown) list.value = [...before, next];
    else if (list.value.includes(shown)) list.value = list.value.map((one) => (one === shown ? next : one));
    else return;
    shown = next;
  };
  return { now, soon: () => void (due ||= requestAnimationFrame(now)) };
}

export const models = signal<Json[]>([]);
export const shields = signal<Json[]>([]);
export const tools = signal<Json[]>([]);
export const agents = signal<Json[]>([]);
export const stores = signal<Json[]>([]);
/** Why the lists could not be had, where the stack answered. */
export const listError = signal<ApiError | null>(null);
export const loaded = signal(false);

export const chatModels = () => models.value.filter((model) => !model.kind || model.kind === "chat");

export function clearLists() {
  for (const list of [models, shields, tools, agents, stores]) list.value = [];
  loaded.value = false;
}

/** Asks for everything that there is to choose from. A service that the stack does not have leaves its list empty. */
export async function refresh() {
  const whose = [apiKey.value, tenant.value];
  const isTheirs = () => apiKey.value === whose[0] && tenant.value === whose[1];
  const list = async (path: string, into: typeof models) => {
    const { data } = await get(path);
    if (isTheirs()) into.value = data;
  };
  const results = await Promise.allSettled([
    list("/v1/models", models),
    list("/v1/shields", shields),
    list("/v1/tools", tools),
    list("/v1/agents", agents),
    list("/v1/vector_stores?limit=100", stores),
  ]);
  // Another caller's are on their way.
  if (!isTheirs()) return;
  const first = results[0];
  listError.value = first.status === "rejected" && reachable.value ? (first.reason as ApiError) : null;
  loaded.value = true;
}

/** Looks again every few seconds while the stack does not answer, less often while it does. */
export function watch() {
  const again = async () => {
    const was = reachable.value;
    await get("/readyz").catch(() => undefined);
    if (!was && reachable.value) await refresh();
    setTimeout(again, reachable.value ? 10_000 : 2_000);
  };
  setTimeout(again, 5_000);
  let first = true;
  effect(() => {
    void apiKey.value, tenant.value;
    if (!first) void refresh();
    first = false;
  });
}
