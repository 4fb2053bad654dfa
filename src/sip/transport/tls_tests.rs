use std::net::IpAddr;
use std::path::PathBuf;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::tls::{Files, Material};
use super::*;
use crate::sip::message::Writer;
use crate::sip::resolve::Zone;

const SOON: Duration = Duration::from_secs(20);

/// A certificate authority and a folder for what it signs; the folder goes with it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left of a failed test is no second failure.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a certificate is to say.
#[derive(Default)]
struct Wish<'a> {
    hosts: &'a [&'a str],
    uris: &'a [&'a str],
    addresses: &'a [&'a str],
    expired: bool,
}

impl Authority {
    fn new() -> Self {
        let folder = std::env::temp_dir()
            .join(format!("pagecast-tls-{:016x}", getrandom::u64().expect("random bytes")));
        std::fs::create_dir(&folder).expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let one = Self { issuer: issuer.expect("a certificate"), folder };
        std::fs::write(one.folder.join("ca.pem"), one.issuer.pem()).expect("a file");
        one
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Writes `name.pem` and `name.key`.
    fn issue(&self, name: &str, wish: &Wish<'_>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let text = |text: &&str| Ia5String::try_from(*text).expect("ASCII");
        params.subject_alt_names = (wish.hosts.iter().map(text).map(SanType::DnsName))
            .chain(wish.uris.iter().map(text).map(SanType::URI))
            .chain(wish.addresses.iter().map(|one| SanType::IpAddress(one.parse().expect("an IP"))))
            .collect();
        if wish.expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(name, &signed.pem(), &key)
    }

    fn self_signed(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let signed = params.self_signed(&key).expect("a certificate");
        self.write(name, &signed.pem(), &key)
    }

    fn write(&self, name: &str, pem: &str, key: &KeyPair) -> (PathBuf, PathBuf) {
        let at = |end: &str| self.folder.join(format!("{name}.{end}"));
        std::fs::write(at("pem"), pem).expect("a file");
        std::fs::write(at("key"), key.serialize_pem()).expect("a file");
        (at("pem"), at("key"))
    }

    /// What a node with this certificate asks of both sides.
    fn files(&self, (certificate, key): (PathBuf, PathBuf)) -> Files {
        let ca = Some(self.ca());
        Files { certificate, key, client_ca: ca.clone(), ca, verify_client: true }
    }

    fn tls(&self, own: (PathBuf, PathBuf), trusted: &[&str]) -> Tls {
        tls(&self.files(own), trusted)
    }
}

fn tls(files: &Files, trusted: &[&str]) -> Tls {
    let material = Material::load(files).expect("good files");
    Tls::new(material, trusted.iter().map(|name| Names::fold(name).expect("a name")).collect())
}

const LOCAL: Wish<'_> =
    Wish { hosts: &["localhost"], uris: &[], addresses: &["127.0.0.1", "::1"], expired: false };

fn settings(security: &Tls) -> Settings {
    Settings {
        tls: vec!["127.0.0.1:0".parse().unwrap()],
        security: Some(security.clone()),
        udp_buffer: 256 * 1024,
        ..Settings::default()
    }
}

fn start(settings: &Settings, dns: Zone) -> (Transport<u32>, SocketAddr) {
    let one = Transport::bind(settings, 1, &Dns::Zone(dns)).unwrap().remove(0);
    let address = one.addresses().unwrap().last().unwrap().1;
    (one.start().unwrap(), address)
}

/// A client that follows no rule of ours but believes this authority.
fn client(authority: &Authority, own: Option<(PathBuf, PathBuf)>) -> tokio_rustls::TlsConnector {
    let own = own.unwrap_or_else(|| authority.issue("nobody", &Wish::default()));
    let ca = Some(authority.ca());
    let files = Files { certificate: own.0, key: own.1, client_ca: None, ca, verify_client: false };
    tls(&files, &[]).connector().expect("it believes an authority")
}

/// A client that shows no certificate.
fn shy(authority: &Authority) -> tokio_rustls::TlsConnector {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(authority.ca()).unwrap();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn connect(
    connector: &tokio_rustls::TlsConnector,
    to: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    timeout(SOON, connector.connect(name, stream)).await.expect("an end of the handshake")
}

fn options(call_id: &str) -> String {
    format!(
        "OPTIONS sip:as SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:1;branch=z9hG4bK{call_id};rport\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:as>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// What becomes of a message on a connection: the way it came, or nothing where the server hung up.
async fn told(
    transport: &mut Transport<u32>,
    stream: io::Result<TlsStream<TcpStream>>,
    call_id: &str,
) -> Option<Flow> {
    let mut stream = stream.ok()?;
    // In TLS 1.3 the server judges after the client is done.
    stream.write_all(options(call_id).as_bytes()).await.ok()?;
    let mut end = [0; 64];
    tokio::select! {
        arrived = timeout(SOON, transport.recv()) => match arrived.expect("a message or an end") {
            Inbound::Message { flow, .. } => Some(flow),
            other => panic!("{other:?}"),
        },
        read = stream.read(&mut end) => {
            assert!(!matches!(read, Ok(1..)), "nothing is said");
            None
        }
    }
}

fn request() -> (Bytes, usize) {
    let mut writer = Writer::request(&crate::sip::message::Method::Message, "sip:bob@example.org");
    let at = writer.via("192.0.2.1:5060", "z9hG4bK00abc");
    writer.header("From", "<sip:a@b>;tag=00").header("To", "<sip:bob@example.org>");
    writer.header("Call-ID", "lm-00x").header("CSeq", "1 MESSAGE");
    (writer.finish(None), at)
}

async fn outcome(transport: &mut Transport<u32>) -> Result<Protocol, NotSent> {
    loop {
        match timeout(SOON, transport.recv()).await.expect("an outcome") {
            Inbound::Outcome { sent, .. } => return sent,
            Inbound::Message { .. } => {}
            other @ Inbound::Malformed { .. } => panic!("{other:?}"),
        }
    }
}

/// RFC 5922 §7.1, §7.2.
#[test]
fn names_of_certificates_are_read_as_sip_wants_it() {
    let authority = Authority::new();
    let names = |wish: &Wish<'_>| {
        use rustls_pki_types::pem::PemObject as _;
        let (pem, _) = authority.issue("x", wish);
        let pem = std::fs::read(pem).unwrap();
        Names::of(&rustls_pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap()
    };
    let rows: &[(Wish<'_>, &[(&str, bool)])] = &[
        (
            Wish { hosts: &["Scscf.Home1.example"], ..Wish::default() },
            &[
                ("scscf.home1.example", true),
                ("SCSCF.home1.example.", true),
                ("home1.example", false),
                ("x.scscf.home1.example", false),
            ],
        ),
        // A SIP URI outdoes DNS names; one with a user part is a person's and no domain's; other schemes say nothing.
        (
            Wish {
                hosts: &["host.example"],
                uris: &["sip:Home1.example", "sip:bob@home2.example", "https://home3.example"],
                ..Wish::default()
            },
            &[
                ("home1.example", true),
                ("host.example", false),
                ("home2.example", false),
                ("home3.example", false),
            ],
        ),
        (
            Wish { hosts: &["a.example"], uris: &["sip:bob@home2.example"], ..Wish::default() },
            &[("a.example", true), ("home2.example", false)],
        ),
        (Wish { hosts: &["*.example"], ..Wish::default() }, &[("a.example", false)]),
        (
            Wish { addresses: &["192.0.2.1", "2001:db8::1"], ..Wish::default() },
            &[
                ("192.0.2.1", true),
                ("[2001:db8::1]", true),
                ("2001:db8:0::1", true),
                ("192.0.2.2", false),
            ],
        ),
        (Wish::default(), &[("", false), ("localhost", false)]),
    ];
    for (wish, asked) in rows {
        let names = names(wish);
        for (host, is) in *asked {
            assert_eq!(names.are_of(host), *is, "{host} in {names}");
        }
    }
    let all = names(&Wish {
        hosts: &["Host.example"],
        uris: &["sip:home1.example", "sip:Bob@home2.example"],
        ..Wish::default()
    });
    for (trusted, held) in [
        ("host.example", true),
        ("HOST.example", true),
        ("home1.example", true),
        ("sip:home1.example", true),
        ("sip:bob@home2.example", true),
        ("home2.example", false),
        ("example", false),
    ] {
        assert_eq!(all.hold(&Names::fold(trusted).unwrap()), held, "{trusted}");
    }
    for wrong in ["", "10.0.0.0/8", "https://x", "two words", "tel:+1"] {
        assert_eq!(Names::fold(wrong), None, "{wrong}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let good = authority.files(authority.issue("good", &LOCAL));
    let (_, foreign) = authority.issue("foreign", &LOCAL);
    let empty = authority.folder.join("empty");
    std::fs::write(&empty, "nothing").unwrap();
    let gone = authority.folder.join("gone.pem");
    let rows: &[(&str, Files, &str)] = &[
        ("certificate", Files { certificate: gone.clone(), ..good.clone() }, "cannot be read"),
        ("certificate", Files { certificate: empty.clone(), ..good.clone() }, "no certificate"),
        ("key", Files { key: gone.clone(), ..good.clone() }, "cannot be read"),
        ("key", Files { key: good.certificate.clone(), ..good.clone() }, "no private key"),
        ("key", Files { key: foreign, ..good.clone() }, "does not belong to the certificate"),
        ("client_ca", Files { client_ca: Some(gone.clone()), ..good.clone() }, "cannot be read"),
        ("ca", Files { ca: Some(empty), ..good.clone() }, "no certificate"),
    ];
    for (key, files, what) in rows {
        let wrong = Material::load(files).expect_err("a wrong file");
        assert_eq!(wrong.key, *key, "{wrong}");
        assert!(wrong.what.contains(what), "{wrong}");
    }
    let shown = format!("{:?}", Material::load(&good).unwrap());
    assert!(!shown.to_lowercase().contains("private"), "{shown}");
}

/// Proves ISC-001.
#[tokio::test]
async fn clients_are_let_in_and_vouched_for_by_their_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let own = authority.tls(authority.issue("own", &LOCAL), &["scscf.home1.example"]);
    let (mut transport, address) = start(&settings(&own), Zone::default());
    let named = |hosts| Wish { hosts, ..Wish::default() };
    let wish = named(&["SCSCF.home1.example"]);
    // (what the client shows, what becomes of its message: nothing, or whether it is vouched for)
    let rows =
        [
            ("trusted name", client(&authority, Some(authority.issue("a", &wish))), Some(true)),
            (
                "trusted SIP URI",
                client(
                    &authority,
                    Some(authority.issue(
                        "u",
                        &Wish { uris: &["sip:scscf.home1.example"], ..Wish::default() },
                    )),
                ),
                Some(true),
            ),
            (
                "another name",
                client(&authority, Some(authority.issue("b", &named(&["x.scscf.home1.example"])))),
                Some(false),
            ),
            (
                "expired",
                client(&authority, Some(authority.issue("c", &Wish { expired: true, ..wish }))),
                None,
            ),
            (
                "another authority",
                {
                    let stranger = other.issue("d", &named(&["scscf.home1.example"]));
                    client(&authority, Some(stranger))
                },
                None,
            ),
            ("self-signed", client(&authority, Some(authority.self_signed("e"))), None),
            ("no certificate", shy(&authority), None),
        ];
    for (what, connector, want) in rows {
        let stream = connect(&connector, address).await;
        let flow = told(&mut transport, stream, what.replace(' ', "-").as_str()).await;
        assert_eq!(flow.map(|flow| flow.vouched), want, "{what}");
        if let Some(flow) = flow {
            assert_eq!((flow.protocol, flow.local), (Protocol::Tls, address), "{what}");
        }
    }
    // Without the switch a client need not show one, but a bad one is still bad.
    let mut files = authority.files(authority.issue("own2", &LOCAL));
    files.verify_client = false;
    let lax = tls(&files, &["scscf.home1.example"]);
    let (mut transport, address) = start(&settings(&lax), Zone::default());
    for (what, connector, want) in [
        ("none", shy(&authority), Some(false)),
        ("self-signed", client(&authority, Some(authority.self_signed("f"))), None),
    ] {
        let stream = connect(&connector, address).await;
        let flow = told(&mut transport, stream, what).await;
        assert_eq!(flow.map(|flow| flow.vouched), want, "{what}");
    }
}

/// B25: clients that connect and say nothing, or half a handshake, are many and cost others nothing; what is beyond the
/// bound is closed at once, and all of them in time.
#[tokio::test]
async fn silent_clients_delay_nobody() {
    let authority = Authority::new();
    let own = authority.tls(authority.issue("own", &LOCAL), &[]);
    let (most, patience) = (8, Duration::from_millis(1500));
    let settings = Settings {
        handshake_timeout: patience,
        max_handshakes: 2 * most,
        max_handshakes_per_peer: most,
        ..settings(&own)
    };
    let (mut transport, address) = start(&settings, Zone::default());
    let silent = |from: [u8; 4]| async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        stream
    };
    let closed = |mut stream: TcpStream| async move {
        timeout(SOON, stream.read(&mut [0; 64])).await.expect("an end")
    };
    let mut waiting = Vec::new();
    for _ in 0..most {
        waiting.push(silent([127, 0, 0, 2]).await);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        // One more of theirs does not get in, one of ours does.
        let more = silent([127, 0, 0, 2]).await;
        assert!(!matches!(closed(more).await, Ok(1..)));
    }
    let stream = connect(&client(&authority, None), address).await;
    assert!(told(&mut transport, stream, "ours").await.is_some());
    assert!(begun.elapsed() < patience, "nobody waited for the silent ones: {:?}", begun.elapsed());
    assert_eq!(transport.stats().refused_connections, 20);
    for stream in waiting {
        assert!(!matches!(closed(stream).await, Ok(1..)));
    }
    assert_eq!(transport.stats().handshakes_failed, most as u64);
    let again = silent([127, 0, 0, 2]).await;
    assert!(transport.stats().refused_connections == 20);
    drop(again);
}

/// Proves ISC-067.
#[tokio::test]
async fn servers_are_verified_and_tls_is_never_given_up_for_less() {
    let (authority, other) = (Authority::new(), Authority::new());
    let near = authority.tls(authority.issue("near", &LOCAL), &["localhost"]);
    let mut zone = Zone::default();
    let ip = IpAddr::from([127, 0, 0, 1]);
    for host in ["scscf.example", "wrong.example", "localhost"] {
        zone.addresses.insert(host.into(), vec![ip]);
    }
    let named = |hosts| Wish { hosts, ..Wish::default() };
    // (what the next hop shows, the URI without port, whether it is spoken to)
    let rows = [
        ("good", authority.issue("s1", &named(&["scscf.example"])), "sips:scscf.example", true),
        (
            "by domain",
            authority.issue("s2", &Wish { uris: &["sip:scscf.example"], ..Wish::default() }),
            "sip:scscf.example",
            true,
        ),
        (
            "wrong name",
            authority.issue("s3", &named(&["scscf.example"])),
            "sips:wrong.example",
            false,
        ),
        ("address", authority.issue("s4", &LOCAL), "sips:127.0.0.1", true),
        ("no address", authority.issue("s5", &named(&["localhost"])), "sips:127.0.0.1", false),
        (
            "expired",
            authority.issue("s6", &Wish { expired: true, ..LOCAL }),
            "sips:localhost",
            false,
        ),
        ("stranger", other.issue("s7", &LOCAL), "sips:localhost", false),
        ("self-signed", authority.self_signed("s8"), "sips:localhost", false),
    ];
    for (what, shown, uri, spoken) in rows {
        let far = authority.tls(shown, &["localhost"]);
        let (mut server, address) = start(&settings(&far), Zone::default());
        let (mut transport, _) = start(&settings(&near), zone.clone());
        let (bytes, via_at) = request();
        let parameters = if uri.starts_with("sips:") { "" } else { ";transport=tls" };
        let to = Target::NextHop {
            uri: format!("{uri}:{}{parameters}", address.port()),
            attempt: 0,
            octets: 0,
        };
        assert_eq!(transport.send(1, &to, bytes.clone(), Some(via_at)), Sent::Later, "{what}");
        if !spoken {
            assert_eq!(outcome(&mut transport).await, Err(NotSent { more: false }), "{what}");
            assert_eq!(transport.stats().handshakes_failed, 1, "{what}");
            continue;
        }
        let (sent, arrived) = tokio::join!(outcome(&mut transport), timeout(SOON, server.recv()));
        assert_eq!(sent, Ok(Protocol::Tls), "{what}");
        let Inbound::Message { bytes: arrived, flow } = arrived.expect("a message") else {
            panic!("{what}")
        };
        assert!(flow.vouched, "{what}: we have shown who we are");
        let text = String::from_utf8_lossy(&arrived);
        assert!(text.contains("\r\nVia: SIP/2.0/TLS "), "{text}");
        // The connection is used again by both sides, for the same name only.
        assert_eq!(transport.send(2, &to, bytes, Some(via_at)), Sent::Now(Protocol::Tls));
        timeout(SOON, server.recv()).await.expect("the second");
        let answer = server.send(3, &Target::Flow(flow), Bytes::from(options("back")), None);
        assert_eq!(answer, Sent::Now(Protocol::Tls));
        let Inbound::Message { flow, .. } = timeout(SOON, transport.recv()).await.expect("back")
        else {
            panic!("{what}")
        };
        assert_eq!((flow.protocol, flow.vouched), (Protocol::Tls, what == "address"), "{what}");
        assert_eq!(transport.stats().connected, 1);
    }
}

#[tokio::test]
async fn a_connection_of_one_name_is_not_used_for_another() {
    let authority = Authority::new();
    let near = authority.tls(authority.issue("near", &LOCAL), &[]);
    let far = authority
        .tls(authority.issue("far", &Wish { hosts: &["one.example"], ..Wish::default() }), &[]);
    let (_server, address) = start(&settings(&far), Zone::default());
    let mut zone = Zone::default();
    for host in ["one.example", "two.example"] {
        zone.addresses.insert(host.into(), vec![address.ip()]);
    }
    let (mut transport, _) = start(&settings(&near), zone);
    let (bytes, via_at) = request();
    let to = |host: &str| Target::NextHop {
        uri: format!("sips:{host}:{}", address.port()),
        attempt: 0,
        octets: 0,
    };
    assert_eq!(transport.send(1, &to("one.example"), bytes.clone(), Some(via_at)), Sent::Later);
    assert_eq!(outcome(&mut transport).await, Ok(Protocol::Tls));
    assert_eq!(transport.send(2, &to("two.example"), bytes, Some(via_at)), Sent::Later);
    assert_eq!(outcome(&mut transport).await, Err(NotSent { more: false }));
}

/// RFC 3261 §26.2.2: a sips URI is not reached over a hop without TLS, whatever the Route says.
#[tokio::test]
async fn a_sips_request_does_not_leave_without_tls() {
    let authority = Authority::new();
    let near = authority.tls(authority.issue("near", &LOCAL), &[]);
    let any = vec!["127.0.0.1:0".parse().unwrap()];
    let (mut transport, _) = start(&Settings { udp: any, ..settings(&near) }, Zone::default());
    transport.udp[0].socket.writable().await.unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = Target::NextHop {
        uri: format!("sip:{};lr", peer.local_addr().unwrap()),
        attempt: 0,
        octets: 0,
    };
    let (plain, via_at) = request();
    let text =
        |from: &str, to: &str| Bytes::from(String::from_utf8_lossy(&plain).replace(from, to));
    let secure = text("MESSAGE sip:bob", "MESSAGE sips:bob");
    assert_eq!(transport.send(1, &to, secure.clone(), Some(via_at)), Sent::Failed { more: false });
    assert_eq!(transport.send(2, &to, plain.clone(), Some(via_at)), Sent::Now(Protocol::Udp));
    // Inside a dialog the route set decides.
    let inside = String::from_utf8_lossy(&secure)
        .replace("<sip:bob@example.org>\r\n", "<sip:bob@example.org>;tag=1\r\n");
    assert_eq!(transport.send(3, &to, inside.into(), Some(via_at)), Sent::Now(Protocol::Udp));
}

/// New certificates and names are for what comes; what is there stays, and is judged by the new names.
#[tokio::test]
async fn new_certificates_leave_connections_alone() {
    let (authority, newer) = (Authority::new(), Authority::new());
    let wish = Wish { hosts: &["core.example"], ..Wish::default() };
    let own = authority.tls(authority.issue("own", &LOCAL), &["core.example"]);
    let (mut transport, address) = start(&settings(&own), Zone::default());
    let old_client = client(&authority, Some(authority.issue("core", &wish)));
    let mut stream = connect(&old_client, address).await.expect("let in");
    stream.write_all(options("before").as_bytes()).await.unwrap();
    let Inbound::Message { flow, .. } = timeout(SOON, transport.recv()).await.expect("it came")
    else {
        panic!("a message")
    };
    assert!(flow.vouched);

    own.replace(&newer.tls(newer.issue("own", &LOCAL), &["other.example"]));
    stream.write_all(options("after").as_bytes()).await.unwrap();
    let Inbound::Message { flow: same, .. } = timeout(SOON, transport.recv()).await.expect("came")
    else {
        panic!("a message")
    };
    assert_eq!((same.connection, same.vouched), (flow.connection, false));
    own.replace(&authority.tls(authority.issue("own", &LOCAL), &["core.example"]));
    for (vouched, distrust) in [(true, true), (false, false)] {
        stream.write_all(options(&format!("later-{vouched}")).as_bytes()).await.unwrap();
        let inbound = timeout(SOON, transport.recv()).await.expect("came");
        let Inbound::Message { flow, .. } = inbound else { panic!("a message") };
        assert_eq!(flow.vouched, vouched);
        if distrust {
            own.trust_nobody();
        }
    }
    own.replace(&newer.tls(newer.issue("own", &LOCAL), &["other.example"]));
    let refused = connect(&old_client, address).await;
    assert!(refused.is_err(), "the server shows its new certificate");
    let new_client = client(&newer, Some(newer.issue("core", &wish)));
    let stream = connect(&new_client, address).await;
    let flow = told(&mut transport, stream, "new").await.expect("let in");
    assert!(!flow.vouched);
}

/// TLS 1.2 is spoken, 1.1 is not.
#[tokio::test]
async fn the_least_version_is_1_2() {
    let authority = Authority::new();
    let own = authority.tls(authority.issue("own", &LOCAL), &[]);
    let (_transport, address) = start(&settings(&own), Zone::default());
    // A ClientHello of TLS 1.1, with the least that can stand in it.
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    let mut hello = vec![0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = [0; 7];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("an alert").unwrap();
    assert_eq!((answer[0], answer[5]), (0x15, 2), "a fatal alert: {answer:?}");
}

/// IPv4 and IPv6, UDP, TCP and TLS side by side; what leaves names the door of its way.
///
/// Proves ISC-016, ISC-067.
#[tokio::test]
async fn every_family_and_protocol_has_its_door() {
    let authority = Authority::new();
    let own = authority.tls(authority.issue("own", &LOCAL), &[]);
    let any: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let settings = Settings { udp: any.clone(), tcp: any.clone(), tls: any, ..settings(&own) };
    let bind = || {
        let one =
            Transport::<u32>::bind(&settings, 1, &Dns::Zone(Zone::default())).unwrap().remove(0);
        let at = one.addresses().unwrap();
        (one, at)
    };
    let ((near, own_doors), (far, far_doors)) = (bind(), bind());
    let told = |protocol, address: SocketAddr| doors::Door {
        protocol,
        address,
        told: address.to_string(),
    };
    let rows = own_doors.iter().map(|(protocol, address)| told(*protocol, *address)).collect();
    near.tell(doors::Doors::new("192.0.2.1:5060".to_owned(), rows));
    let (mut near, mut far) = (near.start().unwrap(), far.start().unwrap());
    for udp in &near.udp {
        udp.socket.writable().await.unwrap();
    }
    for (at, (protocol, to)) in far_doors.iter().enumerate() {
        let transport = protocol.via_token().to_ascii_lowercase();
        let (bytes, via_at) = request();
        let target = Target::NextHop {
            uri: format!("sip:{to};transport={transport}"),
            attempt: 0,
            octets: 0,
        };
        near.send(at as u32, &target, bytes, Some(via_at));
        let Inbound::Message { bytes, flow } = timeout(SOON, far.recv()).await.expect("it comes")
        else {
            panic!("a message")
        };
        assert_eq!((flow.protocol, flow.local), (*protocol, *to));
        let via = top_via(&bytes).expect("a Via");
        let door = own_doors
            .iter()
            .find(|(one, at)| one == protocol && at.is_ipv4() == to.is_ipv4())
            .expect("a door");
        assert_eq!(via.transport, protocol.via_token());
        assert_eq!(format!("{}:{}", via.host, via.port.unwrap_or(0)), door.1.to_string());
    }
}
