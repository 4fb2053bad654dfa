//! What the HSS adds to a page, and that a page does without it.

use std::sync::Arc;

use pagecast::sh::dictionary::command;
use tokio::time::Instant;

use crate::callee::Callee;
use crate::caller::page;
use crate::hss::Hss;
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, header, headers, invite};

const ALICE: &str = "sip:alice@ims.test";
const BOB: &str = "sip:bob@ims.test";

/// A node whose HSS is there.
async fn with_hss(set: &[&str]) -> Net {
    let mut all = vec!["sh.enabled=true"];
    all.extend(set);
    let net = Net::with(&all).await;
    net.after(millis(10)).await;
    net
}

/// Everybody who is invited now, after refusing.
async fn refused_by_all(net: &Net) -> Vec<String> {
    net.after(SOON).await;
    let mut names = Vec::new();
    while let Some(heard) = net.scscf().takes(&text::is_initial) {
        let leg = Callee::new(Arc::clone(net.scscf()), heard.message);
        leg.refuses(480).await;
        names.push(leg.name.clone());
    }
    names.sort_unstable();
    names
}

/// Proves ISC-058, ISC-059, ISC-031, UL-010, UL-013.
#[tokio::test(start_paused = true)]
async fn the_hss_says_who_is_who_and_where_requests_go() {
    let net = with_hss(&[]).await;
    let scscf =
        "<Sh-IMS-Data><SCSCFName>sip:127.0.0.1:5077;transport=tcp</SCSCFName></Sh-IMS-Data>";
    let charging = "<Sh-IMS-Data><ChargingInformation><PrimaryChargingCollectionFunctionName>\
        aaa://ccf1.ims.test</PrimaryChargingCollectionFunctionName></ChargingInformation></Sh-IMS-Data>";
    net.hss()
        .names(ALICE, &[ALICE, "tel:+15551230001"])
        .knows(ALICE, 12, scscf)
        .knows(ALICE, 16, charging)
        .names(BOB, &[BOB, "tel:+15551230002"]);
    // The S-CSCF's own entry is left out of the Route.
    let odi = ", <sip:odi@127.0.0.1:5060;transport=tcp;lr;orig>";
    let offer = invite()
        .listing([BOB, "tel:+15551230001", "tel:+15551230002", "sip:carol@ims.test"])
        .instead(odi, "");
    let mut alice = net.scscf().sends(offer).await;
    let [bob, carol] = net.scscf().gets_invites().await;
    assert_eq!((bob.name.as_str(), carol.name.as_str()), ("bob", "carol"));
    for leg in [&bob, &carol] {
        let route = headers(&leg.invite, "Route");
        assert_eq!(route[0], "<sip:127.0.0.1:5077;transport=tcp;lr;orig>", "{route:?}");
        let functions = header(&leg.invite, "P-Charging-Function-Addresses");
        assert_eq!(functions, "ccf=\"aaa://ccf1.ims.test\"");
        leg.refuses(480).await;
    }
    alice.gets(480).await;
    assert_eq!(net.results().iter().filter(|result| result.contains(" removed")).count(), 2);
    assert!(net.counted("pagecast_sh_requests_total") >= 4);
    net.ends().await;
}

/// Proves ISC-058.
#[tokio::test(start_paused = true)]
async fn the_hss_is_not_asked_for_what_the_request_says() {
    let net = with_hss(&[]).await;
    net.hss().names(ALICE, &[ALICE]);
    let offer = invite().to(["bob"]).line("P-Charging-Function-Addresses: ccf=192.0.2.1");
    let mut alice = net.scscf().sends(offer).await;
    let [bob] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    alice.gets(480).await;
    let asked: Vec<_> = net.hss().questions().into_iter().map(|q| q.references).collect();
    assert_eq!(asked, [[10]]);
    net.ends().await;
}

/// Proves ISC-059, SH-051.
#[tokio::test(start_paused = true)]
async fn a_silent_hss_holds_a_page_up_for_a_second_and_no_longer() {
    let net = with_hss(&[]).await;
    net.hss().falls_silent(true);
    let sent = Instant::now();
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let leg = net.scscf().hears_of("INVITE", seconds(2), text::is_initial).await;
    let waited = leg.at - sent;
    assert!(waited >= millis(900) && waited <= seconds(1) + millis(50), "{waited:?}");
    let mut bob = Callee::new(Arc::clone(net.scscf()), leg.message);
    let mut carol = net.scscf().invites("carol").await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page("hello");
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    for leg in [&mut bob, &mut carol] {
        assert_eq!(leg.got().await.octets, page.octets);
        leg.is_told_bye(seconds(6)).await;
    }
    net.ends().await;
}

/// Proves SH-004, SH-051.
#[tokio::test(start_paused = true)]
async fn pages_go_on_while_the_hss_is_away_and_know_more_when_it_is_back() {
    let net = with_hss(&[]).await;
    net.hss().names(ALICE, &[ALICE, "tel:+15551230001"]);
    net.hss().goes();
    net.after(millis(50)).await;
    let invited = async |net: &Net| -> Vec<String> {
        let offer = invite().listing([BOB, "tel:+15551230001"]);
        let mut alice = net.scscf().sends(offer).await;
        let names = refused_by_all(net).await;
        alice.gets(480).await;
        names
    };
    assert_eq!(invited(&net).await.len(), 2);
    net.hss().comes_back();
    // Reconnected within Tc, in service after three watchdogs (SH-015).
    net.after(seconds(200)).await;
    assert_eq!(invited(&net).await, ["bob"]);
    net.ends().await;
}

/// Proves SH-043, SH-046.
#[tokio::test(start_paused = true)]
async fn what_the_hss_tells_changes_the_next_page() {
    let net = with_hss(&["profile.im.check_registration=true"]).await;
    net.shelf.holds(DOCUMENT);
    for user in [BOB, "sip:carol@ims.test", "sip:dan@ims.test"] {
        net.hss().state(user, 1);
    }
    net.hss().state("sip:carol@ims.test", 0);
    let invited = async |net: &Net| -> Vec<String> {
        let mut alice = net.scscf().sends(invite().group("sip:team@groups.ims.test")).await;
        let names = refused_by_all(net).await;
        alice.gets(480).await;
        names
    };
    let first = invited(&net).await;
    assert!(!first.contains(&"carol".to_owned()) && first.contains(&"bob".to_owned()), "{first:?}");
    let asked = net.hss().questions();
    let followed = asked.iter().filter(|q| q.command == command::SUBSCRIBE && q.references == [11]);
    assert!(followed.count() >= 2, "SH-049: members of a group are followed");
    net.hss().tells("sip:carol@ims.test", &Hss::state_part(1));
    net.hss().tells(BOB, &Hss::state_part(0));
    net.after(millis(20)).await;
    assert_eq!(net.hss().told(), [2001, 2001]);
    let second = invited(&net).await;
    assert!(
        second.contains(&"carol".to_owned()) && !second.contains(&"bob".to_owned()),
        "{second:?}"
    );
    net.ends().await;
}
