//! Which turn holds an idempotency key, before anything is begun.

use llama_stack_core::{Code, Error, Result};

use crate::{Store, failure, sql::args};

const HOLDER: &str = "SELECT request_hash, turn_id FROM idempotency_keys WHERE tenant = $1 AND key = $2";

impl Store {
    /// The turn that the same request began under this key, if any: it may have been deleted since. `begin_turn` alone
    /// decides a race; this spares a repetition the checks that its own first call has made untrue.
    ///
    /// # Errors
    /// `Aborted` the key came with another request before (`idempotency_key_reused`)
    pub async fn turn_of_key(&self, tenant: &str, key: &str, request_hash: &str) -> Result<Option<String>> {
        let rows = self.read(HOLDER, args![tenant, key]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let text = |column| row.text(column).map_err(|error| failure::report(&error));
        if text(0)? != request_hash {
            let message = "this idempotency key came with another request before";
            return Err(Error::new(Code::Aborted, message).with_reason("idempotency_key_reused"));
        }
        text(1).map(Some)
    }
}
