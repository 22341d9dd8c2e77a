// Tools of your own. Listens on an address: npm start -- __ADDRESS__

import { fileURLToPath } from "node:url";
import { serve, unary } from "./contract.ts";

// What the tool does. Replace it, with its schema and its description below.
function __TOOL__(text: string): string {
  return `__NAME__ says: ${text}`;
}

const SCHEMA = {
  type: "object",
  properties: { text: { type: "string", description: "What to say" } },
  required: ["text"],
};
// Whether a crash may repeat a call, and what the tool may do, for policies: see tools.proto.
const TOOLS = [
  {
    definition: { name: "__TOOL__", description: "Says a text", parameters: JSON.stringify(SCHEMA) },
    on_interrupt: "ON_INTERRUPT_RETRY",
  },
];

interface Answer {
  parts: { text: string }[];
  is_error: boolean;
}

interface Call {
  name: string;
  arguments: string;
}

const answer = (text: string, is_error = false): Answer => ({ parts: [{ text }], is_error });

// What the model gets wrong is an answer to the model: it reads it, and does better.
export function invoke(call: Call): Answer {
  if (call.name !== "__TOOL__") return answer(`there is no tool "${call.name}"; there is: __TOOL__`, true);
  let given: unknown;
  try {
    given = JSON.parse(call.arguments || "{}");
  } catch (error) {
    return answer(`the arguments are no JSON: ${error}`, true);
  }
  const text = (given as { text?: unknown } | null)?.text;
  if (typeof text !== "string") return answer("the arguments must be an object with `text`, a string", true);
  return answer(__TOOL__(text));
}

const methods = {
  ListTools: unary(() => ({ tools: TOOLS })),
  InvokeTool: unary(invoke),
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await serve(process.argv[2] ?? "__ADDRESS__", methods);
  console.log(`listening on port ${port}`);
}
