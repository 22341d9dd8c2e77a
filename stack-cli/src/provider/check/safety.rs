//! What is promised of shields.

use llama_stack_core::{Code, Result, Safety, grpc::Remote};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, Message, RunShieldRequest, RunShieldResponse, Shield, ShieldStage, part::Content,
    safety_client::SafetyClient, violation::Level,
};
use tonic::transport::Channel;

use super::{Peer, refused, report::Report, told, unclear};

type Client = Remote<SafetyClient<Channel>>;

const HARMLESS: &str = "The shop opens at nine o'clock.";

pub(super) async fn check(peer: &Peer, report: &mut Report) {
    let client = Client::new(peer.channel.clone());
    let listed = client.list_shields(&peer.cx(), ListShieldsRequest::default()).await;
    let promise = "ListShields lists its shields";
    let shields = match listed {
        Ok(listed) if listed.shields.is_empty() => return report.broken(promise, "the list is empty: there is nothing to ask"),
        Ok(listed) => listed.shields,
        Err(error) => return report.broken(promise, told(&error)),
    };
    report.kept(promise);
    report.judge("every shield has an id, and its own", unclear(shields.iter().map(|shield| shield.id.as_str())));
    got(&client, peer, &shields, report).await;
    let absent = "no-such-shield-of-anyone";
    let answer = client.get_shield(&peer.cx(), GetShieldRequest { id: absent.into() }).await;
    refused(report, "GetShield of a shield that is not there is NOT_FOUND", answer, &[Code::NotFound]);
    let answer = run(&client, peer, absent, vec![Message::user(HARMLESS)], ShieldStage::Input).await;
    refused(report, "RunShield of a shield that is not there is NOT_FOUND", answer, &[Code::NotFound]);
    for shield in &shields {
        let answer = run(&client, peer, &shield.id, Vec::new(), ShieldStage::Input).await;
        refused(report, &format!("{}: no message to judge is INVALID_ARGUMENT", shield.id), answer, &[Code::InvalidArgument]);
        judges(&client, peer, shield, report).await;
    }
}

async fn run(client: &Client, peer: &Peer, shield: &str, messages: Vec<Message>, stage: ShieldStage) -> Result<RunShieldResponse> {
    let request = RunShieldRequest { shield_id: shield.into(), messages, stage: stage.into(), fresh: true };
    client.run_shield(&peer.cx(), request).await
}

async fn got(client: &Client, peer: &Peer, shields: &[Shield], report: &mut Report) {
    let promise = "GetShield gives each shield as the list has it";
    for shield in shields {
        match client.get_shield(&peer.cx(), GetShieldRequest { id: shield.id.clone() }).await {
            Ok(got) if got == *shield => {}
            Ok(_) => return report.broken(promise, format!("{:?} is another than in the list", shield.id)),
            Err(error) if error.code() == Code::Unimplemented => return report.skipped(promise, "it does not have that method"),
            Err(error) => return report.broken(promise, told(&error)),
        }
    }
    report.kept(promise);
}

/// A verdict at each stage, whole, and the same when it is asked for again.
async fn judges(client: &Client, peer: &Peer, shield: &Shield, report: &mut Report) {
    let id = &shield.id;
    let mut stages: Vec<ShieldStage> = shield.stages().collect();
    if stages.is_empty() {
        stages.push(ShieldStage::Input);
    }
    let (mut failed, mut differs, mut crooked) = (None, None, None);
    for stage in stages {
        let message = if stage == ShieldStage::Output { Message::assistant(HARMLESS) } else { Message::user(HARMLESS) };
        let first = run(client, peer, id, vec![message.clone()], stage).await;
        let second = run(client, peer, id, vec![message], stage).await;
        match (first, second) {
            (Ok(first), Ok(second)) => {
                if first.violation != second.violation {
                    differs = Some(format!("two verdicts at {}", stage.as_str_name()));
                }
                crooked = crooked.or_else(|| crookedness(&first));
            }
            (Err(error), _) | (_, Err(error)) => failed = Some(format!("{} at {}", told(&error), stage.as_str_name())),
        }
    }
    report.judge(&format!("{id}: it judges a text at every stage that it is meant for"), failed);
    report.judge(&format!("{id}: the same text has the same verdict"), differs);
    let whole = "level and reason of a violation, scores of 0 to 1, findings in the text, a redaction of texts or images";
    report.judge(&format!("{id}: a verdict is whole: {whole}"), crooked);
}

fn crookedness(verdict: &RunShieldResponse) -> Option<String> {
    if let Some(violation) = &verdict.violation
        && (violation.level() == Level::Unspecified || violation.reason.is_empty())
    {
        return Some("a violation without a level, or without a reason".into());
    }
    if let Some(score) = verdict.scores.iter().find(|score| !(0.0..=1.0).contains(&score.score)) {
        return Some(format!("{:?} scores {}", score.code, score.score));
    }
    if let Some(redacted) = &verdict.redacted
        && (redacted.parts.is_empty()
            || !redacted.parts.iter().all(|part| matches!(part.content, Some(Content::Text(_) | Content::Image(_)))))
    {
        return Some("what it puts in the text's place has no parts, or others than texts and images".into());
    }
    let outside = verdict.findings.iter().find(|found| found.start > found.end || found.end as usize > HARMLESS.len());
    outside.map(|found| format!("{:?} at {}..{} of a text of {} bytes", found.code, found.start, found.end, HARMLESS.len()))
}
