//! MSRP at IPv4 and IPv6 of one node: every peer is answered at an address of its own kind, on real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server};

/// The core and a phone behind it, in one socket.
struct Peer {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Peer {
    fn own(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    async fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.server).await.expect("loopback");
    }

    /// The next message that begins like this; others are passed over.
    async fn next(&self, start: &str) -> String {
        let receive = async {
            loop {
                let mut octets = vec![0; 65_536];
                let (length, _) = self.socket.recv_from(&mut octets).await.expect("loopback");
                let text = String::from_utf8_lossy(&octets[..length]).into_owned();
                if text.starts_with(start) {
                    return text;
                }
            }
        };
        timeout(LIMIT, receive).await.unwrap_or_else(|_| panic!("no {start}"))
    }

    /// A page to bob, offered by a phone at `host`.
    async fn invite(&self, host: &str) {
        let kind = if host.contains(':') { "IP6" } else { "IP4" };
        let literal = if kind == "IP6" { format!("[{host}]") } else { host.to_owned() };
        let body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=- 1 1 IN {kind} {host}\r\ns=-\r\nc=IN {kind} {host}\r\nt=0 0\r\n\
             m=message 9 TCP/MSRP *\r\na=path:msrp://{literal}:2855/ue1;tcp\r\na=setup:active\r\n\
             a=accept-types:message/cpim text/plain\r\na=sendonly\r\n\
             --b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n\
             <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:bob@ims.test\"/></list></resource-lists>\r\n--b1--\r\n"
        );
        let own = self.own();
        self.send(&format!(
            "INVITE sip:pages@ims.test SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{kind}\r\nMax-Forwards: 67\r\n\
             P-Asserted-Identity: <sip:alice@ims.test>\r\nFrom: <sip:alice@ims.test>;tag=a\r\nTo: <sip:pages@ims.test>\r\n\
             Call-ID: {kind}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{own}>\r\nRequire: recipient-list-invite\r\n\
             Accept-Contact: *;+g.oma.sip-im.large-message\r\nContent-Type: multipart/mixed;boundary=b1\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    }
}

async fn start(folder: &Folder, msrp: &str) -> (Server, Peer) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let core = format!("sip:{}", socket.local_addr().expect("bound"));
    let set = [msrp, "profile.im.originator_answer=immediate"];
    let server = Server::start(folder, &core, &set).await;
    let peer = Peer { socket, server: server.udp };
    (server, peer)
}

/// The value behind a line's start.
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no {start} in\n{text}"))
}

/// Proves ISC-064.
#[tokio::test]
async fn every_phone_is_answered_at_an_address_of_its_own_kind() {
    let folder = Folder::new();
    let (server, peer) = start(&folder, "msrp.listen=['127.0.0.1:0', '[::1]:0']").await;
    for (host, kind, literal) in [("::1", "IP6", "[::1]"), ("127.0.0.1", "IP4", "127.0.0.1")] {
        peer.invite(host).await;
        let answer = peer.next("SIP/2.0 200").await;
        assert_eq!(line(&answer, &format!("c=IN {kind} ")), host);
        let path = line(&answer, "a=path:");
        let door = path.strip_prefix("msrp://").and_then(|rest| rest.split('/').next());
        let door: SocketAddr = door.and_then(|door| door.parse().ok()).expect("an address");
        assert_eq!(door.ip().to_string(), host, "{path}");
        // It listens there, and knows the session it told.
        let mut stream = TcpStream::connect(door).await.expect("it listens");
        let from = format!("msrp://{literal}:2855/ue1;tcp");
        let bind = format!(
            "MSRP t1a2 SEND\r\nTo-Path: {path}\r\nFrom-Path: {from}\r\nMessage-ID: mess1\r\nByte-Range: 1-0/0\r\n-------t1a2$\r\n"
        );
        stream.write_all(bind.as_bytes()).await.expect("it reads");
        let mut response = vec![0; 512];
        let length = timeout(LIMIT, stream.read(&mut response)).await.expect("in time");
        let response =
            String::from_utf8_lossy(&response[..length.expect("it answers")]).into_owned();
        assert!(response.starts_with("MSRP t1a2 200"), "{response}");
    }
    drop(server);
}

/// Proves ISC-064.
#[tokio::test]
async fn a_recipient_at_ipv6_is_connected_to() {
    let folder = Folder::new();
    let (server, peer) = start(&folder, "msrp.listen=['127.0.0.1:0', '[::1]:0']").await;
    peer.invite("127.0.0.1").await;
    let leg = peer.next("INVITE sip:bob@ims.test").await;
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let port = listener.local_addr().expect("bound").port();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=message {port} TCP/MSRP *\r\n\
         a=path:msrp://[::1]:{port}/bob1;tcp\r\na=setup:passive\r\na=accept-types:message/cpim text/plain\r\na=recvonly\r\n"
    );
    let repeated: String = ["Via: ", "From: ", "Call-ID: ", "CSeq: "]
        .map(|start| format!("{start}{}\r\n", line(&leg, start)))
        .concat();
    peer.send(&format!(
        "SIP/2.0 200 OK\r\n{repeated}To: {};tag=b\r\nContact: <sip:bob@{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        line(&leg, "To: "),
        peer.own(),
        sdp.len()
    ))
    .await;
    let (_, from) = timeout(LIMIT, listener.accept()).await.expect("in time").expect("it connects");
    assert!(from.is_ipv6(), "{from}");
    drop(server);
}

/// Proves ISC-064.
#[tokio::test]
async fn a_node_without_ipv6_says_so() {
    let folder = Folder::new();
    let (server, peer) = start(&folder, "msrp.listen=['127.0.0.1:0']").await;
    peer.invite("::1").await;
    let answer = peer.next("SIP/2.0 488").await;
    assert_eq!(
        line(&answer, "Warning: 301 "),
        "127.0.0.1 \"Incompatible network address formats\""
    );
    peer.invite("127.0.0.1").await;
    peer.next("SIP/2.0 200").await;
    drop(server);
}
