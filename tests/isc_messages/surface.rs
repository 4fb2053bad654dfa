//! Every method in every place it can be sent to, and what a core may put into it.

use pagecast::isc::settings::CoreProfile;

use crate::world::{ANSWER_SDP, INVITE, World, header, home, reply};

const METHODS: [&str; 14] = [
    "INVITE",
    "MESSAGE",
    "OPTIONS",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "PUBLISH",
    "INFO",
    "UPDATE",
    "PRACK",
    "BYE",
    "CANCEL",
    "ACK",
    "WHATEVER",
];

/// What is answered: a status, nothing at all, or the request goes on to the S-CSCF behind our Route entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Is(u16),
    Nothing,
    Onward,
}

use Answer::{Is, Nothing, Onward};

fn request(method: &str, uri: &str, to: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-s-{method}
Via: SIP/2.0/UDP 192.0.2.61:5060;branch=z9hG4bK-ue
Max-Forwards: 70
From: <sip:alice@home1.example>;tag=a
To: {to}
Call-ID: surface@ue.example
CSeq: 87 {method}
Contact: <sip:alice@192.0.2.61>
P-Asserted-Identity: <sip:alice@home1.example>
{more}"
    )
}

/// The final answer to the last request of the world.
fn answer_of(world: &World) -> Answer {
    if let Some(sent) = world.sent.iter().find(|sent| sent.message.is_request()) {
        assert_eq!(header(sent, "Route"), Some("<sip:odi@scscf1.home1.example;lr>"));
        return Onward;
    }
    match world.statuses().iter().rfind(|status| **status >= 200) {
        Some(status) => Is(*status),
        None => Nothing,
    }
}

/// Method by method: at the list service, a group, the server, a session of ours that is none, a user behind us in the
/// Route, a user without.
///
/// IM-023 404 · UL-028 400 · IM-028 488 · IM-046 405 · IM-066 481 · IM-086 489 · ISC-005 onward.
#[test]
fn every_method_in_every_place() {
    let (factory, group) = ("sip:im-exploder@im.home1.example", "sip:team@groups.home1.example");
    let (server, session) = ("sip:im-as1.home1.example", "sip:lm-7f@im-as1.home1.example");
    let bob = "sip:bob@home1.example";
    let route = "Route: <sip:im-as1.home1.example;lr>, <sip:odi@scscf1.home1.example;lr>\n";
    let expected = |method: &str| match method {
        "INVITE" => [Is(488), Is(488), Is(404), Is(404), Onward, Is(404)],
        "OPTIONS" => [Is(200), Is(200), Is(200), Is(200), Onward, Is(404)],
        "MESSAGE" => [Is(400), Is(400), Is(405), Is(405), Onward, Is(404)],
        "REFER" | "PUBLISH" | "WHATEVER" => [Is(405), Is(405), Is(405), Is(405), Onward, Is(404)],
        "SUBSCRIBE" => [Is(489), Is(489), Is(489), Is(489), Onward, Is(404)],
        "ACK" => [Nothing, Nothing, Nothing, Nothing, Onward, Nothing],
        _ => [Is(481), Is(481), Is(481), Is(481), Onward, Is(481)],
    };
    for method in METHODS {
        let places =
            [(factory, ""), (group, ""), (server, ""), (session, ""), (bob, route), (bob, "")];
        for ((uri, route), want) in places.into_iter().zip(expected(method)) {
            let mut world = World::new(home());
            world.receive(&request(method, uri, &format!("<{uri}>"), route));
            assert_eq!(answer_of(&world), want, "{method} {uri} {route}");
            if answer_of(&world) == Is(405) {
                let allow = header(world.answer(), "Allow").expect("405 says what is allowed");
                assert!(!allow.contains(method), "{allow}");
            }
        }
        // With a To-tag nobody gave, in a place of ours (RFC 3261 §12.2.2).
        for uri in [factory, group, server, session] {
            let mut world = World::new(home());
            world.receive(&request(method, uri, &format!("<{uri}>;tag=none"), ""));
            let want = if method == "ACK" { Nothing } else { Is(481) };
            assert_eq!(answer_of(&world), want, "{method} {uri} in no dialog");
        }
    }
}

/// What a leg's dialog answers.
///
/// IM-046, IM-066, ISC-062, ISC-080.
#[test]
fn every_method_inside_a_dialog() {
    for (method, more, want) in [
        ("INVITE", "", Is(200)),
        (
            "INVITE",
            "Content-Type: application/sdp\n\nv=0\no=- 1 2 IN IP4 192.0.2.77\ns=-\nt=0 0\nm=audio 9 RTP/AVP 0\n",
            Is(488),
        ),
        ("INVITE", "Require: recipient-list-invite\n", Is(420)),
        ("UPDATE", "", Is(200)),
        ("UPDATE", "Require: foo\n", Is(420)),
        ("OPTIONS", "", Is(200)),
        ("MESSAGE", "Content-Type: text/plain\n\nhi", Is(405)),
        ("REFER", "Refer-To: <sip:x@y>\n", Is(405)),
        ("SUBSCRIBE", "Event: conference\n", Is(405)),
        ("NOTIFY", "Event: refer\n", Is(405)),
        ("PUBLISH", "", Is(405)),
        ("INFO", "", Is(405)),
        ("WHATEVER", "", Is(405)),
        ("PRACK", "RAck: 1 1 INVITE\n", Is(481)),
        ("PRACK", "", Is(400)),
        ("CANCEL", "", Is(481)),
        ("BYE", "", Is(200)),
        ("ACK", "", Nothing),
    ] {
        let mut world = World::new(home());
        world.receive(INVITE);
        world.invite(1);
        let invite = world.last_request("INVITE");
        let lines = "Contact: <sip:bob@192.0.2.77>\nContent-Type: application/sdp\n";
        let answer = reply(invite, 200, "b1", lines, ANSWER_SDP);
        let (call_id, from) = (header(invite, "Call-ID"), header(invite, "From"));
        let head = |number: u32, more: &str| {
            format!(
                "{method} sip:x@im-as1.home1.example SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-in{number}\n\
                 Max-Forwards: 70\nFrom: <sip:bob@home1.example>;tag=b1\nTo: {}\nCall-ID: {}\nCSeq: {number} {method}\n{more}",
                from.expect("there is one"),
                call_id.expect("there is one")
            )
        };
        let (first, late) = (head(7, more), head(6, ""));
        world.receive(&answer);
        world.sent.clear();
        world.receive(&first);
        assert_eq!(answer_of(&world), want, "{method} {more}");
        // What is not understood is not counted.
        let methods_with_order = !matches!(method, "ACK" | "CANCEL") && want != Is(420);
        if methods_with_order {
            // RFC 3261 §12.2.2: too late. No initial request, so no bypass by an S-CSCF.
            world.receive(&late);
            assert_eq!(
                answer_of(&world),
                Is(500),
                "{method} with a lower number: {:?}",
                world.statuses()
            );
            // Sent again: answered again in the same words, not carried out again.
            let (before, answers) = (world.inputs().len(), world.sent.len());
            world.receive(&first);
            assert_eq!(world.inputs().len(), before);
            assert!(world.sent.len() <= answers + 1);
        }
    }
}

/// Fields that mean something to others, or would if we could do it.
///
/// Proves IM-026.
#[test]
fn fields_a_core_may_add_change_nothing_or_are_refused_by_name() {
    let with =
        |line: &str| INVITE.replace("Subject: Minutes\n", &format!("Subject: Minutes\n{line}\n"));
    for line in [
        "Proxy-Require: sec-agree",
        "Replaces: 1234@h;to-tag=a;from-tag=b",
        "Join: 1234@h;to-tag=a;from-tag=b",
        "Target-Dialog: 1234@h;local-tag=a;remote-tag=b",
        "Request-Disposition: no-fork, no-cancel",
        "Expires: 30",
        "History-Info: <sip:x@y>;index=1",
        "P-Early-Media: supported",
        "Geolocation: <cid:x>",
        "Some-New-3GPP-Header: x;y=z",
    ] {
        let mut world = World::new(home());
        world.receive(&with(line));
        assert!(world.has_arrived(), "{line}: {:?}", world.statuses());
    }
    for (require, unsupported) in [
        ("replaces", "replaces"),
        ("join, tdialog", "join, tdialog"),
        ("outbound, path, gruu", "outbound, path, gruu"),
    ] {
        let mut world = World::new(home());
        let invite = INVITE.replace("Require: ", &format!("Require: {require}, "));
        world.receive(&invite);
        assert_eq!(world.answer().message.status(), Some(420), "{require}");
        assert_eq!(header(world.answer(), "Unsupported"), Some(unsupported));
    }
    // The same of other methods (RFC 3261 §8.2.2.3), after the method itself was judged (§8.2.1).
    let psi = "sip:im-exploder@im.home1.example";
    for (method, status) in [("OPTIONS", 420), ("REFER", 405)] {
        let mut world = World::new(home());
        world.receive(&request(method, psi, &format!("<{psi}>"), "Require: multiple-refer\n"));
        assert_eq!(world.statuses(), [status], "{method}");
    }
}

/// The one refusal that is meant to be bypassed is overload; a protocol version or size nobody speaks is none.
///
/// Proves ISC-066.
#[test]
fn no_refusal_is_a_5xx_behind_an_s_cscf() {
    use bytes::Bytes;
    use pagecast::sip::message::{Limits, Message};
    use pagecast::sip::{Flow, Protocol};

    for (profile, status) in
        [(CoreProfile::Gpp, 400), (CoreProfile::Gpp2, 400), (CoreProfile::SipIp, 505)]
    {
        let text = request("INVITE", "sip:im-exploder@im.home1.example", "<sip:x@y>", "")
            .replace("example SIP/2.0\nVia", "example SIP/3.0\nVia")
            .replace('\n', "\r\n");
        let malformed = Message::parse(Bytes::from(text + "\r\n"), &Limits::default())
            .expect_err("another version");
        let mut settings = home();
        settings.profile = profile;
        let mut world = World::new(settings);
        let flow = Flow {
            protocol: Protocol::Udp,
            local: "192.0.2.10:5060".parse().expect("an address"),
            peer: "192.0.2.40:5060".parse().expect("an address"),
            connection: 0,
            vouched: false,
        };
        world.isc.malformed(world.now, malformed, flow);
        world.drive();
        assert_eq!(world.statuses(), [status], "{profile:?}");
    }
}
