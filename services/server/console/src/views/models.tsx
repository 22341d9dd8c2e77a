/** Models: what there is, which engine runs it, what it holds, and what it did since the start. */
import { useEffect, useState } from "preact/hooks";
import { get, text } from "../api";
import { type Sample, read, sum } from "../prometheus";
import { loaded, models, refresh } from "../state";
import { Badge, Button, Empty, Failure, Page, bytes, seconds } from "../ui";

const TONES: Record<string, string> = { chat: "good", embedding: "info", classifier: "violet", reranker: "warn" };
/** Told in columns of their own, or by the metrics. */
const TOLD = new Set(["engine", "engine_reason", "state", "requests", "waiting", "memory_bytes", "prompt_tokens", "cached_tokens"]);
const EVERY = 3_000;

export function Models() {
  const [metrics, setMetrics] = useState<Sample[]>([]);
  const [error, setError] = useState<unknown>(null);
  const load = async () => {
    try {
      const [list, told] = await Promise.all([get("/v1/models"), text("/metrics")]);
      models.value = list.data;
      setMetrics(read(told));
      setError(null);
    } catch (error) {
      setError(error);
    }
  };
  useEffect(() => {
    void load();
    const timer = setInterval(() => void load(), EVERY);
    return () => clearInterval(timer);
  }, []);
  const tokens = (model: string, direction: string) => sum(metrics, "llama_stack_tokens_total", { model, direction });
  const first = (model: string) => {
    const [total, count] = ["sum", "count"].map((part) => sum(metrics, `llama_stack_time_to_first_token_seconds_${part}`, { model }));
    return count > 0 ? seconds((total / count) * 1_000) : "";
  };
  /** While an answer is written: the mean of all answers so far. */
  const speed = (model: string) => {
    const [total, count] = ["sum", "count"].map((part) => sum(metrics, `llama_stack_time_per_output_token_seconds_${part}`, { model }));
    return total > 0 ? (count / total).toFixed(1) : "–";
  };
  return (
    <Page title="Models" lead="Tokens and times count from the start of this process." actions={<Button icon="refresh" onClick={() => Promise.all([refresh(), load()])}>Refresh</Button>}>
      <div class="scroll">
        <Failure error={error} retry={load} />
        {loaded.value && models.value.length === 0 ? <Empty title="No model"><p>The manifest names models under <code>providers.inference</code>.</p></Empty> : (
          <div class="table-box"><table>
            <thead><tr><th>Model</th><th>Kind</th><th>Engine</th><th>State</th><th class="number">Requests</th><th class="number">Memory</th><th class="number">Context</th><th class="number">Tokens/s</th><th class="number">Input tokens</th><th class="number">Output tokens</th></tr></thead>
            <tbody>
              {models.value.map((model) => {
                const [input, cached, output] = ["input", "cached", "output"].map((direction) => tokens(model.id, direction));
                const said: Record<string, string> = model.metadata ?? {};
                return (
                  <tr key={model.id}>
                    <td><strong>{model.id}</strong><div class="sub">provider {model.owned_by}</div>{Object.entries(said).filter(([name]) => !TOLD.has(name)).map(([name, value]) => <div class="sub" key={name}>{name.replaceAll("_", " ")} {value}</div>)}</td>
                    <td>{model.kind && <Badge tone={TONES[model.kind]}>{model.kind}</Badge>}</td>
                    <td>{said.engine ?? "–"}{said.engine_reason && <div class="sub reason">{said.engine_reason}</div>}</td>
                    <td>{said.state ? <Badge tone={said.state === "loaded" ? "good" : said.state === "loading" ? "warn" : "info"}>{said.state}</Badge> : "–"}</td>
                    <td class="number">{said.requests ?? "–"}{Number(said.waiting) > 0 && <div class="sub">{said.waiting} wait</div>}</td>
                    <td class="number">{said.memory_bytes ? bytes(Number(said.memory_bytes)) : "–"}</td>
                    <td class="number">{model.context_length?.toLocaleString() ?? "–"}{model.embedding_dimension && <div class="sub">{model.embedding_dimension} dimensions</div>}</td>
                    <td class="number">{speed(model.id)}{first(model.id) && <div class="sub">first after {first(model.id)}</div>}</td>
                    <td class="number">{input ? input.toLocaleString() : "–"}{input > 0 && <div class="sub">{Math.round((cached / input) * 100)}% cached</div>}</td>
                    <td class="number">{output ? output.toLocaleString() : "–"}</td>
                  </tr>
                );
              })}
            </tbody>
          </table></div>
        )}
      </div>
    </Page>
  );
}
