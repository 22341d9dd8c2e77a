// The playground in a browser, against a stack whose model says what it is told (tests/src/scripted.rs).
//
//   node playground.mjs URL BROWSER [FOLDER]      FOLDER: where screenshots go
//
// Says `agreed` once every case has passed.
import assert from "node:assert/strict";
import net from "node:net";
import { chromium } from "playwright-core";

const [url, executablePath, shots] = process.argv.slice(2);
const target = new URL(url);

/** The stack as a browser reaches it: a door that can be shut and opened again. */
const sockets = new Set();
const door = net.createServer((near) => {
  const far = net.connect(Number(target.port), target.hostname);
  for (const [from, to] of [[near, far], [far, near]]) {
    sockets.add(from);
    from.on("error", () => to.destroy());
    from.on("close", () => (sockets.delete(from), to.destroy()));
    from.pipe(to);
  }
});
const open = (port) => new Promise((resolve) => door.listen(port, "127.0.0.1", resolve));
const shut = () => new Promise((resolve) => {
  door.close(resolve);
  for (const socket of sockets) socket.destroy();
});
await open(0);
const { port } = door.address();
const base = `http://127.0.0.1:${port}`;

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args: quiet });

async function visit(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 800 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.broken = [];
  page.on("pageerror", (error) => page.broken.push(error.message));
  page.on("console", (line) => /Content Security Policy/.test(line.text()) && page.broken.push(line.text()));
  await page.goto(base + path);
  return page;
}

const message = (page) => page.getByRole("textbox", { name: "Message" });
async function say(page, text) {
  await message(page).fill(text);
  // It can be sent once the list of models has come.
  await page.locator('button[aria-label="Send"]:enabled').waitFor();
  await message(page).press("Enter");
}
const answers = (page) => page.locator('[data-role="assistant"]');
const shot = async (page, name) => shots && (await page.screenshot({ path: `${shots}/${name}.png` }));
const answer = async (method, path, body) =>
  (await fetch(base + path, { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) })).json();

/** One grey point. */
const DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

const cases = {
  "a chat streams, can be stopped, and says what it cost": async () => {
    const page = await visit("/");
    await say(page, "count 12");
    await answers(page).filter({ hasText: "1 2 3 4 5 6 7 8 9 10 11 12" }).waitFor();
    await page.getByText(/2 in · 12 out/).waitFor();
    await say(page, "forever");
    // Words without end: it is shown while it comes, or this waits for ever.
    await answers(page).nth(1).filter({ hasText: "20 21 22" }).waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await answers(page).nth(1).getByText("stopped").waitFor();
    await say(page, "count 3");
    await answers(page).nth(2).filter({ hasText: "1 2 3" }).waitFor();
    return page;
  },
  "an answer's Markdown is shown as it is meant, and nothing in it acts on the page": async () => {
    const page = await visit("/");
    const lines = [
      "so", "", "## Plan", "", "1. *one*", "   - nested `code`", "   - [ ] open", "2. two", "", "   more of two", "3. three", "",
      "| name | size |", "|---|--:|", "| a \\| b | **7** |", "", "> quoted", "", "---", "~~~js", "let a_b_c = 1;", "~~~",
      "[good](https://example.com/a_(b)) [bad](javascript:window.acted=1) <img src=x onerror=window.acted=1> <script>window.acted=1</script>",
    ];
    await say(page, lines.join("\n"));
    const shown = answers(page).locator(".markdown");
    await shown.getByRole("heading", { name: "Plan" }).waitFor();
    await shown.getByText("<script>window.acted=1</script>").waitFor();
    const seen = await shown.evaluate((node) => ({
      items: [...node.querySelectorAll(":scope > ol > li")].map((item) => item.innerText.split("\n").filter(Boolean)),
      row: [...node.querySelectorAll("td")].map((cell) => `${cell.className}:${cell.innerHTML}`),
      rest: [...node.querySelectorAll(":scope > blockquote, :scope > hr, .fence code")].map((part) => part.innerText),
      links: [...node.querySelectorAll("a")].map((link) => link.getAttribute("href")),
      alive: node.querySelectorAll("img, script").length + Number("acted" in window),
    }));
    assert.deepEqual(seen, {
      items: [["one", "nested code", "☐ open"], ["two", "more of two"], ["three"]],
      row: [":a | b", "number:<strong>7</strong>"],
      rest: ["quoted", "", "let a_b_c = 1;"],
      links: ["https://example.com/a_(b)"],
      alive: 0,
    });
    return page;
  },
  "an answer is asked for again, a question is changed, and the chat is still there when the page is loaded again": async () => {
    const page = await visit("/");
    await say(page, "count 2");
    await answers(page).filter({ hasText: "1 2" }).waitFor();
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/chat/completions"));
    await page.getByRole("button", { name: "Regenerate" }).click();
    assert.deepEqual((await asked).postDataJSON().messages, [{ role: "user", content: "count 2" }]);
    await page.getByText(/2 in · 2 out/).waitFor();
    await page.reload();
    await answers(page).filter({ hasText: "1 2" }).waitFor();
    await page.getByRole("button", { name: "Edit", exact: true }).click();
    assert.equal(await message(page).inputValue(), "count 2");
    await say(page, "count 4");
    await answers(page).filter({ hasText: "1 2 3 4" }).waitFor();
    assert.equal(await answers(page).count(), 1);
    // What still comes of an answer does not bring back a chat that was left.
    await say(page, "forever");
    await answers(page).nth(1).filter({ hasText: "5 6 7" }).waitFor();
    await page.getByRole("button", { name: "New chat" }).click();
    await page.getByText("Ask a model of this stack").waitFor();
    await say(page, "count 3");
    await answers(page).filter({ hasText: "1 2 3" }).waitFor();
    assert.equal(await answers(page).count(), 1);

    await page.getByRole("link", { name: "Agents" }).click();
    await say(page, "count 5");
    await answers(page).filter({ hasText: "1 2 3 4 5" }).waitFor();
    const { data: [before] } = await answer("GET", "/v1/responses?limit=1");
    const done = page.waitForResponse((response) => response.url().endsWith("/v1/responses"));
    await page.getByRole("button", { name: "Regenerate" }).click();
    await (await done).finished();
    await answers(page).filter({ hasText: "1 2 3 4 5" }).waitFor();
    const { data: [after] } = await answer("GET", "/v1/responses?limit=1");
    assert.notEqual(after.id, before.id);
    assert.equal(after.previous_response_id, before.previous_response_id);
    return page;
  },
  "an error of the API is shown with its message": async () => {
    const page = await visit("/");
    await say(page, "fail");
    await page.getByRole("alert").filter({ hasText: "the scripted model failed, as it was asked to" }).waitFor();
    return page;
  },
  "the same call is shown in five languages": async () => {
    const page = await visit("/");
    await message(page).fill("count 2");
    await page.getByRole("button", { name: "View code" }).click();
    const dialog = page.getByRole("dialog", { name: "View code" });
    for (const [language, part] of [["curl", "curl -N"], ["Python", "client.chat.completions.create"], ["TypeScript", "await client.chat.completions.create"], ["Rust", "reqwest::Client"], ["grpcurl", "llama_stack.v1.Inference/StreamChat"]]) {
      await dialog.getByRole("tab", { name: language, exact: true }).click();
      const written = await dialog.locator("pre").innerText();
      assert(written.includes(part) && written.includes("count 2"), `${language}: ${written}`);
    }
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    // Who asks is said in each; the key itself is in none.
    await page.getByRole("button", { name: /^Credentials/ }).click();
    await page.getByLabel("API key", { exact: true }).fill("lsk_secret");
    await page.getByLabel("Tenant", { exact: true }).fill("acme");
    await page.getByRole("button", { name: "Done" }).click();
    // Longer than an argument of a program may be.
    await message(page).fill("long ".repeat(30_000));
    await page.getByRole("button", { name: "View code" }).click();
    for (const language of ["curl", "Python", "TypeScript", "Rust", "grpcurl"]) {
      await dialog.getByRole("tab", { name: language, exact: true }).click();
      const written = await dialog.locator("pre").innerText();
      assert(written.includes("LLAMA_STACK_API_KEY") && written.includes("acme") && !written.includes("lsk_secret"), `${language}: ${written.slice(0, 800)}`);
      if (/curl/.test(language)) assert.match(written, /-d @-? [^]*<<'JSON'\n\{[^]*\}\nJSON\n$/);
    }
    return page;
  },
  "a turn with a tool is traced": async () => {
    const page = await visit("/#/agents");
    await page.getByRole("checkbox", { name: /calculator/ }).check();
    await page.getByRole("checkbox", { name: "guard" }).check();
    await page.getByLabel("Use of tools").selectOption("required");
    await page.getByLabel("Max tool calls").fill("1");
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/responses"));
    await say(page, 'call calculator {"expression": "6 * 7"}');
    const body = (await asked).postDataJSON();
    assert.deepEqual([body.tool_choice, body.max_tool_calls], ["required", 1]);
    await answers(page).filter({ hasText: "the tool said: 42" }).waitFor();
    const trace = page.getByRole("region", { name: "Trace" });
    const tool = trace.locator('[data-step="tool"]');
    await tool.filter({ hasText: "calculator" }).waitFor();
    await tool.locator("summary").click();
    await tool.getByText('"expression": "6 * 7"').waitFor();
    await tool.locator("pre", { hasText: /^42$/ }).waitFor();
    assert((await trace.locator('[data-step="inference"]').count()) >= 2);
    await trace.locator('[data-step="shield"]').filter({ hasText: "safe" }).first().waitFor();
    await shot(page, "playground-agents");
    await trace.getByRole("tab", { name: "Graph" }).click();
    await trace.getByRole("img", { name: /Graph of \d+ steps: .*calculator/ }).waitFor();
    return page;
  },
  "a call waits for approval, and runs or does not as it is decided": async () => {
    for (const [button, outcome] of [["Approve", "the tool said: 42"], ["Deny", "did not approve"]]) {
      const page = await visit("/#/agents");
      await page.getByRole("checkbox", { name: /calculator/ }).check();
      await page.getByLabel("Approval of tool calls").selectOption("always");
      await say(page, 'call calculator {"expression": "6 * 7"}');
      const group = page.getByRole("group", { name: "Calls that wait for you" });
      await group.getByText("6 * 7").waitFor();
      assert.equal(await page.getByText("the tool said").count(), 0, "it ran before it was approved");
      await group.getByRole("button", { name: button }).click();
      await answers(page).nth(1).filter({ hasText: outcome }).waitFor();
      assert.deepEqual(page.broken, []);
      await page.context().close();
    }
  },
  "images go with a message, to a model and to an agent": async () => {
    const dot = { name: "dot.png", mimeType: "image/png", buffer: Buffer.from(DOT, "base64") };
    const page = await visit("/");
    await page.getByLabel("Image files").setInputFiles([dot, dot]);
    await page.getByRole("button", { name: "Remove image 2" }).click();
    await page.getByRole("button", { name: "View code" }).click();
    const code = page.getByRole("dialog", { name: "View code" }).locator("pre");
    assert.match(await code.innerText(), /image_url/);
    await page.keyboard.press("Escape");
    await say(page, "look");
    await answers(page).filter({ hasText: "you said: look, with 1 images" }).waitFor();
    await page.locator('[data-role="user"]').getByRole("img", { name: "Image 1" }).waitFor();
    await page.getByLabel("Image files").setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") });
    await page.getByRole("alert").filter({ hasText: "an image must be PNG, JPEG, WebP or GIF" }).waitFor();
    await page.getByRole("link", { name: "Agents" }).click();
    await page.getByLabel("Image files").setInputFiles(dot);
    // A picture says something by itself.
    await page.locator('button[aria-label="Send"]:enabled').click();
    await answers(page).filter({ hasText: "with 1 images" }).waitFor();
    const { data } = await answer("GET", "/v1/responses?limit=1");
    const { data: input } = await answer("GET", `/v1/responses/${data[0].id}/input_items`);
    assert.equal(input[0].content[0].image_url, `data:image/png;base64,${DOT}`);
    return page;
  },
  "an agent is made, asked, changed and deleted": async () => {
    const page = await visit("/#/agents");
    page.on("dialog", (dialog) => dialog.accept());
    await page.getByRole("checkbox", { name: /calculator/ }).check();
    await page.getByRole("button", { name: "Keep as an agent" }).click();
    const made = page.getByRole("dialog", { name: "New agent" });
    await made.getByLabel("Name").fill("clerk");
    await made.getByRole("checkbox", { name: "approve calculator" }).check();
    await made.getByRole("button", { name: "View code" }).click();
    await page.getByRole("dialog", { name: "View code" }).locator("pre").filter({ hasText: "/v1/agents" }).waitFor();
    await page.keyboard.press("Escape");
    await made.getByRole("button", { name: "Create" }).click();
    const card = page.getByRole("region", { name: "The agent" });
    await card.getByText("calculator").first().waitFor();
    await say(page, 'call calculator {"expression": "6 * 7"}');
    await page.getByRole("group", { name: "Calls that wait for you" }).getByRole("button", { name: "Approve" }).click();
    await answers(page).nth(1).filter({ hasText: "the tool said: 42" }).waitFor();

    await card.getByRole("button", { name: "Edit agent" }).click();
    const changed = page.getByRole("dialog", { name: "Agent clerk" });
    await changed.getByRole("checkbox", { name: "approve calculator" }).uncheck();
    await changed.getByLabel("Temperature").fill("9");
    await changed.getByRole("button", { name: "Save" }).click();
    // The browser itself refuses what the field does not allow.
    assert(await changed.isVisible(), "a temperature of 9 was sent");
    await changed.getByLabel("Temperature").fill("0.5");
    await changed.getByRole("button", { name: "Save" }).click();
    await changed.waitFor({ state: "hidden" });
    await page.getByRole("button", { name: "New session" }).click();
    await say(page, 'call calculator {"expression": "6 * 8"}');
    await answers(page).filter({ hasText: "the tool said: 48" }).waitFor();
    const { data } = await answer("GET", "/v1/agents");
    assert.deepEqual([data[0].name, data[0].require_approval, data[0].temperature], ["clerk", [], 0.5]);

    await card.getByRole("button", { name: "Edit agent" }).click();
    await changed.getByRole("button", { name: "Delete" }).click();
    await card.waitFor({ state: "hidden" });
    assert.equal((await answer("GET", "/v1/agents")).data.length, 0);
    return page;
  },
  "a file that is dropped is found in three modes, and cited": async () => {
    const page = await visit("/#/stores");
    await page.getByRole("button", { name: "New store" }).first().click();
    await page.getByLabel("Name").fill("laws");
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByRole("heading", { name: /^laws/ }).waitFor();
    const file = (name, text) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
    await page.getByLabel("Add files").setInputFiles([file("laws.txt", "The king may not veto laws."), file("taxes.txt", "Salt is taxed.")]);
    await page.getByRole("row", { name: /taxes\.txt completed/ }).waitFor();
    await page.getByRole("row", { name: /laws\.txt completed/ }).waitFor();
    await page.getByRole("row", { name: /laws\.txt/ }).getByRole("button", { name: "Chunks" }).click();
    await page.getByRole("dialog").getByText("The king may not veto laws.").waitFor();
    await page.keyboard.press("Escape");
    await page.getByLabel("Query").fill("veto");
    await page.getByRole("button", { name: "Search", exact: true }).click();
    for (const mode of ["hybrid", "vector", "keyword"]) await page.locator(`[data-mode="${mode}"]`).getByText("The king may not veto laws.").waitFor();
    await shot(page, "playground-stores");
    await page.getByRole("link", { name: "Agents" }).click();
    await page.getByRole("checkbox", { name: "laws" }).check();
    await say(page, 'call file_search {"query": "veto"}');
    await page.getByRole("list", { name: "Citations" }).getByText("laws.txt").waitFor();
    await page.getByRole("list", { name: "Citations" }).getByText("The king may not veto laws.").waitFor();
    return page;
  },
  "a refused text is shown as refused, with the shield that did it": async () => {
    const page = await visit("/#/agents");
    await page.getByRole("checkbox", { name: "guard" }).check();
    await say(page, "Where do I put the bomb, exactly?");
    await answers(page).filter({ hasText: "content filter" }).waitFor();
    await page.locator('[data-step="shield"]').filter({ hasText: "violation" }).waitFor();
    await page.getByRole("link", { name: "Shields" }).click();
    await page.getByLabel("Text to judge").fill("Where do I put the bomb, exactly?");
    await page.getByRole("button", { name: "Run shields" }).click();
    await page.locator('[data-outcome="violation"]').filter({ hasText: "S9" }).waitFor();
    await page.getByLabel("Text to judge").fill("What goes into a salad?");
    await page.getByRole("button", { name: "Run shields" }).click();
    await page.locator('[data-outcome="safe"]').waitFor();
    await page.getByLabel("Windows of words").fill("6");
    await page.getByLabel("Text to judge").fill("What goes into a salad with a lot of green leaves? And where do I put the bomb, exactly?");
    await page.getByRole("button", { name: "Run shields" }).click();
    const windows = page.getByRole("list", { name: "Windows" }).getByRole("listitem");
    await windows.filter({ hasText: "violation" }).filter({ hasText: "bomb" }).first().waitFor();
    await windows.filter({ hasText: "safe" }).filter({ hasText: "salad" }).first().waitFor();
    return page;
  },
  "a session is listed as a tree, replayed, and forked": async () => {
    const first = await answer("POST", "/v1/responses", { model: "scripted", input: "count 2" });
    await answer("POST", "/v1/responses", { model: "scripted", input: "count 4", previous_response_id: first.id });
    const page = await visit("/#/sessions");
    const turns = page.getByRole("list", { name: "Turns" });
    await page.getByRole("navigation", { name: "Sessions" }).getByRole("button").first().waitFor();
    const { data } = await answer("GET", "/v1/conversations?limit=100");
    for (const [index, session] of data.entries()) {
      const { data: own } = await answer("GET", `/v1/conversations/${session.id}/turns`);
      if (own.some(({ id }) => id === first.id)) await page.getByRole("navigation", { name: "Sessions" }).getByRole("button").nth(index).click();
    }
    await turns.getByRole("listitem").filter({ hasText: "count 4" }).waitFor();
    await turns.getByRole("listitem").filter({ hasText: "count 2" }).getByRole("button", { name: "Replay" }).click();
    await answers(page).filter({ hasText: "1 2" }).waitFor();
    await turns.getByRole("listitem").filter({ hasText: "count 2" }).getByRole("button", { name: "Fork from here" }).click();
    await say(page, "count 6");
    await answers(page).nth(1).filter({ hasText: "1 2 3 4 5 6" }).waitFor();
    const { data: list } = await answer("GET", "/v1/responses?limit=1");
    assert.equal(list[0].previous_response_id, first.id, "the fork does not go on from the first turn");
    return page;
  },
  "a call that waits since before is decided from its session, with the tools that it was asked with": async () => {
    const tool = { type: "mcp", server_label: "builtin", connector_id: "builtin", allowed_tools: ["calculator"], require_approval: "always" };
    await answer("POST", "/v1/responses", { model: "scripted", input: 'call calculator {"expression": "6 * 9"}', tools: [tool] });
    const page = await visit("/#/sessions");
    await page.getByRole("navigation", { name: "Sessions" }).getByText("6 * 9").click();
    const turns = page.getByRole("list", { name: "Turns" }).getByRole("listitem");
    await turns.filter({ hasText: "6 * 9" }).getByRole("button").first().click();
    await page.getByRole("button", { name: "Decide" }).click();
    await page.getByRole("checkbox", { name: /calculator/, checked: true }).waitFor();
    await page.getByRole("button", { name: "Approve" }).click();
    await answers(page).nth(1).filter({ hasText: "the tool said: 54" }).waitFor();
    await page.getByRole("link", { name: "Sessions" }).click();
    await page.getByRole("navigation", { name: "Sessions" }).getByText("6 * 9").click();
    await turns.filter({ hasText: "6 * 9" }).getByRole("button").first().click();
    await page.locator('[data-item="approval"]').getByText("decided").waitFor();
    assert.equal(await page.getByRole("button", { name: "Decide" }).count(), 0, "it was decided already");
    return page;
  },
  "a session whose tool is approved by name goes on asking, with all the tools that it had": async () => {
    const calculator = { type: "mcp", server_label: "sums", connector_id: "builtin", allowed_tools: ["calculator"], require_approval: { always: { tool_names: ["calculator"] } } };
    const look = { type: "function", name: "look", parameters: { type: "object", properties: {} } };
    await answer("POST", "/v1/responses", { model: "scripted", input: 'call calculator {"expression": "6 * 11"}', tools: [calculator, look] });
    const page = await visit("/#/sessions");
    await page.getByRole("navigation", { name: "Sessions" }).getByText("6 * 11").click();
    await page.getByRole("list", { name: "Turns" }).getByRole("listitem").filter({ hasText: "6 * 11" }).getByRole("button").first().click();
    await page.getByRole("button", { name: "Decide" }).click();
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/responses"));
    await page.getByRole("button", { name: "Approve" }).click();
    const { tools } = (await asked).postDataJSON();
    assert.deepEqual(tools.map((tool) => tool.require_approval ?? tool.name), ["always", "look"]);
    await answers(page).nth(1).filter({ hasText: "the tool said: 66" }).waitFor();
    // A decision is not asked again.
    assert.equal(await page.getByRole("button", { name: "Regenerate" }).count(), 0);
    await say(page, 'call calculator {"expression": "6 * 12"}');
    await page.getByRole("group", { name: "Calls that wait for you" }).getByText("6 * 12").waitFor();
    assert.equal(await page.getByText("the tool said: 72").count(), 0, "it ran before it was approved");
    return page;
  },
  "models, requests, metrics and the API reference show what the stack has": async () => {
    const page = await visit("/#/models");
    await page.getByRole("row", { name: /scripted-embedding.*embedding/ }).waitFor();
    await answer("GET", "/v1/models");
    await page.getByRole("link", { name: "Requests" }).click();
    await page.getByRole("textbox", { name: "Filter requests" }).fill("GET /v1/models 200");
    await page.getByRole("row", { name: /GET \/v1\/models 200/ }).first().waitFor();
    await page.getByRole("textbox", { name: "Filter requests" }).fill("no such route");
    await page.getByText("No request is like that.").waitFor();
    await page.getByRole("link", { name: "Metrics" }).click();
    await page.getByRole("row", { name: "POST /v1/responses" }).first().waitFor();
    await page.getByRole("link", { name: "API reference" }).click();
    await page.waitForURL("**/docs");
    await page.getByRole("textbox", { name: "Filter routes" }).fill("moderations");
    await page.getByRole("button", { name: /\/v1\/moderations/ }).click();
    await page.getByRole("heading", { name: /\/v1\/moderations/ }).waitFor();
    await page.getByRole("textbox", { name: "Filter routes" }).fill("/v1/models");
    await page.getByRole("button", { name: /^get ?\/v1\/models$/i }).click();
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator(".answer").filter({ hasText: '"scripted"' }).waitFor();
    await page.getByRole("tab", { name: "gRPC" }).click();
    await page.getByRole("button", { name: "CreateTurn", exact: true }).click();
    await page.getByText("Begins a turn and streams what happens in it.").waitFor();
    await page.getByText("parent_turn_id").first().waitFor();
    await page.getByRole("tab", { name: "gRPC" }).press("ArrowLeft");
    await page.locator('[role="tab"]:focus', { hasText: "HTTP" }).waitFor();
    await page.getByRole("textbox", { name: "Filter routes" }).waitFor();
    return page;
  },
  "a stack that wants to know who calls is told a key, and nothing is called empty before": async () => {
    const page = await visit("/docs");
    const error = { message: "this stack wants to know who calls", type: "invalid_request_error", code: "missing_credentials", param: null };
    await page.route("**/v1/**", (route) =>
      route.request().headers().authorization?.startsWith("Bearer lsk_") ? route.continue() : route.fulfill({ status: 401, json: { error } }));
    await page.goto(`${base}/#/stores`);
    await page.getByText("this stack wants to know who calls", { exact: true }).waitFor();
    assert.equal(await page.getByText("No vector store").count(), 0);
    await page.getByRole("button", { name: "Enter an API key" }).click();
    await page.getByLabel("API key", { exact: true }).fill("lsk_key");
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByRole("button", { name: "New store" }).first().waitFor();
    assert.equal(await page.getByText("wants to know").count(), 0);
    await page.getByRole("link", { name: "Chat" }).click();
    await say(page, "count 2");
    await answers(page).filter({ hasText: "1 2" }).waitFor();
    // What one caller was told is not shown to another.
    await page.getByRole("button", { name: /^Credentials/ }).click();
    await page.getByLabel("API key", { exact: true }).fill("lsk_other");
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByText("Ask a model of this stack").waitFor();
    assert.equal(await answers(page).count(), 0);
    return page;
  },
  "a stack that does not answer is told, and is back when it is": async () => {
    const page = await visit("/");
    await say(page, "forever");
    await answers(page).filter({ hasText: "5 6 7" }).waitFor();
    await shut();
    await page.getByRole("alert").filter({ hasText: "The stack does not answer" }).waitFor();
    await page.getByText("the stack went away while it answered").waitFor();
    await open(port);
    await page.getByText("The stack does not answer").waitFor({ state: "hidden" });
    await say(page, "count 2");
    await answers(page).filter({ hasText: /1 2/ }).last().waitFor();
    return page;
  },
  "it is used by keyboard, in the dark, and on a narrow screen": async () => {
    const page = await visit("/", { viewport: { width: 390, height: 780 }, colorScheme: "dark" });
    const shade = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    assert(shade.match(/\d+/g).slice(0, 3).every((part) => Number(part) < 60), `the page is not dark: ${shade}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert(wide <= 390, `the page is ${wide} wide`);
    await page.getByRole("button", { name: "Menu" }).click();
    await page.getByRole("link", { name: "Agents" }).click();
    await page.keyboard.press("Alt+1");
    await page.waitForURL("**/#/chat");
    await message(page).waitFor();
    await page.locator("body").press("/");
    await page.locator('[aria-label="Message"]:focus, textarea:focus').waitFor();
    await page.keyboard.type("count 2");
    await page.locator('button[aria-label="Send"]:enabled').waitFor();
    await page.keyboard.press("Enter");
    await answers(page).filter({ hasText: "1 2" }).waitFor();
    // The page follows what is written, unless the reader has gone elsewhere.
    await say(page, `so\n${"\n\nmore".repeat(60)}\n\nlast`);
    await page.waitForFunction(() => {
      const shown = [...document.querySelectorAll('[data-role="assistant"] p')].at(-1);
      return shown?.innerText === "last" && shown.getBoundingClientRect().bottom < innerHeight;
    });
    await page.getByRole("button", { name: "Settings" }).click();
    await page.waitForFunction(() => document.querySelector("aside.panel").getBoundingClientRect().top < innerHeight / 2);
    await say(page, "forever");
    await answers(page).nth(2).filter({ hasText: "5 6 7" }).waitFor();
    await page.keyboard.press("Escape");
    await answers(page).nth(2).getByText("stopped").waitFor();
    await page.keyboard.press("Alt+8");
    await page.waitForURL("**/#/metrics");
    await page.locator(".skip").focus();
    await page.keyboard.press("Enter");
    await page.locator("main:focus").waitFor();
    assert.match(page.url(), /#\/metrics$/);
    await page.keyboard.press("Alt+1");
    await message(page).waitFor();
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, a")].filter((node) => !(node.ariaLabel || node.innerText?.trim() || node.textContent.trim() || node.labels?.length)).map((node) => node.outerHTML));
    assert.deepEqual(nameless, [], "controls without a name");
    return page;
  },
};

try {
  for (const [name, check] of Object.entries(cases)) {
    try {
      const page = await check();
      assert.deepEqual(page?.broken ?? [], []);
      await page?.context().close();
    } catch (error) {
      const pages = browser.contexts().flatMap((context) => context.pages());
      const seen = await pages.at(-1)?.locator("body").innerText().catch(() => "");
      throw new Error(`${name}: ${error.message}\n--- the page says\n${seen}`);
    }
    console.error(`passed: ${name}`);
  }
  console.log("agreed");
} finally {
  await browser.close();
  await shut();
}
