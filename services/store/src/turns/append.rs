//! Appending to a journal.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{TurnEvent, TurnStatus, turn_event};
use prost::Message as _;

use super::{sequence, status};
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    sql::{Conn, args},
};

/// Moves the head only from where the caller saw it. Postgres locks the row, so of two racing appends the second
/// looks again after the first has committed, and finds the head moved.
const MOVE_HEAD: &str = "UPDATE turns SET head_seq = $1, status = $2 \
                         WHERE tenant = $3 AND id = $4 AND head_seq = $5 AND status IN (1, 2)";
const INSERT: &str = "INSERT INTO journal (tenant, turn_id, seq, body) VALUES ($1, $2, $3, $4)";
const HEAD: &str = "SELECT head_seq, status FROM turns WHERE tenant = $1 AND id = $2";

struct Append {
    tenant: String,
    turn_id: String,
    /// The number before the first event.
    after: i64,
    head: i64,
    status: i64,
    /// In order, without gaps.
    bodies: Vec<Vec<u8>>,
}

impl Store {
    /// Appends events to the turn's journal and sets its status, all or nothing: durable on return.
    ///
    /// # Errors
    /// `NotFound` no such turn · `Aborted` the events do not continue the journal: another writer was faster, or there
    /// is a gap (`sequence_taken`) · `FailedPrecondition` the turn has ended (`turn_ended`) · `Internal` no events, a
    /// `delta`, another turn's event
    pub async fn append(&self, tenant: &str, turn_id: &str, events: &[TurnEvent], status: TurnStatus) -> Result<()> {
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
        let command = Append {
            tenant: tenant.into(),
            turn_id: turn_id.into(),
            after,
            head: after + events.len() as i64,
            status: i64::from(status as i32),
            bodies: events.iter().map(TurnEvent::encode_to_vec).collect(),
        };
        self.write(command).await.map(drop)
    }
}

#[async_trait]
impl Command for Append {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let moved = conn.execute(MOVE_HEAD, args![self.head, self.status, &self.tenant, &self.turn_id, self.after]).await?;
        if moved == 0 {
            return Err(self.refusal(conn).await?.into());
        }
        for (body, number) in self.bodies.iter().zip(self.after + 1..) {
            conn.execute(INSERT, args![&self.tenant, &self.turn_id, number, body]).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Append {
    /// Why the head did not move.
    async fn refusal(&self, conn: &mut Conn<'_>) -> sqlx::Result<Error> {
        let rows = conn.rows(HEAD, args![&self.tenant, &self.turn_id]).await?;
        let Some(row) = rows.first() else { return Ok(not_found("turn", &self.turn_id)) };
        if row.int(0)? != self.after {
            return Ok(taken(&self.turn_id, self.after.unsigned_abs() + 1));
        }
        let ended = status(row.int(1)?).as_str_name();
        let message = format!("turn {:?} has ended with {ended}", self.turn_id);
        Ok(Error::failed_precondition(message).with_reason("turn_ended"))
    }
}

fn taken(turn_id: &str, number: u64) -> Error {
    let message = format!("event {number} does not continue the journal of turn {turn_id:?}: another writer was faster, or there is a gap");
    Error::new(Code::Aborted, message).with_reason("sequence_taken")
}
