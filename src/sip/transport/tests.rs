use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::sip::message::{Message, Writer};
use crate::sip::resolve::{Srv, Zone};

const SOON: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    let any = vec!["127.0.0.1:0".parse().unwrap()];
    Settings { udp: any.clone(), tcp: any, udp_buffer: 256 * 1024, ..Settings::default() }
}

fn start(settings: &Settings, dns: Zone) -> (Transport<u32>, SocketAddr) {
    let mut bound = Transport::bind(settings, 1, &Dns::Zone(dns)).unwrap();
    let one = bound.remove(0);
    let addresses = one.addresses().unwrap();
    assert!(
        addresses.iter().all(|(_, address)| *address == addresses[0].1),
        "one port for UDP and TCP"
    );
    (one.start().unwrap(), addresses[0].1)
}

/// A request of `size` octets at least; `via_at` comes with it.
fn request(size: usize) -> (Bytes, usize) {
    let mut writer = Writer::request(&crate::sip::message::Method::Message, "sip:bob@example.org");
    let at = writer.via("192.0.2.1:5060", "z9hG4bK00abc");
    writer.header("From", "<sip:a@b>;tag=00").header("To", "<sip:bob@example.org>");
    writer.header("Call-ID", "lm-00x").header("CSeq", "1 MESSAGE");
    (writer.finish(Some(("text/plain", "x".repeat(size).as_bytes()))), at)
}

/// A request as a peer writes it, with this Via and Call-ID.
fn incoming(via: &str, call_id: &str) -> String {
    format!(
        "OPTIONS sip:as SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:as>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

async fn next(transport: &mut Transport<u32>) -> Inbound<u32> {
    timeout(SOON, transport.recv()).await.expect("something arrives")
}

async fn message(transport: &mut Transport<u32>) -> (Bytes, Flow) {
    match next(transport).await {
        Inbound::Message { bytes, flow } => (bytes, flow),
        other => panic!("not a message: {other:?}"),
    }
}

async fn outcome(transport: &mut Transport<u32>) -> (u32, Result<Protocol, NotSent>) {
    match next(transport).await {
        Inbound::Outcome { key, sent } => (key, sent),
        other => panic!("not an outcome: {other:?}"),
    }
}

fn answer(bytes: Bytes, flow: &Flow) -> Bytes {
    let request = Message::parse(bytes, &Limits::default()).unwrap();
    Writer::response_from(&request, flow, 200, "OK", Some("00t")).finish(None)
}

async fn heard(socket: &UdpSocket) -> Message {
    let mut buffer = vec![0; 65536];
    let octets = timeout(SOON, socket.recv(&mut buffer)).await.expect("a datagram").unwrap();
    Message::parse(Bytes::copy_from_slice(&buffer[..octets]), &Limits::default()).unwrap()
}

async fn read_some(stream: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&text).contains(until) {
        let octets = timeout(SOON, stream.read(&mut buffer)).await.expect("octets").unwrap();
        assert_ne!(octets, 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..octets]);
    }
    String::from_utf8(text).unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    matches!(timeout(SOON, stream.read(&mut buffer)).await.expect("an end"), Ok(0) | Err(_))
}

fn hop(address: SocketAddr, parameters: &str, attempt: u16) -> Target {
    Target::NextHop { uri: format!("sip:{address}{parameters}"), attempt, octets: 0 }
}

#[tokio::test]
async fn an_answer_goes_back_by_rport_or_by_sent_by() {
    let (mut transport, address) = start(&settings(), Zone::default());
    let (peer, other) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let sent_by = other.local_addr().unwrap();
    for (via, receiver) in [
        (format!("SIP/2.0/UDP {sent_by};branch=z9hG4bK1;rport"), &peer),
        (format!("SIP/2.0/UDP 10.9.9.9:{};branch=z9hG4bK1", sent_by.port()), &other),
    ] {
        peer.send_to(b"\r\n\r\n", address).await.unwrap(); // a keep-alive is no message
        peer.send_to(incoming(&via, "x").as_bytes(), address).await.unwrap();
        let (bytes, flow) = message(&mut transport).await;
        assert_eq!(
            (flow.protocol, flow.local, flow.peer),
            (Protocol::Udp, address, peer.local_addr().unwrap())
        );
        assert_eq!(
            transport.send(1, &Target::Flow(flow), answer(bytes, &flow), None),
            Sent::Now(Protocol::Udp)
        );
        let answer = heard(receiver).await;
        assert_eq!(answer.via().received, Some("127.0.0.1"));
        assert_eq!(answer.via().rport, via.contains("rport").then(|| Some(flow.peer.port())));
    }
    assert_eq!(transport.stats().datagrams, 2);
}

/// Proves ISC-067.
#[tokio::test]
async fn large_requests_go_over_tcp_and_fall_back() {
    let (mut transport, _) = start(&settings(), Zone::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (large, via_at) = request(1300);
    let (small, _) = request(10);

    assert_eq!(transport.send(1, &hop(address, "", 0), large.clone(), Some(via_at)), Sent::Later);
    assert_eq!(transport.send(2, &hop(address, "", 0), large.clone(), Some(via_at)), Sent::Later);
    let (mut stream, _) = timeout(SOON, listener.accept()).await.expect("a connection").unwrap();
    assert_eq!(outcome(&mut transport).await, (1, Ok(Protocol::Tcp)));
    assert_eq!(outcome(&mut transport).await, (2, Ok(Protocol::Tcp)));
    let text = read_some(&mut stream, &"x".repeat(1300)).await;
    assert!(text.contains("\r\nVia: SIP/2.0/TCP 192.0.2.1:5060;branch"), "{text}");

    // the connection is kept and used again; what is small goes by UDP unless the URI says otherwise
    assert_eq!(
        transport.send(3, &hop(address, "", 0), large.clone(), Some(via_at)),
        Sent::Now(Protocol::Tcp)
    );
    assert_eq!(
        transport.send(4, &hop(address, ";transport=tcp", 0), small.clone(), Some(via_at)),
        Sent::Now(Protocol::Tcp)
    );
    assert_eq!(
        transport.send(5, &hop(address, "", 0), small.clone(), Some(via_at)),
        Sent::Now(Protocol::Udp)
    );
    assert_eq!(heard(&udp).await.via().transport, "UDP");
    assert_eq!(transport.stats().connected, 1);
    // unless it belongs to something large (RFC 3261 §9.1, §17.1.1.3)
    let way = Target::NextHop { uri: format!("sip:{address}"), attempt: 0, octets: large.len() };
    assert_eq!(transport.send(9, &way, small.clone(), Some(via_at)), Sent::Now(Protocol::Tcp));

    // nobody listens there for TCP: the next attempt is UDP
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    assert_eq!(transport.send(6, &hop(address, "", 0), large.clone(), Some(via_at)), Sent::Later);
    assert_eq!(outcome(&mut transport).await, (6, Err(NotSent { more: true })));
    assert_eq!(
        transport.send(7, &hop(address, "", 1), large.clone(), Some(via_at)),
        Sent::Now(Protocol::Udp)
    );
    assert_eq!(heard(&udp).await.via().transport, "UDP");
    assert_eq!(
        transport.send(8, &hop(address, "", 2), large, Some(via_at)),
        Sent::Failed { more: false }
    );
}

/// B30: what arrives in pieces is one message; a malformed one in intact framing and a ping leave the connection.
#[tokio::test]
async fn a_connection_outlives_malformed_messages() {
    let (mut transport, address) = start(&settings(), Zone::default());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let good = incoming("SIP/2.0/TCP 127.0.0.1:1;branch=z9hG4bK1", "x");
    let bad = good.replace("CSeq: 1 OPTIONS", "CSeq: nonsense");
    let (first, rest) = good.split_at(40);
    stream.write_all(format!("{bad}\r\n\r\n{first}").as_bytes()).await.unwrap();
    let (bytes, flow) = message(&mut transport).await;
    assert_eq!(bytes, bad);
    assert_eq!(read_some(&mut stream, "\r\n").await, "\r\n", "the pong");
    stream.write_all(rest.as_bytes()).await.unwrap();
    let (bytes, same) = message(&mut transport).await;
    assert_eq!((bytes.as_ref(), same), (good.as_bytes(), flow));
    assert_eq!(
        transport.send(1, &Target::Flow(flow), answer(bytes, &flow), None),
        Sent::Now(Protocol::Tcp)
    );
    assert!(read_some(&mut stream, "\r\n\r\n").await.starts_with("SIP/2.0 200 OK\r\n"));
    // a request to exactly that peer uses its connection
    let (large, via_at) = request(2000);
    assert_eq!(
        transport.send(2, &hop(flow.peer, "", 0), large, Some(via_at)),
        Sent::Now(Protocol::Tcp)
    );
    assert!(read_some(&mut stream, "xxxx").await.starts_with("MESSAGE "));
}

#[tokio::test]
async fn lost_framing_is_answered_and_ends_the_connection() {
    let (mut transport, address) =
        start(&Settings { linger: Duration::from_millis(300), ..settings() }, Zone::default());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bad = incoming("SIP/2.0/TCP h;branch=z9hG4bK1", "x").replace("Length: 0", "Length: -7");
    stream.write_all(bad.as_bytes()).await.unwrap();
    let Inbound::Malformed { malformed, flow } = next(&mut transport).await else {
        panic!("malformed")
    };
    let request = malformed.answer.expect("there is someone to answer");
    let answer =
        Writer::response_from(&request, &flow, malformed.status, "Bad Request", None).finish(None);
    assert_eq!(transport.send(1, &Target::Flow(flow), answer, None), Sent::Now(Protocol::Tcp));
    assert!(read_some(&mut stream, "\r\n\r\n").await.starts_with("SIP/2.0 400 "));
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn an_answer_finds_a_way_when_its_connection_is_gone() {
    let (mut transport, address) =
        start(&Settings { linger: Duration::ZERO, ..settings() }, Zone::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = incoming(&format!("SIP/2.0/TCP host.example:{port};branch=z9hG4bK1"), "x");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (bytes, flow) = message(&mut transport).await;
    drop(stream);
    timeout(SOON, async {
        while transport.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the connection ends");
    assert_eq!(transport.send(1, &Target::Flow(flow), answer(bytes, &flow), None), Sent::Later);
    let (mut stream, _) = timeout(SOON, listener.accept()).await.expect("a connection").unwrap();
    assert_eq!(outcome(&mut transport).await, (1, Ok(Protocol::Tcp)));
    assert!(read_some(&mut stream, "\r\n\r\n").await.starts_with("SIP/2.0 200 OK"));
}

/// B26: whoever begins a message must go on with it, and there are only so many connections.
#[tokio::test]
async fn connections_are_bounded() {
    let settings = Settings {
        max_connections: 3,
        max_connections_per_peer: 2,
        linger: Duration::ZERO,
        ..settings()
    };
    let (transport, address) = start(&settings, Zone::default());
    let first = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(is_closed(&mut third).await, "one too many from this address");
    assert_eq!(transport.stats().refused_connections, 1);
    drop(first);
    timeout(SOON, async {
        while transport.stats().connections > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its place becomes free");
}

/// A connection without a socket, for tests of time.
fn duplex(
    settings: &Settings,
) -> (tokio::io::DuplexStream, Transport<u32>, Arc<hub::Line<u32>>, tokio::task::JoinHandle<()>) {
    let (mut transports, wire) = Transport::<u32>::fake(settings, 1, &Dns::Zone(Zone::default()));
    let transport = transports.remove(0);
    let hub = Arc::clone(&wire.hub);
    let peer = "192.0.2.1:5060".parse().unwrap();
    let (line, items) = hub.admit(Protocol::Tcp, peer, peer, true, "").unwrap();
    let (near, far) = tokio::io::duplex(4096);
    let closing = transport.closing.subscribe();
    let task = connection::serve(
        // Like TLS it keeps what was written until it is told to let it go.
        tokio::io::BufStream::with_capacity(4096, 512, near),
        line.flow,
        Names::default(),
        Arc::clone(&line),
        items,
        hub,
        closing,
    );
    let task = tokio::spawn(task);
    (far, transport, line, task)
}

/// B26: a message that is begun has 10 s for its head, an idle connection has longer.
#[tokio::test(start_paused = true)]
async fn half_sent_messages_end_their_connection() {
    let settings = Settings::default();
    for (sent, lives) in [
        ("OPTIONS sip:as SIP/2.0\r\nVia: ", settings.head_timeout),
        ("OPTIONS sip:as SIP/2.0\r\nContent-Length: 50\r\n\r\nhello", settings.message_timeout),
        ("", settings.idle_timeout),
    ] {
        let (mut far, transport, _, task) = duplex(&settings);
        let begin = Instant::now();
        far.write_all(sent.as_bytes()).await.unwrap();
        task.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), lives.as_secs(), "{sent}");
        assert_eq!((transport.stats().slow, transport.stats().connections), (1, 0));
    }
    // a byte now and then does not help
    let (mut far, _transport, _, task) = duplex(&settings);
    let begin = Instant::now();
    let drip = tokio::spawn(async move {
        while far.write_all(b"O").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await
        }
    });
    task.await.unwrap();
    assert_eq!(begin.elapsed(), settings.head_timeout);
    drip.abort();
}

/// A stream may hold back what it has taken, as TLS does while its socket is full.
#[tokio::test(start_paused = true)]
async fn nothing_stays_in_a_buffer_of_the_stream() {
    let settings = Settings::default();
    let (mut far, _transport, line, _task) = duplex(&settings);
    for bytes in [&b"one"[..], b"another"] {
        let item = Item { bytes: Bytes::from_static(bytes), ticket: None };
        assert_eq!(line.push(item, settings.max_queued), Ok(()));
        let mut heard = vec![0; bytes.len()];
        timeout(SOON, far.read_exact(&mut heard)).await.expect("all of it").unwrap();
        assert_eq!(heard, bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_loses_its_connection() {
    let settings = Settings { max_queued: 100_000, ..Settings::default() };
    let (_far, mut transport, line, task) = duplex(&settings);
    let big = Bytes::from(vec![b'x'; 60_000]);
    let ticket = |key| Some(Ticket { key, thread: 0, more: false, later: false });
    assert_eq!(
        line.push(Item { bytes: big.clone(), ticket: ticket(1) }, settings.max_queued),
        Ok(())
    );
    assert_eq!(
        line.push(Item { bytes: big, ticket: ticket(2) }, settings.max_queued),
        Err(Unsent::Choked)
    );
    task.await.unwrap();
    assert_eq!((transport.stats().choked, transport.stats().connections), (1, 0));
    assert!(
        transport
            .try_recv()
            .is_none_or(|up| matches!(up, Inbound::Outcome { key: 1, sent: Err(_) }))
    );
}

#[tokio::test]
async fn what_belongs_to_another_thread_is_handed_over() {
    let settings = Settings { inbox: 2, ..settings() };
    let mut bound = Transport::<u32>::bind(&settings, 2, &Dns::Zone(Zone::default())).unwrap();
    let address = bound[0].addresses().unwrap()[0].1;
    assert_eq!(bound[1].addresses().unwrap(), bound[0].addresses().unwrap());
    let (mut one, mut zero) =
        (bound.pop().unwrap().start().unwrap(), bound.pop().unwrap().start().unwrap());
    // many sockets, so that the kernel gives some datagrams to each thread; the Call-ID says all are thread 1's
    let text = incoming("SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK1", "lm-01x");
    let (mut sent, mut seen) = (0, 0);
    while sent < 32 {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.send_to(text.as_bytes(), address).await.unwrap();
        sent += 1;
        let arrived = timeout(SOON, async {
            tokio::select! {
                up = one.recv() => up,
                up = zero.recv() => panic!("not for thread 0: {up:?}"),
            }
        });
        if let Inbound::Message { flow, .. } = arrived.await.expect("it arrives") {
            seen += 1;
            assert_eq!(flow.peer, peer.local_addr().unwrap());
        }
    }
    assert_eq!((sent, seen, one.stats().inbox_full), (32, 32, 0));
    // by a stream, too: the connection is served wherever it was accepted, and both threads can answer on it
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (thread, call_id) in [(1, "lm-01y"), (0, "lm-00y")] {
        stream
            .write_all(incoming("SIP/2.0/TCP 127.0.0.1:1;branch=z9hG4bK1", call_id).as_bytes())
            .await
            .unwrap();
        let owner = if thread == 1 { &mut one } else { &mut zero };
        let (bytes, flow) = message(owner).await;
        assert_eq!(
            owner.send(1, &Target::Flow(flow), answer(bytes, &flow), None),
            Sent::Now(Protocol::Tcp)
        );
        assert!(read_some(&mut stream, "\r\n\r\n").await.contains(call_id));
    }
}

#[tokio::test]
async fn names_are_resolved_and_alternates_counted() {
    let (first, second) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let mut zone = Zone::default();
    let srv = |priority, socket: &UdpSocket| Srv {
        priority,
        weight: 0,
        port: socket.local_addr().unwrap().port(),
        target: "h.example".into(),
    };
    zone.srv.insert("_sip._udp.example.org".into(), vec![srv(2, &second), srv(1, &first)]);
    zone.addresses.insert("h.example".into(), vec![IpAddr::from([127, 0, 0, 1])]);
    let (mut transport, _) = start(&settings(), zone);
    let (bytes, via_at) = request(10);
    let send = |transport: &mut Transport<u32>, key, host: &str, attempt| {
        transport.send(
            key,
            &Target::NextHop { uri: format!("sip:{host}"), attempt, octets: 0 },
            bytes.clone(),
            Some(via_at),
        )
    };
    assert_eq!(send(&mut transport, 1, "example.org", 0), Sent::Later);
    assert_eq!(send(&mut transport, 2, "example.org", 1), Sent::Later);
    assert_eq!(send(&mut transport, 3, "nowhere.example", 0), Sent::Later);
    let mut outcomes = vec![
        outcome(&mut transport).await,
        outcome(&mut transport).await,
        outcome(&mut transport).await,
    ];
    outcomes.sort_by_key(|(key, _)| *key);
    assert_eq!(
        outcomes,
        [(1, Ok(Protocol::Udp)), (2, Ok(Protocol::Udp)), (3, Err(NotSent { more: false }))]
    );
    heard(&first).await;
    heard(&second).await;
    assert_eq!(
        send(&mut transport, 4, "example.org", 0),
        Sent::Now(Protocol::Udp),
        "the answer is kept"
    );
    assert_eq!(send(&mut transport, 5, "example.org", 2), Sent::Failed { more: false });
}

#[tokio::test(start_paused = true)]
async fn a_fake_wire_carries_both_ways() {
    let (mut transports, mut wire) =
        Transport::<u32>::fake(&settings(), 2, &Dns::Zone(Zone::default()));
    let flow = Flow {
        protocol: Protocol::Udp,
        local: "127.0.0.1:5060".parse().unwrap(),
        peer: "192.0.2.7:5062".parse().unwrap(),
        connection: 0,
        vouched: false,
    };
    wire.deliver(incoming("SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1", "lm-01").into(), flow)
        .await;
    let (bytes, back) = message(&mut transports[1]).await;
    assert_eq!(
        transports[1].send(1, &Target::Flow(back), answer(bytes, &back), None),
        Sent::Now(Protocol::Udp)
    );
    let sent = wire.sent().await.expect("an answer");
    assert_eq!((sent.protocol, sent.to), (Protocol::Udp, flow.peer));
    let (large, via_at) = request(2000);
    assert_eq!(
        transports[0].send(2, &hop(flow.peer, "", 0), large, Some(via_at)),
        Sent::Now(Protocol::Tcp)
    );
    assert_eq!(
        wire.try_sent().map(|sent| (sent.protocol, sent.to)),
        Some((Protocol::Tcp, flow.peer))
    );
    assert_eq!(wire.try_sent(), None);
}

/// B10: a CANCEL sent right behind its INVITE reaches the INVITE's thread, and after it, whichever socket took them.
#[tokio::test]
async fn a_cancel_never_overtakes_its_invite() {
    let mut bound = Transport::<u32>::bind(&settings(), 2, &Dns::Zone(Zone::default())).unwrap();
    let address = bound[0].addresses().unwrap()[0].1;
    let (mut one, mut zero) =
        (bound.pop().unwrap().start().unwrap(), bound.pop().unwrap().start().unwrap());
    let mut owners = [0, 0];
    for call in 0..100 {
        // a new socket each time, so that the kernel gives some of them to each thread
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let invite =
            incoming("SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK1", &format!("call-{call}@ue"));
        let invite = invite.replace("OPTIONS", "INVITE");
        peer.send_to(invite.as_bytes(), address).await.unwrap();
        peer.send_to(invite.replace("INVITE", "CANCEL").as_bytes(), address).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let (thread, up) = timeout(SOON, async {
                tokio::select! {
                    up = zero.recv() => (0, up),
                    up = one.recv() => (1, up),
                }
            })
            .await
            .expect("it arrives");
            if let Inbound::Message { bytes, .. } = up {
                seen.push((thread, bytes.slice(..6)));
            }
        }
        let owner = seen[0].0;
        assert_eq!(seen, [(owner, "INVITE".into()), (owner, "CANCEL".into())], "call {call}");
        owners[owner] += 1;
    }
    assert!(owners.iter().all(|calls| *calls > 10), "calls spread over threads: {owners:?}");
}

/// Proves ISC-069, ISC-071.
#[tokio::test(start_paused = true)]
async fn a_hop_that_pauses_gets_nothing_new() {
    let mut zone = Zone::default();
    let both = vec![IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
    zone.addresses.insert("two.example".into(), both);
    let (mut transports, mut wire) =
        Transport::<u32>::fake(&Settings::default(), 2, &Dns::Zone(zone));
    let (mut other, mut transport) = (transports.remove(1), transports.remove(0));
    let to = |attempt, octets| Target::NextHop { uri: "sip:two.example".into(), attempt, octets };
    let (bytes, via_at) = request(10);
    for one in [&mut transport, &mut other] {
        assert_eq!(one.send(1, &to(0, 0), bytes.clone(), Some(via_at)), Sent::Later);
        assert_eq!(outcome(one).await, (1, Ok(Protocol::Udp)));
        assert_eq!(wire.sent().await.unwrap().to.ip(), IpAddr::from([192, 0, 2, 1]));
    }
    // TCP and UDP at one address are one hop.
    for (way, alternate) in [
        (to(0, 0), Some(1)),
        (to(1, 0), None),
        (to(0, 2000), Some(2)),
        (to(1, 2000), Some(2)),
        (to(2, 2000), None),
        (to(7, 0), None),
    ] {
        assert_eq!(transport.alternate(&way), alternate, "{way:?}");
    }

    transport.pause(&to(0, 0), 10);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let inside =
        Bytes::from(text.replace("To: <sip:bob@example.org>", "To: <sip:bob@example.org>;tag=1"));
    let ack = Bytes::from(text.replace("MESSAGE", "ACK"));
    let through =
        Bytes::from(text.replacen("\r\nFrom", "\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKx\r\nFrom", 1));
    for one in [&mut transport, &mut other] {
        for (bytes, attempt, want) in [
            (&bytes, 0, Sent::Failed { more: true }),
            (&bytes, 1, Sent::Now(Protocol::Udp)),
            (&inside, 0, Sent::Now(Protocol::Udp)),
            (&ack, 0, Sent::Now(Protocol::Udp)),
            (&through, 0, Sent::Now(Protocol::Udp)),
        ] {
            assert_eq!(one.send(2, &to(attempt, 0), bytes.clone(), Some(via_at)), want);
        }
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(transport.send(3, &to(0, 0), bytes.clone(), Some(via_at)), Sent::Now(Protocol::Udp));
    // However long it is asked for.
    transport.pause(&to(0, 0), u32::MAX);
    tokio::time::advance(Settings::default().longest_pause).await;
    assert_ne!(transport.send(4, &to(0, 0), bytes, Some(via_at)), Sent::Failed { more: true });
}
