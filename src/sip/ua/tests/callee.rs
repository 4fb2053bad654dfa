//! INVITEs of the peer.

use super::*;

/// The peer's INVITE arrives: the call, and the 100 that left.
fn invited(bench: &mut Bench, ask: &Ask) -> (CallKey, Sent) {
    bench.sends();
    bench.events();
    bench.gets(ask.write());
    let trying = bench.send();
    let events = bench.events();
    let [Event::Invited { call, .. }] = events[..] else { panic!("{events:?}") };
    (call, trying)
}

fn progress(bench: &mut Bench, call: CallKey, reply: Reply) {
    bench.act(|ua, now| ua.progress(now, call, reply));
}

fn rings(bench: &mut Bench, call: CallKey) {
    progress(bench, call, Reply { reliable: true, ..our_answer(183) });
}

fn answers(bench: &mut Bench, call: CallKey) {
    bench.act(|ua, now| ua.answer(now, call, our_answer(200)));
}

fn rejects(bench: &mut Bench, call: CallKey, status: u16) {
    bench.act(|ua, now| ua.reject(now, call, Reply::new(status)));
}

fn with_100rel() -> Ask {
    Ask::invite().line("Supported: timer, 100rel")
}

fn prack(response: &Sent, cseq: u32, rack: &str) -> Message {
    Ask::inside("PRACK", cseq, &response.message).line(&format!("RAck: {rack}")).write()
}

fn rseq_of(sent: &Sent) -> u32 {
    sent.one(Name::RSeq).parse().expect("a number")
}

/// B17 and B20: 100 at once and without a tag, the same tag on everything else, repeated INVITEs get the last answer.
///
/// Proves ISC-013.
#[test]
fn a_call_from_its_invite_to_its_bye() {
    let mut bench = Bench::new();
    let ask = Ask::invite();
    let (call, trying) = invited(&mut bench, &ask);
    assert_eq!(
        (trying.message.status(), trying.message.to_tag(), trying.at),
        (Some(100), None, ms(0))
    );
    assert_eq!((trying.one(Name::Server), trying.via_at), ("pagecast".into(), None));
    bench.after(ms(500));
    bench.gets(ask.write());
    assert_eq!(bench.send().text(), trying.text());
    progress(&mut bench, call, our_answer(183));
    let early = bench.send();
    assert_eq!((early.one(Name::RSeq), early.one(Name::Require)), (String::new(), String::new()));
    bench.gets(ask.write());
    assert_eq!(bench.send().text(), early.text());
    bench.after(seconds(100));
    assert_eq!(bench.kinds(), "", "an unreliable 183 is not repeated by itself");
    answers(&mut bench, call);
    let ok = bench.send();
    for sent in [&early, &ok] {
        assert_eq!(sent.message.to_tag(), early.message.to_tag());
        assert!(sent.message.to_tag().is_some_and(|tag| tag.starts_with(b"03")));
        assert_eq!(sent.one(Name::RecordRoute), "<sip:scscf.example;lr>, <sip:pcscf.example;lr>");
        assert_eq!(sent.one(Name::Contact), "<sip:session1@192.0.2.1>");
        assert_eq!(sent.one(Name::Server), "pagecast");
        assert_eq!(sent.message.body(), OUR_SDP.as_bytes());
        assert_eq!(sent.to, Target::Flow(flow(Protocol::Udp)));
    }
    bench.gets(ask.write());
    assert_eq!(
        bench.kinds(),
        "",
        "a repeated INVITE is absorbed, the 2xx is repeated by its own clock"
    );
    bench.gets(Ask::inside("ACK", 1, &ok.message).write());
    assert_eq!(bench.heard(), "Acked");
    bench.gets(Ask::inside("ACK", 1, &ok.message).branch("again").write());
    assert_eq!(bench.heard(), "");
    bench.after(seconds(1));
    bench.gets(Ask::inside("BYE", 2, &ok.message).write());
    assert_eq!((bench.heard(), bench.kinds()), ("Bye".into(), "200 BYE".into()));
    bench.act(|ua, now| ua.bye(now, call, b""));
    answers(&mut bench, call);
    rejects(&mut bench, call, 500);
    assert_eq!(bench.kinds(), "");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// B19. RFC 3261 §13.3.1.4: on any protocol, from T1 on, doubling to T2, 32 s long.
///
/// Proves IM-066.
#[test]
fn a_2xx_nobody_acknowledges_is_repeated_and_reported() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut bench = Bench::new();
        bench.protocol = protocol;
        let (call, _) = invited(&mut bench, &Ask::invite());
        answers(&mut bench, call);
        let ok = bench.send();
        bench.after(ms(31_999));
        let repeated = bench.sends();
        let times: Vec<_> = repeated.iter().map(|sent| sent.at.as_millis()).collect();
        let wanted = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
        assert_eq!(times, wanted, "{protocol:?}");
        assert!(repeated.iter().all(|sent| sent.text() == ok.text() && sent.to == ok.to));
        assert_eq!(bench.heard(), "");
        bench.after(ms(1));
        assert_eq!(bench.heard(), "AckMissing");
        bench.act(|ua, now| ua.bye(now, call, b"Reason: SIP;cause=408\r\n"));
        let bye = bench.send();
        assert_eq!(
            (bye.one(Name::CSeq), bye.one(Name::Reason)),
            ("1 BYE".into(), "SIP;cause=408".into())
        );
        assert_eq!(bye.message.uri(), "sip:alice@192.0.2.9;transport=udp");
        assert_eq!(bye.all(Name::Route), ["<sip:scscf.example;lr>", "<sip:pcscf.example;lr>"]);
        assert_eq!(
            (bye.next_hop(), bye.one(Name::UserAgent)),
            ("sip:scscf.example;lr #0".into(), "pagecast".into())
        );
        assert_eq!(
            bye.one(Name::From),
            format!(
                "<sip:list@im.example>;tag={}",
                String::from_utf8_lossy(ok.message.to_tag().unwrap_or_default())
            )
        );
        assert_eq!(bye.one(Name::To), "<sip:alice@ue.example>;tag=alice");
        bench.act(|ua, _| ua.close(call));
        bench.after(seconds(33));
        assert!(bench.is_empty(), "{:?}", bench.ua.stats());
    }
}

#[test]
fn an_ack_stops_the_2xx() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    answers(&mut bench, call);
    let ok = bench.send();
    bench.after(ms(600));
    assert_eq!(bench.kinds(), "200 INVITE");
    bench.gets(Ask::inside("ACK", 2, &ok.message).write());
    assert_eq!(bench.heard(), "", "an ACK of another number");
    bench.gets(Ask::inside("ACK", 1, &ok.message).write());
    assert_eq!(bench.heard(), "Acked");
    bench.after(seconds(40));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    assert_eq!(bench.ua.stats().stray, 1);
}

/// Some peers put the ACK of a 2xx into the INVITE's own branch.
#[test]
fn an_ack_in_the_invites_branch_counts_for_a_2xx_too() {
    let mut bench = Bench::new();
    let ask = Ask::invite();
    let (call, _) = invited(&mut bench, &ask);
    answers(&mut bench, call);
    let ok = bench.send();
    let mut ack = Ask::inside("ACK", 1, &ok.message);
    ack.branch.clone_from(&ask.branch);
    bench.gets(ack.write());
    assert_eq!((bench.heard(), bench.ua.stats().stray), ("Acked".into(), 0));
}

/// B24. RFC 3261 §17.2.1: a refusal is repeated over UDP only, until its ACK, which is absorbed for T4.
#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut bench = Bench::new();
    let ask = Ask::invite();
    let (call, _) = invited(&mut bench, &ask);
    rejects(&mut bench, call, 486);
    let refusal = bench.send();
    assert_eq!(
        (refusal.message.status(), refusal.one(Name::RecordRoute)),
        (Some(486), String::new())
    );
    assert!(refusal.message.to_tag().is_some());
    bench.after(seconds(9));
    assert_eq!(
        bench.lines(),
        "0.500 486 INVITE\n1.500 486 INVITE\n3.500 486 INVITE\n7.500 486 INVITE"
    );
    bench.gets(ask.write());
    assert_eq!(bench.send().text(), refusal.text());
    let mut ack = Ask::inside("ACK", 1, &refusal.message);
    ack.branch.clone_from(&ask.branch);
    bench.gets(ack.write());
    bench.gets(ack.write());
    bench.gets(ask.write());
    bench.after(ms(4_999));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    assert_eq!((bench.ua.stats().server_transactions, bench.ua.stats().stray), (1, 0));
    bench.act(|ua, _| ua.close(call));
    bench.after(ms(1));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());

    let (call, _) = invited(&mut bench, &ask);
    rejects(&mut bench, call, 404);
    bench.sends();
    bench.after(ms(31_999));
    assert_eq!(bench.kinds().split(", ").count(), 10);
    bench.act(|ua, _| ua.close(call));
    bench.after(ms(1));
    assert!(bench.is_empty(), "timer H: {:?}", bench.ua.stats());

    bench.protocol = Protocol::Tcp;
    let (call, _) = invited(&mut bench, &ask);
    rejects(&mut bench, call, 404);
    assert_eq!(bench.kinds(), "404 INVITE");
    bench.after(seconds(31));
    assert_eq!(bench.kinds(), "");
    bench.gets(ack.write());
    bench.act(|ua, _| ua.close(call));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3262 §3: from T1 on, doubling without a cap, 500 after 64×T1.
///
/// Proves IM-053.
#[test]
fn a_2xx_waits_for_the_prack_of_a_described_183() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &with_100rel());
    rings(&mut bench, call);
    let early = bench.send();
    assert_eq!(early.one(Name::Require), "100rel");
    assert_eq!(early.one(Name::RecordRoute), "<sip:scscf.example;lr>, <sip:pcscf.example;lr>");
    let rseq = rseq_of(&early);
    assert!((1..1 << 31).contains(&rseq));
    answers(&mut bench, call);
    answers(&mut bench, call);
    bench.after(ms(31_999));
    let repeated = bench.sends();
    let times: Vec<_> = repeated.iter().map(|sent| sent.at.as_millis()).collect();
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert!(
        repeated.iter().all(|sent| sent.text() == early.text() && sent.to == early.to),
        "and no 200"
    );
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    assert_eq!((bench.kinds(), bench.heard()), ("500 INVITE".into(), "PrackMissing".into()));
    bench.gets(prack(&early, 2, &format!("{rseq} 1 INVITE")));
    assert!(!bench.kinds().contains("200 INVITE"), "too late");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(40));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());

    let (call, _) = invited(&mut bench, &with_100rel());
    rings(&mut bench, call);
    let early = bench.send();
    answers(&mut bench, call);
    bench.after(ms(499));
    assert_eq!(bench.kinds(), "");
    bench.gets(prack(&early, 2, &format!("{} 1 INVITE", rseq_of(&early))));
    assert_eq!(bench.kinds(), "200 PRACK, 200 INVITE");
    bench.after(ms(499));
    assert_eq!(bench.kinds(), "");
    bench.after(ms(1));
    assert_eq!(bench.kinds(), "200 INVITE", "the 183 rests, the 200 waits for its ACK");
}

#[test]
fn a_2xx_does_not_wait_for_a_ringing_without_description() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &with_100rel());
    let bare = |status| Reply { reliable: true, ..Reply::new(status) };
    progress(&mut bench, call, bare(180));
    progress(&mut bench, call, bare(181));
    let ringing = bench.send();
    answers(&mut bench, call);
    assert_eq!(bench.kinds(), "200 INVITE");
    bench.gets(prack(&ringing, 2, &format!("{} 1 INVITE", rseq_of(&ringing))));
    assert_eq!(bench.kinds(), "200 PRACK", "it may still be acknowledged; 181 says nothing new");
    bench.after(ms(1_499));
    assert_eq!(bench.kinds(), "200 INVITE");
}

/// RFC 3262 §3.
///
/// Proves ISC-062.
#[test]
fn reliable_responses_go_one_at_a_time() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &with_100rel());
    rings(&mut bench, call);
    progress(&mut bench, call, Reply { reliable: true, ..Reply::new(180) });
    progress(&mut bench, call, Reply { reliable: true, ..Reply::new(182) });
    let first = bench.send();
    let rseq = rseq_of(&first);
    let wrong = [
        format!("{} 1 INVITE", rseq + 1),
        format!("{} 1 INVITE", rseq - 1),
        format!("{rseq} 2 INVITE"),
        format!("{rseq} 1 UPDATE"),
    ];
    for (cseq, rack) in (2..).zip(wrong) {
        bench.gets(prack(&first, cseq, &rack));
        assert_eq!(bench.kinds(), "481 PRACK", "{rack}");
    }
    bench.gets(Ask::inside("PRACK", 6, &first.message).write());
    bench.gets(prack(&first, 7, "soon"));
    assert_eq!(bench.kinds(), "400 PRACK, 400 PRACK");
    let right = prack(&first, 8, &format!("{rseq} 1 INVITE"));
    bench.gets(right.clone());
    let sent = bench.sends();
    assert_eq!(
        sent.iter().map(|sent| sent.message.status()).collect::<Vec<_>>(),
        [Some(200), Some(180)]
    );
    assert_eq!(sent[0].one(Name::CSeq), "8 PRACK");
    assert_eq!((rseq_of(&sent[1]), sent[1].one(Name::Require)), (rseq + 1, "100rel".into()));
    bench.gets(right);
    assert_eq!(bench.kinds(), "200 PRACK", "repeated: its transaction answers");
    bench.gets(prack(&first, 9, &format!("{rseq} 1 INVITE")));
    assert_eq!(bench.kinds(), "481 PRACK", "acknowledged already");
    bench.after(ms(500));
    assert_eq!(bench.kinds(), "180 INVITE");
    bench.gets(prack(&first, 10, &format!("{} 1 INVITE", rseq + 1)));
    let sent = bench.sends();
    assert_eq!((sent[1].message.status(), rseq_of(&sent[1])), (Some(182), rseq + 2));
    rejects(&mut bench, call, 486);
    assert_eq!(bench.kinds(), "486 INVITE");
    bench.after(ms(499));
    assert_eq!(bench.kinds(), "", "a final answer ends the repetitions");
}

/// Proves ISC-062.
#[test]
fn what_is_reliable_is_the_peers_choice() {
    // (the INVITE's line, what we ask for, reliable on the wire)
    let rows = [
        ("Supported: 100rel", true, true),
        ("Supported: 100rel", false, false),
        ("Require: 100rel", false, true),
        ("Require: 100rel", true, true),
        ("Supported: timer", true, false),
    ];
    for (line, reliable, on_the_wire) in rows {
        let mut bench = Bench::new();
        let (call, _) = invited(&mut bench, &Ask::invite().line(line));
        progress(&mut bench, call, Reply { reliable, ..Reply::new(183) });
        assert_eq!(!bench.send().one(Name::RSeq).is_empty(), on_the_wire, "{line} {reliable}");
        bench.after(ms(600));
        assert_eq!(!bench.kinds().is_empty(), on_the_wire, "{line} {reliable}");
    }
}

/// The description in a PRACK: the same again is answered, a new one is not for this session.
#[test]
fn a_prack_may_repeat_the_offer() {
    let other = SDP.replace("2855", "2999");
    for (sdp, status, body) in [(SDP, 200, OUR_SDP), (other.as_str(), 488, "")] {
        let mut bench = Bench::new();
        let (call, _) = invited(&mut bench, &with_100rel());
        rings(&mut bench, call);
        let early = bench.send();
        let rack = format!("RAck: {} 1 INVITE", rseq_of(&early));
        bench.gets(Ask::inside("PRACK", 2, &early.message).line(&rack).sdp(sdp).write());
        let answer = bench.send();
        assert_eq!(
            (answer.message.status(), answer.message.body()),
            (Some(status), body.as_bytes())
        );
    }
}

/// RFC 3261 §9.2.
///
/// Proves IM-063.
#[test]
fn a_cancel_ends_a_pending_invite_and_no_other() {
    let mut bench = Bench::new();
    let ask = Ask::invite();
    let (call, _) = invited(&mut bench, &ask);
    progress(&mut bench, call, our_answer(183));
    let early = bench.send();
    let mut cancel = Ask::new("CANCEL");
    cancel.branch.clone_from(&ask.branch);
    bench.gets(cancel.write());
    let sent = bench.sends();
    let answers_: Vec<_> =
        sent.iter().map(|sent| (sent.message.status(), sent.one(Name::CSeq))).collect();
    assert_eq!(answers_, [(Some(200), "1 CANCEL".into()), (Some(487), "1 INVITE".into())]);
    assert!(sent.iter().all(|sent| sent.message.to_tag() == early.message.to_tag()));
    assert_eq!(bench.heard(), "Cancelled");
    bench.gets(cancel.write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 CANCEL".into(), String::new()), "repeated");
    answers(&mut bench, call);
    assert_eq!(bench.kinds(), "");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(40));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());

    let (call, _) = invited(&mut bench, &ask);
    answers(&mut bench, call);
    bench.sends();
    bench.gets(cancel.write());
    assert_eq!(
        (bench.kinds(), bench.heard()),
        ("200 CANCEL".into(), String::new()),
        "after our 200: nothing else"
    );
    let (events, stray) = (bench.heard(), Ask::new("CANCEL").branch("unknown").write());
    bench.gets(stray);
    let refusal = bench.send();
    assert_eq!((refusal.message.status(), events), (Some(481), String::new()));
    assert!(refusal.message.to_tag().is_some());
}

#[test]
fn a_bye_ends_an_early_call() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &with_100rel());
    rings(&mut bench, call);
    let early = bench.send();
    bench.gets(Ask::inside("BYE", 2, &early.message).write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE, 487 INVITE".into(), "Bye".into()));
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(40));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3261 §15: the callee's BYE comes after the ACK of its 2xx.
#[test]
fn our_bye_waits_for_the_ack() {
    let mut bench = Bench::new();
    for missing in [false, true] {
        let (call, _) = invited(&mut bench, &Ask::invite());
        answers(&mut bench, call);
        let ok = bench.send();
        bench.act(|ua, now| ua.bye(now, call, b"Reason: SIP;cause=200\r\n"));
        assert_eq!(bench.kinds(), "");
        bench.act(|ua, _| ua.close(call));
        if missing {
            bench.after(seconds(32));
        } else {
            bench.gets(Ask::inside("ACK", 1, &ok.message).write());
        }
        let sent = bench.sends();
        let bye = sent.last().expect("a BYE");
        assert_eq!(
            (bye.one(Name::CSeq), bye.one(Name::Reason)),
            ("1 BYE".into(), "SIP;cause=200".into())
        );
        assert_eq!(bench.heard(), "", "the call was closed");
        bench.after(seconds(40));
        assert!(bench.is_empty(), "{:?}", bench.ua.stats());
        bench.sends();
    }
}

#[test]
fn the_peers_bye_ends_the_wait_for_its_ack() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    answers(&mut bench, call);
    let ok = bench.send();
    bench.act(|ua, now| ua.bye(now, call, b""));
    bench.gets(Ask::inside("BYE", 2, &ok.message).write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), "Bye".into()));
    bench.after(seconds(40));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    bench.act(|ua, _| ua.close(call));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn bye_or_close_before_our_answer_refuses() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    bench.act(|ua, now| ua.bye(now, call, b""));
    assert_eq!(bench.kinds(), "480 INVITE");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(40));
    bench.sends();
    let (call, _) = invited(&mut bench, &with_100rel());
    rings(&mut bench, call);
    bench.act(|ua, _| ua.close(call));
    assert_eq!(bench.kinds(), "183 INVITE, 480 INVITE");
    bench.after(seconds(40));
    assert_eq!(bench.heard(), "");
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn a_call_closed_while_it_runs_is_gone_for_the_peer() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    answers(&mut bench, call);
    let ok = bench.send();
    bench.act(|ua, _| ua.close(call));
    bench.after(ms(500));
    assert_eq!(bench.kinds(), "200 INVITE", "the ACK is still awaited");
    bench.gets(Ask::inside("INFO", 2, &ok.message).write());
    assert_eq!(bench.kinds(), "481 INFO");
    bench.gets(Ask::inside("ACK", 1, &ok.message).write());
    assert_eq!((bench.ua.stats().calls, bench.heard()), (0, String::new()));
    bench.after(seconds(40));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// Statuses that do not belong to a method are not sent.
#[test]
fn each_answer_has_its_range() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    for status in [99, 100, 200, 300] {
        progress(&mut bench, call, Reply::new(status));
    }
    for status in [199, 300, 486] {
        bench.act(|ua, now| ua.answer(now, call, Reply::new(status)));
    }
    for status in [199, 200, 299, 700] {
        rejects(&mut bench, call, status);
    }
    assert_eq!(bench.kinds(), "");
    progress(&mut bench, call, Reply::new(101));
    progress(&mut bench, call, Reply::new(199));
    assert_eq!(bench.kinds(), "101 INVITE, 199 INVITE");
    bench.act(|ua, now| ua.answer(now, call, Reply::new(299)));
    assert_eq!(bench.kinds(), "299 INVITE");
    bench.after(seconds(40));
    bench.sends();
    for status in [300, 699] {
        let (call, _) = invited(
            &mut bench,
            &Ask::invite().branch(&format!("r{status}")).cseq(u32::from(status)),
        );
        rejects(&mut bench, call, status);
        assert_eq!(bench.kinds(), format!("{status} INVITE"));
    }
}

/// B23. What the 2xx says about the session timer; refusals leave before anybody hears of the call.
///
/// Proves ISC-061.
#[test]
fn the_session_timer_is_agreed_in_the_2xx() {
    let rows: &[(&[&str], &str, &str)] = &[
        (&["Supported: timer", "Session-Expires: 600"], "600;refresher=uac", "timer"),
        (&["Supported: timer", "Session-Expires: 600;refresher=uas"], "600;refresher=uas", ""),
        (&["Session-Expires: 600"], "600;refresher=uas", ""),
        (&["Supported: timer"], "1800;refresher=uac", "timer"),
        (&[], "1800;refresher=uas", ""),
    ];
    for (lines, expires, require) in rows {
        let mut bench = Bench::new();
        let ask = lines.iter().fold(Ask::invite(), |ask, line| ask.line(line));
        let (call, _) = invited(&mut bench, &ask);
        answers(&mut bench, call);
        let ok = bench.send();
        assert_eq!(
            (ok.one(Name::SessionExpires), ok.one(Name::Require)),
            ((*expires).into(), (*require).into())
        );
    }
    let mut bench = Bench::new();
    bench.gets(Ask::invite().line("Supported: timer").line("Session-Expires: 60").write());
    let refusal = bench.send();
    assert_eq!((refusal.message.status(), refusal.one(Name::MinSe)), (Some(422), "90".into()));
    assert!(refusal.message.to_tag().is_some());
    bench.gets(Ask::invite().cseq(2).branch("x").line("Session-Expires: soon").write());
    bench.gets(Ask::new("INVITE").cseq(3).branch("y").sdp(SDP).write());
    assert_eq!((bench.kinds(), bench.heard()), ("400 INVITE, 400 INVITE".into(), String::new()));
    assert_eq!(bench.ua.stats().calls, 0);
    bench.after(seconds(40));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3261 §8.2.2.2: the same request by another way.
#[test]
fn a_request_that_comes_twice_by_different_ways_is_a_loop() {
    let mut bench = Bench::new();
    let (call, _) = invited(&mut bench, &Ask::invite());
    bench.gets(Ask::invite().branch("other").write());
    let refusal = bench.send();
    assert_eq!((refusal.message.status(), bench.heard()), (Some(482), String::new()));
    assert!(refusal.message.to_tag().is_some());
    for (ask, fresh) in [
        (Ask::invite().branch("a").cseq(2), true),
        (Ask { from_tag: "other".into(), ..Ask::invite().branch("b") }, true),
        (Ask { call_id: "other".into(), ..Ask::invite().branch("c") }, true),
        (Ask::new("OPTIONS").branch("d"), true),
        (Ask::new("OPTIONS").branch("e"), false),
    ] {
        bench.gets(ask.write());
        assert_eq!(bench.heard().is_empty(), !fresh, "{ask:?}");
        assert_eq!(bench.kinds().contains("482"), !fresh, "{ask:?}");
    }
    rejects(&mut bench, call, 486);
    bench.after(seconds(40));
    bench.sends();
    invited(&mut bench, &Ask::invite().branch("later"));
}

/// ISC-069: what is in a dialog goes on when the tables are full.
#[test]
fn with_full_tables_new_requests_are_refused_and_old_ones_served() {
    let settings =
        Settings { max_transactions: 8, retry_after: 7, thread: 3, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let ask = Ask::invite();
    let (call, _) = invited(&mut bench, &ask);
    answers(&mut bench, call);
    let ok = bench.send();
    for number in 0..7 {
        bench.gets(Ask::new("MESSAGE").cseq(number).branch(&format!("m{number}")).write());
    }
    assert_eq!((bench.kinds(), bench.events().len()), (String::new(), 7));
    let extra = Ask::new("MESSAGE").cseq(9).branch("m9");
    bench.gets(extra.write());
    let refusal = bench.send();
    assert_eq!((refusal.message.status(), refusal.one(Name::RetryAfter)), (Some(503), "7".into()));
    assert_eq!(refusal.one(Name::Server), "pagecast");
    bench.gets(extra.write());
    assert_eq!(bench.send().text(), refusal.text(), "the same tag without any memory");
    bench.gets(Ask::invite().cseq(9).branch("i9").write());
    assert_eq!(bench.kinds(), "503 INVITE");
    bench.gets(Ask::inside("ACK", 1, &ok.message).write());
    assert_eq!(bench.heard(), "Acked");
    bench.gets(ask.write());
    bench.gets(Ask::inside("BYE", 2, &ok.message).write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), "Bye".into()));
    bench.gets(Ask::inside("INFO", 3, &ok.message).write());
    assert_eq!(bench.kinds(), "503 INFO", "the reserve has a bound, too");
    bench.gets(Ask { branch: ask.branch.clone(), ..Ask::new("CANCEL") }.write());
    assert_eq!(bench.kinds(), "503 CANCEL");
    let stats = bench.ua.stats();
    assert_eq!(
        (stats.refused_full, stats.server_transactions, stats.retransmissions_received),
        (5, 9, 1)
    );
}

/// ISC-046: the core could de-register the user it speaks of.
#[test]
fn a_register_may_use_the_reserve() {
    let mut bench = Bench::with(Settings { max_transactions: 8, thread: 3, ..Settings::default() });
    for number in 0..8 {
        bench.gets(Ask::new("MESSAGE").cseq(number).branch(&format!("m{number}")).write());
    }
    bench.heard();
    bench.gets(Ask::new("REGISTER").cseq(9).branch("r9").write());
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "Requested REGISTER".into()));
}

#[test]
fn a_cancel_may_use_the_reserve() {
    let mut bench = Bench::with(Settings { max_transactions: 8, thread: 3, ..Settings::default() });
    let ask = Ask::invite();
    invited(&mut bench, &ask);
    for number in 0..7 {
        bench.gets(Ask::new("MESSAGE").cseq(number).branch(&format!("m{number}")).write());
    }
    bench.gets(Ask { branch: ask.branch, ..Ask::new("CANCEL") }.write());
    assert_eq!(bench.kinds(), "200 CANCEL, 487 INVITE");
}

#[test]
fn only_so_many_calls_at_once() {
    let mut bench = Bench::with(Settings { max_calls: 1, thread: 3, ..Settings::default() });
    let (call, _) = invited(&mut bench, &Ask::invite());
    bench.gets(Ask::invite().cseq(2).branch("second").write());
    assert_eq!((bench.kinds(), bench.heard()), ("503 INVITE".into(), String::new()));
    bench.gets(Ask::new("OPTIONS").branch("o").write());
    assert_eq!(bench.heard(), "Requested OPTIONS");
    rejects(&mut bench, call, 404);
    bench.act(|ua, _| ua.close(call));
    bench.sends();
    invited(&mut bench, &Ask::invite().cseq(3).branch("third"));
}

#[test]
fn only_so_many_provisional_responses_wait() {
    let settings = Settings { max_queued_provisionals: 1, thread: 3, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let (call, _) = invited(&mut bench, &with_100rel());
    for status in [183, 180, 181, 182] {
        progress(&mut bench, call, Reply { reliable: true, ..Reply::new(status) });
    }
    let first = bench.send();
    bench.gets(prack(&first, 2, &format!("{} 1 INVITE", rseq_of(&first))));
    assert_eq!(bench.kinds(), "200 PRACK, 182 INVITE");
}

/// Every message of a call names it, also those the layer above never hears of.
#[test]
fn messages_know_their_call() {
    let mut bench = Bench::new();
    let ask = with_100rel();
    assert_eq!(bench.ua.call_of(&ask.write()), None);
    let (call, trying) = invited(&mut bench, &ask);
    assert_eq!((trying.call, bench.ua.call_of(&ask.write())), (Some(call), Some(call)));
    rings(&mut bench, call);
    let early = bench.send();
    let prack = prack(&early, 2, &format!("{} 1 INVITE", rseq_of(&early)));
    bench.gets(prack.clone());
    assert_eq!((bench.send().call, bench.ua.call_of(&prack)), (Some(call), Some(call)));
    let cancel = Ask { branch: ask.branch, ..Ask::new("CANCEL") }.write();
    bench.gets(cancel.clone());
    assert!(bench.sends().iter().all(|sent| sent.call == Some(call)));
    assert_eq!(bench.ua.call_of(&cancel), Some(call));
    let ack = Ask::inside("ACK", 7, &early.message).write();
    assert_eq!(bench.ua.call_of(&ack), Some(call), "by its dialog");

    let call = bench.act(|ua, now| ua.invite(now, our_invite()));
    let invite = bench.send();
    let ringing = answer(&invite.message, 180, "t1", "", None);
    assert_eq!((invite.call, bench.ua.call_of(&ringing)), (Some(call), Some(call)));
    bench.act(|ua, now| {
        ua.request(
            now,
            OutRequest {
                request_uri: "sip:x".into(),
                to: "<sip:x>".into(),
                from: "<sip:us>".into(),
                ..OutRequest::new(Method::Options)
            },
        )
    });
    let options = bench.send();
    assert_eq!(
        (options.call, bench.ua.call_of(&answer(&options.message, 200, "t", "", None))),
        (None, None)
    );
    let foreign = answer(&Ask::new("OPTIONS").write(), 200, "t", "", None);
    assert_eq!(bench.ua.call_of(&foreign), None);
}

/// B18: a PRACK that does not come holds up nobody: a CANCEL meanwhile is answered at once, and the 183 rests.
#[test]
fn a_cancel_does_not_wait_for_a_prack() {
    let mut bench = Bench::new();
    let ask = with_100rel();
    let (call, _) = invited(&mut bench, &ask);
    rings(&mut bench, call);
    assert_eq!(bench.send().one(Name::Require), "100rel");
    bench.gets(Ask { branch: ask.branch, ..Ask::new("CANCEL") }.write());
    assert_eq!(
        (bench.kinds(), bench.heard()),
        ("200 CANCEL, 487 INVITE".into(), "Cancelled".into())
    );
    bench.after(seconds(40));
    let later = bench.kinds();
    assert!(!later.contains("183") && !later.contains("500"), "{later}");
}
