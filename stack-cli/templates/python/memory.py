"""Banks of your own. Listens on an address: python provider.py __ADDRESS__

This one keeps vectors that callers bring, in memory: what to replace is the class Bank.
"""

import math
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import memory_pb2, memory_pb2_grpc


class Bank:
    def __init__(self, described):
        self.described = described
        self.chunks = {}

    def insert(self, chunk):
        self.chunks[chunk.id] = chunk

    def nearest(self, vector, count):
        def cosine(other):
            norms = math.hypot(*vector) * math.hypot(*other)
            return sum(a * b for a, b in zip(vector, other)) / norms if norms else 0.0

        scored = [(cosine(chunk.vector), chunk) for chunk in self.chunks.values()]
        return sorted(scored, key=lambda one: -one[0])[:count]


def tenant(context) -> str:
    """Whose call it is: nothing of one tenant's is ever shown to another."""
    return dict(context.invocation_metadata()).get("x-llama-stack-tenant", "default")


class Provider(memory_pb2_grpc.MemoryServicer):
    def __init__(self):
        self.banks, self.lock = {}, threading.Lock()

    def find(self, context, id):
        bank = self.banks.get((tenant(context), id))
        if bank is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no bank {id!r}")
        return bank

    def CreateBank(self, request, context):
        if request.kind not in (memory_pb2.BANK_KIND_UNSPECIFIED, memory_pb2.BANK_KIND_VECTOR) or not request.embedding_dimension:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "only banks of vectors that callers bring: embedding_dimension is needed")
        described = memory_pb2.Bank(
            id=f"bank_{uuid.uuid4().hex}",
            name=request.name,
            kind=memory_pb2.BANK_KIND_VECTOR,
            embedding_dimension=request.embedding_dimension,
            metadata=request.metadata,
            indexed_share=1.0,
        )
        described.created.GetCurrentTime()
        with self.lock:
            self.banks[tenant(context), described.id] = Bank(described)
        return described

    def GetBank(self, request, context):
        with self.lock:
            bank = self.find(context, request.id)
            bank.described.chunk_count = len(bank.chunks)
            return bank.described

    def ListBanks(self, request, context):
        with self.lock:
            own = [bank.described for (owner, _), bank in self.banks.items() if owner == tenant(context)]
        return memory_pb2.ListBanksResponse(banks=own)

    def DeleteBank(self, request, context):
        with self.lock:
            self.find(context, request.id)
            del self.banks[tenant(context), request.id]
        return memory_pb2.DeleteBankResponse()

    def InsertChunks(self, request, context):
        with self.lock:
            bank = self.find(context, request.bank_id)
            # All or none: what is wrong is found before anything is stored.
            for chunk in request.chunks:
                if len(chunk.vector) != bank.described.embedding_dimension:
                    wanted = bank.described.embedding_dimension
                    context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT, f"chunk {chunk.id!r} has {len(chunk.vector)} numbers; this bank has {wanted}"
                    )
            for chunk in request.chunks:
                bank.insert(chunk)
        return memory_pb2.InsertChunksResponse()

    def Query(self, request, context):
        if not request.bank_ids:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bank_ids is empty; at least one is needed")
        found = []
        with self.lock:
            for id in request.bank_ids:
                bank = self.find(context, id)
                if len(request.vector) != bank.described.embedding_dimension:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "vector must have the bank's dimension")
                found += [(score, chunk, id) for score, chunk in bank.nearest(request.vector, request.top_k or 10)]
        found.sort(key=lambda one: -one[0])
        scored = [memory_pb2.ScoredChunk(chunk=chunk, bank_id=id, score=score) for score, chunk, id in found]
        return memory_pb2.QueryResponse(chunks=scored[: request.top_k or 10])


def serve(address: str):
    # A stack sends messages of up to 64 MiB; gRPC's own 4 would refuse long conversations and many documents.
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.max_receive_message_length", 64 << 20)])
    memory_pb2_grpc.add_MemoryServicer_to_server(Provider(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = serve(sys.argv[1] if len(sys.argv) > 1 else "__ADDRESS__")
    print(f"listening on port {port}", flush=True)
    server.wait_for_termination()
