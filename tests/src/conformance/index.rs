//! What every `Index` promises, wherever it keeps its chunks.

use std::sync::Arc;

use llama_stack_core::Code;
use llama_stack_memory::index::{BankKey, Hit, Index, Search, Shape};
use llama_stack_proto::v1::{
    Chunk, Filter, Position, Ranker, SearchMode, Value,
    filter::{Comparison, Filter as Kind, Filters, comparison::Operator},
    ranker, value,
};

/// Runs every promise, each in banks of its own.
pub async fn all(index: Arc<dyn Index>) {
    a_chunk_comes_back_as_it_was(index.clone()).await;
    the_nearest_is_first(index.clone()).await;
    words_are_found_by_their_stems(index.clone()).await;
    a_hybrid_search_has_what_both_parts_found_first(index.clone()).await;
    scores_below_the_threshold_are_left_out(index.clone()).await;
    each_operator_means_what_it_says(index.clone()).await;
    a_chunk_that_is_there_is_replaced(index.clone()).await;
    what_is_deleted_is_found_nowhere(index.clone()).await;
    a_listing_is_in_order_and_whole(index.clone()).await;
    banks_and_tenants_see_their_own_alone(index.clone()).await;
    a_batch_with_a_wrong_vector_is_refused_whole(index.clone()).await;
    what_the_bank_has_not_is_refused(index.clone()).await;
    a_bank_is_created_and_removed_as_often_as_asked(index).await;
}

fn bank(name: &str) -> BankKey {
    BankKey { tenant: "tenant-a".into(), bank_id: format!("{name}-{:016x}", fresh()) }
}

/// Banks of an earlier run of the same server are not in the way.
fn fresh() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

async fn made(index: &Arc<dyn Index>, name: &str, chunks: Vec<Chunk>) -> BankKey {
    let bank = bank(name);
    index.create(&bank, &Shape { dimension: 4, keyword: true }).await.unwrap();
    index.upsert(&bank, chunks).await.unwrap();
    bank
}

fn chunk(id: &str, document: &str, at: u32, text: &str, vector: [f32; 4]) -> Chunk {
    Chunk { id: id.into(), document_id: document.into(), index: at, text: text.into(), vector: vector.to_vec(), ..Chunk::default() }
}

fn number(value: f64) -> Value {
    Value { value: Some(value::Value::Number(value)) }
}

fn text(value: &str) -> Value {
    Value { value: Some(value::Value::Text(value.into())) }
}

fn boolean(value: bool) -> Value {
    Value { value: Some(value::Value::Boolean(value)) }
}

fn compare(attribute: &str, operator: Operator, values: &[Value]) -> Filter {
    let comparison = Comparison { attribute: attribute.into(), operator: operator.into(), values: values.to_vec() };
    Filter { filter: Some(Kind::Comparison(comparison)) }
}

fn both(filters: Vec<Filter>) -> Filter {
    Filter { filter: Some(Kind::All(Filters { filters })) }
}

fn either(filters: Vec<Filter>) -> Filter {
    Filter { filter: Some(Kind::Any(Filters { filters })) }
}

fn by_vector(vector: [f32; 4]) -> Search {
    Search { vector: vector.to_vec(), mode: SearchMode::Vector, limit: 10, ..Search::default() }
}

fn by_words(text: &str) -> Search {
    Search { text: text.into(), mode: SearchMode::Keyword, limit: 10, ..Search::default() }
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
}

fn sorted(hits: &[Hit]) -> Vec<&str> {
    let mut ids = ids(hits);
    ids.sort_unstable();
    ids
}

pub async fn a_chunk_comes_back_as_it_was(index: Arc<dyn Index>) {
    let original = Chunk {
        attributes: [("year".to_owned(), number(2020.5)), ("a.b[0] \"ü\"_".to_owned(), text("de")), ("draft".to_owned(), boolean(false))]
            .into(),
        position: Some(Position { page: 3, line_start: 10, line_end: 12, heading: "Of ships".into() }),
        title: "A title".into(),
        file_id: "file_1".into(),
        ..chunk("c", "d", 7, "Ships sail — «windward».", [0.5, 0.5, 0.5, 0.5])
    };
    let bank = made(&index, "whole", vec![original.clone()]).await;
    let without = Chunk { vector: Vec::new(), ..original.clone() };
    assert_eq!(index.search(&bank, &by_vector([1.0, 0.0, 0.0, 0.0])).await.unwrap()[0].chunk, without);
    assert_eq!(index.scroll(&bank, None, None, 10, false).await.unwrap(), [without]);
    assert_eq!(index.scroll(&bank, None, None, 10, true).await.unwrap(), [original]);
}

pub async fn the_nearest_is_first(index: Arc<dyn Index>) {
    let chunks = vec![
        chunk("x", "d", 0, "one", [1.0, 0.0, 0.0, 0.0]),
        chunk("xy", "d", 1, "two", [2.0, 2.0, 0.0, 0.0]),
        chunk("y", "d", 2, "three", [0.0, 3.0, 0.0, 0.0]),
    ];
    let bank = made(&index, "nearest", chunks).await;
    let hits = index.search(&bank, &by_vector([5.0, 0.1, 0.0, 0.0])).await.unwrap();
    assert_eq!(ids(&hits), ["x", "xy", "y"]);
    assert!(hits[0].score > 0.99 && (hits[1].score - 0.72).abs() < 0.01, "{hits:?}");
    let two = index.search(&bank, &Search { limit: 2, ..by_vector([5.0, 0.1, 0.0, 0.0]) }).await.unwrap();
    assert_eq!(ids(&two), ["x", "xy"]);
}

pub async fn words_are_found_by_their_stems(index: Arc<dyn Index>) {
    let chunks = vec![
        chunk("ship", "d", 0, "The old ship sailed to the harbour", [1.0, 0.0, 0.0, 0.0]),
        chunk("ships", "d", 1, "Ships and ships and more ships", [0.0, 1.0, 0.0, 0.0]),
        chunk("bread", "d", 2, "Bread is baked from flour", [0.0, 0.0, 1.0, 0.0]),
        chunk("nothing", "d", 3, "… — …", [0.0, 0.0, 0.0, 1.0]),
    ];
    let bank = made(&index, "words", chunks).await;
    let hits = index.search(&bank, &by_words("ships")).await.unwrap();
    assert_eq!(sorted(&hits), ["ship", "ships"]);
    assert!(hits[0].score >= hits[1].score && hits[1].score > 0.0);
    assert_eq!(ids(&index.search(&bank, &by_words("baking BREAD?")).await.unwrap()), ["bread"]);
    assert_eq!(ids(&index.search(&bank, &by_words("zeppelin")).await.unwrap()), Vec::<&str>::new());
    // Words that say nothing, and signs that some search languages read as their own.
    for odd in ["the and of", "\"ship AND (", "*", "a:b NEAR/3"] {
        index.search(&bank, &by_words(odd)).await.unwrap();
    }
}

pub async fn a_hybrid_search_has_what_both_parts_found_first(index: Arc<dyn Index>) {
    let chunks = vec![
        chunk("near", "d", 0, "flour and water", [1.0, 0.0, 0.0, 0.0]),
        chunk("both", "d", 1, "a ship at sea", [0.9, 0.1, 0.0, 0.0]),
        chunk("word", "d", 2, "ship", [0.0, 0.0, 0.0, 1.0]),
    ];
    let bank = made(&index, "hybrid", chunks).await;
    let search = |kind: ranker::Kind, weight| Search {
        text: "ship".into(),
        vector: vec![1.0, 0.0, 0.0, 0.0],
        mode: SearchMode::Hybrid,
        limit: 3,
        ranker: Ranker { kind: kind.into(), vector_weight: weight, ..Ranker::default() },
        ..Search::default()
    };
    let fused = index.search(&bank, &search(ranker::Kind::Rrf, None)).await.unwrap();
    assert_eq!(ids(&fused)[0], "both");
    assert_eq!(sorted(&fused), ["both", "near", "word"]);
    let by_meaning = index.search(&bank, &search(ranker::Kind::Weighted, Some(1.0))).await.unwrap();
    assert_eq!(ids(&by_meaning)[0], "near");
    let by_word = index.search(&bank, &search(ranker::Kind::Weighted, Some(0.0))).await.unwrap();
    assert_ne!(ids(&by_word)[0], "near");
}

pub async fn scores_below_the_threshold_are_left_out(index: Arc<dyn Index>) {
    let chunks = vec![chunk("x", "d", 0, "one", [1.0, 0.0, 0.0, 0.0]), chunk("y", "d", 1, "two", [0.0, 1.0, 0.0, 0.0])];
    let bank = made(&index, "threshold", chunks).await;
    let search = Search { score_threshold: Some(0.5), ..by_vector([1.0, 0.1, 0.0, 0.0]) };
    assert_eq!(ids(&index.search(&bank, &search).await.unwrap()), ["x"]);
}

pub async fn each_operator_means_what_it_says(index: Arc<dyn Index>) {
    let with = |id: &str, attributes: &[(&str, Value)]| Chunk {
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        ..chunk(id, "d", 0, "ship", [1.0, 0.0, 0.0, 0.0])
    };
    let chunks = vec![
        with("a", &[("year", number(2019.0)), ("lang", text("de")), ("draft", boolean(true))]),
        with("b", &[("year", number(2020.0)), ("lang", text("en")), ("draft", boolean(false))]),
        with("c", &[("year", number(2021.0)), ("lang", text("fr"))]),
        with("none", &[]),
        with("odd", &[("year", text("2020")), ("lang", number(1.0))]),
    ];
    let bank = made(&index, "filters", chunks).await;
    use Operator::{Eq, Gt, Gte, In, Lt, Lte, Ne, NotIn};
    let year = |operator, value: f64| compare("year", operator, &[number(value)]);
    let cases: Vec<(Filter, &[&str])> = vec![
        (year(Eq, 2020.0), &["b"]),
        (year(Ne, 2020.0), &["a", "c", "none", "odd"]),
        (year(Gt, 2020.0), &["c"]),
        (year(Gte, 2020.0), &["b", "c"]),
        (year(Lt, 2020.0), &["a"]),
        (year(Lte, 2020.0), &["a", "b"]),
        (compare("year", Eq, &[text("2020")]), &["odd"]),
        (compare("lang", In, &[text("de"), text("en"), number(1.0)]), &["a", "b", "odd"]),
        (compare("lang", NotIn, &[text("de"), text("en")]), &["c", "none", "odd"]),
        (compare("lang", In, &[]), &[]),
        (compare("lang", NotIn, &[]), &["a", "b", "c", "none", "odd"]),
        (compare("draft", Eq, &[boolean(true)]), &["a"]),
        (compare("draft", Ne, &[boolean(true)]), &["b", "c", "none", "odd"]),
        (compare("nobody has it", Eq, &[text("x")]), &[]),
        (both(vec![year(Gte, 2020.0), compare("lang", Eq, &[text("en")])]), &["b"]),
        (either(vec![year(Eq, 2019.0), compare("lang", Eq, &[text("fr")])]), &["a", "c"]),
        (both(vec![year(Gt, 0.0), either(vec![compare("draft", Eq, &[boolean(true)]), year(Gt, 2020.0)])]), &["a", "c"]),
    ];
    for (filter, expected) in cases {
        for search in [by_vector([1.0, 0.0, 0.0, 0.0]), by_words("ship")] {
            let hits = index.search(&bank, &Search { filter: Some(filter.clone()), ..search }).await.unwrap();
            assert_eq!(sorted(&hits), expected, "{filter:?}");
        }
    }
    for wrong in [Filter::default(), compare("lang", Gt, &[text("a")]), compare("year", Eq, &[]), both(vec![]), either(vec![])] {
        let search = Search { filter: Some(wrong.clone()), ..by_vector([1.0, 0.0, 0.0, 0.0]) };
        assert_eq!(index.search(&bank, &search).await.unwrap_err().code(), Code::InvalidArgument, "{wrong:?}");
    }
}

pub async fn a_chunk_that_is_there_is_replaced(index: Arc<dyn Index>) {
    let bank = made(&index, "replaced", vec![chunk("c", "d", 0, "ships", [1.0, 0.0, 0.0, 0.0])]).await;
    index.upsert(&bank, vec![chunk("c", "d", 0, "bread", [0.0, 1.0, 0.0, 0.0])]).await.unwrap();
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 1);
    assert_eq!(ids(&index.search(&bank, &by_words("ships")).await.unwrap()), Vec::<&str>::new());
    let hits = index.search(&bank, &by_vector([0.0, 1.0, 0.0, 0.0])).await.unwrap();
    assert!(hits.len() == 1 && hits[0].score > 0.99 && hits[0].chunk.text == "bread", "{hits:?}");
}

pub async fn what_is_deleted_is_found_nowhere(index: Arc<dyn Index>) {
    let chunks = (0..20).map(|n| chunk(&format!("c{n}"), &format!("d{}", n % 4), n, "ship", [1.0, n as f32, 0.0, 0.0])).collect();
    let bank = made(&index, "deleted", chunks).await;
    let documents = ["d0".to_owned(), "d3".to_owned(), "never there".to_owned()];
    for _ in 0..2 {
        index.delete_documents(&bank, &documents).await.unwrap();
        for search in [by_vector([1.0, 1.0, 0.0, 0.0]), by_words("ship")] {
            let hits = index.search(&bank, &Search { limit: 100, ..search }).await.unwrap();
            assert_eq!(hits.len(), 10);
            assert!(hits.iter().all(|hit| ["d1", "d2"].contains(&hit.chunk.document_id.as_str())));
        }
        assert_eq!(index.scroll(&bank, None, None, 100, false).await.unwrap().len(), 10);
        assert_eq!(index.stats(&bank).await.unwrap().chunks, 10);
    }
    index.delete_documents(&bank, &[]).await.unwrap();
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 10);
}

pub async fn a_listing_is_in_order_and_whole(index: Arc<dyn Index>) {
    let name = |n: u32| (format!("chunk-{}", (n * 7) % 25), format!("document {}", n % 3));
    let chunks = (0..25).map(|n| chunk(&name(n).0, &name(n).1, n / 6, "ship", [1.0, 0.0, 0.0, 0.0])).collect();
    let bank = made(&index, "listing", chunks).await;
    let place = |chunk: &Chunk| (chunk.document_id.clone(), chunk.index, chunk.id.clone());
    let (mut listed, mut after): (Vec<Chunk>, Option<String>) = (Vec::new(), None);
    loop {
        let page = index.scroll(&bank, None, after.as_deref(), 4, true).await.unwrap();
        assert!(page.len() <= 4);
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        listed.extend(page);
    }
    assert_eq!(listed.len(), 25);
    assert!(listed.is_sorted_by_key(place) && listed.iter().all(|chunk| chunk.vector.len() == 4));
    let of_one = index.scroll(&bank, Some("document 1"), None, 100, false).await.unwrap();
    let expected: Vec<&Chunk> = listed.iter().filter(|chunk| chunk.document_id == "document 1").collect();
    assert_eq!(of_one.iter().map(place).collect::<Vec<_>>(), expected.iter().map(|chunk| place(chunk)).collect::<Vec<_>>());
    let rest = index.scroll(&bank, Some("document 1"), Some(&of_one[2].id), 100, false).await.unwrap();
    assert_eq!(rest, of_one[3..]);
    assert_eq!(index.scroll(&bank, Some("no such"), None, 100, false).await.unwrap(), []);
}

pub async fn banks_and_tenants_see_their_own_alone(index: Arc<dyn Index>) {
    let mine = made(&index, "own", vec![chunk("c", "d", 0, "mine ship", [1.0, 0.0, 0.0, 0.0])]).await;
    let theirs = BankKey { tenant: "tenant-b".into(), ..mine.clone() };
    let other = BankKey { bank_id: format!("{}-2", mine.bank_id), ..mine.clone() };
    for bank in [&theirs, &other] {
        index.create(bank, &Shape { dimension: 4, keyword: true }).await.unwrap();
        let foreign = (0..30).map(|n| chunk(&format!("f{n}"), "d", n, "foreign ship", [1.0, 0.0, 0.0, 0.0])).collect();
        index.upsert(bank, foreign).await.unwrap();
        // The same ids, in another bank.
        index.upsert(bank, vec![chunk("c", "d", 0, "foreign ship", [1.0, 0.0, 0.0, 0.0])]).await.unwrap();
    }
    let everything = either(vec![compare("x", Operator::Ne, &[text("y")]), compare("x", Operator::NotIn, &[text("z")])]);
    for search in [by_vector([1.0, 0.0, 0.0, 0.0]), by_words("ship foreign")] {
        for filter in [None, Some(everything.clone())] {
            let hits = index.search(&mine, &Search { limit: 100, filter, ..search.clone() }).await.unwrap();
            assert_eq!(hits.iter().map(|hit| hit.chunk.text.as_str()).collect::<Vec<_>>(), ["mine ship"]);
        }
    }
    assert_eq!(index.scroll(&mine, Some("d"), None, 100, false).await.unwrap().len(), 1);
    assert_eq!(index.stats(&mine).await.unwrap().chunks, 1);
    index.delete_documents(&theirs, &["d".to_owned()]).await.unwrap();
    index.remove(&other).await.unwrap();
    assert_eq!(index.stats(&mine).await.unwrap().chunks, 1);
    assert_eq!(index.search(&mine, &by_words("ship")).await.unwrap().len(), 1);
}

pub async fn a_batch_with_a_wrong_vector_is_refused_whole(index: Arc<dyn Index>) {
    let bank = made(&index, "wrong", vec![]).await;
    let right = || chunk("right", "d", 0, "ship", [1.0, 0.0, 0.0, 0.0]);
    for vector in [vec![1.0; 3], vec![], vec![1.0; 5], vec![f32::NAN, 0.0, 0.0, 0.0]] {
        let wrong = Chunk { id: "wrong".into(), vector, ..right() };
        let error = index.upsert(&bank, vec![right(), wrong]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 0);
    assert_eq!(index.scroll(&bank, None, None, 10, false).await.unwrap(), []);
}

pub async fn what_the_bank_has_not_is_refused(index: Arc<dyn Index>) {
    let (vectors, words) = (bank("vectors"), bank("keywords"));
    index.create(&vectors, &Shape { dimension: 4, keyword: false }).await.unwrap();
    index.create(&words, &Shape { dimension: 0, keyword: true }).await.unwrap();
    index.upsert(&vectors, vec![chunk("c", "d", 0, "ship", [1.0, 0.0, 0.0, 0.0])]).await.unwrap();
    index.upsert(&words, vec![Chunk { vector: vec![], ..chunk("c", "d", 0, "ship", [0.0; 4]) }]).await.unwrap();
    assert_eq!(index.search(&vectors, &by_vector([1.0, 0.0, 0.0, 0.0])).await.unwrap().len(), 1);
    assert_eq!(index.search(&words, &by_words("ship")).await.unwrap().len(), 1);
    let hybrid = Search { mode: SearchMode::Hybrid, text: "ship".into(), ..by_vector([1.0, 0.0, 0.0, 0.0]) };
    let short = Search { vector: vec![1.0], ..by_vector([0.0; 4]) };
    for (bank, search) in [
        (&vectors, by_words("ship")),
        (&words, by_vector([1.0, 0.0, 0.0, 0.0])),
        (&vectors, hybrid.clone()),
        (&words, hybrid),
        (&vectors, short),
    ] {
        assert_eq!(index.search(bank, &search).await.unwrap_err().code(), Code::InvalidArgument, "{search:?}");
    }
}

pub async fn a_bank_is_created_and_removed_as_often_as_asked(index: Arc<dyn Index>) {
    let shape = Shape { dimension: 4, keyword: true };
    let bank = made(&index, "again", vec![chunk("c", "d", 0, "ship", [1.0, 0.0, 0.0, 0.0])]).await;
    index.create(&bank, &shape).await.unwrap();
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 1);
    for _ in 0..2 {
        index.remove(&bank).await.unwrap();
    }
    index.create(&bank, &shape).await.unwrap();
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 0);
    assert_eq!(index.search(&bank, &by_words("ship")).await.unwrap().len(), 0);
    index.upsert(&bank, vec![chunk("c", "d", 0, "ship", [1.0, 0.0, 0.0, 0.0])]).await.unwrap();
    assert_eq!(index.search(&bank, &by_words("ship")).await.unwrap().len(), 1);
    index.remove(&bank).await.unwrap();
}
