//! What a turn may take.

use llama_stack_core::manifest::Price;
use llama_stack_proto::v1::{Limits, TurnStatus};

use crate::{
    doubles::Say::Call,
    world::{World, say},
};

#[tokio::test]
async fn money_runs_out_within_one_step() {
    let again = || vec![Call("", "add", r#"{"a":1,"b":1}"#)];
    let price = Price { input: 100_000.0, output: 100_000.0, cached_input: None };
    // Ten tokens in and five out: 1.5 a step.
    let world = World::changed((0..9).map(|_| again()).collect(), |parts| {
        parts.config.prices.insert("scripted".into(), price);
    })
    .await;
    let mut request = say("spend");
    request.config.as_mut().unwrap().limits = Some(Limits { max_cost: 2.0, ..Limits::default() });
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str(), turn.cost), (TurnStatus::Incomplete, "max_cost", 3.0));
    assert_eq!(world.script.asked(), 2);
}

#[test]
fn cached_tokens_have_a_price_of_their_own() {
    let price = Price { input: 2.0, output: 8.0, cached_input: Some(0.5) };
    assert!((price.of(1_000_000, 400_000, 500_000) - (1.2 + 0.2 + 4.0)).abs() < 1e-9);
}
