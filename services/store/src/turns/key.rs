//! Idempotency keys: which turn a request began under one.

use llama_stack_core::{Code, Error, Result, ids};

use super::micros;
use crate::{
    Store,
    command::Failure,
    failure,
    sql::{Conn, Row, args},
};

/// How long a key is remembered, in microseconds: a day.
const LIFETIME_US: i64 = 24 * 3_600 * 1_000_000;

const FORGET: &str = "DELETE FROM idempotency_keys WHERE created_us < $1";
const TAKE: &str = "INSERT INTO idempotency_keys (tenant, key, request_hash, turn_id, created_us) VALUES ($1, $2, $3, $4, $5) \
                    ON CONFLICT (tenant, key) DO NOTHING";
const HOLDER: &str = "SELECT request_hash, turn_id FROM idempotency_keys WHERE tenant = $1 AND key = $2 AND created_us >= $3";

/// A caller's key, and a hash of the request it came with.
pub(super) struct Key {
    key: String,
    request_hash: String,
    now_us: i64,
}

impl Store {
    /// The turn that the same request began under this key, if any: it may have been deleted since. `begin_turn` alone
    /// decides a race; this spares a repetition the checks that its own first call has made untrue.
    ///
    /// # Errors
    /// `Aborted` the key came with another request before (`idempotency_key_reused`)
    pub async fn turn_of_key(&self, tenant: &str, key: &str, request_hash: &str) -> Result<Option<String>> {
        let key = Key::new(key, request_hash);
        let rows = self.read(HOLDER, args![tenant, &key.key, key.oldest_us()]).await?;
        rows.first().map(|row| key.turn_in(row)).transpose().map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Database(error) => failure::report(&error),
        })
    }
}

impl Key {
    pub(super) fn new(key: &str, request_hash: &str) -> Self {
        Self { key: key.into(), request_hash: request_hash.into(), now_us: micros(Some(&ids::now())) }
    }

    /// Takes the key for a turn, or finds the turn that holds it.
    pub(super) async fn take(&self, tenant: &str, turn_id: &str, conn: &mut Conn<'_>) -> Result<Option<String>, Failure> {
        conn.execute(FORGET, args![self.oldest_us()]).await?;
        // Postgres waits here for another transaction that takes the same key, so the holder is found below.
        let taken = conn.execute(TAKE, args![tenant, &self.key, &self.request_hash, turn_id, self.now_us]).await?;
        if taken == 1 {
            return Ok(None);
        }
        let rows = conn.rows(HOLDER, args![tenant, &self.key, self.oldest_us()]).await?;
        // None: another transaction forgot the old key between the two statements.
        self.turn_in(rows.first().ok_or_else(lost_race)?).map(Some)
    }

    fn oldest_us(&self) -> i64 {
        self.now_us - LIFETIME_US
    }

    /// The turn that holds the key, if it was the same request.
    fn turn_in(&self, holder: &Row) -> Result<String, Failure> {
        if holder.text(0)? != self.request_hash {
            let message = "this idempotency key came with another request before";
            return Err(Error::new(Code::Aborted, message).with_reason("idempotency_key_reused").into());
        }
        Ok(holder.text(1)?)
    }
}

fn lost_race() -> Error {
    Error::new(Code::Aborted, "another call took the idempotency key at the same time: try again").with_reason("idempotency_key_race")
}
