//! `llama-stack run`: a manifest becomes a server.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    net::SocketAddr,
    panic::PanicHookInfo,
    path::Path,
    time::Instant,
};

use llama_stack_core::{Error, Manifest, Result};
use llama_stack_server::{Options, Stack};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::Directive, fmt::writer::MakeWriterExt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    args::{LogFormat, RunArgs},
    distribution::Source,
    home::home,
    log_file::LogFile,
    output::Output,
    registry::registry,
    running::Running,
};

#[derive(Serialize)]
struct Ready {
    name: String,
    url: String,
    ready_ms: u128,
}

pub(crate) async fn run(args: RunArgs, output: &Output) -> Result<()> {
    let begun = Instant::now();
    let mut manifest = Source::find(&args.distribution)?.manifest()?;
    manifest.server.listen = listen(&args, &manifest)?;
    let home = home(args.home)?;
    let folder = home.join(&manifest.name);
    start_logging(&folder, args.log_format)?;
    llama_stack_server::raise_open_files();

    // Before the models: a taken port is told at once.
    let listener = llama_stack_server::bind(&manifest.server.listen).await?;
    let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").with_source(error))?;
    llama_stack_server::check_exposure(&manifest.server, address)?;
    let scheme = if manifest.server.tls.is_some() { "https" } else { "http" };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let signals = tokio::spawn(async move {
        if stop_signal().await {
            stop.cancel();
        }
    });

    let name = manifest.name.clone();
    let options = Options { home, on_progress: output.progress() };
    let registry = registry();
    let building = Stack::build(manifest, &registry, options);
    let stack = tokio::select! {
        stack = building => stack?,
        () = shutdown.cancelled() => return Err(Error::new(llama_stack_core::Code::Cancelled, "stopped before it was ready")),
    };
    let ready = Ready { name, url: format!("{scheme}://{}", reachable(address)), ready_ms: begun.elapsed().as_millis() };
    let note = Running::write(&folder, &ready.name, &ready.url);
    output.result(&ready, |ready| {
        format!(
            "{} is ready at {} ({} ms)\n  OpenAI API  {}/v1\n  gRPC        {}\n  stop with Ctrl-C\n",
            ready.name, ready.url, ready.ready_ms, ready.url, ready.url
        )
    })?;
    let served = stack.serve(listener, shutdown).await;
    signals.abort();
    drop(note);
    output.note("stopped");
    served
}

fn listen(args: &RunArgs, manifest: &Manifest) -> Result<String> {
    if let Some(listen) = &args.listen {
        return Ok(listen.clone());
    }
    let Some(port) = args.port else { return Ok(manifest.server.listen.clone()) };
    let host = manifest.server.listen.rsplit_once(':').map(|(host, _)| host);
    let host = host.ok_or_else(|| manifest.lines.error("server.listen", "must be host:port"))?;
    Ok(format!("{host}:{port}"))
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
}

/// SIGTERM or Ctrl-C. False where signals cannot be heard.
async fn stop_signal() -> bool {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            return interrupt.await.is_ok();
        };
        tokio::select! {
            heard = interrupt => heard.is_ok(),
            _ = terminate.recv() => true,
        }
    }
    #[cfg(not(unix))]
    interrupt.await.is_ok()
}

/// Whatever `RUST_LOG` says: a panic is a line, since nothing else tells of it; and what names a session of MCP, which is as good as a
/// credential to who has it, is none.
const ALWAYS: [&str; 2] = ["llama_stack::panic=error", "rmcp::transport::streamable_http_client[{session_id}]=off"];

fn filter(asked: EnvFilter) -> Result<EnvFilter> {
    ALWAYS.iter().try_fold(asked, |filter, always| {
        let always = always.parse::<Directive>();
        let always = always.map_err(|error| Error::internal("logging could not start").with_source(error))?;
        Ok(filter.add_directive(always))
    })
}

/// Logs go to standard error and to `server.log` beside the state.
fn start_logging(folder: &Path, format: LogFormat) -> Result<()> {
    let log = LogFile::open(folder)
        .map_err(|error| Error::failed_precondition(format!("{} cannot be written: {error}", folder.display())).with_source(error))?;
    // The engines speak much at `info`; this project's own words are what an operator wants.
    let filter = filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,llama_stack=info")))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr.and(log));
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(log);
            registry.with(lines).with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    };
    started.map_err(|error| Error::internal("logging could not start").with_source(error))?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// A panic as a line of the log: where it was. What it says may quote what was being read, such as the text that an index cuts
/// wrongly, so that is told only to who asks for much.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    // With RUST_BACKTRACE.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(target: "llama_stack::panic", thread, place, backtrace = trace.as_deref(), "panicked");
    tracing::debug!(place, said = panic.payload_as_str().unwrap_or_default(), "what the panic said");
}

#[cfg(test)]
mod tests {
    use std::{fs, panic, sync::Arc, thread};

    use super::*;

    /// The lines of `work` where `RUST_LOG` asks for these.
    fn logged(asked: &str, work: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Arc::new(fs::File::create(&path).unwrap());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(log);
        let lines = tracing_subscriber::registry().with(filter(EnvFilter::new(asked)).unwrap()).with(lines);
        tracing::subscriber::with_default(lines, work);
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_words_whatever_is_asked_for() {
        // The panics of other tests are theirs.
        let (before, mine) = (Arc::new(panic::take_hook()), thread::current().id());
        let others = before.clone();
        panic::set_hook(Box::new(move |panic| if thread::current().id() == mine { panicked(panic) } else { others(panic) }));
        let said = ["warn,llama_stack=info", "h2=trace", "off"].map(|asked| {
            logged(asked, || {
                let broken = panic::catch_unwind(|| panic!("somebody's words"));
                assert!(broken.is_err());
            })
        });
        panic::set_hook(Box::new(move |panic| before(panic)));
        for said in said {
            assert!(said.contains("ERROR") && said.contains("run.rs:"), "{said}");
            assert!(!said.contains("somebody"), "{said}");
        }
    }

    /// As rmcp logs it when it cannot end a session.
    #[test]
    fn a_session_of_mcp_is_named_at_no_level() {
        for asked in ["trace", "rmcp::transport::streamable_http_client=trace"] {
            let said = logged(asked, || {
                tracing::error!(target: "rmcp::transport::streamable_http_client", session_id = "a-secret", "fail to delete session");
                tracing::error!(target: "rmcp::transport::streamable_http_client", "fail to get common stream");
            });
            assert!(said.contains("common stream") && !said.contains("a-secret"), "{said}");
        }
    }
}
