//! `xdm.*` where documents are in an XDMS elsewhere.

use tokio::time::Instant;

use super::{TEAM, cases, outcome, time};
use crate::elsewhere::Mood;
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, seconds};
use crate::text::invite;

cases! {
    "xdm.timeout" with "xdms.mode=ut" { "'5s'" => "480 after 5s", "'1s'" => "480 after 1s", } no_answer;
    "xdm.connect_timeout" with "xdms.mode=ut" {
        "'2s'" => "480 after 4s",
        "'500ms'" => "480 after 1s",
    } nobody_there;
    "xdm.resolve_timeout" with "xdms.mode=ut", "profile.xdm.timeout=30s" {
        "'8s'" => "480 after 8s",
        "'3s'" => "480 after 3s",
    } no_answer;
    "xdm.cache_ttl" with "xdms.mode=ut" { "'60s'" => "asked 1 times", "'5s'" => "asked 2 times", } two_pages;
    "xdm.stale_if_error" with "xdms.mode=ut" {
        "'300s'" => "then invites sip:bob@ims.test sip:carol@ims.test",
        "'10s'" => "then refused 480",
    } an_outage;
    "xdm.max_doc" with "xdms.mode=ut" {
        "'1MiB'" => "a large group invites sip:bob@ims.test sip:carol@ims.test",
        "'1KiB'" => "a large group refused 480",
    } a_large_group;
    "xdm.max_elements" with "xdms.mode=ut" {
        "0" => "a large group invites sip:bob@ims.test sip:carol@ims.test",
        "5" => "a large group refused 480",
    } a_large_group;
    "xdm.asserted_header" with "xdms.mode=ut" {
        "'X-3GPP-Asserted-Identity'" => "x-3gpp-asserted-identity: \"sip:pages@ims.test\"",
        "'X-XCAP-Asserted-Identity'" => "x-xcap-asserted-identity: \"sip:pages@ims.test\"",
    } who_asks;
    "xdm.allowed_hosts" with "xdms.mode=ut" {
        "[]" => "refused 480",
        "['lists.test']" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test",
    } a_list_elsewhere;
    "xdm.legacy_global" with "xdms.mode=ut" {
        "true" => "a group in the older place invites sip:bob@ims.test sip:carol@ims.test",
        "false" => "a group in the older place refused 404",
    } the_older_place;
}

const GROUPS: &str = "127.0.0.1:8080/xcap-root/org.openmobilealliance.groups/global";

/// The group is where groups are.
fn holds(net: &Net, document: &str) {
    net.elsewhere.holds_group(&format!("{GROUPS}/byGroupID/{TEAM}"), document);
}

/// What a page to the group is answered, and when.
async fn refusal(net: &Net) -> String {
    let caller = net.scscf().sends(invite().group(TEAM)).await;
    let sent = Instant::now();
    let refusal = net.scscf().hears_of("a refusal", seconds(100), |message| {
        caller.is_mine(message) && message.status().is_some_and(|status| status >= 300)
    });
    let heard = refusal.await;
    let status = heard.message.status().expect("a response");
    format!("{status} after {}", time(sent, heard.at))
}

async fn no_answer(net: Net) -> String {
    net.elsewhere.is(Mood::Silent);
    refusal(&net).await
}

async fn nobody_there(net: Net) -> String {
    net.elsewhere.is(Mood::Away);
    refusal(&net).await
}

async fn two_pages(net: Net) -> String {
    holds(&net, DOCUMENT);
    outcome(&net, invite().group(TEAM)).await;
    net.after(seconds(10)).await;
    outcome(&net, invite().group(TEAM)).await;
    format!("asked {} times", net.elsewhere.heard().len())
}

async fn an_outage(net: Net) -> String {
    holds(&net, DOCUMENT);
    outcome(&net, invite().group(TEAM)).await;
    net.after(seconds(100)).await;
    net.elsewhere.is(Mood::Busy);
    format!("then {}", outcome(&net, invite().group(TEAM)).await)
}

async fn a_large_group(net: Net) -> String {
    holds(&net, &DOCUMENT.replace("<list>", &format!("<!-- {} --><list>", "x".repeat(1000))));
    format!("a large group {}", outcome(&net, invite().group(TEAM)).await)
}

async fn who_asks(net: Net) -> String {
    holds(&net, DOCUMENT);
    outcome(&net, invite().group(TEAM)).await;
    let head = net.elsewhere.heard().remove(0).to_ascii_lowercase();
    let lines = head.lines().filter(|line| line.contains("asserted-identity"));
    lines.collect::<Vec<_>>().join(" | ")
}

async fn a_list_elsewhere(net: Net) -> String {
    let anchor =
        "https://lists.test/r/resource-lists/users/sip:z@lists.test/index/~~/resource-lists/list";
    holds(&net, &DOCUMENT.replace("</list>", &format!("<external anchor=\"{anchor}\"/></list>")));
    net.elsewhere.holds_lists(
        "lists.test/r/resource-lists/users/sip:z@lists.test/index",
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"more\">\
         <entry uri=\"sip:dan@ims.test\"/></list></resource-lists>",
    );
    outcome(&net, invite().group(TEAM)).await
}

async fn the_older_place(net: Net) -> String {
    net.elsewhere.holds_group(&format!("{GROUPS}/byGroup/{TEAM}"), DOCUMENT);
    format!("a group in the older place {}", outcome(&net, invite().group(TEAM)).await)
}
