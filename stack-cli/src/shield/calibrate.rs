//! `llama-stack shield calibrate`: which threshold keeps to a rate of false positives, and what it finds then.

use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use llama_stack_core::{Error, Result, Safety};
use llama_stack_proto::v1::RunShieldResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{client, question};
use crate::{args::CalibrateArgs, named, output::Output, reach, table::table};

/// Texts that are judged at once.
const AT_ONCE: usize = 4;
/// What the table shows beside the asked rate.
const RATES: [f64; 4] = [0.001, 0.01, 0.05, 0.1];
/// Reasons for which a text has no score.
const NO_VERDICT: [&str; 3] = ["unparseable_verdict", "empty_verdict", "shield_failed"];

#[derive(Deserialize)]
struct Line {
    text: String,
    #[serde(alias = "label", alias = "violation", rename = "unsafe")]
    label: Value,
}

#[derive(Debug, PartialEq)]
struct Labelled {
    text: String,
    unsafe_: bool,
}

/// A text's score with its label.
#[derive(Clone, Copy, Debug)]
struct Scored {
    score: f64,
    unsafe_: bool,
}

#[derive(Serialize)]
struct Report {
    shield: String,
    unsafe_texts: usize,
    safe_texts: usize,
    /// Texts on which the shield gave no verdict: in a turn they would not pass. They count in no rate.
    no_verdict: usize,
    /// Texts whose score is only 0 or 1.
    unscored: usize,
    /// For the asked rate.
    threshold: f64,
    recall: f64,
    false_positives: f64,
    rows: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Point {
    /// False positives that are allowed.
    allowed: f64,
    threshold: f64,
    recall: f64,
    false_positives: f64,
}

pub(super) async fn run(args: CalibrateArgs, output: &Output) -> Result<()> {
    if !(0.0..=1.0).contains(&args.fpr) {
        return Err(Error::invalid("fpr", format!("--fpr is {}; it must be a share from 0 to 1", args.fpr)));
    }
    let texts = read(&args.file)?;
    let (client, server) = (client(&args.server.server)?, args.server.server.as_str());
    let client = &client;
    let judge = |labelled: &Labelled| {
        let (request, unsafe_) = (question(&args.shield, args.stage.into(), &labelled.text), labelled.unsafe_);
        async move {
            let verdict = client.run_shield(&crate::caller::caller(), request).await;
            Ok::<_, Error>((verdict.map_err(|error| reach::explained(error, server))?, unsafe_))
        }
    };
    let (counts, total, mut done) = (output.counts(), texts.len() as u64, 0);
    let judged = stream::iter(texts.iter().map(judge)).buffered(AT_ONCE).inspect_ok(|_| {
        done += 1;
        counts("texts", done, total);
    });
    let verdicts: Vec<(RunShieldResponse, bool)> = judged.try_collect().await?;
    let unscored = verdicts.iter().filter(|(verdict, _)| verdict.unscored).count();
    let scored: Vec<Scored> =
        verdicts.iter().filter_map(|(verdict, unsafe_)| Some(Scored { score: score(verdict)?, unsafe_: *unsafe_ })).collect();
    let no_verdict = verdicts.len() - scored.len();
    let report = report(args.shield.clone(), &scored, args.fpr, no_verdict, unscored)?;
    output.result(&report, shown)
}

/// Of the worst category; where a shield does not score, of its word. None without a verdict.
fn score(verdict: &RunShieldResponse) -> Option<f64> {
    if verdict.violation.as_ref().is_some_and(|violation| NO_VERDICT.contains(&violation.reason.as_str())) {
        return None;
    }
    let highest = verdict.scores.iter().map(|score| f64::from(score.score)).reduce(f64::max);
    let word = f64::from(u8::from(verdict.violation.is_some() || verdict.redacted.is_some()));
    Some(highest.unwrap_or(word))
}

fn read(file: &Path) -> Result<Vec<Labelled>> {
    let place = file.display();
    let text = named::text(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| labelled(line).map_err(|what| Error::invalid("file", format!("{place}:{}: {what}", at + 1)))).collect()
}

fn labelled(line: &str) -> Result<Labelled, String> {
    let line: Line =
        serde_json::from_str(line).map_err(|error| format!("a line is an object like {{\"text\": \"…\", \"unsafe\": true}}: {error}"))?;
    let unsafe_ = match &line.label {
        Value::Bool(unsafe_) => *unsafe_,
        Value::Number(number) if number.as_f64() == Some(1.0) => true,
        Value::Number(number) if number.as_f64() == Some(0.0) => false,
        Value::String(word)
            if matches!(word.to_lowercase().as_str(), "unsafe" | "malicious" | "injection" | "jailbreak" | "1" | "true") =>
        {
            true
        }
        Value::String(word) if matches!(word.to_lowercase().as_str(), "safe" | "benign" | "0" | "false") => false,
        other => return Err(format!("the label {other} is neither true nor false, 1 nor 0, \"unsafe\" nor \"safe\"")),
    };
    Ok(Labelled { text: line.text, unsafe_ })
}

fn report(shield: String, scored: &[Scored], fpr: f64, no_verdict: usize, unscored: usize) -> Result<Report> {
    let unsafe_texts = scored.iter().filter(|one| one.unsafe_).count();
    let safe_texts = scored.len() - unsafe_texts;
    if unsafe_texts == 0 || safe_texts == 0 {
        let what = format!("there are verdicts on {unsafe_texts} unsafe and {safe_texts} safe texts; both are needed");
        return Err(Error::invalid("file", what));
    }
    let mut rates: Vec<f64> = RATES.into_iter().chain([fpr]).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let asked = point(scored, fpr);
    Ok(Report {
        shield,
        unsafe_texts,
        safe_texts,
        no_verdict,
        unscored,
        threshold: asked.threshold,
        recall: asked.recall,
        false_positives: asked.false_positives,
        rows: rates.into_iter().map(|rate| point(scored, rate)).collect(),
    })
}

/// The lowest threshold that keeps to the rate: of all that do, it finds most. A score at the threshold is a violation.
fn point(scored: &[Scored], allowed: f64) -> Point {
    let mut thresholds: Vec<f64> = scored.iter().map(|one| one.score).collect();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    let share = |unsafe_: bool, threshold: f64| {
        let of_kind = || scored.iter().filter(move |one| one.unsafe_ == unsafe_);
        of_kind().filter(|one| one.score >= threshold).count() as f64 / of_kind().count() as f64
    };
    // Above every score nothing is found, and nothing is wrong.
    let above = thresholds.last().map_or(1.0, |highest| highest.next_up());
    let threshold = thresholds.into_iter().find(|threshold| share(false, *threshold) <= allowed).unwrap_or(above);
    Point { allowed, threshold, recall: share(true, threshold), false_positives: share(false, threshold) }
}

fn shown(report: &Report) -> String {
    let mut text = format!("{}: {} unsafe and {} safe texts\n", report.shield, report.unsafe_texts, report.safe_texts);
    if report.no_verdict > 0 {
        text.push_str(&format!("no verdict on {}: in a turn they would not pass; they count in no rate\n", report.no_verdict));
    }
    if report.unscored > 0 {
        text.push_str(&format!("{} scores are only 0 or 1: the model's server tells no probabilities\n", report.unscored));
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row =
        |point: &Point| [percent(point.allowed), percent(point.false_positives), percent(point.recall), format!("{:.4}", point.threshold)];
    text.push_str(&table(["FALSE POSITIVES AT MOST", "MEASURED", "RECALL", "THRESHOLD"], report.rows.iter().map(row)));
    text.push_str(&format!("threshold: {}\n", report.threshold));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(unsafe_: &[f64], safe: &[f64]) -> Vec<Scored> {
        let of = |scores: &[f64], unsafe_| scores.iter().map(|score| Scored { score: *score, unsafe_ }).collect::<Vec<_>>();
        [of(unsafe_, true), of(safe, false)].concat()
    }

    #[test]
    fn a_threshold_keeps_to_its_rate_and_finds_the_most() {
        let texts = scored(&[0.9, 0.8, 0.6, 0.2], &[0.7, 0.5, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]);
        let none = point(&texts, 0.0);
        assert_eq!((none.threshold, none.recall, none.false_positives), (0.8, 0.5, 0.0));
        let tenth = point(&texts, 0.1);
        assert_eq!((tenth.threshold, tenth.recall, tenth.false_positives), (0.6, 0.75, 0.1));
        assert_eq!(point(&texts, 1.0).recall, 1.0);
    }

    #[test]
    fn where_nothing_keeps_to_the_rate_nothing_is_found() {
        let texts = scored(&[0.5], &[0.9]);
        let none = point(&texts, 0.0);
        assert!(none.threshold > 0.9 && none.recall == 0.0 && none.false_positives == 0.0, "{none:?}");
    }

    #[test]
    fn labels_are_read_in_the_usual_forms() {
        let unsafe_ = |line: &str| labelled(line).map(|labelled| labelled.unsafe_);
        for line in [r#"{"text":"a","unsafe":true}"#, r#"{"text":"a","label":1}"#, r#"{"text":"a","label":"injection","id":7}"#] {
            assert_eq!(unsafe_(line), Ok(true), "{line}");
        }
        assert_eq!(unsafe_(r#"{"text":"a","label":"benign"}"#), Ok(false));
        assert!(unsafe_(r#"{"text":"a","label":"maybe"}"#).unwrap_err().contains("maybe"));
        assert!(unsafe_(r#"{"text":"a"}"#).unwrap_err().contains("unsafe"));
        assert!(report("s".into(), &scored(&[0.5], &[]), 0.01, 0, 0).is_err());
    }
}
