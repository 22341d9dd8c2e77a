// A tool of your own over gRPC. Listens on a port; name it in the manifest:
//
// tools:
//   - { id: weather, type: remote::grpc, config: { url: "http://127.0.0.1:9000" } }
import { fileURLToPath } from "node:url";
import { Server, ServerCredentials, loadPackageDefinition, status } from "@grpc/grpc-js";
import type { GrpcObject, ServiceClientConstructor, sendUnaryData, ServerUnaryCall } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const proto = fileURLToPath(new URL("../../proto", import.meta.url));
const loaded = loadPackageDefinition(loadSync("llama_stack/v1/tools.proto", { includeDirs: [proto], keepCase: true }));
const { Tools } = (loaded.llama_stack as GrpcObject).v1 as Record<string, ServiceClientConstructor>;

const definition = {
  name: "weather",
  description: "The weather in a city, now",
  parameters: JSON.stringify({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
};

const server = new Server();
server.addService(Tools.service, {
  ListTools: (_: unknown, answer: sendUnaryData<object>) => answer(null, { tools: [{ definition }] }),
  InvokeTool: (call: ServerUnaryCall<{ name: string; arguments: string }, object>, answer: sendUnaryData<object>) => {
    if (call.request.name !== definition.name) return answer({ code: status.NOT_FOUND, message: `no tool ${call.request.name}` });
    let city: unknown;
    try {
      city = (JSON.parse(call.request.arguments) as { city?: unknown } | null)?.city;
    } catch {
      // Told below.
    }
    // The model reads it, and does better.
    if (typeof city !== "string") return answer(null, { parts: [{ text: 'the arguments are {"city": "..."}' }], is_error: true });
    answer(null, { parts: [{ text: `21 degrees and sunny in ${city}` }] });
  },
});
server.bindAsync(process.argv[2] ?? "127.0.0.1:9000", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on port ${port}`);
});
