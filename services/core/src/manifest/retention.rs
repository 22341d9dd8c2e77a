use serde::Deserialize;

use super::Lines;
use crate::Result;

/// How long what people leave here is kept. Default: until somebody deletes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days after which a session, which is also a Conversation or a chain of Responses, is deleted with its turns if nothing was
    /// said in it. Default 0: never.
    pub sessions_days: u32,
    /// Days after its upload that a file is deleted, if it does not say itself that it ends earlier. Default 0: never.
    pub files_days: u32,
}

/// Ten years: what is longer is a mistake.
const MOST: u32 = 3_650;

impl Retention {
    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        for (name, days) in [("sessions_days", self.sessions_days), ("files_days", self.files_days)] {
            if days > MOST {
                return Err(lines.error(&format!("retention.{name}"), &format!("is {days}; it must be at most {MOST}, or 0 for ever")));
            }
        }
        Ok(())
    }
}
