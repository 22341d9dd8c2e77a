//! The machine: whether the port is free, the folder can be written, disk and memory suffice, and the clock goes right.

use std::{
    io::ErrorKind,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use llama_stack_core::{Context, Stack, grpc::Remote, manifest::Server};
use llama_stack_models::memory::Available;
use llama_stack_proto::v1::{GetInfoRequest, stack_client::StackClient};
use sysinfo::Disks;
use tonic::transport::Channel;

use super::Finding;
use crate::{model::size, running::Running};

/// What a distribution writes besides models before anyone has to mind: logs, state, temporary files.
const ROOM: u64 = 1 << 30;
/// Where less is left a busy stack may be full soon.
const SCARCE: u64 = 5 << 30;

pub(super) async fn port(server: &Server, home: &Path) -> Finding {
    let listen = &server.listen;
    let other = "stop what holds it, or take another with `llama-stack run … --port`";
    let address = match listen.to_socket_addrs().ok().and_then(|mut all| all.next()) {
        Some(address) => address,
        None => return Finding::fail("port", format!("{listen} is no address"), "write server.listen as host:port"),
    };
    match std::net::TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Finding::ok("port", "any free one is taken"),
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
            let scheme = if server.tls.is_some() { "https" } else { "http" };
            let url = format!("{scheme}://{}:{}", if address.is_ipv6() { format!("[{host}]") } else { host }, address.port());
            // One that wants to know who asks says nothing of itself, and has left a note in its home.
            let noted = || Running::all(home).into_iter().find(|one| one.url.ends_with(&format!(":{}", address.port())));
            if let Some(stack) = stack_at(&url).await.or_else(|| noted().map(|one| one.name)) {
                return Finding::warn(
                    "port",
                    format!("{listen} is held by a stack that runs already: {stack}"),
                    "it is ready for use; stop it with `llama-stack stop`, or take another port with --port, before you run a second",
                );
            }
            let holder = holder(address.port()).map(|holder| format!(" by {holder}")).unwrap_or_default();
            Finding::fail("port", format!("{listen} is in use{holder}"), other)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::fail("port", format!("this user may not listen on {listen}"), "take a port above 1023")
        }
        Err(error) => Finding::fail("port", format!("{listen} is no address of this machine: {error}"), "correct server.listen"),
    }
}

/// Name and version of the stack that answers there.
async fn stack_at(url: &str) -> Option<String> {
    let channel = crate::reach::within(url, Duration::from_secs(2)).ok()?;
    let cx = Context::default().with_timeout(Duration::from_secs(2));
    let info = Remote::<StackClient<Channel>>::new(channel).get_info(&cx, GetInfoRequest {}).await.ok()?;
    Some(format!("{} {}", info.name, info.version))
}

/// Which process listens on a port, where the system says so to this user.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).find_map(|table| {
        table.lines().skip(1).find_map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (cells.get(1)?, cells.get(3)?, cells.get(9)?);
            let listens = *state == "0A" && local.rsplit(':').next().is_some_and(|hex| u16::from_str_radix(hex, 16) == Ok(port));
            listens.then(|| (*inode).to_owned())
        })
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    for process in processes {
        let Ok(handles) = std::fs::read_dir(process.join("fd")) else { continue };
        let mut targets = handles.filter_map(Result::ok).filter_map(|handle| std::fs::read_link(handle.path()).ok());
        if targets.any(|target| target.as_os_str().to_string_lossy() == socket) {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name()?.to_string_lossy()));
        }
    }
    None
}

/// The folder itself, or the nearest above it that is there.
fn standing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

pub(super) fn home(home: &Path) -> Finding {
    let shown = home.display();
    let there = standing(home);
    if !there.is_dir() {
        return Finding::fail("home", format!("{} is a file", there.display()), "name a folder with --home or LLAMA_STACK_HOME");
    }
    // The only way to know is to try: permissions, read-only mounts and full disks all say no. It is gone at once.
    let probe = there.join(format!(".llama-stack-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        return Finding::fail(
            "home",
            format!("{} cannot be written: {error}", there.display()),
            "give this user the right to, or name another folder with --home or LLAMA_STACK_HOME",
        );
    }
    if there != home {
        return Finding::ok("home", format!("{shown} is made at the first start"));
    }
    #[cfg(unix)]
    if let Ok(meta) = std::fs::metadata(home) {
        use std::os::unix::fs::PermissionsExt as _;
        if meta.permissions().mode() & 0o022 != 0 {
            let message = format!("{shown} can be written by others: they could change models and state");
            return Finding::warn("home", message, format!("chmod go-w {shown}"));
        }
    }
    Finding::ok("home", format!("{shown} can be written"))
}

pub(super) fn disk(home: &Path, missing: u64) -> Finding {
    let there = standing(home);
    let there = there.canonicalize().unwrap_or(there);
    let disks = Disks::new_with_refreshed_list();
    let disk = disks.iter().filter(|disk| there.starts_with(disk.mount_point())).max_by_key(|disk| disk.mount_point().as_os_str().len());
    let Some(disk) = disk else { return Finding::ok("disk", "the system does not say how much is free") };
    let (free, need) = (disk.available_space(), missing + ROOM);
    let message = match missing {
        0 => format!("{} free", size(free)),
        missing => format!("{} free, {} of models to fetch", size(free), size(missing)),
    };
    if free < need {
        let advice = format!("free {} there, or name a folder on another disk with --home", size(need - free));
        return Finding::fail("disk", message, advice);
    }
    if free - missing < SCARCE {
        return Finding::warn("disk", message, "logs, files and banks grow: see what else fills that disk");
    }
    Finding::ok("disk", message)
}

/// `weights`: bytes of the models that run in this process.
pub(super) fn memory(weights: u64) -> Finding {
    let Some(available) = Available::now() else { return Finding::ok("memory", "the system does not say how much is free") };
    let by = if available.limited { " within this control group's limit" } else { "" };
    let message = match weights {
        0 => format!("{} available{by}", size(available.bytes)),
        weights => format!("{} available{by}; the models' weights are {}", size(available.bytes), size(weights)),
    };
    if available.bytes < weights {
        return Finding::fail("memory", message, "close other programs, take smaller models, or run them on another machine");
    }
    // Cache and working memory come on top of the weights.
    if available.bytes < weights + weights / 2 {
        return Finding::warn("memory", message, "little is left for contexts: set context_length lower, or close other programs");
    }
    Finding::ok("memory", message)
}

/// A clock that is behind the program's own file is wrong; leases, expiries and certificates are judged by it.
pub(super) fn clock() -> Finding {
    let written = std::env::current_exe().ok().and_then(|path| path.metadata().ok()).and_then(|meta| meta.modified().ok());
    judged(SystemTime::now(), written)
}

fn judged(now: SystemTime, written: Option<SystemTime>) -> Finding {
    let day = Duration::from_secs(86_400);
    let advice = "set it, and keep it right with a time service: certificates, expiries and approvals are judged by it";
    if now.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since > day * 365 * 130) {
        return Finding::fail("clock", "the system's clock is far in the future", advice);
    }
    match written.and_then(|written| written.duration_since(now).ok()) {
        Some(ahead) if ahead > day => Finding::fail(
            "clock",
            format!("the system's clock is {} days behind this program's own file", ahead.as_secs() / 86_400),
            advice,
        ),
        _ => Finding::ok("clock", "plausible"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_clock_behind_its_own_program_is_wrong() {
        let now = SystemTime::now();
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(judged(now, Some(now)).status, Status::Ok);
        assert_eq!(judged(now - year, Some(now)).status, Status::Fail);
        assert_eq!(judged(now + year * 200, None).status, Status::Fail);
    }

    #[test]
    fn more_weights_than_memory_is_a_failure() {
        assert_eq!(memory(u64::MAX / 4).status, Status::Fail);
        assert_eq!(memory(0).status, Status::Ok);
    }
}
