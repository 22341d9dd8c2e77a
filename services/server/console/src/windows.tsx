/** Where in a long text a shield strikes: the same question asked of windows of it, each beginning half a window after the last. */
import { type Json, post } from "./api";
import { Badge } from "./ui";

/** Of one text: more are cut wider. */
const MOST = 40;
const AT_ONCE = 4;

export interface Judged {
  text: string;
  /** The highest of its categories. */
  score: number;
  outcome: string;
}

/** Windows of so many words. A text that is no longer is one. */
export function cut(text: string, words: number): string[] {
  const all = text.match(/\S+\s*/g) ?? [];
  const size = Math.max(words, Math.ceil((2 * all.length) / (MOST + 1)));
  if (all.length <= size) return [text];
  const windows: string[] = [];
  for (let at = 0; at + size / 2 < all.length; at += Math.ceil(size / 2)) windows.push(all.slice(at, at + size).join("").trim());
  return windows;
}

export const outcome = (result: Json) =>
  result.error ? "error" : result.violation ? (result.violation.violation_level === "warn" ? "warn" : "violation") : result.redacted ? "redacted" : "safe";

/** Judges windows a few at a time, and says which are done. */
export async function judge(windows: string[], body: (text: string) => Json, told: (done: Judged[]) => void) {
  const done: Judged[] = windows.map((text) => ({ text, score: 0, outcome: "" }));
  let next = 0;
  const worker = async () => {
    for (let at = next++; at < windows.length; at = next++) {
      const result = await post("/v1/safety/run-shield", body(windows[at])).catch((error) => ({ error }));
      done[at] = { text: windows[at], score: Math.max(0, ...(Object.values(result.scores ?? {}) as number[])), outcome: outcome(result) };
      told([...done]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

const TONES: Record<string, string> = { safe: "good", warn: "warn", redacted: "warn", violation: "bad", error: "bad" };

export const Windows = ({ list, threshold }: { list: Judged[]; threshold?: number }) => (
  <details class="windows" open={list.some(({ outcome }) => outcome !== "safe")}>
    <summary>{list.length} windows, {list.filter(({ outcome }) => outcome && outcome !== "safe").length} of them not safe</summary>
    <ol aria-label="Windows">
      {list.map(({ text, score, outcome }, index) => (
        <li key={index} data-outcome={outcome || "open"}>
          <Badge tone={TONES[outcome]}>{outcome || "…"}</Badge>
          <svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={`window ${index + 1}: ${score.toFixed(3)}`}>
            <rect width="100" height="8" class="bar-rest" />
            <rect width={Math.max(0.5, score * 100)} height="8" class={score >= (threshold ?? 0.5) ? "bar-bad" : "bar-own"} />
          </svg>
          <span class="window-score">{score.toFixed(3)}</span>
          <span class="window-text">{text}</span>
        </li>
      ))}
    </ol>
  </details>
);
