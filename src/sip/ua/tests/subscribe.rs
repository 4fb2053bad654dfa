//! Subscriptions of ours.

use super::*;

const LINES: &str = "Contact: <sip:192.0.2.1>\r\nEvent: reg\r\nExpires: 600\r\n";

fn ours() -> OutRequest {
    OutRequest {
        request_uri: "sip:alice@home.example".into(),
        to: "<sip:alice@home.example>".into(),
        from: "<sip:as.home.example>".into(),
        route: vec!["<sip:scscf.example;lr>".into()],
        headers: Bytes::from_static(LINES.as_bytes()),
        ..OutRequest::new(Method::Subscribe)
    }
}

fn subscribe(bench: &mut Bench) -> (SubscriptionKey, Sent) {
    let key = bench.act(|ua, now| ua.subscribe(now, ours())).expect("there is room");
    (key, bench.send())
}

fn notify(subscribe: &Message, cseq: u32, tag: &str) -> Ask {
    Ask::back("NOTIFY", cseq, subscribe, tag)
        .line("Contact: <sip:notifier@198.51.100.7>")
        .line("Record-Route: <sip:first.example;lr>, <sip:second.example;lr>")
        .line("Event: reg")
        .branch(&format!("notify-{cseq}-{tag}"))
}

const ACCEPTED: &str = "Contact: <sip:notifier@198.51.100.7>\r\nExpires: 600\r\n\
    Record-Route: <sip:second.example;lr>, <sip:first.example;lr>\r\n";

fn next(bench: &mut Bench, key: SubscriptionKey) -> Sent {
    let lines = Bytes::from_static(b"Event: reg\r\nExpires: 700\r\n");
    let body = Some(("text/plain".to_owned(), Bytes::from_static(b"what")));
    bench.act(|ua, now| ua.subscribe_again(now, key, lines, body));
    let sent = bench.send();
    assert_eq!(
        (sent.message.content_type(), sent.message.body()),
        (Some("text/plain"), &b"what"[..])
    );
    sent
}

/// Whatever comes first makes the dialog: the NOTIFY or the 2xx (RFC 6665 §4.4.1).
#[test]
fn a_subscription_lives_in_its_dialog() {
    for notify_first in [false, true] {
        let mut bench = Bench::new();
        let (key, first) = subscribe(&mut bench);
        let message = &first.message;
        assert_eq!(message.uri(), "sip:alice@home.example");
        assert_eq!(first.one(Name::Route), "<sip:scscf.example;lr>");
        assert!(first.one(Name::From).starts_with("<sip:as.home.example>;tag=03"));
        assert_eq!(first.one(Name::CSeq), "1 SUBSCRIBE");
        assert!(first.text().contains(LINES), "{}", first.text());
        let accept = |bench: &mut Bench| {
            bench.gets(answer(&first.message, 200, "n1", ACCEPTED, None));
            assert_eq!(bench.heard(), "Subscribed 200");
        };
        if !notify_first {
            accept(&mut bench);
        }
        bench.gets(notify(message, 40, "n1").write());
        let events = bench.events();
        let [Event::Notified { subscription, request, .. }] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(subscription, key);
        bench.act(|ua, now| ua.respond(now, request, Reply::new(200)));
        assert_eq!(bench.kinds(), "200 NOTIFY");
        if notify_first {
            accept(&mut bench);
        }
        let again = next(&mut bench, key);
        assert_eq!(again.message.uri(), "sip:notifier@198.51.100.7");
        assert_eq!(again.one(Name::Route), "<sip:first.example;lr> | <sip:second.example;lr>");
        assert_eq!(again.next_hop(), "sip:first.example;lr #0");
        assert_eq!(again.one(Name::CSeq), "2 SUBSCRIBE");
        assert!(again.one(Name::To).ends_with(";tag=n1"), "{}", again.one(Name::To));
        assert_eq!(again.one(Name::CallId), first.one(Name::CallId));
        assert_eq!(again.one(Name::Expires), "700");
        bench.gets(answer(&again.message, 200, "", "Expires: 700\r\n", None));
        assert_eq!(bench.heard(), "Subscribed 200");

        bench.act(|ua, _| ua.forget_subscription(key));
        bench.gets(notify(message, 41, "n1").write());
        assert_eq!((bench.kinds(), bench.heard()), ("481 NOTIFY".into(), String::new()));
        bench.after(seconds(40));
        assert!(bench.is_empty() && bench.ua.stats().subscriptions == 0);
    }
}

/// RFC 6665 §4.1.2.4, RFC 3261 §12.2.2.
#[test]
fn a_notify_of_something_else_is_refused() {
    let mut bench = Bench::new();
    let (_, first) = subscribe(&mut bench);
    bench.gets(notify(&first.message, 40, "n1").write());
    assert_eq!(bench.heard(), "Notified");
    let good = || notify(&first.message, 41, "n1");
    for (ask, status) in [
        (notify(&first.message, 1, "n2"), 481),
        (Ask { call_id: "other".into(), ..good().branch("a") }, 481),
        (Ask { to_tag: Some("other".into()), ..good().branch("b") }, 481),
        (Ask { to_tag: None, ..good().branch("c") }, 0),
        (notify(&first.message, 40, "n1").branch("again"), 500),
        (notify(&first.message, 39, "n1"), 500),
        (good().line("Require: magic").branch("d"), 420),
    ] {
        bench.sends();
        bench.gets(ask.write());
        if status == 0 {
            assert_eq!(bench.heard(), "Requested NOTIFY", "outside of any dialog");
        } else {
            assert_eq!((bench.kinds(), bench.heard()), (format!("{status} NOTIFY"), String::new()));
        }
    }
    // A subscription nothing answered yet cannot be made by a NOTIFY without a way back.
    let mut bench = Bench::new();
    let (_, first) = subscribe(&mut bench);
    let mut bare = notify(&first.message, 1, "n1");
    bare.lines = "Event: reg\r\n".into();
    bench.gets(bare.write());
    assert_eq!((bench.kinds(), bench.heard()), ("400 NOTIFY".into(), String::new()));
}

#[test]
fn every_end_of_a_subscribe_is_told() {
    let mut bench = Bench::new();
    let (key, first) = subscribe(&mut bench);
    bench.gets(answer(&first.message, 403, "n1", "", None));
    assert_eq!(bench.heard(), "Subscribed 403");
    // Without a dialog the next one is a new start under the same name.
    let again = next(&mut bench, key);
    assert_eq!((again.one(Name::CSeq), again.message.to_tag()), ("2 SUBSCRIBE".into(), None));
    bench.after(seconds(33));
    assert_eq!(bench.heard(), "Subscribed 408");
    bench.sends();
    let lost = next(&mut bench, key);
    bench.act(|ua, now| ua.send_failed(now, lost.key, false));
    assert_eq!(bench.heard(), "Subscribed 503");
    bench.act(|ua, _| ua.forget_subscription(key));
    bench.after(seconds(40));
    assert!(bench.is_empty());

    let mut bench = Bench::with(Settings { max_calls: 1, ..Settings::default() });
    assert!(bench.act(|ua, now| ua.subscribe(now, ours())).is_some());
    assert!(bench.act(|ua, now| ua.subscribe(now, ours())).is_none(), "there is a bound");
}
