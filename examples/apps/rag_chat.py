"""A chat over your own documents, with citations: python rag_chat.py handbook.pdf notes.md …"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
model = os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct")
if len(sys.argv) < 2:
    raise SystemExit("which documents? python rag_chat.py FILE…")

files = [client.files.create(file=Path(name), purpose="assistants") for name in sys.argv[1:]]
store = client.vector_stores.create(name="rag-chat", file_ids=[file.id for file in files])
while (store := client.vector_stores.retrieve(store.id)).status == "in_progress":
    time.sleep(0.2)
print(f"{store.file_counts.completed} documents read, {store.file_counts.failed} failed")

conversation = client.conversations.create()
# Every question is searched for, once; a larger model may be left to decide.
search = {
    "tools": [{"type": "file_search", "vector_store_ids": [store.id]}],
    "tool_choice": {"type": "file_search"},
    "max_tool_calls": 1,
    "temperature": 0,
}
try:
    while True:
        notes = []
        with client.responses.stream(model=model, input=input("you> "), conversation=conversation.id, **search) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    print(event.delta, end="", flush=True)
                elif event.type == "response.output_text.annotation.added":
                    notes.append(event.annotation)
        print()
        for note in {(note["filename"], note["quote"]): None for note in notes}:
            print("  [{}] {}".format(*note))
except EOFError:
    pass
finally:
    client.vector_stores.delete(store.id)
    for file in files:
        client.files.delete(file.id)
