/** The Markdown that models write, as elements: never as HTML, so nothing in an answer can act on the page. */
import type { ComponentChildren, VNode } from "preact";
import { CopyButton } from "./ui";

/** As deep as one thing stands in another; what is deeper is text. */
const DEEPEST = 8;
/**
 * What each of its groups is, in order: an escape, code, strong, struck out, emphasis, a link's text and target, an address.
 * Lengths have bounds, so that no text is read in the square of its length.
 */
const INLINE = new RegExp(
  [
    String.raw`\\([!-/:-@[-\`{-~])`,
    String.raw`(?<!\`)(\`+)(?!\`)([^\n]{0,2000}?[^\`\n])\2(?!\`)`,
    String.raw`\*\*(?=\S)([^\n]{0,1000}?\S)\*\*|(?<!\w)__(?=\S)([^\n]{0,1000}?\S)__(?!\w)`,
    String.raw`~~(?=\S)([^~\n]*\S)~~`,
    String.raw`\*(?=[^\s*])([^*\n]*[^\s*])\*|(?<!\w)_(?=[^\s_])([^_\n]*[^\s_])_(?!\w)`,
    String.raw`!?\[([^\]\n]{0,300})\]\((https?:(?:[^\s()]|\([^\s()]*\))+)(?:\s+"[^"\n]*")?\)`,
    String.raw`<?(https?:\/\/[^\s<>]*[^\s<>.,:;!?'")\]}])>?`,
  ].join("|"),
  "g",
);

const link = (target: string, text: ComponentChildren) => <a href={target} target="_blank" rel="noreferrer noopener">{text}</a>;

function inline(text: string, depth = 0): ComponentChildren[] {
  if (depth > DEEPEST) return [text];
  const out: ComponentChildren[] = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, escaped, , code, strong, strong2, struck, emphasis, emphasis2, label, target, address] = match;
    if (match.index > last) out.push(text.slice(last, match.index));
    if (escaped) out.push(escaped);
    else if (code) out.push(<code>{code.replace(/^ (.*\S.*) $/, "$1")}</code>);
    else if (strong ?? strong2) out.push(<strong>{inline(strong ?? strong2, depth + 1)}</strong>);
    else if (struck) out.push(<del>{inline(struck, depth + 1)}</del>);
    else if (emphasis ?? emphasis2) out.push(<em>{inline(emphasis ?? emphasis2, depth + 1)}</em>);
    else if (target) out.push(link(target, label || target));
    else out.push(link(address, address));
    last = match.index + whole.length;
  }
  if (last < text.length) out.push(text.slice(last));
  return out;
}

const FENCE = /^(\s*)(`{3,}(?=[^`]*$)|~{3,}(?!~))\s*([^\s`]*)/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*)/;
const RULE = /^\s{0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^\s{0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+)(?=\S)/;
/** Of a trimmed line. */
const COLUMNS = /^\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?$/;

/** The next line that is not empty, or the end. */
function filled(lines: string[], at: number): number {
  while (at < lines.length && !lines[at].trim()) at++;
  return at;
}
const indent = (line: string) => line.length - line.trimStart().length;
const isTable = (lines: string[], at: number) => lines[at].includes("|") && COLUMNS.test((lines[at + 1] ?? "").trim()) && lines[at + 1].includes("|");
const begins = (lines: string[], at: number) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(lines[at])) || isTable(lines, at);

/** A fence that is still being written ends with the text. */
function fenced(lines: string[], at: number, [, before, mark, language]: RegExpMatchArray): [VNode, number] {
  const body: string[] = [];
  const isEnd = (line: string) => line.trim().startsWith(mark) && line.trim() === mark[0].repeat(line.trim().length);
  for (at++; at < lines.length && !isEnd(lines[at]); at++) body.push(lines[at].slice(Math.min(before.length, indent(lines[at]))));
  const code = body.join("\n");
  const shown = (
    <div class="fence">
      <div class="fence-head"><span>{language || "text"}</span><CopyButton text={code} /></div>
      <pre class="code" tabIndex={0}><code>{code}</code></pre>
    </div>
  );
  return [shown, at + 1];
}

const cells = (line: string) =>
  line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function table(lines: string[], at: number): [VNode, number] {
  const [head, rules] = [cells(lines[at]), cells(lines[at + 1])];
  const side = (column: number) => (/^:-+:$/.test(rules[column] ?? "") ? "middle" : /-:$/.test(rules[column] ?? "") ? "number" : undefined);
  const rows: string[][] = [];
  for (at += 2; at < lines.length && lines[at].includes("|"); at++) rows.push(cells(lines[at]));
  const shown = (
    <div class="table-box"><table>
      <thead><tr>{head.map((cell, column) => <th class={side(column)}>{inline(cell)}</th>)}</tr></thead>
      <tbody>{rows.map((row) => <tr>{head.map((_, column) => <td class={side(column)}>{inline(row[column] ?? "")}</td>)}</tr>)}</tbody>
    </table></div>
  );
  return [shown, at];
}

/** Items of one kind; what is indented below one belongs to it. */
function list(lines: string[], at: number, [, margin, mark]: RegExpMatchArray, depth: number): [VNode, number] {
  const ordered = /\d/.test(mark);
  const items: ComponentChildren[] = [];
  const next = () => {
    const match = lines[at]?.match(ITEM);
    return match && match[1].length <= margin.length + 1 && /\d/.test(match[2]) === ordered && !RULE.test(lines[at]) ? match : null;
  };
  for (let match = next(); match; match = next()) {
    const inner = [lines[at].slice(match[0].length)];
    const [from, own] = [match[0].length, match[1].length];
    for (at++; at < lines.length; at++) {
      const line = lines[at];
      if (!line.trim()) {
        const after = filled(lines, at);
        if (after === lines.length || indent(lines[after]) <= own) break;
      } else if (indent(line) <= own && (begins(lines, at) || !lines[at - 1].trim())) break;
      inner.push(line.slice(Math.min(from, indent(line))));
    }
    // Items may stand apart.
    const apart = filled(lines, at);
    if (apart < lines.length && ITEM.test(lines[apart])) at = apart;
    const task = inner[0].match(/^\[([ xX])\]\s+/);
    if (task) inner[0] = `${task[1] === " " ? "☐" : "☑"} ${inner[0].slice(task[0].length)}`;
    items.push(<li class={task ? "task" : undefined}>{blocks(inner, depth + 1, inner.every((line) => line.trim()))}</li>);
  }
  return [ordered ? <ol start={Number.parseInt(mark)}>{items}</ol> : <ul>{items}</ul>, at];
}

/** `tight`: paragraphs are only their text, as in the items of a list. */
function blocks(lines: string[], depth = 0, tight = false): ComponentChildren[] {
  if (depth > DEEPEST) return [lines.join("\n")];
  const out: ComponentChildren[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    let match: RegExpMatchArray | null;
    let block: ComponentChildren;
    if (!line.trim()) {
      at++;
      continue;
    }
    if ((match = line.match(FENCE))) [block, at] = fenced(lines, at, match);
    else if ((match = line.match(HEADING))) {
      block = <p class={`md-heading md-${match[1].length}`} role="heading" aria-level={Math.min(6, match[1].length + 2)}>{inline(match[2].replace(/\s#+$/, ""))}</p>;
      at++;
    } else if (RULE.test(line)) {
      block = <hr />;
      at++;
    } else if (QUOTE.test(line)) {
      const inner: string[] = [];
      for (; at < lines.length && QUOTE.test(lines[at]); at++) inner.push(lines[at].replace(QUOTE, ""));
      block = <blockquote>{blocks(inner, depth + 1)}</blockquote>;
    } else if (isTable(lines, at)) [block, at] = table(lines, at);
    else if ((match = line.match(ITEM))) [block, at] = list(lines, at, match, depth);
    else {
      const body: ComponentChildren[] = [];
      do {
        if (body.length > 0) body.push(<br />);
        body.push(...inline(lines[at].trim()));
        at++;
      } while (at < lines.length && lines[at].trim() && !begins(lines, at));
      block = tight ? <>{body}</> : <p>{body}</p>;
    }
    out.push(block);
  }
  return out;
}

export const Markdown = ({ text }: { text: string }) => <div class="markdown">{blocks(text.split(/\r?\n/))}</div>;

/** One line of it, for comments of schemas. */
export const Inline = ({ text }: { text: string }) => <>{inline(text)}</>;
