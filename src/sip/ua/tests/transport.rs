//! Requests outside of dialogs, and what every message is subject to.

use super::*;

fn options() -> OutRequest {
    OutRequest {
        request_uri: "sip:peer.example".into(),
        to: "<sip:peer.example>".into(),
        from: "<sip:us@im.example>".into(),
        headers: Bytes::from_static(b"X-One: 1\r\n"),
        ..OutRequest::new(Method::Options)
    }
}

fn requested(bench: &mut Bench, ask: &Ask) -> RequestKey {
    bench.gets(ask.write());
    let events = bench.events();
    let [Event::Requested { request, .. }] = events[..] else { panic!("{events:?}") };
    request
}

/// B9. RFC 3261 §17.1.2.2: 0.5, 1.5, 3.5, then every T2.
///
/// Proves ISC-065.
#[test]
fn a_request_nobody_answers_is_repeated_and_given_up() {
    let mut bench = Bench::new();
    let request = bench.act(|ua, now| ua.request(now, options()));
    let first = bench.send();
    assert_eq!(
        (first.next_hop(), first.one(Name::CSeq)),
        ("sip:peer.example #0".into(), "1 OPTIONS".into())
    );
    assert_eq!(
        (first.one(Name::Other("X-One")), first.one(Name::MaxForwards)),
        ("1".into(), "70".into())
    );
    assert!(first.one(Name::CallId).starts_with("lm-03"));
    assert!(first.one(Name::From).starts_with("<sip:us@im.example>;tag=03"));
    bench.after(ms(31_999));
    let times: Vec<_> = bench.sends().iter().map(|sent| sent.at.as_millis()).collect();
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    bench.after(ms(1));
    let events = bench.events();
    let [Event::Response { request: failed, status: 408, message: None }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*failed, request);
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn a_provisional_response_slows_repetitions_to_t2() {
    let mut bench = Bench::new();
    bench.act(|ua, now| ua.request(now, options()));
    let first = bench.send();
    bench.after(ms(400));
    bench.gets(answer(&first.message, 100, "", "", None));
    bench.after(seconds(9));
    assert_eq!(
        (bench.lines(), bench.heard()),
        ("0.500 OPTIONS\n4.500 OPTIONS\n8.500 OPTIONS".into(), String::new())
    );
    bench.gets(answer(&first.message, 200, "t", "", None));
    bench.gets(answer(&first.message, 200, "t", "", None));
    assert_eq!(bench.heard(), "Response 200");
    bench.after(ms(4_999));
    assert_eq!(bench.ua.stats().client_transactions, 1);
    bench.after(ms(1));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn a_request_keeps_what_it_was_given() {
    let mut bench = Bench::new();
    let request = OutRequest {
        call_id: "given@x".into(),
        cseq: 9,
        from_tag: Some("fixed".into()),
        route: vec!["<sip:edge.example;lr>".into()],
        body: Some(("text/plain".into(), Bytes::from_static(b"hello"))),
        ..options()
    };
    bench.act(|ua, now| ua.request(now, request.clone()));
    let sent = bench.send();
    let via = sent.one(Name::Via);
    assert_eq!(
        sent.text(),
        format!(
            "OPTIONS sip:peer.example SIP/2.0\r\nVia: {via}\r\nRoute: <sip:edge.example;lr>\r\nMax-Forwards: 70\r\n\
             From: <sip:us@im.example>;tag=fixed\r\nTo: <sip:peer.example>\r\nCall-ID: given@x\r\n\
             CSeq: 9 OPTIONS\r\nX-One: 1\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
        )
    );
    assert_eq!(sent.next_hop(), "sip:edge.example;lr #0");
    bench.act(|ua, now| {
        ua.request(now, OutRequest { next_hop: "sip:proxy.example".into(), ..request })
    });
    assert_eq!(bench.send().next_hop(), "sip:proxy.example #0");
}

#[test]
fn a_request_follows_its_alternates_and_reports_the_last() {
    let mut bench = Bench::new();
    let request = bench.act(|ua, now| ua.request(now, options()));
    for attempt in 0..3 {
        let sent = bench.send();
        assert_eq!(sent.next_hop(), format!("sip:peer.example #{attempt}"));
        bench.act(|ua, now| ua.send_failed(now, sent.key, attempt < 2));
    }
    let events = bench.events();
    let [Event::Response { request: failed, status: 503, message: None }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((*failed, bench.kinds()), (request, String::new()));
    bench.act(|ua, now| ua.send_failed(now, SendKey::NONE, true));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// Proves ISC-071.
#[test]
fn a_request_leaves_a_busy_or_silent_hop_once() {
    let mut bench = Bench::new();
    let request = bench.act(|ua, now| ua.request(now, options()));
    let first = bench.send();
    bench.act(|ua, _| ua.alternate(first.key, 1));
    bench.gets(answer(&first.message, 503, "t", "", None));
    let second = bench.send();
    assert_eq!(second.next_hop(), "sip:peer.example #1");
    assert_ne!(second.message.via().branch, first.message.via().branch);
    bench.gets(answer(&first.message, 503, "t", "", None));
    assert_eq!(bench.heard(), "Stray", "what comes late is nobody's");
    bench.act(|ua, _| ua.alternate(second.key, 2));
    bench.after(seconds(32));
    let third = bench.sends().pop().expect("sent");
    assert_eq!(third.next_hop(), "sip:peer.example #2");
    bench.gets(answer(&third.message, 200, "t", "", None));
    let events = bench.events();
    let [Event::Response { request: done, status: 200, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*done, request);
    bench.after(seconds(33));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 4320: over UDP the answer is repeated for each repetition during 64×T1, over TCP nothing is kept.
///
/// Proves ISC-068.
#[test]
fn a_request_is_answered_once_and_never_too_late() {
    let mut bench = Bench::new();
    let ask = Ask::new("MESSAGE");
    let request = requested(&mut bench, &ask);
    bench.after(seconds(10));
    bench.gets(ask.write());
    assert_eq!(
        (bench.kinds(), bench.heard()),
        (String::new(), String::new()),
        "no 100, and absorbed"
    );
    for status in [100, 180, 199] {
        bench.act(|ua, now| ua.respond(now, request, Reply::new(status)));
    }
    assert_eq!(bench.kinds(), "");
    bench.act(|ua, now| {
        ua.respond(now, request, Reply { headers: "X-Two: 2\r\n".into(), ..Reply::new(202) })
    });
    let accepted = bench.send();
    assert_eq!(
        (accepted.message.status(), accepted.one(Name::Other("X-Two"))),
        (Some(202), "2".into())
    );
    assert!(accepted.message.to_tag().is_some_and(|tag| tag.starts_with(b"03")));
    bench.act(|ua, now| ua.respond(now, request, Reply::new(500)));
    assert_eq!(bench.kinds(), "", "answered already");
    bench.after(ms(31_999));
    bench.gets(ask.write());
    assert_eq!(bench.send().text(), accepted.text());
    bench.after(ms(1));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());

    let request = requested(&mut bench, &ask);
    bench.after(seconds(32));
    bench.act(|ua, now| ua.respond(now, request, Reply::new(200)));
    assert_eq!(bench.kinds(), "", "nobody waits any more");
    let request = requested(&mut bench, &ask);
    bench.act(|ua, now| ua.respond(now, request, Reply::new(408)));
    assert_eq!(bench.kinds(), "", "408 is never sent to other requests than INVITE");
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());

    bench.protocol = Protocol::Tcp;
    let request = requested(&mut bench, &ask);
    bench.act(|ua, now| ua.respond(now, request, Reply::new(200)));
    assert_eq!(bench.kinds(), "200 MESSAGE");
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// B11: a finished transaction keeps its answer and little else.
#[test]
fn a_finished_transaction_costs_little() {
    let mut bench = Bench::new();
    let ask = Ask::new("MESSAGE").line("Via: SIP/2.0/UDP far.example;branch=z9hG4bK2");
    let ask = Ask {
        body: Some(("text/plain", "x".repeat(1_000))),
        ..ask.line(&format!("X-Long: {}", "y".repeat(500)))
    };
    let request = requested(&mut bench, &ask);
    assert!(bench.ua.stats().kept_bytes > 1_500);
    bench.act(|ua, now| ua.respond(now, request, Reply::new(202)));
    let answer = bench.send();
    assert_eq!(bench.ua.stats().kept_bytes, answer.message.bytes().len(), "the request is gone");
    let fixed = super::super::transactions::FINISHED_SIZE;
    assert!(
        fixed + bench.ua.stats().kept_bytes <= 2_048,
        "{fixed} + {}",
        bench.ua.stats().kept_bytes
    );
}

/// What makes two requests the same (RFC 3261 §17.2.3).
#[test]
fn a_transaction_is_known_by_branch_sender_and_method() {
    let base = Ask::new("MESSAGE");
    let text = String::from_utf8_lossy(base.write().bytes()).into_owned();
    let branch = base.branch.as_str();
    // (what changes, the same transaction)
    let rows: &[(&str, &str, bool)] = &[
        ("Max-Forwards: 66", "Max-Forwards: 65", true),
        ("192.0.2.9:5060;", "192.0.2.9:5060 ;", true),
        ("192.0.2.9:5060;", "192.0.2.9;", false),
        ("192.0.2.9:5060;", "192.0.2.9:5061;", false),
        ("192.0.2.9:5060;", "192.0.2.8:5060;", false),
        (branch, "z9hG4bK-other", false),
    ];
    for (from, to, same) in rows {
        let mut bench = Bench::new();
        bench.gets(base.write());
        bench.events();
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        // Another CSeq, so that it is no loop where it is another transaction.
        let changed = if *same { changed } else { changed.replace("CSeq: 1", "CSeq: 2") };
        bench.gets(parse(changed.into()));
        assert_eq!(bench.heard().is_empty(), *same, "{to}");
        assert_eq!(bench.ua.stats().retransmissions_received, u64::from(*same), "{to}");
    }
    // Host names count no case; peers of RFC 2543 repeat a branch for everything.
    for (branch, changed, same) in [
        ("z9hG4bKa", "CSeq: 1 MESSAGE", true),
        ("1", "CSeq: 1 MESSAGE", true),
        ("1", "CSeq: 2 MESSAGE", false),
        ("z9hG4bK", "CSeq: 2 MESSAGE", false),
    ] {
        let mut bench = Bench::new();
        let ask = Ask { branch: branch.into(), ..Ask::new("MESSAGE") };
        let text =
            String::from_utf8_lossy(ask.write().bytes()).replace("192.0.2.9:5060", "UE.example");
        bench.gets(parse(text.clone().into()));
        bench.events();
        bench.gets(parse(
            text.replace("UE.example", "ue.EXAMPLE").replace("CSeq: 1 MESSAGE", changed).into(),
        ));
        assert_eq!(bench.heard().is_empty(), same, "{branch} {changed}");
    }
}

/// B7: what can be answered is refused, without keeping anything.
#[test]
fn malformed_requests_are_refused_statelessly() {
    let mut bench = Bench::new();
    let text = String::from_utf8_lossy(Ask::new("MESSAGE").write().bytes()).into_owned();
    let bad = text.replace("CSeq: 1 MESSAGE", "CSeq: 1 INVITE");
    let parse = |text: &str| Message::parse(Bytes::from(text.to_owned()), &Limits::default());
    for _ in 0..2 {
        let malformed = parse(&bad).expect_err("the methods differ");
        bench.act(|ua, now| ua.malformed(now, malformed, flow(Protocol::Udp)));
    }
    let sent = bench.sends();
    assert_eq!((sent.len(), sent[0].message.status()), (2, Some(400)));
    assert_eq!(sent[0].text(), sent[1].text());
    assert!(sent[0].message.to_tag().is_some() && !sent[0].message.reason().is_empty());
    let nobody = parse("\u{1}\u{2}nonsense").expect_err("no message at all");
    bench.act(|ua, now| ua.malformed(now, nobody, flow(Protocol::Udp)));
    assert_eq!((bench.kinds(), bench.ua.stats().malformed), (String::new(), 3));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

/// RFC 3581: the answer tells where the request came from.
#[test]
fn answers_name_the_source() {
    let mut bench = Bench::new();
    let text = String::from_utf8_lossy(Ask::new("OPTIONS").write().bytes()).into_owned();
    bench.gets(parse(text.replace("192.0.2.9:5060;", "10.0.0.1:5070;rport;").into()));
    let events = bench.events();
    let [Event::Requested { request, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.respond(now, request, Reply::new(200)));
    let via = bench.send().one(Name::Via);
    assert!(via.contains("received=192.0.2.9") && via.contains("rport=5060"), "{via}");
}

#[test]
fn a_hundred_calls_leave_nothing_behind() {
    let mut bench = Bench::new();
    for number in 0..100_u32 {
        let call = bench.act(|ua, now| ua.invite(now, our_invite()));
        let invite = bench.send().message;
        let status = [200, 180, 486, 600][number as usize % 4];
        bench.gets(answer(&invite, status, "t1", PHONE, Some(SDP)));
        if number % 3 == 0 {
            bench.act(|ua, now| ua.bye(now, call, b""));
        }
        bench.gets(Ask::back("BYE", 1, &invite, "t1").branch(&format!("b{number}")).write());
        bench.act(|ua, _| ua.close(call));
        bench.sends();
        bench.events();
    }
    assert!(!bench.is_empty());
    bench.after(seconds(100));
    assert!(bench.is_empty(), "{:?}", bench.ua.stats());
}

#[test]
fn events_and_messages_leave_in_order() {
    let mut bench = Bench::new();
    let start = bench.now;
    bench.ua.receive(start, Ask::invite().write(), flow(Protocol::Udp));
    let first = bench.ua.poll().map(|output| matches!(output, Output::Send { .. }));
    let second =
        bench.ua.poll().map(|output| matches!(output, Output::Event(Event::Invited { .. })));
    assert_eq!(
        (first, second, bench.ua.poll().is_none()),
        (Some(true), Some(true), true),
        "the 100, then the news"
    );
    assert_eq!(bench.ua.next_wake(), None, "a pending INVITE of the peer has no timer");
    assert_eq!(bench.ua.settings().thread, 3);
}
