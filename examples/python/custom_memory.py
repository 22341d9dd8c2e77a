"""A memory of your own: banks that are searched by shared words. Listens on a port; name it in the manifest:

memory:
  - { id: words, type: remote::grpc, config: { url: "http://127.0.0.1:9010" } }
"""

import re
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import memory_pb2, memory_pb2_grpc


def words(text):
    return set(re.findall(r"\w+", text.lower()))


class Words(memory_pb2_grpc.MemoryServicer):
    def __init__(self):
        self.banks = {}  # (tenant, id) -> (bank, documents by id)

    def find(self, bank_id, context):
        """What a caller may see is the provider's to decide: here, the banks of the caller's tenant."""
        found = self.banks.get((tenant(context), bank_id))
        return found or context.abort(grpc.StatusCode.NOT_FOUND, f"no bank {bank_id!r}")

    def CreateBank(self, request, context):
        bank = memory_pb2.Bank(id=f"bank_{uuid.uuid4().hex}", name=request.name, kind=memory_pb2.BANK_KIND_KEYWORD)
        bank.created.GetCurrentTime()
        self.banks[tenant(context), bank.id] = (bank, {})
        return bank

    def GetBank(self, request, context):
        bank, documents = self.find(request.id, context)
        bank.document_count = bank.chunk_count = len(documents)
        return bank

    def ListBanks(self, request, context):
        mine = [bank for (owner, _), (bank, _) in list(self.banks.items()) if owner == tenant(context)]
        return memory_pb2.ListBanksResponse(banks=mine)

    def DeleteBank(self, request, context):
        self.find(request.id, context)
        del self.banks[tenant(context), request.id]
        return memory_pb2.DeleteBankResponse()

    def InsertDocuments(self, request, context):
        _, documents = self.find(request.bank_id, context)
        for document in request.documents:
            document.id = document.id or uuid.uuid4().hex
            documents[document.id] = document
        return memory_pb2.InsertDocumentsResponse(document_ids=[document.id for document in request.documents])

    def DeleteDocuments(self, request, context):
        _, documents = self.find(request.bank_id, context)
        there = [documents[id] for id in request.document_ids if id in documents]
        # Where a file is named, what is of something else by now stays.
        gone = [document.id for document in there if request.file_id in ("", document.file_id)]
        for id in gone:
            del documents[id]
        return memory_pb2.DeleteDocumentsResponse(deleted=len(gone))

    def Query(self, request, context):
        if not request.bank_ids:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bank_ids is empty: name a bank")
        asked, found = words(request.text), []
        for bank_id in request.bank_ids:
            _, documents = self.find(bank_id, context)
            for document in documents.values():
                chunk = memory_pb2.Chunk(id=document.id, document_id=document.id, text=document.text, title=document.title)
                score = len(asked & words(document.text)) / max(len(asked), 1)
                found.append(memory_pb2.ScoredChunk(chunk=chunk, bank_id=bank_id, score=score))
        found.sort(key=lambda result: -result.score)
        return memory_pb2.QueryResponse(chunks=[result for result in found if result.score][: request.top_k or 10])


def tenant(context):
    return dict(context.invocation_metadata()).get("x-llama-stack-tenant", "default")


server = grpc.server(ThreadPoolExecutor(), options=[("grpc.max_receive_message_length", 64 << 20)])
memory_pb2_grpc.add_MemoryServicer_to_server(Words(), server)
port = server.add_insecure_port(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9010")
server.start()
print(f"listening on port {port}", flush=True)
server.wait_for_termination()
