//! What journals quote of documents, and taking it out when a document is deleted.
//!
//! An append notes which documents its events have passages of. A deletion takes those out of every event of the turns that
//! are noted: the events stay, with their numbers, and so does what a turn made of them. What a turn that is under way writes
//! of them later, such as its end, is cleaned as it is written; so is what it found just before, even if another document has
//! come under the id since (`marks.rs`).

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::{Message, Part, Role, Step, ToolResult, Turn, TurnEvent, part::Content, step, turn_event::Event};
use prost::Message as _;

use super::marks;
use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, args},
};

/// Stands where a passage was.
const ERASED: &str = "(deleted with its document)";

const NOTE: &str = "INSERT INTO turn_quotes (tenant, bank_id, document_id, turn_id, erased) VALUES ($1, $2, $3, $4, 0) \
                    ON CONFLICT DO NOTHING";
const OF_TURN: &str = "SELECT bank_id, document_id FROM turn_quotes WHERE tenant = $1 AND turn_id = $2 AND erased = 1";
/// Of a document that is there.
const IS_THERE: &str = "SELECT 1 FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3 \
                        AND EXISTS (SELECT 1 FROM banks WHERE tenant = $1 AND id = $2 AND doomed = 0)";
/// A deletion waits until what quotes it is written, and finds it. SQLite has one writer anyway.
const HOLD_DOCUMENT: &str = "SELECT 1 FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3 \
                             AND EXISTS (SELECT 1 FROM banks WHERE tenant = $1 AND id = $2 AND doomed = 0) FOR KEY SHARE";
/// A bank that is kept here, or was. Of others it is not known here what they have.
const IS_OURS: &str = "SELECT 1 FROM banks WHERE tenant = $1 AND id = $2 UNION ALL \
                       SELECT 1 FROM deleted_banks WHERE tenant = $1 AND bank_id = $2";
const OF_DOCUMENT: &str = "SELECT turn_id, erased FROM turn_quotes WHERE tenant = $1 AND bank_id = $2 AND document_id = $3";
const OF_BANK: &str = "SELECT DISTINCT document_id FROM turn_quotes WHERE tenant = $1 AND bank_id = $2";
const MARK: &str = "UPDATE turn_quotes SET erased = 1 WHERE tenant = $1 AND bank_id = $2 AND document_id = $3 AND turn_id = $4";
const EVENTS: &str = "SELECT seq, body FROM journal WHERE tenant = $1 AND turn_id = $2 ORDER BY seq";
const REPLACE: &str = "UPDATE journal SET body = $1 WHERE tenant = $2 AND turn_id = $3 AND seq = $4";
/// So that nothing is appended to the turn meanwhile.
const HOLD: &str = "UPDATE turns SET head_seq = head_seq WHERE tenant = $1 AND id = $2";

/// A bank and a document of it.
pub(super) type Quote = (String, String);

/// A document, and the step of the call that found it; empty where that was another.
pub(super) type Quoted = (Quote, String);

/// The documents that these events bring passages of. An end only repeats what steps brought.
pub(super) fn quoted(events: &[TurnEvent]) -> BTreeSet<Quoted> {
    let mut found = BTreeSet::new();
    for event in events {
        let Some(Event::StepCompleted(step)) = &event.event else { continue };
        // Most steps have none, and are not copied.
        if !may_quote(step) {
            continue;
        }
        let step_id = if matches!(step.step, Some(step::Step::Tool(_))) { step.id.as_str() } else { "" };
        let by = |bank: &str, document: &str| ((bank.to_owned(), document.to_owned()), step_id.to_owned());
        of_step(&mut step.clone(), &mut |place| match place {
            Place::Result(result) => {
                let results = result.search_results.iter().filter(|found| !found.text.is_empty());
                found.extend(results.map(|found| by(&found.bank_id, &found.document_id)));
            }
            Place::Part(part) => {
                let citations = part.citations.iter().filter(|citation| !citation.quote.is_empty());
                found.extend(citations.map(|citation| by(&citation.bank_id, &citation.document_id)));
                found.extend(retrieved(part).map(|(bank, document)| by(&bank, &document)));
            }
        });
    }
    found
}

fn may_quote(step: &Step) -> bool {
    let cites = |message: &Message| message.parts.iter().any(|part| !part.citations.is_empty());
    match &step.step {
        Some(step::Step::Tool(tool)) => tool.result.as_ref().is_some_and(|result| !result.search_results.is_empty()),
        Some(step::Step::Inference(inference)) => inference.message.as_ref().is_some_and(cites),
        Some(step::Step::Compaction(compaction)) => !compaction.kept.is_empty(),
        Some(step::Step::Shield(shield)) => shield.verdict.as_ref().is_some_and(|verdict| verdict.redacted.is_some()),
        _ => false,
    }
}

/// Where a part was retrieved from.
fn retrieved(part: &Part) -> Option<Quote> {
    let (bank, document) = part.provenance.strip_prefix("retrieved:")?.split_once('/')?;
    Some((bank.to_owned(), document.to_owned()))
}

/// Takes the passages of these documents out of an event, and says whether there were any.
fn erase(event: &mut TurnEvent, gone: &HashSet<Quote>) -> bool {
    let mut changed = false;
    let is_gone = |bank: &str, document: &str| gone.contains(&(bank.to_owned(), document.to_owned()));
    of_event(event, &mut |place| match place {
        Place::Result(result) => {
            let mut texts = Vec::new();
            for found in result.search_results.iter_mut().filter(|found| is_gone(&found.bank_id, &found.document_id)) {
                found.filename.clear();
                found.attributes.clear();
                texts.push(std::mem::take(&mut found.text).trim_end().to_owned());
            }
            changed |= !texts.is_empty();
            // A tool that does not say which of its parts is from where.
            for part in &mut result.parts {
                if let Some(Content::Text(text)) = &mut part.content {
                    texts.iter().filter(|passage| !passage.is_empty()).for_each(|passage| *text = text.replace(passage.as_str(), ERASED));
                }
            }
        }
        Place::Part(part) => {
            if retrieved(part).is_some_and(|quote| gone.contains(&quote)) {
                part.content = Some(Content::Text(ERASED.into()));
                part.provenance = Role::System.provenance().to_owned();
                changed = true;
            }
            for citation in part.citations.iter_mut().filter(|citation| is_gone(&citation.bank_id, &citation.document_id)) {
                citation.quote.clear();
                citation.filename.clear();
                citation.title.clear();
                changed = true;
            }
        }
    });
    changed
}

/// Where passages may be. A result is told of before its parts.
enum Place<'a> {
    Result(&'a mut ToolResult),
    Part(&'a mut Part),
}

type Look<'a> = &'a mut dyn FnMut(Place<'_>);

fn of_event(event: &mut TurnEvent, look: Look<'_>) {
    match &mut event.event {
        Some(Event::Created(turn) | Event::Ended(turn)) => of_turn(turn, look),
        Some(Event::StepStarted(step) | Event::StepCompleted(step)) => of_step(step, look),
        Some(Event::Resumed(results)) => results.results.iter_mut().for_each(|result| of_result(result, look)),
        _ => {}
    }
}

fn of_turn(turn: &mut Turn, look: Look<'_>) {
    turn.input.iter_mut().for_each(|message| of_message(message, look));
    turn.steps.iter_mut().for_each(|step| of_step(step, look));
}

fn of_step(step: &mut Step, look: Look<'_>) {
    match &mut step.step {
        Some(step::Step::Inference(inference)) => inference.message.iter_mut().for_each(|message| of_message(message, look)),
        Some(step::Step::Tool(tool)) => tool.result.iter_mut().for_each(|result| of_result(result, look)),
        Some(step::Step::Handoff(handoff)) => handoff.result.iter_mut().for_each(|result| of_result(result, look)),
        Some(step::Step::Compaction(compaction)) => compaction.kept.iter_mut().for_each(|message| of_message(message, look)),
        Some(step::Step::Shield(shield)) => {
            shield.verdict.iter_mut().flat_map(|verdict| &mut verdict.redacted).for_each(|message| of_message(message, look));
        }
        _ => {}
    }
}

fn of_message(message: &mut Message, look: Look<'_>) {
    for part in &mut message.parts {
        if let Some(Content::ToolResult(result)) = &mut part.content {
            of_result(result, look);
        }
        look(Place::Part(part));
    }
}

fn of_result(result: &mut ToolResult, look: Look<'_>) {
    look(Place::Result(result));
    result.parts.iter_mut().for_each(|part| look(Place::Part(part)));
}

/// Notes what is quoted, and cleans the events that are about to be written.
pub(super) async fn note(
    conn: &mut Conn<'_>,
    (tenant, turn_id): (&str, &str),
    quotes: &BTreeSet<Quoted>,
    bodies: impl Iterator<Item = &mut Vec<u8>>,
) -> Result<(), Failure> {
    for (quote, step_id) in quotes {
        let (bank, document) = quote;
        let is_new = conn.execute(NOTE, args![tenant, bank, document, turn_id]).await? > 0;
        let is_there = !conn.rows_of(IS_THERE, HOLD_DOCUMENT, args![tenant, bank, document]).await?.is_empty();
        let is_gone = if is_there {
            // What the turn had before was marked when its document went.
            (is_new || !step_id.is_empty()) && marks::deleted_since(conn, (tenant, turn_id), quote, step_id).await?
        } else {
            !conn.rows(IS_OURS, args![tenant, bank]).await?.is_empty()
        };
        if is_gone {
            conn.execute(MARK, args![tenant, bank, document, turn_id]).await?;
        }
    }
    let rows = conn.rows(OF_TURN, args![tenant, turn_id]).await?;
    let gone = rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect::<sqlx::Result<HashSet<Quote>>>()?;
    if gone.is_empty() {
        return Ok(());
    }
    for body in bodies {
        if let Some(cleaned) = cleaned(body, &gone) {
            *body = cleaned;
        }
    }
    Ok(())
}

/// An event without the passages of these documents; `None` where it has none. One that cannot be read is left for readers to tell.
fn cleaned(body: &[u8], gone: &HashSet<Quote>) -> Option<Vec<u8>> {
    let mut event = TurnEvent::decode(body).ok()?;
    erase(&mut event, gone).then(|| event.encode_to_vec())
}

struct Forget {
    tenant: String,
    turn_id: String,
    quote: Quote,
}

#[async_trait]
impl Command for Forget {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let Self { tenant, turn_id, quote: (bank, document) } = self;
        conn.execute(HOLD, args![tenant, turn_id]).await?;
        conn.execute(MARK, args![tenant, bank, document, turn_id]).await?;
        let gone = HashSet::from([self.quote.clone()]);
        for row in conn.rows(EVENTS, args![tenant, turn_id]).await? {
            if let Some(body) = cleaned(row.bytes(1)?, &gone) {
                conn.execute(REPLACE, args![&body, tenant, turn_id, row.int(0)?]).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Takes what journals quote of these documents out of them. The rows that it leaves say only where it was.
    ///
    /// Whether there is a journal that quotes or quoted any of them: who was cut off after this is told the same again.
    pub async fn forget_quotes(&self, tenant: &str, bank_id: &str, documents: &[String]) -> Result<bool> {
        let mut quoted = false;
        for document in documents {
            for row in self.read(OF_DOCUMENT, args![tenant, bank_id, document]).await? {
                quoted = true;
                if row.int(1).map_err(|error| failure::report(&error))? == 0 {
                    let turn_id = row.text(0).map_err(|error| failure::report(&error))?;
                    self.write(Forget { tenant: tenant.into(), turn_id, quote: (bank_id.into(), document.clone()) }).await?;
                }
            }
        }
        Ok(quoted)
    }

    /// The same for all documents of a bank.
    pub async fn forget_quotes_of_bank(&self, tenant: &str, bank_id: &str) -> Result<bool> {
        let rows = self.read(OF_BANK, args![tenant, bank_id]).await?;
        let documents = rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<Vec<String>>>();
        self.forget_quotes(tenant, bank_id, &documents.map_err(|error| failure::report(&error))?).await
    }

    /// How many documents a turn quoted that are deleted by now.
    pub async fn erased_quotes(&self, tenant: &str, turn_id: &str) -> Result<usize> {
        Ok(self.read(OF_TURN, args![tenant, turn_id]).await?.len())
    }
}
