"""The OpenAI Agents SDK on a stack: two agents, one of which hands over. pip install -r requirements-frameworks.txt"""

import os
import sys

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

server = os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321")
set_default_openai_client(AsyncOpenAI(base_url=server + "/v1", api_key="none"))
set_tracing_disabled(True)  # traces would go to OpenAI
model = os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct")


@function_tool
def price_of(article: str) -> str:
    """The price of one piece of an article of the shop."""
    return {"bolt": "3.75", "nut": "0.40"}.get(article, "no such article")


refunds = Agent(
    name="refunds",
    model=model,
    model_settings=ModelSettings(temperature=0, max_tokens=200),
    instructions="You help people who want their money back.",
)
# A model of the starter's size has to be told to call, and would go on calling: a larger one needs neither line.
clerk = Agent(
    name="clerk",
    model=model,
    model_settings=ModelSettings(temperature=0, max_tokens=200, parallel_tool_calls=False, tool_choice="required"),
    tool_use_behavior="stop_on_first_tool",
    instructions="You answer questions about prices.",
    tools=[price_of],
    handoffs=[refunds],
)
question = sys.argv[1] if len(sys.argv) > 1 else "What does a bolt cost? Look it up with price_of."
result = Runner.run_sync(clerk, question)
print(f"{result.last_agent.name}: {result.final_output}")
