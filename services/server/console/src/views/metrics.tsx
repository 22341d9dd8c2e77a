/** Metrics: requests, times and tokens as they go, from `/metrics`, which is asked every two seconds while this is open. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { text } from "../api";
import { type Sample, read, sum } from "../prometheus";
import { Badge, Failure, Page, seconds } from "../ui";

interface Point {
  at: number;
  samples: Sample[];
}

const EVERY = 2_000;
const KEPT = 150;
// Goes on from where it was when the view is opened again.
const points = signal<Point[]>([]);

const OWN = new Set(["/metrics", "/readyz", "/livez", "/v1/health", "/", "/docs", "/console/{file}"]);

const rate = (of: (samples: Sample[]) => number) =>
  points.value.slice(1).map((point, index) => {
    const before = points.value[index];
    return { at: point.at, value: Math.max(0, (of(point.samples) - of(before.samples)) / ((point.at - before.at) / 1_000)) };
  });

const requests = (samples: Sample[], bad = false) =>
  samples.filter((one) => one.name === "llama_stack_requests_total" && !OWN.has(one.labels.route) && (!bad || !/^(2|3|OK)/.test(one.labels.code))).reduce((all, one) => all + one.value, 0);

function Plot({ name, unit, lines }: { name: string; unit: string; lines: { label: string; tone: string; points: { at: number; value: number }[] }[] }) {
  const all = lines.flatMap((line) => line.points);
  const peak = Math.max(...all.map((point) => point.value), 0);
  const top = peak > 0 ? peak * 1.15 : 1;
  const [from, to] = [Math.min(...all.map((point) => point.at)), Math.max(...all.map((point) => point.at))];
  const x = (at: number) => (to > from ? ((at - from) / (to - from)) * 400 : 400);
  const y = (value: number) => 90 - (value / top) * 84;
  const number = (value: number) => (value >= 100 ? Math.round(value) : value.toFixed(value >= 10 ? 1 : 2));
  return (
    <figure class="plot">
      <figcaption><strong>{name}{unit}</strong><span class="spacer" />{lines.map((line) => <span class={`legend ${line.tone}`} key={line.label}>{line.label} {number(line.points.at(-1)?.value ?? 0)}</span>)}</figcaption>
      <svg viewBox="0 0 400 92" preserveAspectRatio="none" role="img" aria-label={`${name}, at most ${number(peak)} ${unit}`}>
        <path class="grid" d="M0 90H400M0 48H400M0 6H400" />
        {lines.map((line) => line.points.length > 1 && <path key={line.label} class={`series ${line.tone}`} d={line.points.map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.value).toFixed(1)}`).join("")} />)}
      </svg>
      <div class="sub plot-foot"><span>{all.length > 0 ? `${Math.round((to - from) / 1_000)} s ago` : ""}</span><span>peak {number(peak)} {unit}</span><span>now</span></div>
    </figure>
  );
}

/** The bucket in which the share lies, from a histogram's or a summary's samples. */
function quantile(samples: Sample[], name: string, labels: Record<string, string>, share: number): number | null {
  const of = samples.filter((one) => one.name === `${name}_bucket` && Object.entries(labels).every(([key, value]) => one.labels[key] === value));
  const buckets = of.map((one) => ({ le: Number(one.labels.le.replace("+Inf", "Infinity")), count: one.value })).sort((a, b) => a.le - b.le);
  const total = buckets.at(-1)?.count ?? 0;
  const bucket = buckets.find(({ count }) => count >= total * share);
  return total > 0 && bucket ? bucket.le : null;
}

export function Metrics() {
  const [error, setError] = useState<unknown>(null);
  const [filter, setFilter] = useState("");
  useEffect(() => {
    let stopped = false;
    const again = async () => {
      try {
        const samples = read(await text("/metrics"));
        points.value = [...points.value, { at: Date.now(), samples }].slice(-KEPT);
        setError(null);
      } catch (error) {
        setError(error);
      }
      if (!stopped) setTimeout(again, EVERY);
    };
    void again();
    return () => void (stopped = true);
  }, []);
  const last = points.value.at(-1)?.samples ?? [];
  const routes = new Map<string, { route: string; method: string; codes: Map<string, number>; count: number }>();
  for (const { name, labels, value } of last) {
    if (name !== "llama_stack_requests_total" || !`${labels.route} ${labels.method} ${labels.code}`.toLowerCase().includes(filter.toLowerCase())) continue;
    const key = `${labels.method} ${labels.route}`;
    const entry = routes.get(key) ?? { route: labels.route, method: labels.method, codes: new Map(), count: 0 };
    entry.codes.set(labels.code, (entry.codes.get(labels.code) ?? 0) + value);
    entry.count += value;
    routes.set(key, entry);
  }
  const verdicts = last.filter(({ name }) => name === "llama_stack_shield_verdicts_total");
  const limit = (value: number | null) => (value === null ? "–" : value === Infinity ? "> 2 min" : `≤ ${seconds(value * 1_000)}`);
  const ofLine = (label: string, tone: string, direction: string) => ({ label, tone, points: rate((samples) => sum(samples, "llama_stack_tokens_total", { direction })) });
  return (
    <Page title="Metrics" lead={<>From <a href="/metrics">/metrics</a>, every two seconds while this is open. The requests of this view are left out of the plots.</>}>
      <div class="scroll">
        <Failure error={error} />
        <div class="plots section">
          <Plot name="Requests" unit="/s" lines={[{ label: "all", tone: "info", points: rate((samples) => requests(samples)) }, { label: "failed", tone: "bad", points: rate((samples) => requests(samples, true)) }]} />
          <Plot name="In flight" unit="" lines={[{ label: "requests", tone: "violet", points: points.value.map(({ at, samples }) => ({ at, value: Math.max(0, sum(samples, "llama_stack_requests_in_flight") - 1) })) }]} />
          <Plot name="Input tokens" unit="/s" lines={[ofLine("all", "info", "input"), ofLine("cached", "good", "cached")]} />
          <Plot name="Output tokens" unit="/s" lines={[ofLine("out", "good", "output")]} />
        </div>
        <section class="section" aria-labelledby="routes-title">
          <h2 id="routes-title">Routes <span class="spacer" /><input class="filter" aria-label="Filter routes" placeholder="Route, method or code" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} /></h2>
          <div class="table-box"><table>
            <thead><tr><th>Route</th><th class="number">Requests</th><th>Codes</th><th class="number">Mean</th><th class="number">p50</th><th class="number">p95</th></tr></thead>
            <tbody>
              {[...routes.values()].sort((a, b) => b.count - a.count).map(({ route, method, codes, count }) => {
                const done = sum(last, "llama_stack_request_duration_seconds_count", { route });
                return (
                  <tr key={`${method} ${route}`}>
                    <td class="mono">{method} {route}</td>
                    <td class="number">{count}</td>
                    <td>{[...codes].map(([code, times]) => <Badge key={code} tone={/^(2|3|OK)/.test(code) ? "good" : /^5|INTERNAL/.test(code) ? "bad" : "warn"}>{code} × {times}</Badge>)}</td>
                    <td class="number">{done > 0 ? seconds((sum(last, "llama_stack_request_duration_seconds_sum", { route }) / done) * 1_000) : "–"}</td>
                    <td class="number">{limit(quantile(last, "llama_stack_request_duration_seconds", { route }, 0.5))}</td>
                    <td class="number">{limit(quantile(last, "llama_stack_request_duration_seconds", { route }, 0.95))}</td>
                  </tr>
                );
              })}
            </tbody>
          </table></div>
        </section>
        {verdicts.length > 0 && (
          <section class="section"><h2>Verdicts</h2>
            <table><thead><tr><th>Shield</th><th>Outcome</th><th class="number">Times</th></tr></thead>
              <tbody>{verdicts.map(({ labels, value }) => <tr><td>{labels.shield}</td><td><Badge tone={labels.outcome === "safe" ? "good" : "bad"}>{labels.outcome}</Badge></td><td class="number">{value}</td></tr>)}</tbody>
            </table>
          </section>
        )}
      </div>
    </Page>
  );
}
