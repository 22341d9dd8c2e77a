"""A report by three agents: an editor calls a researcher and a writer, each in a turn of its own."""

import os
import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402, F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import agents_pb2, agents_pb2_grpc, common_pb2  # noqa: E402

address = os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321").removeprefix("http://")
task = sys.argv[1] if len(sys.argv) > 1 else "Write a report of three sentences on bicycles. Ask the researcher first, then the writer."


def create(name, instructions, **more):
    config = agents_pb2.AgentConfig(
        model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
        name=name,
        instructions=instructions,
        sampling=common_pb2.SamplingParams(temperature=0, max_tokens=300),
        **more,
    )
    return agents.CreateAgent(agents_pb2.CreateAgentRequest(config=config)).id


def texts(message):
    return "".join(part.text for part in message.parts)


with grpc.insecure_channel(address) as channel:
    agents = agents_pb2_grpc.AgentsStub(channel)
    team = [
        agents_pb2.AgentTool(
            agent_id=create("researcher", "You list facts, one a line, and nothing else."), description="Finds facts on a subject."
        ),
        agents_pb2.AgentTool(
            agent_id=create("writer", "You write prose from the facts that you are given."), description="Writes prose from facts."
        ),
    ]
    limits = agents_pb2.Limits(max_tool_calls=6, max_depth=2)
    editor = create("editor", "You make reports. Have facts researched, then have them written up.", agents=team, limits=limits)
    user = common_pb2.Message(role=common_pb2.ROLE_USER, parts=[common_pb2.Part(text=task)])
    for event in agents.CreateTurn(agents_pb2.CreateTurnRequest(agent_id=editor, input=[user])):
        match event.WhichOneof("event"):
            case "delta":
                print(event.delta.event.text, end="", flush=True)
            case "step_completed" if event.step_completed.HasField("tool"):
                tool = event.step_completed.tool
                print(f"[{tool.call.name}: {texts(tool.result)}]")
            case "ended":
                print(f"\n{agents_pb2.TurnStatus.Name(event.ended.status)}, {event.ended.usage.completion_tokens} tokens")
