//! What is allowed for whom: recipients' own rules and settings, anonymity, barred users, limits by whatever name.

use pagecast::ops::Control as _;
use pagecast::sip::message::Message;

use crate::caller::{page, page_to};
use crate::inviting::TEAM;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, header, headers, invite};

const ROOT: &str = "http://127.0.0.1:8080/xcap-root";
const GROUP: &str = "sip:team@groups.ims.test";

/// The recipient's own rules: each with its conditions, and what they say to an invitation.
fn has_rules(net: &Net, user: &str, rules: &[(&str, &str)]) {
    let rule = |(at, (conditions, answer)): (usize, &(&str, &str))| {
        format!(
            "<cp:rule id=\"r{at}\"><cp:conditions>{conditions}</cp:conditions><cp:actions>\
             <ocp:allow-invite>{answer}</ocp:allow-invite></cp:actions></cp:rule>"
        )
    };
    let rules: String = rules.iter().enumerate().map(rule).collect();
    net.shelf.holds_lists(
        &format!("org.openmobilealliance.access-rules/users/sip:{user}@ims.test/access-rules"),
        &format!(
            "<cp:ruleset xmlns:cp=\"urn:ietf:params:xml:ns:common-policy\" \
             xmlns:ocp=\"urn:oma:xml:xdm:common-policy\">{rules}</cp:ruleset>"
        ),
    );
}

fn is_active(net: &Net, user: &str, active: bool) {
    net.shelf.holds_lists(
        &format!("org.openmobilealliance.im-service-settings/users/sip:{user}@ims.test/im-service-settings"),
        &format!(
            "<service-settings xmlns=\"urn:oma:xml:im:service-settings\"><active>{active}</active></service-settings>"
        ),
    );
}

pub fn one(user: &str) -> String {
    format!("<cp:identity><cp:one id=\"sip:{user}@ims.test\"/></cp:identity>")
}

/// Somebody whose rules reject this user.
pub fn rejects(net: &Net, user: &str, sender: &str) {
    has_rules(net, user, &[(&one(sender), "reject")]);
}

const MANY: &str = "<cp:identity><cp:many/></cp:identity>";
const ASKS: &str = "profile.im.apply_member_policy=true";

/// Proves IM-090, IM-091.
#[tokio::test(start_paused = true)]
async fn who_declines_by_a_rule_is_not_invited_and_the_others_get_the_page() {
    let net = Net::with(&[ASKS]).await;
    rejects(&net, "bob", "alice");
    is_active(&net, "dan", false);
    is_active(&net, "carol", true);
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [mut carol] = net.scscf().gets_invites().await;
    assert_eq!(carol.name, "carol");
    // The others fail while Carol is asked, as phones do.
    carol.rings();
    net.after(seconds(1)).await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page("for those who want it");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(
        net.results(),
        ["bob failed policy 403", "carol delivered", "dan failed policy 480"]
    );
    net.ends().await;
}

/// Where references may be skipped, the sender is warned of each: nobody is left out in silence.
///
/// Proves XD-024.
#[tokio::test(start_paused = true)]
async fn a_skipped_reference_is_named_to_the_sender() {
    let net = Net::with(&["profile.xdm.partial_lists=true"]).await;
    let reference =
        format!("{ROOT}/resource-lists/users/sip:alice@ims.test/index/~~/resource-lists/list");
    let external = format!("<external anchor=\"{reference}\"/></list>");
    net.shelf.holds(&TEAM.replace("</list>", &external));
    let mut alice = net.scscf().sends(invite().group(GROUP)).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    let answer = alice.is_answered().await;
    let warnings = headers(&answer.message, "Warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("399 ") && warnings[0].contains(&reference), "{warnings:?}");
    carol.refuses(486).await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Nothing that reaches the originator tells a rule from a phone that says no.
///
/// Proves IM-090.
#[tokio::test(start_paused = true)]
async fn a_block_cannot_be_told_from_another_refusal() {
    let mut answers = Vec::new();
    for blocked in [true, false] {
        let net = Net::with(&[ASKS]).await;
        if blocked {
            rejects(&net, "bob", "alice");
        }
        let sent = tokio::time::Instant::now();
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let before = alice.gets_progress(183, SOON).await;
        if blocked {
            net.scscf().gets_no_invite().await;
        } else {
            let [bob] = net.scscf().gets_invites().await;
            net.after(millis(400)).await;
            bob.refuses(403).await;
        }
        let refused = alice.gets_within(403, seconds(1)).await;
        let after = refused.at - sent;
        assert!(after >= millis(400) && after < millis(700), "{after:?}");
        let names: Vec<String> = refused
            .message
            .all_headers()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect();
        let start = text::start_line(&refused.message);
        answers.push((start, names, headers(&refused.message, "Warning"), before.at - sent));
        net.ends().await;
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].2.is_empty(), "and no word of why");
}

/// Proves IM-090, XD-034, XD-035.
#[tokio::test(start_paused = true)]
async fn a_block_list_decides_before_what_is_for_everybody() {
    let net = Net::with(&[ASKS]).await;
    net.shelf.holds(TEAM);
    let list = format!(
        "<ocp:external-list><ocp:entry anc=\"{ROOT}/resource-lists/users/sip:bob@ims.test/index/~~/resource-lists/\
         list%5b@name=%22oma_blockedcontacts%22%5d\"/></ocp:external-list>"
    );
    has_rules(&net, "bob", &[(&list, "reject"), (MANY, "accept")]);
    // Nobody has seen the list yet, so nobody is shut out by it.
    let mut alice = net.scscf().sends(invite().group(GROUP)).await;
    let legs = net.scscf().gets_invites::<2>().await;
    for leg in &legs {
        leg.refuses(486).await;
    }
    alice.gets(486).await;
    net.shelf.holds_lists(
        "resource-lists/users/sip:bob@ims.test/index",
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"oma_blockedcontacts\">\
         <entry uri=\"sip:alice@ims.test\"/></list></resource-lists>",
    );
    let mut alice = net.scscf().sends(invite().group(GROUP)).await;
    let [mut carol] = net.scscf().gets_invites().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page_to(GROUP, "to the team");
    alice.sends_page(&page).await;
    carol.got().await;
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    let results = net.results();
    assert!(results.contains(&"bob failed policy 403".to_owned()), "{results:?}");
    net.ends().await;
}

/// Proves IM-090.
#[tokio::test(start_paused = true)]
async fn a_recipient_nobody_can_ask_about_is_invited() {
    for slow in [false, true] {
        let net = Net::with(&[ASKS]).await;
        rejects(&net, "bob", "alice");
        if slow {
            net.shelf.takes_time(seconds(30));
        } else {
            net.shelf.is_down();
        }
        let sent = tokio::time::Instant::now();
        let names: Vec<_> = (0..40).map(|n| format!("sip:u{n}@ims.test")).collect();
        let uris = names.iter().map(String::as_str).chain(["sip:bob@ims.test"]);
        let mut alice = net.scscf().sends(invite().listing(uris)).await;
        let first = net.scscf().hears_of("INVITE", seconds(5), text::is_initial).await;
        assert!(first.at - sent <= millis(2100), "{:?}", first.at - sent);
        let mut invited = 1;
        while let Some(heard) = net.scscf().takes(&text::is_initial) {
            invited += usize::from(heard.message.is_request());
        }
        assert_eq!(invited, 41);
        alice.cancels();
        alice.gets(487).await;
        net.after(seconds(70)).await;
        net.ends_somehow().await;
    }
}

/// A request for Bob in the terminating case, and its ACK.
fn for_bob(net: &Net, method: &str, lines: &str) -> (String, String) {
    let n = net.scscf().number();
    let text = |method: &str| {
        format!(
            "{method} sip:bob@ims.test SIP/2.0\n\
             Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-door{n}\n\
             Max-Forwards: 66\n\
             Route: <sip:127.0.0.1:5090;lr>, <sip:odi{n}@127.0.0.1:5060;transport=tcp;lr>\n\
             P-Asserted-Identity: <sip:alice@ims.test>\n\
             P-Served-User: <sip:bob@ims.test>;sescase=term;regstate=reg\n\
             From: <sip:alice@ims.test>;tag=d{n}\n\
             To: <sip:bob@ims.test>\n\
             Call-ID: door-{n}@ims.test\n\
             CSeq: 1 {method}\n\
             {lines}"
        )
    };
    (text(method) + "\n", text("ACK") + "\n")
}

const LARGE: &str = "Contact: <sip:alice@192.0.2.55:5060>;+g.oma.sip-im.large-message\n\
                     Accept-Contact: *;+g.oma.sip-im.large-message\n";

/// Proves IM-090, IM-091.
#[tokio::test(start_paused = true)]
async fn in_the_terminating_case_the_recipient_s_own_rules_decide() {
    let any = |message: &Message| message.is_request() || message.status() != Some(100);
    for b2bua in [false, true] {
        let relay = if b2bua { "profile.isc.relay=b2bua" } else { "profile.isc.relay=proxy" };
        // Whether Bob's rules reject, whether he is there, the request, and what comes of it.
        for (rejected, active, method, lines, want) in [
            (true, true, "INVITE", LARGE, Some(403)),
            (true, true, "MESSAGE", "", Some(403)),
            (false, false, "INVITE", LARGE, Some(480)),
            (false, false, "MESSAGE", "", Some(480)),
            (false, true, "INVITE", LARGE, None),
            // A call is none of this service's business.
            (true, false, "INVITE", "Contact: <sip:alice@192.0.2.55:5060>\n", None),
        ] {
            let net = Net::with(&[relay]).await;
            if rejected {
                rejects(&net, "bob", "alice");
            }
            is_active(&net, "bob", active);
            let (request, ack) = for_bob(&net, method, lines);
            net.scscf().delivers(&request);
            let heard = net.scscf().hears_of("what follows", SOON, any).await.message;
            assert_eq!(heard.status(), want, "{rejected} {active} {method} {relay}");
            if let Some(status) = want {
                assert!(headers(&heard, "Warning").is_empty(), "{status}: no word of why");
                assert!(text::tag(&header(&heard, "To")).len() > 3, "{status} has a tag");
                if method == "INVITE" {
                    net.scscf().delivers(&ack);
                }
                // The ACK goes no further, and the same request is told the same.
                net.after(millis(10)).await;
                while net
                    .scscf()
                    .takes(&|message: &Message| message.status() == Some(100))
                    .is_some()
                {}
                net.is_quiet();
                net.scscf().delivers(&request);
                let again = net.scscf().hears_of("the same", SOON, any).await.message;
                assert_eq!(again.status(), want);
            } else {
                assert_eq!(
                    (text::method(&heard).as_str(), heard.uri()),
                    (method, "sip:bob@ims.test")
                );
            }
        }
    }
}

/// Proves IM-091.
#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_asked_about_passes_with_its_cancel_behind() {
    let net = Net::new().await;
    rejects(&net, "bob", "alice");
    net.shelf.takes_time(seconds(30));
    let (request, ack) = for_bob(&net, "INVITE", LARGE);
    let sent = tokio::time::Instant::now();
    net.scscf().delivers(&request);
    net.after(millis(300)).await.is_quiet();
    net.scscf().delivers(&request);
    net.scscf().delivers(&ack.replace("ACK", "CANCEL"));
    let invite = net.scscf().hears_of("INVITE", seconds(3), |m| m.is_request()).await;
    assert!(invite.at - sent <= millis(1600), "{:?}", invite.at - sent);
    assert_eq!(text::method(&invite.message), "INVITE");
    let cancel = net.scscf().hears_of("CANCEL", SOON, |m| m.is_request()).await;
    assert_eq!(text::method(&cancel.message), "CANCEL");
    net.after(seconds(1)).await.is_quiet();
    net.ends().await;
}

/// Proves IM-022, IM-040, XD-036.
#[tokio::test(start_paused = true)]
async fn who_may_stay_unknown_sends_a_page_and_who_may_not_is_told() {
    let hidden = || invite().line("Privacy: id");
    let allowed = TEAM.replace(
        "</allow-initiate-conference>",
        "</allow-initiate-conference><allow-anonymity>true</allow-anonymity>",
    );
    for (offer, dialled, legs) in [
        (hidden().to(["bob"]), "sip:pages@ims.test", 1),
        (hidden().to(["bob", "carol"]), "sip:pages@ims.test", 2),
        (hidden().group(GROUP), GROUP, 2),
    ] {
        let net = Net::new().await;
        net.shelf.holds(&allowed);
        let mut alice = net.scscf().sends(offer).await;
        let mut callees = Vec::new();
        for name in ["bob", "carol"].into_iter().take(legs) {
            callees.push(net.scscf().invites(name).await);
        }
        net.scscf().gets_no_invite().await;
        for callee in &mut callees {
            let from = header(&callee.invite, "From");
            assert!(from.contains("<sip:anonymous@anonymous.invalid>"), "{from}");
            assert!(headers(&callee.invite, "Referred-By").is_empty());
            assert!(!String::from_utf8_lossy(callee.invite.body()).contains("alice"));
            assert_eq!(header(&callee.invite, "Privacy"), "id");
            callee.answers().await;
        }
        alice.is_answered().await;
        let mut page = page_to(dialled, "guess who");
        let text = String::from_utf8(page.octets).expect("text");
        let nobody = "sip:anonymous@anonymous.invalid";
        page.octets = text.replace("sip:alice@ims.test", nobody).into_bytes();
        alice.sends_page(&page).await;
        for callee in &mut callees {
            let octets = callee.got().await.octets;
            let text = String::from_utf8_lossy(&octets);
            assert!(text.ends_with("guess who") && !text.contains("alice"), "{text}");
        }
        alice.hangs_up().await;
        for callee in &callees {
            callee.is_told_bye(seconds(6)).await;
        }
        net.ends().await;
    }
    let net = Net::new().await;
    net.shelf.holds(TEAM);
    let mut alice = net.scscf().sends(hidden().group(GROUP)).await;
    let refused = alice.gets(403).await;
    assert!(header(&refused.message, "Warning").contains("\"Anonymity not allowed\""));
    // To hide the way a session takes is no anonymity.
    let mut alice = net.scscf().sends(invite().group(GROUP).line("Privacy: session")).await;
    for leg in net.scscf().gets_invites::<2>().await {
        leg.refuses(486).await;
    }
    alice.gets(486).await;
    net.ends().await;
}

/// Proves IM-024, IM-035.
#[tokio::test(start_paused = true)]
async fn the_barred_are_neither_sender_nor_recipient_nor_member() {
    for by_operator in [false, true] {
        let set: &[&str] =
            if by_operator { &[] } else { &["service.barred=['sip:carol@ims.test']"] };
        let net = Net::with(set).await;
        net.shelf.holds(TEAM);
        let control = &net.scscf().control;
        if by_operator {
            control.bar("sip:carol@ims.test", true).await.expect("a URI");
        }
        let mut carol = net.scscf().sends(invite().by("carol").to(["bob"])).await;
        let refused = carol.gets(403).await;
        assert!(header(&refused.message, "Warning").contains("\"127 Service not authorised\""));
        net.scscf().gets_no_invite().await;
        assert_eq!(net.shelf.fetches(), 0, "before anything is looked up");
        let (list, team) = (invite().to(["bob", "carol"]), invite().group(GROUP));
        for (offer, dialled) in [(list, "sip:pages@ims.test"), (team, GROUP)] {
            let mut alice = net.scscf().sends(offer).await;
            let [mut bob] = net.scscf().gets_invites().await;
            assert_eq!(bob.name, "bob");
            bob.answers().await;
            alice.is_answered().await;
            alice.sends_page(&page_to(dialled, "not for Carol")).await;
            bob.got().await;
            alice.hangs_up().await;
            bob.is_told_bye(seconds(6)).await;
            let results = net.results();
            assert!(results.contains(&"bob delivered".to_owned()), "{results:?}");
            assert!(results.contains(&"carol removed policy 0".to_owned()), "{results:?}");
        }
        let mut alice = net.scscf().sends(invite().to(["carol"])).await;
        let refused = alice.gets(403).await;
        assert!(header(&refused.message, "Warning").contains("\"No destinations\""));
        if by_operator {
            control.bar("sip:carol@ims.test", false).await.expect("a URI");
            let mut alice = net.scscf().sends(invite().to(["carol"])).await;
            let [carol] = net.scscf().gets_invites().await;
            carol.refuses(486).await;
            alice.gets(486).await;
        }
        net.ends().await;
    }
}

/// Proves IM-024.
#[tokio::test(start_paused = true)]
async fn a_barred_number_is_barred_in_both_its_forms() {
    let number = "sip:+15551230001@ims.test;user=phone";
    let own = "<sip:alice@ims.test>";
    for (barred, asserted) in [
        (number, format!("{own}, <tel:+1-555-123-0001>")),
        ("tel:+15551230001", format!("<{number}>")),
        ("tel:+15551230001", format!("{own}, <tel:+15551230001>")),
    ] {
        let net = Net::new().await;
        net.scscf().control.bar(barred, true).await.expect("a URI");
        let asserted = format!("P-Asserted-Identity: {asserted}\n");
        let offer = invite().instead("P-Asserted-Identity: <sip:alice@ims.test>\n", &asserted);
        let mut alice = net.scscf().sends(offer.to(["bob"])).await;
        alice.gets(403).await;
        net.ends().await;
    }
}

/// Proves IM-036.
#[tokio::test(start_paused = true)]
async fn a_user_has_one_limit_by_whatever_name() {
    let own = "P-Asserted-Identity: <sip:alice@ims.test>\n";
    let by = |names: &str| invite().instead(own, &format!("P-Asserted-Identity: {names}\n"));
    for (key, rate) in [
        ("profile.im.max_parallel_per_user=1", false),
        ("profile.im.max_rate_per_user='1/s'", true),
    ] {
        let net = Net::with(&[key]).await;
        let both = by("<sip:alice@ims.test>, <tel:+15550001>");
        let mut first = net.scscf().sends(both.to(["bob"])).await;
        let [mut bob] = net.scscf().gets_invites().await;
        for names in [
            "<tel:+1-555-0001>",
            "<sip:+15550001@ims.test;user=phone>",
            "<tel:+15550001>, <sip:alice@ims.test>",
            "<sip:alice@IMS.test>",
        ] {
            let mut again = net.scscf().sends(by(names).to(["carol"])).await;
            let refused = again.gets(486).await;
            let warning = header(&refused.message, "Warning");
            assert!(warning.contains("\"102 Too many participants\""), "{names}: {warning}");
        }
        net.scscf().gets_no_invite().await;
        // The page that runs is not disturbed, and afterwards there is room again.
        bob.answers().await;
        first.is_answered().await;
        let page = page("undisturbed");
        first.sends_page(&page).await;
        assert_eq!(bob.got().await.octets, page.octets);
        first.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
        net.after(seconds(if rate { 1 } else { 6 })).await;
        let mut later = net.scscf().sends(by("<tel:+15550001>").to(["carol"])).await;
        let [carol] = net.scscf().gets_invites().await;
        carol.refuses(486).await;
        later.gets(486).await;
        net.ends().await;
    }
}

/// The list of section 10.4 of the XDM rules.
///
/// Proves XD-027, XD-028, UL-021, UL-022, UL-023, UL-024.
#[tokio::test(start_paused = true)]
async fn recipients_see_of_each_other_what_the_list_allows() {
    let entry =
        |name: &str, control: &str| format!("<entry uri=\"sip:{name}@ims.test\"{control}/>\n");
    let to = |name| entry(name, " cp:copyControl=\"to\"");
    let offer = invite()
        .to(["bob", "carol", "dave", "erin"])
        .instead(&to("carol"), &entry("carol", " cp:copyControl=\"cc\" cp:anonymize=\"true\""))
        .instead(&to("dave"), &entry("dave", " cp:copyControl=\"bcc\""))
        .instead(&to("erin"), &entry("erin", ""));
    let net = Net::new().await;
    let mut alice = net.scscf().sends(offer).await;
    let legs = net.scscf().gets_invites::<4>().await;
    let names = ["bob", "carol", "dave", "erin"];
    for leg in &legs {
        let body = String::from_utf8_lossy(leg.invite.body()).into_owned();
        assert!(
            body.contains("Content-Disposition: recipient-list-history; handling=optional\r\n")
        );
        let list = &body[body.find("<resource-lists").expect("a history list")..];
        assert_eq!(list.matches("<entry ").count(), 2, "{list}");
        let line = |uri: &str, rest: &[&str]| {
            let entry = list.split("<entry ").find(|part| part.contains(uri)).expect("an entry");
            rest.iter().for_each(|text| assert!(entry.contains(text), "{entry}"));
        };
        line("sip:bob@ims.test", &["copyControl=\"to\""]);
        line("sip:anonymous@anonymous.invalid", &["copyControl=\"cc\"", "count=\"1\""]);
        assert!(!list.contains("anonymize"), "{list}");
        // Nowhere in what one gets stand those whom the list hides from all.
        let everything = String::from_utf8_lossy(leg.invite.bytes()).into_owned();
        for hidden in names.iter().filter(|name| **name != "bob" && **name != leg.name) {
            assert!(!everything.contains(hidden), "{} sees {hidden}: {everything}", leg.name);
        }
        leg.refuses(486).await;
    }
    alice.gets(486).await;
    net.ends().await;
}
