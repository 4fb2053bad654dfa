//! Rules of one session that no connection is needed for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{LegMedia, MediaFailure, OriginatorMedia, PageLoss};
use crate::msrp::codec::{Decoder, Flag, Limits, Piece};
use crate::msrp::frames::Frames;
use crate::msrp::{AcceptTypes, Direction, PageRules, Role, Settings};
use crate::spool::{About, Spool, Spools};

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn spool() -> Arc<Spool> {
    Spools::new(None, crate::spool::Limits::default()).expect("no directory").open("p".into())
}

fn uri(text: &str) -> MsrpUri {
    MsrpUri::parse(text).expect("a URI")
}

fn peer() -> PeerMedia {
    PeerMedia {
        path: vec![uri("msrp://relay:1/r;tcp"), uri("msrp://peer:2/p;tcp")],
        role: Role::Passive,
        dial: None,
        proof: None,
        accept_types: vec!["*".into()],
        accept_wrapped: Vec::new(),
        max_size: None,
        direction: Direction::SendRecv,
    }
}

/// The head of a SEND with these lines behind the paths.
fn send(lines: &str, body: bool) -> Head {
    let mut decoder = Decoder::new(Limits::default());
    let end = if body { "\r\n\r\n" } else { "" };
    let wire = format!(
        "MSRP tr01 SEND\r\nTo-Path: msrp://us:1/own;tcp\r\nFrom-Path: msrp://peer:2/p;tcp\r\n{lines}{end}-------tr01$\r\n"
    );
    decoder.buffer().extend_from_slice(wire.as_bytes());
    match decoder.next() {
        Ok(Some(Piece::Head(head))) => *head,
        other => panic!("{other:?}"),
    }
}

fn page_head(lines: &str) -> Head {
    send(&format!("Message-ID: mess1\r\n{lines}Content-Type: text/plain\r\n"), true)
}

#[test]
fn ranges() {
    let cases = [
        ("1-5/5", Ok(())),
        ("1-0/0", Ok(())),
        ("6-5/5", Ok(())),
        ("7-*/5", Err(400)),
        ("0-5/5", Err(400)),
        ("5-3/9", Err(400)),
        ("5-4/9", Ok(())),
        ("1-*/100", Ok(())),
        ("1-*/101", Err(413)),
        ("101-*/*", Ok(())),
        ("102-*/*", Err(413)),
        ("1-*/*", Ok(())),
    ];
    for (range, expect) in cases {
        let head = page_head(&format!("Byte-Range: {range}\r\n"));
        assert_eq!(check_range(&head, 100), expect, "{range}");
    }
    assert_eq!(check_range(&page_head(""), 100), Ok(()));
}

#[test]
fn types() {
    let yes = [
        (&["text/plain"][..], "Text/Plain; a=b"),
        (&["a/b", "text/*"], "text/html"),
        (&["*"], "x/y"),
        (&["*/*"], "x/y"),
        (&["TEXT/*;x=y"], "text/html"),
    ];
    let no = [
        (&["text/plain"][..], "text/html"),
        (&["text/*"], "texts/plain"),
        (&[], "x/y"),
        (&["text"], "text/plain"),
    ];
    assert!(yes.iter().all(|(list, t)| accepts(list, t)));
    assert!(!no.iter().any(|(list, t)| accepts(list, t)));
    assert!(is_control("message/IMDN+xml;x=y") && is_control("application/im-iscomposing+xml"));
    assert!(!is_control("message/cpim") && is_cpim("Message/CPIM") && !is_cpim("text/plain"));
}

#[test]
fn bindings() {
    let side = Side::Leg(LegId { page: PageId::new(0, 1), n: 1 });
    let own = uri("msrp://us:1/own;tcp");
    let now = clock();
    let head = page_head("");
    let agree = |session: &mut Session, peer: &PeerMedia| {
        let part =
            Part::Leg { send: outgoing(now, spool(), peer), receive: FromRecipient::default() };
        session.agree(peer, part, Some(now + secs(30)))
    };

    let mut session = Session::reserved(side, own.clone());
    assert!(session.is_free() && session.bound_to().is_none());
    assert!(!session.is_bind_overdue(now + secs(1000)), "nothing agreed, nothing due");
    assert!(agree(&mut session, &peer()));
    assert!(!session.is_bind_overdue(now + secs(29)));
    assert!(session.is_bind_overdue(now + secs(30)));
    assert_eq!(session.admit(1, &head), Ok(true));
    assert_eq!(session.admit(1, &head), Ok(false));
    assert_eq!(session.admit(2, &head), Err(506));
    assert_eq!(session.bound_to(), Some(1));
    assert!(!session.is_free() && !session.is_bind_overdue(now + secs(30)));
    session.unbind();
    assert_eq!(session.admit(1, &head), Err(481));
    assert!(session.bound_to().is_none() && !session.is_free());

    // MS-032: exactly one URI, whatever the first is.
    let mut relayed = head.clone();
    relayed.to_path.push(uri("msrp://peer:2/them;tcp"));
    let mut session = Session::reserved(side, own.clone());
    assert!(agree(&mut session, &peer()));
    assert_eq!(session.admit(1, &relayed), Err(481));
    assert!(session.is_free());

    // Faster than the answer.
    let mut early = Session::reserved(side, own.clone());
    assert_eq!(early.admit(1, &head), Ok(true));
    assert!(agree(&mut early, &peer()));
    assert_eq!(early.bound_to(), Some(1));
    let mut stranger = PeerMedia { path: vec![uri("msrp://peer:2/other;tcp")], ..peer() };
    let mut early = Session::reserved(side, own.clone());
    assert_eq!(early.admit(1, &head), Ok(true));
    assert!(!agree(&mut early, &stranger));
    assert!(early.is_free());
    assert_eq!(early.admit(2, &head), Err(481));
    stranger.path = peer().path;

    // An originator cannot be before its offer is answered.
    let mut originator = Session::reserved(Side::Originator(PageId::new(0, 1)), own);
    assert_eq!(originator.admit(1, &head), Err(481));
    originator.bind(7);
    assert_eq!(originator.bound_to(), Some(7));
    assert_eq!(originator.next_wake(), None);
}

fn outgoing(now: Instant, spool: Arc<Spool>, peer: &PeerMedia) -> Outgoing {
    let settings = Settings { copy_success_report: false, ..Settings::default() };
    let own = uri("msrp://us:1/own;tcp");
    Outgoing::new(now, Arc::new(settings), spool, 1, &own, peer, "copy1".into())
}

fn publish(spool: &Arc<Spool>, octets: &[u8], whole: bool) {
    spool.write(spool.stored(), octets).expect("room");
    spool.publish(
        About { content_type: "text/plain".into(), inner: None, total: None, since: clock() },
        0,
    );
    if whole {
        spool.finish(spool.stored()).expect("right");
    }
}

struct Copy {
    send: Outgoing,
    spool: Arc<Spool>,
    out: Frames,
    now: Instant,
    next: u8,
    told: Vec<LegMedia>,
}

impl Copy {
    fn new() -> Self {
        Self::of(&peer())
    }

    fn of(peer: &PeerMedia) -> Self {
        let (now, spool) = (clock(), spool());
        let send = outgoing(now, Arc::clone(&spool), peer);
        Self { send, spool, out: Frames::default(), now, next: b'a', told: Vec::new() }
    }

    fn write(&mut self, room: usize) -> Step {
        let next = &mut self.next;
        let mut ids = || {
            *next += 1;
            [*next - 1; 16]
        };
        let step = self.send.write(self.now, room, &mut ids, None, &mut self.out, &mut self.told);
        self.send.settle(self.now, &mut self.told);
        step
    }

    fn write_all(&mut self) {
        while matches!(self.write(1000), Step::Wrote) {}
    }

    fn flush(&mut self) {
        let all = self.out.produced();
        self.out.take();
        self.send.flushed(self.now, all, &mut self.told);
    }

    fn respond(&mut self, id: u8, code: u16) {
        self.send.response(self.now, &[id; 16], code, &mut self.told);
    }

    fn wake(&mut self) -> bool {
        self.send.wake(self.now, &mut self.told)
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.out.take()).expect("text")
    }

    fn told(&mut self) -> Vec<LegMedia> {
        std::mem::take(&mut self.told)
    }
}

fn failed(cause: MediaFailure) -> LegMedia {
    LegMedia::Failed { cause }
}

/// Proves MS-009, MS-053, MS-077.
#[test]
fn a_copy_is_written_and_acknowledged() {
    let mut copy = Copy::new();
    assert!(matches!(copy.write(100), Step::Idle));
    publish(&copy.spool, b"hello", true);
    assert!(matches!(copy.write(100), Step::Wrote));
    let id = "a".repeat(16);
    assert_eq!(
        copy.text(),
        format!(
            "MSRP {id} SEND\r\nTo-Path: msrp://relay:1/r;tcp msrp://peer:2/p;tcp\r\nFrom-Path: msrp://us:1/own;tcp\r\n\
             Message-ID: copy1\r\nByte-Range: 1-5/5\r\nContent-Type: text/plain\r\n\r\nhello\r\n-------{id}$\r\n"
        )
    );
    assert!(matches!(copy.write(100), Step::Idle));
    assert_eq!(copy.told(), [LegMedia::Sending]);
    // Not written yet: only the stall timer runs.
    assert_eq!(copy.send.next_wake(), Some(copy.now + secs(120)));
    copy.now += secs(10);
    copy.flush();
    assert_eq!(copy.send.next_wake(), Some(copy.now + secs(30)));
    copy.now += secs(29);
    assert!(!copy.wake());
    copy.respond(b'z', 200);
    assert_eq!((copy.told(), copy.send.acknowledged()), (vec![], 0));
    copy.respond(b'a', 200);
    assert_eq!(copy.told(), [LegMedia::Delivered { octets: 5 }, LegMedia::Quiet]);
    assert_eq!(copy.send.acknowledged(), 5);
    assert_eq!(copy.send.next_wake(), None);
    copy.respond(b'a', 400);
    copy.send.cut(MediaFailure::Connection, &mut copy.told);
    assert_eq!(copy.told(), []);
}

/// Proves MS-054, MS-056.
#[test]
fn long_chunks_are_open_and_can_be_interrupted() {
    let mut copy = Copy::new();
    publish(&copy.spool, &[b'x'; 2049], true);
    copy.write(1000);
    assert!(copy.send.is_open());
    assert_eq!((copy.send.open_octets(), copy.send.cursor()), (1000, 1000));
    copy.send.interrupt(&mut copy.out);
    assert!(!copy.send.is_open());
    assert_eq!(copy.send.open_octets(), 0);
    copy.send.interrupt(&mut copy.out);
    let text = copy.text();
    assert!(text.contains("Byte-Range: 1-*/2049\r\n") && text.ends_with("+\r\n"), "{text}");
    copy.write(1_000_000);
    let text = copy.text();
    assert!(text.contains("Byte-Range: 1001-2049/2049\r\n") && text.ends_with("$\r\n"), "{text}");
    // Answers in any order.
    copy.flush();
    copy.respond(b'b', 200);
    assert_eq!(copy.send.acknowledged(), 1049);
    copy.respond(b'a', 200);
    assert!(copy.told().contains(&LegMedia::Delivered { octets: 2049 }));

    // 2048 octets fit into a closed one, and only as long as they end the page.
    for (octets, whole, range) in
        [(2048, true, "1-2048/2048"), (2049, true, "1-*/2049"), (100, false, "1-*/*")]
    {
        let mut copy = Copy::new();
        publish(&copy.spool, &vec![b'x'; octets], whole);
        copy.write(1_000_000);
        let text = copy.text();
        assert!(text.contains(&format!("Byte-Range: {range}\r\n")), "{text}");
    }
}

#[test]
fn a_chunk_interrupted_at_the_very_end_is_closed_by_an_empty_one() {
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    copy.send.interrupt(&mut copy.out);
    copy.spool.finish(5).expect("right");
    copy.out.take();
    copy.write_all();
    let text = copy.text();
    assert!(text.contains("Byte-Range: 6-5/5\r\n") && text.ends_with("$\r\n"), "{text}");

    // Or, if it still runs, by its end-line alone.
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    copy.out.take();
    copy.spool.finish(5).expect("right");
    copy.write_all();
    assert_eq!(copy.text(), format!("\r\n-------{}$\r\n", "a".repeat(16)));
}

/// Proves MS-047.
#[test]
fn no_body_contains_its_own_end_line() {
    let end = |id: u8| format!("-------{}", char::from(id).to_string().repeat(16));
    // Ids a and b are in the first octets: c is taken.
    let mut copy = Copy::new();
    publish(&copy.spool, format!("x{}$ {}# y", end(b'a'), end(b'b')).as_bytes(), true);
    copy.write_all();
    assert!(copy.text().starts_with("MSRP cccccccccccccccc SEND"));

    // It comes while the chunk runs: whole in one slice, or across slices.
    for cut in 0..=24 {
        let mut copy = Copy::new();
        let hit = format!("{}$ and more", end(b'a'));
        publish(&copy.spool, b"start ", false);
        copy.write(1000);
        publish(&copy.spool, &hit.as_bytes()[..cut], false);
        copy.write_all();
        publish(&copy.spool, &hit.as_bytes()[cut..], true);
        copy.write_all();
        let wire = copy.out.take();
        let mut decoder = Decoder::new(Limits::default());
        decoder.buffer().extend_from_slice(&wire);
        let (mut body, mut chunk, mut id, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
        while let Some(piece) = decoder.next().expect("MSRP") {
            match piece {
                Piece::Head(head) => id = [b"-------", &head.id[..]].concat(),
                Piece::Body(octets) => chunk.extend_from_slice(&octets),
                Piece::End(flag) => {
                    assert!(memchr::memmem::find(&chunk, &id).is_none(), "cut at {cut}");
                    body.append(&mut chunk);
                    last = Some(flag);
                }
            }
        }
        assert_eq!(body, [b"start ", hit.as_bytes()].concat(), "cut at {cut}");
        assert_eq!(last, Some(Flag::Last));
    }
}

/// Proves MS-030, MS-043.
#[test]
fn the_active_side_greets_only_if_it_has_nothing_else_to_say() {
    let mut copy = Copy::new();
    copy.send.greet();
    assert!(matches!(copy.write(100), Step::Wrote));
    let (a, b) = ("a".repeat(16), "b".repeat(16));
    let text = copy.text();
    assert!(text.starts_with(&format!("MSRP {a} SEND\r\n")), "{text}");
    assert!(text.ends_with(&format!("Message-ID: {b}\r\n-------{a}$\r\n")), "{text}");
    assert!(matches!(copy.write(100), Step::Idle));
    copy.flush();
    copy.respond(b'a', 200);
    assert_eq!((copy.told(), copy.send.acknowledged()), (vec![], 0));
    publish(&copy.spool, b"hello", true);
    copy.write_all();
    assert_eq!(copy.told(), [LegMedia::Sending]);

    let mut copy = Copy::new();
    copy.send.greet();
    publish(&copy.spool, b"hello", false);
    copy.write_all();
    assert!(copy.text().contains("Byte-Range: 1-*/*"));
    // A greeting refused is a leg lost.
    let mut copy = Copy::new();
    copy.send.greet();
    copy.write_all();
    copy.flush();
    copy.respond(b'a', 481);
    assert_eq!(copy.told(), [failed(MediaFailure::Status(481)), LegMedia::Quiet]);
}

/// Proves MS-077, MS-091.
#[test]
fn timers_of_a_copy() {
    // No answer.
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    copy.send.interrupt(&mut copy.out);
    copy.flush();
    copy.now += secs(29);
    assert!(!copy.wake());
    assert_eq!(copy.told(), [LegMedia::Sending]);
    copy.now += secs(1);
    assert!(!copy.wake(), "the connection is fine");
    assert_eq!(copy.told(), [failed(MediaFailure::Timeout), LegMedia::Quiet]);
    assert_eq!(copy.send.next_wake(), None);

    // Nothing moves.
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    copy.now += secs(119);
    assert!(!copy.wake());
    copy.send.moving(copy.now);
    copy.now += secs(119);
    assert!(!copy.wake());
    copy.now += secs(1);
    assert!(copy.wake());
    assert_eq!(copy.told(), [LegMedia::Sending, failed(MediaFailure::Stall)]);

    // Waiting for the page is no stall.
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    copy.flush();
    assert_eq!(copy.send.next_wake(), None);
    copy.now += secs(10_000);
    assert!(!copy.wake());
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    assert_eq!(copy.send.next_wake(), Some(copy.now + secs(120)));
    copy.now += secs(60);
    publish(&copy.spool, b"hello", false);
    copy.write(100);
    assert_eq!(copy.send.next_wake(), Some(copy.now + secs(60)), "writing more is no progress");
}

/// Proves MS-075, MS-076.
#[test]
fn reports_about_a_copy() {
    let report = |lines: &str| {
        let wire = format!(
            "MSRP tr01 REPORT\r\nTo-Path: msrp://us:1/own;tcp\r\nFrom-Path: msrp://peer:2/p;tcp\r\n{lines}-------tr01$\r\n"
        );
        let mut decoder = Decoder::new(Limits::default());
        *decoder.buffer() = BytesMut::from(wire.as_bytes());
        let Ok(Some(Piece::Head(head))) = decoder.next() else { panic!("a head") };
        *head
    };
    let direct = PeerMedia { path: vec![uri("msrp://peer:2/p;tcp")], ..peer() };
    let waiting = |peer: &PeerMedia| {
        let mut copy = Copy::new();
        let settings = Settings::default();
        let own = uri("msrp://us:1/own;tcp");
        copy.send = Outgoing::new(
            copy.now,
            Arc::new(settings),
            Arc::clone(&copy.spool),
            1,
            &own,
            peer,
            "copy1".into(),
        );
        publish(&copy.spool, b"hello", true);
        copy.write_all();
        assert!(copy.text().contains("Success-Report: yes\r\n"));
        copy.flush();
        copy
    };
    let cases = [
        ("Message-ID: copy1\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n", true),
        ("Message-ID: copy1\r\nByte-Range: 1-*/*\r\nStatus: 000 200\r\n", true),
        ("Message-ID: copy1\r\nStatus: 000 200 OK\r\n", true),
        ("Message-ID: copy1\r\nByte-Range: 1-4/5\r\nStatus: 000 200 OK\r\n", false),
        ("Message-ID: other\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n", false),
        ("Message-ID: copy1\r\nByte-Range: 1-5/5\r\nStatus: 001 200 OK\r\n", false),
        ("Message-ID: copy1\r\nByte-Range: 1-5/5\r\n", false),
        ("Byte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n", false),
    ];
    let peers = [(&direct, false), (&peer(), true)];
    for ((peer, relayed), (lines, counts)) in
        peers.into_iter().flat_map(|peer| cases.map(|case| (peer, case)))
    {
        let mut copy = waiting(peer);
        copy.send.report(copy.now, &report(lines), &mut copy.told);
        copy.told();
        copy.respond(b'a', 200);
        let quiet = copy.told().contains(&LegMedia::Quiet);
        assert_eq!(quiet, counts, "{lines}");
        if !counts {
            assert_eq!(copy.send.next_wake(), Some(copy.now + secs(30)));
            copy.now += secs(30);
            copy.wake();
            // Behind a relay the 200 alone was not the recipient's word; silence is no failure.
            let told = copy.told();
            assert_eq!(told.last(), Some(&LegMedia::Quiet), "{lines}");
            assert_eq!(told.contains(&LegMedia::Delivered { octets: 5 }), relayed, "{lines}");
        }
    }
    for (code, cause) in [(408, MediaFailure::Timeout), (413, MediaFailure::Status(413))] {
        let mut copy = waiting(&peer());
        copy.told();
        let lines = format!("Message-ID: copy1\r\nByte-Range: 1-5/5\r\nStatus: 000 {code}\r\n");
        copy.send.report(copy.now, &report(&lines), &mut copy.told);
        assert_eq!(copy.told(), [failed(cause)]);
        copy.respond(b'a', 200);
        assert_eq!(copy.told(), [LegMedia::Quiet]);
    }
}

/// Proves MS-067, MS-090.
#[test]
fn stopping_a_copy() {
    // In a chunk, between chunks, and before anything was said.
    let mut open = Copy::new();
    publish(&open.spool, b"hello", false);
    open.write(100);
    open.out.take();
    open.send.abort();
    assert!(matches!(open.write(100), Step::Wrote));
    assert_eq!(open.text(), format!("\r\n-------{}#\r\n", "a".repeat(16)));
    assert!(matches!(open.write(100), Step::Idle));

    let mut between = Copy::new();
    publish(&between.spool, b"hello", false);
    between.write(100);
    between.send.interrupt(&mut between.out);
    between.out.take();
    between.send.abort();
    between.send.abort();
    between.write_all();
    let text = between.text();
    assert!(text.contains("Byte-Range: 6-5/*\r\n") && text.ends_with("#\r\n"), "{text}");
    between.flush();
    assert_eq!(between.told(), [LegMedia::Sending]);
    between.respond(b'a', 200);
    between.respond(b'b', 200);
    assert_eq!(between.told(), [LegMedia::Quiet]);

    let mut nothing = Copy::new();
    nothing.send.abort();
    nothing.send.settle(nothing.now, &mut nothing.told);
    assert_eq!((nothing.told(), nothing.out.len()), (vec![LegMedia::Quiet], 0));

    // After 413 there is no chunk more, not even to say so.
    let mut refused = Copy::new();
    publish(&refused.spool, b"hello", false);
    refused.write(100);
    refused.send.interrupt(&mut refused.out);
    refused.flush();
    refused.respond(b'a', 413);
    assert!(matches!(refused.write(100), Step::Idle));
    assert_eq!(refused.out.len(), 0);
    assert_eq!(
        refused.told(),
        [LegMedia::Sending, failed(MediaFailure::Status(413)), LegMedia::Quiet]
    );
    refused.send.fail(MediaFailure::Timeout, &mut refused.told);
    assert_eq!(refused.told(), []);

    // Too big while it runs, between chunks: said.
    let mut big = Copy::of(&PeerMedia { max_size: Some(5), ..peer() });
    publish(&big.spool, b"hello", false);
    big.write(100);
    big.send.interrupt(&mut big.out);
    big.out.take();
    publish(&big.spool, b"!", false);
    big.write_all();
    assert!(big.text().ends_with("#\r\n"));
    assert_eq!(big.told(), [LegMedia::Sending, failed(MediaFailure::TooBig)]);

    // An early refusal of the running chunk; an early 200 counts when the chunk ends.
    let mut early = Copy::new();
    publish(&early.spool, b"hello", false);
    early.write(100);
    early.respond(b'a', 200);
    assert_eq!(early.send.acknowledged(), 0);
    early.spool.finish(5).expect("right");
    early.write_all();
    early.flush();
    assert_eq!(
        early.told(),
        [LegMedia::Sending, LegMedia::Delivered { octets: 5 }, LegMedia::Quiet]
    );

    // A connection that breaks.
    let mut cut = Copy::new();
    publish(&cut.spool, b"hello", false);
    cut.write(100);
    cut.send.cut(MediaFailure::Connection, &mut cut.told);
    assert_eq!(cut.told(), [LegMedia::Sending, failed(MediaFailure::Connection), LegMedia::Quiet]);
    assert_eq!(cut.send.next_wake(), None);
    assert!(!cut.send.is_open());
    assert!(matches!(cut.write(100), Step::Idle));
}

#[test]
fn octets_from_disk_are_written_at_their_place() {
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", true);
    copy.send.loaded(3, Some("wrong place".into()), &mut copy.told);
    copy.write_all();
    assert!(copy.text().contains("\r\n\r\nhello\r\n"));
    let mut copy = Copy::new();
    publish(&copy.spool, b"hello", true);
    copy.send.loaded(0, Some("HELLO".into()), &mut copy.told);
    copy.write_all();
    assert!(copy.text().contains("\r\n\r\nHELLO\r\n"));
    let mut copy = Copy::new();
    copy.send.loaded(0, None, &mut copy.told);
    assert_eq!(copy.told(), [failed(MediaFailure::Connection)]);
}

struct In {
    page: Incoming,
    spool: Arc<Spool>,
    now: Instant,
    told: Vec<OriginatorMedia>,
}

impl In {
    fn new(settings: Settings) -> Self {
        let (spool, accept) =
            (spool(), AcceptTypes { types: vec!["*".into()], wrapped: Vec::new() });
        let page =
            Incoming::new(Arc::new(settings), accept, PageRules::default(), Arc::clone(&spool));
        Self { page, spool, now: clock(), told: Vec::new() }
    }

    fn chunk(&mut self, lines: &str, body: &[u8], flag: Flag) -> Option<u16> {
        let head = page_head(lines);
        if let Verdict::Skip(code) = self.page.head(self.now, &head, &mut self.told) {
            self.page.end(self.now, flag, &mut self.told);
            return Some(code);
        }
        match self.page.body(self.now, &Bytes::copy_from_slice(body), true, &mut self.told) {
            Ok(Verdict::Take) => self.page.end(self.now, flag, &mut self.told).answer,
            Ok(Verdict::Skip(code)) => {
                assert_eq!(self.page.end(self.now, flag, &mut self.told).answer, None);
                Some(code)
            }
            Err(full) => panic!("{full}"),
        }
    }
}

/// Proves MS-064.
#[test]
fn the_gap_timer_runs_only_while_something_is_missing() {
    let mut page = In::new(Settings::default());
    assert_eq!(page.page.next_wake(), None);
    assert_eq!(page.chunk("", b"hello", Flag::More), Some(200));
    assert_eq!(page.page.next_wake(), Some(page.now + secs(540)));
    page.now += secs(539);
    page.page.wake(page.now, &mut page.told);
    assert!(!page.page.is_over());
    page.now += secs(1);
    page.page.wake(page.now, &mut page.told);
    assert!(page.page.is_over());
    assert_eq!(page.told.last(), Some(&OriginatorMedia::Aborted(PageLoss::Gap)));
    assert_eq!(page.page.next_wake(), None);
    assert_eq!(page.chunk("Byte-Range: 6-*/*\r\n", b"x", Flag::More), Some(413));
    assert_eq!(page.page.next_wake(), None);

    let mut page = In::new(Settings::default());
    assert_eq!(page.chunk("", b"hello", Flag::Last), Some(200));
    assert!(page.page.is_over());
    assert_eq!(page.page.next_wake(), None);
    page.page.lose(PageLoss::Connection, &mut page.told);
    assert_eq!(page.told.last(), Some(&OriginatorMedia::Complete { size: 5 }));
}

/// Proves MS-062.
#[test]
fn the_limit_itself_is_not_over_it() {
    let mut page = In::new(Settings { max_message: 5, ..Settings::default() });
    assert_eq!(page.chunk("Byte-Range: 1-*/*\r\n", b"hello", Flag::Last), Some(200));
    let mut page = In::new(Settings { max_message: 5, ..Settings::default() });
    assert_eq!(page.chunk("Byte-Range: 1-*/*\r\n", b"hello!", Flag::Last), Some(413));
    assert_eq!(page.told.last(), Some(&OriginatorMedia::Aborted(PageLoss::TooBig)));
}

#[test]
fn an_envelope_names_sender_and_recipient_only_where_that_is_asked() {
    let head = send("Message-ID: mess1\r\nContent-Type: message/cpim\r\n", true);
    let envelope = b"DateTime: 2026-03-04T09:15:27Z\r\n\r\nContent-Type: text/plain\r\n\r\nhello";
    for (cpim_required, answer) in [(false, Some(200)), (true, None)] {
        let mut page = In::new(Settings::default());
        page.page = Incoming::new(
            Arc::new(Settings::default()),
            AcceptTypes { types: vec!["*".into()], wrapped: Vec::new() },
            PageRules { cpim_required, ..PageRules::default() },
            Arc::clone(&page.spool),
        );
        assert!(matches!(page.page.head(page.now, &head, &mut page.told), Verdict::Take));
        let verdict = page.page.body(page.now, &Bytes::from_static(envelope), true, &mut page.told);
        assert_eq!(matches!(verdict, Ok(Verdict::Skip(400))), cpim_required, "MS-094");
        assert_eq!(page.page.end(page.now, Flag::Last, &mut page.told).answer, answer);
    }
}

#[test]
fn a_page_that_ends_before_its_octets_makes_no_sense() {
    let mut page = In::new(Settings::default());
    assert_eq!(page.chunk("", b"hello world", Flag::More), Some(200));
    assert_eq!(page.chunk("", b"hello", Flag::Last), Some(400));
    assert_eq!(page.told.last(), Some(&OriginatorMedia::Aborted(PageLoss::Refused(400))));
    assert_eq!(page.chunk("", b"hello", Flag::Last), Some(400));
}

/// Proves MS-061: of two ends that differ neither is believed, while the same one may be told again.
#[test]
fn a_message_has_one_end() {
    let chunk = |page: &mut In, range: &str, body: &[u8], flag| {
        page.chunk(&format!("Byte-Range: {range}\r\n"), body, flag)
    };
    for (range, body) in [("11-15/15", &b"fifth"[..]), ("6-8/8", b"wor"), ("1-3/3", b"hel")] {
        let mut page = In::new(Settings::default());
        assert_eq!(chunk(&mut page, "6-10/10", b"world", Flag::Last), Some(200), "{range}");
        assert_eq!(chunk(&mut page, range, body, Flag::Last), Some(400), "{range}");
        let lost = OriginatorMedia::Aborted(PageLoss::Refused(400));
        assert_eq!(page.told.last(), Some(&lost), "{range}");
        assert!(page.spool.is_lost(), "{range}");
        assert_eq!(chunk(&mut page, "1-5/10", b"hello", Flag::More), Some(400), "{range}");
    }
    let mut page = In::new(Settings::default());
    assert_eq!(chunk(&mut page, "6-10/10", b"world", Flag::Last), Some(200));
    assert_eq!(chunk(&mut page, "6-10/10", b"world", Flag::Last), Some(200));
    assert_eq!(chunk(&mut page, "1-5/10", b"hello", Flag::More), Some(200));
    assert_eq!(page.told.last(), Some(&OriginatorMedia::Complete { size: 10 }));
}

/// Proves MS-037, MS-110: neither a longer end nor another message changes a page that is whole.
#[test]
fn nothing_is_added_to_a_whole_page() {
    let mut page = In::new(Settings::default());
    assert_eq!(page.chunk("Byte-Range: 1-5/5\r\n", b"hello", Flag::Last), Some(200));
    let told = page.told.clone();
    assert_eq!(page.chunk("Byte-Range: 6-10/10\r\n", b"world", Flag::Last), Some(200));
    let second = send("Message-ID: mess2\r\nContent-Type: text/plain\r\n", true);
    assert_eq!(page.page.head(page.now, &second, &mut page.told), Verdict::Skip(403));
    assert_eq!(page.page.end(page.now, Flag::Last, &mut page.told).answer, None);
    assert_eq!(page.told, told);
    assert_eq!(page.spool.whole(), Some(5));
}

#[test]
fn reports_owed() {
    let mut page = In::new(Settings { max_message: 100, ..Settings::default() });
    assert_eq!(page.page.report(408), None, "nobody to name");
    page.chunk("Success-Report: yes\r\nByte-Range: 1-*/50\r\n", b"hello", Flag::More);
    assert_eq!(page.page.report(200), None, "not whole");
    let owed = page.page.report(408).expect("a failure");
    assert_eq!((owed.octets, owed.total, &*owed.message_id), (5, Some(50), "mess1"));
    assert_eq!(owed.to_path, "msrp://peer:2/p;tcp");
    assert_eq!(page.page.report(408), None, "once");
}

#[test]
fn no_room_for_too_long_ends_the_page() {
    let mut page = In::new(Settings::default());
    let head = page_head("");
    assert_eq!(page.page.head(page.now, &head, &mut page.told), Verdict::Take);
    assert_eq!(page.page.no_room(&mut page.told), Verdict::Skip(413));
    assert_eq!(page.told, [OriginatorMedia::Aborted(PageLoss::Storage)]);
    assert_eq!(page.page.end(page.now, Flag::Last, &mut page.told).answer, None);
    assert!(page.spool.is_lost());
    assert_eq!(page.chunk("", b"again", Flag::Last), Some(413));
}

#[test]
fn a_body_without_a_type_must_be_empty() {
    let head = send("Message-ID: mess1\r\n", true);
    let mut page = In::new(Settings::default());
    assert_eq!(page.page.head(page.now, &head, &mut page.told), Verdict::Take);
    assert_eq!(page.page.end(page.now, Flag::Last, &mut page.told).answer, Some(200));
    assert_eq!(page.page.head(page.now, &head, &mut page.told), Verdict::Take);
    assert_eq!(
        page.page.body(page.now, &Bytes::from("x"), true, &mut page.told),
        Ok(Verdict::Skip(400))
    );
    assert_eq!(
        page.page.body(page.now, &Bytes::from("x"), true, &mut page.told),
        Ok(Verdict::Take),
        "said once"
    );
    let mut recipient = FromRecipient::default();
    assert_eq!(recipient.head(&head, 100), Verdict::Take);
    assert_eq!(recipient.end(Flag::Last), Some(200));
    assert_eq!(recipient.head(&head, 100), Verdict::Take);
    assert_eq!(recipient.body(b"x"), Verdict::Skip(400));
    assert_eq!(recipient.end(Flag::Last), None);
    let huge = page_head("Byte-Range: 1-*/101\r\n");
    assert_eq!(recipient.head(&huge, 100), Verdict::Skip(413));
}

/// What stands inside the envelope decides: a notification is taken, anything else is not for a one-way leg.
#[test]
fn an_envelope_from_a_recipient_is_judged_by_its_content() {
    let head = send("Message-ID: mess1\r\nContent-Type: message/cpim\r\n", true);
    let envelope = |content_type: &str| {
        format!("From: <sip:b@h>\r\nTo: <sip:a@h>\r\n\r\nContent-Type: {content_type}\r\n\r\nx")
    };
    for (content_type, code) in [("message/imdn+xml", Some(200)), ("text/plain", None)] {
        let mut recipient = FromRecipient::default();
        assert_eq!(recipient.head(&head, 1000), Verdict::Take);
        let verdict = recipient.body(envelope(content_type).as_bytes());
        assert_eq!(verdict == Verdict::Skip(403), code.is_none(), "{content_type}");
        assert_eq!(recipient.end(Flag::Last), code, "{content_type}");
    }
}

/// Proves MS-061, MS-065: octets that fill the last hole count from the end of their chunk on, and only if that is no `#`.
#[test]
fn a_chunk_that_is_given_up_completes_nothing() {
    for (flag, whole) in [(Flag::Abort, None), (Flag::More, Some(9))] {
        let mut page = In::new(Settings::default());
        assert_eq!(page.chunk("Byte-Range: 1-3/9\r\n", b"abc", Flag::More), Some(200));
        assert_eq!(page.chunk("Byte-Range: 7-9/9\r\n", b"ghi", Flag::Last), Some(200));
        let head = page_head("Byte-Range: 4-6/9\r\n");
        assert_eq!(page.page.head(page.now, &head, &mut page.told), Verdict::Take);
        assert_eq!(
            page.page.body(page.now, &Bytes::from_static(b"def"), false, &mut page.told),
            Ok(Verdict::Take)
        );
        assert_eq!((page.spool.readable(), page.spool.whole()), (9, None), "it may be taken back");
        let closing = page.page.end(page.now, flag, &mut page.told);
        assert_eq!((closing.answer, page.spool.whole()), (Some(200), whole), "{flag:?}");
        assert_eq!(page.spool.is_lost(), whole.is_none());
        let told = match whole {
            Some(size) => OriginatorMedia::Complete { size },
            None => OriginatorMedia::Aborted(PageLoss::Sender),
        };
        assert_eq!(page.told.last(), Some(&told));
    }
}

/// Proves MS-057, MS-098.
#[test]
fn bare_content_is_wrapped_where_it_has_to_be_and_nowhere_else() {
    let taker = |types: &[&str], wrapped: &[&str]| PeerMedia {
        path: vec![uri("msrp://peer:2/p;tcp")],
        accept_types: types.iter().map(|t| (*t).to_owned()).collect(),
        accept_wrapped: wrapped.iter().map(|t| (*t).to_owned()).collect(),
        max_size: Some(200),
        ..peer()
    };
    let envelope = || Envelope {
        from: "sip:alice@ims.test".to_owned(),
        to: "sip:bob@ims.test".to_owned(),
        clock: (clock(), Duration::ZERO),
    };
    let cases = [
        (taker(&["message/cpim"], &["text/plain"]), true, Some(true)),
        (taker(&["image/png", "message/*"], &[]), true, Some(true)),
        (taker(&["message/cpim", "text/plain"], &["*"]), true, Some(false)),
        (taker(&["*"], &[]), true, Some(false)),
        (taker(&["message/cpim"], &["image/png"]), true, None),
        (taker(&["image/png"], &["text/plain"]), true, None),
        (taker(&["message/cpim"], &["text/plain"]), false, None),
    ];
    for (peer, may, wrapped) in cases {
        let mut copy = Copy::of(&peer);
        if may {
            copy.send.may_wrap(envelope());
        }
        publish(&copy.spool, b"hello ", false);
        copy.write_all();
        copy.spool.write(6, b"world").expect("room");
        copy.spool.finish(11).expect("right");
        copy.write_all();
        let text = copy.text();
        let Some(wrapped) = wrapped else {
            assert_eq!(
                (copy.told(), &*text),
                (vec![failed(MediaFailure::Type), LegMedia::Quiet], "")
            );
            continue;
        };
        let body = if wrapped {
            "From: <sip:alice@ims.test>\r\nTo: <sip:bob@ims.test>\r\nDateTime: 1970-01-01T00:00:00Z\r\n\r\n\
             Content-Type: text/plain\r\n\r\nhello world"
        } else {
            "hello world"
        };
        let kind = if wrapped { "message/cpim" } else { "text/plain" };
        assert!(
            text.contains(&format!(
                "Byte-Range: 1-*/*\r\nContent-Type: {kind}\r\n\r\n{body}\r\n---"
            )),
            "{text}"
        );
        copy.flush();
        copy.respond(b'a', 200);
        // The envelope is ours: what is told counts the page.
        assert_eq!(copy.told().get(1), Some(&LegMedia::Delivered { octets: 11 }));
        assert_eq!(copy.send.acknowledged(), 11);
    }
    // The whole of it has to fit, and its total is that of both.
    let mut copy = Copy::of(&taker(&["message/cpim"], &[]));
    copy.send.may_wrap(envelope());
    publish(&copy.spool, &[b'x'; 150], true);
    copy.write_all();
    assert_eq!(copy.told(), [failed(MediaFailure::TooBig), LegMedia::Quiet]);
    let mut copy = Copy::of(&taker(&["message/cpim"], &[]));
    copy.send.may_wrap(envelope());
    publish(&copy.spool, b"hello", true);
    // A head that goes out in parts, each chunk after the one before.
    let mut starts = Vec::new();
    while matches!(copy.write(40), Step::Wrote) {
        copy.send.interrupt(&mut copy.out);
        let text = copy.text();
        let range = text.split("Byte-Range: ").nth(1).expect("a range");
        starts.push(range.split("\r\n").next().expect("its end").to_owned());
    }
    let head = envelope().head(clock(), "text/plain").len();
    let total = head + 5;
    let want: Vec<String> = (0..head)
        .step_by(40)
        .map(|at| format!("{}-*/{total}", at + 1))
        .chain([format!("{}-{total}/{total}", head + 1)])
        .collect();
    assert_eq!(starts, want);
    // A REPORT about all of it maps to all of the page.
    copy.flush();
    for id in (b'a'..).take(starts.len()) {
        copy.respond(id, 200);
    }
    assert!(copy.told().contains(&LegMedia::Delivered { octets: 5 }));
}

/// Proves MS-016, MS-098: the rest of a wrapped copy goes on behind the same head.
#[test]
fn a_wrapped_copy_can_go_on_elsewhere() {
    let peer = PeerMedia { accept_types: vec!["message/cpim".into()], ..peer() };
    let mut copy = Copy::of(&peer);
    let clock = (clock(), Duration::ZERO);
    copy.send.may_wrap(Envelope { from: "sip:a@h".into(), to: "sip:b@h".into(), clock });
    publish(&copy.spool, b"hello", false);
    copy.write(40);
    copy.send.interrupt(&mut copy.out);
    copy.respond(b'a', 200);
    copy.write_all();
    let own = uri("msrp://us:1/other;tcp");
    let heir = copy.send.hand_over(copy.now, &own, &peer);
    copy.spool.finish(5).expect("right");
    let mut rest = Copy { send: heir, out: Frames::default(), ..copy };
    rest.write_all();
    let text = rest.text();
    assert!(text.contains("Byte-Range: 41-*/"), "{text}");
    assert!(
        text.contains("Content-Type: message/cpim\r\n") && text.contains("\r\n\r\nhello\r\n---"),
        "{text}"
    );
}
