//! What crosses the edge of the trust domain, by every way a message can take through the server.

use pagecast::isc::settings::{CoreProfile, Relay, Settings};
use pagecast::sip::Target as Hop;
use pagecast::sip::message::{Limits, Message, Name};

use crate::world::{INVITE, Sent, World, header, headers, home, reply};

/// Every header of the rule, as a trusted core could send it.
const INSIDE: &str = "P-Access-Network-Info: 3GPP-UTRAN-FDD;utran-cell-id-3gpp=1
Cellular-Network-Info: 3GPP-UTRAN-FDD
P-Asserted-Service: urn:urn-7:x
Resource-Priority: wps.3
P-Profile-Key: <sip:lm-!.*!@im.home1.example>
P-Private-Network-Indication: p.example
P-Early-Media: supported
Feature-Caps: *;+g.3gpp.srvcc
Restoration-Info: noresponse
Relayed-Charge: x
Service-Interact-Info: x
Response-Source: fe=<urn:3gpp:fe:as.x>
Attestation-Info: a
Origination-Id: 123e4567
Additional-Identity: <sip:z@y>
P-Charging-Function-Addresses: ccf=\"aaa://cdf1.home1.example\"
P-Charging-Vector: icid-value=\"pc1\";orig-ioi=\"Type 3home1.example\"
";

fn names() -> Vec<&'static str> {
    let all = INSIDE.lines().filter_map(|line| line.split(':').next());
    all.chain(["P-Served-User"]).collect()
}

fn with_untrusted(places: &[&str]) -> Settings {
    let mut settings = home();
    settings.core.untrusted_hops = places.iter().map(|place| (*place).to_owned()).collect();
    settings
}

/// Somebody else's request, on its way through us to `hop`.
fn passing(hop: &str, more: &str) -> String {
    format!(
        "INVITE sip:+15550002;cpc=ordinary@home1.example;user=phone;iotl=homeA-homeB SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-kam.1
Route: <sip:im-as1.home1.example;lr>, <sip:odi@{hop};lr;s=1>
Max-Forwards: 69
P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
P-Asserted-Identity: <sip:alice@home1.example>, <tel:+15550001;oli=00>
{INSIDE}{more}From: <sip:alice@home1.example>;tag=a
To: <sip:bob@home1.example>
Call-ID: other-call
CSeq: 1 INVITE
Contact: <sip:alice@192.0.2.61>
"
    )
}

fn scan(sent: &Sent, gone: bool) {
    for name in names() {
        assert_eq!(headers(sent, name).is_empty(), gone, "{name}\n{}", sent.text);
    }
}

/// The three letters the transport patches stand where it will look for them.
fn via_is_found(world: &mut World, text: &str) {
    let message = crate::world::parse(text);
    let flow = pagecast::sip::Flow {
        protocol: pagecast::sip::Protocol::Udp,
        local: "192.0.2.10:5060".parse().expect("an address"),
        peer: "192.0.2.40:5060".parse().expect("an address"),
        connection: 0,
        vouched: false,
    };
    world.isc.receive(world.now, message, flow);
    while let Some(output) = world.isc.poll() {
        if let pagecast::sip::ua::Output::Send { bytes, via_at: Some(at), .. } = output {
            assert_eq!(&bytes[at..at + 3], b"UDP", "{}", String::from_utf8_lossy(&bytes));
            return;
        }
    }
    panic!("no request left");
}

/// Proves ISC-073, ISC-075.
#[test]
fn a_request_that_passes_leaves_the_domain_without_its_headers() {
    for relay in [Relay::Proxy, Relay::B2bua] {
        passes(relay);
    }
}

fn passes(relay: Relay) {
    let to = |hop: &str, more: &str, places: &[&str]| {
        let mut settings = with_untrusted(places);
        settings.isc.relay = relay;
        let mut world = World::new(settings);
        world.receive(&passing(hop, more));
        world.sent.pop().expect("it goes on")
    };
    // Inside, not even a wish for privacy takes anything away.
    for places in [&[][..], &["other.example", "198.51.100.0/24"]] {
        let inside = to("scscf1.home1.example", "Privacy: id\n", places);
        scan(&inside, false);
        assert!(header(&inside, "P-Asserted-Identity").is_some_and(|v| v.contains("oli=00")));
        assert!(inside.message.uri().contains(";cpc=ordinary@"));
    }
    for (hop, place) in
        [("ibcf.other.example", "other.example"), ("198.51.100.7", "198.51.100.0/24")]
    {
        let outside = to(hop, "X-Odd: kept\n", &[place]);
        scan(&outside, true);
        assert_eq!(outside.message.uri(), "sip:+15550002@home1.example;user=phone");
        assert_eq!(
            header(&outside, "P-Asserted-Identity"),
            Some("<sip:alice@home1.example>, <tel:+15550001>")
        );
        assert_eq!(header(&outside, "X-Odd"), Some("kept"));
        assert_eq!(header(&outside, "Call-ID") == Some("other-call"), relay == Relay::Proxy);
        for (privacy, kept) in [("id", false), ("none", true), ("header", true)] {
            let outside = to(hop, &format!("Privacy: {privacy}\n"), &[place]);
            assert_eq!(header(&outside, "P-Asserted-Identity").is_some(), kept, "{privacy}");
            assert_eq!(header(&outside, "Privacy"), Some(privacy));
        }
    }
    via_is_found(
        &mut World::new(with_untrusted(&["other.example"])),
        &passing("x.other.example", ""),
    );
    via_is_found(&mut World::new(home()), &passing("scscf1.home1.example", ""));
}

/// Proves ISC-074.
#[test]
fn a_request_from_outside_is_read_and_passed_on_without_them() {
    let mut world = World::new(with_untrusted(&["192.0.2.40"]));
    world.receive(&passing("scscf1.home1.example", ""));
    let [sent] = world.sent.as_slice() else { panic!("one message") };
    scan(sent, true);
    assert_eq!(header(sent, "P-Asserted-Identity"), None);
    assert_eq!(sent.message.uri(), "sip:+15550002@home1.example;user=phone");
    // Diverted, said by nobody we believe, is not diverted; without an identity there is no page either.
    let mut world = World::new(with_untrusted(&["192.0.2.40/32"]));
    world.receive(&INVITE.replace(";sescase=orig;regstate=reg", ";orig-cdiv"));
    assert_eq!(world.statuses(), [100, 403]);
    assert_eq!(world.refused().rule, "IM-021");
    assert_eq!(header(world.answer(), "P-Charging-Vector"), None);
    // A neighbour that is not admitted at all is refused for that.
    let mut world = World::new(with_untrusted(&["198.51.100.7"]));
    world.receive_from("198.51.100.7:5060", &passing("scscf1.home1.example", ""));
    assert_eq!(world.statuses(), [100, 403]);
    assert_eq!(world.refused().rule, "ISC-001");
}

fn answer_to(sent: &Sent, status: u16) -> String {
    let mut text = format!("SIP/2.0 {status} Text\n");
    for via in headers(sent, "Via") {
        text += &format!("Via: {via}\n");
    }
    text + "From: <sip:alice@home1.example>;tag=a\nTo: <sip:bob@home1.example>;tag=b\n\
        Call-ID: other-call\nCSeq: 1 INVITE\nX-Answer: 1\nReason: Q.850;cause=17\n\
        P-Asserted-Identity: <sip:bob@home1.example>\n"
        + INSIDE
}

/// Proves ISC-073, ISC-074.
#[test]
fn answers_cross_the_edge_like_requests() {
    let in_answers = || names().into_iter().filter(|name| *name != "P-Served-User");
    // From a neighbour outside, back to the core.
    let mut world = World::new(with_untrusted(&["198.51.100.0/24"]));
    world.receive(&passing("198.51.100.7", ""));
    let answer = answer_to(&world.sent[0], 486);
    world.receive_from("198.51.100.7:5060", &answer);
    let back = &world.sent[1];
    assert_eq!(back.message.status(), Some(486));
    assert_eq!(header(back, "X-Answer"), Some("1"));
    for name in in_answers().chain(["Reason", "P-Asserted-Identity"]) {
        assert_eq!(header(back, name), None, "{name}");
    }
    // From the core back to a neighbour outside.
    let mut world = World::new(with_untrusted(&["192.0.2.40"]));
    world.receive(&passing("scscf1.home1.example", ""));
    for (privacy, kept) in [("Privacy: id\n", false), ("", true)] {
        let answer = answer_to(&world.sent[0], 486) + privacy;
        world.receive_from("192.0.2.41:5060", &answer);
        let back = world.sent.last().expect("it goes back");
        for name in in_answers().chain(["Reason"]) {
            assert_eq!(header(back, name), None, "{name}");
        }
        assert_eq!(header(back, "P-Asserted-Identity").is_some(), kept);
    }
    // Inside it stays as it is.
    let mut world = World::new(home());
    world.receive(&passing("scscf1.home1.example", ""));
    let answer = answer_to(&world.sent[0], 486);
    world.receive(&answer);
    for name in in_answers().chain(["Reason", "P-Asserted-Identity"]) {
        assert!(header(&world.sent[1], name).is_some(), "{name}");
    }
}

/// Proves ISC-073.
#[test]
fn our_own_legs_leave_the_domain_without_them() {
    let invite = INVITE.replace("Subject:", "Privacy: id\nSubject:");
    for (place, gone) in [("scscf1.home1.example", true), ("other.example", false)] {
        let mut world = World::new(with_untrusted(&[place]));
        world.receive(&invite);
        world.invite(1);
        let leg = world.last_request("INVITE");
        for name in [
            "P-Asserted-Identity",
            "P-Served-User",
            "P-Charging-Vector",
            "P-Charging-Function-Addresses",
        ] {
            assert_eq!(header(leg, name).is_none(), gone, "{name}");
        }
        let hop = "sip:scscf1.home1.example;lr;orig".to_owned();
        assert_eq!(leg.to, Hop::NextHop { uri: hop, attempt: 0, octets: 0 });
        // What its dialog sends later goes the same way.
        let text = reply(
            leg,
            200,
            "b1",
            "Contact: <sip:bob@192.0.2.77>\nRecord-Route: <sip:scscf1.home1.example;lr>\nContent-Type: application/sdp\n",
            crate::world::ANSWER_SDP,
        );
        world.receive(&text);
        let page = world.arrival().page;
        world.isc.end_leg(world.now, pagecast::engine::ids::LegId { page, n: 1 }, None);
        world.drive();
        let bye = world.last_request("BYE");
        assert_eq!(header(bye, "P-Charging-Vector").is_none(), gone);
    }
}

/// Proves ISC-031.
#[test]
fn charging_functions_of_ours_go_to_no_other_operator() {
    for (scscf, told) in [
        ("sip:scscf9.home1.example", true),
        ("sip:scscf9.home2.example", true),
        ("sip:192.0.2.44", true),
    ] {
        // A neighbour of the configuration is ours wherever it is.
        let mut settings = home();
        settings.core.scscf = scscf.to_owned();
        let direct = INVITE.replace(
            "Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>\n",
            "",
        );
        let mut world = World::new(settings);
        world.receive(&direct);
        world.invite(1);
        let leg = world.last_request("INVITE");
        assert_eq!(header(leg, "P-Charging-Function-Addresses").is_some(), told, "{scscf}");
    }
    // The Route of the request decides, by the host it names.
    for (route, told) in [
        ("<sip:odi@scscf1.home1.example;lr;orig>", true),
        ("<sip:odi@192.0.2.40;lr;orig>", true),
        ("<sip:odi@scscf1.home2.example;lr;orig>", false),
        ("<sip:odi@203.0.113.40;lr;orig>", false),
    ] {
        let invite = INVITE.replace("<sip:odi-8f2c51@scscf1.home1.example;lr;orig>", route);
        let mut world = World::new(home());
        world.receive(&invite);
        world.invite(1);
        let leg = world.last_request("INVITE");
        let addresses = header(leg, "P-Charging-Function-Addresses");
        assert_eq!(addresses, told.then_some("ccf=\"aaa://cdf1.home1.example\""), "{route}");
        assert!(header(leg, "P-Charging-Vector").is_some(), "only the addresses stay at home");
        // And for what only passes.
        let mut world = World::new(home());
        world.receive(&invite.replacen("INVITE sip:im-exploder@im.", "INVITE sip:bob@", 1));
        let passed = world.sent.last().expect("it goes on");
        let addresses = header(passed, "P-Charging-Function-Addresses");
        assert_eq!(addresses, told.then_some("ccf=\"aaa://cdf1.home1.example\""), "{route}");
    }
}

/// Proves ISC-076.
#[test]
fn a_refusal_says_who_refused_where_the_operator_wants_it() {
    for (source, invite, status, want) in [
        ("", INVITE.replace("Require:", "Require: foo\nRequire:"), 420, None),
        (
            "urn:3gpp:fe:as.im",
            INVITE.replace("Require:", "Require: foo\nRequire:"),
            420,
            Some("fe=<urn:3gpp:fe:as.im>"),
        ),
        (
            "urn:3gpp:fe:as.im",
            INVITE.replacen("im-exploder@im", "nobody@im", 1),
            404,
            Some("fe=<urn:3gpp:fe:as.im>"),
        ),
    ] {
        let mut settings = home();
        settings.isc.response_source = source.to_owned();
        let mut world = World::new(settings.clone());
        let route =
            "Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>\n";
        world.receive(&invite.replace(route, ""));
        assert_eq!(world.answer().message.status(), Some(status));
        assert_eq!(header(world.answer(), "Response-Source"), want);
        // Not in what succeeds, and never outside of the trust domain.
        let mut world = World::new(settings.clone());
        world.receive(INVITE);
        let page = world.arrival().page;
        world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
        world.drive();
        assert_eq!(header(world.answer(), "Response-Source"), None);
        let mut world = World::new(settings);
        world.receive_from("198.51.100.7:5060", &invite);
        assert_eq!(header(world.answer(), "Response-Source"), None);
    }
    let mut plain = home();
    plain.profile = CoreProfile::SipIp;
    plain.isc.response_source = "urn:3gpp:fe:as.im".to_owned();
    let mut world = World::new(plain);
    world.receive(&INVITE.replace("Require:", "Require: foo\nRequire:"));
    assert_eq!(header(world.answer(), "Response-Source"), None);
}

/// What is left after something was taken out is a message like any other.
#[test]
fn what_is_left_is_a_message() {
    let mut world = World::new(with_untrusted(&["other.example"]));
    world.receive(&passing("x.other.example", ""));
    let sent = &world.sent[0];
    let again = Message::parse(sent.message.bytes().clone(), &Limits::default());
    let again = again.expect("a message");
    assert_eq!(again.lines(Name::Via).count(), 2);
    assert_eq!(again.lines(Name::Route).count(), 1);
}
