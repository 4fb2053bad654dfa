//! Caps and what is left behind: MS-092, MS-113 to MS-116, and that all state goes with its page.

use std::time::Duration;

use pagecast::engine::input::{OriginatorMedia, PageLoss};
use pagecast::msrp::{Full, Side};

use crate::support::{Bench, Peer, leg, octets, page, settings};

const SECOND: Duration = Duration::from_secs(1);

/// Proves MS-113.
#[tokio::test(start_paused = true)]
async fn header_limits_end_the_connection_with_400() {
    let mut peer = Bench::new(settings()).open_any();
    peer.raw(
        format!(
            "MSRP tr01 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\n",
            peer.them.clone(),
            peer.me.clone()
        )
        .as_bytes(),
    )
    .await;
    peer.raw("X-Filler: 1\r\n".repeat(70).as_bytes()).await;
    assert_eq!(peer.answer().await, 400);
    assert!(peer.next().await.is_none());
}

/// Proves MS-115.
#[tokio::test(start_paused = true)]
async fn tiny_and_countless_chunks_end_the_page() {
    let mut many = settings();
    many.max_chunks = 10;
    let mut tiny = settings();
    tiny.min_chunk_after = 10;
    for (settings, size) in [(many, 1000), (tiny, 63)] {
        let mut bench = Bench::new(settings);
        let mut peer = bench.open_any();
        for n in 0..11 {
            let at = n * size + 1;
            peer.chunk(&format!("tr{n:02}"), "mess1", &format!("{at}-*/*"), &vec![b'x'; size], '+')
                .await;
            assert_eq!(peer.answer().await, if n < 10 { 200 } else { 413 }, "{size}");
        }
        bench.originator(OriginatorMedia::Aborted(PageLoss::Refused(413))).await;
    }
    let mut enough = settings();
    enough.min_chunk_after = 10;
    let mut peer = Bench::new(enough).open_any();
    for n in 0..20 {
        let at = n * 64 + 1;
        peer.chunk(&format!("tr{n:02}"), "mess1", &format!("{at}-*/*"), &[b'x'; 64], '+').await;
        assert_eq!(peer.answer().await, 200);
    }
}

/// Proves MS-115.
#[tokio::test(start_paused = true)]
async fn connections_and_sessions_are_capped() {
    let mut settings = settings();
    settings.max_connections = 3;
    settings.max_connections_per_ip = 2;
    settings.max_sessions = 2;
    let bench = Bench::new(settings.clone());
    let refused = |bench: &Bench| bench.switch.stats().connections_refused;
    let mut kept = Vec::new();
    for (from, refusals) in [
        ("192.0.2.1:1", 0),
        ("192.0.2.1:2", 0),
        ("192.0.2.1:3", 1),
        ("192.0.2.2:1", 1),
        ("192.0.2.3:1", 2),
    ] {
        kept.push(bench.dial_from(from));
        tokio::time::sleep(SECOND).await;
        assert_eq!(refused(&bench), refusals, "{from}");
    }
    assert_eq!(bench.switch.stats().connections, 3);
    kept.clear();
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.switch.stats().connections, 0);
    assert_eq!(bench.switch.stats().unbound, 0);

    assert!(bench.switch.reserve(Side::Leg(leg(1))).is_ok());
    assert!(bench.switch.reserve(Side::Leg(leg(2))).is_ok());
    assert_eq!(bench.switch.reserve(Side::Leg(leg(3))), Err(Full));
    bench.switch.release(Side::Leg(leg(1)));
    assert!(bench.switch.reserve(Side::Leg(leg(3))).is_ok());

    settings.max_unbound = 1;
    settings.max_connections_per_ip = 0;
    let bench = Bench::new(settings);
    let _bound = bench.recipient(1).await;
    let _unbound = bench.dial();
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.switch.stats().unbound, refused(&bench)), (1, 0));
    let _refused = bench.dial();
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.switch.stats().unbound, refused(&bench)), (1, 1));
}

/// Proves MS-115.
#[tokio::test(start_paused = true)]
async fn a_connection_carries_so_many_sessions() {
    let mut settings = settings();
    settings.max_sessions_per_connection = 2;
    let bench = Bench::new(settings);
    let mut stream = None;
    for n in 1..=3 {
        let mut peer = bench.unbound_recipient(n, |_| {});
        if let Some(shared) = stream.take() {
            peer.stream = shared;
        }
        peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
        assert_eq!(peer.answer().await, if n < 3 { 200 } else { 413 });
        stream = Some(peer.stream);
    }
}

/// Proves MS-115.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_answers_is_not_read_either() {
    let bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    let one = peer.wire("ping", "Message-ID: ping\r\n", None, '$');
    let burst = one.repeat(20_000);
    let write = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &burst);
    assert!(tokio::time::timeout(SECOND, write).await.is_err(), "back-pressure");
    assert!(bench.switch.stats().octets_in < 1_000_000);
}

/// Proves MS-092, IM-071.
#[tokio::test(start_paused = true)]
async fn a_full_spool_stops_reading_then_refuses() {
    let mut small = settings();
    small.spool_total = 100_000;
    for frees in [true, false] {
        let mut bench = Bench::new(small.clone());
        // Another page fills most of the room.
        let other = pagecast::engine::ids::PageId::new(0, 8);
        let own = bench.switch.reserve(Side::Originator(other)).expect("room");
        let me = "msrp://192.0.2.56:1/other;tcp";
        bench.switch.open_originator(
            other,
            crate::support::media(me, pagecast::msrp::Role::Passive),
            crate::support::any(),
            pagecast::msrp::PageRules::default(),
        );
        let mut filler = Peer::new(bench.dial(), me, &own);
        filler.chunk("tr01", "mess1", "1-*/*", &octets(90_000), '$').await;
        assert_eq!(filler.answer().await, 200);

        let peer = bench.open_any();
        let mut recipient = bench.recipient(1).await;
        let wire = peer.wire(
            "tr01",
            "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
            Some(&octets(60_000)),
            '$',
        );
        let (mut reader, mut writer) = tokio::io::split(peer.stream);
        let writing = tokio::spawn(async move {
            let done = tokio::io::AsyncWriteExt::write_all(&mut writer, &wire).await;
            (done, writer)
        });
        let mut answer = [0; 13];
        let early = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer);
        assert!(tokio::time::timeout(9 * SECOND, early).await.is_err(), "neither 200 nor 413 yet");
        assert!(!writing.is_finished(), "its socket is not read");
        if frees {
            bench.switch.forget(other);
        }
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer).await.expect("an answer");
        if frees {
            assert_eq!(&answer, b"MSRP tr01 200");
            assert_eq!(recipient.take().await.octets, octets(60_000));
        } else {
            assert_eq!(&answer, b"MSRP tr01 413");
            bench.originator(OriginatorMedia::Aborted(PageLoss::Storage)).await;
        }
        writing.await.expect("no panic").0.expect("it is read to its end");
    }
}

/// Proves MS-115, IM-067.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_forgotten_pages() {
    let dir = std::env::temp_dir().join(format!("pagecast-spool-{}", std::process::id()));
    let mut settings = settings();
    settings.spool_dir = Some(dir.clone());
    settings.spool_page_memory = 128 * 1024;
    let bench = Bench::new(settings);
    for round in 0..3 {
        let mut originator = bench.open_any();
        let mut reader = bench.recipient(1).await;
        let _deaf = bench.recipient(2).await;
        let _unbound = bench.unbound_recipient(3, |_| {});
        let page_octets = octets(1_000_000);
        let wire = originator.wire(
            "tr01",
            "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
            Some(&page_octets),
            '$',
        );
        let (_, taken) = tokio::join!(originator.raw(&wire), reader.take());
        assert_eq!(taken.octets, page_octets);
        let stats = bench.switch.stats();
        assert_eq!((stats.pages, stats.sessions, stats.spool_octets), (1, 4, 1_000_000), "{round}");
        while bench.switch.stats().spool_memory > 256 * 1024 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.switch.stats().spool_files, 1);
        assert_eq!(std::fs::read_dir(&dir).expect("a directory").count(), 1);
        bench.switch.forget(page());
        assert_eq!(bench.switch.stats().sessions, 0);
        tokio::time::sleep(60 * SECOND).await;
        let stats = bench.switch.stats();
        let left = [
            stats.pages,
            stats.sessions,
            stats.connections,
            stats.spool_octets,
            stats.spool_memory,
            stats.spool_files,
        ];
        assert_eq!(left, [0; 6]);
        assert_eq!(std::fs::read_dir(&dir).expect("a directory").count(), 0);
    }
    std::fs::remove_dir(&dir).expect("it is empty");
}
