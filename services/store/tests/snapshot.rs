//! All rows at one moment, and the same rows in another database.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, agent, begin, open};
use llama_stack_core::Code;
use llama_stack_store::{Restore, Rows, Snapshot, Store, known_migrations};
use tokio::sync::mpsc;

on!(sqlite, postgres: [
    a_snapshot_is_of_one_moment_and_holds_up_nobody,
    what_is_restored_is_what_was_there,
    a_database_with_rows_is_left_alone_unless_it_is_to_be_replaced,
    a_restore_that_breaks_off_leaves_what_was_there,
    rows_of_an_older_version_come_into_tables_of_today,
    documents_of_before_versions_vouch_for_chunks_without_one,
]);

mod beside {
    use super::{a_server_that_starts_during_a_restore_waits_for_its_end, fixture};

    on!(postgres: [a_server_that_starts_during_a_restore_waits_for_its_end]);
}

/// What a snapshot has of one table.
struct Table {
    name: String,
    columns: Vec<String>,
    pieces: Vec<Rows>,
}

/// All tables, in the order that it gives them.
async fn all(snapshot: &mut Snapshot) -> Vec<Table> {
    let mut all = Vec::new();
    for name in snapshot.tables() {
        let (out, mut pieces) = mpsc::channel(1);
        let take = async {
            let mut taken = Vec::new();
            while let Some(rows) = pieces.recv().await {
                taken.push(rows);
            }
            taken
        };
        let (read, taken) = tokio::join!(snapshot.rows(&name, out), take);
        read.unwrap();
        all.push(Table { columns: snapshot.columns(&name), name, pieces: taken });
    }
    all
}

/// An empty database of the same kind.
async fn another(fixture: &Fixture, folder: &tempfile::TempDir) -> String {
    match fixture._folder {
        Some(_) => format!("sqlite://{}/other.db", folder.path().display()),
        None => fixture::postgres().await.unwrap().url.clone(),
    }
}

async fn fill(url: &str, tables: &[Table], replace: bool) {
    let mut restore = Restore::begin(url, &known_migrations(), replace).await.unwrap();
    for Table { name, columns, pieces } in tables {
        for rows in pieces {
            assert_eq!(restore.insert(name, columns, &rows.lines).await.unwrap(), rows.count);
        }
    }
    restore.finish().await.unwrap();
}

async fn a_snapshot_is_of_one_moment_and_holds_up_nobody(Fixture { store, .. }: &Fixture) {
    let (early, late) = (agent("early"), agent("late"));
    store.put_agent(TENANT, &early).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    store.put_agent(TENANT, &late).await.unwrap();
    store.delete_agent(TENANT, &early.id).await.unwrap();
    let tables = all(&mut snapshot).await;
    let agents = tables.iter().find(|table| table.name == "agents").unwrap();
    let [rows] = agents.pieces.as_slice() else { unreachable!("one piece for one row") };
    assert_eq!(rows.count, 1);
    assert!(String::from_utf8_lossy(&rows.lines).contains(&early.id));
    drop(snapshot);
    assert_eq!(store.list_agents(TENANT, 0, "").await.unwrap().0, [late]);
}

async fn what_is_restored_is_what_was_there(fixture: &Fixture) {
    let store = &fixture.store;
    // Quotes, line ends and more than one piece.
    let long = agent(&format!("\"one\"\n{}", "é".repeat(3 << 20)));
    for one in [&long, &agent("two"), &agent("three")] {
        store.put_agent(TENANT, one).await.unwrap();
    }
    let turn = begin(store, TENANT).await;
    let tables = all(&mut store.snapshot().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    fill(&url, &tables, false).await;
    let restored = open(&url).await;
    assert_eq!(restored.get_agent(TENANT, &long.id).await.unwrap(), long);
    assert_eq!(restored.list_agents(TENANT, 0, "").await.unwrap(), store.list_agents(TENANT, 0, "").await.unwrap());
    assert_eq!(journal(&restored, &turn).await, journal(store, &turn).await);
    restored.close().await;
}

async fn journal(store: &Store, turn: &str) -> usize {
    let journal = store.journal(TENANT, turn, 0).await.unwrap();
    assert!(!journal.is_empty());
    journal.len()
}

async fn a_database_with_rows_is_left_alone_unless_it_is_to_be_replaced(fixture: &Fixture) {
    let (store, here) = (&fixture.store, agent("here"));
    store.put_agent(TENANT, &here).await.unwrap();
    let tables = all(&mut store.snapshot().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    let there = open(&url).await;
    let before = agent("there");
    there.put_agent(TENANT, &before).await.unwrap();
    there.put_agent(TENANT, &agent("there too")).await.unwrap();
    let (_, token) = there.list_agents(TENANT, 1, "").await.unwrap();
    there.close().await;
    let refused = Restore::begin(&url, &known_migrations(), false).await.err().unwrap();
    assert_eq!((refused.code(), refused.reason()), (Code::FailedPrecondition, Some("not_empty")));
    let there = open(&url).await;
    assert_eq!(there.get_agent(TENANT, &before.id).await.unwrap(), before);
    there.close().await;
    fill(&url, &tables, true).await;
    let there = open(&url).await;
    assert_eq!(there.list_agents(TENANT, 0, "").await.unwrap().0, [here]);
    // The key of tokens is the database's own: it is not in the backup, and does not go with what was there.
    assert!(there.list_agents(TENANT, 1, &token).await.is_ok());
    assert_eq!(store.list_agents(TENANT, 1, &token).await.unwrap_err().reason(), Some("bad_page_token"));
    there.close().await;
}

async fn a_restore_that_breaks_off_leaves_what_was_there(fixture: &Fixture) {
    fixture.store.put_agent(TENANT, &agent("here")).await.unwrap();
    let tables = all(&mut fixture.store.snapshot().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    let (there, before) = (open(&url).await, agent("there"));
    there.put_agent(TENANT, &before).await.unwrap();
    there.close().await;
    let mut restore = Restore::begin(&url, &known_migrations(), true).await.unwrap();
    for Table { name, columns, pieces } in &tables {
        for rows in pieces {
            restore.insert(name, columns, &rows.lines).await.unwrap();
        }
    }
    restore.insert("agents", &["tenant".into()], b"[1, 2]\n").await.unwrap_err();
    drop(restore);
    let there = open(&url).await;
    assert_eq!(there.list_agents(TENANT, 0, "").await.unwrap().0, [before]);
    there.close().await;
}

async fn a_server_that_starts_during_a_restore_waits_for_its_end(fixture: &Fixture) {
    let here = agent("here");
    fixture.store.put_agent(TENANT, &here).await.unwrap();
    let tables = all(&mut fixture.store.snapshot().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    open(&url).await.close().await;
    let mut restore = Restore::begin(&url, &known_migrations(), true).await.unwrap();
    let opening = tokio::spawn(async move { open(&url).await });
    // So that it has come to where it waits.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!opening.is_finished());
    for Table { name, columns, pieces } in &tables {
        for rows in pieces {
            restore.insert(name, columns, &rows.lines).await.unwrap();
        }
    }
    restore.finish().await.unwrap();
    let there = opening.await.unwrap();
    assert_eq!(there.list_agents(TENANT, 0, "").await.unwrap().0, [here]);
    there.close().await;
}

/// Whoever opens the database just before is waited for, and what it made is seen.
#[tokio::test]
async fn rows_that_came_while_a_restore_waited_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite://{}", at(name).display());
    let store = open(&url("other.db")).await;
    store.put_agent(TENANT, &agent("there")).await.unwrap();
    store.close().await;
    // As a server has it while it opens.
    let lock = std::fs::File::create(at("state.db.lock")).unwrap();
    lock.lock().unwrap();
    let (place, versions) = (url("state.db"), known_migrations());
    let restore = Restore::begin(&place, &versions, false);
    let server = async {
        // It makes the file, then waits for the lock.
        while !at("state.db").exists() {
            tokio::task::yield_now().await;
        }
        std::fs::copy(at("other.db"), at("state.db")).unwrap();
        drop(lock);
    };
    let both = async { tokio::join!(restore, server) };
    let (refused, ()) = tokio::time::timeout(std::time::Duration::from_secs(60), both).await.unwrap();
    assert_eq!(refused.err().unwrap().reason(), Some("not_empty"));
}

async fn rows_of_an_older_version_come_into_tables_of_today(fixture: &Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    let mut restore = Restore::begin(&url, &[1, 2], false).await.unwrap();
    let columns = ["tenant", "id", "created_us", "body"].map(String::from);
    let lines = b"[\"acme\",\"agent_1\",5,{\"b64\":\"\"}]\n";
    assert_eq!(restore.insert("agents", &columns, lines).await.unwrap(), 1);
    let unknown = restore.insert("prompts", &columns, lines).await.unwrap_err();
    assert!(unknown.code() == Code::InvalidArgument && unknown.message().contains("prompts"), "{unknown}");
    restore.finish().await.unwrap();
    let store = open(&url).await;
    store.get_agent(TENANT, "agent_1").await.unwrap();
    assert!(store.get_prompt(TENANT, "pmpt_1", 0).await.is_err_and(|error| error.code() == Code::NotFound), "a later table is there");
    store.close().await;
}

/// Whatever became of what was inserted last: what was found of them before is found.
async fn documents_of_before_versions_vouch_for_chunks_without_one(fixture: &Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let url = another(fixture, &folder).await;
    let before: Vec<i64> = known_migrations().into_iter().filter(|number| *number < 24).collect();
    let mut restore = Restore::begin(&url, &before, false).await.unwrap();
    let columns = ["tenant", "id", "provider_id", "owner", "shared", "kind", "active_us", "expires_us", "doomed", "body"].map(String::from);
    let bank = b"[\"acme\",\"bank_1\",\"sqlite\",\"ann\",0,1,5,0,0,{\"b64\":\"\"}]\n";
    assert_eq!(restore.insert("banks", &columns, bank).await.unwrap(), 1);
    let columns = [
        "tenant",
        "bank_id",
        "id",
        "place",
        "revision",
        "ingestion_id",
        "status",
        "principal",
        "roles",
        "bytes",
        "expires_us",
        "body",
        "content",
    ]
    .map(String::from);
    for (id, status) in [("going on", 1), ("completed", 2), ("failed", 3)] {
        let line =
            format!("[\"acme\",\"bank_1\",\"{id}\",\"{id}\",\"rev_1\",\"\",{status},\"ann\",\"\",1,0,{{\"b64\":\"\"}},{{\"b64\":\"\"}}]\n");
        assert_eq!(restore.insert("bank_documents", &columns, line.as_bytes()).await.unwrap(), 1);
    }
    restore.finish().await.unwrap();
    let store = open(&url).await;
    let versions = store.document_versions(TENANT, "bank_1", &["going on", "completed", "failed"]).await.unwrap();
    let of = |id: &str, next: &str| (id.to_owned(), [String::new(), next.to_owned()]);
    assert_eq!(versions, [of("going on", "rev_1"), of("completed", ""), of("failed", "")].into());
    store.close().await;
}
