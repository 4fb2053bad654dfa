//! What is over leaves nothing behind, however often.

use crate::net::{Net, SOON, seconds};
use crate::text::invite;

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
