//! Who is invited, and how: OMA sections A and B.

use std::collections::BTreeSet;

use crate::caller::page;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, header, headers, invite};

/// Proves IM-001.
#[tokio::test(start_paused = true)]
async fn every_recipient_gets_a_dialog_of_its_own() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let legs = net.scscf().gets_invites::<3>().await;
    let mut call_ids = BTreeSet::from([alice.call_id.clone()]);
    let mut from_tags = BTreeSet::new();
    let mut branches = BTreeSet::new();
    let mut sessions = BTreeSet::new();
    for leg in &legs {
        assert!(call_ids.insert(leg.call_id.clone()), "a Call-ID of its own");
        assert!(from_tags.insert(text::tag(&header(&leg.invite, "From"))), "a From tag of its own");
        assert!(branches.insert(header(&leg.invite, "Via")), "a branch of its own");
        let path = text::attribute(&leg.invite, "path").expect("a path");
        assert!(sessions.insert(path), "an MSRP session of its own");
        assert_eq!(header(&leg.invite, "CSeq"), "1 INVITE");
        leg.refuses(480).await;
    }
    assert!(from_tags.iter().all(|tag| !tag.starts_with("a0")), "none is the originator's");
    alice.gets(480).await;
    net.ends().await;
}

/// Proves IM-002.
#[tokio::test(start_paused = true)]
async fn every_invite_is_built_by_the_common_rules() {
    let net = Net::new().await;
    let offer = invite().to(["bob", "carol"]).line("Subject: Minutes").line("X-Unknown: 1");
    let mut alice = net.scscf().sends(offer).await;
    for leg in net.scscf().gets_invites::<2>().await {
        let (name, message) = (&leg.name, &leg.invite);
        let one = |of: &str| header(message, of);
        // IM-038, IM-039.
        assert_eq!(message.uri(), format!("sip:{name}@ims.test"));
        assert_eq!(one("To"), format!("<sip:{name}@ims.test>"));
        assert!(one("From").starts_with("<sip:alice@ims.test>;tag="), "{}", one("From"));
        assert_eq!(one("P-Asserted-Identity"), "<sip:alice@ims.test>");
        // IM-040: nobody asked for privacy.
        assert!(headers(message, "Privacy").is_empty());
        // IM-041, IM-042, IM-043, IM-044.
        assert_eq!(one("Accept-Contact"), "*;+g.oma.sip-im.large-message");
        let contact = one("Contact");
        assert!(contact.ends_with(">;+g.oma.sip-im.large-message;isfocus"), "{contact}");
        assert_eq!(one("Referred-By"), "<sip:alice@ims.test>");
        assert!(one("User-Agent").starts_with("IM-serv/OMA1.0 pagecast/"));
        // IM-045.
        assert_eq!(one("Supported"), "100rel, timer");
        assert_eq!((one("Session-Expires"), one("Min-SE")), ("1800".into(), "90".into()));
        assert!(headers(message, "Require").is_empty());
        // IM-046.
        let allow = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS";
        assert_eq!((one("Allow").as_str(), one("Max-Forwards").as_str()), (allow, "66"));
        assert_eq!(one("Accept"), "application/sdp, message/sipfrag, multipart/mixed");
        // IM-047.
        let body = String::from_utf8_lossy(message.body()).into_owned();
        let history = "Content-Disposition: recipient-list-history; handling=optional";
        assert!(!body.contains("recipient-list\r\n"), "{body}");
        assert_eq!(body.contains(history), one("Content-Type").starts_with("multipart/mixed"));
        // IM-048.
        assert_eq!(one("Subject"), "Minutes");
        assert!(headers(message, "X-Unknown").is_empty());
        assert!(headers(message, "Record-Route").is_empty());
        // IM-049, IM-050.
        assert!(headers(message, "P-Asserted-Service").is_empty());
        assert!(
            one("Route").contains("@127.0.0.1:5060;transport=tcp;lr;orig>")
                || one("Route").starts_with("<sip:127.0.0.1:5060"),
            "{}",
            one("Route")
        );
        assert!(one("P-Served-User").starts_with("<sip:alice@ims.test>"));
        assert!(one("P-Charging-Vector").contains("icid-value="));
        leg.refuses(480).await;
    }
    alice.gets(480).await;
    net.ends().await;
}

/// Proves IM-003, UL-034.
#[tokio::test(start_paused = true)]
async fn a_list_is_fanned_out_to_its_distinct_users() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "bob", "pages"])).await;
    let legs = net.scscf().gets_invites::<2>().await;
    assert_eq!(
        legs.each_ref().map(|leg| leg.invite.uri()),
        ["sip:bob@ims.test", "sip:carol@ims.test"]
    );
    for leg in &legs {
        leg.refuses(486).await;
    }
    alice.gets(486).await;
    net.ends().await;
}

pub const TEAM: &str = r#"<group xmlns="urn:oma:xml:poc:list-service"
       xmlns:rl="urn:ietf:params:xml:ns:resource-lists" xmlns:cp="urn:ietf:params:xml:ns:common-policy">
  <list-service uri="sip:team@groups.ims.test">
    <list>
      <entry uri="sip:alice@ims.test"/><entry uri="sip:bob@ims.test"/><entry uri="sip:carol@ims.test"/>
    </list>
    <invite-members>true</invite-members>
    <max-participant-count>20</max-participant-count>
    <cp:ruleset>
      <cp:rule id="members">
        <cp:conditions><is-list-member/></cp:conditions>
        <cp:actions><allow-initiate-conference>true</allow-initiate-conference></cp:actions>
      </cp:rule>
    </cp:ruleset>
  </list-service>
</group>"#;

/// Proves IM-004.
#[tokio::test(start_paused = true)]
async fn a_group_is_fanned_out_to_its_members_but_the_sender() {
    let net = Net::new().await;
    net.shelf.holds(TEAM);
    let mut alice = net.scscf().sends(invite().group("sip:team@groups.ims.test")).await;
    let legs = net.scscf().gets_invites::<2>().await;
    assert_eq!(legs.each_ref().map(|leg| leg.name.as_str()), ["bob", "carol"]);
    assert_eq!(net.shelf.fetches(), 1, "the document was asked for");
    for leg in &legs {
        leg.refuses(486).await;
    }
    alice.gets(486).await;
    assert_eq!(net.results()[..2], ["bob failed SIP 486", "carol failed SIP 486"]);
    net.ends().await;
}

/// Proves IM-033.
#[tokio::test(start_paused = true)]
async fn a_group_nobody_can_reach_or_use_is_refused() {
    let net = Net::new().await;
    net.shelf.holds(TEAM);
    let mut nobody = net.scscf().sends(invite().group("sip:nobody@groups.ims.test")).await;
    nobody.gets(404).await;
    let to_team = invite().group("sip:team@groups.ims.test");
    let mut mallory = net.scscf().sends(to_team.by("mallory")).await;
    let refused = mallory.gets(403).await;
    assert!(header(&refused.message, "Warning").contains("Function not allowed"));
    net.shelf.is_down();
    let mut alice = net.scscf().sends(invite().group("sip:team@groups.ims.test")).await;
    let refused = alice.gets(480).await;
    assert!(!header(&refused.message, "Retry-After").is_empty());
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// Proves IM-011, IM-012.
#[tokio::test(start_paused = true)]
async fn reliable_responses_are_acknowledged_once_and_in_order() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, carol] = net.scscf().gets_invites().await;
    bob.tries();
    bob.progresses();
    net.after(SOON).await;
    assert!(!bob.has_heard("PRACK"), "neither 100 nor a 183 without 100rel");
    bob.progresses_reliably(4711);
    let prack = bob.gets_prack().await.message;
    assert_eq!(header(&prack, "RAck"), "4711 1 INVITE");
    assert_eq!(
        (prack.uri(), header(&prack, "CSeq").as_str()),
        ("sip:bob@192.0.2.77:5060", "2 PRACK")
    );
    assert_eq!(text::tag(&header(&prack, "To")), bob.tag);
    assert_eq!(headers(&prack, "Route"), [text::RECORD_ROUTE]);
    bob.progresses_reliably(4711);
    net.after(SOON).await;
    assert!(!bob.has_heard("PRACK"), "a repetition is not acknowledged again");

    carol.progresses_reliably(1);
    assert_eq!(header(&carol.gets_prack().await.message, "RAck"), "1 1 INVITE");
    carol.progresses_reliably(3);
    net.after(SOON).await;
    assert!(!carol.has_heard("PRACK"), "2 is missing");
    carol.progresses_reliably(2);
    assert_eq!(header(&carol.gets_prack().await.message, "RAck"), "2 1 INVITE");
    // Held back or sent again by its peer: now it is in order.
    net.after(SOON).await;
    if !carol.has_heard("PRACK") {
        carol.progresses_reliably(3);
        assert_eq!(header(&carol.gets_prack().await.message, "RAck"), "3 1 INVITE");
    }
    bob.refuses(486).await;
    carol.refuses(486).await;
    alice.gets(486).await;
    net.ends().await;
}

/// Proves IM-014, IM-016.
#[tokio::test(start_paused = true)]
async fn the_answer_says_where_later_requests_go() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.contact = "sip:early@192.0.2.77:5070".to_owned();
    bob.progresses_reliably(1);
    assert_eq!(bob.gets_prack().await.message.uri(), bob.contact);
    bob.contact = "sip:answered@192.0.2.77:5080".to_owned();
    bob.accepts();
    assert_eq!(bob.hears("ACK", SOON).await.message.uri(), bob.contact);
    bob.accepts();
    assert_eq!(bob.hears("ACK", SOON).await.message.uri(), bob.contact, "and again");
    bob.binds().await;
    alice.is_answered().await;
    let page = page("short");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    assert_eq!(bob.is_told_bye(seconds(6)).await.message.uri(), bob.contact);
    net.ends().await;
}

/// Proves IM-017, IM-019, IM-051, IM-058, MS-085.
#[tokio::test(start_paused = true)]
async fn a_late_recipient_gets_the_page_from_its_first_octet() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.rings();
    carol.answers().await;
    alice.is_answered().await;
    let page = page("Who takes the night shift?");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    carol.is_told_bye(seconds(6)).await;
    alice.hangs_up().await;
    net.after(seconds(20)).await;
    bob.answers().await;
    assert_eq!(bob.got().await.octets, page.octets);
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-020.
#[tokio::test(start_paused = true)]
async fn the_originator_hears_that_it_goes_on() {
    for (reliable, every) in [(false, 60), (true, 150)] {
        let net = Net::with(&["profile.im.leg_timeout=400s"]).await;
        let offer = invite().to(["bob"]);
        let offer = if reliable { offer.reliable() } else { offer };
        // `sends` has seen the 100 within 200 ms.
        let mut alice = net.scscf().sends(offer).await;
        let [bob] = net.scscf().gets_invites().await;
        bob.tries();
        let mut last = None;
        for _ in 0..3 {
            let within = last.map_or(millis(1500), |_| seconds(every + 1));
            let heard = if reliable {
                alice.gets_reliable(183, within).await
            } else {
                let heard = alice.gets_progress(183, within).await;
                assert!(headers(&heard.message, "Require").is_empty());
                heard
            };
            if let Some(last) = last.replace(heard.at) {
                let gap = heard.at - last;
                assert!(gap >= seconds(every - 1) && gap <= seconds(every + 1), "{gap:?}");
            }
        }
        bob.refuses(486).await;
        alice.gets(486).await;
        net.ends().await;
    }
}

/// Proves IM-031.
#[tokio::test(start_paused = true)]
async fn a_list_that_names_nobody_is_refused() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["alice"])).await;
    let refused = alice.gets(403).await;
    assert!(header(&refused.message, "Warning").contains("\"No destinations\""));
    let mut without = net.scscf().sends(invite()).await;
    without.gets(400).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// Proves IM-032.
#[tokio::test(start_paused = true)]
async fn one_recipient_too_many_and_nobody_is_invited() {
    let net = Net::new().await;
    let uris: Vec<_> = (0..51).map(|n| format!("sip:user{n}@ims.test")).collect();
    let offer = |n: usize| invite().listing(uris[..n].iter().map(String::as_str));
    let mut alice = net.scscf().sends(offer(51)).await;
    let refused = alice.gets(486).await;
    assert!(header(&refused.message, "Warning").contains("102 Too many participants"));
    net.scscf().gets_no_invite().await;

    let mut alice = net.scscf().sends(offer(50)).await;
    for leg in net.scscf().gets_invites::<50>().await {
        leg.refuses(404).await;
    }
    alice.gets(404).await;
    net.ends().await;
}

/// Proves UL-033.
#[tokio::test(start_paused = true)]
async fn addresses_are_no_recipients() {
    let net = Net::with(&["profile.ul.allow_loopback_targets=false"]).await;
    let uris: Vec<_> = (1..=50).map(|n| format!("sip:x@198.51.100.{n}")).collect();
    let mut alice = net.scscf().sends(invite().listing(uris.iter().map(String::as_str))).await;
    let refused = alice.gets(403).await;
    assert!(header(&refused.message, "Warning").contains("\"No destinations\""));
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// Proves UL-032.
#[tokio::test(start_paused = true)]
async fn without_permission_nobody_is_invited() {
    let net = Net::with(&["profile.ul.consent=rfc5360"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let refused = alice.gets(470).await;
    assert_eq!(header(&refused.message, "Permission-Missing"), "<sip:bob@ims.test>");
    net.scscf().gets_no_invite().await;
    net.ends().await;
}
