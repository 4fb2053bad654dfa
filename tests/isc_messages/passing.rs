//! What only passes through: requests for others, and our own legs when the core brings them back.

use pagecast::sip::message::Message;
use pagecast::sip::{Flow, Protocol, Target as Hop};

use crate::world::{INVITE, Sent, World, header, headers, home};

const TO_BOB: &str = "INVITE sip:bob@home1.example SIP/2.0
Route: <sip:im-as1.home1.example;lr>, <sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369>
v: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-kam.1;rport, SIP/2.0/UDP pcscf1.home1.example;branch=z9hG4bK-pc
Max-Forwards: 69
P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
Via: SIP/2.0/UDP 192.0.2.61:5060;branch=z9hG4bK-ue
From: <sip:alice@home1.example>;tag=a
To: <sip:bob@home1.example>
Call-ID: other-call
CSeq: 1 INVITE
P-Asserted-Identity: <sip:alice@home1.example>
X-Odd:   kept  as it is
Contact: <sip:alice@192.0.2.61>
Content-Type: application/sdp

v=0
";

fn back(flow_of: &Sent, status: u16) -> String {
    let mut text = format!("SIP/2.0 {status} Text\n");
    for via in headers(flow_of, "Via").into_iter().chain(headers(flow_of, "v")) {
        text += &format!("Via: {via}\n");
    }
    text + "From: <sip:alice@home1.example>;tag=a\nTo: <sip:bob@home1.example>;tag=b\nCall-ID: other-call\nCSeq: 1 INVITE\nX-Answer: 1\n"
}

/// Proves IM-023, ISC-002, ISC-003, ISC-005, ISC-015, ISC-052.
#[test]
fn a_request_for_a_user_goes_on_with_its_route() {
    let mut world = World::new(home());
    world.receive(TO_BOB);
    assert!(world.happened.is_empty() && world.statuses().is_empty(), "no word of ours");
    let [sent] = world.sent.as_slice() else { panic!("one message") };
    assert_eq!(sent.message.uri(), "sip:bob@home1.example");
    let next = "sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369";
    assert_eq!(header(sent, "Route"), Some(format!("<{next}>").as_str()));
    assert_eq!(sent.to, Hop::NextHop { uri: next.to_owned(), attempt: 0, octets: 0 });
    let vias = headers(sent, "Via");
    assert!(
        vias[0].starts_with("SIP/2.0/UDP im-as1.home1.example:5060;branch=z9hG4bK07"),
        "{vias:?}"
    );
    assert_eq!(
        vias[1..],
        [
            "SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-kam.1;rport=5060;received=192.0.2.40, SIP/2.0/UDP pcscf1.home1.example;branch=z9hG4bK-pc",
            "SIP/2.0/UDP 192.0.2.61:5060;branch=z9hG4bK-ue",
        ]
    );
    assert!(
        sent.text.starts_with("INVITE sip:bob@home1.example SIP/2.0\r\nVia: SIP/2.0/UDP im-as1")
    );
    assert_eq!(header(sent, "Max-Forwards"), Some("68"));
    for (name, value) in [
        ("X-Odd", "kept  as it is"),
        ("Call-ID", "other-call"),
        ("P-Served-User", "<sip:alice@home1.example>;sescase=orig;regstate=reg"),
        ("Contact", "<sip:alice@192.0.2.61>"),
    ] {
        assert_eq!(header(sent, name), Some(value));
    }
    assert_eq!(header(sent, "Record-Route"), None);
    assert!(sent.text.ends_with("\r\n\r\nv=0\r\n"));
}

/// Proves ISC-052.
#[test]
fn its_answers_go_back_the_way_it_came() {
    let mut world = World::new(home());
    world.receive(TO_BOB);
    let answer = back(&world.sent[0], 180);
    world.receive(&answer);
    let sent = &world.sent[1];
    assert_eq!(sent.message.status(), Some(180));
    assert_eq!(headers(sent, "Via").len(), 3, "ours is gone");
    assert_eq!(sent.message.via().host, "192.0.2.40");
    assert_eq!(header(sent, "X-Answer"), Some("1"));
    let came = Flow {
        protocol: Protocol::Udp,
        local: "192.0.2.10:5060".parse().expect("an address"),
        peer: "192.0.2.40:5060".parse().expect("an address"),
        connection: 0,
        vouched: false,
    };
    assert_eq!(sent.to, Hop::Flow(came));
    // A node that knows nothing of the request finds the way by its Via.
    let mut other = World::new(home());
    other.receive(&answer);
    assert_eq!(other.sent[0].to, Hop::Flow(came));
}

/// A repeated request, its CANCEL and the ACK of a refusal pass in the same branch, another request in another.
#[test]
fn what_belongs_together_has_one_branch() {
    let branch = |text: &str| {
        let mut world = World::new(home());
        world.receive(text);
        let branch = world.sent[0].message.via().branch.map(str::to_owned);
        branch.expect("forwarded")
    };
    let invite = branch(TO_BOB);
    assert_eq!(branch(TO_BOB), invite);
    let other = |method: &str| {
        let head = TO_BOB.split("Content-Type").next().unwrap_or_default();
        head.replacen("INVITE", method, 1).replace("1 INVITE", &format!("1 {method}"))
    };
    assert_eq!(branch(&other("CANCEL")), invite);
    assert_eq!(
        branch(
            &other("ACK")
                .replace("To: <sip:bob@home1.example>", "To: <sip:bob@home1.example>;tag=b")
        ),
        invite
    );
    assert_ne!(branch(&TO_BOB.replace("kam.1", "kam.2")), invite);
    // A peer that leaves the Route out of its CANCEL means the same request.
    let mut world = World::new(home());
    world.receive(TO_BOB);
    let route = "Route: <sip:im-as1.home1.example;lr>, <sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369>\n";
    world.receive(&other("CANCEL").replace(route, ""));
    let [first, cancel] = world.sent.as_slice() else { panic!("two messages") };
    assert_eq!(cancel.message.via().branch, first.message.via().branch);
    assert_eq!(header(cancel, "Route"), header(first, "Route"));
    assert_eq!(cancel.to, first.to);
}

/// Proves IM-037.
#[test]
fn our_own_leg_passes_once_and_is_never_expanded() {
    for uri in [
        "sip:bob@home1.example",
        "sip:im-exploder@im.home1.example",
        "sip:team@groups.home1.example",
    ] {
        let mut world = World::new(home());
        world.receive(INVITE);
        world.invite(1);
        let ours = world.last_request("INVITE").text.clone();
        let returned = ours
            .replace("Route: <sip:scscf1.home1.example;lr;orig>\r\n", "Route: <sip:im-as1.home1.example;lr>, <sip:odi-77@scscf1.home1.example;lr;orig>\r\n")
            .replacen("Via:", "Via: SIP/2.0/UDP scscf1.home1.example;branch=z9hG4bK-back\r\nVia:", 1)
            .replacen("INVITE sip:bob@home1.example", &format!("INVITE {uri}"), 1);
        let (heard, before) = (world.happened.len(), world.sent.len());
        world.receive(&returned);
        assert_eq!(world.happened.len(), heard, "{uri}: no second page");
        let [sent] = &world.sent[before..] else { panic!("{uri}: one message") };
        assert_eq!(header(sent, "Route"), Some("<sip:odi-77@scscf1.home1.example;lr;orig>"));
        assert_eq!(header(sent, "Max-Forwards"), Some("65"));
        assert_eq!(sent.message.uri(), uri);
        let body = |message: &Message| message.body().to_vec();
        assert_eq!(body(&sent.message), body(&crate::world::parse(&ours)));
        // Without anybody behind us in its Route it ends here.
        let lost = returned
            .replace(", <sip:odi-77@scscf1.home1.example;lr;orig>", "")
            .replace("z9hG4bK-back", "z9hG4bK-lost");
        world.receive(&lost);
        assert_eq!(world.statuses().last(), Some(&482), "{uri}");
        assert_eq!(
            world
                .happened
                .iter()
                .filter(|h| matches!(h, pagecast::isc::Happening::Input(_)))
                .count(),
            heard
        );
    }
}

/// Somebody else's Call-ID of the same form is no leg of ours.
///
/// Proves IM-037.
#[test]
fn legs_of_other_servers_are_pages_like_any_other() {
    let mut world = World::new(home());
    world.receive(
        &INVITE.replace("5f0c-1@ue.example", "lm-0700112233445566aa@im-as1.home2.example"),
    );
    assert!(world.has_arrived());
}

/// Proves ISC-021.
#[test]
fn a_diverted_request_is_served_for_nobody_else() {
    let diverted = INVITE.replace(";sescase=orig;regstate=reg", ";orig-cdiv");
    let mut world = World::new(home());
    world.receive(&diverted);
    assert!(world.happened.is_empty());
    assert_eq!(
        header(&world.sent[0], "Route"),
        Some("<sip:odi-8f2c51@scscf1.home1.example;lr;orig>")
    );
}

/// Proves ISC-001, IM-037.
#[test]
fn strangers_and_the_last_hop_end_here() {
    let mut world = World::new(home());
    world.receive_from("198.51.100.7:5060", TO_BOB);
    assert_eq!(world.statuses(), [100, 403]);
    let mut world = World::new(home());
    world.receive(&TO_BOB.replace("Max-Forwards: 69", "Max-Forwards: 0"));
    assert_eq!(world.statuses(), [100, 483]);
    let mut world = World::new(home());
    world.receive(TO_BOB);
    let answer = back(&world.sent[0], 200);
    world.receive_from("198.51.100.7:5060", &answer);
    assert_eq!(world.sent.len(), 1, "a stranger's answer goes nowhere");
}

/// What passes keeps its dialog and its charging id; what we start ourselves has its own.
///
/// Proves ISC-028, ISC-049.
#[test]
fn each_role_has_its_own_headers() {
    let icid = "icid-value=\"pc1-20240101-00042\"";
    let mut world = World::new(home());
    world.receive(&INVITE.replacen("sip:im-exploder@im.home1.example", "sip:bob@home1.example", 1));
    let passed = world.sent.pop().expect("it goes on");
    assert_eq!(header(&passed, "Call-ID"), Some("5f0c-1@ue.example"));
    assert!(header(&passed, "P-Charging-Vector").is_some_and(|vector| vector.contains(icid)));
    assert_eq!(header(&passed, "Route"), Some("<sip:odi-8f2c51@scscf1.home1.example;lr;orig>"));
    assert_eq!(headers(&passed, "Via").len(), 4);

    let mut world = World::new(home());
    world.receive(INVITE);
    world.invite(1);
    let ours = world.last_request("INVITE");
    assert_ne!(header(ours, "Call-ID"), Some("5f0c-1@ue.example"));
    assert!(header(ours, "P-Charging-Vector").is_some_and(|vector| !vector.contains(icid)));
    assert_eq!(header(ours, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert_eq!(headers(ours, "Via").len(), 1);
}

/// Proves ISC-079.
#[test]
fn an_emergency_is_not_ours_to_serve() {
    for method in ["INVITE", "MESSAGE"] {
        let mut world = World::new(home());
        let sos = TO_BOB.replace("sip:bob@home1.example SIP/2.0", "urn:service:sos.police SIP/2.0");
        world.receive(
            &sos.replacen("INVITE", method, 1).replace("1 INVITE", &format!("1 {method}")),
        );
        let [sent] = world.sent.as_slice() else { panic!("one message") };
        assert_eq!(sent.message.uri(), "urn:service:sos.police");
        assert_eq!(
            header(sent, "Route"),
            Some("<sip:iscmark@scscf1.home1.example:6060;lr;s=1;h=0;d=0;a=7369>")
        );
    }
}

/// Line by line: what a proxy may change is what changed.
///
/// Proves ISC-052, ISC-077, ISC-078.
#[test]
fn nothing_but_via_route_and_hops_changes() {
    let more = "History-Info: <sip:b@h?Reason=SIP%3Bcause%3D302>;index=1, <sip:bob@home1.example>;index=1.1;rc=1\n\
        Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000\n\
        P-Charging-Vector: icid-value=x;transit-ioi=\"a.1\"\nFeature-Caps: *;+g.3gpp.x\nSome-New-3GPP-Header: x;y=z\n";
    let came = TO_BOB.replace("X-Odd:", &format!("{more}X-Odd:"));
    let mut world = World::new(home());
    world.receive(&came);
    let [sent] = world.sent.as_slice() else { panic!("one message") };
    let touched = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["via", "v", "route", "max-forwards"].contains(&name.as_str())
    };
    let strip = |text: &str| {
        let spaces = |line: &str| match line.split_once(':') {
            Some((name, value)) if !line.starts_with("INVITE") => {
                format!("{name}:{}", value.trim())
            }
            _ => line.to_owned(),
        };
        text.replace("\r\n", "\n").lines().filter(touched).map(spaces).collect::<Vec<_>>()
    };
    let mut want = strip(&came);
    want.insert(want.len() - 2, "Content-Length:5".to_owned());
    assert_eq!(strip(&sent.text), want);
}

/// ISC-066: silence would cost the caller half a minute. The next alternate is asked first (ISC-071).
///
/// Proves ISC-071.
#[test]
fn a_next_hop_that_cannot_be_reached_is_told() {
    let mut world = World::new(home());
    world.receive(TO_BOB);
    world.fails(true);
    let [first, second] = world.sent.as_slice() else { panic!("two messages") };
    assert_eq!(first.text, second.text, "the same, elsewhere");
    assert!(matches!(second.to, Hop::NextHop { attempt: 1, .. }), "{:?}", second.to);
    world.fails(false);
    assert_eq!(world.statuses(), [503]);
    assert_eq!(header(world.answer(), "Retry-After"), None, "nobody is overloaded");
    assert!(world.answer().message.to_tag().is_some());
    assert_eq!(world.refused().rule, "ISC-066");
    // Of a MESSAGE likewise; ACK and CANCEL are never answered.
    for (method, statuses) in [("MESSAGE", &[503][..]), ("ACK", &[]), ("CANCEL", &[])] {
        let mut world = World::new(home());
        let head = TO_BOB.split("Content-Type").next().unwrap_or_default();
        let other = head.replacen("INVITE", method, 1).replace("1 INVITE", &format!("1 {method}"));
        world.receive(&other);
        world.fails(false);
        assert_eq!(world.statuses(), statuses, "{method}");
    }
    // An answer of somebody else that cannot be passed back is nobody's.
    let mut world = World::new(home());
    world.receive(TO_BOB);
    let answer = back(&world.sent[0], 200);
    world.receive(&answer);
    world.fails(false);
    assert_eq!(world.sent.len(), 2);
}

/// RFC 3261 §16.3 step 5.
#[test]
fn a_proxy_does_what_is_required_of_it_or_says_so() {
    for (tags, status) in [("privacy", None), ("foo, privacy", Some(420))] {
        let mut world = World::new(home());
        world.receive(&TO_BOB.replace("X-Odd:", &format!("Proxy-Require: {tags}\nX-Odd:")));
        assert_eq!(world.statuses(), status.into_iter().collect::<Vec<_>>(), "{tags}");
        if status.is_some() {
            assert_eq!(header(world.answer(), "Unsupported"), Some("foo"));
        }
    }
}

/// Proves ISC-013: later requests need not come by us, and a MESSAGE never records a route.
#[test]
fn a_proxy_that_keeps_nothing_records_no_route() {
    for method in ["INVITE", "MESSAGE", "SUBSCRIBE", "REFER"] {
        let mut world = World::new(home());
        world.receive(
            &TO_BOB.replacen("INVITE", method, 1).replace("1 INVITE", &format!("1 {method}")),
        );
        assert!(headers(&world.sent[0], "Record-Route").is_empty(), "{method}");
    }
}

/// Who is outside answers what went there; nobody lets us send what he likes where he likes.
#[test]
fn an_answer_from_outside_is_passed_back_only_where_it_is_awaited() {
    let mut settings = home();
    settings.core.untrusted_hops = vec!["198.51.100.0/24".to_owned()];
    let mut world = World::new(settings.clone());
    world.receive(TO_BOB);
    let answer = back(&world.sent[0], 180);
    world.receive_from("198.51.100.7:5060", &answer);
    assert_eq!(world.statuses(), [180]);
    let mut other = World::new(settings);
    other.receive_from("198.51.100.7:5060", &answer);
    assert!(other.sent.is_empty());
}
