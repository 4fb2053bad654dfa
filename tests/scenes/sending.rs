//! The page on its way: OMA section E and the MSRP rules a whole node shows.

use std::collections::BTreeSet;

use pagecast::msrp::codec::{Flag, Kind};

use crate::callee::Callee;
use crate::caller::{Caller, Page, page, page_to};
use crate::inviting::TEAM;
use crate::line::Line;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, header, headers, invite};

/// A page of so many octets of content.
pub fn large(octets: usize) -> Page {
    page(&"0123456789abcdef".repeat(octets / 16))
}

/// Alice, answered by Bob and Carol, all connected.
async fn joined(net: &Net) -> (Caller, Callee, Callee) {
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    (alice, bob, carol)
}

/// Proves IM-064, MS-109.
#[tokio::test(start_paused = true)]
async fn a_bye_behind_the_whole_page_takes_nothing_back() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [mut bob, mut carol, mut dan] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = large(200_000);
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    // Bob is slow, Dan has not answered yet.
    assert_eq!(carol.got().await.octets, page.octets);
    net.after(seconds(20)).await;
    let taken = bob.got().await;
    assert_eq!((taken.flag, taken.octets == page.octets), (Flag::Last, true));
    dan.answers().await;
    assert_eq!(dan.got().await.octets, page.octets);
    for leg in [&carol, &bob, &dan] {
        leg.is_told_bye(seconds(6)).await;
    }
    assert_eq!(net.results(), ["bob delivered", "carol delivered", "dan delivered"]);
    net.ends().await;
}

/// Proves IM-064, MS-109.
#[tokio::test(start_paused = true)]
async fn who_does_not_say_goodbye_is_told_so() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = page("and then nothing");
    let sent = tokio::time::Instant::now();
    alice.sends_page(&page).await;
    for leg in [&mut bob, &mut carol] {
        assert_eq!(leg.got().await.octets, page.octets);
        leg.is_told_bye(seconds(6)).await;
    }
    let bye = alice.is_told_bye(seconds(31)).await;
    assert!(bye.at - sent >= seconds(30), "{:?}", bye.at - sent);
    assert!(headers(&bye.message, "Reason").is_empty(), "nothing went wrong");
    net.ends().await;
}

/// Proves IM-064, MS-090.
#[tokio::test(start_paused = true)]
async fn a_bye_in_the_middle_takes_the_page_back() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    carol.rings();
    bob.answers().await;
    alice.is_answered().await;
    let page = large(2_000);
    alice.sends_part(&page, 0, 1_500, '+').await;
    alice.hangs_up().await;
    let taken = bob.line().takes_page_within(seconds(1)).await;
    assert_eq!(taken.flag, Flag::Abort);
    carol.is_cancelled(SOON).await;
    bob.is_told_bye(seconds(36)).await;
    assert_eq!(net.results().iter().filter(|result| result.contains("failed")).count(), 2);
    net.ends().await;
}

/// Proves IM-065, MS-108.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_leaves_takes_nobody_along() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(2_000);
    alice.sends_part(&page, 0, 1_500, '+').await;
    bob.hangs_up().await;
    net.after(seconds(1)).await.is_quiet();
    alice.sends_part(&page, 1_500, page.octets.len(), '$').await;
    alice.hangs_up().await;
    // Carol has everything, but holds her last 200 back: no BYE before it, and then after drain_after_end.
    let mut frame = carol.line().hears_chunk().await;
    let mut octets = frame.body.clone();
    while frame.flag == Flag::More {
        carol.line().responds(&frame.head, 200).await;
        frame = carol.line().hears_chunk().await;
        octets.extend_from_slice(&frame.body);
    }
    assert_eq!(octets, page.octets);
    net.after(seconds(20)).await.is_quiet();
    carol.line().responds(&frame.head, 200).await;
    let answered = tokio::time::Instant::now();
    let bye = carol.is_told_bye(seconds(36)).await;
    assert!(bye.at - answered >= seconds(5), "{:?}", bye.at - answered);
    assert_eq!(net.results(), ["bob failed SIP 0", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-065.
#[tokio::test(start_paused = true)]
async fn when_everybody_has_left_the_originator_is_told() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(2_000);
    alice.sends_part(&page, 0, 1_500, '+').await;
    bob.hangs_up().await;
    carol.hangs_up().await;
    alice.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob failed SIP 0", "carol failed SIP 0"]);
    net.ends().await;
}

/// Proves IM-069.
#[tokio::test(start_paused = true)]
async fn only_the_session_s_own_peer_binds_it() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [bob] = net.scscf().gets_invites().await;
    bob.accepts();
    bob.hears("ACK", SOON).await;
    let them = text::attribute(&bob.invite, "path").expect("a path");

    // Nobody's session, and somebody else's phone.
    let nowhere = "msrp://127.0.0.1:2855/nobodynobodynobodynobody;tcp";
    let mut stranger = Line::connect(net.scscf(), bob.path(), nowhere);
    for _ in 0..3 {
        stranger.sends("Message-ID: bind\r\n", None, '$').await;
        assert_eq!(stranger.hears_answer().await, 481);
    }
    assert!(stranger.hears().await.is_none(), "closed");
    let mut other = Line::connect(net.scscf(), "msrp://192.0.2.77:2855/other;tcp", &them);
    other.sends("Message-ID: bind\r\n", None, '$').await;
    assert_eq!(other.hears_answer().await, 481);
    drop(other);

    // A gateway may change host and port on the way.
    let elsewhere = bob.path().replace("192.0.2.77:2855", "198.51.100.9:40000");
    let mut line = Line::connect(net.scscf(), &elsewhere, &them);
    line.binds().await;
    let mut second = Line::connect(net.scscf(), bob.path(), &them);
    second.sends("Message-ID: bind\r\n", None, '$').await;
    assert_eq!(second.hears_answer().await, 506);
    drop(second);

    alice.is_answered().await;
    let page = page("to the right one");
    alice.sends_page(&page).await;
    assert_eq!(line.takes_page().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-069.
#[tokio::test(start_paused = true)]
async fn a_path_of_several_is_named_as_a_whole() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    let path = format!("msrp://192.0.2.99:2855/relay;tcp {}", bob.path());
    bob.reached_by(&path);
    bob.answers().await;
    alice.is_answered().await;
    alice.sends_page(&page("by way of a relay")).await;
    let first = bob.line().hears_chunk().await;
    let to: Vec<_> = first.head.to_path.iter().map(|uri| uri.as_str().to_owned()).collect();
    assert_eq!(to.join(" "), path);
    bob.line().takes_rest(first).await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-070, MS-110.
#[tokio::test(start_paused = true)]
async fn everybody_gets_the_same_octets_under_another_id() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(100_000);
    let third = page.octets.len() / 3;
    alice.sends_part(&page, 0, third, '+').await;
    alice.sends_part(&page, third, page.octets.len(), '$').await;
    let mut ids = BTreeSet::from(["page1".to_owned()]);
    for leg in [&mut bob, &mut carol] {
        let taken = leg.got().await;
        assert!(taken.octets == page.octets, "the same octets");
        assert_eq!(taken.content_type, page.content_type);
        assert!(ids.insert(taken.message_id), "an id of its own");
    }
    // One session carries one page.
    let lines = page.lines(1, "").replace("page1", "page2");
    alice.line().sends(&lines, Some(&page.octets), '$').await;
    assert_eq!(alice.line().hears_answer().await, 403);
    // And a recipient has nothing to say but control messages.
    bob.line().sends("Message-ID: msg1\r\nContent-Type: text/plain\r\n", Some(b"hello"), '$').await;
    assert_eq!(bob.line().hears_answer().await, 403);
    let imdn = "Message-ID: msg2\r\nContent-Type: message/imdn+xml\r\n";
    bob.line().sends(imdn, Some(b"<imdn/>"), '$').await;
    assert_eq!(bob.line().hears_answer().await, 200);
    alice.hangs_up().await;
    for leg in [&bob, &carol] {
        leg.is_told_bye(seconds(6)).await;
    }
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-071, IM-019.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_nobody_up() {
    let (net, _folder) = Net::with_disk().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(7 << 20);
    let begun = tokio::time::Instant::now();
    // Bob reads nothing; Carol gets octets while Alice has sent but half.
    let half = page.octets.len() / 2;
    alice.sends_part(&page, 0, half, '+').await;
    assert!(net.switch().octets_out > 10_000, "relaying starts with the first chunk");
    let rest = alice.sends_part(&page, half, page.octets.len(), '$');
    let ((), taken) = tokio::join!(rest, carol.got());
    assert!(taken.octets == page.octets);
    assert!(begun.elapsed() < seconds(2), "{:?}", begun.elapsed());
    let stats = net.switch();
    assert!(stats.spool_memory <= 5 << 20, "{stats:?}");
    assert!(bob.got().await.octets == page.octets, "and Bob still gets all of it");
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-072.
#[tokio::test(start_paused = true)]
async fn reports_go_one_hop() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = page("report, please");
    alice.line().sends(&page.lines(1, "Success-Report: yes\r\n"), Some(&page.octets), '$').await;
    assert_eq!(alice.line().hears_answer().await, 200);
    assert_eq!(alice.line().hears_report().await, 200);
    // `got` answers each with a REPORT of its own.
    bob.got().await;
    carol.got().await;
    alice.line().hears_nothing().await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-072.
#[tokio::test(start_paused = true)]
async fn who_wants_no_responses_gets_none() {
    for (failure_report, answers) in [("no", false), ("partial", false), ("yes", true)] {
        let net = Net::new().await;
        let (mut alice, mut bob, mut carol) = joined(&net).await;
        let page = page("quietly");
        let lines = page.lines(1, &format!("Failure-Report: {failure_report}\r\n"));
        alice.line().sends(&lines, Some(&page.octets), '$').await;
        if answers {
            assert_eq!(alice.line().hears_answer().await, 200);
        }
        alice.line().hears_nothing().await;
        bob.got().await;
        carol.got().await;
        alice.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
        carol.is_told_bye(seconds(6)).await;
        net.ends().await;
    }
}

/// Proves IM-073, MS-090.
#[tokio::test(start_paused = true)]
async fn what_the_sender_gives_up_is_given_up_everywhere() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(4_000);
    alice.sends_part(&page, 0, 3_000, '+').await;
    alice.sends_part(&page, 3_000, 3_500, '#').await;
    for leg in [&mut bob, &mut carol] {
        let taken = leg.got().await;
        assert_eq!(taken.flag, Flag::Abort);
        assert!(page.octets.starts_with(&taken.octets));
    }
    alice.is_told_bye(seconds(6)).await;
    for leg in [&bob, &carol] {
        leg.is_told_bye(seconds(36)).await;
    }
    assert_eq!(net.results(), ["bob failed MSRP 0", "carol failed MSRP 0"]);
    net.ends().await;
}

/// Proves IM-073.
#[tokio::test(start_paused = true)]
async fn chunks_may_come_in_any_order() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(4_000);
    let end = page.octets.len();
    alice.sends_part(&page, 2_000, 3_000, '+').await;
    alice.sends_part(&page, 0, 1_500, '+').await;
    alice.sends_part(&page, 3_000, end, '$').await;
    net.after(millis(50)).await;
    assert!(net.results().iter().all(|result| !result.contains("delivered")));
    alice.sends_part(&page, 1_000, 2_100, '+').await;
    for leg in [&mut bob, &mut carol] {
        let taken = leg.got().await;
        assert_eq!((taken.flag, taken.octets == page.octets), (Flag::Last, true));
    }
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-074.
#[tokio::test(start_paused = true)]
async fn too_large_a_page_ends_for_everybody() {
    let net = Net::new().await;
    let (mut alice, bob, carol) = joined(&net).await;
    let page = page("how large will it be?");
    let lines = page.lines(1, "").replace(&format!("/{}", page.octets.len()), "/10485761");
    alice.line().sends(&lines, Some(&page.octets), '+').await;
    assert_eq!(alice.line().hears_answer().await, 413);
    let bye = alice.is_told_bye(seconds(6)).await;
    for bye in [bye, bob.is_told_bye(seconds(36)).await, carol.is_told_bye(seconds(36)).await] {
        let reason = header(&bye.message, "Reason");
        assert!(reason.starts_with("SIP;cause=413"), "{reason}");
    }
    net.ends().await;
}

/// Proves IM-074.
#[tokio::test(start_paused = true)]
async fn too_large_for_one_is_not_too_large_for_the_others() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [mut bob, mut carol, mut dan] = net.scscf().gets_invites().await;
    // Bob says so beforehand, Carol when she sees it.
    bob.accepts_with(&format!("{}a=max-size:100\n", bob.sdp()));
    bob.hears("ACK", SOON).await;
    bob.binds().await;
    carol.answers().await;
    dan.answers().await;
    alice.is_answered().await;
    let page = large(4_000);
    alice.sends_page(&page).await;
    let chunk = carol.line().hears_chunk().await;
    carol.line().responds(&chunk.head, 413).await;
    assert_eq!(dan.got().await.octets, page.octets);
    bob.line().hears_nothing().await;
    alice.hangs_up().await;
    for leg in [&bob, &carol, &dan] {
        leg.is_told_bye(seconds(36)).await;
    }
    assert_eq!(net.results(), ["bob failed MSRP 413", "carol failed MSRP 413", "dan delivered"]);
    net.ends().await;
}

/// Proves IM-075.
#[tokio::test(start_paused = true)]
async fn types_somebody_does_not_take() {
    let net = Net::new().await;
    let offer = invite().types("text/plain text/html", "*").to(["bob"]);
    let mut alice = net.scscf().sends(offer).await;
    let [mut bob] = net.scscf().gets_invites().await;
    let plain = "a=accept-types:text/plain";
    bob.accepts_with(&bob.sdp().replace("a=accept-types:message/cpim text/plain", plain));
    bob.hears("ACK", SOON).await;
    bob.binds().await;
    alice.is_answered().await;
    let html = Page { content_type: "text/html", octets: b"<p>loud</p>".to_vec() };
    // The failure is told as soon as it is known, maybe before the last response.
    alice.line().sends(&html.lines(1, ""), Some(&html.octets), '$').await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(alice.line().hears().await.expect("two frames").head.kind);
    }
    assert!(heard.contains(&Kind::Report) && heard.contains(&Kind::Response(200)), "{heard:?}");
    bob.line().hears_nothing().await;
    bob.is_told_bye(seconds(6)).await;
    alice.hangs_up().await;
    assert_eq!(net.results(), ["bob failed MSRP 415"]);

    // Outside of what we agreed to take; and inside of CPIM, outside of what Carol takes.
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    // What may stand alone may be wrapped as well, so Carol takes CPIM alone.
    let wrapped = carol.sdp().replace("wrapped-types:*", "wrapped-types:image/png");
    carol.accepts_with(&wrapped.replace("message/cpim text/plain", "message/cpim"));
    carol.hears("ACK", SOON).await;
    carol.binds().await;
    bob.answers().await;
    alice.is_answered().await;
    let lines = "Message-ID: page0\r\nContent-Type: image/png\r\n";
    let mut other = net.scscf().sends(invite().to(["dan"])).await;
    let [mut dan] = net.scscf().gets_invites().await;
    dan.answers().await;
    other.is_answered().await;
    other.line().sends(lines, Some(b"PNG"), '$').await;
    assert_eq!(other.line().hears_answer().await, 415);
    other.is_told_bye(seconds(6)).await;
    dan.is_told_bye(seconds(36)).await;

    let page = page("plain text inside");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    carol.line().hears_nothing().await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-077.
#[tokio::test(start_paused = true)]
async fn who_stops_reading_is_let_go() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(500_000);
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    let begun = tokio::time::Instant::now();
    assert!(carol.got().await.octets == page.octets);
    carol.is_told_bye(seconds(6)).await;
    let bye = bob.is_told_bye(seconds(160)).await;
    assert!(bye.at - begun >= seconds(120), "{:?}", bye.at - begun);
    assert_eq!(net.results(), ["bob deferred timer 408", "carol delivered"]);
    // What Bob finds when he wakes up does not look like a whole page.
    while let Some(frame) = bob.line().hears().await {
        assert_ne!(frame.flag, Flag::Last);
    }
    net.ends().await;
}

/// Proves IM-077.
#[tokio::test(start_paused = true)]
async fn who_never_answers_a_send_is_let_go() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = page("well?");
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    carol.got().await;
    assert_eq!(bob.line().hears_chunk().await.flag, Flag::Last);
    carol.is_told_bye(seconds(6)).await;
    let bye = bob.is_told_bye(seconds(40)).await;
    assert!(headers(&bye.message, "Reason").len() == 1);
    assert_eq!(net.results(), ["bob deferred MSRP 408", "carol delivered"]);
    net.ends().await;
}

/// Proves IM-077, MS-090.
#[tokio::test(start_paused = true)]
async fn a_sender_that_falls_silent_loses_its_page() {
    let net = Net::with(&["profile.msrp.page_deadline=1h"]).await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(4_000);
    alice.sends_part(&page, 0, 3_000, '+').await;
    let last = tokio::time::Instant::now();
    for leg in [&mut bob, &mut carol] {
        let taken = leg.line().takes_page_within(seconds(545)).await;
        assert_eq!(taken.flag, Flag::Abort);
    }
    assert!(last.elapsed() >= seconds(540), "{:?}", last.elapsed());
    alice.is_told_bye(seconds(6)).await;
    bob.is_told_bye(seconds(36)).await;
    carol.is_told_bye(seconds(36)).await;
    net.ends().await;
}

/// Proves IM-077, MS-110.
#[tokio::test(start_paused = true)]
async fn no_page_lasts_longer_than_its_deadline() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.refuses(486).await;
    alice.is_answered().await;
    let page = large(40_000);
    let begun = tokio::time::Instant::now();
    for n in 0..6 {
        alice.sends_part(&page, n * 3_000, (n + 1) * 3_000, '+').await;
        net.after(seconds(99)).await;
    }
    let taken = bob.line().takes_page_within(seconds(10)).await;
    assert_eq!((taken.flag, taken.octets.len()), (Flag::Abort, 18_000));
    assert!(begun.elapsed() >= seconds(600) && begun.elapsed() < seconds(602));
    alice.is_told_bye(seconds(6)).await;
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob failed timer 408", "carol failed SIP 486"]);
    net.ends().await;
}

/// Proves MS-084.
#[tokio::test(start_paused = true)]
async fn who_joins_the_group_later_gets_nothing_of_this_page() {
    let net = Net::new().await;
    net.shelf.holds(TEAM);
    let team = "sip:team@groups.ims.test";
    let mut alice = net.scscf().sends(invite().group(team)).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page_to(team, &"to those who are in the team now ".repeat(100));
    alice.sends_part(&page, 0, 2_500, '+').await;
    let dan = r#"<entry uri="sip:dan@ims.test"/></list>"#;
    net.shelf.holds(&TEAM.replace("</list>", dan));
    alice.sends_part(&page, 2_500, page.octets.len(), '$').await;
    for leg in [&mut bob, &mut carol] {
        assert_eq!(leg.got().await.octets, page.octets);
    }
    net.scscf().gets_no_invite().await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    let results = net.results();
    assert!(!results.iter().any(|result| result.starts_with("dan")), "{results:?}");
    net.ends().await;
}

/// MS-086: what is sent reaches the recipients before the page is whole.
#[tokio::test(start_paused = true)]
async fn octets_flow_before_the_page_is_whole() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = joined(&net).await;
    let page = large(100_000);
    alice.sends_part(&page, 0, 50_000, '+').await;
    net.after(millis(50)).await;
    let before = net.switch().octets_out;
    assert!(before > 2 * 16_000, "{before}");
    alice.sends_part(&page, 50_000, page.octets.len(), '$').await;
    assert!(bob.got().await.octets == page.octets);
    let first = carol.line().hears_chunk().await;
    assert_eq!(first.head.kind, Kind::Send);
    assert!(carol.line().takes_rest(first).await.octets == page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-017, IM-019, IM-056, MS-085, MS-091: everybody at once, in one page.
#[tokio::test(start_paused = true)]
async fn ten_recipients_of_ten_kinds() {
    let net = Net::new().await;
    let names =
        ["fast", "slow", "breaks", "full", "picky", "small", "late", "busy", "silent", "two"];
    let mut alice = net.scscf().sends(invite().to(names)).await;
    let [
        mut fast,
        mut slow,
        mut breaks,
        mut full,
        mut picky,
        mut small,
        mut late,
        busy,
        silent,
        mut two,
    ] = net.scscf().gets_invites().await;
    let other = two.another_phone();
    for leg in [&mut fast, &mut slow, &mut breaks, &mut full, &mut picky, &mut two] {
        leg.answers().await;
    }
    other.accepts();
    other.hears("ACK", SOON).await;
    other.is_told_bye(SOON).await;
    small.accepts_with(&format!("{}a=max-size:1000\n", small.sdp()));
    small.hears("ACK", SOON).await;
    small.binds().await;
    silent.accepts();
    silent.hears("ACK", SOON).await;
    busy.refuses(486).await;
    alice.is_answered().await;

    let page = large(200_000);
    let half = page.octets.len() / 2;
    alice.sends_part(&page, 0, half, '+').await;
    assert!(breaks.line().hears_a_head(SOON).await);
    breaks.loses_connection();
    alice.sends_part(&page, half, page.octets.len(), '$').await;
    for leg in [&mut fast, &mut two] {
        assert_eq!(leg.got().await.octets, page.octets);
    }
    for (leg, code) in [(&mut full, 413), (&mut picky, 415)] {
        let chunk = leg.line().hears_chunk().await;
        leg.line().responds(&chunk.head, code).await;
        leg.is_told_bye(seconds(6)).await;
    }
    small.line().hears_nothing().await;
    small.is_told_bye(seconds(6)).await;
    breaks.is_told_bye(seconds(6)).await;
    net.after(seconds(20)).await;
    assert_eq!(slow.got().await.octets, page.octets, "who reads late");
    late.answers().await;
    assert_eq!(late.got().await.octets, page.octets, "from the first octet on");
    silent.is_told_bye(seconds(40)).await;
    for leg in [&mut fast, &mut slow, &mut late, &mut two] {
        leg.is_told_bye(seconds(6)).await;
    }
    alice.is_told_bye(seconds(40)).await;
    assert_eq!(
        net.results(),
        [
            "fast delivered",
            "slow delivered",
            "breaks deferred MSRP 0",
            "full failed MSRP 413",
            "picky failed MSRP 415",
            "small failed MSRP 413",
            "late delivered",
            "busy failed SIP 486",
            "silent deferred timer 408",
            "two delivered",
        ]
    );
    net.ends().await;
}
