//! Spans of many turns, by what they are: a walk over the turns, newest first. A call looks at so many of them and no more, whatever it
//! finds, so a filter that little fits is slow for who asks, and for nobody else.

use futures::future::try_join_all;
use llama_stack_core::{Agents, Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{GetTurnRequest, ListSpansRequest, ListSpansResponse, SpanRecord, TraceSpan, Turn, step};
use llama_stack_store::{Store, TurnWalk};
use prost_types::Timestamp;

use super::turns::{of_step, of_turn};

/// Turns that a call looks at. The contract names it.
const MOST_TURNS: u32 = 100;
/// Journals that are read at once.
const READS: usize = 4;
const MAX_ATTRIBUTES: usize = 16;
const DEFAULT_PAGE: u32 = 100;

/// # Errors
/// `NotFound` no such session · `InvalidArgument` a filter that can fit nothing, or a token of another list
pub(super) async fn list(agents: &dyn Agents, store: &Store, cx: &Context, asked: &ListSpansRequest) -> Result<ListSpansResponse> {
    check(asked)?;
    let session_id = Some(asked.session_id.as_str()).filter(|id| !id.is_empty());
    if let Some(session_id) = session_id {
        store.get_session(cx.tenant(), session_id).await.map_err(|error| error.with_field("session_id"))?;
    }
    let (since, until) = (asked.since.as_ref(), asked.until.as_ref());
    let walk = TurnWalk { viewer: &cx.principal().id, session_id, since, until, most: MOST_TURNS, page_token: &asked.page_token };
    let walked = store.walk_turns(cx.tenant(), walk).await?;
    let size = if asked.page_size == 0 { DEFAULT_PAGE } else { asked.page_size } as usize;
    let look = Look { agents, store, cx, asked, now: ids::now() };
    let mut spans = Vec::new();
    for (chunk, few) in walked.ids.chunks(READS).enumerate() {
        let turns = try_join_all(few.iter().map(|id| look.turn(id))).await?;
        for (offset, turn) in turns.into_iter().enumerate() {
            let (index, Some(turn)) = (chunk * READS + offset, turn) else { continue };
            let left = if index == 0 { walked.left } else { None };
            let (found, rest) = look.within(&turn, left, size - spans.len());
            spans.extend(look.told(&turn, found).await?);
            if spans.len() == size {
                let next_page_token = if rest > 0 { walked.within(index, rest)? } else { walked.after(index)? };
                return Ok(ListSpansResponse { spans, next_page_token });
            }
        }
    }
    let next_page_token = walked.ids.len().checked_sub(1).map(|last| walked.after(last)).transpose()?.unwrap_or_default();
    Ok(ListSpansResponse { spans, next_page_token })
}

fn check(asked: &ListSpansRequest) -> Result<()> {
    if !(0.0..=f64::MAX).contains(&asked.min_seconds) {
        return Err(Error::invalid("min_seconds", format!("min_seconds is {}; it must be 0 or more", asked.min_seconds)));
    }
    let count = asked.attributes.len();
    if count > MAX_ATTRIBUTES {
        return Err(Error::invalid("attributes", format!("there are {count} attributes; there may be at most {MAX_ATTRIBUTES}")));
    }
    Ok(())
}

/// `None`: deleted since its id was read, or damaged, for one damaged journal does not hide all that is older.
fn readable<T>(turn: &str, read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) if error.code() == Code::DataLoss => {
            tracing::warn!(turn, %error, "a turn has no spans");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// One call's way of looking.
struct Look<'a> {
    agents: &'a dyn Agents,
    store: &'a Store,
    cx: &'a Context,
    asked: &'a ListSpansRequest,
    now: Timestamp,
}

impl Look<'_> {
    /// The turn, if spans of it are asked for and it is still there.
    async fn turn(&self, id: &str) -> Result<Option<Turn>> {
        let (asked, principal) = (self.asked, &self.asked.principal);
        if !principal.is_empty() {
            let owner = readable(id, self.store.owner_of_turn(self.cx.tenant(), id).await)?.flatten();
            if owner.as_ref() != Some(principal) {
                return Ok(None);
            }
        }
        let turn = self.there(id).await?;
        Ok(turn.filter(|turn| asked.agent_id.is_empty() || turn.agent_id == asked.agent_id))
    }

    async fn there(&self, id: &str) -> Result<Option<Turn>> {
        readable(id, self.agents.get_turn(self.cx, GetTurnRequest { id: id.to_owned() }).await)
    }

    /// What is asked for in this turn, what began last first and at most so many; and how many parts of it were not looked at. Its parts
    /// are the turn itself and its steps, counted from its beginning, so a turn that goes on between two pages moves none.
    fn within(&self, turn: &Turn, left: Option<usize>, most: usize) -> (Vec<TraceSpan>, usize) {
        let mut found = Vec::new();
        let mut left = left.unwrap_or(usize::MAX).min(turn.steps.len() + 1);
        while left > 0 && found.len() < most {
            left -= 1;
            let step = left.checked_sub(1).and_then(|index| turn.steps.get(index));
            let span = step.map_or_else(|| of_turn(turn, String::new()), |step| of_step(step, turn));
            if self.wants(&span) {
                found.push(span);
            }
        }
        (found, left)
    }

    fn wants(&self, span: &TraceSpan) -> bool {
        let asked = self.asked;
        let same = |asked: &str, is: &str| asked.is_empty() || asked == is;
        let began = span.started.as_ref().map(order);
        same(&asked.operation, &span.operation)
            && same(&asked.name, &span.name)
            && asked.since.as_ref().is_none_or(|since| began >= Some(order(since)))
            && asked.until.as_ref().is_none_or(|until| began < Some(order(until)))
            && (!asked.only_errors || span.error.is_some() || span.attributes.contains_key("error.type"))
            && (asked.min_seconds == 0.0 || self.seconds(span) >= asked.min_seconds)
            && asked.attributes.iter().all(|(key, value)| span.attributes.get(key) == Some(value))
    }

    fn seconds(&self, span: &TraceSpan) -> f64 {
        let Some(started) = &span.started else { return 0.0 };
        let ended = span.ended.as_ref().unwrap_or(&self.now);
        ended.seconds.saturating_sub(started.seconds) as f64 + f64::from(ended.nanos.saturating_sub(started.nanos)) / 1e9
    }

    /// With where they belong.
    async fn told(&self, turn: &Turn, spans: Vec<TraceSpan>) -> Result<Vec<SpanRecord>> {
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let principal = match self.asked.principal.as_str() {
            "" => self.store.owner_of_turn(self.cx.tenant(), &turn.id).await?.unwrap_or_default(),
            asked => asked.to_owned(),
        };
        let mut records = Vec::with_capacity(spans.len());
        for mut span in spans {
            if span.id == turn.id {
                span.parent_id = self.calling_step(turn).await?;
            }
            records.push(SpanRecord {
                span: Some(span),
                turn_id: turn.id.clone(),
                session_id: turn.session_id.clone(),
                agent_id: turn.agent_id.clone(),
                principal: principal.clone(),
            });
        }
        Ok(records)
    }

    /// The step whose call the turn answers, as in its caller's trace; empty where it answers none.
    async fn calling_step(&self, turn: &Turn) -> Result<String> {
        if turn.caller_turn_id.is_empty() {
            return Ok(String::new());
        }
        let caller = self.there(&turn.caller_turn_id).await?.unwrap_or_default();
        let calls = |step: &step::Step| matches!(step, step::Step::Tool(tool) if tool.child_turn_id == turn.id);
        let step = caller.steps.into_iter().find(|step| step.step.as_ref().is_some_and(calls));
        Ok(step.map(|step| step.id).unwrap_or_default())
    }
}

fn order(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}
