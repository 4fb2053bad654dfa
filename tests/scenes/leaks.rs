//! What is over leaves nothing behind, however often.

use std::collections::BTreeSet;

use crate::caller::page;
use crate::net::{Net, SOON, seconds};
use crate::text::{self, header, invite};

/// Proves IM-067.
#[tokio::test(start_paused = true)]
async fn a_thousand_failed_pages_leave_nothing() {
    let net = Net::with(&["profile.im.max_rate_per_user=10000/s"]).await;
    for n in 0..1000 {
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, mut carol] = net.scscf().gets_invites().await;
        match n % 5 {
            // Refused by all.
            0 => {
                bob.refuses(486).await;
                carol.refuses(404).await;
                alice.gets(480).await;
            }
            // Taken back.
            1 => {
                bob.rings();
                carol.tries();
                alice.cancels();
                alice.hears_response("CANCEL", 200, SOON).await;
                alice.gets(487).await;
                bob.is_cancelled(SOON).await;
                carol.is_cancelled(SOON).await;
            }
            // Answered with something nobody can use.
            2 => {
                bob.says(200, "", "");
                bob.hears("ACK", SOON).await;
                bob.is_told_bye(SOON).await;
                carol.refuses(486).await;
                alice.gets(480).await;
            }
            // Joined, and gone before the page.
            3 => {
                bob.refuses(486).await;
                carol.answers().await;
                alice.gets(200).await;
                alice.acks();
                carol.hangs_up().await;
                alice.is_told_bye(seconds(6)).await;
            }
            // The sender leaves without a page.
            _ => {
                bob.refuses(603).await;
                carol.answers().await;
                alice.is_answered().await;
                alice.hangs_up().await;
                carol.is_told_bye(seconds(36)).await;
            }
        }
    }
    net.ends().await;
}

/// IM-067: what belongs to a thread finds its way there, and nothing stays behind on any of them.
#[tokio::test(start_paused = true)]
async fn threads_share_the_work() {
    let net = Net::with(&["node.threads=3", "profile.im.max_rate_per_user=1000/s"]).await;
    let mut owners = BTreeSet::new();
    for n in 0..40 {
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).reliable()).await;
        let [mut bob, carol] = net.scscf().gets_invites().await;
        // Our tags begin with the thread they belong to.
        owners.insert(text::tag(&header(&bob.invite, "From"))[..2].to_owned());
        alice.gets_reliable(183, SOON).await;
        carol.progresses_reliably(n + 1);
        carol.gets_prack().await;
        bob.answers().await;
        alice.is_answered().await;
        let page = page("wherever it is handled");
        alice.sends_page(&page).await;
        assert_eq!(bob.got().await.octets, page.octets);
        alice.hangs_up().await;
        bob.hangs_up().await;
        carol.refuses(486).await;
        assert_eq!(net.results(), ["bob delivered", "carol failed SIP 486"]);
    }
    assert_eq!(owners.len(), 3, "{owners:?}");
    net.ends().await;
}
