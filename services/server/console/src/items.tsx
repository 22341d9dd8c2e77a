/** The items of a response: what was said, which tools were called, what waits for a decision. */
import { useState } from "preact/hooks";
import type { Json } from "./api";
import { Pictures } from "./images";
import { Markdown } from "./markdown";
import type { Turn } from "./turn";
import { asks, waiting } from "./turn";
import { Badge, Button, Failure, pretty } from "./ui";

function Citations({ list }: { list: Json[] }) {
  const seen = list.filter((one, index) => index === list.findIndex((other) => (other.quote ?? other.url ?? other.file_id) === (one.quote ?? one.url ?? one.file_id)));
  if (seen.length === 0) return null;
  return (
    <ul class="citations" aria-label="Citations">
      {seen.map((one) => (
        <li>
          <strong>{one.filename || one.title || one.url || one.file_id}</strong>{one.page ? `, page ${one.page}` : ""}
          {one.quote && <blockquote>{one.quote}</blockquote>}
        </li>
      ))}
    </ul>
  );
}

function Call({ title, badge, status, args, result, error }: { title: string; badge: string; status?: string; args?: string; result?: string | null; error?: Json }) {
  const failed = Boolean(error);
  return (
    <details class="call" data-item={badge}>
      <summary>
        <Badge tone="violet">{badge}</Badge>
        <span class="step-title">{title}</span>
        {failed && <Badge tone="bad">error</Badge>}
        {status && status !== "completed" && !failed && <Badge>{status.replaceAll("_", " ")}</Badge>}
        {!failed && result && <span class="step-note">{result.slice(0, 80)}</span>}
      </summary>
      <dl class="step-detail">
        {args && [<dt>arguments</dt>, <dd><pre class="code wrap">{pretty(args)}</pre></dd>]}
        {result && [<dt>result</dt>, <dd><pre class="code wrap">{pretty(result)}</pre></dd>]}
        {failed && [<dt>error</dt>, <dd><pre class="code wrap">{typeof error === "string" ? error : pretty(JSON.stringify(error))}</pre></dd>]}
      </dl>
    </details>
  );
}

function Item({ item }: { item: Json }) {
  switch (item?.type) {
    case "message":
      return (
        <>
          {(item.content ?? []).map((part: Json) => part?.refusal
            ? <div class="refusal" role="note"><Badge tone="bad">refused</Badge> {part.refusal}</div>
            : part && <><Markdown text={part.text ?? ""} /><Citations list={part.annotations ?? []} /></>)}
        </>
      );
    case "reasoning":
      return <details class="thinking"><summary>Thinking</summary>{(item.content ?? []).map((part: Json) => part?.text).join("")}</details>;
    case "mcp_call":
      return <Call badge="tool" title={item.name} status={item.status} args={item.arguments} result={item.output} error={item.error} />;
    case "function_call":
      return <Call badge="function" title={item.name} status={item.status} args={item.arguments} />;
    case "function_call_output":
      return <Call badge="result" title={item.call_id} result={item.output} />;
    case "mcp_list_tools":
      return item.error
        ? <Call badge="tools" title={item.server_label} error={item.error} />
        : <Call badge="tools" title={item.server_label} result={(item.tools ?? []).map((tool: Json) => tool.name).join(", ")} />;
    case "web_search_call":
      return <Call badge="web search" title={item.action?.query ?? ""} status={item.status} />;
    case "file_search_call":
      return <Call badge="file search" title={(item.queries ?? []).join(" · ")} status={item.status} result={item.results?.map((found: Json) => `${found.filename ?? found.file_id} (${found.score?.toFixed?.(3) ?? "–"})\n${found.text ?? ""}`).join("\n\n")} />;
    case "mcp_approval_request":
      return <Call badge="approval" title={item.name} status={item.decided ? "decided" : "waits"} args={item.arguments} />;
    case "compaction":
      return <Call badge="summary" title="the history so far" />;
    default:
      return null;
  }
}

const INCOMPLETE: Record<string, string> = {
  content_filter: "A shield did not let this pass.",
  max_output_tokens: "The answer was cut at its most tokens.",
};

/** `decide`: carries out decisions on all calls that wait; none: they are only shown. */
export function Exchange({ turn, decide, retry }: { turn: Turn; decide?: (decisions: Json[]) => void; retry?: () => void }) {
  const pending = waiting(turn);
  return (
    <div class="exchange">
      {asks(turn) && (
        <article class="message user" aria-label="You" data-role="user">
          <div class="who">You</div>
          <Pictures list={turn.images} />
          {turn.input && <div class="plain">{turn.input}</div>}
        </article>
      )}
      {turn.decisions && <article class="message user"><div class="who">You</div><div class="plain">{turn.decisions.map((one) => (one.approve ? "approved" : `denied${one.reason ? `: ${one.reason}` : ""}`)).join(", ")}</div></article>}
      <article class="message assistant" aria-label="Agent" data-role="assistant" data-status={turn.live ? "live" : turn.status}>
        <div class="who">Agent</div>
        <div class="items">
          {turn.items.map((item, index) => !(decide && pending.includes(item)) && <Item key={item?.id ?? index} item={item} />)}
          {turn.live && <span class="cursor" aria-hidden="true" />}
        </div>
        {turn.incomplete && <div class="refusal" role="note"><Badge tone="bad">{turn.incomplete.replaceAll("_", " ")}</Badge> {INCOMPLETE[turn.incomplete] ?? "A limit of the turn was met."}</div>}
        {turn.status === "cancelled" && <div class="sub">stopped</div>}
        <Failure error={turn.error} retry={retry} />
        {pending.length > 0 && decide && <Approvals requests={pending} decide={decide} />}
      </article>
    </div>
  );
}

function Approvals({ requests, decide }: { requests: Json[]; decide: (decisions: Json[]) => void }) {
  const [chosen, setChosen] = useState<Record<string, boolean>>({});
  const [reason, setReason] = useState("");
  const answer = (all: Record<string, boolean>) => {
    setChosen(all);
    if (requests.every((request) => request.id in all)) {
      decide(requests.map(({ id }) => ({ type: "mcp_approval_response", approval_request_id: id, approve: all[id], ...(all[id] || !reason ? {} : { reason }) })));
    }
  };
  return (
    <div class="approvals" role="group" aria-label="Calls that wait for you">
      {requests.map((request) => (
        <div class="approval" key={request.id}>
          <div><Badge tone="warn">waits for you</Badge> <strong>{request.name}</strong> <span class="sub">of {request.server_label}</span></div>
          <pre class="code wrap">{pretty(request.arguments)}</pre>
          <div class="inline">
            <Button kind="main" disabled={request.id in chosen} onClick={() => answer({ ...chosen, [request.id]: true })}>Approve</Button>
            <Button kind="danger" disabled={request.id in chosen} onClick={() => answer({ ...chosen, [request.id]: false })}>Deny</Button>
            <input aria-label="Reason for denying" placeholder="Reason, for the model, if denied" value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
          </div>
        </div>
      ))}
    </div>
  );
}
