"""A chat, streamed, with the openai package. Start the stack first: llama-stack run starter"""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")

stream = client.chat.completions.create(
    model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
    messages=[{"role": "user", "content": "Name the capital of France in one short sentence."}],
    temperature=0,
    max_tokens=40,
    stream=True,
)
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
print()
