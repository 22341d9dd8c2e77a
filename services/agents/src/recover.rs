//! Going on with turns that their owners left unfinished: an earlier process, or another one that is gone.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use llama_stack_core::{Code, Context, Error, Result, context::ShownKey, failpoint, manifest::Quota};
use llama_stack_store::{Claimed, Held};

use crate::{fold::Fold, journal::Journal, lease, live::Running, run::Run, runtime::Shared, turns};

/// Turns that are claimed at once. Of several processes that look at the same time each gets a part.
const BATCH: u32 = 64;

/// Journals that are read at once.
const READS: usize = 4;

/// Once now, and from now on as long as the runtime lives.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<usize> {
    lease::pick_up(shared);
    pick_up(shared).await
}

/// Claims what nobody owns any more, until there is no more of it, and says how many turns go on here.
pub(crate) async fn pick_up(shared: &Arc<Shared>) -> Result<usize> {
    let mut count = 0;
    loop {
        let claimed = shared.parts.store.claim(shared.lease.holder(), BATCH).await?;
        let more = claimed.len() == BATCH as usize;
        count += go_on_with(shared, claimed).await;
        if !more {
            return Ok(count);
        }
    }
}

async fn go_on_with(shared: &Arc<Shared>, claimed: Vec<Claimed>) -> usize {
    // All are entered before any journal is read, so that none looks as if nobody ran it.
    let entered: Vec<(Held, Running)> = claimed.into_iter().filter_map(|claimed| enter(shared, claimed)).collect();
    let loaded = stream::iter(entered).map(|(held, running)| async move {
        let loaded = load(shared, &held).await;
        (held, running, loaded)
    });
    let mut loaded = std::pin::pin!(loaded.buffered(READS));
    let mut count = 0;
    while let Some((held, running, loaded)) = loaded.next().await {
        match loaded {
            Ok((fold, cx)) => {
                go_on(shared, &held, fold, cx, running);
                count += 1;
            }
            Err(error) => leave(shared, held, &error),
        }
    }
    count
}

fn enter(shared: &Shared, claimed: Claimed) -> Option<(Held, Running)> {
    let Claimed { held, session_id, sequence } = claimed;
    match shared.lives.enter(&held.tenant, &session_id, &held.turn_id, sequence, false) {
        Ok(running) => Some((held, running)),
        Err(error) => {
            tracing::warn!(turn = held.turn_id, error = ?error, "an unfinished turn cannot go on yet");
            None
        }
    }
}

/// The turn, and on whose behalf it goes on: theirs who began it, with the API key that they had, as it is now. Each inference is charged
/// by the process that made it, when it is told what it took; so what the earlier owner was told it has charged, and nothing else.
async fn load(shared: &Shared, held: &Held) -> Result<(Fold, Context)> {
    let fold = shared.load(&held.tenant, &held.turn_id).await?;
    let cx = turns::beginner(&held.tenant, &fold.turn).unwrap_or_else(|| Context::system_for(&held.tenant));
    let key = shared.parts.store.key_of_turn(&held.tenant, &held.turn_id).await?;
    let cx = match &key {
        Some(key) => {
            let quota = key.quota.as_ref().map(Quota::from).unwrap_or_default();
            cx.with_key(ShownKey { id: &key.id, tenant: &key.tenant, quota })
        }
        None => cx,
    };
    Ok((fold, cx))
}

fn go_on(shared: &Arc<Shared>, held: &Held, fold: Fold, cx: Context, running: Running) {
    // One that answers a call of another is a part of that.
    if fold.turn.caller_turn_id.is_empty() {
        running.keep(shared.readmit(&cx));
    }
    let journal = Journal::new(shared, &held.tenant, fold, running, Some(held.epoch));
    failpoint::hit("recover.turn");
    let run = Run::new(shared.clone(), cx, journal, true);
    shared.parts.tasks.spawn(run.run());
}

fn leave(shared: &Shared, held: Held, error: &Error) {
    match error.code() {
        // Deleted since.
        Code::NotFound => {}
        Code::Unavailable => tracing::warn!(turn = held.turn_id, error = ?error, "an unfinished turn cannot go on yet"),
        _ => {
            tracing::error!(turn = held.turn_id, error = ?error, "an unfinished turn cannot go on");
            shared.lease.pin(held);
        }
    }
}
