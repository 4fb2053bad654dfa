//! A bug of ours strikes one page: it ends, nobody else notices, and the thread goes on.

use pagecast::engine::ids::PageId;
use pagecast::engine::input::{Input, LegEvent};

use crate::caller::page;
use crate::net::{Net, SOON, seconds};
use crate::text::invite;

/// Breaks the first page, where `at` says so.
fn breaks(at: impl Fn(&Input) -> bool + Send + 'static) -> impl FnMut(&Input) + Send + 'static {
    let mut first: Option<PageId> = None;
    let mut armed = true;
    move |input| {
        let Some(page) = input.page() else { return };
        let struck = *first.get_or_insert(page) == page;
        if struck && armed && at(input) {
            armed = false;
            panic!("a fault the scene put in");
        }
    }
}

/// One page is struck while its first recipient rings; the other page is delivered as if nothing had been.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_struck_ends_and_the_others_go_on() {
    let net = Net::watched(breaks(|input| {
        matches!(input, Input::Leg { event: LegEvent::Early { ringing: true, .. }, .. })
    }))
    .await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    let mut dave = net.scscf().sends(invite().to(["erin"])).await;
    let [mut erin] = net.scscf().gets_invites().await;
    erin.rings();
    carol.answers().await;
    alice.is_answered().await;
    // Here it happens.
    bob.rings();
    bob.is_cancelled(SOON).await;
    alice.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(40)).await;
    assert_eq!(net.counted("pagecast_panics_total"), 1);

    erin.answers().await;
    dave.is_answered().await;
    let page = page("not struck");
    dave.sends_page(&page).await;
    assert_eq!(erin.got().await.octets, page.octets);
    dave.hangs_up().await;
    erin.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// A page that cannot even be ended is dropped; what SIP owes its people they still get.
#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_at_every_touch_is_dropped() {
    let mut first: Option<PageId> = None;
    let mut broken = false;
    let net = Net::watched(move |input| {
        let Some(page) = input.page() else { return };
        broken |= matches!(input, Input::Leg { event: LegEvent::Early { .. }, .. });
        assert!(!broken || *first.get_or_insert(page) != page, "a fault the scene put in");
        first.get_or_insert(page);
    })
    .await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, carol] = net.scscf().gets_invites().await;
    carol.tries();
    bob.rings();
    alice.gets(480).await;
    bob.is_cancelled(SOON).await;
    carol.is_cancelled(SOON).await;
    assert_eq!(net.counted("pagecast_panics_total"), 2);
    assert_eq!(net.results(), ["bob failed policy 0", "carol failed policy 0"]);
    // The next one is served.
    let mut dave = net.scscf().sends(invite().to(["erin"])).await;
    let [mut erin] = net.scscf().gets_invites().await;
    erin.answers().await;
    dave.is_answered().await;
    let page = page("served");
    dave.sends_page(&page).await;
    assert_eq!(erin.got().await.octets, page.octets);
    dave.hangs_up().await;
    erin.is_told_bye(seconds(6)).await;
    net.ends().await;
}
