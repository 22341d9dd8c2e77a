//! Shield id → provider.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::join_all;
use llama_stack_core::{Code, Context, Error, Result, Safety, page};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
};

/// A provider lists at most this many pages; one that never ends its list does not hold up the others.
const MAX_PAGES: usize = 100;

/// The shields of all providers as one service.
///
/// It asks the providers when it is asked for a list, and when an id is unknown. A provider that does not answer is
/// logged and left out of the list; its shields, where they were seen before, still go to it and fail with its error.
pub struct Router {
    providers: Vec<(String, Arc<dyn Safety>)>,
    table: RwLock<Arc<Table>>,
}

/// What the providers said last.
#[derive(Default)]
struct Table {
    /// Shield id → index of its provider.
    routes: HashMap<String, usize>,
    /// In the manifest's order.
    listed: Vec<Shield>,
    /// Providers that did not answer.
    silent: Vec<String>,
    /// Ids that more than one provider has: id, kept, refused.
    duplicates: Vec<(String, String, String)>,
}

impl Router {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two shields of one id the first is served.
    pub fn new(providers: Vec<(String, Arc<dyn Safety>)>) -> Self {
        Self { providers, table: RwLock::default() }
    }

    /// As [`Router::new`], and asks the providers at once.
    ///
    /// # Errors
    /// `AlreadyExists` for a shield that two providers have (names both). A provider that does not answer is logged: it
    /// may come up later.
    pub async fn build(providers: Vec<(String, Arc<dyn Safety>)>) -> Result<Self> {
        let router = Self::new(providers);
        let table = router.refresh(&Context::system()).await;
        match table.duplicates.first() {
            None => Ok(router),
            Some((id, first, second)) => {
                let message = format!("shield {id:?} comes from two providers, {first:?} and {second:?}: an id must be unique");
                Err(Error::new(Code::AlreadyExists, message).with_reason("duplicate_shield"))
            }
        }
    }

    /// Asks all providers, at the same time.
    async fn refresh(&self, cx: &Context) -> Arc<Table> {
        let answers = join_all(self.providers.iter().map(|(_, provider)| every_shield(provider.as_ref(), cx))).await;
        let before = self.table();
        let mut table = Table::default();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(shields) => shields.into_iter().for_each(|shield| self.enter(&mut table, index, shield)),
                Err(error) => {
                    let provider = &self.providers[index].0;
                    tracing::warn!(%provider, error = error.message(), "provider does not list its shields");
                    table.silent.push(provider.clone());
                }
            }
        }
        for (id, provider) in &before.routes {
            if table.silent.contains(&self.providers[*provider].0) {
                table.routes.entry(id.clone()).or_insert(*provider);
            }
        }
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    fn enter(&self, table: &mut Table, provider: usize, mut shield: Shield) {
        let id = &self.providers[provider].0;
        if let Some(there) = table.routes.get(&shield.id) {
            let first = &self.providers[*there].0;
            tracing::warn!(shield = shield.id, served_by = %first, also_in = %id, "two providers have a shield of this id");
            table.duplicates.push((shield.id, first.clone(), id.clone()));
            return;
        }
        id.clone_into(&mut shield.provider_id);
        table.routes.insert(shield.id.clone(), provider);
        table.listed.push(shield);
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn route(&self, cx: &Context, field: &str, id: &str) -> Result<&dyn Safety> {
        if let Some(provider) = self.table().routes.get(id) {
            return Ok(self.providers[*provider].1.as_ref());
        }
        let table = cx.within(async { Ok(self.refresh(cx).await) }).await?;
        match table.routes.get(id) {
            Some(provider) => Ok(self.providers[*provider].1.as_ref()),
            None => Err(table.unknown(id).with_field(field)),
        }
    }
}

impl Table {
    fn unknown(&self, id: &str) -> Error {
        let there: Vec<&str> = self.listed.iter().map(|shield| shield.id.as_str()).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        if self.silent.is_empty() {
            return Error::not_found(format!("no shield {id:?}; there is: {there}")).with_reason("shield_not_found");
        }
        // It may well be theirs: a caller must not take this for a shield that does not exist.
        let silent = self.silent.join(", ");
        Error::unavailable(format!("no shield {id:?} among those that can be reached ({there}); these providers do not answer: {silent}"))
            .with_reason("provider_unreachable")
    }
}

#[async_trait::async_trait]
impl Safety for Router {
    async fn list_shields(&self, cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let table = cx.within(async { Ok(self.refresh(cx).await) }).await?;
        let (shields, next_page_token) =
            page::slice(table.listed.clone(), |shield| &shield.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListShieldsResponse { shields, next_page_token })
    }

    async fn get_shield(&self, cx: &Context, request: GetShieldRequest) -> Result<Shield> {
        self.route(cx, "id", &request.id).await?;
        let table = self.table();
        let found = table.listed.iter().find(|shield| shield.id == request.id);
        found.cloned().ok_or_else(|| table.unknown(&request.id).with_field("id"))
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.messages.is_empty() {
            return Err(Error::invalid("messages", "messages is empty: the last one is what a shield judges"));
        }
        if ShieldStage::try_from(request.stage).is_err() {
            return Err(Error::invalid("stage", format!("{} is no stage", request.stage)));
        }
        let provider = self.route(cx, "shield_id", &request.shield_id).await?;
        cx.within(provider.run_shield(cx, request)).await
    }
}

/// All pages of a provider's list.
async fn every_shield(provider: &dyn Safety, cx: &Context) -> Result<Vec<Shield>> {
    let (mut shields, mut request) = (Vec::new(), ListShieldsRequest::default());
    for _ in 0..MAX_PAGES {
        let page = provider.list_shields(cx, request.clone()).await?;
        shields.extend(page.shields);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(shields)
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Message, Violation};

    use super::*;

    /// A provider of one shield, which finds everything wrong; down where it has none.
    struct One(Option<&'static str>);

    #[async_trait::async_trait]
    impl Safety for One {
        async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
            let id = self.0.ok_or_else(|| Error::unavailable("down"))?;
            Ok(ListShieldsResponse { shields: vec![Shield { id: id.into(), ..Shield::default() }], ..Default::default() })
        }

        async fn run_shield(&self, _cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
            let violation =
                Violation { reason: format!("{} by {}", request.shield_id, self.0.unwrap_or_default()), ..Violation::default() };
            Ok(RunShieldResponse { violation: Some(violation), scores: vec![] })
        }
    }

    fn providers(shields: &[Option<&'static str>]) -> Vec<(String, Arc<dyn Safety>)> {
        shields.iter().enumerate().map(|(at, shield)| (format!("p{at}"), Arc::new(One(*shield)) as Arc<dyn Safety>)).collect()
    }

    async fn run(router: &Router, shield: &str) -> Result<String> {
        let request = RunShieldRequest { shield_id: shield.into(), messages: vec![Message::user("hi")], ..Default::default() };
        Ok(router.run_shield(&Context::test("a"), request).await?.violation.unwrap().reason)
    }

    #[tokio::test]
    async fn a_shield_runs_at_its_provider() {
        let router = Router::new(providers(&[Some("guard"), Some("patterns")]));
        assert_eq!(run(&router, "patterns").await.unwrap(), "patterns by patterns");
        let shield = router.get_shield(&Context::test("a"), GetShieldRequest { id: "patterns".into() }).await.unwrap();
        assert_eq!(shield.provider_id, "p1");
    }

    #[tokio::test]
    async fn an_unknown_shield_is_not_found_and_lists_what_there_is() {
        let error = run(&Router::new(providers(&[Some("guard")])), "gard").await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("shield_not_found")));
        assert!(error.message().contains("there is: guard"), "{error}");
        assert!(run(&Router::new(vec![]), "guard").await.unwrap_err().message().contains("there is: none"));
    }

    #[tokio::test]
    async fn a_dead_provider_takes_no_other_with_it_and_is_named() {
        let router = Router::build(providers(&[None, Some("guard")])).await.unwrap();
        assert!(run(&router, "guard").await.is_ok());
        let error = run(&router, "patterns").await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("p0"), "{error}");
    }

    #[tokio::test]
    async fn an_id_of_two_providers_is_refused_at_build_with_both() {
        let error = Router::build(providers(&[Some("guard"), Some("guard")])).await.err().unwrap();
        assert!(error.message().contains("\"p0\" and \"p1\""), "{error}");
    }

    #[tokio::test]
    async fn nothing_to_judge_is_refused() {
        let request = RunShieldRequest { shield_id: "guard".into(), ..Default::default() };
        let error = Router::new(providers(&[Some("guard")])).run_shield(&Context::test("a"), request).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("messages")));
    }
}
