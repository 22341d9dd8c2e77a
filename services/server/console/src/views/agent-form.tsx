/** An agent of one's own: made, changed and deleted. Those of the manifest are only shown. */
import { useState } from "preact/hooks";
import { type Json, post, remove } from "../api";
import type { Call } from "../code";
import { chatModels, refresh, shields, stores, tools } from "../state";
import { Badge, Button, CodeButton, Dialog, Failure, Field, Select } from "../ui";

export interface AgentFields {
  name: string;
  description: string;
  model: string;
  instructions: string;
  tools: string[];
  require_approval: string[];
  vector_store_ids: string[];
  input_shields: string[];
  output_shields: string[];
  temperature: number | null;
  max_output_tokens: number | null;
}

/** What the form knows of an agent; what it does not know, a change leaves as it is. */
export const fieldsOf = (agent: Json): AgentFields => ({
  name: agent.name ?? "",
  description: agent.description ?? "",
  model: agent.model ?? chatModels()[0]?.id ?? "",
  instructions: agent.instructions ?? "",
  tools: agent.tools ?? [],
  require_approval: agent.require_approval ?? [],
  vector_store_ids: agent.vector_store_ids ?? [],
  input_shields: agent.input_shields ?? [],
  output_shields: agent.output_shields ?? [],
  temperature: agent.temperature ?? null,
  max_output_tokens: agent.max_output_tokens ?? null,
});

const toggled = (list: string[], id: string) => (list.includes(id) ? list.filter((one) => one !== id) : [...list, id]);

function Checks({ legend, empty, options, chosen, onChange }: {
  legend: string;
  empty: string;
  options: { id: string; label: string; about?: string }[];
  chosen: string[];
  onChange: (list: string[]) => void;
}) {
  // What has gone since is shown as well, so that it can be taken out.
  const gone = chosen.filter((id) => !options.some((option) => option.id === id)).map((id) => ({ id, label: id, about: "not there any more" }));
  return (
    <fieldset class="checks">
      <legend>{legend}</legend>
      {options.length + gone.length === 0 && <span class="sub">{empty}</span>}
      {[...options, ...gone].map(({ id, label, about }) => (
        <label class="check" key={id}>
          <input type="checkbox" checked={chosen.includes(id)} onChange={() => onChange(toggled(chosen, id))} />
          <span>{label}{about && <small>{about}</small>}</span>
        </label>
      ))}
    </fieldset>
  );
}

const number = (text: string) => (text.trim() === "" ? null : Number(text));

/** `id`: the agent that is changed; none: a new one. */
export function AgentForm({ id, begin, onClose, onKept, onDeleted }: {
  id?: string;
  begin: AgentFields;
  onClose: () => void;
  onKept: (id: string) => void;
  onDeleted: () => void;
}) {
  const [fields, setFields] = useState(begin);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const set = (change: Partial<AgentFields>) => setFields({ ...fields, ...change });
  const path = id ? `/v1/agents/${encodeURIComponent(id)}` : "/v1/agents";

  const doing = async (work: () => Promise<void>) => {
    setBusy(true);
    try {
      await work();
    } catch (error) {
      setError(error);
    }
    setBusy(false);
  };
  const keep = (event: Event) => {
    event.preventDefault();
    void doing(async () => {
      const kept = await post(path, fields);
      await refresh();
      onKept(kept.id);
    });
  };
  const erase = () => {
    if (!confirm(`Delete the agent ${fields.name || id}? Its sessions stay readable.`)) return;
    void doing(async () => {
      await remove(path);
      await refresh();
      onDeleted();
    });
  };
  const call = (): Call => {
    const { vector_store_ids, temperature, max_output_tokens, ...same } = fields;
    const config: Json = { ...same, sampling: { temperature, max_tokens: max_output_tokens } };
    if (vector_store_ids.length > 0) config.file_search = { bank_ids: vector_store_ids.map((id) => id.replace("vs_", "bank_")) };
    return { path, body: fields, grpc: { method: id ? "Agents/UpdateAgent" : "Agents/CreateAgent", message: id ? { id, config } : { config } } };
  };
  const ofShields = shields.value.map(({ identifier }) => ({ id: identifier, label: identifier }));
  return (
    <Dialog title={id ? `Agent ${begin.name || id}` : "New agent"} onClose={onClose}>
      <form class="form" onSubmit={keep}>
        <div class="row">
          <Field label="Name"><input required maxLength={256} value={fields.name} onInput={(event) => set({ name: event.currentTarget.value })} placeholder="clerk" /></Field>
          <Field label="Model"><Select value={fields.model} options={chatModels().map((model) => model.id)} onChange={(model) => set({ model })} /></Field>
        </div>
        <Field label="Description" hint="When to call it, for other agents that may."><input value={fields.description} onInput={(event) => set({ description: event.currentTarget.value })} /></Field>
        <Field label="Instructions"><textarea rows={4} value={fields.instructions} onInput={(event) => set({ instructions: event.currentTarget.value })} placeholder="You are …" /></Field>
        <div class="row">
          <Checks
            legend="Tools of the agent"
            empty="This stack has none."
            options={tools.value.map((tool) => ({ id: tool.name, label: tool.name, about: tool.description.split(/[.\n]/)[0] }))}
            chosen={fields.tools}
            onChange={(list) => set({ tools: list, require_approval: fields.require_approval.filter((name) => list.includes(name)) })}
          />
          <Checks
            legend="Ask a person before each call of"
            empty="It has no tools yet."
            options={fields.tools.map((name) => ({ id: name, label: `approve ${name}` }))}
            chosen={fields.require_approval}
            onChange={(require_approval) => set({ require_approval })}
          />
        </div>
        <Checks
          legend="Search in vector stores"
          empty="There is none yet."
          options={stores.value.map((store) => ({ id: store.id, label: store.name || store.id }))}
          chosen={fields.vector_store_ids}
          onChange={(vector_store_ids) => set({ vector_store_ids })}
        />
        <div class="row">
          <Checks legend="Shields for input" empty="This stack has none." options={ofShields} chosen={fields.input_shields} onChange={(input_shields) => set({ input_shields })} />
          <Checks legend="Shields for answers" empty="This stack has none." options={ofShields} chosen={fields.output_shields} onChange={(output_shields) => set({ output_shields })} />
        </div>
        <div class="row">
          <Field label="Temperature"><input type="number" min="0" max="2" step="0.1" value={fields.temperature ?? ""} onInput={(event) => set({ temperature: number(event.currentTarget.value) })} placeholder="the model's" /></Field>
          <Field label="Max tokens of an answer"><input type="number" min="1" step="1" value={fields.max_output_tokens ?? ""} onInput={(event) => set({ max_output_tokens: number(event.currentTarget.value) })} placeholder="what its context leaves" /></Field>
        </div>
        <Failure error={error} />
        <div class="actions end">
          {id && <Button kind="danger" icon="trash" onClick={erase} disabled={busy}>Delete</Button>}
          <span class="spacer" />
          <CodeButton call={call} />
          <Button onClick={onClose}>Cancel</Button>
          <button class="button main" type="submit" disabled={busy}>{id ? "Save" : "Create"}</button>
        </div>
      </form>
    </Dialog>
  );
}

/** What the panel says of the agent that is chosen. */
export const AgentCard = ({ agent, onEdit }: { agent: Json; onEdit: () => void }) => (
  <section class="agent-card" aria-label="The agent">
    {agent.description && <p>{agent.description}</p>}
    <dl class="facts">
      <dt>Model</dt><dd>{agent.model}</dd>
      {agent.tools.length > 0 && <><dt>Tools</dt><dd>{agent.tools.join(", ")}</dd></>}
      {agent.require_approval.length > 0 && <><dt>Approval</dt><dd>{agent.require_approval.join(", ")}</dd></>}
      {agent.vector_store_ids.length > 0 && <><dt>Stores</dt><dd>{agent.vector_store_ids.length}</dd></>}
      {agent.input_shields.length + agent.output_shields.length > 0 && <><dt>Shields</dt><dd>{[...new Set([...agent.input_shields, ...agent.output_shields])].join(", ")}</dd></>}
    </dl>
    {agent.declared ? <p class="sub"><Badge>manifest</Badge> It is declared in the manifest, and changed there.</p> : <Button icon="edit" onClick={onEdit}>Edit agent</Button>}
  </section>
);
