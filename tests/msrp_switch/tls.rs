//! MSRP over TLS: who is let in, who is told to leave, and what a certificate that changes changes.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagecast::content::fingerprint::{Fingerprint, Hash, Proof};
use pagecast::content::msrp_uri::MsrpUri;
use pagecast::content::sdp::End;
use pagecast::engine::input::{LegMedia, MediaFailure, OriginatorMedia};
use pagecast::msrp::codec::Flag;
use pagecast::msrp::tls::{Files, Material, Tls};
use pagecast::msrp::{HandshakesFailed, PageRules, Role, Settings, Side};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{Bench, Peer, Stream, any, leg, media, octets, page, settings};

const V13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const V12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate of a peer and its key.
struct Identity {
    own: Arc<CertifiedKey>,
}

impl Identity {
    fn new() -> Self {
        Self::with(CertificateParams::new(["phone.ims.test".to_owned()]).expect("a name"))
    }

    fn expired() -> Self {
        let mut params = CertificateParams::new(["phone.ims.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        Self::with(params)
    }

    fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self::of(&params.self_signed(&key).expect("a certificate"), &key)
    }

    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        let own = CertifiedKey::from_der(chain, key, &provider()).expect("they belong together");
        Self { own: Arc::new(own) }
    }

    fn proof(&self) -> Proof {
        Proof::Fingerprint(vec![Fingerprint::of(Hash::Sha256, &self.own.cert[0])])
    }

    /// The name of the file its certificate and key were written to.
    fn material() -> (Material, String) {
        let made = rcgen::generate_simple_self_signed(["as1.ims.test".to_owned()]).expect("made");
        let folder = std::env::temp_dir()
            .join(format!("pagecast-msrp-tls-{:016x}", getrandom::u64().expect("random")));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (certificate, key) = (folder.join("own.pem"), folder.join("own.key"));
        std::fs::write(&certificate, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let files = Files { own: Some((certificate, key)), ca: None };
        let material = Material::load(&files).expect("good files");
        std::fs::remove_dir_all(&folder).expect("our own folder");
        let print = material.fingerprint().expect("a certificate");
        (material, print)
    }
}

/// Takes every certificate and notes its fingerprint: what a peer is shown, a test judges itself.
#[derive(Debug)]
struct Notes {
    seen: Arc<Mutex<String>>,
    provider: Arc<CryptoProvider>,
    wants: bool,
}

impl Notes {
    fn take(&self, certificate: &CertificateDer<'_>) {
        *self.seen.lock().expect("no panic") =
            Fingerprint::of(Hash::Sha256, certificate).to_string();
    }
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let all = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, cert, dss, all)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let all = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, cert, dss, all)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Notes {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.take(end_entity);
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Notes {
    fn client_auth_mandatory(&self) -> bool {
        self.wants
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.take(end_entity);
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// A switch with TLS, and the fingerprint of its certificate.
fn secure(settings: Settings) -> (Bench, Tls) {
    let bench = Bench::new(settings);
    let (material, _) = Identity::material();
    let tls = Tls::new(material, "as1.ims.test").expect("a certificate");
    bench.switch.secure(tls.clone());
    (bench, tls)
}

/// What shaking hands came to: the connection, and the fingerprint the switch has shown.
type Shaken = io::Result<(Box<dyn Stream>, String)>;

async fn shake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Shaken {
    let seen = Arc::new(Mutex::new(String::new()));
    let notes = Notes { seen: Arc::clone(&seen), provider: provider(), wants: true };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(notes));
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.own)))),
    };
    let name = ServerName::try_from("as1.ims.test").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let seen = seen.lock().expect("no panic").clone();
    Ok((Box::new(stream), seen))
}

/// A pipe into the switch's door for TLS.
fn pipe(bench: &Bench) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let switch = bench.switch.clone();
    let from = "192.0.2.1:1000".parse().expect("an address");
    drop(tokio::spawn(async move { switch.serve_secure_connection(theirs, from).await }));
    ours
}

async fn dial(bench: &Bench, identity: &Identity) -> (Box<dyn Stream>, String) {
    shake(pipe(bench), Some(identity), V13).await.expect("hands are shaken")
}

fn path(n: u16) -> String {
    format!("msrps://203.0.113.9:9021/recipient{n};tcp")
}

fn reserve(bench: &Bench, side: Side) -> End {
    bench.switch.reserve_end(side, None, true).expect("room")
}

fn join(bench: &Bench, n: u16, me: &str, role: Role, proof: Proof) {
    let mut media = media(me, role);
    media.proof = Some(proof);
    bench.switch.join(leg(n), media);
}

/// A recipient with that certificate, agreed on by SDP, that connects and has not spoken yet.
async fn recipient(bench: &Bench, n: u16, identity: &Identity) -> Peer {
    let end = reserve(bench, Side::Leg(leg(n)));
    join(bench, n, &path(n), Role::Passive, identity.proof());
    let (stream, seen) = dial(bench, identity).await;
    assert!(end.fingerprints.contains(&seen), "the certificate SDP spoke of");
    Peer::new(stream, &path(n), end.path.as_str())
}

async fn originator(bench: &Bench, identity: &Identity) -> Peer {
    let me = "msrps://192.0.2.55:7394/originator0;tcp";
    let end = reserve(bench, Side::Originator(page()));
    let mut media = media(me, Role::Passive);
    media.proof = Some(identity.proof());
    bench.switch.open_originator(page(), media, any(), PageRules::default());
    let (stream, _) = dial(bench, identity).await;
    Peer::new(stream, me, end.path.as_str())
}

/// Reads to the end: what ended it.
async fn end_of(stream: &mut Box<dyn Stream>) -> Option<AlertDescription> {
    let ended = timeout(Duration::from_secs(3600), stream.read_to_end(&mut Vec::new())).await;
    alert_in(&ended.expect("it ends").err()?)
}

fn alert_in(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>() {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

const LOST: LegMedia = LegMedia::Failed { cause: MediaFailure::Connection };

/// A peer we connect to.
struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    seen: Arc<Mutex<String>>,
}

impl Server {
    async fn new(identity: &Identity) -> Self {
        let seen = Arc::new(Mutex::new(String::new()));
        let notes = Notes { seen: Arc::clone(&seen), provider: provider(), wants: true };
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(Arc::new(notes))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.own))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), seen }
    }

    fn path(&self, n: u16) -> String {
        format!("msrps://{}/recipient{n};tcp", self.listener.local_addr().expect("bound"))
    }

    async fn shakes(&self) -> io::Result<Box<dyn Stream>> {
        let (stream, _) = self.listener.accept().await?;
        Ok(Box::new(self.acceptor.accept(stream).await?))
    }
}

/// Proves MS-112, MS-083: every side over TLS, the switch as either end of it.
#[tokio::test]
async fn a_page_over_tls_reaches_everybody_octet_by_octet() {
    let (mut bench, _) = secure(settings());
    let [alice, bob, carol] = [(); 3].map(|()| Identity::new());
    let mut alice = originator(&bench, &alice).await;
    let mut bob = recipient(&bench, 1, &bob).await;
    bob.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(bob.answer().await, 200);
    let server = Server::new(&carol).await;
    let end = reserve(&bench, Side::Leg(leg(2)));
    join(&bench, 2, &server.path(2), Role::Active, carol.proof());
    let stream = server.shakes().await.expect("hands are shaken");
    let shown = server.seen.lock().expect("no panic").clone();
    assert!(end.fingerprints.contains(&shown), "we show as client what SDP spoke of");
    let mut carol = Peer::new(stream, &server.path(2), end.path.as_str());

    let body = octets(300_000);
    let sending = async {
        let total = body.len();
        let range = format!("1-*/{total}");
        alice.chunk("pg01", "page1", &range, &body, '$').await;
        assert_eq!(alice.answer().await, 200);
    };
    let ((), at_bob, at_carol) = tokio::join!(sending, bob.take(), carol.take());
    for taken in [at_bob, at_carol] {
        assert_eq!(taken.flag, Flag::Last);
        assert_eq!(taken.octets, body);
    }
    bench.originator(OriginatorMedia::Bound).await;
    assert_eq!(bench.switch.stats().handshakes_failed, HandshakesFailed::default());
}

/// Proves MS-112: the alert, in both versions of TLS; the leg fails, others go on.
#[tokio::test(start_paused = true)]
async fn who_shows_another_certificate_is_told_so_and_the_leg_fails() {
    for versions in [V13, V12] {
        let (mut bench, _) = secure(settings());
        let [bob, mallory] = [(); 2].map(|()| Identity::new());
        let mut good = recipient(&bench, 1, &bob).await;
        good.send("bind", "Message-ID: bind\r\n", None, '$').await;
        assert_eq!(good.answer().await, 200);
        let end = reserve(&bench, Side::Leg(leg(2)));
        join(&bench, 2, &path(2), Role::Passive, bob.proof());
        let (stream, _) = shake(pipe(&bench), Some(&mallory), versions).await.expect("shaken");
        let mut peer = Peer::new(stream, &path(2), end.path.as_str());
        peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
        assert_eq!(end_of(&mut peer.stream).await, Some(AlertDescription::BadCertificate));
        bench.leg(2, LOST).await;
        assert_eq!(bench.switch.stats().handshakes_failed.certificate, 1);
        good.send("more", "Message-ID: more\r\n", None, '$').await;
        assert_eq!(good.answer().await, 200, "the other one stays");
        assert!(bench.leg_events(1).iter().all(|event| *event != LOST));
    }
}

/// Proves MS-112: no certificate, in both versions of TLS.
#[tokio::test(start_paused = true)]
async fn who_shows_no_certificate_is_told_so() {
    for versions in [V13, V12] {
        let (bench, _) = secure(settings());
        let ended = match shake(pipe(&bench), None, versions).await {
            Ok((mut stream, _)) => end_of(&mut stream).await,
            // The alert may be here before the client is done.
            Err(error) => alert_in(&error),
        };
        assert_eq!(ended, Some(AlertDescription::BadCertificate));
        assert_eq!(bench.switch.stats().handshakes_failed.certificate, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.switch.stats().unbound, 0);
    }
}

/// Proves MS-112: the active side is the TLS client, and does not go on with somebody else.
#[tokio::test]
async fn we_do_not_go_on_with_a_server_that_shows_another_certificate() {
    let (mut bench, _) = secure(settings());
    let [carol, mallory] = [(); 2].map(|()| Identity::new());
    let server = Server::new(&mallory).await;
    reserve(&bench, Side::Leg(leg(1)));
    join(&bench, 1, &server.path(1), Role::Active, carol.proof());
    let error = match server.shakes().await {
        Ok(mut stream) => match stream.read_u8().await {
            Ok(octet) => panic!("{octet} came"),
            Err(error) => error,
        },
        Err(error) => error,
    };
    assert!(error.to_string().contains("BadCertificate"), "{error}");
    bench.leg(1, LOST).await;
    assert_eq!(bench.switch.stats().handshakes_failed.certificate, 1);
    assert_eq!(bench.switch.stats().connections, 0);
}

/// Proves MS-112: in fingerprint mode only the hash counts, on either side.
#[tokio::test]
async fn an_expired_certificate_with_the_right_fingerprint_will_do() {
    let (mut bench, _) = secure(settings());
    let expired = Identity::expired();
    let mut bob = recipient(&bench, 1, &expired).await;
    bob.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(bob.answer().await, 200);
    let server = Server::new(&expired).await;
    reserve(&bench, Side::Leg(leg(2)));
    join(&bench, 2, &server.path(2), Role::Active, expired.proof());
    drop(server.shakes().await.expect("hands are shaken"));
    bench.leg(2, LegMedia::Bound).await;
}

/// Proves MS-112: data before the answer is known is neither answered nor read without end.
#[tokio::test(start_paused = true)]
async fn who_comes_before_his_answer_waits_until_it_is_here() {
    let (bench, _) = secure(settings());
    let [bob, mallory] = [(); 2].map(|()| Identity::new());
    let end = reserve(&bench, Side::Leg(leg(1)));
    let (stream, _) = dial(&bench, &bob).await;
    let mut early = Peer::new(stream, &path(1), end.path.as_str());
    early.send("bind", "Message-ID: bind\r\n", None, '$').await;
    early.silence(Duration::from_secs(5)).await;
    let flood = vec![b'x'; 1 << 20];
    let written = timeout(Duration::from_secs(1), early.stream.write_all(&flood)).await;
    assert!(written.is_err(), "nobody reads on");
    assert_eq!(bench.switch.stats().unbound, 1);

    let end = reserve(&bench, Side::Leg(leg(2)));
    let (stream, _) = dial(&bench, &bob).await;
    let mut right = Peer::new(stream, &path(2), end.path.as_str());
    right.send("bind", "Message-ID: bind\r\n", None, '$').await;
    let (stream, _) = dial(&bench, &mallory).await;
    let mut wrong = Peer::new(stream, &path(2), end.path.as_str());
    wrong.send("bind", "Message-ID: bind\r\n", None, '$').await;
    right.silence(Duration::from_secs(1)).await;
    join(&bench, 2, &path(2), Role::Passive, bob.proof());
    assert_eq!(right.answer().await, 200);
    // The session is taken: to whoever else comes it is one of another connection (MS-033).
    assert_eq!(wrong.answer().await, 506);
}

/// Proves MS-035, MS-112: whoever waits for an answer that never comes is sent away like everybody unbound.
#[tokio::test(start_paused = true)]
async fn who_comes_before_an_answer_that_never_comes_leaves_in_the_end() {
    let (bench, _) = secure(settings());
    let bob = Identity::new();
    let end = reserve(&bench, Side::Leg(leg(1)));
    let (stream, _) = dial(&bench, &bob).await;
    let mut early = Peer::new(stream, &path(1), end.path.as_str());
    early.send("bind", "Message-ID: bind\r\n", None, '$').await;
    early.silence(Duration::from_secs(29)).await;
    assert!(early.next().await.is_none(), "closed without a word");
    assert_eq!(bench.switch.stats().connections, 0);
}

/// Proves MS-112, MS-040: each at the other's door, and both leave.
#[tokio::test(start_paused = true)]
async fn plain_and_tls_at_each_others_door_are_closed() {
    let (bench, _) = secure(settings());
    let mut plain: Box<dyn Stream> = Box::new(pipe(&bench));
    plain.write_all(b"MSRP abcd1234 SEND\r\nTo-Path: msrps://a:1/x;tcp\r\n").await.expect("read");
    let mut heard = Vec::new();
    plain.read_to_end(&mut heard).await.expect("closed");
    assert!(!heard.starts_with(b"MSRP"), "no answer in plain text");
    assert_eq!(bench.switch.stats().handshakes_failed.protocol, 1);
    let identity = Identity::new();
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let switch = bench.switch.clone();
    let from = "192.0.2.1:1000".parse().expect("an address");
    drop(tokio::spawn(async move { switch.serve_connection(theirs, from).await }));
    assert!(shake(ours, Some(&identity), V13).await.is_err(), "the plain door speaks no TLS");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stats = bench.switch.stats();
    assert_eq!((stats.connections, stats.unbound), (0, 0), "{stats:?}");
}

/// Proves MS-112: `msrps` never falls back to TCP, nor the other way round.
#[tokio::test(start_paused = true)]
async fn a_session_is_bound_at_its_own_kind_of_door() {
    let (bench, _) = secure(settings());
    let bob = Identity::new();
    let end = reserve(&bench, Side::Leg(leg(1)));
    join(&bench, 1, &path(1), Role::Passive, bob.proof());
    let mut peer = Peer::new(bench.dial(), &path(1), end.path.as_str());
    peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(peer.answer().await, 481);
    let unsecured = end.path.as_str().replace("msrps:", "msrp:");
    assert!(MsrpUri::parse(&unsecured).is_ok());
    peer.them = unsecured;
    peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(peer.answer().await, 481);
    let own = bench.switch.reserve(Side::Leg(leg(2))).expect("room");
    bench.switch.join(leg(2), media("msrp://203.0.113.9:9021/recipient2;tcp", Role::Passive));
    let (stream, _) = dial(&bench, &bob).await;
    let mut peer = Peer::new(stream, "msrp://203.0.113.9:9021/recipient2;tcp", &own);
    peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(peer.answer().await, 481);
}

/// Proves MS-112: handshakes have an end, a bound, and nobody waits for another's.
#[tokio::test(start_paused = true)]
async fn a_slow_handshake_delays_nobody() {
    let (bench, _) = secure(Settings { max_handshakes: 1, ..settings() });
    let bob = Identity::new();
    let mut silent: Box<dyn Stream> = Box::new(pipe(&bench));
    tokio::task::yield_now().await;
    assert!(shake(pipe(&bench), Some(&bob), V13).await.is_err(), "one place, and it is taken");
    assert_eq!(bench.switch.stats().handshakes_failed.busy, 1);
    let before = tokio::time::Instant::now();
    assert_eq!(silent.read(&mut [0; 16]).await.expect("closed"), 0);
    assert_eq!(before.elapsed().as_secs(), 5, "msrp.tls.handshake_timeout");
    assert_eq!(bench.switch.stats().handshakes_failed.slow, 1);

    let (bench, _) = secure(settings());
    let _silent: Vec<_> = (0..100).map(|_| pipe(&bench)).collect();
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    let mut good = recipient(&bench, 1, &bob).await;
    good.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(good.answer().await, 200);
    assert!(before.elapsed() < Duration::from_secs(1), "others took their time alone");
}

/// Proves MS-112: a new certificate ends no session, and whoever was told of the old one finds it.
#[tokio::test(start_paused = true)]
async fn a_new_certificate_is_shown_to_those_who_were_told_of_it() {
    let (bench, tls) = secure(settings());
    let bob = Identity::new();
    let mut running = recipient(&bench, 1, &bob).await;
    running.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(running.answer().await, 200);
    let told_old = reserve(&bench, Side::Leg(leg(2)));
    join(&bench, 2, &path(2), Role::Passive, bob.proof());
    let (fresh, print) = Identity::material();
    tls.replace(&fresh);
    let between = reserve(&bench, Side::Leg(leg(3)));
    assert!(between.fingerprints.len() == 2 && between.fingerprints.contains(&print));
    let (stream, seen) = dial(&bench, &bob).await;
    assert_eq!(told_old.fingerprints, [seen], "what SDP told this one");
    let mut late = Peer::new(stream, &path(2), told_old.path.as_str());
    late.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(late.answer().await, 200);
    let (_, seen) = dial(&bench, &bob).await;
    assert_eq!(seen, print, "nobody waits for the old one any more");
    assert_eq!(reserve(&bench, Side::Leg(leg(4))).fingerprints, [print]);
    running.send("more", "Message-ID: more\r\n", None, '$').await;
    assert_eq!(running.answer().await, 200, "the session stays");
}

/// Proves MS-029, MS-112: sessions share a connection only where they ask for the same certificate.
#[tokio::test]
async fn a_connection_is_shared_by_those_who_want_the_same_certificate() {
    let (mut bench, _) = secure(settings());
    let [gateway, other] = [(); 2].map(|()| Identity::new());
    let server = Server::new(&gateway).await;
    let mut ends = Vec::new();
    for n in 1..=2 {
        ends.push(reserve(&bench, Side::Leg(leg(n))));
        join(&bench, n, &server.path(n), Role::Active, gateway.proof());
    }
    let stream = server.shakes().await.expect("hands are shaken");
    let mut peer = Peer::new(stream, &server.path(1), ends[0].path.as_str());
    for n in 1..=2 {
        bench.leg(n, LegMedia::Bound).await;
        let greeting = peer.next().await.expect("a SEND");
        assert!(greeting.head.to_path[0].as_str().contains("recipient"));
    }
    assert_eq!(bench.switch.stats().connections, 1);
    reserve(&bench, Side::Leg(leg(3)));
    join(&bench, 3, &server.path(3), Role::Active, other.proof());
    drop(server.shakes().await);
    bench.leg(3, LOST).await;
    assert_eq!(bench.switch.stats().connections, 1, "the first one goes on");

    // The gateway may not bind somebody else's session by the connection it has.
    let end = reserve(&bench, Side::Leg(leg(4)));
    join(&bench, 4, &path(4), Role::Passive, other.proof());
    (peer.me, peer.them) = (path(4), end.path.as_str().to_owned());
    peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
    bench.leg(4, LOST).await;
}

/// Without fingerprints the name of the host has to be in a certificate that somebody known has signed, whichever side
/// it is that shows it.
///
/// Proves MS-112.
#[tokio::test]
async fn without_fingerprints_the_name_of_the_host_counts() {
    let mut authority = CertificateParams::new(["ca.ims.test".to_owned()]).expect("a name");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"));
    let authority = authority.expect("a CA");
    let folder = std::env::temp_dir()
        .join(format!("pagecast-msrp-ca-{:016x}", getrandom::u64().expect("random")));
    std::fs::create_dir_all(&folder).expect("a folder");
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("written");
    let material = Material::load(&Files { own: None, ca: Some(ca) }).expect("good files");
    std::fs::remove_dir_all(&folder).expect("our own folder");
    let mut bench = Bench::new(settings());
    bench.switch.secure(Tls::new(material, "as1.ims.test").expect("a certificate"));

    let signed = |host: &str| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &authority).expect("signed");
        Identity::of(&certificate, &key)
    };
    let named = |host: &str| Proof::Name(host.to_owned());
    let (good, other) = (signed("127.0.0.1"), signed("127.0.0.2"));
    for (n, identity, fits) in [(1, &good, true), (2, &other, false), (3, &Identity::new(), false)]
    {
        let server = Server::new(identity).await;
        reserve(&bench, Side::Leg(leg(n)));
        join(&bench, n, &server.path(n), Role::Active, named("127.0.0.1"));
        let shaken = server.shakes().await;
        bench.leg(n, if fits { LegMedia::Bound } else { LOST }).await;
        drop(shaken);
    }
    for (n, identity, fits) in [(4, &good, true), (5, &other, false), (6, &Identity::new(), false)]
    {
        let end = reserve(&bench, Side::Leg(leg(n)));
        join(&bench, n, &path(n), Role::Passive, named("127.0.0.1"));
        let (stream, _) = dial(&bench, identity).await;
        let mut peer = Peer::new(stream, &path(n), end.path.as_str());
        peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
        bench.leg(n, if fits { LegMedia::Bound } else { LOST }).await;
    }
}

/// A connection that is cut in the middle of a handshake is nobody's loss.
#[tokio::test]
async fn whoever_leaves_in_a_handshake_leaves_nothing() {
    let (bench, _) = secure(settings());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let switch = bench.switch.clone();
    drop(tokio::spawn(async move { switch.listen_secure(listener).await }));
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(&[0x16, 3, 1, 0, 200, 1]).await.expect("it reads");
    drop(stream);
    while bench.switch.stats().handshakes_failed.protocol == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.switch.stats().unbound, 0);
    let bob = Identity::new();
    let end = reserve(&bench, Side::Leg(leg(1)));
    join(&bench, 1, &path(1), Role::Passive, bob.proof());
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (stream, _) = shake(stream, Some(&bob), V12).await.expect("hands are shaken");
    let mut peer = Peer::new(stream, &path(1), end.path.as_str());
    peer.send("bind", "Message-ID: bind\r\n", None, '$').await;
    assert_eq!(peer.answer().await, 200);
}
