//! Bad input of every kind, on every door: it gets what it deserves, and the next good page does not notice.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::support::{LIMIT, Net, http, pour, raw, until};

/// A request to the factory that is good until it is changed.
fn options(own: SocketAddr, n: usize) -> String {
    format!(
        "OPTIONS sip:pages@ims.test SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKn{n};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:x@ims.test>;tag=x\r\nTo: <sip:pages@ims.test>\r\nCall-ID: n{n}@{own}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// An INVITE to the factory with an identity and a mode.
fn invite(own: SocketAddr, n: usize, more: &str, kind: &str, body: &str) -> String {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    options(own, n)
        .replace("OPTIONS", "INVITE")
        .replace(
            "Content-Length: 0\r\n\r\n",
            &format!(
                "Contact: <sip:x@{own}>\r\nP-Asserted-Identity: <sip:x@ims.test>\r\n\
                 Accept-Contact: *;+g.oma.sip-im.large-message\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
}

/// Malformed SIP that can be answered gets its answer, the rest is dropped and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams() {
    let net = Net::new(&["profile.sip.t1=50ms"]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let own = socket.local_addr().expect("bound");
    let to = net.server.udp;
    type Change = fn(String) -> String;
    let same: Change = |text| text;
    let cases: [(&str, u16, Change); 12] = [
        ("good", 200, same),
        // ISC-066: behind an IMS core a 5xx would mean "leave me out", not "no".
        ("version", 400, |text| text.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")),
        ("scheme", 416, |text| text.replacen("sip:pages@ims.test", "nobody:x", 1)),
        ("no From", 400, |text| text.replace("From: <sip:x@ims.test>;tag=x\r\n", "")),
        ("CSeq of another method", 400, |text| text.replace("1 OPTIONS", "1 INVITE")),
        ("CSeq too large", 400, |text| text.replace("1 OPTIONS", "99999999999 OPTIONS")),
        ("body cut", 400, |text| text.replace("Content-Length: 0", "Content-Length: 100")),
        ("two To", 400, |text| text.replace("To: ", "To: <sip:y@ims.test>\r\nTo: ")),
        ("line without a colon", 400, |text| text.replace("Max-", "what is this\r\nMax-")),
        ("no hops left", 483, |text| text.replace("Max-Forwards: 70", "Max-Forwards: 0")),
        ("hops no number", 400, |text| text.replace("Max-Forwards: 70", "Max-Forwards: x")),
        ("no method of ours", 405, |text| text.replace("OPTIONS", "PUBLISH")),
    ];
    for (n, (what, status, change)) in cases.into_iter().enumerate() {
        let text = change(options(own, n));
        let answer = ask(&socket, to, &text).await;
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{what}: {text}\n{answer}");
    }
    let sdp = "application/sdp";
    let list = "Require: recipient-list-invite\r\n";
    let invites = [
        ("unknown option", 420, invite(own, 100, "Require: magic\r\n", sdp, "v=0\r\n")),
        ("a body nobody reads", 415, invite(own, 101, list, "image/gif", "GIF89a")),
        (
            "a multipart without its end",
            400,
            invite(own, 102, list, "multipart/mixed;boundary=b", "--b\r\n\r\nx"),
        ),
        (
            "a multipart without boundary",
            400,
            invite(own, 103, list, "multipart/mixed", "--b\r\n\r\nx"),
        ),
    ];
    for (what, status, text) in invites {
        let answer = final_answer(&socket, to, &text).await;
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{what}: {answer}");
    }

    let before = net.server.metric("pagecast_refused_total", "malformed").await;
    let mut garbage: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"\r\n\r\n".to_vec(),
        b"hello, is this SIP?".to_vec(),
        b"SIP/2.0 200 OK\r\n\r\n".to_vec(),
        b"INVITE".to_vec(),
        b"INVITE sip:pages@ims.test SIP/2.0\r\n".to_vec(),
        b"\xff\xfe\xfd SIP/2.0\r\n\r\n".to_vec(),
        vec![b'A'; 60_000],
        vec![0; 60_000],
        [&b"OPTIONS sip:x SIP/2.0\r\n"[..], &b"X: y\r\n".repeat(9000)].concat(),
    ];
    // Noise of every kind, the same at every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..500 {
        let mut datagram =
            if n % 2 == 0 { options(own, 1000 + n).into_bytes() } else { vec![b'x'; n] };
        for _ in 0..=n % 8 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % datagram.len();
            datagram[at] = (state >> 24) as u8;
        }
        garbage.push(datagram);
    }
    for datagram in &garbage {
        socket.send_to(datagram, to).await.expect("sent");
    }
    until("garbage is counted", async || {
        let counted = net.server.metric("pagecast_refused_total", "malformed").await;
        (counted > before + 200).then_some(())
    })
    .await;
    net.works().await;
    net.server.idle().await;
    net.server.ends().await;
}

async fn ask(socket: &UdpSocket, to: SocketAddr, text: &str) -> String {
    socket.send_to(text.as_bytes(), to).await.expect("sent");
    let mut buffer = vec![0; 65_536];
    let octets = timeout(LIMIT, socket.recv(&mut buffer)).await;
    let octets = octets.unwrap_or_else(|_| panic!("no answer to {text}")).expect("read");
    String::from_utf8_lossy(&buffer[..octets]).into_owned()
}

/// The final answer to an INVITE; it is acknowledged, so that it is not heard again.
async fn final_answer(socket: &UdpSocket, to: SocketAddr, text: &str) -> String {
    let mut answer = ask(socket, to, text).await;
    while answer.starts_with("SIP/2.0 1") {
        let mut buffer = vec![0; 65_536];
        let octets =
            timeout(LIMIT, socket.recv(&mut buffer)).await.expect("in time").expect("read");
        answer = String::from_utf8_lossy(&buffer[..octets]).into_owned();
    }
    let line = |of: &str, name: &str| {
        let line = of.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in {of}")).to_owned()
    };
    let ack = format!(
        "ACK sip:pages@ims.test SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\n{}\r\n{}\r\n{}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
        line(text, "Via:"),
        line(text, "From:"),
        line(&answer, "To:"),
        line(text, "Call-ID:")
    );
    socket.send_to(ack.as_bytes(), to).await.expect("sent");
    answer
}

/// Streams of garbage and of halves: none costs more than its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams() {
    let net = Net::new(&["profile.sip.t1=50ms", "profile.msrp.bind_timeout=1s"]).await;
    net.works().await;
    net.server.idle().await;
    let base = net.server.descriptors();
    let own: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let good = options(own, 1).replace("/UDP", "/TCP");
    let server = &net.server;

    // SIP over TCP: what can be answered is, what cannot be cut ends the connection.
    let answers = talk(server.tcp, good.as_bytes(), b"\r\n\r\n").await;
    assert!(answers.starts_with("SIP/2.0 200 "), "{answers}");
    let halves: [&[u8]; 3] = [&good.as_bytes()[..20], &good.as_bytes()[..100], b"\r\n\r\n\r"];
    let mut open = Vec::new();
    for half in halves {
        let mut stream = TcpStream::connect(server.tcp).await.expect("it listens");
        stream.write_all(half).await.expect("written");
        open.push(stream);
    }
    // Byte by byte it is the same message.
    let mut stream = TcpStream::connect(server.tcp).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    for octet in options(own, 2).replace("/UDP", "/TCP").as_bytes() {
        stream.write_all(&[*octet]).await.expect("written");
    }
    let mut first = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut first)).await.expect("in time").expect("answered");
    assert_eq!(&first, b"SIP/2.0 200 ");
    drop(stream);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"INVITE sip:x SIP/2.0\r\nContent-Length: x\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n",
        &[0; 300_000],
        &[b'A'; 400_000],
    ] {
        pour(server.tcp, garbage).await;
    }

    // MSRP: no request, no session, no end.
    for garbage in [
        &b"\0\0\0\0\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"MSRP x\r\n\r\n",
        b"MSRP abcd SEND\r\nTo-Path: nonsense\r\nFrom-Path: msrp://h/x;tcp\r\n-------abcd$\r\n",
        b"MSRP abcd SEND\r\nTo-Path: msrp://h:1/unknown;tcp\r\nFrom-Path: msrp://h:1/x;tcp\r\nMessage-ID: 1\r\n-------abcd$\r\n",
        &[b'M'; 100_000],
        &[b'\n'; 100_000],
    ] {
        pour(server.msrp, garbage).await;
    }
    for half in [&b"M"[..], b"MSRP abcd SEND\r\nTo-Path: msrp://h:1/u", b"MSRP abcd SEND\r\n"] {
        let mut stream = TcpStream::connect(server.msrp).await.expect("it listens");
        stream.write_all(half).await.expect("written");
        open.push(stream);
    }

    // HTTP.
    for door in [server.ops, server.xcap] {
        for garbage in [
            &b"\0\0\0\r\n\r\n"[..],
            b"BREW /pot HTCPCP/1.0\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            &[b'G'; 200_000],
        ] {
            let answer = String::from_utf8_lossy(&raw(door, garbage).await).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        }
        let mut stream = TcpStream::connect(door).await.expect("it listens");
        stream.write_all(b"GET /li").await.expect("written");
        open.push(stream);
    }
    for path in [
        "/xcap-root/../../etc/passwd",
        "/xcap-root/%2e%2e/%2e%2e/etc/passwd",
        "/xcap-root/%zz",
        "/",
    ] {
        let status =
            http(server.xcap, "GET", path, &["X-3GPP-Asserted-Identity: \"sip:x@ims.test\""])
                .await
                .status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }

    net.works().await;
    drop(open);
    until("descriptors as before", async || (server.descriptors() <= base).then_some(())).await;
    net.server.idle().await;
    net.server.ends().await;
}

/// Writes, and reads until the end of a head.
async fn talk(to: SocketAddr, octets: &[u8], end: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(octets).await.expect("written");
    let mut answer = Vec::new();
    let reading = async {
        while !answer.windows(end.len()).any(|window| window == end) {
            assert!(stream.read_buf(&mut answer).await.expect("read") > 0, "closed");
        }
    };
    timeout(LIMIT.min(Duration::from_secs(20)), reading).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}
