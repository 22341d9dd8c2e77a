//! The order in which a bank is read through: (document, index, id).
//!
//! Qdrant scrolls by point id, and orders by numbers alone. So the first page of a listing reads every point's place once, and
//! the pages after it take theirs from that list.

use std::time::{Duration, Instant};

use llama_stack_core::{Error, Result};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::point::{DOCUMENT, ID, INDEX, small};

/// How long the pages of one listing may follow each other from the same list.
const KEPT: Duration = Duration::from_secs(60);

/// A chunk's place, and the point that it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub document: String,
    pub index: u32,
    pub id: String,
    pub point: Uuid,
}

impl Place {
    pub fn new(point: Uuid, payload: &Map<String, Json>) -> Self {
        let text = |key: &str| payload.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        Self { document: text(DOCUMENT), index: small(payload.get(INDEX)), id: text(ID), point }
    }
}

/// A bank's places in order, as they were when the listing began.
#[derive(Debug)]
pub struct Order {
    places: Vec<Place>,
    read: Instant,
}

impl Order {
    pub fn new(mut places: Vec<Place>) -> Self {
        places.sort_unstable();
        places.dedup();
        Self { places, read: Instant::now() }
    }

    /// Whether a page after the first may still come from it.
    pub fn is_fresh(&self) -> bool {
        self.read.elapsed() < KEPT
    }

    /// The next places after the chunk `after`, which is the point `at`.
    ///
    /// # Errors
    /// `InvalidArgument` where that chunk is not in the bank.
    pub fn page(&self, after: Option<(&str, Uuid)>, limit: usize) -> Result<&[Place]> {
        let start = match after {
            None => 0,
            Some((id, at)) => {
                let place = self.places.iter().position(|place| place.point == at);
                place.ok_or_else(|| Error::invalid("page_token", format!("chunk {id:?} is no longer in the bank: list from the start")))?
                    + 1
            }
        };
        let rest = &self.places[start..];
        Ok(&rest[..limit.min(rest.len())])
    }
}
