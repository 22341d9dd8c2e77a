//! From exec to ready, beside the start of a process that does nothing; memory at rest; and how large the binary is.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Verdict,
    binary::{self, Server, remote},
    figures::{Times, median, millis},
};

/// A server at rest: it has been ready for this long.
const REST: Duration = Duration::from_millis(300);

/// What starts of one kind were like.
struct Starts {
    ready: Times,
    /// In MiB, the median: resident, and of that what is its own and no page of a file.
    resident: f64,
    own: f64,
}

impl Starts {
    async fn new(count: usize, start: impl AsyncFn() -> Server) -> Self {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (mut ready, mut resident, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let server = start().await;
            ready.push(server.ready);
            tokio::time::sleep(REST).await;
            resident.push(mebibytes(server.resident_bytes()));
            own.push(mebibytes(server.own_bytes()));
        }
        Self { ready: Times::new(ready), resident: median(resident), own: median(own) }
    }

    fn row(&self, name: &str) {
        let (p50, p99) = (millis(self.ready.p50()), millis(self.ready.p99()));
        println!("{name:<22} {p50:>10.1} {p99:>10.1} {:>10.1} {:>10.1}", self.resident, self.own);
    }
}

pub(crate) async fn run(long: bool) -> Verdict {
    let bare = (0..if long { 50 } else { 15 }).map(|_| {
        let begun = Instant::now();
        Command::new("true").stdout(Stdio::null()).status().unwrap();
        begun.elapsed()
    });
    let bare = Times::new(bare.collect());
    let upstream = remote("127.0.0.1:9".parse().unwrap());
    let remote = Starts::new(if long { 50 } else { 15 }, async || Server::start(&upstream).await).await;
    let size = std::fs::metadata(binary::path()).unwrap().len() as f64 / f64::from(1 << 20);
    println!("{:<22} {:>10} {:>10} {:>10} {:>10}", "", "p50 ms", "p99 ms", "MiB", "own MiB");
    println!("{:<22} {:>10.1} {:>10.1}", "a process (`true`)", millis(bare.p50()), millis(bare.p99()));
    remote.row("remote, until ready");
    #[cfg_attr(not(feature = "engine"), allow(unused_mut, reason = "nothing follows without engines"))]
    let mut line = format!(
        "startup: ready in {:.0} ms, bare process {:.1} ms, ratio {:.0}, idle {:.1} MiB, own {:.1}; binary {size:.0} MiB",
        millis(remote.ready.p50()),
        millis(bare.p50()),
        millis(remote.ready.p50()) / millis(bare.p50()),
        remote.resident,
        remote.own
    );
    // Those whose models run in the process: their files are read before they say that they are ready.
    #[cfg(feature = "engine")]
    for name in ["tiny", "starter"] {
        let starts = Starts::new(if long { 10 } else { 3 }, async || Server::distribution(name).await).await;
        starts.row(name);
        line += &format!("; {name}: ready in {:.0} ms, idle {:.0} MiB, own {:.0}", millis(starts.ready.p50()), starts.resident, starts.own);
    }
    Verdict { line, holds: millis(remote.ready.p50()) <= 100.0 && remote.resident <= 30.0 }
}
