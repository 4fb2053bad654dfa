//! `deferred.*`: for whom pages wait, and how long.

use pagecast::sip::message::Message;

use super::cases;
use crate::caller::page;
use crate::net::{Net, seconds};
use crate::registering::registers;
use crate::text::invite;

cases! {
    "deferred.enabled" { "true" => "0 1 2", "false" => "", } three_pages_a_minute_apart;
    "deferred.causes" { "[480, 'timeout']" => "0 1 2", "[503]" => "", } three_pages_a_minute_apart;
    "deferred.ttl" { "'72h'" => "0 1 2", "'150s'" => "1 2", } three_pages_a_minute_apart;
    "deferred.max_per_user" { "1000" => "0 1 2", "2" => "0 1", } three_pages_a_minute_apart;
    "deferred.when_none_joined" { "'refuse'" => "480", "'accept'" => "200", } nobody_is_there;
}

/// Bob answers 480 to three pages; what he gets when he is back.
async fn three_pages_a_minute_apart(net: Net) -> String {
    for n in 0..3 {
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, mut carol] = net.scscf().gets_invites().await;
        bob.refuses(480).await;
        carol.answers().await;
        alice.is_answered().await;
        alice.sends_page(&page(&n.to_string())).await;
        carol.got().await;
        alice.hangs_up().await;
        carol.is_told_bye(seconds(6)).await;
        net.after(seconds(54)).await;
    }
    registers(&net, "bob", 600).await;
    let mut got = Vec::new();
    for n in 0..3 {
        net.after(seconds(1)).await;
        let Some(mut bob) = net.scscf().may_invite("bob") else { break };
        bob.answers().await;
        let octets = bob.got().await.octets;
        let which = (n..3).find(|n| octets == page(&n.to_string()).octets);
        got.push(which.expect("one of the pages").to_string());
        bob.is_told_bye(seconds(6)).await;
    }
    got.join(" ")
}

async fn nobody_is_there(net: Net) -> String {
    let alice = net.scscf().sends(invite().to(["bob"])).await;
    net.scscf().invites("bob").await.refuses(480).await;
    net.after(seconds(1)).await;
    let answer = |heard: &Message| alice.is_mine(heard) && heard.status().is_some_and(|s| s >= 200);
    let heard = net.scscf().takes(&answer).expect("a final answer");
    heard.message.status().expect("a response").to_string()
}
