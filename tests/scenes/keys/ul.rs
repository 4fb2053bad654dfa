//! `ul.*` and `xdm.*`: who is meant, and who may be meant.

use pagecast::sip::digest::{Challenge, Client};

use super::{TEAM, cases, outcome};
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, seconds};
use crate::text::{self, headers, invite};

cases! {
    "ul.max_entries" {
        "2" => "refused 486 102 Too many participants",
        "3" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test",
    } three;
    "ul.max_bytes" { "'256B'" => "refused 413 the recipient list is too large", "'64KiB'" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test", } three;
    "ul.require_strict" { "true" => "refused 400 Require missing", "false" => "invites sip:bob@ims.test", } no_option_tag;
    "ul.bcc_mode" { "'remove'" => "Dan does not see himself", "'keep_own'" => "Dan sees himself", } blind_copy;
    "ul.normalise_tel" {
        "true" => "invites tel:+15551230002",
        "false" => "invites tel:+15551230002 sip:+15551230002@ims.test;user=phone",
    } one_number_twice;
    "ul.require_tls" with "profile.core=sipip", "sip.trusted_peers=['192.0.2.1']", "auth.realm=ims.test",
        "auth.users=config/users.example.toml" {
        "true" => "refused 403",
        "false" => "invites sip:bob@ims.test",
    } with_a_password;
    "ul.map_im" { "false" => "refused 403 No destinations", "true" => "invites sip:bob@ims.test", } im_uri;
    "ul.phone_context" {
        "''" => "refused 403 No destinations",
        "'ims.test'" => "invites tel:7000;phone-context=ims.test",
    } local_number;
    "ul.consent" with "profile.ul.allowed_domains=['else.test']" {
        "'static'" => "refused 403 No destinations",
        "'off'" => "invites sip:bob@ims.test",
        "'rfc5360'" => "refused 470",
    } one;
    "ul.allowed_domains" { "['else.test']" => "refused 403 No destinations", "[]" => "invites sip:bob@ims.test", } one;
    "ul.send_rate" { "0" => "0 0 0", "2" => "0 500 1000", } paced;
    "ul.budget_per_minute" {
        "2" => "refused 486",
        "3" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test",
    } three;
    "ul.foreign_hosts" {
        "1" => "refused 403 Function not allowed",
        "2" => "invites sip:bob@one.test sip:carol@two.test",
    } two_foreign_hosts;
    "ul.allow_loopback_targets" {
        "false" => "refused 403 No destinations",
        "true" => "invites sip:bob@127.0.0.9",
    } on_loopback;
    "xdm.absent_ruleset" {
        "'deny'" => "refused 403 Function not allowed",
        "'members'" => "invites sip:bob@ims.test sip:carol@ims.test",
    } without_rules;
    "xdm.oma_precedence" {
        "true" => "refused 403 Function not allowed",
        "false" => "invites sip:bob@ims.test sip:carol@ims.test",
    } two_rules;
    "xdm.partial_lists" {
        "false" => "refused 480",
        "true" => "invites sip:bob@ims.test sip:carol@ims.test",
    } a_reference_to_nothing;
    "xdm.max_refs" {
        "0" => "refused 480",
        "1" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test",
    } a_reference;
    "xdm.im_enabler_ids" {
        "['im']" => "refused 488 Function not allowed",
        "[]" => "invites sip:bob@ims.test sip:carol@ims.test",
    } another_enabler;
}

async fn one(net: Net) -> String {
    outcome(&net, invite().to(["bob"])).await
}

async fn three(net: Net) -> String {
    outcome(&net, invite().to(["bob", "carol", "dan"])).await
}

async fn no_option_tag(net: Net) -> String {
    outcome(&net, invite().to(["bob"]).instead("Require: recipient-list-invite\n", "")).await
}

async fn blind_copy(net: Net) -> String {
    let dan = "<entry uri=\"sip:dan@ims.test\" cp:copyControl=";
    let offer =
        invite().to(["bob", "dan"]).instead(&format!("{dan}\"to\""), &format!("{dan}\"bcc\""));
    let _alice = net.scscf().sends(offer).await;
    let [bob, dan] = net.scscf().gets_invites().await;
    let sees = |body: &[u8]| String::from_utf8_lossy(body).contains("sip:dan@ims.test");
    assert!(!sees(bob.invite.body()), "nobody else sees Dan");
    let own = if sees(dan.invite.body()) { "sees" } else { "does not see" };
    format!("Dan {own} himself")
}

async fn one_number_twice(net: Net) -> String {
    let number = ["tel:+15551230002", "sip:+15551230002@ims.test;user=phone"];
    outcome(&net, invite().listing(number)).await
}

/// Nobody vouches for Alice, who proves who she is, and whose list came without TLS.
async fn with_a_password(net: Net) -> String {
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let asked = alice.gets(401).await;
    let challenge = headers(&asked.message, "WWW-Authenticate");
    let challenge = Challenge::read(challenge[0].as_bytes()).expect("a challenge");
    let mut client = Client::new("alice@ims.test", b"alice-pw", challenge);
    let proof = client.credentials("INVITE", "sip:pages@ims.test", "0a4f113b");
    outcome(&net, invite().to(["bob"]).line(&format!("Authorization: {proof}"))).await
}

async fn im_uri(net: Net) -> String {
    outcome(&net, invite().listing(["im:bob@ims.test"])).await
}

async fn local_number(net: Net) -> String {
    outcome(&net, invite().listing(["tel:7000"])).await
}

/// When each of three is invited, in milliseconds.
async fn paced(net: Net) -> String {
    let _alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        let heard = net.scscf().hears_of("INVITE", seconds(5), text::is_initial).await;
        times.push(heard.at);
    }
    let since: Vec<_> = times.iter().map(|at| (*at - times[0]).as_millis().to_string()).collect();
    since.join(" ")
}

async fn two_foreign_hosts(net: Net) -> String {
    outcome(&net, invite().listing(["sip:bob@one.test", "sip:carol@two.test"])).await
}

async fn on_loopback(net: Net) -> String {
    outcome(&net, invite().listing(["sip:bob@127.0.0.9"])).await
}

async fn group(net: &Net, document: &str) -> String {
    net.shelf.holds(document);
    outcome(net, invite().group(TEAM)).await
}

/// The document with other rules.
fn ruled(rules: &str) -> String {
    let (before, rest) = DOCUMENT.split_once("<cp:ruleset>").expect("rules");
    let (_, after) = rest.split_once("</cp:ruleset>").expect("rules");
    format!("{before}{rules}{after}")
}

async fn without_rules(net: Net) -> String {
    group(&net, &ruled("")).await
}

async fn two_rules(net: Net) -> String {
    let rule = |id: &str, who: &str, may: bool| {
        format!(
            "<cp:rule id=\"{id}\"><cp:conditions><cp:identity>{who}</cp:identity></cp:conditions><cp:actions>\
             <allow-initiate-conference>{may}</allow-initiate-conference></cp:actions></cp:rule>"
        )
    };
    let alice = rule("alice", "<cp:one id=\"sip:alice@ims.test\"/>", false);
    let many = rule("many", "<cp:many/>", true);
    group(&net, &ruled(&format!("<cp:ruleset>{alice}{many}</cp:ruleset>"))).await
}

const LIST: &str = "http://127.0.0.1:8080/xcap-root/resource-lists/users/sip:alice@ims.test/index/~~/resource-lists/list";

async fn a_reference_to_nothing(net: Net) -> String {
    let external = format!("<external anchor=\"{LIST}\"/></list>");
    group(&net, &DOCUMENT.replace("</list>", &external)).await
}

async fn a_reference(net: Net) -> String {
    net.shelf.holds_lists(
        "resource-lists/users/sip:alice@ims.test/index",
        "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list name=\"more\">\
         <entry uri=\"sip:dan@ims.test\"/></list></resource-lists>",
    );
    a_reference_to_nothing(net).await
}

async fn another_enabler(net: Net) -> String {
    let services = "<oxe:supported-services xmlns:oxe=\"urn:oma:xml:xdm:extensions\">\
                    <oxe:service enabler=\"poc\"/></oxe:supported-services></list-service>";
    group(&net, &DOCUMENT.replace("</list-service>", services)).await
}
