//! From exec to ready, beside the start of a process that does nothing; and memory at rest.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Verdict,
    binary::{Server, remote},
    figures::{Times, millis},
};

pub(crate) async fn run(long: bool) -> Verdict {
    let (mut ready, mut bare, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if long { 50 } else { 15 } {
        let begun = Instant::now();
        Command::new("true").stdout(Stdio::null()).status().unwrap();
        bare.push(begun.elapsed());
        let server = Server::start(&remote("127.0.0.1:9".parse().unwrap())).await;
        ready.push(server.ready);
        tokio::time::sleep(Duration::from_millis(300)).await;
        memory.push(server.resident_bytes());
    }
    memory.sort_unstable();
    let (ready, bare) = (Times::new(ready), Times::new(bare));
    let megabytes = memory[memory.len() / 2] as f64 / f64::from(1 << 20);
    println!("{:<22} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    println!("{:<22} {:>10.1} {:>10.1}", "a process (`true`)", millis(bare.p50()), millis(bare.p99()));
    println!("{:<22} {:>10.1} {:>10.1}", "run, until ready", millis(ready.p50()), millis(ready.p99()));
    Verdict {
        line: format!(
            "startup: ready in {:.0} ms, bare process {:.1} ms, ratio {:.0}, idle {megabytes:.1} MiB",
            millis(ready.p50()),
            millis(bare.p50()),
            millis(ready.p50()) / millis(bare.p50())
        ),
        holds: millis(ready.p50()) <= 100.0 && megabytes <= 30.0,
    }
}
