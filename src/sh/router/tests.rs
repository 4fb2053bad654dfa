//! The router against scripted HSSs: over loopback where sockets are the subject, over memory where the clock is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use super::super::codec::{Avp, Framer, Header, Outcome};
use super::super::dictionary as d;
use super::super::link::Later;
use super::super::overload::Class;
use super::super::peer::sh_application;
use super::super::settings::{PeerAddress, TlsFiles};
use super::*;

const S: Duration = Duration::from_secs(1);
/// Real waits end here; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an HSS has in hand: one connection of ours.
struct Conn<T> {
    stream: T,
    framer: Framer,
    name: &'static str,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Conn<T> {
    fn new(stream: T, name: &'static str) -> Self {
        Self { stream, framer: Framer::new(1 << 20), name }
    }

    /// The next message, `None` at the end of the stream.
    async fn next(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(octets) = self.framer.next().expect("what we write is framed") {
                return Some(Message::decode(octets).expect("what we write can be read"));
            }
            match timeout(120 * S, self.stream.read(&mut buffer)).await.expect("in time") {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.framer.push(&buffer[..length]),
            }
        }
    }

    async fn gets(&mut self, code: u32) -> Message {
        let message = self.next().await.expect("a message");
        assert_eq!(message.header.code, code, "{message:?}");
        message
    }

    async fn sends(&mut self, message: &Message) {
        self.stream.write_all(&message.encode()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    fn origin(&self) -> Vec<Avp> {
        vec![Avp::text(&d::ORIGIN_HOST, self.name), Avp::text(&d::ORIGIN_REALM, "example")]
    }

    async fn answers(&mut self, request: &Message, avps: &[Avp]) {
        let mut all = self.origin();
        all.extend_from_slice(avps);
        self.sends(&request.answer(all)).await;
    }

    async fn asks(&mut self, code: u32, application: u32, avps: &[Avp]) {
        let mut all = self.origin();
        all.extend_from_slice(avps);
        let mut message = Message::request(code, application, all);
        message.header.hop_by_hop = 4711;
        message.header.end_to_end = 4712;
        self.sends(&message).await;
    }

    /// CER and CEA.
    async fn greets(mut self) -> Self {
        let cer = self.gets(257).await;
        self.answers(&cer, &[success(), sh_application()]).await;
        self
    }
}

fn success() -> Avp {
    Avp::u32(&d::RESULT_CODE, 2001)
}

/// An HSS on loopback.
struct Hss {
    listener: TcpListener,
    name: &'static str,
}

impl Hss {
    async fn new(name: &'static str) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), name }
    }

    fn address(&self) -> PeerAddress {
        let at = self.listener.local_addr().unwrap();
        PeerAddress { identity: None, host: at.ip().to_string(), port: at.port() }
    }

    async fn takes(&self) -> Conn<TcpStream> {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        Conn::new(stream, self.name)
    }

    async fn greets(&self) -> Conn<TcpStream> {
        self.takes().await.greets().await
    }
}

/// Answers every notification with success, and counts.
#[derive(Default)]
struct Taker {
    taken: AtomicUsize,
    old: AtomicUsize,
}

impl Inbound for Taker {
    fn notified(&self, request: &Message) -> Message {
        self.taken.fetch_add(1, Ordering::Relaxed);
        request.answer(vec![success()])
    }

    fn revalidate(&self) {
        self.old.fetch_add(1, Ordering::Relaxed);
    }
}

fn settings(peers: Vec<PeerAddress>) -> Settings {
    Settings {
        peers,
        origin_host: "as1.example".into(),
        origin_realm: "example".into(),
        destination_realm: "example".into(),
        ..Settings::default()
    }
}

fn request() -> Request {
    Request {
        code: 306,
        destination_host: None,
        destination_realm: None,
        identity: None,
        avps: vec![Avp::u32(&d::DATA_REFERENCE, 11)],
        class: Class::Page,
        priority: None,
    }
}

async fn start(settings: Settings) -> Router {
    Router::start(settings, Arc::new(Taker::default()), 1_772_615_700).await.unwrap()
}

/// Asks in the background.
fn ask(router: &Router) -> tokio::task::JoinHandle<Result<Message, Failure>> {
    let router = router.clone();
    tokio::spawn(async move { router.request(request()).await })
}

/// Waits until the first peer is in this state.
async fn state(router: &Router, state: &str) {
    let reached = async {
        while router.status().first().is_none_or(|peer| peer.state != state) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{:?}", router.status()));
}

/// Proves SH-001: requests over TCP, answered out of order.
#[tokio::test]
async fn answers_find_who_asked() {
    let hss = Hss::new("hss1.example").await;
    let router = start(settings(vec![hss.address()])).await;
    let mut conn = hss.greets().await;
    state(&router, "up").await;
    let (first, second) = (ask(&router), ask(&router));
    let one = conn.gets(306).await;
    let two = conn.gets(306).await;
    conn.answers(&two, &[success(), Avp::text(&d::ERROR_MESSAGE, "two")]).await;
    conn.answers(&one, &[success(), Avp::text(&d::ERROR_MESSAGE, "one")]).await;
    for answer in [first, second] {
        let answer = answer.await.unwrap().unwrap();
        let text = answer.find(&d::ERROR_MESSAGE).unwrap().as_text().unwrap().to_owned();
        let asked = if text == "one" { &one } else { &two };
        assert_eq!(answer.header.end_to_end, asked.header.end_to_end);
    }
    assert_eq!(router.status()[0].name.as_deref(), Some("hss1.example"));
}

/// Proves SH-022, SH-028: the primary is killed in flight; its copy on the secondary has T and the same End-to-End.
#[tokio::test]
async fn a_killed_primary_hands_over() {
    let (primary, secondary) = (Hss::new("hss1.example").await, Hss::new("hss2.example").await);
    let router = start(settings(vec![primary.address(), secondary.address()])).await;
    let mut first = primary.greets().await;
    let mut second = secondary.greets().await;
    state(&router, "up").await;
    while router.status()[1].state != "up" {
        tokio::task::yield_now().await;
    }
    let asked = ask(&router);
    let before = first.gets(306).await;
    assert!(!before.header.is_retransmitted());
    // RST, as of a machine that has just started anew.
    socket2::SockRef::from(&first.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    let after = second.gets(306).await;
    assert!(after.header.is_retransmitted());
    assert_eq!(after.header.end_to_end, before.header.end_to_end);
    assert_eq!(after.avps, before.avps);
    second.answers(&after, &[success()]).await;
    assert!(asked.await.unwrap().is_ok());
}

/// Proves SH-007: what makes no sense is reset.
#[tokio::test]
async fn garbage_is_reset() {
    for garbage in [&[1, 0, 0, 21][..], &[2, 0, 0, 20], &[1, 0xff, 0xff, 0xfc], b"GET / HTTP/1.1"] {
        let hss = Hss::new("hss1.example").await;
        let router = start(settings(vec![hss.address()])).await;
        let mut conn = hss.greets().await;
        state(&router, "up").await;
        conn.stream.write_all(garbage).await.unwrap();
        let end = timeout(PATIENCE, conn.stream.read(&mut [0; 16])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{garbage:?}");
        state(&router, "down").await;
    }
}

/// Proves SH-016: a flood of DWRs is answered while a notification is still being taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dwr_never_waits_for_a_notification() {
    struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl Inbound for Slow {
        fn notified(&self, request: &Message) -> Message {
            self.0.lock().unwrap().recv().unwrap();
            request.answer(vec![success()])
        }
    }
    let (go, wait) = std::sync::mpsc::channel();
    let hss = Hss::new("hss1.example").await;
    let inbound = Arc::new(Slow(std::sync::Mutex::new(wait)));
    let router = Router::start(settings(vec![hss.address()]), inbound, 1).await.unwrap();
    let mut conn = hss.greets().await;
    state(&router, "up").await;
    conn.asks(309, d::APPLICATION_SH, &[]).await;
    for _ in 0..300 {
        conn.asks(280, 0, &[]).await;
    }
    for _ in 0..300 {
        let dwa = conn.gets(280).await;
        assert_eq!(dwa.outcome(), Ok(Outcome::Base(2001)));
    }
    go.send(()).unwrap();
    let pna = conn.gets(309).await;
    assert_eq!((pna.header.hop_by_hop, pna.header.end_to_end), (4711, 4712));
}

/// More notifications than can wait are told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_notifications_are_refused() {
    struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl Inbound for Slow {
        fn notified(&self, request: &Message) -> Message {
            self.0.lock().unwrap().recv().unwrap();
            request.answer(vec![success()])
        }
    }
    let (go, wait) = std::sync::mpsc::channel();
    let hss = Hss::new("hss1.example").await;
    let mut settings = settings(vec![hss.address()]);
    settings.max_inflight = 2;
    let inbound = Arc::new(Slow(std::sync::Mutex::new(wait)));
    let router = Router::start(settings, inbound, 1).await.unwrap();
    let mut conn = hss.greets().await;
    state(&router, "up").await;
    for _ in 0..5 {
        conn.asks(309, d::APPLICATION_SH, &[]).await;
    }
    let busy = conn.gets(309).await;
    assert_eq!(busy.outcome(), Ok(Outcome::Base(3004)));
    assert!(busy.header.is_error());
    for _ in 0..5 {
        go.send(()).unwrap();
    }
}

/// Proves SH-011: DPR, DPA, FIN; and a hundred requests that a DPR of the peer sends elsewhere.
#[tokio::test]
async fn partings_of_both_sides() {
    let (primary, secondary) = (Hss::new("hss1.example").await, Hss::new("hss2.example").await);
    let router = start(settings(vec![primary.address(), secondary.address()])).await;
    let mut first = primary.greets().await;
    let mut second = secondary.greets().await;
    while router.status().iter().filter(|peer| peer.state == "up").count() < 2 {
        tokio::task::yield_now().await;
    }
    let asked: Vec<_> = (0..100).map(|_| ask(&router)).collect();
    for _ in 0..100 {
        first.gets(306).await;
    }
    first.asks(282, 0, &[Avp::u32(&d::DISCONNECT_CAUSE, 0)]).await;
    assert_eq!(first.gets(282).await.outcome(), Ok(Outcome::Base(2001)));
    drop(first);
    for _ in 0..100 {
        let again = second.gets(306).await;
        assert!(again.header.is_retransmitted());
        second.answers(&again, &[success()]).await;
    }
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }

    let ending = tokio::spawn({
        let router = router.clone();
        async move { router.shutdown().await }
    });
    let dpr = second.gets(282).await;
    assert_eq!(dpr.header.flags, Header::REQUEST);
    second.answers(&dpr, &[success()]).await;
    assert_eq!(second.next().await, None, "FIN");
    ending.await.unwrap();
    let late = router.request(request()).await;
    assert_eq!(late, Err(Failure::Unavailable(Why::Closing)));
}

/// Proves SH-005, SH-006: the listening side.
#[tokio::test]
async fn a_peer_may_connect_to_us() {
    // Nobody listens there, so that the peer has to come.
    let away = Hss::new("hss1.example").await.address();
    let identity = Some("hss1.example".to_owned());
    let mut settings = settings(vec![PeerAddress { identity, ..away }]);
    settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
    settings.timers.cea_timeout = S / 4;
    let router = start(settings).await;
    let at = router.listening()[0];
    let connect = async |name| Conn::new(TcpStream::connect(at).await.unwrap(), name);

    let mut strange = connect("strange.example").await;
    strange.asks(257, 0, &[sh_application()]).await;
    assert_eq!(strange.gets(257).await.outcome(), Ok(Outcome::Base(3010)));
    assert_eq!(strange.next().await, None);

    let mut silent = connect("hss1.example").await;
    assert_eq!(silent.next().await, None, "no CER, no connection");

    let mut hasty = connect("hss1.example").await;
    hasty.asks(280, 0, &[]).await;
    assert_eq!(hasty.next().await, None, "a CER comes first");

    state(&router, "down").await;
    let mut known = connect("hss1.example").await;
    known.asks(257, 0, &[sh_application()]).await;
    let cea = known.gets(257).await;
    assert_eq!(cea.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(cea.find(&d::HOST_IP_ADDRESS).unwrap().as_address(), Ok(at.ip()));
    state(&router, "up").await;
    known.asks(309, d::APPLICATION_SH, &[]).await;
    assert_eq!(known.gets(309).await.outcome(), Ok(Outcome::Base(2001)));
    let asked = ask(&router);
    let udr = known.gets(306).await;
    known.answers(&udr, &[success()]).await;
    assert!(asked.await.unwrap().is_ok());
}

/// A directory of certificates that is gone with the test.
struct Certificates(std::path::PathBuf);

impl Drop for Certificates {
    fn drop(&mut self) {
        // What is left over in the temporary directory disturbs nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Certificates {
    fn new() -> Self {
        let place = std::env::temp_dir().join(format!("pagecast-sh-tls-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        std::fs::write(place.join("ca.pem"), ca_certificate.pem()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        for name in ["hss1.example", "as1.example"] {
            let key = KeyPair::generate().unwrap();
            let own = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let own = own.signed_by(&key, &issuer).unwrap();
            std::fs::write(place.join(format!("{name}.pem")), own.pem()).unwrap();
            std::fs::write(place.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(place)
    }

    fn of(&self, name: &str) -> TlsFiles {
        let file = |ending: &str| self.0.join(format!("{name}.{ending}"));
        TlsFiles { ca: self.0.join("ca.pem"), own: Some((file("pem"), file("key"))) }
    }
}

/// Proves SH-003: TLS from the first octet, with both sides' certificates, and only for the name that was meant.
#[tokio::test]
async fn tls_comes_before_the_cer() {
    let certificates = Certificates::new();
    let server = Arc::new(Tcp::new(Some(&certificates.of("hss1.example")), false).unwrap());
    for (name, opens) in [("hss1.example", true), ("hss9.example", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut settings = settings(vec![PeerAddress {
            identity: Some(name.into()),
            host: "127.0.0.1".into(),
            port,
        }]);
        settings.tls = Some(certificates.of("as1.example"));
        let router = start(settings).await;
        let (stream, _) = listener.accept().await.unwrap();
        let mut first = [0];
        stream.peek(&mut first).await.unwrap();
        assert_eq!(first, [0x16], "a TLS handshake");
        let taken = Arc::clone(&server).accepted(stream).await;
        if opens {
            let taken = taken.unwrap();
            let stream = tokio::io::join(taken.reader, taken.writer);
            let mut conn = Conn::new(stream, "hss1.example").greets().await;
            state(&router, "up").await;
            let asked = ask(&router);
            let udr = conn.gets(306).await;
            conn.answers(&udr, &[success()]).await;
            assert!(asked.await.unwrap().is_ok());
        } else {
            assert!(
                taken.is_err() || {
                    state(&router, "down").await;
                    true
                }
            );
        }
    }
    // A file that is none is told by its name.
    let missing = TlsFiles { ca: certificates.0.join("none.pem"), own: None };
    assert!(Tcp::new(Some(&missing), false).err().unwrap().contains("none.pem"));
}

// --- in virtual time -----------------------------------------------------------------------------------------------------

/// Connections in memory, handed to the test.
struct Memory(mpsc::UnboundedSender<DuplexStream>);

impl Transport for Memory {
    fn open(&self, _: PeerAddress) -> Later<io::Result<Opened>> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let sent = self.0.send(theirs);
        Box::pin(async move {
            sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok(Opened::over(ours, vec!["192.0.2.7".parse().unwrap()]))
        })
    }
}

fn in_memory(settings: Settings) -> (Router, mpsc::UnboundedReceiver<DuplexStream>, Arc<Taker>) {
    let (sender, streams) = mpsc::unbounded_channel();
    let taker = Arc::new(Taker::default());
    let inbound: Arc<dyn Inbound> = Arc::clone(&taker) as _;
    let router = Router::start_over(settings, Arc::new(Memory(sender)), inbound, 1);
    (router, streams, taker)
}

fn one_peer() -> Settings {
    settings(vec![PeerAddress { identity: None, host: "hss".into(), port: 3868 }])
}

fn clock() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Proves SH-009, SH-010, SH-004: a peer silent after CER, and one without Sh.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_do_is_left_for_a_while() {
    let (router, mut streams, _) = in_memory(one_peer());
    let mut silent = Conn::new(streams.recv().await.unwrap(), "hss1.example");
    let start = clock();
    silent.gets(257).await;
    assert_eq!(silent.next().await, None);
    assert_eq!(clock() - start, 10 * S);
    let asked = router.request(request()).await;
    assert_eq!(asked, Err(Failure::Unavailable(Why::NoPeer)));

    let mut no_sh = Conn::new(streams.recv().await.unwrap(), "hss1.example");
    let wait = clock() - start;
    assert!(wait >= 37 * S && wait <= 43 * S, "{wait:?}");
    let cer = no_sh.gets(257).await;
    no_sh.answers(&cer, &[success()]).await;
    assert_eq!(no_sh.next().await, None, "no UDR, and the end");
    assert_eq!(router.status()[0].error.as_deref(), Some("the peer has no Sh"));
    let closed = clock();
    streams.recv().await.unwrap();
    let wait = clock() - closed;
    assert!(wait >= 108 * S && wait <= 132 * S, "{wait:?}");
}

/// Proves SH-014, SH-015: a frozen peer, the end of its connection, and three DWRs before the first UDR.
#[tokio::test(start_paused = true)]
async fn an_outage_from_its_beginning_to_its_end() {
    let (router, mut streams, taker) = in_memory(one_peer());
    let mut conn = Conn::new(streams.recv().await.unwrap(), "hss1.example").greets().await;
    state(&router, "up").await;
    let frozen = clock();
    conn.gets(280).await;
    assert_eq!(conn.next().await, None);
    let closed = clock() - frozen;
    assert!(closed >= 84 * S && closed <= 96 * S, "{closed:?}");

    let mut conn = Conn::new(streams.recv().await.unwrap(), "hss1.example").greets().await;
    for _ in 0..3 {
        let dwr = conn.gets(280).await;
        let early = router.request(request()).await;
        assert_eq!(early, Err(Failure::Unavailable(Why::NoPeer)));
        conn.answers(&dwr, &[success()]).await;
    }
    state(&router, "up").await;
    assert_eq!(taker.old.load(Ordering::Relaxed), 1, "what is cached is looked at again");
    let asked = ask(&router);
    let udr = conn.gets(306).await;
    conn.answers(&udr, &[success()]).await;
    assert!(asked.await.unwrap().is_ok());
}

/// Proves SH-021: an answer after ten seconds is nobody's, and the one who asked has waited eight.
#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_two_attempts() {
    let (router, mut streams, _) = in_memory(one_peer());
    let mut conn = Conn::new(streams.recv().await.unwrap(), "hss1.example").greets().await;
    state(&router, "up").await;
    let start = clock();
    let asked = ask(&router);
    let first = conn.gets(306).await;
    let second = conn.gets(306).await;
    assert_eq!(asked.await.unwrap(), Err(Failure::Unavailable(Why::TimedOut)));
    assert_eq!(clock() - start, 8 * S);
    conn.answers(&first, &[success()]).await;
    conn.answers(&second, &[success()]).await;
    // The connection goes on.
    let asked = ask(&router);
    let third = conn.gets(306).await;
    conn.answers(&third, &[success()]).await;
    assert_eq!(asked.await.unwrap().unwrap().header.end_to_end, third.header.end_to_end);
}

/// A peer that takes nothing any more loses its connection; nobody waits for it for ever.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up() {
    let (router, mut streams, _) = in_memory(one_peer());
    let conn = Conn::new(streams.recv().await.unwrap(), "hss1.example").greets().await;
    state(&router, "up").await;
    let start = clock();
    let asked: Vec<_> = (0..150).map(|_| ask(&router)).collect();
    for answer in asked {
        let failure = answer.await.unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Unavailable(_)), "{failure:?}");
    }
    assert!(clock() - start <= 8 * S);
    let next = streams.recv().await;
    assert!(next.is_some() && clock() - start < 160 * S, "{:?}", clock() - start);
    drop(conn);
}

/// Messages in whatever pieces they come.
#[tokio::test(start_paused = true)]
async fn a_message_may_come_octet_by_octet() {
    let (router, mut streams, _) = in_memory(one_peer());
    let mut conn = Conn::new(streams.recv().await.unwrap(), "hss1.example").greets().await;
    state(&router, "up").await;
    let asked = ask(&router);
    let udr = conn.gets(306).await;
    let mut all = conn.origin();
    all.push(success());
    for octet in udr.answer(all).encode() {
        conn.stream.write_all(&[octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(asked.await.unwrap().is_ok());
}
