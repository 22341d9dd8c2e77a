/** The request log: the latest requests, with filters, while this is open. */
import { useEffect, useState } from "preact/hooks";
import { ApiError, type Json, get } from "../api";
import { Badge, Button, Empty, Failure, Page, Select, seconds } from "../ui";

const EVERY = 2_000;
const MOST = 200;
const isGood = (code: string) => /^(2|3|OK)/.test(code);

export function Requests() {
  const [list, setList] = useState<Json[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [words, setWords] = useState("");
  const [outcome, setOutcome] = useState("all");
  const [paused, setPaused] = useState(false);
  useEffect(() => {
    if (paused) return;
    let stopped = false;
    const again = async () => {
      try {
        setList((await get(`/v1/requests?limit=${MOST}`)).data);
        setError(null);
      } catch (error) {
        setError(error);
      }
      if (!stopped) setTimeout(() => void (stopped || again()), EVERY);
    };
    void again();
    return () => void (stopped = true);
  }, [paused]);
  const wanted = (list ?? []).filter((one) =>
    words.toLowerCase().split(/\s+/).every((word) => `${one.method} ${one.route} ${one.code} ${one.principal} ${one.id}`.toLowerCase().includes(word)) &&
    (outcome === "all" || (outcome === "failed") !== isGood(one.code)),
  );
  const longest = Math.max(...wanted.map((one) => one.seconds), 0.001);
  if (error instanceof ApiError && error.status === 404) {
    return <Page title="Requests"><Empty title="No request log"><p>This stack keeps none.</p></Empty></Page>;
  }
  return (
    <Page
      title="Requests"
      lead={`The latest ${MOST} requests, newest first.`}
      actions={<Button icon={paused ? "play" : "stop"} onClick={() => setPaused(!paused)}>{paused ? "Go on" : "Pause"}</Button>}
    >
      <div class="scroll">
        <Failure error={error} />
        <div class="inline section">
          <input aria-label="Filter requests" placeholder="Route, method, code, principal or request id" value={words} onInput={(event) => setWords(event.currentTarget.value)} />
          <div class="outcome"><Select aria-label="Outcome" value={outcome} options={[{ value: "all", label: "All" }, { value: "good", label: "Succeeded" }, { value: "failed", label: "Failed" }]} onChange={setOutcome} /></div>
        </div>
        {list && wanted.length === 0 && <p class="sub">No request is like that.</p>}
        {wanted.length > 0 && (
          <div class="table-box"><table>
            <thead><tr><th>Time</th><th>Route</th><th>Code</th><th>Principal</th><th class="number">Duration</th><th>Request id</th></tr></thead>
            <tbody>
              {wanted.map((one) => (
                <tr key={one.id}>
                  <td class="time">{new Date(one.started_at * 1_000).toLocaleTimeString()}</td>
                  <td class="mono">{one.method} {one.route}</td>
                  <td><Badge tone={isGood(one.code) ? "good" : /^5|INTERNAL/.test(one.code) ? "bad" : "warn"}>{one.code}</Badge></td>
                  <td class="whole">{one.principal}</td>
                  <td class="number">{seconds(one.seconds * 1_000)}<svg class="bar-time" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect x={100 - Math.max(1, (one.seconds / longest) * 100)} width={Math.max(1, (one.seconds / longest) * 100)} height="4" class="bar-own" /></svg></td>
                  <td class="mono sub">{one.id}</td>
                </tr>
              ))}
            </tbody>
          </table></div>
        )}
      </div>
    </Page>
  );
}
