//! A short page: the MESSAGE that comes, its answer, and the MESSAGE of every recipient.

use std::time::Duration;

use pagecast::engine::ids::LegId;
use pagecast::engine::input::{Input, LegEvent, Mode, Refusal};
use pagecast::isc::settings::{Settings, SizeBasis, SizeReject};

use crate::world::{World, header, home};

const LIST: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\">
<list><entry uri=\"sip:bob@home1.example\" cp:copyControl=\"to\"/>
<entry uri=\"tel:+15551230002\" cp:copyControl=\"cc\"/></list></resource-lists>";

/// A MESSAGE with these further lines, saying `said`, with the list where there is one.
fn message_to(uri: &str, more: &str, said: &str, list: Option<&str>) -> String {
    let head = format!(
        "MESSAGE {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.40:5060;branch=z9hG4bK-m1
Max-Forwards: 67
Route: <sip:im-as1.home1.example;lr>, <sip:odi-11aa@scscf1.home1.example;lr;orig>
P-Asserted-Identity: <sip:alice@home1.example>
P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
P-Charging-Vector: icid-value=\"pc1-m-5\";orig-ioi=\"Type 3home1.example\"
From: <sip:alice@home1.example>;tag=m1
To: <{uri}>
Call-ID: m-1@ue.example
CSeq: 7 MESSAGE
Accept-Contact: *;+g.oma.sip-im
{more}"
    );
    match list {
        None => format!("{head}Content-Type: text/plain;charset=UTF-8\n\n{said}"),
        Some(list) => format!(
            "{head}Require: recipient-list-message
Content-Type: multipart/mixed;boundary=\"b1\"

--b1
Content-Type: text/plain;charset=UTF-8

{said}
--b1
Content-Type: application/resource-lists+xml
Content-Disposition: recipient-list

{list}
--b1--
"
        ),
    }
}

const FACTORY: &str = "sip:im-exploder@im.home1.example";

fn sent(settings: Settings, said: &str) -> World {
    let mut world = World::new(settings);
    world.receive(&message_to(FACTORY, "", said, Some(LIST)));
    world
}

fn deliver(world: &mut World, n: u16) -> LegId {
    let (audience, page) = (world.audience(), world.arrival().page);
    let leg = LegId { page, n };
    let recipient = &audience.recipients[usize::from(n) - 1];
    world.isc.deliver(world.now, leg, recipient, &audience).expect("it can be sent");
    world.drive();
    leg
}

fn answer(world: &mut World, status: &str) {
    let copy = world.last_request("MESSAGE");
    let of = |name: &'static str| header(copy, name).expect("it is there").to_owned();
    let text = format!(
        "SIP/2.0 {status}\nVia: {}\nFrom: {}\nTo: {};tag=r\nCall-ID: {}\nCSeq: {}\n",
        of("Via"),
        of("From"),
        of("To"),
        of("Call-ID"),
        of("CSeq")
    );
    world.receive(&text);
}

/// Proves UL-027, UL-028.
#[test]
fn a_list_is_answered_202_and_every_recipient_gets_a_message_of_its_own() {
    let mut world = World::new(home());
    let more = "Subject: lunch\nPriority: urgent\nExpires: 600\nConversation-ID: c-7\n\
                P-Visited-Network-ID: x\n";
    world.receive(&message_to(FACTORY, more, "Lunch at 12?", Some(LIST)));
    let arrival = world.arrival();
    assert_eq!((arrival.mode, arrival.size), (Mode::Short, Some(12)));
    assert_eq!(arrival.lifetime, Some(Duration::from_secs(600)));
    assert!(world.statuses().is_empty(), "nothing before it is kept");
    world.isc.accept(world.now, arrival.page, &["half of it".to_owned()]);
    world.drive();
    let accepted = world.answer();
    assert_eq!(accepted.message.status(), Some(202));
    for absent in ["Contact", "Record-Route", "Content-Type"] {
        assert_eq!(header(accepted, absent), None, "{absent}");
    }
    assert_eq!(header(accepted, "Content-Length"), Some("0"));
    assert_eq!(header(accepted, "Warning"), Some("399 im-as1.home1.example \"half of it\""));
    world.now += Duration::from_secs(10);
    deliver(&mut world, 1);
    deliver(&mut world, 2);
    let copies = world.requests("MESSAGE");
    let [bob, number] = copies.as_slice() else { panic!("{} copies", copies.len()) };
    assert!(bob.text.starts_with("MESSAGE sip:bob@home1.example SIP/2.0\r\n"), "{}", bob.text);
    assert!(number.text.starts_with("MESSAGE tel:+15551230002 SIP/2.0\r\n"), "{}", number.text);
    for (name, want) in [
        ("To", "<tel:+15551230002>"),
        ("CSeq", "1 MESSAGE"),
        ("Max-Forwards", "66"),
        ("P-Asserted-Identity", "<sip:alice@home1.example>"),
        ("P-Served-User", "<sip:alice@home1.example>;sescase=orig;regstate=reg"),
        ("Accept-Contact", "*;+g.oma.sip-im"),
        ("User-Agent", "IM-serv/OMA1.0 ExampleIM/2.1"),
        ("Subject", "lunch"),
        ("Priority", "urgent"),
        ("Conversation-ID", "c-7"),
        ("Expires", "590"),
    ] {
        assert_eq!(header(number, name), Some(want), "{name}");
    }
    for absent in ["Contact", "Require", "Supported", "P-Visited-Network-ID", "Referred-By"] {
        assert_eq!(header(number, absent), None, "{absent}");
    }
    let of = |name: &'static str| [header(bob, name), header(number, name)];
    assert!(
        header(number, "From").is_some_and(|f| f.starts_with("<sip:alice@home1.example>;tag="))
    );
    for name in ["From", "Call-ID", "P-Charging-Vector"] {
        assert_ne!(of(name)[0], of(name)[1], "{name} is each one's own");
    }
    assert_eq!(number.text.matches("\r\nVia: ").count(), 1);
    let (_, body) = number.text.split_once("\r\n\r\n").expect("a body");
    assert!(body.contains("Content-Type: text/plain;charset=UTF-8\r\n\r\nLunch at 12?\r\n--"));
    assert!(body.contains("Content-Disposition: recipient-list-history; handling=optional\r\n"));
    assert!(body.contains("<entry uri=\"tel:+15551230002\" cp:copyControl=\"cc\"/>"), "{body}");
}

/// Proves UL-025.
#[test]
fn who_cannot_read_a_multipart_gets_the_text_alone() {
    let mut world = sent(home(), "Lunch?");
    let leg = deliver(&mut world, 1);
    answer(&mut world, "415 Unsupported Media Type");
    let copies = world.requests("MESSAGE");
    let [first, second] = copies.as_slice() else { panic!("{} copies", copies.len()) };
    assert_eq!(header(second, "Content-Type"), Some("text/plain;charset=UTF-8"));
    assert!(second.text.ends_with("\r\n\r\nLunch?"), "{}", second.text);
    assert_ne!(header(first, "Call-ID"), header(second, "Call-ID"));
    assert!(world.inputs().is_empty());
    answer(&mut world, "415 Unsupported Media Type");
    let event = LegEvent::Refused {
        status: 415,
        text: "Unsupported Media Type".to_owned(),
        retry_after: None,
    };
    assert_eq!(world.inputs(), [&Input::Leg { leg, event }], "once");
    // There may be no room for the list at all.
    let mut world = sent(home(), &"x".repeat(1300));
    deliver(&mut world, 1);
    let copy = world.last_request("MESSAGE");
    assert_eq!(header(copy, "Content-Type"), Some("text/plain;charset=UTF-8"));
}

/// Proves IM-079.
#[test]
fn what_is_too_large_is_refused_and_never_sent() {
    let with = |basis, reject| {
        let mut settings = home();
        settings.pager.size_basis = basis;
        settings.pager.size_reject = reject;
        settings
    };
    let body = |reject| with(SizeBasis::Body, reject);
    assert!(sent(body(SizeReject::TooLarge), &"x".repeat(1300)).has_arrived());
    let world = sent(body(SizeReject::TooLarge), &"x".repeat(1301));
    assert_eq!(world.statuses(), [413]);
    assert_eq!(world.refused().rule, "IM-079");
    let world = sent(body(SizeReject::Forbidden), &"x".repeat(1301));
    assert_eq!(world.statuses(), [403]);
    assert_eq!(
        header(world.answer(), "Warning"),
        Some("399 im-as1.home1.example \"Size exceeded\"")
    );
    let request = with(SizeBasis::Request, SizeReject::TooLarge);
    assert_eq!(
        sent(request, &"x".repeat(900)).statuses(),
        [413],
        "the request has more octets than that"
    );
}

/// Proves UL-002.
#[test]
fn lists_belong_to_list_services() {
    for (uri, list, said, status, header_name, value) in [
        (
            FACTORY,
            None,
            "hi",
            400,
            "Warning",
            "399 im-as1.home1.example \"Recipient list missing\"",
        ),
        (
            "sip:team@groups.home1.example",
            Some(LIST),
            "hi",
            420,
            "Unsupported",
            "recipient-list-message",
        ),
        (FACTORY, Some("<broken"), "hi", 400, "Server", "IM-serv/OMA1.0 ExampleIM/2.1"),
    ] {
        let mut world = World::new(home());
        world.receive(&message_to(uri, "", said, list));
        assert_eq!(world.statuses(), [status], "{uri} {list:?}");
        assert_eq!(header(world.answer(), header_name), Some(value));
    }
    let mut world = World::new(home());
    world.receive(&message_to("sip:team@groups.home1.example", "", "hi", None));
    assert_eq!(world.arrival().mode, Mode::Short);
    let mut world = World::new(home());
    world.receive(&message_to(FACTORY, "Require: recipient-list-invite\n", "hi", Some(LIST)));
    assert_eq!(world.statuses(), [420]);
    let mut settings = home();
    settings.ul.max_entries = 1;
    assert_eq!(sent(settings, "hi").statuses(), [403], "486 is for INVITE");
}

/// Compact and capital names are names; what describes the content is said once.
#[test]
fn what_describes_the_content_goes_along() {
    let mut world = World::new(home());
    let text = message_to("sip:team@groups.home1.example", "Content-Language: en\n", "hi", None);
    world.receive(&text.replace("Content-Type:", "C:"));
    deliver(&mut world, 1);
    let copy = world.last_request("MESSAGE");
    assert_eq!(header(copy, "Content-Type"), Some("text/plain;charset=UTF-8"));
    assert_eq!(copy.text.matches("Content-Language: en\r\n").count(), 1, "{}", copy.text);
    assert!(copy.text.ends_with("\r\n\r\nhi"), "no list for a group: {}", copy.text);
}

/// Who wants to stay unknown stays unknown to the recipients.
#[test]
fn an_anonymous_page_names_nobody() {
    let mut world = World::new(home());
    world.receive(&message_to(FACTORY, "Privacy: id;header\n", "hi", Some(LIST)));
    assert!(world.arrival().anonymous);
    deliver(&mut world, 1);
    let copy = world.last_request("MESSAGE");
    let from = header(copy, "From").expect("stands there");
    assert!(from.starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag="), "{from}");
    assert_eq!(header(copy, "Privacy"), Some("id;header"));
}

/// What is kept of a page is enough to send it.
#[test]
fn a_page_goes_on_with_what_was_kept_of_it() {
    let mut first = sent(home(), "Lunch?");
    let page = first.arrival().page;
    let keepsake = first.isc.keepsake(page).expect("it is here");
    let audience = first.audience();
    let mut world = World::new(home());
    let age = Duration::from_secs(3600);
    for cut in 0..keepsake.len() {
        assert!(world.isc.take_back(world.now, page, age, &keepsake[..cut]).is_err(), "{cut}");
    }
    world.isc.take_back(world.now, page, age, &keepsake).expect("it can be read");
    let leg = LegId { page, n: 1 };
    world.isc.deliver(world.now, leg, &audience.recipients[0], &audience).expect("it is sent");
    world.drive();
    deliver(&mut first, 1);
    let body = |world: &World| {
        let text = &world.last_request("MESSAGE").text;
        text.split_once("\r\n\r\n").expect("a body").1.to_owned()
    };
    assert_eq!(body(&world), body(&first));
    answer(&mut world, "200 OK");
    let event = LegEvent::Accepted { allow: None, contact: None };
    assert_eq!(world.inputs(), [&Input::Leg { leg, event }]);
    // A sender is answered, whatever becomes of the page.
    first.isc.forget(first.now, page);
    first.drive();
    assert_eq!(first.statuses(), [480]);
    let mut refused = sent(home(), "Lunch?");
    let refusal = Refusal::new(403, "IM-031").warn("No destinations");
    refused.isc.refuse(refused.now, refused.arrival().page, &refusal);
    refused.drive();
    assert_eq!(refused.statuses(), [403]);
}
