"""A guarded customer-support agent: a shield judges what comes in, and a person approves each refund.

Needs the tools of support_tools.py in the manifest, and a shield (SHIELD, the starter's by default).
"""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
asked = {
    "model": os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
    "instructions": "You answer customers of a bicycle shop. Look orders up before you speak of them.",
    "tools": [
        {
            "type": "mcp",
            "server_label": "shop",
            "connector_id": "shop",
            "require_approval": {"always": {"tool_names": ["refund"]}, "never": {"tool_names": ["order_status"]}},
        }
    ],
    "extra_body": {"guardrails": [os.environ.get("SHIELD", "injection")]},
}


def decide(request):
    """A person's word on a call, as the item that carries it."""
    yes = input(f"approve {request.name} {request.arguments}? [y/N] ").strip().lower() == "y"
    return {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": yes}


last = None
while True:
    try:
        told = input("customer> ")
        while told:
            response = client.responses.create(input=told, previous_response_id=last, **asked)
            last = response.id
            told = [decide(item) for item in response.output if item.type == "mcp_approval_request"]
    except EOFError:
        break
    for item in response.output:
        if item.type == "mcp_call":
            print(f"[{item.name} {item.arguments} -> {item.output or item.error}]")
        elif item.type == "message":
            print("agent:", *(getattr(part, "refusal", None) or part.text for part in item.content))
