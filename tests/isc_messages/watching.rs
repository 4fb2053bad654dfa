//! Subscriptions to the registration state of users, with a registrar that answers as told.

use std::collections::BTreeSet;
use std::time::Duration;

use pagecast::isc::Happening;
use pagecast::isc::settings::{CoreProfile, Settings};

use crate::world::{Sent, World, header, headers, home, reply};

const SECOND: Duration = Duration::from_secs(1);

fn watching() -> Settings {
    let mut settings = home();
    settings.isc.reg_event = true;
    settings
}

fn register(n: u32, expires: u32) -> String {
    format!(
        "REGISTER sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/TCP 192.0.2.40:5060;branch=z9hG4bK-reg-{n}
Max-Forwards: 70
From: <sip:scscf1.home1.example>;tag=r-{n}
To: <sip:alice@home1.example>
Call-ID: 3p-{n}@scscf1.home1.example
CSeq: 87 REGISTER
Contact: <sip:scscf1.home1.example:5060;transport=tcp>
Expires: {expires}
P-Charging-Vector: icid-value=\"pc1-reg-009\";orig-ioi=\"Type 3home1.example\"
Content-Type: message/sip

REGISTER sip:home1.example SIP/2.0
Contact: <sip:alice@192.0.2.61>;+g.oma.sip-im, <sip:alice@192.0.2.62>;audio
"
    )
}

const ACCEPTED: &str = "Contact: <sip:scscf1.home1.example:5060>\nExpires: 600030\n";

/// Alice registers, and the registrar grants a subscription.
fn watched() -> World {
    let mut world = World::new(watching());
    world.receive(&register(1, 600_000));
    grant(&mut world);
    world
}

fn grant(world: &mut World) {
    let answer = reply(world.last_request("SUBSCRIBE"), 200, "n1", ACCEPTED, "");
    world.receive(&answer);
    world.sent.retain(|sent| sent.message.method().is_some());
}

/// How many SUBSCRIBEs there were, each counted once however often it was sent.
fn asked(world: &World) -> usize {
    let requests = world.requests("SUBSCRIBE");
    let branches: BTreeSet<_> = requests.iter().map(|sent| headers(sent, "Via")).collect();
    branches.len()
}

/// The registrar's next NOTIFY in the dialog of a SUBSCRIBE.
fn notify(subscribe: &Sent, cseq: u32, state: &str, body: &str) -> String {
    let of = |name: &'static str| headers(subscribe, name)[0].to_owned();
    let to = of("To");
    let from = to.split(";tag=").next().unwrap_or_default().to_owned();
    format!(
        "NOTIFY sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-n-{cseq}-{}
Max-Forwards: 70
From: {from};tag=n1
To: {}
Call-ID: {}
CSeq: {cseq} NOTIFY
Contact: <sip:scscf1.home1.example:5060>
Event: reg
Subscription-State: {state}
Content-Type: application/reginfo+xml

{body}",
        body.len(),
        of("From"),
        of("Call-ID"),
    )
}

fn document(version: u32, state: &str, contacts: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>
<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{version}\" state=\"{state}\">
<registration aor=\"sip:alice@home1.example\" id=\"a7\" state=\"active\">{contacts}</registration>
<registration aor=\"sip:somebody@home1.example\" id=\"a8\" state=\"active\">
<contact id=\"9\" state=\"active\" event=\"registered\"><uri>sip:x@192.0.2.99</uri></contact></registration>
</reginfo>
"
    )
}

fn contact(id: u8, state: &str, event: &str, params: &[(&str, &str)]) -> String {
    let params: String = params
        .iter()
        .map(|(name, value)| format!("<unknown-param name=\"{name}\">{value}</unknown-param>"))
        .collect();
    format!(
        "<contact id=\"{id}\" state=\"{state}\" event=\"{event}\" expires=\"592\"><uri>sip:alice@192.0.2.{id}</uri>{params}</contact>"
    )
}

fn told(world: &mut World, cseq: u32, state: &str, body: &str) -> Option<u16> {
    let text = notify(world.requests("SUBSCRIBE")[0], cseq, state, body);
    let before = world.sent.len();
    world.receive(&text);
    world.sent[before..].iter().find_map(|sent| sent.message.status())
}

fn registered(world: &World) -> bool {
    world
        .isc
        .registry()
        .view(world.now, "sip:alice@home1.example")
        .is_some_and(|view| view.registered)
}

fn reached(world: &World) -> usize {
    world.happened.iter().filter(|one| matches!(one, Happening::Reachable(_))).count()
}

/// Proves ISC-047.
#[test]
fn a_subscription_is_asked_for_in_the_words_of_the_rule() {
    let mut world = World::new(watching());
    world.receive(&register(1, 600_000));
    assert_eq!(world.statuses(), [200]);
    let subscribe = world.last_request("SUBSCRIBE");
    assert_eq!(subscribe.message.uri(), "sip:alice@home1.example");
    let one = |name: &'static str| header(subscribe, name).unwrap_or_default();
    assert_eq!(one("To"), "<sip:alice@home1.example>");
    assert!(one("From").starts_with("<sip:im-as1.home1.example>;tag="), "{}", one("From"));
    assert_eq!(one("P-Asserted-Identity"), "<sip:im-as1.home1.example>");
    assert_eq!((one("Event"), one("Accept")), ("reg", "application/reginfo+xml"));
    assert!(one("Expires").parse::<u32>().is_ok_and(|expires| expires >= 600_000));
    assert_eq!(
        one("P-Charging-Vector"),
        "icid-value=\"pc1-reg-009\";orig-ioi=\"Type 3home1.example\""
    );
    assert_eq!(one("Route"), "<sip:scscf1.home1.example:5060;transport=tcp;lr>");
    assert_eq!(one("Contact"), "<sip:im-as1.home1.example:5060>");
    assert_eq!(one("Max-Forwards"), "70");
    for absent in ["P-Served-User", "P-Asserted-Service", "Record-Route"] {
        assert_eq!(headers(subscribe, absent), [""; 0], "{absent}");
    }
    // Off by default, nobody who is not registered, and never in a plain core.
    let plain = Settings { profile: CoreProfile::SipIp, ..watching() };
    for (settings, expires) in [(home(), 600), (watching(), 0), (plain, 600)] {
        let mut world = World::new(settings);
        world.receive(&register(1, expires));
        assert_eq!((asked(&world), world.isc.watched()), (0, 0));
    }
}

/// Proves ISC-047.
#[test]
fn what_the_registrar_answers_decides_when_it_is_asked_again() {
    // 480 and 403: not before the next REGISTER.
    for status in [480, 403] {
        let mut world = World::new(watching());
        world.receive(&register(1, 6000));
        let answer = reply(world.last_request("SUBSCRIBE"), status, "n1", "", "");
        world.receive(&answer);
        world.pass(SECOND * 5000);
        assert_eq!((asked(&world), world.isc.watched()), (1, 0), "{status}");
        world.receive(&register(2, 600));
        assert_eq!(asked(&world), 2, "{status}");
    }
    // Anything else: later and later.
    let mut world = World::new(watching());
    world.receive(&register(1, 600_000));
    for (n, wait) in [30, 60, 120, 240].into_iter().enumerate() {
        assert_eq!(asked(&world), n + 1);
        let answer = reply(world.last_request("SUBSCRIBE"), 500, "n1", "", "");
        world.receive(&answer);
        world.pass(SECOND * wait - Duration::from_millis(1));
        assert_eq!(asked(&world), n + 1, "not yet");
        world.pass(Duration::from_millis(1));
    }
    // As the registrar wishes.
    let answer = reply(world.last_request("SUBSCRIBE"), 503, "n1", "Retry-After: 7\n", "");
    world.receive(&answer);
    world.pass(SECOND * 7);
    assert_eq!(asked(&world), 6);
    let answer = reply(world.last_request("SUBSCRIBE"), 423, "n1", "Min-Expires: 900000\n", "");
    world.receive(&answer);
    world.pass(SECOND * 4000);
    let last = world.last_request("SUBSCRIBE");
    assert_eq!(header(last, "Expires"), Some("900000"));
    // Nobody answers, and nobody is registered any more: that is the end.
    let mut world = World::new(watching());
    world.receive(&register(1, 600));
    world.pass(SECOND * 5000);
    assert_eq!(world.isc.watched(), 0);
    assert_eq!(world.isc.ua().stats().subscriptions, 0);
}

/// A registrar that never grants a subscription, or ends each at once, is not asked in a circle.
#[test]
fn what_does_not_last_is_asked_for_later_and_later() {
    let ended = |state: &'static str| {
        move |world: &mut World, n: u32| {
            let subscribe = world.last_request("SUBSCRIBE");
            let over = notify(subscribe, n, state, "");
            let answer = reply(subscribe, 200, "n1", ACCEPTED, "");
            world.receive(&answer);
            world.receive(&over);
        }
    };
    let refused = |status: u16| {
        move |world: &mut World, _: u32| {
            let lines = if status == 423 { "Min-Expires: 900000\n" } else { "" };
            let answer = reply(world.last_request("SUBSCRIBE"), status, "n1", lines, "");
            world.receive(&answer);
        }
    };
    type Answer = Box<dyn Fn(&mut World, u32)>;
    let answers: [(&str, Answer); 4] = [
        ("481", Box::new(refused(481))),
        ("423", Box::new(refused(423))),
        ("timeout", Box::new(ended("terminated;reason=timeout"))),
        ("deactivated", Box::new(ended("terminated;reason=deactivated"))),
    ];
    for (name, answer) in answers {
        let mut world = World::new(watching());
        world.receive(&register(1, 600_000));
        for n in 1..=20 {
            answer(&mut world, n);
            world.pass(SECOND);
        }
        assert_eq!(asked(&world), 2, "{name}: the second at once, the third not");
        world.pass(SECOND * 60);
        assert_eq!(asked(&world), 3, "{name}");
    }
}

/// Proves ISC-047.
#[test]
fn a_subscription_is_refreshed_while_the_user_is_registered() {
    let mut world = watched();
    // 600 s before the end the registrar granted.
    world.pass(SECOND * 599_429);
    assert_eq!(asked(&world), 1);
    world.pass(SECOND * 2);
    assert_eq!(asked(&world), 2);
    let again = world.last_request("SUBSCRIBE");
    assert_eq!(again.message.uri(), "sip:scscf1.home1.example:5060");
    assert_eq!(again.message.to_tag(), Some(&b"n1"[..]));
    assert_eq!(header(again, "CSeq"), Some("2 SUBSCRIBE"));
    assert_eq!(header(again, "Event"), Some("reg"));
    // The dialog is lost there: a new one at once.
    let answer = reply(again, 481, "", "", "");
    world.receive(&answer);
    world.pass(SECOND);
    let new = world.last_request("SUBSCRIBE");
    assert_eq!((asked(&world), new.message.to_tag()), (3, None));
    // A REGISTER that makes the registration longer makes the subscription longer, too.
    let mut world = watched();
    world.receive(&register(2, 700_000));
    let again = world.last_request("SUBSCRIBE");
    assert!(
        header(again, "Expires")
            .is_some_and(|text| text.parse::<u32>().is_ok_and(|n| n >= 700_000))
    );
    assert_eq!(asked(&world), 2);
    // Without a word from the registrar about how long, it is the package's own time (3761 s).
    let mut world = World::new(watching());
    world.receive(&register(1, 600_000));
    let answer = reply(
        world.last_request("SUBSCRIBE"),
        200,
        "n1",
        &ACCEPTED.replace("Expires: 600030\n", ""),
        "",
    );
    world.receive(&answer);
    world.pass(SECOND * 3160);
    assert_eq!(asked(&world), 1);
    world.pass(SECOND * 2);
    assert_eq!(asked(&world), 2);
}

/// Proves ISC-048.
#[test]
fn contacts_with_our_tag_make_a_user_registered() {
    let im = ("+g.oma.sip-im", "");
    let other = ("audio", "");
    let valued = ("+g.3gpp.icsi-ref", "\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"");
    let cases: [(&str, String, bool); 9] = [
        ("ours", contact(1, "active", "registered", &[im]), true),
        ("large", contact(1, "active", "created", &[("+g.oma.sip-im.large-message", "")]), true),
        ("another's", contact(1, "active", "registered", &[other]), false),
        (
            "one of two",
            contact(1, "active", "registered", &[other])
                + &contact(2, "active", "refreshed", &[im]),
            true,
        ),
        ("ended", contact(1, "terminated", "unregistered", &[im]), false),
        ("by its event", contact(1, "active", "deactivated", &[im]), false),
        ("none", String::new(), false),
        // Some S-CSCFs drop tags without a value: their silence says nothing.
        ("tags with values alone", contact(1, "active", "registered", &[valued]), true),
        // What the phone itself said counts more than the silence of the registrar.
        ("known from its REGISTER", contact(62, "active", "registered", &[]), false),
    ];
    for (name, contacts, want) in cases {
        let mut world = watched();
        assert!(registered(&world));
        let body = document(0, "full", &contacts);
        assert_eq!(told(&mut world, 1, "active;expires=600000", &body), Some(200), "{name}");
        assert_eq!(registered(&world), want, "{name}");
        // It stays so, however often it is told.
        let body = document(1, "full", &contacts);
        assert_eq!(told(&mut world, 2, "active;expires=600000", &body), Some(200), "{name}");
        assert_eq!(registered(&world), want, "{name}");
    }
}

/// Proves ISC-048.
#[test]
fn documents_are_read_in_their_order() {
    let mut world = watched();
    let im = [("+g.oma.sip-im", "")];
    let active = contact(1, "active", "registered", &im);
    let ended = contact(1, "terminated", "expired", &im);
    assert_eq!(told(&mut world, 1, "active", &document(0, "full", &active)), Some(200));
    assert_eq!((registered(&world), reached(&world)), (true, 1), "he was registered before");
    assert_eq!(told(&mut world, 2, "active", &document(1, "partial", &ended)), Some(200));
    assert!(!registered(&world));
    // Switched on again: worth an invitation.
    assert_eq!(told(&mut world, 3, "active", &document(2, "partial", &active)), Some(200));
    assert_eq!((registered(&world), reached(&world)), (true, 2));
    // Known already; then one that is missing: the whole is asked for.
    assert_eq!(told(&mut world, 4, "active", &document(2, "partial", &ended)), Some(200));
    assert!(registered(&world));
    assert_eq!(asked(&world), 1);
    assert_eq!(told(&mut world, 5, "active", &document(4, "partial", &ended)), Some(200));
    assert!(registered(&world));
    assert_eq!(asked(&world), 2);
    let answer = reply(world.last_request("SUBSCRIBE"), 200, "", ACCEPTED, "");
    world.receive(&answer);
    assert_eq!(told(&mut world, 6, "active", &document(5, "full", &ended)), Some(200));
    assert!(!registered(&world));
    // What cannot be read is answered and changes nothing.
    for (cseq, body) in [(7, "<reginfo"), (8, "no XML"), (9, "<other xmlns=\"urn:x\"/>")] {
        assert_eq!(told(&mut world, cseq, "active", body), Some(200), "{body}");
    }
    assert!(!registered(&world));
}

/// A user who left one phone may still be there with another: the registrar is asked.
///
/// Proves ISC-044.
#[test]
fn expires_0_asks_for_the_whole_state() {
    let mut world = watched();
    world.receive(&register(2, 0));
    assert!(!registered(&world));
    assert_eq!(asked(&world), 2);
    let answer = reply(world.last_request("SUBSCRIBE"), 200, "", ACCEPTED, "");
    world.receive(&answer);
    let body = document(3, "full", &contact(2, "active", "registered", &[("+g.oma.sip-im", "")]));
    assert_eq!(told(&mut world, 1, "active;expires=600", &body), Some(200));
    assert!(registered(&world));
    assert_eq!(reached(&world), 2);
    // Its own 592 s and the grace, no longer.
    world.pass(SECOND * 651);
    assert!(registered(&world));
    world.pass(SECOND * 2);
    assert!(!registered(&world));
}

/// RFC 6665 §4.1.3.
///
/// Proves ISC-048.
#[test]
fn the_end_of_a_subscription_says_when_to_ask_again() {
    for (state, after, again) in [
        ("terminated;reason=deactivated", 1, true),
        ("terminated;reason=timeout", 1, true),
        ("terminated;reason=probation;retry-after=90", 89, false),
        ("terminated;reason=probation;retry-after=90", 90, true),
        ("terminated;reason=giveup", 30, true),
        ("terminated", 30, true),
        ("terminated;reason=rejected", 6000, false),
        ("terminated;reason=noresource", 6000, false),
    ] {
        let mut world = watched();
        let body =
            document(0, "full", &contact(1, "active", "registered", &[("+g.oma.sip-im", "")]));
        assert_eq!(told(&mut world, 1, state, &body), Some(200), "{state}");
        assert!(registered(&world), "{state}: the document counts");
        world.pass(SECOND * after);
        assert_eq!(asked(&world), if again { 2 } else { 1 }, "{state}");
        if again {
            assert_eq!(world.last_request("SUBSCRIBE").message.to_tag(), None, "{state}");
        }
    }
}

/// Proves ISC-048.
#[test]
fn a_notify_is_answered_by_what_it_is() {
    let mut world = watched();
    let good = notify(world.last_request("SUBSCRIBE"), 1, "active", "");
    let body = document(0, "full", "");
    for (peer, text, status) in [
        ("198.51.100.1:5060", good.replace("-n-1-", "-x1-") + &body, 403),
        (
            "192.0.2.40:5060",
            good.replace("-n-1-", "-x2-")
                .replace("1 NOTIFY", "2 NOTIFY")
                .replace("Event: reg", "Event: presence"),
            489,
        ),
        (
            "192.0.2.40:5060",
            good.replace("-n-1-", "-x3-").replace("Call-ID: lm-", "Call-ID: xx-"),
            481,
        ),
        ("192.0.2.40:5060", good.replace("-n-1-", "-x4-").replace("1 NOTIFY", "3 NOTIFY"), 200),
    ] {
        world.receive_from(peer, &text);
        assert_eq!(world.answer().message.status(), Some(status), "{text}");
    }
    assert!(registered(&world), "none of them told anything");
}
