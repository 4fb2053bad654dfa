//! Requests outside of dialogs other than INVITE.

use crate::world::{World, header, home};

fn request(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-{method}-{}
Max-Forwards: 70
From: <sip:scscf1.home1.example>;tag=r-81
To: <sip:alice@home1.example>
Call-ID: 3p-77@scscf1.home1.example
CSeq: 87 {method}
{more}",
        uri.len() + more.len()
    )
}

/// Proves UL-004.
#[test]
fn options_say_what_we_are() {
    // IM-096 names the tags of REFER, too; it is not served, so they are not promised.
    let lists = "100rel, timer, recipient-list-invite, recipient-list-message";
    for (uri, supported) in [
        ("sip:im-exploder@im.home1.example", lists),
        ("sip:im-as1.home1.example", lists),
        ("sip:lm-7f3a@im-as1.home1.example", "100rel, timer"),
        ("sip:team@groups.home1.example", "100rel, timer"),
    ] {
        let mut world = World::new(home());
        world.receive(&request("OPTIONS", uri, ""));
        let answer = world.answer();
        assert_eq!(answer.message.status(), Some(200), "{uri}");
        assert_eq!(header(answer, "Supported"), Some(supported), "{uri}");
        assert_eq!(
            header(answer, "Allow"),
            Some("INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS")
        );
        assert!(header(answer, "Accept").is_some_and(|types| types.contains("application/sdp")));
        assert!(
            header(answer, "Contact")
                .is_some_and(|contact| contact.contains(";+g.oma.sip-im.large-message"))
        );
    }
    let mut world = World::new(home());
    world.receive(&request("OPTIONS", "sip:nobody@im.home1.example", ""));
    assert_eq!(world.statuses(), [404]);
}

/// Proves ISC-072.
#[test]
fn a_draining_node_says_so() {
    let mut world = World::new(home());
    world.isc.drain();
    world.receive(&request("OPTIONS", "sip:im-as1.home1.example", ""));
    assert_eq!(world.statuses(), [503]);
    assert!(header(world.answer(), "Retry-After").is_some());
    world.receive(&request(
        "REGISTER",
        "sip:im-as1.home1.example",
        "Contact: <sip:scscf1.home1.example:5060>\nExpires: 600",
    ));
    assert_eq!(world.statuses(), [503, 200], "what the core says about its users is taken");
}

/// Proves ISC-039, ISC-040, ISC-046.
#[test]
fn a_third_party_registration_keeps_its_expiry() {
    let register = |more: &str| request("REGISTER", "sip:im-as1.home1.example", more);
    let mut world = World::new(home());
    world.receive(&register(
        "Contact: <sip:scscf1.home1.example:5060;transport=tcp>\nExpires: 600030\nP-Charging-Vector: icid-value=\"pc1-reg-009\";orig-ioi=\"Type 3home1.example\"\nContent-Type: application/3gpp-ims+xml\n\n<broken",
    ));
    let answer = world.answer();
    assert_eq!(answer.message.status(), Some(200));
    assert_eq!(header(answer, "Expires"), Some("600030"));
    assert_eq!(
        header(answer, "Contact"),
        Some("<sip:scscf1.home1.example:5060;transport=tcp>;expires=600030")
    );
    assert_eq!(
        header(answer, "P-Charging-Vector"),
        Some(
            "icid-value=\"pc1-reg-009\";orig-ioi=\"Type 3home1.example\";term-ioi=\"Type 3home1.example\""
        )
    );
    // What a real S-CSCF sends: no user in From and Contact, an Event, a malformed P-Associated-URI.
    let mut world = World::new(home());
    world.receive(&register(
        "Contact: <sip:scscf1.home1.example:5060>\nExpires: 0\nEvent: registration\nP-Associated-URI: <sip:alice@ims.test, tel:+15550001>\nPath: <sip:scscf1.home1.example:5060;lr>",
    ));
    assert_eq!(world.answer().message.status(), Some(200));
    assert_eq!(header(world.answer(), "Expires"), Some("0"));
    // A phone.
    for (peer, text) in [
        ("198.51.100.1:5060", register("Contact: <sip:scscf1.home1.example>\nExpires: 600")),
        (
            "192.0.2.61:5060",
            register("Contact: <sip:alice@192.0.2.61>\nExpires: 600")
                .replace("<sip:scscf1.home1.example>;tag", "<sip:alice@home1.example>;tag"),
        ),
        (
            "192.0.2.40:5060",
            request(
                "REGISTER",
                "sip:home1.example",
                "Contact: <sip:scscf1.home1.example>\nExpires: 600",
            ),
        ),
    ] {
        let mut world = World::new(home());
        world.receive_from(peer, &text);
        assert_eq!(world.statuses(), [403], "{peer}\n{text}");
        assert_eq!(world.refused().rule, "ISC-039");
    }
}

/// Proves UL-001.
#[test]
fn what_is_not_served_is_said_so() {
    let psi = "sip:im-exploder@im.home1.example";
    for (method, more, status, field, value) in [
        (
            "SUBSCRIBE",
            "Event: presence\nRequire: recipient-list-subscribe",
            420,
            "Unsupported",
            "recipient-list-subscribe",
        ),
        ("SUBSCRIBE", "Event: presence", 489, "", ""),
        (
            "REFER",
            "Refer-To: <sip:x@y>",
            405,
            "Allow",
            "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS",
        ),
        ("PUBLISH", "Event: presence", 405, "", ""),
        ("INFO", "", 481, "", ""),
        ("NOTIFY", "Event: reg\nSubscription-State: active", 481, "", ""),
        ("WHATEVER", "", 405, "", ""),
        ("BYE", "", 481, "", ""),
    ] {
        let mut world = World::new(home());
        world.receive(&request(method, psi, more));
        assert_eq!(world.statuses(), [status], "{method}");
        if !field.is_empty() {
            assert_eq!(header(world.answer(), field), Some(value), "{method}");
        }
    }
    let mut world = World::new(home());
    world.receive_from("198.51.100.1:5060", &request("OPTIONS", psi, ""));
    assert_eq!(world.statuses(), [403]);
}
