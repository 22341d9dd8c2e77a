"""LangChain on a stack: an agent with a tool of this program. pip install -r requirements-frameworks.txt"""

import os
import sys

from langchain.agents import create_agent
from langchain.agents.middleware import ToolCallLimitMiddleware
from langchain_openai import ChatOpenAI


def price_of(article: str) -> str:
    """The price of one piece of an article of the shop."""
    return {"bolt": "3.75", "nut": "0.40"}.get(article, "no such article")


model = ChatOpenAI(
    base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1",
    api_key="none",
    model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
    temperature=0,
    max_tokens=200,
    model_kwargs={"parallel_tool_calls": False},
)
# A model of the starter's size would go on calling.
agent = create_agent(model, tools=[price_of], middleware=[ToolCallLimitMiddleware(run_limit=1, exit_behavior="end")])
question = sys.argv[1] if len(sys.argv) > 1 else "What does a bolt cost? Call price_of with the article bolt."
for message in agent.invoke({"messages": [("user", question)]})["messages"]:
    for call in getattr(message, "tool_calls", []):
        print(f"[{call['name']} {call['args']}]")
    if message.content:
        print(f"{message.type}: {message.content}")
