//! Shields that are rules: what they have in common.
//!
//! ```text
//! message ─ pieces ─ Rules::find ─ hits ─┬─ findings, scores, violation
//!                                        └─ redacted message
//! ```

pub(crate) mod json;
mod pieces;

use std::{ops::Range, sync::Arc};

use llama_stack_core::{Context, Deps, Error, Result, Safety};
use llama_stack_proto::v1::{
    CategoryScore, Finding, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldCategory,
    ShieldStage, Violation, violation,
};
use serde::Deserialize;
use tokio_util::task::TaskTracker;

pub(crate) use pieces::{Piece, pieces, redact};

/// Texts above this are judged on the threads for blocking work.
const INLINE_BYTES: usize = 8 * 1024;

/// What becomes of a text in which something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// It is told, and the text passes.
    Warn,
    /// What was found is taken out, and the rest passes.
    Redact,
    /// The text must not pass.
    Block,
}

/// The stages of a turn, as a manifest writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Input,
    ToolArguments,
    ToolResult,
    Retrieved,
    Output,
}

pub(crate) const EVERY_STAGE: [Stage; 5] = [Stage::Input, Stage::ToolArguments, Stage::ToolResult, Stage::Retrieved, Stage::Output];

impl Stage {
    pub(crate) fn proto(self) -> ShieldStage {
        match self {
            Self::Input => ShieldStage::Input,
            Self::ToolArguments => ShieldStage::ToolArguments,
            Self::ToolResult => ShieldStage::ToolResult,
            Self::Retrieved => ShieldStage::Retrieved,
            Self::Output => ShieldStage::Output,
        }
    }
}

/// Something that a rule found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) code: String,
    /// Bytes of the text.
    pub(crate) range: Range<usize>,
    /// For people. Never what was found.
    pub(crate) detail: String,
    pub(crate) level: Level,
    /// What stands in its place once it is taken out.
    pub(crate) mark: String,
}

/// A set of rules: pure, linear in the text, and the same for everybody.
pub(crate) trait Rules: Send + Sync + 'static {
    /// What the shield says of itself; its id and its provider's are filled in.
    fn shield(&self) -> Shield;

    /// What each of the texts holds, in the texts' order.
    fn find(&self, pieces: &[Piece<'_>], stage: ShieldStage) -> Vec<Vec<Hit>>;

    /// What the end user is told of a violation.
    fn user_message(&self, codes: &[String]) -> String;
}

/// A set of rules as a provider of one shield, which has the provider's id.
pub(crate) struct RuleShield<R> {
    rules: Arc<R>,
    shield: Shield,
    tasks: TaskTracker,
}

impl<R: Rules> RuleShield<R> {
    pub(crate) fn provider(rules: R, deps: &Deps) -> Arc<dyn Safety> {
        let shield = Shield { id: deps.provider_id.clone(), provider_id: deps.provider_id.clone(), ..rules.shield() };
        Arc::new(Self { rules: Arc::new(rules), shield, tasks: deps.tasks.clone() })
    }
}

/// The categories and stages of a [`Rules::shield`].
pub(crate) fn shield(provider_type: &str, description: &str, stages: &[Stage], categories: Vec<(String, String)>) -> Shield {
    Shield {
        stages: stages.iter().map(|stage| stage.proto().into()).collect(),
        categories: categories.into_iter().map(|(code, name)| ShieldCategory { code, name }).collect(),
        description: description.to_owned(),
        provider_type: provider_type.to_owned(),
        ..Shield::default()
    }
}

/// # Errors
/// `InvalidArgument` for a shield without a stage.
pub(crate) fn check_stages(stages: &[Stage]) -> Result<()> {
    if stages.is_empty() {
        return Err(Error::invalid(
            "config.stages",
            "stages is empty, so that the shield would never run: name one, or leave it out for all",
        ));
    }
    Ok(())
}

#[async_trait::async_trait]
impl<R: Rules> Safety for RuleShield<R> {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        Ok(ListShieldsResponse { shields: vec![self.shield.clone()], ..Default::default() })
    }

    async fn run_shield(&self, _cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.shield_id != self.shield.id {
            let message = format!("no shield {:?}; there is: {}", request.shield_id, self.shield.id);
            return Err(Error::not_found(message).with_field("shield_id").with_reason("shield_not_found"));
        }
        let Some(last) = request.messages.last() else {
            return Err(Error::invalid("messages", "messages is empty: the last one is what a shield judges"));
        };
        let bytes: usize = pieces(last).iter().map(|piece| piece.text.len()).sum();
        if bytes <= INLINE_BYTES {
            return Ok(judge(&*self.rules, &self.shield, &request));
        }
        let (rules, shield) = (self.rules.clone(), self.shield.clone());
        let judged = self.tasks.spawn_blocking(move || judge(&*rules, &shield, &request)).await;
        judged.map_err(|error| Error::internal("the shield's work ended early").with_source(error))
    }
}

fn judge<R: Rules>(rules: &R, shield: &Shield, request: &RunShieldRequest) -> RunShieldResponse {
    let Some(last) = request.messages.last() else { return RunShieldResponse::default() };
    let pieces = pieces(last);
    let mut hits = rules.find(&pieces, request.stage());
    for hits in &mut hits {
        hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
        hits.dedup();
    }
    let all = || hits.iter().flatten();
    let violated = |code: &str| all().any(|hit| hit.code == code);
    let scores = shield.categories.iter().map(|category| {
        let violated = violated(&category.code);
        CategoryScore { code: category.code.clone(), score: f32::from(u8::from(violated)), violated }
    });
    let redacted = all().any(|hit| hit.level == Level::Redact).then(|| redact(last, &pieces, &hits));
    let findings = pieces.iter().zip(&hits).flat_map(|(piece, hits)| hits.iter().map(|hit| finding(piece, hit)));
    let worst = all().map(|hit| hit.level).filter(|level| *level != Level::Redact).max();
    RunShieldResponse {
        violation: worst.map(|level| violation(rules, level, all().filter(|hit| hit.level == level))),
        scores: scores.collect(),
        redacted,
        findings: findings.collect(),
        judged_bytes: pieces.iter().map(|piece| piece.text.len() as u64).sum(),
        known_bytes: 0,
        unscored: false,
    }
}

fn finding(piece: &Piece<'_>, hit: &Hit) -> Finding {
    let place = |at: usize| u32::try_from(piece.offset + at).unwrap_or(u32::MAX);
    Finding {
        code: hit.code.clone(),
        part: piece.part,
        start: place(hit.range.start),
        end: place(hit.range.end),
        detail: hit.detail.clone(),
    }
}

fn violation<'a, R: Rules>(rules: &R, level: Level, hits: impl Iterator<Item = &'a Hit>) -> Violation {
    let mut categories: Vec<String> = Vec::new();
    for hit in hits {
        if !categories.contains(&hit.code) {
            categories.push(hit.code.clone());
        }
    }
    let level = if level == Level::Block { violation::Level::Error } else { violation::Level::Warn };
    Violation { level: level.into(), user_message: rules.user_message(&categories), categories, reason: "rule_matched".to_owned() }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;
    use llama_stack_proto::v1::Message;

    use super::*;

    /// Finds every `x`.
    struct Xs;

    impl Rules for Xs {
        fn shield(&self) -> Shield {
            shield("inline::xs", "finds x", &EVERY_STAGE, vec![("X".to_owned(), "x".to_owned())])
        }

        fn find(&self, pieces: &[Piece<'_>], _stage: ShieldStage) -> Vec<Vec<Hit>> {
            let hit = |at| Hit { code: "X".into(), range: at..at + 1, detail: "x".into(), level: Level::Block, mark: String::new() };
            pieces.iter().map(|piece| piece.text.match_indices('x').map(|(at, _)| hit(at)).collect()).collect()
        }

        fn user_message(&self, codes: &[String]) -> String {
            codes.join(", ")
        }
    }

    async fn run(shield_id: &str, text: &str) -> Result<RunShieldResponse> {
        let mut deps = Deps::new("/nowhere");
        deps.provider_id = "xs".into();
        let request = RunShieldRequest { shield_id: shield_id.into(), messages: vec![Message::user(text)], ..Default::default() };
        RuleShield::provider(Xs, &deps).run_shield(&Context::test("a"), request).await
    }

    #[tokio::test]
    async fn short_and_long_texts_are_judged_alike() {
        for length in [10, 4 * INLINE_BYTES] {
            let response = run("xs", &format!("{}x", ".".repeat(length))).await.unwrap();
            assert_eq!(response.judged_bytes, length as u64 + 1);
            assert_eq!(response.findings.iter().map(|found| found.start as usize).collect::<Vec<_>>(), [length]);
            let violation = response.violation.unwrap();
            assert_eq!((violation.level(), &violation.categories[..]), (violation::Level::Error, &["X".to_owned()][..]));
            assert_eq!((response.scores[0].score, response.scores[0].violated), (1.0, true));
        }
        let clean = run("xs", "nothing").await.unwrap();
        assert!(clean.violation.is_none() && clean.redacted.is_none() && !clean.scores[0].violated);
    }

    #[tokio::test]
    async fn another_shields_id_is_not_found() {
        let error = run("ys", "x").await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::NotFound, Some("shield_id")));
    }
}
