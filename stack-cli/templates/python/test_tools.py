import unittest

import grpc

import provider
from llama_stack.v1 import tools_pb2, tools_pb2_grpc


class ToolsTest(unittest.TestCase):
    def setUp(self):
        self.server, port = provider.serve("127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.tools = tools_pb2_grpc.ToolsStub(self.channel)

    def tearDown(self):
        self.channel.close()
        self.server.stop(None)

    def test_a_right_call_is_answered(self):
        said = self.tools.InvokeTool(tools_pb2.InvokeToolRequest(name="__TOOL__", arguments='{"text": "hello"}'))
        self.assertFalse(said.is_error)
        self.assertIn("hello", said.parts[0].text)

    def test_wrong_arguments_are_told_to_the_model(self):
        for arguments in ["{", "[]", "{}", '{"text": 1}']:
            said = self.tools.InvokeTool(tools_pb2.InvokeToolRequest(name="__TOOL__", arguments=arguments))
            self.assertTrue(said.is_error, arguments)
            self.assertTrue(said.parts[0].text, arguments)


if __name__ == "__main__":
    unittest.main()
