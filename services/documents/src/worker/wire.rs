//! What the two processes say to each other: lengths of eight bytes, then JSON or the file's bytes.

use llama_stack_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};

use crate::Parsed;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) filename: String,
    pub(super) media_type: String,
    pub(super) text: usize,
    pub(super) memory: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Read(Parsed),
    Failed { code: String, message: String, reason: String, field: String },
}

impl From<Result<Parsed>> for Answer {
    fn from(read: Result<Parsed>) -> Self {
        match read {
            Ok(parsed) => Answer::Read(parsed),
            Err(error) => Answer::Failed {
                code: error.code().name().into(),
                message: error.message().into(),
                reason: error.reason().unwrap_or_default().into(),
                field: error.field().unwrap_or_default().into(),
            },
        }
    }
}

impl From<Answer> for Result<Parsed> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Read(parsed) => Ok(parsed),
            Answer::Failed { code, message, reason, field } => {
                let error = Error::new(Code::from_name(&code), message).with_reason(reason);
                Err(if field.is_empty() { error } else { error.with_field(field) })
            }
        }
    }
}
