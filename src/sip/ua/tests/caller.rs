//! INVITEs of ours.

use super::*;

fn call(bench: &mut Bench) -> (CallKey, Sent) {
    let call = bench.act(|ua, now| ua.invite(now, our_invite()));
    (call, bench.send())
}

/// Proves IM-016.
#[test]
fn a_2xx_is_acknowledged_on_the_way_it_showed_and_so_is_each_repetition() {
    let mut bench = Bench::new();
    let (call, invite) = call(&mut bench);
    assert_eq!(invite.next_hop(), "sip:orig@scscf.example;lr #0");
    assert_eq!(&invite.text()[invite.via_at.expect("a request has a Via to patch")..][..4], "UDP ");
    bench.gets(answer(&invite.message, 100, "", "", None));
    let x = "Contact: <sip:x@198.51.100.7>\r\nRecord-Route: <sip:near.example;lr>\r\n";
    bench.gets(answer(&invite.message, 183, "t1", x, None));
    bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
    assert_eq!(bench.heard(), "Provisional 183 t1 new, Answered t1");
    let ack = bench.send();
    assert_eq!(
        ack.message.uri(),
        "sip:bob@198.51.100.7:5066;gr=x",
        "the Contact of the 200, not of the 183"
    );
    assert_eq!(
        ack.all(Name::Route),
        ["<sip:near.example;lr>", "<sip:second.example;lr>", "<sip:first.example;lr>"],
        "Record-Route reversed"
    );
    assert_eq!(ack.next_hop(), "sip:near.example;lr #0");
    assert_eq!(ack.one(Name::CSeq), "1 ACK");
    assert_eq!(
        ack.one(Name::UserAgent),
        "",
        "the lines for requests in the dialog are not for ACK"
    );
    assert_ne!(ack.message.via().branch, invite.message.via().branch);
    for _ in 0..2 {
        bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
        assert_eq!(bench.send().text(), ack.text());
    }
    assert_eq!(bench.heard(), "");
    bench.act(|ua, now| ua.bye(now, call, b"Reason: SIP;cause=200\r\n"));
    let bye = bench.send();
    assert_eq!(bye.message.uri(), ack.message.uri());
    assert_eq!(bye.all(Name::Route), ack.all(Name::Route));
    assert_eq!(
        (bye.one(Name::CSeq), bye.one(Name::Reason)),
        ("2 BYE".into(), "SIP;cause=200".into())
    );
    assert_eq!(bye.one(Name::UserAgent), "pagecast");
    bench.gets(answer(&bye.message, 200, "", "", None));
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3261 §17.1.1.2: timer A doubles from T1 without an end until timer B.
///
/// Proves ISC-065.
#[test]
fn an_invite_nobody_answers_is_repeated_and_given_up() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    bench.after(ms(31_999));
    let repeated = bench.sends();
    let times: Vec<_> = repeated.iter().map(|sent| sent.at.as_millis()).collect();
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(repeated.iter().all(|sent| sent.text() == invite.text() && sent.key == invite.key));
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    assert_eq!((bench.heard(), bench.lines()), ("Rejected 408 Timeout".into(), String::new()));
    assert_eq!(bench.ua.stats().retransmissions_sent, 6);
}

#[test]
fn over_tcp_an_invite_is_sent_once() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    bench.went_by_tcp(&invite);
    bench.after(seconds(32));
    assert_eq!((bench.lines(), bench.heard()), (String::new(), "Rejected 408 Timeout".into()));
}

#[test]
fn a_protocol_that_loses_nothing_stops_repetitions_and_udp_does_not() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    bench.act(|ua, now| ua.sent(now, invite.key, Protocol::Udp));
    bench.after(ms(600));
    assert_eq!(bench.kinds(), "INVITE");
    bench.act(|ua, now| ua.sent(now, invite.key, Protocol::Tls));
    bench.after(seconds(10));
    assert_eq!(bench.kinds(), "");
}

/// B14: the ACK of a refusal goes the INVITE's way, in its branch, as often as the refusal comes.
#[test]
fn a_refusal_is_acknowledged_in_the_invites_own_branch() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    let lines = "Contact: <sip:else@x>\r\nRecord-Route: <sip:rr.example;lr>\r\n";
    bench.gets(answer(&invite.message, 486, "t1", lines, None));
    assert_eq!(bench.heard(), "Rejected 486 Response");
    let ack = bench.send();
    let routes = "Route: <sip:orig@scscf.example;lr>\r\nRoute: <sip:two.example;lr>\r\n";
    let via = invite.one(Name::Via);
    let from = invite.one(Name::From);
    assert_eq!(
        ack.text(),
        format!(
            "ACK sip:bob@home.example SIP/2.0\r\nVia: {via}\r\n{routes}Max-Forwards: 70\r\nFrom: {from}\r\n\
             To: <sip:bob@home.example>;tag=t1\r\nCall-ID: lm-03aa@192.0.2.1\r\nCSeq: 1 ACK\r\n\
             Content-Length: 0\r\n\r\n"
        )
    );
    assert_eq!(
        (ack.next_hop(), &ack.text()[ack.via_at.expect("a request")..][..3]),
        (invite.next_hop(), "UDP")
    );
    // RFC 3261 §17.1.1.3: the protocol is the INVITE's, too.
    assert_eq!(ack.counts_as(), invite.message.bytes().len());
    bench.after(seconds(31));
    bench.gets(answer(&invite.message, 486, "t1", lines, None));
    assert_eq!((bench.send().text(), bench.heard()), (ack.text(), String::new()));
    bench.after(seconds(2));
    bench.gets(answer(&invite.message, 486, "t1", lines, None));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Stray".into()), "timer D is over");
    bench.act(|ua, _| ua.close(key));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn over_tcp_a_refusal_ends_the_transaction_at_once() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.went_by_tcp(&invite);
    bench.gets(answer(&invite.message, 404, "t1", "", None));
    assert_eq!((bench.kinds(), bench.heard()), ("ACK".into(), "Rejected 404 Response".into()));
    bench.act(|ua, _| ua.close(key));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

const RELIABLE: &str = "Require: 100rel\r\nRSeq: 4711\r\nContact: <sip:bob@198.51.100.7>\r\n\
    Record-Route: <sip:far.example;lr>, <sip:near.example;lr>\r\n";

/// B15. RFC 3262 §4, §7.2. The whole request: nothing of an initial one is in it.
///
/// Proves IM-011, IM-014, ISC-014.
#[test]
fn a_reliable_provisional_response_gets_its_prack() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 183, "t1", RELIABLE, Some(SDP)));
    assert_eq!(bench.heard(), "Provisional 183 t1 new");
    let prack = bench.send();
    let from = invite.one(Name::From);
    let via = prack.one(Name::Via);
    assert_eq!(
        prack.text(),
        format!(
            "PRACK sip:bob@198.51.100.7 SIP/2.0\r\nVia: {via}\r\nRoute: <sip:near.example;lr>\r\n\
             Route: <sip:far.example;lr>\r\nMax-Forwards: 70\r\nFrom: {from}\r\n\
             To: <sip:bob@home.example>;tag=t1\r\nCall-ID: lm-03aa@192.0.2.1\r\nCSeq: 2 PRACK\r\n\
             RAck: 4711 1 INVITE\r\nUser-Agent: pagecast\r\nContent-Length: 0\r\n\r\n"
        )
    );
    assert_eq!(prack.next_hop(), "sip:near.example;lr #0");
    // A PRACK is a request like others: repeated until it is answered.
    bench.after(ms(500));
    assert_eq!(bench.send().text(), prack.text());
    bench.gets(answer(&prack.message, 200, "", "", None));
    bench.after(seconds(3));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    // The next one may come from elsewhere; the numbers go on.
    let moved = "Require: 100rel\r\nRSeq: 4712\r\nContact: <sip:moved@198.51.100.8>\r\n";
    bench.gets(answer(&invite.message, 180, "t1", moved, None));
    let second = bench.send();
    assert_eq!(
        (second.one(Name::CSeq), second.one(Name::RAck)),
        ("3 PRACK".into(), "4712 1 INVITE".into())
    );
    assert_eq!(second.message.uri(), "sip:moved@198.51.100.8");
    assert_eq!(second.all(Name::Route), prack.all(Name::Route), "the way stays known");
    assert_eq!(bench.heard(), "Provisional 180 t1");
}

/// RFC 3262 §4: which provisional responses are acknowledged, in the order they come.
///
/// Proves IM-012.
#[test]
fn only_the_next_reliable_response_gets_a_prack() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    let required = |rseq: u32| format!("Require: 100rel\r\nRSeq: {rseq}\r\n");
    let rows: &[(u16, &str, String, &str, &str)] = &[
        (100, "", String::new(), "", ""),
        (100, "t1", required(1), "", ""),
        (180, "t1", "RSeq: 1\r\n".into(), "", "Provisional 180 t1 new"),
        (180, "t1", "Require: 100rel\r\n".into(), "", "Provisional 180 t1"),
        (180, "t1", "Require: 100rel\r\nRSeq: 0\r\n".into(), "", "Provisional 180 t1"),
        (180, "t1", "Supported: 100rel\r\nRSeq: 1\r\n".into(), "", "Provisional 180 t1"),
        (183, "t1", required(1), "1 1 INVITE", "Provisional 183 t1"),
        (183, "t1", required(1), "", ""),
        (183, "t1", required(3), "", ""),
        (183, "t2", required(9), "9 1 INVITE", "Provisional 183 t2 new"),
        (183, "t1", required(2), "2 1 INVITE", "Provisional 183 t1"),
        (183, "t1", required(3), "3 1 INVITE", "Provisional 183 t1"),
        (183, "t1", required(1), "", ""),
        (183, "t2", required(10), "10 1 INVITE", "Provisional 183 t2"),
        (183, "", required(1), "", "Provisional 183  "),
    ];
    for (status, tag, lines, rack, heard) in rows {
        bench.gets(answer(&invite.message, *status, tag, lines, None));
        let racks: Vec<_> = bench.sends().iter().map(|sent| sent.one(Name::RAck)).collect();
        assert_eq!(racks.join(","), *rack, "{status} {tag} {lines}");
        assert_eq!(
            bench.heard(),
            heard.strip_suffix(' ').unwrap_or(heard),
            "{status} {tag} {lines}"
        );
    }
}

/// RFC 3261 §13.2.2.4.
///
/// Proves IM-059.
#[test]
fn of_several_phones_that_answer_the_first_is_kept() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    for tag in ["t1", "t2"] {
        bench.gets(answer(
            &invite.message,
            180,
            tag,
            &format!("Contact: <sip:{tag}@early>\r\n"),
            None,
        ));
    }
    assert_eq!(bench.heard(), "Provisional 180 t1 new, Provisional 180 t2 new");
    let ok = |tag: &str| {
        answer(&invite.message, 200, tag, &format!("Contact: <sip:{tag}@phone>\r\n"), Some(SDP))
    };
    bench.gets(ok("t2"));
    assert_eq!((bench.heard(), bench.send().message.uri()), ("Answered t2".into(), "sip:t2@phone"));
    for late in ["t1", "t3"] {
        bench.gets(ok(late));
        let sent = bench.sends();
        let kinds: Vec<_> =
            sent.iter().map(|sent| (sent.one(Name::CSeq), sent.message.uri().to_owned())).collect();
        let phone = format!("sip:{late}@phone");
        assert_eq!(kinds, [("1 ACK".to_owned(), phone.clone()), ("2 BYE".to_owned(), phone)]);
        assert_eq!(sent[1].message.to_tag(), Some(late.as_bytes()));
        bench.gets(answer(&sent[1].message, 200, "", "", None));
        bench.gets(ok(late));
        assert_eq!(bench.kinds(), "ACK", "once more the ACK, not the BYE");
    }
    assert_eq!(bench.heard(), "");
    // The surplus phone may end its side, too; the call goes on.
    bench.gets(Ask::back("BYE", 1, &invite.message, "t3").write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), String::new()));
    bench.after(seconds(33));
    bench.gets(ok("t1"));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Stray".into()), "timer M is over");
    bench.gets(Ask::back("BYE", 1, &invite.message, "t2").write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), "Bye".into()));
    bench.act(|ua, _| ua.close(key));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn an_invite_grows_no_more_dialogs_than_set() {
    let mut bench = Bench::with(Settings { max_forks: 2, thread: 3, ..Settings::default() });
    let (_, invite) = call(&mut bench);
    for tag in ["t1", "t2", "t3", "t2"] {
        bench.gets(answer(&invite.message, 180, tag, "", None));
    }
    assert_eq!(bench.heard(), "Provisional 180 t1 new, Provisional 180 t2 new, Provisional 180 t2");
    bench.gets(answer(&invite.message, 200, "t3", PHONE, None));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
}

/// B13. RFC 3261 §9.1: only after a provisional response, in the INVITE's branch and with its Route.
///
/// Proves IM-061.
#[test]
fn a_cancel_waits_for_a_provisional_response_and_follows_the_invite() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.act(|ua, now| ua.cancel(now, key, Some("SIP;cause=408")));
    assert_eq!(bench.kinds(), "");
    bench.gets(answer(&invite.message, 100, "", "", None));
    let cancel = bench.send();
    let (via, from) = (invite.one(Name::Via), invite.one(Name::From));
    assert_eq!(
        cancel.text(),
        format!(
            "CANCEL sip:bob@home.example SIP/2.0\r\nVia: {via}\r\nRoute: <sip:orig@scscf.example;lr>\r\n\
             Route: <sip:two.example;lr>\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: <sip:bob@home.example>\r\n\
             Call-ID: lm-03aa@192.0.2.1\r\nCSeq: 1 CANCEL\r\nReason: SIP;cause=408\r\nContent-Length: 0\r\n\r\n"
        )
    );
    assert_eq!(cancel.next_hop(), invite.next_hop());
    assert_eq!(cancel.counts_as(), invite.message.bytes().len(), "RFC 3261 §9.1: and its protocol");
    bench.act(|ua, now| ua.cancel(now, key, None));
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    assert_eq!(bench.kinds(), "", "one CANCEL is enough");
    bench.after(ms(500));
    assert_eq!(bench.kinds(), "CANCEL", "and is repeated until it is answered");
    bench.gets(answer(&cancel.message, 200, "t1", "", None));
    bench.gets(answer(&invite.message, 487, "t1", "", None));
    assert_eq!(
        (bench.kinds(), bench.heard()),
        ("ACK".into(), "Provisional 180 t1 new, Rejected 487 Response".into())
    );
    bench.act(|ua, _| ua.close(key));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3261 §9.1: the answer was on its way already.
///
/// Proves IM-061.
#[test]
fn an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    for provisional in [true, false] {
        let mut bench = Bench::new();
        let (key, invite) = call(&mut bench);
        if provisional {
            bench.gets(answer(&invite.message, 180, "t1", "", None));
        }
        bench.act(|ua, now| ua.cancel(now, key, None));
        assert_eq!(bench.kinds(), if provisional { "CANCEL" } else { "" });
        bench.events();
        bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
        let sent = bench.sends();
        assert_eq!(
            sent.iter().map(|sent| sent.one(Name::CSeq)).collect::<Vec<_>>(),
            ["1 ACK", "2 BYE"]
        );
        assert!(sent.iter().all(|sent| sent.message.uri() == "sip:bob@198.51.100.7:5066;gr=x"));
        assert_eq!(bench.heard(), "Rejected 487 Response");
        bench.gets(answer(&invite.message, 200, "t1", PHONE, Some(SDP)));
        assert_eq!(bench.kinds(), "ACK");
        bench.act(|ua, _| ua.close(key));
        bench.after(seconds(66));
        assert!(bench.is_empty(), "{:?}", bench.ua.stats());
    }
}

#[test]
fn a_cancelled_invite_without_a_final_answer_ends_after_64_t1() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    bench.act(|ua, now| ua.cancel(now, key, None));
    bench.events();
    bench.after(ms(31_999));
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    assert_eq!(bench.heard(), "Rejected 408 Timeout");
    bench.gets(answer(&invite.message, 200, "t1", "", None));
    assert_eq!(bench.heard(), "Stray");
    bench.act(|ua, _| ua.close(key));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn cancelling_has_its_time() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.act(|ua, now| ua.cancel(now, key, None));
    bench.after(seconds(32));
    assert!(!bench.kinds().contains("CANCEL"), "there was nothing to cancel");
    assert_eq!(bench.heard(), "Rejected 408 Timeout");
    bench.act(|ua, now| ua.cancel(now, key, None));
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Stray".into()));

    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 200, "t1", PHONE, None));
    bench.act(|ua, now| ua.cancel(now, key, None));
    assert_eq!(bench.kinds(), "ACK", "an answered INVITE is ended by BYE only");
}

#[test]
fn bye_before_the_answer_cancels() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    bench.act(|ua, now| ua.bye(now, key, b""));
    assert_eq!(bench.kinds(), "CANCEL");
}

#[test]
fn bye_goes_once() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 200, "t1", PHONE, None));
    bench.act(|ua, now| ua.bye(now, key, b""));
    bench.act(|ua, now| ua.bye(now, key, b""));
    assert_eq!(bench.kinds(), "ACK, BYE");
}

/// Both ends hang up at the same time: the peer's BYE is answered and nothing new.
#[test]
fn two_byes_may_cross() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 200, "t1", PHONE, None));
    bench.act(|ua, now| ua.bye(now, key, b""));
    bench.sends();
    bench.events();
    bench.gets(Ask::back("BYE", 1, &invite.message, "t1").write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), String::new()));
    bench.gets(Ask::back("INFO", 2, &invite.message, "t1").write());
    assert_eq!((bench.kinds(), bench.heard()), ("481 INFO".into(), String::new()));
}

#[test]
fn a_closed_call_still_does_what_it_owes() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    bench.events();
    bench.act(|ua, _| ua.close(key));
    assert_eq!(bench.kinds(), "CANCEL");
    bench.act(|ua, _| ua.close(key));
    bench.gets(answer(&invite.message, 180, "t1", "", None));
    bench.gets(Ask::back("INFO", 1, &invite.message, "t1").write());
    assert_eq!((bench.kinds(), bench.heard()), ("481 INFO".into(), String::new()));
    bench.gets(answer(&invite.message, 200, "t1", PHONE, None));
    assert_eq!((bench.kinds(), bench.heard()), ("ACK, BYE".into(), String::new()));
    bench.after(seconds(66));
    assert_eq!(bench.heard(), "");
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// The message part of the rule; which answers are tried again is decided above.
#[test]
fn a_second_attempt_keeps_call_id_and_tag_and_raises_cseq() {
    let mut bench = Bench::new();
    let (key, invite) = call(&mut bench);
    bench.act(|ua, now| ua.invite_again(now, key, our_invite()));
    assert_eq!(bench.kinds(), "", "not while it is pending");
    bench.gets(answer(&invite.message, 183, "t1", RELIABLE, None));
    let prack = bench.send();
    bench.gets(answer(&prack.message, 200, "", "", None));
    bench.gets(answer(&invite.message, 422, "t1", "Min-SE: 3600\r\n", None));
    bench.sends();
    bench.events();
    let again = Invite { call_id: "ignored".into(), session_expires: Some(3600), ..our_invite() };
    bench.act(|ua, now| ua.invite_again(now, key, again));
    let second = bench.send();
    assert_eq!(second.one(Name::From), invite.one(Name::From));
    assert_eq!(
        (second.one(Name::CallId), second.one(Name::To)),
        (invite.one(Name::CallId), invite.one(Name::To))
    );
    assert_eq!(second.one(Name::CSeq), "3 INVITE", "2 was the PRACK");
    assert_ne!(second.message.via().branch, invite.message.via().branch);
    assert_eq!(
        (second.one(Name::SessionExpires), second.one(Name::MinSe)),
        ("3600".into(), "90".into())
    );
    bench.gets(answer(&second.message, 200, "t1", PHONE, Some(SDP)));
    assert_eq!(
        (bench.send().one(Name::CSeq), bench.heard()),
        ("3 ACK".into(), "Answered t1".into())
    );
    bench.act(|ua, now| ua.invite_again(now, key, our_invite()));
    assert_eq!(bench.kinds(), "", "not once it was answered");
    // The first attempt's transaction ends; the second's 2xx is still acknowledged.
    bench.after(ms(31_999));
    bench.gets(answer(&second.message, 200, "t1", PHONE, Some(SDP)));
    assert_eq!(bench.kinds(), "ACK");
}

#[test]
fn session_headers_are_written_once_and_only_if_asked_for() {
    let mut bench = Bench::new();
    let (_, plain) = call(&mut bench);
    assert_eq!(
        (plain.one(Name::SessionExpires), plain.one(Name::MinSe)),
        (String::new(), String::new())
    );
    let timed =
        Invite { session_expires: Some(1800), refresher: Some(Refresher::Uas), ..our_invite() };
    bench.act(|ua, now| ua.invite(now, timed));
    let timed = bench.send();
    assert_eq!(timed.one(Name::SessionExpires), "1800;refresher=uas");
    assert_eq!(timed.one(Name::MinSe), "90");
    assert_eq!(timed.message.body(), OUR_SDP.as_bytes());
    assert_eq!(timed.one(Name::MaxForwards), "65");
}

#[test]
fn with_full_tables_an_invite_is_rejected_without_leaving() {
    for settings in [
        Settings { max_calls: 1, thread: 3, ..Settings::default() },
        Settings { max_transactions: 1, thread: 3, ..Settings::default() },
    ] {
        let mut bench = Bench::with(settings);
        call(&mut bench);
        let key = bench.act(|ua, now| ua.invite(now, our_invite()));
        assert_eq!(
            (bench.kinds(), bench.heard()),
            (String::new(), "Rejected 503 Transport".into())
        );
        assert_eq!((bench.ua.stats().refused_full, bench.ua.stats().calls), (1, 2));
        bench.act(|ua, _| ua.close(key));
        assert_eq!(bench.ua.stats().calls, 1);
    }
}

/// RFC 3263 §4.3: a new branch for each next hop, and only as long as nobody has answered.
///
/// Proves ISC-071.
#[test]
fn the_next_alternate_is_tried_before_any_response_only() {
    let mut bench = Bench::new();
    let (key, first) = call(&mut bench);
    bench.went_by_tcp(&first);
    bench.after(ms(100));
    bench.act(|ua, now| ua.send_failed(now, first.key, true));
    let second = bench.send();
    assert_eq!(second.next_hop(), "sip:orig@scscf.example;lr #1");
    assert_ne!(second.message.via().branch, first.message.via().branch);
    let rest = |sent: &Sent| {
        sent.text().lines().filter(|line| !line.starts_with("Via")).collect::<Vec<_>>().join("|")
    };
    assert_eq!(rest(&second), rest(&first));
    bench.gets(answer(&first.message, 180, "t1", "", None));
    assert_eq!(bench.heard(), "Stray", "the old branch is dead");
    bench.after(ms(500));
    assert_eq!(bench.lines(), "0.600 INVITE", "its timers start anew, the protocol is open again");
    bench.gets(answer(&second.message, 180, "t1", "", None));
    bench.events();
    bench.act(|ua, now| ua.send_failed(now, second.key, true));
    assert_eq!(
        (bench.kinds(), bench.heard()),
        (String::new(), String::new()),
        "somebody has answered"
    );
    bench.act(|ua, now| ua.cancel(now, key, None));
    let cancel = bench.send();
    assert_eq!(cancel.next_hop(), second.next_hop(), "the CANCEL goes where the INVITE went");
    assert_eq!(cancel.one(Name::Via), second.one(Name::Via));
    bench.act(|ua, now| ua.send_failed(now, cancel.key, true));
    assert_eq!(bench.kinds(), "");

    let (_, invite) = call(&mut bench);
    bench.act(|ua, now| ua.send_failed(now, invite.key, false));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Rejected 503 Transport".into()));
    assert_eq!(bench.ua.stats().send_failures, 4);
}

/// A 503, or silence, leads to the next address in a new branch; the ACK of the 503 stays at the old one.
///
/// Proves ISC-071.
#[test]
fn a_busy_or_silent_hop_is_left_for_the_next_one() {
    let mut bench = Bench::new();
    let (_, first) = call(&mut bench);
    bench.act(|ua, _| ua.alternate(first.key, 2));
    bench.gets(answer(&first.message, 100, "", "", None));
    bench.gets(answer(&first.message, 503, "t", "", None));
    let sent = bench.sends();
    let [ack, second] = &sent[..] else { panic!("{:?}", bench.lines()) };
    assert_eq!((ack.line().as_str(), ack.next_hop()), ("0.000 ACK", first.next_hop()));
    assert_eq!(ack.message.via().branch, first.message.via().branch);
    assert_eq!(second.next_hop(), first.next_hop().replace("#0", "#2"));
    assert_ne!(second.message.via().branch, first.message.via().branch);
    let same = |name| assert_eq!(second.one(name), first.one(name));
    [Name::CallId, Name::CSeq, Name::From, Name::To, Name::Contact].into_iter().for_each(same);
    assert_eq!(bench.heard(), "", "nobody above has to know");
    // The old hop has not heard the ACK.
    bench.gets(answer(&first.message, 503, "t", "", None));
    assert_eq!(bench.kinds(), "ACK");
    // Silence at the second one: 64×T1, then the third.
    bench.act(|ua, _| ua.alternate(second.key, 3));
    bench.after(seconds(32));
    let third = bench.sends().pop().expect("sent");
    assert_eq!(third.next_hop(), first.next_hop().replace("#0", "#3"));
    assert_eq!(bench.heard(), "");
    bench.gets(answer(&third.message, 180, "t3", PHONE, None));
    // A dialog is there: this one is it.
    bench.act(|ua, _| ua.alternate(third.key, 4));
    bench.gets(answer(&third.message, 503, "t3", "", None));
    assert_eq!(
        (bench.kinds(), bench.heard()),
        ("ACK".into(), "Provisional 180 t3 new, Rejected 503 Response".into())
    );
    bench.after(seconds(33));
    assert_eq!(bench.ua.stats().client_transactions, 0);
}

/// Proves ISC-071.
#[test]
fn the_busy_hop_has_the_last_word_where_no_other_can_be_reached() {
    let mut bench = Bench::new();
    let (_, first) = call(&mut bench);
    bench.act(|ua, _| ua.alternate(first.key, 1));
    bench.gets(answer(&first.message, 503, "t", "Retry-After: 7\r\n", None));
    let second = bench.sends().pop().expect("sent");
    bench.act(|ua, now| ua.send_failed(now, second.key, false));
    let events = bench.events();
    let [Event::Rejected { status: 503, message: Some(message), cause: Failure::Response, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(message.text(Name::RetryAfter), Some("7"));
}

/// A cancelled INVITE goes nowhere else, and neither do requests in a dialog.
#[test]
fn only_what_opens_something_goes_elsewhere() {
    let mut bench = Bench::new();
    let (key, first) = call(&mut bench);
    bench.act(|ua, _| ua.alternate(first.key, 1));
    bench.act(|ua, now| ua.cancel(now, key, None));
    bench.gets(answer(&first.message, 503, "t", "", None));
    assert_eq!((bench.kinds(), bench.heard()), ("ACK".into(), "Rejected 503 Response".into()));

    let (key, first) = call(&mut bench);
    assert!(bench.ua.opening(first.key).is_some());
    bench.gets(answer(&first.message, 200, "t", PHONE, Some(SDP)));
    assert!(bench.ua.opening(first.key).is_none());
    bench.sends();
    bench.act(|ua, now| ua.bye(now, key, b""));
    let bye = bench.send();
    assert!(bench.ua.opening(bye.key).is_none());
    bench.act(|ua, _| ua.alternate(bye.key, 1));
    bench.gets(answer(&bye.message, 503, "t", "Retry-After: 5\r\n", None));
    assert_eq!((bench.kinds(), bench.ua.unavailable()), (String::new(), None));
}

/// Proves ISC-069.
#[test]
fn a_pause_is_told_as_the_503_says_it() {
    for (line, seconds) in [
        ("Retry-After: 5\r\n", Some(5)),
        ("Retry-After: 120 (in a meeting)\r\n", Some(120)),
        ("Retry-After: 18000;duration=3600\r\n", Some(18_000)),
        ("Retry-After: 99999999999\r\n", Some(u32::MAX)),
        ("Retry-After: 0\r\n", None),
        ("Retry-After: soon\r\n", None),
        ("", None),
    ] {
        let mut bench = Bench::new();
        let (_, invite) = call(&mut bench);
        bench.gets(answer(&invite.message, 503, "t", line, None));
        let told = bench.ua.unavailable();
        assert_eq!(told.as_ref().map(|busy| busy.seconds), seconds, "{line}");
        let Some(told) = told else { continue };
        let Target::NextHop { attempt: 0, .. } = told.to else { panic!("{told:?}") };
        // Nobody else's 503 counts.
        bench.gets(answer(&invite.message, 503, "t", line, None));
        assert_eq!(bench.ua.unavailable(), None);
    }
}

/// Proves ISC-016.
#[test]
fn names_of_ours_carry_the_thread() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    let branch = invite.message.via().branch.expect("a branch").to_owned();
    assert!(branch.starts_with("z9hG4bK03") && branch.len() == 25, "{branch}");
    let tag = invite.message.from_tag().map(|tag| String::from_utf8_lossy(tag).into_owned());
    assert!(tag.as_ref().is_some_and(|tag| tag.starts_with("03") && tag.len() == 18), "{tag:?}");
    assert_eq!(
        invite.text().lines().nth(1).map(|line| &line[..35]),
        Some("Via: SIP/2.0/UDP 192.0.2.1:5060;bra")
    );
    assert!(invite.one(Name::Via).ends_with(";rport"));
    assert_eq!(invite.all(Name::Via).len(), 1);
    let call_id = bench.ua.fresh_call_id();
    assert!(call_id.starts_with("lm-03") && call_id.ends_with("@192.0.2.1"), "{call_id}");
}

/// What the peer echoes must be what we asked; anything else reaches no call.
#[test]
fn a_response_has_to_fit_its_request() {
    let mut bench = Bench::new();
    let (_, invite) = call(&mut bench);
    let good = answer(&invite.message, 200, "t1", PHONE, None);
    let text = String::from_utf8_lossy(good.bytes()).into_owned();
    let via = good.via().branch.unwrap_or_default().to_owned();
    for (from, to) in [
        ("CSeq: 1 INVITE", "CSeq: 2147483647 INVITE"),
        ("CSeq: 1 INVITE", "CSeq: 1 BYE"),
        ("CSeq: 1 INVITE", "CSeq: 1 CANCEL"),
        (via.as_str(), "z9hG4bK03ffffffffffffffff"),
        ("z9hG4bK03", "z9hG4bK04"),
        (via.as_str(), "z9hG4bK03"),
        (via.as_str(), "other"),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text);
        bench.gets(parse(bad.into()));
        assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Stray".into()), "{to}");
    }
    assert_eq!(bench.ua.stats().stray, 7);
    bench.gets(good);
    assert_eq!((bench.kinds(), bench.heard()), ("ACK".into(), "Answered t1".into()));
}
