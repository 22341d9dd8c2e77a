import unittest

import grpc

import provider
from llama_stack.v1 import common_pb2, inference_pb2, inference_pb2_grpc


class InferenceTest(unittest.TestCase):
    def setUp(self):
        self.server, port = provider.serve("127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)

    def tearDown(self):
        self.channel.close()
        self.server.stop(None)

    def ask(self, model="__NAME__", text="hello"):
        user = common_pb2.Message(role=common_pb2.ROLE_USER, parts=[common_pb2.Part(text=text)])
        return inference_pb2.ChatRequest(model=model, messages=[user])

    def test_an_answer_ends_with_a_finish_and_a_usage(self):
        events = [event.WhichOneof("event") for event in self.inference.StreamChat(self.ask())]
        self.assertEqual(events[-2:], ["finish", "usage"])
        self.assertEqual(set(events[:-2]), {"text"})
        self.assertIn("hello", self.inference.Chat(self.ask()).choices[0].message.parts[0].text)

    def test_a_model_that_is_not_there_is_not_found(self):
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.inference.StreamChat(self.ask(model="nobody")))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
