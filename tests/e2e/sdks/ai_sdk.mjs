// What the AI SDK makes of a stack: its provider for OpenAI, through responses and through chats.

import assert from "node:assert/strict";

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, model] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const look = tool({ description: "Looks.", inputSchema: z.object({}), execute: async () => "a cat" });
const steps = { tools: { look }, stopWhen: stepCountIs(4), maxRetries: 0 };

for (const one of [openai(model), openai.chat(model)]) {
    assert.equal((await generateText({ model: one, prompt: "count 3" })).text, "1 2 3");
    const stream = streamText({ model: one, prompt: "count 4" });
    let text = "";
    for await (const delta of stream.textStream) text += delta;
    assert.equal(text, "1 2 3 4");
    assert.equal(await stream.finishReason, "stop");
    assert.ok((await stream.usage).outputTokens > 0);
    const answered = await generateText({ model: one, prompt: "call look {}", ...steps });
    assert.deepEqual([answered.text, answered.steps.length], ["the tool said: a cat", 2]);
    const messages = [{ role: "user", content: "call look {}" }, ...answered.response.messages, { role: "user", content: "and now" }];
    assert.equal((await generateText({ model: one, messages, ...steps })).text, "you said: and now");
}

// In a conversation it sends the user's message again with each result.
const made = await fetch(`${url}/v1/conversations`, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
const { id } = await made.json();
const providerOptions = { openai: { conversation: id } };
for (let turn = 0; turn < 2; turn++) {
    const kept = await generateText({ model: openai(model), prompt: "call look {}", providerOptions, ...steps });
    assert.deepEqual([kept.text, kept.steps.length], ["the tool said: a cat", 2]);
}
const { data } = await (await fetch(`${url}/v1/conversations/${id}/items?order=asc`)).json();
const kinds = ["message", "function_call", "function_call_output", "message"];
assert.deepEqual(data.map((item) => item.type), [...kinds, ...kinds]);
console.log("agreed");
