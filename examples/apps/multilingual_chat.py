"""A chat in any language. The server keeps the conversation; `/language French` changes what is answered in."""

import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
language = sys.argv[1] if len(sys.argv) > 1 else "English"
conversation = client.conversations.create()

while True:
    try:
        said = input(f"{language}> ").strip()
    except EOFError:
        break
    if said.startswith("/language "):
        language = said.removeprefix("/language ").strip()
        continue
    # Instructions are a response's own: those of the response before are not read again.
    with client.responses.stream(
        model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
        instructions=f"Answer in {language}, whatever language you are asked in.",
        input=said,
        conversation=conversation.id,
        max_output_tokens=300,
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    print()
