//! Groups of an XDMS elsewhere change while they are cached: the next page knows.

use crate::net::{Net, SOON, millis, seconds};
use crate::text::{header, invite};
use crate::xdms::{TEAM, Xdms, team, told};

const GROUP: &str = "sip:team@groups.ims.test";

/// Alice pages the team, which is exactly these; nobody takes it.
pub async fn reaches(net: &Net, members: &[&str]) {
    let mut alice = net.scscf().sends(invite().group(GROUP)).await;
    for member in members {
        net.scscf().invites(member).await.refuses(480).await;
    }
    net.scscf().gets_no_invite().await;
    alice.gets(480).await;
}

/// There is no such team.
pub async fn finds_none(net: &Net) {
    let mut alice = net.scscf().sends(invite().group(GROUP)).await;
    alice.gets(404).await;
    net.scscf().gets_no_invite().await;
}

/// A member who is removed gets no page a second later; until something changes nobody asks again.
///
/// Proves XD-038, XD-040, XD-041.
#[tokio::test(start_paused = true)]
async fn a_removed_member_gets_no_page_a_second_later() {
    let (net, mut xdms) = Xdms::with(&["alice", "bob", "carol"]).await;
    reaches(&net, &["bob", "carol"]).await;
    assert_eq!(xdms.shop.asked(), [200]);
    xdms.is_subscribed().await;
    // An hour, not a minute.
    net.after(seconds(1800)).await;
    reaches(&net, &["bob", "carol"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    xdms.shop.holds(TEAM, "g2", &team(&["alice", "bob"]));
    xdms.notifies("active;expires=1800", &told(TEAM, "g1", "g2")).await;
    assert_eq!(xdms.shop.asked(), [0; 0], "not before it is needed");
    net.after(seconds(1)).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [200]);
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    // What it is told twice is nothing new.
    xdms.notifies("active;expires=1700", &told(TEAM, "", "g2")).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    net.ends().await;
}

/// Proves XD-041.
#[tokio::test(start_paused = true)]
async fn removed_and_created_again() {
    let (net, mut xdms) = Xdms::with(&["alice", "bob"]).await;
    reaches(&net, &["bob"]).await;
    xdms.is_subscribed().await;
    xdms.shop.asked();
    xdms.shop.drops(TEAM);
    xdms.notifies("active;expires=3600", &told(TEAM, "g1", "")).await;
    finds_none(&net).await;
    assert_eq!(xdms.shop.asked(), [404], "nothing of it is kept");
    xdms.shop.holds(TEAM, "g9", &team(&["alice", "carol"]));
    xdms.notifies("active;expires=3600", &told(TEAM, "", "g9")).await;
    reaches(&net, &["carol"]).await;
    assert_eq!(xdms.shop.asked(), [200]);
    net.after(seconds(600)).await;
    reaches(&net, &["carol"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0], "its changes are told all the time");
    net.ends().await;
}

/// Proves XD-041, XD-042.
#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_ours_changes_nothing() {
    let (net, mut xdms) = Xdms::with(&["alice", "bob"]).await;
    reaches(&net, &["bob"]).await;
    xdms.is_subscribed().await;
    xdms.shop.asked();
    let other = "resource-lists/users/sip:zoe@ims.test/index";
    xdms.notifies("active;expires=3600", &told(other, "1", "2")).await;
    xdms.notifies("active;expires=3600", "").await;
    reaches(&net, &["bob"]).await;
    // But the next notice may be held back now, so that it is asked whether the copy is still good.
    assert_eq!(xdms.shop.asked(), [304]);
    net.after(seconds(6)).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    // Patches are not applied: the document is asked for.
    xdms.shop.holds(TEAM, "g2", &team(&["alice", "carol"]));
    let patch =
        told(TEAM, "g1", "g2").replace("/>", "><remove sel=\"*/*/*/entry[2]\"/></document>");
    xdms.notifies("active;expires=3600", &patch).await;
    reaches(&net, &["carol"]).await;
    assert_eq!(xdms.shop.asked(), [200]);
    net.ends().await;
}

/// Proves XD-042: answered 200, everything asked for again, and the list sent anew.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_has_all_asked_for_again() {
    let (net, mut xdms) = Xdms::with(&["alice", "bob"]).await;
    reaches(&net, &["bob"]).await;
    xdms.is_subscribed().await;
    xdms.shop.asked();
    xdms.notifies_with("active;expires=3600", "<xcap-diff").await;
    let again = xdms.hears_subscribe(SOON).await;
    assert_eq!(header(&again.message, "Event"), "xcap-diff;diff-processing=no-patching");
    assert!(again.message.to_tag().is_some(), "in the dialog");
    assert!(String::from_utf8_lossy(again.message.body()).contains(TEAM));
    xdms.grants(&again.message);
    xdms.notifies("active;expires=3600", &told(TEAM, "", "g1")).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [304], "it was the same all the time");
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    net.ends().await;
}

/// Proves XD-042: without a subscription a document counts for a minute.
#[tokio::test(start_paused = true)]
async fn without_a_subscription_documents_live_by_their_time() {
    // Ended by the XDMS.
    let (net, mut xdms) = Xdms::with(&["alice", "bob"]).await;
    reaches(&net, &["bob"]).await;
    xdms.is_subscribed().await;
    xdms.shop.asked();
    net.after(seconds(120)).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    xdms.notifies("terminated;reason=noresource", "").await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [304], "two minutes old, and nobody tells any more");
    net.after(seconds(30)).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [0; 0]);
    net.after(seconds(31)).await;
    reaches(&net, &["bob"]).await;
    assert_eq!(xdms.shop.asked(), [304]);
    // Asked for again an hour later.
    net.after(seconds(3400)).await.is_quiet();
    let heard = xdms.hears_subscribe(seconds(300)).await;
    assert!(heard.message.to_tag().is_none());
    xdms.grants(&heard.message);
    xdms.notifies("active;expires=3600", &told(TEAM, "", "g1")).await;
    net.ends().await;

    // Refused from the start.
    for status in [489, 403] {
        let (net, mut xdms) = Xdms::with(&["alice", "bob"]).await;
        reaches(&net, &["bob"]).await;
        let heard = xdms.hears_subscribe(seconds(2)).await;
        xdms.answers(&heard.message, status, "");
        xdms.shop.asked();
        net.after(seconds(61)).await;
        reaches(&net, &["bob"]).await;
        assert_eq!(xdms.shop.asked(), [304]);
        net.after(seconds(1000)).await.is_quiet();
        net.ends().await;
    }
}

/// What changed between the first page and the subscription is in the first NOTIFY.
///
/// Proves XD-041.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_before_the_subscription_stands() {
    let (net, mut xdms) = Xdms::with(&["alice", "bob", "carol"]).await;
    reaches(&net, &["bob", "carol"]).await;
    xdms.shop.holds(TEAM, "g2", &team(&["alice", "carol"]));
    net.after(millis(500)).await;
    reaches(&net, &["bob", "carol"]).await;
    xdms.is_subscribed().await;
    reaches(&net, &["carol"]).await;
    assert_eq!(xdms.shop.asked(), [200, 200]);
    net.ends().await;
}
