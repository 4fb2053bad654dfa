//! Sessions that are refreshed, relayed, limited, or ended by operators; and content that stays as it is.

use std::sync::Arc;

use pagecast::msrp::codec::{Flag, Kind};
use pagecast::ops::Control as _;

use crate::caller::{Page, page};
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{header, headers, invite};

/// Proves IM-013, IM-015, IM-066.
#[tokio::test(start_paused = true)]
async fn sessions_are_refreshed_in_the_way_the_peer_allows() {
    // What the 183 and the 200 allow, and the method of the refresh.
    let cases = [
        (None, Some("INVITE, ACK, BYE, UPDATE"), "UPDATE"),
        (Some("INVITE, ACK, BYE, UPDATE"), Some("INVITE, ACK, BYE"), "INVITE"),
        (Some("INVITE, ACK, BYE, UPDATE"), None, "UPDATE"),
        (Some("INVITE, ACK, BYE"), None, "INVITE"),
    ];
    for (early, late, method) in cases {
        let net = Net::new().await;
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let [mut bob] = net.scscf().gets_invites().await;
        let line = |allow: Option<&str>| allow.map_or(String::new(), |a| format!("Allow: {a}\n"));
        bob.says(183, &line(early), "");
        let lines = format!(
            "{}Require: timer\nSession-Expires: 200;refresher=uac\nContent-Type: application/sdp\n",
            line(late)
        );
        bob.says(200, &lines, &bob.sdp());
        bob.hears("ACK", SOON).await;
        bob.binds().await;
        alice.is_answered().await;
        let refresh = bob.hears(method, seconds(101)).await;
        let other = if method == "INVITE" { "UPDATE" } else { "INVITE" };
        assert!(!bob.has_heard(other), "{early:?} {late:?}");
        let expires = "Session-Expires: 200;refresher=uac\nRequire: timer\n";
        bob.replies_with(&refresh.message, 200, expires, method == "INVITE");
        if method == "INVITE" {
            bob.hears("ACK", SOON).await;
        }
        let page = page("still there");
        alice.sends_page(&page).await;
        assert_eq!(bob.got().await.octets, page.octets);
        alice.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
        net.ends().await;
    }
}

/// Proves MS-076, MS-118, IM-069.
#[tokio::test(start_paused = true)]
async fn a_page_goes_through_relays_on_both_sides() {
    let net = Net::new().await;
    let relayed = "msrp://192.0.2.98:2855/relay-a;tcp msrp://192.0.2.55:7394/alice;tcp";
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"]).path(relayed)).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    let path = format!("msrp://192.0.2.99:2855/relay-b;tcp {}", bob.path());
    bob.reached_by(&path);
    carol.reached_by(&format!("msrp://192.0.2.99:2855/relay-c;tcp {}", carol.path()));
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let page = page(&"by way of relays ".repeat(500));
    let lines = page.lines(1, "Success-Report: yes\r\n");
    alice.line().sends(&lines, Some(&page.octets), '$').await;
    let whole = |uris: &[pagecast::content::msrp_uri::MsrpUri]| {
        uris.iter().map(|uri| uri.as_str()).collect::<Vec<_>>().join(" ")
    };
    // A response goes to the next hop alone, a REPORT to the whole path.
    let response = alice.line().hears().await.expect("a response").head;
    assert_eq!(response.kind, Kind::Response(200));
    assert_eq!(Some(whole(&response.to_path).as_str()), relayed.split(' ').next());
    let report = alice.line().hears().await.expect("a REPORT").head;
    assert_eq!((report.kind, whole(&report.to_path).as_str()), (Kind::Report, relayed));
    let first = bob.line().hears_chunk().await;
    assert_eq!(whole(&first.head.to_path), path);
    let taken = bob.line().takes_rest(first).await;
    assert!(taken.octets == page.octets);
    // Carol's relay took it, but could not hand it on.
    let chunk = carol.line().hears_chunk().await;
    carol.line().responds(&chunk.head, 200).await;
    let id = chunk.head.message_id.as_deref().unwrap_or_default().to_owned();
    carol.line().reports_octets(&id, page.octets.len(), 408).await;
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(36)).await;
    assert_eq!(net.results(), ["bob delivered", "carol deferred MSRP 408"]);
    net.ends().await;
}

/// Proves MS-012.
#[tokio::test(start_paused = true)]
async fn containers_are_taken_as_they_are() {
    let net = Net::new().await;
    let multipart = b"--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1--\r\n".to_vec();
    let cpim = page("hello").octets;
    let kinds: [(&'static str, Vec<u8>); 3] = [
        ("multipart/mixed;boundary=b1", multipart.clone()),
        ("multipart/alternative;boundary=b1", multipart),
        ("message/cpim", cpim),
    ];
    for (content_type, octets) in kinds {
        let mut alice = net.scscf().sends(invite().to(["bob"]).types("*", "*")).await;
        let [mut bob] = net.scscf().gets_invites().await;
        bob.accepts_with(&bob.sdp().replace("message/cpim text/plain", "*"));
        bob.hears("ACK", SOON).await;
        bob.binds().await;
        alice.is_answered().await;
        let page = Page { content_type, octets };
        alice.sends_page(&page).await;
        let taken = bob.got().await;
        assert_eq!((taken.content_type.as_str(), &taken.octets), (content_type, &page.octets));
        alice.hangs_up().await;
        bob.is_told_bye(seconds(6)).await;
    }
    net.ends().await;
}

/// Proves MS-096, MS-097, MS-117.
#[tokio::test(start_paused = true)]
async fn what_stands_in_cpim_stays_as_it_is() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.answers().await;
    alice.is_answered().await;
    let octets = "NS: X <urn:example:x>\r\nX.foo: odd   spacing\r\nRequire: X.foo\r\n\
                  To: <sip:pages@ims.test>\r\nsubject:;lang=en \u{e4}\r\nFrom: Alice <sip:alice@ims.test>\r\n\
                  Unknown: yes\r\nDateTime: 2000-12-13T13:40:00-08:00\r\n\r\n\
                  Content-Type: text/plain; charset=utf-8\r\nX-Odd:1\r\n\r\n<script>\u{0}\r\n--not-a-boundary";
    let page = Page { content_type: "message/cpim", octets: octets.as_bytes().to_vec() };
    alice.sends_page(&page).await;
    for leg in [&mut bob, &mut carol] {
        assert!(leg.got().await.octets == page.octets);
    }
    alice.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    carol.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves MS-099.
#[tokio::test(start_paused = true)]
async fn who_wants_to_stay_unknown_stays_unknown() {
    for named in [false, true] {
        let net = Net::new().await;
        let offer = invite().to(["bob", "carol"]).line("Privacy: id");
        let mut alice = net.scscf().sends(offer).await;
        let [mut bob, mut carol] = net.scscf().gets_invites().await;
        let inside_the_domain = ["P-Asserted-Identity", "P-Served-User"];
        for (name, value) in bob.invite.all_headers() {
            let name = String::from_utf8_lossy(name).into_owned();
            let value = String::from_utf8_lossy(value).into_owned();
            assert!(
                inside_the_domain.contains(&name.as_str()) || !value.contains("alice"),
                "{name}: {value}"
            );
        }
        assert!(!String::from_utf8_lossy(bob.invite.body()).contains("alice"));
        bob.answers().await;
        carol.answers().await;
        alice.is_answered().await;
        let mut page = page("guess who");
        if named {
            alice.line().sends(&page.lines(1, ""), Some(&page.octets), '$').await;
            assert_eq!(alice.line().hears_answer().await, 403);
            alice.is_told_bye(seconds(6)).await;
            bob.line().hears_nothing().await;
        } else {
            let text = String::from_utf8(page.octets).expect("text");
            let anonymous = "sip:anonymous@anonymous.invalid";
            page.octets = text.replace("sip:alice@ims.test", anonymous).into_bytes();
            alice.sends_page(&page).await;
            for leg in [&mut bob, &mut carol] {
                let frame = leg.line().hears_chunk().await;
                assert!(!format!("{:?}", frame.head).contains("alice"));
                assert!(leg.line().takes_rest(frame).await.octets == page.octets);
            }
            alice.hangs_up().await;
        }
        bob.is_told_bye(seconds(36)).await;
        carol.is_told_bye(seconds(36)).await;
        net.ends().await;
    }
}

/// Proves ISC-070.
#[tokio::test(start_paused = true)]
async fn a_redirection_is_not_followed() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob"])).await;
    let [bob] = net.scscf().gets_invites().await;
    let elsewhere = "sip:+19005550123@premium.example";
    bob.says(302, &format!("Contact: <{elsewhere}>\n"), "");
    bob.hears("ACK", SOON).await;
    let refused = alice.gets(480).await;
    assert!(!String::from_utf8_lossy(refused.message.bytes()).contains("premium"));
    net.scscf().gets_no_invite().await;
    assert_eq!(net.results(), ["bob failed SIP 302"]);
    net.ends().await;
}

/// Where the operator wants it: the best place that a list might name, once.
///
/// Proves ISC-070, ISC-077.
#[tokio::test(start_paused = true)]
async fn a_redirection_is_followed_once_where_policy_permits() {
    let net = Net::with(&["profile.im.recurse_3xx=true"]).await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [bob, carol] = net.scscf().gets_invites().await;
    let places = "Contact: <sip:bobby@home2.example>;q=0.5, <sip:bob@10.0.0.7>;q=0.9, <tel:+19005550123>\n\
                  Contact: <sip:last@home2.example>;q=0.1\n";
    bob.says(302, places, "");
    bob.hears("ACK", SOON).await;
    let mut bobby = bob.is_invited_again().await;
    let again = &bobby.invite;
    assert_eq!(again.uri(), "sip:bobby@home2.example");
    assert_eq!(header(again, "To"), "<sip:bob@ims.test>");
    assert_eq!(header(again, "CSeq"), "2 INVITE");
    for same in ["Call-ID", "From", "Route", "P-Asserted-Identity"] {
        assert_eq!(header(again, same), header(&bob.invite, same), "{same}");
    }
    assert_eq!(
        header(again, "History-Info"),
        "<sip:bob@ims.test?Reason=SIP%3Bcause%3D302>;index=1, <sip:bobby@home2.example>;index=1.1;mp=1"
    );
    assert!(headers(&bob.invite, "History-Info").is_empty());
    // Carol is somewhere else, and there somewhere else again.
    carol.says(300, "Contact: <sip:carla@ims.test>\n", "");
    carol.hears("ACK", SOON).await;
    let carla = carol.is_invited_again().await;
    carla.says(301, "Contact: <sip:carmen@ims.test>\n", "");
    carla.hears("ACK", SOON).await;
    net.scscf().gets_no_invite().await;
    bobby.answers().await;
    alice.is_answered().await;
    let page = page("found");
    alice.sends_page(&page).await;
    assert_eq!(bobby.got().await.octets, page.octets);
    alice.hangs_up().await;
    bobby.is_told_bye(seconds(6)).await;
    assert_eq!(net.results(), ["bob delivered", "carol failed SIP 301"]);
    net.ends().await;
}

/// Proves ISC-070.
#[tokio::test(start_paused = true)]
async fn a_redirection_to_where_no_list_may_go_is_not_followed() {
    for (place, set) in [
        ("sip:+19005550123@premium.example", ""),
        ("sip:19005550123@ims.test", ""),
        ("sip:x@ims.test;user=phone", ""),
        ("tel:+19005550123", ""),
        ("mailto:bob@ims.test", ""),
        ("sip:pages@ims.test", ""),
        ("sip:team@groups.ims.test", ""),
        ("sip:alice@ims.test", ""),
        ("sip:carol@ims.test", ""),
        ("sip:ims.test", ""),
        ("sip:bob@192.0.2.9", ""),
        ("sip:mallory@ims.test", "service.barred=['sip:mallory@ims.test']"),
        ("sip:bob@home2.example", "profile.ul.allowed_domains=['ims.test']"),
        ("sip:bob@home2.example", "profile.ul.foreign_hosts=0"),
        ("sip:bobby@ims.test", "profile.ul.budget_per_minute=2"),
    ] {
        let set: Vec<&str> =
            ["profile.im.recurse_3xx=true", set].into_iter().filter(|s| !s.is_empty()).collect();
        let net = Net::with(&set).await;
        let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
        let [bob, carol] = net.scscf().gets_invites().await;
        bob.says(302, &format!("Contact: <{place}>\n"), "");
        bob.hears("ACK", SOON).await;
        net.scscf().gets_no_invite().await;
        carol.refuses(486).await;
        alice.gets(480).await;
        assert_eq!(net.results(), ["bob failed SIP 302", "carol failed SIP 486"], "{place}");
        net.ends().await;
    }
}

/// Proves IM-024.
#[tokio::test(start_paused = true)]
async fn who_is_barred_gets_nowhere() {
    let net = Net::with(&["service.barred=['sip:alice@ims.test']"]).await;
    let uris: Vec<_> = (0..1000).map(|n| format!("sip:user{n}@ims.test")).collect();
    let offer = invite().listing(uris.iter().map(String::as_str));
    let mut alice = net.scscf().sends(offer).await;
    let refused = alice.gets(403).await;
    assert!(header(&refused.message, "Warning").contains("127 Service not authorised"));
    net.scscf().gets_no_invite().await;
    assert_eq!(net.shelf.fetches(), 0);
    net.ends().await;
}

/// Proves IM-036.
#[tokio::test(start_paused = true)]
async fn one_user_may_send_so_many_pages_at_a_time() {
    let net = Net::with(&["profile.im.max_parallel_per_user=2"]).await;
    let mut first = net.scscf().sends(invite().to(["bob"])).await;
    let mut second = net.scscf().sends(invite().to(["carol"])).await;
    let [mut bob, carol] = net.scscf().gets_invites().await;
    let mut third = net.scscf().sends(invite().to(["dan"])).await;
    third.gets(486).await;
    let mut other = net.scscf().sends(invite().by("mallory").to(["dan"])).await;
    let [dan] = net.scscf().gets_invites().await;
    dan.refuses(486).await;
    other.gets(486).await;
    // The earlier ones go on, and make room.
    bob.answers().await;
    first.is_answered().await;
    let page = page("undisturbed");
    first.sends_page(&page).await;
    assert_eq!(bob.got().await.octets, page.octets);
    carol.refuses(404).await;
    second.gets(404).await;
    let mut fourth = net.scscf().sends(invite().to(["dan"])).await;
    let [dan] = net.scscf().gets_invites().await;
    dan.refuses(404).await;
    fourth.gets(404).await;
    first.hangs_up().await;
    bob.is_told_bye(seconds(6)).await;
    net.ends().await;
}

/// Proves IM-036.
#[tokio::test(start_paused = true)]
async fn a_node_that_drains_finishes_what_runs() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol"])).await;
    let [mut bob, mut carol] = net.scscf().gets_invites().await;
    bob.answers().await;
    alice.is_answered().await;
    net.scscf().control.start_drain();
    net.after(millis(1)).await;
    let mut late = net.scscf().sends(invite().to(["dan"])).await;
    let refused = late.gets(503).await;
    assert_eq!(headers(&refused.message, "Retry-After").len(), 1);
    net.scscf().gets_no_invite().await;
    let page = page("the last one");
    alice.sends_page(&page).await;
    alice.hangs_up().await;
    carol.answers().await;
    for leg in [&mut bob, &mut carol] {
        assert_eq!(leg.got().await.octets, page.octets);
        leg.is_told_bye(seconds(6)).await;
    }
    assert_eq!(net.results(), ["bob delivered", "carol delivered"]);
    net.ends().await;
}

/// MS-090: what operators end is given up everywhere.
#[tokio::test(start_paused = true)]
async fn operators_end_a_page() {
    let net = Net::new().await;
    let mut alice = net.scscf().sends(invite().to(["bob", "carol", "dan"])).await;
    let [mut bob, carol, dan] = net.scscf().gets_invites().await;
    bob.answers().await;
    carol.rings();
    dan.refuses(486).await;
    alice.is_answered().await;
    let page = page(&"never to be ended ".repeat(300));
    alice.sends_part(&page, 0, 3_000, '+').await;
    let id = net.page()["id"].as_str().expect("an id").parse().expect("an id");
    assert!(Arc::clone(&net.scscf().control).end_page(id).await, "it was running");
    assert_eq!(bob.got().await.flag, Flag::Abort);
    carol.is_cancelled(SOON).await;
    alice.is_told_bye(seconds(6)).await;
    bob.is_told_bye(seconds(36)).await;
    assert_eq!(net.results()[2], "dan failed SIP 486");
    assert!(!net.scscf().control.end_page(id).await, "it is over");
    net.ends().await;
}

/// MS-118: that no REPORT comes from behind a relay is no failure.
#[tokio::test(start_paused = true)]
async fn behind_a_relay_no_news_is_good_news() {
    for cut in [false, true] {
        let net = Net::new().await;
        let mut alice = net.scscf().sends(invite().to(["bob"])).await;
        let [mut bob] = net.scscf().gets_invites().await;
        bob.reached_by(&format!("msrp://192.0.2.99:2855/relay-b;tcp {}", bob.path()));
        bob.answers().await;
        alice.is_answered().await;
        alice.sends_page(&page("taken by the relay")).await;
        let chunk = bob.line().hears_chunk().await;
        bob.line().responds(&chunk.head, 200).await;
        alice.hangs_up().await;
        net.after(seconds(1)).await;
        if cut {
            bob.loses_connection();
        }
        bob.is_told_bye(seconds(36)).await;
        assert_eq!(net.results(), ["bob delivered"]);
        net.ends().await;
    }
}
