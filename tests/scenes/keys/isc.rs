//! `core`, `isc.*` and `sip.*`: what the core is, and the timers towards it.

use std::sync::Arc;

use pagecast::sip::message::{Message, Method};
use tokio::time::Instant;

use super::{cases, leg, on_leg, outcome};
use crate::caller::Caller;
use crate::net::{Net, SOON, millis, seconds};
use crate::registering::registers;
use crate::text::{self, header, headers, invite, is_initial};

cases! {
    "core" {
        "'3gpp'" => "P-Asserted-Identity P-Served-User P-Charging-Vector",
        "'sipip'" => "none",
    } ims_headers;
    "isc.psi_route" with "profile.isc.fanout_route=psi" {
        "'icscf'" => "<sip:127.0.0.1:5060;lr>, none",
        "'scscf'" => "<sip:127.0.0.1:5060;lr;orig>, <sip:pages@ims.test>;sescase=orig;regstate=unreg",
    } route;
    "isc.fanout_route" with "core.icscf=sip:127.0.0.9:5060", "profile.isc.psi_route=scscf" {
        "'orig_scscf'" => "<sip:127.0.0.1:5060;transport=tcp;lr;orig>, <sip:alice@ims.test>;sescase=orig;regstate=reg",
        "'odi'" => "<sip:odi@127.0.0.1:5060;transport=tcp;lr;orig>, <sip:alice@ims.test>;sescase=orig;regstate=reg",
        "'psi'" => "<sip:127.0.0.1:5060;lr;orig>, <sip:pages@ims.test>;sescase=orig;regstate=unreg",
        "'term_icscf'" => "<sip:127.0.0.9:5060;lr>, none",
    } route;
    "isc.many_served_users" {
        "'reject'" => "refused 400",
        "'first'" => "invites sip:bob@ims.test",
    } two_served_users;
    "isc.send_psu" {
        "'always'" => "the same: yes, another: yes",
        "'if_differs'" => "the same: no, another: yes",
        "'never'" => "the same: no, another: no",
    } served_user;
    "isc.related_icid" { "true" => "named", "false" => "not named", } related;
    "isc.preconditions" {
        "true" => "curr:qos local sendrecv, curr:qos remote none, conf:qos remote sendrecv, \
                   des:qos mandatory remote sendrecv, des:qos optional local sendrecv",
        "false" => "refused 420",
    } preconditions;
    "isc.ioi_prefix" { "'Type 3'" => "\"Type 3ims.test\"", "''" => "\"ims.test\"", } ioi;
    "isc.operator" { "''" => "\"Type 3ims.test\"", "'home1.example'" => "\"Type 3home1.example\"", } ioi;
    "isc.asserted_service" { "true" => "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg", "false" => "none", } service;
    "isc.reg_grace" { "'60s'" => "<sip:127.0.0.1:5060;lr;orig>", "'0s'" => "<sip:127.0.0.1:5060;transport=tcp;lr;orig>", } after_an_expiry;
    "isc.relay" {
        "'proxy'" => "the caller's Call-ID, 2 Via",
        "'b2bua'" => "another Call-ID, 1 Via",
    } relayed;
    "isc.relay_lifetime" with "profile.isc.relay=b2bua" {
        "'60s'" => "BYE to both after 60s",
        "'24h'" => "BYE to both after 86400s",
    } relayed_for;
    "isc.reg_event" { "false" => "none", "true" => "SUBSCRIBE sip:alice@ims.test", } asked_for_the_state;
    "isc.response_source" with "service.barred=['sip:alice@ims.test']" {
        "''" => "none",
        "'urn:3gpp:fe:as.im'" => "fe=<urn:3gpp:fe:as.im>",
    } refused_by;
    "sip.t1" { "'500ms'" => "500 1000 2000 4000 4000", "'200ms'" => "200 400 800 1600 3200", } repeated;
    "sip.t2" { "'4s'" => "500 1000 2000 4000 4000", "'1s'" => "500 1000 1000 1000 1000", } repeated;
    "sip.t4" { "'5s'" => "nothing", "'500ms'" => "another 403", } the_same_again;
}

async fn ims_headers(net: Net) -> String {
    let (_, bob) = leg(&net, invite().to(["bob"])).await;
    let names = ["P-Asserted-Identity", "P-Served-User", "P-Charging-Vector"];
    let there: Vec<&str> =
        names.into_iter().filter(|name| !headers(&bob.invite, name).is_empty()).collect();
    if there.is_empty() { "none".to_owned() } else { there.join(" ") }
}

async fn route(net: Net) -> String {
    let (_, bob) = leg(&net, invite().to(["bob"])).await;
    let user = headers(&bob.invite, "P-Served-User").pop();
    format!("{}, {}", header(&bob.invite, "Route"), user.as_deref().unwrap_or("none"))
}

async fn two_served_users(net: Net) -> String {
    let second = "P-Served-User: <sip:bob@ims.test>;sescase=term;regstate=reg";
    outcome(&net, invite().to(["bob"]).line(second)).await
}

async fn served_user(net: Net) -> String {
    let mut seen = Vec::new();
    for user in ["sip:alice@ims.test", "sip:alice.smith@ims.test"] {
        let offer = invite()
            .to(["bob"])
            .instead("P-Served-User: <sip:alice@ims.test>", &format!("P-Served-User: <{user}>"));
        let value = on_leg(&net, offer, "P-Served-User").await;
        seen.push(if value == "none" { "no" } else { "yes" });
    }
    format!("the same: {}, another: {}", seen[0], seen[1])
}

async fn related(net: Net) -> String {
    let (alice, bob) = leg(&net, invite().to(["bob"])).await;
    let vector = header(&bob.invite, "P-Charging-Vector");
    match vector.split_once("related-icid=") {
        Some((_, icid)) => {
            assert!(icid.contains(&alice.call_id), "that of the originator's INVITE: {icid}");
            "named".to_owned()
        }
        None => "not named".to_owned(),
    }
}

/// What the answer says of the preconditions of the offer, of which the recipient hears nothing.
async fn preconditions(net: Net) -> String {
    let wanted = "a=curr:qos local none\na=curr:qos remote none\na=des:qos mandatory local sendrecv\n\
                  a=des:qos optional remote sendrecv\na=sendonly\n";
    let offer = invite().to(["bob"]).line("Require: precondition").instead("a=sendonly\n", wanted);
    let mut alice = net.scscf().sends(offer).await;
    net.after(millis(5)).await;
    let refused = |message: &Message| alice.is_mine(message) && message.status() == Some(420);
    if net.scscf().takes(&refused).is_some() {
        return "refused 420".to_owned();
    }
    let mut bob = net.scscf().invites("bob").await;
    let about = |body: &[u8]| {
        let text = String::from_utf8_lossy(body).into_owned();
        let lines = text.lines().filter_map(|line| line.strip_prefix("a="));
        let named = |line: &&str| ["curr:", "des:", "conf:"].iter().any(|a| line.starts_with(a));
        lines.filter(named).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(about(bob.invite.body()).is_empty(), "they are the originator's alone");
    bob.answers().await;
    let answer = alice.gets(200).await;
    about(answer.message.body()).join(", ")
}

async fn ioi(net: Net) -> String {
    let vector = on_leg(&net, invite().to(["bob"]), "P-Charging-Vector").await;
    vector.split_once("orig-ioi=").map_or_else(String::new, |(_, ioi)| ioi.to_owned())
}

async fn service(net: Net) -> String {
    let line = "P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
    on_leg(&net, invite().to(["bob"]).line(line), "P-Asserted-Service").await
}

async fn relayed(net: Net) -> String {
    let alice = Caller::new(Arc::clone(net.scscf()), invite().group("sip:bob@ims.test").to([]));
    let sent = net.scscf().hears_of("INVITE", SOON, is_initial).await.message;
    let whose = if header(&sent, "Call-ID") == alice.call_id { "the caller's" } else { "another" };
    format!("{whose} Call-ID, {} Via", headers(&sent, "Via").len())
}

async fn relayed_for(net: Net) -> String {
    let mut alice = net.scscf().sends(invite().group("sip:bob@ims.test").to([])).await;
    let bob = net.scscf().invites("bob").await;
    bob.says(200, "", "");
    alice.gets(200).await;
    alice.acks();
    bob.hears("ACK", SOON).await;
    let since = Instant::now();
    let bye = |message: &Message| message.cseq().method == Method::Bye && message.is_request();
    let first = net.scscf().hears_of("BYE", seconds(100_000), bye).await;
    let second = net.scscf().hears_of("BYE", SOON, bye).await;
    assert_eq!(first.at, second.at);
    format!("BYE to both after {}s", (first.at - since).as_secs())
}

async fn refused_by(net: Net) -> String {
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let refusal = alice.gets(403).await;
    let source = headers(&refusal.message, "Response-Source").pop();
    source.unwrap_or_else(|| "none".to_owned())
}

/// The milliseconds between the 200s to an originator who does not acknowledge.
async fn repeated(net: Net) -> String {
    let (mut alice, mut bob) = leg(&net, invite().to(["bob"])).await;
    bob.answers().await;
    let mut last = alice.gets(200).await.at;
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let again = alice.hears_response("INVITE", 200, seconds(10)).await;
        gaps.push((again.at - last).as_millis().to_string());
        last = again.at;
    }
    gaps.join(" ")
}

/// RFC 3261 §17.2.1: a refused and acknowledged INVITE is remembered for timer I, so long as an ACK may be repeated.
async fn the_same_again(net: Net) -> String {
    net.scscf().speaks_udp();
    let offer = invite().to(["bob"]).instead("P-Asserted-Identity: <sip:alice@ims.test>\n", "");
    let mut alice = net.scscf().sends(offer).await;
    alice.gets(403).await;
    net.after(seconds(1)).await;
    alice.sends_invite();
    let until = Instant::now() + millis(100);
    let mut heard = "nothing";
    while Instant::now() < until {
        net.after(millis(5)).await;
        let refused = |message: &pagecast::sip::message::Message| message.status() == Some(403);
        if net.scscf().takes(&refused).is_some() {
            heard = "another 403";
            break;
        }
    }
    heard.to_owned()
}

/// Alice's registration ran out half a minute ago: by which S-CSCF her legs go.
async fn after_an_expiry(net: Net) -> String {
    registers(&net, "alice", 600).await;
    net.after(seconds(630)).await;
    on_leg(&net, invite().to(["bob"]), "Route").await
}

/// What Alice's registration is followed by.
async fn asked_for_the_state(net: Net) -> String {
    registers(&net, "alice", 600).await;
    net.after(millis(5)).await;
    let subscribe = net.scscf().takes(&|message| message.is_request());
    subscribe.map_or("none".to_owned(), |heard| {
        format!("{} {}", text::method(&heard.message), heard.message.uri())
    })
}
