// Tools of your own. Listens on an address: npm start -- __ADDRESS__

import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

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

const definition = loader.loadSync("llama_stack/v1/tools.proto", {
  includeDirs: [fileURLToPath(new URL("proto", import.meta.url))],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const contract = grpc.loadPackageDefinition(definition) as any;
export const Tools = contract.llama_stack.v1.Tools;

export function serve(address: string): Promise<{ server: grpc.Server; port: number }> {
  const server = new grpc.Server();
  server.addService(Tools.service, {
    ListTools: (_: unknown, done: grpc.sendUnaryData<unknown>) => done(null, { tools: TOOLS }),
    InvokeTool: (call: grpc.ServerUnaryCall<Call, Answer>, done: grpc.sendUnaryData<Answer>) => done(null, invoke(call.request)),
  });
  return new Promise((resolve, reject) =>
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => (error ? reject(error) : resolve({ server, port }))),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await serve(process.argv[2] ?? "__ADDRESS__");
  console.log(`listening on port ${port}`);
}
