"""A tool of your own. Listens on a port; name it in the manifest:

tools:
  - { id: weather, type: remote::grpc, config: { url: "http://127.0.0.1:9000" } }
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import common_pb2, tools_pb2, tools_pb2_grpc

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Weather(tools_pb2_grpc.ToolsServicer):
    def ListTools(self, request, context):
        definition = common_pb2.ToolDefinition(name="weather", description="The weather in a city, now", parameters=json.dumps(SCHEMA))
        return tools_pb2.ListToolsResponse(tools=[tools_pb2.Tool(definition=definition)])

    def InvokeTool(self, request, context):
        if request.name != "weather":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no tool {request.name!r}")
        try:
            city = json.loads(request.arguments)["city"]
        except (ValueError, TypeError, KeyError):
            return answer('the arguments are {"city": "..."}', is_error=True)  # the model reads it, and does better
        return answer(f"21 degrees and sunny in {city}")


def answer(text, is_error=False):
    return tools_pb2.InvokeToolResponse(parts=[common_pb2.Part(text=text)], is_error=is_error)


server = grpc.server(ThreadPoolExecutor())
tools_pb2_grpc.add_ToolsServicer_to_server(Weather(), server)
port = server.add_insecure_port(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000")
server.start()
print(f"listening on port {port}", flush=True)
server.wait_for_termination()
