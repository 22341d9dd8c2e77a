/** The Markdown that models write, as elements: never as HTML, so nothing in an answer can act on the page. */
import type { ComponentChildren } from "preact";
import { CopyButton } from "./ui";

const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(\*[^*\s][^*\n]*\*)|\[([^\]\n]+)\]\((https?:[^)\s]+)\)/g;

function inline(text: string): ComponentChildren[] {
  const out: ComponentChildren[] = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > last) out.push(text.slice(last, match.index));
    if (match[1]) out.push(<code>{match[1].slice(1, -1)}</code>);
    else if (match[2]) out.push(<strong>{match[2].slice(2, -2)}</strong>);
    else if (match[3]) out.push(<em>{match[3].slice(1, -1)}</em>);
    else out.push(<a href={match[5]} target="_blank" rel="noreferrer noopener">{match[4]}</a>);
    last = match.index + match[0].length;
  }
  if (last < text.length) out.push(text.slice(last));
  return out;
}

export function Markdown({ text }: { text: string }) {
  const out: ComponentChildren[] = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const fence = line.match(/^\s*```(\w*)/);
    if (fence) {
      const body: string[] = [];
      for (at++; at < lines.length && !/^\s*```/.test(lines[at]); at++) body.push(lines[at]);
      at++;
      const code = body.join("\n");
      out.push(
        <div class="fence">
          <div class="fence-head"><span>{fence[1] || "text"}</span><CopyButton text={code} /></div>
          <pre class="code" tabIndex={0}><code>{code}</code></pre>
        </div>,
      );
      continue;
    }
    const heading = line.match(/^(#{1,4})\s+(.*)/);
    if (heading) {
      out.push(<p class="md-heading">{inline(heading[2])}</p>);
      at++;
      continue;
    }
    const item = /^\s*([-*]|\d+[.)])\s+/;
    if (item.test(line)) {
      const ordered = /^\s*\d/.test(line);
      const items: string[] = [];
      for (; at < lines.length && item.test(lines[at]); at++) items.push(lines[at].replace(item, ""));
      const children = items.map((text) => <li>{inline(text)}</li>);
      out.push(ordered ? <ol>{children}</ol> : <ul>{children}</ul>);
      continue;
    }
    if (!line.trim()) {
      at++;
      continue;
    }
    const body: ComponentChildren[] = [];
    for (; at < lines.length && lines[at].trim() && !/^\s*```|^#{1,4}\s/.test(lines[at]) && !item.test(lines[at]); at++) {
      if (body.length > 0) body.push(<br />);
      body.push(...inline(lines[at]));
    }
    out.push(<p>{body}</p>);
  }
  return <div class="markdown">{out}</div>;
}

/** One line of it, for comments of schemas. */
export const Inline = ({ text }: { text: string }) => <>{inline(text)}</>;
