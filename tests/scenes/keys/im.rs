//! `im.*`: what the OMA rules leave to the operator.

use tokio::time::Instant;

use super::{TEAM, cases, joined, leg, on_leg, outcome, time};
use crate::caller::page;
use crate::inviting::TEAM as DOCUMENT;
use crate::net::{Net, millis, seconds};
use crate::text::{self, header, headers, invite};

cases! {
    "im.release" { "'1.0'" => "IM-serv/OMA1.0", "'2.0'" => "IM-serv/OMA2.0", } product;
    "im.strict_release" {
        "true" => "refused 403 132 Version not supported",
        "false" => "invites sip:bob@ims.test",
    } another_release;
    "im.accept_contact_params" {
        "''" => "*;+g.oma.sip-im.large-message",
        "'require;explicit'" => "*;+g.oma.sip-im.large-message;require;explicit",
    } accept_contact;
    "im.originator_answer" { "'first_200'" => "waits", "'immediate'" => "200", } before_anybody_answers;
    "im.pai_source" { "'originator'" => "<sip:alice@ims.test>", "'service'" => "<sip:pages@ims.test>", } asserted;
    "im.from_source" { "'originator'" => "sip:alice@ims.test", "'service'" => "sip:pages@ims.test", } from;
    "im.large.isfocus" {
        "true" => "+g.oma.sip-im.large-message;isfocus",
        "false" => "+g.oma.sip-im.large-message",
    } contact;
    "im.large.max_size" {
        "1000" => "refused 403 Size exceeded, max-size 1000",
        "'2MiB'" => "invites sip:bob@ims.test, max-size 2097152",
    } announced_size;
    "im.icsi" {
        "''" => "none",
        "'urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg'" =>
            "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg",
    } asserted_service;
    "im.pass_through" { "[]" => "none", "['X-Operator']" => "of ours", } passed_through;
    "im.large.session_timer" { "true" => "1800", "false" => "none", } session_expires;
    "im.default_mode" {
        "'reject'" => "refused 488 Feature tag +g.oma.sip-im.large-message missing",
        "'large'" => "invites sip:bob@ims.test",
    } without_a_tag;
    "im.max_recipients" {
        "2" => "refused 486 102 Too many participants",
        "3" => "invites sip:bob@ims.test sip:carol@ims.test sip:dan@ims.test",
    } three_of_a_list;
    "im.max_members" {
        "1" => "refused 486 102 Too many participants",
        "2" => "invites sip:bob@ims.test sip:carol@ims.test",
    } two_of_a_group;
    "im.leg_timeout" { "'5s'" => "CANCEL after 5s", "'2m'" => "CANCEL after 120s", } nobody_answers;
    "im.anon_reject" { "'oma'" => "refused 403 Anonymity not allowed", "'rfc'" => "refused 433", } anonymous_to_a_group;
    "im.recurse_3xx" { "true" => "invites sip:bobby@ims.test", "false" => "refused 480", } a_recipient_is_elsewhere;
    "im.fail_map" { "'safe'" => "refused 480", "'plain'" => "refused 500", } a_recipient_breaks;
    "im.refresher" { "'omit'" => "1800", "'uac'" => "1800;refresher=uac", "'uas'" => "1800;refresher=uas", } session_expires;
    "im.session_expires" { "'30m'" => "1800", "'90s'" => "90", } session_expires;
    "im.tls" with "msrp.tls.listen=['127.0.0.1:2856']" {
        "'as_originator'" => "m=message 2855 TCP/MSRP *",
        "'always'" => "m=message 2856 TCP/TLS/MSRP *",
    } offered;
    "im.tls_downgrade" with "msrp.tls.listen=['127.0.0.1:2856']" {
        "'deny'" => "refused 488",
        "'allow'" => "asked again: m=message 2855 TCP/MSRP *",
    } no_tls_at_the_recipient;
    "im.warning_numbers" with "service.barred=['sip:mallory@ims.test']", "profile.im.max_members=1",
        "profile.im.max_parallel_per_user=1" {
        "true" => "127 Service not authorised | 102 Too many participants | 102 Too many participants",
        "false" => "Service not authorised | Too many participants | Too many participants",
    } warnings;
    "im.originator_bye_timeout" { "'30s'" => "BYE after 30s", "'3s'" => "BYE after 3s", } no_goodbye;
    "im.progress_after" { "'500ms'" => "183 after 500ms", "'1s'" => "183 after 1s", } nobody_knows_yet;
    "im.max_parallel_per_user" {
        "1" => "refused 486 102 Too many participants",
        "2" => "invites sip:carol@ims.test",
    } two_pages_at_a_time;
    "im.max_rate_per_user" {
        "'1/s'" => "refused 486 102 Too many participants",
        "'120/m'" => "invites sip:carol@ims.test",
    } two_pages_at_a_time;
    "im.pager_to_chat_group" {
        "false" => "refused 403 Function not allowed",
        "true" => "invites sip:bob@ims.test sip:carol@ims.test",
    } to_a_chat_group;
    "im.apply_member_policy" {
        "false" => "invites sip:bob@ims.test sip:carol@ims.test",
        "true" => "invites sip:carol@ims.test",
    } bob_does_not_want_to;
}

async fn product(net: Net) -> String {
    let value = on_leg(&net, invite().to(["bob"]), "User-Agent").await;
    value.split(' ').next().unwrap_or_default().to_owned()
}

async fn another_release(net: Net) -> String {
    outcome(&net, invite().to(["bob"]).line("User-Agent: IM-client/OMA2.0 ue/1")).await
}

async fn accept_contact(net: Net) -> String {
    on_leg(&net, invite().to(["bob"]), "Accept-Contact").await
}

async fn before_anybody_answers(net: Net) -> String {
    let (alice, _) = leg(&net, invite().to(["bob"])).await;
    let answer =
        net.scscf().takes(&|message| alice.is_mine(message) && message.status() == Some(200));
    if answer.is_some() { "200".to_owned() } else { "waits".to_owned() }
}

async fn asserted(net: Net) -> String {
    on_leg(&net, invite().to(["bob"]), "P-Asserted-Identity").await
}

async fn from(net: Net) -> String {
    text::uri(&on_leg(&net, invite().to(["bob"]), "From").await)
}

async fn contact(net: Net) -> String {
    let value = on_leg(&net, invite().to(["bob"]), "Contact").await;
    value.split_once(">;").map_or_else(String::new, |(_, tags)| tags.to_owned())
}

async fn announced_size(net: Net) -> String {
    let file = "a=file-selector:size:3000 type:text/plain\na=sendonly\n";
    let announced = outcome(&net, invite().to(["bob"]).instead("a=sendonly\n", file)).await;
    let (mut alice, mut bob) = leg(&net, invite().to(["bob"])).await;
    bob.answers().await;
    let answer = alice.gets(200).await;
    format!(
        "{announced}, max-size {}",
        text::attribute(&answer.message, "max-size").unwrap_or_default()
    )
}

async fn asserted_service(net: Net) -> String {
    let (_, bob) = leg(&net, invite().to(["bob"])).await;
    let services = headers(&bob.invite, "P-Asserted-Service");
    let Some(service) = services.first() else { return "none".to_owned() };
    let tag = format!("+g.3gpp.icsi-ref=\"{}\"", service.replace(':', "%3A"));
    assert!(header(&bob.invite, "Contact").contains(&tag), "named in Contact");
    assert!(headers(&bob.invite, "Accept-Contact").iter().any(|value| value.contains(&tag)));
    service.clone()
}

async fn passed_through(net: Net) -> String {
    on_leg(&net, invite().to(["bob"]).line("X-Operator: of ours"), "X-Operator").await
}

async fn session_expires(net: Net) -> String {
    on_leg(&net, invite().to(["bob"]), "Session-Expires").await
}

async fn without_a_tag(net: Net) -> String {
    let plain = invite()
        .to(["bob"])
        .instead("Accept-Contact: *;+g.oma.sip-im.large-message\n", "")
        .instead(";+g.oma.sip-im.large-message\n", "\n");
    outcome(&net, plain).await
}

async fn three_of_a_list(net: Net) -> String {
    outcome(&net, invite().to(["bob", "carol", "dan"])).await
}

async fn two_of_a_group(net: Net) -> String {
    net.shelf.holds(DOCUMENT);
    outcome(&net, invite().group(TEAM)).await
}

async fn nobody_answers(net: Net) -> String {
    let (_alice, bob) = leg(&net, invite().to(["bob"])).await;
    let invited = Instant::now();
    bob.rings();
    let heard = bob.hears("CANCEL", seconds(200)).await;
    format!("CANCEL after {}", time(invited, heard.at))
}

async fn anonymous_to_a_group(net: Net) -> String {
    net.shelf.holds(DOCUMENT);
    outcome(&net, invite().group(TEAM).line("Privacy: id")).await
}

async fn a_recipient_breaks(net: Net) -> String {
    let (alice, bob) = leg(&net, invite().to(["bob"])).await;
    bob.refuses(500).await;
    let wanted = |message: &pagecast::sip::message::Message| {
        alice.is_mine(message) && message.status().is_some_and(|status| status >= 200)
    };
    let heard = net.scscf().hears_of("a final answer", seconds(1), wanted).await;
    format!("refused {}", heard.message.status().expect("a response"))
}

async fn a_recipient_is_elsewhere(net: Net) -> String {
    let (alice, bob) = leg(&net, invite().to(["bob"])).await;
    bob.says(302, "Contact: <sip:bobby@ims.test>\n", "");
    bob.hears("ACK", seconds(1)).await;
    let wanted = |message: &pagecast::sip::message::Message| {
        crate::text::is_initial(message)
            || (alice.is_mine(message) && message.status().is_some_and(|status| status >= 200))
    };
    let heard = net.scscf().hears_of("what follows", seconds(1), wanted).await.message;
    match heard.status() {
        Some(status) => format!("refused {status}"),
        None => format!("invites {}", heard.uri()),
    }
}

async fn warnings(net: Net) -> String {
    net.shelf.holds(DOCUMENT);
    let barred = outcome(&net, invite().by("mallory").to(["bob"])).await;
    let many = outcome(&net, invite().group(TEAM)).await;
    let (_first, _bob) = leg(&net, invite().to(["bob"])).await;
    let busy = outcome(&net, invite().to(["carol"])).await;
    let text = |outcome: &str| outcome.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    [text(&barred), text(&many), text(&busy)].join(" | ")
}

async fn no_goodbye(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    alice.sends_page(&page("and then nothing")).await;
    let sent = Instant::now();
    bob.got().await;
    let bye = alice.hears_bye(seconds(60)).await;
    format!("BYE after {}", time(sent, bye.at))
}

async fn nobody_knows_yet(net: Net) -> String {
    net.shelf.holds(DOCUMENT);
    net.shelf.takes_time(seconds(3));
    let mut alice = net.scscf().sends(invite().group(TEAM)).await;
    let sent = Instant::now();
    let heard = alice.gets_progress(183, seconds(2)).await;
    format!("183 after {}", time(sent, heard.at))
}

async fn two_pages_at_a_time(net: Net) -> String {
    let (_first, _bob) = leg(&net, invite().to(["bob"])).await;
    net.after(millis(100)).await;
    outcome(&net, invite().to(["carol"])).await
}

async fn bob_does_not_want_to(net: Net) -> String {
    crate::policy::rejects(&net, "bob", "alice");
    outcome(&net, invite().to(["bob", "carol"])).await
}

async fn to_a_chat_group(net: Net) -> String {
    net.shelf.holds(&DOCUMENT.replace("<invite-members>true", "<invite-members>false"));
    outcome(&net, invite().group(TEAM)).await
}

/// The media line of the only recipient's offer.
async fn offered(net: Net) -> String {
    let (_, callee) = leg(&net, invite().to(["bob"])).await;
    media_line(&callee.invite)
}

fn media_line(message: &pagecast::sip::message::Message) -> String {
    let body = String::from_utf8_lossy(message.body()).into_owned();
    body.lines().find(|line| line.starts_with("m=")).unwrap_or("no media").to_owned()
}

/// A page comes over TLS, and its recipient takes none.
async fn no_tls_at_the_recipient(net: Net) -> String {
    let (caller, bob) = leg(&net, invite().to(["bob"]).secure()).await;
    bob.refuses(488).await;
    net.after(millis(5)).await;
    if let Some(again) = bob.hears_again() {
        return format!("asked again: {}", media_line(&again.invite));
    }
    let answer = net.scscf().takes(&|message| {
        caller.is_mine(message) && message.status().is_some_and(|status| status >= 300)
    });
    let status = answer.and_then(|heard| heard.message.status());
    status.map_or_else(|| "nothing".to_owned(), |status| format!("refused {status}"))
}
