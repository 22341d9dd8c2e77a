//! SQLite's one writer: commands that wait together are committed together, with one sync for all of them.
//!
//! ```text
//! write() ─┐
//! write() ─┼─ bounded queue ─ take all that wait ─ BEGIN ─ apply each ─ COMMIT ─ answer each
//! write() ─┘                    (meanwhile the next group gathers)
//! ```

use std::time::{Duration, Instant};

use llama_stack_core::{Result, failpoint};
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    command::{Command, Failure, Outcome},
    failure::{self, Kind},
    sql::Conn,
};

/// Commands that may wait. A full queue makes callers wait, up to the patience.
const QUEUE: usize = 1_024;

/// Commands in one transaction: enough to share a sync, few enough that the first does not wait for long.
const GROUP: usize = 256;

pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    patience: Duration,
    closing: CancellationToken,
    task: TaskTracker,
}

struct Job {
    command: Box<dyn Command>,
    since: Instant,
    answer: oneshot::Sender<Result<Outcome>>,
}

impl Writer {
    /// `pool` holds the one connection that writes. The task ends with the last sender, or by [`Writer::close`].
    pub(crate) fn start(pool: SqlitePool, patience: Duration) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        task.spawn(run(jobs, Groups { pool, patience }, closing.clone()));
        task.close();
        Self { queue, patience, closing, task }
    }

    pub(crate) async fn write(&self, command: Box<dyn Command>) -> Result<Outcome> {
        let (answer, done) = oneshot::channel();
        let job = Job { command, since: Instant::now(), answer };
        match tokio::time::timeout(self.patience, self.queue.send(job)).await {
            Ok(Ok(())) => done.await.unwrap_or_else(|_| Err(failure::closed())),
            Ok(Err(_)) => Err(failure::closed()),
            Err(_) => Err(failure::busy()),
        }
    }

    /// Returns once everything that was queued is answered.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }
}

async fn run(mut queue: mpsc::Receiver<Job>, groups: Groups, closing: CancellationToken) {
    let mut jobs = Vec::with_capacity(GROUP);
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut jobs, GROUP) => if taken == 0 { break },
            () = closing.cancelled(), if !queue.is_closed() => queue.close(),
        }
        groups.commit(&mut jobs).await;
    }
}

struct Groups {
    pool: SqlitePool,
    patience: Duration,
}

/// What became of a group's transaction.
enum Group {
    /// Committed; one result per command, in order.
    Committed(Vec<Result<Outcome>>),
    /// Rolled back, because of one command.
    Spoiled(sqlx::Error),
    /// Rolled back, and it would be no better for each alone.
    Failed(sqlx::Error),
}

impl Groups {
    /// Answers every job.
    async fn commit(&self, jobs: &mut Vec<Job>) {
        match self.together(jobs).await {
            Group::Committed(results) => jobs.drain(..).zip(results).for_each(|(job, result)| job.reply(result)),
            Group::Spoiled(_) if jobs.len() > 1 => {
                for job in jobs.drain(..) {
                    let mut alone = vec![job];
                    Box::pin(self.commit(&mut alone)).await;
                }
            }
            Group::Spoiled(error) | Group::Failed(error) => {
                jobs.drain(..).for_each(|job| job.reply(Err(failure::report(&error))));
            }
        }
    }

    /// Applies the jobs in one transaction. Those that lost patience before it began are answered and taken out.
    ///
    /// The transaction is plain statements: after a full disk SQLite has rolled back by itself, which sqlx's own
    /// transactions don't see, so that they would refuse the next.
    async fn together(&self, jobs: &mut Vec<Job>) -> Group {
        let mut conn = match self.begin(jobs).await {
            Ok(Some(conn)) => conn,
            Ok(None) => return Group::Committed(Vec::new()),
            Err(error) => return Group::Failed(error),
        };
        let mut results = Vec::with_capacity(jobs.len());
        for job in jobs.iter() {
            match job.command.apply(&mut Conn::Sqlite(&mut conn)).await {
                Ok(outcome) => results.push(Ok(outcome)),
                Err(Failure::Refused(error)) => results.push(Err(error)),
                Err(Failure::Database(error)) => {
                    roll_back(&mut conn).await;
                    return if Kind::of(&error).is_of_one_statement() { Group::Spoiled(error) } else { Group::Failed(error) };
                }
            }
        }
        failpoint::hit("store.before_commit");
        let committed = sqlx::query("COMMIT").execute(&mut *conn).await;
        failpoint::hit("store.committed");
        match committed {
            Ok(_) => Group::Committed(results),
            Err(error) => {
                roll_back(&mut conn).await;
                Group::Failed(error)
            }
        }
    }

    /// Takes the file's write lock. While another process has it, the jobs wait, each for its own patience.
    async fn begin(&self, jobs: &mut Vec<Job>) -> sqlx::Result<Option<PoolConnection<Sqlite>>> {
        let mut conn = self.pool.acquire().await?;
        while !jobs.is_empty() {
            match sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await {
                Ok(_) => return Ok(Some(conn)),
                Err(error) if Kind::of(&error) == Kind::Busy => {
                    let tired = |job: &mut Job| job.since.elapsed() >= self.patience;
                    jobs.extract_if(.., tired).for_each(|job| job.reply(Err(failure::busy())));
                }
                Err(error) => {
                    // Whatever is wrong with it, the next group gets a new one.
                    conn.close_on_drop();
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

async fn roll_back(conn: &mut PoolConnection<Sqlite>) {
    if let Err(error) = sqlx::query("ROLLBACK").execute(&mut **conn).await {
        tracing::debug!(cause = %error, "nothing to roll back");
    }
}

impl Job {
    fn reply(self, result: Result<Outcome>) {
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.answer.send(result);
    }
}
