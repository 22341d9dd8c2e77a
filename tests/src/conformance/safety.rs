//! What every `Safety` promises, whatever judges behind it.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use llama_stack_core::{Code, Context, Result, Safety};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, Message, Part, Role, RunShieldRequest, RunShieldResponse, ShieldStage, violation::Level,
};
use tokio::time::timeout;

/// Far longer than any verdict here takes: it only tells "late" from "never".
const NEVER: Duration = Duration::from_secs(60);

/// One shield, and what it thinks of two texts.
#[derive(Clone, Copy)]
pub struct Subject {
    pub shield: &'static str,
    /// Passes.
    pub safe: &'static str,
    /// Does not, or comes back redacted.
    pub unsafe_: &'static str,
}

/// Runs every promise.
pub async fn all(safety: Arc<dyn Safety>, subject: Subject) {
    lists_its_shield(safety.clone(), subject).await;
    unknown_shield_says_what_there_is(safety.clone(), subject).await;
    nothing_to_judge_is_refused(safety.clone(), subject).await;
    what_is_safe_passes(safety.clone(), subject).await;
    what_is_unsafe_is_told(safety.clone(), subject).await;
    the_last_message_is_judged(safety.clone(), subject).await;
    a_text_in_parts_is_judged_as_one(safety.clone(), subject).await;
    an_empty_text_passes(safety.clone(), subject).await;
    findings_lie_within_the_text(safety.clone(), subject).await;
    a_verdict_is_the_same_again(safety.clone(), subject).await;
    verdicts_at_once_do_not_mix(safety.clone(), subject).await;
    past_deadline_is_told(safety, subject).await;
}

async fn run(safety: &Arc<dyn Safety>, shield: &str, messages: Vec<Message>) -> Result<RunShieldResponse> {
    let request = RunShieldRequest { shield_id: shield.into(), messages, stage: ShieldStage::Input.into(), ..Default::default() };
    timeout(NEVER, safety.run_shield(&Context::test("tenant-a"), request)).await.expect("no verdict came")
}

async fn judged(safety: &Arc<dyn Safety>, subject: Subject, text: &str) -> RunShieldResponse {
    run(safety, subject.shield, vec![Message::user(text)]).await.unwrap()
}

/// The text must not go on as it is.
fn stopped(response: &RunShieldResponse) -> bool {
    response.violation.is_some() || response.redacted.is_some()
}

/// `ListShields` and `GetShield` agree; codes and pages are as the contract has them.
pub async fn lists_its_shield(safety: Arc<dyn Safety>, subject: Subject) {
    let cx = Context::test("tenant-a");
    let listed = safety.list_shields(&cx, ListShieldsRequest::default()).await.unwrap().shields;
    let shield = listed.iter().find(|shield| shield.id == subject.shield).expect("the shield is not listed").clone();
    let got = safety.get_shield(&cx, GetShieldRequest { id: subject.shield.into() }).await.unwrap();
    assert_eq!(got, shield);
    assert!((0.0..=1.0).contains(&shield.threshold), "{shield:?}");
    assert!(shield.categories.iter().all(|category| !category.code.is_empty()), "{shield:?}");
    let crooked = ListShieldsRequest { page_token: "no such page".into(), ..ListShieldsRequest::default() };
    let error = safety.list_shields(&cx, crooked).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("page_token")));
}

/// `NotFound`, and the sentence names the shields that there are.
pub async fn unknown_shield_says_what_there_is(safety: Arc<dyn Safety>, subject: Subject) {
    let error = run(&safety, "no-such-shield", vec![Message::user("hi")]).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("shield_not_found")));
    assert!(error.message().contains(subject.shield), "{error}");
}

pub async fn nothing_to_judge_is_refused(safety: Arc<dyn Safety>, subject: Subject) {
    let error = run(&safety, subject.shield, Vec::new()).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("messages")));
}

pub async fn what_is_safe_passes(safety: Arc<dyn Safety>, subject: Subject) {
    let response = judged(&safety, subject, subject.safe).await;
    assert!(!stopped(&response), "{response:?}");
}

/// With a level, a stable reason, words for the user, and scores between 0 and 1 that agree with the violation.
pub async fn what_is_unsafe_is_told(safety: Arc<dyn Safety>, subject: Subject) {
    let response = judged(&safety, subject, subject.unsafe_).await;
    assert!(stopped(&response), "{response:?}");
    assert!(response.scores.iter().all(|score| (0.0..=1.0).contains(&score.score)), "{response:?}");
    if let Some(violation) = &response.violation {
        assert_ne!(violation.level(), Level::Unspecified, "{violation:?}");
        assert!(!violation.reason.is_empty() && !violation.user_message.is_empty(), "{violation:?}");
        for code in &violation.categories {
            let scored = response.scores.iter().find(|score| score.code == *code);
            assert!(scored.is_none_or(|score| score.violated), "{code} is violated and scored as not: {response:?}");
        }
    }
}

/// What was said before is not held against it, whoever said it.
pub async fn the_last_message_is_judged(safety: Arc<dyn Safety>, subject: Subject) {
    let before = vec![Message::user(subject.unsafe_), Message::assistant("No."), Message::user(subject.safe)];
    assert!(!stopped(&run(&safety, subject.shield, before).await.unwrap()));
    let now = vec![Message::user(subject.safe), Message::assistant("Yes?"), Message::user(subject.unsafe_)];
    assert!(stopped(&run(&safety, subject.shield, now).await.unwrap()));
}

/// An attack that is spread over the parts of a message is seen.
pub async fn a_text_in_parts_is_judged_as_one(safety: Arc<dyn Safety>, subject: Subject) {
    let middle = (subject.unsafe_.len() / 2..).find(|at| subject.unsafe_.is_char_boundary(*at)).unwrap();
    let (one, two) = subject.unsafe_.split_at(middle);
    let message = Message::new(Role::User, vec![Part::text(one), Part::text(two)]);
    assert!(stopped(&run(&safety, subject.shield, vec![message]).await.unwrap()));
}

pub async fn an_empty_text_passes(safety: Arc<dyn Safety>, subject: Subject) {
    let response = judged(&safety, subject, "").await;
    assert!(!stopped(&response), "{response:?}");
}

/// Each names a part that there is, and bytes of it that begin and end characters.
pub async fn findings_lie_within_the_text(safety: Arc<dyn Safety>, subject: Subject) {
    let message = Message::new(Role::User, vec![Part::text("Größe: "), Part::text(subject.unsafe_)]);
    let response = run(&safety, subject.shield, vec![message.clone()]).await.unwrap();
    for finding in &response.findings {
        let text = message.parts[finding.part as usize].as_text().unwrap();
        assert!(text.get(finding.start as usize..finding.end as usize).is_some(), "{finding:?}");
        assert!(!finding.code.is_empty());
    }
}

/// Only what it cost may differ.
pub async fn a_verdict_is_the_same_again(safety: Arc<dyn Safety>, subject: Subject) {
    for text in [subject.safe, subject.unsafe_] {
        let without_cost = |response: RunShieldResponse| RunShieldResponse { judged_bytes: 0, known_bytes: 0, ..response };
        let (first, second) = (judged(&safety, subject, text).await, judged(&safety, subject, text).await);
        assert_eq!(without_cost(first), without_cost(second));
    }
}

pub async fn verdicts_at_once_do_not_mix(safety: Arc<dyn Safety>, subject: Subject) {
    let texts: Vec<String> = (0..16).map(|n| format!("{} {n}", if n % 2 == 0 { subject.safe } else { subject.unsafe_ })).collect();
    let verdicts = join_all(texts.iter().map(|text| judged(&safety, subject, text))).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        assert_eq!(stopped(verdict), n % 2 == 1, "{}: {verdict:?}", texts[n]);
    }
}

/// A verdict that comes after its deadline is none.
pub async fn past_deadline_is_told(safety: Arc<dyn Safety>, subject: Subject) {
    let cx = Context::test("tenant-a").with_timeout(Duration::ZERO);
    let messages = vec![Message::user(format!("{} not judged before", subject.safe))];
    let request = RunShieldRequest { shield_id: subject.shield.into(), messages, stage: ShieldStage::Input.into(), ..Default::default() };
    let error = safety.run_shield(&cx, request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}
