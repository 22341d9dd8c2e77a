"""A shield of your own. Listens on an address: python provider.py __ADDRESS__"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import safety_pb2, safety_pb2_grpc

STAGES = [safety_pb2.SHIELD_STAGE_INPUT, safety_pb2.SHIELD_STAGE_OUTPUT]
SHIELD = safety_pb2.Shield(
    id="__NAME__",
    stages=STAGES,
    categories=[safety_pb2.ShieldCategory(code="WORD", name="A word that is not wanted")],
    description="Refuses texts with words that are not wanted",
)
WORDS = ["swordfish"]


def unwanted(text: str) -> list[str]:
    """The judgement. Replace it; this one looks for words."""
    return [word for word in WORDS if word in text.lower()]


class Provider(safety_pb2_grpc.SafetyServicer):
    def ListShields(self, request, context):
        return safety_pb2.ListShieldsResponse(shields=[SHIELD])

    def GetShield(self, request, context):
        if request.id != SHIELD.id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no shield {request.id!r}; there is: {SHIELD.id}")
        return SHIELD

    def RunShield(self, request, context):
        self.GetShield(safety_pb2.GetShieldRequest(id=request.shield_id), context)
        if not request.messages:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "messages is empty; at least one is needed")
        # The last message is judged; those before it are there to understand it.
        found = unwanted("\n".join(part.text for part in request.messages[-1].parts))
        score = safety_pb2.CategoryScore(code="WORD", score=1.0 if found else 0.0, violated=bool(found))
        response = safety_pb2.RunShieldResponse(scores=[score])
        if found:
            response.violation.CopyFrom(
                safety_pb2.Violation(
                    level=safety_pb2.Violation.LEVEL_ERROR,
                    user_message="I can't help with that.",
                    categories=["WORD"],
                    reason="unsafe",
                )
            )
        return response


def serve(address: str):
    # A stack sends messages of up to 64 MiB; gRPC's own 4 would refuse long conversations and many documents.
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.max_receive_message_length", 64 << 20)])
    safety_pb2_grpc.add_SafetyServicer_to_server(Provider(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = serve(sys.argv[1] if len(sys.argv) > 1 else "__ADDRESS__")
    print(f"listening on port {port}", flush=True)
    server.wait_for_termination()
