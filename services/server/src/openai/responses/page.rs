//! Pages of items.

use llama_stack_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::items::Item;

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct PageQuery {
    /// 1 to 100. Default 20.
    pub(crate) limit: Option<usize>,
    /// `desc`, the default, or `asc`.
    pub(crate) order: Option<String>,
    /// An id, after which to go on.
    pub(crate) after: Option<String>,
}

impl PageQuery {
    /// # Errors
    /// `InvalidArgument`
    pub(crate) fn limit(&self) -> Result<usize> {
        let limit = self.limit.unwrap_or(20);
        if !(1..=100).contains(&limit) {
            return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 100")));
        }
        Ok(limit)
    }

    /// # Errors
    /// `InvalidArgument`
    pub(crate) fn newest_first(&self) -> Result<bool> {
        match self.order.as_deref() {
            None | Some("desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(_) => Err(Error::invalid("order", "order must be \"asc\" or \"desc\"")),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ItemList {
    object: &'static str,
    data: Vec<Item>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl ItemList {
    /// The first `limit` of `items`.
    pub(crate) fn new(mut items: Vec<Item>, limit: usize) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let id = |item: Option<&Item>| item.map(|item| item.id().to_owned());
        Self { object: "list", first_id: id(items.first()), last_id: id(items.last()), data: items, has_more }
    }
}

/// Drops all up to the item of this id.
///
/// # Errors
/// `InvalidArgument` where it is not among them.
pub(crate) fn skip_past(items: &mut Vec<Item>, id: &str) -> Result<()> {
    let place = items.iter().position(|item| item.id() == id);
    let place = place.ok_or_else(|| Error::invalid("after", format!("no item {id:?} in this list")))?;
    items.drain(..=place);
    Ok(())
}
