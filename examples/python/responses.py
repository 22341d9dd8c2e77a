"""The Responses API: a first response, streamed, and one that goes on from it."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
model = os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct")

with client.responses.stream(model=model, input="My name is Ada. Say hello to me.", temperature=0, max_output_tokens=40) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
    first = stream.get_final_response()
print(f"\n{first.status}")

second = client.responses.create(
    model=model, input="What is my name?", previous_response_id=first.id, temperature=0, max_output_tokens=40
)
print(second.output_text)
print(second.status)

tools = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city, now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
asked = client.responses.create(model=model, input="What is the weather in Oslo?", tools=tools, tool_choice="required", temperature=0)
call = next(item for item in asked.output if item.type == "function_call")
print(call.name, call.arguments)
answered = client.responses.create(
    model=model,
    previous_response_id=asked.id,
    input=[{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees and sunny"}],
    temperature=0,
    max_output_tokens=60,
)
print(answered.output_text)
