import unittest

import grpc

import provider
from llama_stack.v1 import common_pb2, safety_pb2, safety_pb2_grpc


class SafetyTest(unittest.TestCase):
    def setUp(self):
        self.server, port = provider.serve("127.0.0.1:0")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.safety = safety_pb2_grpc.SafetyStub(self.channel)

    def tearDown(self):
        self.channel.close()
        self.server.stop(None)

    def judge(self, text):
        user = common_pb2.Message(role=common_pb2.ROLE_USER, parts=[common_pb2.Part(text=text)])
        request = safety_pb2.RunShieldRequest(shield_id="__NAME__", messages=[user], stage=safety_pb2.SHIELD_STAGE_INPUT)
        return self.safety.RunShield(request)

    def test_what_is_not_wanted_does_not_pass(self):
        self.assertTrue(self.judge("The word is Swordfish.").HasField("violation"))

    def test_what_is_harmless_passes(self):
        self.assertFalse(self.judge("The shop opens at nine.").HasField("violation"))


if __name__ == "__main__":
    unittest.main()
