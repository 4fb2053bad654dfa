//! The session timer of established calls.

use super::*;

/// An established call of ours, answered with these lines.
fn calling(bench: &mut Bench, lines: &str) -> (CallKey, Message) {
    let call = bench.act(|ua, now| ua.invite(now, our_invite()));
    let invite = bench.send().message;
    bench.gets(answer(&invite, 183, "t1", "Allow: INVITE, ACK, BYE\r\n", None));
    bench.gets(answer(&invite, 200, "t1", &format!("{PHONE}{lines}"), Some(SDP)));
    bench.sends();
    bench.events();
    (call, invite)
}

fn called(bench: &mut Bench, lines: &[&str]) -> Message {
    let ask = lines.iter().fold(Ask::invite(), |ask, line| ask.line(line));
    bench.gets(ask.write());
    let events = bench.events();
    let [Event::Invited { call, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.answer(now, call, our_answer(200)));
    let ok = bench.sends().pop().expect("a 200").message;
    bench.gets(Ask::inside("ACK", 1, &ok).write());
    bench.events();
    ok
}

const OURS: &str = "Session-Expires: 100;refresher=uac\r\n";

/// RFC 4028 §7.4, RFC 3311: after half of the interval, again and again.
///
/// Proves ISC-061, IM-013, IM-015.
#[test]
fn we_refresh_by_update_only_if_the_peer_said_so() {
    for (allow, update) in [
        ("Allow: INVITE, ACK, BYE, UPDATE\r\n", true),
        ("", false),
        ("Allow: INVITE, update\r\n", false),
    ] {
        let mut bench = Bench::new();
        calling(&mut bench, &format!("{OURS}{allow}"));
        for round in 1..=3_u32 {
            bench.after(ms(49_999));
            assert_eq!(bench.kinds(), "");
            bench.after(ms(1));
            let refresh = bench.send();
            let method = if update { "UPDATE" } else { "INVITE" };
            assert_eq!(refresh.one(Name::CSeq), format!("{} {method}", round + 1));
            assert_eq!(
                refresh.message.body(),
                if update { b"" } else { OUR_SDP.as_bytes() },
                "the same o= line"
            );
            assert_eq!(refresh.one(Name::ContentType), if update { "" } else { "application/sdp" });
            assert_eq!(
                (refresh.one(Name::SessionExpires), refresh.one(Name::MinSe)),
                ("100;refresher=uac".into(), "90".into())
            );
            assert_eq!(
                (refresh.one(Name::Supported), refresh.one(Name::UserAgent)),
                ("timer".into(), "pagecast".into())
            );
            assert_eq!(refresh.one(Name::Contact), "<sip:page1@192.0.2.1>");
            assert_eq!(refresh.message.uri(), "sip:bob@198.51.100.7:5066;gr=x");
            bench.gets(answer(&refresh.message, 200, "", OURS, None));
            if !update {
                let ack = bench.send();
                assert_eq!(ack.one(Name::CSeq), format!("{} ACK", round + 1));
                bench.gets(answer(&refresh.message, 200, "", OURS, None));
                assert_eq!(bench.send().text(), ack.text());
            }
        }
        assert_eq!(bench.heard(), "");
    }
}

/// RFC 4028 §10: the one who waits ends the session a third of the interval, at most 32 s, before its end.
///
/// Proves ISC-061, IM-066.
#[test]
fn a_session_nobody_refreshes_ends_by_bye() {
    for (interval, end) in [(90_u64, 60_u64), (1800, 1768)] {
        let mut bench = Bench::new();
        let (call, _) =
            calling(&mut bench, &format!("Session-Expires: {interval};refresher=uas\r\n"));
        bench.after(seconds(end) - ms(1));
        assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
        bench.after(ms(1));
        let bye = bench.send();
        assert_eq!((bye.one(Name::CSeq), bench.heard()), ("2 BYE".into(), "SessionExpired".into()));
        assert!(bye.one(Name::Reason).starts_with("SIP;cause=408"));
        bench.act(|ua, now| ua.bye(now, call, b""));
        assert_eq!(bench.kinds(), "");
        bench.act(|ua, _| ua.close(call));
        bench.after(seconds(33));
        assert!(bench.is_empty(), "{:?}", bench.ua.stats());
    }
}

#[test]
fn a_refresh_of_the_peer_starts_the_time_anew() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench, "Session-Expires: 90;refresher=uas\r\n");
    for cseq in 1..=3 {
        bench.after(seconds(59));
        let ask = Ask::back("UPDATE", cseq, &invite, "t1");
        bench.gets(ask.line("Supported: timer").line("Session-Expires: 90;refresher=uac").write());
        let accepted = bench.send();
        assert_eq!(
            (accepted.one(Name::SessionExpires), accepted.one(Name::Require)),
            ("90;refresher=uac".into(), "timer".into())
        );
    }
    let ask =
        Ask::back("UPDATE", 4, &invite, "t1").line("Supported: timer").line("Session-Expires: 80");
    bench.gets(ask.write());
    let refusal = bench.send();
    assert_eq!((refusal.message.status(), refusal.one(Name::MinSe)), (Some(422), "90".into()));
    bench.after(seconds(60));
    assert_eq!((bench.kinds(), bench.heard()), ("BYE".into(), "SessionExpired".into()));
}

/// The peer may take over or hand over the task with any refresh.
#[test]
fn the_refresher_may_change() {
    let mut bench = Bench::new();
    let (_, invite) =
        calling(&mut bench, "Session-Expires: 100;refresher=uas\r\nAllow: UPDATE\r\n");
    let ask = Ask::back("UPDATE", 1, &invite, "t1").line("Supported: timer");
    bench.gets(ask.line("Session-Expires: 100;refresher=uas").write());
    assert_eq!(bench.send().one(Name::SessionExpires), "100;refresher=uas");
    bench.after(seconds(50));
    let refresh = bench.send();
    assert_eq!(refresh.one(Name::CSeq), "2 UPDATE");
    bench.gets(answer(&refresh.message, 200, "", "Session-Expires: 100;refresher=uas\r\n", None));
    bench.after(seconds(60));
    assert_eq!(bench.kinds(), "", "now it is the peer's again");
    bench.after(seconds(8));
    assert_eq!((bench.kinds(), bench.heard()), ("BYE".into(), "SessionExpired".into()));
}

#[test]
fn a_callee_refreshes_too() {
    let mut bench = Bench::new();
    let lines = ["Supported: timer", "Session-Expires: 100;refresher=uas", "Allow: INVITE, BYE"];
    called(&mut bench, &lines);
    bench.after(seconds(50));
    let refresh = bench.send();
    assert_eq!(
        (refresh.one(Name::CSeq), refresh.message.body()),
        ("1 INVITE".into(), OUR_SDP.as_bytes())
    );
    assert_eq!(
        (refresh.one(Name::Contact), refresh.one(Name::UserAgent)),
        ("<sip:session1@192.0.2.1>".into(), "pagecast".into())
    );
    bench.gets(answer(&refresh.message, 200, "", "Contact: <sip:alice@new>\r\n", None));
    let ack = bench.send();
    assert_eq!((ack.one(Name::CSeq), ack.message.uri()), ("1 ACK".into(), "sip:alice@new"));
    bench.after(ms(49_999));
    assert_eq!(bench.kinds(), "");
    bench.after(ms(1));
    assert_eq!(
        bench.kinds(),
        "INVITE",
        "a peer that said nothing about the timer leaves it running"
    );
}

/// What the answers to a refresh mean.
#[test]
fn a_refused_refresh_is_tried_again_or_ends_the_session() {
    // (status, its lines, sends and events within 12 s after it)
    let rows: &[(u16, &str, &str, &str)] = &[
        (481, "", "BYE", "SessionExpired"),
        (408, "", "BYE", "SessionExpired"),
        (405, "", "INVITE", ""),
        (501, "", "INVITE", ""),
        (422, "Min-SE: 200\r\n", "UPDATE 200;refresher=uac", ""),
        (422, "Min-SE: 100\r\n", "", "later"),
        (422, "Min-SE: ?\r\n", "", "later"),
        (500, "", "", "later"),
        (491, "", "", "491"),
    ];
    for (status, lines, sent, then) in rows {
        let mut bench = Bench::new();
        calling(&mut bench, &format!("{OURS}Allow: UPDATE\r\n"));
        bench.after(seconds(50));
        let refresh = bench.send();
        bench.gets(answer(&refresh.message, *status, "", lines, None));
        let next = bench.sends();
        let shown: Vec<_> = next
            .iter()
            .map(|next| {
                let method = next.message.cseq().method.as_str().to_owned();
                let raised = next.one(Name::SessionExpires);
                if raised.starts_with("100") || raised.is_empty() {
                    method
                } else {
                    format!("{method} {raised}")
                }
            })
            .collect();
        assert_eq!(shown.join(", "), *sent, "{status}");
        match *then {
            "later" => {
                bench.after(ms(9_999));
                assert_eq!(bench.kinds(), "", "{status}");
                bench.after(ms(1));
                assert_eq!(bench.kinds(), "UPDATE", "{status}");
            }
            "491" => {
                bench.after(ms(2_099));
                assert_eq!(bench.kinds(), "");
                bench.after(ms(1_901));
                assert_eq!(bench.kinds(), "UPDATE");
            }
            event => assert_eq!(bench.heard(), event, "{status}"),
        }
    }
}

/// RFC 3261 §14.1: who did not make the Call-ID tries again within 2 s, both in steps of 10 ms.
///
/// Proves ISC-080.
#[test]
fn after_glare_the_waits_of_the_two_sides_differ() {
    let mut bench = Bench::new();
    calling(&mut bench, "Session-Expires: 9000;refresher=uac\r\nAllow: UPDATE\r\n");
    let mut other = Bench::new();
    called(
        &mut other,
        &["Supported: timer", "Session-Expires: 9000;refresher=uas", "Allow: UPDATE"],
    );
    for (mut bench, first, low, high) in [(bench, 4_500, 2_100, 4_000), (other, 900, 0, 2_000)] {
        let mut waits = std::collections::BTreeSet::new();
        bench.after(seconds(first));
        let mut refresh = bench.send();
        for _ in 0..200 {
            bench.gets(answer(&refresh.message, 491, "", "", None));
            let from = bench.now;
            bench.after(seconds(4));
            // The first of them; it is repeated while nobody answers.
            refresh = bench.sends().remove(0);
            waits.insert((bench.start + refresh.at - from).as_millis());
        }
        let (least, most) = (waits.first().copied(), waits.last().copied());
        assert!(least >= Some(low) && most <= Some(high), "{low} to {high}: {waits:?}");
        assert!(waits.iter().all(|wait| wait % 10 == 0) && waits.len() > 80, "{waits:?}");
    }
}

#[test]
fn a_refresh_without_any_answer_ends_the_session() {
    let mut bench = Bench::new();
    calling(&mut bench, "Session-Expires: 1800;refresher=uac\r\nAllow: UPDATE\r\n");
    bench.after(seconds(900));
    bench.sends();
    bench.after(ms(31_999));
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    assert!(bench.kinds().ends_with("BYE"));
    assert_eq!(bench.heard(), "SessionExpired");
}

#[test]
fn a_refresh_that_cannot_leave_is_tried_again() {
    let mut bench = Bench::new();
    calling(&mut bench, "Session-Expires: 1800;refresher=uac\r\nAllow: UPDATE\r\n");
    bench.after(seconds(900));
    let refresh = bench.send();
    bench.act(|ua, now| ua.send_failed(now, refresh.key, false));
    bench.after(ms(9_999));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    bench.after(ms(1));
    assert_eq!(bench.kinds(), "UPDATE");
}

#[test]
fn a_refresh_waits_for_an_offer_of_the_peer() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench, &format!("{OURS}Allow: UPDATE\r\n"));
    bench.after(seconds(49));
    let moved = SDP.replace("2855", "2999");
    bench.gets(Ask::back("UPDATE", 1, &invite, "t1").sdp(&moved).write());
    let events = bench.events();
    let [Event::Offer { request, .. }] = events[..] else { panic!("{events:?}") };
    bench.after(seconds(1));
    assert_eq!(bench.kinds(), "");
    bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(488)));
    assert_eq!(bench.kinds(), "488 UPDATE");
    bench.after(ms(3_999));
    assert_eq!(bench.kinds(), "");
    bench.after(ms(1));
    assert_eq!(bench.kinds(), "UPDATE");
}

#[test]
fn without_a_timer_a_session_stays() {
    let settings = Settings {
        thread: 3,
        session: SessionTimer { expires: None, ..SessionTimer::default() },
        ..Settings::default()
    };
    let mut bench = Bench::with(settings);
    let (_, invite) = calling(&mut bench, "");
    let ok = called(&mut bench, &["Supported: timer"]);
    assert_eq!(ok.header(Name::SessionExpires), None);
    bench.after(seconds(100_000));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    assert_eq!(bench.ua.next_wake(), None);
    // A refresh may bring one, and the next may take it away.
    bench.gets(
        Ask::back("UPDATE", 1, &invite, "t1")
            .line("Supported: timer")
            .line("Session-Expires: 90")
            .write(),
    );
    bench.gets(Ask::back("UPDATE", 2, &invite, "t1").line("Supported: timer").write());
    bench.after(seconds(200));
    assert_eq!((bench.kinds(), bench.heard()), ("200 UPDATE, 200 UPDATE".into(), String::new()));
}

/// Ours and unanswered when the call ends: nothing comes of it.
#[test]
fn a_late_answer_to_a_refresh_changes_nothing() {
    let mut bench = Bench::new();
    let (call, invite) = calling(&mut bench, OURS);
    bench.after(seconds(50));
    let refresh = bench.send();
    bench.gets(Ask::back("BYE", 1, &invite, "t1").write());
    bench.events();
    bench.sends();
    bench.gets(answer(&refresh.message, 200, "", OURS, None));
    assert_eq!(bench.kinds(), "ACK");
    bench.act(|ua, _| ua.close(call));
    bench.after(seconds(70));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}
