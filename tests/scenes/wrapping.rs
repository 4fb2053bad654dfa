//! One recipient, bare content, and a phone that takes nothing but `message/cpim`.

use crate::caller::Page;
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, SOON, seconds};
use crate::text::invite;

const CPIM_ONLY: &str = "a=accept-types:message/cpim\na=accept-wrapped-types:text/plain\n";

fn bare(content: &str) -> Page {
    Page { content_type: "text/plain", octets: content.as_bytes().to_vec() }
}

/// Proves MS-098, MS-099.
#[tokio::test(start_paused = true)]
async fn bare_content_reaches_a_phone_that_takes_cpim_only() {
    for (private, from) in
        [(false, "sip:alice@ims.test"), (true, "sip:anonymous@anonymous.invalid")]
    {
        let net = Net::new().await;
        let mut offer = invite().types("text/plain", "*").to(["bob"]);
        if private {
            offer = offer.line("Privacy: id");
        }
        let mut alice = net.scscf().sends(offer).await;
        let [mut bob] = net.scscf().gets_invites().await;
        let sdp = bob.sdp().replace(
            "a=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\n",
            CPIM_ONLY,
        );
        bob.accepts_with(&sdp);
        bob.hears("ACK", SOON).await;
        bob.binds().await;
        alice.is_answered().await;
        let page = bare(&"nothing around it ".repeat(1000));
        alice.sends_part(&page, 0, 9000, '+').await;
        alice.sends_part(&page, 9000, page.octets.len(), '$').await;
        let taken = bob.got().await;
        assert_eq!(taken.content_type, "message/cpim");
        let text = String::from_utf8(taken.octets).expect("text");
        let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
        let lines: Vec<&str> = head.split("\r\n").collect();
        let to = "To: <sip:bob@ims.test>";
        assert_eq!(lines[..2], [format!("From: <{from}>").as_str(), to]);
        let time = lines[2].strip_prefix("DateTime: 20").expect("a time of this century");
        assert!(time.len() == "26-03-04T09:15:27Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(lines.len(), 3);
        let content = String::from_utf8(page.octets.clone()).expect("text");
        assert_eq!(rest, format!("Content-Type: text/plain\r\n\r\n{content}"));
        alice.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
        assert_eq!(net.results(), ["bob delivered"]);
        assert_eq!(net.page()["recipients"][0]["bytes"], page.octets.len());
        net.ends().await;
    }
}

/// Proves MS-098: to more than one the sender itself has to say who it is, or it stays bare.
#[tokio::test(start_paused = true)]
async fn nothing_else_is_wrapped() {
    let net = Net::with(&["profile.msrp.attribution='never'"]).await;
    net.shelf.holds(DOCUMENT);
    let mut alice = net.scscf().sends(invite().types("text/plain", "*").to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    let sdp = bob
        .sdp()
        .replace("a=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\n", CPIM_ONLY);
    bob.accepts_with(&sdp);
    bob.hears("ACK", SOON).await;
    bob.binds().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = bare("to two");
    alice.sends_page(&page).await;
    let taken = carol.got().await;
    assert_eq!((taken.octets, &*taken.content_type), (page.octets, "text/plain"));
    bob.line().hears_nothing().await;
    bob.is_told_bye(seconds(6)).await;
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob failed MSRP 415", "carol delivered"]);
    net.ends().await;
}
