import assert from "node:assert/strict";
import { test } from "node:test";
import { invoke } from "./provider.ts";

test("a right call is answered", () => {
  const said = invoke({ name: "__TOOL__", arguments: '{"text": "hello"}' });
  assert.equal(said.is_error, false);
  assert.match(said.parts[0].text, /hello/);
});

test("wrong arguments are told to the model", () => {
  for (const wrong of ["{", "[]", "{}", "null", '{"text": 1}']) assert.equal(invoke({ name: "__TOOL__", arguments: wrong }).is_error, true);
});
