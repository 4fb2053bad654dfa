//! Requests in a dialog.

use super::*;

/// An established call from the peer; the 200 it was answered with.
fn called(bench: &mut Bench) -> (CallKey, Message) {
    bench.gets(Ask::invite().write());
    let events = bench.events();
    let [Event::Invited { call, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.answer(now, call, our_answer(200)));
    let ok = bench.sends().pop().expect("a 200").message;
    bench.gets(Ask::inside("ACK", 1, &ok).write());
    bench.events();
    (call, ok)
}

/// An established call of ours; the INVITE.
fn calling(bench: &mut Bench, lines: &str) -> (CallKey, Message) {
    let call = bench.act(|ua, now| ua.invite(now, our_invite()));
    let invite = bench.send().message;
    bench.gets(answer(&invite, 200, "t1", &format!("{PHONE}{lines}"), Some(SDP)));
    bench.sends();
    bench.events();
    (call, invite)
}

fn request_of(bench: &mut Bench) -> (RequestKey, String) {
    let events = bench.events();
    match &events[..] {
        [Event::Offer { request, .. } | Event::InDialog { request, .. }] => {
            (*request, name(&events[0]))
        }
        _ => panic!("{events:?}"),
    }
}

/// RFC 3261 §12.2.2: Call-ID, our tag and the peer's tag make the dialog.
///
/// Proves IM-066.
#[test]
fn what_belongs_to_no_dialog_gets_481() {
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    for method in ["BYE", "INFO", "UPDATE", "INVITE", "PRACK", "OPTIONS", "MESSAGE"] {
        let good = Ask::inside(method, 2, &ok);
        let strangers = [
            Ask { call_id: "other".into(), ..good.clone().branch("1") },
            Ask { to_tag: Some("other".into()), ..good.clone().branch("2") },
            Ask { from_tag: "other".into(), ..good.clone().branch("3") },
        ];
        for ask in strangers {
            let mut ask = ask;
            ask.branch.push_str(method);
            bench.gets(ask.write());
            assert_eq!(bench.kinds(), format!("481 {method}"));
        }
    }
    assert_eq!(bench.heard(), "");
    // What lives in dialogs only cannot open anything.
    for method in ["BYE", "UPDATE", "PRACK"] {
        bench.gets(Ask::new(method).write());
        let refusal = bench.send();
        assert_eq!(
            (refusal.message.status(), refusal.message.to_tag().is_some()),
            (Some(481), true)
        );
    }
    let stray = Ask { call_id: "other".into(), ..Ask::inside("ACK", 2, &ok) };
    bench.gets(stray.write());
    assert_eq!(
        (bench.kinds(), bench.heard(), bench.ua.stats().stray),
        (String::new(), String::new(), 1)
    );
}

/// B22. RFC 3261 §12.2.2: a gap is no reason to wait, a number from the past is one to refuse.
#[test]
fn numbers_may_leap_but_not_return() {
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    for (cseq, answered) in
        [(64, ""), (63, "500 INFO"), (64, "500 INFO"), (70_000, ""), (1, "500 INFO")]
    {
        bench.gets(
            Ask::inside("INFO", cseq, &ok).branch(&format!("n{cseq}-{}", answered.len())).write(),
        );
        assert_eq!(bench.kinds(), answered, "{cseq}");
        assert_eq!(bench.heard().is_empty(), !answered.is_empty(), "{cseq}");
    }
    bench.gets(Ask::inside("BYE", 70_001, &ok).write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 BYE".into(), "Bye".into()));
}

#[test]
fn hops_and_extensions_are_checked() {
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    let info = |number| Ask::inside("INFO", number, &ok);
    let text = String::from_utf8_lossy(info(2).write().bytes()).into_owned();
    for hops in ["0", "00"] {
        bench.gets(parse(
            text.replace("Max-Forwards: 66", &format!("Max-Forwards: {hops}"))
                .replace("INFO-2", hops)
                .into(),
        ));
        assert_eq!(bench.kinds(), "483 INFO");
    }
    bench.gets(info(2).line("Require: 100rel, Timer, precondition").line("Require: foo").write());
    let refusal = bench.send();
    assert_eq!(
        (refusal.message.status(), refusal.one(Name::Unsupported)),
        (Some(420), "precondition, foo".into())
    );
    bench.gets(info(3).line("Require: 100rel, timer").write());
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "InDialog INFO".into()));
    bench.gets(Ask::inside("BYE", 4, &ok).line("Require: foo").write());
    assert_eq!((bench.kinds(), bench.heard()), ("420 BYE".into(), String::new()));
}

/// RFC 5366 §5.1.
///
/// Proves UL-005, IM-034.
#[test]
fn a_list_on_a_re_invite_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    let multipart = |disposition: &str| {
        let body = format!(
            "--b\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--b\r\n\
             Content-Type: application/resource-lists+xml\r\nContent-{disposition}\r\n\r\n<resource-lists/>\r\n--b--\r\n"
        );
        Ask { body: Some(("multipart/mixed;boundary=b", body)), ..Ask::inside("INVITE", 2, &ok) }
    };
    let alone = Ask {
        body: Some(("application/resource-lists+xml", "<resource-lists/>".into())),
        ..Ask::inside("INVITE", 2, &ok).line("Content-Disposition: recipient-list")
    };
    let refused = [
        Ask::inside("INVITE", 2, &ok).line("Require: recipient-list-invite").sdp(SDP),
        Ask::inside("INVITE", 2, &ok).line("Require: foo, recipient-list-invite"),
        multipart("Disposition: recipient-list"),
        multipart("disposition: Recipient-List ;handling=required"),
        alone,
    ];
    for (number, ask) in refused.into_iter().enumerate() {
        bench.gets(ask.branch(&format!("l{number}")).write());
        let refusal = bench.send();
        assert_eq!(
            (refusal.message.status(), refusal.one(Name::Unsupported)),
            (Some(420), "recipient-list-invite".into())
        );
        assert_eq!(bench.heard(), "");
    }
    for (number, ask) in [
        multipart("Disposition: recipient-list-history"),
        multipart("Type: recipient-list"),
        Ask::inside("INVITE", 2, &ok).line("Supported: recipient-list-invite").sdp(SDP),
    ]
    .into_iter()
    .enumerate()
    {
        let number = number + 5;
        bench.gets(ask.branch(&format!("l{number}")).cseq(number as u32).write());
        assert_eq!(bench.kinds(), "200 INVITE", "no list of recipients");
    }
    bench.gets(Ask::inside("BYE", 9, &ok).write());
    assert_eq!(bench.kinds(), "200 BYE", "the dialog stands");
}

/// RFC 3261 §14.2, RFC 4028 §7.4: what only refreshes is answered with our description as it is.
///
/// Proves IM-066.
#[test]
fn refreshes_that_change_nothing_are_answered_here() {
    let versioned = SDP.replace("o=- 1 1", "o=- 1 2");
    let moved = SDP.replace("2855", "2999");
    // (method, its description, handed up, our description in the 200)
    let rows: &[(&'static str, Option<&str>, bool, bool)] = &[
        ("INVITE", None, false, true),
        ("INVITE", Some(SDP), false, true),
        ("INVITE", Some(&versioned), false, true),
        ("INVITE", Some(&moved), true, false),
        ("UPDATE", None, false, false),
        ("UPDATE", Some(SDP), false, true),
        ("UPDATE", Some(&versioned), false, true),
        ("UPDATE", Some(&moved), true, false),
    ];
    for (method, sdp, up, described) in rows {
        let mut bench = Bench::new();
        let (call, ok) = called(&mut bench);
        let ask =
            Ask::inside(method, 2, &ok).line("Contact: <sip:alice@moved>").line("Allow: UPDATE");
        let ask = sdp.iter().fold(ask, |ask, sdp| ask.sdp(sdp));
        bench.gets(ask.write());
        if *up {
            assert_eq!(bench.kinds(), if *method == "INVITE" { "100 INVITE" } else { "" });
            assert_eq!(bench.heard(), format!("Offer {method}"));
            bench.act(|ua, now| ua.bye(now, call, b""));
            let sent = bench.sends();
            let bye = sent.last().expect("a BYE");
            assert_eq!(
                bye.message.uri(),
                "sip:alice@192.0.2.9;transport=udp",
                "nothing was agreed"
            );
            continue;
        }
        let accepted = bench.send();
        assert_eq!(
            (accepted.message.status(), bench.heard()),
            (Some(200), String::new()),
            "{method} {sdp:?}"
        );
        let body = if *described { OUR_SDP.as_bytes() } else { b"" };
        assert_eq!(accepted.message.body(), body, "{method} {sdp:?}");
        assert_eq!(accepted.one(Name::Contact), "<sip:session1@192.0.2.1>");
        assert_eq!(accepted.one(Name::SessionExpires), "1800;refresher=uas");
        assert_eq!(
            (accepted.one(Name::Supported), accepted.one(Name::Server)),
            ("timer".into(), "pagecast".into())
        );
        assert!(accepted.one(Name::Allow).contains("UPDATE"));
        bench.after(ms(500));
        assert_eq!(
            bench.kinds(),
            if *method == "INVITE" { "200 INVITE" } else { "" },
            "a 2xx awaits its ACK"
        );
        bench.gets(Ask::inside("ACK", 2, &ok).write());
        bench.after(seconds(3));
        assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()));
        bench.act(|ua, now| ua.bye(now, call, b""));
        assert_eq!(bench.send().message.uri(), "sip:alice@moved", "the target was refreshed");
    }
}

#[test]
fn a_re_invite_nobody_acknowledges_is_reported() {
    let mut bench = Bench::new();
    let (call, ok) = called(&mut bench);
    bench.gets(Ask::inside("INVITE", 2, &ok).write());
    bench.after(seconds(32));
    assert_eq!(bench.heard(), "AckMissing");
    bench.act(|ua, now| ua.bye(now, call, b""));
    assert!(bench.kinds().ends_with("BYE"));
}

#[test]
fn an_offer_is_answered_by_the_layer_above() {
    let moved = SDP.replace("2855", "2999");
    let newer = OUR_SDP.replace("2856", "2857");
    for method in ["INVITE", "UPDATE"] {
        let mut bench = Bench::new();
        let (_, ok) = called(&mut bench);
        let offer =
            |cseq| Ask::inside(method, cseq, &ok).line("Contact: <sip:alice@moved>").sdp(&moved);
        bench.gets(offer(2).write());
        bench.sends();
        let (request, heard) = request_of(&mut bench);
        assert_eq!(heard, format!("Offer {method}"));
        bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(488)));
        bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(200)));
        let refusal = bench.send();
        assert_eq!(
            (refusal.message.status(), refusal.one(Name::Contact)),
            (Some(488), String::new())
        );

        bench.gets(offer(3).write());
        bench.sends();
        let (request, _) = request_of(&mut bench);
        bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(180)));
        assert_eq!(bench.kinds(), "", "no provisional answer to what is answered at once");
        let reply = Reply {
            body: Some(("application/sdp".into(), newer.clone().into())),
            contact: Some("<sip:session2@192.0.2.1>".into()),
            ..Reply::new(200)
        };
        bench.act(|ua, now| ua.in_dialog_answer(now, request, reply));
        let accepted = bench.send();
        assert_eq!(
            (accepted.message.body(), accepted.one(Name::Contact)),
            (newer.as_bytes(), "<sip:session2@192.0.2.1>".into())
        );
        assert_eq!(accepted.one(Name::SessionExpires), "1800;refresher=uas");
        bench.gets(Ask::inside("ACK", 3, &ok).write());
        // From now on that is what stands.
        bench.gets(Ask::inside("INVITE", 4, &ok).sdp(&moved).write());
        let same = bench.send();
        assert_eq!(
            (same.message.body(), same.one(Name::Contact)),
            (newer.as_bytes(), "<sip:session2@192.0.2.1>".into())
        );
        assert_eq!(bench.heard(), "");
    }
}

/// RFC 3261 §14.2, RFC 3311 §5.2: a second offer before the first one's answer waits up to 10 s.
///
/// Proves ISC-080.
#[test]
fn a_second_offer_comes_too_early() {
    let moved = SDP.replace("2855", "2999");
    let mut waits = std::collections::BTreeSet::new();
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    bench.gets(Ask::inside("INVITE", 2, &ok).sdp(&moved).write());
    bench.sends();
    let (first, _) = request_of(&mut bench);
    for cseq in 3..60 {
        let method = if cseq % 2 == 0 { "UPDATE" } else { "INVITE" };
        bench.gets(Ask::inside(method, cseq, &ok).write());
        let refusal = bench.send();
        assert_eq!(refusal.message.status(), Some(500), "{method}");
        let wait: u32 = refusal.one(Name::RetryAfter).parse().expect("seconds");
        assert!(wait <= 10, "{wait}");
        waits.insert(wait);
    }
    assert!(waits.len() > 6, "they differ: {waits:?}");
    bench.act(|ua, now| ua.in_dialog_answer(now, first, Reply::new(488)));
    bench.sends();
    bench.gets(Ask::inside("INVITE", 60, &ok).write());
    assert_eq!(bench.kinds(), "200 INVITE");
    bench.after(seconds(40));
    bench.sends();
    bench.events();

    // The same before the first INVITE of all has its answer; UPDATE is fine there.
    bench.gets(Ask { call_id: "two".into(), ..Ask::invite() }.branch("two").write());
    let events = bench.events();
    let [Event::Invited { call, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.progress(now, call, our_answer(183)));
    let early = bench.sends().pop().expect("a 183").message;
    bench.gets(
        Ask { call_id: "two".into(), ..Ask::inside("INVITE", 2, &early).branch("b2") }.write(),
    );
    let refusal = bench.send();
    assert_eq!(
        (refusal.message.status(), refusal.one(Name::RetryAfter).is_empty()),
        (Some(500), false)
    );
    bench.gets(
        Ask { call_id: "two".into(), ..Ask::inside("UPDATE", 3, &early).branch("b3") }.write(),
    );
    let update = bench.send();
    assert_eq!(
        (update.message.status(), update.one(Name::SessionExpires)),
        (Some(200), String::new())
    );
}

/// RFC 3261 §14.2: both sides ask at once.
///
/// Proves ISC-080.
#[test]
fn offers_that_cross_are_refused() {
    let mut bench = Bench::new();
    // Ours is a refresh after half of the interval.
    let (_, invite) = calling(&mut bench, "Session-Expires: 100;refresher=uac\r\n");
    bench.after(seconds(50));
    let refresh = bench.send();
    assert_eq!(refresh.one(Name::CSeq), "2 INVITE");
    for (cseq, method) in [(1, "INVITE"), (2, "UPDATE")] {
        bench.gets(Ask::back(method, cseq, &invite, "t1").write());
        assert_eq!(bench.kinds(), format!("491 {method}"));
    }
    bench.gets(answer(&refresh.message, 200, "", "", None));
    bench.sends();
    bench.gets(Ask::back("UPDATE", 3, &invite, "t1").write());
    assert_eq!(bench.kinds(), "200 UPDATE");

    // Ours is the INVITE of the call itself.
    bench.act(|ua, now| ua.invite(now, our_invite()));
    let pending = bench.send().message;
    bench.gets(answer(&pending, 180, "t1", PHONE, None));
    bench.gets(Ask::back("INVITE", 1, &pending, "t1").branch("x1").write());
    bench.gets(Ask::back("UPDATE", 2, &pending, "t1").branch("x2").write());
    bench.gets(Ask::back("BYE", 3, &pending, "t1").branch("x3").write());
    assert_eq!(
        bench.kinds(),
        "491 INVITE, 200 UPDATE, 481 BYE",
        "an early dialog is not the callee's to end"
    );
}

#[test]
fn offers_end_with_their_cancel_and_their_call() {
    let moved = SDP.replace("2855", "2999");
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    let offer = Ask::inside("INVITE", 2, &ok).sdp(&moved);
    bench.gets(offer.write());
    bench.sends();
    let (request, _) = request_of(&mut bench);
    let cancel = Ask { branch: offer.branch, ..Ask::inside("CANCEL", 2, &ok) };
    bench.gets(cancel.write());
    assert_eq!((bench.kinds(), bench.heard()), ("200 CANCEL, 487 INVITE".into(), String::new()));
    bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(200)));
    assert_eq!(bench.kinds(), "");

    type End = fn(&mut Bench, CallKey, &Message);
    let ends: [(End, &str); 3] = [
        (|bench, _, ok| bench.gets(Ask::inside("BYE", 9, ok).write()), "200 BYE, 487 UPDATE"),
        (|bench, call, _| bench.act(|ua, now| ua.bye(now, call, b"")), "487 UPDATE, BYE"),
        (|bench, call, _| bench.act(|ua, _| ua.close(call)), "487 UPDATE"),
    ];
    for (end, sent) in ends {
        let mut bench = Bench::new();
        let (call, ok) = called(&mut bench);
        bench.gets(Ask::inside("UPDATE", 2, &ok).sdp(&moved).write());
        let (request, _) = request_of(&mut bench);
        end(&mut bench, call, &ok);
        assert_eq!(bench.kinds(), sent);
        bench.act(|ua, now| ua.in_dialog_answer(now, request, Reply::new(200)));
        assert_eq!(bench.kinds(), "");
        bench.act(|ua, _| ua.close(call));
        bench.after(seconds(70));
        assert!(bench.is_empty(), "{:?}", bench.ua.stats());
    }
}

#[test]
fn an_update_nobody_answers_in_time_blocks_nothing() {
    let moved = SDP.replace("2855", "2999");
    let mut bench = Bench::new();
    let (_, ok) = called(&mut bench);
    bench.gets(Ask::inside("UPDATE", 2, &ok).sdp(&moved).write());
    bench.events();
    bench.after(seconds(32));
    assert_eq!(bench.kinds(), "", "and it is not answered late");
    bench.gets(Ask::inside("UPDATE", 3, &ok).write());
    assert_eq!(bench.kinds(), "200 UPDATE");
}

/// B21: what else comes in a dialog is handed up, and answered through the same transaction.
#[test]
fn other_requests_in_a_dialog_are_handed_up() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench, "");
    for (cseq, method) in [(1, "INFO"), (2, "MESSAGE"), (3, "OPTIONS"), (4, "REFER")] {
        let ask = Ask::back(method, cseq, &invite, "t1");
        bench.gets(ask.write());
        let (request, heard) = request_of(&mut bench);
        assert_eq!((bench.kinds(), heard), (String::new(), format!("InDialog {method}")));
        let reply = Reply { contact: Some("<sip:c@x>".into()), ..Reply::new(405) };
        bench.act(|ua, now| ua.in_dialog_answer(now, request, reply));
        let answered = bench.send();
        assert_eq!(
            (answered.message.status(), answered.one(Name::Contact)),
            (Some(405), "<sip:c@x>".into())
        );
        bench.gets(ask.write());
        assert_eq!(bench.send().text(), answered.text());
    }
}
