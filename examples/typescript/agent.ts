// The Responses API with a function of this program: the model calls it, the answer goes back, the model goes on.
import OpenAI from "openai";
import type { Response, ResponseInput, Tool } from "openai/resources/responses/responses";

const server = process.env.LLAMA_STACK_SERVER ?? "http://127.0.0.1:8321";
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "none" });
const model = process.env.MODEL ?? "qwen2.5-coder-0.5b-instruct";

const tools: Tool[] = [
  {
    type: "function",
    name: "price_of",
    description: "The price of one piece of an article of the shop",
    parameters: { type: "object", properties: { article: { type: "string" } }, required: ["article"], additionalProperties: false },
    strict: true,
  },
];
const prices: Record<string, string> = { bolt: "3.75", nut: "0.40" };

let input: string | ResponseInput = process.argv[2] ?? "What does a bolt cost? Call price_of with the article bolt.";
let previous: string | undefined;
while (true) {
  // A model of the starter's size has to be told when to call, and when to answer; a larger one decides by itself.
  const tool_choice = previous ? "none" : "required";
  const response: Response = await client.responses.create({
    model,
    input,
    tools,
    tool_choice,
    previous_response_id: previous,
    temperature: 0,
    max_output_tokens: 60,
  });
  const results: ResponseInput = [];
  for (const item of response.output) {
    if (item.type !== "function_call") continue;
    const { article } = JSON.parse(item.arguments) as { article: string };
    const output = prices[article] ?? "no such article";
    console.log(`[${item.name} ${item.arguments} -> ${output}]`);
    results.push({ type: "function_call_output", call_id: item.call_id, output });
  }
  if (results.length === 0) {
    console.log(response.output_text);
    break;
  }
  [input, previous] = [results, response.id];
}
