//! The door from outside: raw requests on a real socket, answers against the interface.

use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::engine::effect::{Cause, CauseProtocol};
use crate::engine::event::Event;
use crate::engine::ids::LegId;
use crate::engine::input::Mode;
use crate::engine::party::Party;
use crate::flow::{self, Crossing, Transport};
use crate::ops::{Done, Neighbour, NeighbourState, Status, client};

/// A node that remembers what it was asked.
#[derive(Default)]
struct FakeNode {
    asked: Mutex<Vec<String>>,
    broken_configuration: Mutex<bool>,
    reasons: Mutex<Vec<&'static str>>,
}

impl FakeNode {
    fn note(&self, what: String) {
        self.asked.lock().expect("no test panics while it holds this").push(what);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no test panics while it holds this"))
    }
}

impl Control for FakeNode {
    fn status(&self) -> Status {
        Status {
            node: "as1".into(),
            profile: "3gpp".into(),
            uptime: Duration::from_secs(61),
            neighbours: vec![Neighbour {
                name: "S-CSCF".into(),
                state: NeighbourState::Down,
                address: "sip:127.0.0.1:5060".into(),
                last_error: Some("no answer".into()),
            }],
            registrations: 3,
        }
    }

    fn not_ready(&self) -> Vec<&'static str> {
        self.reasons.lock().expect("no test panics while it holds this").clone()
    }

    fn measure(&self, metrics: &Metrics) {
        metrics.spool_bytes.set(77);
    }

    fn drain(&self) -> Done<()> {
        self.note("drain".into());
        Box::pin(async {})
    }

    fn reload(&self) -> Done<Result<(), String>> {
        self.note("reload".into());
        let broken = *self.broken_configuration.lock().expect("no test panics while it holds this");
        Box::pin(async move {
            if broken { Err("pagecast.toml:3: node.nmae: no such key".into()) } else { Ok(()) }
        })
    }

    fn end_page(&self, page: PageId) -> Done<bool> {
        self.note(format!("end {page}"));
        Box::pin(async { true })
    }

    fn bar(&self, uri: &str, barred: bool) -> Done<Result<(), String>> {
        self.note(format!("bar {uri} {barred}"));
        let fine = uri.starts_with("sip:");
        Box::pin(async move { if fine { Ok(()) } else { Err("no SIP URI".into()) } })
    }

    fn set_log_level(&self, level: log::Level) -> Result<(), String> {
        self.note(format!("log {}", level.as_str()));
        Ok(())
    }
}

struct Bench {
    address: SocketAddr,
    node: Arc<FakeNode>,
}

fn running() -> PageId {
    PageId::new(0, 1)
}

fn over() -> PageId {
    PageId::new(0, 2)
}

async fn bench(token: Option<&str>) -> Bench {
    let metrics = Arc::new(Metrics::new());
    let board = Arc::new(Board::new(100, metrics.clone()));
    let flows = Arc::new(Flows::new(&flow::Settings::default()).expect("random octets"));
    let party = |uri: &str| Party { uri: uri.into(), key: uri.into(), display: None };
    let time = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    for page in [over(), running()] {
        board.on_event(
            time,
            &Event::PageArrived {
                mode: Mode::Large,
                page,
                originator: party("sip:alice@ims.test"),
                dialled: party("sip:pages@ims.test"),
                size: Some(9),
            },
        );
        let leg = LegId { page, n: 1 };
        board.on_event(time, &Event::Invited { leg, party: party("sip:bob@ims.test") });
    }
    let leg = LegId { page: over(), n: 1 };
    let cause = Cause { protocol: CauseProtocol::Sip, code: 486, text: "Busy Here".into() };
    board.on_event(time, &Event::Failed { leg, cause, octets: 0 });
    board.on_event(time, &Event::PageEnded { page: over(), delivered: 0, failed: 1, deferred: 0 });
    let crossing = Crossing {
        page: running().as_u64(),
        leg: Some(1),
        time,
        transport: Transport::Udp,
        sent: true,
        from: "as1".into(),
        to: "S-CSCF".into(),
        local: Some(([127, 0, 0, 1], 5090).into()),
        remote: Some(([127, 0, 0, 1], 5060).into()),
    };
    flows.record_sip(crossing, b"INVITE sip:bob@ims.test SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n");
    let node = Arc::new(FakeNode::default());
    let settings =
        Settings { token: token.map(str::to_owned), names: vec!["as1".into()], max_connections: 8 };
    let door = Arc::new(Door::new(settings, metrics, board, flows, node.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, door));
    Bench { address, node }
}

struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Bench {
    /// Sends a request with exactly these header lines besides `Connection: close`, and the body.
    async fn raw(&self, line: &str, headers: &[&str], body: &str) -> Got {
        let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str(&format!("\r\n{body}"));
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.expect("the door listens");
            stream.write_all(request.as_bytes()).await.expect("the door reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("the door answers");
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .expect("the door answers in time");
        let end = memchr::memmem::find(&answer, b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).expect("text");
        let status = head.get(9..12).and_then(|code| code.parse().ok()).expect("a status");
        Got { status, head, body: answer[end + 4..].to_vec() }
    }

    async fn get(&self, path: &str) -> Got {
        self.raw(&format!("GET {path}"), &[&format!("Host: {}", self.address)], "").await
    }

    /// A request as our own tools send it.
    async fn change(&self, line: &str, body: &str) -> Got {
        let host = format!("Host: {}", self.address);
        self.raw(line, &[&host, "X-Pagecast: 1"], body).await
    }
}

#[tokio::test]
async fn what_can_be_read_has_the_shape_of_the_interface() {
    let bench = bench(None).await;
    let live = bench.get("/live").await;
    assert_eq!(live.status, 200);
    let ready = bench.get("/ready").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
    bench.node.reasons.lock().expect("free").push("draining");
    let ready = bench.get("/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({"ready": false, "reasons": ["draining"]}))
    );
    assert_eq!(bench.get("/live").await.status, 200);

    assert_eq!(
        bench.get("/api/status").await.json(),
        json!({
            "version": env!("CARGO_PKG_VERSION"), "node": "as1", "profile": "3gpp", "uptime": 61,
            "neighbours": [{
                "name": "S-CSCF", "state": "down", "address": "sip:127.0.0.1:5060",
                "last_error": "no answer",
            }],
            "registrations": 3,
        })
    );
    let pages = bench.get("/api/pages?limit=1&state=&user=sip%3Abob%40ims.test").await.json();
    assert_eq!(pages["pages"][0]["id"], running().to_string());
    assert_eq!(pages["next"], running().to_string());
    let next = bench.get(&format!("/api/pages?before={}", running())).await.json();
    assert_eq!(next["pages"][0]["id"], over().to_string());
    assert_eq!(next["next"], serde_json::Value::Null);
    let page = bench.get(&format!("/api/pages/{}", over())).await.json();
    assert_eq!(page["state"], "done");
    assert_eq!(page["recipients"][0]["cause"]["code"], 486);

    let flow = bench.get(&format!("/api/pages/{}/flow", running())).await.json();
    assert_eq!(flow["messages"][0]["line"], "INVITE sip:bob@ims.test SIP/2.0");
    let flow = bench.get(&format!("/api/pages/{}/flow", over())).await.json();
    assert_eq!(flow, json!({"page": over().to_string(), "truncated": true, "messages": []}));
    let svg = bench.get(&format!("/api/pages/{}/flow.svg", running())).await;
    assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
    assert!(svg.body.starts_with(b"<svg "));
    let capture = bench.get(&format!("/api/pages/{}/flow.pcapng", running())).await;
    assert!(capture.body.starts_with(&0x0A0D_0D0A_u32.to_le_bytes()));

    let metrics = bench.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(metrics.body).expect("text");
    assert!(text.contains("pagecast_spool_bytes 77\n"), "gauges are measured at the scrape");
    assert!(text.contains("pagecast_panics_total 0\n"));
    let host = format!("Host: {}", bench.address);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = bench.raw("GET /metrics", &[&host, accept], "").await;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(media));
    assert!(open.body.ends_with(b"# EOF\n"));

    for path in ["/", "/console.js", "/console.css"] {
        let got = bench.get(path).await;
        assert_eq!(got.status, 200, "{path}");
        assert!(got.header("content-security-policy").is_some_and(|p| p.contains("'none'")));
    }
    let head = bench.raw("HEAD /api/pages", &[&host], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn unknown_things_and_wrong_methods_are_told_apart() {
    let bench = bench(None).await;
    let unknown = PageId::new(9, 9);
    let cases: &[(&str, u16)] = &[
        ("GET /nothing", 404),
        ("GET /api", 404),
        ("GET /api/pages/", 404),
        ("GET /api/pages/77", 404),
        (&format!("GET /api/pages/{unknown}"), 404),
        (&format!("GET /api/pages/{unknown}/flow"), 404),
        (&format!("GET /api/pages/{unknown}/flow.svg"), 404),
        (&format!("GET /api/pages/{unknown}/flow.pcapng"), 404),
        (&format!("POST /admin/pages/{unknown}/end"), 404),
        (&format!("POST /admin/pages/{}/end", over()), 409),
        ("PUT /admin/barred/", 404),
        ("PUT /admin/barred/%zz", 404),
        ("PUT /admin/barred/sip:x%0d%0ay", 404),
        ("PUT /admin/barred/mallory", 422),
        ("GET /admin/drain", 405),
        ("PUT /admin/drain", 405),
        ("GET /admin/log", 405),
        ("POST /admin/barred/sip:m@ims.test", 405),
        ("POST /api/pages", 405),
        ("DELETE /metrics", 405),
        ("POST /", 405),
        ("GET /api/pages?state=asleep", 400),
        ("GET /api/pages?limit=many", 400),
        ("GET /api/pages?before=1", 400),
        ("GET /api/pages?sort=up", 400),
        ("GET /api/pages?limit=100000", 200),
    ];
    for (line, status) in cases {
        let got = bench.change(line, "").await;
        assert_eq!(got.status, *status, "{line}: {}", String::from_utf8_lossy(&got.body));
        if *status == 405 {
            assert!(got.header("allow").is_some(), "{line}");
        }
    }
}

#[tokio::test]
async fn what_changes_something_is_done_by_the_node() {
    let bench = bench(None).await;
    let cases: &[(&str, &str, u16, &str)] = &[
        ("POST /admin/drain", "", 202, "drain"),
        ("POST /admin/reload", "", 200, "reload"),
        (&format!("POST /admin/pages/{}/end", running()), "", 200, &format!("end {}", running())),
        ("PUT /admin/barred/sip%3Amallory%40ims.test", "", 200, "bar sip:mallory@ims.test true"),
        ("DELETE /admin/barred/sip:mallory@ims.test", "", 200, "bar sip:mallory@ims.test false"),
        ("PUT /admin/log", "{\"level\":\"debug\"}", 200, "log debug"),
        ("PUT /admin/log", "\"warn\"", 200, "log warn"),
        ("PUT /admin/log", "trace\n", 200, "log trace"),
    ];
    for (line, body, status, asked) in cases {
        let got = bench.change(line, body).await;
        assert_eq!(got.status, *status, "{line}");
        assert_eq!(bench.node.asked(), [*asked], "{line}");
    }
    for body in ["loud", "{\"level\":7}", "{}", ""] {
        assert_eq!(bench.change("PUT /admin/log", body).await.status, 422, "{body}");
    }
    assert_eq!(bench.change("PUT /admin/log", &"x".repeat(BODY + 1)).await.status, 413);
    assert_eq!(bench.node.asked(), Vec::<String>::new());
    *bench.node.broken_configuration.lock().expect("free") = true;
    let got = bench.change("POST /admin/reload", "").await;
    assert_eq!(
        (got.status, got.json()),
        (422, json!({"error": "pagecast.toml:3: node.nmae: no such key"}))
    );
}

#[tokio::test]
async fn no_foreign_page_can_change_anything() {
    let bench = bench(None).await;
    let port = bench.address.port();
    let cases: &[(&[&str], u16)] = &[
        (&[&format!("Host: 127.0.0.1:{port}"), "X-Pagecast: 1"], 202),
        (&[&format!("Host: localhost:{port}"), "X-Pagecast: 1"], 202),
        (&[&format!("Host: LOCALHOST:{port}"), "x-pagecast: 1"], 202),
        (&[&format!("Host: as1:{port}"), "X-Pagecast: 1"], 202),
        (&[&format!("Host: 127.0.0.1:{port}")], 403),
        (&[&format!("Host: 127.0.0.1:{port}"), "X-Pagecast: 0"], 403),
        (&[&format!("Host: evil.example:{port}"), "X-Pagecast: 1"], 403),
        (&[&format!("Host: 127.0.0.1.evil.example:{port}"), "X-Pagecast: 1"], 403),
        (&[&format!("Host: 127.0.0.2:{port}"), "X-Pagecast: 1"], 403),
        (&["Host: 127.0.0.1:1", "X-Pagecast: 1"], 403),
        (&["Host: 127.0.0.1", "X-Pagecast: 1"], 403),
        (&["X-Pagecast: 1"], 403),
    ];
    for (headers, status) in cases {
        let got = bench.raw("POST /admin/drain", headers, "").await;
        assert_eq!(got.status, *status, "{headers:?}");
        assert_eq!(bench.node.asked().len(), usize::from(*status == 202), "{headers:?}");
    }
    let door = Door::new(
        Settings { token: None, names: Vec::new(), max_connections: 1 },
        Arc::new(Metrics::new()),
        Arc::new(Board::new(1, Arc::new(Metrics::new()))),
        Arc::new(Flows::new(&flow::Settings::default()).expect("random octets")),
        bench.node.clone(),
    );
    let v6: SocketAddr = "[::1]:80".parse().expect("an address");
    for (host, ours) in [("[::1]", true), ("[::1]:80", true), ("localhost", true), ("[::2]", false)]
    {
        assert_eq!(door.is_ours(host, v6), ours, "{host}");
    }
}

#[tokio::test]
async fn a_token_guards_what_it_should() {
    let bench = bench(Some("sesame")).await;
    let host = format!("Host: {}", bench.address);
    let with = |value: &str| format!("Authorization: {value}");
    for path in ["/live", "/ready", "/metrics", "/"] {
        assert_eq!(bench.get(path).await.status, 200, "{path}");
    }
    for path in ["/api/status", "/api/pages", &format!("/api/pages/{}/flow.pcapng", running())] {
        let got = bench.get(path).await;
        assert_eq!(got.status, 401, "{path}");
        assert_eq!(got.header("www-authenticate"), Some("Bearer realm=\"pagecast\""));
        for (value, status) in [
            ("Bearer sesame", 200),
            ("bearer sesame", 200),
            ("Bearer sesam", 401),
            ("Bearer sesame2", 401),
            ("Basic sesame", 401),
            ("sesame", 401),
            ("Bearer", 401),
        ] {
            let got = bench.raw(&format!("GET {path}"), &[&host, &with(value)], "").await;
            assert_eq!(got.status, status, "{path} with {value}");
        }
    }
    assert_eq!(bench.change("POST /admin/drain", "").await.status, 401);
    let good = with("Bearer sesame");
    assert_eq!(bench.raw("POST /admin/drain", &[&host, &good], "").await.status, 403);
    let all = [host.as_str(), good.as_str(), "X-Pagecast: 1"];
    assert_eq!(bench.raw("POST /admin/drain", &all, "").await.status, 202);
    assert_eq!(bench.node.asked(), ["drain"]);
}

#[tokio::test]
async fn the_command_line_draws_a_ladder_from_the_door() {
    let bench = bench(Some("sesame")).await;
    let ops = format!("http://{}", bench.address);
    let text = client::flow(&ops, running(), Some("sesame")).await.expect("a flow");
    assert!(text.contains("INVITE #1"), "{text}");
    let error = client::flow(&ops, PageId::new(9, 9), Some("sesame")).await.expect_err("unknown");
    assert!(matches!(error, client::ClientError::Unknown(_)), "{error}");
    let error = client::flow(&ops, running(), None).await.expect_err("no token");
    assert!(matches!(error, client::ClientError::Token), "{error}");
    for url in ["127.0.0.1:9464", "https://127.0.0.1", "http://", "http://x/y"] {
        let error = client::flow(url, running(), None).await.expect_err(url);
        assert!(matches!(error, client::ClientError::Url(_)), "{url}: {error}");
    }
}

/// More connections than there are places wait, and are served when one is free.
#[tokio::test]
async fn connections_have_a_bound() {
    let bench = bench(None).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(bench.address).await.expect("the door listens");
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the door reads");
        let mut first = [0u8; 12];
        stream.read_exact(&mut first).await.expect("the door answers");
        assert_eq!(&first, b"HTTP/1.1 200");
        idle.push(stream);
    }
    let mut waiting = TcpStream::connect(bench.address).await.expect("the backlog takes it");
    waiting.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the kernel takes it");
    let mut first = [0u8; 12];
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.read_exact(&mut first));
    assert!(early.await.is_err(), "no place is free");
    drop(idle.pop());
    let later = tokio::time::timeout(Duration::from_secs(20), waiting.read_exact(&mut first));
    later.await.expect("a place is free").expect("the door answers");
    assert_eq!(&first, b"HTTP/1.1 200");
}
