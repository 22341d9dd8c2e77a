/** Models: what there is, which engine runs it, and what it did since the start. */
import { useEffect, useState } from "preact/hooks";
import { type Json, text } from "../api";
import { loaded, models, refresh } from "../state";
import { Badge, Button, Empty, Page } from "../ui";
import { read, sum } from "../prometheus";

const TONES: Record<string, string> = { chat: "good", embedding: "info", classifier: "violet", reranker: "warn" };

export function Models() {
  const [metrics, setMetrics] = useState<Json[]>([]);
  const load = () => Promise.all([refresh(), text("/metrics").then((text) => setMetrics(read(text)), () => undefined)]);
  useEffect(() => void load(), []);
  const tokens = (model: string, direction: string) => sum(metrics, "llama_stack_tokens_total", { model, direction });
  const first = (model: string) => {
    const [total, count] = [sum(metrics, "llama_stack_time_to_first_token_seconds_sum", { model }), sum(metrics, "llama_stack_time_to_first_token_seconds_count", { model })];
    return count > 0 ? `${Math.round((total / count) * 1_000)} ms` : "–";
  };
  return (
    <Page title="Models" lead="What can be asked for by its id. Figures count from the start of this process." actions={<Button icon="refresh" onClick={() => load()}>Refresh</Button>}>
      <div class="scroll">
        {loaded.value && models.value.length === 0 ? <Empty title="No model" /> : (
          <div class="table-box"><table>
            <thead><tr><th>Model</th><th>Kind</th><th>Provider</th><th class="number">Context</th><th class="number">Dimensions</th><th class="number">Input tokens</th><th class="number">cached</th><th class="number">Output tokens</th><th class="number">Time to first token</th></tr></thead>
            <tbody>
              {models.value.map((model) => {
                const [input, cached, output] = ["input", "cached", "output"].map((direction) => tokens(model.id, direction));
                return (
                  <tr key={model.id}>
                    <td><strong>{model.id}</strong>{Object.entries(model.metadata ?? {}).map(([name, value]) => <div class="sub" key={name}>{name}: {value as string}</div>)}</td>
                    <td>{model.kind && <Badge tone={TONES[model.kind]}>{model.kind}</Badge>}</td>
                    <td>{model.owned_by}</td>
                    <td class="number">{model.context_length?.toLocaleString() ?? "–"}</td>
                    <td class="number">{model.embedding_dimension ?? "–"}</td>
                    <td class="number">{input ? input.toLocaleString() : "–"}</td>
                    <td class="number">{input ? `${Math.round((cached / input) * 100)}%` : "–"}</td>
                    <td class="number">{output ? output.toLocaleString() : "–"}</td>
                    <td class="number">{first(model.id)}</td>
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
