"""What the official Python package makes of a stack: every answer is checked against its types."""

import json
import sys
from pathlib import Path

import pydantic
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types import FileDeleted, FileObject, ModerationCreateResponse
from openai.types.responses import Response, ResponseStreamEvent

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = sys.argv[2]
event_type = pydantic.TypeAdapter(ResponseStreamEvent)


def checked(value, kind):
    """Strictly: the package itself takes whatever comes."""
    kind.model_validate(value.model_dump(by_alias=True, exclude_unset=True))
    return value


# Every kind of item and event, as the transcript's own tests have them.
golden = Path(sys.argv[3]).read_text(encoding="utf-8").split("\n---\n", 1)[1]
for event in json.loads(golden):
    event_type.validate_python(event)

# Create, retrieve, go on.
first = checked(client.responses.create(model=model, input="count 3"), Response)
assert first.output_text == "1 2 3", first
assert client.responses.retrieve(first.id) == first
second = checked(client.responses.create(model=model, input="go on", previous_response_id=first.id), Response)
assert second.previous_response_id == first.id
items = client.responses.input_items.list(second.id)
assert [item.content[0].text for item in items] == ["go on"], items

# A stream, event by event, and the package's own gathering of it.
events = list(client.responses.create(model=model, input="count 4", stream=True))
for event in events:
    event_type.validate_python(event.model_dump(by_alias=True, exclude_unset=True))
assert [event.sequence_number for event in events] == list(range(len(events)))
assert events[-1].type == "response.completed" and events[-1].response.output_text == "1 2 3 4"
with client.responses.stream(model=model, input="count 4") as stream:
    assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == "1 2 3 4"
    assert stream.get_final_response().output_text == "1 2 3 4"

# The same stream again, from the beginning and from a place in it.
again = list(client.responses.retrieve(events[-1].response.id, stream=True))
assert again[-1].response == events[-1].response
rest = list(client.responses.retrieve(events[-1].response.id, stream=True, starting_after=again[3].sequence_number))
assert rest == again[4:], rest

# A function of the client's.
tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]
asked = checked(client.responses.create(model=model, input="call look {}", tools=tools), Response)
call = asked.output[0]
assert (call.type, call.name, call.arguments) == ("function_call", "look", "{}"), call
result = {"type": "function_call_output", "call_id": call.call_id, "output": "a cat"}
answered = client.responses.create(model=model, previous_response_id=asked.id, input=[result], tools=tools)
assert answered.output_text == "the tool said: a cat", answered

# The same in a namespace, kept here and kept by the client.
pets = [{"type": "namespace", "name": "pets", "description": "Animals.", "tools": tools}]
asked = checked(client.responses.create(model=model, input="call pets__look {}", tools=pets), Response)
call = asked.output[0]
assert (call.type, call.namespace, call.name) == ("function_call", "pets", "look"), call
assert client.responses.retrieve(asked.id).output == asked.output
result = {"type": "function_call_output", "call_id": call.call_id, "output": "a cat"}
answered = client.responses.create(model=model, previous_response_id=asked.id, input=[result], tools=pets)
assert answered.output_text == "the tool said: a cat", answered
past = [{"role": "user", "content": "call pets__look {}"}, call.model_dump(exclude_unset=True), result]
answered = client.responses.create(model=model, input=past, tools=pets)
assert answered.output_text == "the tool said: a cat", answered
given = client.responses.input_items.list(answered.id, order="asc").data[1]
assert (given.type, given.namespace, given.name) == ("function_call", "pets", "look"), given

# Some send with each result all that they have sent since their user spoke: what was given before is not given again.
look = {"role": "user", "content": "call look {}"}
seen = lambda response, output: {"type": "function_call_output", "call_id": response.output[0].call_id, "output": output}
place = client.conversations.create()
for kept in (lambda last: {"previous_response_id": last and last.id}, lambda _: {"conversation": place.id}):
    one = client.responses.create(model=model, input=[look], tools=tools, **kept(None))
    two = client.responses.create(model=model, input=[look, seen(one, "a cat"), look], tools=tools, **kept(one))
    sent = [look, seen(one, "a cat"), look, seen(two, "a dog")]
    told = client.responses.create(model=model, input=sent, tools=tools, **kept(two))
    assert told.output_text == "the tool said: a dog", told
    assert [item.output for item in client.responses.input_items.list(told.id)] == ["a dog"]
    try:
        client.responses.create(model=model, input=[look, seen(one, "a bird")], tools=tools, **kept(told))
        raise AssertionError("a result of a call that nobody waits for was taken")
    except BadRequestError as error:
        assert error.code == "unexpected_tool_result", error

# In the background: begun, watched, cancelled.
begun = checked(client.responses.create(model=model, input="count 5", background=True), Response)
assert begun.status == "queued"
for event in client.responses.retrieve(begun.id, stream=True):
    event_type.validate_python(event.model_dump(by_alias=True, exclude_unset=True))
assert client.responses.retrieve(begun.id).output_text == "1 2 3 4 5"
endless = client.responses.create(model=model, input="forever", background=True)
assert client.responses.cancel(endless.id).status == "cancelled"
assert client.responses.retrieve(endless.id).status == "cancelled"

# Conversations.
conversation = client.conversations.create(metadata={"topic": "cats"})
assert conversation.metadata == {"topic": "cats"} and conversation.object == "conversation"
told = client.responses.create(model=model, input="one", conversation=conversation.id)
assert told.conversation.id == conversation.id
listed = list(client.conversations.items.list(conversation.id, order="asc", limit=1))
assert [item.content[0].text for item in listed] == ["one", "you said: one"], listed
assert client.conversations.items.retrieve(listed[1].id, conversation_id=conversation.id) == listed[1]
assert client.conversations.retrieve(conversation.id).id == conversation.id
assert client.conversations.delete(conversation.id).deleted
try:
    client.conversations.retrieve(conversation.id)
    raise AssertionError("a deleted conversation is still there")
except NotFoundError as error:
    assert error.code == "conversation_not_found", error

# Moderations, by the stack's first shield.
judged = checked(client.moderations.create(input=["where to put the bomb", "where to put the sofa"]), ModerationCreateResponse)
assert [result.flagged for result in judged.results] == [True, False] and judged.model == "guard", judged
assert judged.results[0].categories.violence and judged.results[0].category_scores.violence > 0.9, judged
assert not judged.results[0].categories.hate and judged.results[0].category_applied_input_types.violence == ["text"], judged
assert judged.results[1].category_scores.violence == 0.0, judged
together = client.moderations.create(model="guard", input=[{"type": "text", "text": "where to put"}, {"type": "text", "text": "the bomb"}])
assert [result.flagged for result in together.results] == [True], together

client.responses.delete(first.id)
try:
    client.responses.retrieve(first.id)
    raise AssertionError("a deleted response is still there")
except NotFoundError as error:
    assert error.code == "response_not_found", error
# Files.
made = checked(client.files.create(file=("notes.md", b"# Cats\n\nCats purr."), purpose="assistants"), FileObject)
assert (made.filename, made.bytes, made.purpose, made.status, made.expires_at) == ("notes.md", 18, "assistants", "processed", None), made
lasting = checked(
    client.files.create(file=("lines.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}),
    FileObject,
)
assert lasting.expires_at - lasting.created_at == 7200, lasting
assert client.files.retrieve(made.id) == made
assert [file.id for file in client.files.list(limit=1)] == [lasting.id, made.id]
assert [file.id for file in client.files.list(purpose="assistants", order="asc")] == [made.id]
assert client.files.content(made.id).read() == b"# Cats\n\nCats purr."
assert client.files.wait_for_processing(made.id).status == "processed"
deleted = checked(client.files.delete(made.id), FileDeleted)
assert deleted.deleted and deleted.object == "file"
for gone in (client.files.retrieve, client.files.content, client.files.delete):
    try:
        gone(made.id)
        raise AssertionError("a deleted file is there")
    except NotFoundError as error:
        assert error.code == "file_not_found" and error.param == "id", error.body
try:
    client.files.create(file=("a.txt", b"x"), purpose="fun")
    raise AssertionError("a purpose that there is not was taken")
except BadRequestError as error:
    assert error.param == "purpose", error.body
print("agreed")
