//! Lists that are read from an object on, as the OpenAI API reads them, over lists that are read page by page.

use futures::future::BoxFuture;
use llama_stack_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of the pages behind a list.
pub(super) const PAGE: u32 = 1_000;

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    /// 1 to 100. Default 20.
    limit: Option<usize>,
    /// By creation: `desc`, the default, or `asc`.
    order: Option<String>,
    /// An id, after which to go on.
    after: Option<String>,
    /// An id, before which to end.
    before: Option<String>,
    /// Of files: `in_progress`, `completed`, `failed` or `cancelled`.
    pub(super) filter: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// A page, and the token of the next; empty after the last.
pub(super) type Pages<'a, T> = BoxFuture<'a, Result<(Vec<T>, String)>>;

impl ListQuery {
    fn limit(&self) -> Result<usize> {
        let limit = self.limit.unwrap_or(20);
        if !(1..=100).contains(&limit) {
            return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 100")));
        }
        Ok(limit)
    }

    /// # Errors
    /// `InvalidArgument`
    pub(super) fn newest_first(&self) -> Result<bool> {
        match self.order.as_deref() {
            None | Some("desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(_) => Err(Error::invalid("order", "order must be \"asc\" or \"desc\"")),
        }
    }

    /// The window of a list that the query asks for. `next` reads the page of a token, in the order of the list.
    ///
    /// # Errors
    /// `InvalidArgument` for an id that is not in the list · those of `next`.
    pub(super) async fn window<'a, T>(&self, id: impl Fn(&T) -> String, mut next: impl FnMut(String) -> Pages<'a, T>) -> Result<List<T>> {
        let limit = self.limit()?;
        if self.after.is_some() && self.before.is_some() {
            return Err(Error::invalid("before", "a list is read after an object or before one, not both"));
        }
        let (mut begun, mut ended, mut has_more) = (self.after.is_none(), self.before.is_none(), false);
        let (mut kept, mut token) = (Vec::new(), String::new());
        'pages: loop {
            let (items, following) = next(token).await?;
            for item in items {
                let this = id(&item);
                if self.before.as_ref() == Some(&this) {
                    ended = true;
                    break 'pages;
                }
                if begun {
                    kept.push((this, item));
                } else {
                    begun = self.after.as_ref() == Some(&this);
                }
                if kept.len() > limit {
                    has_more = true;
                    if self.before.is_none() {
                        kept.pop();
                        break 'pages;
                    }
                    // The end is not there yet: what is kept are the last ones before it.
                    kept.remove(0);
                }
            }
            if following.is_empty() {
                break;
            }
            token = following;
        }
        for (there, field, given) in [(begun, "after", &self.after), (ended, "before", &self.before)] {
            if !there {
                return Err(Error::invalid(field, format!("no {:?} in this list", given.clone().unwrap_or_default())));
            }
        }
        let end = |end: Option<&(String, T)>| end.map(|(id, _)| id.clone());
        let (first_id, last_id) = (end(kept.first()), end(kept.last()));
        let data = kept.into_iter().map(|(_, item)| item).collect();
        Ok(List { object: "list", data, first_id, last_id, has_more })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    async fn window(query: ListQuery) -> Result<(Vec<u32>, bool)> {
        let next = |token: String| {
            let from: u32 = token.parse().unwrap_or(0);
            let page: Vec<u32> = (from..(from + 3).min(8)).collect();
            let following = if from + 3 < 8 { (from + 3).to_string() } else { String::new() };
            async move { Ok((page, following)) }.boxed()
        };
        let list = query.window(u32::to_string, next).await?;
        assert_eq!(list.first_id, list.data.first().map(u32::to_string));
        Ok((list.data, list.has_more))
    }

    fn query(limit: usize) -> ListQuery {
        ListQuery { limit: Some(limit), ..ListQuery::default() }
    }

    #[tokio::test]
    async fn windows_lie_where_they_were_asked_for() {
        let after = |id: &str, limit| ListQuery { after: Some(id.into()), ..query(limit) };
        let before = |id: &str, limit| ListQuery { before: Some(id.into()), ..query(limit) };
        assert_eq!(window(query(2)).await.unwrap(), (vec![0, 1], true));
        assert_eq!(window(query(8)).await.unwrap(), ((0..8).collect(), false));
        assert_eq!(window(after("1", 3)).await.unwrap(), (vec![2, 3, 4], true));
        assert_eq!(window(after("5", 3)).await.unwrap(), (vec![6, 7], false));
        assert_eq!(window(after("7", 3)).await.unwrap(), (vec![], false));
        assert_eq!(window(before("5", 2)).await.unwrap(), (vec![3, 4], true));
        assert_eq!(window(before("2", 2)).await.unwrap(), (vec![0, 1], false));
        assert_eq!(window(after("9", 3)).await.unwrap_err().field(), Some("after"));
        assert_eq!(window(before("9", 3)).await.unwrap_err().field(), Some("before"));
        assert_eq!(window(query(0)).await.unwrap_err().field(), Some("limit"));
        assert_eq!(window(query(101)).await.unwrap_err().field(), Some("limit"));
    }
}
