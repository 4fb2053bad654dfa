//! A large message of OMA CPM under the profile `rcs-cpm`, from an RCS client to two others.

use std::path::Path;

use crate::caller::Page;
use crate::net::{Net, SOON, seconds};
use crate::text::{Invite, attribute, header, headers, invite};

const LARGE: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
const TAG: &str = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";

async fn rcs() -> Net {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ims-profiles/rcs-cpm.toml");
    Net::with(&[&format!("profile={}", file.display())]).await
}

/// An INVITE as an RCS client writes it: no feature tag of OMA SIMPLE IM in it.
fn standalone(service: &str) -> Invite {
    let tag = format!("+g.3gpp.icsi-ref=\"{}\"", service.replace(':', "%3A"));
    invite()
        .to(["bob", "carol"])
        .instead("+g.oma.sip-im.large-message", &tag)
        .line("User-Agent: IM-client/OMA2.0 RCS-client/7.0")
        .line(&format!("P-Preferred-Service: {service}"))
        .line("Conversation-ID: f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
        .line("Contribution-ID: abcdef-1234-5678-90ab-cdef01234567")
        .line("InReplyTo-Contribution-ID: 01234567-89ab-cdef-0123-456789abcdef")
}

/// Proves IM-025, IM-049, ISC-034, ISC-036.
#[tokio::test(start_paused = true)]
async fn a_standalone_message_of_cpm_reaches_everybody_under_its_own_service() {
    let net = rcs().await;
    let offer = standalone(LARGE).line(&format!("P-Asserted-Service: {LARGE}"));
    let mut alice = net.scscf().sends(offer).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    for leg in [&bob, &carol] {
        let one = |name: &str| header(&leg.invite, name);
        assert_eq!(one("P-Asserted-Service"), LARGE);
        assert!(headers(&leg.invite, "P-Preferred-Service").is_empty(), "a hint to the core alone");
        assert!(headers(&leg.invite, "Accept-Contact").contains(&format!("*;{TAG}")));
        assert!(one("Contact").contains(&format!(">;+g.oma.sip-im.large-message;{TAG}")));
        assert_eq!(one("Conversation-ID"), "f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
        assert_eq!(one("Contribution-ID"), "abcdef-1234-5678-90ab-cdef01234567");
        assert_eq!(one("InReplyTo-Contribution-ID"), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(attribute(&leg.invite, "accept-types").as_deref(), Some("message/cpim"));
    }
    bob.answers().await;
    carol.answers().await;
    let answer = alice.is_answered().await;
    assert!(header(&answer.message, "Contact").contains(TAG));
    assert!(headers(&answer.message, "P-Asserted-Service").is_empty(), "never in a response");
    let octets = "From: <sip:alice@ims.test>\r\nTo: <sip:pages@ims.test>\r\n\
                  DateTime: 2026-01-02T03:04:05Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
                  imdn.Message-ID: Msg34jk324j\r\n\
                  imdn.Disposition-Notification: positive-delivery, display\r\n\r\n\
                  Content-Type: text/plain;charset=UTF-8\r\n\r\n"
        .to_owned()
        + &"more than thirteen hundred octets ".repeat(60);
    let page = Page { content_type: "message/cpim", octets: octets.into_bytes() };
    alice.sends_page(&page).await;
    for leg in [&mut bob, &mut carol] {
        let taken = leg.got().await;
        assert!(taken.octets == page.octets, "the message's id and what it asks for go along");
        assert_ne!(taken.message_id, "page1", "the id of the transfer is each leg's own");
    }
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves ISC-035.
#[tokio::test(start_paused = true)]
async fn only_large_messages_of_cpm_are_taken_for_pages() {
    let net = rcs().await;
    for (service, refused) in [
        ("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg.group", None),
        ("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session", Some(488)),
        ("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.filetransfer", Some(488)),
    ] {
        let mut alice = net.scscf().sends(standalone(service)).await;
        if let Some(status) = refused {
            let refusal = alice.gets(status).await;
            assert!(header(&refusal.message, "Warning").contains("missing"), "{service}");
            continue;
        }
        let legs = net.scscf().gets_invites::<2>().await;
        for leg in &legs {
            // Nobody asserted a service, so it is ours that legs assert, not what the phone would prefer.
            assert_eq!(header(&leg.invite, "P-Asserted-Service"), LARGE);
            leg.refuses(486).await;
        }
        alice.gets_within(486, SOON).await;
    }
    // What a phone prefers is no service by itself.
    let hint = standalone(LARGE).instead(&format!("Accept-Contact: *;{TAG}\n"), "");
    let mut alice = net.scscf().sends(hint.instead(&format!(";{TAG}\n"), "\n")).await;
    alice.gets(488).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;
}
