//! Postgres: a pool, one transaction per command. The server groups commits by itself.

use std::{str::FromStr as _, time::Duration};

use llama_stack_core::{Error, Result, failpoint, manifest::Durability};
use sqlx::{
    ConnectOptions as _, Executor as _, PgPool, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    command::{Command, Failure, Outcome},
    failure::{self, Kind},
    sql::{Arg, Conn, Row},
};

pub(crate) const MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Below the server's usual limit of 100, so that several replicas fit.
const CONNECTIONS: u32 = 16;

/// Raises what the server is set to only where that would break the promise.
const SYNC: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
const NO_SYNC: &str = "SET synchronous_commit = off";
/// A process that is stopped in the middle of a transaction, or cut off from the network, keeps no row locked for longer:
/// the server rolls its work back. Shorter than a lease, so that who takes its turns over does not wait for it.
const NO_LOCKS_OF_THE_DEAD: &str = "SET idle_in_transaction_session_timeout = '5s'";
/// A server from which nothing comes for so long is away, whatever the connection says.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Postgres {
    pool: PgPool,
    patience: Duration,
}

/// What a URL says of a database.
///
/// # Errors
/// `InvalidArgument` on `store.url`. It may hold a password: neither it nor the parser's words are shown.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions> {
    let wrong = || Error::invalid("store.url", "store.url must be like postgres://user:password@host:5432/database");
    // Without the slashes the parser takes whatever stands there for a server of this machine.
    if !["postgres://", "postgresql://"].iter().any(|beginning| url.starts_with(beginning)) {
        return Err(wrong());
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| wrong())?;
    Ok(options.application_name("llama-stack").disable_statement_logging())
}

impl Postgres {
    pub(crate) async fn open(url: &str, durability: Durability, patience: Duration) -> Result<Self> {
        let options = options(url)?;
        let place = format!("postgres at {}:{}", options.get_host(), options.get_port());
        let settings = match durability {
            Durability::Power => SYNC,
            Durability::Process => NO_SYNC,
        };
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(patience)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    conn.execute(settings).await?;
                    conn.execute(NO_LOCKS_OF_THE_DEAD).await.map(drop)
                })
            })
            .connect_with(options)
            .await
            .map_err(|error| failure::report(&error).context(&place))?;
        MIGRATIONS.run(&pool).await.map_err(|error| failure::opening(&place, &error))?;
        Ok(Self { pool, patience })
    }

    /// Transactions that crossed are tried again, within patience.
    pub(crate) async fn write(&self, command: &dyn Command) -> Result<Outcome> {
        let (since, mut pause) = (Instant::now(), Duration::from_millis(2));
        loop {
            let tried = timeout(ANSWER_WITHIN, self.try_write(command)).await;
            match tried.unwrap_or(Err(Failure::Database(sqlx::Error::PoolTimedOut))) {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Database(sqlx::Error::PoolClosed)) => return Err(failure::closed()),
                Err(Failure::Database(error)) if Kind::of(&error) == Kind::Busy && since.elapsed() < self.patience => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                Err(Failure::Database(error)) => return Err(failure::report(&error)),
            }
        }
    }

    async fn try_write(&self, command: &dyn Command) -> Result<Outcome, Failure> {
        // Dropped without a commit, for whatever reason, it is rolled back.
        let mut transaction = self.pool.begin().await?;
        let outcome = command.apply(&mut Conn::Postgres(&mut transaction)).await?;
        failpoint::hit("store.before_commit");
        transaction.commit().await?;
        failpoint::hit("store.committed");
        Ok(outcome)
    }

    pub(crate) async fn read(&self, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let read = timeout(ANSWER_WITHIN, self.try_read(sql, args)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        read.map_err(|error| match error {
            sqlx::Error::PoolClosed => failure::closed(),
            error => failure::report(&error),
        })
    }

    async fn try_read(&self, sql: &'static str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        Conn::Postgres(&mut *self.pool.acquire().await?).rows(sql, args).await
    }

    /// A transaction that sees all tables as they are now.
    pub(crate) async fn at_one_moment(&self) -> Result<Transaction<'static, sqlx::Postgres>> {
        let begun = async {
            let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            // It may wait for its reader for longer than others may be idle.
            transaction.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
            // The moment is that of the first query.
            transaction.execute("SELECT 1").await?;
            Ok(transaction)
        };
        begun.await.map_err(|error: sqlx::Error| failure::report(&error))
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;
    use llama_stack_test_postgres::Server;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn synchronous_commit(url: &str, durability: Durability) -> String {
        let store = Postgres::open(url, durability, PATIENCE).await.unwrap();
        let rows = store.read("SELECT current_setting('synchronous_commit')", &[]).await.unwrap();
        store.close().await;
        rows[0].text(0).unwrap()
    }

    #[tokio::test]
    async fn durability_holds_whatever_the_server_is_set_to() {
        let Some(server) = Server::start_or_skip().unwrap() else { return };
        let url = server.database().unwrap();
        assert_eq!(synchronous_commit(&url, Durability::Process).await, "off");
        assert_eq!(synchronous_commit(&url, Durability::Power).await, "on");
        let store = Postgres::open(&url, Durability::Power, PATIENCE).await.unwrap();
        store.pool.execute("ALTER ROLE postgres SET synchronous_commit = off").await.unwrap();
        assert_eq!(synchronous_commit(&url, Durability::Power).await, "on");
        // Stronger than asked for is left alone.
        store.pool.execute("ALTER ROLE postgres SET synchronous_commit = remote_apply").await.unwrap();
        assert_eq!(synchronous_commit(&url, Durability::Power).await, "remote_apply");
        store.close().await;
    }

    #[test]
    fn what_is_no_url_is_not_taken_for_a_server_of_this_machine() {
        for wrong in ["postgres:hunter2", "postgres:/hunter2", "postgresql:ann:hunter2@db/x", "postgres://ann:hunter2@db:port/x"] {
            let error = options(wrong).err().unwrap();
            assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("store.url")), "{wrong}");
            assert!(error.message().contains("postgres://user:") && !error.message().contains("hunter2"), "{error}");
        }
        assert_eq!(options("postgresql://ann:hunter2@db/x").unwrap().get_host(), "db");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_by_name() {
        // Held, so that it is nobody else's; nobody listens there.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = held.local_addr().unwrap().port();
        let url = format!("postgres://ann:hunter2@127.0.0.1:{port}/x");
        let error = Postgres::open(&url, Durability::Power, Duration::from_millis(300)).await.err().unwrap();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("store_unavailable")));
        assert_eq!(error.message(), format!("postgres at 127.0.0.1:{port}: the database does not answer"));
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_a_clear_refusal() {
        let Some(server) = Server::start_or_skip().unwrap() else { return };
        let url = server.database().unwrap().replace("test_0", "nobodys");
        let error = Postgres::open(&url, Durability::Power, PATIENCE).await.err().unwrap();
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("store_unusable")));
    }
}
