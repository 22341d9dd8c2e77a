/** "View code": a call of the API in the languages that people come with. */
import { type Json, apiKey, tenant } from "./api";

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
/** In bytes: a system takes no longer argument of a program than 128 kB; pictures are longer. */
const LONGEST_ARGUMENT = 100_000;
/** The option that carries a body, and what comes after the command where it comes by standard input. */
function bodied(option: string, from: string, body: Json): { data: string; after: string } {
  const text = json(body);
  if (new TextEncoder().encode(text).length < LONGEST_ARGUMENT) return { data: `${option} ${shell(text)}`, after: "" };
  return { data: `${option} ${from}`, after: ` <<'JSON'\n${text}\nJSON` };
}

/** Keys stay out of what is copied and passed on. */
const KEY = "LLAMA_STACK_API_KEY";
/** Names and values of what says who asks; `key` is how a language reads the variable. */
function whoAsks(key: string): [string, string][] {
  const all: [string, string][] = [];
  if (apiKey.value) all.push(["authorization", key]);
  if (tenant.value) all.push(["x-llama-stack-tenant", tenant.value]);
  return all;
}
const flags = () => whoAsks("").map(([name, value]) => (name === "authorization" ? ` \\\n  -H "authorization: Bearer $${KEY}"` : ` \\\n  -H ${shell(`${name}: ${value}`)}`)).join("");
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
  const { data, after } = bodied("-d", "@-", body);
  return `curl${stream} ${base}${path} \\\n  -H 'content-type: application/json'${flags()} \\\n  ${data}${after}\n`;
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
  const asks = whoAsks("Bearer");
  const os = apiKey.value ? "import os\n\n" : "";
  if (!openai) {
    const named = asks.map(([name, value]) => `    "${name}": ${name === "authorization" ? `"Bearer " + os.environ["${KEY}"]` : literal(value)},\n`).join("");
    const headers = named && `headers = {\n${named}}\n`;
    return `# pip install requests\n${os}import requests\n\n${headers}answer = requests.post("${base}${path}", json=${literal(body)}${headers && ", headers=headers"})\nanswer.raise_for_status()\nprint(answer.json())\n`;
  }
  const known = Object.entries(body).filter(([key]) => !OWN.has(key));
  const own = Object.fromEntries(Object.entries(body).filter(([key]) => OWN.has(key)));
  const lines = known.map(([key, value]) => `    ${key}=${literal(value, "    ")},\n`);
  if (Object.keys(own).length > 0) lines.push(`    extra_body=${literal(own, "    ")},\n`);
  const after = !body.stream
    ? "print(answer)\n"
    : openai.startsWith("chat")
      ? `for chunk in answer:\n    if chunk.choices and chunk.choices[0].delta.content:\n        print(chunk.choices[0].delta.content, end="", flush=True)\n`
      : `for event in answer:\n    if event.type == "response.output_text.delta":\n        print(event.delta, end="", flush=True)\n${asksPerson(body) ? `    elif event.type == "response.output_item.done" and event.item.type == "mcp_approval_request":\n        print("waits for approval:", event.item.id, event.item.name, event.item.arguments)\n` : ""}`;
  const key = apiKey.value ? `os.environ["${KEY}"]` : `"none"`;
  const headers = tenant.value ? `, default_headers={"x-llama-stack-tenant": ${literal(tenant.value)}}` : "";
  return `# pip install openai\n${os}from openai import OpenAI\n\nclient = OpenAI(base_url="${base}/v1", api_key=${key}${headers})\nanswer = client.${openai}(\n${lines.join("")})\n${after}`;
}

/** Whether calls may wait, so that a turn may end without a word. */
const asksPerson = (body: Json) => (body.tools ?? []).some((tool: Json) => tool.type === "mcp" && tool.require_approval !== "never");

function typescript({ path, body, openai }: Call, base: string): string {
  if (!openai) {
    const named = whoAsks(`\`Bearer \${process.env.${KEY}}\``).map(([name, value]) => `, "${name}": ${name === "authorization" ? value : JSON.stringify(value)}`).join("");
    return `const answer = await fetch("${base}${path}", {\n  method: "POST",\n  headers: { "content-type": "application/json"${named} },\n  body: JSON.stringify(${json(body).replaceAll("\n", "\n  ")}),\n});\nif (!answer.ok) throw new Error(await answer.text());\nconsole.log(await answer.json());\n`;
  }
  const after = !body.stream
    ? "console.log(answer);\n"
    : openai.startsWith("chat")
      ? `for await (const chunk of answer) {\n  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n}\n`
      : `for await (const event of answer) {\n  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);\n${asksPerson(body) ? `  if (event.type === "response.output_item.done" && event.item.type === "mcp_approval_request") console.log("waits for approval:", event.item);\n` : ""}}\n`;
  const key = apiKey.value ? `process.env.${KEY}` : `"none"`;
  const headers = tenant.value ? `, defaultHeaders: { "x-llama-stack-tenant": ${JSON.stringify(tenant.value)} }` : "";
  // The package's types do not know what is the stack's own: connectors, guardrails, agents.
  const own = openai.startsWith("responses") ? " as unknown as OpenAI.Responses.ResponseCreateParamsStreaming" : "";
  return `// npm install openai\nimport OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${base}/v1", apiKey: ${key}${headers} });\nconst answer = await client.${openai}(${json(body)}${own});\n${after}`;
}

/** JSON's escapes of control characters are not Rust's. */
const escaped = (text: string) => text.replace(/(?<!\\)((?:\\\\)*)\\(?:u([0-9a-f]{4})|b|f)/g, (whole, before, code) => (code ? `${before}\\u{${code}}` : `${before}\\u{${whole.endsWith("b") ? "8" : "c"}}`));

function rust({ path, body }: Call, base: string): string {
  const read = body?.stream
    ? `    while let Some(bytes) = answer.chunk().await? {\n        print!("{}", String::from_utf8_lossy(&bytes));\n    }\n`
    : `    println!("{}", answer.text().await?);\n`;
  const bound = body?.stream ? "let mut answer" : "let answer";
  const key = apiKey.value ? `        .bearer_auth(std::env::var("${KEY}").unwrap_or_default())\n` : "";
  const whose = tenant.value ? `        .header("x-llama-stack-tenant", ${JSON.stringify(tenant.value)})\n` : "";
  return `// cargo add reqwest --features json && cargo add serde_json && cargo add tokio --features full\nuse serde_json::json;\n\n#[tokio::main]\nasync fn main() -> Result<(), reqwest::Error> {\n    let body = json!(${escaped(json(body, 4)).replaceAll("\n", "\n    ")});\n    ${bound} = reqwest::Client::new()\n        .post("${base}${path}")\n${key}${whose}        .json(&body)\n        .send()\n        .await?\n        .error_for_status()?;\n${read}    Ok(())\n}\n`;
}

function grpcurl({ grpc }: Call): string {
  if (!grpc) return "# this call has no twin in gRPC\n";
  const secure = location.protocol === "https:" ? "" : " -plaintext";
  const [service, method] = grpc.method.split("/");
  const { data, after } = bodied("-d", "@", grpc.message);
  return `grpcurl${secure}${flags()}${flags() && " \\\n "} ${data} \\\n  ${location.host} llama_stack.v1.${service}/${method}${after}\n`;
}
