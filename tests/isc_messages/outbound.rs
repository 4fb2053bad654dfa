//! The recipients' INVITEs.

use pagecast::isc::settings::{
    Attribution, CoreProfile, FanoutRoute, PsiRoute, Refresher, SendPsu, Settings, Source,
};
use pagecast::sip::Target as Hop;

use crate::world::{INVITE, LEG_PATH, Sent, World, group_invite, header, headers, home};

fn first_leg(settings: Settings, invite: &str) -> Sent {
    let mut world = World::new(settings);
    world.receive(invite);
    world.invite(1);
    world.sent.pop().expect("an INVITE was sent")
}

/// The example of the rules, every line of it. The profile leaves the types alone, as the example does.
///
/// Proves IM-002, IM-006, IM-038, IM-039, IM-041, IM-042, IM-043, IM-044, IM-045, IM-046, IM-047, IM-050, ISC-016, ISC-022, ISC-028, ISC-051, UL-021, UL-022.
#[test]
fn the_invite_to_the_first_recipient_line_by_line() {
    let mut settings = home();
    settings.media.attribution = Attribution::Never;
    let sent = first_leg(settings, INVITE);
    crate::world::assert_lines(
        &sent.text,
        r#"INVITE sip:bob@home1.example SIP/2.0
        Via: SIP/2.0/UDP im-as1.home1.example:5060;branch=z9hG4bK07…;rport
        Route: <sip:scscf1.home1.example;lr;orig>
        Max-Forwards: 66
        From: "Alice" <sip:alice@home1.example>;tag=07…
        To: <sip:bob@home1.example>
        Call-ID: lm-07…@im-as1.home1.example
        CSeq: 1 INVITE
        Contact: <sip:lm-07…@im-as1.home1.example:5060>;+g.oma.sip-im.large-message;isfocus
        Session-Expires: 1800
        Min-SE: 90
        P-Charging-Vector: icid-value="07…-1-…";icid-generated-at=im-as1.home1.example;orig-ioi="Type 3home1.example"
        Accept-Contact: *;+g.oma.sip-im.large-message
        Subject: Minutes
        Supported: 100rel, timer
        P-Asserted-Identity: "Alice" <sip:alice@home1.example>, <tel:+15551230001>
        P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
        P-Charging-Function-Addresses: ccf="aaa://cdf1.home1.example"
        Referred-By: <sip:alice@home1.example>
        User-Agent: IM-serv/OMA1.0 ExampleIM/2.1
        Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS
        Accept: application/sdp, message/sipfrag, multipart/mixed
        Content-Type: multipart/mixed;boundary=…
        Content-Length: …

        --…
        Content-Type: application/sdp

        v=0
        o=- … 1 IN IP4 192.0.2.10
        s=-
        c=IN IP4 192.0.2.10
        t=0 0
        m=message 2855 TCP/MSRP *
        a=accept-types:message/cpim text/plain
        a=accept-wrapped-types:text/plain image/png
        a=max-size:10485760
        a=setup:actpass
        a=msrp-cema
        a=file-selector:size:20480 type:message/cpim
        a=sendonly
        a=path:msrp://192.0.2.10:2855/b4Jx9ZpQ0tR2sKd8aaaaaaaa;tcp

        --…
        Content-Type: application/resource-lists+xml
        Content-Disposition: recipient-list-history; handling=optional

        <?xml version="1.0" encoding="UTF-8"?>
        <resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists" xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
        <list>
        <entry uri="sip:bob@home1.example" cp:copyControl="to"/>
        <entry uri="sip:anonymous@anonymous.invalid" cp:copyControl="to" cp:count="1"/>
        </list>
        </resource-lists>

        --…--"#,
    );
    assert_eq!(
        sent.to,
        Hop::NextHop { uri: "sip:scscf1.home1.example;lr;orig".to_owned(), attempt: 0, octets: 0 }
    );
    assert!(!sent.text.contains("ue7Qm2k0"), "the originator's path goes nowhere");
}

/// Proves IM-001, IM-003, IM-005, ISC-028, UL-003, UL-010, UL-023, UL-024.
#[test]
fn every_leg_is_a_dialog_of_its_own_and_names_nobody_hidden() {
    let mut world = World::new(home());
    let twice = INVITE.replace(
        "    <entry uri=\"sip:dan@",
        "    <entry uri=\"sip:bob@HOME1.example\" cp:copyControl=\"cc\"/>\n    <entry uri=\"sip:dan@",
    );
    world.receive(&twice);
    let count = world.audience().recipients.len();
    assert_eq!(count, 3, "bob is named twice and invited once");
    for n in 1..=3 {
        world.invite(n);
    }
    let invites = world.requests("INVITE");
    let uris: Vec<&str> = invites.iter().map(|sent| sent.message.uri()).collect();
    assert_eq!(uris, ["sip:bob@home1.example", "sip:carol@home2.example", "sip:dan@home1.example"]);
    for name in ["Call-ID", "P-Charging-Vector", "From", "Via"] {
        let mut values: Vec<&str> =
            invites.iter().map(|sent| header(sent, name).expect("stands there")).collect();
        values.push("pc1-20240101-00042");
        values.sort_unstable();
        let all = values.len();
        values.dedup();
        assert_eq!(values.len(), all, "{name} differs on every leg");
    }
    let tags: Vec<&[u8]> = invites.iter().filter_map(|sent| sent.message.from_tag()).collect();
    assert!(tags.iter().all(|tag| *tag != b"a1c9") && tags[0] != tags[1] && tags[1] != tags[2]);
    for sent in &invites {
        assert!(headers(sent, "Require").is_empty());
        assert!(!sent.text.contains("Content-Disposition: recipient-list\r"));
        assert_eq!(sent.text.matches("Content-Type: application/sdp").count(), 1);
        assert!(!sent.text.contains("5f0c-1"), "nothing of the originator's Call-ID");
    }
    for (n, hidden) in [(0, ["carol", "dan@"]), (2, ["carol", "x-nobody"])] {
        for name in hidden {
            assert!(!invites[n].text.contains(name), "{name} shows in\n{}", invites[n].text);
        }
    }
    assert!(!invites[1].text.contains("dan@"));
}

/// Proves IM-048, ISC-032, ISC-033, ISC-038, ISC-054, ISC-077, ISC-078, UL-029.
#[test]
fn headers_are_built_and_not_copied_but_for_a_list() {
    let more = "Priority: urgent\nDate: Sat, 13 Nov 2010 23:29:00 GMT\nOrganization: Example\n\
        Expires: 300\nAnswer-Mode: Manual\nContent-Language: de\nConversation-ID: conv-1\n\
        Contribution-ID: contr-1\nX-Foo: 1\nHistory-Info: <sip:im-exploder@im.home1.example>;index=1\n\
        Feature-Caps: *;+g.3gpp.srvcc\nP-Visited-Network-ID: \"v\"\nSession-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000\n\
        Authorization: Digest username=\"a\", realm=\"home1.example\", nonce=\"n\"\n\
        Proxy-Authorization: Digest username=\"b\", realm=\"elsewhere.example\", nonce=\"n\"\n";
    let invite = INVITE.replace("Subject: Minutes\n", &format!("Subject: Minutes\n{more}"));
    let mut settings = home();
    settings.realm = "home1.example".to_owned();
    let mut world = World::new(settings);
    world.receive(&invite);
    world.pass(std::time::Duration::from_secs(10));
    world.invite(1);
    let sent = world.last_request("INVITE");
    for (name, value) in [
        ("Subject", "Minutes"),
        ("Priority", "urgent"),
        ("Date", "Sat, 13 Nov 2010 23:29:00 GMT"),
        ("Organization", "Example"),
        ("Expires", "290"),
        ("Answer-Mode", "Manual"),
        ("Content-Language", "de"),
        ("Conversation-ID", "conv-1"),
        ("Contribution-ID", "contr-1"),
        ("Proxy-Authorization", "Digest username=\"b\", realm=\"elsewhere.example\", nonce=\"n\""),
    ] {
        assert_eq!(header(sent, name), Some(value), "{name}");
    }
    for name in [
        "X-Foo",
        "History-Info",
        "Feature-Caps",
        "P-Visited-Network-ID",
        "P-Access-Network-Info",
        "Authorization",
        "Record-Route",
        "Require",
    ] {
        assert_eq!(header(sent, name), None, "{name}");
    }
    assert_eq!(headers(sent, "Via").len(), 1);
    let session = header(sent, "Session-ID").expect("one of its own");
    assert!(
        !session.starts_with("ab30317f")
            && session.ends_with(";remote=00000000000000000000000000000000")
    );
}

/// Proves IM-040, ISC-024, ISC-075.
#[test]
fn an_anonymous_sender_stays_inside_the_trust_domain() {
    let invite = INVITE.replace("Subject:", "Privacy: id; header\nSubject:");
    let sent = first_leg(home(), &invite);
    assert_eq!(header(&sent, "Privacy"), Some("id; header"));
    let from = header(&sent, "From").expect("stands there");
    assert!(from.starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag="), "{from}");
    assert_eq!(header(&sent, "Referred-By"), None);
    assert_eq!(header(&sent, "Subject"), Some("Minutes"));
    assert!(header(&sent, "P-Asserted-Identity").is_some_and(|value| value.contains("alice")));
    let rest: String = sent
        .text
        .lines()
        .filter(|line| {
            !line.starts_with("P-Asserted-Identity") && !line.starts_with("P-Served-User")
        })
        .collect();
    assert!(!rest.to_lowercase().contains("alice") && !rest.contains("15551230001"), "{rest}");
}

/// One INVITE under the three cores: only what the profiles differ in may differ.
///
/// Proves IM-010, IM-018.
#[test]
fn three_cores_differ_in_their_own_headers_only() {
    let of = |profile, proxy: &str| {
        let mut settings = home();
        let defaults = Settings::of(profile);
        settings.profile = profile;
        settings.isc = defaults.isc;
        settings.im.default_mode = defaults.im.default_mode;
        settings.core.outbound_proxy = proxy.to_owned();
        first_leg(settings, INVITE)
    };
    let lines = |sent: &Sent| -> Vec<String> {
        let head = sent.text.split("\r\n\r\n").next().unwrap_or_default().to_owned();
        let random = ["Content-Type", "Content-Length"];
        let kept = head.lines().filter(|line| !random.iter().any(|name| line.starts_with(name)));
        kept.map(str::to_owned).collect()
    };
    let ims = of(CoreProfile::Gpp, "");
    let cdma = of(CoreProfile::Gpp2, "");
    let plain = of(CoreProfile::SipIp, "sip:proxy.example");
    let direct = of(CoreProfile::SipIp, "");

    let own = [
        "Route",
        "P-Charging-Vector",
        "P-Asserted-Identity",
        "P-Served-User",
        "P-Charging-Function-Addresses",
    ];
    let common = |sent: &Sent| -> Vec<String> {
        let all = lines(sent).into_iter();
        all.filter(|line| !own.iter().any(|name| line.starts_with(&format!("{name}:")))).collect()
    };
    for other in [&cdma, &plain, &direct] {
        assert_eq!(common(&ims), common(other));
    }
    assert_eq!(header(&ims, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert_eq!(header(&cdma, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert_eq!(header(&plain, "Route"), Some("<sip:proxy.example;lr>"));
    assert_eq!(header(&direct, "Route"), None);
    assert_eq!(
        direct.to,
        Hop::NextHop { uri: "sip:bob@home1.example".to_owned(), attempt: 0, octets: 0 }
    );
    assert!(
        header(&ims, "P-Charging-Vector")
            .is_some_and(|v| v.contains("orig-ioi=\"Type 3home1.example\""))
    );
    assert!(
        header(&cdma, "P-Charging-Vector")
            .is_some_and(|v| v.contains("orig-ioi=\"home1.example\""))
    );
    assert!(header(&ims, "P-Served-User").is_some());
    assert_eq!(header(&cdma, "P-Served-User"), None);
    for sent in [&plain, &direct] {
        assert!(!sent.text.lines().any(|line| line.starts_with("P-")), "{}", sent.text);
    }
}

/// Proves ISC-006, ISC-012, ISC-022.
#[test]
fn the_fan_out_goes_the_way_the_profile_says() {
    for (route, psi, want, served, icid) in [
        (
            FanoutRoute::OrigScscf,
            PsiRoute::Icscf,
            "<sip:scscf1.home1.example;lr;orig>",
            Some("<sip:alice@home1.example>;sescase=orig;regstate=reg"),
            false,
        ),
        (
            FanoutRoute::Odi,
            PsiRoute::Icscf,
            "<sip:odi-8f2c51@scscf1.home1.example;lr;orig>",
            Some("<sip:alice@home1.example>;sescase=orig;regstate=reg"),
            true,
        ),
        (FanoutRoute::Psi, PsiRoute::Icscf, "<sip:icscf1.home1.example;lr>", None, false),
        (
            FanoutRoute::Psi,
            PsiRoute::Scscf,
            "<sip:scscf9.home1.example;lr;orig>",
            Some("<sip:im-exploder@im.home1.example>;sescase=orig;regstate=unreg"),
            false,
        ),
        (FanoutRoute::TermIcscf, PsiRoute::Icscf, "<sip:icscf1.home1.example;lr>", None, false),
    ] {
        let mut settings = home();
        settings.isc.fanout_route = route;
        settings.isc.psi_route = psi;
        let sent = first_leg(settings, INVITE);
        assert_eq!(header(&sent, "Route"), Some(want), "{route:?} {psi:?}");
        assert_eq!(header(&sent, "P-Served-User"), served, "{route:?} {psi:?}");
        let vector = header(&sent, "P-Charging-Vector").expect("stands there");
        assert_eq!(vector.contains("pc1-20240101-00042"), icid, "{route:?}: {vector}");
        assert!(!vector.contains("term-ioi"));
    }
    // After our final answer the dialog identifier is dead.
    let mut settings = home();
    settings.isc.fanout_route = FanoutRoute::Odi;
    let mut world = World::new(settings);
    world.receive(INVITE);
    world.invite(1);
    let page = world.arrival().page;
    world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
    world.drive();
    world.invite(2);
    let sent = world.last_request("INVITE");
    assert_eq!(header(sent, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert!(header(sent, "P-Charging-Vector").is_some_and(|v| !v.contains("pc1-2024")));
}

/// Proves ISC-009, ISC-058.
#[test]
fn the_s_cscf_is_found_in_the_route_then_in_the_configuration_then_by_the_i_cscf() {
    let no_route = INVITE.replace(
        "Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>\n",
        "",
    );
    let terminating = INVITE.replace(
        "<sip:alice@home1.example>;sescase=orig;regstate=reg",
        "<sip:im-exploder@im.home1.example>;sescase=term;regstate=unreg",
    );
    let without = |settings: &mut Settings| settings.core.scscf.clear();
    for (invite, forget, want, served) in [
        (INVITE.to_owned(), false, "<sip:scscf1.home1.example;lr;orig>", "reg"),
        (no_route.clone(), false, "<sip:scscf9.home1.example;lr;orig>", "reg"),
        // The S-CSCF of the PSI is not that of the sender.
        (terminating, false, "<sip:scscf9.home1.example;lr;orig>", "reg"),
        (no_route, true, "<sip:icscf1.home1.example;lr;orig>", "reg"),
    ] {
        let mut settings = home();
        if forget {
            without(&mut settings);
        }
        let sent = first_leg(settings, &invite);
        assert_eq!(header(&sent, "Route"), Some(want));
        let user = format!("<sip:alice@home1.example>;sescase=orig;regstate={served}");
        assert_eq!(header(&sent, "P-Served-User"), Some(user.as_str()));
    }
}

/// Proves IM-038, IM-039, ISC-022.
#[test]
fn the_profile_may_speak_in_the_name_of_the_service() {
    let mut settings = home();
    settings.im.pai_source = Source::Service;
    settings.im.from_source = Source::Service;
    settings.isc.send_psu = SendPsu::IfDiffers;
    let sent = first_leg(settings, INVITE);
    assert_eq!(header(&sent, "P-Asserted-Identity"), Some("<sip:im-exploder@im.home1.example>"));
    assert!(
        header(&sent, "From")
            .is_some_and(|from| from.starts_with("<sip:im-exploder@im.home1.example>;tag="))
    );
    assert_eq!(
        header(&sent, "P-Served-User"),
        Some("<sip:alice@home1.example>;sescase=orig;regstate=reg"),
        "the served user is not the service that is asserted"
    );
    let mut settings = home();
    settings.isc.send_psu = SendPsu::IfDiffers;
    let sent = first_leg(settings, INVITE);
    assert_eq!(header(&sent, "P-Served-User"), None, "the served user is an identity asserted");
    let other = INVITE.replace(
        "P-Served-User: <sip:alice@home1.example>",
        "P-Served-User: <sip:alice.private@home1.example>",
    );
    let mut settings = home();
    settings.isc.send_psu = SendPsu::IfDiffers;
    let sent = first_leg(settings, &other);
    assert_eq!(
        header(&sent, "P-Served-User"),
        Some("<sip:alice.private@home1.example>;sescase=orig;regstate=reg")
    );
}

/// Proves IM-041, IM-042, IM-044, IM-045, ISC-028.
#[test]
fn profile_keys_show_in_the_invite() {
    let mut settings = home();
    settings.im.accept_contact_params = "require;explicit".to_owned();
    settings.im.large.isfocus = false;
    settings.im.release = "2.0".to_owned();
    settings.im.session_expires = 3600;
    settings.im.refresher = Refresher::Uas;
    settings.isc.related_icid = true;
    settings.isc.operator = "op.example".to_owned();
    let also = INVITE.replace("Accept-Contact: *;", "Accept-Contact: *;audio, *;");
    let sent = first_leg(settings, &also);
    assert_eq!(
        headers(&sent, "Accept-Contact"),
        ["*;+g.oma.sip-im.large-message;require;explicit", "*;audio"]
    );
    assert!(
        header(&sent, "Contact")
            .is_some_and(|contact| contact.ends_with(">;+g.oma.sip-im.large-message"))
    );
    assert_eq!(header(&sent, "User-Agent"), Some("IM-serv/OMA2.0 ExampleIM/2.1"));
    assert_eq!(header(&sent, "Session-Expires"), Some("3600;refresher=uas"));
    assert_eq!(header(&sent, "Min-SE"), Some("90"));
    let vector = header(&sent, "P-Charging-Vector").expect("stands there");
    assert!(
        vector.ends_with("orig-ioi=\"Type 3op.example\";related-icid=\"pc1-20240101-00042\""),
        "{vector}"
    );

    let mut settings = home();
    settings.im.large.session_timer = false;
    let sent = first_leg(settings, INVITE);
    assert_eq!(header(&sent, "Session-Expires"), None);
    assert_eq!(header(&sent, "Min-SE"), None);
    assert_eq!(header(&sent, "Supported"), Some("100rel, timer"));
}

/// Proves IM-042.
#[test]
fn the_contact_says_how_the_server_is_reached() {
    let mut settings = home();
    settings.sip.uri = "sip:im-as1.home1.example;transport=tcp".to_owned();
    settings.sip.advertise = "[2001:db8::10]:5070".to_owned();
    let sent = first_leg(settings, INVITE);
    let contact = header(&sent, "Contact").expect("stands there");
    let (uri, rest) = contact.split_once('>').expect("in brackets");
    assert!(uri.starts_with("<sip:lm-07") && uri.ends_with("@[2001:db8::10]:5070;transport=tcp"));
    assert_eq!(rest, ";+g.oma.sip-im.large-message;isfocus");
}

/// Proves IM-049, ISC-034.
#[test]
fn a_service_identifier_is_asserted_only_where_there_is_one() {
    const CPM: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
    let tag = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";
    assert_eq!(header(&first_leg(home(), INVITE), "P-Asserted-Service"), None);
    let received = INVITE.replace("Subject:", "P-Asserted-Service: urn:urn-7:x\nSubject:");
    assert_eq!(header(&first_leg(home(), &received), "P-Asserted-Service"), Some("urn:urn-7:x"));
    let mut settings = home();
    settings.im.icsi = CPM.to_owned();
    let sent = first_leg(settings, INVITE);
    assert_eq!(header(&sent, "P-Asserted-Service"), Some(CPM));
    assert_eq!(
        headers(&sent, "Accept-Contact"),
        ["*;+g.oma.sip-im.large-message".to_owned(), format!("*;{tag}")]
    );
    assert!(header(&sent, "Contact").is_some_and(|contact| contact.contains(tag)));
}

/// Proves ISC-035, ISC-037.
#[test]
fn hints_are_no_assertions_and_applications_pass() {
    let iari = "+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.x\"";
    let mut settings = home();
    settings.im.icsi = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".to_owned();
    let hint = INVITE.replace(
        "Subject:",
        "P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\nSubject:",
    );
    let sent = first_leg(settings.clone(), &hint);
    assert_eq!(header(&sent, "P-Preferred-Service"), None);
    let mut world = World::new(settings);
    world.receive(&hint.replace(";+g.oma.sip-im.large-message", ""));
    assert_eq!(world.refused().rule, "IM-025", "a hint of the client selects nothing");

    let named = INVITE
        .replace(
            "Contact: <sip:alice@[2001:db8::a1]:1357>",
            &format!("Contact: <sip:alice@[2001:db8::a1]:1357>;{iari}"),
        )
        .replace("Accept-Contact: *;", &format!("Accept-Contact: *;{iari}\nAccept-Contact: *;"));
    let sent = first_leg(home(), &named);
    assert!(header(&sent, "Contact").is_some_and(|contact| contact.ends_with(iari)));
    assert!(headers(&sent, "Accept-Contact").contains(&format!("*;{iari}").as_str()));
}

/// Proves UL-023.
#[test]
fn a_bcc_recipient_may_see_itself_where_the_profile_says_so() {
    let mut settings = home();
    settings.ul.bcc_mode = pagecast::content::resource_lists::BccMode::KeepOwn;
    let mut world = World::new(settings);
    world.receive(INVITE);
    for n in 1..=3 {
        world.invite(n);
    }
    let invites = world.requests("INVITE");
    let own = "<entry uri=\"sip:dan@home1.example\" cp:copyControl=\"bcc\"/>";
    assert!(invites[2].text.contains(own), "{}", invites[2].text);
    assert!(!invites[0].text.contains("dan@") && !invites[1].text.contains("dan@"));
}

/// Proves UL-015.
#[test]
fn what_an_entry_asks_for_is_an_allow_list() {
    let entry = "sip:bob@home1.example;method=BYE;maddr=192.0.2.66;ttl=1;transport=tcp;x=y?Route=%3Csip:x%3E&amp;body=hi&amp;Subject=Own%20one&amp;Priority=urgent&amp;From=sip%3Aeve%40x";
    let invite = INVITE.replace("sip:bob@home1.example\" cp", &format!("{entry}\" cp"));
    let sent = first_leg(home(), &invite);
    assert_eq!(sent.message.uri(), "sip:bob@home1.example;transport=tcp;x=y");
    assert_eq!(header(&sent, "To"), Some("<sip:bob@home1.example;transport=tcp;x=y>"));
    assert_eq!(header(&sent, "Subject"), Some("Own one"));
    assert_eq!(header(&sent, "Priority"), Some("urgent"));
    assert_eq!(header(&sent, "Route"), Some("<sip:scscf1.home1.example;lr;orig>"));
    assert!(
        !sent.text.contains("eve") && !sent.text.contains("maddr") && !sent.text.contains("hi\r\n")
    );
}

/// Proves IM-047, UL-021.
#[test]
fn a_group_gets_no_list_of_its_members() {
    let sent = first_leg(home(), &group_invite());
    assert_eq!(header(&sent, "Content-Type"), Some("application/sdp"));
    assert_eq!(sent.message.uri(), "sip:bob@home1.example");
    assert!(sent.text.contains(LEG_PATH));
    let all_bcc = INVITE.replace("cp:copyControl=\"to\"", "cp:copyControl=\"bcc\"");
    assert_eq!(header(&first_leg(home(), &all_bcc), "Content-Type"), Some("application/sdp"));
    let untagged = INVITE.replace(" cp:copyControl=\"to\"", "");
    assert_eq!(header(&first_leg(home(), &untagged), "Content-Type"), Some("application/sdp"));
}

/// Proves IM-007, IM-008.
#[test]
fn one_recipient_is_offered_what_was_offered() {
    let one = INVITE
        .replace("    <entry uri=\"sip:carol@home2.example\" cp:copyControl=\"to\" cp:anonymize=\"true\"/>\n", "")
        .replace("    <entry uri=\"sip:dan@home1.example\" cp:copyControl=\"bcc\"/>\n", "")
        .replace("a=accept-types:message/cpim text/plain\n", "a=accept-types:message/cpim application/x-odd text/plain\na=x-foo:1\na=max-size:7\na=mid:1\n");
    let sent = first_leg(home(), &one);
    for line in [
        "a=accept-types:message/cpim text/plain",
        "a=x-foo:1",
        "a=sendonly",
        "a=file-selector:size:20480 type:message/cpim",
        "a=setup:actpass",
        "a=max-size:10485760",
    ] {
        assert!(sent.text.contains(&format!("{line}\r\n")), "{line} in\n{}", sent.text);
    }
    assert!(!sent.text.contains("a=mid") && !sent.text.contains("a=setup:active"));
}

/// Proves ISC-015.
#[test]
fn every_leg_has_one_hop_less() {
    for (received, sent) in [("67", "66"), ("1", "0"), ("70", "69")] {
        let invite = INVITE.replace("Max-Forwards: 67", &format!("Max-Forwards: {received}"));
        assert_eq!(header(&first_leg(home(), &invite), "Max-Forwards"), Some(sent));
    }
}

/// What is sent in the service's own name, to begin a dialog and to end it.
///
/// Proves ISC-060.
#[test]
fn what_the_service_sends_in_its_own_name_asserts_the_service() {
    const PSI: &str = "<sip:im-exploder@im.home1.example>";
    for (psi_route, psu, served) in [
        (PsiRoute::Icscf, SendPsu::Always, None),
        (
            PsiRoute::Scscf,
            SendPsu::Always,
            Some("<sip:im-exploder@im.home1.example>;sescase=orig;regstate=unreg"),
        ),
        // The service is asserted already, and then it does not differ.
        (PsiRoute::Scscf, SendPsu::IfDiffers, None),
        (PsiRoute::Scscf, SendPsu::Never, None),
    ] {
        for source in [Source::Originator, Source::Service] {
            let mut settings = home();
            settings.isc.fanout_route = FanoutRoute::Psi;
            settings.isc.psi_route = psi_route;
            settings.isc.send_psu = psu;
            (settings.im.from_source, settings.im.pai_source) = (source, source);
            let mut world = World::new(settings);
            world.receive(INVITE);
            let leg = world.invite(1);
            let sent = world.last_request("INVITE");
            assert_eq!(header(sent, "P-Asserted-Identity"), Some(PSI));
            assert!(
                header(sent, "From").is_some_and(|from| from.starts_with(&format!("{PSI};tag=")))
            );
            assert_eq!(header(sent, "P-Served-User"), served, "{psi_route:?} {psu:?}");
            // Who sent the page is still told.
            assert_eq!(header(sent, "Referred-By"), Some("<sip:alice@home1.example>"));
            let ok = crate::world::reply(
                sent,
                200,
                "b1",
                "Contact: <sip:bob@192.0.2.77>\nContent-Type: application/sdp\n",
                crate::world::ANSWER_SDP,
            );
            world.receive(&ok);
            world.isc.end_leg(world.now, leg, None);
            world.drive();
            let bye = world.last_request("BYE");
            assert_eq!(header(bye, "P-Asserted-Identity"), Some(PSI));
            assert!(
                header(bye, "From").is_some_and(|from| from.starts_with(&format!("{PSI};tag=")))
            );
            assert_eq!(header(bye, "P-Served-User"), None);
            assert_eq!(header(world.last_request("ACK"), "P-Asserted-Identity"), None);
        }
    }
    // A user's page ends without a word about who he is.
    let mut world = World::new(home());
    world.receive(INVITE);
    let leg = world.invite(1);
    let ok = crate::world::reply(
        world.last_request("INVITE"),
        200,
        "b1",
        "Contact: <sip:bob@192.0.2.77>\nContent-Type: application/sdp\n",
        crate::world::ANSWER_SDP,
    );
    world.receive(&ok);
    world.isc.end_leg(world.now, leg, None);
    world.drive();
    assert_eq!(header(world.last_request("BYE"), "P-Asserted-Identity"), None);
}

/// Proves ISC-024, ISC-034, ISC-035.
#[test]
fn wishes_and_services_are_read_in_all_their_lines() {
    const CPM: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
    let wish = INVITE.replace("Subject:", "Privacy: critical\nPrivacy: id\nSubject:");
    let sent = first_leg(home(), &wish);
    assert_eq!(header(&sent, "Privacy"), Some("critical;id"));
    assert!(header(&sent, "From").is_some_and(|from| from.contains("anonymous.invalid")));
    for (received, want) in [
        ("urn:urn-7:x, urn:urn-7:y", CPM.to_owned()),
        ("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg.a, urn:urn-7:y", format!("{CPM}.a")),
    ] {
        let mut settings = home();
        settings.im.icsi = CPM.to_owned();
        let tagless = INVITE
            .replace(";+g.oma.sip-im.large-message", "")
            .replace("Accept-Contact: *\n", "")
            .replace("Subject:", &format!("P-Asserted-Service: {received}\nSubject:"));
        let mut world = World::new(settings.clone());
        world.receive(&tagless);
        assert_eq!(world.has_arrived(), want != CPM, "the asserted service selects: {received}");
        let sent = first_leg(
            settings,
            &INVITE.replace("Subject:", &format!("P-Asserted-Service: {received}\nSubject:")),
        );
        assert_eq!(header(&sent, "P-Asserted-Service"), Some(want.as_str()));
    }
    // What the operator lets through does not let through what never goes.
    let mut settings = home();
    settings.im.pass_through =
        ["P-Preferred-Service", "P-Visited-Network-ID", "P-Access-Network-Info", "X-Foo"]
            .map(str::to_owned)
            .to_vec();
    let odd = INVITE.replace(
        "Subject:",
        "P-Preferred-Service: urn:urn-7:x\nP-Visited-Network-ID: \"v\"\nX-Foo: 1\nSubject:",
    );
    let sent = first_leg(settings, &odd);
    for name in ["P-Preferred-Service", "P-Visited-Network-ID", "P-Access-Network-Info"] {
        assert_eq!(header(&sent, name), None, "{name}");
    }
    assert_eq!(header(&sent, "X-Foo"), Some("1"));
}

/// RFC 3261 §8.1.1.8, §12.1.1: a sips Request-URI, topmost Route, topmost Record-Route or, without one, Contact makes our
/// Contact a sips URI, as long as we can be reached over TLS.
#[test]
fn a_secure_dialog_has_a_secure_contact() {
    let answered = |secure: bool, invite: &str| {
        let mut settings = home();
        settings.sip.secure = secure;
        let mut world = World::new(settings);
        world.receive(invite);
        let page = world.arrival().page;
        world.isc.answer(world.now, page, crate::world::OWN_PATH, &[]);
        world.drive();
        let contact = header(world.answer(), "Contact").expect("a Contact").to_owned();
        world.invite(1);
        let leg = header(world.last_request("INVITE"), "Contact").expect("a Contact").to_owned();
        [contact, leg].map(|contact| contact.starts_with("<sips:lm-07"))
    };
    let by_record_route = INVITE.replace("Record-Route: <sip:", "Record-Route: <sips:");
    let by_contact = INVITE
        .lines()
        .filter(|line| !line.starts_with("Record-Route"))
        .map(|line| line.replace("Contact: <sip:", "Contact: <sips:") + "\n")
        .collect::<String>();
    let by_recipient = INVITE.replace("\"sip:bob@", "\"sips:bob@");
    let by_scscf = INVITE.replace("<sip:odi-8f2c51@scscf1", "<sips:odi-8f2c51@scscf1");
    // (the INVITE, whether the answer's Contact and the first leg's are secure)
    for (invite, want) in [
        (INVITE, [false, false]),
        (&by_record_route, [true, false]),
        (&by_contact, [true, false]),
        (&by_recipient, [false, true]),
        (&by_scscf, [false, true]),
    ] {
        assert_eq!(answered(true, invite), want, "{invite}");
        assert_eq!(answered(false, invite), [false, false], "without TLS there is no way back");
    }
}
