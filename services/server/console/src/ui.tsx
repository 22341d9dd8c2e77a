/** Small parts that every view is made of. */
import { type ComponentChildren, type JSX, type VNode, cloneElement } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { type Call, LANGUAGES, write } from "./code";

const PATHS: Record<string, string> = {
  chat: "M3 4.5A1.5 1.5 0 0 1 4.5 3h7A1.5 1.5 0 0 1 13 4.5v5A1.5 1.5 0 0 1 11.5 11H7l-3 2.5V11h-.0A1 1 0 0 1 3 10z",
  agents: "M8 2v2M4.5 4h7A1.5 1.5 0 0 1 13 5.500v5A1.500 1.500 0 0 1 11.500 12h-7A1.500 1.500 0 0 1 3 10.500v-5A1.500 1.500 0 0 1 4.500 4zM6 7.500v1M10 7.500v1M6 14h4",
  stores: "M3 4c0-1.100 2.200-2 5-2s5 .9 5 2-2.200 2-5 2-5-.9-5-2zM3 4v8c0 1.100 2.200 2 5 2s5-.9 5-2V4M3 8c0 1.100 2.200 2 5 2s5-.9 5-2",
  shields: "M8 2l5 2v4c0 3-2.200 5-5 6-2.800-1-5-3-5-6V4zM6 8l1.500 1.500L10.500 6.500",
  sessions: "M4 3v10M4 6h4v3h4M4 11h4M12 9v0M8 11v0",
  models: "M8 2l5.500 3L8 8 2.500 5zM2.500 8L8 11l5.500-3M2.500 11L8 14l5.500-3",
  requests: "M3 4h2M7 4h6M3 8h2M7 8h6M3 12h2M7 12h6",
  metrics: "M2.500 13.500h11M4 11V8M7 11V4M10 11V6.500M13 11V9",
  docs: "M4 2.500h6l3 3v8H4zM10 2.500v3h3M6 8.500h5M6 11h5",
  code: "M5.500 5L2.500 8l3 3M10.500 5l3 3-3 3",
  send: "M8 13V3M4 7l4-4 4 4",
  stop: "M4.500 4.500h7v7h-7z",
  sun: "M8 5.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600zM8 1.500v1.500M8 13v1.500M1.500 8H3M13 8h1.500M3.400 3.400l1 1M11.600 11.600l1 1M3.400 12.600l1-1M11.600 4.400l1-1",
  moon: "M13 9.500A5.500 5.500 0 0 1 6.500 3a5.500 5.500 0 1 0 6.500 6.500z",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12z",
  plus: "M8 3.500v9M3.500 8h9",
  close: "M4 4l8 8M12 4l-8 8",
  key: "M10 3a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM7.800 8.200L3 13M5 11l1.500 1.500",
  copy: "M5.500 5.500h7v7h-7zM3.500 10.500v-7h7",
  play: "M5 3.500l7 4.500-7 4.500z",
  fork: "M5 3v10M5 9c0-2 6-1.500 6-4M11 5V3",
  trash: "M3 4.500h10M6 4.500V3h4v1.500M4.500 4.500l.5 8.500h6l.5-8.500",
  image: "M2.500 3.500h11v9h-11zM2.500 10.500l3-3 2.500 2.500 2-2 3.500 3.500M10.200 6a.6.6 0 1 0 .01 0",
  edit: "M3 13l.6-2.600L11 3l2 2-7.400 7.400z",
  refresh: "M13 8a5 5 0 1 1-1.500-3.500M13 2.500V5h-2.500",
  settings: "M3 5h6M12 5h1M3 11h1M7 11h6M10.500 3.500v3M5.500 9.500v3",
  menu: "M3 5h10M3 8h10M3 11h10",
};

export const Icon = ({ name }: { name: string }) => (
  <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
    <path d={PATHS[name]} />
  </svg>
);

type ButtonProps = JSX.ButtonHTMLAttributes<HTMLButtonElement> & { icon?: string; kind?: "main" | "quiet" | "danger"; label?: string };

/** `label` names a button that shows an icon only. */
export const Button = ({ icon, kind, label, children, ...rest }: ButtonProps) => (
  <button type="button" {...rest} class={`button ${kind ?? ""} ${children ? "" : "only-icon"}`} aria-label={label} title={label}>
    {icon && <Icon name={icon} />}
    {children}
  </button>
);

/** One control with its name; `hint` describes it. */
export function Field({ label, hint, children }: { label: string; hint?: ComponentChildren; children: VNode<any> }) {
  const id = useId();
  return (
    <div class="field">
      <label class="field-label" for={id}>{label}</label>
      {cloneElement(children, { id, "aria-describedby": hint ? `${id}-hint` : undefined })}
      {hint && <span class="hint" id={`${id}-hint`}>{hint}</span>}
    </div>
  );
}

export const Badge = ({ tone, children }: { tone?: string; children: ComponentChildren }) => (
  <span class={`badge ${tone ?? ""}`}>{children}</span>
);

export const Empty = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <strong>{title}</strong>
    <div>{children}</div>
  </div>
);

/** What the stack said, and of which field. */
export const Failure = ({ error, retry }: { error: unknown; retry?: () => void }) => {
  if (!error) return null;
  const api = error instanceof ApiError ? error : null;
  const about = [api?.status ? `HTTP ${api.status}` : null, api?.code, api?.param].filter(Boolean).join(" · ");
  return (
    <div class="failure" role="alert">
      <span>{(error as Error).message || String(error)}</span>
      {about && <span class="failure-about">{about}</span>}
      {retry && <Button kind="quiet" icon="refresh" onClick={retry}>Try again</Button>}
    </div>
  );
};

export const Page = ({ title, lead, actions, children }: {
  title: string;
  lead?: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
}) => (
  <section class="page" aria-labelledby="page-title">
    <header class="page-head">
      <div>
        <h1 id="page-title">{title}</h1>
        {lead && <p class="lead">{lead}</p>}
      </div>
      <div class="actions">{actions}</div>
    </header>
    {children}
  </section>
);

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text).catch(() => undefined);
    setDone(true);
    setTimeout(() => setDone(false), 1_500);
  };
  return <Button kind="quiet" icon="copy" onClick={copy}>{done ? "Copied" : label}</Button>;
}

/** A modal dialog: Escape closes it, and focus comes back to where it was. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const outside = (event: MouseEvent) => event.target === dialog.current && onClose();
  return (
    <dialog ref={dialog} aria-label={title} onClose={onClose} onClick={outside}>
      <div class="dialog-body">
        <header class="dialog-head">
          <h2>{title}</h2>
          <Button kind="quiet" icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Tabs as a keyboard expects them: one stop, and arrows from one to the next. */
export function Tabs({ label, names, chosen, onChoose, children }: {
  label: string;
  names: readonly string[];
  chosen: string;
  onChoose: (name: string) => void;
  children?: ComponentChildren;
}) {
  const press = (event: JSX.TargetedKeyboardEvent<HTMLButtonElement>) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = (names.indexOf(chosen) + step + names.length) % names.length;
    onChoose(names[at]);
    event.currentTarget.parentElement?.querySelectorAll<HTMLElement>('[role="tab"]')[at]?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label}>
      {names.map((name) => (
        <button key={name} type="button" role="tab" aria-selected={name === chosen} tabIndex={name === chosen ? 0 : -1} onClick={() => onChoose(name)} onKeyDown={press}>{name}</button>
      ))}
      {children}
    </div>
  );
}

/** The call that a view makes, as a program would make it. */
export function CodeButton({ call, disabled }: { call: () => Call; disabled?: boolean }) {
  const [open, setOpen] = useState(false);
  const [language, setLanguage] = useState<string>(localStorage.getItem("llama-stack.language") ?? LANGUAGES[0]);
  const choose = (name: string) => {
    setLanguage(name);
    localStorage.setItem("llama-stack.language", name);
  };
  const written = open ? write(language, call()) : "";
  return (
    <>
      <Button icon="code" onClick={() => setOpen(true)} disabled={disabled}>View code</Button>
      {open && (
        <Dialog title="View code" onClose={() => setOpen(false)}>
          <Tabs label="Language" names={LANGUAGES} chosen={language} onChoose={choose}>
            <span class="spacer" />
            <CopyButton text={written} />
          </Tabs>
          <pre class="code" tabIndex={0}><code>{written}</code></pre>
        </Dialog>
      )}
    </>
  );
}

export const Select = ({ value, options, onChange, ...rest }: {
  value: string;
  options: (string | { value: string; label: string })[];
  onChange: (value: string) => void;
  "aria-label"?: string;
  disabled?: boolean;
}) => (
  <select {...rest} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
    {options.map((option) => {
      const { value, label } = typeof option === "string" ? { value: option, label: option } : option;
      return <option key={value} value={value}>{label}</option>;
    })}
  </select>
);

export const seconds = (ms: number) => (ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`);
export const bytes = (count: number) => {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (count >= 1_000 && at < units.length - 1) [count, at] = [count / 1_000, at + 1];
  return `${at === 0 ? count : count.toFixed(1)} ${units[at]}`;
};
export const count = (number: number, thing: string) => `${number} ${thing}${number === 1 ? "" : "s"}`;
export const when = (unix: number) => (unix ? new Date(unix * 1_000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : "–");

/** JSON as people read it; other text as it is. */
export const pretty = (text: string) => {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
};
