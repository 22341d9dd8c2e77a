//! Filters mean the same in every index: what each finds is what a look at every chunk, one by one, finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod server;
mod stand;

use std::{collections::BTreeSet, sync::Arc};

use llama_stack_memory::{
    SqliteIndex, filter,
    index::{Index, Search, Shape},
};
use llama_stack_proto::v1::{
    Chunk, Filter, SearchMode, Value,
    filter::{Comparison, Filter as Of, Filters, comparison::Operator},
    value::Value as Is,
};
use llama_stack_qdrant::{Quantization, RemoteConfig, connect_remote, open_edge};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

/// Names that a path of fields would read otherwise.
const NAMES: [&str; 5] = ["year", "a.b", "lang[0]", "none", "\"x\" \u{1f408}"];
const CHUNKS: usize = 120;
const DIMENSION: usize = 8;

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![Just(0.0), Just(-0.0), Just(0.1), (-3_i32..4).prop_map(f64::from), Just(1e300), Just(9_007_199_254_740_993.0)];
    let text = prop_oneof![Just(""), Just("1"), Just("en"), Just("EN"), Just("true"), Just("a b")];
    prop_oneof![number.prop_map(Is::Number), text.prop_map(|text| Is::Text(text.to_owned())), any::<bool>().prop_map(Is::Boolean),]
        .prop_map(|value| Value { value: Some(value) })
}

fn name() -> impl Strategy<Value = String> {
    (0..NAMES.len()).prop_map(|n| NAMES[n].to_owned())
}

fn comparison() -> impl Strategy<Value = Filter> {
    let operator = prop::sample::select(vec![
        Operator::Eq,
        Operator::Ne,
        Operator::Gt,
        Operator::Gte,
        Operator::Lt,
        Operator::Lte,
        Operator::In,
        Operator::NotIn,
    ]);
    (name(), operator, prop::collection::vec(value(), 0..4), value(), -3_i32..4).prop_map(|(attribute, operator, many, one, number)| {
        let values = match operator {
            Operator::In | Operator::NotIn => many,
            Operator::Eq | Operator::Ne => vec![one],
            _ => vec![Value { value: Some(Is::Number(f64::from(number))) }],
        };
        Filter { filter: Some(Of::Comparison(Comparison { attribute, operator: operator.into(), values })) }
    })
}

fn any_filter() -> impl Strategy<Value = Filter> {
    comparison().prop_recursive(4, 24, 4, |inner| {
        (any::<bool>(), prop::collection::vec(inner, 1..4)).prop_map(|(all, filters)| {
            let filters = Filters { filters };
            Filter { filter: Some(if all { Of::All(filters) } else { Of::Any(filters) }) }
        })
    })
}

#[test]
fn every_index_finds_what_a_look_at_every_chunk_finds() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let mut new = |n: usize| {
        let attributes = prop::collection::hash_map(name(), value(), 0..4);
        let attributes = attributes.new_tree(&mut runner).unwrap().current();
        Chunk { attributes, ..stand::chunk(n, DIMENSION) }
    };
    let chunks: Vec<Chunk> = (0..CHUNKS).map(&mut new).collect();
    let bank = stand::bank("filters");
    let indexes: Vec<(&str, Arc<dyn Index>)> = runtime.block_on(async {
        let remote = RemoteConfig {
            url: server::start().await,
            ca_certificate: std::path::PathBuf::new(),
            api_key: Some(server::KEY.to_owned()),
            collection_prefix: "test".into(),
            timeout_seconds: 30,
            quantization: Quantization::None,
            embedding_model: String::new(),
            contextual_model: String::new(),
            max_document_bytes: None,
            max_tenant_bytes: None,
        };
        let indexes: Vec<(&str, Arc<dyn Index>)> = vec![
            ("sqlite", Arc::new(SqliteIndex::open(&folder.path().join("sqlite")).await.unwrap())),
            ("edge", open_edge(&folder.path().join("edge"), Quantization::None).await.unwrap()),
            ("remote", connect_remote(remote).unwrap()),
        ];
        for (_, index) in &indexes {
            index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
            // Another bank's and another tenant's, which no filter may let in.
            for other in [stand::bank("other"), llama_stack_memory::index::BankKey { tenant: "other".into(), ..bank.clone() }] {
                index.create(&other, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
                index.upsert(&other, vec![Chunk { id: "foreign".into(), ..chunks[0].clone() }]).await.unwrap();
            }
            index.upsert(&bank, chunks.clone()).await.unwrap();
        }
        indexes
    });
    let all = |filter: &Filter| -> BTreeSet<String> {
        chunks.iter().filter(|chunk| filter::matches(filter, &chunk.attributes)).map(|chunk| chunk.id.clone()).collect()
    };
    let tested = runner.run(&any_filter(), |wanted| {
        prop_assert!(filter::check(&wanted).is_ok());
        let expected = all(&wanted);
        for (name, index) in &indexes {
            for mode in [SearchMode::Vector, SearchMode::Keyword] {
                let search = Search {
                    text: "number".into(),
                    vector: stand::vector(7, DIMENSION),
                    mode,
                    filter: Some(wanted.clone()),
                    limit: 1_000,
                    ..Search::default()
                };
                let hits = runtime.block_on(index.search(&bank, &search)).unwrap();
                let found: BTreeSet<String> = hits.into_iter().map(|hit| hit.chunk.id).collect();
                prop_assert_eq!(&found, &expected, "{} {:?}", name, mode);
            }
        }
        Ok(())
    });
    tested.unwrap();
}
