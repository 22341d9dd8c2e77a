//! `llama-stack backup`, `restore` and `erase`: all that a stack keeps, out of it, into it and gone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use futures::StreamExt as _;
use llama_stack_core::{Code, Error, EventStream, Manifest, Result, Stack, grpc::Remote};
use llama_stack_proto::v1::{BackupChunk, BackupRequest, EraseRequest, stack_client::StackClient};
use llama_stack_server::{
    Options,
    backup::{self, BackupKey, Contents, Sealing},
};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::ServerArgs,
    caller::caller,
    distribution::Source,
    draft::{self, Draft},
    home::home,
    named,
    output::Output,
    reach,
    registry::registry,
    running::Running,
};

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// The archive to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    /// Seal the archive with the key in this file: 64 hexadecimal digits, of `openssl rand -hex 32`. Without the key it is lost
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Back up this distribution or manifest, which does not run, without a server
    #[arg(long, value_name = "DISTRIBUTION")]
    offline: Option<String>,
    /// Where models, state and logs live, with --offline
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// What `backup` wrote
    file: PathBuf,
    /// Into the database, banks and files of this distribution or manifest; without it of the one in the archive
    #[arg(long, value_name = "DISTRIBUTION")]
    into: Option<String>,
    /// The key that the archive is sealed with
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Delete what is there first
    #[arg(long)]
    replace: bool,
    /// Only read the archive and compare it with its hashes
    #[arg(long, conflicts_with_all = ["into", "replace"])]
    verify: bool,
    /// Where models, state and logs live
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct EraseArgs {
    /// Whose data goes: sessions, files, banks, memories, batches, keys, counters
    #[arg(long)]
    tenant: String,
    /// Only this person's of the tenant
    #[arg(long, default_value = "")]
    principal: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Summary {
    file: String,
    name: String,
    version: String,
    bytes: u64,
    rows: u64,
    chunks: u64,
    files: u64,
    left_out: Vec<String>,
}

fn summary(file: &Path, contents: Contents) -> Summary {
    Summary {
        file: file.display().to_string(),
        bytes: contents.bytes(),
        rows: contents.items("database/"),
        chunks: contents.members.iter().filter(|member| member.name.ends_with(".chunks")).map(|member| member.items).sum(),
        files: contents.items("files/"),
        name: contents.name,
        version: contents.version,
        left_out: contents.left_out,
    }
}

fn told(summary: &Summary) -> String {
    let Summary { file, name, version, bytes, rows, chunks, files, left_out } = summary;
    let lacking: String = left_out.iter().map(|what| format!("  not in it: {what}\n")).collect();
    format!("{file} is whole: {name} by version {version}, {rows} rows, {chunks} chunks, {files} files, {bytes} bytes\n{lacking}")
}

fn connect(server: &str) -> Result<Remote<StackClient<Channel>>> {
    Ok(Remote::<StackClient<Channel>>::new(reach::connect(server)?))
}

pub(crate) async fn run(args: BackupArgs, output: &Output) -> Result<()> {
    named::no_folder(&args.to)?;
    if args.to.exists() {
        return Err(Error::new(Code::AlreadyExists, format!("{} is there already; name another file", args.to.display())));
    }
    // Before the work: a wrong key file should cost nobody a backup.
    let key = key(args.key_file.as_deref())?;
    let server = &args.server.server;
    let chunks = match args.offline {
        Some(distribution) => {
            let manifest = Source::find(&distribution)?.manifest()?;
            let home = home(args.home)?;
            is_stopped(&home, &manifest, "`llama-stack backup` without --offline asks it")?;
            backup::offline(&manifest, &registry(), Options { home, on_progress: output.progress() }).await
        }
        None => connect(server)?.backup(&caller(), BackupRequest {}).await.map_err(|error| reach::explained(error, server)),
    };
    let written = {
        let _working = output.working("writing the backup");
        draft::unless_stopped(write(chunks?, &args.to, key.as_ref())).await
    };
    written.map_err(|error| reach::explained(error, server))?;
    let contents = tokio::select! {
        read = verified(&args.to, key, output) => read?,
        _ = tokio::signal::ctrl_c() => {
            let message = format!("stopped while {} was verified; it is there", args.to.display());
            return Err(Error::new(Code::Cancelled, message));
        }
    };
    output.result(&summary(&args.to, contents), told)
}

fn key(file: Option<&Path>) -> Result<Option<BackupKey>> {
    file.map(BackupKey::read).transpose()
}

async fn verified(archive: &Path, key: Option<BackupKey>, output: &Output) -> Result<Contents> {
    let _working = output.working("reading the archive");
    let path = archive.to_owned();
    let contents = tokio::task::spawn_blocking(move || backup::verify(&path, key.as_ref())).await;
    contents.map_err(|error| Error::internal("the archive could not be verified").with_source(error))?
}

/// Sealed where there is a key.
async fn write(mut chunks: EventStream<BackupChunk>, to: &Path, key: Option<&BackupKey>) -> Result<(Draft, ())> {
    let mut draft = Draft::begin(to, false).await?;
    let mut sealing = None;
    if let Some(key) = key {
        let (begun, head) = Sealing::begin(key)?;
        draft.write(&head).await?;
        sealing = Some(begun);
    }
    while let Some(chunk) = chunks.next().await.transpose()? {
        match &mut sealing {
            Some(sealing) => draft.write(&sealing.push(&chunk.data)?).await?,
            None => draft.write(&chunk.data).await?,
        }
    }
    if let Some(sealing) = sealing {
        draft.write(&sealing.end()?).await?;
    }
    Ok((draft, ()))
}

fn is_stopped(home: &Path, manifest: &Manifest, instead: &str) -> Result<()> {
    match Running::all(home).into_iter().find(|running| running.name == manifest.name) {
        Some(running) => Err(Error::failed_precondition(format!("{} runs at {}: {instead}", running.name, running.url))),
        None => Ok(()),
    }
}

pub(crate) async fn restore(args: RestoreArgs, output: &Output) -> Result<()> {
    let key = key(args.key_file.as_deref())?;
    if args.verify {
        let contents = verified(&args.file, key, output).await?;
        return output.result(&summary(&args.file, contents), told);
    }
    let manifest = match &args.into {
        Some(distribution) => Source::find(distribution)?.manifest()?,
        None => Manifest::parse(&backup::manifest_of(&args.file, key.as_ref())?, "manifest.json of the archive")?,
    };
    let home = home(args.home)?;
    is_stopped(&home, &manifest, "stop it first")?;
    let (on_progress, restoring) = output.progress_within("restoring");
    let restored = backup::restore(args.file, key, &manifest, &registry(), Options { home, on_progress }, args.replace).await;
    restoring.end();
    output.result(&restored?, |restored| {
        let rows: u64 = restored.rows.values().sum();
        let again = match restored.documents_to_read_again {
            0 => String::new(),
            count => format!("  {count} documents changed while the backup was made: they are read again at the next start\n"),
        };
        let gone = match restored.documents_deleted_meanwhile {
            0 => String::new(),
            count => format!("  {count} documents were deleted while the backup was made, and are not restored\n"),
        };
        let lacking: String = restored.left_out.iter().map(|what| format!("  not in the backup: {what}\n")).collect();
        let behind: String = restored.left_behind.iter().map(|what| format!("  not deleted: {what}\n")).collect();
        format!(
            "{} is restored: {rows} rows, {} banks with {} chunks, {} files\n{again}{gone}{lacking}{behind}",
            restored.name, restored.banks, restored.chunks, restored.files
        )
    })
}

#[derive(Serialize)]
struct Erased {
    tenant: String,
    principal: String,
    deleted: BTreeMap<String, u64>,
}

pub(crate) async fn erase(args: EraseArgs, output: &Output) -> Result<()> {
    let server = &args.server.server;
    let request = EraseRequest { tenant: args.tenant.clone(), principal: args.principal.clone() };
    let answer = {
        let _working = output.working("deleting");
        connect(server)?.erase(&caller(), request).await.map_err(|error| reach::explained(error, server))?
    };
    let erased = Erased { tenant: args.tenant, principal: args.principal, deleted: answer.deleted.into_iter().collect() };
    output.result(&erased, |erased| {
        let lines: String = erased.deleted.iter().map(|(what, count)| format!("  {count} {}\n", what.replace('_', " "))).collect();
        if lines.is_empty() { "there was nothing to delete\n".to_owned() } else { format!("deleted:\n{lines}") }
    })
}
