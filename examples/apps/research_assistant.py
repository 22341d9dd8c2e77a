"""A research assistant: it searches the web with the stack's tool, and computes in Python on this machine, if you allow it.

The manifest needs a tool named web_search (docs/tools.md), for example:

tools:
  - { id: web, type: remote::searxng, config: { url: "http://127.0.0.1:8080" } }
"""

import json
import os
import subprocess
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
model = os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct")
INSTRUCTIONS = "You research. Search the web for facts, and compute with run_python. Say where each fact is from."
RUN_PYTHON = {
    "type": "function",
    "name": "run_python",
    "description": "Runs a Python program and gives back what it printed.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"], "additionalProperties": False},
    "strict": True,
}


def run_python(code: str) -> str:
    print(f"--- the model wants to run ---\n{code}\n------------------------------")
    if input("run it? [y/N] ").strip().lower() != "y":
        return "the person did not allow it"
    try:
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return "the program did not end within 10 seconds"
    return (done.stdout + done.stderr)[:4000]


def research(question: str, previous: str | None) -> str:
    """Asks, runs what the model calls, and gives back the id of the last response."""
    told = question
    while True:
        response = client.responses.create(
            model=model,
            instructions=INSTRUCTIONS,
            input=told,
            tools=[{"type": "web_search"}, RUN_PYTHON],
            previous_response_id=previous,
        )
        previous, told = response.id, []
        for item in response.output:
            if item.type == "web_search_call":
                print(f"[searched: {getattr(item.action, 'query', '')}]")
            elif item.type == "function_call":
                output = run_python(**json.loads(item.arguments))
                told.append({"type": "function_call_output", "call_id": item.call_id, "output": output})
        if not told:
            print(response.output_text)
            return previous


last = None
while True:
    try:
        last = research(input("question> "), last)
    except EOFError:
        break
