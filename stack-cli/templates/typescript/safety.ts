// A shield of your own. Listens on an address: npm start -- __ADDRESS__

import { fileURLToPath } from "node:url";
import { status } from "@grpc/grpc-js";
import { Refusal, serve, unary } from "./contract.ts";

const SHIELD = {
  id: "__NAME__",
  stages: ["SHIELD_STAGE_INPUT", "SHIELD_STAGE_OUTPUT"],
  categories: [{ code: "WORD", name: "A word that is not wanted" }],
  description: "Refuses texts with words that are not wanted",
};
const WORDS = ["swordfish"];

// The judgement. Replace it; this one looks for words.
function unwanted(text: string): boolean {
  return WORDS.some((word) => text.toLowerCase().includes(word));
}

function find(id: string) {
  if (id !== SHIELD.id) throw new Refusal(status.NOT_FOUND, `no shield "${id}"; there is: ${SHIELD.id}`);
  return SHIELD;
}

interface Judged {
  shield_id: string;
  messages: { parts: { text?: string }[] }[];
}

export function judge(request: Judged) {
  find(request.shield_id);
  // The last message is judged; those before it are there to understand it.
  const message = request.messages.at(-1);
  if (!message) throw new Refusal(status.INVALID_ARGUMENT, "messages is empty; at least one is needed");
  const found = unwanted(message.parts.map((part) => part.text ?? "").join("\n"));
  const violation = { level: "LEVEL_ERROR", user_message: "I can't help with that.", categories: ["WORD"], reason: "unsafe" };
  return { scores: [{ code: "WORD", score: found ? 1 : 0, violated: found }], violation: found ? violation : undefined };
}

const methods = {
  ListShields: unary(() => ({ shields: [SHIELD] })),
  GetShield: unary(({ id }) => find(id)),
  RunShield: unary(judge),
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await serve(process.argv[2] ?? "__ADDRESS__", methods);
  console.log(`listening on port ${port}`);
}
