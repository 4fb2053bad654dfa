//! `msrp.*`: the media plane's limits and timers.

use std::sync::Arc;

use pagecast::msrp::codec::Flag;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::{TEAM, cases, joined, leg, outcome, time};
use crate::borders::says_cema;
use crate::caller::{Page, page};
use crate::inviting::TEAM as DOCUMENT;
use crate::line::Line;
use crate::net::{Net, SOON, millis, seconds};
use crate::text::{attribute, invite};

cases! {
    "msrp.tx_timeout" with "profile.msrp.drain_after_end=0s" { "'30s'" => "BYE after 30s", "'3s'" => "BYE after 3s", } no_response;
    "msrp.bind_timeout" with "profile.msrp.drain_after_end=0s" { "'30s'" => "BYE after 30s", "'3s'" => "BYE after 3s", } nobody_connects;
    "msrp.chunk_gap_timeout" with "profile.msrp.page_deadline=1h" {
        "'9m'" => "given up after 540s", "'3s'" => "given up after 3s",
    } the_sender_falls_silent;
    "msrp.max_message" {
        "'10MiB'" => "invites sip:bob@ims.test, SEND 200",
        "'1KiB'" => "refused 403 Size exceeded, SEND 413",
    } three_thousand_octets;
    "msrp.max_header_section" { "'16KiB'" => "200", "'1KiB'" => "400", } long_headers;
    "msrp.leg_stall_timeout" with "profile.msrp.drain_after_end=0s" { "'120s'" => "BYE after 120s", "'9s'" => "BYE after 9s", } nobody_reads;
    "msrp.page_deadline" with "profile.msrp.chunk_gap_timeout=1h" {
        "'10m'" => "given up after 600s", "'7s'" => "given up after 7s",
    } the_sender_falls_silent;
    "msrp.drain_after_end" { "'5s'" => "BYE after 5s", "'2s'" => "BYE after 2s", } delivered;
    "msrp.conn_linger" { "'10s'" => "closed after 10s", "'2s'" => "closed after 2s", } nothing_is_left;
    "msrp.attribution" {
        "'many'" => "list: message/cpim, group: message/cpim",
        "'group'" => "list: message/cpim text/plain, group: message/cpim",
        "'never'" => "list: message/cpim text/plain, group: message/cpim text/plain",
    } who_sent_it;
    "msrp.cema" { "true" => "offered", "false" => "not offered", } across_borders;
    "msrp.store_and_forward" { "false" => "passed on at once", "true" => "kept until it is whole", } half_a_page;
    "msrp.sr_policy" { "'switch'" => "REPORT at once", "'first_delivery'" => "REPORT after Bob", } success_report;
    "msrp.max_connections" { "1" => "refused", "2" => "taken", } two_connections;
    "msrp.max_connections_per_ip" { "1" => "refused", "0" => "taken", } two_connections;
    "msrp.max_unbound" { "1" => "refused", "2" => "taken", } two_connections;
    "msrp.connect_allow" { "['10.0.0.0/8']" => "we do not connect", "['127.0.0.0/8']" => "we connect", } we_connect;
}

/// A page of so many octets of content.
fn large(octets: usize) -> Page {
    page(&"0123456789abcdef".repeat(octets / 16))
}

async fn no_response(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    alice.sends_page(&page("well?")).await;
    bob.line().hears_chunk().await;
    let sent = Instant::now();
    let bye = bob.hears("BYE", seconds(100)).await;
    format!("BYE after {}", time(sent, bye.at))
}

async fn nobody_connects(net: Net) -> String {
    let (_alice, bob) = leg(&net, invite().to(["bob"])).await;
    bob.accepts();
    bob.hears("ACK", SOON).await;
    let answered = Instant::now();
    let bye = bob.hears("BYE", seconds(100)).await;
    format!("BYE after {}", time(answered, bye.at))
}

async fn the_sender_falls_silent(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    let page = large(4_000);
    alice.sends_part(&page, 0, 3_000, '+').await;
    let last = Instant::now();
    let taken = bob.line().takes_page_within(seconds(700)).await;
    assert_eq!(taken.flag, Flag::Abort);
    format!("given up after {}", time(last, Instant::now()))
}

async fn three_thousand_octets(net: Net) -> String {
    let file = "a=file-selector:size:3000 type:text/plain\na=sendonly\n";
    let announced = outcome(&net, invite().to(["bob"]).instead("a=sendonly\n", file)).await;
    let (mut alice, _bob) = joined(&net).await;
    let page = large(3_000);
    alice.line().sends(&page.lines(1, ""), Some(&page.octets), '$').await;
    format!("{announced}, SEND {}", alice.line().hears_answer().await)
}

async fn long_headers(net: Net) -> String {
    let (mut alice, _bob) = joined(&net).await;
    let page = page("short");
    let lines = page.lines(1, &format!("X-Filler: {}\r\n", "x".repeat(50)).repeat(40));
    alice.line().sends(&lines, Some(&page.octets), '$').await;
    alice.line().hears_answer().await.to_string()
}

async fn nobody_reads(net: Net) -> String {
    let (mut alice, bob) = joined(&net).await;
    alice.sends_page(&large(500_000)).await;
    let sent = Instant::now();
    let bye = bob.hears("BYE", seconds(200)).await;
    format!("BYE after {}", time(sent, bye.at))
}

async fn delivered(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    alice.sends_page(&page("here it is")).await;
    bob.got().await;
    let taken = Instant::now();
    let bye = bob.hears("BYE", seconds(60)).await;
    format!("BYE after {}", time(taken, bye.at))
}

async fn nothing_is_left(net: Net) -> String {
    let (_alice, mut bob) = joined(&net).await;
    bob.hangs_up().await;
    let left = Instant::now();
    let heard = timeout(seconds(100), bob.line().hears()).await.expect("it is closed in time");
    assert!(heard.is_none(), "{heard:?}");
    format!("closed after {}", time(left, Instant::now()))
}

async fn who_sent_it(net: Net) -> String {
    net.shelf.holds(DOCUMENT);
    let mut types = Vec::new();
    for offer in [invite().to(["bob", "carol"]), invite().group(TEAM)] {
        let _alice = net.scscf().sends(offer).await;
        let [bob, _carol] = net.scscf().gets_invites().await;
        types.push(attribute(&bob.invite, "accept-types").expect("types are offered"));
    }
    format!("list: {}, group: {}", types[0], types[1])
}

async fn across_borders(net: Net) -> String {
    let (_alice, bob) = leg(&net, invite().to(["bob"])).await;
    if says_cema(&bob) { "offered" } else { "not offered" }.to_owned()
}

async fn half_a_page(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    let page = large(4_000);
    alice.sends_part(&page, 0, 3_000, '+').await;
    if bob.line().hears_a_head(SOON).await {
        "passed on at once".to_owned()
    } else {
        "kept until it is whole".to_owned()
    }
}

async fn success_report(net: Net) -> String {
    let (mut alice, mut bob) = joined(&net).await;
    let page = page("did it come?");
    let lines = page.lines(1, "Success-Report: yes\r\n");
    alice.line().sends(&lines, Some(&page.octets), '$').await;
    assert_eq!(alice.line().hears_answer().await, 200);
    if let Ok(frame) = timeout(SOON, alice.line().hears()).await {
        let head = frame.expect("an open connection").head;
        assert_eq!(head.status.map(|(_, status)| status), Some(200));
        return "REPORT at once".to_owned();
    }
    bob.got().await;
    assert_eq!(alice.line().hears_report().await, 200);
    "REPORT after Bob".to_owned()
}

async fn two_connections(net: Net) -> String {
    let core = Arc::clone(net.scscf());
    let connect = |n| {
        Line::connect(
            &core,
            &format!("msrp://192.0.2.77:2855/a{n};tcp"),
            "msrp://127.0.0.1:2855/x;tcp",
        )
    };
    let mut first = connect(1);
    net.after(millis(1)).await;
    let mut second = connect(2);
    assert!(timeout(millis(5), first.hears()).await.is_err(), "the first one stays");
    match timeout(millis(5), second.hears()).await {
        Ok(None) => "refused".to_owned(),
        Ok(Some(frame)) => panic!("{frame:?}"),
        Err(_) => "taken".to_owned(),
    }
}

async fn we_connect(net: Net) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let (_alice, bob) = leg(&net, invite().to(["bob"])).await;
    let path = format!("msrp://{address}/bob;tcp");
    let sdp = format!(
        "v=0\no=- 99 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=message {} TCP/MSRP *\n\
         a=path:{path}\na=setup:passive\na=accept-types:message/cpim text/plain\n\
         a=accept-wrapped-types:*\na=recvonly\n",
        address.port()
    );
    bob.accepts_with(&sdp);
    bob.hears("ACK", SOON).await;
    for _ in 0..200 {
        // Each step looks at the socket; the kernel connects two ends of loopback at once.
        if timeout(millis(1), listener.accept()).await.is_ok() {
            return "we connect".to_owned();
        }
    }
    "we do not connect".to_owned()
}
