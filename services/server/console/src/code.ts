/** "View code": a call of the API in the languages that people come with. */
import type { Json } from "./api";

export interface Call {
  /** Of HTTP. */
  path: string;
  body: Json;
  /** The official OpenAI packages' name for it, for example `chat.completions.create`; none: plain HTTP. */
  openai?: string;
  /** The same over gRPC. */
  grpc?: { method: string; message: Json };
}

export const LANGUAGES = ["curl", "Python", "TypeScript", "Rust", "grpcurl"] as const;

const shell = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const json = (value: Json, indent = 2) => JSON.stringify(value, null, indent);

export function write(language: string, call: Call): string {
  const base = location.origin;
  switch (language) {
    case "Python":
      return python(call, base);
    case "TypeScript":
      return typescript(call, base);
    case "Rust":
      return rust(call, base);
    case "grpcurl":
      return grpcurl(call);
    default:
      return curl(call, base);
  }
}

function curl({ path, body }: Call, base: string): string {
  const stream = body?.stream ? " -N" : "";
  return `curl${stream} ${base}${path} \\\n  -H 'content-type: application/json' \\\n  -d ${shell(json(body))}\n`;
}

/** A value as Python writes it. */
function literal(value: Json, pad = ""): string {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${pad}    `;
  if (Array.isArray(value)) {
    return value.length === 0 ? "[]" : `[\n${value.map((item) => `${inner}${literal(item, inner)},\n`).join("")}${pad}]`;
  }
  const entries = Object.entries(value);
  return entries.length === 0
    ? "{}"
    : `{\n${entries.map(([key, item]) => `${inner}${JSON.stringify(key)}: ${literal(item, inner)},\n`).join("")}${pad}}`;
}

/** What the OpenAI packages do not know goes beside what they know. */
const OWN = new Set(["guardrails", "moderation", "limits", "agent_id", "search_mode"]);

function python({ path, body, openai }: Call, base: string): string {
  if (!openai) {
    return `import requests\n\nanswer = requests.post("${base}${path}", json=${literal(body)})\nanswer.raise_for_status()\nprint(answer.json())\n`;
  }
  const known = Object.entries(body).filter(([key]) => !OWN.has(key));
  const own = Object.fromEntries(Object.entries(body).filter(([key]) => OWN.has(key)));
  const lines = known.map(([key, value]) => `    ${key}=${literal(value, "    ")},\n`);
  if (Object.keys(own).length > 0) lines.push(`    extra_body=${literal(own, "    ")},\n`);
  const after = !body.stream
    ? "print(answer)\n"
    : openai.startsWith("chat")
      ? `for chunk in answer:\n    if chunk.choices and chunk.choices[0].delta.content:\n        print(chunk.choices[0].delta.content, end="", flush=True)\n`
      : `for event in answer:\n    if event.type == "response.output_text.delta":\n        print(event.delta, end="", flush=True)\n`;
  return `from openai import OpenAI\n\nclient = OpenAI(base_url="${base}/v1", api_key="none")\nanswer = client.${openai}(\n${lines.join("")})\n${after}`;
}

function typescript({ path, body, openai }: Call, base: string): string {
  if (!openai) {
    return `const answer = await fetch("${base}${path}", {\n  method: "POST",\n  headers: { "content-type": "application/json" },\n  body: JSON.stringify(${json(body).replaceAll("\n", "\n  ")}),\n});\nconsole.log(await answer.json());\n`;
  }
  const after = !body.stream
    ? "console.log(answer);\n"
    : openai.startsWith("chat")
      ? `for await (const chunk of answer) {\n  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n}\n`
      : `for await (const event of answer) {\n  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);\n}\n`;
  return `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${base}/v1", apiKey: "none" });\nconst answer = await client.${openai}(${json(body)});\n${after}`;
}

function rust({ path, body }: Call, base: string): string {
  // `reqwest` with the feature `json`, `serde_json`, `tokio`.
  const read = body?.stream
    ? `    while let Some(bytes) = answer.chunk().await? {\n        print!("{}", String::from_utf8_lossy(&bytes));\n    }\n`
    : `    println!("{}", answer.text().await?);\n`;
  const bound = body?.stream ? "let mut answer" : "let answer";
  return `use serde_json::json;\n\n#[tokio::main]\nasync fn main() -> Result<(), reqwest::Error> {\n    let body = json!(${json(body, 4).replaceAll("\n", "\n    ")});\n    ${bound} = reqwest::Client::new().post("${base}${path}").json(&body).send().await?.error_for_status()?;\n${read}    Ok(())\n}\n`;
}

function grpcurl({ grpc }: Call): string {
  if (!grpc) return "# this call has no twin in gRPC\n";
  const secure = location.protocol === "https:" ? "" : " -plaintext";
  const [service, method] = grpc.method.split("/");
  return `grpcurl${secure} -d ${shell(json(grpc.message))} \\\n  ${location.host} llama_stack.v1.${service}/${method}\n`;
}
