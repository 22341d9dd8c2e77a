//! The shield `__NAME__`.

use tonic::{Request, Response, Status};

use crate::contract::{
    CategoryScore, GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, ShieldCategory,
    ShieldStage, Violation, part::Content, safety_server::Safety, violation::Level,
};

/// What the shield is called.
const NAME: &str = "__NAME__";

/// Texts with one of these do not pass.
const WORDS: [&str; 1] = ["swordfish"];

/// The judgement. Replace it; this one looks for words.
fn unwanted(text: &str) -> bool {
    let text = text.to_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

fn shield() -> Shield {
    Shield {
        id: NAME.into(),
        stages: vec![ShieldStage::Input.into(), ShieldStage::Output.into()],
        categories: vec![ShieldCategory { code: "WORD".into(), name: "A word that is not wanted".into() }],
        description: "Refuses texts with words that are not wanted".into(),
        ..Shield::default()
    }
}

fn find(id: &str) -> Result<Shield, Status> {
    if id == NAME { Ok(shield()) } else { Err(Status::not_found(format!("no shield {id:?}; there is: {NAME}"))) }
}

#[derive(Default)]
pub struct Provider;

#[tonic::async_trait]
impl Safety for Provider {
    async fn list_shields(&self, _: Request<ListShieldsRequest>) -> Result<Response<ListShieldsResponse>, Status> {
        Ok(Response::new(ListShieldsResponse { shields: vec![shield()], ..ListShieldsResponse::default() }))
    }

    async fn get_shield(&self, request: Request<GetShieldRequest>) -> Result<Response<Shield>, Status> {
        find(&request.get_ref().id).map(Response::new)
    }

    async fn run_shield(&self, request: Request<RunShieldRequest>) -> Result<Response<RunShieldResponse>, Status> {
        let request = request.into_inner();
        find(&request.shield_id)?;
        // The last message is judged; those before it are there to understand it.
        let Some(message) = request.messages.last() else {
            return Err(Status::invalid_argument("messages is empty; at least one is needed"));
        };
        let found = message.parts.iter().any(|part| matches!(&part.content, Some(Content::Text(text)) if unwanted(text)));
        let score = CategoryScore { code: "WORD".into(), score: if found { 1.0 } else { 0.0 }, violated: found };
        let violation = found.then(|| Violation {
            level: Level::Error.into(),
            user_message: "I can't help with that.".into(),
            categories: vec!["WORD".into()],
            reason: "unsafe".into(),
        });
        Ok(Response::new(RunShieldResponse { violation, scores: vec![score], ..RunShieldResponse::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Message, Part};

    #[test]
    fn what_is_not_wanted_is_found_and_the_rest_is_not() {
        assert!(unwanted("The word is Swordfish."));
        assert!(!unwanted("The shop opens at nine."));
    }

    #[tokio::test]
    async fn a_text_that_is_not_wanted_does_not_pass() {
        let part = Part { content: Some(Content::Text("swordfish".into())), ..Part::default() };
        let message = Message { parts: vec![part], ..Message::default() };
        let request = RunShieldRequest { shield_id: NAME.into(), messages: vec![message], ..RunShieldRequest::default() };
        assert!(Provider.run_shield(Request::new(request)).await.unwrap().into_inner().violation.is_some());
    }
}
