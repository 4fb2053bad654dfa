//! Who comes back while a page is on its way: the core's REGISTER for somebody who was not there.

use pagecast::ops::Control as _;

use crate::caller::page;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, invite};

/// The S-CSCF says that a user is registered with it for so long; the node takes its word at once.
pub async fn registers(net: &Net, user: &str, expires: u32) {
    let n = net.scscf().number();
    net.scscf().delivers(&format!(
        "REGISTER sip:127.0.0.1:5090 SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK-reg{n}\n\
         Max-Forwards: 70\nFrom: <sip:127.0.0.1:5060>;tag=r{n}\nTo: <sip:{user}@ims.test>\n\
         Call-ID: 3p-{n}@127.0.0.1\nCSeq: 1 REGISTER\nContact: <sip:127.0.0.1:5060>\n\
         Expires: {expires}\n\n"
    ));
    let answer = |message: &pagecast::sip::message::Message| {
        message.status().is_some() && text::method(message) == "REGISTER"
    };
    let heard = net.scscf().hears_of("answer to REGISTER", millis(500), answer).await;
    assert_eq!(heard.message.status(), Some(200));
    assert_eq!(text::header(&heard.message, "Expires"), expires.to_string());
}

/// Bob's phone is switched on while the page still runs: he is invited again, once, and gets all of it.
#[tokio::test(start_paused = true)]
async fn who_comes_back_is_invited_again() {
    for whole_before in [false, true] {
        let net = Net::new().await;
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, mut carol] = net.scscf().gets_invites().await;
        bob.refuses(480).await;
        carol.answers().await;
        alice.is_answered().await;
        assert_eq!(net.results(), ["bob deferred SIP 480", "carol joined"]);
        let page = page("for Bob, too");
        if whole_before {
            alice.sends_page(&page).await;
            assert_eq!(carol.got().await.octets, page.octets);
        }
        // Others come and go; nothing follows.
        registers(&net, "dan", 600).await;
        registers(&net, "carol", 600).await;
        registers(&net, "bob", 0).await;
        net.scscf().gets_no_invite().await;
        registers(&net, "bob", 600).await;
        let mut again = net.scscf().invites("bob").await;
        assert_ne!(again.call_id, bob.call_id, "a call of its own");
        net.scscf().gets_no_invite().await;
        again.answers().await;
        if !whole_before {
            alice.sends_page(&page).await;
            assert_eq!(carol.got().await.octets, page.octets);
        }
        assert_eq!(again.got().await.octets, page.octets);
        alice.hangs_up().await;
        carol.is_told_bye(seconds(6)).await;
        again.is_told_bye(seconds(6)).await;
        assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
        assert_eq!(net.page()["recipients"][0]["attempts"], 2);
        net.ends().await;
    }
}

/// Each registration is worth one invitation, and none once the page is over.
#[tokio::test(start_paused = true)]
async fn a_registration_is_worth_one_invitation() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    carol.answers().await;
    alice.is_answered().await;
    for _ in 0..2 {
        registers(&net, "bob", 600).await;
        net.scscf().invites("bob").await.refuses(480).await;
        net.scscf().gets_no_invite().await;
    }
    registers(&net, "bob", 600).await;
    net.scscf().invites("bob").await.refuses(486).await;
    registers(&net, "bob", 600).await;
    net.scscf().gets_no_invite().await;
    let page = page("without Bob");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob failed SIP 486", "carol delivered"]);
    net.after(seconds(10)).await;
    registers(&net, "bob", 600).await;
    net.scscf().gets_no_invite().await;
    net.ends().await;
}

/// A registration counts until its expiry and the grace: the Route of legs shows it.
///
/// Proves ISC-045.
#[tokio::test(start_paused = true)]
async fn a_lost_refresh_ends_a_registration() {
    let net = Net::with(&["profile.isc.reg_grace=30s"]).await;
    let registered = "<sip:127.0.0.1:5060;lr;orig>";
    let by_route = "<sip:127.0.0.1:5060;transport=tcp;lr;orig>";
    let route = async |want: &str| {
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let bob = net.scscf().invites("bob").await;
        assert_eq!(text::header(&bob.invite, "Route"), want);
        bob.refuses(480).await;
        alice.gets(480).await;
    };
    route(by_route).await;
    registers(&net, "alice", 600).await;
    route(registered).await;
    net.after(seconds(400)).await;
    registers(&net, "alice", 600).await;
    net.after(seconds(629) - SOON).await;
    route(registered).await;
    net.after(seconds(2)).await;
    route(by_route).await;
    registers(&net, "alice", 600).await;
    route(registered).await;
    registers(&net, "alice", 0).await;
    route(by_route).await;
    net.ends().await;
}

/// The REGISTER and the page are with different threads.
#[tokio::test(start_paused = true)]
async fn every_thread_hears_who_comes_back() {
    let net = Net::with(&["node.threads=3", "profile.im.max_rate_per_user=1000/s"]).await;
    for _ in 0..12 {
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, mut carol] = net.scscf().gets_invites().await;
        bob.refuses(480).await;
        carol.answers().await;
        alice.is_answered().await;
        registers(&net, "bob", 600).await;
        net.scscf().invites("bob").await.refuses(603).await;
        alice.hangs_up().await;
        carol.is_told_bye(seconds(6)).await;
        assert_eq!(net.results()[0], "bob failed SIP 603");
    }
    assert_eq!(net.scscf().control.status().registrations, 1);
    net.ends().await;
}

/// The registrar says more than the REGISTER: Bob is there after all.
///
/// Proves ISC-048.
#[tokio::test(start_paused = true)]
async fn a_contact_that_becomes_active_is_worth_an_invitation() {
    let net = Net::with(&["profile.isc.reg_event=true"]).await;
    registers(&net, "bob", 600).await;
    let is_subscribe = |message: &pagecast::sip::message::Message| {
        message.is_request() && text::method(message) == "SUBSCRIBE"
    };
    let subscribe = net.scscf().hears_of("SUBSCRIBE", SOON, is_subscribe).await.message;
    let granted = "Contact: <sip:127.0.0.1:5060;transport=tcp>\nExpires: 660\n";
    net.scscf().delivers(&text::response(&subscribe, 200, "n1", granted, ""));
    let notifies = async |version: u32, state: &str, event: &str| {
        let body = format!(
            "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{version}\" state=\"full\">\
             <registration aor=\"sip:bob@ims.test\" id=\"b\" state=\"active\">\
             <contact id=\"1\" state=\"{state}\" event=\"{event}\" expires=\"500\"><uri>sip:bob@192.0.2.77</uri>\
             <unknown-param name=\"+g.oma.sip-im\"/></contact></registration></reginfo>\n"
        );
        let (from, to) = (text::header(&subscribe, "To"), text::header(&subscribe, "From"));
        net.scscf().delivers(&format!(
            "NOTIFY sip:127.0.0.1:5090 SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKn{version}\n\
             Max-Forwards: 70\nFrom: {from};tag=n1\nTo: {to}\nCall-ID: {}\nCSeq: {} NOTIFY\n\
             Contact: <sip:127.0.0.1:5060;transport=tcp>\nEvent: reg\n\
             Subscription-State: active;expires=600\nContent-Type: application/reginfo+xml\n\n{body}",
            text::header(&subscribe, "Call-ID"),
            version + 1
        ));
        let answer = |message: &pagecast::sip::message::Message| {
            message.status() == Some(200) && text::method(message) == "NOTIFY"
        };
        net.scscf().hears_of("200 to NOTIFY", SOON, answer).await;
    };
    notifies(0, "terminated", "unregistered").await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, mut carol] = net.scscf().gets_invites().await;
    bob.refuses(480).await;
    carol.answers().await;
    alice.is_answered().await;
    notifies(1, "active", "registered").await;
    let mut again = net.scscf().invites("bob").await;
    again.answers().await;
    // He is still there: no news.
    notifies(2, "active", "refreshed").await;
    net.scscf().gets_no_invite().await;
    let page = page("for Bob, too");
    alice.sends_page(&page).await;
    assert_eq!(carol.got().await.octets, page.octets);
    assert_eq!(again.got().await.octets, page.octets);
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    again.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}
