//! Pages wait for those who are not there: IM-092, IM-097.

use crate::caller::page;
use crate::net::{Net, seconds};
use crate::registering::registers;
use crate::text::invite;

/// Bob is away when the page comes, and gets it when his phone is switched on: once.
///
/// Proves IM-092, IM-097.
#[tokio::test(start_paused = true)]
async fn who_comes_back_gets_what_waited() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page("for Bob, too, whenever he is back");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    net.after(seconds(3600)).await;
    assert_eq!(net.results(), ["bob deferred SIP 480", "carol delivered"]);
    assert_eq!(net.page()["state"], "deferred");
    assert_eq!(net.counted("pagecast_deferred_messages"), 1);
    assert_eq!(net.page()["recipients"][0]["attempts"], 1);

    // Others come, and Bob says that he leaves: nothing follows.
    registers(&net, "dan", 600).await;
    registers(&net, "bob", 0).await;
    net.scscf().gets_no_invite().await;
    registers(&net, "bob", 600).await;
    let mut again = net.scscf().invites("bob").await;
    assert_ne!(again.call_id, bob.call_id, "a call of its own");
    again.answers().await;
    assert_eq!(again.got().await.octets, page.octets);
    again.is_told_bye(seconds(6)).await;
    net.after(seconds(10)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    assert_eq!(net.page()["state"], "done");
    assert_eq!(net.counted("pagecast_deferred_messages"), 0);
    registers(&net, "bob", 600).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// Three pages wait for Bob: he gets one after the other, in the order they were accepted.
///
/// Proves IM-092.
#[tokio::test(start_paused = true)]
async fn what_waits_is_served_in_order() {
    let net = Net::with(&["node.threads=2"]).await;
    for text in ["first", "second", "third"] {
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, mut carol] = net.scscf().gets_invites().await;
        bob.refuses(480).await;
        carol.answers().await;
        alice.is_answered().await;
        alice.sends_page(&page(text)).await;
        carol.got().await;
        alice.hangs_up().await;
        carol.is_told_bye(seconds(6)).await;
        net.after(seconds(1)).await;
    }
    registers(&net, "bob", 600).await;
    for text in ["first", "second"] {
        let mut bob = net.scscf().invites("bob").await;
        net.scscf().gets_no_invite().await;
        bob.answers().await;
        assert_eq!(bob.got().await.octets, page(text).octets);
        bob.is_told_bye(seconds(6)).await;
    }
    // Away again: the third waits for the next time.
    net.scscf().invites("bob").await.refuses(480).await;
    net.scscf().gets_no_invite().await;
    registers(&net, "bob", 600).await;
    let mut bob = net.scscf().invites("bob").await;
    bob.answers().await;
    assert_eq!(bob.got().await.octets, page("third").octets);
    bob.is_told_bye(seconds(6)).await;
    net.after(seconds(1)).await;
    net.ends().await;
}

/// Nobody is there: 480 by default, taken where the profile says so.
///
/// Proves IM-097.
#[tokio::test(start_paused = true)]
async fn a_page_nobody_joined_may_be_taken() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    net.scscf().invites("bob").await.refuses(480).await;
    alice.gets(480).await;
    registers(&net, "bob", 600).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;

    let net = Net::with(&["profile.deferred.when_none_joined=accept"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    net.scscf().invites("bob").await.refuses(480).await;
    alice.is_answered().await;
    let page = page("nobody is here");
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    net.after(seconds(10)).await;
    assert_eq!(net.results(), ["bob deferred SIP 480"]);
    registers(&net, "bob", 600).await;
    let mut bob = net.scscf().invites("bob").await;
    bob.answers().await;
    assert_eq!(bob.got().await.octets, page.octets);
    bob.is_told_bye(seconds(6)).await;
    net.after(seconds(1)).await;
    net.ends().await;
}

/// What waited too long is not delivered any more.
///
/// Proves IM-092.
#[tokio::test(start_paused = true)]
async fn what_waits_too_long_expires() {
    let net = Net::with(&["profile.deferred.ttl=1h"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    carol.answers().await;
    alice.is_answered().await;
    alice.sends_page(&page("while it is fresh")).await;
    carol.got().await;
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    net.after(seconds(3500)).await;
    assert_eq!(net.results(), ["bob deferred SIP 480", "carol delivered"]);
    net.after(seconds(200)).await;
    assert_eq!(net.results(), ["bob expired SIP 480", "carol delivered"]);
    registers(&net, "bob", 600).await;
    net.scscf().gets_no_invite().await;
}

/// A large page is read from the store in pieces and reaches the recipient as it was.
///
/// Proves IM-092.
#[tokio::test(start_paused = true)]
async fn a_large_page_comes_back_octet_for_octet() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    carol.answers().await;
    alice.is_answered().await;
    let page = crate::sending::large(1_500_000);
    alice.sends_page(&page).await;
    assert!(carol.got().await.octets == page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    net.after(seconds(60)).await;
    registers(&net, "bob", 600).await;
    let mut bob = net.scscf().invites("bob").await;
    bob.answers().await;
    assert!(bob.got().await.octets == page.octets);
    bob.is_told_bye(seconds(6)).await;
    net.after(seconds(1)).await;
    net.ends().await;
}
