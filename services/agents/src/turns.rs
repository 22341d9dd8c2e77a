//! Turns that exist: reading, resuming, cancelling, deleting.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use llama_stack_core::{Code, Context, Error, EventStream, Principal, Result, failpoint, ids};
use llama_stack_proto::v1::{
    DeleteTurnResponse, ListTurnsRequest, ListTurnsResponse, RedactTurnRequest, ResumeTurnRequest, ToolResults, Turn, TurnEvent,
    TurnStatus, turn_event::Event,
};
use llama_stack_store::TurnList;
use tokio::sync::oneshot;

use crate::{
    begin::cancels,
    edge,
    fold::Fold,
    journal::{Journal, forget},
    redact,
    run::Run,
    runtime::Shared,
    watch::Watcher,
};

/// Journals that are read at once for a list.
const READS: usize = 4;

pub(crate) async fn get(shared: &Shared, cx: &Context, id: &str) -> Result<Turn> {
    told(shared, cx.tenant(), id).await
}

/// Who began a turn, as far as its journal says: whoever goes on with it, it is theirs, and what it takes is charged to them.
pub(crate) fn beginner(tenant: &str, turn: &Turn) -> Option<Context> {
    let who = || Principal { id: turn.principal.clone(), tenant: tenant.to_owned(), roles: turn.principal_roles.clone() };
    (!turn.principal.is_empty()).then(|| Context::new(who()))
}

/// A turn as a caller is told of it: where it rests, what comes next may begin.
async fn told(shared: &Shared, tenant: &str, id: &str) -> Result<Turn> {
    let turn = shared.load(tenant, id).await?.turn;
    if turn.status() != TurnStatus::InProgress {
        shared.lives.settle(tenant, id).await;
    }
    Ok(turn)
}

pub(crate) async fn list(shared: &Shared, cx: &Context, request: ListTurnsRequest) -> Result<ListTurnsResponse> {
    let (tenant, store) = (cx.tenant(), &shared.parts.store);
    let session_id = Some(request.session_id.as_str()).filter(|id| !id.is_empty());
    if let Some(session_id) = session_id {
        store.get_session(tenant, session_id).await.map_err(|error| error.with_field("session_id"))?;
    }
    let (newest_first, after) = (request.newest_first, request.after_turn_id.as_str());
    let viewer = cx.principal().id.as_str();
    let list = TurnList { viewer, session_id, newest_first, after, page_size: request.page_size, page_token: &request.page_token };
    let (ids, next_page_token) = store.turn_ids(tenant, list).await?;
    let read = |id: String| async move {
        match told(shared, tenant, &id).await {
            Ok(turn) => Ok(Some(turn)),
            // Deleted since the page was read.
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    let turns: Vec<Option<Turn>> = futures::stream::iter(ids).map(read).buffered(READS).try_collect().await?;
    Ok(ListTurnsResponse { turns: turns.into_iter().flatten().collect(), next_page_token })
}

/// A turn that runs here ends itself; one that waits, or that another process runs, is taken over with its end: the other
/// finds its next write refused.
pub(crate) async fn cancel(shared: &Shared, cx: &Context, id: &str) -> Result<Turn> {
    let tenant = cx.tenant();
    loop {
        let live = shared.lives.get(tenant, id);
        if let Some(live) = &live {
            // Asked for before the journal is read, and only of this tenant's own: the table knows tenants.
            live.cancel.cancel();
            if let Some(ended) = live.closed().await {
                return Ok(ended);
            }
        }
        let mut fold = shared.load(tenant, id).await?;
        if fold.ended() {
            return Ok(fold.turn);
        }
        let called = fold.called();
        let mut turn = fold.turn.clone();
        turn.set_status(TurnStatus::Cancelled);
        turn.ended = Some(ids::now());
        let (sequence, time) = (fold.sequence + 1, turn.ended);
        let ended = TurnEvent { turn_id: id.to_owned(), sequence, time, event: Some(Event::Ended(Box::new(turn))) };
        let written = if fold.turn.store {
            let taken = shared.parts.store.take(tenant, id, shared.lease.holder(), std::slice::from_ref(&ended), TurnStatus::Cancelled);
            taken.await.map(drop)
        } else {
            forget(&shared.parts.store, tenant, &fold.turn, None).await
        };
        match written {
            Ok(()) => {
                fold.push(&ended)?;
                shared.histories.forget(tenant, id);
                // Whose process it was stops without a word, so it is done here.
                Box::pin(cancel_called(shared, tenant, called)).await;
                return Ok(fold.turn);
            }
            // It was resumed, or it ended, in between: look again.
            Err(error) if matches!(error.code(), Code::Aborted | Code::FailedPrecondition) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Cancels the turns that calls of agents wait for.
pub(crate) async fn cancel_called(shared: &Shared, tenant: &str, called: Vec<String>) {
    let cx = Context::system_for(tenant);
    for id in called {
        // It may never have begun.
        if let Err(error) = cancel(shared, &cx, &id).await {
            tracing::debug!(turn = id, error = ?error, "a called turn was not cancelled");
        }
    }
}

pub(crate) async fn delete(shared: &Shared, cx: &Context, id: &str) -> Result<DeleteTurnResponse> {
    let fold = shared.load(cx.tenant(), id).await?;
    if fold.turn.status() == TurnStatus::InProgress {
        return Err(Error::failed_precondition(format!("turn {id:?} is in progress: cancel it first")).with_reason("turn_in_progress"));
    }
    shared.parts.store.delete_turn(cx.tenant(), id).await?;
    shared.histories.forget(cx.tenant(), id);
    Ok(DeleteTurnResponse {})
}

pub(crate) async fn resume(shared: &Arc<Shared>, cx: &Context, request: ResumeTurnRequest) -> Result<EventStream<TurnEvent>> {
    shared.accepting()?;
    let cancels = cancels(request.on_disconnect());
    let fold = shared.load(cx.tenant(), &request.turn_id).await?;
    if fold.turn.status() != TurnStatus::AwaitingTools {
        return Err(not_awaiting(&fold));
    }
    let results = edge::results(request.results, &fold.awaiting)?;
    let decisions = edge::decisions(request.decisions, &fold.approvals, true, &ids::now())?;
    let sequence = fold.sequence;
    shared.lives.settle(cx.tenant(), &request.turn_id).await;
    let admitted = shared.admit(cx)?;
    let running = shared.lives.enter(cx.tenant(), &fold.turn.session_id, &request.turn_id, sequence, false)?;
    running.keep(admitted);
    let (tail, token) = (running.live().tail(), running.live().cancel.clone());
    let journal = Journal::new(shared, cx.tenant(), fold, running, None);
    let (tell, told) = oneshot::channel();
    shared.parts.tasks.spawn(go_on(shared.clone(), cx.detached(), journal, ToolResults { results, decisions }, cancels, tell));
    let told = async { told.await.map_err(|_| Error::internal("the turn could not be resumed"))? };
    cx.within(told).await?;
    let watcher = Watcher::new(shared, cx, &request.turn_id, sequence).with_tail(tail);
    Ok(watcher.cancelling(cancels.then_some(token)).stream())
}

/// In a task of its own: a caller who goes away must not leave a resumed turn that nobody runs.
async fn go_on(
    shared: Arc<Shared>,
    cx: Context,
    mut journal: Journal,
    results: ToolResults,
    cancels: bool,
    tell: oneshot::Sender<Result<()>>,
) {
    let waiting = journal.fold().clone();
    let resumed = match journal.stage(Event::Resumed(results)) {
        Ok(()) => journal.commit().await,
        Err(error) => Err(error),
    };
    if let Err(error) = resumed {
        let raced = matches!(error.code(), Code::Aborted | Code::FailedPrecondition);
        // If nobody listens any more, nobody needs to know.
        return drop(tell.send(Err(if raced { not_awaiting(&waiting) } else { error })));
    }
    failpoint::hit("resume.journalled");
    shared.histories.forget(cx.tenant(), &waiting.turn.id);
    if tell.send(Ok(())).is_err() && cancels {
        journal.live().cancel.cancel();
    }
    let servers = shared.resting.take(&waiting.turn.id);
    Run::new(shared, cx, journal, false).with_servers(servers).run().await;
}

/// Takes parts out of a turn that has ended. What is left is written in place of its journal: its beginning and its end.
pub(crate) async fn redact(shared: &Shared, cx: &Context, request: RedactTurnRequest) -> Result<Turn> {
    let (tenant, id) = (cx.tenant(), &request.turn_id);
    let fold = shared.load(tenant, id).await?;
    if !fold.ended() {
        let message = format!("turn {id:?} has not ended: cancel it first, or wait for its end");
        return Err(Error::failed_precondition(message).with_reason("turn_in_progress"));
    }
    let mut turn = fold.turn;
    redact::parts(&mut turn, &request.parts)?;
    let begun =
        Turn { steps: Vec::new(), ended: None, usage: None, error: None, cost: 0.0, status: TurnStatus::InProgress.into(), ..turn.clone() };
    let event = |sequence, time, event| TurnEvent { turn_id: id.clone(), sequence, time, event: Some(event) };
    let journal = [
        event(1, turn.created, Event::Created(Box::new(Turn { incomplete_reason: String::new(), ..begun }))),
        event(2, turn.ended, Event::Ended(Box::new(turn.clone()))),
    ];
    shared.parts.store.rewrite_journal(tenant, id, fold.sequence, &journal).await?;
    shared.histories.forget(tenant, id);
    Ok(turn)
}

fn not_awaiting(fold: &Fold) -> Error {
    let message = format!("turn {:?} waits for no tool results", fold.turn.id);
    Error::failed_precondition(message).with_reason("turn_not_awaiting")
}
