//! One page to many: what every recipient gets, whatever the others do.

use std::time::Duration;

use pagecast::engine::input::{LegMedia, MediaFailure, OriginatorMedia, PageLoss};
use pagecast::msrp::codec::{Flag, Head, Kind, Piece};
use pagecast::msrp::{Role, Side};

use crate::support::{Bench, Peer, leg, media, octets, page as page_id, settings};

/// Proves MS-030, MS-053, MS-081, MS-082, MS-083.
#[tokio::test]
async fn a_page_goes_from_one_to_one_over_real_sockets() {
    let mut bench = Bench::new(settings());
    let address = bench.listen().await;
    let mut originator = bench.open_any();
    originator.stream = Box::new(tokio::net::TcpStream::connect(address).await.expect("connects"));
    let mut recipient = bench.listening_recipient(1).await;

    // We connected: a SEND without content comes at once.
    let first = recipient.next().await.expect("a SEND");
    assert!(!first.head.has_body);
    recipient.respond(&first.head, 200).await;
    bench.leg(1, LegMedia::Bound).await;

    let page = octets(100_000);
    let head = "Message-ID: mess1\r\nByte-Range: 1-*/100000\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n";
    originator.send("tr01", head, Some(&page), '$').await;
    assert_eq!(originator.answer().await, 200);
    let report = originator.next().await.expect("a REPORT");
    assert_eq!(report.head.status, Some((0, 200)));

    let taken = recipient.take().await;
    assert_eq!(taken.octets, page);
    assert_eq!(taken.flag, Flag::Last);
    for head in &taken.heads {
        assert_ne!(head.message_id.as_deref(), Some("mess1"));
        assert_ne!(&head.id[..], b"tr01");
        assert_eq!(head.from_path[0].as_str(), recipient.them);
        assert_eq!(head.to_path[0].as_str(), recipient.me);
    }
    let id = taken.heads[0].message_id.clone().expect("an id");
    bench.leg(1, LegMedia::Delivered { octets: 100_000 }).await;
    recipient.report(&id, "1-100000/100000", 200).await;
    bench.leg(1, LegMedia::Quiet).await;
    bench.originator(OriginatorMedia::Settled).await;
    assert_eq!(
        bench.originator_events(),
        [
            OriginatorMedia::Bound,
            OriginatorMedia::Started { content_type: "text/plain".into(), total: Some(100_000) },
            OriginatorMedia::Complete { size: 100_000 },
            OriginatorMedia::Settled,
        ]
    );
    assert_eq!(
        bench.leg_events(1),
        [
            LegMedia::Bound,
            LegMedia::Sending,
            LegMedia::Delivered { octets: 100_000 },
            LegMedia::Quiet
        ]
    );
    assert_eq!(bench.switch.progress(leg(1)), 100_000);
}

const SECOND: Duration = Duration::from_secs(1);

fn failed(cause: MediaFailure) -> LegMedia {
    LegMedia::Failed { cause }
}

/// Starts an originator that sends `page` in one chunk on a task of its own.
fn send_page(bench: &Bench, page: &[u8]) -> tokio::task::JoinHandle<Peer> {
    let mut originator = bench.open_any();
    let range = format!("1-*/{}", page.len());
    let page = page.to_vec();
    tokio::spawn(async move {
        originator.chunk("tr01", "mess1", &range, &page, '$').await;
        originator
    })
}

/// Proves MS-070, MS-091, MS-093, IM-019, IM-071.
#[tokio::test(start_paused = true)]
async fn nobody_suffers_from_anybody_else() {
    let mut bench = Bench::new(settings());
    let page = octets(400_000);
    let mut fast = bench.recipient(1).await;
    let mut deaf = bench.recipient(2).await;
    let mut resets = bench.recipient(3).await;
    let mut refuses = bench.recipient(4).await;
    let mut picky = bench.recipient_with(5, |m| m.accept_types = vec!["image/*".into()]).await;
    let mut small = bench.recipient_with(6, |m| m.max_size = Some(399_999)).await;
    let never = bench.unbound_recipient(7, |_| {});
    let mut second_device = bench.recipient(8).await;
    let start = tokio::time::Instant::now();
    let mut originator = send_page(&bench, &page).await.expect("sent");
    assert_eq!(originator.answer().await, 200);

    let half = async {
        let Some(Piece::Head(head)) = refuses.piece().await else { panic!("a head") };
        let mut got = 0;
        while got < 200_000 {
            let Some(Piece::Body(octets)) = refuses.piece().await else { panic!("octets") };
            got += octets.len();
        }
        refuses.respond(&head, 413).await;
        // Within one write buffer the chunk ends, and nothing more comes.
        let mut after = 0;
        loop {
            match refuses.piece().await.expect("the end") {
                Piece::Body(octets) => after += octets.len(),
                Piece::End(flag) => break assert_eq!(flag, Flag::Abort),
                Piece::Head(_) => panic!("MS-079: another chunk"),
            }
        }
        assert!(after <= 3 * 64 * 1024, "{after}");
        refuses.silence(SECOND).await;
    };
    let reset = async move {
        resets.piece().await;
        resets.piece().await;
    };
    let (taken, twin, (), ()) = tokio::join!(fast.take(), second_device.take(), half, reset);
    assert_eq!((&taken.octets, &twin.octets), (&page, &page));
    assert_ne!(taken.heads[0].message_id, twin.heads[0].message_id);
    for n in [1, 8] {
        bench.leg(n, LegMedia::Delivered { octets: 400_000 }).await;
    }
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    bench.leg(3, failed(MediaFailure::Connection)).await;
    bench.leg(4, failed(MediaFailure::Status(413))).await;
    bench.leg(5, failed(MediaFailure::Type)).await;
    bench.leg(6, failed(MediaFailure::TooBig)).await;
    for n in [3, 4, 5, 6] {
        bench.leg(n, LegMedia::Quiet).await;
    }
    picky.silence(SECOND).await;
    small.silence(SECOND).await;

    tokio::time::sleep(17 * SECOND).await;
    let mut late = bench.recipient(9).await;
    assert_eq!(late.take().await.octets, page);
    bench.leg(9, LegMedia::Delivered { octets: 400_000 }).await;
    bench.leg(7, failed(MediaFailure::Bind)).await;
    bench.leg(2, failed(MediaFailure::Stall)).await;
    // The originator hears nothing of all that.
    originator.silence(SECOND).await;
    drop((never, deaf.next().await));
}

/// Proves MS-079, MS-080, MS-075, MS-076, MS-088.
#[tokio::test(start_paused = true)]
async fn what_a_recipient_says_decides_its_own_leg_only() {
    // By response or REPORT, and what it means.
    let cases = [
        (false, 400, MediaFailure::Status(400)),
        (false, 403, MediaFailure::Status(403)),
        (false, 408, MediaFailure::Timeout),
        (false, 413, MediaFailure::Status(413)),
        (false, 415, MediaFailure::Status(415)),
        (false, 481, MediaFailure::Status(481)),
        (false, 506, MediaFailure::Status(506)),
        (false, 499, MediaFailure::Status(499)),
        (true, 408, MediaFailure::Timeout),
        (true, 413, MediaFailure::Status(413)),
        (true, 403, MediaFailure::Status(403)),
    ];
    for (report, code, cause) in cases {
        for whole in [true, false] {
            let mut bench = Bench::new(settings());
            let mut originator = bench.open_any();
            let mut peer = bench.recipient(1).await;
            let flag = if whole { '$' } else { '+' };
            originator.chunk("tr01", "mess1", "1-*/*", &octets(5000), flag).await;
            assert_eq!(originator.answer().await, 200);
            let Some(Piece::Head(head)) = peer.piece().await else { panic!("a head") };
            if whole {
                while !matches!(peer.piece().await, Some(Piece::End(Flag::Last))) {}
            }
            let id = head.message_id.clone().expect("an id");
            // Somebody else's REPORT is no news.
            peer.report("nobodys", "1-5/5", 500).await;
            if report {
                peer.report(&id, "1-5000/5000", code).await;
            } else {
                peer.respond(&head, code).await;
            }
            bench.leg(1, failed(cause.clone())).await;
            if !whole {
                while !matches!(peer.piece().await, Some(Piece::End(Flag::Abort))) {}
                originator.chunk("tr02", "mess1", "5001-*/*", b"more", '$').await;
                assert_eq!(originator.answer().await, 200);
            }
            peer.silence(SECOND).await;
            if report {
                peer.respond(&head, 200).await;
            }
            bench.leg(1, LegMedia::Quiet).await;
            originator.silence(SECOND).await;
            assert!(!bench.leg_events(1).iter().any(|e| matches!(e, LegMedia::Delivered { .. })));
        }
    }
}

/// Proves MS-036, MS-090.
#[tokio::test(start_paused = true)]
async fn a_page_whose_originator_breaks_off_ends_with_a_hash() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut recipients = [bench.recipient(1).await, bench.recipient(2).await];
    let late = bench.unbound_recipient(3, |_| {});
    let wire = originator.wire(
        "tr01",
        "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
        Some(&octets(50_000)),
        '$',
    );
    originator.raw(&wire[..30_000]).await;
    bench.leg(1, LegMedia::Sending).await;
    drop(originator);
    bench.originator(OriginatorMedia::Aborted(PageLoss::Connection)).await;
    bench.originator(OriginatorMedia::Settled).await;
    for (n, peer) in (1..).zip(&mut recipients) {
        let taken = peer.take().await;
        assert_eq!(taken.flag, Flag::Abort);
        assert_eq!(taken.octets, octets(50_000)[..taken.octets.len()]);
        bench.leg(n, LegMedia::Quiet).await;
    }
    // Somebody who comes after that gets nothing.
    let mut late = late;
    late.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(late.answer().await, 200);
    late.silence(SECOND).await;
    bench.leg(3, LegMedia::Quiet).await;
}

/// Proves MS-109.
#[tokio::test(start_paused = true)]
async fn an_originator_that_leaves_after_the_last_octet_stops_nothing() {
    let mut bench = Bench::new(settings());
    let mut slow = bench.recipient(1).await;
    let page = octets(300_000);
    let originator = send_page(&bench, &page).await.expect("sent");
    bench.originator(OriginatorMedia::Complete { size: 300_000 }).await;
    drop(originator);
    bench.switch.release(Side::Originator(page_id()));
    assert_eq!(slow.take().await.octets, page);
    bench.leg(1, LegMedia::Delivered { octets: 300_000 }).await;
}

/// Proves MS-054, MS-055, MS-057.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_gets_a_large_page_in_one_chunk() {
    let bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    let page = octets(1 << 20);
    let _originator = send_page(&bench, &page);
    let taken = peer.take().await;
    assert_eq!(taken.octets, page);
    assert_eq!(taken.heads.len(), 1);
    // Small ones say where they end.
    let bench = Bench::new(settings());
    let originator = send_page(&bench, &octets(2048)).await;
    let mut peer = bench.recipient(1).await;
    let taken = peer.take().await;
    let range = taken.heads[0].range.expect("a range");
    assert_eq!((range.start, range.end, range.total), (1, Some(2048), Some(2048)));
    drop(originator);
}

/// Proves MS-056, MS-078.
#[tokio::test(start_paused = true)]
async fn answers_interrupt_a_long_chunk() {
    let mut bench = Bench::new(settings());
    let mut peer = bench.recipient(1).await;
    let page = octets(500_000);
    let _originator = send_page(&bench, &page).await;
    let (mut got, mut heads, mut pings) = (Vec::new(), Vec::new(), 0);
    loop {
        match peer.piece().await.expect("the page") {
            Piece::Head(head) if head.kind == Kind::Response(200) => {
                assert!(matches!(peer.piece().await, Some(Piece::End(Flag::Last))));
                pings += 1;
            }
            Piece::Head(head) => {
                assert_eq!(head.range.map(|r| r.start), Some(got.len() as u64 + 1));
                heads.push(head);
                peer.send("ping", "Message-ID: ping\r\n", None, '$').await;
            }
            Piece::Body(octets) => got.extend_from_slice(&octets),
            Piece::End(Flag::Last) => break,
            Piece::End(flag) => assert_eq!(flag, Flag::More),
        }
    }
    assert_eq!(got, page);
    assert!(heads.len() > 2 && pings > 1, "{} chunks, {pings} answers", heads.len());
    assert!(heads.iter().all(|head| head.message_id == heads[0].message_id));
    assert!(heads.windows(2).all(|pair| pair[0].id != pair[1].id));
    assert!(heads.windows(2).all(|pair| {
        let start = |head: &Head| head.range.map_or(0, |range| range.start);
        start(&pair[1]) - start(&pair[0]) >= 2048
    }));
    // Nothing was answered until now; no chunk had waited for it.
    for head in &heads {
        peer.respond(head, 200).await;
    }
    bench.leg(1, LegMedia::Delivered { octets: 500_000 }).await;
}

/// Proves MS-029, MS-058.
#[tokio::test]
async fn two_recipients_behind_one_gateway_share_a_connection_fairly() {
    let mut bench = Bench::new(settings());
    let gateway = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = gateway.local_addr().expect("bound").port();
    let page = octets(3_000_000);
    for n in [1, 2] {
        bench.switch.reserve(Side::Leg(leg(n))).expect("room");
        let uri = format!("msrp://127.0.0.1:{port}/recipient{n};tcp");
        bench.switch.join(leg(n), media(&uri, Role::Active));
    }
    let (stream, _) = gateway.accept().await.expect("one connection");
    let mut peer = Peer::new(Box::new(stream), "", "");
    let originator = send_page(&bench, &page);
    let mut got: [Vec<u8>; 2] = Default::default();
    let mut most_apart = 0;
    while got.iter().any(|got| got.len() < page.len()) {
        let message = peer.next().await.expect("a SEND");
        let to = message.head.to_path[0].as_str();
        let which = usize::from(to.contains("recipient2"));
        got[which].extend_from_slice(&message.body);
        (peer.me, peer.them) = (to.to_owned(), message.head.from_path[0].as_str().to_owned());
        peer.respond(&message.head, 200).await;
        if got.iter().all(|got| got.len() < page.len() && !got.is_empty()) {
            most_apart = most_apart.max(got[0].len().abs_diff(got[1].len()));
        }
    }
    assert!(got.iter().all(|got| *got == page));
    assert!(most_apart < 500_000, "{most_apart}");
    for n in [1, 2] {
        bench.leg(n, LegMedia::Delivered { octets: 3_000_000 }).await;
    }
    assert!(tokio::time::timeout(SECOND / 10, gateway.accept()).await.is_err());
    drop(originator.await.expect("sent"));
}

/// Proves MS-086.
#[tokio::test(start_paused = true)]
async fn relaying_starts_with_the_first_octets_unless_told_otherwise() {
    for wait in [false, true] {
        let mut settings = settings();
        settings.store_and_forward = wait;
        let bench = Bench::new(settings);
        let mut originator = bench.open_any();
        let mut peer = bench.recipient(1).await;
        let wire = originator.wire(
            "tr01",
            "Message-ID: mess1\r\nContent-Type: text/plain\r\n",
            Some(b"hello world"),
            '$',
        );
        let (start, end) = wire.split_at(wire.len() - 20);
        originator.raw(start).await;
        if wait {
            peer.silence(SECOND).await;
        } else {
            assert!(matches!(peer.piece().await, Some(Piece::Head(_))));
            assert!(matches!(peer.piece().await, Some(Piece::Body(_))));
        }
        originator.raw(end).await;
        assert_eq!(originator.answer().await, 200);
        if wait {
            assert_eq!(peer.take().await.octets, b"hello world");
        }
    }
}

/// Proves MS-010, MS-011, IM-075.
#[tokio::test(start_paused = true)]
async fn recipients_get_only_what_they_take() {
    let cpim = b"From: <sip:a@b>\r\nTo: <sip:c@d>\r\n\r\nContent-Type: image/png\r\n\r\nx";
    // Type and octets of the page, the peer's two lists, whether it gets it.
    type Row =
        (&'static str, &'static [u8], &'static [&'static str], &'static [&'static str], bool);
    let cases: [Row; 12] = [
        ("text/plain", b"x", &["text/plain"], &[], true),
        ("text/plain", b"x", &["TEXT/PLAIN;charset=y"], &[], true),
        ("text/plain;charset=utf-8", b"x", &["text/plain"], &[], true),
        ("text/plain", b"x", &["text/*"], &[], true),
        ("text/plain", b"x", &["*"], &[], true),
        ("text/plain", b"x", &["text/html", "image/*"], &[], false),
        ("text/plain", b"x", &[], &["*"], false),
        ("message/cpim", cpim, &["message/cpim"], &["image/png"], true),
        ("message/cpim", cpim, &["message/cpim"], &["image/*"], true),
        ("message/cpim", cpim, &["message/cpim"], &["text/plain"], false),
        ("message/cpim", cpim, &["text/plain"], &["image/png"], false),
        ("message/cpim", cpim, &["message/cpim", "image/png"], &["text/plain"], true),
    ];
    for (content_type, body, types, wrapped, taken) in cases {
        let mut bench = Bench::new(settings());
        let mut originator = bench.open_any();
        let owned = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let mut peer = bench
            .recipient_with(1, |m| {
                m.accept_types = owned(types);
                m.accept_wrapped = owned(wrapped);
            })
            .await;
        let extra = format!("Message-ID: mess1\r\nContent-Type: {content_type}\r\n");
        originator.send("tr01", &extra, Some(body), '$').await;
        assert_eq!(originator.answer().await, 200);
        if taken {
            let got = peer.take().await;
            assert_eq!(got.octets, body, "{content_type} to {types:?}");
            assert_eq!(got.heads[0].content_type.as_deref(), Some(content_type));
        } else {
            bench.leg(1, failed(MediaFailure::Type)).await;
            peer.silence(SECOND).await;
        }
    }
}

/// Proves MS-093.
#[tokio::test(start_paused = true)]
async fn a_page_that_grows_too_large_for_one_ends_there() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut small = bench.recipient_with(1, |m| m.max_size = Some(10)).await;
    let mut exact = bench.recipient_with(2, |m| m.max_size = Some(12)).await;
    originator.chunk("tr01", "mess1", "1-*/*", b"hello ", '+').await;
    bench.leg(1, LegMedia::Sending).await;
    originator.chunk("tr02", "mess1", "7-*/*", b"world!", '$').await;
    let taken = small.take().await;
    assert_eq!((taken.octets.as_slice(), taken.flag), (&b"hello "[..], Flag::Abort));
    bench.leg(1, failed(MediaFailure::TooBig)).await;
    bench.leg(1, LegMedia::Quiet).await;
    assert_eq!(exact.take().await.octets, b"hello world!");
}

/// Proves MS-067, MS-090.
#[tokio::test(start_paused = true)]
async fn the_engine_can_stop_one_copy() {
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut peers = [bench.recipient(1).await, bench.recipient(2).await, bench.recipient(3).await];
    let _unbound = bench.unbound_recipient(4, |_| {});
    bench.switch.reserve(Side::Leg(leg(5))).expect("room");
    // Before anything was sent there is nothing to say.
    bench.switch.abort(Side::Leg(leg(3)));
    for n in [4, 5] {
        bench.switch.abort(Side::Leg(leg(n)));
        bench.leg(n, LegMedia::Quiet).await;
    }
    originator.chunk("tr01", "mess1", "1-*/*", b"hello", '+').await;
    bench.leg(1, LegMedia::Sending).await;
    bench.switch.abort(Side::Leg(leg(1)));
    let taken = peers[0].take().await;
    assert_eq!((taken.octets.as_slice(), taken.flag), (&b"hello"[..], Flag::Abort));
    bench.leg(1, LegMedia::Quiet).await;
    originator.chunk("tr02", "mess1", "6-*/*", b"world", '$').await;
    assert_eq!(peers[1].take().await.octets, b"helloworld");
    // A copy that is complete is not touched.
    bench.leg(2, LegMedia::Delivered { octets: 10 }).await;
    bench.switch.abort(Side::Leg(leg(2)));
    for peer in &mut peers {
        peer.silence(SECOND).await;
    }
    assert!(!bench.leg_events(3).contains(&LegMedia::Sending));
    bench.leg(3, LegMedia::Quiet).await;

    // Releasing ends a running chunk, too.
    let mut bench = Bench::new(settings());
    let mut originator = bench.open_any();
    let mut peer = bench.recipient(1).await;
    originator.chunk("tr01", "mess1", "1-*/*", b"hello", '+').await;
    bench.leg(1, LegMedia::Sending).await;
    bench.switch.release(Side::Leg(leg(1)));
    assert_eq!(peer.next().await.map(|m| m.flag), Some(Flag::Abort));
}

/// Proves MS-006, MS-035.
#[tokio::test]
async fn a_next_hop_that_refuses_fails_the_leg() {
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let mut bench = Bench::new(settings());
    let hops = [
        format!("msrp://127.0.0.1:{port}/x;tcp"),
        "msrp://127.0.0.1/x;tcp".to_owned(),
        "msrp://127.0.0.1:1/x;ws".to_owned(),
    ];
    for (n, hop) in (1..).zip(&hops) {
        bench.switch.reserve(Side::Leg(leg(n))).expect("room");
        bench.switch.join(leg(n), media(hop, Role::Active));
        bench.leg(n, failed(MediaFailure::Connection)).await;
        bench.leg(n, LegMedia::Quiet).await;
    }
}

/// Takes octets of an open chunk until `enough` are there.
async fn take_some(peer: &mut Peer, enough: usize) -> (Head, Vec<u8>) {
    let Some(Piece::Head(head)) = peer.piece().await else { panic!("a head") };
    let mut got = Vec::new();
    while got.len() < enough {
        let Some(Piece::Body(octets)) = peer.piece().await else { panic!("octets") };
        got.extend_from_slice(&octets);
    }
    (*head, got)
}

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn a_recipient_with_a_new_path_gets_the_rest_there() {
    let mut bench = Bench::new(settings());
    let page = octets(30_000);
    let mut originator = bench.open_any();
    let mut recipient = bench.recipient(1).await;
    let mut other = bench.recipient(2).await;

    // The first third is acknowledged, of the second third some octets have come.
    originator.chunk("tr01", "mess1", "1-10000/30000", &page[..10_000], '+').await;
    assert_eq!(originator.answer().await, 200);
    let (head, got) = take_some(&mut recipient, 10_000).await;
    assert_eq!(got, page[..10_000]);
    let name = head.message_id.clone().expect("an id");
    // A request of the peer interrupts the chunk, which ends then.
    recipient.send("tr80", "Message-ID: alive\r\n", None, '$').await;
    let end = recipient.piece().await;
    assert!(matches!(end, Some(Piece::End(Flag::More))), "{end:?}");
    recipient.respond(&head, 200).await;
    assert_eq!(recipient.answer().await, 200);
    originator.chunk("tr02", "mess1", "10001-20000/30000", &page[10_000..20_000], '+').await;
    assert_eq!(originator.answer().await, 200);
    let (head, _) = take_some(&mut recipient, 5000).await;
    assert_eq!(head.range.map(|range| range.start), Some(10_001));

    // The recipient moves.
    let me = "msrp://198.51.100.7:9021/elsewhere0;tcp";
    let own = bench.switch.renew(Side::Leg(leg(1)), media(me, Role::Passive)).expect("room");
    let own = own.expect("the leg has a session").path.as_str().to_owned();
    assert_ne!(own, recipient.them);
    let flag = loop {
        match recipient.piece().await.expect("the old connection stands") {
            Piece::Body(_) => {}
            Piece::End(flag) => break flag,
            Piece::Head(_) => panic!("MS-016: nothing begins in the old session"),
        }
    };
    assert_eq!(flag, Flag::More, "what is not over is not aborted");
    originator.chunk("tr03", "mess1", "20001-30000/30000", &page[20_000..], '$').await;
    assert_eq!(originator.answer().await, 200);
    recipient.silence(SECOND).await;
    // Until the new session is bound the old one answers.
    recipient.send("tr81", "Message-ID: still\r\n", None, '$').await;
    assert_eq!(recipient.answer().await, 200);

    let mut moved = Peer::new(bench.dial(), me, &own);
    moved.send("bind", "Message-ID: bind2\r\n", None, '$').await;
    assert_eq!(moved.answer().await, 200);
    let mut got = Vec::new();
    loop {
        let message = moved.next().await.expect("the rest");
        let range = message.head.range.expect("a range");
        assert_eq!(range.start, 10_001 + got.len() as u64);
        assert_eq!(message.head.message_id.as_deref(), Some(&*name), "the same Message-ID");
        assert_eq!(message.head.to_path[0].as_str(), me);
        assert_eq!(message.head.from_path[0].as_str(), own);
        moved.respond(&message.head, 200).await;
        got.extend_from_slice(&message.body);
        if message.flag == Flag::Last {
            break;
        }
    }
    assert_eq!(got, page[10_000..]);
    bench.leg(1, LegMedia::Delivered { octets: 30_000 }).await;
    recipient.send("tr82", "Message-ID: gone\r\n", None, '$').await;
    assert_eq!(recipient.answer().await, 481, "the old session is over");
    moved.report(&name, "1-30000/30000", 200).await;
    bench.leg(1, LegMedia::Quiet).await;
    assert!(!bench.leg_events(1).iter().any(|event| matches!(event, LegMedia::Failed { .. })));
    assert_eq!(other.take().await.octets, page, "nobody else notices");
}

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn a_new_path_nobody_comes_from_fails_that_leg() {
    let mut bench = Bench::new(settings());
    let page = octets(1000);
    let recipient = bench.recipient(1).await;
    let me = "msrp://198.51.100.7:9021/elsewhere0;tcp";
    let own = bench.switch.renew(Side::Leg(leg(1)), media(me, Role::Passive)).expect("room");
    assert!(own.is_some());
    // The old connection may break meanwhile: that is what people move for.
    drop(recipient);
    let mut originator = send_page(&bench, &page).await.expect("sent");
    assert_eq!(originator.answer().await, 200);
    bench.leg(1, failed(MediaFailure::Bind)).await;
    assert_eq!(bench.switch.stats().sessions, 2, "the originator's and the new one");
}

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn an_originator_with_a_new_path_goes_on_there() {
    let mut bench = Bench::new(settings());
    let page = octets(9000);
    let mut recipient = bench.recipient(1).await;
    let mut originator = bench.open_any();
    originator.chunk("tr01", "mess1", "1-3000/9000", &page[..3000], '+').await;
    assert_eq!(originator.answer().await, 200);
    // A chunk is running when the path changes; it is taken as long as the new session is not bound.
    let wire = originator.wire(
        "tr02",
        "Message-ID: mess1\r\nByte-Range: 3001-6000/9000\r\nContent-Type: text/plain\r\n",
        Some(&page[3000..6000]),
        '+',
    );
    let (before, after) = wire.split_at(2000);
    originator.raw(before).await;
    bench.originator(OriginatorMedia::Bound).await;
    let me = "msrp://192.0.2.56:7394/elsewhere0;tcp";
    let side = Side::Originator(page_id());
    let own = bench.switch.renew(side, media(me, Role::Passive)).expect("room").expect("a session");
    let own = own.path.as_str().to_owned();
    originator.raw(after).await;
    assert_eq!(originator.answer().await, 200);

    let mut moved = Peer::new(bench.dial(), me, &own);
    moved.chunk("tr03", "mess1", "6001-9000/9000", &page[6000..], '$').await;
    assert_eq!(moved.answer().await, 200);
    assert_eq!(recipient.take().await.octets, page);
    originator.send("tr04", "Message-ID: late\r\n", None, '$').await;
    assert_eq!(originator.answer().await, 481, "the old session is over");
    bench.originator(OriginatorMedia::Complete { size: 9000 }).await;
    bench.originator(OriginatorMedia::Settled).await;
    drop(originator);
    let lost = |event: &OriginatorMedia| matches!(event, OriginatorMedia::Aborted(_));
    assert!(!bench.originator_events().iter().any(lost));
}
