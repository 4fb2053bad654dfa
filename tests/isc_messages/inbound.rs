//! The checks of an initial INVITE: what is refused, with what, and in which order.

use pagecast::engine::party::{Copy, Target};
use pagecast::isc::rules::overload::{Pressure, Shed};
use pagecast::isc::settings::{CoreProfile, DefaultMode, ManyServedUsers, Settings};

use crate::world::{INVITE, World, group_invite, header, home};

/// One row: name, settings, INVITE, status, rule, a header of the answer with its value ("" for no header).
type Row = (&'static str, fn(&mut Settings), String, u16, &'static str, &'static str, &'static str);

fn refuse(rows: Vec<Row>) {
    for (name, change, invite, status, rule, field, value) in rows {
        let mut settings = home();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive(&invite);
        assert!(!world.has_arrived(), "{name}: was accepted");
        let refused = world.refused();
        assert_eq!((refused.status, refused.rule), (status, rule), "{name}");
        assert_eq!(world.statuses(), [100, status], "{name}");
        let answer = world.answer();
        if !field.is_empty() {
            assert_eq!(header(answer, field), Some(value), "{name}\n{}", answer.text);
        }
        assert_eq!(header(answer, "Server"), Some("IM-serv/OMA1.0 ExampleIM/2.1"), "{name}");
        assert!(answer.message.to_tag().is_some(), "{name}: no To-tag");
        assert!(world.requests("INVITE").is_empty(), "{name}");
    }
}

fn same(_: &mut Settings) {}

fn with(from: &str, to: &str) -> String {
    assert!(INVITE.contains(from), "{from} is not in the INVITE");
    INVITE.replace(from, to)
}

fn with_line(line: &str) -> String {
    with("Subject: Minutes\n", &format!("Subject: Minutes\n{line}\n"))
}

/// An INVITE whose list holds just these entries.
fn with_list(entries: &str) -> String {
    let (head, rest) = INVITE.split_once("  <list>\n").expect("there is a list");
    let (_, tail) = rest.split_once("  </list>").expect("it ends");
    format!("{head}  <list>\n{entries}  </list>{tail}")
}

fn with_sdp(from: &str, to: &str) -> String {
    with(from, to)
}

/// Without the part that starts with this line.
fn without_part(start: &str) -> String {
    let (head, rest) = INVITE.split_once(&format!("--bnd1\n{start}")).expect("there is that part");
    let (_, tail) = rest.split_once("--bnd1").expect("it ends");
    format!("{head}--bnd1{tail}")
}

/// The example is accepted, and the engine is told what it says.
///
/// Proves IM-003, ISC-002, ISC-018.
#[test]
fn the_example_becomes_an_arrival() {
    let mut world = World::new(home());
    world.receive(INVITE);
    let arrival = world.arrival();
    assert_eq!(&*arrival.originator.uri, "sip:alice@home1.example");
    assert_eq!(arrival.originator.display.as_deref(), Some("Alice"));
    let uris: Vec<&str> = arrival.identities.iter().map(|party| &*party.uri).collect();
    assert_eq!(uris, ["sip:alice@home1.example", "tel:+15551230001"]);
    assert_eq!(&*arrival.dialled.uri, "sip:im-exploder@im.home1.example");
    assert!(!arrival.anonymous && arrival.reliable);
    assert_eq!(arrival.size, Some(20_480));
    assert_eq!(arrival.page.thread(), 7);
    let Target::List(list) = arrival.target else { panic!("a list was sent") };
    let entries: Vec<(&str, Copy, bool)> =
        list.iter().map(|entry| (&*entry.party.uri, entry.copy, entry.anonymize)).collect();
    assert_eq!(
        entries,
        [
            ("sip:bob@home1.example", Copy::To, false),
            ("sip:carol@home2.example", Copy::To, true),
            ("sip:dan@home1.example", Copy::Bcc, false),
        ]
    );
    assert_eq!(world.statuses(), [100]);
}

/// Proves IM-023, ISC-057.
#[test]
fn a_group_is_named_by_its_identity() {
    for uri in ["sip:team@groups.home1.example", "SIP:team@GROUPS.home1.example:5060;transport=tcp"]
    {
        let mut world = World::new(home());
        let invite = group_invite().replacen("sip:team@groups.home1.example", uri, 1);
        world.receive(&invite);
        let arrival = world.arrival();
        assert_eq!(&*arrival.dialled.uri, "sip:team@groups.home1.example");
        assert!(matches!(arrival.target, Target::Group(group) if group == arrival.dialled));
    }
}

/// Each check by itself.
///
/// Proves IM-021, IM-023, IM-024, IM-026, IM-034, IM-044, ISC-001, ISC-019, ISC-063, UL-002.
#[test]
fn who_and_what_is_checked_before_any_body_is_read() {
    let exploder = "INVITE sip:im-exploder@im.home1.example";
    let mut rows: Vec<Row> = vec![
        ("no identity", same, with("P-Asserted-Identity: \"Alice\" <sip:alice@home1.example>, <tel:+15551230001>\n", ""), 403, "IM-021", "", ""),
        ("unusable identity", same, with("\"Alice\" <sip:alice@home1.example>, <tel:+15551230001>\nP-Served", "<mailto:a@b>\nP-Served"), 403, "IM-021", "", ""),
        ("two served users", same, with_line("P-Served-User: <sip:bob@home1.example>;sescase=term"), 400, "ISC-019", "", ""),
        ("unknown options", same, with("Require: recipient-list-invite", "Require: foo, timer, recipient-list-invite, Bar"), 420, "IM-026", "Unsupported", "foo, Bar"),
        ("preconditions", same, with("Require: ", "Require: precondition, "), 420, "IM-026", "Unsupported", "precondition"),
        ("nobody here", same, with(exploder, "INVITE sip:nobody@im.home1.example").replace("Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>\n", ""), 404, "IM-023", "", ""),
        ("the server itself", same, with(exploder, "INVITE sip:im-as1.home1.example").replace("Require: recipient-list-invite\n", ""), 404, "IM-023", "", ""),
        ("a session of ours", same, with(exploder, "INVITE sip:lm-7f3a@im-as1.home1.example"), 420, "IM-034", "Unsupported", "recipient-list-invite"),
        ("barred", |s| s.service.barred = vec!["sip:alice@HOME1.example".to_owned()], INVITE.to_owned(), 403, "IM-024", "Warning", "399 im-as1.home1.example \"127 Service not authorised\""),
        ("barred by number", |s| s.service.barred = vec!["tel:+1-555-123-0001".to_owned()], INVITE.to_owned(), 403, "IM-024", "Warning", "399 im-as1.home1.example \"127 Service not authorised\""),
        ("no subscriber, no numbers", |s| { s.service.subscribers = vec!["sip:bob@home1.example".to_owned()]; s.im.warning_numbers = false; }, INVITE.to_owned(), 403, "IM-024", "Warning", "399 im-as1.home1.example \"Service not authorised\""),
        ("another release", |s| s.im.strict_release = true, with("IM-client/OMA1.0", "IM-client/OMA2.0"), 403, "IM-044", "Warning", "399 im-as1.home1.example \"132 Version not supported\""),
    ];
    let group = group_invite();
    let list = INVITE.replace("sip:im-exploder@im.home1.example", "sip:team@groups.home1.example");
    rows.push((
        "the tag to a group",
        same,
        list.clone(),
        420,
        "IM-034",
        "Unsupported",
        "recipient-list-invite",
    ));
    rows.push((
        "a list to a group",
        same,
        list.replace("Require: recipient-list-invite\n", ""),
        420,
        "IM-034",
        "Unsupported",
        "recipient-list-invite",
    ));
    rows.push((
        "no way to a group",
        same,
        group.replace("+g.oma.sip-im.large-message", "audio"),
        488,
        "IM-025",
        "Warning",
        "399 im-as1.home1.example \"Feature tag +g.oma.sip-im.large-message missing\"",
    ));
    refuse(rows);

    // What is refused above may pass where the profile says so.
    for (name, change, invite) in [
        (
            "two served users",
            (|s| s.isc.many_served_users = ManyServedUsers::First) as fn(&mut Settings),
            with_line("P-Served-User: <sip:bob@home1.example>;sescase=term"),
        ),
        (
            "preconditions",
            |s| s.isc.preconditions = true,
            with("Require: ", "Require: precondition, "),
        ),
        (
            "subscribed by number",
            |s| s.service.subscribers = vec!["tel:+15551230001".to_owned()],
            INVITE.to_owned(),
        ),
        ("another release", same, with("IM-client/OMA1.0", "IM-client/OMA2.0")),
        (
            "Server in a request",
            |s| s.im.strict_release = true,
            with("User-Agent: IM-client/OMA1.0 ExampleUE/1.2", "Server: IM-serv/OMA1.0"),
        ),
    ] {
        let mut settings = home();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive(&invite);
        assert!(world.has_arrived(), "{name}: {:?}", world.happened);
    }
}

/// Proves ISC-001, ISC-017, ISC-074.
#[test]
fn strangers_are_refused_and_not_believed() {
    for profile in [CoreProfile::Gpp, CoreProfile::Gpp2, CoreProfile::SipIp] {
        let mut settings = home();
        settings.profile = profile;
        let mut world = World::new(settings);
        world.receive_from("198.51.100.1:5060", INVITE);
        let refused = world.refused();
        assert_eq!((refused.status, refused.rule), (403, "ISC-001"));
        assert_eq!(refused.originator, None, "an assertion of a stranger says nothing");
        assert_eq!(header(world.answer(), "P-Charging-Vector"), None);
        assert!(!world.has_arrived() && world.requests("INVITE").is_empty());
    }
}

/// Proves IM-025, ISC-036.
#[test]
fn the_mode_is_told_by_tags_and_by_the_direction_where_both_stand() {
    let large = "+g.oma.sip-im.large-message";
    let none = INVITE.replace(&format!(";{large}"), "");
    let session = INVITE.replace(large, "+g.oma.sip-im");
    let both = INVITE.replace(&format!("*;{large}"), &format!("*;{large}, *;+g.oma.sip-im"));
    let icsi = none.replace(
        "Accept-Contact: *",
        "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"",
    );
    let cpm = |s: &mut Settings| {
        s.im.icsi = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".to_owned();
    };
    let lenient = |s: &mut Settings| s.im.default_mode = DefaultMode::Large;
    type Case = (&'static str, String, fn(&mut Settings), bool);
    let cases: Vec<Case> = vec![
        ("both, sends only", both.clone(), same, true),
        ("both, sends and receives", both.replace("a=sendonly\n", ""), same, false),
        ("session", session.clone(), same, false),
        ("session, lenient", session, lenient, false),
        ("neither", none.clone(), same, false),
        ("neither, lenient", none, lenient, true),
        ("service identifier", icsi.clone(), cpm, true),
        ("service identifier nobody configured", icsi, same, false),
    ];
    for (name, invite, change, accepted) in cases {
        let mut settings = home();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive(&invite);
        assert_eq!(world.has_arrived(), accepted, "{name}");
        if !accepted {
            assert_eq!((world.refused().status, world.refused().rule), (488, "IM-025"), "{name}");
        }
    }
}

/// Proves IM-027, IM-032, UL-002, UL-007, UL-017, UL-020, UL-036.
#[test]
fn bodies_and_lists_are_refused_with_their_own_codes() {
    const ACCEPT: &str = "application/sdp, application/resource-lists+xml, multipart/mixed";
    let strict = |s: &mut Settings| s.ul.require_strict = true;
    let many: String =
        (0..51).map(|n| format!("<entry uri=\"sip:u{n}@home1.example\"/>\n")).collect();
    refuse(vec![
        (
            "unknown part",
            same,
            with(
                "--bnd1\nContent-Type: application/sdp",
                "--bnd1\nContent-Type: image/png\n\nx\n--bnd1\nContent-Type: application/sdp",
            ),
            415,
            "IM-027",
            "Accept",
            ACCEPT,
        ),
        (
            "another list type",
            same,
            with("Content-Type: application/resource-lists+xml\n", "Content-Type: text/plain\n"),
            415,
            "IM-027",
            "Accept",
            ACCEPT,
        ),
        ("broken multipart", same, with("boundary=bnd1", "boundary=bnd2"), 400, "IM-027", "", ""),
        ("broken XML", same, with("</resource-lists>", "</resource-list>"), 400, "UL-017", "", ""),
        (
            "DTD",
            same,
            with(
                "<resource-lists xmlns=",
                "<!DOCTYPE x [<!ENTITY a \"b\">]><resource-lists xmlns=",
            ),
            400,
            "UL-017",
            "",
            "",
        ),
        (
            "the tag without a list",
            same,
            without_part("Content-Type: application/resource-lists+xml"),
            400,
            "IM-031",
            "",
            "",
        ),
        (
            "neither tag nor list",
            same,
            without_part("Content-Type: application/resource-lists+xml")
                .replace("Require: recipient-list-invite\n", ""),
            400,
            "IM-031",
            "",
            "",
        ),
        (
            "history is no list",
            same,
            with(
                "Content-Disposition: recipient-list\n",
                "Content-Disposition: recipient-list-history; handling=optional\n",
            ),
            400,
            "IM-031",
            "",
            "",
        ),
        (
            "no tag, strict",
            strict,
            with("Require: recipient-list-invite\n", ""),
            400,
            "UL-002",
            "Warning",
            "399 im-as1.home1.example \"Require missing\"",
        ),
        ("too large", |s| s.ul.max_bytes = 300, INVITE.to_owned(), 413, "UL-017", "", ""),
        (
            "too many",
            same,
            with_list(&many),
            486,
            "IM-032",
            "Warning",
            "399 im-as1.home1.example \"102 Too many participants\"",
        ),
        (
            "too many for the other key",
            |s| {
                s.im.max_recipients = 100;
                s.ul.max_entries = 2;
            },
            INVITE.to_owned(),
            486,
            "IM-032",
            "Warning",
            "399 im-as1.home1.example \"102 Too many participants\"",
        ),
    ]);
    for (name, change, invite) in [
        ("no tag", same as fn(&mut Settings), with("Require: recipient-list-invite\n", "")),
        (
            "an optional part",
            same,
            with(
                "--bnd1\nContent-Type: application/sdp",
                "--bnd1\nContent-Type: image/png\nContent-Disposition: icon; handling=optional\n\nx\n--bnd1\nContent-Type: application/sdp",
            ),
        ),
        ("no disposition", same, with("Content-Disposition: recipient-list\n", "")),
        ("just not too many", |s| s.im.max_recipients = 3, INVITE.to_owned()),
        (
            "the sender does not count",
            |s| s.im.max_recipients = 3,
            with(
                "<entry uri=\"sip:dan@",
                "<entry uri=\"sip:alice@home1.example\"/>\n<entry uri=\"tel:+1-555-123-0001\"/>\n<entry uri=\"sip:dan@",
            ),
        ),
    ] {
        let mut settings = home();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive(&invite);
        assert!(world.has_arrived(), "{name}: {:?}", world.happened);
    }
}

/// Proves UL-008, UL-012.
#[test]
fn several_lists_are_one() {
    let second = "--bnd1\nContent-Type: application/resource-lists+xml\nContent-Disposition: Recipient-List;handling=required\n\n\
        <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>\
        <entry uri=\"sip:dan@home1.example\" cp:copyControl=\"cc\"/><entry uri=\"sip:erin@home1.example\"/></list></resource-lists>\n--bnd1--";
    let mut world = World::new(home());
    world.receive(&with("--bnd1--", second));
    let Target::List(list) = world.arrival().target else { panic!("a list was sent") };
    let entries: Vec<(&str, Copy)> =
        list.iter().map(|entry| (&*entry.party.uri, entry.copy)).collect();
    assert_eq!(
        entries,
        [
            ("sip:bob@home1.example", Copy::To),
            ("sip:carol@home2.example", Copy::To),
            ("sip:dan@home1.example", Copy::Cc),
            ("sip:erin@home1.example", Copy::Bcc),
        ]
    );
}

/// Proves UL-010, UL-011.
#[test]
fn one_number_is_one_recipient_however_it_is_written() {
    let list = with_list(
        "<entry uri=\"tel:+1-555-123-0002\"/>\n<entry uri=\"sip:+15551230002@home1.example;user=phone\"/>\n\
         <entry uri=\"sip:Bob@home1.example\"/>\n<entry uri=\"sip:bob@home1.example?Subject=x\"/>\n<entry uri=\"sip:bob@HOME1.example\"/>\n",
    );
    let count = |change: fn(&mut Settings)| {
        let mut settings = home();
        change(&mut settings);
        let mut world = World::new(settings);
        world.receive(&list);
        match world.arrival().target {
            Target::List(list) => list.len(),
            Target::Group(_) => panic!("a list was sent"),
        }
    };
    assert_eq!(count(same), 3, "the number, Bob and bob");
    assert_eq!(count(|s| s.ul.normalise_tel = false), 4);
}

/// Proves IM-028, IM-029, IM-030.
#[test]
fn media_that_cannot_be_served_is_refused_with_its_warning() {
    let line = "m=message 9 TCP/MSRP *";
    refuse(vec![
        (
            "no SDP",
            same,
            without_part("Content-Type: application/sdp"),
            488,
            "IM-028",
            "Warning",
            "399 im-as1.home1.example \"No SDP offer\"",
        ),
        (
            "audio only",
            same,
            with_sdp(line, "m=audio 9 RTP/AVP 0"),
            488,
            "IM-028",
            "Warning",
            "304 im-as1.home1.example \"Media type not available\"",
        ),
        (
            "another protocol",
            same,
            with_sdp(line, "m=message 9 TCP/FOO *"),
            488,
            "IM-028",
            "Warning",
            "302 im-as1.home1.example \"Incompatible transport protocol\"",
        ),
        (
            "no path",
            same,
            with_sdp("a=path:msrp://[2001:db8::a1]:2855/ue7Qm2k0;tcp\n", ""),
            488,
            "IM-028",
            "Warning",
            "399 im-as1.home1.example \"No MSRP path\"",
        ),
        ("receives only", same, with_sdp("a=sendonly", "a=recvonly"), 488, "IM-029", "", ""),
        ("inactive", same, with_sdp("a=sendonly", "a=inactive"), 488, "IM-029", "", ""),
        (
            "too large",
            same,
            with_sdp("size:20480", "size:20000000"),
            403,
            "IM-030",
            "Warning",
            "399 im-as1.home1.example \"Size exceeded\"",
        ),
        (
            "no type we take",
            same,
            with_sdp("a=accept-types:message/cpim text/plain", "a=accept-types:application/x-odd"),
            488,
            "IM-028",
            "Warning",
            "305 im-as1.home1.example \"Incompatible media format\"",
        ),
    ]);
    for sdp in ["a=sendonly\na=max-size:20000000", "a=sendrecv"] {
        let mut world = World::new(home());
        world.receive(&with("a=sendonly", sdp));
        assert!(world.has_arrived(), "{sdp}: {:?}", world.happened);
    }
}

/// The first check that fails decides: each row breaks one thing more than the row below.
///
/// Proves IM-036, IM-037, UL-031.
#[test]
fn the_checks_come_in_their_order() {
    let mut invite = INVITE.to_owned();
    let mut steps: Vec<(u16, String)> = Vec::new();
    for (status, from, to) in [
        (400, "</resource-lists>", "</resource-list>"),
        (488, "a=sendonly", "a=inactive"),
        (
            415,
            "--bnd1\nContent-Type: application/sdp",
            "--bnd1\nContent-Type: image/png\n\nx\n--bnd1\nContent-Type: application/sdp",
        ),
        (488, ";+g.oma.sip-im.large-message", ""),
        (403, "\"Alice\" <sip:alice@home1.example>, <tel:+15551230001>", "<sip:eve@home1.example>"),
        (404, "INVITE sip:im-exploder@", "INVITE sip:nobody@"),
        (420, "Require: ", "Require: foo, "),
        (403, "P-Asserted-Identity", "X-Asserted-Identity"),
        (483, "Max-Forwards: 67", "Max-Forwards: 0"),
    ] {
        invite = invite.replace(from, to);
        steps.push((status, invite.clone()));
    }
    let mut settings = home();
    settings.service.barred = vec!["sip:eve@home1.example".to_owned()];
    for (n, (status, invite)) in steps.iter().enumerate() {
        let mut world = World::new(settings.clone());
        // Without a Route there is nobody to pass it on to.
        let direct = invite.replace(", <sip:odi-8f2c51@scscf1.home1.example;lr;orig>", "");
        world.receive(&direct);
        assert_eq!(world.statuses(), [100, *status], "step {n}: {:?}", world.happened);
    }
    let mut world = World::new(settings);
    world.isc.drain();
    world.receive(&steps.last().expect("there are steps").1);
    assert_eq!(world.statuses(), [100, 503]);
    assert!(header(world.answer(), "Retry-After").is_some());
}

/// Proves IM-036.
#[test]
fn overload_is_said_and_ends() {
    let mut world = World::new(home());
    world.isc.overload(Shed { pressure: Pressure::Busy, retry_after: 30 });
    world.receive(INVITE);
    assert_eq!(world.statuses(), [503], "before any work");
    assert_eq!(world.refused().rule, "ISC-069");
    assert_eq!(header(world.answer(), "Retry-After"), Some("30"));
    world.isc.overload(Shed::default());
    world.receive(&INVITE.replace("5f0c-1", "5f0c-2").replace("z9hG4bK-sc-71a", "z9hG4bK-sc-72"));
    assert!(world.has_arrived());
}

/// Proves IM-024.
#[test]
fn an_operator_bars_one_user_at_once() {
    let mut world = World::new(home());
    world.isc.bar("sip:alice@home1.EXAMPLE", true);
    world.receive(INVITE);
    assert_eq!(world.refused().rule, "IM-024");
    assert_eq!(
        &*world.refused().originator.as_ref().expect("known").uri,
        "sip:alice@home1.example"
    );
    world.isc.bar("sip:alice@home1.example", false);
    world.receive(&INVITE.replace("5f0c-1", "5f0c-2").replace("z9hG4bK-sc-71a", "z9hG4bK-sc-72"));
    assert!(world.has_arrived());
}

/// Proves ISC-026, ISC-066.
#[test]
fn a_refusal_repeats_the_charging_vector_and_is_no_5xx() {
    let mut settings = home();
    settings.service.barred = vec!["sip:alice@home1.example".to_owned()];
    let mut world = World::new(settings);
    world.receive(INVITE);
    let answer = world.answer();
    assert_eq!(answer.message.status(), Some(403));
    assert_eq!(
        header(answer, "P-Charging-Vector"),
        Some(
            "icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\";term-ioi=\"Type 3home1.example\""
        )
    );
}

/// What a Kamailio S-CSCF puts on ISC: both Routes in one line before Via, no loose-route quirk left out.
///
/// Proves ISC-002, ISC-003, ISC-058.
#[test]
fn the_invite_of_a_real_s_cscf_is_served() {
    let trace = r#"INVITE sip:group1@ims.test SIP/2.0
Record-Route: <sip:127.0.0.40;lr=on;ftag=eedd5dca>
Route: <sip:127.0.0.50:5090;lr>, <sip:iscmark@scscf.ims.test:5060;lr;s=2;h=1;d=0;a=7369703a616c69636540696d732e74657374>
Via: SIP/2.0/UDP 127.0.0.40;branch=z9hG4bK27c3.ae68b1b9893e8fe2e18578504d4d891e.0
Via: SIP/2.0/UDP 127.0.0.61:5060;received=127.0.0.61;branch=z9hG4bKdf6c673477316dfa;rport=5060
Max-Forwards: 69
P-Served-User: <sip:alice@ims.test>;sescase=orig;regstate=reg
From: <sip:alice@ims.test>;tag=eedd5dca
To: <sip:group1@ims.test>
Call-ID: fd339247303f6e7f
CSeq: 1 INVITE
P-Asserted-Identity: <sip:alice@ims.test>
P-Charging-Vector: icid-value="363f6c129dfef1acdc155b6a";icid-generated-at=127.0.0.61
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000001
Contact: <sip:alice@127.0.0.61:5060>;+g.oma.sip-im;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session"
Allow: INVITE, ACK, BYE, CANCEL, MESSAGE, REFER, NOTIFY, UPDATE, PRACK
Content-Type: application/sdp

v=0
o=- 946286539 946286539 IN IP4 127.0.0.61
s=-
c=IN IP4 127.0.0.61
t=0 0
m=message 2855 TCP/MSRP *
a=accept-types:message/cpim text/plain
a=accept-wrapped-types:*
a=path:msrp://127.0.0.61:2855/87ee128aad46;tcp
a=setup:active
a=sendrecv
"#;
    let mut settings = Settings::default();
    settings.sip.uri = "sip:127.0.0.50:5090".to_owned();
    settings.service.groups = vec!["sip:group1@ims.test".to_owned()];
    let mut world = World::at("127.0.0.50:5090", settings.clone());
    world.receive_from("127.0.0.40:5060", trace);
    assert_eq!(world.refused().rule, "IM-025", "this phone asks for a session");

    let large = trace.replace("+g.oma.sip-im;", "+g.oma.sip-im.large-message;");
    let mut world = World::at("127.0.0.50:5090", settings);
    world.receive_from("127.0.0.40:5060", &large);
    assert_eq!(&*world.arrival().originator.uri, "sip:alice@ims.test");
    assert!(!world.arrival().reliable);
    world.invite(1);
    let sent = world.last_request("INVITE");
    assert_eq!(header(sent, "Route"), Some("<sip:scscf.ims.test:5060;lr;orig>"));
    assert_eq!(header(sent, "Max-Forwards"), Some("68"));
    assert_eq!(
        header(sent, "From").map(|from| &from[..25]),
        Some("<sip:alice@ims.test>;tag=0"[..25].into())
    );
    assert_eq!(
        header(sent, "P-Served-User"),
        Some("<sip:alice@ims.test>;sescase=orig;regstate=reg")
    );
    assert!(
        header(sent, "P-Charging-Vector")
            .is_some_and(|v| !v.contains("363f6c") && v.contains("icid-generated-at=127.0.0.50"))
    );
    assert!(!sent.text.contains("127.0.0.50:5090;lr"), "our own Route is gone");
}

/// Proves ISC-056.
#[test]
fn a_service_may_stand_for_many_and_answers_under_the_name_it_was_asked_by() {
    let mut settings = home();
    settings.service.factories = vec!["sip:pages-!.*!@im.home1.example".to_owned()];
    settings.service.groups = vec!["sip:g-![0-9]+!@im.home1.example".to_owned()];
    let asked = |uri: &str| INVITE.replacen("sip:im-exploder@im.home1.example", uri, 1);
    let mut world = World::new(settings.clone());
    world.receive(&asked("sip:pages-7@IM.home1.example;transport=tcp"));
    assert_eq!(&*world.arrival().dialled.uri, "sip:pages-7@im.home1.example");
    let page = world.arrival().page;
    world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
    world.drive();
    let answer = world.answer();
    assert_eq!(header(answer, "P-Asserted-Identity"), Some("<sip:pages-7@im.home1.example>"));
    // A profile key may be anything and means nothing (RFC 5002 §5).
    for key in [
        "<sip:pages-!.*!@im.home1.example>",
        "<sip:alice@home1.example>",
        "<sip:x@y>, <sip:z@y>\nP-Profile-Key: ",
        "\"<<<",
        ";;;",
        "!.*!",
    ] {
        let mut world = World::new(settings.clone());
        let invite = asked("sip:pages-7@im.home1.example");
        world.receive(&invite.replace("Subject:", &format!("P-Profile-Key: {key}\nSubject:")));
        assert_eq!(&*world.arrival().dialled.uri, "sip:pages-7@im.home1.example", "{key}");
        world.invite(1);
        let leg = world.last_request("INVITE");
        assert!(crate::world::headers(leg, "P-Profile-Key").is_empty(), "{key}");
    }
    let group = crate::world::group_invite();
    let mut world = World::new(settings.clone());
    world.receive(&group.replacen("sip:team@groups.home1.example", "sip:g-12@im.home1.example", 1));
    assert!(
        matches!(&world.arrival().target, Target::Group(party) if &*party.uri == "sip:g-12@im.home1.example")
    );
    let mut world = World::new(settings);
    world.receive(
        &asked("sip:pages@im.home1.example")
            .replace(", <sip:odi-8f2c51@scscf1.home1.example;lr;orig>", ""),
    );
    assert_eq!(world.refused().status, 404);
}
