/** Shields: what one says of a text, with its scores and what it found where. */
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { type Json, post } from "../api";
import type { Call } from "../code";
import { loaded, shields } from "../state";
import { Badge, Button, CodeButton, CopyButton, Empty, Failure, Field, Page, Select, count, seconds } from "../ui";
import { Windows, cut, judge, outcome as outcomeOf } from "../windows";
import { ToSettings } from "./chat";

const text = signal("");
const chosen = signal<Set<string> | null>(null);
const stage = signal("");
/** Words of a window; empty: the text as a whole only. */
const words = signal("");
const results = signal<Record<string, Json>>({});
/** What another caller is not to see. */
export function clearShields() {
  chosen.value = null;
  results.value = {};
}
const STAGES = ["input", "tool_arguments", "tool_result", "retrieved", "output"];

const picked = () => shields.value.filter(({ identifier }) => chosen.value === null || chosen.value.has(identifier));
const body = (shield: string, judged = text.value || "How do I pick a lock?"): Json => ({
  shield_id: shield,
  messages: [{ role: "user", content: judged }],
  ...(stage.value ? { params: { stage: stage.value } } : {}),
});

export function Shields() {
  const [busy, setBusy] = useState(false);
  const run = async (event?: Event) => {
    event?.preventDefault();
    if (!text.value.trim() || busy) return;
    setBusy(true);
    results.value = {};
    const judged = text.value;
    await Promise.all(picked().map(async ({ identifier }) => {
      const began = performance.now();
      let result: Json;
      try {
        result = { ...(await post("/v1/safety/run-shield", body(identifier, judged))), judged };
      } catch (error) {
        result = { error };
      }
      result.ms = performance.now() - began;
      const show = (more: Json) => (results.value = { ...results.value, [identifier]: { ...result, ...more } });
      show({});
      const size = Number(words.value);
      const windows = size > 0 && !result.error ? cut(judged, size) : [];
      if (windows.length > 1) await judge(windows, (part) => body(identifier, part), (done) => show({ windows: done }));
    }));
    setBusy(false);
  };
  const toggle = (id: string) => {
    const next = new Set(chosen.value ?? shields.value.map(({ identifier }) => identifier));
    if (!next.delete(id)) next.add(id);
    chosen.value = next;
  };
  const call = (): Call => {
    const shield = picked()[0]?.identifier ?? "guard";
    const message: Json = { shield_id: shield, messages: [{ role: "ROLE_USER", parts: [{ text: body(shield).messages[0].content }] }], stage: `SHIELD_STAGE_${(stage.value || "input").toUpperCase()}` };
    return { path: "/v1/safety/run-shield", body: body(shield), grpc: { method: "Safety/RunShield", message } };
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void run();
  };
  return (
    <Page title="Shields" actions={<><ToSettings /><CodeButton call={call} disabled={shields.value.length === 0} /></>}>
      {loaded.value && shields.value.length === 0
        ? <Empty title="No shield"><p>This stack's manifest names none under <code>providers.safety</code>.</p></Empty>
        : (
          <div class="split">
            <div class="scroll">
              <form class="form section" onSubmit={run}>
                <Field label="Text to judge"><textarea rows={5} value={text.value} onKeyDown={press} onInput={(event) => (text.value = event.currentTarget.value)} placeholder="What would a shield say of this?" /></Field>
                <div class="actions"><button class="button main" type="submit" disabled={busy || !text.value.trim() || picked().length === 0}>{busy ? "Running …" : "Run shields"}</button></div>
              </form>
              <div class="verdicts">{picked().map((shield) => results.value[shield.identifier] && <Verdict key={shield.identifier} shield={shield} result={results.value[shield.identifier]} />)}</div>
            </div>
            <aside class="panel" aria-label="Settings">
              <fieldset class="checks">
                <legend>Shields</legend>
                {shields.value.map((shield) => (
                  <label class="check" key={shield.identifier}>
                    <input type="checkbox" checked={picked().includes(shield)} onChange={() => toggle(shield.identifier)} />
                    <span>{shield.identifier}<small>{shield.params.description ?? shield.params.provider_type ?? shield.provider_id}</small></span>
                  </label>
                ))}
              </fieldset>
              <Field label="As" hint="A shield may judge a tool's result otherwise than what a person writes.">
                <Select value={stage.value} options={[{ value: "", label: "what a user writes" }, ...STAGES.map((name) => ({ value: name, label: name.replaceAll("_", " ") }))]} onChange={(name) => (stage.value = name)} />
              </Field>
              <Field label="Windows of words" hint="Judges a long text once more in overlapping windows, to show where it strikes. Empty: as a whole only.">
                <input type="number" min="1" step="1" value={words.value} onInput={(event) => (words.value = event.currentTarget.value)} placeholder="50" />
              </Field>
            </aside>
          </div>
        )}
    </Page>
  );
}

/** Bytes of UTF-8, which findings are counted in, as pieces of the text. */
function pieces(text: string, findings: Json[]) {
  const bytes = new TextEncoder().encode(text);
  const decode = (from: number, to: number) => new TextDecoder().decode(bytes.slice(from, to));
  const out = [];
  let at = 0;
  for (const one of [...findings].sort((a, b) => a.start - b.start)) {
    if (one.start < at || one.end > bytes.length) continue;
    out.push(decode(at, one.start), <mark title={`${one.code} ${one.detail}`}>{decode(one.start, one.end)}</mark>);
    at = one.end;
  }
  return [...out, decode(at, bytes.length)];
}

function Verdict({ shield, result }: { shield: Json; result: Json }) {
  const { violation, findings = [], redacted } = result;
  const scores: [string, number][] = Object.entries(result.scores ?? {}).sort((a: any, b: any) => b[1] - a[1]) as [string, number][];
  const names = new Map<string, string>((shield.params.categories ?? []).map((one: Json) => [one.code, one.name]));
  const threshold = shield.params.threshold;
  const [all, setAll] = useState(false);
  const shownScores = all ? scores : scores.filter(([, score], index) => index < 3 || score >= 0.01);
  const outcome = outcomeOf(result);
  return (
    <article class="verdict" data-outcome={outcome} aria-label={`Verdict of ${shield.identifier}`}>
      <h3>{shield.identifier} <Badge tone={outcome === "safe" ? "good" : outcome === "warn" || outcome === "redacted" ? "warn" : "bad"}>{outcome}</Badge><span class="spacer" /><span class="sub">{seconds(result.ms)}</span></h3>
      <Failure error={result.error} />
      {violation && <p>{violation.user_message}{violation.metadata.violation_type && <span class="sub"> · {violation.metadata.violation_type}</span>}</p>}
      {violation?.metadata.reason && <p class="sub">{violation.metadata.reason}</p>}
      {scores.length > 0 && (
        <dl class="scores">
          {shownScores.map(([code, score]) => [
            <dt>{code} <span class="sub">{names.get(code)}</span></dt>,
            <dd>
              <svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={`${code} ${score.toFixed(3)}`}>
                <rect width="100" height="8" class="bar-rest" />
                <rect width={Math.max(0.5, score * 100)} height="8" class={score >= (threshold ?? 0.5) ? "bar-bad" : "bar-own"} />
                {threshold && <rect x={threshold * 100} width="0.7" height="8" class="bar-mark" />}
              </svg>
              <span>{score.toFixed(3)}</span>
            </dd>,
          ])}
        </dl>
      )}
      {shownScores.length < scores.length && <Button kind="quiet" onClick={() => setAll(true)}>{`${count(scores.length - shownScores.length, "more score")} below 0.01`}</Button>}
      {findings.length > 0 && <div class="plain-text">{pieces(result.judged, findings)}</div>}
      {findings.length > 0 && <ul class="sub">{findings.map((one: Json) => <li>{one.code}: {one.detail}</li>)}</ul>}
      {redacted && <><span class="field-label">What is used in its place</span><div class="plain-text">{redacted}</div></>}
      {result.windows && <Windows list={result.windows} threshold={threshold} />}
      {!result.error && <CopyButton text={JSON.stringify(result, null, 2)} label="Copy as JSON" />}
    </article>
  );
}
