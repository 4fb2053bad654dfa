//! Telephone numbers wherever a core may put them: who sends, who is served, who receives.

use pagecast::engine::ids::LegId;
use pagecast::isc::settings::{CoreProfile, Settings};
use pagecast::sip::Target as Hop;

use crate::world::{
    ANSWER_SDP, INVITE, LEG_PATH, Sent, World, group_audience, group_invite, header, headers, home,
    reply,
};

const SIPS: &str = "\"Alice\" <sip:alice@home1.example>, <tel:+15551230001>";

fn with_list(entries: &str) -> String {
    let (head, rest) = INVITE.split_once("    <entry").expect("a list");
    let (_, tail) = rest.split_once("  </list>").expect("a list");
    format!("{head}{entries}\n  </list>{tail}")
}

fn leg(settings: Settings, invite: &str) -> Sent {
    let mut world = World::new(settings);
    world.receive(invite);
    world.invite(1);
    world.sent.pop().expect("an INVITE was sent")
}

/// Proves IM-002, ISC-018, ISC-020, ISC-022.
#[test]
fn a_sender_may_be_a_number_alone() {
    let number = INVITE
        .replace(SIPS, "<tel:+1-555-123-0001;cpc=ordinary>")
        .replace("P-Served-User: <sip:alice@home1.example>", "P-Served-User: <tel:+15551230001>")
        .replace("From: \"Alice\" <sip:alice@home1.example>", "From: <tel:+15551230001>");
    let sent = leg(home(), &number);
    let identity = "<tel:+1-555-123-0001;cpc=ordinary>";
    assert_eq!(header(&sent, "P-Asserted-Identity"), Some(identity));
    assert!(
        header(&sent, "From").is_some_and(|from| from.starts_with(&format!("{identity};tag=")))
    );
    assert_eq!(header(&sent, "Referred-By"), Some(identity));
    assert_eq!(
        header(&sent, "P-Served-User"),
        Some("<tel:+15551230001>;sescase=orig;regstate=reg")
    );
    assert_eq!(header(&sent, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert!(header(&sent, "Contact").is_some_and(|contact| contact.starts_with("<sip:lm-")));
    // Without the header the one identity there is, is served.
    let unsaid =
        number.replace("P-Served-User: <tel:+15551230001>;sescase=orig;regstate=reg\n", "");
    let sent = leg(home(), &unsaid);
    assert_eq!(
        header(&sent, "P-Served-User"),
        Some("<tel:+1-555-123-0001;cpc=ordinary>;sescase=orig;regstate=reg")
    );
}

/// Proves IM-002, UL-011.
#[test]
fn a_recipient_may_be_a_number() {
    for entry in ["tel:+15551230002", "tel:7042;phone-context=+1-555", "TEL:+1-555-123-0002"] {
        let list = with_list(&format!("    <entry uri=\"{entry}\"/>"));
        let sent = leg(home(), &list);
        assert_eq!(sent.message.uri(), entry);
        assert_eq!(header(&sent, "To"), Some(format!("<{entry}>").as_str()));
        assert_eq!(header(&sent, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
        let hop = "sip:scscf1.home1.example;lr;orig".to_owned();
        assert_eq!(sent.to, Hop::NextHop { uri: hop, attempt: 0, octets: 0 });
        // A plain core: its proxy knows numbers, and without one they are users of ours.
        let mut plain = home();
        plain.profile = CoreProfile::SipIp;
        plain.service.home_domains = vec!["home1.example".to_owned()];
        let direct = leg(plain.clone(), &list);
        let user = format!("sip:{}@home1.example;user=phone", &entry[4..]);
        assert_eq!(direct.message.uri(), user);
        assert_eq!(header(&direct, "To"), Some(format!("<{entry}>").as_str()));
        assert_eq!(headers(&direct, "Route"), Vec::<&str>::new());
        assert_eq!(direct.to, Hop::NextHop { uri: user, attempt: 0, octets: 0 });
        plain.core.outbound_proxy = "sip:proxy.home1.example".to_owned();
        let by_proxy = leg(plain, &list);
        assert_eq!(by_proxy.message.uri(), entry);
        assert_eq!(header(&by_proxy, "Route"), Some("<sip:proxy.home1.example;lr>"));
    }
    // The sender under the number she has is not invited to her own page.
    let mut world = World::new(home());
    world.receive(&with_list(
        "    <entry uri=\"tel:+1-555-123-0001\"/>\n    <entry uri=\"sip:bob@home1.example\"/>",
    ));
    assert_eq!(world.audience().recipients.len(), 1);
    // A member of a group.
    let mut world = World::new(home());
    world.receive(&group_invite());
    let mut audience = (*group_audience()).clone();
    audience.recipients[0].party.uri = "tel:+15551230009".into();
    let leg = LegId { page: world.arrival().page, n: 1 };
    let recipient = audience.recipients[0].clone();
    world.isc.invite(world.now, leg, &recipient, LEG_PATH, &std::sync::Arc::new(audience));
    world.drive();
    let sent = world.last_request("INVITE");
    assert_eq!(sent.message.uri(), "tel:+15551230009");
    assert_eq!(header(sent, "To"), Some("<tel:+15551230009>"));
}

/// Nobody's number is a service, and none is a user's of ours to serve.
///
/// Proves IM-023.
#[test]
fn a_number_is_no_service() {
    let asked = INVITE
        .replacen("sip:im-exploder@im.home1.example", "tel:+15551230002", 1)
        .replace(", <sip:odi-8f2c51@scscf1.home1.example;lr;orig>", "");
    let mut world = World::new(home());
    world.receive(&asked);
    assert_eq!(world.statuses(), [100, 404]);
}

/// What a phone calls itself is where its dialog goes, to the letter.
///
/// Proves ISC-064.
#[test]
fn contacts_of_peers_are_kept_as_they_are() {
    for contact in [
        "sip:bob@[2001:db8::b]:5070;transport=tcp",
        "sip:bob@home1.example;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "sip:Bob%20B@192.0.2.77:5070;ob;x=%41;LR",
        "sips:10.9@[::ffff:192.0.2.77];unknown",
    ] {
        let mut world = World::new(home());
        world.receive(&INVITE.replace("<sip:alice@[2001:db8::a1]:1357>", &format!("<{contact}>")));
        let leg = world.invite(1);
        let sent = world.last_request("INVITE");
        let lines = format!(
            "Record-Route: <sip:scscf1.home1.example;lr>\nContact: \"B\" <{contact}>;+g.oma.sip-im;expires=60\nContent-Type: application/sdp\n"
        );
        let ok = reply(sent, 200, "b1", &lines, ANSWER_SDP);
        world.receive(&ok);
        world.isc.end_leg(world.now, leg, None);
        world.drive();
        for method in ["ACK", "BYE"] {
            let sent = world.last_request(method);
            assert_eq!(sent.message.uri(), contact);
            assert_eq!(headers(sent, "Route"), ["<sip:scscf1.home1.example;lr>"]);
        }
        let page = world.arrival().page;
        world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
        world.drive();
        crate::answers::ack(&mut world);
        world.isc.end_originator(world.now, page, None);
        world.drive();
        assert_eq!(world.last_request("BYE").message.uri(), contact);
    }
}

/// Proves ISC-064.
#[test]
fn an_offer_at_a_kind_of_address_we_lack_is_refused() {
    let mut settings = home();
    settings.media.families.v6 = false;
    let mut world = World::new(settings.clone());
    world.receive(INVITE);
    assert_eq!(world.statuses(), [100, 488]);
    assert_eq!(
        header(world.answer(), "Warning"),
        Some("301 im-as1.home1.example \"Incompatible network address formats\"")
    );
    assert_eq!(world.refused().rule, "ISC-064");
    let mut world = World::new(settings);
    world.receive(
        &INVITE
            .replace("c=IN IP6 2001:db8::a1", "c=IN IP4 192.0.2.61")
            .replace("[2001:db8::a1]:2855", "192.0.2.61:2855"),
    );
    assert!(world.has_arrived());
    // A later path has to be of a kind of ours, too.
    let mut settings = home();
    settings.media.families.v6 = false;
    let mut world = World::new(settings);
    world.receive(
        &INVITE
            .replace("c=IN IP6 2001:db8::a1", "c=IN IP4 192.0.2.61")
            .replace("[2001:db8::a1]:2855", "192.0.2.61:2855"),
    );
    let page = world.arrival().page;
    world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
    world.drive();
    crate::answers::ack(&mut world);
    let sdp =
        INVITE.split("application/sdp\n\n").nth(1).and_then(|rest| rest.split("--bnd1").next());
    let again = crate::answers::in_dialog(
        &world,
        "INVITE",
        2,
        &format!(
            "Contact: <sip:alice@192.0.2.61>\nContent-Type: application/sdp\n\n{}",
            sdp.unwrap_or_default()
        ),
    );
    world.receive(&again);
    assert_eq!(world.answer().message.status(), Some(488));
    assert!(header(world.answer(), "Warning").is_some_and(|warning| warning.starts_with("301 ")));
}
