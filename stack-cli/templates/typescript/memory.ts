// Banks of your own. Listens on an address: npm start -- __ADDRESS__
//
// This one keeps vectors that callers bring, in memory: what to replace is the class Bank.

import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { status } from "@grpc/grpc-js";
import { Refusal, serve, unary } from "./contract.ts";

interface Chunk {
  id: string;
  vector: number[];
}

function cosine(a: number[], b: number[]): number {
  const norms = Math.hypot(...a) * Math.hypot(...b);
  return norms ? a.reduce((sum, x, at) => sum + x * b[at], 0) / norms : 0;
}

class Bank {
  described;
  chunks = new Map<string, Chunk>();

  constructor(request: any) {
    this.described = {
      id: `bank_${randomUUID()}`,
      name: request.name,
      kind: "BANK_KIND_VECTOR",
      embedding_dimension: request.embedding_dimension as number,
      metadata: request.metadata,
      created: { seconds: Math.floor(Date.now() / 1_000), nanos: 0 },
      indexed_share: 1,
      chunk_count: 0,
    };
  }

  insert(chunk: Chunk) {
    this.chunks.set(chunk.id, chunk);
    this.described.chunk_count = this.chunks.size;
  }

  scored(vector: number[]) {
    return [...this.chunks.values()].map((chunk) => ({ chunk, bank_id: this.described.id, score: cosine(vector, chunk.vector) }));
  }
}

export class Banks {
  kept = new Map<string, Map<string, Bank>>();

  // Those of one tenant.
  of(tenant: string): Map<string, Bank> {
    const own = this.kept.get(tenant) ?? new Map<string, Bank>();
    this.kept.set(tenant, own);
    return own;
  }

  find(id: string, tenant: string): Bank {
    const bank = this.of(tenant).get(id);
    if (!bank) throw new Refusal(status.NOT_FOUND, `no bank "${id}"`);
    return bank;
  }

  create(request: any, tenant: string) {
    if (!["BANK_KIND_UNSPECIFIED", "BANK_KIND_VECTOR"].includes(request.kind) || !request.embedding_dimension) {
      throw new Refusal(status.INVALID_ARGUMENT, "only banks of vectors that callers bring: embedding_dimension is needed");
    }
    const bank = new Bank(request);
    this.of(tenant).set(bank.described.id, bank);
    return bank.described;
  }

  insert(request: { bank_id: string; chunks: Chunk[] }, tenant: string) {
    const bank = this.find(request.bank_id, tenant);
    const wanted = bank.described.embedding_dimension;
    // All or none: what is wrong is found before anything is stored.
    for (const { id, vector } of request.chunks) {
      if (vector.length === wanted) continue;
      throw new Refusal(status.INVALID_ARGUMENT, `chunk "${id}" has ${vector.length} numbers; this bank has ${wanted}`);
    }
    for (const chunk of request.chunks) bank.insert(chunk);
    return {};
  }

  query(request: { bank_ids: string[]; vector: number[]; top_k?: number }, tenant: string) {
    if (request.bank_ids.length === 0) throw new Refusal(status.INVALID_ARGUMENT, "bank_ids is empty; at least one is needed");
    const found = request.bank_ids.flatMap((id) => {
      const bank = this.find(id, tenant);
      if (request.vector.length !== bank.described.embedding_dimension) {
        throw new Refusal(status.INVALID_ARGUMENT, "vector must have the bank's dimension");
      }
      return bank.scored(request.vector);
    });
    return { chunks: found.sort((a, b) => b.score - a.score).slice(0, request.top_k || 10) };
  }

  delete(id: string, tenant: string) {
    this.find(id, tenant);
    this.of(tenant).delete(id);
    return {};
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const banks = new Banks();
  const methods = {
    CreateBank: unary((request, tenant) => banks.create(request, tenant)),
    GetBank: unary(({ id }, tenant) => banks.find(id, tenant).described),
    ListBanks: unary((_, tenant) => ({ banks: [...banks.of(tenant).values()].map((bank) => bank.described) })),
    DeleteBank: unary(({ id }, tenant) => banks.delete(id, tenant)),
    InsertChunks: unary((request, tenant) => banks.insert(request, tenant)),
    Query: unary((request, tenant) => banks.query(request, tenant)),
  };
  const { port } = await serve(process.argv[2] ?? "__ADDRESS__", methods);
  console.log(`listening on port ${port}`);
}
