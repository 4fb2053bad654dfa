//! An XDMS elsewhere, played by a script on loopback: what each answer means, and what is asked of it.
//!
//! Start at [`Played`]: it notes every request head and gives the answers it was told, one for each request; when none is
//! left it closes the connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{IF_MATCH, IF_NONE_MATCH};
use pagecast::engine::input::Refusal;
use pagecast::engine::party::{Party, Target};
use pagecast::sip::digest::{Algorithm, Credentials, Ha1};
use pagecast::xdms::groups::{BOUNDS, Group};
use pagecast::xdms::path::{DocumentPath, Resource};
use pagecast::xdms::resolver::{Fetching, Source};
use pagecast::xdms::store::Document;
use pagecast::xdms::trail;
use pagecast::xdms::ut::cache::{Limits, Times};
use pagecast::xdms::ut::http::{self, AssertedHeader, Http, Outgoing};
use pagecast::xdms::ut::link::{Connect, Connecting, Files, Material, Network};
use pagecast::xdms::ut::url::Url;
use pagecast::xdms::ut::{Remote, Settings};
use pagecast::xdms::{self, Query, Resolver};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const TEAM: &str = "sip:team7@groups.ims.test";
const GROUP: &str = include_str!("data/team7.xml");
const GROUP_TYPE: &str = "application/vnd.oma.poc.groups+xml";

/// What the script does with one request.
#[derive(Clone)]
enum Step {
    Say(Vec<u8>),
    /// Says so much and then nothing more, with the connection open.
    Stall(Vec<u8>),
    Close,
}

struct Played {
    at: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    steps: Arc<Mutex<VecDeque<Step>>>,
}

impl Played {
    /// Over TLS, with a certificate for the address alone; gives the file of who signed it.
    async fn secure(steps: impl IntoIterator<Item = Step>, folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let issuer = issuer.expect("a certificate");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("a file");
        let issue = || {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.subject_alt_names =
                vec![SanType::IpAddress("127.0.0.1".parse().expect("an IP"))];
            (params.signed_by(&key, &issuer).expect("a certificate"), key)
        };
        let (own, key) = issue();
        std::fs::write(folder.join("own.pem"), own.pem()).expect("a file");
        std::fs::write(folder.join("own.key"), key.serialize_pem()).expect("a file");
        let (certificate, key) = issue();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a certificate and its key");
        Self::listen(steps, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::listen(steps, None).await
    }

    async fn listen(steps: impl IntoIterator<Item = Step>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let at = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(steps.into_iter().collect()));
        let played = Self { at, heads: Arc::clone(&heads), steps: Arc::clone(&steps) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heads, steps) = (Arc::clone(&heads), Arc::clone(&steps));
                match tls.clone() {
                    None => drop(tokio::spawn(serve(stream, heads, steps))),
                    Some(tls) => drop(tokio::spawn(async move {
                        // Whoever does not like our certificate is not served.
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, heads, steps).await;
                        }
                    })),
                }
            }
        });
        played
    }

    /// The requests since the last time.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock().expect("no panic"))
    }

    fn settings(&self) -> Settings {
        settings(&format!("http://{}/services", self.at))
    }

    fn remote(&self, change: impl FnOnce(&mut Settings)) -> Remote {
        let mut settings = self.settings();
        change(&mut settings);
        Remote::new(settings, Arc::new(Network::default()))
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: Arc<Mutex<Vec<String>>>,
    steps: Arc<Mutex<VecDeque<Step>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let length = header(&head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        while buffer.len() < end + length {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        buffer.drain(..end + length);
        heads.lock().expect("no panic").push(head);
        let step = steps.lock().expect("no panic").pop_front().unwrap_or(Step::Close);
        match step {
            Step::Say(octets) => {
                if stream.write_all(&octets).await.is_err() {
                    return;
                }
            }
            Step::Stall(octets) => {
                let _ = stream.write_all(&octets).await;
                // Until the other side has had enough.
                let _ = stream.read_buf(&mut buffer).await;
                return;
            }
            Step::Close => return,
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| {
        line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
    });
    Some(line?.split_once(':')?.1.trim().to_owned())
}

fn settings(root: &str) -> Settings {
    let root = Url::parse(root).expect("a root");
    Settings {
        http: http::Settings {
            connect: Duration::from_secs(2),
            exchange: Duration::from_millis(400),
            identity: "sip:as1@ims.test".into(),
            trusted: vec!["127.0.0.0/8".parse().expect("a network")],
            ..http::Settings::new(root)
        },
        times: Times {
            ttl: Duration::ZERO,
            notified: Duration::from_secs(3600),
            stale: Duration::ZERO,
            rest: Duration::ZERO,
        },
        limits: Limits { documents: 100, octets: 10 << 20 },
        bounds: BOUNDS,
        legacy_global: false,
    }
}

fn say(status: &str, headers: &[(&str, &str)], body: &str) -> Step {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    Step::Say(format!("{text}\r\n{body}").into_bytes())
}

fn group(etag: &str) -> Step {
    say("200 OK", &[("Content-Type", GROUP_TYPE), ("ETag", etag)], GROUP)
}

fn plain(status: &str) -> Step {
    say(status, &[], "")
}

/// What a fetch came to, in a word.
fn told<T>(outcome: &Result<Option<T>, impl std::fmt::Display>) -> &'static str {
    match outcome {
        Ok(Some(_)) => "document",
        Ok(None) => "none",
        Err(_) => "unavailable",
    }
}

/// Every answer to the first question about a group.
///
/// Proves XD-006, XD-007, XD-012, XD-047, IM-088.
#[tokio::test]
async fn each_answer_means_what_it_should() {
    let good = [("Content-Type", GROUP_TYPE), ("ETag", "\"1\"")];
    let of = |content_type| say("200 OK", &[("Content-Type", content_type)], GROUP);
    let body = |body: &str| say("200 OK", &good, body);
    let raw = |text: &str| Step::Say(text.as_bytes().to_vec());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oma.poc.groups+xml\r\n";
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let laughs = "<!DOCTYPE g [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><g>&b;</g>";
    let outside = "<!DOCTYPE g [<!ENTITY x SYSTEM \"file:///etc/hostname\">]><g>&x;</g>";
    let twice = GROUP.replacen("<group ", "<group a=\"1\" a=\"1\" ", 1);
    let other = GROUP.replace("urn:oma:xml:poc:list-service", "urn:other");
    let wide: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "y".repeat(100_000);
    let large = format!("{head}Content-Length: 3000000\r\n\r\n{}", " ".repeat(2_000_000));
    let zipped = format!("{head}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\u{1f}.");
    let cases: Vec<(&str, Vec<Step>, &str, usize)> = vec![
        ("200", vec![group("\"1\"")], "document", 1),
        ("200 without a tag", vec![of(GROUP_TYPE)], "document", 1),
        (
            "200 with a parameter",
            vec![of("Application/VND.oma.poc.groups+xml; charset=utf-8")],
            "document",
            1,
        ),
        ("304 for nothing", vec![plain("304 Not Modified")], "unavailable", 1),
        ("404", vec![plain("404 Not Found")], "none", 1),
        ("410", vec![plain("410 Gone")], "none", 1),
        ("401", vec![plain("401 Unauthorized")], "unavailable", 1),
        ("403", vec![plain("403 Forbidden")], "unavailable", 1),
        ("400", vec![plain("400 Bad Request")], "unavailable", 1),
        ("409", vec![plain("409 Conflict")], "unavailable", 1),
        ("429", vec![plain("429 Too Many Requests")], "unavailable", 1),
        ("500 is not asked again", vec![plain("500 Internal Server Error")], "unavailable", 1),
        ("502 is", vec![plain("502 Bad Gateway"), group("\"1\"")], "document", 2),
        ("503 is", vec![plain("503 Service Unavailable"), group("\"1\"")], "document", 2),
        ("504 is", vec![plain("504 Gateway Timeout"), group("\"1\"")], "document", 2),
        ("503 once only", vec![plain("503 x"), plain("503 x"), group("\"1\"")], "unavailable", 2),
        ("204", vec![raw("HTTP/1.1 204 No Content\r\n\r\n")], "unavailable", 1),
        ("206", vec![say("206 Partial Content", &good, GROUP)], "unavailable", 1),
        ("300", vec![plain("300 Multiple Choices")], "unavailable", 1),
        ("302 to nowhere", vec![plain("302 Found")], "unavailable", 1),
        ("text/html", vec![of("text/html")], "unavailable", 1),
        ("text/xml", vec![of("text/xml")], "unavailable", 1),
        ("no type", vec![say("200 OK", &[], GROUP)], "unavailable", 1),
        ("empty", vec![body("")], "unavailable", 1),
        ("no XML", vec![body("hello")], "unavailable", 1),
        ("half a document", vec![body(&GROUP[..400])], "unavailable", 1),
        ("another namespace", vec![body(&other)], "unavailable", 1),
        (
            "another root",
            vec![body("<x xmlns=\"urn:oma:xml:poc:list-service\"/>")],
            "unavailable",
            1,
        ),
        ("billion laughs", vec![body(laughs)], "unavailable", 1),
        ("an external entity", vec![body(outside)], "unavailable", 1),
        ("nested 100,000 deep", vec![body(&deep)], "unavailable", 1),
        ("an attribute twice", vec![body(&twice)], "unavailable", 1),
        (
            "UTF-16 declared",
            vec![body("<?xml version='1.0' encoding='UTF-16'?><g/>")],
            "unavailable",
            1,
        ),
        (
            "not UTF-8",
            vec![Step::Say(
                [format!("{head}Content-Length: 4\r\n\r\n<a>").as_bytes(), b"\xff"].concat(),
            )],
            "unavailable",
            1,
        ),
        ("NUL", vec![body("<group>\0</group>")], "unavailable", 1),
        ("too large", vec![raw(&large)], "unavailable", 1),
        ("packed", vec![raw(&zipped)], "unavailable", 1),
        (
            "too many header fields",
            vec![raw(&format!("{head}{wide}Content-Length: 0\r\n\r\n"))],
            "unavailable",
            1,
        ),
        ("a header without end", vec![raw(&format!("{head}X: {long}\r\n\r\n"))], "unavailable", 1),
        ("no HTTP", vec![raw("220 ready\r\n\r\n")], "unavailable", 1),
        ("closed at once", vec![Step::Close], "unavailable", 1),
        (
            "half an answer",
            vec![Step::Stall(format!("{head}Content-Length: 10\r\n\r\n<a>").into_bytes())],
            "unavailable",
            1,
        ),
        ("silent", vec![Step::Stall(Vec::new())], "unavailable", 1),
        (
            "chunks without end",
            vec![Step::Stall(
                format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").into_bytes(),
            )],
            "unavailable",
            1,
        ),
    ];
    let mut faults = Vec::new();
    for (name, steps, expected, requests) in cases {
        let played = Played::new(steps).await;
        let remote = played.remote(|_| {});
        let outcome = remote.fetch(&DocumentPath::by_group(TEAM)).await;
        let heard = played.heard();
        if (told(&outcome), heard.len()) != (expected, requests) {
            faults.push(format!("{name}: {} after {} requests", told(&outcome), heard.len()));
        }
        let line = "GET /services/org.openmobilealliance.groups/global/byGroupID/sip:team7@groups.ims.test HTTP/1.1\r\n";
        assert!(heard.iter().all(|head| head.starts_with(line)), "{name}: {heard:?}");
        let up = Source::health(&remote).up;
        if (up == Some(true)) != (expected != "unavailable") {
            faults.push(format!("{name}: the XDMS is shown as {up:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Nobody listens: asked twice and no more.
///
/// Proves XD-007, XD-012.
#[tokio::test]
async fn nobody_there_is_an_outage() {
    struct Refusing(Mutex<usize>);
    impl Connect for Refusing {
        fn connect<'a>(&'a self, _: &'a Url, _: bool) -> Connecting<'a> {
            *self.0.lock().expect("no panic") += 1;
            Box::pin(std::future::ready(Err(std::io::ErrorKind::ConnectionRefused.into())))
        }
    }
    let connector = Arc::new(Refusing(Mutex::new(0)));
    let remote = Remote::new(settings("http://127.0.0.1:1/services"), connector.clone());
    let (outcome, seen) = trail::gathered(remote.fetch(&DocumentPath::by_group(TEAM))).await;
    assert_eq!(told(&outcome), "unavailable");
    assert_eq!(*connector.0.lock().expect("no panic"), 2);
    assert_eq!(seen.iter().filter(|one| one.answer.is_none()).count(), 2);
    let health = Source::health(&remote);
    assert_eq!(health.up, Some(false));
    assert!(health.last_error.is_some_and(|why| why.contains("cannot connect")));
}

/// Proves XD-008, XD-038, IM-088.
#[tokio::test]
async fn what_is_known_is_asked_for_with_its_tag() {
    let played =
        Played::new([group("\"g7-0041\""), plain("304 Not Modified"), group("W/\"2\"")]).await;
    let remote = played.remote(|_| {});
    let path = DocumentPath::by_group("SIP:team7@Groups.IMS.test");
    let first = remote.fetch(&path).await.expect("there").expect("a group");
    let (second, seen) = trail::gathered(remote.fetch(&path)).await;
    let second = second.expect("there").expect("a group");
    assert!(Arc::ptr_eq(&first, &second), "nothing was parsed again");
    assert_eq!(first.etag, "\"g7-0041\"");
    assert!(seen[0].answer.as_ref().is_some_and(|text| text.starts_with("HTTP/1.1 304")));
    let third = remote.fetch(&path).await.expect("there").expect("a group");
    assert_eq!(third.etag, "W/\"2\"", "opaque, as it came");
    let heard = played.heard();
    assert_eq!(
        (header(&heard[0], "If-None-Match"), header(&heard[0], "Cache-Control")),
        (None, None)
    );
    for again in &heard[1..] {
        assert_eq!(header(again, "If-None-Match").as_deref(), Some("\"g7-0041\""));
        assert_eq!(header(again, "Cache-Control").as_deref(), Some("no-cache"));
    }
    for head in &heard {
        assert_eq!(header(head, "Accept").as_deref(), Some(GROUP_TYPE));
        assert!(header(head, "User-Agent").is_some_and(|agent| agent.starts_with("XDM-client/")));
        assert!(head.contains("/byGroupID/sip:team7@groups.ims.test "), "{head}");
    }
}

/// An outage is bridged for a time; that a document is gone, or not for us, is none.
///
/// Proves XD-007, XD-039.
#[tokio::test]
async fn an_older_document_bridges_an_outage_only() {
    let hour = |settings: &mut Settings| settings.times.stale = Duration::from_secs(3600);
    let failures = [
        ("500", plain("500 Internal Server Error")),
        ("401", plain("401 Unauthorized")),
        ("text/html", say("200 OK", &[("Content-Type", "text/html")], GROUP)),
        ("bad XML", say("200 OK", &[("Content-Type", GROUP_TYPE)], "<group")),
        ("closed", Step::Close),
        ("silent", Step::Stall(Vec::new())),
    ];
    let path = DocumentPath::by_group(TEAM);
    for (name, failure) in failures {
        let played = Played::new([group("\"1\""), failure, plain("304 Not Modified")]).await;
        // A connection that waited and is closed is tried anew; then the script is at its end.
        if name == "closed" {
            played.steps.lock().expect("no panic").truncate(2);
        }
        let remote = played.remote(hour);
        assert_eq!(told(&remote.fetch(&path).await), "document");
        assert_eq!(told(&remote.fetch(&path).await), "document", "{name}");
        assert_eq!(Source::health(&remote).up, Some(false), "{name}");
        // Without the time for it there is nothing.
        let played = Played::new([group("\"1\""), plain("500 x")]).await;
        let remote = played.remote(|_| {});
        assert_eq!(told(&remote.fetch(&path).await), "document");
        assert_eq!(told(&remote.fetch(&path).await), "unavailable", "{name}");
    }
    for (status, first) in
        [("404 Not Found", "none"), ("410 Gone", "none"), ("403 Forbidden", "unavailable")]
    {
        let played = Played::new([group("\"1\""), plain(status), plain("500 x")]).await;
        let remote = played.remote(hour);
        assert_eq!(told(&remote.fetch(&path).await), "document");
        assert_eq!(told(&remote.fetch(&path).await), first, "{status}");
        assert_eq!(told(&remote.fetch(&path).await), "unavailable", "{status}: it is forgotten");
        assert_eq!(header(&played.heard()[2], "If-None-Match"), None);
    }
}

/// Proves XD-012.
#[tokio::test]
async fn many_who_want_one_document_ask_once() {
    let played = Played::new([group("\"1\"")]).await;
    let remote = Arc::new(played.remote(|settings| settings.times.ttl = Duration::from_secs(60)));
    let path = DocumentPath::by_group(TEAM);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (remote, path) = (Arc::clone(&remote), path.clone());
            tokio::spawn(async move { remote.fetch(&path).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(told(&task.await.expect("no panic")), "document");
    }
    assert_eq!(played.heard().len(), 1);
}

/// Proves XD-007.
#[tokio::test]
async fn redirections_end_after_two_hops_and_stay_where_they_may() {
    let to = |place: &str| say("302 Found", &[("Location", place)], "");
    let path = DocumentPath::by_group(TEAM);
    let cases: Vec<(Vec<Step>, &str, usize)> = vec![
        (vec![to("/a"), group("\"1\"")], "document", 2),
        (vec![to("/a"), to("/b"), group("\"1\"")], "document", 3),
        (vec![to("/a"), to("/b"), to("/c"), group("\"1\"")], "unavailable", 3),
        (vec![to("/a"), to("/a"), to("/a"), to("/a")], "unavailable", 3),
        (vec![to("http://127.0.0.1:1/a"), group("\"1\"")], "unavailable", 1),
        (vec![to("https://elsewhere.test/a"), group("\"1\"")], "unavailable", 1),
        (vec![to("ftp://elsewhere.test/a")], "unavailable", 1),
        (vec![to("a b")], "unavailable", 1),
    ];
    for (steps, expected, requests) in cases {
        let played = Played::new(steps).await;
        let outcome = played.remote(|_| {}).fetch(&path).await;
        assert_eq!((told(&outcome), played.heard().len()), (expected, requests));
    }
}

/// Proves XD-013, XD-014.
#[tokio::test]
async fn who_asks_is_said_in_one_header_and_inside_the_trust_domain_only() {
    let (gpp, oma) = ("X-3GPP-Asserted-Identity", "X-XCAP-Asserted-Identity");
    let identity = Some("\"sip:as1@ims.test\"".to_owned());
    let cases = [
        (AssertedHeader::Gpp, true, identity.clone(), None),
        (AssertedHeader::Oma, true, None, identity),
        (AssertedHeader::Gpp, false, None, None),
        (AssertedHeader::Oma, false, None, None),
    ];
    for (asserted_header, trusted, with_gpp, with_oma) in cases {
        let played = Played::new([group("\"1\"")]).await;
        let remote = played.remote(|settings| {
            settings.http.asserted_header = asserted_header;
            if !trusted {
                settings.http.trusted = vec!["10.0.0.0/8".parse().expect("a network")];
            }
        });
        remote.fetch(&DocumentPath::by_group(TEAM)).await.expect("there");
        let head = &played.heard()[0];
        assert_eq!((header(head, gpp), header(head, oma)), (with_gpp, with_oma));
        assert_eq!(header(head, "X-3GPP-Intended-Identity"), None);
        assert_eq!(header(head, "Accept-Encoding").as_deref(), Some("identity"));
    }
}

/// Proves XD-015.
#[tokio::test]
async fn a_challenge_without_tls_is_not_answered() {
    for challenge in ["Basic realm=\"xdms\"", "Digest realm=\"xdms\", nonce=\"n\", qop=\"auth\""] {
        let asked = say("401 Unauthorized", &[("WWW-Authenticate", challenge)], "");
        let played = Played::new([asked, group("\"1\"")]).await;
        let remote = played.remote(|settings| {
            settings.http.account =
                Some(http::Account { user: "as1".into(), password: "sesame".into(), basic: true });
        });
        assert_eq!(told(&remote.fetch(&DocumentPath::by_group(TEAM)).await), "unavailable");
        let heard = played.heard();
        assert_eq!(heard.len(), 1);
        assert_eq!(header(&heard[0], "Authorization"), None);
    }
}

/// Over TLS: Digest is answered and its nonce used again, Basic only where it is wanted; a certificate of another host is
/// none; and who shows one of its own says who it is.
///
/// Proves XD-013, XD-015.
#[tokio::test]
async fn a_challenge_over_tls_is_answered() {
    let random = getrandom::u64().expect("random bytes");
    let folder = std::env::temp_dir().join(format!("pagecast-xdms-{random:016x}"));
    std::fs::create_dir(&folder).expect("a folder");
    let path = DocumentPath::by_group(TEAM);
    let asked = |challenge: &str| say("401 Unauthorized", &[("WWW-Authenticate", challenge)], "");
    let account =
        |basic| Some(http::Account { user: "as1".into(), password: "sesame".into(), basic });
    let remote = async |played: &Played, host: &str, own: bool, account: Option<http::Account>| {
        let file = |name: &str| folder.join(name);
        let own = own.then(|| (file("own.pem"), file("own.key")));
        let tls = Material::load(&Files { ca: file("ca.pem"), own }).expect("good files");
        let mut settings = settings(&format!("https://{host}:{}/services", played.at.port()));
        settings.http.trusted.clear();
        settings.http.account = account;
        settings.http.exchange = Duration::from_secs(5);
        Remote::new(settings, Arc::new(Network { tls: Some(tls), ..Network::default() }))
    };

    let challenge = "Digest realm=\"xdms\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"";
    let steps = [asked(challenge), group("\"1\""), plain("304 Not Modified")];
    let played = Played::secure(steps, &folder).await;
    let one = remote(&played, "127.0.0.1", false, account(false)).await;
    assert_eq!(told(&one.fetch(&path).await), "document", "{:?}", Source::health(&one));
    assert_eq!(told(&one.fetch(&path).await), "document");
    let heard = played.heard();
    assert_eq!((heard.len(), header(&heard[0], "Authorization")), (3, None));
    let ha1 = Ha1::of(Algorithm::Sha256, "as1", "xdms", b"sesame");
    for (count, head) in [(1, &heard[1]), (2, &heard[2])] {
        let value = header(head, "Authorization").expect("credentials");
        let proof = Credentials::read(value.as_bytes()).expect("Digest");
        assert!(proof.answers(Algorithm::Sha256, &ha1, "GET"), "{value}");
        assert_eq!(
            (proof.count(), proof.uri.as_str()),
            (Some(count), head.split(' ').nth(1).expect("a target"))
        );
        assert_eq!(header(head, "X-3GPP-Asserted-Identity"), None, "nobody knows it is us");
    }

    // Wrong once is wrong.
    let played =
        Played::secure([asked(challenge), asked(challenge), group("\"1\"")], &folder).await;
    let one = remote(&played, "127.0.0.1", false, account(false)).await;
    assert_eq!((told(&one.fetch(&path).await), played.heard().len()), ("unavailable", 2));

    // Basic only where it is wanted.
    for (basic, expected) in [(false, "unavailable"), (true, "document")] {
        let steps = if basic { vec![group("\"1\"")] } else { vec![asked("Basic realm=\"xdms\"")] };
        let played = Played::secure(steps, &folder).await;
        let one = remote(&played, "127.0.0.1", false, account(basic)).await;
        assert_eq!(told(&one.fetch(&path).await), expected);
        let sent = header(&played.heard()[0], "Authorization");
        assert_eq!(sent, basic.then(|| "Basic YXMxOnNlc2FtZQ==".to_owned()));
    }

    let played = Played::secure([group("\"1\"")], &folder).await;
    let one = remote(&played, "127.0.0.1", true, None).await;
    assert_eq!(told(&one.fetch(&path).await), "document");
    let said = header(&played.heard()[0], "X-3GPP-Asserted-Identity");
    assert_eq!(said.as_deref(), Some("\"sip:as1@ims.test\""));

    // The certificate is for the address, not for this name of it.
    let played = Played::secure([group("\"1\"")], &folder).await;
    let one = remote(&played, "localhost", true, account(true)).await;
    assert_eq!((told(&one.fetch(&path).await), played.heard().len()), ("unavailable", 0));
    std::fs::remove_dir_all(&folder).expect("our own folder");
}

/// A group of an XDMS elsewhere, asked for by its resolver.
async fn page(source: Arc<dyn Source>, root: &str) -> Result<Vec<String>, Refusal> {
    let party = |uri: &str| Party { uri: uri.into(), key: uri.into(), display: None };
    let settings = xdms::Settings {
        root: root.to_owned(),
        home_domains: vec!["ims.test".into()],
        group_domains: vec!["groups.ims.test".into()],
        ..xdms::Settings::default()
    };
    let query = Query {
        target: Target::Group(party(TEAM)),
        identities: vec![party("sip:bob@ims.test")],
        names: Vec::new(),
        anonymous: false,
        now: tokio::time::Instant::now().into_std(),
        time: std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let audience = Resolver::new(settings, source).resolve(query).await?;
    Ok(audience.recipients.iter().map(|one| one.party.uri.to_string()).collect())
}

/// Whatever a user writes into a list, nothing is connected to but our own XDMS and what is named.
///
/// Proves XD-024.
#[tokio::test]
async fn references_of_users_lead_nowhere_else() {
    struct Counting(Network, Mutex<Vec<String>>);
    impl Connect for Counting {
        fn connect<'a>(&'a self, to: &'a Url, guarded: bool) -> Connecting<'a> {
            self.1.lock().expect("no panic").push(to.to_string());
            self.0.connect(to, guarded)
        }
    }
    let start = GROUP.find("<external").expect("a reference");
    let end = start + GROUP[start..].find("/>").expect("its end") + 2;
    for (anchor, allowed, connects) in [
        ("http://169.254.169.254/latest/~~/resource-lists/list", &[][..], 0),
        ("http://lists.test/x/~~/resource-lists/list", &["lists.test"][..], 0),
        ("https://lists.test/x/~~/resource-lists/list", &["other.test"][..], 0),
        ("https://127.0.0.1/x/~~/resource-lists/list", &[][..], 0),
        ("file:///etc/hostname", &[][..], 0),
        // Named, and yet not public: the name leads to loopback.
        ("https://localhost/x/~~/resource-lists/list", &["localhost"][..], 2),
    ] {
        let document =
            format!("{}<external anchor=\"{anchor}\"/>{}", &GROUP[..start], &GROUP[end..]);
        let kind = [("Content-Type", GROUP_TYPE), ("ETag", "\"1\"")];
        let played = Played::new([say("200 OK", &kind, &document)]).await;
        let mut settings = played.settings();
        settings.http.allowed_hosts = allowed.iter().map(|host| (*host).to_owned()).collect();
        let counting = Arc::new(Counting(Network::default(), Mutex::default()));
        let root = settings.http.root.to_string();
        let remote = Arc::new(Remote::new(settings, Arc::clone(&counting) as Arc<dyn Connect>));
        let refusal = page(remote, &root).await.expect_err("no whole group");
        assert_eq!((refusal.status, refusal.retry_after.is_some()), (480, true), "{anchor}");
        let connected = counting.1.lock().expect("no panic").clone();
        let strange = connected.iter().filter(|url| !url.starts_with(&root)).count();
        assert_eq!(strange, connects, "{anchor}: {connected:?}");
    }
}

/// References are fetched four at a time, and each document once.
///
/// Proves XD-024.
#[tokio::test(start_paused = true)]
async fn four_references_are_followed_at_a_time() {
    #[derive(Default)]
    struct Slow {
        now: Mutex<usize>,
        most: Mutex<usize>,
        asked: Mutex<Vec<String>>,
    }
    impl Source for Slow {
        fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
            Box::pin(async move {
                self.asked.lock().expect("no panic").push(path.to_string());
                let now = {
                    let mut now = self.now.lock().expect("no panic");
                    *now += 1;
                    *now
                };
                let most = now.max(*self.most.lock().expect("no panic"));
                *self.most.lock().expect("no panic") = most;
                tokio::time::sleep(Duration::from_secs(1)).await;
                *self.now.lock().expect("no panic") -= 1;
                let text = if path.group_identity().is_some() {
                    let external = |n| {
                        format!(
                            "<external anchor=\"http://h/r/resource-lists/users/sip:u{n}@ims.test/index/~~/resource-lists/list\"/>"
                        )
                    };
                    let all: String = (0..10).chain([3]).map(external).collect();
                    GROUP
                        .replace("<list>", &format!("<list>{all}"))
                        .replace("<external anchor=\"http://127", "<other anchor=\"http://127")
                } else {
                    "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:x@ims.test\"/></list></resource-lists>".to_owned()
                };
                let group = path.group_identity().and_then(|_| Group::parse(text.as_bytes()).ok());
                Ok(Some(Arc::new(Document {
                    path: path.clone(),
                    etag: "\"1\"".into(),
                    content_type: GROUP_TYPE,
                    bytes: Bytes::from(text),
                    group: group.map(Arc::new),
                })))
            })
        }
    }
    let slow = Arc::new(Slow::default());
    let began = tokio::time::Instant::now();
    // Ten seconds one after the other, which is longer than the whole may take (XD-012).
    let got = page(Arc::clone(&slow) as Arc<dyn Source>, "http://h/r").await;
    assert!(got.is_ok_and(|got| got.contains(&"sip:x@ims.test".to_owned())));
    assert_eq!(began.elapsed(), Duration::from_secs(4), "the group, and ten lists four at a time");
    assert_eq!(*slow.most.lock().expect("no panic"), 4);
    assert_eq!(slow.asked.lock().expect("no panic").len(), 11, "each once");
}

/// What is written is written again only under a condition.
///
/// Proves XD-009, XD-012.
#[tokio::test]
async fn only_conditional_writes_are_repeated() {
    let write = |method: Method, url: &Url, condition| Outgoing {
        method,
        condition,
        body: Some((GROUP_TYPE, Bytes::from_static(GROUP.as_bytes()))),
        ..Outgoing::get(url.clone(), None)
    };
    let tag = |name| Some((name, "\"1\"".to_owned()));
    for (method, condition, requests) in [
        (Method::PUT, None, 1),
        (Method::DELETE, None, 1),
        (Method::PUT, tag(IF_MATCH), 2),
        (Method::PUT, tag(IF_NONE_MATCH), 2),
        (Method::DELETE, tag(IF_MATCH), 2),
    ] {
        let played = Played::new([plain("503 x"), plain("200 OK")]).await;
        let http = Http::new(played.settings().http, Arc::new(Network::default()));
        let url = http.settings().root.below("/x/users/a/b").expect("a place");
        let outgoing = write(method.clone(), &url, condition);
        let answer = http.send(outgoing, &mut Vec::new()).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), if requests == 2 { 200 } else { 503 });
        assert_eq!(played.heard().len(), requests, "{method}");
    }
}

/// Proves XD-003.
#[tokio::test]
async fn the_older_place_is_asked_for_only_where_it_is_wanted() {
    let path = DocumentPath::by_group(TEAM);
    let played = Played::new([plain("404 Not Found"), group("\"1\"")]).await;
    assert_eq!(told(&played.remote(|_| {}).fetch(&path).await), "none");
    assert_eq!(played.heard().len(), 1);
    let played = Played::new([plain("404 Not Found"), group("\"1\"")]).await;
    let remote = played.remote(|settings| {
        settings.legacy_global = true;
        settings.times.ttl = Duration::from_secs(60);
    });
    assert_eq!(told(&remote.fetch(&path).await), "document");
    assert_eq!(told(&remote.fetch(&path).await), "document");
    let heard = played.heard();
    assert_eq!(heard.len(), 2, "then it is known");
    assert!(
        heard[1].starts_with("GET /services/org.openmobilealliance.groups/global/byGroup/sip:")
    );
}

/// Proves XD-041.
#[tokio::test]
async fn notices_of_changes_are_obeyed() {
    let played = Played::new([group("\"1\""), group("\"2\"")]).await;
    let remote = played.remote(|settings| settings.times.ttl = Duration::from_secs(60));
    let mut changes = remote.changes();
    let path = DocumentPath::by_group(TEAM);
    remote.fetch(&path).await.expect("there");
    assert!(changes.has_changed().expect("it lives"));
    changes.mark_unchanged();
    let cached = remote.cached();
    assert_eq!((cached.len(), &cached[0].path, cached[0].etag.as_str()), (1, &path, "\"1\""));
    // It has this one already.
    remote.invalidate(&path, "\"1\"");
    remote.fetch(&path).await.expect("there");
    assert_eq!(played.heard().len(), 1);
    remote.invalidate(&path, "\"2\"");
    let document = remote.fetch(&path).await.expect("there").expect("a group");
    assert_eq!((document.etag.as_str(), played.heard().len()), ("\"2\"", 1));
    assert!(!changes.has_changed().expect("it lives"), "the same documents");
    remote.purge(&path);
    assert!(remote.cached().is_empty() && changes.has_changed().expect("it lives"));
    assert_eq!(told(&remote.fetch(&path).await), "unavailable", "the script is at its end");
    // What nobody has is nobody's business.
    remote.purge(&path);
    remote.invalidate(&DocumentPath::group("sip:a@ims.test", "x"), "\"1\"");
}

/// Proves XD-020.
#[tokio::test]
async fn the_usages_of_a_server_are_read() {
    let caps = "<xcap-caps xmlns=\"urn:ietf:params:xml:ns:xcap-caps\"><auids><auid> resource-lists </auid>\
                <auid>org.openmobilealliance.groups</auid></auids><extensions/><namespaces/></xcap-caps>";
    let kind = [("Content-Type", "application/xcap-caps+xml")];
    let played = Played::new([
        say("200 OK", &kind, caps),
        say("200 OK", &kind, "<other/>"),
        plain("404 Not Found"),
    ])
    .await;
    let remote = played.remote(|_| {});
    let auids = remote.capabilities().await.expect("told");
    assert_eq!(auids, ["resource-lists", "org.openmobilealliance.groups"]);
    assert!(remote.capabilities().await.is_err());
    assert!(remote.capabilities().await.is_err_and(|why| why.contains("404")));
    assert!(
        played.heard().iter().all(|head| head.starts_with("GET /services/xcap-caps/global/index "))
    );
    assert!(remote.cached().is_empty());
}

/// A list of a user is another usage with another type; a place that is none is not asked for.
///
/// Proves XD-001, XD-002, XD-006.
#[tokio::test]
async fn documents_of_users_are_found_by_their_names() {
    let lists = include_str!("data/night-shift.xml");
    let kind = [("Content-Type", "application/resource-lists+xml")];
    let played =
        Played::new([say("200 OK", &kind, lists), say("200 OK", &kind, GROUP), group("\"1\"")])
            .await;
    let remote = played.remote(|_| {});
    let path = Resource::below_root("resource-lists/users/sip:alice%40ims.test/index")
        .expect("a path")
        .document;
    assert_eq!(told(&remote.fetch(&path).await), "document");
    assert_eq!(told(&remote.fetch(&path).await), "unavailable", "another root");
    assert_eq!(told(&remote.fetch(&path).await), "unavailable", "another type");
    let line = "GET /services/resource-lists/users/sip:alice@ims.test/index HTTP/1.1";
    assert!(played.heard().iter().all(|head| head.starts_with(line)));
}
