//! What a busy node sends away first, and what it never does.

use pagecast::isc::rules::overload::{Pressure, Shed};

use crate::world::{INVITE, World, header, home};

fn under(pressure: Pressure) -> World {
    let mut world = World::new(home());
    world.isc.overload(Shed { pressure, retry_after: 7 });
    world
}

fn request(method: &str, uri: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-p-{method}
Max-Forwards: 70
From: <sip:scscf1.home1.example>;tag=r-81
To: <sip:alice@home1.example>
Call-ID: pressure@scscf1.home1.example
CSeq: 87 {method}
{more}"
    )
}

const TO_BOB: &str = "Route: <sip:im-as1.home1.example;lr>, <sip:odi@scscf1.home1.example;lr>";

/// The order of ISC-069: initial INVITEs, then MESSAGE and the like, nothing else ever.
///
/// Proves ISC-069.
#[test]
fn new_calls_go_elsewhere_first_then_messages() {
    let us = "sip:im-as1.home1.example";
    let register = "Contact: <sip:scscf1.home1.example>\nExpires: 0";
    let bob = "sip:bob@home1.example";
    for (method, uri, more, busy, full) in [
        ("INVITE", bob, TO_BOB, true, true),
        ("INVITE", "sip:nobody@im.home1.example", "", true, true),
        ("MESSAGE", bob, TO_BOB, false, true),
        ("MESSAGE", "sip:im-exploder@im.home1.example", "", false, true),
        ("OPTIONS", us, "", false, true),
        ("REGISTER", us, register, false, false),
        ("CANCEL", "sip:im-exploder@im.home1.example", "", false, false),
    ] {
        for (pressure, sheds) in
            [(Pressure::None, false), (Pressure::Busy, busy), (Pressure::Full, full)]
        {
            let mut world = under(pressure);
            world.receive(&request(method, uri, more));
            let shed = world.statuses() == [503];
            assert_eq!(shed, sheds, "{method} {uri} {pressure:?}: {:?}", world.statuses());
            if sheds {
                assert_eq!(header(world.answer(), "Retry-After"), Some("7"), "{method}");
                assert_eq!(world.refused().rule, "ISC-069");
                assert_eq!(world.sent.len(), 1, "no further work");
            }
        }
    }
}

/// Proves ISC-069.
#[test]
fn what_is_urgent_or_under_way_stays() {
    // Taken before, and sent again while the node is busy.
    let mut world = World::new(home());
    world.receive(INVITE);
    world.isc.overload(Shed { pressure: Pressure::Full, retry_after: 7 });
    world.receive(INVITE);
    assert!(!world.statuses().contains(&503), "{:?}", world.statuses());
    // The same on its way through us.
    let mut world = World::new(home());
    let passing = request("INVITE", "sip:bob@home1.example", TO_BOB);
    world.receive(&passing);
    world.isc.overload(Shed { pressure: Pressure::Full, retry_after: 7 });
    world.receive(&passing);
    assert_eq!((world.sent.len(), world.statuses().len()), (2, 0), "forwarded both times");

    let urgent =
        INVITE.replace("Subject: Minutes\n", "Subject: Minutes\nResource-Priority: wps.0\n");
    let mut world = under(Pressure::Full);
    world.receive(&urgent);
    assert!(world.has_arrived() && world.arrival().urgent);
    let mut world = under(Pressure::Full);
    world.receive_from("198.51.100.1:5060", &urgent);
    assert_eq!(world.statuses(), [503], "a stranger's word is none");
    let mut world = under(Pressure::Full);
    world.receive(&request("INVITE", "urn:service:sos", TO_BOB));
    assert_eq!(world.requests("INVITE").len(), 1, "an emergency goes on");
    // A dialog of a page.
    let mut world = World::new(home());
    world.receive(INVITE);
    world.invite(1);
    world.isc.overload(Shed { pressure: Pressure::Full, retry_after: 7 });
    let invite = world.last_request("INVITE");
    let answer = crate::world::reply(
        invite,
        200,
        "b1",
        "Contact: <sip:bob@192.0.2.77>\nContent-Type: application/sdp\n",
        crate::world::ANSWER_SDP,
    );
    let (call_id, from) =
        (header(invite, "Call-ID").map(str::to_owned), header(invite, "From").map(str::to_owned));
    world.receive(&answer);
    let bye = format!(
        "BYE sip:x@im-as1.home1.example SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.40;branch=z9hG4bK-bye\nMax-Forwards: 70\n\
         From: <sip:bob@home1.example>;tag=b1\nTo: {}\nCall-ID: {}\nCSeq: 1 BYE\n",
        from.expect("there is one"),
        call_id.expect("there is one")
    );
    world.receive(&bye);
    assert_eq!(world.answer().message.status(), Some(200));
}
