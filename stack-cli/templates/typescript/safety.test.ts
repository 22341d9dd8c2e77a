import assert from "node:assert/strict";
import { test } from "node:test";
import { judge } from "./provider.ts";

const judged = (text: string) => judge({ shield_id: "__NAME__", messages: [{ parts: [{ text }] }] });

test("what is not wanted does not pass", () => assert.ok(judged("The word is Swordfish.").violation));

test("what is harmless passes", () => assert.equal(judged("The shop opens at nine.").violation, undefined));
