//! `sh.*`: what the HSS is asked, and how often.

use std::time::Duration;

use pagecast::sh::dictionary::command;

use super::{cases, outcome};
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, millis, seconds};
use crate::text::invite;

cases! {
    "im.check_registration" with "sh.enabled=true" {
        "false" => "invites sip:bob@ims.test sip:carol@ims.test",
        "true" => "invites sip:carol@ims.test",
    } bob_is_away;
    "sh.cache_ttl" with "sh.enabled=true" { "'100s'" => "asks 1", "'10s'" => "asks 2", } twice_in_half_a_minute;
    "sh.hss_binding_ttl" with "sh.enabled=true", "profile.sh.cache_ttl='10s'" {
        "'100s'" => "named",
        "'10s'" => "not named",
    } asked_again;
    "sh.subscription_time" with "sh.enabled=true", "profile.im.check_registration=true" {
        "'1h'" => "for 3600 s",
        "'24h'" => "for 86400 s",
    } followed;
    "sh.max_subscriptions" with "sh.enabled=true", "profile.im.check_registration=true" {
        "100" => "ends 0",
        "1" => "ends 1",
    } two_members;
    "sh.service_indication" with "sh.enabled=true", "sh.test_identity=sip:bob@ims.test" {
        "'oma-im-settings'" => "asks for oma-im-settings",
        "'im'" => "asks for im",
    } probed;
}

const ALICE: &str = "sip:alice@ims.test";
const BOB: &str = "sip:bob@ims.test";
const CAROL: &str = "sip:carol@ims.test";

async fn bob_is_away(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().state(BOB, 0).state(CAROL, 1);
    outcome(&net, invite().to(["bob", "carol"])).await
}

/// Alice sends a page and nobody takes it.
async fn sends(net: &Net) {
    outcome(net, invite().to(["bob"])).await;
    net.after(Duration::from_millis(500)).await;
    while net.scscf().takes_any().is_some() {}
}

async fn twice_in_half_a_minute(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().names(ALICE, &[ALICE]);
    sends(&net).await;
    net.after(seconds(30)).await;
    sends(&net).await;
    let asked = net.hss().questions();
    let names = asked.iter().filter(|q| q.identity == ALICE && q.references == [10]);
    format!("asks {}", names.count())
}

async fn asked_again(net: Net) -> String {
    net.after(millis(10)).await;
    net.hss().names(ALICE, &[ALICE]);
    sends(&net).await;
    net.after(seconds(30)).await;
    net.hss().questions();
    sends(&net).await;
    let asked = net.hss().questions();
    let named = asked.iter().any(|q| q.identity == ALICE && q.named);
    if named { "named" } else { "not named" }.to_owned()
}

async fn group_page(net: &Net) {
    net.after(millis(10)).await;
    net.shelf.holds(DOCUMENT);
    net.hss().state(BOB, 1).state(CAROL, 1);
    outcome(net, invite().group("sip:team@groups.ims.test")).await;
    net.after(millis(500)).await;
}

async fn followed(net: Net) -> String {
    group_page(&net).await;
    let asked = net.hss().questions();
    let lasts = asked.iter().filter(|q| q.command == command::SUBSCRIBE).find_map(|q| q.lasts);
    // To the second on the wire, and a second may end in between.
    format!("for {} s", (lasts.unwrap_or_default() + 1) / 10 * 10)
}

/// The node asks everything about the test identity (SH-054).
async fn probed(net: Net) -> String {
    net.hss().state(BOB, 1);
    net.after(seconds(3)).await;
    let slots = net.hss().questions().into_iter().filter_map(|q| q.slot);
    format!("asks for {}", slots.collect::<Vec<_>>().join(" "))
}

async fn two_members(net: Net) -> String {
    group_page(&net).await;
    let asked = net.hss().questions();
    let ended = asked.iter().filter(|q| q.lasts == Some(0));
    format!("ends {}", ended.count())
}
