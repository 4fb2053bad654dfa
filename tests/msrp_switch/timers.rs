//! Timers, on a clock that only moves when nothing else can: MS-035, MS-038, MS-064, MS-077, MS-091, MS-114.

use std::time::Duration;

use pagecast::engine::input::{LegMedia, MediaFailure, OriginatorMedia, PageLoss};
use pagecast::msrp::codec::Flag;
use pagecast::msrp::{Role, Side};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::support::{Bench, Peer, leg, media, octets, page, settings};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn close(since: Instant, expect: u64) {
    let passed = since.elapsed();
    assert!(
        passed >= seconds(expect) && passed < seconds(expect + 1),
        "{passed:?}, not {expect} s"
    );
}

fn failed(cause: MediaFailure) -> LegMedia {
    LegMedia::Failed { cause }
}

/// Proves MS-035.
#[tokio::test(start_paused = true)]
async fn sessions_nobody_binds_fail() {
    let mut bench = Bench::new(settings());
    let mut silent = bench.open_any();
    // Our answer may wait in a 183 for as long as nobody joins: no reason to give the page up.
    silent.silence(seconds(25)).await;
    bench.switch.await_originator(page());
    let start = Instant::now();
    let _alone = bench.unbound_recipient(1, |_| {});
    bench.originator(OriginatorMedia::Aborted(PageLoss::Bind)).await;
    close(start, 30);
    bench.leg(1, failed(MediaFailure::Bind)).await;
    bench.leg(1, LegMedia::Quiet).await;
    bench.originator(OriginatorMedia::Settled).await;
}

/// Proves MS-035.
#[tokio::test(start_paused = true)]
async fn connections_nobody_uses_are_closed() {
    let bench = Bench::new(settings());
    let start = Instant::now();
    let mut silent = bench.dial();
    let mut got = Vec::new();
    silent.read_to_end(&mut got).await.expect("closed");
    assert!(got.is_empty());
    close(start, 30);

    // Three failed requests are enough, two are not.
    let mut peer = Peer::new(bench.dial(), "msrp://x:1/a;tcp", "msrp://127.0.0.1:2855/nobody;tcp");
    for n in 0..3 {
        peer.send(&format!("tr0{n}"), "Message-ID: mess1\r\n", None, '$').await;
        assert_eq!(peer.answer().await, 481);
    }
    let start = Instant::now();
    assert!(peer.next().await.is_none());
    close(start, 0);
    assert_eq!(bench.switch.stats().connections, 0);
}

/// Proves MS-038.
#[tokio::test(start_paused = true)]
async fn a_connection_lingers_after_its_last_session() {
    let bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    peer.silence(seconds(100)).await;
    bench.switch.release(Side::Leg(leg(1)));
    let start = Instant::now();
    peer.send("late", "Message-ID: late\r\n", None, '$').await;
    assert_eq!(peer.answer().await, 481);
    assert!(peer.next().await.is_none());
    close(start, 10);
}

/// Proves MS-064, MS-090.
#[tokio::test(start_paused = true)]
async fn an_originator_that_falls_silent_loses_its_page() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    originator.chunk("tr01", "mess1", "1-*/*", b"hello", '+').await;
    assert_eq!(originator.answer().await, 200);
    originator.silence(seconds(500)).await;
    let start = Instant::now();
    originator.chunk("tr02", "mess1", "6-*/*", b"hello", '+').await;
    assert_eq!(originator.answer().await, 200);
    bench.originator(OriginatorMedia::Aborted(PageLoss::Gap)).await;
    close(start, 540);
    bench.originator(OriginatorMedia::Settled).await;
    let end = recipient.next().await.expect("the end");
    assert_eq!((end.flag, end.body.len()), (Flag::Abort, 10));
    recipient.respond(&end.head, 200).await;
    bench.leg(1, LegMedia::Quiet).await;
    // Too late.
    originator.chunk("tr03", "mess1", "11-*/*", b"hello", '$').await;
    assert_eq!(originator.answer().await, 413);
}

/// Proves MS-064, MS-114.
#[tokio::test(start_paused = true)]
async fn octets_inside_a_chunk_count_as_life() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let wire = originator.wire(
        "tr01",
        "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
        Some(&[b'x'; 20]),
        '$',
    );
    let (head, rest) = wire.split_at(wire.len() - 36);
    originator.raw(head).await;
    for octet in rest.iter().take(4) {
        originator.silence(seconds(400)).await;
        originator.raw(&[*octet]).await;
    }
    let start = Instant::now();
    bench.originator(OriginatorMedia::Aborted(PageLoss::Gap)).await;
    close(start, 540);
}

/// Proves MS-114.
#[tokio::test(start_paused = true)]
async fn a_header_section_has_ten_seconds() {
    let bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    let start = Instant::now();
    for octet in *b"MSRP tr01 SE" {
        if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &[octet]).await.is_err() {
            break;
        }
        if tokio::time::timeout(seconds(1), peer.piece()).await.is_ok() {
            break;
        }
    }
    close(start, 10);
    // A bound connection may be idle for as long as it likes.
    let mut other = bench.recipient(2).await;
    other.silence(seconds(100_000)).await;
}

/// Proves MS-077.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_never_answers_fails_after_the_transaction_timer() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    originator.chunk("tr01", "mess1", "1-5/5", b"hello", '$').await;
    let chunk = recipient.next().await.expect("the page");
    assert_eq!(chunk.flag, Flag::Last);
    let start = Instant::now();
    bench.leg(1, failed(MediaFailure::Timeout)).await;
    close(start, 30);
    bench.leg(1, LegMedia::Quiet).await;
    // Late answers change nothing.
    recipient.respond(&chunk.head, 200).await;
    recipient.silence(seconds(1)).await;
    assert_eq!(bench.leg_events(1).last(), Some(&LegMedia::Quiet));
}

/// Proves MS-077.
#[tokio::test(start_paused = true)]
async fn the_timer_starts_with_the_last_octet_not_the_first() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let _recipient = bench.recipient(1).await;
    for n in 0..10 {
        let range = format!("{}-*/*", n * 5 + 1);
        originator.chunk(&format!("tr1{n}"), "mess1", &range, b"hello", '+').await;
        assert_eq!(originator.answer().await, 200);
        tokio::time::sleep(seconds(50)).await;
    }
    assert_eq!(bench.leg_events(1), [LegMedia::Bound, LegMedia::Sending]);
    let start = Instant::now();
    originator.chunk("tr20", "mess1", "51-*/*", b"hello", '$').await;
    bench.leg(1, failed(MediaFailure::Timeout)).await;
    close(start, 30);
}

/// Proves MS-091, IM-077.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_reads_nothing_is_given_up() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut deaf = bench.recipient(1).await;
    let mut other = bench.recipient(2).await;
    let page = octets(200_000);
    originator.chunk("tr01", "mess1", "1-*/*", &page, '$').await;
    assert_eq!(originator.answer().await, 200);
    let start = Instant::now();
    assert_eq!(other.take().await.octets, page);
    bench.leg(2, LegMedia::Delivered { octets: 200_000 }).await;
    close(start, 0);
    bench.leg(1, failed(MediaFailure::Stall)).await;
    close(start, 120);
    bench.leg(1, LegMedia::Quiet).await;
    // Its connection is closed; what was on its way can still be read.
    let mut rest = Vec::new();
    deaf.stream.read_to_end(&mut rest).await.expect("closed");
    assert!(rest.len() < 100_000);
}

/// Proves MS-091.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_a_dead_one() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut slow = bench.recipient(1).await;
    let page = octets(300_000);
    originator.chunk("tr01", "mess1", "1-*/*", &page, '$').await;
    let mut got = 0;
    let start = Instant::now();
    while start.elapsed() < seconds(500) {
        tokio::time::sleep(seconds(60)).await;
        let mut some = [0; 8000];
        got += slow.stream.read(&mut some).await.expect("octets");
    }
    assert!(got < 100_000);
    assert!(!bench.leg_events(1).iter().any(|e| matches!(e, LegMedia::Failed { .. })));
}

/// Proves MS-108.
#[tokio::test(start_paused = true)]
async fn the_report_is_awaited_as_long_as_an_answer() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut silent = bench.recipient(1).await;
    let mut eager = bench.recipient(2).await;
    originator.chunk("tr01", "mess1", "1-5/5", b"hello", '$').await;
    silent.take().await;
    let taken = eager.take().await;
    let start = Instant::now();
    eager.report(taken.heads[0].message_id.as_deref().expect("an id"), "1-5/5", 200).await;
    bench.leg(2, LegMedia::Quiet).await;
    close(start, 0);
    bench.leg(1, LegMedia::Delivered { octets: 5 }).await;
    assert!(!bench.leg_events(1).contains(&LegMedia::Quiet));
    bench.leg(1, LegMedia::Quiet).await;
    close(start, 30);
}

/// Proves MS-085.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_joins_late_gets_the_first_octet() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut prompt = bench.recipient(1).await;
    let page = octets(100_000);
    originator.chunk("tr01", "mess1", "1-*/*", &page, '$').await;
    assert_eq!(originator.answer().await, 200);
    assert_eq!(prompt.take().await.octets, page);
    tokio::time::sleep(seconds(20)).await;
    let mut late = bench.recipient(2).await;
    assert_eq!(late.take().await.octets, page);
    bench.leg(2, LegMedia::Delivered { octets: 100_000 }).await;
    // The originator may be gone by then.
    drop(originator);
    bench.switch.release(Side::Originator(crate::support::page()));
    let mut later = bench.recipient(3).await;
    assert_eq!(later.take().await.octets, page);
}

/// Proves MS-022.
#[tokio::test(start_paused = true)]
async fn nobody_can_aim_our_connects() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut strict = settings();
    strict.connect_loopback = false;
    let mut bench = Bench::new(strict);
    bench.switch.reserve(Side::Leg(leg(1))).expect("room");
    bench.switch.join(leg(1), media(&format!("msrp://127.0.0.1:{port}/x;tcp"), Role::Active));
    bench.leg(1, failed(MediaFailure::Connection)).await;
    bench.leg(1, LegMedia::Quiet).await;
    assert!(tokio::time::timeout(seconds(1), listener.accept()).await.is_err(), "no SYN");
}
