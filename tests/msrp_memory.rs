//! What a large page to many costs in memory when one of them does not read. Alone in its process, to measure it.

#[path = "msrp_switch/support.rs"]
#[expect(dead_code, reason = "shared with the other MSRP tests")]
mod support;

use pagecast::engine::input::LegMedia;
use pagecast::msrp::codec::{Flag, Piece};
use support::{Bench, octets, settings};

/// Resident octets of this process: now, and the most there ever were.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.expect("a number") * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Proves MS-091, IM-071.
#[tokio::test]
async fn a_large_page_to_fifty_with_one_deaf_stays_small() {
    const PAGE: usize = 10 << 20;
    let dir = std::env::temp_dir().join(format!("pagecast-memory-{}", std::process::id()));
    let mut settings = settings();
    settings.spool_dir = Some(dir.clone());
    let mut bench = Bench::new(settings);
    let address = bench.listen().await;
    let mut originator = bench.open_any();
    originator.stream = Box::new(tokio::net::TcpStream::connect(address).await.expect("connects"));
    let mut readers = Vec::new();
    for n in 1..=50 {
        let mut peer = bench.listening_recipient(n).await;
        let hello = peer.next().await.expect("a SEND");
        peer.respond(&hello.head, 200).await;
        readers.push(peer);
    }
    let deaf = readers.pop();
    let wire = originator.wire(
        "tr01",
        "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
        Some(&octets(PAGE)),
        '$',
    );
    let (before, _) = resident();
    let reading = readers.into_iter().map(|mut peer| {
        tokio::spawn(async move {
            let (mut got, mut head) = (0, None);
            while got < PAGE {
                match peer.piece().await.expect("the page") {
                    Piece::Head(h) => head = Some(h),
                    Piece::Body(octets) => got += octets.len(),
                    Piece::End(_) => peer.respond(head.as_ref().expect("a head"), 200).await,
                }
            }
            assert!(matches!(peer.piece().await, Some(Piece::End(Flag::Last))));
            peer.respond(head.as_ref().expect("a head"), 200).await;
            peer
        })
    });
    let reading: Vec<_> = reading.collect();
    originator.raw(&wire).await;
    assert_eq!(originator.answer().await, 200);
    let mut peers = Vec::new();
    for reader in reading {
        peers.push(reader.await.expect("the whole page"));
    }
    for n in 1..=49 {
        bench.leg(n, LegMedia::Delivered { octets: PAGE as u64 }).await;
    }
    let (_, peak) = resident();
    let grown = peak.saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {} KiB", grown / 1024);
    assert!(bench.switch.stats().spool_memory <= 8 << 20);
    bench.switch.forget(support::page());
    drop((deaf, peers));
    while std::fs::read_dir(&dir).expect("a directory").next().is_some() {
        tokio::task::yield_now().await;
    }
    std::fs::remove_dir(&dir).expect("it is empty");
}
