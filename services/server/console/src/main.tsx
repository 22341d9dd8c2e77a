/** The frame: navigation, who asks, whether the stack answers, and the view. */
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { apiKey, reachable, tenant } from "./api";
import { clearLists, go, listError, refresh, route, theme, watch } from "./state";
import { Button, Dialog, Empty, Failure, Field, Icon } from "./ui";
import { Agents, clearAgents } from "./views/agents";
import { Chat, clearChat } from "./views/chat";
import { Docs } from "./views/docs";
import { Metrics } from "./views/metrics";
import { Models } from "./views/models";
import { Requests } from "./views/requests";
import { Sessions, clearSessions } from "./views/sessions";
import { Shields, clearShields } from "./views/shields";
import { Stores } from "./views/stores";

const VIEWS = [
  { id: "chat", name: "Chat", view: Chat },
  { id: "agents", name: "Agents", view: Agents },
  { id: "stores", name: "Vector stores", view: Stores },
  { id: "shields", name: "Shields", view: Shields },
  { id: "sessions", name: "Sessions", view: Sessions },
  { id: "models", name: "Models", view: Models },
  { id: "requests", name: "Requests", view: Requests },
  { id: "metrics", name: "Metrics", view: Metrics },
  { id: "docs", name: "API reference", view: Docs },
];

const THEMES: Record<string, { next: string; icon: string; label: string }> = {
  "": { next: "light", icon: "auto", label: "Theme: as the system. Switch to light" },
  light: { next: "dark", icon: "sun", label: "Theme: light. Switch to dark" },
  dark: { next: "", icon: "moon", label: "Theme: dark. Switch to the system's" },
};

/** Says who asks from now on. What the caller before saw goes first, so that what still runs is stopped in that caller's name. */
function become(name: typeof apiKey, text: string) {
  if (text === name.value) return;
  for (const clear of [clearChat, clearAgents, clearSessions, clearShields, clearLists]) clear();
  name.value = text;
}

function Access({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Credentials" onClose={onClose}>
      <form method="dialog" class="form">
        <Field label="API key" hint="Sent as a bearer token. Kept until this tab is closed.">
          <input type="password" autocomplete="off" value={apiKey.value} onChange={(event) => become(apiKey, event.currentTarget.value.trim())} />
        </Field>
        <Field label="Tenant" hint="Sent as x-llama-stack-tenant. Empty: the default.">
          <input autocomplete="off" value={tenant.value} onChange={(event) => become(tenant, event.currentTarget.value.trim())} />
        </Field>
        <div class="actions end"><button class="button main">Done</button></div>
      </form>
    </Dialog>
  );
}

function Shortcuts({ onClose }: { onClose: () => void }) {
  const keys = [
    ["⌘/Ctrl Enter", "send, search or run"],
    ["Esc", "stop an answer, close a dialog"],
    ["/", "go to the first text field"],
    ["Alt 1 … 9", VIEWS.map((view) => view.name).join(", ")],
    ["?", "this list"],
  ];
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl class="keys">{keys.map(([key, what]) => [<dt><kbd>{key}</kbd></dt>, <dd>{what}</dd>])}</dl>
    </Dialog>
  );
}

function App() {
  const [dialog, setDialog] = useState("");
  const [menu, setMenu] = useState(false);
  const current = VIEWS.find((view) => view.id === route.value[0]) ?? VIEWS[0];
  const look = THEMES[theme.value] ?? THEMES[""];
  // The reference is for everybody.
  const locked = listError.value?.status === 401 && current.id !== "docs";

  useEffect(() => {
    document.title = `${current.name} · llama-stack`;
    setMenu(false);
  }, [current]);

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const digit = event.code.match(/^Digit([1-9])$/);
      if (event.altKey && digit) {
        event.preventDefault();
        return go(VIEWS[Number(digit[1]) - 1].id);
      }
      const typing = (event.target as HTMLElement).closest("input, textarea, select, dialog");
      if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) document.querySelector<HTMLElement>('main button[aria-label="Stop"]')?.click();
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "?") setDialog("keys");
      if (event.key === "/") {
        event.preventDefault();
        document.querySelector<HTMLElement>("main textarea, main input:not([type=file])")?.focus();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  return (
    <div class={`shell ${menu ? "menu-open" : ""}`}>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          // The part after `#` says which view is open.
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >Skip to content</a>
      <header class="bar">
        <Button kind="quiet" icon="menu" label="Menu" aria-expanded={menu} onClick={() => setMenu(!menu)} />
        <span class="brand">llama-stack</span>
        <span class="bar-view">{current.name}</span>
      </header>
      <nav class="rail" aria-label="Views">
        <div class="brand"><svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 12h10M3 8h10M3 4h6" /></svg>llama-stack</div>
        <ul>
          {VIEWS.map((view, index) => (
            <li key={view.id}>
              <a
                href={view.id === "docs" ? "/docs" : `/#/${view.id}`}
                aria-current={view === current ? "page" : undefined}
                title={`Alt ${index + 1}`}
                onClick={(event) => {
                  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                  event.preventDefault();
                  go(view.id);
                }}
              >
                <Icon name={view.id} />{view.name}
              </a>
            </li>
          ))}
        </ul>
        <div class="rail-foot">
          <span class={`state ${reachable.value ? "up" : "down"}`} role="status">{reachable.value ? "connected" : "disconnected"}</span>
          <span class="spacer" />
          <Button kind="quiet" icon="key" label="Credentials: API key and tenant" onClick={() => setDialog("access")} />
          <Button kind="quiet" icon={look.icon} label={look.label} onClick={() => (theme.value = look.next)} />
        </div>
      </nav>
      <main id="main" tabIndex={-1}>
        {!reachable.value && (
          <div class="banner" role="alert">
            <div>
              <strong>The stack does not answer.</strong> It is asked again every two seconds; what you have typed stays here.
            </div>
            <Button icon="refresh" onClick={() => refresh()}>Try now</Button>
          </div>
        )}
        {locked ? (
          <Empty title="This stack wants to know who calls">
            <p>{listError.value?.message}</p>
            <Button kind="main" icon="key" onClick={() => setDialog("access")}>Enter an API key</Button>
          </Empty>
        ) : (
          <>
            <Failure error={listError.value} retry={() => refresh()} />
            {/* Another caller sees other things: a view begins anew. */}
            <current.view key={`${current.id} ${apiKey.value} ${tenant.value}`} />
          </>
        )}
      </main>
      {dialog === "access" && <Access onClose={() => setDialog("")} />}
      {dialog === "keys" && <Shortcuts onClose={() => setDialog("")} />}
    </div>
  );
}

void refresh();
watch();
render(<App />, document.getElementById("app")!);
