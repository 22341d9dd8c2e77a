//! Whose bank it is, and what they may do with it.

use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::Bank;
use llama_stack_store::Author;
use prost_types::Timestamp;

use super::Banks;
use crate::index::BankKey;

/// Sees and changes all banks of its tenant.
pub(super) const ADMIN: &str = "admin";

/// How old `last_active` may grow while a bank is used: not every search shall write.
const USE_IS_NOTED_AFTER: i64 = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Change,
}

impl Banks {
    /// The bank, as it is stored, if the caller may do this with it.
    ///
    /// # Errors
    /// `NotFound` there is none, it has expired, or it is another's (`bank_not_found`) · `PermissionDenied` it is shared, and
    /// the caller, who may read it, would change it (`bank_is_read_only`).
    pub(super) async fn open(&self, cx: &Context, id: &str, want: Want) -> Result<Bank> {
        if id.is_empty() || id.len() > 256 || id.contains('\0') {
            return Err(no_such_bank(id));
        }
        let bank = match self.store.get_bank(cx.tenant(), &self.provider_id, id).await {
            Ok(bank) => bank,
            Err(error) if error.code() == Code::NotFound => return Err(no_such_bank(id)),
            Err(error) => return Err(error),
        };
        let (owns, admin) = (bank.owner == cx.principal().id, is_admin(cx));
        if past(bank.expires.as_ref()) || !(owns || admin || bank.shared) {
            return Err(no_such_bank(id));
        }
        if want == Want::Change && !owns && !admin {
            let message = format!("bank {id:?} is shared by its owner: you may read it, and only its owner and admins change it");
            return Err(Error::new(Code::PermissionDenied, message).with_reason("bank_is_read_only"));
        }
        Ok(bank)
    }

    /// Puts off the end of a bank that is used.
    pub(super) async fn note_use(&self, tenant: &str, bank: &Bank) -> Result<()> {
        let now = ids::now();
        let since = now.seconds - bank.last_active.as_ref().map_or(0, |time| time.seconds);
        let patience = match i64::try_from(bank.expires_after_seconds).unwrap_or(i64::MAX) {
            0 => USE_IS_NOTED_AFTER,
            after => (after / 10).min(USE_IS_NOTED_AFTER),
        };
        if since < patience { Ok(()) } else { self.store.touch_bank(tenant, bank, &now).await }
    }
}

pub(super) fn is_admin(cx: &Context) -> bool {
    cx.principal().roles.iter().any(|role| role == ADMIN)
}

pub(super) fn author(cx: &Context) -> Author {
    Author { principal: cx.principal().id.clone(), roles: cx.principal().roles.clone() }
}

pub(super) fn key(tenant: &str, bank: &str) -> BankKey {
    BankKey { tenant: tenant.into(), bank_id: bank.into() }
}

pub(super) fn no_such_bank(id: &str) -> Error {
    let shown: String = id.chars().take(100).collect();
    Error::not_found(format!("no bank {shown:?}")).with_reason("bank_not_found")
}

/// Whether a moment has come. None never does.
pub(super) fn past(moment: Option<&Timestamp>) -> bool {
    let now = ids::now();
    moment.is_some_and(|moment| (moment.seconds, moment.nanos) <= (now.seconds, now.nanos))
}
