//! What the stack adds to an instant upstream. Both sides are measured in the same run, with the same generator.

use crate::{
    Verdict,
    binary::{Server, remote},
    figures::micros,
    load::{Shot, fire},
    upstream,
};

pub(crate) async fn run(long: bool) -> Verdict {
    let upstream = upstream::start().await;
    let server = Server::start(&remote(upstream)).await;
    let (whole, streamed) = (Shot::chat("instant", false), Shot::chat("instant", true));
    let (alone, busy) = if long { (20_000, 4_000) } else { (3_000, 600) };
    for address in [upstream, server.address] {
        fire(address, &whole, 4, 200).await;
    }
    let (direct, through) = (fire(upstream, &whole, 1, alone).await, fire(server.address, &whole, 1, alone).await);
    let (direct_first, through_first) = (fire(upstream, &streamed, 1, alone).await, fire(server.address, &streamed, 1, alone).await);
    let (direct_busy, through_busy) = (fire(upstream, &whole, 32, busy).await, fire(server.address, &whole, 32, busy).await);

    println!("{:<34} {:>12} {:>12}", "", "direct", "through");
    let row = |name: &str, direct: f64, through: f64| println!("{name:<34} {direct:>12.0} {through:>12.0}");
    row("1 connection, p50 us", micros(direct.whole.p50()), micros(through.whole.p50()));
    row("1 connection, p99 us", micros(direct.whole.p99()), micros(through.whole.p99()));
    row("streamed, first token p50 us", micros(direct_first.first.p50()), micros(through_first.first.p50()));
    row("32 connections, requests/s", direct_busy.per_second, through_busy.per_second);

    let p50 = micros(through.whole.p50()) - micros(direct.whole.p50());
    let p99 = micros(through.whole.p99()) - micros(direct.whole.p99());
    let first = micros(through_first.first.p50()) - micros(direct_first.first.p50());
    let ratio = through_busy.per_second / direct_busy.per_second;
    Verdict {
        line: format!(
            "passthrough: {:.0} req/s, direct {:.0} req/s, ratio {ratio:.2}, added p50 {p50:.0} us p99 {p99:.0} us, first token {first:.0} us",
            through_busy.per_second, direct_busy.per_second
        ),
        holds: p50 <= 150.0 && p99 <= 1_000.0 && first <= 350.0 && through_busy.per_second >= 5_000.0,
    }
}
