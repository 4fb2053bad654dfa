//! Rules about a session as a whole: how it begins, what its flags say, that content is nobody's business.

use std::time::Duration;

use pagecast::content::sdp;
use pagecast::engine::input::{LegMedia, OriginatorMedia, PageLoss};
use pagecast::msrp::codec::{Flag, Kind, Piece};
use pagecast::msrp::{AcceptTypes, PageRules, Role, Settings, Side};
use tokio::net::TcpListener;

use crate::support::{Bench, Peer, any, leg, media, octets, settings};

const SECOND: Duration = Duration::from_secs(1);
const BIND: &str = "Message-ID: bind\r\n";

/// What our answers list unless an operator says otherwise.
fn shipped() -> AcceptTypes {
    let sdp::AcceptTypes { types, wrapped } = sdp::AcceptTypes::default();
    AcceptTypes { types, wrapped }
}

/// Proves MS-012.
#[tokio::test(start_paused = true)]
async fn containers_are_taken_and_passed_on_unchanged() {
    let parts = b"--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--b1--\r\n";
    let signed = b"--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Type: application/pkcs7-signature\r\n\r\n\x30\x80\r\n--b1--";
    let cpim = b"From: <sip:alice@home1.example>\r\nTo: <sip:bob@home1.example>\r\n\r\nContent-Type: text/plain\r\n\r\nhello";
    let cpim_with_parts =
        [&b"From: <sip:alice@home1.example>\r\nTo: <sip:bob@home1.example>\r\n\r\nContent-Type: multipart/mixed;boundary=b1\r\n\r\n"[..], parts].concat();
    let cases: [(&str, &[u8]); 5] = [
        ("multipart/mixed;boundary=b1", parts),
        ("multipart/alternative; boundary=\"b1\"", parts),
        ("message/cpim", cpim),
        ("message/cpim", &cpim_with_parts),
        (
            "multipart/signed;boundary=b1;micalg=sha256;protocol=\"application/pkcs7-signature\"",
            signed,
        ),
    ];
    for accept in [shipped(), any()] {
        for (content_type, body) in cases {
            let bench = Bench::new(settings());
            let mut recipient = bench.recipient(1).await;
            let mut originator = bench.open(accept.clone(), PageRules::default());
            let lines = format!("Message-ID: mess1\r\nContent-Type: {content_type}\r\n");
            originator.send("tr01", &lines, Some(body), '$').await;
            assert_eq!(originator.answer().await, 200, "{content_type}");
            let taken = recipient.take().await;
            assert_eq!(taken.octets, body, "{content_type}");
            assert_eq!(taken.heads[0].content_type.as_deref(), Some(content_type));
        }
    }
}

/// Proves MS-117.
#[tokio::test(start_paused = true)]
async fn octets_are_passed_on_as_they_are_or_not_at_all() {
    let every: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let cases: [(&str, Vec<u8>); 6] = [
        ("text/html", b"<script>alert('1')</script>\r\n\r\n<!-- \x00 -->".to_vec()),
        ("text/plain;charset=UTF-8", b"\xff\xfe not UTF-8, \x1b[2J, \r, \n, \r\n, \0".to_vec()),
        ("text/plain", b"-------tr01$ \r\n-------tr99$\r\nMSRP tr99 SEND\r\n\r\n".to_vec()),
        ("application/octet-stream", every),
        ("application/x-msdownload", b"MZ\x90\x00\x03".to_vec()),
        (
            "message/cpim",
            b"From: <sip:a@b>\nTo: <sip:c@d>\r\n\r\nContent-Type: text/plain\r\n\r\n\xff".to_vec(),
        ),
    ];
    for store_and_forward in [false, true] {
        for (content_type, body) in &cases {
            let bench = Bench::new(Settings { store_and_forward, ..settings() });
            let mut recipient = bench.recipient(1).await;
            let mut originator = bench.open_any();
            let lines = format!("Message-ID: mess1\r\nContent-Type: {content_type}\r\n");
            originator.send("tr0001", &lines, Some(body), '$').await;
            assert_eq!(originator.answer().await, 200, "{content_type}");
            let taken = recipient.take().await;
            assert_eq!(&taken.octets, body, "{content_type}");
            assert_eq!(taken.heads[0].content_type.as_deref(), Some(*content_type));
        }
    }
    // What is not taken is dropped as a whole.
    let mut bench = Bench::new(settings());
    let mut recipient = bench.recipient(1).await;
    let mut originator = bench.open(shipped(), PageRules::default());
    originator
        .send("tr01", "Message-ID: mess1\r\nContent-Type: video/mp4\r\n", Some(b"x"), '$')
        .await;
    assert_eq!(originator.answer().await, 415);
    bench.originator(OriginatorMedia::Aborted(PageLoss::Refused(415))).await;
    recipient.silence(SECOND).await;
}

/// Proves MS-048.
#[tokio::test(start_paused = true)]
async fn flags_say_end_more_and_given_up() {
    let page = octets(6000);
    // To the recipient: more, more, end. To the originator: `$` in every answer and REPORT.
    let mut bench = Bench::new(settings());
    let mut recipient = bench.recipient(1).await;
    let mut originator = bench.open_any();
    let lines = "Message-ID: mess1\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n";
    let mut flags = Vec::new();
    for (id, from, flag) in [("tr01", 0, '+'), ("tr02", 3000, '$')] {
        let range = format!("{lines}Byte-Range: {}-{}/6000\r\n", from + 1, from + 3000);
        originator.send(id, &range, Some(&page[from..from + 3000]), flag).await;
        let answer = originator.next().await.expect("an answer");
        assert_eq!((answer.head.kind, answer.flag), (Kind::Response(200), Flag::Last));
        if flag == '+' {
            // Something else to say: the running chunk is not the last one.
            let Some(Piece::Head(head)) = recipient.piece().await else { panic!("a head") };
            let mut got = 0;
            while got < 3000 {
                let Some(Piece::Body(octets)) = recipient.piece().await else { panic!("octets") };
                got += octets.len();
            }
            recipient.send("ping", BIND, None, '$').await;
            let Some(Piece::End(flag)) = recipient.piece().await else { panic!("an end") };
            flags.push(flag);
            // A response with `+` or `#` is one with `$`.
            let id = String::from_utf8(head.id.to_vec()).expect("an id");
            let (me, them) = (recipient.me.clone(), recipient.them.clone());
            let wire = format!(
                "MSRP {id} 200 OK\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\n-------{id}#\r\n"
            );
            recipient.raw(wire.as_bytes()).await;
            let answer = recipient.next().await.expect("an answer");
            assert_eq!((answer.head.kind, answer.flag), (Kind::Response(200), Flag::Last));
        }
    }
    let report = originator.next().await.expect("a REPORT");
    assert_eq!((report.head.kind, report.flag), (Kind::Report, Flag::Last));
    let last = recipient.next().await.expect("the rest");
    flags.push(last.flag);
    assert_eq!(flags, [Flag::More, Flag::Last]);
    recipient.respond(&last.head, 200).await;
    bench.leg(1, LegMedia::Delivered { octets: 6000 }).await;
    // So is a REPORT.
    let id = last.head.message_id.as_deref().expect("an id");
    let (me, them) = (recipient.me.clone(), recipient.them.clone());
    let wire = format!(
        "MSRP rep1 REPORT\r\nTo-Path: {them}\r\nFrom-Path: {me}\r\nMessage-ID: {id}\r\n\
         Byte-Range: 1-6000/6000\r\nStatus: 000 200 OK\r\n-------rep1+\r\n"
    );
    recipient.raw(wire.as_bytes()).await;
    bench.leg(1, LegMedia::Quiet).await;

    // Given up: no more chunks.
    let bench = Bench::new(settings());
    let mut recipient = bench.recipient(1).await;
    let mut originator = bench.open_any();
    originator.chunk("tr01", "mess1", "1-3000/6000", &page[..3000], '+').await;
    assert!(matches!(recipient.piece().await, Some(Piece::Head(_))));
    originator.chunk("tr02", "mess1", "3001-4000/6000", &page[3000..4000], '#').await;
    let flag = loop {
        match recipient.piece().await.expect("the chunk") {
            Piece::Body(_) => {}
            Piece::End(flag) => break flag,
            Piece::Head(_) => panic!("a head inside a message"),
        }
    };
    assert_eq!(flag, Flag::Abort);
    recipient.silence(SECOND).await;
}

/// Proves IM-069.
#[tokio::test]
async fn the_active_side_speaks_first_to_the_next_hop() {
    let bench = Bench::new(settings());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let own = bench.switch.reserve(Side::Leg(leg(1))).expect("room");
    // Only the leftmost can be reached.
    let path = format!("msrp://127.0.0.1:{port}/relay;tcp msrp://192.0.2.77:9/recipient1;tcp");
    let mut to = media("msrp://192.0.2.77:9/recipient1;tcp", Role::Active);
    to.path = pagecast::content::msrp_uri::MsrpUri::parse_path(&path).expect("a path");
    bench.switch.join(leg(1), to);
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut peer = Peer::new(Box::new(stream), &path, &own);
    let first = peer.next().await.expect("a SEND at once");
    assert_eq!((first.head.kind, first.head.has_body), (Kind::Send, false));
    let to: Vec<&str> = first.head.to_path.iter().map(|uri| uri.as_str()).collect();
    assert_eq!(to.join(" "), path, "the whole list");
}

/// Proves IM-069.
#[tokio::test(start_paused = true)]
async fn the_passive_side_serves_whom_it_knows() {
    let bench = Bench::new(settings());
    let known = bench.open_any();
    let (me, them) = (known.me.clone(), known.them.clone());
    let elsewhere = them.replace(them.rsplit('/').next().unwrap_or_default(), "unknown;tcp");

    let mut stranger = Peer::new(bench.dial(), &me, &elsewhere);
    stranger.send("tr01", BIND, None, '$').await;
    assert_eq!(stranger.answer().await, 481);
    let closed = tokio::time::timeout(31 * SECOND, stranger.next()).await;
    assert!(closed.expect("closed in time").is_none(), "nothing but the end");

    let mut invented = Peer::new(bench.dial(), "msrp://192.0.2.55:7394/invented;tcp", &them);
    invented.send("tr01", BIND, None, '$').await;
    assert_eq!(invented.answer().await, 481);
    let bench = Bench::new(settings());
    let known = bench.open_any();
    let me = me.replace("192.0.2.55:7394", "gateway.example:1");
    let mut changed = Peer::new(known.stream, &me, &known.them);
    changed.send("tr01", BIND, None, '$').await;
    assert_eq!(changed.answer().await, 200, "a gateway may change host and port");
    let mut second = Peer::new(bench.dial(), &me, &known.them);
    second.send("tr02", BIND, None, '$').await;
    assert_eq!(second.answer().await, 506);
}
