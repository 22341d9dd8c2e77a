/** The API reference, from `/openapi.json`: what each route takes and gives, with a form to try it. */
import { signal } from "@preact/signals";
import { useEffect, useMemo, useState } from "preact/hooks";
import { type Json, apiKey, get, tenant } from "../api";
import type { Call } from "../code";
import { Inline } from "../markdown";
import { Badge, Button, CodeButton, Empty, Failure, Field, Page, Tabs, pretty, seconds } from "../ui";
import { Grpc } from "./grpc";

const doc = signal<Json | null>(null);
const opened = signal("");
const filter = signal("");
const protocol = signal("HTTP");

interface Route {
  key: string;
  method: string;
  path: string;
  operation: Json;
  group: string;
}

const GROUPS: Record<string, string> = {
  chat: "Chat", completions: "Chat", embeddings: "Models", models: "Models", rerank: "Models", responses: "Responses", conversations: "Conversations",
  prompts: "Prompts", agents: "Agents", files: "Files", vector_stores: "Vector stores", "vector-io": "Vector stores", shields: "Safety", safety: "Safety", moderations: "Safety", tools: "Tools", toolgroups: "Tools",
};
const group = (path: string) => {
  const [, version, name] = path.split("/");
  return version !== "v1" ? "Operations" : (GROUPS[name] ?? (name === "health" ? "Operations" : name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase())));
};

function routes(document: Json): Route[] {
  return Object.entries<Json>(document.paths).flatMap(([path, methods]) =>
    Object.entries<Json>(methods).map(([method, operation]) => ({ key: `${method} ${path}`, method, path, operation, group: group(path) })),
  );
}

const lookUp = (schema: Json): Json => {
  const name = schema?.$ref?.split("/").pop();
  return name ? { ...doc.value.components.schemas[name], name } : (schema ?? {});
};

/** A schema in few words. */
function word(schema: Json): string {
  if (schema === true || !schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value: Json) => JSON.stringify(value)).join(" | ");
  const any = schema.anyOf ?? schema.oneOf;
  if (any) return any.map(word).join(" | ");
  if (schema.allOf) return schema.allOf.map(word).join(" & ");
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type;
  if (schema.items) return `[${word(schema.items)}]`;
  if (type === "object" && schema.additionalProperties && schema.additionalProperties !== true) return `{text: ${word(schema.additionalProperties)}}`;
  return type ?? "any";
}

/** Schemas below this one that are worth opening. */
function below(schema: Json): Json[] {
  if (!schema || schema === true) return [];
  if (schema.$ref) return [schema];
  return [...(schema.anyOf ?? schema.oneOf ?? schema.allOf ?? []), schema.items].filter(Boolean).flatMap(below);
}

function Schema({ schema, depth = 0 }: { schema: Json; depth?: number }) {
  const full = lookUp(schema);
  const any = full.anyOf ?? full.oneOf;
  const required = new Set<string>(full.required ?? []);
  return (
    <div class="schema">
      {full.description && <p class="sub"><Inline text={full.description} /></p>}
      {full.properties && (
        <dl>
          {Object.entries<Json>(full.properties).map(([name, of]) => [
            <dt><code>{name}</code>{required.has(name) && <span class="required" title="required">required</span>} <span class="sub mono">{word(of)}</span></dt>,
            <dd>
              {of.description && <span class="sub"><Inline text={of.description} /></span>}
              {depth < 6 && below(of).filter((one) => lookUp(one).properties || lookUp(one).oneOf).map((one) => <Nested key={one.$ref} schema={one} depth={depth + 1} />)}
            </dd>,
          ])}
        </dl>
      )}
      {any && <div>{any.map((one: Json, index: number) => (one.$ref || one.properties ? <Nested key={index} schema={one} depth={depth + 1} /> : <code class="sub">{word(one)}</code>))}</div>}
      {!full.properties && !any && <code class="sub">{word(full)}</code>}
    </div>
  );
}

/** Opened by hand: schemas go in circles. */
function Nested({ schema, depth }: { schema: Json; depth: number }) {
  const [open, setOpen] = useState(false);
  const full = lookUp(schema);
  const name = full.name ?? full.properties?.type?.const ?? full.title ?? "one of";
  return (
    <details class="nested" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{name}</summary>
      {open && <Schema schema={schema} depth={depth} />}
    </details>
  );
}

/** A body with what is required, to begin from. */
function example(schema: Json, depth = 0): Json {
  const full = lookUp(schema);
  if (full.const !== undefined) return full.const;
  if (full.enum) return full.enum[0];
  const any = full.anyOf ?? full.oneOf;
  if (any) return example(any[0], depth + 1);
  if (full.properties && depth < 4) {
    return Object.fromEntries((full.required ?? []).map((name: string) => [name, example(full.properties[name], depth + 1)]));
  }
  const type = Array.isArray(full.type) ? full.type[0] : full.type;
  if (type === "array") return full.items && depth < 4 ? [example(full.items, depth + 1)] : [];
  if (type === "integer" || type === "number") return 0;
  if (type === "boolean") return false;
  return type === "object" ? {} : "";
}

function Operation({ route }: { route: Route }) {
  const { operation, method, path } = route;
  const content = operation.requestBody?.content ?? {};
  const schema = content["application/json"]?.schema;
  const isForm = Boolean(content["multipart/form-data"]);
  const answers = Object.entries<Json>(operation.responses["200"].content);
  const parameters: Json[] = operation.parameters ?? [];
  const [values, setValues] = useState<Record<string, string>>({});
  const [query, setQuery] = useState("");
  const [body, setBody] = useState(() => (schema ? JSON.stringify(example(schema), null, 2) : ""));
  const [answer, setAnswer] = useState<{ status: number; text: string; ms: number } | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [control, setControl] = useState<AbortController | null>(null);

  const target = () => {
    const filled = parameters.reduce((path, { name }) => path.replace(`{${name}}`, (values[name] ?? "").split("/").map(encodeURIComponent).join("/")), path);
    return method === "get" && query ? `${filled}?${query.replace(/^\?/, "")}` : filled;
  };
  const send = async (event: Event) => {
    event.preventDefault();
    const control = new AbortController();
    setControl(control);
    setError(null);
    setAnswer(null);
    const began = performance.now();
    try {
      const headers: Record<string, string> = { accept: "application/json" };
      if (schema) headers["content-type"] = "application/json";
      if (apiKey.value) headers.authorization = `Bearer ${apiKey.value}`;
      if (tenant.value) headers["x-llama-stack-tenant"] = tenant.value;
      const response = await fetch(target(), { method: method.toUpperCase(), headers, body: schema ? body : undefined, signal: control.signal });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const chunk = await reader?.read();
        if (!chunk || chunk.done) break;
        text += chunk.value;
        setAnswer({ status: response.status, text, ms: performance.now() - began });
      }
      setAnswer({ status: response.status, text: pretty(text), ms: performance.now() - began });
    } catch (error) {
      if ((error as Error).name !== "AbortError") setError(error);
    }
    setControl(null);
  };
  const call = (): Call => ({ path: target(), body: body ? JSON.parse(body) : undefined });
  const isJson = useMemo(() => {
    try {
      return !body || Boolean(JSON.parse(body));
    } catch {
      return false;
    }
  }, [body]);

  return (
    <article class="operation">
      <h2><span class={`method ${method}`}>{method}</span> <code>{path}</code></h2>
      <p><Inline text={operation.summary} /></p>
      <div class="operation-split">
        <div>
          {(schema || isForm) && <section class="section"><h3>Request {isForm && <Badge>form</Badge>}</h3><Schema schema={schema ?? content["multipart/form-data"].schema} /></section>}
          {answers.map(([kind, { schema }]) => <section class="section" key={kind}><h3>Response <Badge>{kind}</Badge></h3><Schema schema={schema} /></section>)}
        </div>
        <form class="form try" onSubmit={send} aria-label="Try it">
          <h3>Try it</h3>
          {parameters.map(({ name }) => <Field key={name} label={name}><input required value={values[name] ?? ""} onInput={(event) => setValues({ ...values, [name]: event.currentTarget.value })} /></Field>)}
          {method === "get" && <Field label="Query"><input value={query} placeholder="limit=10" onInput={(event) => setQuery(event.currentTarget.value)} /></Field>}
          {schema && <Field label="Body" hint={isJson ? undefined : "This is no JSON yet."}><textarea class="mono" rows={Math.min(18, body.split("\n").length + 1)} spellcheck={false} value={body} onInput={(event) => setBody(event.currentTarget.value)} /></Field>}
          {isForm ? <p class="sub">A form with a file is sent from the vector stores' view, or by a program.</p> : (
            <div class="actions">
              {control ? <Button kind="main" icon="stop" onClick={() => control.abort()}>Stop</Button> : <button class={`button ${method === "delete" ? "danger" : "main"}`} type="submit" disabled={!isJson}>Send</button>}
              {method === "post" && <CodeButton call={call} disabled={!isJson} />}
            </div>
          )}
          <Failure error={error} />
          {answer && <div aria-live="polite"><p><Badge tone={answer.status < 300 ? "good" : "bad"}>{answer.status}</Badge> <span class="sub">{seconds(answer.ms)}</span></p><pre class="code wrap answer" tabIndex={0}>{answer.text || "(nothing)"}</pre></div>}
        </form>
      </div>
    </article>
  );
}

export function Docs() {
  const doors = (
    <Tabs label="Protocol" names={["HTTP", "gRPC"]} chosen={protocol.value} onChoose={(name) => (protocol.value = name)} />
  );
  const lead = doc.value && <>{doc.value.info.summary} Version {doc.value.info.version}, <a href="/openapi.json">openapi.json</a></>;
  return <Page title="API reference" lead={lead} actions={doors}>{protocol.value === "gRPC" ? <Grpc /> : <Http />}</Page>;
}

function Http() {
  const [error, setError] = useState<unknown>(null);
  const load = () => get("/openapi.json").then((json) => { doc.value = json; setError(null); }, setError);
  useEffect(() => void (doc.value ?? load()), []);
  const all = useMemo(() => (doc.value ? routes(doc.value) : []), [doc.value]);
  const wanted = all.filter(({ key, operation }) => `${key} ${operation.summary}`.toLowerCase().includes(filter.value.toLowerCase()));
  const groups = [...new Set(wanted.map(({ group }) => group))];
  const current = all.find(({ key }) => key === opened.value) ?? all[0];
  return (
    <div class="split left wide">
      <nav class="panel list" aria-label="Routes">
        <input aria-label="Filter routes" placeholder="Filter" value={filter.value} onInput={(event) => (filter.value = event.currentTarget.value)} />
        {groups.map((name) => (
          <section key={name}>
            <h3 class="group">{name}</h3>
            {wanted.filter(({ group }) => group === name).map((route) => (
              <button type="button" key={route.key} class="list-item route" title={route.operation.summary} aria-current={route === current ? "true" : undefined} onClick={() => (opened.value = route.key)}>
                <span class={`method ${route.method}`}>{route.method}</span><span class="route-path">{route.path}</span>
              </button>
            ))}
          </section>
        ))}
        {doc.value && wanted.length === 0 && <span class="sub">No route has that in it.</span>}
      </nav>
      <div class="scroll">
        <Failure error={error} retry={load} />
        {current ? <Operation key={current.key} route={current} /> : !error && <Empty title="Reading openapi.json …" />}
      </div>
    </div>
  );
}
