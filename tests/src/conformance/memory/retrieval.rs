//! How good what is found is: 312 documents of six domains, 204 questions, each with the one document that answers it.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use llama_stack_core::{Context, Inference, Memory};
use llama_stack_proto::v1::{EmbedInput, EmbedRequest, QueryRequest, Ranker, SearchMode, ranker::Kind};
use serde::Deserialize;

use super::{inserted, query, text};
use llama_stack_proto::v1::CreateBankRequest;

#[derive(Deserialize)]
struct Question {
    /// `words`, `paraphrase` or `identifier`.
    kind: String,
    text: String,
    relevant: Vec<String>,
}

/// Of one way to search, over all questions or those of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Normalised discounted cumulative gain of the first ten.
    pub ndcg: f64,
    /// The share of what is relevant that is among the first ten.
    pub recall: f64,
}

/// Way → kind of question (`all` among them) → score.
pub struct Table(pub Vec<(&'static str, BTreeMap<String, Score>)>);

impl Table {
    /// # Panics
    /// Where there is no such way.
    pub fn all(&self, way: &str) -> Score {
        self.of(way, "all")
    }

    /// # Panics
    /// Where there is no such way, or kind of question.
    pub fn of(&self, way: &str, kind: &str) -> Score {
        self.0.iter().find(|(there, _)| *there == way).unwrap().1[kind]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = ["all", "words", "paraphrase", "identifier"];
        writeln!(f, "| nDCG@10 / recall@10 | {} |", kinds.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(kinds.len()))?;
        for (way, scores) in &self.0 {
            let cells: Vec<String> =
                kinds.iter().map(|kind| scores.get(*kind).map_or(String::new(), |s| format!("{:.3} / {:.3}", s.ndcg, s.recall))).collect();
            writeln!(f, "| {way} | {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// Inserts the corpus into a bank of its own and asks every question in every way. Each question is embedded once.
pub async fn measured(memory: Arc<dyn Memory>, inference: &dyn Inference, cx: &Context, embedding_model: &str) -> Table {
    let bank = CreateBankRequest { name: "retrieval".into(), embedding_model: embedding_model.into(), ..CreateBankRequest::default() };
    let bank = memory.create_bank(cx, bank).await.unwrap();
    #[derive(Deserialize)]
    struct Line {
        id: String,
        text: String,
    }
    let documents = lines::<Line>("corpus.jsonl").into_iter().map(|line| text(&line.id, &line.text)).collect();
    inserted(&memory, cx, &bank, documents).await;
    let questions: Vec<Question> = lines("questions.jsonl");
    let inputs = questions.iter().map(|question| EmbedInput::text(&question.text)).collect();
    let embed = EmbedRequest { model: embedding_model.into(), inputs, ..EmbedRequest::default() };
    let vectors = inference.embed(cx, embed).await.unwrap().embeddings;
    let ranked = |kind: Kind| Some(Ranker { kind: kind.into(), ..Ranker::default() });
    let ways = [
        ("vector", SearchMode::Vector, None),
        ("keyword", SearchMode::Keyword, None),
        ("hybrid", SearchMode::Hybrid, None),
        ("hybrid, by ranks (RRF)", SearchMode::Hybrid, ranked(Kind::Rrf)),
        ("hybrid, rerank by vectors", SearchMode::Hybrid, ranked(Kind::Rerank)),
    ];
    let mut table = Vec::new();
    for (way, mode, ranker) in ways {
        let mut sums: BTreeMap<String, (Score, f64)> = BTreeMap::new();
        for (question, vector) in questions.iter().zip(&vectors) {
            let vector = if mode == SearchMode::Keyword { Vec::new() } else { vector.values.clone() };
            let request = QueryRequest { vector, ranker: ranker.clone(), ..query(&bank, &question.text, mode) };
            let found = super::found(&memory, cx, request).await;
            let score = scored(&found, &question.relevant);
            for kind in ["all", question.kind.as_str()] {
                let (sum, count) = sums.entry(kind.into()).or_default();
                (sum.ndcg, sum.recall, *count) = (sum.ndcg + score.ndcg, sum.recall + score.recall, *count + 1.0);
            }
        }
        let mean = |(kind, (sum, count)): (String, (Score, f64))| (kind, Score { ndcg: sum.ndcg / count, recall: sum.recall / count });
        table.push((way, sums.into_iter().map(mean).collect()));
    }
    Table(table)
}

/// Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002; gains are 0 and 1.
fn scored(found: &[String], relevant: &[String]) -> Score {
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let hits: Vec<usize> = (0..found.len().min(10)).filter(|rank| relevant.contains(&found[*rank])).collect();
    let ideal: f64 = (0..relevant.len().min(10)).map(discount).sum();
    Score { ndcg: hits.iter().copied().map(discount).sum::<f64>() / ideal, recall: hits.len() as f64 / relevant.len() as f64 }
}

fn lines<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/retrieval").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
