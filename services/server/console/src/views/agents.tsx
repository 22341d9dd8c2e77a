/** Agents: a turn with tools, files and shields, watched step by step. */
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { type Json, events, post } from "../api";
import type { Call } from "../code";
import { parts } from "../images";
import { Exchange } from "../items";
import { agents, chatModels, growing, route, shields, stores, tools } from "../state";
import { Trace } from "../trace";
import { type Turn, asks, begun, take, trace, tracer } from "../turn";
import { Badge, Button, CodeButton, Empty, Field, Page, Select } from "../ui";
import { AgentCard, type AgentFields, AgentForm, fieldsOf } from "./agent-form";
import { Composer, ToSettings, useFollow } from "./chat";

export const turns = signal<Turn[]>([]);
const draft = signal("");
const images = signal<string[]>([]);
/** A model's id, or `agent:` and an agent's. */
const who = signal("");
const instructions = signal("");
const picked = signal<Set<string>>(new Set());
const approval = signal("never");
const searched = signal<Set<string>>(new Set());
const guarded = signal<Set<string>>(new Set());
const maxTokens = signal("1024");
/** Small models have to be told when to call, and would go on calling. */
const choice = signal<Json>("auto");
const maxCalls = signal("8");
const CHOICES = [{ value: "auto", label: "The model decides" }, { value: "required", label: "Call one first" }, { value: "none", label: "Call none" }];
/** Tools of the turn that is gone on from which nothing here chooses: servers by address, functions, the search of the web. */
const kept = signal<Json[]>([]);
const running = signal<AbortController | null>(null);
const shown = signal(-1);

const chosen = () => who.value || chatModels()[0]?.id || "";

function toggle(set: typeof picked, id: string) {
  const next = new Set(set.value);
  if (!next.delete(id)) next.add(id);
  set.value = next;
}

/** The tools of the request: those of one group are one connector. */
function toolList(): Json[] {
  const groups = new Map<string, string[]>();
  for (const tool of tools.value) {
    if (picked.value.has(tool.name)) groups.set(tool.group_id, [...(groups.get(tool.group_id) ?? []), tool.name]);
  }
  const list: Json[] = [...groups].map(([group, names]) => ({
    type: "mcp",
    server_label: group,
    connector_id: group,
    allowed_tools: names,
    require_approval: approval.value,
  }));
  if (searched.value.size > 0) list.push({ type: "file_search", vector_store_ids: [...searched.value] });
  return [...list, ...kept.value];
}

function request(input: Json, previous?: string): Json {
  const body: Json = { input, stream: true };
  if (previous) body.previous_response_id = previous;
  if (who.value.startsWith("agent:")) return { agent_id: who.value.slice(6), ...body };
  body.model = chosen();
  if (instructions.value.trim()) body.instructions = instructions.value;
  const list = toolList();
  if (list.length > 0) {
    body.tools = list;
    if (choice.value !== "auto") body.tool_choice = choice.value;
    if (maxCalls.value) body.max_tool_calls = Number(maxCalls.value);
  }
  if (guarded.value.size > 0) body.guardrails = [...guarded.value];
  if (maxTokens.value) body.max_output_tokens = Number(maxTokens.value);
  if (searched.value.size > 0) body.include = ["file_search_call.results"];
  return body;
}

async function run(turn: Turn, body: Json) {
  const control = new AbortController();
  running.value = control;
  turn.request = body;
  const before = turns.value;
  const show = growing(turns, before, turn);
  shown.value = before.length;
  show.now();
  const look = tracer(turn, show.soon);
  try {
    for await (const event of events("/v1/responses", body, control.signal)) {
      take(turn, event);
      show.soon();
      void look(event);
    }
  } catch (error) {
    if ((error as Error).name === "AbortError") turn.status = "cancelled";
    else turn.error = error;
  }
  turn.live = false;
  if (running.value === control) running.value = null;
  show.now();
  await trace(turn);
  show.now();
}

const lastId = () => turns.value.findLast((turn) => turn.id && turn.status !== "failed" && turn.status !== "cancelled")?.id;

/** A text by itself; with pictures, a message of parts. */
function said(text: string, pictures: string[]): Json {
  if (pictures.length === 0) return text;
  const content: Json[] = text ? [{ type: "input_text", text }] : [];
  return [{ role: "user", content: [...content, ...pictures.map((image_url) => ({ type: "input_image", image_url }))] }];
}

function submit() {
  const [text, pictures] = [draft.value.trim(), images.value];
  if ((!text && pictures.length === 0) || running.value || !chosen()) return;
  [draft.value, images.value] = ["", []];
  void run(begun(text, { images: pictures }), request(said(text, pictures), lastId()));
}

/** Asks the last turn's question once more: a branch beside it. */
function again() {
  const last = turns.value.at(-1);
  if (!last || !asks(last) || running.value || !chosen()) return;
  turns.value = turns.value.slice(0, -1);
  void run(begun(last.input, { images: last.images }), request(said(last.input, last.images ?? []), lastId()));
}

function decide(at: number, decisions: Json[]) {
  const turn = turns.value[at];
  for (const item of turn.items) if (item.type === "mcp_approval_request") item.decided = true;
  turns.value = [...turns.value];
  const body = request(decisions, turn.id);
  // As the calls were asked for, whatever is set by now; a decision asks for no other one.
  const { tool_choice, ...same } = turn.request ?? body;
  void run(begun("", { decisions }), { ...same, input: decisions, previous_response_id: turn.id });
}

function stop() {
  const id = turns.value.at(-1)?.id;
  running.value?.abort();
  if (id) void post(`/v1/responses/${id}/cancel`, {}).catch(() => undefined);
}

/** Begins a new session. */
export function clear() {
  if (running.value) stop();
  running.value = null;
  turns.value = [];
  kept.value = [];
  if (typeof choice.value !== "string") choice.value = "auto";
  shown.value = -1;
}

/** What was set besides, which may name what another caller does not have. */
export function clearAgents() {
  clear();
  who.value = instructions.value = "";
  picked.value = searched.value = guarded.value = new Set();
  choice.value = "auto";
}

/** A choice of tools as a request here makes it, where a server is called as its connector. */
function chosenAgain(choice: Json, connectors: Json[]): Json {
  if (typeof choice === "string") return choice;
  if (choice.tools) return { ...choice, tools: choice.tools.map((tool: Json) => chosenAgain(tool, connectors)) };
  const connector = connectors.find(({ server_label }) => server_label === choice.server_label);
  const group = connector?.connector_id ?? tools.value.find(({ name }) => name === choice.name)?.group_id;
  return connector && group ? { ...choice, server_label: group } : choice;
}

/** Goes on from a response of a session, in a new branch, with what that response was made with. */
export function continueFrom(past: Turn[]) {
  clear();
  turns.value = past;
  shown.value = past.length - 1;
  const { agent_id, model, instructions: told, tools: had = [], tool_choice, guardrails = [], max_output_tokens, max_tool_calls } = past.at(-1)?.response ?? {};
  who.value = agent_id ? `agent:${agent_id}` : model ?? "";
  if (agent_id) return;
  const connectors: Json[] = had.filter(({ type, server_url }: Json) => type === "mcp" && !server_url);
  kept.value = had.filter((tool: Json) => tool.type !== "file_search" && !connectors.includes(tool));
  choice.value = chosenAgain(tool_choice ?? "auto", connectors);
  instructions.value = told ?? "";
  picked.value = new Set(connectors.flatMap(({ allowed_tools, connector_id }) => allowed_tools ?? tools.value.filter(({ group_id }) => group_id === connector_id).map(({ name }) => name)));
  // Approval of some tools becomes approval of all.
  approval.value = connectors.some(({ require_approval }) => require_approval !== "never") ? "always" : "never";
  searched.value = new Set(had.flatMap(({ vector_store_ids }: Json) => vector_store_ids ?? []));
  guarded.value = new Set(guardrails);
  maxTokens.value = String(max_output_tokens ?? "");
  maxCalls.value = String(max_tool_calls ?? "");
}

/** The tools that are kept, as the contract has them. */
function keptByGrpc(): Record<"functions" | "servers", Json[]> {
  const approvalOf = (given: Json) =>
    typeof given === "string" ? { mode: `MODE_${given.toUpperCase()}` } : { mode: "MODE_BY_TOOL", always: given.always?.tool_names ?? [], never: given.never?.tool_names ?? [] };
  return {
    functions: kept.value.filter(({ type }) => type === "function").map(({ name, description, parameters, strict }) => ({
      name, description: description ?? "", parameters: parameters ? JSON.stringify(parameters) : "", strict: strict ?? false,
    })),
    servers: kept.value.filter(({ type }) => type === "mcp").map(({ server_label, server_url, server_description, allowed_tools, require_approval }) => ({
      label: server_label, url: server_url, description: server_description ?? "", allowed_tools: allowed_tools ?? [], require_approval: approvalOf(require_approval),
    })),
  };
}

function choiceByGrpc(choice: Json): Json {
  const nameOf = ({ name, type }: Json): string => name ?? type;
  if (typeof choice === "string") return { mode: `MODE_${choice.toUpperCase()}` };
  if (choice.tools) return { mode: `MODE_${choice.mode.toUpperCase()}`, allowed: choice.tools.map(nameOf) };
  return { mode: "MODE_NAMED", name: nameOf(choice) };
}

function call(): Call {
  const next = draft.value.trim() !== "" || images.value.length > 0;
  const last = turns.value.findLast(asks);
  const input = next ? draft.value.trim() : last ? last.input : "What is 6 * 7?";
  const pictures = next ? images.value : last?.images ?? [];
  const body = request(said(input, pictures), next ? lastId() : turns.value.at(-2)?.id);
  const config: Json = { model: body.model, instructions: body.instructions };
  if (picked.value.size > 0) config.tools = [...picked.value];
  if (searched.value.size > 0) config.file_search = { bank_ids: [...searched.value].map((id) => id.replace("vs_", "bank_")) };
  if (guarded.value.size > 0) config.input_shields = config.output_shields = [...guarded.value];
  const { functions, servers } = keptByGrpc();
  if (functions.length > 0) config.client_tools = functions;
  if (servers.length > 0) config.mcp_servers = servers;
  if (kept.value.some(({ type }) => type === "web_search")) config.tools = [...(config.tools ?? []), "web_search"];
  if (body.tool_choice) config.tool_choice = choiceByGrpc(body.tool_choice);
  if (picked.value.size > 0 && approval.value === "always") config.require_approval = [...picked.value];
  if (body.max_output_tokens) config.sampling = { max_tokens: body.max_output_tokens };
  if (body.max_tool_calls) config.limits = { max_tool_calls: body.max_tool_calls };
  const message: Json = { input: [{ role: "ROLE_USER", parts: parts(input, pictures) }] };
  if (body.agent_id) message.agent_id = body.agent_id;
  else message.config = config;
  if (body.previous_response_id) message.parent_turn_id = body.previous_response_id.replace("resp_", "turn_");
  return { path: "/v1/responses", body, openai: "responses.create", grpc: { method: "Agents/CreateTurn", message } };
}

/** An agent of what is set here. */
const asAgent = (): AgentFields =>
  fieldsOf({
    model: chosen().startsWith("agent:") ? undefined : chosen(),
    instructions: instructions.value,
    tools: [...picked.value],
    require_approval: approval.value === "always" ? [...picked.value] : [],
    vector_store_ids: [...searched.value],
    input_shields: [...guarded.value],
    output_shields: [...guarded.value],
    max_output_tokens: maxTokens.value ? Number(maxTokens.value) : null,
  });

function Settings() {
  // What it began with: the list may lose the agent while the form is still there.
  const [form, setForm] = useState<{ id?: string; begin: AgentFields } | null>(null);
  const isAgent = who.value.startsWith("agent:");
  const agent = isAgent ? agents.value.find(({ id }) => `agent:${id}` === who.value) : undefined;
  const options = [
    ...chatModels().map(({ id }) => ({ value: id, label: id })),
    ...agents.value.map((agent) => ({ value: `agent:${agent.id}`, label: `${agent.name || agent.id} (agent)` })),
  ];
  return (
    <aside class="panel" aria-label="Settings">
      <Field label="Model or agent"><Select value={chosen()} options={options} onChange={(id) => (who.value = id)} /></Field>
      <Button icon="plus" onClick={() => setForm({ begin: asAgent() })} disabled={chatModels().length === 0}>{isAgent ? "New agent" : "Keep as an agent"}</Button>
      {form && (
        <AgentForm
          {...form}
          onClose={() => setForm(null)}
          onKept={(id) => { who.value = `agent:${id}`; setForm(null); }}
          onDeleted={() => { who.value = ""; setForm(null); }}
        />
      )}
      {isAgent ? agent && <AgentCard agent={agent} onEdit={() => setForm({ id: agent.id, begin: fieldsOf(agent) })} /> : (
        <>
          <Field label="Instructions"><textarea rows={3} value={instructions.value} onInput={(event) => (instructions.value = event.currentTarget.value)} placeholder="You are …" /></Field>
          <fieldset class="checks">
            <legend>Tools</legend>
            {tools.value.length === 0 && <span class="sub">This stack has none.</span>}
            {tools.value.map((tool) => (
              <label class="check" key={tool.name}>
                <input type="checkbox" checked={picked.value.has(tool.name)} onChange={() => toggle(picked, tool.name)} />
                <span>{tool.name}<small>{tool.description.split(/[.\n]/)[0]}</small></span>
              </label>
            ))}
            {kept.value.length > 0 && <span class="sub">And as in the turn: {kept.value.map(({ name, server_label, type }) => name ?? server_label ?? type).join(", ")}</span>}
          </fieldset>
          <Field label="Approval of tool calls">
            <Select value={approval.value} options={[{ value: "never", label: "Not needed" }, { value: "always", label: "Ask me each time" }]} onChange={(mode) => (approval.value = mode)} />
          </Field>
          <fieldset class="checks">
            <legend>Search in vector stores</legend>
            {stores.value.length === 0 && <span class="sub">There is none yet.</span>}
            {stores.value.map((store) => (
              <label class="check" key={store.id}><input type="checkbox" checked={searched.value.has(store.id)} onChange={() => toggle(searched, store.id)} /><span>{store.name || store.id}</span></label>
            ))}
          </fieldset>
          <fieldset class="checks">
            <legend>Shields for input and answer</legend>
            {shields.value.length === 0 && <span class="sub">This stack has none.</span>}
            {shields.value.map((shield) => (
              <label class="check" key={shield.identifier}><input type="checkbox" checked={guarded.value.has(shield.identifier)} onChange={() => toggle(guarded, shield.identifier)} /><span>{shield.identifier}</span></label>
            ))}
          </fieldset>
          <Field label="Use of tools">
            <Select value={typeof choice.value === "string" ? choice.value : "kept"} options={CHOICES.concat(typeof choice.value === "string" ? [] : { value: "kept", label: "As in the turn" })} onChange={(mode) => (choice.value = mode)} />
          </Field>
          <Field label="Max tool calls"><input type="number" min="1" value={maxCalls.value} onInput={(event) => (maxCalls.value = event.currentTarget.value)} /></Field>
          <Field label="Max tokens"><input type="number" min="1" value={maxTokens.value} onInput={(event) => (maxTokens.value = event.currentTarget.value)} /></Field>
        </>
      )}
    </aside>
  );
}

export function Agents() {
  void route.value;
  const follow = useFollow(turns.value);
  const busy = running.value !== null;
  const traced = turns.value[shown.value] ?? turns.value.at(-1);
  return (
    <Page
      title="Agents"
      actions={<><ToSettings /><CodeButton call={call} /><Button icon="plus" onClick={clear} disabled={turns.value.length === 0}>New session</Button></>}
    >
      <div class="split three">
        <div class="column">
          <div class="scroll" {...follow} aria-live="polite" aria-busy={busy}>
            {turns.value.length === 0 && <Empty title="Give an agent something to do"><p>Choose a model and its tools. Each turn is traced: what the model was asked, which tools ran with which arguments, what the shields said, and how long it took.</p></Empty>}
            {turns.value.map((turn, index) => (
              <div key={index} class={`turn ${turn === traced && turns.value.length > 1 ? "turn-shown" : ""}`}>
                <Exchange turn={turn} decide={(decisions) => decide(index, decisions)} />
                <div class="message message-actions">
                  {turns.value.length > 1 && turn.id && turn !== traced && <Button kind="quiet" onClick={() => (shown.value = index)}>Show its trace</Button>}
                  {index === turns.value.length - 1 && !turn.live && asks(turn) && <Button kind="quiet" icon="refresh" disabled={busy} onClick={again}>Regenerate</Button>}
                </div>
              </div>
            ))}
          </div>
          <Composer value={draft.value} onInput={(text) => (draft.value = text)} images={images.value} onImages={(list) => (images.value = list)} onSend={submit} busy={busy} onStop={stop} placeholder="A task, Enter to send" disabled={!chosen()} />
        </div>
        <section class="panel trace-panel" aria-label="Trace">
          <h2>Trace {traced && <Badge tone={traced.live ? "info" : (traced.trace?.status ?? traced.status) === "completed" ? "good" : "warn"}>{traced.live ? "runs" : (traced.trace?.status ?? traced.status).replaceAll("_", " ")}</Badge>}</h2>
          <Trace trace={traced?.trace} />
        </section>
        <Settings />
      </div>
    </Page>
  );
}
