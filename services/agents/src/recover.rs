//! After a restart: the turns that an earlier process left unfinished go on.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use llama_stack_core::{Context, Result, failpoint};
use llama_stack_proto::v1::TurnStatus;

use crate::{fold::Fold, journal::Journal, run::Run, runtime::Shared};

/// Journals that are read at once.
const READS: usize = 4;

pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<usize> {
    let unfinished = shared.parts.store.unfinished_turns().await?;
    // Those that wait for their client rest until it comes.
    let running = unfinished.into_iter().filter(|turn| turn.status == TurnStatus::InProgress);
    let loaded = stream::iter(running).map(|turn| async move {
        let fold = shared.load(&turn.tenant, &turn.turn_id).await;
        (turn.tenant, turn.turn_id, fold)
    });
    let mut loaded = std::pin::pin!(loaded.buffered(READS));
    let mut count = 0;
    while let Some((tenant, turn_id, fold)) = loaded.next().await {
        match fold.and_then(|fold| go_on(shared, &tenant, fold)) {
            Ok(()) => count += 1,
            Err(error) => tracing::error!(turn = turn_id, error = ?error, "an unfinished turn cannot go on"),
        }
    }
    Ok(count)
}

fn go_on(shared: &Arc<Shared>, tenant: &str, fold: Fold) -> Result<()> {
    // Postgres still ends the transaction that a dead process had sent: the turn may have come to rest since the list was made.
    if fold.turn.status() != TurnStatus::InProgress {
        return Ok(());
    }
    let running = shared.lives.enter(tenant, &fold.turn.session_id, &fold.turn.id, fold.sequence, false)?;
    let journal = Journal::new(shared.parts.store.clone(), tenant, fold, running);
    failpoint::hit("recover.turn");
    let run = Run::new(shared.clone(), Context::system_for(tenant), journal, true);
    shared.parts.tasks.spawn(run.run());
    Ok(())
}
