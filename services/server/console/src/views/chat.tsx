/** Chat with any model: what it says as it says it, what it cost, and how to ask the same from a program. */
import { effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { type Json, events } from "../api";
import type { Call } from "../code";
import { Pictures, parts, usePictures } from "../images";
import { Markdown } from "../markdown";
import { chatModels, growing, loaded, refresh } from "../state";
import { Badge, Button, CodeButton, CopyButton, Empty, Failure, Field, Page, Select, seconds } from "../ui";

interface Said {
  role: "user" | "assistant";
  text: string;
  /** Data URLs. */
  images?: string[];
  thinking?: string;
  calls?: string;
  finish?: string;
  usage?: Json;
  model?: string;
  firstMs?: number;
  totalMs?: number;
  error?: unknown;
}

const KEPT = "llama-stack.chat";
// Kept while another view is looked at, and when the page is loaded again.
const said = signal<Said[]>(JSON.parse(sessionStorage.getItem(KEPT) ?? "[]"));
const draft = signal("");
const images = signal<string[]>([]);
const model = signal("");
const system = signal("");
const temperature = signal("0.7");
const maxTokens = signal("512");
const running = signal<AbortController | null>(null);

/** What can be gone on with. A question that failed, for example by an image that the model cannot see, would fail again with each that follows. */
const sound = () => said.value.filter((message, index, all) => !message.error && !all[index + 1]?.error);

effect(() => {
  if (running.value) return;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(sound()));
  } catch {
    // More pictures than a tab may keep: the chat lasts as long as the page does.
    sessionStorage.removeItem(KEPT);
  }
});

/** A text by itself, or a text and its pictures. */
const content = ({ text, images }: Said): Json =>
  images?.length ? [...(text ? [{ type: "text", text }] : []), ...images.map((url) => ({ type: "image_url", image_url: { url } }))] : text;

function ask(messages: Said[]): Json {
  const list: Json[] = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  for (const message of messages) if (message.text || message.images?.length) list.push({ role: message.role, content: content(message) });
  const body: Json = { model: chosen(), messages: list, stream: true, stream_options: { include_usage: true } };
  if (temperature.value !== "") body.temperature = Number(temperature.value);
  if (maxTokens.value !== "") body.max_tokens = Number(maxTokens.value);
  return body;
}

const chosen = () => model.value || chatModels()[0]?.id || "";

async function run(messages: Said[]) {
  const control = new AbortController();
  running.value = control;
  const answer: Said = { role: "assistant", text: "", model: chosen() };
  const show = growing(said, messages, answer);
  const began = performance.now();
  const body = ask(messages);
  show.now();
  try {
    for await (const chunk of events("/v1/chat/completions", body, control.signal)) {
      const choice = chunk.choices?.[0];
      const { content, reasoning_content, refusal, tool_calls } = choice?.delta ?? {};
      if (answer.firstMs === undefined && (content || reasoning_content || tool_calls)) answer.firstMs = performance.now() - began;
      if (content ?? refusal) answer.text += content ?? refusal;
      if (reasoning_content) answer.thinking = (answer.thinking ?? "") + reasoning_content;
      for (const call of tool_calls ?? []) answer.calls = (answer.calls ?? "") + (call.function?.name ?? "") + (call.function?.arguments ?? "");
      if (choice?.finish_reason) answer.finish = choice.finish_reason;
      if (chunk.usage) answer.usage = chunk.usage;
      show.soon();
    }
  } catch (error) {
    if ((error as Error).name === "AbortError") answer.finish = "stopped";
    else answer.error = error;
  }
  answer.totalMs = performance.now() - began;
  if (running.value === control) running.value = null;
  show.now();
}

/** What is about to be said; nothing where there is neither text nor picture. */
function drafted(): Said | undefined {
  const text = draft.value.trim();
  if (!text && images.value.length === 0) return undefined;
  return { role: "user", text, images: images.value.length > 0 ? images.value : undefined };
}

function submit() {
  const asked = drafted();
  if (!asked || running.value || !chosen()) return;
  [draft.value, images.value] = ["", []];
  void run([...sound(), asked]);
}

/** Asks the last question once more, with the settings as they are now. */
function again() {
  const upTo = said.value.findLastIndex((message) => message.role === "user");
  if (upTo >= 0 && !running.value && chosen()) void run(said.value.slice(0, upTo + 1));
}

/** Takes a question back into the composer, and what followed it out of the chat. */
function edit(index: number) {
  const { text, images: pictures = [] } = said.value[index];
  [draft.value, images.value] = [text, pictures];
  said.value = said.value.slice(0, index);
  document.querySelector<HTMLElement>(".composer textarea")?.focus();
}

const messages = (list: Said[]) => {
  const roles: Json = { user: "ROLE_USER", assistant: "ROLE_ASSISTANT" };
  const said = list.filter(({ text, images }) => text || images?.length);
  const all = said.map(({ role, text, images }) => ({ role: roles[role], parts: parts(text, images) }));
  return system.value.trim() ? [{ role: "ROLE_SYSTEM", parts: [{ text: system.value }] }, ...all] : all;
};

function call(): Call {
  const next = drafted();
  const shown: Said[] = next ? [...said.value, next] : said.value;
  const upTo = shown.findLastIndex((message) => message.role === "user");
  const list = upTo >= 0 ? shown.slice(0, upTo + 1) : [{ role: "user" as const, text: "Hello" }];
  const body = ask(list);
  delete body.stream_options;
  const sampling = { temperature: body.temperature, max_tokens: body.max_tokens };
  return {
    path: "/v1/chat/completions",
    body,
    openai: "chat.completions.create",
    grpc: { method: "Inference/StreamChat", message: { model: body.model, messages: messages(list), sampling } },
  };
}

function Figures({ message }: { message: Said }) {
  const { usage, firstMs, totalMs, finish } = message;
  if (totalMs === undefined) return null;
  const output = usage?.completion_tokens;
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  const writing = totalMs - (firstMs ?? 0);
  const parts = [
    usage && `${usage.prompt_tokens} in${cached ? ` (${cached} cached)` : ""} · ${output} out`,
    firstMs !== undefined && `first token ${seconds(firstMs)}`,
    seconds(totalMs),
    output > 1 && writing > 20 && `${((output - 1) / (writing / 1_000)).toFixed(1)} tokens/s`,
  ].filter(Boolean);
  return (
    <div class="figures">
      {parts.map((part) => <span key={part as string}>{part}</span>)}
      {finish && finish !== "stop" && <Badge tone={finish === "content_filter" ? "bad" : "warn"}>{finish.replaceAll("_", " ")}</Badge>}
    </div>
  );
}

/** `last`: the newest answer, which can be asked for again. */
function Message({ message, index, live, busy, last }: { message: Said; index: number; live: boolean; busy: boolean; last: boolean }) {
  return (
    <article class={`message ${message.role}`} aria-label={message.role === "user" ? "You" : message.model} data-role={message.role}>
      <div class="who">{message.role === "user" ? "You" : message.model}</div>
      {message.thinking && <details class="thinking"><summary>Thinking</summary>{message.thinking}</details>}
      <Pictures list={message.images} />
      {message.role === "assistant" ? <Markdown text={message.text} /> : message.text && <div class="plain">{message.text}</div>}
      {message.calls && <pre class="code" tabIndex={0}><code>{message.calls}</code></pre>}
      {live && <span class="cursor" aria-hidden="true" />}
      <Failure error={message.error} retry={again} />
      <Figures message={message} />
      {!live && (
        <div class="message-actions">
          {message.text && <CopyButton text={message.text} />}
          {message.role === "user"
            ? <Button kind="quiet" icon="edit" disabled={busy} onClick={() => edit(index)}>Edit</Button>
            : last && !message.error && <Button kind="quiet" icon="refresh" disabled={busy} onClick={again}>Regenerate</Button>}
        </div>
      )}
    </article>
  );
}

export function Composer({ value, onInput, images, onImages, onSend, busy, onStop, placeholder, disabled }: {
  value: string;
  onInput: (text: string) => void;
  images: string[];
  onImages: (list: string[]) => void;
  onSend: () => void;
  busy: boolean;
  onStop: () => void;
  placeholder: string;
  disabled?: boolean;
}) {
  const area = useRef<HTMLTextAreaElement>(null);
  const pictures = usePictures(images, onImages);
  useEffect(() => {
    const node = area.current;
    if (!node) return;
    node.style.height = "auto";
    node.style.height = `${Math.min(node.scrollHeight, 220)}px`;
  }, [value]);
  const press = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    onSend();
  };
  return (
    <div class="composer" onDragOver={(event) => event.preventDefault()} onDrop={pictures.dropped}>
      {pictures.shown}
      {pictures.button}
      <textarea
        ref={area}
        rows={1}
        aria-label="Message"
        placeholder={placeholder}
        value={value}
        onInput={(event) => onInput(event.currentTarget.value)}
        onPaste={pictures.pasted}
        onKeyDown={press}
      />
      {busy
        ? <Button kind="main" icon="stop" label="Stop" onClick={onStop} />
        : <Button kind="main" icon="send" label="Send" onClick={onSend} disabled={disabled || (!value.trim() && images.length === 0)} />}
    </div>
  );
}

/** Follows what is written at the end, unless the reader has scrolled away. What is newly asked is always shown. */
export function useFollow(list: unknown[]) {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const known = useRef(0);
  const was = useRef(0);
  /** On a narrow screen the page scrolls, and the column with the composer is a part of it. */
  const outer = () => (getComputedStyle(box.current!).overflowY === "visible" ? box.current!.parentElement! : null);
  useEffect(() => {
    if (list.length > known.current) follows.current = true;
    known.current = list.length;
    if (!follows.current || list.length === 0) return;
    const column = outer();
    if (column) column.scrollIntoView({ block: "end" });
    else box.current!.scrollTop = box.current!.scrollHeight;
  }, [list]);
  /** `left`: what is below the end of the view. It grows while the event is under way, so only who went up, or past the end, has left. */
  const scrolled = (place: number, left: number) => {
    if (Math.abs(left) < 60) follows.current = true;
    else if (place < was.current || left < 0) follows.current = false;
    was.current = place;
  };
  useEffect(() => {
    const page = () => {
      const column = outer();
      if (column) scrolled(scrollY, column.getBoundingClientRect().bottom - innerHeight);
    };
    addEventListener("scroll", page, { passive: true });
    return () => removeEventListener("scroll", page);
  }, []);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!;
    scrolled(scrollTop, scrollHeight - scrollTop - clientHeight);
  };
  return { ref: box, onScroll };
}

/** To the settings, which are below on a narrow screen. */
export const ToSettings = () => (
  <span class="narrow-only"><Button icon="settings" onClick={() => document.querySelector("aside.panel")?.scrollIntoView()}>Settings</Button></span>
);

const HINTS = ["Explain in three sentences what a vector index does.", "Write a Rust function that reverses the words of a line.", "Was ist der Unterschied zwischen gRPC und REST?"];

/** Begins anew. */
export function clearChat() {
  running.value?.abort();
  running.value = null;
  said.value = [];
}

export function Chat() {
  const follow = useFollow(said.value);
  const options = chatModels().map((model) => model.id);
  const busy = running.value !== null;
  return (
    <Page
      title="Chat"
      actions={
        <>
          <ToSettings />
          <CodeButton call={call} />
          <Button icon="plus" onClick={clearChat} disabled={said.value.length === 0}>New chat</Button>
        </>
      }
    >
      <div class="split">
        <div class="column">
          <div class="scroll" {...follow} aria-live="polite" aria-busy={busy}>
            {said.value.length === 0 && (loaded.value && options.length === 0
              ? <Empty title="No chat model"><p>This stack has no model that chats. Its manifest names the models under <code>providers.inference</code>.</p><Button onClick={() => refresh()}>Refresh</Button></Empty>
              : (
                <Empty title="Ask a model of this stack">
                  <ul class="hints">{HINTS.map((hint) => <li key={hint}><button type="button" onClick={() => { draft.value = hint; document.querySelector<HTMLElement>(".composer textarea")?.focus(); }}>{hint}</button></li>)}</ul>
                </Empty>
              ))}
            {said.value.map((message, index, { length }) => (
              <Message key={index} message={message} index={index} live={busy && index === length - 1} busy={busy} last={index === length - 1} />
            ))}
          </div>
          <Composer
            value={draft.value}
            onInput={(text) => (draft.value = text)}
            images={images.value}
            onImages={(list) => (images.value = list)}
            onSend={submit}
            busy={busy}
            onStop={() => running.value?.abort()}
            placeholder="Message; Shift Enter for a new line"
            disabled={!chosen()}
          />
        </div>
        <aside class="panel" aria-label="Settings">
          <Field label="Model">
            <Select value={chosen()} options={options} onChange={(id) => (model.value = id)} />
          </Field>
          <Field label="System prompt">
            <textarea rows={4} value={system.value} onInput={(event) => (system.value = event.currentTarget.value)} placeholder="You are …" />
          </Field>
          <div class="row">
            <Field label="Temperature">
              <input type="number" min="0" max="2" step="0.1" value={temperature.value} onInput={(event) => (temperature.value = event.currentTarget.value)} />
            </Field>
            <Field label="Max tokens">
              <input type="number" min="1" step="1" value={maxTokens.value} onInput={(event) => (maxTokens.value = event.currentTarget.value)} />
            </Field>
          </div>
          <Totals />
        </aside>
      </div>
    </Page>
  );
}

function Totals() {
  const used = said.value.map((message) => message.usage).filter(Boolean);
  if (used.length === 0) return null;
  const sum = (of: (usage: Json) => number) => used.reduce((all, usage) => all + (of(usage) || 0), 0);
  return (
    <dl class="facts" aria-label="This chat so far">
      <dt>Answers</dt><dd>{used.length}</dd>
      <dt>Tokens in</dt><dd>{sum((usage) => usage.prompt_tokens)}</dd>
      <dt>of them cached</dt><dd>{sum((usage) => usage.prompt_tokens_details?.cached_tokens)}</dd>
      <dt>Tokens out</dt><dd>{sum((usage) => usage.completion_tokens)}</dd>
    </dl>
  );
}
