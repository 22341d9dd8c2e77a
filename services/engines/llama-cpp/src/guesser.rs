//! A second, small model that guesses what the first one says next.
//!
//! It reads what the answers hold and keeps it in rows of its own, each a tenant's; a row goes on where a text goes on, and
//! gives up the end where the guess was wrong. It reads only in steps that write, a chunk in each, so nobody waits for long.

use std::sync::Arc;

use llama_stack_core::Result;
use llama_stack_models::batching::{Backend, Entry, Sequence};

use crate::context::Context;

/// Rows: answers that are guessed at, and some that were.
pub(crate) const ROWS: u32 = 4;

/// Of the likeliest token; below it the guess ends there: what the second model doubts is seldom what the first one says.
const DOUBT: f32 = 0.4;

/// Guesses that were wrong are at the end of a row, no more than so many tokens.
const LEFT_OVER: usize = 16;

/// The context that answers, and the one that guesses.
pub(crate) struct Guided<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) guesser: Option<Guesser<'a>>,
}

/// The second model at work.
pub(crate) struct Guesser<'a> {
    context: Context<'a>,
    rows: Vec<Row>,
    /// Tokens that all rows hold together.
    cells: usize,
    /// Tokens read in one step.
    chunk: usize,
    /// Tokens that both models know.
    vocabulary: u32,
    clock: u64,
}

#[derive(Default)]
struct Row {
    tenant: Option<Arc<str>>,
    /// What its cells hold.
    tokens: Vec<u32>,
    used: u64,
}

impl<'a> Guesser<'a> {
    pub(crate) fn new(context: Context<'a>, cells: u32, chunk: u32, vocabulary: u32) -> Self {
        let rows = (0..ROWS).map(|_| Row::default()).collect();
        Self { context, rows, cells: cells as usize, chunk: chunk as usize, vocabulary, clock: 0 }
    }

    /// As [`Backend::guess`].
    ///
    /// # Errors
    /// Those of the context.
    fn guess(&mut self, tenant: &Arc<str>, tokens: &[u32], most: usize) -> Result<Option<Vec<u32>>> {
        let Some(last) = tokens.len().checked_sub(1) else { return Ok(None) };
        if most == 0 || tokens.len() + most > self.cells || tokens[last] >= self.vocabulary {
            return Ok(None);
        }
        let number = self.row(tenant, tokens);
        let common = shared(&self.rows[number].tokens, tokens).min(last);
        if tokens[common..].iter().any(|token| *token >= self.vocabulary) {
            return Ok(None);
        }
        self.cut(number, common);
        self.make_room(number, tokens.len() - common + most);
        let reading = (tokens.len() - common).min(self.chunk);
        self.compute(number, &tokens[common..common + reading])?;
        if common + reading < tokens.len() {
            return Ok(None);
        }
        let mut guess = Vec::with_capacity(most);
        let mut place = reading - 1;
        while let Some(token) = likeliest(self.context.logits(place)).filter(|token| *token < self.vocabulary) {
            guess.push(token);
            if guess.len() == most {
                break;
            }
            self.compute(number, &[token])?;
            place = 0;
        }
        Ok(Some(guess))
    }

    /// Empties the rows of a tenant.
    pub(crate) fn forget(&mut self, tenant: &str) {
        for number in 0..self.rows.len() {
            if self.rows[number].tenant.as_deref() == Some(tenant) {
                self.cut(number, 0);
                self.rows[number].tenant = None;
            }
        }
    }

    /// The tenant's row that these tokens go on from, or the one that was not used for the longest time, emptied.
    fn row(&mut self, tenant: &Arc<str>, tokens: &[u32]) -> usize {
        let goes_on = |row: &&Row| row.tokens.len() <= shared(&row.tokens, tokens) + LEFT_OVER;
        let own = self.rows.iter().enumerate().filter(|(_, row)| row.tenant.as_ref() == Some(tenant));
        let best = own.filter(|(_, row)| goes_on(row)).max_by_key(|(_, row)| shared(&row.tokens, tokens));
        let number = best.map(|(number, _)| number).filter(|number| shared(&self.rows[*number].tokens, tokens) > 0);
        let number = number.unwrap_or_else(|| {
            let oldest = (0..self.rows.len()).min_by_key(|number| self.rows[*number].used).unwrap_or_default();
            self.cut(oldest, 0);
            self.rows[oldest].tenant = Some(tenant.clone());
            oldest
        });
        self.clock += 1;
        self.rows[number].used = self.clock;
        number
    }

    /// Empties other rows, the oldest first, until so many tokens fit. They do: one row alone is no longer than the cells.
    fn make_room(&mut self, number: usize, needed: usize) {
        while self.rows.iter().map(|row| row.tokens.len()).sum::<usize>() + needed > self.cells {
            let others = (0..self.rows.len()).filter(|other| *other != number && !self.rows[*other].tokens.is_empty());
            let Some(oldest) = others.min_by_key(|other| self.rows[*other].used) else { return };
            self.cut(oldest, 0);
        }
    }

    /// Reads tokens that follow what the row holds; what follows the last of them is wanted.
    fn compute(&mut self, number: usize, tokens: &[u32]) -> Result<()> {
        let row = &mut self.rows[number];
        let sequence = number as Sequence;
        let last = tokens.len() - 1;
        let entry = |(n, token): (usize, &u32)| {
            let position = u32::try_from(row.tokens.len() + n).unwrap_or(u32::MAX);
            Entry { sequence, position, token: *token, logits: n == last }
        };
        let entries: Vec<Entry> = tokens.iter().enumerate().map(entry).collect();
        self.context.decode(&entries)?;
        row.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn cut(&mut self, number: usize, length: usize) {
        if self.rows[number].tokens.len() > length {
            self.rows[number].tokens.truncate(length);
            self.context.cut(number as Sequence, u32::try_from(length).unwrap_or(u32::MAX));
        }
    }
}

/// None where it is doubtful.
fn likeliest(logits: &[f32]) -> Option<u32> {
    let (at, highest) = logits.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let all: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    (1.0 / all >= DOUBT).then(|| u32::try_from(at).ok()).flatten()
}

fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Backend for Guided<'_> {
    fn decode(&mut self, entries: &[Entry]) -> Result<()> {
        self.context.decode(entries)
    }

    fn logits(&mut self, index: usize) -> &mut [f32] {
        self.context.logits(index)
    }

    fn share(&mut self, from: Sequence, to: Sequence, length: u32) {
        self.context.share(from, to, length);
    }

    fn cut(&mut self, sequence: Sequence, length: u32) {
        self.context.cut(sequence, length);
    }

    fn guess(&mut self, tenant: &Arc<str>, tokens: &[u32], most: usize) -> Option<Vec<u32>> {
        match self.guesser.as_mut()?.guess(tenant, tokens, most) {
            Ok(guess) => guess,
            Err(error) => {
                tracing::error!(error = ?error, "the draft model broke; answers go on without it");
                self.guesser = None;
                None
            }
        }
    }
}
