//! Appending to a journal: by the turn's owner, or by one who takes it over with the very append.

use std::{borrow::Cow, collections::BTreeSet};

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{TurnEvent, TurnStatus, step, turn_event};
use prost::Message as _;

use super::{
    lease::lost,
    marks,
    quotes::{self, Quoted},
    sequence, status,
};
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    lease::Holder,
    sql::{Conn, args},
};

/// Moves the head only from where the caller saw it, and only for the owner; a turn that comes to rest is nobody's from
/// then on. Postgres locks the row, so of two racing appends the second looks again after the first has committed, and
/// finds the head moved.
const MOVE_HEAD: &str = "UPDATE turns SET head_seq = $1, status = $2, \
                         owner = CASE WHEN $2 = 1 THEN owner ELSE '' END, \
                         lease_until_us = CASE WHEN $2 = 1 THEN lease_until_us ELSE 0 END \
                         WHERE tenant = $3 AND id = $4 AND head_seq = $5 AND status = 1 AND epoch = $6 RETURNING epoch";
const TAKE_HEAD: &str = "UPDATE turns SET head_seq = $1, status = $2, epoch = epoch + 1, \
                         owner = CASE WHEN $2 = 1 THEN $6 ELSE '' END, \
                         lease_until_us = CASE WHEN $2 = 1 THEN $7 ELSE 0 END \
                         WHERE tenant = $3 AND id = $4 AND head_seq = $5 AND status IN (1, 2) RETURNING epoch";
const INSERT: &str = "INSERT INTO journal (tenant, turn_id, seq, body) VALUES ($1, $2, $3, $4)";
const AMEND: &str = "UPDATE journal SET body = $1 WHERE tenant = $2 AND turn_id = $3 AND seq = $4";
const HEAD: &str = "SELECT head_seq, status, epoch FROM turns WHERE tenant = $1 AND id = $2";

/// As in the statements above.
const IN_PROGRESS: i64 = 1;

struct Append {
    tenant: String,
    turn_id: String,
    right: Right,
    /// The number before the first event.
    after: i64,
    head: i64,
    status: i64,
    /// In order, without gaps.
    bodies: Vec<Vec<u8>>,
    /// Earlier events as they are from now on, with their numbers.
    amended: Vec<(i64, Vec<u8>)>,
    /// The documents that the events bring passages of.
    quotes: BTreeSet<Quoted>,
    /// The steps of calls of tools that begin here, and of those that have their results.
    begun: Vec<String>,
    done: Vec<String>,
    /// One of them repeats what earlier ones brought.
    ends: bool,
}

/// By which right a journal is written.
enum Right {
    /// The turn is held under this epoch.
    Epoch(i64),
    /// It is taken over.
    Take { owner: String, until_us: i64 },
}

impl Store {
    /// Appends events to the journal of a turn that is held under `epoch`, and sets its status, all or nothing: durable on
    /// return. With any status but `InProgress` the lease is given up.
    ///
    /// # Errors
    /// `NotFound` no such turn · `Aborted` another has taken the turn over (`lease_lost`), or the events do not continue
    /// the journal: another writer was faster, or there is a gap (`sequence_taken`) · `FailedPrecondition` the turn has
    /// ended (`turn_ended`) or waits and must be taken first (`turn_waits`) · `Internal` no events, a `delta`, another
    /// turn's event
    pub async fn append(&self, tenant: &str, turn_id: &str, epoch: i64, events: &[TurnEvent], status: TurnStatus) -> Result<()> {
        self.write(Append::new(tenant, turn_id, Right::Epoch(epoch), events, status)?).await.map(drop)
    }

    /// Appends as [`Store::append`] does, and puts `amended` in the place of earlier events of the turn that have the same
    /// numbers: what was taken out of them is gone in the moment in which the journal says why.
    ///
    /// # Errors
    /// As of [`Store::append`]; `Internal` for an amended event that is not before `events`.
    pub async fn append_amending(
        &self,
        tenant: &str,
        turn_id: &str,
        epoch: i64,
        events: &[TurnEvent],
        status: TurnStatus,
        amended: &[TurnEvent],
    ) -> Result<()> {
        let mut append = Append::new(tenant, turn_id, Right::Epoch(epoch), events, status)?;
        for event in amended {
            let number = sequence(event.sequence)?;
            if number > append.after || event.turn_id != turn_id {
                return Err(Error::internal("only an earlier event of the same turn can be amended"));
            }
            append.amended.push((number, event.encode_to_vec()));
        }
        self.write(append).await.map(drop)
    }

    /// Appends as [`Store::append`] does, to a turn that waits or that another runs, and takes it over with that: gives
    /// the new epoch, and every write under an older one is refused from now on. The journal's head must be where the
    /// events say.
    ///
    /// # Errors
    /// As of [`Store::append`], but for `lease_lost` and `turn_waits`.
    pub async fn take(&self, tenant: &str, turn_id: &str, holder: Holder<'_>, events: &[TurnEvent], status: TurnStatus) -> Result<i64> {
        let right = Right::Take { owner: holder.owner.into(), until_us: holder.until_us() };
        match self.write(Append::new(tenant, turn_id, right, events, status)?).await? {
            Outcome::Epoch(epoch) => Ok(epoch),
            _ => Err(Error::internal("a turn was taken over without an epoch")),
        }
    }
}

impl Append {
    fn new(tenant: &str, turn_id: &str, right: Right, events: &[TurnEvent], status: TurnStatus) -> Result<Self> {
        let Some(first) = events.first().filter(|first| first.sequence > 0) else {
            return Err(Error::internal("an append needs events, numbered from 1"));
        };
        for (event, number) in events.iter().zip(first.sequence..) {
            if event.turn_id != turn_id || matches!(event.event, None | Some(turn_event::Event::Delta(_))) {
                return Err(Error::internal("an append holds events of its own turn, and no deltas"));
            }
            if event.sequence != number {
                return Err(taken(turn_id, number));
            }
        }
        let after = sequence(first.sequence - 1)?;
        Ok(Self {
            tenant: tenant.into(),
            turn_id: turn_id.into(),
            right,
            after,
            head: after + events.len() as i64,
            status: i64::from(status as i32),
            bodies: events.iter().map(TurnEvent::encode_to_vec).collect(),
            amended: Vec::new(),
            quotes: quotes::quoted(events),
            begun: events.iter().filter_map(|event| call(event, false)).collect(),
            done: events.iter().filter_map(|event| call(event, true)).collect(),
            ends: events.iter().any(|event| matches!(event.event, Some(turn_event::Event::Ended(_)))),
        })
    }

    /// The epoch under which the head has moved, if it has.
    async fn move_head(&self, conn: &mut Conn<'_>) -> sqlx::Result<Option<i64>> {
        let (tenant, id) = (&self.tenant, &self.turn_id);
        let rows = match &self.right {
            Right::Epoch(epoch) => conn.rows(MOVE_HEAD, args![self.head, self.status, tenant, id, self.after, *epoch]).await?,
            Right::Take { owner, until_us } => {
                conn.rows(TAKE_HEAD, args![self.head, self.status, tenant, id, self.after, owner, *until_us]).await?
            }
        };
        rows.first().map(|row| row.int(0)).transpose()
    }

    /// Notes from when on each call may have found something.
    async fn mark(&self, conn: &mut Conn<'_>) -> Result<(), Failure> {
        let turn = (self.tenant.as_str(), self.turn_id.as_str());
        // One that waits, perhaps for ever, has written what it found.
        if self.ends || self.status != IN_PROGRESS {
            return marks::clear_all(conn, turn).await;
        }
        for step in &self.done {
            marks::clear(conn, turn, step).await?;
        }
        for step in self.begun.iter().filter(|step| !self.done.contains(step)) {
            marks::set(conn, turn, step).await?;
        }
        Ok(())
    }

    /// Why the head did not move.
    async fn refusal(&self, conn: &mut Conn<'_>) -> sqlx::Result<Error> {
        let rows = conn.rows(HEAD, args![&self.tenant, &self.turn_id]).await?;
        let Some(row) = rows.first() else { return Ok(not_found("turn", &self.turn_id)) };
        if let Right::Epoch(epoch) = self.right
            && row.int(2)? != epoch
        {
            return Ok(lost(&self.turn_id));
        }
        if row.int(0)? != self.after {
            return Ok(taken(&self.turn_id, self.after.unsigned_abs() + 1));
        }
        Ok(match status(row.int(1)?) {
            TurnStatus::AwaitingTools => {
                Error::failed_precondition(format!("turn {:?} waits: it must be taken first", self.turn_id)).with_reason("turn_waits")
            }
            ended => {
                let message = format!("turn {:?} has ended with {}", self.turn_id, ended.as_str_name());
                Error::failed_precondition(message).with_reason("turn_ended")
            }
        })
    }
}

#[async_trait]
impl Command for Append {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let Some(epoch) = self.move_head(conn).await? else { return Err(self.refusal(conn).await?.into()) };
        let (mut amended, mut bodies) = (Cow::Borrowed(&self.amended), Cow::Borrowed(&self.bodies));
        if self.ends || !self.quotes.is_empty() || !self.amended.is_empty() {
            let written = amended.to_mut().iter_mut().map(|(_, body)| body).chain(bodies.to_mut());
            quotes::note(conn, (&self.tenant, &self.turn_id), &self.quotes, written).await?;
        }
        for (number, body) in amended.iter() {
            conn.execute(AMEND, args![body, &self.tenant, &self.turn_id, *number]).await?;
        }
        for (body, number) in bodies.iter().zip(self.after + 1..) {
            conn.execute(INSERT, args![&self.tenant, &self.turn_id, number, body]).await?;
        }
        self.mark(conn).await?;
        Ok(Outcome::Epoch(epoch))
    }
}

/// The step of a call that is run here, if the event is its intent, or its result.
fn call(event: &TurnEvent, done: bool) -> Option<String> {
    let step = match &event.event {
        Some(turn_event::Event::StepStarted(step)) if !done => step,
        Some(turn_event::Event::StepCompleted(step)) if done => step,
        _ => return None,
    };
    matches!(&step.step, Some(step::Step::Tool(tool)) if !tool.client).then(|| step.id.clone())
}

fn taken(turn_id: &str, number: u64) -> Error {
    let message = format!("event {number} does not continue the journal of turn {turn_id:?}: another writer was faster, or there is a gap");
    Error::new(Code::Aborted, message).with_reason("sequence_taken")
}
