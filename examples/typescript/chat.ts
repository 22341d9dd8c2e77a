// A chat, streamed, with the openai package. Start the stack first: llama-stack run starter
import OpenAI from "openai";

const server = process.env.LLAMA_STACK_SERVER ?? "http://127.0.0.1:8321";
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "none" });

const stream = await client.chat.completions.create({
  model: process.env.MODEL ?? "qwen2.5-coder-0.5b-instruct",
  messages: [{ role: "user", content: "Name the capital of France in one short sentence." }],
  temperature: 0,
  max_tokens: 40,
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
process.stdout.write("\n");
