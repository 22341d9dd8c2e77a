/** A response as its events tell it, with the steps that the stack did for it. */
import { ApiError, type Json, get } from "./api";

export interface Turn {
  input: string;
  /** Data URLs of the pictures that came with it. */
  images?: string[];
  /** Decisions that the turn was begun with, where there were any. */
  decisions?: Json[];
  /** The request that it was begun with, from this page. */
  request?: Json;
  /** The response, where the turn was begun elsewhere or earlier. */
  response?: Json;
  id: string;
  status: string;
  items: Json[];
  usage: Json;
  error?: unknown;
  incomplete?: string;
  trace?: Json;
  /** Whether its events still come. */
  live: boolean;
  previous?: string;
}

export const begun = (input: string, more: Partial<Turn> = {}): Turn => ({
  input,
  id: "",
  status: "in_progress",
  items: [],
  usage: null,
  live: true,
  ...more,
});

/** Takes one event in. */
export function take(turn: Turn, event: Json) {
  const at = event.output_index;
  const part = () => {
    const item = (turn.items[at] ??= { type: "message", content: [] });
    item.content ??= [];
    return (item.content[event.content_index ?? 0] ??= { type: "output_text", text: "" });
  };
  switch (event.type) {
    case "response.output_item.added":
    case "response.output_item.done":
      turn.items[at] = event.item;
      break;
    case "response.content_part.added":
    case "response.content_part.done":
      part();
      turn.items[at].content[event.content_index] = event.part;
      break;
    case "response.output_text.delta":
    case "response.reasoning_text.delta":
      part().text = (part().text ?? "") + event.delta;
      break;
    case "response.refusal.delta":
      part().refusal = (part().refusal ?? "") + event.delta;
      break;
    case "response.output_text.annotation.added":
      (part().annotations ??= []).push(event.annotation);
      break;
    case "response.mcp_call_arguments.delta":
    case "response.function_call_arguments.delta":
      if (turn.items[at]) turn.items[at].arguments = (turn.items[at].arguments ?? "") + event.delta;
      break;
    case "error":
      turn.error = new ApiError(event.message, 200, event.code, event.param);
      break;
    default:
      if (event.response) whole(turn, event.response);
  }
}

/** Takes a response in as it stands. */
export function whole(turn: Turn, response: Json) {
  turn.id = response.id;
  turn.status = response.status;
  turn.previous = response.previous_response_id ?? turn.previous;
  if (response.output.length > 0 || response.status !== "in_progress") turn.items = response.output;
  turn.usage = response.usage ?? turn.usage;
  turn.incomplete = response.incomplete_details?.reason;
  if (response.error) turn.error = new ApiError(response.error.message, 200, response.error.code);
}

/** Whether it was begun with something that can be sent again: decisions cannot. */
export const asks = (turn: Turn) => Boolean(turn.input || turn.images?.length);

/** The calls that wait for a person. */
export const waiting = (turn: Turn): Json[] =>
  turn.live ? [] : turn.items.filter((item) => item?.type === "mcp_approval_request" && !item.decided);

export async function trace(turn: Turn) {
  if (turn.id) turn.trace = await get(`/v1/responses/${encodeURIComponent(turn.id)}/steps`).catch(() => turn.trace);
}

/** Asks for the steps now and then while events come. */
export function tracer(turn: Turn, show: () => void) {
  let asked = 0;
  let under = false;
  return async (event: Json) => {
    const tells = /added|done|completed|created/.test(event.type ?? "") && !/content_part|text/.test(event.type);
    if (!tells || under || performance.now() - asked < 150) return;
    [asked, under] = [performance.now(), true];
    await trace(turn);
    under = false;
    show();
  };
}
