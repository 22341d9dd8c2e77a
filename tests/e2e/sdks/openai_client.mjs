// What the official Node package makes of a stack.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const gather = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};

const first = await client.responses.create({ model, input: "count 3" });
assert.equal(first.output_text, "1 2 3");
assert.equal((await client.responses.retrieve(first.id)).output_text, "1 2 3");
const second = await client.responses.create({ model, input: "go on", previous_response_id: first.id });
const given = await client.responses.inputItems.list(second.id);
assert.equal(given.data[0].content[0].text, "go on");

const events = await gather(await client.responses.create({ model, input: "count 4", stream: true }));
assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
assert.equal(events.at(-1).type, "response.completed");
const gathered = client.responses.stream({ model, input: "count 4" });
assert.equal((await gathered.finalResponse()).output_text, "1 2 3 4");
const { id } = events.at(-1).response;
const again = await gather(await client.responses.retrieve(id, { stream: true }));
assert.deepEqual(again.at(-1).response, events.at(-1).response);
const rest = await gather(await client.responses.retrieve(id, { stream: true, starting_after: again[3].sequence_number }));
assert.deepEqual(rest, again.slice(4));

const tools = [{ type: "function", name: "look", parameters: { type: "object", properties: {} }, strict: false }];
const asked = await client.responses.create({ model, input: "call look {}", tools });
const call = asked.output[0];
assert.equal(call.type, "function_call");
const output = { type: "function_call_output", call_id: call.call_id, output: "a cat" };
const answered = await client.responses.create({ model, previous_response_id: asked.id, input: [output], tools });
assert.equal(answered.output_text, "the tool said: a cat");

const begun = await client.responses.create({ model, input: "count 5", background: true });
assert.equal(begun.status, "queued");
const watched = await gather(await client.responses.retrieve(begun.id, { stream: true }));
assert.equal(watched.at(-1).type, "response.completed");
const endless = await client.responses.create({ model, input: "forever", background: true });
assert.equal((await client.responses.cancel(endless.id)).status, "cancelled");

const conversation = await client.conversations.create({ metadata: { topic: "cats" } });
const told = await client.responses.create({ model, input: "one", conversation: conversation.id });
assert.equal(told.conversation.id, conversation.id);
const texts = [];
for await (const item of client.conversations.items.list(conversation.id, { order: "asc", limit: 1 })) texts.push(item.content[0].text);
assert.deepEqual(texts, ["one", "you said: one"]);
assert.ok((await client.conversations.delete(conversation.id)).deleted);
await assert.rejects(client.conversations.retrieve(conversation.id), { code: "conversation_not_found" });
await client.responses.delete(first.id);
await assert.rejects(client.responses.retrieve(first.id), { code: "response_not_found" });
console.log("agreed");
