//! The recipients' answers in the engine's words, and the one more try.

use std::time::Duration;

use pagecast::content::sdp::Role;
use pagecast::engine::effect::{Cause, CauseProtocol};
use pagecast::engine::ids::LegId;
use pagecast::engine::input::{Input, LegEvent};

use crate::world::{ANSWER_SDP, INVITE, Sent, World, header, headers, home, reply};

pub fn invited() -> (World, LegId) {
    let mut settings = home();
    settings.im.icsi = "urn:urn-7:3gpp-service.ims.icsi.x".to_owned();
    let mut world = World::new(settings);
    world.receive(INVITE);
    let leg = world.invite(1);
    (world, leg)
}

pub fn answer(world: &mut World, status: u16, lines: &str, body: &str) {
    let text = reply(world.last_request("INVITE"), status, "pf-55", lines, body);
    world.receive(&text);
}

fn events(world: &World) -> Vec<LegEvent> {
    let legs = world.inputs().into_iter().filter_map(|input| match input {
        Input::Leg { event, .. } => Some(event.clone()),
        _ => None,
    });
    legs.collect()
}

const CONTACT: &str = "Record-Route: <sip:scscf1.home1.example;lr>\nContact: <sip:pf-55@im-as2.home1.example;transport=tcp>;+g.oma.sip-im.large-message\n";

pub fn with_sdp(lines: &str) -> String {
    format!("{CONTACT}{lines}Content-Type: application/sdp\n")
}

/// Proves IM-011, IM-013, IM-014, IM-015, IM-016, IM-017, ISC-014, ISC-022, ISC-023, ISC-027, ISC-034.
#[test]
fn what_the_answers_say_reaches_the_engine() {
    let (mut world, leg) = invited();
    answer(
        &mut world,
        183,
        &format!("{CONTACT}Require: 100rel\nRSeq: 4711\nAllow: INVITE,ACK,BYE\n"),
        "",
    );
    answer(&mut world, 180, "", "");
    let later = with_sdp("Allow: INVITE, ACK, BYE, UPDATE\n").replace("pf-55@", "other@");
    answer(&mut world, 200, &later, ANSWER_SDP);
    let allow = |methods: &[&str]| Some(methods.iter().map(|method| (*method).into()).collect());
    assert_eq!(
        events(&world),
        [
            LegEvent::Early {
                ringing: false,
                allow: allow(&["INVITE", "ACK", "BYE"]),
                contact: Some("sip:pf-55@im-as2.home1.example;transport=tcp".into()),
            },
            LegEvent::Early { ringing: true, allow: None, contact: None },
            LegEvent::Accepted {
                allow: allow(&["INVITE", "ACK", "BYE", "UPDATE"]),
                contact: Some("sip:other@im-as2.home1.example;transport=tcp".into()),
            },
        ]
    );
    assert!(
        world
            .inputs()
            .iter()
            .all(|input| matches!(input, Input::Leg { leg: of, .. } if *of == leg))
    );
    let peer = world.isc.peer_of_leg(leg).expect("the answer can be used");
    assert_eq!(peer.path[0].as_str(), "msrp://192.0.2.77:2855/bobZ81;tcp");
    assert_eq!(peer.role, Role::Passive);

    let cause = Cause { protocol: CauseProtocol::Sip, code: 488, text: "x".to_owned() };
    world.isc.end_leg(world.now, leg, Some(&cause));
    world.drive();
    assert!(header(world.last_request("INVITE"), "P-Asserted-Service").is_some());
    let prack = world.last_request("PRACK");
    assert_eq!(prack.message.uri(), "sip:pf-55@im-as2.home1.example;transport=tcp");
    assert_eq!(header(prack, "RAck"), Some("4711 1 INVITE"));
    assert_eq!(header(prack, "User-Agent"), Some("IM-serv/OMA1.0 ExampleIM/2.1"));
    let icid = |sent: &Sent| {
        let vector = header(sent, "P-Charging-Vector").expect("stands there");
        vector.split(';').next().unwrap_or_default().to_owned()
    };
    let first = icid(world.last_request("INVITE"));
    assert_eq!(
        header(prack, "P-Charging-Vector"),
        Some(format!("{first};orig-ioi=\"Type 3home1.example\"").as_str())
    );
    let bye = world.last_request("BYE");
    assert_eq!(bye.message.uri(), "sip:other@im-as2.home1.example;transport=tcp");
    assert_eq!(icid(bye), first);
    assert_eq!(header(bye, "Reason"), Some("SIP;cause=488;text=\"x\""));
    let ack = world.last_request("ACK");
    assert_eq!(ack.message.uri(), "sip:other@im-as2.home1.example;transport=tcp");
    for sent in [prack, bye, ack] {
        assert_eq!(headers(sent, "Route"), ["<sip:scscf1.home1.example;lr>"]);
        for name in ["P-Served-User", "P-Asserted-Identity", "P-Asserted-Service"] {
            assert_eq!(header(sent, name), None, "{name}");
        }
    }
}

/// Proves IM-017, IM-060.
#[test]
fn an_answer_that_cannot_be_used_is_told_apart() {
    let cases: Vec<(&str, String, String, Result<(), &str>)> = vec![
        ("usable", with_sdp(""), ANSWER_SDP.to_owned(), Ok(())),
        (
            "in a multipart",
            format!("{CONTACT}Content-Type: multipart/mixed;boundary=b\n"),
            format!("--b\nContent-Type: application/sdp\n\n{ANSWER_SDP}\n--b--"),
            Ok(()),
        ),
        ("no SDP", CONTACT.to_owned(), String::new(), Err("answer without SDP")),
        (
            "no SDP but text",
            format!("{CONTACT}Content-Type: text/plain\n"),
            "x".to_owned(),
            Err("answer without SDP"),
        ),
        (
            "port 0",
            with_sdp(""),
            ANSWER_SDP.replace("message 9", "message 0"),
            Err("media refused"),
        ),
        (
            "no path",
            with_sdp(""),
            ANSWER_SDP.replace("a=path:msrp://192.0.2.77:2855/bobZ81;tcp\n", ""),
            Err("answer without MSRP path"),
        ),
        (
            "does not receive",
            with_sdp(""),
            ANSWER_SDP.replace("recvonly", "sendonly"),
            Err("answer does not receive"),
        ),
        ("garbage", with_sdp(""), "hello".to_owned(), Err("malformed SDP")),
    ];
    for (name, lines, body, want) in cases {
        let (mut world, leg) = invited();
        answer(&mut world, 200, &lines, &body);
        assert_eq!(world.requests("ACK").len(), 1, "{name}: acknowledged in any case");
        match (events(&world).as_slice(), want) {
            ([LegEvent::Accepted { .. }], Ok(())) => assert!(world.isc.peer_of_leg(leg).is_some()),
            ([LegEvent::Unusable { text }], Err(want)) => {
                assert_eq!(text, want, "{name}");
                assert!(world.isc.peer_of_leg(leg).is_none());
            }
            (events, _) => panic!("{name}: {events:?}"),
        }
    }
}

/// A description in a reliable provisional response is the answer, and the 200 need not repeat it (RFC 3262 §5).
///
/// Proves IM-017.
#[test]
fn the_answer_may_have_come_with_the_183() {
    let (mut world, leg) = invited();
    answer(&mut world, 183, &with_sdp("Require: 100rel\nRSeq: 1\n"), ANSWER_SDP);
    answer(&mut world, 200, CONTACT, "");
    assert!(matches!(
        events(&world).as_slice(),
        [LegEvent::Early { .. }, LegEvent::Accepted { .. }]
    ));
    assert!(world.isc.peer_of_leg(leg).is_some());

    let (mut world, _) = invited();
    answer(&mut world, 183, &with_sdp(""), ANSWER_SDP);
    answer(&mut world, 200, CONTACT, "");
    assert!(matches!(
        events(&world).as_slice(),
        [LegEvent::Early { .. }, LegEvent::Unusable { .. }]
    ));
}

/// Proves IM-062, UL-025.
#[test]
fn a_leg_is_tried_once_more_where_that_may_help() {
    type Check = fn(&Sent);
    let cases: Vec<(&str, u16, &str, Option<Check>)> = vec![
        (
            "multipart unknown",
            415,
            "Accept: application/sdp\n",
            Some(|sent| {
                assert_eq!(header(sent, "Content-Type"), Some("application/sdp"));
                assert!(!sent.text.contains("recipient-list-history"));
            }),
        ),
        (
            "nothing accepted named",
            415,
            "",
            Some(|sent| {
                assert_eq!(header(sent, "Content-Type"), Some("application/sdp"));
            }),
        ),
        ("multipart known", 415, "Accept: application/sdp, multipart/mixed\n", None),
        (
            "old client",
            400,
            "",
            Some(|sent| {
                assert_eq!(header(sent, "Content-Type"), Some("application/sdp"));
            }),
        ),
        (
            "interval too small",
            422,
            "Min-SE: 3600\n",
            Some(|sent| {
                assert_eq!(header(sent, "Min-SE"), Some("3600"));
                assert_eq!(header(sent, "Session-Expires"), Some("3600"));
            }),
        ),
        (
            "interval too small, but not for ours",
            422,
            "Min-SE: 120\n",
            Some(|sent| {
                assert_eq!(header(sent, "Min-SE"), Some("120"));
                assert_eq!(header(sent, "Session-Expires"), Some("1800"));
            }),
        ),
        ("interval unsaid", 422, "", None),
        (
            "an option",
            420,
            "Unsupported: timer\n",
            Some(|sent| {
                assert_eq!(header(sent, "Supported"), Some("100rel"));
                assert_eq!(header(sent, "Session-Expires"), None);
            }),
        ),
        ("somebody else's option", 420, "Unsupported: foo\n", None),
        ("authentication", 401, "", None),
        ("proxy authentication", 407, "", None),
        ("redirection", 302, "Contact: <sip:eve@home1.example>\n", None),
        ("busy", 486, "", None),
    ];
    for (name, status, lines, check) in cases {
        let (mut world, _) = invited();
        answer(&mut world, status, lines, "");
        let invites = world.requests("INVITE");
        let Some(check) = check else {
            assert_eq!(invites.len(), 1, "{name}");
            let want = LegEvent::Refused { status, text: "Text".to_owned(), retry_after: None };
            assert_eq!(events(&world), [want], "{name}");
            continue;
        };
        let [first, second] = invites.as_slice() else { panic!("{name}: {}", invites.len()) };
        check(second);
        for same in ["Call-ID", "From", "P-Charging-Vector", "Max-Forwards", "Route"] {
            assert_eq!(header(first, same), header(second, same), "{name}: {same}");
        }
        assert_eq!(header(second, "CSeq"), Some("2 INVITE"), "{name}");
        assert!(events(&world).is_empty(), "{name}: nothing has happened yet");
        // Not a third time.
        answer(&mut world, status, lines, "");
        assert_eq!(world.requests("INVITE").len(), 2, "{name}");
        assert!(matches!(events(&world).as_slice(), [LegEvent::Refused { .. }]), "{name}");
    }
    let mut settings = home();
    settings.im.retry = false;
    let mut world = World::new(settings);
    world.receive(INVITE);
    world.invite(1);
    answer(&mut world, 415, "", "");
    assert_eq!(world.requests("INVITE").len(), 1);
}

/// Proves IM-047.
#[test]
fn who_refused_multipart_once_gets_none_again() {
    let (mut world, _) = invited();
    answer(&mut world, 415, "Accept: application/sdp\n", "");
    world.happened.clear();
    world.receive(&INVITE.replace("5f0c-1", "5f0c-2").replace("sc-71a", "sc-72"));
    world.invite(1);
    assert_eq!(header(world.last_request("INVITE"), "Content-Type"), Some("application/sdp"));
    world.invite(2);
    let other = header(world.last_request("INVITE"), "Content-Type").expect("has a body");
    assert!(other.starts_with("multipart/mixed"), "{other}");
}

/// Proves IM-061.
#[test]
fn a_cancel_waits_for_a_sign_of_life_and_a_late_200_is_ended() {
    let (mut world, leg) = invited();
    let cause = Cause { protocol: CauseProtocol::Timer, code: 408, text: "No answer".to_owned() };
    world.isc.cancel(world.now, leg, &cause);
    world.drive();
    assert!(world.requests("CANCEL").is_empty());
    answer(&mut world, 180, "", "");
    let cancel = world.last_request("CANCEL");
    assert_eq!(header(cancel, "Reason"), Some("SIP;cause=408;text=\"No answer\""));
    assert_eq!(header(cancel, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
    assert_eq!((world.requests("ACK").len(), world.requests("BYE").len()), (1, 1));
    assert!(matches!(events(&world).last(), Some(LegEvent::Refused { status: 487, .. })));
}

/// Proves MS-121.
#[test]
fn of_two_phones_that_answer_one_gets_the_page() {
    let (mut world, leg) = invited();
    let invite = world.last_request("INVITE");
    let second = ANSWER_SDP.replace("bobZ81", "bobPad").replace("192.0.2.77", "192.0.2.79");
    let contact = with_sdp("").replace("pf-55@", "pf-66@");
    let ringing = reply(invite, 180, "pf-66", &contact, &second);
    let late = reply(invite, 200, "pf-66", &contact, &second);
    // Whoever rings first is not yet the one.
    world.receive(&ringing);
    answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
    world.receive(&late);
    let accepted =
        events(&world).iter().filter(|event| matches!(event, LegEvent::Accepted { .. })).count();
    assert_eq!(accepted, 1);
    let peer = world.isc.peer_of_leg(leg).expect("one has the leg");
    assert_eq!(peer.path[0].as_str(), "msrp://192.0.2.77:2855/bobZ81;tcp");
    let tags = |method: &str| -> Vec<String> {
        let tag =
            |sent: &&Sent| sent.message.to_tag().map(|tag| String::from_utf8_lossy(tag).into());
        world.requests(method).iter().filter_map(tag).collect()
    };
    assert_eq!(tags("ACK"), ["pf-55", "pf-66"]);
    assert_eq!(tags("BYE"), ["pf-66"]);
}

/// Proves IM-066.
#[test]
fn the_end_of_a_leg_is_told() {
    let (mut world, leg) = invited();
    answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
    let invite = world.last_request("INVITE");
    let (from, call_id) =
        (header(invite, "From").unwrap_or_default(), header(invite, "Call-ID").unwrap_or_default());
    let bye = format!(
        "BYE sip:lm-x@im-as1.home1.example SIP/2.0
Via: SIP/2.0/UDP scscf1.home1.example;branch=z9hG4bK-bye
Max-Forwards: 60
From: <sip:bob@home1.example>;tag=pf-55
To: {from}
Call-ID: {call_id}
CSeq: 5 BYE"
    );
    world.receive(&bye);
    assert_eq!(world.answer().message.status(), Some(200));
    assert_eq!(world.inputs().last(), Some(&&Input::Leg { leg, event: LegEvent::Bye }));
    let stranger = bye.replace("tag=pf-55", "tag=other").replace("z9hG4bK-bye", "z9hG4bK-bye2");
    world.receive(&stranger);
    assert_eq!(world.answer().message.status(), Some(481));
}

/// Proves IM-019.
#[test]
fn silence_of_one_is_its_own_affair() {
    let (mut world, first) = invited();
    let second = world.invite(2);
    answer(&mut world, 200, &with_sdp(""), ANSWER_SDP);
    assert!(world.isc.peer_of_leg(second).is_some() && world.isc.peer_of_leg(first).is_none());
    world.pass(Duration::from_secs(33));
    let told = Input::Leg { leg: first, event: LegEvent::Unreachable { timeout: true } };
    assert!(world.inputs().contains(&&told), "{:?}", world.inputs());
}
