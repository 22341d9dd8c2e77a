"""An answer that cites: files in a vector store, and the Responses API's file_search. Start the stack first: llama-stack run starter"""

import os
import sys
import time

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")
question = sys.argv[1] if len(sys.argv) > 1 else "Where are bicycles repaired?"

documents = {
    "handbook.txt": b"Every employee of Fjord Cycles has 31 days of paid leave a year.",
    "garage.txt": b"Bicycles are repaired in the garage behind the main building, from nine to five.",
}
files = [client.files.create(file=(name, text), purpose="assistants").id for name, text in documents.items()]
store = client.vector_stores.create(name="fjord", file_ids=files)
while client.vector_stores.retrieve(store.id).status == "in_progress":
    time.sleep(0.1)

answer = client.responses.create(
    model=os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct"),
    input=question,
    tools=[{"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 2}],
    tool_choice={"type": "file_search"},  # a model of the starter's size has to be told to search, and when to stop
    max_tool_calls=1,
    include=["file_search_call.results"],
    temperature=0,
    max_output_tokens=200,
)
for item in answer.output:
    if item.type == "file_search_call":
        print("searched for", item.queries, "and found", [result.filename for result in item.results or []])
    elif item.type == "message":
        for part in item.content:
            print(part.text)
            for note in part.annotations:
                print(f"  [{note.filename}] {note.quote}")
client.vector_stores.delete(store.id)
