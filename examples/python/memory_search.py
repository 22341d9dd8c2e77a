"""Banks over gRPC: a document goes in, a passage comes out. Start a stack with a memory first: llama-stack run starter"""

import os

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import memory_pb2, memory_pb2_grpc

address = os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321").removeprefix("http://")

with grpc.insecure_channel(address) as channel:
    memory = memory_pb2_grpc.MemoryStub(channel)
    bank = memory.CreateBank(memory_pb2.CreateBankRequest(name="notes", kind=memory_pb2.BANK_KIND_KEYWORD))
    notes = ["The garage opens at nine.", "Fish is served on Fridays."]
    documents = [memory_pb2.Document(text=note, media_type="text/plain") for note in notes]
    memory.InsertDocuments(memory_pb2.InsertDocumentsRequest(bank_id=bank.id, documents=documents))
    found = memory.Query(memory_pb2.QueryRequest(bank_ids=[bank.id], text="When does the garage open?"))
    print(f"{bank.provider_id}: {found.chunks[0].chunk.text}")
    memory.DeleteBank(memory_pb2.DeleteBankRequest(id=bank.id))
