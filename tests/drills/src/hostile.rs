//! Connections that mean harm, and what another client notices of them.
//!
//! ```text
//! four clients that chat ── p99 alone ── p99 beside an attack ── p99 alone again      each attack in turn, one server
//! ```
//!
//! Attackers, clients and server share the machine, so what attackers take of the processor is in the ratio as well.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::{
    Verdict,
    binary::Server,
    figures::{Times, millis},
    load::{Shot, fire},
    platform,
};

/// Clients whose times count.
const CLIENTS: usize = 4;
/// Attackers begin and take hold for so long before times are taken.
const TAKING_HOLD: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
enum Attack {
    SlowHeads,
    SlowBodies,
    RapidReset,
    ZeroWindows,
    Unread,
    Idle,
}

pub(crate) async fn run(long: bool) -> Verdict {
    // Attackers need as many files as the server.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024) as usize;
    let idle = 10_000.min(files.saturating_sub(500));
    let shots = if long { 4_000 } else { 800 };
    let attacks = [
        (Attack::SlowHeads, "500 heads, a byte a second", 500),
        (Attack::SlowBodies, "500 bodies, a byte a second", 500),
        (Attack::RapidReset, "HTTP/2 rapid reset, 8 connections", 8),
        (Attack::ZeroWindows, "100 windows of 0, 50 answers each", 100),
        (Attack::Unread, "100 answers unread over HTTP/1.1", 100),
        (Attack::Idle, "idle connections", idle),
    ];
    let upstream = platform::upstream(Duration::ZERO).await;
    let server = Server::start(&platform::manifest(upstream, "")).await;
    let shot = Shot::chat(platform::CHAT, false);
    fire(server.address, &shot, CLIENTS, 300).await;

    println!("{:<36} {:>10} {:>10} {:>7} {:>9} {:>9}", "", "alone p99", "beside", "ratio", "MiB", "attempts");
    let mut worst = 0_f64;
    for (attack, name, count) in attacks {
        let before = fire(server.address, &shot, CLIENTS, shots).await;
        let (mut attackers, tried) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        for number in 0..count {
            attackers.spawn(attempts(attack, server.address, number, tried.clone()));
        }
        sleep(TAKING_HOLD).await;
        let beside = fire(server.address, &shot, CLIENTS, shots).await;
        let resident = server.resident_bytes() >> 20;
        let held = begun.elapsed();
        let tried = tried.load(Ordering::Relaxed);
        attackers.shutdown().await;
        sleep(Duration::from_millis(500)).await;
        let after = fire(server.address, &shot, CLIENTS, shots).await;
        let alone = Times::new(vec![before.whole.p99(), after.whole.p99()]);
        // The slower of both: the machine is not quiet either.
        let (alone, beside) = (alone.percentile(1.0), beside.whole.p99());
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        worst = worst.max(ratio);
        println!(
            "{name:<36} {:>7.2} ms {:>7.2} ms {ratio:>7.2} {resident:>9} {tried:>9}   ({:.1} s)",
            millis(alone),
            millis(beside),
            held.as_secs_f64()
        );
    }
    Verdict {
        line: format!("hostile: other clients' p99 is at most {worst:.2} times what it is alone; {idle} idle connections"),
        holds: worst < 2.0,
    }
}

/// Goes on until it is aborted, coming back whenever the server ends the connection.
async fn attempts(attack: Attack, address: SocketAddr, number: usize, tried: Arc<AtomicUsize>) {
    loop {
        tried.fetch_add(1, Ordering::Relaxed);
        let Ok(mut socket) = TcpStream::connect(address).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        // Whatever ends it, there is a next time.
        let _ = match attack {
            Attack::SlowHeads => drip(&mut socket, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await,
            Attack::SlowBodies => {
                let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n";
                drip(&mut socket, head).await
            }
            Attack::RapidReset => reset(&mut socket).await,
            Attack::ZeroWindows => zero_window(&mut socket).await,
            Attack::Unread => unread(&mut socket).await,
            Attack::Idle => idle(&mut socket).await,
        };
        sleep(Duration::from_millis(50 + number as u64 % 50)).await;
    }
}

async fn drip(socket: &mut TcpStream, head: &str) -> std::io::Result<()> {
    socket.write_all(head.as_bytes()).await?;
    loop {
        socket.write_all(b" ").await?;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn idle(socket: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 64];
    while socket.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn unread(socket: &mut TcpStream) -> std::io::Result<()> {
    // One after the other, until nothing more can be written.
    loop {
        socket.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    }
}

/// A frame of HTTP/2. Source: RFC 9113, 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The preface, with one setting: the window that each stream begins with.
fn preface(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut setting = 4_u16.to_be_bytes().to_vec();
    setting.extend(window.to_be_bytes());
    bytes.extend(frame(4, 0, 0, &setting));
    bytes
}

/// A GET that is whole. Source of the bytes: RFC 7541, appendix A: 0x82 GET, 0x86 http, 4 `:path`, 1 `:authority`.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend([0x01, 1, b'a']);
    // END_STREAM, END_HEADERS.
    frame(1, 0x5, stream, &block)
}

async fn reset(socket: &mut TcpStream) -> std::io::Result<()> {
    socket.write_all(&preface(65_535)).await?;
    let mut buffer = vec![0; 16 << 10];
    for batch in 0.. {
        let mut bytes = Vec::new();
        for n in 0..50 {
            let stream = (batch * 50 + n) * 2 + 1;
            bytes.extend(get(stream, "/v1/models"));
            // CANCEL.
            bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        }
        socket.write_all(&bytes).await?;
        while let Ok(read) = socket.try_read(&mut buffer) {
            if read == 0 {
                return Ok(());
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn zero_window(socket: &mut TcpStream) -> std::io::Result<()> {
    socket.write_all(&preface(0)).await?;
    for n in 0..50 {
        socket.write_all(&get(n * 2 + 1, "/openapi.json")).await?;
    }
    // What is asked for the connection's own sake is answered, so that it lives: acknowledgements of pings.
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        // A PING, which has 8 bytes, comes alone once nothing else may be sent.
        if read == 17 && buffer[3] == 6 && buffer[4] == 0 {
            let payload = buffer[9..17].to_vec();
            socket.write_all(&frame(6, 1, 0, &payload)).await?;
        }
    }
}
