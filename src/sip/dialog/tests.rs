//! The dialog's rules, one table each, in the words of the RFCs.

use std::time::Duration;

use bytes::Bytes;

use super::reliable::{Arrival, RAck, Receiver, Sender, rseq};
use super::session::{
    Agreement, Refresher, Refusal, SessionExpires, SessionTimer, Unreadable, accept, agreed, min_se,
};
use super::*;
use crate::sip::message::Limits;

fn message(start: &str, from: &str, to: &str, cseq: &str, lines: &[&str]) -> Message {
    let mut text = format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx\r\nFrom: {from}\r\nTo: {to}\r\n\
         Call-ID: c1\r\nCSeq: {cseq}\r\n"
    );
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Message::parse(Bytes::from(text), &Limits::default()).expect("a message the codec takes")
}

fn invite(lines: &[&str]) -> Message {
    let start = "INVITE sip:list@im.example SIP/2.0";
    message(start, "\"Al\" <sip:al@ue.example>;tag=ft", "<sip:list@im.example>", "7 INVITE", lines)
}

fn response(status: &str, to: &str, lines: &[&str]) -> Message {
    message(&format!("SIP/2.0 {status} X"), "<sip:us@im.example>;tag=ours", to, "4 INVITE", lines)
}

fn printed(dialog: &Dialog, method: &Method, cseq: u32) -> String {
    let bytes = dialog.request(method, cseq, "SIP/2.0/UDP us;branch=z9hG4bKy").finish(None);
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// B16: the caller's route set is reversed.
#[test]
fn a_caller_goes_back_the_way_the_response_came() {
    let lines = [
        "Contact: \"B\" <sip:bob@198.51.100.7;gr=urn:x>;expires=3",
        "Record-Route: <sip:far.example;lr>",
        "Record-Route: <sip:mid.example;lr>, <sip:near.example;lr>",
        "Allow: INVITE, UPDATE",
    ];
    let local = b"<sip:us@im.example>;tag=ours";
    let mut dialog =
        Dialog::of_response(local, "sip:ruri@x", &response("183", "<sip:b@x>;tag=t1", &lines));
    assert_eq!(
        (dialog.remote_tag(), dialog.target()),
        (&b"t1"[..], "sip:bob@198.51.100.7;gr=urn:x")
    );
    assert_eq!((dialog.next_hop(), dialog.peer_updates()), ("sip:near.example;lr", true));
    assert_eq!(
        (dialog.local_cseq(), dialog.next_cseq(), dialog.next_cseq(), dialog.local_cseq()),
        (4, 5, 6, 6)
    );
    assert_eq!(
        printed(&dialog, &Method::Prack, 5),
        "PRACK sip:bob@198.51.100.7;gr=urn:x SIP/2.0\r\n\
         Via: SIP/2.0/UDP us;branch=z9hG4bKy\r\n\
         Route: <sip:near.example;lr>\r\n\
         Route: <sip:mid.example;lr>\r\n\
         Route: <sip:far.example;lr>\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:us@im.example>;tag=ours\r\n\
         To: <sip:b@x>;tag=t1\r\n\
         Call-ID: c1\r\n\
         CSeq: 5 PRACK\r\n\
         Content-Length: 0\r\n\r\n"
    );
    // IM-015: what a later response does not say stays.
    dialog.learn_from(&response("200", "<sip:b@x>;tag=t1", &[]));
    assert_eq!(
        (dialog.target(), dialog.next_hop()),
        ("sip:bob@198.51.100.7;gr=urn:x", "sip:near.example;lr")
    );
    assert!(dialog.peer_updates());
    let said =
        ["Contact: <sip:bob@new>", "Allow: INVITE, BYE", "Record-Route: <sip:other.example;lr>"];
    dialog.learn_from(&response("200", "<sip:b@x>;tag=t1", &said));
    assert_eq!((dialog.target(), dialog.next_hop()), ("sip:bob@new", "sip:other.example;lr"));
    assert!(!dialog.peer_updates());
}

#[test]
fn a_caller_without_contact_and_route_asks_where_it_asked_first() {
    let dialog =
        Dialog::of_response(b"<sip:us@x>;tag=o", "sip:ruri@x", &response("200", "<sip:b@x>", &[]));
    assert_eq!(
        (dialog.remote_tag(), dialog.target(), dialog.next_hop()),
        (&b""[..], "sip:ruri@x", "sip:ruri@x")
    );
    let mut dialog = Dialog::of_response(
        b"<sip:us@x>;tag=o",
        "sip:r@x",
        &response("180", "<sip:b@x>;tag=t", &[]),
    );
    dialog.learn_from(&response(
        "200",
        "<sip:b@x>;tag=t",
        &["Record-Route: <sip:a;lr>, <sip:b;lr>"],
    ));
    assert_eq!(
        dialog.next_hop(),
        "sip:b;lr",
        "an early dialog without a route set gets one from the 2xx"
    );
}

#[test]
fn a_callee_keeps_the_order_of_record_route() {
    let lines =
        ["Contact: <sip:al@192.0.2.9>", "Record-Route: <sip:one.example;lr>, <sip:two.example;lr>"];
    let mut dialog = Dialog::of_request(&invite(&lines), "03ab").expect("a dialog");
    assert_eq!((dialog.remote_tag(), dialog.target()), (&b"ft"[..], "sip:al@192.0.2.9"));
    assert_eq!((dialog.next_hop(), dialog.peer_updates()), ("sip:one.example;lr", false));
    assert_eq!(dialog.next_cseq(), 1);
    assert_eq!(
        printed(&dialog, &Method::Bye, 1),
        "BYE sip:al@192.0.2.9 SIP/2.0\r\n\
         Via: SIP/2.0/UDP us;branch=z9hG4bKy\r\n\
         Route: <sip:one.example;lr>\r\n\
         Route: <sip:two.example;lr>\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:list@im.example>;tag=03ab\r\n\
         To: \"Al\" <sip:al@ue.example>;tag=ft\r\n\
         Call-ID: c1\r\n\
         CSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n"
    );
    assert_eq!(Dialog::of_request(&invite(&[]), "03ab"), None, "nowhere to send requests to");
    dialog.refresh(&invite(&["Contact: <sip:al@moved>", "Allow: UPDATE"]));
    assert_eq!((dialog.target(), dialog.peer_updates()), ("sip:al@moved", true));
    assert_eq!(dialog.next_hop(), "sip:one.example;lr", "the route set never changes");
    dialog.forget_updates();
    assert!(!dialog.peer_updates());
}

/// B22: gaps are accepted at once, what comes too late is not.
#[test]
fn numbers_only_grow() {
    let mut dialog = Dialog::of_request(&invite(&["Contact: <sip:al@x>"]), "t").expect("a dialog");
    let orders = [7, 6, 8, 8, 200_000, 9, 200_001].map(|number| dialog.receive_cseq(number));
    use Order::{New, Old};
    assert_eq!(orders, [Old, Old, New, Old, New, Old, New]);
    let mut dialog = Dialog::of_response(
        b"<sip:us@x>;tag=o",
        "sip:r@x",
        &response("200", "<sip:b@x>;tag=t", &[]),
    );
    assert_eq!(dialog.receive_cseq(0), New, "the callee's first number may be any");
    assert_eq!(dialog.receive_cseq(0), Old);
}

#[test]
fn reliable_responses_count_one_by_one() {
    use Arrival::{Next, Repeated, TooEarly};
    let mut receiver = Receiver::default();
    let arrivals = [4711, 4711, 4713, 4712, 4710, 4713, 4712].map(|rseq| receiver.on(rseq));
    assert_eq!(arrivals, [Next, Repeated, TooEarly, Next, Repeated, Next, Repeated]);
}

#[test]
fn rseq_and_rack_are_read_strictly() {
    let of = |line: &str| rseq(&response("183", "<sip:b@x>;tag=t", &[line]));
    let cases = [
        ("RSeq: 4711", Some(4711)),
        ("RSeq: 1", Some(1)),
        ("RSeq: 4294967295", Some(u32::MAX)),
        ("RSeq: 0", None),
        ("RSeq: 4294967296", None),
        ("RSeq: -1", None),
        ("X: 1", None),
    ];
    for (line, read) in cases {
        assert_eq!(of(line), read, "{line}");
    }
    let rack = |rseq, cseq, invite| Some(RAck { rseq, cseq, invite });
    assert_eq!(RAck::parse("4711 1 INVITE"), rack(4711, 1, true));
    assert_eq!(RAck::parse(" 4711\t 22  INVITE "), rack(4711, 22, true));
    assert_eq!(RAck::parse("4711 1 invite"), rack(4711, 1, false), "methods count case");
    for bad in ["", "1", "1 2", "1 2 INVITE x", "x 2 INVITE", "1 x INVITE"] {
        assert_eq!(RAck::parse(bad), None, "{bad}");
    }
}

/// Proves ISC-062.
#[test]
fn reliable_responses_go_out_one_by_one() {
    for (random, first) in
        [(0, 1), (1, 2), (0x7fff_fffe, 0x7fff_ffff), (0x7fff_ffff, 1), (u64::MAX, 4)]
    {
        assert_eq!(Sender::<()>::new(random, 1).number(), first, "1 to 2^31 - 1 out of {random:x}");
    }
    let mut sender = Sender::new(9, 2);
    assert_eq!(sender.enqueue("a"), Some("a"), "nothing is on its way");
    let number = sender.number();
    sender.sent(number, "a");
    assert_eq!((sender.outstanding().map(|out| out.rseq), number), (Some(10), 10));
    assert_eq!(sender.take_waiting(), None);
    for waiting in ["b", "c", "d"] {
        assert_eq!(sender.enqueue(waiting), None);
    }
    assert_eq!(sender.take_waiting(), None, "not before the PRACK");
    assert_eq!((sender.acknowledge(11), sender.acknowledge(9)), (None, None));
    assert_eq!(sender.acknowledge(10), Some("a"));
    assert_eq!(sender.acknowledge(10), None, "once");
    assert_eq!((sender.take_waiting(), sender.number()), (Some("c"), 11), "the oldest gave way");
    sender.sent(11, "c");
    assert_eq!(sender.outstanding_mut().map(|out| out.response), Some("c"));
    sender.drop_waiting();
    assert_eq!((sender.acknowledge(11), sender.take_waiting()), (Some("c"), None));
    let mut none = Sender::new(9, 0);
    none.sent(1, "a");
    assert_eq!(
        (none.enqueue("b"), none.acknowledge(1), none.take_waiting()),
        (None, Some("a"), None)
    );
    let mut one = Sender::new(9, 1);
    one.sent(1, "a");
    assert_eq!(
        (one.enqueue("b"), one.acknowledge(1), one.take_waiting()),
        (None, Some("a"), Some("b"))
    );
}

#[test]
fn session_headers_are_read_strictly() {
    let of = |line: &str| SessionExpires::of(&invite(&[line]));
    let read = |interval, refresher| Ok(Some(SessionExpires { interval, refresher }));
    assert_eq!(of("Session-Expires: 1800"), read(1800, None));
    assert_eq!(of("x: 600 ;refresher=UAS"), read(600, Some(Refresher::Uas)), "the compact form");
    assert_eq!(of("Session-Expires: 90;foo=1;Refresher=uac"), read(90, Some(Refresher::Uac)));
    assert_eq!(of("X-Other: 1"), Ok(None));
    for bad in ["", "x", "-1", "+5", "1 2", "99999999999", "90;refresher=me", "90;refresher"] {
        assert_eq!(of(&format!("Session-Expires: {bad}")), Err(Unreadable), "{bad}");
    }
    assert_eq!(min_se(&invite(&["Min-SE: 120;x=1"])), Ok(Some(120)));
    assert_eq!(
        (min_se(&invite(&[])), min_se(&invite(&["Min-SE: soon"]))),
        (Ok(None), Err(Unreadable))
    );
}

/// RFC 4028 §9 with table 2: what is asked, our settings, what is answered.
///
/// Proves ISC-061.
#[test]
fn session_timers_are_answered_by_the_table() {
    use Refresher::{Uac, Uas};
    let settings = |expires, min_se, refresher| SessionTimer { expires, min_se, refresher };
    let usual = settings(Some(1800), 90, Uac);
    let timer = "Supported: timer";
    type Answer = Result<Option<(u32, Refresher)>, Refusal>;
    let rows: &[(&[&str], SessionTimer, Answer)] = &[
        // the refresher
        (&[timer, "Session-Expires: 1800"], usual, Ok(Some((1800, Uac)))),
        (&[timer, "Session-Expires: 1800"], settings(Some(1800), 90, Uas), Ok(Some((1800, Uas)))),
        (
            &[timer, "Session-Expires: 1800;refresher=uac"],
            settings(None, 90, Uas),
            Ok(Some((1800, Uac))),
        ),
        (&[timer, "Session-Expires: 1800;refresher=uas"], usual, Ok(Some((1800, Uas)))),
        (&["Session-Expires: 1800"], usual, Ok(Some((1800, Uas)))),
        (&["Session-Expires: 1800;refresher=uac"], usual, Ok(Some((1800, Uas)))),
        (&["Require: timer", "Session-Expires: 1800"], usual, Ok(Some((1800, Uac)))),
        // the interval: never more than asked, less if we want less, never below what both bear
        (&[timer, "Session-Expires: 600"], usual, Ok(Some((600, Uac)))),
        (&[timer, "Session-Expires: 3600"], usual, Ok(Some((1800, Uac)))),
        (&[timer, "Session-Expires: 3600", "Min-SE: 2000"], usual, Ok(Some((2000, Uac)))),
        (
            &[timer, "Session-Expires: 1800", "Min-SE: 3000"],
            settings(Some(600), 90, Uac),
            Ok(Some((1800, Uac))),
        ),
        (&[timer, "Session-Expires: 3600"], settings(Some(300), 400, Uac), Ok(Some((400, Uac)))),
        (&[timer, "Session-Expires: 3600"], settings(None, 90, Uac), Ok(Some((3600, Uac)))),
        // too small
        (&[timer, "Session-Expires: 60"], usual, Err(Refusal::TooSmall(90))),
        (&[timer, "Session-Expires: 89"], settings(None, 0, Uac), Err(Refusal::TooSmall(90))),
        (&[timer, "Session-Expires: 90"], usual, Ok(Some((90, Uac)))),
        (
            &[timer, "Session-Expires: 299"],
            settings(Some(1800), 300, Uac),
            Err(Refusal::TooSmall(300)),
        ),
        (&[timer, "Session-Expires: 300"], settings(Some(1800), 300, Uac), Ok(Some((300, Uac)))),
        (&["Session-Expires: 60"], usual, Ok(Some((90, Uas)))),
        (&["Session-Expires: 60"], settings(None, 90, Uac), Ok(Some((90, Uas)))),
        // not asked for
        (&[timer], usual, Ok(Some((1800, Uac)))),
        (&[timer, "Min-SE: 2400"], usual, Ok(Some((2400, Uac)))),
        (&[], usual, Ok(Some((1800, Uas)))),
        (&[timer], settings(None, 90, Uac), Ok(None)),
        (&[timer], settings(Some(100), 150, Uac), Ok(Some((150, Uac)))),
        // unreadable
        (&[timer, "Session-Expires: x"], usual, Err(Refusal::Unreadable)),
        (&[timer, "Min-SE: x"], usual, Err(Refusal::Unreadable)),
    ];
    for (lines, settings, wanted) in rows {
        let answer = accept(&invite(lines), settings);
        let short = answer.map(|answer| answer.map(|answer| (answer.interval, answer.refresher)));
        assert_eq!(short, *wanted, "{lines:?} {settings:?}");
        if let Ok(Some(agreement)) = answer {
            assert_eq!(
                agreement.ours,
                agreement.refresher == Uas,
                "the one who answers is the uas"
            );
        }
    }
}

#[test]
fn an_answered_timer_is_taken_as_it_stands() {
    let of = |lines: &[&str]| agreed(&response("200", "<sip:b@x>;tag=t", lines));
    let agreement = |interval, refresher, ours| Ok(Some(Agreement { interval, refresher, ours }));
    assert_eq!(of(&["Session-Expires: 1800;refresher=uac"]), agreement(1800, Refresher::Uac, true));
    assert_eq!(
        of(&["Session-Expires: 1800;refresher=uas"]),
        agreement(1800, Refresher::Uas, false)
    );
    assert_eq!(
        of(&["Session-Expires: 1800"]),
        agreement(1800, Refresher::Uac, true),
        "somebody has to"
    );
    assert_eq!(of(&["Session-Expires: 3;refresher=uac"]), agreement(90, Refresher::Uac, true));
    assert_eq!((of(&[]), of(&["Session-Expires: ?"])), (Ok(None), Err(Unreadable)));
}

/// RFC 4028 §7.2 and §10: refresh at half, end a third before the end but at most 32 s.
#[test]
fn session_times_follow_the_interval() {
    let seconds = Duration::from_secs;
    for (interval, refresh, end) in
        [(1800, 900_000, 1768), (90, 45_000, 60), (96, 48_000, 64), (99, 49_500, 67)]
    {
        let agreement = Agreement { interval, refresher: Refresher::Uac, ours: true };
        assert_eq!(agreement.refresh_after(), Duration::from_millis(refresh), "{interval}");
        assert_eq!(agreement.end_after(), seconds(end), "{interval}");
    }
    let agreement = Agreement { interval: 600, refresher: Refresher::Uas, ours: true };
    assert_eq!(agreement.value(), "600;refresher=uas");
    assert_eq!(SessionTimer { min_se: 20, ..SessionTimer::default() }.least(), 90);
    assert_eq!(SessionTimer { min_se: 120, ..SessionTimer::default() }.least(), 120);
}
