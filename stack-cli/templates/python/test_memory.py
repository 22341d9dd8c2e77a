import unittest

import grpc

import provider
from llama_stack.v1 import memory_pb2, memory_pb2_grpc


class MemoryTest(unittest.TestCase):
    def setUp(self):
        self.server, port = provider.serve("127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.memory = memory_pb2_grpc.MemoryStub(self.channel)
        self.bank = self.memory.CreateBank(memory_pb2.CreateBankRequest(name="t", embedding_dimension=2)).id

    def tearDown(self):
        self.channel.close()
        self.server.stop(None)

    def test_the_nearest_is_found_first(self):
        chunks = [memory_pb2.Chunk(id="a", text="east", vector=[1, 0]), memory_pb2.Chunk(id="b", text="north", vector=[0, 1])]
        self.memory.InsertChunks(memory_pb2.InsertChunksRequest(bank_id=self.bank, chunks=chunks))
        found = self.memory.Query(memory_pb2.QueryRequest(bank_ids=[self.bank], vector=[0.1, 0.9]))
        self.assertEqual([one.chunk.id for one in found.chunks], ["b", "a"])

    def test_another_tenant_does_not_see_the_bank(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.memory.GetBank(memory_pb2.GetBankRequest(id=self.bank), metadata=[("x-llama-stack-tenant", "another")])
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
