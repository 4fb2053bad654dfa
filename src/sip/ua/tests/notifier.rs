//! Subscriptions of the peer.

use super::*;

const PACKAGE: Package = Package {
    name: "xcap-diff",
    usual: 3600,
    least: 60,
    most: 7200,
    pause: Duration::from_secs(5),
};
const OURS: &str = "<sip:192.0.2.1:5060>";
const BODY: Option<(&str, &[u8])> = Some(("application/xcap-diff+xml", b"<x/>"));

fn subscribe() -> Ask {
    Ask::new("SUBSCRIBE")
        .line("Contact: <sip:watcher@192.0.2.9:5070>")
        .line("Record-Route: <sip:scscf.example;lr>, <sip:far.example;lr>")
        .line("Event: xcap-diff;diff-processing=no-patching")
}

/// The peer subscribes; the answer, and what was decided.
fn accept(bench: &mut Bench, ask: &Ask) -> (Result<WatcherKey, Unwatched>, Sent) {
    bench.gets(ask.write());
    let events = bench.events();
    let [Event::Requested { request, .. }] = events[..] else { panic!("{events:?}") };
    let headers = Bytes::from_static(b"User-Agent: pagecast\r\n");
    let accepted = bench.act(|ua, now| ua.accept_watcher(now, request, PACKAGE, OURS, headers));
    (accepted, bench.send())
}

/// A watcher who asked for so long, and the answer.
fn watched(bench: &mut Bench, expires: &str) -> (WatcherKey, Sent) {
    let (accepted, answer) = accept(bench, &subscribe().line(&format!("Expires: {expires}")));
    (accepted.expect("a good SUBSCRIBE"), answer)
}

/// The body asked for, and the NOTIFY.
fn told(bench: &mut Bench, key: WatcherKey) -> Sent {
    assert!(bench.heard().starts_with("NotifyDue"));
    bench.act(|ua, now| ua.notify(now, key, BODY));
    bench.send()
}

fn answered(bench: &mut Bench, notify: &Sent, status: u16, lines: &str) {
    bench.gets(answer(&notify.message, status, "", lines, None));
}

fn state(notify: &Sent) -> String {
    notify.one(Name::SubscriptionState)
}

fn again(answer: &Sent, cseq: u32, expires: u32) -> Ask {
    Ask::inside("SUBSCRIBE", cseq, &answer.message)
        .line("Contact: <sip:watcher@192.0.2.9:5071>")
        .line("Event: xcap-diff")
        .line(&format!("Expires: {expires}"))
}

/// RFC 6665 §4.2.1.2, §4.2.2: 200 with the time, and a NOTIFY at once in the dialog the SUBSCRIBE opened.
#[test]
fn a_watcher_is_told_at_once() {
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    assert_eq!(accepted.message.status(), Some(200));
    assert_eq!(
        (accepted.one(Name::Expires), accepted.one(Name::Contact)),
        ("600".into(), OURS.into())
    );
    assert_eq!(accepted.one(Name::RecordRoute), "<sip:scscf.example;lr>, <sip:far.example;lr>");
    let notify = told(&mut bench, key);
    assert_eq!(notify.message.uri(), "sip:watcher@192.0.2.9:5070");
    assert_eq!(notify.one(Name::Route), "<sip:scscf.example;lr> | <sip:far.example;lr>");
    assert_eq!(notify.one(Name::CSeq), "1 NOTIFY");
    assert_eq!(notify.one(Name::Event), "xcap-diff");
    assert_eq!(notify.one(Name::Contact), OURS);
    assert_eq!(state(&notify), "active;expires=600");
    assert_eq!(notify.message.from_tag(), accepted.message.to_tag());
    assert_eq!(notify.message.to_tag(), Some(&b"alice"[..]));
    assert_eq!(notify.message.content_type(), Some("application/xcap-diff+xml"));
    assert!(notify.text().contains("User-Agent: pagecast\r\n"));
    answered(&mut bench, &notify, 200, "");
    // The id of the event is repeated, no other parameter.
    let ask = Ask { call_id: "two".into(), ..subscribe().branch("two") };
    let ask = Ask { lines: ask.lines.replace("no-patching", "no-patching;id=7"), ..ask };
    let (accepted, _) = accept(&mut bench, &ask);
    let notify = told(&mut bench, accepted.expect("a good SUBSCRIBE"));
    assert_eq!(
        (notify.one(Name::Event), state(&notify)),
        ("xcap-diff;id=7".into(), "active;expires=3600".into())
    );
    assert_eq!(bench.ua.stats().watchers, 2);
}

/// RFC 6665 §4.2.1.1.
#[test]
fn the_time_granted_is_within_what_the_package_allows() {
    for (expires, status, granted) in [
        (None, 200, "3600"),
        (Some("60"), 200, "60"),
        (Some("59"), 423, ""),
        (Some("1"), 423, ""),
        (Some("0"), 200, "0"),
        (Some("7201"), 200, "7200"),
        (Some("99999999999999999999"), 200, "7200"),
        (Some("soon"), 400, ""),
        (Some("-1"), 400, ""),
    ] {
        let mut bench = Bench::new();
        let mut ask = subscribe();
        if let Some(expires) = expires {
            ask = ask.line(&format!("Expires: {expires}"));
        }
        let (accepted, answer) = accept(&mut bench, &ask);
        assert_eq!(answer.message.status(), Some(status), "{expires:?}");
        match status {
            200 => assert_eq!(answer.one(Name::Expires), granted, "{expires:?}"),
            423 => assert_eq!(answer.one(Name::MinExpires), "60", "{expires:?}"),
            _ => {}
        }
        assert_eq!(accepted.is_ok(), status == 200, "{expires:?}");
        if status != 200 {
            assert_eq!((bench.heard(), bench.ua.stats().watchers), (String::new(), 0));
            bench.after(seconds(40));
            assert!(bench.is_empty());
        }
    }
    let mut bench = Bench::new();
    let ask = subscribe();
    let ask =
        Ask { lines: ask.lines.replace("Contact: <sip:watcher@192.0.2.9:5070>\r\n", ""), ..ask };
    let (accepted, answer) = accept(&mut bench, &ask);
    assert_eq!((accepted, answer.message.status()), (Err(Unwatched::Answered(400)), Some(400)));
}

#[test]
fn there_is_a_bound() {
    let mut bench = Bench::with(Settings { max_calls: 1, ..Settings::default() });
    let (_, _) = watched(&mut bench, "600");
    bench.events();
    let ask = Ask { call_id: "two".into(), ..subscribe().branch("two") };
    bench.gets(ask.write());
    let events = bench.events();
    let [Event::Requested { request, .. }] = events[..] else { panic!("{events:?}") };
    let accepted =
        bench.act(|ua, now| ua.accept_watcher(now, request, PACKAGE, OURS, Bytes::new()));
    assert_eq!(accepted, Err(Unwatched::Full));
    assert_eq!(bench.kinds(), "", "it is for the layer above to say so");
    bench.act(|ua, now| ua.respond(now, request, Reply::new(480)));
    assert_eq!(bench.kinds(), "480 SUBSCRIBE");
}

/// Proves XD-043: however many changes, one NOTIFY in five seconds, and none before the last is answered.
#[test]
fn changes_keep_their_pause_and_wait_for_the_answer() {
    let mut bench = Bench::new();
    let (key, _) = watched(&mut bench, "600");
    let first = told(&mut bench, key);
    // Changed before the answer, and again after it: nothing yet.
    bench.act(|ua, now| ua.watcher_changed(now, key));
    answered(&mut bench, &first, 200, "");
    for _ in 0..10 {
        bench.act(|ua, now| ua.watcher_changed(now, key));
        bench.after(ms(400));
    }
    assert_eq!((bench.heard(), bench.kinds()), (String::new(), String::new()));
    bench.after(ms(999));
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    let second = told(&mut bench, key);
    assert_eq!((second.at, state(&second)), (seconds(5), "active;expires=595".into()));
    // While it has no answer, none goes after it, however long that takes.
    bench.act(|ua, now| ua.watcher_changed(now, key));
    bench.after(seconds(20));
    assert!(
        bench.heard().is_empty()
            && bench.sends().iter().all(|sent| sent.one(Name::CSeq) == "2 NOTIFY")
    );
    answered(&mut bench, &second, 200, "");
    let third = told(&mut bench, key);
    assert_eq!((third.at, third.one(Name::CSeq)), (seconds(25), "3 NOTIFY".into()));
    answered(&mut bench, &third, 200, "");
    bench.after(seconds(100));
    assert!(bench.heard().is_empty(), "nothing changed since");
    // A change that turns out to be none of this watcher's.
    bench.act(|ua, now| ua.watcher_changed(now, key));
    assert_eq!(bench.heard(), "NotifyDue");
    bench.act(|ua, now| ua.watcher_changed(now, key));
    assert_eq!(bench.heard(), "", "it is asked for already");
    bench.act(|ua, now| ua.notify(now, key, None));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), "NotifyDue".into()));
    bench.act(|ua, now| ua.notify(now, key, None));
    bench.act(|ua, now| ua.notify(now, key, BODY));
    assert_eq!((bench.kinds(), bench.heard()), (String::new(), String::new()), "nobody asked");
}

/// RFC 6665 §4.2.1.2: what is asked for is told at once, whatever else is owed.
#[test]
fn a_refresh_is_answered_and_told() {
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    let first = told(&mut bench, key);
    answered(&mut bench, &first, 200, "");
    bench.after(seconds(1));
    let resubscribed = |bench: &mut Bench, ask: Ask| {
        bench.gets(ask.write());
        let events = bench.events();
        let [Event::Resubscribed { watcher, request, .. }] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(watcher, key);
        bench.act(|ua, now| ua.renew_watcher(now, key, request))
    };
    assert_eq!(resubscribed(&mut bench, again(&accepted, 2, 1000)), 200);
    let answer = bench.send();
    assert_eq!((answer.message.status(), answer.one(Name::Expires)), (Some(200), "1000".into()));
    let second = told(&mut bench, key);
    assert_eq!((second.at, state(&second)), (seconds(1), "active;expires=1000".into()));
    assert_eq!(second.message.uri(), "sip:watcher@192.0.2.9:5071", "it has moved");
    // Too short: refused, and everything stays.
    assert_eq!(resubscribed(&mut bench, again(&accepted, 3, 5)), 423);
    assert_eq!((bench.kinds(), bench.heard()), ("423 SUBSCRIBE".into(), String::new()));
    // While a NOTIFY is on its way the next one waits, and is not forgotten.
    assert_eq!(resubscribed(&mut bench, again(&accepted, 4, 2000)), 200);
    assert_eq!((bench.kinds(), bench.heard()), ("200 SUBSCRIBE".into(), String::new()));
    answered(&mut bench, &second, 200, "");
    let third = told(&mut bench, key);
    assert_eq!(state(&third), "active;expires=2000");
    answered(&mut bench, &third, 200, "");
    // One without a body, where there is nothing to tell.
    assert_eq!(resubscribed(&mut bench, again(&accepted, 5, 2000)), 200);
    assert_eq!(bench.heard(), "NotifyDue whole");
    bench.act(|ua, now| ua.notify(now, key, None));
    let sent = bench.sends();
    assert!(sent[1].message.body().is_empty() && state(&sent[1]) == "active;expires=2000");
    answered(&mut bench, &sent[1], 200, "");
    // Refused by the layer above: as it was.
    bench.gets(again(&accepted, 6, 3000).write());
    let events = bench.events();
    let [Event::Resubscribed { request, .. }] = events[..] else { panic!("{events:?}") };
    bench.act(|ua, now| ua.respond(now, request, Reply::new(403)));
    assert_eq!((bench.kinds(), bench.heard()), ("403 SUBSCRIBE".into(), String::new()));
    bench.after(seconds(1999));
    assert_eq!(bench.heard(), "");
    bench.after(seconds(1));
    assert_eq!(state(&told(&mut bench, key)), "terminated;reason=timeout");
}

/// RFC 6665 §4.2.1.3, §4.2.1.4, §4.4.3.
#[test]
fn every_end_is_told_once_and_leaves_nothing() {
    let gone = |bench: &mut Bench, accepted: &Sent| {
        assert_eq!(bench.ua.stats().watchers, 0);
        bench.sends();
        bench.gets(again(accepted, 90, 600).write());
        assert_eq!((bench.kinds(), bench.heard()), ("481 SUBSCRIBE".into(), String::new()));
        bench.after(seconds(60));
        assert!(bench.is_empty());
    };
    // Asked once.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "0");
    let notify = told(&mut bench, key);
    assert_eq!(
        (state(&notify), notify.message.body()),
        ("terminated;reason=timeout".into(), &b"<x/>"[..])
    );
    bench.gets(again(&accepted, 2, 600).write());
    assert_eq!(bench.kinds(), "481 SUBSCRIBE", "it has ended");
    answered(&mut bench, &notify, 200, "");
    assert_eq!(bench.heard(), "WatcherGone 200");
    gone(&mut bench, &accepted);

    // Unsubscribed while a NOTIFY is on its way.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    let first = told(&mut bench, key);
    bench.gets(again(&accepted, 2, 0).write());
    let events = bench.events();
    let [Event::Resubscribed { request, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!(bench.act(|ua, now| ua.renew_watcher(now, key, request)), 200);
    assert_eq!(bench.send().one(Name::Expires), "0");
    assert_eq!(bench.heard(), "");
    answered(&mut bench, &first, 200, "");
    let last = told(&mut bench, key);
    assert_eq!(state(&last), "terminated;reason=timeout");
    bench.act(|ua, now| ua.watcher_changed(now, key));
    assert_eq!(bench.heard(), "");
    answered(&mut bench, &last, 500, "");
    assert_eq!(bench.heard(), "WatcherGone 500");
    gone(&mut bench, &accepted);

    // Its time is over, in the middle of a pause.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "60");
    let first = told(&mut bench, key);
    answered(&mut bench, &first, 200, "");
    bench.after(ms(58_000));
    bench.act(|ua, now| ua.watcher_changed(now, key));
    let second = told(&mut bench, key);
    answered(&mut bench, &second, 200, "");
    bench.act(|ua, now| ua.watcher_changed(now, key));
    bench.after(seconds(2));
    let last = told(&mut bench, key);
    assert_eq!((last.at, state(&last)), (seconds(60), "terminated;reason=timeout".into()));
    answered(&mut bench, &last, 200, "");
    assert_eq!(bench.heard(), "WatcherGone 200");
    gone(&mut bench, &accepted);

    // Ended by us.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    let first = told(&mut bench, key);
    bench.act(|ua, now| ua.end_watcher(now, key, "deactivated"));
    bench.act(|ua, now| ua.end_watcher(now, key, "rejected"));
    answered(&mut bench, &first, 200, "");
    let last = told(&mut bench, key);
    assert_eq!(state(&last), "terminated;reason=deactivated");
    answered(&mut bench, &last, 200, "");
    assert_eq!(bench.heard(), "WatcherGone 200");
    gone(&mut bench, &accepted);

    // Ended before its first NOTIFY was written.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    bench.act(|ua, now| ua.end_watcher(now, key, "rejected"));
    let last = told(&mut bench, key);
    assert_eq!(state(&last), "terminated;reason=rejected");
    answered(&mut bench, &last, 200, "");
    assert_eq!(bench.heard(), "WatcherGone 200");
    gone(&mut bench, &accepted);
}

/// Proves XD-043 (RFC 6665 §4.2.2): a NOTIFY that is not answered, or refused, removes the subscription.
#[test]
fn who_takes_no_notify_is_watcher_no_more() {
    for status in [481, 489, 403, 404, 500, 503, 603] {
        let mut bench = Bench::new();
        let (key, _) = watched(&mut bench, "600");
        let notify = told(&mut bench, key);
        bench.act(|ua, now| ua.watcher_changed(now, key));
        answered(&mut bench, &notify, status, "");
        assert_eq!(bench.heard(), format!("WatcherGone {status}"));
        bench.after(seconds(700));
        assert!(bench.is_empty() && bench.ua.stats().watchers == 0 && bench.kinds().is_empty());
    }
    // The 200 is withheld.
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    told(&mut bench, key);
    bench.after(seconds(31));
    assert_eq!(bench.heard(), "");
    bench.after(seconds(1));
    assert_eq!(bench.heard(), "WatcherGone 408");
    assert!(bench.sends().iter().all(|sent| sent.one(Name::CSeq) == "1 NOTIFY"));
    bench.gets(again(&accepted, 2, 600).write());
    assert_eq!(bench.kinds(), "481 SUBSCRIBE");
    // It cannot be sent.
    let mut bench = Bench::new();
    let (key, _) = watched(&mut bench, "600");
    let lost = told(&mut bench, key);
    bench.act(|ua, now| ua.send_failed(now, lost.key, false));
    assert_eq!(bench.heard(), "WatcherGone 503");
    // Only later: the subscription stays, and the last state is told then.
    let mut bench = Bench::new();
    let (key, _) = watched(&mut bench, "600");
    let notify = told(&mut bench, key);
    answered(&mut bench, &notify, 503, "Retry-After: 20 (busy)\r\n");
    bench.after(ms(19_999));
    assert_eq!(bench.heard(), "");
    bench.after(ms(1));
    assert_eq!(bench.heard(), "NotifyDue lost");
    bench.act(|ua, now| ua.notify(now, key, BODY));
    let again = bench.send();
    answered(&mut bench, &again, 481, "Retry-After: 20\r\n");
    assert_eq!(bench.heard(), "WatcherGone 481", "that says it all");
}

/// RFC 6665 §4.2.1.3, RFC 3261 §12.2.2.
#[test]
fn a_subscribe_of_something_else_is_refused() {
    let mut bench = Bench::new();
    let (key, accepted) = watched(&mut bench, "600");
    let first = told(&mut bench, key);
    answered(&mut bench, &first, 200, "");
    let good = |cseq| again(&accepted, cseq, 600);
    let event = |ask: Ask, event: &str| Ask {
        lines: ask.lines.replace("Event: xcap-diff\r\n", event),
        ..ask
    };
    for (ask, status) in [
        (Ask { from_tag: "other".into(), ..good(2).branch("a") }, 481),
        (Ask { call_id: "other".into(), ..good(2).branch("b") }, 481),
        (Ask { to_tag: Some("other".into()), ..good(2).branch("c") }, 481),
        (event(good(2).branch("d"), "Event: presence\r\n"), 481),
        (event(good(2).branch("e"), "Event: xcap-diff;id=9\r\n"), 481),
        (event(good(2).branch("f"), ""), 481),
        (good(2).branch("g").line("Require: magic"), 420),
        (good(1).branch("h"), 500),
    ] {
        bench.gets(ask.write());
        assert_eq!((bench.kinds(), bench.heard()), (format!("{status} SUBSCRIBE"), String::new()));
    }
    assert_eq!(bench.ua.stats().watchers, 1);
    bench.gets(event(good(2), "Event: XCAP-DIFF;diff-processing=aggregate\r\n").write());
    assert_eq!(bench.heard(), "Resubscribed");
}
