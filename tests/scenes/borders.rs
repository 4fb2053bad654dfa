//! A border between the node and a phone changes `c=` and `m=` and leaves the MSRP path alone (RFC 6714).

use pagecast::msrp::codec::{Decoder, Limits, Piece};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::callee::Callee;
use crate::caller::page;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{attribute, header, invite};

/// An answer with the media address of a border.
fn anchored(bob: &Callee, address: &str, port: u16, rest: &str) -> String {
    format!(
        "v=0\no=- 99 1 IN IP4 192.0.2.77\ns=-\nc=IN IP4 {address}\nt=0 0\nm=message {port} TCP/MSRP *\n\
         a=path:{}\na=accept-types:message/cpim text/plain\na=accept-wrapped-types:*\na=recvonly\n{rest}",
        bob.path()
    )
}

/// Whether a description says CEMA.
pub fn says_cema(bob: &Callee) -> bool {
    String::from_utf8_lossy(bob.invite.body()).contains("\r\na=msrp-cema\r\n")
}

/// Proves MS-026, MS-028.
#[tokio::test(start_paused = true)]
async fn we_connect_to_the_border_and_name_the_phone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    for answered in ["a=msrp-cema\na=setup:passive\n", "a=setup:passive\n", ""] {
        let net = Net::new().await;
        let _alice = net.scscf().sends(invite().to(["bob"])).await;
        let [bob] = net.scscf().gets_invites().await;
        assert!(says_cema(&bob));
        assert_eq!(attribute(&bob.invite, "setup").as_deref(), Some("actpass"));
        bob.accepts_with(&anchored(&bob, "127.0.0.1", port, answered));
        bob.hears("ACK", SOON).await;
        let mut stream = loop {
            // Each step looks at the socket.
            if let Ok(accepted) = timeout(millis(1), listener.accept()).await {
                break accepted.expect("a connection").0;
            }
        };
        let mut decoder = Decoder::new(Limits::default());
        let head = loop {
            if let Some(Piece::Head(head)) = decoder.next().expect("MSRP") {
                break head;
            }
            // No timeout here: nothing else is going on, and the clock would not wait for the socket.
            assert!(stream.read_buf(decoder.buffer()).await.expect("octets") > 0);
        };
        let to: Vec<&str> = head.to_path.iter().map(|uri| uri.as_str()).collect();
        assert_eq!(to, [bob.path()], "whoever was dialled");
    }
}

/// Proves MS-026.
#[tokio::test(start_paused = true)]
async fn a_phone_that_would_pass_the_border_by_is_asked_again_without_cema() {
    // The second address is a name, which nobody knows.
    for address in ["192.0.2.98", "border.invalid"] {
        let net = Net::new().await;
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let [bob] = net.scscf().gets_invites().await;
        bob.accepts_with(&anchored(&bob, address, 9, "a=setup:active\n"));
        bob.hears("ACK", SOON).await;
        let bye = bob.is_told_bye(SOON).await;
        let reason = header(&bye.message, "Reason");
        assert!(reason.contains("offered again without CEMA"), "{reason}");
        let [mut again] = net.scscf().gets_invites().await;
        assert!(says_cema(&bob) && !says_cema(&again));
        assert_ne!(again.call_id, bob.call_id, "a new dialog");
        assert_ne!(attribute(&again.invite, "path"), attribute(&bob.invite, "path"));
        assert_eq!(header(&again.invite, "To"), header(&bob.invite, "To"));
        // Now the border has become one end of two connections, or there is none: either way it may stay different.
        let plain = anchored(&again, address, 9, "a=setup:active\n");
        again.accepts_with(&plain);
        again.hears("ACK", SOON).await;
        again.binds().await;
        alice.is_answered().await;
        let page = page("by the second way");
        alice.sends_page(&page).await;
        assert_eq!(again.got().await.octets, page.octets);
        alice.hangs_up().await;
        again.is_told_bye(seconds(6)).await;
        net.ends().await;
    }
}

/// Proves MS-026: who is at the border itself, or knows CEMA, or is at the same place by another name, needs no second
/// offer.
#[tokio::test(start_paused = true)]
async fn nobody_else_is_asked_again() {
    for (address, rest) in [
        ("192.0.2.98", "a=setup:active\na=msrp-cema\n"),
        ("192.0.2.77", "a=setup:active\n"),
        ("localhost", "a=setup:active\n"),
    ] {
        let net = Net::new().await;
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let [mut bob] = net.scscf().gets_invites().await;
        if address == "localhost" {
            bob.reached_by("msrp://127.0.0.1:2855/bob;tcp");
        }
        bob.accepts_with(&anchored(&bob, address, 9, rest));
        bob.hears("ACK", SOON).await;
        bob.binds().await;
        alice.is_answered().await;
        let page = page("at once");
        alice.sends_page(&page).await;
        assert_eq!(bob.got().await.octets, page.octets);
        alice.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
        net.ends().await;
    }
}

/// Proves MS-026: a recipient nobody wants any more is not asked again either.
#[tokio::test(start_paused = true)]
async fn an_answer_behind_the_cancel_is_only_ended() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [bob] = net.scscf().gets_invites().await;
    bob.rings();
    alice.cancels();
    alice.hears_response("CANCEL", 200, SOON).await;
    alice.gets(487).await;
    let cancel = bob.hears("CANCEL", SOON).await;
    bob.replies(&cancel.message, 200);
    bob.accepts_with(&anchored(&bob, "192.0.2.98", 9, "a=setup:active\n"));
    bob.hears("ACK", SOON).await;
    bob.is_told_bye(SOON).await;
    net.after(seconds(70)).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// Proves MS-027, MS-028.
#[tokio::test(start_paused = true)]
async fn an_offer_whose_path_leads_elsewhere_is_refused() {
    let offer = |address: &str, rest: &str| {
        invite()
            .to(["bob"])
            .path("msrp://localhost:9/alice;tcp")
            .instead("c=IN IP4 localhost", &format!("c=IN IP4 {address}"))
            .instead("a=sendonly\n", &format!("a=sendonly\n{rest}"))
    };
    let net = Net::new().await;
    for (address, rest) in [("127.0.0.1", ""), ("192.0.2.55", "a=msrp-cema\n")] {
        let mut alice = net.scscf().sends(offer(address, rest)).await;
        let [bob] = net.scscf().gets_invites().await;
        bob.refuses(486).await;
        alice.gets(486).await;
    }
    for address in ["192.0.2.55", "alice.invalid"] {
        let mut alice = net.scscf().sends(offer(address, "")).await;
        let refusal = alice.gets(488).await;
        let warning = header(&refusal.message, "Warning");
        assert!(warning.contains("MSRP path and media address differ"), "{warning}");
    }
    net.scscf().gets_no_invite().await;
    net.ends().await;
}
