import assert from "node:assert/strict";
import { test } from "node:test";
import { Banks } from "./provider.ts";

test("the nearest is found first, and another tenant finds nothing", () => {
  const banks = new Banks();
  const { id } = banks.create({ name: "t", kind: "BANK_KIND_VECTOR", embedding_dimension: 2 }, "mine");
  banks.insert({ bank_id: id, chunks: [{ id: "east", vector: [1, 0] }, { id: "north", vector: [0, 1] }] }, "mine");
  const { chunks } = banks.query({ bank_ids: [id], vector: [0.1, 0.9] }, "mine");
  assert.deepEqual(chunks.map(({ chunk }) => chunk.id), ["north", "east"]);
  assert.throws(() => banks.find(id, "another"), /no bank/);
});
