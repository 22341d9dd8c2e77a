//! `inline::llama-guard`: Llama Guard 3 and 4, on any model of this stack.
//!
//! ```text
//! RunShield ─ conversation (User, Agent) ─ prompt (family, policy) ─ guard ── Inference ─ verdict ─> RunShieldResponse
//!                                                     self_test: refuses a model that is no guard
//! ```

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Context, Deps, Error, Inference, Result, Safety, page};
use llama_stack_proto::v1::{
    CategoryScore, GetModelRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
    Violation, violation::Level,
};
use serde::Deserialize;
use tokio::sync::OnceCell;

mod conversation;
mod family;
mod guard;
mod policy;
mod prompt;
mod self_test;
mod verdict;

use family::Family;
use guard::{Ask, Guard, Question};
use policy::{CategoryConfig, Policy};
use verdict::Verdict;

use crate::{judged, reasons};

/// How long a start waits for the self-test; after that it is made beside, and before the first verdict.
const START: Duration = Duration::from_secs(60);
/// Between two attempts to reach a model that was not there.
const AGAIN: Duration = Duration::from_secs(10);
/// The code of the whole verdict among the scores.
const ANY: &str = "unsafe";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The guard, by its id in this stack.
    model: String,
    /// The shield's id. Default: the provider's.
    #[serde(default)]
    id: String,
    /// `llama-guard-3-8b`, `llama-guard-3-1b`, `llama-guard-3-11b-vision` or `llama-guard-4`. Default: as the model's id says.
    #[serde(default)]
    family: Option<Family>,
    /// `completion`: the ready prompt, which needs a server that continues it as it is. `chat`: the conversation, for
    /// servers that have the guard's template, or put one around every prompt. Default `completion`.
    #[serde(default)]
    ask: Ask,
    /// Scores at or above this are violations; greater than 0, at most 1. Default 0.5.
    #[serde(default = "default_threshold")]
    threshold: f32,
    /// Codes that are not asked for; a text that violates only these passes.
    #[serde(default)]
    excluded_categories: Vec<String>,
    /// Further categories, or other definitions of the family's.
    #[serde(default)]
    categories: Vec<CategoryConfig>,
    /// Turns before the judged one that the guard is shown. Default 8.
    #[serde(default = "default_context")]
    context_turns: usize,
    /// Judge what is said beside an image and pass over the image. Default: such a message is refused.
    #[serde(default)]
    ignore_images: bool,
    /// What an end user is told. Default: "I can't help with that."
    #[serde(default = "default_user_message")]
    user_message: String,
    /// Take the model for a guard without trying it.
    #[serde(default)]
    skip_self_test: bool,
}

fn default_threshold() -> f32 {
    0.5
}

fn default_context() -> usize {
    8
}

fn default_user_message() -> String {
    "I can't help with that.".into()
}

/// Tries the model out. One that cannot be reached is tried again beside, and before the first verdict.
///
/// # Errors
/// `InvalidArgument` that names what is wrong in the configuration · `FailedPrecondition`, `not_a_guard`, for a model that
/// fails the self-test, or a stack without inference.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Safety>> {
    let shield = Arc::new(LlamaGuard::new(config, deps.inference()?, &deps.provider_id)?);
    shield.look_for_model().await?;
    if shield.skip_self_test {
        tracing::warn!(shield = shield.id, model = shield.guard.model, "the self-test is skipped: this may be no guard");
        return Ok(shield);
    }
    match shield.tested(&Context::system().with_timeout(START)).await {
        Ok(()) => {}
        Err(error) if may_pass(&error) => {
            tracing::warn!(shield = shield.id, error = error.message(), "the guard cannot be tried out yet; until then nothing passes");
            let (shield, shutdown) = (shield.clone(), deps.shutdown.clone());
            deps.tasks.spawn(async move { shutdown.run_until_cancelled(shield.try_again()).await });
        }
        Err(error) => return Err(error.with_field("config.model")),
    }
    Ok(shield)
}

/// The model may be there later.
fn may_pass(error: &Error) -> bool {
    error.reason() != Some(NOT_A_GUARD) && !matches!(error.code(), Code::InvalidArgument | Code::NotFound | Code::Unimplemented)
}

const NOT_A_GUARD: &str = "not_a_guard";

struct LlamaGuard {
    id: String,
    guard: Guard,
    policy: Policy,
    threshold: f32,
    context_turns: usize,
    ignore_images: bool,
    user_message: String,
    skip_self_test: bool,
    /// What the self-test found, once it could be made.
    found: OnceCell<Result<(), String>>,
}

impl LlamaGuard {
    fn new(config: Config, inference: Arc<dyn Inference>, provider_id: &str) -> Result<Self> {
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            let what = format!("{} is no threshold: it must be greater than 0 and at most 1", config.threshold);
            return Err(Error::invalid("config.threshold", what));
        }
        let family = config.family.map_or_else(|| Family::of(&config.model), Ok)?;
        let policy = Policy::configured(family, &config.categories, &config.excluded_categories)?;
        if config.ask == Ask::Chat && policy.is_customised(family) {
            let what = "a server's own template has no place for these: use `ask: completion`";
            return Err(Error::invalid("config.categories", what));
        }
        Ok(Self {
            id: if config.id.is_empty() { provider_id.to_owned() } else { config.id },
            guard: Guard::new(inference, config.model, family, config.ask),
            policy,
            threshold: config.threshold,
            context_turns: config.context_turns,
            ignore_images: config.ignore_images,
            user_message: config.user_message,
            skip_self_test: config.skip_self_test,
            found: OnceCell::new(),
        })
    }

    /// A model that this stack does not have is told at the start; a provider that does not answer may have it.
    async fn look_for_model(&self) -> Result<()> {
        let request = GetModelRequest { id: self.guard.model.clone() };
        match self.guard.inference.get_model(&Context::system(), request).await {
            Err(error) if !may_pass(&error) => Err(error.with_field("config.model")),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// `FailedPrecondition`, `not_a_guard` · the model's, where it could not be tried out.
    async fn tested(&self, cx: &Context) -> Result<()> {
        if self.skip_self_test {
            return Ok(());
        }
        let found = self.found.get_or_try_init(|| cx.within(self_test::run(&self.guard, cx))).await?;
        found.as_ref().map_err(|why| {
            let message = format!(
                "the model {:?} is no guard: {why}; name a Llama Guard, or set skip_self_test where you know better",
                self.guard.model
            );
            Error::failed_precondition(message).with_reason(NOT_A_GUARD)
        })?;
        Ok(())
    }

    async fn try_again(&self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            match self.tested(&Context::system().with_timeout(START)).await {
                Ok(()) => return tracing::info!(shield = self.id, "the guard passed its self-test"),
                Err(error) if may_pass(&error) => tracing::debug!(shield = self.id, error = error.message(), "still no self-test"),
                Err(error) => return tracing::error!(shield = self.id, error = error.message(), "this shield lets nothing pass"),
            }
        }
    }

    fn listed(&self) -> Shield {
        let mut categories = self.policy.listed();
        categories.push(llama_stack_proto::v1::ShieldCategory { code: ANY.into(), name: "Any of these".into() });
        Shield {
            id: self.id.clone(),
            provider_type: "inline::llama-guard".into(),
            stages: vec![ShieldStage::Input.into(), ShieldStage::Output.into()],
            categories,
            description: "Llama Guard: harmful content in what users ask and agents answer".into(),
            reads_conversation: true,
            model: self.guard.model.clone(),
            threshold: self.threshold,
            ..Shield::default()
        }
    }

    fn response(&self, verdict: Verdict, judged_bytes: u64) -> RunShieldResponse {
        let unsafe_ = verdict.reason.is_some();
        let scored = !verdict.reason.is_some_and(reasons::is_failure);
        let mut scores = Vec::new();
        if scored {
            scores.push(CategoryScore { code: ANY.into(), score: verdict.score, violated: unsafe_ });
            // A guard scores the text; of the categories it says which are violated.
            scores.extend(self.policy.asked().map(|category| {
                let violated = verdict.codes.contains(&category.code);
                CategoryScore { code: category.code.clone(), score: if violated { verdict.score } else { 0.0 }, violated }
            }));
        }
        let violation = verdict.reason.map(|reason| Violation {
            level: Level::Error.into(),
            user_message: self.user_message.clone(),
            categories: verdict.codes,
            reason: reason.into(),
        });
        RunShieldResponse { violation, scores, judged_bytes, unscored: scored && verdict.unscored, ..RunShieldResponse::default() }
    }
}

#[async_trait::async_trait]
impl Safety for LlamaGuard {
    async fn list_shields(&self, _cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let (shields, next_page_token) =
            page::slice(vec![self.listed()], |shield| &shield.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListShieldsResponse { shields, next_page_token })
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.shield_id != self.id {
            let message = format!("no shield {:?}; there is: {}", request.shield_id, self.id);
            return Err(Error::not_found(message).with_reason("shield_not_found").with_field("shield_id"));
        }
        if request.messages.is_empty() {
            return Err(Error::invalid("messages", "messages is empty: the last one is what a shield judges"));
        }
        let turns = conversation::turns(&request.messages, self.context_turns, self.ignore_images)?;
        if turns.is_empty() {
            return Ok(RunShieldResponse::default());
        }
        self.tested(cx).await?;
        let question = Question { policy: &self.policy, threshold: self.threshold };
        let verdict = cx.within(self.guard.judge(cx, &question, &turns)).await?;
        let bytes = request.messages.last().map_or(0, judged::bytes);
        Ok(self.response(verdict, bytes))
    }
}
