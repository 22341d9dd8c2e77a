//! The end: what the stack holds, beside what its clients were told and what the tools wrote down.

use std::collections::{BTreeMap, HashMap};

use llama_stack_core::{Agents, Context, Result};
use llama_stack_proto::v1::{ListSessionsRequest, ListTurnsRequest, TurnStatus};

use super::{
    field::{Fault, Field, Record},
    ledger::Ledger,
    plan::{Outcome, Tool},
};

/// What there was to compare.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) turns: usize,
    /// Of tools of the server, by the ledger.
    pub(crate) executions: usize,
    /// Invocations of a call that had been executed, answered from the ledger.
    pub(crate) repeats: u32,
    /// Calls of which the model was told that they may have run.
    pub(crate) cut_off: usize,
    /// Those of them that had.
    pub(crate) cut_off_and_run: usize,
}

/// # Errors
/// What keeps the stack from being read.
pub(crate) async fn audit(field: &Field, agents: &dyn Agents, ledger: &Ledger) -> Result<Sums> {
    let records = field.take_records();
    let held = held(agents).await?;
    let mut by_key: HashMap<&str, Vec<&str>> = HashMap::new();
    for turn in &held {
        by_key.entry(&turn.key).or_default().push(&turn.id);
    }
    for (key, ids) in by_key.iter().filter(|(_, ids)| ids.len() > 1) {
        field.fault(Fault::Duplicated, format!("{key} stands for {}", ids.join(" and ")));
    }
    let by_id: HashMap<&str, TurnStatus> = held.iter().map(|turn| (turn.id.as_str(), turn.status)).collect();
    let acknowledged: HashMap<&str, &Record> = records.iter().map(|record| (record.turn_id.as_str(), record)).collect();
    for record in &records {
        let due = if record.waits { TurnStatus::AwaitingTools } else { TurnStatus::Completed };
        match by_id.get(record.turn_id.as_str()) {
            None => field.fault(Fault::Lost, format!("{} ({}) was acknowledged and is not there", record.turn_id, record.key)),
            Some(status) if *status != due => field.fault(Fault::Wrong, format!("{} is {status:?}, not {due:?}", record.turn_id)),
            Some(_) => {}
        }
    }
    for turn in held.iter().filter(|turn| !acknowledged.contains_key(turn.id.as_str())) {
        field.fault(Fault::Stuck, format!("{} ({}) is {:?}, and its client never saw it end", turn.id, turn.key, turn.status));
    }
    let mut sums = compare(field, &records, ledger);
    sums.turns = records.len();
    Ok(sums)
}

struct Held {
    id: String,
    key: String,
    status: TurnStatus,
}

/// Every turn of every session.
async fn held(agents: &dyn Agents) -> Result<Vec<Held>> {
    let cx = Context::default();
    let (mut held, mut page_token) = (Vec::new(), String::new());
    loop {
        let sessions = agents.list_sessions(&cx, ListSessionsRequest { page_size: 1_000, page_token, ..Default::default() }).await?;
        for session in sessions.sessions {
            let mut page_token = String::new();
            loop {
                let request = ListTurnsRequest { session_id: session.id.clone(), page_token, ..ListTurnsRequest::default() };
                let turns = agents.list_turns(&cx, request).await?;
                held.extend(turns.turns.into_iter().map(|turn| Held {
                    status: turn.status(),
                    key: turn.metadata.get("key").cloned().unwrap_or_default(),
                    id: turn.id,
                }));
                page_token = turns.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
        }
        page_token = sessions.next_page_token;
        if page_token.is_empty() {
            return Ok(held);
        }
    }
}

/// The model's words beside the tools' ledger.
fn compare(field: &Field, records: &[Record], ledger: &Ledger) -> Sums {
    let mut sums = Sums::default();
    let mut executed: BTreeMap<(u64, usize), u32> = BTreeMap::new();
    for (key, entry) in ledger.entries().iter() {
        *executed.entry(entry.call).or_default() += entry.executions;
        if entry.tool == Tool::Once && entry.invocations > 1 {
            field.fault(Fault::Duplicated, format!("call {:?} was invoked {} times under {key}", entry.call, entry.invocations));
        }
        sums.repeats += entry.invocations.saturating_sub(1);
    }
    // Under one key by the tool's own care, or under two: either way it is one call of one turn.
    for (call, times) in executed.iter().filter(|(_, times)| **times > 1) {
        field.fault(Fault::Duplicated, format!("call {call:?} was executed {times} times"));
    }
    if ledger.keyless() > 0 {
        field.fault(Fault::Wrong, format!("{} calls came without an idempotency key", ledger.keyless()));
    }
    sums.executions = executed.len();
    for record in records {
        for (call, outcome) in record.plan.calls().zip(&record.outcomes).filter(|(call, _)| call.tool != Tool::Client) {
            let ran = executed.contains_key(&(record.plan.number, call.index));
            match outcome {
                Outcome::Done if !ran => {
                    field.fault(Fault::Wrong, format!("{}: call {} is told as done and never was", record.plan, call.index));
                }
                Outcome::Done => {}
                Outcome::CutOff => {
                    sums.cut_off += 1;
                    sums.cut_off_and_run += usize::from(ran);
                }
            }
        }
    }
    sums
}
