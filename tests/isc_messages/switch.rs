//! One INVITE under every profile that ships: what differs from `3gpp`, and by which row of section L it may.
//!
//! [`TABLE`] is the whole of what may differ. A difference that does not stand there fails, and so does a row that
//! explains nothing.

use std::collections::BTreeMap;
use std::path::Path;

use pagecast::config::{Loaded, node::NodeSettings};
use pagecast::engine::input::Refusal;
use pagecast::isc::settings::{Relay, Settings};

use crate::answers::{ack, in_dialog};
use crate::world::{ANSWER_SDP, INVITE, OWN_PATH, World, home, reply};

/// Profile, message, header, what stands there instead (`None`: nothing; `…` for anything), row of section L.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>, &'static str);

const IOI: &str = "P-Charging-Vector: IOI without prefix";
const PCV: &str = "P-Charging-Vector, -Function-Addresses: never sent";
const PSU: &str = "P-Served-User";
const SERVICES: &str = "P-Asserted-Service, ICSI/IARI, Feature-Caps";
const EDGE: &str = "Trust-boundary list";
const ROUTE: &str = "ODI / orig / Route, Fan-out route";
const IDENTITY: &str = "strip all P-headers both ways";
const HAZARD: &str = "Default handling hazard";

const ANSWERED: Option<&str> = Some(
    "icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\";term-ioi=\"home1.example\"",
);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("3gpp2", "183", "P-Charging-Vector", ANSWERED, IOI),
    ("3gpp2", "200", "P-Charging-Vector", ANSWERED, IOI),
    ("3gpp2", "refused by a check", "P-Charging-Vector", ANSWERED, IOI),
    ("3gpp2", "refused by an error", "P-Charging-Vector", ANSWERED, IOI),
    ("3gpp2", "leg", "P-Charging-Vector", Some("icid-value=\"…\";icid-generated-at=im-as1.home1.example;orig-ioi=\"home1.example\""), IOI),
    ("3gpp2", "leg: PRACK", "P-Charging-Vector", Some("icid-value=\"…\";orig-ioi=\"home1.example\""), IOI),
    ("3gpp2", "leg: BYE", "P-Charging-Vector", Some("icid-value=\"…\";orig-ioi=\"home1.example\""), IOI),
    ("3gpp2", "BYE", "P-Charging-Vector", Some("icid-value=\"pc1-20240101-00042\";orig-ioi=\"home1.example\""), IOI),
    ("3gpp2", "leg", "P-Served-User", None, PSU),
    ("3gpp2", "leg", "P-Asserted-Service", None, SERVICES),
    ("3gpp2", "leg", "Accept-Contact", Some("*;+g.oma.sip-im.large-message"), SERVICES),
    ("3gpp2", "leg", "Contact", Some("<sip:lm-…@im-as1.home1.example:5060>;+g.oma.sip-im.large-message;isfocus"), SERVICES),
    ("3gpp2", "passed on outside", "P-Served-User", Some("<sip:alice@home1.example>;sescase=orig;regstate=reg"), EDGE),
    ("3gpp2", "passed on outside", "P-Asserted-Service", Some("urn:urn-7:x"), EDGE),
    ("3gpp2", "passed on outside", "Feature-Caps", Some("*;+g.3gpp.srvcc"), EDGE),

    ("sipip", "183", "P-Charging-Vector", None, PCV),
    ("sipip", "200", "P-Charging-Vector", None, PCV),
    ("sipip", "refused by a check", "P-Charging-Vector", None, PCV),
    ("sipip", "refused by an error", "P-Charging-Vector", None, PCV),
    ("sipip", "leg", "P-Charging-Vector", None, PCV),
    ("sipip", "leg", "P-Charging-Function-Addresses", None, PCV),
    ("sipip", "leg: PRACK", "P-Charging-Vector", None, PCV),
    ("sipip", "leg: BYE", "P-Charging-Vector", None, PCV),
    ("sipip", "BYE", "P-Charging-Vector", None, PCV),
    ("sipip", "passed on", "P-Charging-Vector", None, PCV),
    ("sipip", "passed on", "P-Charging-Function-Addresses", None, PCV),
    ("sipip", "183", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "200", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "leg", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "BYE", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "passed on", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "passed on", "P-Access-Network-Info", None, "P-Access-Network-Info"),
    ("sipip", "passed on", "P-Preferred-Service", None, IDENTITY),
    ("sipip", "passed on outside", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "passed on outside", "P-Preferred-Service", None, IDENTITY),
    ("sipip", "leg", "P-Served-User", None, PSU),
    ("sipip", "passed on", "P-Served-User", None, PSU),
    ("sipip", "leg", "P-Asserted-Service", None, SERVICES),
    ("sipip", "leg", "Accept-Contact", Some("*;+g.oma.sip-im.large-message"), SERVICES),
    ("sipip", "leg", "Contact", Some("<sip:lm-…@im-as1.home1.example:5060>;+g.oma.sip-im.large-message;isfocus"), SERVICES),
    ("sipip", "passed on", "P-Asserted-Service", None, SERVICES),
    ("sipip", "passed on", "Feature-Caps", None, SERVICES),
    ("sipip", "leg", "Route", None, ROUTE),
    ("sipip", "leg", "(next hop)", Some("sip:bob@home1.example"), ROUTE),
    ("sipip", "refused by an error", "(start)", Some("SIP/2.0 500 …"), HAZARD),

    // The same as a B2BUA.
    ("3gpp2", "relayed outside", "P-Served-User", Some("<sip:alice@home1.example>;sescase=orig;regstate=reg"), EDGE),
    ("3gpp2", "relayed outside", "P-Asserted-Service", Some("urn:urn-7:x"), EDGE),
    ("3gpp2", "relayed outside", "Feature-Caps", Some("*;+g.3gpp.srvcc"), EDGE),
    ("sipip", "relayed", "P-Charging-Vector", None, PCV),
    ("sipip", "relayed", "P-Charging-Function-Addresses", None, PCV),
    ("sipip", "relayed", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "relayed", "P-Access-Network-Info", None, "P-Access-Network-Info"),
    ("sipip", "relayed", "P-Preferred-Service", None, IDENTITY),
    ("sipip", "relayed outside", "P-Asserted-Identity", None, IDENTITY),
    ("sipip", "relayed outside", "P-Preferred-Service", None, IDENTITY),
    ("sipip", "relayed", "P-Served-User", None, PSU),
    ("sipip", "relayed", "P-Asserted-Service", None, SERVICES),
    ("sipip", "relayed", "Feature-Caps", None, SERVICES),
];

/// The INVITE, with everything a core may say in it.
fn rich() -> String {
    let iari = "+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.x\"";
    INVITE
        .replace("Contact: <sip:alice@[2001:db8::a1]:1357>", &format!("Contact: <sip:alice@[2001:db8::a1]:1357>;{iari}"))
        .replace(
            "Subject:",
            &format!(
                "Accept-Contact: *;{iari}\nP-Asserted-Service: urn:urn-7:x\nP-Preferred-Service: urn:urn-7:y\nFeature-Caps: *;+g.3gpp.srvcc\nSubject:"
            ),
        )
}

fn settings(profile: &str) -> Settings {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("config/pagecast.toml");
    let set = [format!("profile={}", root.join(format!("ims-profiles/{profile}.toml")).display())];
    let loaded = Loaded::load_with(Some(&file), &set, &|_| None).expect("profiles that ship load");
    let mut settings = NodeSettings::new(&loaded, 1).isc;
    let home = home();
    (settings.sip, settings.core, settings.service) = (home.sip, home.core, home.service);
    (settings.im.vendor, settings.media) = (home.im.vendor, home.media);
    settings.core.untrusted_hops = vec!["other.example".to_owned()];
    settings
}

/// Every header of everything that is sent, by message.
fn run(profile: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut all: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut note = |label: &str, sent: &crate::world::Sent| {
        let head = sent.text.split("\r\n\r\n").next().unwrap_or_default();
        let mut put = |name: &str, value: &str| {
            all.entry((label.to_owned(), name.to_owned())).or_default().push(value.to_owned());
        };
        for (n, line) in head.lines().enumerate() {
            match line.split_once(": ") {
                Some((name, value)) if n > 0 => put(name, value),
                _ => put("(start)", line),
            }
        }
        match &sent.to {
            pagecast::sip::Target::NextHop { uri, .. } => put("(next hop)", uri),
            pagecast::sip::Target::Flow(flow) => put("(next hop)", &flow.peer.to_string()),
        }
    };
    let mut world = World::new(settings(profile));
    world.receive(&rich());
    let page = world.arrival().page;
    world.isc.progress(world.now, page, OWN_PATH, false);
    world.drive();
    note("183", world.answer());
    let leg = world.invite(1);
    note("leg", world.last_request("INVITE"));
    let lines = "Record-Route: <sip:scscf1.home1.example;lr>\nContact: <sip:bob@192.0.2.77>\n";
    let early = format!("{lines}Require: 100rel\nRSeq: 1\n");
    let ringing = reply(world.last_request("INVITE"), 183, "b1", &early, "");
    world.receive(&ringing);
    note("leg: PRACK", world.last_request("PRACK"));
    let ok = format!("{lines}Content-Type: application/sdp\n");
    let ok = reply(world.last_request("INVITE"), 200, "b1", &ok, ANSWER_SDP);
    world.receive(&ok);
    note("leg: ACK", world.last_request("ACK"));
    world.isc.end_leg(world.now, leg, None);
    world.drive();
    note("leg: BYE", world.last_request("BYE"));
    let prack = in_dialog(&world, "PRACK", 2, "RAck: 0 1 INVITE");
    let rseq = world
        .sent
        .iter()
        .find_map(|sent| crate::world::headers(sent, "RSeq").first().map(|r| (*r).to_owned()));
    world.receive(&prack.replace("RAck: 0", &format!("RAck: {}", rseq.unwrap_or_default())));
    world.isc.answer(world.now, page, OWN_PATH, &[]);
    world.drive();
    note("200", world.answer());
    ack(&mut world);
    world.isc.end_originator(world.now, page, None);
    world.drive();
    note("BYE", world.last_request("BYE"));

    let mut world = World::new(settings(profile));
    world.receive(&rich().replace("Require:", "Require: foo\nRequire:"));
    note("refused by a check", world.answer());
    let mut world = World::new(settings(profile));
    world.receive(&rich());
    let page = world.arrival().page;
    world.isc.refuse(world.now, page, &Refusal::new(500, "IM-036"));
    world.drive();
    note("refused by an error", world.answer());
    let user = rich().replacen(
        "INVITE sip:im-exploder@im.home1.example",
        "INVITE sip:bob@home1.example",
        1,
    );
    for (label, hop) in
        [("passed on", "scscf1.home1.example"), ("passed on outside", "sbc.other.example")]
    {
        let mut world = World::new(settings(profile));
        world.receive(
            &user.replace("odi-8f2c51@scscf1.home1.example", &format!("odi-8f2c51@{hop}")),
        );
        assert_eq!(world.statuses(), Vec::<u16>::new(), "{label}");
        note(label, world.last_request("INVITE"));
        // The same as a B2BUA.
        let mut settings = settings(profile);
        settings.isc.relay = Relay::B2bua;
        let mut world = World::new(settings);
        world.receive(
            &user.replace("odi-8f2c51@scscf1.home1.example", &format!("odi-8f2c51@{hop}")),
        );
        note(&format!("relayed{}", &label["passed on".len()..]), world.last_request("INVITE"));
    }
    all
}

fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('…') {
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
        None => text == pattern,
    }
}

/// Proves IM-018.
#[test]
fn only_the_rows_of_the_table_differ() {
    let base = run("3gpp");
    assert!(base.len() > 100, "everything is compared: {}", base.len());
    let mut used = vec![false; TABLE.len()];
    let mut wrong = Vec::new();
    for profile in ["3gpp2", "sipip", "kamailio"] {
        let other = run(profile);
        let keys: std::collections::BTreeSet<_> = base.keys().chain(other.keys()).collect();
        for key in keys {
            // Lengths follow from the rest.
            let (a, b) = (base.get(key), other.get(key));
            if a == b || key.1 == "Content-Length" {
                continue;
            }
            let row =
                TABLE.iter().position(|row| row.0 == profile && row.1 == key.0 && row.2 == key.1);
            let explained = row.is_some_and(|row| {
                used[row] = true;
                match (TABLE[row].3, b.map(Vec::as_slice)) {
                    (None, None) => true,
                    (Some(want), Some([value])) => is_like(value, want),
                    _ => false,
                }
            });
            if !explained {
                wrong.push(format!("{profile}: {} of {}: {a:?} became {b:?}", key.1, key.0));
            }
        }
    }
    assert!(wrong.is_empty(), "no row of section L says so:\n{}", wrong.join("\n"));
    for (row, used) in TABLE.iter().zip(used) {
        assert!(used, "explains nothing: {row:?}");
    }
}
