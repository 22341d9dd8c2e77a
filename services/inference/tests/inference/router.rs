//! Model id → provider.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Context, Error, EventStream, Inference, Result};
use llama_stack_inference::Router;
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, EmbedInput, EmbedRequest, EmbedResponse, Embedding, FinishReason, GetModelRequest, ListModelsRequest,
    ListModelsResponse, Model, ModelKind, Usage,
};

use crate::{all, cx};

/// What a provider answers when it is asked for its models.
#[derive(Clone)]
enum Lists {
    Models(Vec<Model>),
    Down,
    NoKey,
    Hangs,
}

/// Says its own name and the model that it was asked for.
struct Double {
    name: &'static str,
    lists: Mutex<Lists>,
    asked: AtomicUsize,
    /// How long listing takes.
    slow: Duration,
}

impl Double {
    fn new(name: &'static str, lists: Lists) -> Arc<Self> {
        Arc::new(Self { name, lists: Mutex::new(lists), asked: AtomicUsize::new(0), slow: Duration::ZERO })
    }

    fn with(name: &'static str, ids: &[&str]) -> Arc<Self> {
        Self::new(name, models(ids))
    }

    fn now_lists(&self, lists: Lists) {
        *self.lists.lock().unwrap() = lists;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn model(id: &str, kind: ModelKind) -> Model {
    Model { id: id.into(), kind: kind.into(), ..Model::default() }
}

fn models(ids: &[&str]) -> Lists {
    Lists::Models(ids.iter().map(|id| model(id, ModelKind::Unspecified)).collect())
}

#[async_trait::async_trait]
impl Inference for Double {
    async fn list_models(&self, _cx: &Context, _request: ListModelsRequest) -> Result<ListModelsResponse> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !self.slow.is_zero() {
            tokio::time::sleep(self.slow).await;
        }
        let lists = self.lists.lock().unwrap().clone();
        match lists {
            Lists::Models(models) => Ok(ListModelsResponse { models, next_page_token: String::new() }),
            Lists::Down => Err(Error::unavailable("nobody there").with_reason("upstream_unreachable")),
            Lists::NoKey => Err(Error::failed_precondition("the upstream refused the key")),
            Lists::Hangs => std::future::pending().await,
        }
    }

    async fn stream_chat(&self, _cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        match request.model.as_str() {
            "gone" => return Err(Error::not_found("no such model").with_reason("model_not_found")),
            "endless" => return Ok(Box::pin(futures::stream::pending())),
            _ => {}
        }
        let said = ChatEvent::text(0, format!("{}:{}", self.name, request.model));
        let events = [said, ChatEvent::finish(0, FinishReason::Stop), ChatEvent::usage(Usage::default())];
        Ok(Box::pin(futures::stream::iter(events.map(Ok))))
    }

    async fn embed(&self, _cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let embeddings = vec![Embedding { values: vec![1.0, 0.0] }; request.inputs.len()];
        Ok(EmbedResponse { model: request.model, embeddings, ..EmbedResponse::default() })
    }
}

fn router(providers: &[&Arc<Double>]) -> Router {
    Router::new(providers.iter().map(|double| (double.name.to_owned(), Arc::clone(double) as Arc<dyn Inference>)).collect())
}

/// Who answers for a model.
async fn who(router: &Router, id: &str) -> Result<String> {
    let response = router.chat(&cx(), ChatRequest::user(id, "hi")).await?;
    assert_eq!(response.model, id, "an answer carries the id that was asked for");
    Ok(response.choices[0].message.as_ref().unwrap().joined_text())
}

async fn ids(router: &Router) -> Vec<String> {
    let models = router.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
    models.into_iter().map(|model| model.id).collect()
}

#[tokio::test]
async fn a_plain_id_is_the_first_providers_and_a_named_one_is_the_named_ones() {
    let (a, b) = (Double::with("a", &["x"]), Double::with("b", &["x", "y", "org/z"]));
    let router = router(&[&a, &b]);
    for (id, answer) in
        [("x", "a:x"), ("y", "b:y"), ("b/x", "b:x"), ("org/z", "b:org/z"), ("b/org/z", "b:org/z"), ("a/unlisted", "a:unlisted")]
    {
        assert_eq!(who(&router, id).await.unwrap(), answer, "{id}");
    }
}

#[tokio::test]
async fn a_model_named_after_its_provider_is_found() {
    let a = Double::with("a", &["a/auto"]);
    let router = router(&[&a]);
    assert_eq!(ids(&router).await, ["a/a/auto"]);
    assert_eq!(who(&router, "a/auto").await.unwrap(), "a:a/auto");
    assert_eq!(who(&router, "a/a/auto").await.unwrap(), "a:a/auto");
}

#[tokio::test]
async fn the_list_has_every_model_once_under_an_id_that_works() {
    let (a, b) = (Double::with("a", &["x"]), Double::with("b", &["x", "y", "a/w"]));
    let router = router(&[&a, &b]);
    assert_eq!(ids(&router).await, ["x", "b/x", "y", "b/a/w"]);
    for id in ids(&router).await {
        let model = router.get_model(&cx(), GetModelRequest { id: id.clone() }).await.unwrap();
        assert_eq!(model.id, id);
        let answer = format!("{}:{}", model.provider_id, model.provider_model_id);
        assert_eq!(who(&router, &id).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_by_kind() {
    let kinds = [("c1", ModelKind::Chat), ("e", ModelKind::Embedding), ("c2", ModelKind::Chat), ("c3", ModelKind::Chat)];
    let a = Double::new("a", Lists::Models(kinds.iter().map(|(id, kind)| model(id, *kind)).collect()));
    let router = router(&[&a]);
    let mut request = ListModelsRequest { kind: ModelKind::Chat.into(), page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = router.list_models(&cx(), request.clone()).await.unwrap();
        seen.push(page.models.into_iter().map(|model| model.id).collect::<Vec<_>>());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, [vec!["c1", "c2"], vec!["c3"]]);
    request.page_token = "nothing".into();
    assert_eq!(router.list_models(&cx(), request).await.unwrap_err().field(), Some("page_token"));
}

#[tokio::test]
async fn an_unknown_model_lists_what_there_is() {
    let (a, b) = (Double::with("a", &["x"]), Double::new("b", Lists::NoKey));
    let router = router(&[&a, &b]);
    let error = who(&router, "nope").await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::NotFound, Some("model_not_found"), Some("model")));
    assert!(error.message().contains("\"nope\"; there is: x") && error.message().contains("refused the key"), "{error}");
}

#[tokio::test]
async fn a_long_list_is_cut_with_its_number() {
    let many: Vec<String> = (0..80).map(|n| format!("m{n}")).collect();
    let a = Double::with("a", &many.iter().map(String::as_str).collect::<Vec<_>>());
    let error = who(&router(&[&a]), "nope").await.unwrap_err();
    assert!(error.message().contains("m49, and 30 more") && !error.message().contains("m50"), "{error}");
}

#[tokio::test]
async fn a_dead_provider_takes_nobody_with_it() {
    let (dead, alive) = (Double::new("dead", Lists::Down), Double::with("alive", &["x"]));
    let router = router(&[&dead, &alive]);
    assert_eq!(ids(&router).await, ["x"]);
    assert_eq!(who(&router, "x").await.unwrap(), "alive:x");
    // It may be the dead one's: that is not the same as not being there.
    let error = who(&router, "y").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")));
    assert_eq!(who(&router, "dead/y").await.unwrap(), "dead:y");
}

#[tokio::test]
async fn a_provider_that_hangs_holds_up_no_call_to_another() {
    let (hangs, alive) = (Double::new("hangs", Lists::Hangs), Double::with("alive", &["x"]));
    // It is given up after five seconds; the quickest of some says whether that was waited for, on a machine that stood still too.
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(who(&router(&[&alive, &hangs]), "x").await.unwrap(), "alive:x");
        assert_eq!(who(&router(&[&hangs, &alive]), "x").await.unwrap(), "alive:x");
        quickest = quickest.min(began.elapsed());
        if quickest < Duration::from_secs(3) {
            return;
        }
    }
    panic!("waited {quickest:?} for a provider that hangs");
}

#[tokio::test]
async fn a_model_that_appears_is_found_and_one_that_goes_is_looked_for() {
    let a = Double::with("a", &["x", "gone"]);
    let router = router(&[&a]);
    let began = Instant::now();
    assert_eq!(who(&router, "x").await.unwrap(), "a:x");
    a.now_lists(models(&["x", "new"]));
    // An unknown id makes nobody repeat himself within a second.
    let soon = who(&router, "new").await;
    if began.elapsed() < Duration::from_secs(1) {
        assert_eq!(soon.unwrap_err().code(), Code::NotFound);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(who(&router, "new").await.unwrap(), "a:new");
    // What the provider denies makes its list doubtful: the next call finds it read again.
    let asked = a.asked();
    a.now_lists(models(&["gone"]));
    assert_eq!(who(&router, "a/gone").await.unwrap_err().code(), Code::NotFound);
    who(&router, "new").await.unwrap();
    assert_eq!(a.asked(), asked + 1);
    assert_eq!(who(&router, "x").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn known_models_are_not_asked_for_again_until_their_list_has_aged() {
    let a = Double::with("a", &["x"]);
    let router = router(&[&a]).with_lists_fresh_for(Duration::from_secs(2));
    let began = Instant::now();
    // Once when it is first wanted, and once for each time that it has aged since.
    let once =
        |asked: usize, began: Instant| assert!((1..=1 + began.elapsed().as_secs() as usize / 2).contains(&asked), "asked {asked} times");
    for _ in 0..50 {
        who(&router, "x").await.unwrap();
    }
    once(a.asked(), began);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (before, began) = (a.asked(), Instant::now());
    for _ in 0..50 {
        who(&router, "x").await.unwrap();
    }
    once(a.asked() - before, began);
}

/// What is listed of a model that runs here, whether it is loaded and how busy it is, is true now.
#[tokio::test]
async fn providers_of_this_process_say_how_their_models_are_now() {
    let (near, far) = (Double::with("near", &["x"]), Double::with("far", &["y"]));
    let router = router(&[&near, &far]).with_near(&["near"]);
    let state = async |id: &str| {
        let listed = router.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
        let listed = listed.into_iter().find(|model| model.id == id).unwrap();
        let named = router.get_model(&cx(), GetModelRequest { id: id.into() }).await.unwrap();
        assert_eq!((&listed.metadata, &listed.provider_id), (&named.metadata, &named.provider_id));
        named.metadata.get("state").cloned()
    };
    assert_eq!((state("x").await, state("y").await), (None, None));
    for (double, id) in [(&near, "x"), (&far, "y")] {
        let metadata = [("state".to_owned(), "loaded".to_owned())].into();
        double.now_lists(Lists::Models(vec![Model { metadata, ..model(id, ModelKind::Chat) }]));
    }
    assert_eq!((state("x").await.as_deref(), state("y").await), (Some("loaded"), None));
    // Requests still ask nobody for a list.
    let asked = near.asked();
    who(&router, "x").await.unwrap();
    assert_eq!(near.asked(), asked);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let mut a = Double::with("a", &["x"]);
    Arc::get_mut(&mut a).unwrap().slow = Duration::from_millis(50);
    let router = router(&[&a]);
    let began = Instant::now();
    let answers = futures::future::join_all((0..40).map(|n| who(&router, if n % 2 == 0 { "x" } else { "nope" }))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    // After a second an unknown id may be looked for anew.
    let asked = a.asked();
    assert!((1..=1 + began.elapsed().as_secs() as usize).contains(&asked), "asked {asked} times");
}

#[tokio::test]
async fn a_model_of_another_kind_is_refused() {
    let kinds = vec![model("chat", ModelKind::Chat), model("vec", ModelKind::Embedding), model("cls", ModelKind::Classifier)];
    let a = Double::new("a", Lists::Models(kinds));
    let router = router(&[&a]);
    let error = who(&router, "vec").await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("model")));
    assert!(error.message().contains("an embedding model; this call needs a chat model"), "{error}");
    let embed = |model: &str| EmbedRequest { model: model.into(), inputs: vec![EmbedInput::text("x")], ..EmbedRequest::default() };
    assert_eq!(router.embed(&cx(), embed("a/vec")).await.unwrap().model, "a/vec");
    assert!(router.embed(&cx(), embed("cls")).await.is_err());
}

#[tokio::test]
async fn requests_are_checked_before_any_provider_is_asked() {
    let a = Double::with("a", &["x"]);
    let router = router(&[&a]);
    let error = router.chat(&cx(), ChatRequest::new("x", Vec::new())).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("messages")));
    assert!(router.stream_chat(&cx(), ChatRequest { n: 17, ..ChatRequest::user("x", "hi") }).await.is_err());
    assert_eq!(a.asked(), 0);
}

#[tokio::test]
async fn deadlines_hold_for_providers_that_know_none() {
    let a = Double::with("a", &["endless"]);
    let router = router(&[&a]);
    let hurried = || cx().with_timeout(Duration::from_millis(50));
    let whole = router.chat(&hurried(), ChatRequest::user("endless", "hi")).await.unwrap_err();
    let (events, streamed) = match router.stream_chat(&hurried(), ChatRequest::user("endless", "hi")).await {
        Ok(events) => all(events).await,
        // It was over before there was a stream.
        Err(error) => (Vec::new(), Some(error)),
    };
    assert_eq!((whole.code(), streamed.unwrap().code(), events.len()), (Code::DeadlineExceeded, Code::DeadlineExceeded, 0));
}
