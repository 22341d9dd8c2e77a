"""An agent turn over gRPC. Start the stack first: llama-stack run starter"""

import os
import sys

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import agents_pb2, agents_pb2_grpc, common_pb2

address = os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321").removeprefix("http://")
question = sys.argv[1] if len(sys.argv) > 1 else "What is 1234 * 5678? Use the calculator."

with grpc.insecure_channel(address) as channel:
    agents = agents_pb2_grpc.AgentsStub(channel)
    agent = agents.CreateAgent(
        agents_pb2.CreateAgentRequest(
            config=agents_pb2.AgentConfig(
                model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
                instructions="You answer briefly. Use the calculator for arithmetic.",
                tools=["calculator"],
                sampling=common_pb2.SamplingParams(temperature=0, max_tokens=200),
                limits=agents_pb2.Limits(max_tool_calls=1),  # a model of this size would go on computing
            )
        )
    )
    user = common_pb2.Message(role=common_pb2.ROLE_USER, parts=[common_pb2.Part(text=question)])
    for event in agents.CreateTurn(agents_pb2.CreateTurnRequest(agent_id=agent.id, input=[user])):
        match event.WhichOneof("event"):
            case "delta":
                print(event.delta.event.text, end="", flush=True)
            case "step_completed" if event.step_completed.HasField("tool"):
                tool = event.step_completed.tool
                print(f"[{tool.call.name} {tool.call.arguments} -> {tool.result.parts[0].text}]")
            case "ended":
                print(f"\n{agents_pb2.TurnStatus.Name(event.ended.status)}")
