//! Writing a journal anew, where parts of a turn were taken out.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::TurnEvent;
use prost::Message as _;

use super::sequence;
use crate::{
    Store,
    command::{Command, Failure, Outcome},
    sql::{Conn, args},
};

/// Only of a turn that has ended, and as the caller saw it.
const MOVE_HEAD: &str = "UPDATE turns SET head_seq = $1 WHERE tenant = $2 AND id = $3 AND head_seq = $4 AND status NOT IN (1, 2)";
const CLEAR: &str = "DELETE FROM journal WHERE tenant = $1 AND turn_id = $2";
const INSERT: &str = "INSERT INTO journal (tenant, turn_id, seq, body) VALUES ($1, $2, $3, $4)";

struct Rewrite {
    tenant: String,
    turn_id: String,
    head: i64,
    bodies: Vec<Vec<u8>>,
}

impl Store {
    /// Puts `events` in place of the journal of a turn that has ended with event `head`, all or nothing.
    ///
    /// # Errors
    /// `Aborted` the turn is gone, has not ended or is not as the caller saw it (`sequence_taken`)
    pub async fn rewrite_journal(&self, tenant: &str, turn_id: &str, head: u64, events: &[TurnEvent]) -> Result<()> {
        let bodies = events.iter().map(TurnEvent::encode_to_vec).collect();
        let command = Rewrite { tenant: tenant.into(), turn_id: turn_id.into(), head: sequence(head)?, bodies };
        self.erase(command).await.map(drop)
    }
}

#[async_trait]
impl Command for Rewrite {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let head = self.bodies.len() as i64;
        if conn.execute(MOVE_HEAD, args![head, &self.tenant, &self.turn_id, self.head]).await? == 0 {
            let message = format!("turn {:?} has changed in between: look again", self.turn_id);
            return Err(Error::new(Code::Aborted, message).with_reason("sequence_taken").into());
        }
        conn.execute(CLEAR, args![&self.tenant, &self.turn_id]).await?;
        for (body, number) in self.bodies.iter().zip(1_i64..) {
            conn.execute(INSERT, args![&self.tenant, &self.turn_id, number, body]).await?;
        }
        Ok(Outcome::Done)
    }
}
