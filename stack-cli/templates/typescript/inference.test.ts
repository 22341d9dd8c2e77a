import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, events } from "./provider.ts";

const ask = (model = "__NAME__") => ({ model, messages: [{ parts: [{ text: "hello" }] }] });

test("an answer ends with a finish and a usage", async () => {
  const kinds = [];
  for await (const event of events(ask())) kinds.push(Object.keys(event)[0]);
  assert.deepEqual(kinds.slice(-2), ["finish", "usage"]);
  assert.deepEqual(new Set(kinds.slice(0, -2)), new Set(["text"]));
  assert.match((await chat(ask())).choices[0].message.parts[0].text, /hello/);
});

test("a model that is not there is not found", () => assert.rejects(chat(ask("nobody")), /no model "nobody"/));
