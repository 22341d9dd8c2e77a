//! Search over banks as a tool of a turn, and answers that cite.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use llama_stack_core::{Context, Error, Memory, Result, Tools};
use llama_stack_proto::v1::{
    AgentConfig, Bank, Chunk, Citation, CreateTurnRequest, FileSearch, GetBankRequest, InvokeToolRequest, InvokeToolResponse,
    ListToolsRequest, ListToolsResponse, Part, Position, QueryRequest, QueryResponse, Role, ScoredChunk, SearchMode, Tool, ToolDefinition,
    Turn, TurnStatus, Value, step::Step, value,
};

use crate::{
    crash::finished,
    doubles::Say::{Call, Text},
    world::{World, config, say, say_in, tool_results, until},
};

/// A bank `laws` in which every query finds two passages, better ones the later they are asked for.
#[derive(Default)]
struct Shelf {
    asked: Mutex<Vec<(String, QueryRequest)>>,
}

#[async_trait::async_trait]
impl Memory for Shelf {
    async fn get_bank(&self, _: &Context, request: GetBankRequest) -> Result<Bank> {
        match request.id.as_str() {
            "laws" | "words" => Ok(Bank { id: request.id, ..Bank::default() }),
            other => Err(Error::not_found(format!("no bank {other:?}")).with_reason("bank_not_found")),
        }
    }

    async fn query(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        if request.text == "nothing" {
            return Ok(QueryResponse::default());
        }
        if request.bank_ids == ["words"] && request.mode() == SearchMode::Hybrid {
            return Err(Error::invalid("mode", "it has no vectors").with_reason("mode_not_supported"));
        }
        let mut asked = self.asked.lock().unwrap();
        let count = asked.len();
        asked.push((cx.principal().id.clone(), request.clone()));
        let passage = |n: usize| Chunk {
            id: format!("{}-{n}", request.text),
            document_id: "file_1".into(),
            file_id: "file_1".into(),
            text: format!("{} {n}", request.text),
            title: "laws.pdf".into(),
            position: Some(Position { page: 7, ..Position::default() }),
            attributes: HashMap::from([("year".into(), Value { value: Some(value::Value::Number(1814.0)) })]),
            ..Chunk::default()
        };
        let scored = |n: usize| ScoredChunk { chunk: Some(passage(n)), bank_id: "laws".into(), score: count as f32 - n as f32 * 0.1 };
        Ok(QueryResponse { chunks: vec![scored(0), scored(1)], ..QueryResponse::default() })
    }
}

async fn world(answers: Vec<Vec<crate::doubles::Say>>) -> (World, Arc<Shelf>) {
    let shelf = Arc::<Shelf>::default();
    let memory = shelf.clone();
    (World::changed(answers, |parts| parts.memory = Some(memory)).await, shelf)
}

fn ask(text: &str) -> CreateTurnRequest {
    let file_search = Some(FileSearch { bank_ids: vec!["laws".into()], max_results: 4, ..FileSearch::default() });
    CreateTurnRequest { config: Some(AgentConfig { file_search, ..config() }), ..say(text) }
}

fn citations(turn: &Turn) -> Vec<Citation> {
    let said = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(Step::Inference(inference)) => inference.message.clone(),
        _ => None,
    });
    said.unwrap().parts.into_iter().flat_map(|part| part.citations).collect()
}

#[tokio::test]
async fn passages_are_shown_with_numbers_and_the_answer_says_which_it_rests_on() {
    let answers = vec![vec![Call("c1", "file_search", r#"{"query":"king"}"#)], vec![Text("né: no king [1], no veto [2][9].")]];
    let (world, shelf) = world(answers).await;
    let (_, turn) = world.run(ask("May the king veto?")).await;
    assert_eq!(turn.status(), TurnStatus::Completed);

    let offered = world.script.request(0).tools;
    assert!(offered.iter().any(|tool| tool.name == "file_search"), "{offered:?}");
    let (who, query) = shelf.asked.lock().unwrap()[0].clone();
    assert_eq!((who.as_str(), query.bank_ids, query.top_k), ("tester", vec!["laws".to_owned()], 4));

    let result = &tool_results(&turn)[0];
    assert!(!result.is_error);
    let labels: Vec<&str> = result.parts.iter().map(|part| part.provenance.as_str()).collect();
    assert_eq!(labels, ["tool:file_search", "retrieved:laws/file_1", "retrieved:laws/file_1", "tool:file_search"]);
    assert_eq!(result.parts[1].as_text().unwrap(), "laws.pdf, page 7:\nking 0 [1]\n\n");
    assert_eq!(result.search_results[0].attributes, r#"{"year":1814}"#);
    let shown = world.script.request(1).messages;
    assert_eq!(shown.last().unwrap().role(), Role::Tool);

    let citations = citations(&turn);
    let told: Vec<_> = citations.iter().map(|cited| (cited.start, cited.end, cited.quote.as_str(), cited.page)).collect();
    assert_eq!(told, [(13, 16, "king 0", 7), (26, 29, "king 1", 7)]);
    assert_eq!((citations[0].file_id.as_str(), citations[0].filename.as_str()), ("file_1", "laws.pdf"));
}

/// Codes and names are lost by meaning alone.
#[tokio::test]
async fn a_search_is_by_meaning_and_by_words_where_nothing_else_is_said_and_banks_can() {
    let search = || vec![vec![Call("c1", "file_search", r#"{"query":"king"}"#)], vec![Text("so")]];
    let of = |bank: &str, mode: SearchMode, score_threshold: Option<f32>| {
        let file_search = FileSearch { bank_ids: vec![bank.into()], mode: mode.into(), score_threshold, ..FileSearch::default() };
        CreateTurnRequest {
            config: Some(llama_stack_proto::v1::AgentConfig { file_search: Some(file_search), ..config() }),
            ..say("May the king veto?")
        }
    };
    for (request, expected) in [
        (of("laws", SearchMode::Unspecified, None), SearchMode::Hybrid),
        (of("words", SearchMode::Unspecified, None), SearchMode::Unspecified),
        (of("laws", SearchMode::Vector, None), SearchMode::Vector),
        (of("laws", SearchMode::Unspecified, Some(0.5)), SearchMode::Unspecified),
    ] {
        let (world, shelf) = world(search()).await;
        let (_, turn) = world.run(request).await;
        assert_eq!(turn.status(), TurnStatus::Completed);
        let modes: Vec<SearchMode> = shelf.asked.lock().unwrap().iter().map(|(_, asked)| asked.mode()).collect();
        assert_eq!(modes, [expected]);
        assert!(!tool_results(&turn)[0].is_error);
    }
}

/// In one turn and over turns, also where searches run side by side.
/// A search of the web that always finds the same.
struct Web;

#[async_trait::async_trait]
impl Tools for Web {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let tool = Tool { definition: Some(ToolDefinition::new("web_search", "", "")), ..Tool::default() };
        Ok(ListToolsResponse { tools: vec![tool], ..ListToolsResponse::default() })
    }

    async fn invoke_tool(&self, _: &Context, _: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let parts = vec![Part::text("[1] Tides\nhttps://sea.example/tides\nTwice a day.")];
        Ok(InvokeToolResponse { parts, ..InvokeToolResponse::default() })
    }
}

#[tokio::test]
async fn a_page_of_the_web_is_cited_by_its_address_in_later_turns_as_well() {
    let answers = vec![
        vec![Call("c1", "web_search", r#"{"query":"tides"}"#)],
        vec![Text("Twice a day ([Tides](https://sea.example/tides)).")],
        vec![Text("As said: https://sea.example/tides, not https://sea.example/waves.")],
    ];
    let world = World::changed(answers, |parts| parts.tools = Some(Arc::new(Web))).await;
    let session = world.session().await;
    let ask = || {
        let config = AgentConfig { model: "scripted".into(), tools: vec!["web_search".into()], ..AgentConfig::default() };
        CreateTurnRequest { config: Some(config), ..say_in(&session, "when?") }
    };
    for (start, end) in [(13, 47), (9, 34)] {
        let cited = citations(&world.run(ask()).await.1);
        let [page] = cited.as_slice() else { panic!("{cited:?}") };
        assert_eq!((page.url.as_str(), page.title.as_str()), ("https://sea.example/tides", "Tides"));
        assert_eq!((page.start, page.end), (start, end));
    }
}

#[tokio::test]
async fn no_two_passages_of_a_conversation_have_one_number() {
    let answers = vec![
        vec![Call("c1", "file_search", r#"{"query":"a"}"#), Call("c2", "file_search", r#"{"queries":["b","c"]}"#)],
        vec![Text("[1] [5]")],
        vec![Call("c3", "file_search", r#"{"query":"d"}"#)],
        vec![Text("[1] [9]")],
    ];
    let (world, _) = world(answers).await;
    let session = world.session().await;
    let in_session = |text: &str| CreateTurnRequest { session_id: session.id.clone(), ..ask(text) };
    let numbers = |turn: &Turn| -> Vec<Vec<u32>> {
        tool_results(turn).iter().map(|result| result.search_results.iter().map(|found| found.number).collect()).collect()
    };
    let (_, first) = world.run(in_session("one")).await;
    assert_eq!(numbers(&first), [vec![1, 2], vec![5, 6, 7, 8]]);
    let (_, second) = world.run(in_session("two")).await;
    assert_eq!(numbers(&second), [[9, 10]]);
    // What an earlier turn found can still be cited.
    let quotes: Vec<String> = citations(&second).into_iter().map(|cited| cited.quote).collect();
    assert_eq!(quotes, ["a 0", "d 0"]);
}

#[tokio::test]
async fn a_model_is_told_of_a_search_that_found_nothing_or_could_not_be_made() {
    let answers = vec![
        vec![Call("c1", "file_search", r#"{"query":"nothing"}"#), Call("c2", "file_search", "{}"), Call("c3", "file_search", "not json")],
        vec![Text("I do not know [1].")],
    ];
    let (world, shelf) = world(answers).await;
    let (_, turn) = world.run(ask("?")).await;
    let results = tool_results(&turn);
    assert_eq!(results[0].joined_text(), "no passage was found for \"nothing\"");
    assert!(!results[0].is_error && results[1].is_error && results[2].is_error);
    assert!(results[1].joined_text().contains("there is no query"), "{}", results[1].joined_text());
    assert_eq!((turn.status(), shelf.asked.lock().unwrap().len(), citations(&turn).len()), (TurnStatus::Completed, 0, 0));
}

#[tokio::test]
async fn a_search_over_what_is_not_there_is_refused_before_the_turn() {
    let (world, _) = world(Vec::new()).await;
    let refused = async |change: fn(&mut llama_stack_proto::v1::AgentConfig)| {
        let mut request = ask("?");
        change(request.config.as_mut().unwrap());
        let error = world.begin(request).await.map(drop).unwrap_err();
        (error.field().unwrap_or_default().to_owned(), error.reason().unwrap_or_default().to_owned())
    };
    assert_eq!(
        refused(|config| config.file_search.as_mut().unwrap().bank_ids.push("lost".into())).await,
        ("config.file_search.bank_ids[1]".into(), "bank_not_found".into())
    );
    assert_eq!(refused(|config| config.file_search.as_mut().unwrap().bank_ids.clear()).await.0, "config.file_search.bank_ids");
    assert_eq!(refused(|config| config.file_search.as_mut().unwrap().max_results = 51).await.0, "config.file_search.max_results");
    assert_eq!(refused(|config| config.client_tools[0].name = "file_search".into()).await.1, "duplicate_tool");
    let without = World::new(Vec::new()).await;
    let error = without.begin(ask("?")).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), Some("no_memory"));
}

/// A search only reads, so one that a crash cut off is made again, for who began the turn.
#[tokio::test]
async fn a_search_that_was_cut_off_is_made_again() {
    let answers = vec![vec![Call("c1", "file_search", r#"{"query":"hang"}"#)], vec![Text("found [1]")]];
    let shelf = Arc::<Shelf>::default();
    let stuck = Arc::<Stuck>::default();
    let memory: Arc<dyn Memory> = stuck.clone();
    let first = World::changed(answers, |parts| parts.memory = Some(memory)).await;
    let stream = first.begin(ask("?")).await.unwrap();
    until(|| stuck.asked.load(Ordering::SeqCst)).await;
    first.runtime.release().await.unwrap();
    drop(stream);
    let memory: Arc<dyn Memory> = shelf.clone();
    let again = World::with(first.dir.clone(), first.script.clone(), first.hands.clone(), |parts| parts.memory = Some(memory)).await;
    assert_eq!(again.runtime.recover().await.unwrap(), 1);
    let id = {
        let list = llama_stack_proto::v1::ListTurnsRequest::default();
        use llama_stack_core::Agents as _;
        again.runtime.list_turns(&again.cx, list).await.unwrap().turns[0].id.clone()
    };
    let turn = finished(&again, &id).await;
    assert_eq!((turn.status(), citations(&turn).len()), (TurnStatus::Completed, 1));
    assert_eq!(shelf.asked.lock().unwrap()[0].0, "tester");
}

/// Says that it was asked, and nothing else.
#[derive(Default)]
struct Stuck {
    asked: AtomicBool,
}

#[async_trait::async_trait]
impl Memory for Stuck {
    async fn get_bank(&self, _: &Context, request: GetBankRequest) -> Result<Bank> {
        Ok(Bank { id: request.id, ..Bank::default() })
    }

    async fn query(&self, _: &Context, _: QueryRequest) -> Result<QueryResponse> {
        self.asked.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// A passage of a document that is deleted is in no journal, and no model reads it again: neither from the journal nor from
/// what a runtime keeps of it.
#[tokio::test]
async fn a_deleted_document_is_quoted_no_more_and_its_session_goes_on() {
    let search = vec![Call("c1", "file_search", r#"{"query":"king"}"#)];
    let (world, _) = world(vec![search, vec![Text("no veto [1]")], vec![Text("yes")], vec![Text("indeed")], vec![Text("so")]]).await;
    let session = world.session().await;
    let in_session = |text: &str| CreateTurnRequest { session_id: session.id.clone(), ..ask(text) };
    let (events, first) = world.run(in_session("one")).await;
    world.run(in_session("two")).await;
    // A second time, so that what is kept of the first turn is used.
    world.run(in_session("three")).await;
    assert!(format!("{:?}", world.script.request(3).messages).contains("king 0"));

    world.store.delete_documents("acme", "laws", &["file_1".into()]).await.unwrap();
    world.run(in_session("four")).await;
    let shown = format!("{:?}", world.script.request(4).messages);
    assert!(!shown.contains("king 0") && shown.contains("deleted with its document"), "{shown}");
    let left = world.turn(&first.id).await;
    assert!(!format!("{left:?}").contains("king 0") && format!("{left:?}").contains("no veto [1]"));
    assert_eq!((citations(&left).len(), citations(&left)[0].quote.as_str()), (1, ""));
    let journal = world.store.journal("acme", &first.id, 0).await.unwrap();
    assert_eq!(journal.len() as u64, events.iter().map(|event| event.sequence).max().unwrap());
}
