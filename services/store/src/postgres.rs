//! Postgres: a pool, one transaction per command. The server groups commits by itself.

use std::{str::FromStr as _, time::Duration};

use llama_stack_core::{Error, Result, manifest::Durability};
use sqlx::{
    ConnectOptions as _, Executor as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep};

use crate::{
    PATIENCE,
    command::{Command, Failure, Outcome},
    failure::{self, Kind},
    sql::{Arg, Conn, Row},
};

const MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Below the server's usual limit of 100, so that several replicas fit.
const CONNECTIONS: u32 = 16;

/// Raises what the server is set to only where that would break the promise.
const SYNC: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
const NO_SYNC: &str = "SET synchronous_commit = off";

pub(crate) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(crate) async fn open(url: &str, durability: Durability) -> Result<Self> {
        // The URL may hold a password: neither it nor the parser's words are shown.
        let bad_url = |_| Error::invalid("store.url", "store.url is not a valid postgres:// URL");
        let options = PgConnectOptions::from_str(url).map_err(bad_url)?.application_name("llama-stack").disable_statement_logging();
        let place = format!("postgres at {}:{}", options.get_host(), options.get_port());
        let settings = match durability {
            Durability::Power => SYNC,
            Durability::Process => NO_SYNC,
        };
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |conn, _| Box::pin(async move { conn.execute(settings).await.map(drop) }))
            .connect_with(options)
            .await
            .map_err(|error| failure::report(&error).context(&place))?;
        MIGRATIONS.run(&pool).await.map_err(|error| failure::opening(&place, &error))?;
        Ok(Self { pool })
    }

    /// Transactions that crossed are tried again, within patience.
    pub(crate) async fn write(&self, command: &dyn Command) -> Result<Outcome> {
        let (since, mut pause) = (Instant::now(), Duration::from_millis(2));
        loop {
            match self.try_write(command).await {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Database(sqlx::Error::PoolClosed)) => return Err(failure::closed()),
                Err(Failure::Database(error)) if Kind::of(&error) == Kind::Busy && since.elapsed() < PATIENCE => {
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
        transaction.commit().await?;
        Ok(outcome)
    }

    pub(crate) async fn read(&self, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        self.try_read(sql, args).await.map_err(|error| match error {
            sqlx::Error::PoolClosed => failure::closed(),
            error => failure::report(&error),
        })
    }

    async fn try_read(&self, sql: &'static str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        Conn::Postgres(&mut *self.pool.acquire().await?).rows(sql, args).await
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
