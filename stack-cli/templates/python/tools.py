"""Tools of your own. Listens on an address: python provider.py __ADDRESS__"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import common_pb2, tools_pb2, tools_pb2_grpc


def __TOOL__(text: str) -> str:
    """What the tool does. Replace it, with its schema and its description below."""
    return f"__NAME__ says: {text}"


SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string", "description": "What to say"}},
    "required": ["text"],
}
# Whether a crash may repeat a call, and what the tool may do, for policies: see tools.proto.
TOOLS = [
    tools_pb2.Tool(
        definition=common_pb2.ToolDefinition(name="__TOOL__", description="Says a text", parameters=json.dumps(SCHEMA)),
        on_interrupt=tools_pb2.ON_INTERRUPT_RETRY,
        reads_untrusted=False,
        reads_private=False,
        changes_state=False,
    )
]


def answer(text: str, is_error: bool = False) -> tools_pb2.InvokeToolResponse:
    return tools_pb2.InvokeToolResponse(parts=[common_pb2.Part(text=text)], is_error=is_error)


class Provider(tools_pb2_grpc.ToolsServicer):
    def ListTools(self, request, context):
        return tools_pb2.ListToolsResponse(tools=TOOLS)

    def InvokeTool(self, request, context):
        # What the model gets wrong is an answer to the model: it reads it, and does better.
        if request.name != "__TOOL__":
            return answer(f"there is no tool {request.name!r}; there is: __TOOL__", is_error=True)
        try:
            arguments = json.loads(request.arguments or "{}")
        except ValueError as error:
            return answer(f"the arguments are no JSON: {error}", is_error=True)
        if not isinstance(arguments, dict) or not isinstance(arguments.get("text"), str):
            return answer("the arguments must be an object with `text`, a string", is_error=True)
        return answer(__TOOL__(arguments["text"]))


def serve(address: str):
    # A stack sends messages of up to 64 MiB; gRPC's own 4 would refuse long conversations and many documents.
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.max_receive_message_length", 64 << 20)])
    tools_pb2_grpc.add_ToolsServicer_to_server(Provider(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = serve(sys.argv[1] if len(sys.argv) > 1 else "__ADDRESS__")
    print(f"listening on port {port}", flush=True)
    server.wait_for_termination()
