/** Vector stores: files dropped in, what became of them, and the same search in three modes side by side. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { type Json, everything, get, post, remove } from "../api";
import type { Call } from "../code";
import { models, refresh, stores } from "../state";
import { Badge, Button, CodeButton, Dialog, Empty, Failure, Field, Page, Select, bytes, count, when } from "../ui";

const MODES = ["hybrid", "vector", "keyword"] as const;
const open = signal("");
const query = signal("");
const most = signal("5");
const tone: Record<string, string> = { completed: "good", in_progress: "info", failed: "bad", cancelled: "warn", expired: "warn" };

/** Words that all passages have weigh next to nothing, and are still in an order. */
const score = (value: number) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3));
const at = (id: string, rest = "") => `/v1/vector_stores/${encodeURIComponent(id)}${rest}`;
const searchBody = (mode: string): Json => ({ query: query.value || "What is it about?", max_num_results: Number(most.value) || 5, search_mode: mode });

export function Stores() {
  const [error, setError] = useState<unknown>(null);
  const [creating, setCreating] = useState(false);
  const store = stores.value.find(({ id }) => id === open.value) ?? stores.value[0];
  const load = async () => {
    try {
      stores.value = (await get("/v1/vector_stores?limit=100")).data;
      setError(null);
    } catch (error) {
      setError(error);
    }
  };
  useEffect(() => void load(), []);
  const call = (): Call => ({
    path: at(store?.id ?? "vs_…", "/search"),
    body: searchBody("hybrid"),
    grpc: { method: "Memory/Query", message: { bank_ids: [(store?.id ?? "vs_…").replace("vs_", "bank_")], text: searchBody("").query, mode: "SEARCH_MODE_HYBRID", top_k: Number(most.value) || 5 } },
  });
  return (
    <Page
      title="Vector stores"
      actions={<><CodeButton call={call} disabled={!store} /><Button kind="main" icon="plus" onClick={() => setCreating(true)}>New store</Button></>}
    >
      <div class="split left">
        <nav class="panel list" aria-label="Stores">
          {stores.value.map((one) => (
            <button type="button" key={one.id} class="list-item" aria-current={one === store ? "true" : undefined} onClick={() => (open.value = one.id)}>
              <span>{one.name || one.id}</span>
              <span class="sub">{count(one.file_counts.total, "file")} · {bytes(one.usage_bytes)}</span>
            </button>
          ))}
          {stores.value.length === 0 && <span class="sub">No store yet.</span>}
        </nav>
        <div class="scroll">
          <Failure error={error} retry={load} />
          {store ? <Store key={store.id} store={store} reload={load} /> : !error && (
            <Empty title="No vector store"><p>A store holds files as passages that are found by meaning and by words. Agents search in it and cite what they found.</p><Button kind="main" icon="plus" onClick={() => setCreating(true)}>New store</Button></Empty>
          )}
        </div>
      </div>
      {creating && <Create onClose={() => setCreating(false)} onMade={async (id) => { setCreating(false); await load(); open.value = id; }} />}
    </Page>
  );
}

function Create({ onClose, onMade }: { onClose: () => void; onMade: (id: string) => void }) {
  const [name, setName] = useState("");
  const [model, setModel] = useState("");
  const [error, setError] = useState<unknown>(null);
  const embedding = models.value.filter(({ kind }) => kind === "embedding").map(({ id }) => ({ value: id, label: id }));
  const make = async (event: Event) => {
    event.preventDefault();
    try {
      const body: Json = { name };
      if (model) body.embedding_model = model;
      onMade((await post("/v1/vector_stores", body)).id);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Dialog title="New vector store" onClose={onClose}>
      <form class="form" onSubmit={make}>
        <Field label="Name"><input required value={name} onInput={(event) => setName(event.currentTarget.value)} placeholder="handbook" /></Field>
        <Field label="Embedding model"><Select value={model} options={[{ value: "", label: "The stack's own choice" }, ...embedding]} onChange={setModel} /></Field>
        <Failure error={error} />
        <div class="actions end"><Button onClick={onClose}>Cancel</Button><button class="button main" type="submit">Create</button></div>
      </form>
    </Dialog>
  );
}

function Store({ store, reload }: { store: Json; reload: () => Promise<void> }) {
  const [files, setFiles] = useState<Json[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [chunks, setChunks] = useState<Json | null>(null);
  const [sending, setSending] = useState<string[]>([]);
  const [over, setOver] = useState(false);

  const load = async () => {
    try {
      setFiles(await everything(at(store.id, "/files")));
    } catch (error) {
      setError(error);
    }
  };
  useEffect(() => void load(), []);
  useEffect(() => {
    if (!files?.some(({ status }) => status === "in_progress")) return;
    const later = setTimeout(() => void Promise.all([load(), reload()]), 700);
    return () => clearTimeout(later);
  }, [files]);

  /** Takes files, not the browser's list of them, which is emptied once its event is over. */
  const add = async (list: File[]) => {
    setError(null);
    for (const file of list) {
      setSending((names) => [...names, file.name]);
      try {
        const form = new FormData();
        form.append("purpose", "assistants");
        form.append("file", file);
        const { id } = await post("/v1/files", form);
        await post(at(store.id, "/files"), { file_id: id });
      } catch (error) {
        setError(error);
      }
      setSending((names) => names.filter((name) => name !== file.name));
      await load();
    }
    await reload();
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void add([...(event.dataTransfer?.files ?? [])]);
  };
  const doing = (work: () => Promise<unknown>) => async () => {
    try {
      await work();
      await Promise.all([load(), reload(), refresh()]);
    } catch (error) {
      setError(error);
    }
  };
  const show = async (file: Json) => {
    try {
      setChunks({ file, parts: (await get(at(store.id, `/files/${file.id}/content`))).data });
    } catch (error) {
      setError(error);
    }
  };

  return (
    <>
      <section class="section">
        <h2>{store.name || store.id} <Badge tone={tone[store.status]}>{store.status.replace("_", " ")}</Badge><span class="spacer" />
          <Button kind="quiet" icon="trash" label="Delete this store" onClick={doing(async () => { if (confirm(`Delete the store ${store.name || store.id}? Its files stay.`)) await remove(at(store.id)); })} />
        </h2>
        <p class="sub mono">{store.id} · {store.embedding_model}, {store.embedding_dimension} dimensions · {store.provider_id} · created {when(store.created_at)}</p>
      </section>
      <section class="section" aria-labelledby="files-title">
        <h2 id="files-title">Files</h2>
        <label class={`drop ${over ? "over" : ""}`} onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={drop}>
          <input type="file" multiple class="visually-hidden" aria-label="Add files" onChange={(event) => { void add([...(event.currentTarget.files ?? [])]); event.currentTarget.value = ""; }} />
          {sending.length > 0 ? `Sending ${sending.join(", ")} …` : <span>Drop files here, or <span class="link">choose some</span>. Text, Markdown, HTML, PDF, Office, code.</span>}
        </label>
        <Failure error={error} />
        {files && files.length > 0 && (
          <div class="table-box"><table>
            <thead><tr><th>File</th><th>Status</th><th class="number">Size</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
            <tbody>
              {files.map((file) => (
                <tr key={file.id}>
                  <td>{file.filename || file.id}{file.last_error && <div class="error-text">{file.last_error.message}</div>}</td>
                  <td><Badge tone={tone[file.status]}>{file.status.replace("_", " ")}</Badge></td>
                  <td class="number">{bytes(file.usage_bytes)}</td>
                  <td class="end">
                    <Button kind="quiet" onClick={() => show(file)}>Chunks</Button>
                    <Button kind="quiet" icon="close" label={`Take ${file.filename || file.id} out`} onClick={doing(() => remove(at(store.id, `/files/${file.id}`)))} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table></div>
        )}
      </section>
      <Search store={store} />
      {chunks && (
        <Dialog title={`${chunks.file.filename || chunks.file.id}: ${count(chunks.parts.length, "chunk")}`} onClose={() => setChunks(null)}>
          <ol class="chunks">{chunks.parts.map((part: Json) => <li><pre class="code wrap">{part.text}</pre></li>)}</ol>
        </Dialog>
      )}
    </>
  );
}

function Search({ store }: { store: Json }) {
  const [found, setFound] = useState<Record<string, Json>>({});
  const [busy, setBusy] = useState(false);
  const run = async (event?: Event) => {
    event?.preventDefault();
    if (!query.value.trim()) return;
    setBusy(true);
    const answers = await Promise.all(MODES.map(async (mode) => {
      const began = performance.now();
      try {
        const answer = await post(at(store.id, "/search"), searchBody(mode));
        return [mode, { data: answer.data, ms: performance.now() - began }];
      } catch (error) {
        return [mode, { error }];
      }
    }));
    setFound(Object.fromEntries(answers));
    setBusy(false);
  };
  const ids = (mode: string): string[] => (found[mode]?.data ?? []).map((one: Json) => one.content?.[0]?.text);
  return (
    <section class="section" aria-labelledby="search-title">
      <h2 id="search-title">Search</h2>
      <form class="inline" onSubmit={run}>
        <Field label="Query"><input value={query.value} onInput={(event) => (query.value = event.currentTarget.value)} placeholder="How many days of leave are there?" /></Field>
        <div class="narrow-field"><Field label="Results"><input type="number" min="1" max="50" value={most.value} onInput={(event) => (most.value = event.currentTarget.value)} /></Field></div>
        <button class="button main" type="submit" disabled={busy || !query.value.trim()}>Search</button>
      </form>
      {Object.keys(found).length > 0 && (
        <div class="modes">
          {MODES.map((mode) => (
            <section key={mode} aria-label={`${mode} search`} data-mode={mode}>
              <h3>{mode} <span class="sub">{found[mode]?.ms !== undefined && `${Math.round(found[mode].ms)} ms`}</span></h3>
              <Failure error={found[mode]?.error} />
              {found[mode]?.data?.length === 0 && <p class="sub">nothing found</p>}
              <ol>
                {(found[mode]?.data ?? []).map((one: Json) => {
                  const text = one.content?.[0]?.text ?? "";
                  const others = MODES.filter((other) => other !== mode && ids(other).includes(text)).map((other) => `${other} ${ids(other).indexOf(text) + 1}`);
                  return (
                    <li>
                      <div class="found-head"><strong>{score(one.score)}</strong> <span class="sub">{one.filename || one.file_id}</span></div>
                      <div class="found-text">{text}</div>
                      {others.length > 0 && <div class="sub">also {others.join(", ")}</div>}
                    </li>
                  );
                })}
              </ol>
            </section>
          ))}
        </div>
      )}
    </section>
  );
}
