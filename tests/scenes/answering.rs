//! What the originator hears: OMA section D, without the bytes.

use crate::caller::page;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{self, header, headers, invite};

/// Proves IM-051, IM-056, UL-026.
#[tokio::test(start_paused = true)]
async fn the_first_who_joins_answers_for_all() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan", "eve"])).await;
    let [bob, mut carol, mut dan, eve] = net.scscf().gets_invites().await;
    bob.refuses(486).await;
    net.after(seconds(1)).await;
    alice.waits();
    carol.answers().await;
    alice.is_answered().await;
    dan.answers().await;
    eve.refuses(603).await;
    net.after(seconds(1)).await;
    alice.hears_no_more();
    let page = page("to those who are there");
    alice.sends_page(&page).await;
    for leg in [&mut carol, &mut dan] {
        assert_eq!(leg.got().await.octets, page.octets);
    }
    alice.hangs_up().await;
    carol.is_told_bye(seconds(6)).await;
    dan.is_told_bye(seconds(6)).await;
    let expected = ["bob failed SIP 486", "carol delivered", "dan delivered", "eve failed SIP 603"];
    assert_eq!(net.results(), expected);
    net.ends().await;
}

/// Proves IM-051, UL-026.
#[tokio::test(start_paused = true)]
async fn with_immediate_nobody_has_to_join_first() {
    let net = Net::with(&["profile.im.originator_answer=immediate"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    alice.is_answered().await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    let page = page("there before anybody answers");
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    carol.refuses(486).await;
    net.after(seconds(3)).await;
    bob.answers().await;
    assert_eq!(bob.got().await.octets, page.octets);
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol failed SIP 486"]);
    net.ends().await;
}

/// Proves IM-053.
#[tokio::test(start_paused = true)]
async fn without_prack_there_is_no_200() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).reliable()).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    carol.rings();
    let first = alice.gets_progress(183, SOON).await;
    assert!(text::attribute(&first.message, "path").is_some(), "the answer is in the 183");
    bob.answers().await;
    // T1, doubled each time, without a cap.
    let mut last = first.at;
    for gap in [500, 1000, 2000, 4000, 8000, 16_000] {
        let again = alice.gets_progress(183, millis(gap + 100)).await;
        assert!(again.at - last >= millis(gap - 10), "{:?} after {gap}", again.at - last);
        last = again.at;
    }
    alice.waits();
    alice.pracks("1 99 INVITE");
    alice.hears_response("PRACK", 481, SOON).await;
    let refused = alice.gets_within(500, seconds(2)).await;
    let took = refused.at - first.at;
    assert!(took >= millis(31_900) && took <= millis(32_100), "{took:?}");
    carol.is_cancelled(SOON).await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-053, IM-054.
#[tokio::test(start_paused = true)]
async fn the_200_follows_the_prack() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"]).reliable()).await;
    let [mut bob] = net.scscf().gets_invites().await;
    let progress = alice.gets_progress(183, SOON).await;
    bob.answers().await;
    net.after(millis(100)).await;
    alice.waits();
    alice.sends_prack(&header(&progress.message, "RSeq")).await;
    alice.is_answered().await;
    let page = page("after all");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-054.
#[tokio::test(start_paused = true)]
async fn five_times_183_is_one_183() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["b", "c", "d", "e", "f"])).await;
    let legs = net.scscf().gets_invites::<5>().await;
    let ours = alice.gets_progress(183, SOON).await;
    for leg in &legs {
        leg.says(183, "Content-Type: application/sdp\n", &leg.sdp());
    }
    net.after(seconds(5)).await;
    alice.hears_no_more();
    for leg in &legs {
        assert_ne!(text::tag(&header(&ours.message, "To")), leg.tag);
        leg.rings();
    }
    alice.gets_progress(180, SOON).await;
    net.after(seconds(5)).await;
    alice.hears_no_more();
    for leg in &legs {
        leg.refuses(480).await;
    }
    alice.gets(480).await;
    net.ends().await;
}

/// Proves IM-057.
#[tokio::test(start_paused = true)]
async fn refusals_come_to_one_answer() {
    // From the text: codes of the recipients (0: no answer at all), and what the originator hears.
    let table: &[(&[u16], u16)] = &[
        (&[486, 486], 486),
        (&[486, 404], 480),
        (&[408], 480),
        (&[603], 603),
        (&[603, 603], 603),
        (&[603, 486], 480),
        (&[401], 403),
        (&[407], 403),
        (&[401, 403], 403),
        (&[302], 480),
        (&[500], 480),
        (&[503, 408], 480),
        (&[404], 404),
        (&[415, 415], 488),
        (&[420, 420], 488),
        (&[421], 488),
        (&[486, 486, 486], 486),
        (&[486, 486, 404], 480),
        (&[0], 480),
        (&[0, 486], 480),
    ];
    let net = Net::with(&["profile.im.max_rate_per_user=1000/s"]).await;
    let names = ["bob", "carol", "dan"];
    for (codes, expected) in table {
        let uris: Vec<_> = names.iter().map(|name| format!("sip:{name}@ims.test")).collect();
        let offer = invite().listing(uris[..codes.len()].iter().map(String::as_str));
        let mut alice = net.scscf().sends(offer).await;
        let mut silent = None;
        for (code, name) in codes.iter().zip(names) {
            let leg = net.scscf().invites(name).await;
            if *code == 0 {
                leg.tries();
                silent = Some(leg);
                continue;
            }
            leg.refuses(*code).await;
            // The one other try of IM-062 may follow: it is refused as well.
            net.after(millis(10)).await;
            if let Some(again) = leg.hears_again() {
                again.refuses(*code).await;
            }
        }
        if let Some(leg) = silent {
            leg.is_cancelled(seconds(121)).await;
        }
        alice.gets(*expected).await;
        net.after(seconds(1)).await;
        let stats = net.switch();
        assert_eq!((stats.sessions, stats.pages), (0, 0), "{codes:?}");
    }
    net.ends().await;
}

/// Proves IM-059, MS-121.
#[tokio::test(start_paused = true)]
async fn of_two_phones_that_answer_one_gets_the_page() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    let mut other = bob.another_phone();
    bob.progresses_reliably(7);
    other.progresses_reliably(40);
    assert_eq!(header(&bob.gets_prack().await.message, "RAck"), "7 1 INVITE");
    assert_eq!(header(&other.gets_prack().await.message, "RAck"), "40 1 INVITE");
    bob.accepts();
    assert_eq!(text::tag(&header(&bob.hears("ACK", SOON).await.message, "To")), bob.tag);
    other.accepts();
    assert_eq!(text::tag(&header(&other.hears("ACK", SOON).await.message, "To")), other.tag);
    let bye = other.is_told_bye(SOON).await;
    assert_eq!(text::tag(&header(&bye.message, "To")), other.tag, "the second is let go");
    bob.binds().await;
    alice.is_answered().await;
    let page = page("once");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    let bye = bob.is_told_bye(seconds(6)).await;
    assert_eq!(text::tag(&header(&bye.message, "To")), bob.tag);
    other.contact.clear();
    assert_eq!(net.results(), ["bob delivered"]);
    net.ends().await;
}

/// Proves IM-060.
#[tokio::test(start_paused = true)]
async fn an_answer_nobody_can_use_ends_that_leg() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan", "eve"])).await;
    let legs = net.scscf().gets_invites::<4>().await;
    let changes: [(&str, &str); 3] =
        [("m=message 9 ", "m=message 0 "), ("a=path:", "a=x-path:"), ("a=recvonly", "a=sendonly")];
    for (n, leg) in legs.iter().enumerate() {
        match changes.get(n) {
            Some((from, to)) => leg.accepts_with(&leg.sdp().replace(from, to)),
            None => leg.says(200, "", ""),
        }
        leg.hears("ACK", SOON).await;
        let bye = leg.is_told_bye(SOON).await;
        let reason = header(&bye.message, "Reason");
        assert!(reason.starts_with("SIP;cause=488;text="), "{reason}");
    }
    alice.gets(488).await;
    let expected = ["bob", "carol", "dan", "eve"].map(|name| format!("{name} failed SIP 488"));
    assert_eq!(net.results(), expected);
    net.ends().await;
}

/// Proves IM-061.
#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_is_cancelled() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, carol] = net.scscf().gets_invites().await;
    bob.tries();
    carol.rings();
    net.after(seconds(118)).await;
    assert!(!bob.has_heard("CANCEL") && !carol.has_heard("CANCEL"));
    carol.is_cancelled(seconds(2)).await;
    // Bob's answer crosses the CANCEL.
    let cancel = bob.hears("CANCEL", SOON).await;
    bob.accepts();
    bob.replies(&cancel.message, 200);
    bob.hears("ACK", SOON).await;
    bob.is_told_bye(SOON).await;
    alice.gets(480).await;
    assert_eq!(net.results(), ["bob failed timer 408", "carol failed timer 408"]);
    net.ends().await;
}

/// Proves IM-061.
#[tokio::test(start_paused = true)]
async fn before_a_provisional_response_there_is_no_cancel() {
    let net = Net::with(&["profile.im.leg_timeout=10s"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [bob] = net.scscf().gets_invites().await;
    alice.gets_within(480, seconds(33)).await;
    net.after(seconds(40)).await;
    assert!(!bob.has_heard("CANCEL"), "Timer B ended it");
    assert_eq!(net.results(), ["bob failed timer 408"]);
    net.ends().await;
}

/// Proves IM-062.
#[tokio::test(start_paused = true)]
async fn one_more_try_after_a_refusal_that_can_be_met() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan", "eve"])).await;
    let [bob, carol, dan, eve] = net.scscf().gets_invites().await;
    // No multipart: the same without the list of the others.
    assert!(header(&bob.invite, "Content-Type").starts_with("multipart/mixed"));
    bob.says(415, "Accept: application/sdp\n", "");
    bob.hears("ACK", SOON).await;
    let bob = bob.is_invited_again().await;
    assert_eq!(header(&bob.invite, "Content-Type"), "application/sdp");
    assert_eq!(header(&bob.invite, "CSeq"), "2 INVITE");
    // The session interval is too small.
    carol.says(422, "Min-SE: 3600\n", "");
    carol.hears("ACK", SOON).await;
    let carol = carol.is_invited_again().await;
    assert_eq!(header(&carol.invite, "Min-SE"), "3600");
    let expires = header(&carol.invite, "Session-Expires");
    assert!(expires.split(';').next().and_then(|n| n.parse::<u32>().ok()) >= Some(3600));
    // No second retry.
    carol.says(422, "Min-SE: 7200\n", "");
    carol.hears("ACK", SOON).await;
    // Neither for a challenge nor for another place.
    dan.refuses(407).await;
    eve.says(302, "", "");
    eve.hears("ACK", SOON).await;
    net.after(SOON).await;
    net.scscf().gets_no_invite().await;
    bob.refuses(486).await;
    alice.gets(480).await;
    net.ends().await;
}

/// Proves IM-063.
#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_answer_ends_everything() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [bob, carol, dan] = net.scscf().gets_invites().await;
    bob.rings();
    carol.tries();
    dan.refuses(486).await;
    alice.cancels();
    alice.hears_response("CANCEL", 200, SOON).await;
    alice.gets(487).await;
    bob.is_cancelled(SOON).await;
    // Carol's answer is under way.
    let cancel = carol.hears("CANCEL", SOON).await;
    carol.accepts();
    carol.replies(&cancel.message, 481);
    carol.hears("ACK", SOON).await;
    carol.is_told_bye(SOON).await;
    net.ends().await;
}

/// Proves IM-063.
#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_answer_changes_nothing() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    alice.cancels();
    alice.hears_response("CANCEL", 200, SOON).await;
    net.after(seconds(1)).await.is_quiet();
    let page = page("all the same");
    alice.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-066.
#[tokio::test(start_paused = true)]
async fn without_ack_the_session_ends() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    let first = alice.gets(200).await;
    let mut last = first.at;
    // T1 doubling to T2 over a stream as well.
    for gap in [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000] {
        let again = alice.gets_within(200, millis(gap + 100)).await;
        assert!(again.at - last >= millis(gap - 10), "{:?} after {gap}", again.at - last);
        last = again.at;
    }
    let bye = alice.is_told_bye(seconds(5)).await;
    assert!(bye.at - first.at >= millis(31_900) && bye.at - first.at < seconds(33));
    bob.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob failed timer 408"]);
    net.ends().await;
}

/// Proves IM-066.
#[tokio::test(start_paused = true)]
async fn inside_a_session_only_what_changes_nothing_is_agreed_to() {
    let net = Net::new().await;
    let offer = invite().to(["bob"]).line("Session-Expires: 1800;refresher=uac");
    let mut alice = net.scscf().sends(offer).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    let sdp = alice.sdp();
    alice.says("INVITE", &format!("Content-Type: application/sdp\n\n{sdp}"));
    let same = alice.hears_response("INVITE", 200, SOON).await;
    alice.acks_again();
    assert_eq!(text::attribute(&same.message, "path"), Some(alice.their_path()));
    let changed = sdp.replace("accept-types:message/cpim text/plain", "accept-types:image/png");
    alice.says("INVITE", &format!("Content-Type: application/sdp\n\n{changed}"));
    alice.hears_response("INVITE", 100, SOON).await;
    alice.hears_response("INVITE", 488, SOON).await;
    alice.acks_refusal();
    alice.says("UPDATE", "");
    alice.hears_response("UPDATE", 200, SOON).await;

    let mut stranger = net.scscf().sends(invite().to(["alice"])).await;
    stranger.gets(403).await;
    stranger.says("BYE", "");
    stranger.hears_response("BYE", 481, SOON).await;
    stranger.says("UPDATE", "");
    stranger.hears_response("UPDATE", 481, SOON).await;

    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-066.
#[tokio::test(start_paused = true)]
async fn a_session_nobody_refreshes_ends() {
    let net = Net::with(&["profile.msrp.page_deadline=1h"]).await;
    let offer = invite().to(["bob"]).line("Session-Expires: 90;refresher=uac\nMin-SE: 90");
    let mut alice = net.scscf().sends(offer).await;
    let [mut bob] = net.scscf().gets_invites().await;
    bob.answers().await;
    let answer = alice.is_answered().await;
    assert_eq!(header(&answer.message, "Session-Expires"), "90;refresher=uac");
    assert!(headers(&answer.message, "Require").iter().any(|value| value.contains("timer")));
    let page = page("never whole");
    let most = page.octets.len() - 2;
    alice.sends_part(&page, 0, most, '+').await;
    let bye = alice.is_told_bye(seconds(91)).await;
    assert!(bye.at - answer.at >= seconds(55), "{:?}", bye.at - answer.at);
    let end = bob.line().hears_chunk_within(seconds(1)).await;
    assert_eq!(end.flag, pagecast::msrp::codec::Flag::Abort);
    bob.line().responds(&end.head, 200).await;
    bob.is_told_bye(seconds(40)).await;
    net.ends().await;
}
