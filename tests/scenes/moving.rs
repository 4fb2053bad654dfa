//! Who changes its MSRP path under way: the page goes on in a new session.

use pagecast::msrp::codec::Flag;

use crate::caller::page;
use crate::line::Line;
use crate::net::{Net, SOON, seconds};
use crate::text::{self, invite};

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_moves_gets_the_rest_where_it_is_now() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page(&"for somebody on the way ".repeat(200));
    alice.sends_part(&page, 0, 2500, '+').await;
    let mut before = bob.moves().await;
    let first = before.hears_chunk().await;
    assert_eq!(first.flag, Flag::More, "there is more to come");
    assert_eq!(first.body, page.octets[..2500]);
    // It answers no more: what it got is sent again.
    drop(before);
    alice.sends_part(&page, 2500, page.octets.len(), '$').await;
    bob.line().binds().await;
    let taken = bob.got().await;
    assert_eq!(taken.octets, page.octets);
    assert_eq!(first.head.message_id.as_deref(), Some(&*taken.message_id), "the same Message-ID");
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_moves_and_never_comes_is_lost() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    drop(bob.moves().await);
    bob.loses_connection();
    let page = page("for those who are here");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    bob.is_told_bye(seconds(40)).await;
    carol.is_told_bye(seconds(31)).await;
    alice.is_told_bye(seconds(31)).await;
    assert_eq!(net.results()[1], "carol delivered");
    assert!(net.results()[0].starts_with("bob deferred"), "{:?}", net.results());
    net.ends().await;
}

/// Proves MS-016.
#[tokio::test(start_paused = true)]
async fn an_originator_that_moves_goes_on_where_it_is_now() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    let page = page(&"from somebody on the way ".repeat(200));
    alice.sends_part(&page, 0, 2500, '+').await;
    let me = "msrp://192.0.2.55:2855/moved;tcp";
    let sdp = invite().sdp(me);
    alice.says("INVITE", &format!("Content-Type: application/sdp\n\n{sdp}"));
    alice.hears_response("INVITE", 100, SOON).await;
    let heard = alice.hears_response("INVITE", 200, SOON).await;
    alice.acks_again();
    let them = text::attribute(&heard.message, "path").expect("a path in the answer");
    assert_ne!(them, alice.their_path());
    let mut line = Line::connect(net.scscf(), me, &them);
    line.sends(&page.lines(2501, ""), Some(&page.octets[2500..]), '$').await;
    assert_eq!(line.hears_answer().await, 200);
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered"]);
    net.ends().await;
}
