//! The subscription to the documents of an XDMS elsewhere, with an XDMS that answers as told.

use std::collections::BTreeSet;
use std::time::Duration;

use pagecast::isc::settings::{CoreProfile, Settings};
use pagecast::isc::{Happening, News};

use crate::world::{Sent, World, header, headers, home, reply};

const SECOND: Duration = Duration::from_secs(1);
const TEAM7: &str = "org.openmobilealliance.groups/global/byGroupID/sip:team7@groups.ims.test";
const ALICE: &str = "resource-lists/users/sip:alice@ims.test/index";

fn following() -> Settings {
    let mut settings = home();
    settings.documents.follow = "sip:xdms@home1.example".to_owned();
    settings.documents.identity = "sip:im-exploder@im.home1.example".to_owned();
    settings
}

fn follow(world: &mut World, documents: &[&str]) {
    let documents: Vec<String> = documents.iter().map(|text| (*text).to_owned()).collect();
    world.isc.follow(world.now, documents);
    world.drive();
}

/// A world with both documents cached, and the SUBSCRIBE out.
fn asking() -> World {
    let mut world = World::new(following());
    follow(&mut world, &[ALICE, TEAM7]);
    world.pass(SECOND);
    world
}

/// And granted, and told of.
fn told() -> World {
    let mut world = asking();
    grant(&mut world);
    let both = [exists(TEAM7, "g1"), exists(ALICE, "a1")].concat();
    assert_eq!(notify(&mut world, 1, "active;expires=3600", &both), Some(200));
    news(&mut world);
    world
}

fn grant(world: &mut World) {
    let text = reply(
        world.last_request("SUBSCRIBE"),
        200,
        "x1",
        "Contact: <sip:192.0.2.40:5060>\nExpires: 3600\n",
        "",
    );
    world.receive(&text);
}

fn asked(world: &World) -> usize {
    let requests = world.requests("SUBSCRIBE");
    let branches: BTreeSet<_> = requests.iter().map(|sent| headers(sent, "Via")).collect();
    branches.len()
}

fn exists(document: &str, etag: &str) -> String {
    format!("<document sel=\"{document}\" new-etag=\"{etag}\"/>")
}

fn changed(document: &str, previous: &str, etag: &str) -> String {
    format!("<document sel=\"{document}\" previous-etag=\"{previous}\" new-etag=\"{etag}\"/>")
}

fn body(inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<xcap-diff xmlns=\"urn:ietf:params:xml:ns:xcap-diff\" \
         xcap-root=\"https://xcap.home1.example/services/\">{inside}</xcap-diff>"
    )
}

/// The XDMS's next NOTIFY in the dialog of the last SUBSCRIBE that opened one; what it is answered.
fn notify_raw(world: &mut World, cseq: u32, more: &str, body: &str) -> Option<u16> {
    let requests = world.requests("SUBSCRIBE");
    let opened = requests.iter().rev().find(|sent| sent.message.to_tag().is_none());
    let subscribe: &Sent = opened.expect("one was sent");
    let of = |name: &'static str| headers(subscribe, name)[0].to_owned();
    let text = format!(
        "NOTIFY sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-n-{cseq}-{}-{}
Max-Forwards: 70
From: {};tag=x1
To: {}
Call-ID: {}
CSeq: {cseq} NOTIFY
Contact: <sip:192.0.2.40:5060>
{more}
{body}",
        body.len(),
        more.len(),
        of("To"),
        of("From"),
        of("Call-ID"),
    );
    let before = world.sent.len();
    world.receive(&text);
    world.sent[before..].iter().find_map(|sent| sent.message.status())
}

fn notify(world: &mut World, cseq: u32, state: &str, inside: &str) -> Option<u16> {
    let more = format!(
        "Event: xcap-diff\nSubscription-State: {state}\nContent-Type: application/xcap-diff+xml\n"
    );
    notify_raw(world, cseq, &more, &body(inside))
}

/// What the cache heard since the last time.
fn news(world: &mut World) -> Vec<News> {
    let all = std::mem::take(&mut world.happened);
    let news = all.into_iter().filter_map(|one| match one {
        Happening::Documents(news) => Some(news),
        _ => None,
    });
    news.flatten().collect()
}

fn has(document: &str, etag: &str) -> News {
    News::Has { document: document.to_owned(), etag: etag.to_owned() }
}

fn doubted(document: &str) -> News {
    News::Doubted(document.to_owned())
}

fn listed(sent: &Sent) -> Vec<&str> {
    sent.text.split("<entry uri=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// Proves XD-040.
#[test]
fn the_subscription_is_asked_for_in_the_words_of_the_rule() {
    let mut world = World::new(following());
    follow(&mut world, &[ALICE, TEAM7, ALICE, &TEAM7.replace('@', "%40"), "", "a//b"]);
    world.pass(SECOND - Duration::from_millis(1));
    assert_eq!(asked(&world), 0, "it may change again");
    world.pass(Duration::from_millis(1));
    let subscribe = world.last_request("SUBSCRIBE");
    assert_eq!(subscribe.message.uri(), "sip:xdms@home1.example");
    let one = |name: &'static str| header(subscribe, name).unwrap_or_default();
    assert_eq!(one("Event"), "xcap-diff;diff-processing=no-patching");
    assert_eq!(one("Accept"), "application/xcap-diff+xml");
    assert_eq!((one("Expires"), one("To")), ("3600", "<sip:xdms@home1.example>"));
    assert_eq!(one("Content-Type"), "application/resource-lists+xml");
    assert_eq!(one("Content-Disposition"), "");
    assert!(one("From").starts_with("<sip:im-exploder@im.home1.example>;tag="), "{}", one("From"));
    assert_eq!(one("P-Asserted-Identity"), "<sip:im-exploder@im.home1.example>");
    assert!(one("P-Charging-Vector").contains("orig-ioi="));
    assert_eq!(one("Contact"), "<sip:im-as1.home1.example:5060>");
    assert_eq!(one("Route"), "<sip:icscf1.home1.example;lr>");
    assert_eq!(listed(subscribe), [TEAM7, ALICE]);
    for word in ["<external", "<entry-ref", "copyControl"] {
        assert!(!subscribe.text.contains(word), "{word}");
    }
    // Straight there, where its URI says where that is; nobody, where there is nothing or nobody to ask.
    for (uri, profile, route, asks) in [
        ("sip:xdms@192.0.2.40:5070", CoreProfile::Gpp, None, 1),
        ("sip:xdms@home1.example:5070", CoreProfile::Gpp2, None, 1),
        ("sip:xdms@home1.example", CoreProfile::SipIp, None, 1),
        ("", CoreProfile::Gpp, None, 0),
    ] {
        let mut settings = following();
        settings.documents.follow = uri.to_owned();
        settings.profile = profile;
        let mut world = World::new(settings);
        follow(&mut world, &[TEAM7]);
        world.pass(SECOND);
        assert_eq!(asked(&world), asks, "{uri}");
        if asks > 0 {
            let subscribe = world.last_request("SUBSCRIBE");
            assert_eq!(header(subscribe, "Route"), route, "{uri}");
            let plain = profile == CoreProfile::SipIp;
            assert_eq!(headers(subscribe, "P-Asserted-Identity").is_empty(), plain, "{uri}");
        }
    }
    let mut world = World::new(following());
    follow(&mut world, &[]);
    world.pass(SECOND * 10);
    assert_eq!(asked(&world), 0);
}

/// Proves XD-040: another list is a SUBSCRIBE in the dialog with all of it, and only one at a time.
#[test]
fn another_list_is_asked_for_in_full() {
    let mut world = told();
    let third = "resource-lists/users/sip:bob@ims.test/index";
    follow(&mut world, &[ALICE, TEAM7, third]);
    follow(&mut world, &[TEAM7, third]);
    follow(&mut world, &[TEAM7, third, ALICE]);
    world.pass(SECOND);
    assert_eq!(asked(&world), 2);
    let again = world.last_request("SUBSCRIBE");
    assert_eq!(
        (again.message.to_tag(), header(again, "CSeq")),
        (Some(&b"x1"[..]), Some("2 SUBSCRIBE"))
    );
    assert_eq!(listed(again), [TEAM7, ALICE, third]);
    assert_eq!(header(again, "Event"), Some("xcap-diff;diff-processing=no-patching"));
    // It is not answered yet: what changes now waits.
    follow(&mut world, &[TEAM7]);
    world.pass(SECOND * 3);
    assert_eq!(asked(&world), 2);
    grant(&mut world);
    world.pass(SECOND * 2);
    assert_eq!(asked(&world), 3);
    assert_eq!(listed(world.last_request("SUBSCRIBE")), [TEAM7]);
    // Of what is asked for no more nothing will be told.
    let alice = || vec![ALICE.to_owned()];
    // She was told of all the while when she came back.
    assert_eq!(news(&mut world), [News::Covered(alice()), News::Silent(alice())]);
    // The same in another order is the same.
    grant(&mut world);
    follow(&mut world, &[&TEAM7.replace("sip:", "sip%3A")]);
    world.pass(SECOND * 5);
    assert_eq!(asked(&world), 3);
    // Most is most.
    let mut settings = following();
    settings.documents.max_entries = 1;
    let mut world = World::new(settings);
    follow(&mut world, &[TEAM7, ALICE]);
    world.pass(SECOND);
    assert_eq!(listed(world.last_request("SUBSCRIBE")).len(), 1);
}

/// Proves XD-041.
#[test]
fn what_is_told_goes_to_the_cache() {
    let mut world = asking();
    grant(&mut world);
    assert!(!world.isc.is_following());
    assert_eq!(
        notify(
            &mut world,
            1,
            "active;expires=3600",
            &[exists(TEAM7, "g1"), exists(ALICE, "a1")].concat()
        ),
        Some(200)
    );
    assert_eq!(news(&mut world), [has(TEAM7, "g1"), has(ALICE, "a1")]);
    assert!(world.isc.is_following());
    let mut cseq = 1;
    let mut next = |world: &mut World, inside: &str| {
        cseq += 1;
        assert_eq!(notify(world, cseq, "active;expires=3600", inside), Some(200));
        news(world)
    };
    assert_eq!(next(&mut world, &changed(TEAM7, "g1", "g2")), [has(TEAM7, "g2")]);
    let removed = format!("<document sel=\"{ALICE}\" previous-etag=\"a1\"/>");
    assert_eq!(next(&mut world, &removed), [News::Removed(ALICE.to_owned())]);
    assert_eq!(next(&mut world, &exists(ALICE, "a2")), [has(ALICE, "a2")], "created again");
    // What nobody cached says nothing.
    assert_eq!(next(&mut world, &changed("resource-lists/global/other", "1", "2")), []);
    // Other spellings of the same.
    let spelt = format!("https://xcap.home1.example/services/{}", TEAM7.replace('@', "%40"));
    assert_eq!(next(&mut world, &changed(&spelt, "g2", "g3")), [has(TEAM7, "g3")]);
    // A patch is not applied: the document is asked for.
    let patch = format!(
        "<document sel=\"{TEAM7}\" previous-etag=\"g3\" new-etag=\"g4\"><remove sel=\"*/list/entry[2]\"/></document>"
    );
    assert_eq!(next(&mut world, &patch), [has(TEAM7, "g4")]);
    assert_eq!(next(&mut world, &format!("<document sel=\"{TEAM7}\"/>")), [doubted(TEAM7)]);
    let node = format!("<element sel=\"{ALICE}/~~/resource-lists/list\" exists=\"false\"/>");
    assert_eq!(next(&mut world, &node), [doubted(ALICE)]);
    assert_eq!(next(&mut world, ""), [], "nothing changed");
    assert_eq!(asked(&world), 1);
}

/// Proves XD-042: a document that is not there is no error; one that is cached and not told of is looked at.
#[test]
fn what_the_first_notify_leaves_out_is_looked_at() {
    let mut world = asking();
    grant(&mut world);
    assert_eq!(notify(&mut world, 1, "active", &exists(TEAM7, "g1")), Some(200));
    assert_eq!(news(&mut world), [has(TEAM7, "g1"), doubted(ALICE)]);
    assert_eq!(notify(&mut world, 2, "active", &changed(TEAM7, "g1", "g2")), Some(200));
    assert_eq!(news(&mut world), [has(TEAM7, "g2")]);
    // The NOTIFY may come before the 200.
    let mut world = asking();
    assert_eq!(notify(&mut world, 1, "active", &exists(TEAM7, "g1")), Some(200));
    assert_eq!(news(&mut world), [has(TEAM7, "g1"), doubted(ALICE)]);
}

/// Proves XD-042.
#[test]
fn what_cannot_be_read_is_answered_and_everything_asked_for_again() {
    let kind = "Content-Type: application/xcap-diff+xml\n";
    for (name, more, text) in [
        ("no XML", kind, "<xcap-diff".to_owned()),
        ("another document", kind, "<a xmlns=\"urn:x\"/>".to_owned()),
        ("a DTD", kind, format!("<!DOCTYPE a>{}", body(""))),
        ("no selector", kind, body("<document new-etag=\"1\"/>")),
        ("another type", "Content-Type: text/plain\n", body(&exists(TEAM7, "g2"))),
        ("no type", "", body(&exists(TEAM7, "g2"))),
    ] {
        let mut world = told();
        let more = format!("Event: xcap-diff\nSubscription-State: active;expires=3600\n{more}");
        assert_eq!(notify_raw(&mut world, 2, &more, &text), Some(200), "{name}");
        assert_eq!(news(&mut world), [News::Lost], "{name}");
        assert_eq!(asked(&world), 2, "{name}");
        let again = world.last_request("SUBSCRIBE");
        assert_eq!(header(again, "Event"), Some("xcap-diff;diff-processing=no-patching"));
        assert_eq!(listed(again), [TEAM7, ALICE]);
        // One who never makes sense is not asked in a circle.
        grant(&mut world);
        assert_eq!(notify_raw(&mut world, 3, &more, &text), Some(200), "{name}");
        assert_eq!(news(&mut world), [News::Lost], "{name}");
        world.pass(SECOND * 29);
        assert_eq!(asked(&world), 2, "{name}");
        world.pass(SECOND);
        assert_eq!(asked(&world), 3, "{name}");
        grant(&mut world);
        assert_eq!(notify(&mut world, 4, "active", &changed(TEAM7, "g1", "g9")), Some(200));
        assert_eq!(news(&mut world), [has(TEAM7, "g9")]);
    }
    // A body that is not there tells nothing.
    let mut world = told();
    let more = "Event: xcap-diff\nSubscription-State: active;expires=3600\n";
    assert_eq!(notify_raw(&mut world, 2, more, ""), Some(200));
    assert_eq!((news(&mut world), asked(&world)), (vec![], 1));
}

/// Proves XD-042: without a subscription documents live by their time, and it is asked for again later.
#[test]
fn every_end_leaves_the_documents_to_their_time() {
    let silent = || [News::Silent(vec![TEAM7.to_owned(), ALICE.to_owned()])];
    // By the reason of the end; `None`: not before an hour.
    for (state, again) in [
        ("terminated;reason=deactivated", Some(0)),
        ("terminated;reason=timeout", Some(0)),
        ("terminated;reason=probation;retry-after=40", Some(40)),
        ("terminated", Some(30)),
        ("terminated;reason=noresource", Some(3600)),
        ("terminated;reason=rejected", Some(3600)),
    ] {
        let mut world = told();
        assert_eq!(notify(&mut world, 2, state, ""), Some(200), "{state}");
        assert_eq!(news(&mut world), silent(), "{state}");
        assert!(!world.isc.is_following());
        let Some(seconds) = again else { continue };
        if seconds > 0 {
            world.pass(SECOND * seconds - Duration::from_millis(1));
            assert_eq!(asked(&world), 1, "{state}");
        }
        world.pass(Duration::from_millis(1));
        assert_eq!(asked(&world), 2, "{state}");
        let new = world.last_request("SUBSCRIBE");
        assert_eq!((new.message.to_tag(), listed(new)), (None, vec![TEAM7, ALICE]));
    }
    // Refused from the start.
    for (status, lines, seconds) in [
        (489, "", 3600),
        (403, "", 3600),
        (404, "", 30),
        (480, "Retry-After: 7\n", 7),
        (503, "", 30),
    ] {
        let mut world = asking();
        let answer = reply(world.last_request("SUBSCRIBE"), status, "x1", lines, "");
        world.receive(&answer);
        assert_eq!(news(&mut world), [], "{status}");
        world.pass(SECOND * seconds - Duration::from_millis(1));
        assert_eq!(asked(&world), 1, "{status}");
        follow(&mut world, &[TEAM7]);
        world.pass(Duration::from_millis(1));
        assert_eq!(asked(&world), 2, "{status}");
        assert_eq!(listed(world.last_request("SUBSCRIBE")), [TEAM7], "what is cached by then");
    }
    let mut world = asking();
    let answer = reply(world.last_request("SUBSCRIBE"), 423, "x1", "Min-Expires: 9000\n", "");
    world.receive(&answer);
    world.pass(SECOND);
    assert_eq!(header(world.last_request("SUBSCRIBE"), "Expires"), Some("9000"));
    // The refresh finds nobody.
    let mut world = told();
    world.pass(SECOND * 3000);
    assert_eq!((asked(&world), news(&mut world)), (2, vec![]));
    world.pass(SECOND * 32);
    assert_eq!(news(&mut world), silent());
    world.pass(SECOND * 30);
    let new = world.last_request("SUBSCRIBE");
    assert_eq!((asked(&world), new.message.to_tag()), (3, None));
    // The dialog is lost there.
    let mut world = told();
    world.pass(SECOND * 3000);
    let answer = reply(world.last_request("SUBSCRIBE"), 481, "", "", "");
    world.receive(&answer);
    assert_eq!(news(&mut world), silent());
    world.pass(SECOND);
    assert_eq!(asked(&world), 3);
    // Nothing is cached any more: it is not refreshed.
    let mut world = told();
    follow(&mut world, &[]);
    world.pass(SECOND * 7200);
    assert_eq!((asked(&world), world.isc.ua().stats().subscriptions), (1, 0));
    assert_eq!(news(&mut world), silent());
}

/// What is cached again is covered at once, as long as the subscription has it.
///
/// Proves XD-041.
#[test]
fn what_comes_back_into_the_cache_is_covered() {
    let mut world = told();
    let removed = format!("<document sel=\"{ALICE}\" previous-etag=\"a1\"/>");
    assert_eq!(notify(&mut world, 2, "active", &removed), Some(200));
    follow(&mut world, &[TEAM7]);
    assert_eq!(notify(&mut world, 3, "active", &exists(ALICE, "a2")), Some(200));
    news(&mut world);
    follow(&mut world, &[TEAM7, ALICE]);
    assert_eq!(news(&mut world), [News::Covered(vec![ALICE.to_owned()])]);
    world.pass(SECOND * 2);
    assert_eq!(asked(&world), 1, "the list is the same");
}

/// Proves XD-042.
#[test]
fn what_is_not_of_the_subscription_changes_nothing() {
    let mut world = told();
    let presence = "Event: presence\nSubscription-State: active\n\
        Content-Type: application/xcap-diff+xml\n";
    assert_eq!(notify_raw(&mut world, 2, presence, &body(&changed(TEAM7, "g1", "g2"))), Some(489));
    assert_eq!(news(&mut world), []);
    // Another branch of a SUBSCRIBE that forked.
    let forked = notify_text(&world, 3, "x2");
    let before = world.sent.len();
    world.receive(&forked);
    assert_eq!(world.sent[before].message.status(), Some(481));
    assert_eq!(news(&mut world), []);
    // Somebody outside of the trust domain.
    let outside = notify_text(&world, 4, "x1");
    let before = world.sent.len();
    world.receive_from("198.51.100.9:5060", &outside);
    assert_eq!(world.sent[before].message.status(), Some(403));
    assert_eq!(news(&mut world), []);
}

fn notify_text(world: &World, cseq: u32, tag: &str) -> String {
    let subscribe = world.requests("SUBSCRIBE")[0];
    let of = |name: &'static str| headers(subscribe, name)[0].to_owned();
    format!(
        "NOTIFY sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-f-{cseq}
Max-Forwards: 70
From: {};tag={tag}
To: {}
Call-ID: {}
CSeq: {cseq} NOTIFY
Contact: <sip:192.0.2.40:5060>
Event: xcap-diff
Subscription-State: active
Content-Type: application/xcap-diff+xml

{}",
        of("To"),
        of("From"),
        of("Call-ID"),
        body(&changed(TEAM7, "g1", "g2")),
    )
}
