//! Shield id → provider; what was judged before is not judged again.

use std::sync::Arc;

use llama_stack_core::{
    Context, Error, Result, Safety,
    directory::{Directory, Listing, Route, Table},
    forget::Forget,
    page,
};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
};

use crate::verdicts::{self, Verdicts};

/// The shields of all providers as one service: see [`Directory`].
///
/// It keeps verdicts, by tenant (see `verdicts`), and says in each answer how many bytes were judged for it and how many
/// were known. A failure is never kept.
pub struct Router {
    shields: Directory<ShieldList>,
    verdicts: Verdicts,
}

/// What has to be known of a shield to ask it.
struct Reads {
    conversation: bool,
}

struct ShieldList;

#[async_trait::async_trait]
impl Listing for ShieldList {
    const KIND: &'static str = "shield";
    type Service = dyn Safety;
    type Item = Shield;
    type Prepared = Reads;

    async fn page(service: &dyn Safety, cx: &Context, page_token: String) -> Result<(Vec<Shield>, String)> {
        let page = service.list_shields(cx, ListShieldsRequest { page_token, ..ListShieldsRequest::default() }).await?;
        Ok((page.shields, page.next_page_token))
    }

    fn name(shield: &Shield) -> &str {
        &shield.id
    }

    fn prepare(shield: &Shield) -> Result<Reads> {
        Ok(Reads { conversation: shield.reads_conversation })
    }

    fn label(shield: &mut Shield, provider: &str) {
        provider.clone_into(&mut shield.provider_id);
    }
}

impl Router {
    /// Providers by id, in the manifest's order. Asks none of them yet; of two shields of one id the first is served.
    pub fn new(providers: Vec<(String, Arc<dyn Safety>)>) -> Self {
        Self { shields: Directory::new(providers), verdicts: Verdicts::default() }
    }

    /// As [`Router::new`], and asks the providers at once: see [`Directory::build`].
    ///
    /// # Errors
    /// On `providers[<index>]`: `AlreadyExists` for a shield that an earlier provider has too (names both).
    pub async fn build(providers: Vec<(String, Arc<dyn Safety>)>) -> Result<Self> {
        Ok(Self { shields: Directory::build(providers).await?, verdicts: Verdicts::default() })
    }

    /// Where a shield's calls go, which `field` of the request names.
    async fn route(&self, cx: &Context, field: &str, id: &str) -> Result<Arc<Route<ShieldList>>> {
        match self.shields.route(cx, id).await? {
            Some(route) => Ok(route),
            None => Err(unknown(&self.shields.table(), id).with_field(field)),
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

/// Nobody can tell whose a verdict is by its key; what it says in a text's place may be somebody's words.
#[async_trait::async_trait]
impl Forget for Router {
    async fn forget(&self, _tenant: &str) -> Result<u64> {
        self.verdicts.clear();
        Ok(0)
    }
}

#[async_trait::async_trait]
impl Safety for Router {
    async fn list_shields(&self, cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shields = self.shields.refresh(cx).await?.listed.clone();
        let (shields, next_page_token) = page::slice(shields, |shield| &shield.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListShieldsResponse { shields, next_page_token })
    }

    async fn get_shield(&self, cx: &Context, request: GetShieldRequest) -> Result<Shield> {
        self.route(cx, "id", &request.id).await?;
        let table = self.shields.table();
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
        let route = self.route(cx, "shield_id", &request.shield_id).await?;
        let key = verdicts::key(cx.tenant(), &request, route.prepared.conversation);
        if !request.fresh
            && let Some(known) = self.verdicts.known(&key, &request)
        {
            return Ok(known);
        }
        let (bytes, shield) = (verdicts::last_bytes(&request), request.shield_id.clone());
        let mut verdict = cx.within(route.service.run_shield(cx, request)).await?;
        if let Some(score) = verdict.scores.iter().find(|score| !score.score.is_finite()) {
            let message = format!("shield {shield:?} gives {:?} the score {}, which is no number", score.code, score.score);
            return Err(Error::unavailable(message).with_reason("upstream_malformed"));
        }
        if verdict.judged_bytes == 0 && verdict.known_bytes == 0 {
            verdict.judged_bytes = bytes;
        }
        self.verdicts.keep(key, &verdict);
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use llama_stack_core::Code;
    use llama_stack_proto::v1::{CategoryScore, Message, Violation};

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

    /// Counts how often it is asked; finds `bad` unsafe, fails at `fail`, has no verdict on `odd`.
    struct Counting {
        asked: AtomicU32,
        reads_conversation: bool,
    }

    #[async_trait::async_trait]
    impl Safety for Counting {
        async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
            let shield = Shield { id: "guard".into(), reads_conversation: self.reads_conversation, ..Shield::default() };
            Ok(ListShieldsResponse { shields: vec![shield], ..Default::default() })
        }

        async fn run_shield(&self, _cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let text = request.messages.last().unwrap().joined_text();
            let violation = |reason: &str| Some(Violation { reason: reason.into(), ..Violation::default() });
            let violation = match text.as_str() {
                "fail" => return Err(Error::unavailable("down")),
                "odd" => violation(crate::reasons::UNPARSEABLE_VERDICT),
                "bad" => violation(crate::reasons::UNSAFE),
                _ => None,
            };
            let scores = if text == "nan" { vec![CategoryScore { score: f32::NAN, ..CategoryScore::default() }] } else { vec![] };
            Ok(RunShieldResponse { violation, scores, ..Default::default() })
        }
    }

    fn counting(reads_conversation: bool) -> (Arc<Counting>, Router) {
        let shield = Arc::new(Counting { asked: AtomicU32::new(0), reads_conversation });
        (shield.clone(), Router::new(vec![("p".into(), shield as Arc<dyn Safety>)]))
    }

    async fn judge(router: &Router, tenant: &str, texts: &[&str]) -> Result<RunShieldResponse> {
        let messages = texts.iter().map(|text| Message::user(*text)).collect();
        router.run_shield(&Context::test(tenant), RunShieldRequest { shield_id: "guard".into(), messages, stage: 1, fresh: false }).await
    }

    #[tokio::test]
    async fn what_was_judged_is_not_judged_again() {
        let (shield, router) = counting(false);
        let first = judge(&router, "a", &["bad"]).await.unwrap();
        assert_eq!((first.judged_bytes, first.known_bytes), (3, 0));
        let again = judge(&router, "a", &["something else", "bad"]).await.unwrap();
        assert_eq!((again.judged_bytes, again.known_bytes), (0, 3));
        assert_eq!((&again.violation, shield.asked.load(Ordering::SeqCst)), (&first.violation, 1));
        judge(&router, "b", &["bad"]).await.unwrap();
        assert_eq!(shield.asked.load(Ordering::SeqCst), 2, "tenants share nothing");
    }

    #[tokio::test]
    async fn an_erasure_leaves_no_verdict() {
        let (shield, router) = counting(false);
        judge(&router, "a", &["bad"]).await.unwrap();
        router.forget("a").await.unwrap();
        assert_eq!(judge(&router, "a", &["bad"]).await.unwrap().known_bytes, 0);
        assert_eq!(shield.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_verdict_may_be_asked_for_anew() {
        let (shield, router) = counting(false);
        judge(&router, "a", &["fine"]).await.unwrap();
        let request = RunShieldRequest { shield_id: "guard".into(), messages: vec![Message::user("fine")], stage: 1, fresh: true };
        assert_eq!(router.run_shield(&Context::test("a"), request).await.unwrap().known_bytes, 0);
        assert_eq!(shield.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_shield_that_reads_the_conversation_is_asked_for_each() {
        let (shield, router) = counting(true);
        for conversation in [["one", "fine"], ["two", "fine"], ["one", "fine"]] {
            judge(&router, "a", &conversation).await.unwrap();
        }
        assert_eq!(shield.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn no_failure_is_kept() {
        let (shield, router) = counting(false);
        for _ in 0..2 {
            judge(&router, "a", &["fail"]).await.unwrap_err();
            assert_eq!(judge(&router, "a", &["odd"]).await.unwrap().violation.unwrap().reason, "unparseable_verdict");
        }
        assert_eq!(shield.asked.load(Ordering::SeqCst), 4);
    }

    /// What nobody can compare with a threshold is no verdict, and no verdict lets nothing pass.
    #[tokio::test]
    async fn a_score_that_is_no_number_is_an_error_that_names_the_shield() {
        let (shield, router) = counting(false);
        for _ in 0..2 {
            let error = judge(&router, "a", &["nan"]).await.unwrap_err();
            assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")));
            assert!(error.message().contains("\"guard\""), "{error}");
        }
        assert_eq!(shield.asked.load(Ordering::SeqCst), 2, "it is not kept either");
    }

    #[tokio::test]
    async fn nothing_to_judge_is_refused() {
        let request = RunShieldRequest { shield_id: "guard".into(), ..Default::default() };
        let error = Router::new(providers(&[Some("guard")])).run_shield(&Context::test("a"), request).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("messages")));
    }
}
