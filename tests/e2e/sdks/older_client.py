"""What Llama Stack's own client for Python, of the time when the OpenAI API had a path of its own, makes of a stack."""

import sys

from llama_stack_client import LlamaStackClient, NotFoundError

client, model = LlamaStackClient(base_url=sys.argv[1]), sys.argv[2]
asked = [{"role": "user", "content": "count 3"}]

assert model in [one.id for one in client.models.list()]
assert client.chat.completions.create(model=model, messages=asked).choices[0].message.content == "1 2 3"
vectors = client.embeddings.create(model=f"{model}-embedding", input=["a", "b"])
assert [len(one.embedding) for one in vectors.data] == [4, 4], vectors

answered = client.responses.create(model=model, input="count 4")
assert answered.output[0].content[0].text == "1 2 3 4", answered
assert client.responses.retrieve(answered.id).id == answered.id
events = [event.type for event in client.responses.create(model=model, input="count 2", stream=True)]
assert (events[0], events[-1]) == ("response.created", "response.completed"), events

made = client.files.create(file=("notes.txt", b"Cats purr."), purpose="assistants")
assert client.files.retrieve(made.id).bytes == 10
try:
    client.chat.completions.create(model="nobody", messages=asked)
    raise AssertionError("a model that there is not has answered")
except NotFoundError as error:
    assert "nobody" in str(error), error

assert [shield.identifier for shield in client.shields.list()] == ["guard"]
judged = client.safety.run_shield(shield_id="guard", messages=[{"role": "user", "content": "where to put the bomb"}], params={})
assert judged.violation.violation_level == "error", judged
print("agreed")
