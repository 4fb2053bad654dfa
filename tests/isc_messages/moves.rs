//! Offers inside a dialog: a new MSRP path makes a new session, anything else stays as it was.

use pagecast::content::sdp::{Role, Session};
use pagecast::isc::{Happening, Move};

use crate::answers::{ack, arrived, in_dialog};
use crate::legs::{answer, invited, with_sdp};
use crate::world::{ANSWER_SDP, INVITE, OWN_PATH, World, header};

const NEW_PATH: &str = "msrp://192.0.2.10:2855/n4Jx9ZpQ0tR2sKd8aaaaaaaa;tcp";

fn moves(world: &World) -> Vec<Move> {
    let of = |happening: &Happening| match happening {
        Happening::Moved(change) => Some((**change).clone()),
        _ => None,
    };
    world.happened.iter().filter_map(of).collect()
}

fn with_offer(sdp: &str) -> String {
    format!("Contact: <sip:alice@[2001:db8::a1]:1357>\nContent-Type: application/sdp\n\n{sdp}")
}

/// A request from the recipient inside its dialog.
fn from_recipient(world: &World, method: &str, cseq: u32, sdp: &str) -> String {
    let invite = world.last_request("INVITE");
    let text = |name| header(invite, name).unwrap_or_default();
    format!(
        "{method} sip:lm-x@im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP scscf1.home1.example;branch=z9hG4bK-{method}-{cseq}
Max-Forwards: 60
From: <sip:bob@home1.example>;tag=pf-55
To: {}
Call-ID: {}
CSeq: {cseq} {method}
Contact: <sip:pf-55@im-as2.home1.example>
Content-Type: application/sdp

{sdp}",
        text("From"),
        text("Call-ID"),
    )
}

/// The description in the last answer.
fn description(world: &World) -> String {
    let text = &world.answer().text;
    let (_, sdp) = text.split_once("\r\n\r\n").expect("a message");
    assert!(Session::parse(sdp.as_bytes()).is_ok(), "{text}");
    sdp.replace("\r\n", "\n")
}

fn origin_line(sdp: &str) -> (String, u64, String) {
    let line = sdp.lines().find(|line| line.starts_with("o=")).expect("an origin line");
    let fields: Vec<&str> = line.split(' ').collect();
    (fields[1].to_owned(), fields[2].parse().expect("a number"), fields[3..].join(" "))
}

/// Proves MS-016, IM-066.
#[test]
fn a_recipient_may_change_its_path_and_nothing_else() {
    for method in ["INVITE", "UPDATE"] {
        let (mut world, leg) = invited();
        let offered = world.last_request("INVITE").text.replace("\r\n", "\n");
        answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);

        let sdp = ANSWER_SDP
            .replace(" 99 1 IN", " 99 2 IN")
            .replace("192.0.2.77", "192.0.2.78")
            .replace("bobZ81", "bobZ82");
        let request = from_recipient(&world, method, 5, &sdp);
        world.receive(&request);
        let mut told = moves(&world);
        let change = told.pop().expect("a change of path");
        assert!(told.is_empty());
        assert_eq!((change.leg, change.page), (Some(leg), leg.page));
        assert_eq!(change.peer().path[0].as_str(), "msrp://192.0.2.78:2855/bobZ82;tcp");
        assert_eq!(change.peer().role, Role::Passive);
        assert_ne!(world.answer().message.status(), Some(200), "not before the session is there");

        world.isc.moved(world.now, change, Some(NEW_PATH));
        world.drive();
        assert_eq!(world.answer().message.status(), Some(200), "{method}");
        let sdp = description(&world);
        let (id, version, rest) = origin_line(&sdp);
        let before = origin_line(&offered);
        assert_eq!((id, version, rest), (before.0, before.1 + 1, before.2));
        assert!(sdp.contains(&format!("a=path:{NEW_PATH}\n")), "{sdp}");
        assert!(sdp.contains("a=setup:passive\n") && sdp.contains("m=message 2855 "), "{sdp}");
        let peer = world.isc.peer_of_leg(leg).expect("it goes on");
        assert_eq!(peer.path[0].as_str(), "msrp://192.0.2.78:2855/bobZ82;tcp");

        // What came last is what the next one is compared with; a peer that waits makes us connect.
        let sdp = ANSWER_SDP
            .replace(" 99 1 IN", " 99 3 IN")
            .replace("message 9 ", "message 2855 ")
            .replace("setup:active", "setup:passive")
            .replace("bobZ81", "bobZ83");
        world.receive(&from_recipient(&world, "UPDATE", 6, &sdp));
        let change = moves(&world).pop().expect("another change");
        assert_eq!(change.peer().role, Role::Active);
        world.isc.moved(world.now, change, Some(NEW_PATH));
        world.drive();
        let sdp = description(&world);
        assert_eq!(origin_line(&sdp).1, before.1 + 2);
        assert!(sdp.contains("a=setup:active\n") && sdp.contains("m=message 9 "), "{sdp}");
    }
}

/// Proves IM-066.
#[test]
fn other_changes_of_a_recipient_are_refused() {
    let changed = [
        ("direction", ANSWER_SDP.replace("a=recvonly", "a=inactive")),
        ("types", ANSWER_SDP.replace(" text/plain", "")),
        ("line", ANSWER_SDP.replace("message 9", "message 0")),
        ("media", format!("{ANSWER_SDP}m=audio 4000 RTP/AVP 0\n")),
        ("path and types", ANSWER_SDP.replace("bobZ81", "bobZ82").replace(" text/plain", "")),
        (
            "path and address",
            ANSWER_SDP
                .replace("=IN IP4 192.0.2.77", "=IN IP4 192.0.2.1")
                .replace("bobZ81", "bobZ82"),
        ),
        ("bad path", ANSWER_SDP.replace("msrp://192.0.2.77", "msrps://192.0.2.77")),
    ];
    for (what, sdp) in changed {
        let (mut world, _) = invited();
        answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
        world.receive(&from_recipient(&world, "INVITE", 5, &sdp));
        assert_eq!(world.answer().message.status(), Some(488), "{what}");
        assert!(moves(&world).is_empty(), "{what}");
    }
    // No session is left for a new path: the old one goes on.
    let (mut world, leg) = invited();
    answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
    world.receive(&from_recipient(&world, "INVITE", 5, &ANSWER_SDP.replace("bobZ81", "bobZ82")));
    let change = moves(&world).pop().expect("a change of path");
    world.isc.moved(world.now, change, None::<&str>);
    world.drive();
    assert_eq!(world.answer().message.status(), Some(488));
    let peer = world.isc.peer_of_leg(leg).expect("it goes on");
    assert_eq!(peer.path[0].as_str(), "msrp://192.0.2.77:2855/bobZ81;tcp");
}

/// Proves MS-016.
#[test]
fn the_originator_may_change_its_path() {
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    let first = origin_line(&description(&world));
    ack(&mut world);
    let sdp =
        INVITE.split("application/sdp\n\n").nth(1).and_then(|rest| rest.split("--bnd1").next());
    let sdp = sdp.expect("there is an offer").replace("ue7Qm2k0", "ue7Qm2k1");
    let again = in_dialog(&world, "INVITE", 2, &with_offer(&sdp));
    world.receive(&again);
    let change = moves(&world).pop().expect("a change of path");
    assert_eq!((change.page, change.leg), (page, None));
    world.isc.moved(world.now, change, Some(NEW_PATH));
    world.drive();
    assert_eq!(world.answer().message.status(), Some(200));
    let sdp = description(&world);
    assert_eq!(origin_line(&sdp), (first.0, first.1 + 1, first.2));
    assert!(sdp.contains(&format!("a=path:{NEW_PATH}\n")) && sdp.contains("a=recvonly\n"), "{sdp}");
    let peer = &world.isc.media_of_originator(page).expect("it goes on").peer;
    assert!(peer.path[0].as_str().ends_with("/ue7Qm2k1;tcp"));
}

/// Proves MS-027, MS-028: where names stand for addresses, the move waits for them.
#[test]
fn a_path_at_a_name_waits_until_its_address_is_known() {
    for same in [true, false] {
        let (mut world, leg) = invited();
        answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
        let sdp = ANSWER_SDP
            .replace(" 99 1 IN", " 99 2 IN")
            .replace("msrp://192.0.2.77:2855/bobZ81", "msrp://phone.example:2855/bobZ82");
        world.receive(&from_recipient(&world, "UPDATE", 5, &sdp));
        let compare = world.happened.iter().find_map(|happening| match happening {
            Happening::Compare(compare) => Some((**compare).clone()),
            _ => None,
        });
        let compare = compare.expect("names to compare");
        assert_eq!((&*compare.names.media, &*compare.names.path), ("192.0.2.77", "phone.example"));
        let next = world.isc.compared(world.now, compare, same);
        world.drive();
        if !same {
            assert!(next.is_none());
            assert_eq!(world.answer().message.status(), Some(488));
            continue;
        }
        let Some(Happening::Moved(change)) = next else { panic!("{next:?}") };
        assert_eq!(change.leg, Some(leg));
        world.isc.moved(world.now, *change, Some(NEW_PATH));
        world.drive();
        assert_eq!(world.answer().message.status(), Some(200));
        assert!(!description(&world).contains("cema"), "the phone did not say it");
    }
}
