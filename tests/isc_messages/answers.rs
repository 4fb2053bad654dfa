//! What goes back to the originator.

use std::time::Duration;

use pagecast::engine::effect::{Cause, CauseProtocol};
use pagecast::engine::input::{Input, OriginatorEvent, Refusal};
use pagecast::isc::settings::{AnonReject, CoreProfile};

use crate::world::{
    INVITE, OWN_PATH, World, assert_lines, group_invite, header, headers, home, reply,
};

pub fn arrived() -> World {
    let mut world = World::new(home());
    world.receive(INVITE);
    world
}

pub fn ack(world: &mut World) {
    let (tag, to) = {
        let ok = world.answer();
        (
            ok.message.to_tag().map(|tag| String::from_utf8_lossy(tag).into_owned()),
            ok.message.uri().len(),
        )
    };
    assert_eq!(to, 0);
    let tag = tag.expect("a 200 has a tag");
    world.receive(&format!(
        "ACK sip:lm-x@im-as1.home1.example SIP/2.0
Via: SIP/2.0/TCP scscf1.home1.example:5060;branch=z9hG4bK-sc-ack
Max-Forwards: 67
From: \"Alice\" <sip:alice@home1.example>;tag=a1c9
To: <sip:im-exploder@im.home1.example>;tag={tag}
Call-ID: 5f0c-1@ue.example
CSeq: 1 ACK"
    ));
}

pub fn in_dialog(world: &World, method: &str, cseq: u32, more: &str) -> String {
    let found = world
        .sent
        .iter()
        .rev()
        .find_map(|sent| sent.message.to_tag().filter(|_| sent.message.status().is_some()));
    let tag = String::from_utf8_lossy(found.expect("there is a dialog")).into_owned();
    format!(
        "{method} sip:lm-x@im-as1.home1.example SIP/2.0
Via: SIP/2.0/TCP scscf1.home1.example:5060;branch=z9hG4bK-{method}-{cseq}
Max-Forwards: 67
From: \"Alice\" <sip:alice@home1.example>;tag=a1c9
To: <sip:im-exploder@im.home1.example>;tag={tag}
Call-ID: 5f0c-1@ue.example
CSeq: {cseq} {method}
{more}"
    )
}

/// The 200, every line of it, and the SDP answer.
///
/// Proves IM-042, IM-044, IM-052, ISC-013, ISC-026.
#[test]
fn the_200_line_by_line() {
    let mut world = arrived();
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    assert_lines(
        &world.answer().text,
        r#"SIP/2.0 200 OK
        Via: SIP/2.0/TCP scscf1.home1.example:5060;branch=z9hG4bK-sc-71a;received=192.0.2.40
        Via: SIP/2.0/UDP pcscf1.home1.example:5060;branch=z9hG4bK-pc-33
        Via: SIP/2.0/UDP [2001:db8::a1]:1357;branch=z9hG4bK-ue-1
        From: "Alice" <sip:alice@home1.example>;tag=a1c9
        To: <sip:im-exploder@im.home1.example>;tag=07…
        Call-ID: 5f0c-1@ue.example
        CSeq: 1 INVITE
        Server: IM-serv/OMA1.0 ExampleIM/2.1
        Record-Route: <sip:scscf1.home1.example;lr>, <sip:pcscf1.home1.example;lr>
        Contact: <sip:lm-07…@im-as1.home1.example:5060>;+g.oma.sip-im.large-message;isfocus
        Session-Expires: 1800;refresher=uac
        Require: timer
        P-Asserted-Identity: <sip:im-exploder@im.home1.example>
        P-Charging-Vector: icid-value="pc1-20240101-00042";icid-generated-at=pcscf1.home1.example;orig-ioi="Type 3home1.example";term-ioi="Type 3home1.example"
        Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS
        Supported: 100rel, timer
        Content-Type: application/sdp
        Content-Length: …

        v=0
        o=- … 1 IN IP4 192.0.2.10
        s=-
        c=IN IP4 192.0.2.10
        t=0 0
        m=message 2855 TCP/MSRP *
        a=accept-types:message/cpim text/plain
        a=accept-wrapped-types:text/plain image/png
        a=max-size:10485760
        a=setup:passive
        a=recvonly
        a=path:msrp://192.0.2.10:2855/o4Jx9ZpQ0tR2sKd8aaaaaaaa;tcp"#,
    );
}

/// Proves IM-009, IM-052.
#[test]
fn every_media_line_is_answered_and_all_but_one_refused() {
    let mut world = World::new(home());
    world.receive(&INVITE.replace("m=message 9", "m=audio 4000 RTP/AVP 0\nm=message 9"));
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    let lines: Vec<&str> =
        world.answer().text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 0 RTP/AVP 0", "m=message 2855 TCP/MSRP *"]);
    world.invite(1);
    let invite = world.last_request("INVITE");
    let lines: Vec<&str> = invite.text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=message 2855 TCP/MSRP *"]);
}

/// Proves IM-020, IM-054, ISC-026.
#[test]
fn a_183_is_ours_and_reliable_where_the_originator_can() {
    for (supported, reliable) in [("Supported: 100rel, timer", true), ("Supported: timer", false)] {
        let mut world = World::new(home());
        world.receive(&INVITE.replace("Supported: 100rel, timer", supported));
        assert_eq!(world.statuses(), [100], "100 is there at once");
        assert_eq!(world.arrival().reliable, reliable);
        world.isc.progress(world.now, world.arrival().page, OWN_PATH, false);
        world.drive();
        let progress = world.answer();
        assert_eq!(progress.message.status(), Some(183));
        assert_eq!(header(progress, "Require"), reliable.then_some("100rel"));
        assert_eq!(header(progress, "RSeq").is_some(), reliable);
        assert_eq!(progress.text.contains("a=path:"), reliable, "SDP only where it cannot be lost");
        assert!(header(progress, "P-Charging-Vector").is_some_and(|v| v.contains("term-ioi")));
        assert!(header(progress, "Contact").is_some() && progress.message.to_tag().is_some());
    }
}

/// Proves IM-053.
#[test]
fn no_200_before_the_prack_and_500_without_one() {
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.progress(world.now, page, OWN_PATH, false);
    world.drive();
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    assert!(!world.statuses().contains(&200));
    world.pass(Duration::from_secs(33));
    assert!(!world.statuses().contains(&200));
    assert_eq!(world.statuses().last(), Some(&500));
    let missing = Input::Originator { page, event: OriginatorEvent::PrackMissing };
    assert_eq!(world.inputs(), [&missing]);

    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.progress(world.now, page, OWN_PATH, false);
    world.drive();
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    let rseq = header(world.answer(), "RSeq").expect("reliable").to_owned();
    let prack = in_dialog(&world, "PRACK", 2, &format!("RAck: {rseq} 1 INVITE"));
    world.receive(&prack);
    assert_eq!(world.statuses().last(), Some(&200));
    let cseqs: Vec<&str> = world
        .sent
        .iter()
        .filter(|sent| sent.message.status() == Some(200))
        .filter_map(|sent| header(sent, "CSeq"))
        .collect();
    assert_eq!(cseqs, ["2 PRACK", "1 INVITE"]);
}

/// Proves IM-063.
#[test]
fn a_cancel_ends_the_invite_and_is_told() {
    let mut world = arrived();
    let page = world.arrival().page;
    let cancel = "CANCEL sip:im-exploder@im.home1.example SIP/2.0
Via: SIP/2.0/TCP scscf1.home1.example:5060;branch=z9hG4bK-sc-71a
Max-Forwards: 67
Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>
From: \"Alice\" <sip:alice@home1.example>;tag=a1c9
To: <sip:im-exploder@im.home1.example>
Call-ID: 5f0c-1@ue.example
CSeq: 1 CANCEL";
    world.receive(cancel);
    let mut statuses = world.statuses();
    statuses.sort_unstable();
    assert_eq!(statuses, [100, 200, 487]);
    assert_eq!(world.inputs(), [&Input::Originator { page, event: OriginatorEvent::Cancelled }]);

    let mut world = arrived();
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    let before = world.sent.len();
    world.receive(cancel);
    assert!(world.inputs().is_empty(), "too late to mean anything");
    let after: Vec<_> = world.sent[before..].iter().map(|sent| header(sent, "CSeq")).collect();
    assert_eq!(after, [Some("1 CANCEL")]);
}

/// Proves IM-066, ISC-014, ISC-023, ISC-027.
#[test]
fn the_dialog_with_the_originator_ends_by_either_side() {
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    ack(&mut world);
    let bye = in_dialog(&world, "BYE", 2, "");
    world.receive(&bye);
    assert_eq!(header(world.answer(), "CSeq"), Some("2 BYE"));
    assert_eq!(world.answer().message.status(), Some(200));
    let told = [OriginatorEvent::Acked, OriginatorEvent::Bye]
        .map(|event| Input::Originator { page, event });
    assert_eq!(world.inputs(), told.iter().collect::<Vec<_>>());

    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    ack(&mut world);
    let cause = Cause { protocol: CauseProtocol::Msrp, code: 413, text: "Too big".to_owned() };
    world.isc.end_originator(world.now, page, Some(&cause));
    world.drive();
    let bye = world.last_request("BYE");
    assert_eq!(bye.message.uri(), "sip:alice@[2001:db8::a1]:1357");
    assert_eq!(
        headers(bye, "Route"),
        ["<sip:scscf1.home1.example;lr>", "<sip:pcscf1.home1.example;lr>"]
    );
    assert_eq!(header(bye, "Reason"), Some("SIP;cause=413;text=\"Too big\""));
    assert_eq!(
        header(bye, "P-Charging-Vector"),
        Some("icid-value=\"pc1-20240101-00042\";orig-ioi=\"Type 3home1.example\"")
    );
    for name in ["P-Served-User", "P-Asserted-Service"] {
        assert_eq!(header(bye, name), None, "{name}");
    }
    // The service ends what it has answered.
    assert_eq!(header(bye, "P-Asserted-Identity"), Some("<sip:im-exploder@im.home1.example>"));
    assert!(!bye.text.contains(";orig>") && !bye.text.contains("odi-8f2c51"));
}

/// Proves IM-066.
#[test]
fn a_missing_ack_is_told_and_changed_media_refused() {
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    world.pass(Duration::from_secs(33));
    assert_eq!(world.inputs(), [&Input::Originator { page, event: OriginatorEvent::AckMissing }]);

    let mut world = arrived();
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    ack(&mut world);
    let sdp =
        INVITE.split("application/sdp\n\n").nth(1).and_then(|rest| rest.split("--bnd1").next());
    let sdp = sdp
        .expect("there is an offer")
        .replace("a=sendonly", "a=sendrecv")
        .replace(" 1 IN IP6", " 2 IN IP6");
    let offer =
        format!("Contact: <sip:alice@[2001:db8::a1]:1357>\nContent-Type: application/sdp\n\n{sdp}");
    let again = in_dialog(&world, "INVITE", 2, &offer);
    world.receive(&again);
    let answer = world.answer();
    assert_eq!((answer.message.status(), header(answer, "CSeq")), (Some(488), Some("2 INVITE")));
}

/// Proves IM-034, UL-005.
#[test]
fn a_list_in_a_re_invite_is_not_understood() {
    let mut world = arrived();
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    ack(&mut world);
    let body = INVITE.split_once("\n\n").map_or("", |(_, body)| body);
    let again = in_dialog(
        &world,
        "INVITE",
        2,
        &format!(
            "Contact: <sip:alice@[2001:db8::a1]:1357>\nRequire: recipient-list-invite\nContent-Type: multipart/mixed;boundary=bnd1\n\n{body}"
        ),
    );
    let heard = world.inputs().len();
    world.receive(&again);
    let answer = world.answer();
    assert_eq!(answer.message.status(), Some(420));
    assert_eq!(header(answer, "Unsupported"), Some("recipient-list-invite"));
    assert_eq!(world.inputs().len(), heard, "the page goes on");
}

/// Proves IM-022, UL-036, ISC-066.
#[test]
fn the_engine_s_refusals_go_out_in_the_words_of_the_rules() {
    let anonymous = || Refusal::new(403, "IM-022").warn("Anonymity not allowed");
    let busy = Refusal { retry_after: Some(10), ..Refusal::new(480, "IM-033") };
    for (refusal, reject, status, field, value) in [
        (
            anonymous(),
            AnonReject::Oma,
            403,
            "Warning",
            Some("399 im-as1.home1.example \"Anonymity not allowed\""),
        ),
        (anonymous(), AnonReject::Rfc, 433, "Warning", None),
        (busy, AnonReject::Oma, 480, "Retry-After", Some("10")),
        (Refusal::new(603, "IM-057"), AnonReject::Oma, 603, "Warning", None),
        (Refusal::new(500, "test"), AnonReject::Oma, 480, "Warning", None),
    ] {
        let mut settings = home();
        settings.im.anon_reject = reject;
        let mut world = World::new(settings);
        world.receive(&INVITE.replace("Subject:", "Privacy: id\nSubject:"));
        assert!(world.arrival().anonymous);
        world.isc.refuse(world.now, world.arrival().page, &refusal);
        world.drive();
        let answer = world.answer();
        assert_eq!(answer.message.status(), Some(status));
        assert_eq!(header(answer, field), value);
        assert!(
            header(answer, "P-Charging-Vector")
                .is_some_and(|v| v.ends_with("term-ioi=\"Type 3home1.example\""))
        );
    }
}

/// Proves ISC-025.
#[test]
fn a_request_without_charging_is_served_and_its_legs_are_charged() {
    let vector = "P-Charging-Vector: icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\"\n";
    let mut world = World::new(home());
    world.receive(&INVITE.replace(vector, ""));
    world.invite(1);
    assert_eq!(
        header(world.last_request("INVITE"), "P-Charging-Vector")
            .map(|value| value.contains("orig-ioi=\"Type 3home1.example\"")),
        Some(true)
    );
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    assert_eq!(header(world.answer(), "P-Charging-Vector"), None);
    let mut world = arrived();
    world.invite(1);
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    assert!(
        header(world.answer(), "P-Charging-Vector")
            .is_some_and(|value| value.contains("\"pc1-20240101-00042\""))
    );
}

/// Proves IM-018, IM-052.
#[test]
fn a_plain_core_sees_no_ims_header_in_answers() {
    let mut settings = home();
    settings.profile = CoreProfile::SipIp;
    let mut world = World::new(settings);
    world.receive(&group_invite());
    world.isc.answer(world.now, world.arrival().page, OWN_PATH, &[]);
    world.drive();
    assert!(!world.answer().text.lines().any(|line| line.starts_with("P-")));
}

/// Proves ISC-061.
#[test]
fn a_short_session_interval_is_refused() {
    let mut world = World::new(home());
    world.receive(&INVITE.replace("Session-Expires: 1800\nMin-SE: 90", "Session-Expires: 60"));
    let answer = world.answer();
    assert_eq!(answer.message.status(), Some(422));
    assert_eq!(header(answer, "Min-SE"), Some("90"));
}

/// Nothing is left once a page is forgotten.
///
/// Proves ISC-050.
#[test]
fn forgotten_pages_leave_nothing() {
    let mut world = World::new(home());
    for n in 0..50 {
        let invite =
            INVITE.replace("5f0c-1", &format!("5f0c-{n}")).replace("sc-71a", &format!("sc-{n}"));
        world.happened.clear();
        world.receive(&invite);
        let leg = world.invite(1);
        let page = world.arrival().page;
        let refused = reply(world.last_request("INVITE"), 486, "t", "", "");
        world.receive(&refused);
        world.isc.refuse(world.now, page, &Refusal::new(486, "IM-057"));
        world.isc.forget(world.now, page);
        world.drive();
        assert!(world.isc.peer_of_leg(leg).is_none());
    }
    assert!(world.requests("REGISTER").is_empty(), "a server registers no address of its own");
    assert_eq!(world.isc.pages(), 0);
    world.pass(Duration::from_secs(120));
    let stats = world.isc.ua().stats();
    assert_eq!((stats.calls, stats.client_transactions, stats.server_transactions), (0, 0, 0));
}

/// Every response but 100, whoever decides on it: ours, the engine's, the stack's own.
///
/// Proves ISC-026.
#[test]
fn every_class_of_answer_repeats_the_charging_vector() {
    const ICID: &str = "icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\"";
    const LATER: &str = "P-Charging-Vector: icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\"\n";
    let want = format!("{ICID};term-ioi=\"Type 3home1.example\"");
    let check = |world: &World, statuses: &[u16]| {
        assert_eq!(world.statuses(), statuses);
        for sent in world.sent.iter().filter(|sent| sent.message.status().is_some()) {
            let status = sent.message.status();
            let vector = header(sent, "P-Charging-Vector");
            assert_eq!(vector, (status != Some(100)).then_some(want.as_str()), "{status:?}");
        }
    };
    // 183, 200, and the 200 to a BYE.
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.progress(world.now, page, OWN_PATH, false);
    world.drive();
    check(&world, &[100, 183]);
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    ack(&mut world);
    let bye = in_dialog(&world, "BYE", 2, LATER);
    world.receive(&bye);
    check(&world, &[100, 200, 200]);
    // 487 and the 200 to the CANCEL.
    let mut world = arrived();
    world.receive(
        &(INVITE.split("P-Asserted-Identity").next().unwrap_or_default().replacen("INVITE", "CANCEL", 1)
            + LATER
            + "From: \"Alice\" <sip:alice@home1.example>;tag=a1c9\nTo: <sip:im-exploder@im.home1.example>\nCall-ID: 5f0c-1@ue.example\nCSeq: 1 CANCEL\n"),
    );
    check(&world, &[100, 200, 487]);
    // Refused by us, by the engine, by the stack for its timer and for what it does not find.
    let mut world = World::new(home());
    world.receive(&INVITE.replace("Require:", "Require: foo\nRequire:"));
    check(&world, &[100, 420]);
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.refuse(world.now, page, &Refusal::new(480, "IM-057"));
    world.drive();
    check(&world, &[100, 480]);
    let mut world = World::new(home());
    world.receive(&INVITE.replace("Session-Expires: 1800\nMin-SE: 90", "Session-Expires: 60"));
    assert_eq!(world.statuses().last(), Some(&422));
    assert_eq!(header(world.answer(), "P-Charging-Vector"), Some(want.as_str()));
    let mut world = arrived();
    let page = world.arrival().page;
    world.isc.progress(world.now, page, OWN_PATH, false);
    world.drive();
    let stray = in_dialog(&world, "BYE", 9, LATER).replace("tag=a1c9", "tag=nobody");
    world.receive(&stray);
    assert_eq!(world.answer().message.status(), Some(481));
    assert_eq!(header(world.answer(), "P-Charging-Vector"), Some(want.as_str()));
    // Nobody's word is repeated that is not believed, nor any to a plain core.
    let mut world = World::new(home());
    world.receive_from("198.51.100.7:5060", INVITE);
    assert_eq!(header(world.answer(), "P-Charging-Vector"), None);
    let mut plain = home();
    plain.profile = CoreProfile::SipIp;
    let mut world = World::new(plain);
    world.receive(&INVITE.replace("Session-Expires: 1800\nMin-SE: 90", "Session-Expires: 60"));
    assert_eq!(header(world.answer(), "P-Charging-Vector"), None);
}
