// The contract as `proto/` has it, and a server of its service __SERVICE__.

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

const definition = loader.loadSync("llama_stack/v1/__API__.proto", {
  includeDirs: [fileURLToPath(new URL("proto", import.meta.url))],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const contract = grpc.loadPackageDefinition(definition) as any;
export const __SERVICE__ = contract.llama_stack.v1.__SERVICE__;

// Thrown where a call cannot be answered: what the caller is told, with its code.
export class Refusal extends Error {
  code: grpc.status;

  constructor(code: grpc.status, message: string) {
    super(message);
    this.code = code;
  }
}

// Whose call it is: nothing of one tenant's is ever shown to another.
export const tenant = (metadata: grpc.Metadata): string => String(metadata.get("x-llama-stack-tenant")[0] ?? "default");

// A method that answers once.
export function unary(answer: (request: any, tenant: string) => unknown) {
  return async (call: grpc.ServerUnaryCall<any, any>, done: grpc.sendUnaryData<any>) => {
    try {
      done(null, await answer(call.request, tenant(call.metadata)));
    } catch (error) {
      done(error as Refusal);
    }
  };
}

// A method that answers event by event. It is asked for no more once its caller has gone.
export function stream(events: (request: any, tenant: string) => AsyncIterable<unknown> | Iterable<unknown>) {
  return async (call: grpc.ServerWritableStream<any, any>) => {
    try {
      for await (const event of events(call.request, tenant(call.metadata))) {
        if (call.cancelled) return;
        if (!call.write(event)) await Promise.race([once(call, "drain"), once(call, "cancelled")]);
      }
      call.end();
    } catch (error) {
      call.emit("error", error);
    }
  };
}

export function serve(address: string, methods: grpc.UntypedServiceImplementation): Promise<{ server: grpc.Server; port: number }> {
  // A stack sends messages of up to 64 MiB; gRPC's own 4 would refuse long conversations and many documents.
  const server = new grpc.Server({ "grpc.max_receive_message_length": 64 << 20 });
  server.addService(__SERVICE__.service, methods);
  return new Promise((resolve, reject) =>
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => (error ? reject(error) : resolve({ server, port }))),
  );
}
