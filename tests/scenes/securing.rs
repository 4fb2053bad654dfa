//! Pages over TLS, and recipients that take none (IM-078, MS-112).

use crate::caller::page;
use crate::identity;
use crate::line::Line;
use crate::net::{Net, SOON, seconds};
use crate::text::{self, attribute, invite};

const TLS: &str = "msrp.tls.listen=['127.0.0.1:2856']";

/// The media line of a description.
fn media(message: &pagecast::sip::message::Message) -> String {
    let body = String::from_utf8_lossy(message.body()).into_owned();
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with("m=")).collect();
    lines.join(" ")
}

/// Proves IM-078, MS-007, MS-019, MS-112.
#[tokio::test(start_paused = true)]
async fn what_comes_over_tls_goes_over_tls_to_everybody() {
    let net = Net::with(&[TLS]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).secure()).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    for offer in [&bob.invite, &carol.invite] {
        assert_eq!(media(offer), "m=message 2856 TCP/TLS/MSRP *");
        let path = attribute(offer, "path").expect("a path");
        assert!(path.starts_with("msrps://127.0.0.1:2856/"), "{path}");
        let print = attribute(offer, "fingerprint").expect("a fingerprint");
        assert!(print.starts_with("sha-256 "), "{print}");
        assert_ne!(print, identity::phones().fingerprint(), "that of one hop");
        let body = String::from_utf8_lossy(offer.body()).into_owned();
        assert_eq!(body.matches("a=fingerprint:").count(), 1);
    }
    bob.answers().await;
    carol.answers().await;
    let answer = alice.is_answered().await.message;
    assert_eq!(media(&answer), "m=message 2856 TCP/TLS/MSRP *");
    let page = page(&"between us alone ".repeat(2000));
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-078: TLS in, and a recipient that takes it plain only, in the three ways there are to say so.
#[tokio::test(start_paused = true)]
async fn who_takes_no_tls_gets_nothing() {
    let net = Net::with(&[TLS]).await;
    let offer = invite().to(["bob", "carol", "dan", "erin"]).secure();
    let mut alice = net.scscf().sends(offer).await;
    let [mut bob, carol, dan, erin] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.refuses(488).await;
    dan.accepts_with(&text::answer_sdp("msrp://192.0.2.77:2855/plain;tcp"));
    dan.hears("ACK", SOON).await;
    dan.is_told_bye(SOON).await;
    erin.accepts_with(&text::answer_sdp(erin.path()).replace("m=message 9", "m=message 0"));
    erin.hears("ACK", SOON).await;
    erin.is_told_bye(SOON).await;
    alice.is_answered().await;
    let page = page("between us alone");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    let failed = ["carol", "dan", "erin"].map(|name| format!("{name} failed SIP 488"));
    assert_eq!(net.results()[0], "bob delivered");
    assert_eq!(net.results()[1..], failed);
    net.ends().await;
}

/// Proves IM-078.
#[tokio::test(start_paused = true)]
async fn who_takes_no_tls_is_asked_again_without_where_that_is_allowed() {
    let net = Net::with(&[TLS, "profile.im.tls_downgrade=allow"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).secure()).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    carol.answers().await;
    bob.refuses(488).await;
    let mut bob = bob.is_invited_again().await;
    assert_eq!(media(&bob.invite), "m=message 2855 TCP/MSRP *");
    assert!(attribute(&bob.invite, "fingerprint").is_none());
    bob.answers().await;
    alice.is_answered().await;
    let page = page("for everybody to read");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-078: asked twice, and no more.
#[tokio::test(start_paused = true)]
async fn who_takes_neither_has_failed() {
    let net = Net::with(&[TLS, "profile.im.tls_downgrade=allow"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob"]).secure()).await;
    let [bob] = net.scscf().gets_invites().await;
    bob.refuses(488).await;
    let bob = bob.is_invited_again().await;
    bob.refuses(488).await;
    alice.gets(488).await;
    assert_eq!(net.results(), ["bob failed SIP 488"]);
    net.ends().await;
}

/// Proves IM-028, MS-013: without TLS of ours an offer of it alone is refused, and beside another one left out.
#[tokio::test(start_paused = true)]
async fn an_offer_of_tls_where_there_is_none_is_refused() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"]).secure()).await;
    let refusal = alice.gets(488).await.message;
    let warning = text::header(&refusal, "Warning");
    assert!(warning.starts_with("302 "), "{warning}");

    let two = "m=message 9 TCP/TLS/MSRP *\na=path:msrps://192.0.2.55:7394/x;tcp\na=setup:active\n\
               a=accept-types:*\nm=message 9 TCP/MSRP *\n";
    let both = invite().to(["bob"]).instead("m=message 9 TCP/MSRP *\n", two);
    let mut alice = net.scscf().sends(both).await;
    let [mut bob] = net.scscf().gets_invites().await;
    assert_eq!(media(&bob.invite), "m=message 2855 TCP/MSRP *");
    bob.answers().await;
    let answer = alice.is_answered().await.message;
    assert_eq!(media(&answer), "m=message 0 TCP/TLS/MSRP * m=message 2855 TCP/MSRP *");
    let page = page("plain");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves MS-112: a peer without a fingerprint that is good.
#[tokio::test(start_paused = true)]
async fn an_offer_without_a_good_fingerprint_is_refused() {
    let net = Net::with(&[TLS]).await;
    let good = format!("a=fingerprint:{}\n", identity::phones().fingerprint());
    for bad in ["", "a=fingerprint:md5 90:01:50:98:3C:D2:4F:B0:D6:96:3F:7D:28:E1:7F:72\n"] {
        let mut alice = net.scscf().sends(invite().to(["bob"]).secure().instead(&good, bad)).await;
        let refusal = alice.gets(488).await.message;
        assert!(text::header(&refusal, "Warning").contains("No usable fingerprint"));
    }
    net.ends().await;
}

/// Proves MS-112: the leg fails, the page goes on.
#[tokio::test(start_paused = true)]
async fn a_recipient_with_another_certificate_fails_alone() {
    let net = Net::with(&[TLS]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).secure()).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    carol.answers().await;
    bob.accepts();
    bob.hears("ACK", SOON).await;
    let them = attribute(&bob.invite, "path").expect("a path");
    let print = attribute(&bob.invite, "fingerprint").expect("a fingerprint");
    let me = bob.path().to_owned();
    let mut line = Line::secured(net.scscf(), &me, &them, identity::another(), print);
    line.sends("Message-ID: bind\r\n", None, '$').await;
    assert!(line.hears().await.is_none(), "it is told to leave, by an alert");
    alice.is_answered().await;
    bob.is_told_bye(seconds(6)).await;
    let page = page("between us alone");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results()[1], "carol delivered");
    assert!(net.results()[0].starts_with("bob deferred"), "{:?}", net.results());
    assert_eq!(net.switch().handshakes_failed.certificate, 1);
    net.ends().await;
}

/// Proves MS-016, MS-112: another certificate wants another connection, the same path or not.
#[tokio::test(start_paused = true)]
async fn a_recipient_with_a_new_certificate_gets_the_page_by_it() {
    let net = Net::with(&[TLS]).await;
    let mut alice = net.scscf().sends(invite().to(["bob"]).secure()).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    let page = page(&"for somebody who is another one now ".repeat(100));
    alice.sends_part(&page, 0, 2500, '+').await;
    let mut before = bob.shows(identity::another()).await;
    let first = before.hears_chunk().await;
    drop(before);
    alice.sends_part(&page, 2500, page.octets.len(), '$').await;
    bob.line().binds().await;
    let taken = bob.got().await;
    assert_eq!(taken.octets, page.octets);
    assert_eq!(first.head.message_id.as_deref(), Some(&*taken.message_id), "the same Message-ID");
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered"]);
    net.ends().await;
}
