//! Shield id → provider.

use std::sync::Arc;

use llama_stack_core::{
    Context, Error, Result, Safety,
    directory::{Directory, Listing, Table},
    page,
};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
};

/// The shields of all providers as one service: see [`Directory`].
pub struct Router(Directory<ShieldList>);

struct ShieldList;

#[async_trait::async_trait]
impl Listing for ShieldList {
    const KIND: &'static str = "shield";
    type Service = dyn Safety;
    type Item = Shield;
    type Prepared = ();

    async fn page(service: &dyn Safety, cx: &Context, page_token: String) -> Result<(Vec<Shield>, String)> {
        let page = service.list_shields(cx, ListShieldsRequest { page_token, ..ListShieldsRequest::default() }).await?;
        Ok((page.shields, page.next_page_token))
    }

    fn name(shield: &Shield) -> &str {
        &shield.id
    }

    fn prepare(_shield: &Shield) -> Result<()> {
        Ok(())
    }

    fn label(shield: &mut Shield, provider: &str) {
        provider.clone_into(&mut shield.provider_id);
    }
}

impl Router {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two shields of one id the first is served.
    pub fn new(providers: Vec<(String, Arc<dyn Safety>)>) -> Self {
        Self(Directory::new(providers))
    }

    /// As [`Router::new`], and asks the providers at once: see [`Directory::build`].
    ///
    /// # Errors
    /// On `providers[<index>]`: `AlreadyExists` for a shield that an earlier provider has too (names both).
    pub async fn build(providers: Vec<(String, Arc<dyn Safety>)>) -> Result<Self> {
        Ok(Self(Directory::build(providers).await?))
    }

    /// The provider of a shield, which `field` of the request names.
    async fn provider(&self, cx: &Context, field: &str, id: &str) -> Result<Arc<dyn Safety>> {
        match self.0.route(cx, id).await? {
            Some(route) => Ok(route.service.clone()),
            None => Err(unknown(&self.0.table(), id).with_field(field)),
        }
    }
}

fn unknown(table: &Table<ShieldList>, id: &str) -> Error {
    let there = table.names();
    if table.silent.is_empty() {
        return Error::not_found(format!("no shield {id:?}; there is: {there}")).with_reason("shield_not_found");
    }
    // It may well be theirs: a caller must not take this for a shield that does not exist.
    let silent = table.silent.join(", ");
    Error::unavailable(format!("no shield {id:?} among those that can be reached ({there}); these providers do not answer: {silent}"))
        .with_reason("provider_unreachable")
}

#[async_trait::async_trait]
impl Safety for Router {
    async fn list_shields(&self, cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shields = self.0.refresh(cx).await?.listed.clone();
        let (shields, next_page_token) = page::slice(shields, |shield| &shield.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListShieldsResponse { shields, next_page_token })
    }

    async fn get_shield(&self, cx: &Context, request: GetShieldRequest) -> Result<Shield> {
        self.provider(cx, "id", &request.id).await?;
        let table = self.0.table();
        let found = table.listed.iter().find(|shield| shield.id == request.id);
        found.cloned().ok_or_else(|| unknown(&table, &request.id).with_field("id"))
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.messages.is_empty() {
            return Err(Error::invalid("messages", "messages is empty: the last one is what a shield judges"));
        }
        if ShieldStage::try_from(request.stage).is_err() {
            return Err(Error::invalid("stage", format!("{} is no stage", request.stage)));
        }
        let provider = self.provider(cx, "shield_id", &request.shield_id).await?;
        cx.within(provider.run_shield(cx, request)).await
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;
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
            Ok(RunShieldResponse { violation: Some(violation), scores: vec![], ..Default::default() })
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
        assert_eq!((error.code(), error.field()), (Code::AlreadyExists, Some("providers[1]")));
    }

    #[tokio::test]
    async fn nothing_to_judge_is_refused() {
        let request = RunShieldRequest { shield_id: "guard".into(), ..Default::default() };
        let error = Router::new(providers(&[Some("guard")])).run_shield(&Context::test("a"), request).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("messages")));
    }
}
