//! The tools, and the ledger in which they write down everything that was done: what a restart must not do twice is
//! counted here, outside the server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use llama_stack_core::{Context, Error, Result, Tools};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, OnInterrupt, Part, Tool as Listed,
};
use serde_json::Value;
use tokio::sync::watch;

use super::plan::{self, Tool};

/// Everything that was done under one idempotency key.
pub(crate) struct Entry {
    /// The turn's number and the call's.
    pub(crate) call: (u64, usize),
    pub(crate) tool: Tool,
    /// How often it was asked for.
    pub(crate) invocations: u32,
    /// How often the work was done.
    pub(crate) executions: u32,
    done: watch::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Calls that came without a key.
    keyless: Mutex<u32>,
}

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap()
    }

    pub(crate) fn keyless(&self) -> u32 {
        *self.keyless.lock().unwrap()
    }
}

/// The tools of the drill.
pub(crate) struct Works {
    pub(crate) ledger: Arc<Ledger>,
    /// The longest that a call takes.
    pub(crate) slowest: Duration,
}

#[async_trait]
impl Tools for Works {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let tools = [(Tool::Retried, OnInterrupt::Retry), (Tool::Once, OnInterrupt::Fail)];
        let listed =
            |(tool, on)| Listed { definition: Some(Tool::definition(tool)), on_interrupt: OnInterrupt::into(on), ..Listed::default() };
        Ok(ListToolsResponse { tools: tools.map(listed).into(), next_page_token: String::new() })
    }

    /// The work goes on when the caller is gone, as it would in the world.
    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let call = call(&request.arguments).ok_or_else(|| Error::invalid("arguments", "arguments must name a turn and a call"))?;
        let tool = Tool::named(&request.name).ok_or_else(|| Error::not_found("no such tool"))?;
        let Some(key) = cx.idempotency_key().map(ToOwned::to_owned) else {
            *self.ledger.keyless.lock().unwrap() += 1;
            return Err(Error::invalid("idempotency-key", "a call must carry an idempotency key"));
        };
        let mut done = self.book(&key, call, tool);
        // The sender is in the ledger, which outlives every call.
        let _ = done.wait_for(|done| *done).await;
        Ok(InvokeToolResponse { parts: vec![Part::text(plan::done(call.0, call.1))], is_error: false, ..InvokeToolResponse::default() })
    }
}

impl Works {
    /// Begins the work, unless it was begun under this key before and the tool honours that.
    fn book(&self, key: &str, call: (u64, usize), tool: Tool) -> watch::Receiver<bool> {
        let mut entries = self.ledger.entries();
        let new = || Entry { call, tool, invocations: 0, executions: 0, done: watch::Sender::new(false) };
        let entry = entries.entry(key.to_owned()).or_insert_with(new);
        entry.invocations += 1;
        let done = entry.done.subscribe();
        if entry.invocations == 1 || entry.tool == Tool::Once {
            entry.executions += 1;
            let takes = self.slowest.mul_f64(rand::random());
            let (ledger, key) = (self.ledger.clone(), key.to_owned());
            tokio::spawn(async move {
                if !takes.is_zero() {
                    tokio::time::sleep(takes).await;
                }
                if let Some(entry) = ledger.entries().get(&key) {
                    entry.done.send_replace(true);
                }
            });
        }
        done
    }
}

/// The turn's number and the call's, by its arguments.
fn call(arguments: &str) -> Option<(u64, usize)> {
    let arguments: Value = serde_json::from_str(arguments).ok()?;
    Some((arguments["turn"].as_u64()?, usize::try_from(arguments["call"].as_u64()?).ok()?))
}
