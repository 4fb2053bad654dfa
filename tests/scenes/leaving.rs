//! Somebody is gone all of a sudden: at each point, what the others hear and that nothing stays behind.

use pagecast::msrp::codec::Flag;

use crate::callee::Callee;
use crate::caller::{Caller, page};
use crate::net::{Net, SOON, seconds};
use crate::text::invite;

/// Alice and Bob are connected; Carol, who stays until the end, as well.
async fn all_there(net: &Net) -> (Caller, Callee, Callee) {
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    (alice, bob, carol)
}

/// Carol gets everything and is let go; so is Alice.
async fn carol_gets_it(alice: &mut Caller, carol: &mut Callee, page: &crate::caller::Page) {
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
}

/// Proves IM-019, IM-061.
#[tokio::test(start_paused = true)]
async fn a_recipient_vanishes_before_any_answer() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [_bob, mut carol] = net.scscf().gets_invites().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page("without Bob");
    alice.sends_page(&page).await;
    carol_gets_it(&mut alice, &mut carol, &page).await;
    net.after(seconds(33)).await;
    assert_eq!(net.results(), ["bob deferred timer 408", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-061.
#[tokio::test(start_paused = true)]
async fn a_recipient_vanishes_while_it_rings() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.rings();
    carol.answers().await;
    alice.is_answered().await;
    let page = page("without Bob");
    alice.sends_page(&page).await;
    carol_gets_it(&mut alice, &mut carol, &page).await;
    // Nobody answers the CANCEL either.
    bob.hears("CANCEL", seconds(121)).await;
    net.after(seconds(70)).await;
    assert_eq!(net.results(), ["bob deferred timer 408", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-077.
#[tokio::test(start_paused = true)]
async fn a_recipient_vanishes_behind_its_200() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.accepts();
    bob.hears("ACK", SOON).await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page("without Bob");
    alice.sends_page(&page).await;
    carol_gets_it(&mut alice, &mut carol, &page).await;
    // Nobody binds the session, nobody answers the BYE.
    bob.hears("BYE", seconds(66)).await;
    assert_eq!(net.results(), ["bob deferred timer 408", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-019, IM-065.
#[tokio::test(start_paused = true)]
async fn a_recipient_vanishes_in_the_middle_of_the_page() {
    for by_bye in [false, true] {
        let net = Net::new().await;
        let (mut alice, mut bob, mut carol) = all_there(&net).await;
        let page = page(&"half of it ".repeat(400));
        alice.sends_part(&page, 0, 2_200, '+').await;
        if by_bye {
            bob.hangs_up().await;
            bob.loses_connection();
        } else {
            bob.loses_connection();
            bob.hears("BYE", seconds(36)).await;
        }
        alice.sends_part(&page, 2_200, page.octets.len(), '$').await;
        carol_gets_it(&mut alice, &mut carol, &page).await;
        let bob_s = if by_bye { "bob failed SIP 0" } else { "bob deferred MSRP 0" };
        assert_eq!(net.results(), [bob_s, "carol delivered"]);
        net.ends().await;
    }
}

/// Proves IM-065.
#[tokio::test(start_paused = true)]
async fn a_recipient_vanishes_behind_the_last_octet() {
    for (answers, by_bye, result) in [
        (false, false, "bob deferred MSRP 0"),
        (false, true, "bob failed SIP 0"),
        (true, false, "bob delivered"),
        (true, true, "bob delivered"),
    ] {
        let net = Net::new().await;
        let (mut alice, mut bob, mut carol) = all_there(&net).await;
        let page = page("all of it");
        alice.sends_page(&page).await;
        if answers {
            assert_eq!(bob.got().await.flag, Flag::Last);
        } else {
            assert_eq!(bob.line().hears_chunk().await.flag, Flag::Last);
        }
        if by_bye {
            bob.hangs_up().await;
        } else {
            net.after(seconds(1)).await;
            bob.loses_connection();
            bob.hears("BYE", seconds(36)).await;
        }
        carol_gets_it(&mut alice, &mut carol, &page).await;
        assert_eq!(net.results(), [result, "carol delivered"], "{answers} {by_bye}");
        net.ends().await;
    }
}

/// Proves IM-053, IM-066.
#[tokio::test(start_paused = true)]
async fn the_originator_vanishes_before_the_answer() {
    // It does not acknowledge the 183: everybody is let go, whoever has answered or not.
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).reliable()).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.rings();
    carol.answers().await;
    alice.gets_within(500, seconds(33)).await;
    bob.is_cancelled(SOON).await;
    carol.hears("BYE", seconds(36)).await;
    assert_eq!(net.results().iter().filter(|result| result.contains("failed")).count(), 2);
    net.ends().await;
}

/// Proves IM-066.
#[tokio::test(start_paused = true)]
async fn the_originator_vanishes_behind_the_200() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.rings();
    for _ in 0..11 {
        alice.gets_within(200, seconds(5)).await;
    }
    // No ACK, and nobody there to hear the BYE.
    alice.hears_bye(seconds(5)).await;
    carol.is_cancelled(SOON).await;
    bob.is_told_bye(seconds(36)).await;
    assert_eq!(net.results(), ["bob failed timer 408", "carol failed timer 408"]);
    net.ends().await;
}

/// Proves IM-077.
#[tokio::test(start_paused = true)]
async fn the_originator_vanishes_before_it_connects() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    bob.tries();
    carol.rings();
    // Nobody answers for longer than a phone may take to connect: that is not Alice's fault.
    net.after(seconds(60)).await;
    bob.answers().await;
    alice.gets(200).await;
    alice.acks();
    let acked = tokio::time::Instant::now();
    let bye = alice.hears_bye(seconds(31)).await;
    assert!(bye.at - acked >= seconds(30), "{:?}", bye.at - acked);
    carol.is_cancelled(SOON).await;
    bob.is_told_bye(seconds(36)).await;
    assert_eq!(net.results(), ["bob failed timer 408", "carol failed timer 408"]);
    net.ends().await;
}

/// Proves MS-090, IM-073.
#[tokio::test(start_paused = true)]
async fn the_originator_s_connection_breaks_in_the_middle() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [mut bob, mut carol, dan] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    dan.rings();
    alice.is_answered().await;
    let page = page(&"half of it ".repeat(400));
    alice.sends_part(&page, 0, page.octets.len() / 2, '+').await;
    alice.loses_connection();
    for leg in [&mut bob, &mut carol] {
        let taken = leg.got().await;
        assert_eq!(taken.flag, Flag::Abort);
        assert!(page.octets.starts_with(&taken.octets) && !taken.octets.is_empty());
    }
    dan.is_cancelled(SOON).await;
    alice.hears_bye(seconds(6)).await;
    bob.is_told_bye(seconds(36)).await;
    carol.is_told_bye(seconds(36)).await;
    let expected = ["bob failed MSRP 0", "carol failed MSRP 0", "dan failed MSRP 0"];
    assert_eq!(net.results(), expected);
    net.ends().await;
}

/// Proves MS-109.
#[tokio::test(start_paused = true)]
async fn the_originator_vanishes_behind_the_last_octet() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    let page = page("my last words");
    alice.sends_page(&page).await;
    alice.loses_connection();
    assert_eq!(bob.got().await.octets, page.octets);
    bob.is_told_bye(seconds(6)).await;
    // Whoever comes late gets it all the same.
    net.after(seconds(10)).await;
    carol.answers().await;
    assert_eq!(carol.got().await.octets, page.octets);
    carol.is_told_bye(seconds(6)).await;
    alice.hears_bye(seconds(61)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}
