"""What the official Python package makes of files, vector stores and answers that cite them."""

import io
import sys

from openai import NotFoundError, OpenAI
from openai.types import VectorStore
from openai.types.responses import Response
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = sys.argv[2]


def checked(value, kind):
    """Strictly: the package itself takes whatever comes."""
    kind.model_validate(value.model_dump(by_alias=True, exclude_unset=True))
    return value


def upload(name, text):
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="assistants")


laws = upload("laws.txt", "The king may not veto laws.")
pets = upload("pets.txt", "Cats sleep all day. Dogs go for walks.")

store = checked(client.vector_stores.create(name="all", metadata={"a": "b"}), VectorStore)
added = client.vector_stores.files.create_and_poll(laws.id, vector_store_id=store.id, attributes={"kind": "law", "year": 1814})
assert checked(added, VectorStoreFile).status == "completed", added
batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[pets.id])
assert checked(batch, VectorStoreFileBatch).status == "completed" and batch.file_counts.completed == 1, batch
assert [file.id for file in client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)] == [pets.id]
assert {file.id for file in client.vector_stores.files.list(store.id, limit=1)} == {laws.id, pets.id}
store = checked(client.vector_stores.retrieve(store.id), VectorStore)
assert (store.status, store.file_counts.completed, store.file_counts.total) == ("completed", 2, 2), store
assert client.vector_stores.update(store.id, name="some").name == "some"
assert store.id in [listed.id for listed in client.vector_stores.list(limit=1)]

found = list(client.vector_stores.search(store.id, query="veto", filters={"type": "eq", "key": "kind", "value": "law"}))
assert [(result.file_id, result.filename, result.attributes["year"]) for result in found] == [(laws.id, "laws.txt", 1814)], found
assert "veto" in found[0].content[0].text
content = list(client.vector_stores.files.content(laws.id, vector_store_id=store.id))
assert "".join(part.text for part in content) == "The king may not veto laws.", content

# An answer that cites: the model repeats what the search told it, marks and all.
tools = [{"type": "file_search", "vector_store_ids": [store.id], "filters": {"type": "eq", "key": "kind", "value": "law"}}]
asked = {"model": model, "input": 'call file_search {"query": "veto"}', "tools": tools, "include": ["file_search_call.results"]}
answer = checked(client.responses.create(**asked), Response)
call, message = answer.output
assert (call.type, call.status, call.queries) == ("file_search_call", "completed", ["veto"]), call
assert [(result.file_id, result.filename) for result in call.results] == [(laws.id, "laws.txt")], call
text = message.content[0]
assert text.annotations and all(text.text[note.index] == "[" for note in text.annotations), text
assert {(note.type, note.file_id, note.filename) for note in text.annotations} == {("file_citation", laws.id, "laws.txt")}, text

with client.responses.stream(**asked) as stream:
    kinds = [event.type for event in stream]
    final = stream.get_final_response()
for kind in ["in_progress", "searching", "completed"]:
    assert f"response.file_search_call.{kind}" in kinds, kinds
assert kinds.count("response.output_text.annotation.added") == len(final.output[1].content[0].annotations) > 0
assert client.responses.retrieve(answer.id, include=["file_search_call.results"]).output == answer.output

assert client.vector_stores.files.delete(pets.id, vector_store_id=store.id).deleted
assert client.vector_stores.delete(store.id).deleted
for gone in [lambda: client.vector_stores.retrieve(store.id), lambda: client.responses.create(**asked)]:
    try:
        gone()
        raise AssertionError("a deleted store is still there")
    except NotFoundError as error:
        assert error.code == "vector_store_not_found", error

print("agreed")
