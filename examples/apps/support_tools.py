"""The shop that support_agent.py works for, as a tool provider over gRPC. Name it in the manifest:

tools:
  - { id: shop, type: remote::grpc, config: { url: "http://127.0.0.1:9020" } }
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402, F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import common_pb2, tools_pb2, tools_pb2_grpc  # noqa: E402

ORDERS = {"A1": {"article": "bell", "price": 12.5, "status": "delivered"}}
SCHEMA = json.dumps({"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"], "additionalProperties": False})


class Shop(tools_pb2_grpc.ToolsServicer):
    def ListTools(self, request, context):
        status = common_pb2.ToolDefinition(name="order_status", description="What was ordered, and where it is", parameters=SCHEMA)
        refund = common_pb2.ToolDefinition(name="refund", description="Pays an order back", parameters=SCHEMA)
        return tools_pb2.ListToolsResponse(
            tools=[
                tools_pb2.Tool(definition=status, reads_private=True, on_interrupt=tools_pb2.ON_INTERRUPT_RETRY),
                # Money moves: policies see that, and a call that a crash cut off is a person's to decide.
                tools_pb2.Tool(definition=refund, reads_private=True, changes_state=True, on_interrupt=tools_pb2.ON_INTERRUPT_ASK),
            ]
        )

    def InvokeTool(self, request, context):
        if request.name not in ("order_status", "refund"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no tool {request.name!r}")
        try:
            order = ORDERS.get(json.loads(request.arguments)["order"])
        except (ValueError, TypeError, KeyError):
            return answer('the arguments are {"order": "..."}', is_error=True)
        if order is None:
            return answer("there is no such order", is_error=True)
        if request.name == "refund":
            order["status"] = "refunded"
        return answer(json.dumps(order))


def answer(text, is_error=False):
    return tools_pb2.InvokeToolResponse(parts=[common_pb2.Part(text=text)], is_error=is_error)


server = grpc.server(ThreadPoolExecutor())
tools_pb2_grpc.add_ToolsServicer_to_server(Shop(), server)
port = server.add_insecure_port(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9020")
server.start()
print(f"listening on port {port}", flush=True)
server.wait_for_termination()
