"""What the official Python package makes of batches."""

import io
import json
import sys
import time

from openai import BadRequestError, NotFoundError, OpenAI
from openai.types import Batch

client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
model = sys.argv[2]


def checked(value, kind):
    """Strictly: the package itself takes whatever comes."""
    kind.model_validate(value.model_dump(by_alias=True, exclude_unset=True))
    return value


def upload(lines):
    text = "\n".join(json.dumps(line) for line in lines)
    return client.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")


def ended(batch):
    for _ in range(600):
        batch = checked(client.batches.retrieve(batch.id), Batch)
        if batch.status in ("completed", "failed", "cancelled", "expired"):
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def line(name, text, of=model):
    body = {"model": of, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


file = upload([line("one", "hello"), line("two", "nobody", of="no-such-model"), line("three", "count 3")])
asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
made = checked(client.batches.create(**asked, metadata={"a": "b"}), Batch)
batch = ended(made)
assert (batch.status, batch.metadata, batch.errors) == ("completed", {"a": "b"}, None), batch
assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1), batch

output = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
said = {answer["custom_id"]: answer["response"]["body"]["choices"][0]["message"]["content"] for answer in output}
assert said == {"one": "you said: hello", "three": "1 2 3"}, said
(error,) = [json.loads(text) for text in client.files.content(batch.error_file_id).text.splitlines()]
assert (error["custom_id"], error["response"]["status_code"]) == ("two", 404), error

wrong = ended(client.batches.create(**{**asked, "input_file_id": upload([{"custom_id": "x"}]).id}))
assert (wrong.status, wrong.errors.data[0].line, wrong.errors.data[0].param) == ("failed", 1, "method"), wrong

hanging = client.batches.create(**{**asked, "input_file_id": upload([line("never", "hang")]).id})
cancelled = ended(client.batches.cancel(hanging.id))
assert (cancelled.status, cancelled.output_file_id) == ("cancelled", None), cancelled
assert [listed.id for listed in client.batches.list(limit=2)] == [hanging.id, wrong.id, made.id]

for call, kind in [
    (lambda: client.batches.create(**{**asked, "endpoint": "/v1/nothing"}), BadRequestError),
    (lambda: client.batches.retrieve("batch_none"), NotFoundError),
]:
    try:
        call()
        raise AssertionError("it was not refused")
    except kind:
        pass

print("agreed")
