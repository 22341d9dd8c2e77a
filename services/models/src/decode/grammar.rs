//! Which tokens a constraint allows next.

use llguidance::{Matcher, ParserFactory, toktrie::SimpleVob};

use llama_stack_core::{Error, Result};

use crate::constraint::{self, Constraint};

/// A constraint that follows one answer, token by token.
pub struct Grammar {
    matcher: Matcher,
    /// Tokens with which the model ends; allowed wherever the constraint is met.
    ends: Vec<u32>,
}

impl Grammar {
    /// # Errors
    /// `InvalidArgument` on `response_format` for a constraint that cannot be read or never be met.
    pub fn new(factory: &ParserFactory, constraint: &Constraint, ends: &[u32]) -> Result<Self> {
        let mut matcher = Matcher::new(factory.create_parser(constraint::compiled(constraint)));
        if let Some(problem) = matcher.get_error() {
            return Err(refused(&problem));
        }
        matcher.compute_mask().map_err(|error| refused(&error.to_string()))?;
        Ok(Self { matcher, ends: ends.to_vec() })
    }

    /// The tokens that may come next. Where the constraint is met, the end tokens are among them: a grammar's own idea
    /// of the end token is the file's `<|endoftext|>`, and a chat model ends with another.
    pub fn allowed(&mut self) -> Result<SimpleVob> {
        let mut allowed = self.matcher.compute_mask_or_eos().map_err(|error| broken(&error.to_string()))?;
        if self.matcher.is_accepting().map_err(|error| broken(&error.to_string()))? {
            let widest = self.ends.iter().max().map_or(0, |id| *id as usize + 1);
            if allowed.len() < widest {
                allowed.resize(widest);
            }
            self.ends.iter().for_each(|id| allowed.allow_token(*id));
        }
        Ok(allowed)
    }

    /// Takes a token. True where nothing may follow it.
    pub fn push(&mut self, token: u32) -> Result<bool> {
        self.matcher.consume_token(token).map_err(|error| broken(&error.to_string()))?;
        Ok(self.matcher.is_stopped())
    }
}

impl Clone for Grammar {
    /// Independent of the original: a matcher's own clone would share its state.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), ends: self.ends.clone() }
    }
}

/// The grammar's own words, without its dump of the parser's state.
fn refused(problem: &str) -> Error {
    let line = problem.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it cannot be read");
    Error::invalid("response_format", format!("this constraint cannot be used: {line}")).with_reason("invalid_constraint")
}

fn broken(problem: &str) -> Error {
    Error::internal("the constraint could not be followed any further").with_reason("constraint_failed").with_source(problem.to_owned())
}
