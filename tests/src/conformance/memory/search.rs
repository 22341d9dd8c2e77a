//! Search: by words, by meaning, both; filters, thresholds, rankers, variety, budgets.

use std::sync::Arc;

use llama_stack_core::{Context, Memory};
use llama_stack_proto::v1::{
    Bank, BankKind, Filter, ListChunksRequest, QueryRequest, Ranker, SearchMode, Value,
    filter::{Comparison, Filter as Of, Filters, comparison::Operator},
    ranker::Kind,
};

use super::{bank_of, found, inserted, made, number, query, somebody, text, value, with};
use crate::worded::{CHAT, RERANKER, vector};

pub async fn all(memory: Arc<dyn Memory>) {
    each_mode_finds_what_it_should(memory.clone()).await;
    words_are_no_operators(memory.clone()).await;
    filters_choose_what_is_searched(memory.clone()).await;
    the_best_come_first_and_no_more_than_asked_for(memory.clone()).await;
    pages_go_on_where_the_last_one_ended(memory.clone()).await;
    rankers_decide_the_order(memory.clone()).await;
    variety_leaves_out_what_is_said_already(memory.clone()).await;
    several_banks_are_searched_as_one(memory.clone()).await;
    a_model_may_write_the_query_anew(memory.clone()).await;
    words_alone_have_no_vectors_to_be_shown(memory.clone()).await;
    what_is_wrong_is_named(memory).await;
}

async fn zoo(memory: &Arc<dyn Memory>, cx: &Context) -> Bank {
    let bank = made(memory, cx).await;
    let animal = |id: &str, words: &str, legs: f64, home: &str| with(text(id, words), &[("legs", number(legs)), ("home", value(home))]);
    let documents = vec![
        animal("cat", "the cat purrs and sleeps on the sofa", 4.0, "house"),
        animal("dog", "the dog barks at the cat next door", 4.0, "house"),
        animal("parrot", "the parrot repeats error code E-4711", 2.0, "house"),
        animal("whale", "a whale sings in the deep sea", 0.0, "sea"),
        with(text("stone", "a stone says nothing"), &[]),
    ];
    inserted(memory, cx, &bank, documents).await;
    bank
}

fn compare(attribute: &str, operator: Operator, values: &[Value]) -> Filter {
    let comparison = Comparison { attribute: attribute.into(), operator: operator.into(), values: values.to_vec() };
    Filter { filter: Some(Of::Comparison(comparison)) }
}

fn all_of(filters: Vec<Filter>) -> Filter {
    Filter { filter: Some(Of::All(Filters { filters })) }
}

fn any_of(filters: Vec<Filter>) -> Filter {
    Filter { filter: Some(Of::Any(Filters { filters })) }
}

pub async fn each_mode_finds_what_it_should(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    for (mode, asked) in [(SearchMode::Vector, "cat purrs"), (SearchMode::Keyword, "purrs"), (SearchMode::Hybrid, "purrs sofa")] {
        assert_eq!(found(&memory, &cx, query(&bank, asked, mode)).await[0], "cat", "{mode:?}");
    }
    assert_eq!(found(&memory, &cx, query(&bank, "What does E-4711 mean?", SearchMode::Keyword)).await[0], "parrot");
    assert!(found(&memory, &cx, query(&bank, "helicopter", SearchMode::Keyword)).await.is_empty());
    let by_vector = QueryRequest { vector: vector("whale sings"), ..query(&bank, "", SearchMode::Unspecified) };
    assert_eq!(found(&memory, &cx, by_vector).await[0], "whale");
    // Words of one and a vector of another: both are found first.
    let both = QueryRequest { vector: vector("whale sings deep sea"), ..query(&bank, "parrot repeats", SearchMode::Hybrid) };
    let first: Vec<String> = found(&memory, &cx, both).await.into_iter().take(2).collect();
    assert!(first.contains(&"whale".into()) && first.contains(&"parrot".into()), "{first:?}");
}

pub async fn words_are_no_operators(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    for asked in [
        "\"",
        "cat\"",
        "cat AND",
        "NOT cat",
        "cat*",
        "^cat",
        "title: cat",
        "(cat",
        "NEAR(cat, 3)",
        "cat -purrs",
        "{cat}",
        "cat\0",
        "🐈 cat",
        "'; DROP TABLE chunks; --",
    ] {
        memory.query(&cx, query(&bank, asked, SearchMode::Keyword)).await.unwrap();
    }
    assert_eq!(found(&memory, &cx, query(&bank, "NOT purrs", SearchMode::Keyword)).await, ["cat"]);
}

pub async fn filters_choose_what_is_searched(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    let (four, home) = ([number(4.0)], [value("house")]);
    let cases: Vec<(Filter, &[&str])> = vec![
        (compare("legs", Operator::Eq, &four), &["cat", "dog"]),
        (compare("legs", Operator::Ne, &four), &["parrot", "stone", "whale"]),
        (compare("legs", Operator::Gt, &[number(2.0)]), &["cat", "dog"]),
        (compare("legs", Operator::Gte, &[number(2.0)]), &["cat", "dog", "parrot"]),
        (compare("legs", Operator::Lt, &[number(2.0)]), &["whale"]),
        (compare("legs", Operator::Lte, &[number(2.0)]), &["parrot", "whale"]),
        (compare("home", Operator::In, &[value("sea"), value("moon")]), &["whale"]),
        (compare("home", Operator::NotIn, &home), &["stone", "whale"]),
        (all_of(vec![compare("home", Operator::Eq, &home), compare("legs", Operator::Lt, &four)]), &["parrot"]),
        (any_of(vec![compare("home", Operator::Eq, &[value("sea")]), compare("legs", Operator::Eq, &four)]), &["cat", "dog", "whale"]),
        (compare("nothing", Operator::Eq, &[value("x")]), &[]),
        (compare("home", Operator::Eq, &four), &[]),
    ];
    for (filter, expected) in cases {
        for mode in [SearchMode::Vector, SearchMode::Hybrid] {
            let request = QueryRequest { filter: Some(filter.clone()), ..query(&bank, "the animal", mode) };
            let mut ids = found(&memory, &cx, request).await;
            ids.sort();
            assert_eq!(ids, expected, "{mode:?} {filter:?}");
        }
    }
    let request = QueryRequest { filter: Some(compare("legs", Operator::Lt, &four)), ..query(&bank, "the", SearchMode::Keyword) };
    let mut ids = found(&memory, &cx, request).await;
    ids.sort();
    assert_eq!(ids, ["parrot", "whale"]);
}

pub async fn the_best_come_first_and_no_more_than_asked_for(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    for mode in [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid] {
        let answer = memory.query(&cx, query(&bank, "the cat on the sofa", mode)).await.unwrap().chunks;
        assert!(answer.windows(2).all(|pair| pair[0].score >= pair[1].score), "{answer:?}");
        assert!(answer.len() >= 2);
        let one = QueryRequest { top_k: 1, ..query(&bank, "the cat on the sofa", mode) };
        let best = memory.query(&cx, one).await.unwrap().chunks;
        assert_eq!(best.len(), 1);
        assert_eq!(best[0].chunk, answer[0].chunk);
        let high = QueryRequest { score_threshold: Some(answer[1].score), ..query(&bank, "the cat on the sofa", mode) };
        let above = memory.query(&cx, high).await.unwrap().chunks;
        assert!(!above.is_empty() && above.iter().all(|scored| scored.score >= answer[1].score));
    }
    let tight = QueryRequest { max_tokens: 12, ..query(&bank, "the cat", SearchMode::Vector) };
    assert_eq!(found(&memory, &cx, tight).await.len(), 1);
}

/// What a query gives page by page, and on how many.
async fn read_on(memory: &Arc<dyn Memory>, cx: &Context, mut request: QueryRequest) -> (Vec<String>, usize) {
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let answer = memory.query(cx, request.clone()).await.unwrap();
        assert!(!answer.chunks.is_empty(), "an empty page after {pages}");
        pages += 1;
        ids.extend(answer.chunks.into_iter().map(|scored| scored.chunk.unwrap().document_id));
        if answer.next_page_token.is_empty() {
            return (ids, pages);
        }
        request.page_token = answer.next_page_token;
    }
}

pub async fn pages_go_on_where_the_last_one_ended(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    let asked = |mode| QueryRequest { top_k: 2, ..query(&bank, "the cat on the sofa", mode) };
    let whole = found(&memory, &cx, QueryRequest { top_k: 5, ..asked(SearchMode::Vector) }).await;
    assert_eq!(read_on(&memory, &cx, asked(SearchMode::Vector)).await, (whole.clone(), 3));
    let meaning = Ranker { kind: Kind::Rerank.into(), ..Ranker::default() };
    let model = Ranker { model: RERANKER.into(), ..meaning.clone() };
    let others = [
        asked(SearchMode::Hybrid),
        QueryRequest { ranker: Some(Ranker { kind: Kind::Rrf.into(), ..Ranker::default() }), ..asked(SearchMode::Hybrid) },
        QueryRequest { ranker: Some(meaning), ..asked(SearchMode::Vector) },
        QueryRequest { ranker: Some(model), ..asked(SearchMode::Vector) },
        QueryRequest { mmr_lambda: Some(0.5), ..asked(SearchMode::Vector) },
        QueryRequest { max_tokens: 1, ..asked(SearchMode::Vector) },
    ];
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    for request in others {
        let (ids, pages) = read_on(&memory, &cx, request.clone()).await;
        // A budget that is smaller than any passage leaves one for each page.
        assert_eq!((sorted(ids), pages), (sorted(whole.clone()), if request.max_tokens > 0 { 5 } else { 3 }), "{request:?}");
    }

    let first = memory.query(&cx, asked(SearchMode::Vector)).await.unwrap();
    let next = QueryRequest { page_token: first.next_page_token, ..asked(SearchMode::Vector) };
    let again = found(&memory, &cx, next.clone()).await;
    assert_eq!((found(&memory, &cx, next.clone()).await, again.as_slice()), (again.clone(), &whole[2..4]));
    // What is new is given once, if it is better than all that was given; and nothing of that again.
    inserted(&memory, &cx, &bank, vec![text("best", "the cat on the sofa")]).await;
    let (rest, _) = read_on(&memory, &cx, next.clone()).await;
    assert_eq!((rest[0].as_str(), &rest[1..]), ("best", &whole[2..]));
    let others = [
        QueryRequest { text: "another".into(), ..next.clone() },
        QueryRequest { top_k: 3, ..next.clone() },
        QueryRequest { page_token: "best".into(), ..next },
    ];
    for other in others {
        let error = memory.query(&cx, other).await.unwrap_err();
        assert_eq!((error.field(), error.reason()), (Some("page_token"), Some("bad_page_token")));
    }

    let rewritten = QueryRequest { rewrite_model: CHAT.into(), queries: 2, top_k: 1, ..query(&bank, "purrs sings", SearchMode::Keyword) };
    let answer = memory.query(&cx, rewritten.clone()).await.unwrap();
    let more = memory.query(&cx, QueryRequest { page_token: answer.next_page_token, ..rewritten }).await.unwrap();
    assert_eq!((more.queries, more.chunks.len(), more.next_page_token.as_str()), (answer.queries, 1, ""));
    assert_ne!(more.chunks[0].chunk, answer.chunks[0].chunk);
}

pub async fn rankers_decide_the_order(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    let ranked = |ranker: Ranker| QueryRequest {
        vector: vector("a whale sings in the deep sea"),
        ranker: Some(ranker),
        ..query(&bank, "parrot repeats code", SearchMode::Hybrid)
    };
    let weighted = |weight| ranked(Ranker { kind: Kind::Weighted.into(), vector_weight: Some(weight), model: String::new() });
    assert_eq!(found(&memory, &cx, weighted(0.9)).await[0], "whale");
    assert_eq!(found(&memory, &cx, weighted(0.1)).await[0], "parrot");
    let model = Ranker { kind: Kind::Rerank.into(), model: RERANKER.into(), vector_weight: None };
    let answer = memory.query(&cx, ranked(model)).await.unwrap().chunks;
    assert_eq!((answer[0].chunk.as_ref().unwrap().document_id.as_str(), answer[0].score), ("parrot", 1.0));
    let meaning = Ranker { kind: Kind::Rerank.into(), ..Ranker::default() };
    let answer = memory.query(&cx, ranked(meaning)).await.unwrap().chunks;
    assert_eq!(answer[0].chunk.as_ref().unwrap().document_id, "whale");
    assert!((answer[0].score - 1.0).abs() < 0.05, "the cosine of a text with itself: {}", answer[0].score);
    let nobody = Ranker { kind: Kind::Rerank.into(), model: "none".into(), vector_weight: None };
    assert_eq!(memory.query(&cx, ranked(nobody)).await.unwrap_err().field(), Some("ranker.model"));
}

pub async fn variety_leaves_out_what_is_said_already(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let documents = vec![
        text("one", "opening hours of the museum are nine to five"),
        text("same", "opening hours of the museum are nine to five daily"),
        text("other", "the museum shop sells postcards at all opening times"),
    ];
    inserted(&memory, &cx, &bank, documents).await;
    let asked = QueryRequest { top_k: 2, ..query(&bank, "opening hours of the museum", SearchMode::Vector) };
    let plain = found(&memory, &cx, asked.clone()).await;
    assert!(plain.contains(&"one".into()) && plain.contains(&"same".into()), "{plain:?}");
    let varied = found(&memory, &cx, QueryRequest { mmr_lambda: Some(0.3), ..asked.clone() }).await;
    assert_eq!(varied[1], "other", "{varied:?}");
    assert_eq!(found(&memory, &cx, QueryRequest { mmr_lambda: Some(1.0), ..asked }).await, plain);
}

pub async fn several_banks_are_searched_as_one(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let (pets, other) = (zoo(&memory, &cx).await, made(&memory, &cx).await);
    inserted(&memory, &cx, &other, vec![text("tiger", "the tiger sleeps and the tiger purrs")]).await;
    let request =
        QueryRequest { bank_ids: vec![pets.id.clone(), other.id.clone(), pets.id.clone()], ..query(&pets, "purrs", SearchMode::Keyword) };
    let answer = memory.query(&cx, request).await.unwrap().chunks;
    let mut places: Vec<(String, String)> = answer.into_iter().map(|scored| (scored.bank_id, scored.chunk.unwrap().document_id)).collect();
    places.sort();
    let mut expected = vec![(pets.id, "cat".to_owned()), (other.id, "tiger".to_owned())];
    expected.sort();
    assert_eq!(places, expected);
}

pub async fn a_model_may_write_the_query_anew(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = zoo(&memory, &cx).await;
    let rewritten = |text: &str, queries| QueryRequest { rewrite_model: CHAT.into(), queries, ..query(&bank, text, SearchMode::Keyword) };
    let answer = memory.query(&cx, rewritten("purrs sings barks", 2)).await.unwrap();
    assert_eq!(answer.queries, ["rephrased purrs", "rephrased sings"]);
    let mut ids: Vec<String> = answer.chunks.into_iter().map(|scored| scored.chunk.unwrap().document_id).collect();
    ids.sort();
    assert_eq!(ids, ["cat", "whale"]);
    // A model that fails leaves the query as it was.
    let answer = memory.query(&cx, rewritten("fail", 3)).await.unwrap();
    assert_eq!(answer.queries, ["fail"]);
    assert!(memory.query(&cx, query(&bank, "purrs", SearchMode::Keyword)).await.unwrap().queries.is_empty());
}

/// The field that is wrong, each time.
/// Where there are no vectors, those that are asked for are left out.
pub async fn words_alone_have_no_vectors_to_be_shown(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, bank_of(BankKind::Keyword)).await.unwrap();
    inserted(&memory, &cx, &bank, vec![text("cat", "the cat purrs"), text("sofa", "a sofa")]).await;
    let request = ListChunksRequest { bank_id: bank.id.clone(), with_vectors: true, ..ListChunksRequest::default() };
    let mut chunks = memory.list_chunks(&cx, request).await.unwrap().chunks;
    chunks.sort_by(|a, b| a.document_id.cmp(&b.document_id));
    assert_eq!(chunks.iter().map(|chunk| (chunk.document_id.as_str(), chunk.vector.len())).collect::<Vec<_>>(), [("cat", 0), ("sofa", 0)]);
    assert_eq!(found(&memory, &cx, query(&bank, "purrs", SearchMode::Keyword)).await, ["cat"]);
}

pub async fn what_is_wrong_is_named(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let right = query(&bank, "cat", SearchMode::Vector);
    let deep = (0..9).fold(compare("a", Operator::Eq, &[number(1.0)]), |inner, _| all_of(vec![inner]));
    let empty = Value { value: None };
    let ranker = |kind, model: &str, weight| Some(Ranker { kind, model: model.into(), vector_weight: weight });
    let crooked = [
        (QueryRequest { text: " ".into(), ..right.clone() }, "text"),
        (QueryRequest { top_k: 1_001, ..right.clone() }, "top_k"),
        (QueryRequest { mode: 9, ..right.clone() }, "mode"),
        (QueryRequest { vector: vec![1.0; 3], ..right.clone() }, "vector"),
        (QueryRequest { vector: vec![f32::NAN; crate::worded::DIMENSION as usize], ..right.clone() }, "vector"),
        (QueryRequest { queries: 2, ..right.clone() }, "rewrite_model"),
        (QueryRequest { queries: 9, rewrite_model: CHAT.into(), ..right.clone() }, "queries"),
        (QueryRequest { mmr_lambda: Some(1.5), ..right.clone() }, "mmr_lambda"),
        (QueryRequest { score_threshold: Some(f32::NAN), ..right.clone() }, "score_threshold"),
        (QueryRequest { ranker: ranker(9, "", None), ..right.clone() }, "ranker.kind"),
        (QueryRequest { ranker: ranker(2, "", Some(-1.0)), ..right.clone() }, "ranker.vector_weight"),
        (QueryRequest { ranker: ranker(1, "m", None), ..right.clone() }, "ranker.model"),
        (QueryRequest { filter: Some(Filter::default()), ..right.clone() }, "filter"),
        (QueryRequest { filter: Some(deep), ..right.clone() }, "filter"),
        (QueryRequest { filter: Some(compare("a", Operator::Gt, &[value("x")])), ..right.clone() }, "filter.comparison"),
        (QueryRequest { filter: Some(compare("a", Operator::Eq, &[empty])), ..right.clone() }, "filter.comparison"),
        (QueryRequest { vector: vector("x"), text: String::new(), mode: SearchMode::Hybrid.into(), ..right.clone() }, "text"),
    ];
    for (request, field) in crooked {
        let error = memory.query(&cx, request).await.unwrap_err();
        assert_eq!(error.field(), Some(field), "{error:?}");
    }
    let keyword = memory.create_bank(&cx, bank_of(BankKind::Keyword)).await.unwrap();
    let error = memory.query(&cx, query(&keyword, "cat", SearchMode::Hybrid)).await.unwrap_err();
    assert_eq!((error.field(), error.reason()), (Some("mode"), Some("mode_not_supported")));
}
