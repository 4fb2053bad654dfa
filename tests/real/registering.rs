//! What the core told of its users, over a kill and without a store.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::support::{Folder, LIMIT, Program, Server, arguments, until};

/// Somewhere nothing listens.
const NOWHERE: &str = "sip:127.0.0.1:9";

/// One request over TCP and the first final answer to it, and how long that took.
async fn asks(server: &Server, request: &str) -> (String, Duration) {
    asks_until(server, request, "SIP/2.0 ").await
}

/// The same, heard until that has come.
async fn asks_until(server: &Server, request: &str, awaited: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(server.tcp).await.expect("it listens");
    let request = request.replace('\n', "\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    let reading = async {
        loop {
            let mut octets = [0; 4096];
            let n = stream.read(&mut octets).await.expect("it answers");
            assert!(n > 0, "closed behind {text:?}");
            text.push_str(&String::from_utf8_lossy(&octets[..n]));
            if text.contains(awaited) && text.ends_with("\r\n\r\n") {
                return;
            }
        }
    };
    timeout(LIMIT, reading).await.expect("an answer in time");
    (text, begun.elapsed())
}

/// The S-CSCF at `scscf` says that a user is registered with it for so long.
async fn registers(server: &Server, user: &str, scscf: &str, expires: u32) -> Duration {
    let n = getrandom::u64().expect("random octets");
    let (answer, took) = asks(
        server,
        &format!(
            "REGISTER sip:127.0.0.1:5090 SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{n:x}\n\
             Max-Forwards: 70\nFrom: <sip:{scscf}>;tag=r{n:x}\nTo: <sip:{user}@ims.test>\n\
             Call-ID: 3p-{n:x}@127.0.0.1\nCSeq: 1 REGISTER\nContact: <sip:{scscf};transport=tcp>\n\
             Expires: {expires}\nContent-Length: 0\n\n"
        ),
    )
    .await;
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    assert!(answer.contains(&format!("Expires: {expires}\r\n")), "{answer}");
    took
}

/// A page of Alice's to Bob, by a Route of another S-CSCF.
fn invite() -> String {
    let n = getrandom::u64().expect("random octets");
    let sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=message 9 TCP/MSRP *\n\
               a=path:msrp://127.0.0.1:7394/alice;tcp\na=setup:active\na=accept-types:message/cpim text/plain\n\
               a=accept-wrapped-types:*\na=sendonly\n";
    let body = format!(
        "--b\nContent-Type: application/sdp\n\n{sdp}\n--b\nContent-Type: application/resource-lists+xml\n\
         Content-Disposition: recipient-list\n\n\
         <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>\
         <entry uri=\"sip:bob@ims.test\"/></list></resource-lists>\n--b--\n"
    );
    let length = body.replace('\n', "\r\n").len();
    format!(
        "INVITE sip:pages@ims.test SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{n:x}\n\
         Max-Forwards: 67\nRoute: <sip:127.0.0.1:5090;lr>, <sip:odi@127.0.0.1:9;transport=tcp;lr;orig>\n\
         P-Asserted-Identity: <sip:alice@ims.test>\nP-Served-User: <sip:alice@ims.test>;sescase=orig;regstate=reg\n\
         From: <sip:alice@ims.test>;tag=a{n:x}\nTo: <sip:pages@ims.test>\nCall-ID: {n:x}@ue\nCSeq: 1 INVITE\n\
         Contact: <sip:alice@127.0.0.1>;+g.oma.sip-im.large-message\n\
         Accept-Contact: *;+g.oma.sip-im.large-message\nRequire: recipient-list-invite\n\
         Content-Type: multipart/mixed;boundary=b\nContent-Length: {length}\n\n{body}"
    )
}

/// A page of Alice's makes a leg; what arrives at her S-CSCF.
async fn leg(server: &Server, scscf: &TcpListener) -> String {
    let sending = asks(server, &invite()).await;
    assert!(sending.0.starts_with("SIP/2.0 1"), "{}", sending.0);
    let taking = async {
        let (mut stream, _) = scscf.accept().await.expect("a connection");
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut octets = [0; 4096];
            let n = stream.read(&mut octets).await.expect("it writes");
            assert!(n > 0, "closed behind {text:?}");
            text.push_str(&String::from_utf8_lossy(&octets[..n]));
        }
        text
    };
    timeout(LIMIT, taking).await.expect("the leg comes to the S-CSCF of the registration")
}

/// Killed at any moment, the server knows again who is registered where; who is not is forgotten.
///
/// Proves ISC-041.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_survive_a_kill() {
    let folder = Folder::new();
    let scscf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = scscf.local_addr().expect("bound").to_string();
    let set = ["profile.isc.reg_grace=0s"];
    let mut server = Server::start(&folder, NOWHERE, &set).await;
    registers(&server, "alice", &at, 600).await;
    registers(&server, "bob", &at, 1).await;
    registers(&server, "carol", &at, 600).await;
    registers(&server, "carol", &at, 0).await;
    until("bob's end", async || {
        (server.metric("pagecast_registrations", "").await == 1).then_some(())
    })
    .await;
    assert!(server.metric("pagecast_store_commit_seconds_count", "").await > 0);
    server.program.signal("KILL");
    server.program.ended().await;

    let server = Server::start(&folder, NOWHERE, &set).await;
    assert_eq!(server.json("/api/status").await["registrations"], 1);
    let text = leg(&server, &scscf).await;
    let route = format!("\r\nRoute: <sip:{at};transport=tcp;lr;orig>\r\n");
    assert!(text.starts_with("INVITE sip:bob@ims.test ") && text.contains(&route), "{text}");
}

/// A store that cannot be written refuses no REGISTER: it is answered in time, counts at once, and is written later.
///
/// Proves ISC-046.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_refuses_nobody() {
    let folder = Folder::new();
    let scscf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = scscf.local_addr().expect("bound").to_string();
    let mut server = Server::start(&folder, NOWHERE, &[]).await;
    assert_eq!(server.get("/ready").await.status, 200);
    let other = Connection::open(folder.join("var/pagecast.db")).expect("the store");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    for user in ["alice", "bob"] {
        let took = registers(&server, user, &at, 600).await;
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    let ready = server.get("/ready").await;
    assert_eq!(ready.status, 503);
    let ready: serde_json::Value = serde_json::from_slice(&ready.body).expect("JSON");
    assert_eq!(ready["reasons"], json!(["store"]));
    let status = server.json("/api/status").await;
    let store = status["neighbours"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "store"))
        .expect("the store is a neighbour");
    assert_eq!(store["state"], "down");
    assert!(store["last_error"].as_str().is_some_and(|error| error.contains("locked")), "{store}");
    assert_eq!(status["registrations"], 2);
    // No page is taken that cannot be kept; 480, so that nobody goes round us with it.
    let refused = asks_until(&server, &invite(), "SIP/2.0 480 ").await.0;
    assert!(refused.contains("\r\nRetry-After: "), "{refused}");

    other.execute_batch("ROLLBACK").expect("it was ours");
    until("the store is back", async || (server.get("/ready").await.status == 200).then_some(()))
        .await;
    server.program.signal("KILL");
    server.program.ended().await;
    let server = Server::start(&folder, NOWHERE, &[]).await;
    assert_eq!(server.json("/api/status").await["registrations"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_version_is_left_alone() {
    let folder = Folder::new();
    let mut server = Server::start(&folder, NOWHERE, &[]).await;
    server.program.signal("TERM");
    assert_eq!(server.program.ended().await.status, Some(0));
    let other = Connection::open(folder.join("var/pagecast.db")).expect("the store");
    other.execute_batch("PRAGMA user_version=99").expect("written");
    drop(other);
    let mut all = vec!["serve".to_owned()];
    all.extend(arguments(&folder, NOWHERE, &[]));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let run = Program::start(&folder, &all).ended().await;
    assert_eq!(run.status, Some(1), "{run:?}");
    assert!(run.err.contains("newer version") && run.err.contains("99"), "{run:?}");
}
