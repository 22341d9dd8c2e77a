//! Five times the load that the server takes.
//!
//! ```text
//! peak      as many clients as there are places: how much is answered, and how fast
//! overload  five times as many, of whom each comes back soon after it was refused
//! after     the peak's clients again: when answers take no longer than before
//! ```

use std::time::{Duration, Instant};

use crate::{
    Verdict,
    binary::Server,
    figures::{Times, millis},
    load::{Seen, Shot, press},
    platform,
};

/// Places of the server, and how long a model takes: what is answered at most is their quotient.
const PLACES: usize = 128;
const MODEL: Duration = Duration::from_millis(100);
/// Who was refused comes back after this. (The server asks for a second.)
const PAUSE: Duration = Duration::from_millis(250);
/// A tenth of a second more than at the peak is itself again.
const NEAR: Duration = Duration::from_millis(100);

pub(crate) async fn run(long: bool) -> Verdict {
    let time = Duration::from_secs(if long { 60 } else { 8 });
    let upstream = platform::upstream(MODEL).await;
    let more = format!("limits: {{ max_in_flight: {PLACES} }}\n");
    let server = Server::start(&platform::manifest(upstream, &more)).await;
    let shot = Shot::chat(platform::CHAT, false);
    press(server.address, &shot, PLACES, Duration::from_secs(2), PAUSE).await;

    let peak = press(server.address, &shot, PLACES, time, PAUSE).await;
    let before = server.resident_bytes();
    let over = press(server.address, &shot, PLACES * 5, time, PAUSE).await;
    let during = server.resident_bytes();
    let usual = Times::new(peak.answered.clone()).p99();
    let recovery = recovery(&server, &shot, usual + NEAR).await;
    let after = press(server.address, &shot, PLACES, time.min(Duration::from_secs(5)), PAUSE).await;

    println!("{:<10} {:>10} {:>10} {:>10} {:>10} {:>8}", "", "answered/s", "p99 ms", "refused/s", "p99 ms", "broken");
    row("peak", &peak, time);
    row("overload", &over, time);
    row("after", &after, time.min(Duration::from_secs(5)));
    let goodput = over.answered.len() as f64 / peak.answered.len() as f64;
    let refusal = Times::new(if over.refused.is_empty() { vec![Duration::ZERO] } else { over.refused }).p99();
    Verdict {
        line: format!(
            "overload: goodput {:.0} % of the peak at five times the clients, refusals p99 {:.1} ms, recovery {:.2} s, resident {} -> {} MiB",
            goodput * 100.0,
            millis(refusal),
            recovery.as_secs_f64(),
            before >> 20,
            during >> 20
        ),
        holds: goodput >= 0.9
            && refusal < Duration::from_millis(50)
            && recovery < Duration::from_secs(2)
            && during < before + (256 << 20)
            && over.broken == 0,
    }
}

/// Until ten answers in a row take no longer than `usual`.
async fn recovery(server: &Server, shot: &Shot, usual: Duration) -> Duration {
    let begun = Instant::now();
    let mut good = 0;
    let mut since = begun.elapsed();
    while good < 10 && begun.elapsed() < Duration::from_secs(30) {
        let started = begun.elapsed();
        let seen = press(server.address, shot, 1, Duration::from_millis(1), Duration::ZERO).await;
        let is_good = seen.broken == 0 && seen.refused.is_empty() && seen.answered.iter().all(|time| *time <= usual);
        since = if is_good && good > 0 { since } else { started };
        good = if is_good { good + 1 } else { 0 };
    }
    if good < 10 { begun.elapsed() } else { since }
}

fn row(name: &str, seen: &Seen, time: Duration) {
    let p99 = |times: &[Duration]| if times.is_empty() { 0.0 } else { millis(Times::new(times.to_vec()).p99()) };
    let per_second = |count: usize| count as f64 / time.as_secs_f64();
    println!(
        "{name:<10} {:>10.0} {:>10.1} {:>10.0} {:>10.1} {:>8}",
        per_second(seen.answered.len()),
        p99(&seen.answered),
        per_second(seen.refused.len()),
        p99(&seen.refused),
        seen.broken
    );
}
