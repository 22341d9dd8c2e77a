// A model of your own. Listens on an address: npm start -- __ADDRESS__

import { fileURLToPath } from "node:url";
import { status } from "@grpc/grpc-js";
import { Refusal, serve, stream, unary } from "./contract.ts";

const MODEL = { id: "__NAME__", kind: "MODEL_KIND_CHAT", context_length: 4096 };

interface Message {
  parts: { text?: string }[];
}

interface ChatRequest {
  model: string;
  messages: Message[];
  sampling?: { max_tokens?: number } | null;
}

interface Event {
  text?: string;
  finish?: string;
  usage?: { prompt_tokens: number; completion_tokens: number };
}

const read = (message: Message) => message.parts.map((part) => part.text ?? "").join("");

// The model: yields its answer piece by piece. Replace it; this one says again what it was told.
async function* generate(messages: Message[]): AsyncGenerator<string> {
  for (const word of `You said: ${read(messages[messages.length - 1])}`.split(" ")) yield `${word} `;
}

function find(id: string) {
  if (id !== MODEL.id) throw new Refusal(status.NOT_FOUND, `no model "${id}"; there is: ${MODEL.id}`);
  return MODEL;
}

// In this order: the deltas, one finish for each choice, one usage.
export async function* events(request: ChatRequest): AsyncGenerator<Event> {
  find(request.model);
  if (request.messages.length === 0) throw new Refusal(status.INVALID_ARGUMENT, "messages is empty; at least one is needed");
  const limit = request.sampling?.max_tokens ?? 1_000;
  let written = 0;
  let finish = "FINISH_REASON_STOP";
  for await (const text of generate(request.messages)) {
    if (written === limit) {
      finish = "FINISH_REASON_LENGTH";
      break;
    }
    written += 1;
    yield { text };
  }
  yield { finish };
  const prompt_tokens = request.messages.flatMap((message) => read(message).split(/\s+/).filter(Boolean)).length;
  yield { usage: { prompt_tokens, completion_tokens: written } };
}

export async function chat(request: ChatRequest) {
  let [text, finish_reason, usage] = ["", "", undefined as Event["usage"]];
  for await (const event of events(request)) {
    text += event.text ?? "";
    finish_reason = event.finish ?? finish_reason;
    usage = event.usage ?? usage;
  }
  return { model: request.model, choices: [{ message: { role: "ROLE_ASSISTANT", parts: [{ text }] }, finish_reason }], usage };
}

const methods = {
  ListModels: unary(({ kind }) => ({ models: ["MODEL_KIND_UNSPECIFIED", MODEL.kind].includes(kind) ? [MODEL] : [] })),
  GetModel: unary(({ id }) => find(id)),
  StreamChat: stream(events),
  Chat: unary(chat),
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await serve(process.argv[2] ?? "__ADDRESS__", methods);
  console.log(`listening on port ${port}`);
}
