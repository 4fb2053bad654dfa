//! What an originator hears: binding, answers, assembly, refusals. Rows from sections 3 to 8 and 15.2 of the rules.

use std::sync::Arc;
use std::time::Duration;

use pagecast::engine::input::{LegMedia, OriginatorMedia, PageLoss};
use pagecast::msrp::codec::{Flag, Kind};
use pagecast::msrp::{AcceptTypes, PageRules, Side};

use crate::support::{Bench, Peer, any, leg, octets, page, settings};

const SECOND: Duration = Duration::from_secs(1);

fn plain() -> AcceptTypes {
    AcceptTypes {
        types: vec!["text/plain".into(), "message/cpim".into()],
        wrapped: vec!["text/plain".into()],
    }
}

/// Proves MS-069, MS-033, MS-049.
#[tokio::test(start_paused = true)]
async fn failure_report_decides_whether_a_code_is_answered() {
    let text = "Content-Type: text/plain\r\n";
    // What is sent, as header lines and body, and the code it deserves.
    let cases = [
        ("good", 200),
        ("no such session", 481),
        ("bound elsewhere", 506),
        ("type", 415),
        ("too big", 413),
        ("method", 501),
        ("range", 400),
    ];
    for (what, code) in cases {
        for (report, answered) in [
            ("", true),
            ("Failure-Report: yes\r\n", true),
            ("Failure-Report: partial\r\n", code != 200),
            ("Failure-Report: no\r\n", false),
        ] {
            let bench = Bench::new(settings());
            let mut peer = bench.open(plain(), PageRules::default());
            let mut other = Peer::new(bench.dial(), &peer.me, &peer.them);
            peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
            assert_eq!(peer.answer().await, 200);
            let id = "Message-ID: mess1\r\n";
            let sender = if what == "bound elsewhere" { &mut other } else { &mut peer };
            match what {
                "no such session" => {
                    let wire = sender.wire("tr01", &format!("{id}{report}{text}"), Some(b"x"), '$');
                    let wire = String::from_utf8(wire).expect("ASCII");
                    let wire = wire.replacen(";tcp", "0;tcp", 1);
                    sender.raw(wire.as_bytes()).await;
                }
                "method" => {
                    let wire = sender.wire("tr01", &format!("{id}{report}"), None, '$');
                    let wire = String::from_utf8(wire).expect("ASCII").replace("SEND", "PING");
                    sender.raw(wire.as_bytes()).await;
                }
                _ => {
                    let rest = match what {
                        "type" => "Content-Type: image/png\r\n".to_owned(),
                        "too big" => format!("Byte-Range: 1-*/99999999999999\r\n{text}"),
                        "range" => format!("Byte-Range: 5-3/9\r\n{text}"),
                        _ => text.to_owned(),
                    };
                    sender.send("tr01", &format!("{id}{report}{rest}"), Some(b"x"), '$').await;
                }
            }
            if answered {
                assert_eq!(sender.answer().await, code, "{what}, {report}");
            }
            sender.silence(SECOND).await;
            // The connection stays up: the next request is answered.
            let expect = if what == "bound elsewhere" { 506 } else { 200 };
            sender.send("tr02", "Message-ID: mess2\r\n", None, '$').await;
            assert_eq!(sender.answer().await, expect, "{what}, {report}");
        }
    }
}

/// Proves MS-005, MS-032, MS-034, MS-036, MS-111.
#[tokio::test(start_paused = true)]
async fn only_the_right_peer_on_the_right_connection_is_served() {
    let mut bench = Bench::new(settings());
    let peer = bench.open_any();
    let (me, them) = (peer.me.clone(), peer.them.clone());
    let bodiless = "Message-ID: bind\r\n";
    let cases = [
        (me.as_str(), format!("{them} {them}"), 481, "two URIs in To-Path"),
        (me.as_str(), them.replace(":2855", ":2856"), 481, "other port"),
        (me.as_str(), format!("{them};x=1"), 200, "another parameter"),
        ("msrp://192.0.2.55:7394/invented;tcp", them.clone(), 481, "invented From-Path"),
        ("msrp://nat.example:1/originator0;tcp", them.clone(), 200, "only the session-id counts"),
        (
            "msrp://relay.example:1/r;tcp msrp://x:1/originator0;tcp",
            them.clone(),
            200,
            "through a relay",
        ),
    ];
    for (from, to, code, why) in cases {
        let bench = Bench::new(settings());
        let fresh = bench.open_any();
        // Same session-id as reserved in this bench.
        let to = to
            .replace(&them, &fresh.them)
            .replace(&them.replace(":2855", ":2856"), &fresh.them.replace(":2855", ":2856"));
        let mut peer = Peer::new(fresh.stream, from, &to);
        peer.send("tr01", bodiless, None, '$').await;
        assert_eq!(peer.answer().await, code, "{why}");
    }

    let mut first = peer;
    first.send("tr01", bodiless, None, '$').await;
    assert_eq!(first.answer().await, 200);
    bench.originator(OriginatorMedia::Bound).await;
    let mut second = Peer::new(bench.dial(), &me, &them);
    second.send("tr02", bodiless, None, '$').await;
    assert_eq!(second.answer().await, 506);
    // The first one still works.
    first.send("tr03", bodiless, None, '$').await;
    assert_eq!(first.answer().await, 200);
    // When it breaks, nobody takes it over.
    drop(first);
    bench.originator(OriginatorMedia::Aborted(PageLoss::Connection)).await;
    second.send("tr04", bodiless, None, '$').await;
    assert_eq!(second.answer().await, 481);

    // A released URI is dead.
    let own = bench.switch.reserve(Side::Originator(page())).expect("room");
    bench.switch.release(Side::Originator(page()));
    let mut late = Peer::new(bench.dial(), &me, &own);
    late.send("tr05", bodiless, None, '$').await;
    assert_eq!(late.answer().await, 481);
}

/// Proves MS-004, MS-005.
#[tokio::test]
async fn session_ids_are_random_and_never_shared() {
    let bench = Bench::new(settings());
    let mut seen = std::collections::HashSet::new();
    let mut firsts = std::collections::HashSet::new();
    for n in 0..10_000_u16 {
        let uri = bench.switch.reserve(Side::Leg(leg(n))).expect("room");
        let id = uri
            .rsplit_once('/')
            .and_then(|(_, id)| id.split(';').next())
            .expect("an id")
            .to_owned();
        // 22 base-62 characters hold 128 bits.
        assert!(id.len() >= 22);
        firsts.insert(id[..2].to_owned());
        assert!(seen.insert(id));
    }
    assert!(firsts.len() > 2000, "no common prefix");
    bench.switch.forget(page());
    assert_eq!(bench.switch.stats().sessions, 0);
}

/// Proves MS-039, MS-043, MS-066.
#[tokio::test(start_paused = true)]
async fn sends_without_a_body_are_answered_and_are_no_page() {
    let mut bench = Bench::new(settings());
    let mut peer = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    for _ in 0..3 {
        peer.raw(b"\r\n\r\n").await;
        peer.send("tr01", "Message-ID: mess1\r\n", None, '$').await;
        assert_eq!(peer.answer().await, 200);
        peer.send("tr02", "Message-ID: mess2\r\nByte-Range: 1-0/0\r\n", None, '$').await;
        assert_eq!(peer.answer().await, 200);
    }
    recipient.silence(SECOND).await;
    assert_eq!(bench.originator_events(), [OriginatorMedia::Bound]);
}

/// Proves MS-040, MS-042, MS-051, MS-052, MS-072.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_ends_the_connection() {
    let base = Bench::new(settings()).open_any();
    let (me, them) = (base.me, base.them);
    let head = format!("MSRP tr01 SEND\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n");
    let cases: [(String, Option<u16>, bool, &str); 6] = [
        ("GET / HTTP/1.1\r\n\r\n".into(), None, true, "no MSRP"),
        (format!("{head}garbage\r\n"), Some(400), true, "garbage after a header"),
        (
            format!("{head}Failure-Report: no\r\ngarbage\r\n"),
            None,
            true,
            "the same, no answer wanted",
        ),
        (
            format!("MSRP tr01 SEND\r\nTo-Path: {them}\r\nMessage-ID: mess1\r\n-------tr01$\r\n"),
            None,
            true,
            "nowhere to answer",
        ),
        (
            format!(
                "MSRP tr01 REPORT\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nMessage-ID: mess1\r\n\
                 Status: 000 200 OK\r\nContent-Type: text/plain\r\n\r\n{}",
                "x".repeat(20_000)
            ),
            None,
            true,
            "REPORT with a large body",
        ),
        (
            format!(
                "MSRP tr01 REPORT\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nMessage-ID: mess1\r\n\
                 Byte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n-------tr01$\r\n"
            ),
            None,
            false,
            "REPORTs are never answered",
        ),
    ];
    for (wire, code, closed, why) in cases {
        let bench = Bench::new(settings());
        let mut peer = bench.open_any();
        let wire = wire.replace(&them, &peer.them);
        let (mut reader, mut writer) = tokio::io::split(peer.stream);
        drop(tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            // The switch may close in the middle of it.
            let _ = writer.write_all(wire.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }));
        let mut got = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut got);
        let ended = tokio::time::timeout(SECOND, read).await.is_ok();
        assert_eq!(ended, closed, "{why}");
        let text = String::from_utf8(got).expect("ASCII");
        match code {
            Some(code) => assert!(text.starts_with(&format!("MSRP tr01 {code} ")), "{why}: {text}"),
            None => assert_eq!(text, "", "{why}"),
        }
        peer.stream = Box::new(tokio::io::empty());
    }
}

/// Proves MS-050.
#[tokio::test(start_paused = true)]
async fn unsolicited_responses_change_nothing() {
    let bench = Bench::new(settings());
    let mut recipient = bench.recipient(1).await;
    let (me, them) = (recipient.me.clone(), recipient.them.clone());
    for code in [200, 413, 481] {
        let wire = format!(
            "MSRP unknown1 {code} x\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nX-Extra: 1\r\n-------unknown1$\r\n"
        );
        recipient.raw(wire.as_bytes()).await;
    }
    let mut originator = bench.open_any();
    originator.chunk("tr01", "mess1", "1-5/5", b"hello", '$').await;
    assert_eq!(recipient.take().await.octets, b"hello");
}

/// Proves MS-107.
#[tokio::test(start_paused = true)]
async fn nicknames_are_refused() {
    let bench = Bench::new(settings());
    let mut peer = bench.open_any();
    let wire = format!(
        "MSRP tr01 NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: \"x\"\r\n-------tr01$\r\n",
        peer.them, peer.me
    );
    peer.raw(wire.as_bytes()).await;
    assert_eq!(peer.answer().await, 403);
}

struct Chunk(&'static str, usize, usize, char);

/// Proves MS-037, MS-059, MS-060, MS-061, MS-063.
#[tokio::test(start_paused = true)]
async fn chunks_are_assembled_in_whatever_order_they_come() {
    let page = octets(300);
    let cases: &[(&str, &[Chunk])] = &[
        ("one", &[Chunk("1-300/300", 0, 300, '$')]),
        ("no range", &[Chunk("", 0, 300, '$')]),
        ("open ends", &[Chunk("1-*/*", 0, 100, '+'), Chunk("101-*/*", 100, 300, '$')]),
        (
            "reversed",
            &[
                Chunk("201-300/300", 200, 300, '$'),
                Chunk("101-200/300", 100, 200, '+'),
                Chunk("1-100/300", 0, 100, '+'),
            ],
        ),
        (
            "a hole before the end",
            &[
                Chunk("1-100/300", 0, 100, '+'),
                Chunk("201-300/300", 200, 300, '$'),
                Chunk("101-200/300", 100, 200, '+'),
            ],
        ),
        (
            "duplicate",
            &[
                Chunk("1-100/300", 0, 100, '+'),
                Chunk("1-100/300", 0, 100, '+'),
                Chunk("101-300/300", 100, 300, '$'),
            ],
        ),
        ("overlap", &[Chunk("1-150/300", 0, 150, '+'), Chunk("101-300/300", 100, 300, '$')]),
        ("lying end", &[Chunk("1-7/300", 0, 100, '+'), Chunk("101-250/300", 100, 300, '$')]),
        ("lying total", &[Chunk("1-*/999", 0, 100, '+'), Chunk("101-*/999", 100, 300, '$')]),
        ("no range with more", &[Chunk("", 0, 100, '+'), Chunk("101-*/*", 100, 300, '$')]),
        (
            "empty chunk in between",
            &[
                Chunk("1-100/300", 0, 100, '+'),
                Chunk("101-*/300", 100, 100, '+'),
                Chunk("101-300/300", 100, 300, '$'),
            ],
        ),
        (
            "empty last chunk",
            &[Chunk("1-300/300", 0, 300, '+'), Chunk("301-300/300", 300, 300, '$')],
        ),
    ];
    for (why, chunks) in cases {
        let mut bench = Bench::new(settings());
        let mut originator = bench.open_any();
        let mut recipient = bench.recipient(1).await;
        for (n, Chunk(range, from, to, flag)) in chunks.iter().enumerate() {
            let range =
                if range.is_empty() { String::new() } else { format!("Byte-Range: {range}\r\n") };
            let extra = format!("Message-ID: mess1\r\n{range}Content-Type: text/plain\r\n");
            originator.send(&format!("tr0{n}"), &extra, Some(&page[*from..*to]), *flag).await;
            assert_eq!(originator.answer().await, 200, "{why}");
        }
        bench.originator(OriginatorMedia::Complete { size: 300 }).await;
        let taken = recipient.take().await;
        assert_eq!((taken.octets, taken.flag), (page.clone(), Flag::Last), "{why}");
        // Replayed, it is answered and reported, and nobody gets anything new.
        let extra = "Message-ID: mess1\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n";
        originator.send("again", extra, Some(&page), '$').await;
        assert_eq!(originator.answer().await, 200, "{why}");
        let report = originator.next().await.expect("a REPORT");
        let range = report.head.range.expect("a range");
        assert_eq!(
            (report.head.kind, range.start, range.end, range.total),
            (Kind::Report, 1, Some(300), Some(300))
        );
        recipient.silence(SECOND).await;
    }
}

/// Proves MS-063.
#[tokio::test(start_paused = true)]
async fn octets_nobody_has_seen_can_be_replaced() {
    let bench = Bench::new(settings());
    let mut originator = bench.open_any();
    originator.chunk("tr01", "mess1", "1-*/*", &[b'a'; 100], '+').await;
    originator.chunk("tr02", "mess1", "50-*/*", &[b'b'; 101], '$').await;
    assert_eq!((originator.answer().await, originator.answer().await), (200, 200));
    let mut recipient = bench.recipient(1).await;
    let mut expect = vec![b'a'; 49];
    expect.extend([b'b'; 101]);
    assert_eq!(recipient.take().await.octets, expect);
    assert_eq!(bench.switch.stats().overlapped, 0);

    // Forwarded ones cannot: the repetition is dropped and counted.
    let bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    originator.chunk("tr01", "mess1", "1-*/*", &[b'a'; 100], '+').await;
    assert_eq!(originator.answer().await, 200);
    recipient.piece().await.expect("a head");
    recipient.piece().await.expect("octets");
    originator.chunk("tr02", "mess1", "50-*/*", &[b'b'; 101], '$').await;
    assert_eq!(originator.answer().await, 200);
    assert_eq!(bench.switch.stats().overlapped, 51);
}

/// Proves MS-062, MS-079, IM-074.
#[tokio::test(start_paused = true)]
async fn impossible_and_large_ranges_are_refused_at_once() {
    let cases = [
        ("0-10/10", 400),
        ("5-3/9", 400),
        ("-1-5/5", 400),
        ("11-12/9", 400),
        ("x-5/5", 400),
        ("1-*/18446744073709551616", 413),
        ("1-*/10485761", 413),
        ("10485762-*/*", 413),
        ("1-*/10485760", 200),
    ];
    for (range, code) in cases {
        let mut bench = Bench::new(settings());
        let mut peer = bench.open_any();
        peer.chunk("tr01", "mess1", range, b"hello", '+').await;
        assert_eq!(peer.answer().await, code, "{range}");
        let events = bench.originator_events();
        let lost = events.contains(&OriginatorMedia::Aborted(PageLoss::TooBig));
        assert_eq!(lost, code == 413, "{range}: {events:?}");
        // Every later chunk of it gets 413 again.
        peer.chunk("tr02", "mess1", "1-*/*", b"hello", '+').await;
        assert_eq!(peer.answer().await, if code == 413 { 413 } else { 200 }, "{range}");
    }
}

/// Proves MS-062, IM-074.
#[tokio::test(start_paused = true)]
async fn the_octets_counted_decide_not_the_promise() {
    let mut settings = settings();
    settings.max_message = 1000;
    let mut bench = Bench::new(settings);
    let mut peer = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    peer.chunk("tr01", "mess1", "1-*/1000", &[b'a'; 1000], '+').await;
    assert_eq!(peer.answer().await, 200);
    // 413 comes before the chunk has ended.
    let wire = peer.wire(
        "tr02",
        "Message-ID: mess1\r\nByte-Range: 1001-*/1000\r\nContent-Type: text/plain\r\n",
        Some(b"x"),
        '$',
    );
    let (start, end) = wire.split_at(wire.len() - 9);
    peer.raw(start).await;
    bench.originator(OriginatorMedia::Aborted(PageLoss::TooBig)).await;
    assert_eq!(peer.answer().await, 413);
    peer.raw(end).await;
    bench.originator(OriginatorMedia::Settled).await;
    let taken = recipient.take().await;
    assert_eq!(taken.flag, Flag::Abort);
    peer.silence(SECOND).await;
    bench.leg(1, LegMedia::Quiet).await;
    assert!(
        !bench
            .leg_events(1)
            .iter()
            .any(|e| matches!(e, LegMedia::Failed { .. } | LegMedia::Delivered { .. }))
    );
}

/// Proves MS-065, MS-090, IM-073.
#[tokio::test(start_paused = true)]
async fn a_page_given_up_by_its_sender_ends_with_a_hash_everywhere() {
    // The sender's mark comes inside a running chunk of ours, or between two.
    for between in [false, true] {
        let mut bench = Bench::new(settings());
        let mut originator = bench.open_any();
        let mut recipients = [bench.recipient(1).await, bench.recipient(2).await];
        originator.chunk("tr01", "mess1", "1-*/100", b"half", '+').await;
        assert_eq!(originator.answer().await, 200);
        for n in [1, 2] {
            bench.leg(n, LegMedia::Sending).await;
        }
        if between {
            // An answer of ours interrupts the chunk.
            for peer in &mut recipients {
                peer.send("ping", "Message-ID: ping\r\n", None, '$').await;
                let chunk = peer.next().await.expect("a chunk");
                assert_eq!((chunk.body.as_slice(), chunk.flag), (&b"half"[..], Flag::More));
                assert_eq!(peer.answer().await, 200);
                peer.respond(&chunk.head, 200).await;
            }
        }
        originator.chunk("tr02", "mess1", "5-*/100", b"", '#').await;
        assert_eq!(originator.answer().await, 200);
        bench.originator(OriginatorMedia::Aborted(PageLoss::Sender)).await;
        bench.originator(OriginatorMedia::Settled).await;
        for (n, peer) in (1..).zip(&mut recipients) {
            let last = peer.next().await.expect("the end");
            assert_eq!(last.flag, Flag::Abort);
            let range = last.head.range.expect("a range");
            if between {
                assert_eq!((range.start, last.body.len()), (5, 0));
            } else {
                assert_eq!((range.start, last.body.as_slice()), (1, &b"half"[..]));
            }
            peer.respond(&last.head, 200).await;
            bench.leg(n, LegMedia::Quiet).await;
        }
        // It is not wanted any more.
        originator.chunk("tr03", "mess1", "5-*/100", b"rest", '$').await;
        assert_eq!(originator.answer().await, 413);
    }
}

/// Proves MS-011, MS-110, IM-075.
#[tokio::test(start_paused = true)]
async fn one_page_of_an_agreed_type() {
    let mut bench = Bench::new(settings());
    let mut peer = bench.open(plain(), PageRules::default());
    peer.chunk("tr01", "mess1", "1-5/*", b"hello", '+').await;
    assert_eq!(peer.answer().await, 200);
    peer.chunk("tr02", "mess2", "1-5/5", b"other", '$').await;
    assert_eq!(peer.answer().await, 403);
    peer.chunk("tr03", "mess1", "6-10/10", b"world", '$').await;
    assert_eq!(peer.answer().await, 200);
    peer.chunk("tr04", "mess3", "1-5/5", b"other", '$').await;
    assert_eq!(peer.answer().await, 403);
    bench.originator(OriginatorMedia::Complete { size: 10 }).await;

    let mut bench = Bench::new(settings());
    let mut peer = bench.open(plain(), PageRules::default());
    peer.send("tr01", "Message-ID: mess1\r\nContent-Type: text/html\r\n", Some(b"x"), '$').await;
    assert_eq!(peer.answer().await, 415);
    bench.originator(OriginatorMedia::Aborted(PageLoss::Refused(415))).await;
    bench.originator(OriginatorMedia::Settled).await;

    let mut bench = Bench::new(settings());
    let mut peer = bench.open(plain(), PageRules::default());
    let types = "Message-ID: mess1\r\nContent-Type: TEXT/Plain;charset=x\r\n";
    peer.send("tr01", types, Some(b"x"), '$').await;
    assert_eq!(peer.answer().await, 200);
    bench.originator(OriginatorMedia::Complete { size: 1 }).await;
}

fn cpim(head: &str, inner: &str) -> Vec<u8> {
    format!("{head}\r\nContent-Type: {inner}\r\n\r\nhello").into_bytes()
}

const FROM: &str = "From: <sip:alice@ims.example.net>\r\n";
const TO: &str = "To: <sip:team7@groups.ims.example.net>\r\n";

fn rules() -> PageRules {
    PageRules {
        cpim_required: true,
        from_ok: Some(Arc::new(|uri| uri == "sip:alice@ims.example.net")),
        to_ok: Some(Arc::new(|uri| uri == "sip:team7@groups.ims.example.net")),
    }
}

/// Proves MS-094, IM-075.
#[tokio::test(start_paused = true)]
async fn the_envelope_is_checked_before_anybody_sees_it() {
    let cases = [
        (cpim(&format!("{FROM}{TO}"), "text/plain"), 200, "right"),
        (cpim(&format!("{FROM}{TO}"), "image/png"), 415, "wrapped type not agreed"),
        (cpim(&format!("{FROM}{TO}{TO}"), "text/plain"), 403, "two To"),
        (cpim(FROM, "text/plain"), 400, "no To"),
        (cpim(TO, "text/plain"), 400, "no From"),
        (
            cpim(&format!("from: <sip:alice@ims.example.net>\r\n{TO}"), "text/plain"),
            400,
            "names have their case",
        ),
        (
            cpim(&format!("From: <sip:mallory@ims.example.net>\r\n{TO}"), "text/plain"),
            403,
            "spoofed From",
        ),
        (
            cpim(&format!("{FROM}To: <sip:other@ims.example.net>\r\n"), "text/plain"),
            404,
            "someone else",
        ),
        (
            format!("{FROM}{TO}Subject: {}\r\n", "x".repeat(70_000)).into_bytes(),
            400,
            "endless head",
        ),
        (b"hello".to_vec(), 400, "no envelope at all"),
        (b"".to_vec(), 400, "nothing"),
    ];
    for (body, code, why) in cases {
        for sizes in [1, 3, usize::MAX] {
            if body.len() > 1000 && sizes != usize::MAX {
                continue;
            }
            let mut bench = Bench::new(settings());
            let mut peer = bench.open(plain(), rules());
            let mut recipient = bench.recipient(1).await;
            let step = body.len().div_ceil(sizes.min(3)).max(1);
            let chunks: Vec<&[u8]> =
                if body.is_empty() { vec![&[]] } else { body.chunks(step).collect() };
            let (mut at, mut answers) = (0, Vec::new());
            for (n, chunk) in chunks.iter().enumerate() {
                let flag = if n + 1 == chunks.len() { '$' } else { '+' };
                let extra = format!(
                    "Message-ID: mess1\r\nByte-Range: {}-*/*\r\nContent-Type: message/cpim\r\n",
                    at + 1
                );
                peer.send(&format!("tr0{n}"), &extra, Some(chunk), flag).await;
                answers.push(peer.answer().await);
                at += chunk.len();
            }
            assert_eq!(answers.last(), Some(&code), "{why}, {sizes}: {answers:?}");
            if code == 200 {
                bench.originator(OriginatorMedia::Complete { size: body.len() as u64 }).await;
                assert_eq!(recipient.take().await.octets, body);
            } else {
                bench.originator(OriginatorMedia::Aborted(PageLoss::Refused(code))).await;
                recipient.silence(SECOND).await;
                assert_eq!(bench.leg_events(1), [LegMedia::Bound, LegMedia::Quiet], "{why}");
                assert!(
                    !bench
                        .originator_events()
                        .iter()
                        .any(|e| matches!(e, OriginatorMedia::Started { .. }))
                );
            }
        }
    }
    // Where it is required, nothing else is taken.
    let bench = Bench::new(settings());
    let mut peer = bench.open(plain(), rules());
    peer.chunk("tr01", "mess1", "1-5/5", b"hello", '$').await;
    assert_eq!(peer.answer().await, 415);
}

/// Proves MS-094.
#[tokio::test(start_paused = true)]
async fn a_checked_envelope_cannot_be_replaced() {
    let mut bench = Bench::new(settings());
    let mut peer = bench.open(plain(), rules());
    let good = cpim(&format!("{FROM}{TO}"), "text/plain");
    let bad = cpim(&format!("From: <sip:mally@ims.example.net>\r\n{TO}"), "text/plain");
    assert_eq!(good.len(), bad.len());
    let head = "Message-ID: mess1\r\nByte-Range: 1-*/*\r\nContent-Type: message/cpim\r\n";
    peer.send("tr01", head, Some(&good), '+').await;
    peer.send("tr02", head, Some(&bad), '$').await;
    assert_eq!((peer.answer().await, peer.answer().await), (200, 200));
    bench.originator(OriginatorMedia::Complete { size: good.len() as u64 }).await;
    let mut recipient = bench.recipient(1).await;
    assert_eq!(recipient.take().await.octets, good);
}

/// Proves MS-106.
#[tokio::test(start_paused = true)]
async fn control_content_of_the_originator_is_taken_and_is_no_page() {
    let mut bench = Bench::new(settings());
    let mut peer = bench.open(plain(), PageRules::default());
    let mut recipient = bench.recipient(1).await;
    let composing = "application/im-iscomposing+xml";
    let extra = format!("Message-ID: comp1\r\nContent-Type: {composing}\r\n");
    peer.send("tr01", &extra, Some(b"<isComposing/>"), '$').await;
    assert_eq!(peer.answer().await, 200);
    let wrapped = cpim(&format!("{FROM}{TO}"), composing);
    let (a, b) = wrapped.split_at(60);
    let extra = |id: &str, at: usize| {
        format!("Message-ID: {id}\r\nByte-Range: {at}-*/*\r\nContent-Type: message/cpim\r\n")
    };
    peer.send("tr02", &extra("comp2", 1), Some(&wrapped), '$').await;
    assert_eq!(peer.answer().await, 200);
    peer.send("tr03", &extra("comp3", 1), Some(a), '+').await;
    peer.send("tr04", &extra("comp3", 61), Some(b), '$').await;
    assert_eq!((peer.answer().await, peer.answer().await), (200, 200));
    assert_eq!(bench.switch.stats().control_messages, 3);
    recipient.silence(SECOND).await;
    assert_eq!(bench.originator_events(), [OriginatorMedia::Bound]);
    peer.chunk("tr05", "mess1", "1-5/5", b"hello", '$').await;
    assert_eq!(peer.answer().await, 200);
    assert_eq!(recipient.take().await.octets, b"hello");
}

/// Proves MS-014, IM-076.
#[tokio::test(start_paused = true)]
async fn a_recipient_may_send_control_content_only() {
    let imdn = cpim(&format!("{FROM}{TO}"), "message/imdn+xml");
    let text = cpim(&format!("{FROM}{TO}"), "text/plain");
    let cases: [(&str, &[u8], u16, u64); 8] = [
        ("text/plain", b"hello", 403, 0),
        ("message/cpim", &text, 403, 0),
        ("message/cpim", b"no envelope", 403, 0),
        ("message/cpim", &imdn, 200, 1),
        ("message/imdn+xml", b"<imdn/>", 200, 1),
        ("application/im-iscomposing+xml", b"<isComposing/>", 200, 1),
        ("Application/IM-isComposing+XML;x=y", b"", 200, 1),
        ("image/png", b"", 403, 0),
    ];
    for (content_type, body, code, control) in cases {
        let bench = Bench::new(settings());
        let mut originator = bench.open_any();
        let mut peer = bench.recipient(1).await;
        let mut other = bench.recipient(2).await;
        let extra = format!("Message-ID: mess1\r\nContent-Type: {content_type}\r\n");
        peer.send("tr01", &extra, Some(body), '$').await;
        assert_eq!(peer.answer().await, code, "{content_type}");
        peer.send("tr02", &format!("{extra}Failure-Report: no\r\n"), Some(body), '$').await;
        peer.silence(SECOND).await;
        other.silence(SECOND).await;
        originator.silence(SECOND).await;
        assert_eq!(bench.switch.stats().control_messages, 2 * control, "{content_type}");
    }
    // In chunks, cut inside the envelope.
    let bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    let extra = |at: usize| {
        format!("Message-ID: mess1\r\nByte-Range: {at}-*/*\r\nContent-Type: message/cpim\r\n")
    };
    let cut = imdn.len() - 2;
    peer.send("tr01", &extra(1), Some(&imdn[..cut]), '+').await;
    peer.send("tr02", &extra(cut + 1), Some(&imdn[cut..]), '$').await;
    assert_eq!((peer.answer().await, peer.answer().await), (200, 200));
    assert_eq!(bench.switch.stats().control_messages, 1);
    peer.send("tr03", &extra(5), Some(b"tail of nothing"), '$').await;
    assert_eq!(peer.answer().await, 403);
}

/// Proves MS-073, MS-089, IM-072.
#[tokio::test(start_paused = true)]
async fn one_success_report_if_it_was_asked_for() {
    for (asked, reports) in [("Success-Report: yes\r\n", 1), ("Success-Report: no\r\n", 0), ("", 0)]
    {
        let mut bench = Bench::new(settings());
        let mut peer = bench.open_any();
        for (n, flag) in [(0, '+'), (1, '+'), (2, '$')] {
            let extra = format!(
                "Message-ID: mess1\r\nByte-Range: {}-*/*\r\n{asked}Content-Type: text/plain\r\n",
                n * 5 + 1
            );
            peer.send(&format!("tr0{n}"), &extra, Some(b"hello"), flag).await;
            assert_eq!(peer.answer().await, 200);
        }
        if reports == 1 {
            let report = peer.next().await.expect("a REPORT");
            assert_eq!(report.head.kind, Kind::Report);
            assert_eq!(report.head.status, Some((0, 200)));
            assert_eq!(report.head.message_id.as_deref(), Some("mess1"));
            let range = report.head.range.expect("a range");
            assert_eq!((range.start, range.end, range.total), (1, Some(15), Some(15)));
        }
        bench.originator(OriginatorMedia::Settled).await;
        // A failure afterwards does not contradict it; without it there is one if the sender wants to know.
        bench.switch.report(page(), 408, "No member reachable");
        bench.switch.report(page(), 408, "No member reachable");
        if reports == 0 {
            let report = peer.next().await.expect("a REPORT");
            assert_eq!(report.head.status, Some((0, 408)));
        }
        peer.silence(SECOND).await;
    }
}

/// Proves MS-074, MS-089.
#[tokio::test(start_paused = true)]
async fn reports_at_first_delivery_and_failures() {
    use pagecast::engine::policy::SrPolicy;
    let mut settings = settings();
    settings.sr_policy = SrPolicy::FirstDelivery;
    // Asked for, what the engine says, what the originator hears.
    let cases = [
        ("Success-Report: yes\r\n", 200, Some(200)),
        ("", 200, None),
        ("Success-Report: yes\r\n", 408, Some(408)),
        ("", 415, Some(415)),
        ("Failure-Report: no\r\n", 408, None),
        ("Failure-Report: partial\r\n", 408, Some(408)),
    ];
    for (asked, code, heard) in cases {
        let mut bench = Bench::new(settings.clone());
        let mut peer = bench.open(any(), PageRules::default());
        let extra = format!("Message-ID: mess1\r\n{asked}Content-Type: text/plain\r\n");
        peer.send("tr01", &extra, Some(b"hello"), '$').await;
        if asked.is_empty() || asked.starts_with("Success") {
            assert_eq!(peer.answer().await, 200);
        }
        bench.originator(OriginatorMedia::Complete { size: 5 }).await;
        peer.silence(SECOND).await;
        bench.switch.report(page(), code, "text");
        if let Some(code) = heard {
            let report = peer.next().await.expect("a REPORT");
            assert_eq!(report.head.status, Some((0, code)));
            assert_eq!(report.head.range.and_then(|r| r.end), Some(5));
        }
        peer.silence(SECOND).await;
        // No REPORT for a session that has ended.
        bench.switch.release(Side::Originator(page()));
        bench.switch.report(page(), 408, "text");
        peer.silence(SECOND).await;
    }
}

/// Proves MS-045.
#[tokio::test(start_paused = true)]
async fn an_empty_page_is_a_page() {
    for wire in ["\r\n\r\n", "\r\n"] {
        let mut bench = Bench::new(settings());
        let mut originator = bench.open_any();
        let mut recipient = bench.recipient(1).await;
        let text = format!(
            "MSRP tr01 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: mess1\r\nContent-Type: text/plain\r\n{wire}-------tr01$\r\n",
            originator.them, originator.me
        );
        originator.raw(text.as_bytes()).await;
        assert_eq!(originator.answer().await, 200);
        bench.originator(OriginatorMedia::Complete { size: 0 }).await;
        let got = recipient.next().await.expect("the page");
        assert!(got.head.has_body && got.body.is_empty());
        let range = got.head.range.expect("a range");
        assert_eq!(
            (range.start, range.end, range.total, got.flag),
            (1, Some(0), Some(0), Flag::Last)
        );
        recipient.respond(&got.head, 200).await;
        bench.leg(1, LegMedia::Delivered { octets: 0 }).await;
    }
}

/// Proves MS-025, MS-031.
#[tokio::test(start_paused = true)]
async fn a_recipient_may_be_faster_than_its_answer() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    originator.chunk("tr01", "mess1", "1-5/5", b"hello", '$').await;
    assert_eq!(originator.answer().await, 200);
    for (n, me, right) in [(1, "recipient1", true), (2, "impostor", false)] {
        let own = bench.switch.reserve(Side::Leg(leg(n))).expect("room");
        let mut peer = Peer::new(bench.dial(), &format!("msrp://203.0.113.9:1/{me};tcp"), &own);
        peer.silence(SECOND).await;
        peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
        assert_eq!(peer.answer().await, 200);
        peer.silence(SECOND).await;
        let media = crate::support::media(
            &format!("msrp://203.0.113.9:1/recipient{n};tcp"),
            pagecast::msrp::Role::Passive,
        );
        bench.switch.join(leg(n), media);
        if right {
            assert_eq!(peer.take().await.octets, b"hello");
            bench.leg(n, LegMedia::Bound).await;
        } else {
            peer.silence(SECOND).await;
            assert_eq!(bench.leg_events(n), []);
        }
    }
}
