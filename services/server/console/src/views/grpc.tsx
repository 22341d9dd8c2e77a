/** The gRPC reference, from the comments of the `.proto` files that the stack was built with. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { text } from "../api";
import { Inline } from "../markdown";
import { type Method, type Service, type Type, parse } from "../proto";
import { Badge, CopyButton, Empty, Failure } from "../ui";

const read = signal<ReturnType<typeof parse> | null>(null);
const opened = signal("");
const filter = signal("");

/** By its name, or by its last part where another message holds it. */
const find = (name: string): Type | undefined => {
  const short = name.replace(/^.*<.*,\s*|>$/g, "");
  const types = read.value?.types;
  return types?.get(short) ?? [...(types?.values() ?? [])].find((type) => type.name.endsWith(`.${short}`));
};

function Fields({ type, depth = 0 }: { type: Type; depth?: number }) {
  return (
    <div class="schema">
      {type.comment && <p class="sub"><Inline text={type.comment} /></p>}
      {type.fields.length === 0 && <p class="sub">It has no fields.</p>}
      <dl>
        {type.fields.map((field) => {
          const of = field.type ? find(field.type) : undefined;
          return [
            <dt><code>{field.name}</code> <span class="sub mono">{field.label} {field.type}</span>{field.oneof && <span class="sub"> · one of {field.oneof}</span>}</dt>,
            <dd>
              {field.comment && <span class="sub"><Inline text={field.comment} /></span>}
              {of && depth < 8 && <Nested type={of} depth={depth + 1} />}
            </dd>,
          ];
        })}
      </dl>
    </div>
  );
}

/** Opened by hand: messages hold themselves. */
function Nested({ type, depth }: { type: Type; depth: number }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="nested" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{type.name}</summary>
      {open && <Fields type={type} depth={depth} />}
    </details>
  );
}

function Call({ service, method }: { service: Service; method: Method }) {
  const secure = location.protocol === "https:" ? "" : " -plaintext";
  const command = `grpcurl${secure} -d '{}' ${location.host} llama_stack.v1.${service.name}/${method.name}`;
  const [request, response] = [find(method.request), find(method.response)];
  return (
    <article class="operation">
      <h2><span class="method">{method.streams ? "stream" : "unary"}</span> <code>llama_stack.v1.{service.name}/{method.name}</code></h2>
      <p><Inline text={method.comment || service.comment} /></p>
      <div class="inline command"><pre class="code wrap">{command}</pre><CopyButton text={command} /></div>
      <div class="operation-split">
        <section><h3>Request <Badge>{method.sends ? "stream of " : ""}{method.request}</Badge></h3>{request && <Fields type={request} />}</section>
        <section><h3>Response <Badge>{method.streams ? "stream of " : ""}{method.response}</Badge></h3>{response && <Fields type={response} />}</section>
      </div>
    </article>
  );
}

export function Grpc() {
  const [error, setError] = useState<unknown>(null);
  const load = () => text("/console/proto").then((text) => { read.value = parse(text); setError(null); }, setError);
  useEffect(() => void (read.value ?? load()), []);
  const all = read.value?.services.flatMap((service) => service.methods.map((method) => ({ key: `${service.name}/${method.name}`, service, method }))) ?? [];
  const wanted = all.filter(({ key, method }) => `${key} ${method.comment}`.toLowerCase().includes(filter.value.toLowerCase()));
  const current = all.find(({ key }) => key === opened.value) ?? all[0];
  return (
    <div class="split left wide">
      <nav class="panel list" aria-label="Methods">
        <input aria-label="Filter methods" placeholder="Filter" value={filter.value} onInput={(event) => (filter.value = event.currentTarget.value)} />
        {[...new Set(wanted.map(({ service }) => service))].map((service) => (
          <section key={service.name}>
            <h3 class="group" title={service.comment}>{service.name}</h3>
            {wanted.filter((one) => one.service === service).map(({ key, method }) => (
              <button type="button" key={key} class="list-item" aria-current={key === current?.key ? "true" : undefined} onClick={() => (opened.value = key)}><span class="route-path">{method.name}</span></button>
            ))}
          </section>
        ))}
      </nav>
      <div class="scroll">
        <Failure error={error} retry={load} />
        {current ? <Call key={current.key} service={current.service} method={current.method} /> : !error && <Empty title="Reading the contract …" />}
      </div>
    </div>
  );
}
