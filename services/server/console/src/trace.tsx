/** What a turn did: as a timeline with bars of time, and as a graph of who called whom. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Json } from "./api";
import { Badge, Tabs, count, pretty, seconds } from "./ui";

interface Row {
  lane: "model" | "tool" | "shield" | "other";
  title: string;
  note: string;
  tone: string;
  state?: string;
  detail: [string, string][];
}

const LANES = ["you", "shield", "model", "tool"] as const;
const LANE_NAMES: Record<string, string> = { you: "You", shield: "Shields", model: "Model", tool: "Tools", other: "Tools" };

const tokens = (usage: Json) =>
  usage ? `${usage.input} in${usage.cached ? ` (${Math.round((usage.cached / Math.max(1, usage.input)) * 100)}% cached)` : ""} · ${usage.output} out` : "";

function row(step: Json): Row {
  switch (step.type) {
    case "inference":
      return {
        lane: "model",
        title: step.tool_calls.length > 0 ? `calls ${step.tool_calls.map((call: Json) => call.name).join(", ")}` : step.ended_ms ? "answers" : "writes …",
        note: tokens(step.usage),
        tone: "info",
        state: step.cut_off ? "cut off" : step.finish_reason === "length" || step.finish_reason === "content_filter" ? step.finish_reason : undefined,
        detail: [["model", step.model], ["text", step.text], ...step.tool_calls.map((call: Json) => [`call of ${call.name}`, pretty(call.arguments)])],
      };
    case "tool":
      return {
        lane: "tool",
        title: step.name,
        note: step.server_label ? `server ${step.server_label}` : step.client ? "run by the client" : "",
        tone: "violet",
        state: step.is_error ? "error" : step.policy?.startsWith("deny") ? "denied" : undefined,
        detail: [["arguments", pretty(step.arguments)], ["result", step.result === null ? "" : pretty(step.result)], ["policy", step.policy], ["approval", step.approval_request_id], ["answered by", step.child_response_id ?? ""]],
      };
    case "shield":
      return {
        lane: "shield",
        title: step.shield_id,
        note: step.stage.replaceAll("_", " "),
        tone: step.outcome === "safe" ? "good" : step.outcome ? "bad" : "",
        state: step.outcome ?? undefined,
        detail: [["message", step.message ?? ""], ["categories", (step.categories ?? []).join(", ")], ["scores", Object.entries(step.scores).map(([code, score]) => `${code} ${(score as number).toFixed(3)}`).join("\n")], ["judged", `${step.judged_bytes} bytes, ${step.known_bytes} known from before`], ["error", step.error ?? ""]],
      };
    case "tool_list":
      return { lane: "tool", title: `tools of ${step.server_label}`, note: step.error ? "" : count(step.tools.length, "tool"), tone: "violet", state: step.error ? "error" : undefined, detail: [["tools", step.tools.join(", ")], ["error", step.error ?? ""]] };
    case "handoff":
      return { lane: "other", title: `hands off to ${step.agent_id}`, note: "", tone: "violet", detail: [["result", step.result ?? ""]] };
    case "compaction":
      return { lane: "model", title: "summarises the history", note: `${step.tokens_before} → ${step.tokens_after} tokens`, tone: "info", detail: [["summary", step.summary]] };
    default:
      return { lane: "other", title: step.type, note: "", tone: "", detail: [] };
  }
}

const good = (state: string) => state === "safe";

export function Trace({ trace }: { trace?: Json }) {
  const [form, setForm] = useState("Timeline");
  if (!trace || trace.data.length === 0) return <p class="sub">The steps of the turn are shown here as it does them.</p>;
  const rows: { step: Json; row: Row }[] = trace.data.map((step: Json) => ({ step, row: row(step) }));
  const from = trace.created_ms;
  const to = Math.max(trace.ended_ms ?? 0, ...trace.data.map((step: Json) => step.ended_ms ?? step.started_ms ?? 0), from + 1);
  return (
    <div class="trace">
      <div class="trace-head">
        <Tabs label="Form of the trace" names={["Timeline", "Graph"]} chosen={form} onChoose={setForm} />
        <span class="sub">{count(trace.data.length, "step")} · {tokens(trace.usage)} · {seconds(to - from)}{trace.cost > 0 && ` · ${trace.cost.toFixed(4)}`}</span>
      </div>
      {form === "Timeline" ? <Timeline rows={rows} from={from} to={to} /> : <Graph rows={rows} />}
    </div>
  );
}

function Timeline({ rows, from, to }: { rows: { step: Json; row: Row }[]; from: number; to: number }) {
  const share = (ms: number) => ((ms - from) / (to - from)) * 100;
  return (
    <ol class="timeline">
      {rows.map(({ step, row }) => {
        const end = step.ended_ms ?? to;
        const left = Math.min(99, share(step.started_ms ?? from));
        return (
          <li key={step.index} class={`lane-${row.lane}`} data-step={step.type}>
            <details>
              <summary>
                <Badge tone={row.tone}>{step.type.replace("_", " ")}</Badge>
                <span class="step-title">{row.title}</span>
                {row.state && <Badge tone={good(row.state) ? "good" : "bad"}>{row.state.replaceAll("_", " ")}</Badge>}
                <span class="step-note">{row.note}</span>
                <span class="step-time">{step.ended_ms ? seconds(step.ended_ms - step.started_ms) : "…"}</span>
                <svg class="bar-time" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
                  <rect x="0" y="1.500" width="100" height="1" class="bar-rest" />
                  <rect x={left} y="0" width={Math.max(0.8, Math.min(100 - left, share(end) - left))} height="4" class="bar-own" />
                </svg>
              </summary>
              <dl class="step-detail">
                {row.detail.filter(([, text]) => text).map(([name, text]) => [<dt>{name}</dt>, <dd><pre class="code wrap">{text}</pre></dd>])}
              </dl>
            </details>
          </li>
        );
      })}
    </ol>
  );
}

/** What a node follows from: calls from the answer that asked for them, and the next from all of them. */
function causes(nodes: { lane: string; call?: boolean }[], index: number): number[] {
  const before = index - 1;
  if (!nodes[before].call) return [before];
  let first = before;
  while (nodes[first - 1]?.call) first--;
  if (nodes[index].call) return [first - 1];
  return Array.from({ length: index - first }, (_, at) => first + at);
}

/** One lane for each kind of party, one line down for each step. */
function Graph({ rows }: { rows: { step: Json; row: Row }[] }) {
  const [width, high, top] = [420, 44, 34];
  const x = (lane: string) => 54 + Math.max(0, LANES.indexOf((lane === "other" ? "tool" : lane) as never)) * 104;
  const nodes: { lane: string; title: string; state?: string; call?: boolean }[] = [{ lane: "you", title: "asks" }, ...rows.map(({ step, row }) => ({ ...row, call: step.type === "tool" }))];
  const last = rows.at(-1)?.step;
  if (last?.type !== "shield" || last.outcome === "safe") nodes.push({ lane: "you", title: last?.ended_ms ? "read the answer" : "wait" });
  const y = (index: number) => top + 20 + index * high;
  const edges: ComponentChildren[] = [];
  for (let index = 1; index < nodes.length; index++) {
    for (const from of causes(nodes, index)) {
      const [x1, y1, x2, y2] = [x(nodes[from].lane), y(from), x(nodes[index].lane), y(index)];
      // To calls that stand below one another and from them, at their sides.
      if (index - from === 1) edges.push(<path class="edge" d={`M${x1} ${y1 + 13} C${x1} ${y1 + 27} ${x2} ${y2 - 28} ${x2} ${y2 - 14}`} />);
      else if (nodes[index].call) edges.push(<path class="edge" d={`M${x1 - 12} ${y1 + 13} C${x1 - 12} ${y2 - 5} ${x2 - 90} ${y2 - 5} ${x2 - 51} ${y2 - 5}`} />);
      else edges.push(<path class="edge" d={`M${x1 - 50} ${y1 + 6} C${x1 - 78} ${y1 + 6} ${x2 + 14} ${y1 + 20} ${x2 + 14} ${y2 - 14}`} />);
    }
  }
  const short = (text: string) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  return (
    <div class="graph-box">
      <svg class="graph" viewBox={`0 0 ${width} ${y(nodes.length) - 14}`} role="img" aria-label={`Graph of ${rows.length} steps: ${rows.map(({ row }) => row.title).join(", ")}`}>
        <defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" class="tip" /></marker></defs>
        {LANES.map((lane) => [<text class="lane-name" x={x(lane)} y="16" text-anchor="middle">{LANE_NAMES[lane]}</text>, <path class="lane-line" d={`M${x(lane)} 26V${y(nodes.length) - 26}`} />])}
        {edges}
        {nodes.map((node, index) => (
          <g key={index} class={`node node-${node.lane} ${node.state && !good(node.state) ? "node-bad" : ""}`}>
            <title>{node.title}</title>
            <rect x={x(node.lane) - 50} y={y(index) - 13} width="100" height="26" rx="6" />
            <text x={x(node.lane)} y={y(index) + 4} text-anchor="middle">{short(node.title)}</text>
          </g>
        ))}
      </svg>
    </div>
  );
}
