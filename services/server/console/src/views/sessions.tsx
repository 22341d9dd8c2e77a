/** Sessions: each a tree of turns; open one, go on from any of its turns, see one again as it came. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { type Json, events, get, remove } from "../api";
import { Exchange } from "../items";
import { go } from "../state";
import { Trace } from "../trace";
import { type Turn, begun, take, trace, waiting, whole } from "../turn";
import { Badge, Button, Empty, Failure, Page, when } from "../ui";
import { clear, continueFrom, turns as working } from "./agents";

const sessions = signal<Json[]>([]);
const next = signal<string | null>(null);
const open = signal("");

/** What a session that has no name began with. */
const beginnings = signal<Record<string, string>>({});

/** Reads how sessions began, a few at a time. One that cannot be read keeps its date. */
async function read(list: Json[]) {
  const unread = list.filter(({ id, name, metadata }) => !name && !metadata.title && !(id in beginnings.value));
  const worker = async () => {
    for (let one = unread.shift(); one; one = unread.shift()) {
      const { id } = one;
      const turns = await get(`/v1/conversations/${encodeURIComponent(id)}/turns?limit=1`).catch(() => ({ data: [] }));
      // A turn without a word, of pictures only, is not read again either.
      const text = turns.data[0]?.input.trim().slice(0, 80);
      if (text !== undefined) beginnings.value = { ...beginnings.value, [id]: text };
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

const titleOf = (session: Json): string => session.name || session.metadata.title || beginnings.value[session.id] || when(session.created_at);

/** What another caller is not to see. */
export function clearSessions() {
  sessions.value = [];
  next.value = null;
  open.value = "";
  beginnings.value = {};
}

/** Of one session, in the tree. */
const MOST_TURNS = 1_000;

interface Branch {
  turn: Json;
  children: Branch[];
}

/** The pictures that a turn was asked with. */
async function pictures(id: string): Promise<string[]> {
  const { data } = await get(`/v1/responses/${id}/input_items?limit=100`);
  const contents: Json[] = data.flatMap((item: Json) => (Array.isArray(item.content) ? item.content : []));
  // Others are somewhere else, from where this page loads nothing.
  return contents.filter(({ type, image_url }) => type === "input_image" && image_url.startsWith("data:")).map(({ image_url }) => image_url);
}

/** Turns by whom they continue; one whose parent is not here begins a branch of its own. */
function tree(turns: Json[]): Branch[] {
  const branches = new Map<string, Branch>(turns.map((turn) => [turn.id, { turn, children: [] }]));
  const roots: Branch[] = [];
  for (const branch of branches.values()) {
    const parent = branches.get(branch.turn.previous_response_id ?? branch.turn.caller_response_id ?? "");
    (parent ? parent.children : roots).push(branch);
  }
  return roots;
}

const TONES: Record<string, string> = { completed: "good", in_progress: "info", awaiting_tools: "warn", failed: "bad", incomplete: "warn" };

export function Sessions() {
  const [error, setError] = useState<unknown>(null);
  const load = async (more = false) => {
    try {
      const page = await get(`/v1/conversations?limit=50${more && next.value ? `&page=${encodeURIComponent(next.value)}` : ""}`);
      sessions.value = more ? [...sessions.value, ...page.data] : page.data;
      next.value = page.next_page;
      void read(page.data);
      setError(null);
    } catch (error) {
      setError(error);
    }
  };
  useEffect(() => void load(), []);
  const session = sessions.value.find(({ id }) => id === open.value) ?? sessions.value[0];
  return (
    <Page title="Sessions" actions={<Button icon="refresh" onClick={() => load()}>Refresh</Button>}>
      <div class="split left">
        <nav class="panel list" aria-label="Sessions">
          {sessions.value.map((one) => (
            <button type="button" key={one.id} class="list-item" aria-current={one === session ? "true" : undefined} onClick={() => (open.value = one.id)}>
              <span class="list-title">{titleOf(one)}</span>
              <span class="sub">{when(one.created_at)}</span>
            </button>
          ))}
          {next.value && <Button onClick={() => load(true)}>More</Button>}
          {sessions.value.length === 0 && <span class="sub">No session yet.</span>}
        </nav>
        <div class="scroll">
          <Failure error={error} retry={() => load()} />
          {session ? <Session key={session.id} session={session} reload={load} /> : !error && <Empty title="No session"><p>A session begins with the first turn of an agent.</p><Button onClick={() => go("agents")}>To the agents</Button></Empty>}
        </div>
      </div>
    </Page>
  );
}

function Session({ session, reload }: { session: Json; reload: () => Promise<void> }) {
  const [turns, setTurns] = useState<Json[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [shown, setShown] = useState<Turn | null>(null);
  const [replaying, setReplaying] = useState<AbortController | null>(null);

  const load = async () => {
    try {
      const all: Json[] = [];
      let page: string | null = "";
      do {
        const answer: Json = await get(`/v1/conversations/${session.id}/turns${page && `?page=${encodeURIComponent(page)}`}`);
        all.push(...answer.data);
        page = answer.next_page;
      } while (page && all.length < MOST_TURNS);
      setTurns(all);
    } catch (error) {
      setError(error);
    }
  };
  useEffect(() => {
    void load();
    return () => replaying?.abort();
  }, []);

  const past = async (turn: Json): Promise<Turn> => {
    const read = begun(turn.input, { live: false, images: await pictures(turn.id) });
    read.response = await get(`/v1/responses/${turn.id}?include[]=file_search_call.results`);
    whole(read, read.response);
    // A turn that goes on from calls says what became of them.
    if (turns?.some((other) => other.previous_response_id === turn.id)) for (const item of waiting(read)) item.decided = true;
    await trace(read);
    return read;
  };
  const guard = async (work: () => Promise<unknown>) => {
    setError(null);
    try {
      await work();
    } catch (error) {
      if ((error as Error).name !== "AbortError") setError(error);
    }
  };
  const show = (turn: Json) => guard(async () => setShown(await past(turn)));
  /** The turn and all that it continues go to the agents' view; what is said there next is a new branch. */
  const fork = (turn: Json) => guard(async () => {
    const chain: Json[] = [];
    for (let one: Json | undefined = turn; one; one = turns?.find(({ id }) => id === one?.previous_response_id)) chain.unshift(one);
    continueFrom(await Promise.all(chain.map(past)));
    go("agents");
  });
  /** The same events under the same numbers, with a pause after each, so that it can be watched. */
  const replay = (turn: Json) => guard(async () => {
    replaying?.abort();
    const control = new AbortController();
    setReplaying(control);
    const known = await past(turn);
    const again = begun(turn.input, { images: known.images });
    try {
      for await (const event of events(`/v1/responses/${turn.id}?stream=true`, undefined, control.signal)) {
        take(again, event);
        setShown({ ...again, trace: known.trace });
        await new Promise((resolve) => setTimeout(resolve, /delta/.test(event.type) ? 25 : 90));
        if (control.signal.aborted) return;
      }
    } finally {
      setReplaying(null);
    }
    setShown(known);
  });
  const erase = () => guard(async () => {
    if (!confirm("Delete this session with all its turns?")) return;
    // A turn that runs in it is stopped while it is still there.
    if (working.value.some((turn) => turns?.some(({ id }) => id === turn.id))) clear();
    await remove(`/v1/conversations/${session.id}`);
    await reload();
  });

  const branches = (list: Branch[], depth: number) => list.flatMap(({ turn, children }): any[] => [
    <li key={turn.id} class="tree-row" style={{ paddingLeft: `${Math.min(depth, 8) * 18}px` }} aria-current={shown?.id === turn.id ? "true" : undefined}>
      <button type="button" class="tree-open" onClick={() => show(turn)}>
        <span class="tree-dot" aria-hidden="true" />
        <span class="tree-text"><span>{turn.input || (turn.caller_response_id ? "asked by an agent" : "(decisions)")}</span><span class="sub">{turn.output || "–"}</span></span>
        <Badge tone={TONES[turn.status]}>{turn.append_only ? "added" : turn.status.replaceAll("_", " ")}</Badge>
        <span class="sub">{turn.usage.input + turn.usage.output > 0 && `${turn.usage.input + turn.usage.output} tokens`}</span>
      </button>
      {!turn.append_only && <Button kind="quiet" icon="play" label="Replay" onClick={() => replay(turn)} />}
      <Button kind="quiet" icon="fork" label="Fork from here" onClick={() => fork(turn)} />
    </li>,
    // A turn that is alone in going on from another is no branch.
    ...branches(children, children.length > 1 ? depth + 1 : depth),
  ]);
  return (
    <>
      <section class="section">
        <h2>{titleOf(session)}<span class="spacer" /><Button kind="quiet" icon="trash" label="Delete this session" onClick={erase} /></h2>
        <p class="sub mono">{session.id} · {when(session.created_at)}{session.agent_id && ` · agent ${session.agent_id}`}</p>
        <Failure error={error} />
        {turns?.length === 0 && <p class="sub">It has no turns.</p>}
        {turns && <ul class="tree" aria-label="Turns">{branches(tree(turns), 0)}</ul>}
      </section>
      {shown && (
        <section class="section" aria-label="Turn">
          <h2>Turn {waiting(shown).length > 0 && <Button kind="main" onClick={() => fork(turns!.find(({ id }) => id === shown.id))}>Decide</Button>}{replaying && <><Badge tone="info">replay</Badge><Button kind="quiet" icon="stop" onClick={() => replaying.abort()}>Stop</Button></>}</h2>
          <div class="turn-view"><Exchange turn={shown} /><Trace trace={shown.trace} /></div>
        </section>
      )}
    </>
  );
}
