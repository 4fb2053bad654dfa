//! Third-party registrations: what is taken, what is answered, and what it is good for later.

use std::time::Duration;

use pagecast::isc::Happening;
use pagecast::isc::reachable::Registration;
use pagecast::isc::settings::{CoreProfile, SendPsu, Settings};

use crate::world::{INVITE, World, group_invite, header, headers, home};

/// The example of the rule list: expiry, charging, and the three bodies in one multipart.
const REGISTER: &str = r#"REGISTER sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/TCP 192.0.2.40:5060;branch=z9hG4bK-reg-1
Max-Forwards: 70
From: <sip:scscf1.home1.example>;tag=r-81
To: <sip:alice@home1.example>
Call-ID: 3p-77@scscf1.home1.example
CSeq: 87 REGISTER
Contact: <sip:scscf1.home1.example:5060;transport=tcp>;+g.3gpp.registration-token="tok-1"
Expires: 600000
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000A0011A2B
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;network-provided;utran-cell-id-3gpp=0010100010000001
P-Visited-Network-ID: "visited1.example"
P-Charging-Vector: icid-value="pc1-reg-009";orig-ioi="Type 3home1.example"
P-Charging-Function-Addresses: ccf="aaa://cdf1.home1.example"
Content-Type: multipart/mixed;boundary=rb1

--rb1
Content-Type: application/3gpp-ims+xml

<?xml version="1.0" encoding="UTF-8"?>
<ims-3gpp version="1"><service-info>im-tier=gold</service-info></ims-3gpp>
--rb1
Content-Type: message/sip

REGISTER sip:home1.example SIP/2.0
Via: SIP/2.0/UDP [2001:db8::a1]:1357;branch=z9hG4bK-ue-r
Max-Forwards: 68
From: <sip:alice@home1.example>;tag=ue-r
To: <sip:alice@home1.example>
Call-ID: reg-1@ue.example
CSeq: 2 REGISTER
Contact: <sip:alice@[2001:db8::a1]:1357>;+g.oma.sip-im;+g.oma.sip-im.large-message;audio
Expires: 600000
User-Agent: ExampleUE/1.2
Content-Length: 0

--rb1
Content-Type: message/sip

SIP/2.0 200 OK
Via: SIP/2.0/UDP [2001:db8::a1]:1357;branch=z9hG4bK-ue-r
From: <sip:alice@home1.example>;tag=ue-r
To: <sip:alice@home1.example>;tag=sc-r
Call-ID: reg-1@ue.example
CSeq: 2 REGISTER
Contact: <sip:alice@[2001:db8::a1]:1357>;expires=600000, <sip:alice@192.0.2.9>;expires=120;audio
P-Associated-URI: <sip:alice@home1.example>, <tel:+15551230001>
Service-Route: <sip:orig@scscf1.home1.example;lr>
Content-Length: 0

--rb1--
"#;

/// The same without a body, with another expiry and in a transaction of its own.
fn register(n: u32, expires: u32) -> String {
    let head = REGISTER.split("\n\n").next().unwrap_or_default();
    head.replace("\nContent-Type: multipart/mixed;boundary=rb1", "")
        .replace("z9hG4bK-reg-1", &format!("z9hG4bK-reg-n{n}"))
        .replace("3p-77@", &format!("3p-n{n}@"))
        .replace("Expires: 600000", &format!("Expires: {expires}"))
        + "\n\n"
}

fn with_body(n: u32, content_type: &str, body: &str) -> String {
    let kind = if content_type.is_empty() {
        String::new()
    } else {
        format!("\nContent-Type: {content_type}")
    };
    format!("{}{kind}\n\n{body}", register(n, 600).trim_end())
}

fn alice(world: &World) -> Option<(bool, Registration)> {
    seen(world, "sip:alice@home1.example")
}

fn seen(world: &World, key: &str) -> Option<(bool, Registration)> {
    let view = world.isc.registry().view(world.now, key)?;
    Some((view.registered, view.registration))
}

fn reached(world: &World) -> usize {
    world.happened.iter().filter(|one| matches!(one, Happening::Reachable(_))).count()
}

/// Proves ISC-041, ISC-042.
#[test]
fn everything_the_core_tells_of_a_user_is_kept() {
    let mut world = World::new(home());
    world.receive(REGISTER);
    assert_eq!(world.statuses(), [200]);
    let answer = world.answer();
    assert_eq!(header(answer, "Expires"), Some("600000"));
    let (registered, told) = alice(&world).expect("known");
    assert!(registered);
    assert_eq!((told.identity.as_str(), told.expires), ("sip:alice@home1.example", 600_000));
    assert_eq!(told.scscf, "sip:scscf1.home1.example:5060;transport=tcp");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    assert_eq!(text(&told.charging_functions), "ccf=\"aaa://cdf1.home1.example\"");
    assert_eq!(
        (text(&told.icid), text(&told.orig_ioi)),
        ("pc1-reg-009".into(), "Type 3home1.example".into())
    );
    // What the network vouches for comes before what the phone says.
    assert_eq!(
        text(&told.access),
        "3GPP-E-UTRAN-FDD;network-provided;utran-cell-id-3gpp=0010100010000001"
    );
    assert_eq!(
        (text(&told.visited), text(&told.token)),
        ("\"visited1.example\"".into(), "tok-1".into())
    );
    assert_eq!(
        (text(&told.service_info), text(&told.user_agent)),
        ("im-tier=gold".into(), "ExampleUE/1.2".into())
    );
    assert_eq!(told.associated, ["sip:alice@home1.example", "tel:+15551230001"]);
    let contacts: Vec<_> = told
        .contacts
        .iter()
        .map(|contact| (contact.uri.as_str(), contact.expires, contact.takes_pages("")))
        .collect();
    assert_eq!(
        contacts,
        [
            ("sip:alice@[2001:db8::a1]:1357", Some(600_000), true),
            ("sip:alice@192.0.2.9", Some(120), false),
        ],
        "all contacts with their own expiries, the phone's own tags"
    );
    // One user under every name of the implicit set.
    assert!(seen(&world, "tel:+15551230001").is_some_and(|(registered, _)| registered));
    assert_eq!(world.isc.registry().registered(), 1);
    assert_eq!(reached(&world), 1);
}

/// From stands in for a missing Contact.
///
/// Proves ISC-041.
#[test]
fn the_s_cscf_is_that_of_contact_else_of_from() {
    let mut world = World::new(home());
    let text = register(1, 600);
    let contact = text.lines().find(|line| line.starts_with("Contact")).expect("it is there");
    world.receive(&text.replace(&format!("{contact}\n"), ""));
    assert_eq!(world.statuses(), [200]);
    assert_eq!(alice(&world).expect("known").1.scscf, "sip:scscf1.home1.example");
}

/// Proves ISC-042, ISC-043.
#[test]
fn bodies_are_read_in_every_form_they_come_in() {
    let part = |n: usize| -> String {
        let part = REGISTER.split("--rb1").nth(n).expect("a part");
        part.split_once("\n\n").expect("a head").1.to_owned()
    };
    let (xml, request, response) = (part(1), part(2), part(3));
    let info = |told: &Registration| told.service_info.clone();
    let tags = |told: &Registration| {
        told.contacts.first().map(|contact| (contact.told, contact.takes_pages("")))
    };
    let gold = Some("im-tier=gold".to_owned());
    type Want<'a> = (&'a str, &'a str, String, Option<String>, Option<(bool, bool)>, usize);
    let cases: [Want<'_>; 11] = [
        ("bare service-info", "application/3gpp-ims+xml", xml.clone(), gold.clone(), None, 0),
        ("bare REGISTER", "message/sip", request.clone(), None, Some((true, true)), 0),
        ("bare 200", "message/sip", response.clone(), None, Some((false, true)), 2),
        ("no type, declaration", "", xml.clone(), gold.clone(), None, 0),
        (
            "no type, no declaration, no version",
            "",
            "<ims-3gpp><service-info>im-tier=gold</service-info></ims-3gpp>".to_owned(),
            gold.clone(),
            None,
            0,
        ),
        ("no type, REGISTER", "", request.clone(), None, Some((true, true)), 0),
        (
            "an namespace of its own, CDATA",
            "application/3gpp-ims+xml",
            "<ims-3gpp xmlns=\"urn:3gpp:x\"><service-info><![CDATA[a<b]]></service-info></ims-3gpp>"
                .to_owned(),
            Some("a<b".to_owned()),
            None,
            0,
        ),
        (
            "markup inside",
            "application/3gpp-ims+xml",
            "<ims-3gpp version=\"1\"><service-info><t a=\"1\">x</t></service-info></ims-3gpp>".to_owned(),
            Some("<t a=\"1\">x</t>".to_owned()),
            None,
            0,
        ),
        ("broken XML", "application/3gpp-ims+xml", "<ims-3gpp><serv".to_owned(), None, None, 0),
        ("no multipart", "multipart/mixed", "whatever".to_owned(), None, None, 0),
        ("something else", "message/sip", "INVITE sip:a@b SIP/2.0\n".to_owned(), None, None, 0),
    ];
    for (n, (name, kind, body, service_info, first, associated)) in cases.into_iter().enumerate() {
        let mut world = World::new(home());
        world.receive(&with_body(n as u32, kind, &body));
        assert_eq!(world.statuses(), [200], "{name}");
        let (registered, told) = alice(&world).expect("known");
        assert!(registered, "{name}");
        assert_eq!(info(&told), service_info, "{name}");
        assert_eq!(tags(&told), first, "{name}");
        assert_eq!(told.associated.len(), associated, "{name}");
    }
}

/// What a real S-CSCF sends, its malformed header included.
///
/// Proves ISC-043.
#[test]
fn a_real_s_cscfs_register_is_taken() {
    const KAMAILIO: &str = r#"REGISTER sip:im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK822d.7654b8b6000000000000000000000000.0
To: <sip:alice@ims.test>
From: <sip:scscf.ims.test:5060>;tag=47370292e6adcf58533d76a56cf488b4-392af094
CSeq: 10 REGISTER
Call-ID: 0bac42c81362ec6d-8075@192.0.2.40
User-Agent: Kamailio S-CSCF
Event: registration
Max-Forwards: 10
Expires: 720
Path: <sip:scscf.ims.test:5060;lr>,<sip:127.0.0.61:5060;lr>
Contact: <sip:scscf.ims.test:5060>
P-Visited-Network-ID: ims.test
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000001
P-Charging-Vector: icid-value="4a6d71a5b6bdae1b85f7925f";icid-generated-at=127.0.0.61
P-Associated-URI: <sip:alice@ims.test, tel:+15550001>
Content-Type: message/sip

REGISTER sip:scscf.ims.test:5060 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.30;branch=z9hG4bK21db.3bfd9c612d60310e666a2d87242a5a58.0
From: <sip:alice@ims.test>;tag=e45901de
To: <sip:alice@ims.test>
Call-ID: 5797e20033279b24
CSeq: 2 REGISTER
Contact: <sip:alice@127.0.0.61:5060>;+sip.instance="<urn:uuid:6384e2b2184bcbf58eccf10ca7a6563c>";+g.oma.sip-im;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session"
Expires: 600
User-Agent: lab-ue/1
Content-Length: 0

"#;
    let mut world = World::new(home());
    world.receive(KAMAILIO);
    assert_eq!(world.statuses(), [200]);
    assert_eq!(header(world.answer(), "Expires"), Some("720"));
    let (registered, told) = seen(&world, "sip:alice@ims.test").expect("known");
    assert!(registered);
    assert_eq!((told.scscf.as_str(), told.expires), ("sip:scscf.ims.test:5060", 720));
    assert_eq!(told.associated, ["sip:alice@ims.test", "tel:+15550001"]);
    assert_eq!(told.contacts[0].expires, Some(600), "a little less than the S-CSCF gives");
    assert!(told.contacts[0].takes_pages(""));
    assert!(seen(&world, "tel:+15550001").is_some());
}

/// Proves ISC-044.
#[test]
fn expires_0_ends_a_registration() {
    let mut world = World::new(home());
    world.receive(&register(1, 600));
    assert_eq!((alice(&world).expect("known").0, reached(&world)), (true, 1));
    world.receive(&register(2, 0));
    assert_eq!(header(world.answer(), "Expires"), Some("0"));
    assert_eq!((alice(&world).expect("known").0, reached(&world)), (false, 1));
    assert_eq!(world.isc.registry().registered(), 0);
    world.receive(&register(3, 600));
    assert_eq!((alice(&world).expect("known").0, reached(&world)), (true, 2));
}

/// Proves ISC-045.
#[test]
fn a_registration_nobody_refreshes_ends_after_its_grace() {
    let second = Duration::from_secs(1);
    let mut world = World::new(home());
    world.receive(&register(1, 600));
    world.pass(second * 500);
    world.receive(&register(2, 600));
    // 600 s from the second one, and 60 s of grace.
    world.pass(second * 659);
    assert!(alice(&world).expect("known").0);
    world.pass(second * 2);
    assert!(!alice(&world).expect("still remembered").0);
    assert_eq!(world.isc.registry().registered(), 0);
    // In the end nothing is left, and whoever keeps it is told.
    world.pass(second * 3600);
    assert_eq!(alice(&world), None);
    assert!(world.isc.registry().is_empty());
    let last = world.happened.iter().rev().find_map(|one| match one {
        Happening::Kept(change) => Some(change.kept.is_none()),
        _ => None,
    });
    assert_eq!(last, Some(true));
    assert_eq!(world.isc.next_wake(), None);

    let mut settings = home();
    settings.isc.reg_grace = Duration::ZERO;
    let mut world = World::new(settings);
    world.receive(&register(1, 600));
    world.pass(second * 601);
    assert!(!alice(&world).expect("still remembered").0);
}

/// Proves ISC-045.
#[test]
fn registrations_count_in_their_order() {
    let mut world = World::new(home());
    let one = |cseq: u32, expires: u32| {
        register(9, expires)
            .replace("CSeq: 87", &format!("CSeq: {cseq}"))
            .replace("z9hG4bK-reg-n9", &format!("z9hG4bK-{cseq}-{expires}"))
    };
    world.receive(&one(20, 600));
    world.receive(&one(21, 0));
    // Overtaken on its way: it was sent before the one that ended it.
    world.receive(&one(20, 600));
    world.receive(&one(19, 600));
    assert_eq!(world.statuses(), [200, 200, 200, 200]);
    assert!(!alice(&world).expect("known").0);
    assert_eq!(reached(&world), 1);
    // Another Call-ID says nothing about order: the last to arrive counts.
    world.receive(&register(10, 600).replace("CSeq: 87", "CSeq: 1"));
    assert!(alice(&world).expect("known").0);
}

/// Proves ISC-039.
#[test]
fn whoever_may_not_register_changes_nothing() {
    let mut world = World::new(home());
    world.receive_from("198.51.100.1:5060", &register(1, 600));
    world.receive(&register(2, 600).replace(
        "Contact: <sip:scscf1.home1.example:5060;transport=tcp>",
        "Contact: <sip:alice@192.0.2.61>",
    ));
    world.receive(&register(3, 600).replace("REGISTER sip:im-as1.", "REGISTER sip:other."));
    world.receive(&register(4, 600).replace(
        "Contact: <sip:scscf1.home1.example:5060;transport=tcp>",
        "Contact: <sip:scscf1.home1.example:5060;transport=tcp>, <sip:alice@192.0.2.61>",
    ));
    assert_eq!(world.statuses(), [403, 403, 403, 403]);
    assert_eq!(alice(&world), None);
    // A plain core may tell us in the same way.
    let mut world = World::new(Settings { profile: CoreProfile::SipIp, ..home() });
    world.receive(&register(1, 600));
    assert_eq!(world.statuses(), [200]);
    assert!(alice(&world).expect("known").0);
    world.receive_from("198.51.100.1:5060", &register(2, 0));
    assert_eq!(world.answer().message.status(), Some(403));
    assert!(alice(&world).expect("known").0);
}

/// Proves ISC-046.
#[test]
fn an_answer_waits_for_the_store_but_not_long() {
    let mut world = World::new(home());
    let registry = world.isc.registry().clone();
    world.isc.share(registry, true);
    world.receive(&register(1, 600));
    assert_eq!(world.statuses(), [0; 0]);
    assert!(alice(&world).expect("known").0, "known at once");
    let ticket = world.happened.iter().find_map(|one| match one {
        Happening::Kept(change) => change.ticket,
        _ => None,
    });
    world.isc.kept(world.now, ticket.expect("it waits"));
    world.drive();
    assert_eq!(world.statuses(), [200]);
    // A store that says nothing.
    world.receive(&register(2, 600));
    world.pass(Duration::from_millis(299));
    assert_eq!(world.statuses(), [200]);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.statuses(), [200, 200]);
    world.isc.kept(world.now, 2);
    world.drive();
    assert_eq!(world.statuses(), [200, 200], "answered once");
}

fn leg_after(world: &mut World, invite: &str) -> String {
    world.receive(invite);
    world.invite(1);
    world.last_request("INVITE").text.clone()
}

fn route(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("Route: "));
    line.unwrap_or_default().to_owned()
}

/// The sources of the S-CSCF, removed one by one.
///
/// Proves ISC-058, ISC-009.
#[test]
fn a_users_s_cscf_is_found_in_the_order_of_the_rule() {
    let no_route = INVITE.replace(", <sip:odi-8f2c51@scscf1.home1.example;lr;orig>", "");
    let stored = register(1, 600).replace("scscf1.home1.example", "scscf7.home1.example");
    let elsewhere = stored.replace("To: <sip:alice@", "To: <sip:bob@");
    let gone = stored.replace("Expires: 600", "Expires: 0");
    let from_store = "<sip:scscf7.home1.example:5060;transport=tcp;lr;orig>";
    let from_route = "<sip:scscf1.home1.example;lr;orig>";
    let configured = "<sip:scscf9.home1.example;lr;orig>";
    let entry = "<sip:icscf1.home1.example;lr;orig>";
    let terminating = INVITE
        .replace(";sescase=orig", ";sescase=term")
        .replace("P-Served-User: <sip:alice@", "P-Served-User: <sip:im-exploder@");
    for (name, register, invite, scscf, want) in [
        ("stored", &stored, INVITE, true, from_store),
        ("stored, of the caller", &stored, terminating.as_str(), true, from_store),
        ("stored for somebody else", &elsewhere, INVITE, true, from_route),
        ("registered no more", &gone, INVITE, true, from_route),
        ("route of another user", &elsewhere, terminating.as_str(), true, configured),
        ("configured", &elsewhere, no_route.as_str(), true, configured),
        ("I-CSCF", &elsewhere, no_route.as_str(), false, entry),
    ] {
        let mut settings = home();
        if !scscf {
            settings.core.scscf = String::new();
        }
        let mut world = World::new(settings);
        world.receive(register);
        let text = leg_after(&mut world, invite);
        assert_eq!(route(&text), want, "{name}");
    }
}

/// Proves ISC-022.
#[test]
fn the_known_state_stands_in_p_served_user() {
    let silent = INVITE.replace(";regstate=reg", "");
    let user = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("P-Served-User: "));
        line.unwrap_or_default().to_owned()
    };
    for (register, invite, want) in [
        (None, silent.as_str(), "reg"),
        (Some(register(1, 600)), silent.as_str(), "reg"),
        (Some(register(1, 0)), silent.as_str(), "unreg"),
        // The request is newer than the REGISTER.
        (Some(register(1, 0)), INVITE, "reg"),
        (Some(register(1, 600)), &INVITE.replace("regstate=reg", "regstate=unreg"), "unreg"),
    ] {
        let mut world = World::new(home());
        register.iter().for_each(|text| world.receive(text));
        let text = leg_after(&mut world, invite);
        let want = format!("<sip:alice@home1.example>;sescase=orig;regstate={want}");
        assert_eq!(user(&text), want, "{register:?}");
    }
    let mut settings = home();
    settings.isc.send_psu = SendPsu::Never;
    let mut world = World::new(settings);
    world.receive(&register(1, 600));
    assert_eq!(user(&leg_after(&mut world, INVITE)), "");
}

/// Charging functions learnt from the REGISTER stand on legs where the INVITE brought none; what is private to the
/// access stands on none.
///
/// Proves ISC-032, ISC-033.
#[test]
fn what_the_registration_told_is_used_and_what_is_private_is_not() {
    let line = "P-Charging-Function-Addresses: ccf=\"aaa://cdf1.home1.example\"\n";
    let without = group_invite().replace(line, "");
    let functions = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("P-Charging-Function-Addresses: "))
            .map(str::to_owned)
            .collect()
    };
    let learnt = register(1, 600).replace("cdf1.", "cdf7.");
    for (register, invite, want) in [
        (None, &without, &[][..]),
        (Some(&learnt), &without, &["ccf=\"aaa://cdf7.home1.example\""][..]),
        (Some(&learnt), &group_invite(), &["ccf=\"aaa://cdf1.home1.example\""][..]),
    ] {
        let mut world = World::new(home());
        register.iter().for_each(|text| world.receive(text));
        let text = leg_after(&mut world, invite);
        assert_eq!(functions(&text), want);
        let leg = world.last_request("INVITE");
        for private in ["P-Access-Network-Info", "P-Visited-Network-ID"] {
            assert_eq!(headers(leg, private), [""; 0], "{private}");
        }
    }
}

/// The same REGISTER by another way, because the first way looked lost: answered as before, and no news.
///
/// Proves ISC-045, ISC-046.
#[test]
fn a_register_that_comes_twice_is_answered_twice() {
    let mut world = World::new(home());
    world.receive(&register(1, 600));
    world.receive(&register(1, 600).replace("z9hG4bK-reg-n1", "z9hG4bK-another"));
    assert_eq!(world.statuses(), [200, 200]);
    assert_eq!(header(world.answer(), "Expires"), Some("600"));
    assert_eq!(reached(&world), 1);
}
