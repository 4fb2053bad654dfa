//! The embedded XDMS over HTTP on loopback, and the client that speaks to it.
//!
//! Start at [`Bench`]. Here are documents as a whole; `nodes` is about parts of them, `usages` about what each kind has to
//! be, `ut` about users who come without a proxy, and
//! `random` holds chance against the rules for changing nodes.

#[path = "xdms_server/nodes.rs"]
mod nodes;
#[path = "xdms_server/random.rs"]
mod random;
#[path = "xdms_server/usages.rs"]
mod usages;
#[path = "xdms_server/ut.rs"]
mod ut;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pagecast::xdms::client::{Client, Failure};
use pagecast::xdms::feed::Heard;
use pagecast::xdms::groups::new_document;
use pagecast::xdms::path::{DocumentPath, Resource};
use pagecast::xdms::server::{OPERATOR, Server, Settings, serve};
use pagecast::xdms::store::{Condition, Quotas, Refused, Store, Tags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const GROUP_TYPE: &str = "application/vnd.oma.poc.groups+xml";
const ALICE: &str = "sip:alice@ims.test";
const TEAM: &str = "sip:team@groups.ims.test";
const GROUPS: &str = "/xcap-root/org.openmobilealliance.groups";

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("pagecast-xcap-{}-{n}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    at: SocketAddr,
    place: Place,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Quotas::default(), |_| {}).await
    }

    async fn with(quotas: Quotas, change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(Place::new(), quotas, change).await
    }

    async fn at(place: Place, quotas: Quotas, change: impl FnOnce(&mut Settings)) -> Self {
        let store = Arc::new(Store::open(&place.0, quotas).expect("a temporary directory"));
        let mut settings = Settings {
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
            own_identities: vec!["sip:pagecast@ims.test".to_owned()],
            ..Settings::default()
        };
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("bound");
        let task = tokio::spawn(serve(listener, Arc::new(Server::new(settings, store)), None));
        Self { at, place, task }
    }

    /// One request as bytes; the answer read to the end of the connection.
    async fn raw(&self, request: &[u8]) -> Got {
        let mut stream = TcpStream::connect(self.at).await.expect("listening");
        stream.write_all(request).await.expect("written");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("answered");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
        let headers = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
            .collect();
        Got { status: status.expect("a status"), headers, body: body.to_owned() }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if method == "PUT" || !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut request = (request + "\r\n").into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    async fn get(&self, who: &str, path: &str) -> Got {
        self.send("GET", path, &[("X-3GPP-Asserted-Identity", who)], b"").await
    }

    async fn put(&self, who: &str, path: &str, body: &str) -> Got {
        let headers = [("X-3GPP-Asserted-Identity", who), ("Content-Type", GROUP_TYPE)];
        self.send("PUT", path, &headers, body.as_bytes()).await
    }
}

fn own(name: &str) -> String {
    format!("{GROUPS}/users/{ALICE}/{name}")
}

fn view(uri: &str) -> String {
    format!("{GROUPS}/global/byGroupID/{uri}")
}

fn team() -> String {
    new_document(TEAM, &[ALICE, "sip:bob@ims.test"])
}

/// Proves XD-001, XD-002, XD-046.
#[tokio::test]
async fn a_group_is_written_by_its_owner_and_found_by_its_identity() {
    let bench = Bench::new().await;
    let created = bench.put(ALICE, &own("team"), &team()).await;
    assert_eq!((created.status, created.body.as_str()), (201, ""));
    let tag = created.headers["etag"].clone();
    assert!(tag.starts_with('"') && tag.ends_with('"'));

    let found = bench.get(ALICE, &view(TEAM)).await;
    assert_eq!((found.status, found.body.as_str()), (200, team().as_str()));
    assert_eq!(found.headers["content-type"], GROUP_TYPE);
    assert_eq!(found.headers["etag"], tag);
    let spelled = bench.get(ALICE, &view("sip%3Ateam%40GROUPS.ims.test")).await;
    assert_eq!(spelled.status, 200, "%40 and @ are the same, and hosts have no case");
    let path = own("team").replace('@', "%40");
    assert_eq!(bench.get(ALICE, &path).await.body, team());

    let changed = team().replace("sip:bob@ims.test", "sip:carol@ims.test");
    let replaced = bench.put(ALICE, &own("team"), &changed).await;
    assert_eq!((replaced.status, replaced.body.as_str()), (200, ""));
    assert_ne!(replaced.headers["etag"], tag);
    assert_eq!(bench.get(ALICE, &view(TEAM)).await.body, changed, "new content at once");

    let renamed = changed.replace(TEAM, "sip:crew@groups.ims.test");
    assert_eq!(bench.put(ALICE, &own("team"), &renamed).await.status, 200);
    assert_eq!(bench.get(ALICE, &view(TEAM)).await.status, 404, "the old identity is free");
    assert_eq!(bench.get(ALICE, &view("sip:crew@groups.ims.test")).await.status, 200);

    let write = bench.put(ALICE, &view(TEAM), &team()).await;
    assert_eq!(write.status, 403, "the view is read-only");
    let who = [("X-3GPP-Asserted-Identity", ALICE)];
    let view = view("sip:crew@groups.ims.test");
    assert_eq!(bench.send("DELETE", &view, &who, b"").await.status, 403);
    assert_eq!(bench.send("DELETE", &own("team"), &who, b"").await.status, 200);
    assert_eq!(bench.get(ALICE, &view).await.status, 404);
}

/// Proves XD-009.
#[tokio::test]
async fn preconditions_are_held() {
    let bench = Bench::new().await;
    let path = own("team");
    let put = |condition: &'static str, tag: String| {
        let (bench, path) = (&bench, &path);
        async move {
            let headers = [
                ("X-3GPP-Asserted-Identity", ALICE),
                ("Content-Type", GROUP_TYPE),
                (condition, tag.as_str()),
            ];
            bench.send("PUT", path, &headers, team().as_bytes()).await
        }
    };
    assert_eq!(put("If-Match", "\"x\"".into()).await.status, 412);
    assert_eq!(put("If-Match", "*".into()).await.status, 412);
    let created = put("If-None-Match", "*".into()).await;
    assert_eq!(created.status, 201);
    let tag = created.headers["etag"].clone();
    assert_eq!(put("If-None-Match", "*".into()).await.status, 412);
    assert_eq!(put("If-Match", "\"other\"".into()).await.status, 412);
    assert_eq!(put("If-Match", format!("\"other\", {tag}")).await.status, 200);
    // Two writers that read the same version: the second one has to read again.
    let theirs = team().replace("bob", "carol");
    let with = [
        ("X-3GPP-Asserted-Identity", ALICE),
        ("Content-Type", GROUP_TYPE),
        ("If-Match", tag.as_str()),
    ];
    assert_eq!(bench.send("PUT", &path, &with, theirs.as_bytes()).await.status, 200);
    assert_eq!(put("If-Match", tag.clone()).await.status, 412);
    assert_eq!(bench.get(ALICE, &path).await.body, theirs, "no update is lost");
    let tag = bench.get(ALICE, &path).await.headers["etag"].clone();

    let get = |condition: &'static str, tag: String| {
        let (bench, path) = (&bench, &path);
        async move {
            let headers = [("X-3GPP-Asserted-Identity", ALICE), (condition, tag.as_str())];
            bench.send("GET", path, &headers, b"").await
        }
    };
    let same = get("If-None-Match", tag.clone()).await;
    assert_eq!(
        (same.status, same.body.as_str(), same.headers["etag"].as_str()),
        (304, "", tag.as_str())
    );
    assert_eq!(get("If-None-Match", "\"other\"".into()).await.status, 200);
    assert_eq!(get("If-Match", "\"other\"".into()).await.status, 412);

    let remove = [("X-3GPP-Asserted-Identity", ALICE), ("If-Match", "\"other\"")];
    assert_eq!(bench.send("DELETE", &path, &remove, b"").await.status, 412);
    let remove = [("X-3GPP-Asserted-Identity", ALICE), ("If-Match", tag.as_str())];
    assert_eq!(bench.send("DELETE", &path, &remove, b"").await.status, 200);
    assert_eq!(bench.send("DELETE", &path, &remove, b"").await.status, 404);
}

/// Proves XD-016, XD-018.
#[tokio::test]
async fn who_asks_is_said_by_trusted_proxies_and_nobody_else() {
    let bench = Bench::new().await;
    assert_eq!(bench.put(ALICE, &own("team"), &team()).await.status, 201);
    let bob = "sip:bob@ims.test";
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, &str, u16)] = &[
        ("no identity", &[], "GET", 403),
        ("empty identity", &[("X-3GPP-Asserted-Identity", "\"\"")], "GET", 403),
        ("quoted", &[("X-3GPP-Asserted-Identity", "\"sip:alice@ims.test\"")], "GET", 200),
        ("in brackets", &[("X-3GPP-Asserted-Identity", "<sip:alice@ims.test>")], "GET", 200),
        (
            "in a list",
            &[("X-3GPP-Asserted-Identity", "\"tel:+1555\", \"sip:alice@IMS.test\"")],
            "GET",
            200,
        ),
        ("the OMA header", &[("X-XCAP-Asserted-Identity", "\"sip:alice@ims.test\"")], "GET", 200),
        ("intended", &[("X-3GPP-Intended-Identity", "\"sip:alice@ims.test\"")], "GET", 200),
        (
            "intends to be another",
            &[("X-3GPP-Asserted-Identity", bob), ("X-3GPP-Intended-Identity", ALICE)],
            "GET",
            403,
        ),
        ("another user reads", &[("X-3GPP-Asserted-Identity", bob)], "GET", 403),
        ("another user removes", &[("X-3GPP-Asserted-Identity", bob)], "DELETE", 403),
        (
            "the server reads",
            &[("X-3GPP-Asserted-Identity", "\"sip:pagecast@ims.test\"")],
            "GET",
            200,
        ),
        (
            "the server does not write",
            &[("X-3GPP-Asserted-Identity", "\"sip:pagecast@ims.test\"")],
            "DELETE",
            403,
        ),
    ];
    for (name, headers, method, want) in cases {
        assert_eq!(bench.send(method, &own("team"), headers, b"").await.status, *want, "{name}");
    }
    assert_eq!(bench.get(bob, &own("nothing")).await.status, 403, "not even whether it is there");
    assert_eq!(bench.put(bob, &own("other"), &team()).await.status, 403);
    assert_eq!(bench.get(bob, &view(TEAM)).await.status, 200, "a member sees the group");
    assert_eq!(bench.get("sip:eve@ims.test", &view(TEAM)).await.status, 403);
    assert_eq!(bench.get(TEAM, &view(TEAM)).await.status, 200, "asked on behalf of the group");

    let outside = Bench::with(Quotas::default(), |s| s.trusted_proxies.clear()).await;
    assert_eq!(outside.get(ALICE, &own("team")).await.status, 403, "not from there");
    assert_eq!(outside.put(ALICE, &own("team"), &team()).await.status, 403);
}

fn conflict(got: &Got) -> String {
    assert_eq!(got.status, 409, "{}", got.body);
    assert_eq!(got.headers["content-type"], "application/xcap-error+xml");
    let document = roxmltree::Document::parse(&got.body).expect("an XCAP error is XML");
    let root = document.root_element();
    assert!(root.has_tag_name(("urn:ietf:params:xml:ns:xcap-error", "xcap-error")));
    root.first_element_child().expect("one child").tag_name().name().to_owned()
}

/// Proves XD-045.
#[tokio::test]
async fn a_document_is_checked_before_it_is_taken() {
    let bench = Bench::new().await;
    assert_eq!(bench.put(ALICE, &own("team"), &team()).await.status, 201);
    let disorder = team()
        .replace("<invite-members>true</invite-members>", "")
        .replace("<list>", "<invite-members>true</invite-members><list>");
    let twice =
        team().replace("<entry uri=\"sip:bob@ims.test\"/>", "<entry uri=\"sip:alice@ims.test\"/>");
    let cases = [
        ("<group", "not-well-formed"),
        ("<group xmlns=\"urn:oma:xml:poc:list-service\"/>", "schema-validation-error"),
        ("<group/>", "schema-validation-error"),
        (disorder.as_str(), "schema-validation-error"),
        (&team().replace(&format!(" uri=\"{TEAM}\""), ""), "schema-validation-error"),
        (twice.as_str(), "uniqueness-failure"),
        (&team().replace("UTF-8", "UTF-16"), "not-utf-8"),
    ];
    for (text, want) in cases {
        let got = bench.put(ALICE, &own("new"), text).await;
        assert_eq!(conflict(&got), want, "{text}");
        assert_eq!(bench.get(ALICE, &own("new")).await.status, 404, "nothing is kept");
    }
    let taken = bench.put(ALICE, &own("new"), &team()).await;
    assert_eq!(conflict(&taken), "uniqueness-failure");
    assert!(taken.body.contains("field=\"group/list-service/@uri\""));
    assert!(taken.body.contains("<alt-value>sip:team-2@groups.ims.test</alt-value>"));
    let bobs = format!("{GROUPS}/users/sip:bob@ims.test/mine");
    assert_eq!(
        conflict(&bench.put("sip:bob@ims.test", &bobs, &team()).await),
        "uniqueness-failure",
        "over the whole server"
    );
    assert_eq!(conflict(&bench.put(ALICE, &own("a/b"), &team()).await), "no-parent");
}

/// Proves XD-021.
#[tokio::test]
async fn lists_are_kept_too_and_siblings_are_unique() {
    let bench = Bench::with(Quotas::default(), |s| s.writes_per_minute = 100).await;
    let path = format!("/xcap-root/resource-lists/users/{ALICE}/index");
    let headers = [
        ("X-3GPP-Asserted-Identity", ALICE),
        ("Content-Type", "application/resource-lists+xml; charset=UTF-8"),
    ];
    let document = |inside: &str| {
        format!(
            "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\">{inside}</resource-lists>"
        )
    };
    let twice: &[(&str, u16)] = &[
        ("<list name='a'/><list name='a'/>", 409),
        ("<list name='a'><entry uri='sip:x@h'/><entry uri='sip:x@h'/></list>", 409),
        ("<list name='a'><entry-ref ref='x'/><entry-ref ref='x'/></list>", 409),
        ("<list name='a'><external anchor='http://h'/><external anchor='http://h'/></list>", 409),
        (
            "<list name='a'><entry uri='sip:x@h'/><list><entry uri='sip:x@h'/></list><list/></list>",
            201,
        ),
        ("<list name='a'><entry uri='sip:x@h'/><entry uri='sip:X@h'/></list>", 200),
    ];
    for (inside, status) in twice {
        let got = bench.send("PUT", &path, &headers, document(inside).as_bytes()).await;
        assert_eq!(got.status, *status, "{inside}");
        if *status == 409 {
            assert_eq!(conflict(&got), "uniqueness-failure", "{inside}");
        }
    }
    let lists = bench.get(ALICE, &path).await;
    assert_eq!(lists.headers["content-type"], "application/resource-lists+xml");
    assert_eq!(bench.get("sip:bob@ims.test", &path).await.status, 403);
}

#[tokio::test]
async fn methods_types_and_names_are_checked() {
    let bench = Bench::new().await;
    assert_eq!(bench.put(ALICE, &own("team"), &team()).await.status, 201);
    let who = ("X-3GPP-Asserted-Identity", ALICE);
    for method in ["POST", "HEAD", "PATCH", "OPTIONS"] {
        let got = bench.send(method, &own("team"), &[who], b"").await;
        assert_eq!(got.status, 405, "{method}");
        assert_eq!(got.headers["allow"], "GET, PUT, DELETE");
    }
    for path in [
        "/",
        "/xcap-root",
        "/other/x",
        "/xcap-root/unknown/users/sip:alice@ims.test/x",
        &own("none"),
        &view("sip:no@groups.ims.test"),
    ] {
        assert_eq!(bench.get(ALICE, path).await.status, 404, "{path}");
    }
    let text = [who, ("Content-Type", "text/plain")];
    assert_eq!(bench.send("PUT", &own("x"), &text, team().as_bytes()).await.status, 415);
    assert_eq!(bench.send("PUT", &own("x"), &[who], team().as_bytes()).await.status, 415);
    let packed = [who, ("Content-Type", GROUP_TYPE), ("Content-Encoding", "gzip")];
    assert_eq!(bench.send("PUT", &own("x"), &packed, b"x").await.status, 415);

    let node = own("team/~~/group/list-service/list/entry%5b@uri=%22sip:bob@ims.test%22%5d");
    let entry = bench.get(ALICE, &node).await;
    assert_eq!((entry.status, entry.body.as_str()), (200, "<entry uri=\"sip:bob@ims.test\"/>"));
    assert_eq!(entry.headers["content-type"], "application/xcap-el+xml");
    let attribute = bench.get(ALICE, &own("team/%7E%7E/group/list-service/@uri")).await;
    assert_eq!((attribute.status, attribute.body.as_str()), (200, TEAM));
    assert_eq!(attribute.headers["content-type"], "application/xcap-att+xml");
    assert_eq!(bench.get(ALICE, &own("team/~~/group/none")).await.status, 404);
    let rule = own("team/~~/group/list-service/cp:ruleset/cp:rule%5b@id=%22members%22%5d");
    assert_eq!(bench.get(ALICE, &rule).await.status, 400, "a prefix nobody declared");
    let bound = format!("{rule}?xmlns(cp=urn:ietf:params:xml:ns:common-policy)");
    let rule = bench.get(ALICE, &bound).await;
    assert!(rule.status == 200 && rule.body.starts_with("<cp:rule id=\"members\">"));
    let namespaces = bench.send("DELETE", &own("team/~~/group/namespace::*"), &[who], b"").await;
    assert_eq!((namespaces.status, namespaces.headers["allow"].as_str()), (405, "GET"));

    let caps = bench.get(ALICE, "/xcap-root/xcap-caps/global/index").await;
    assert!(caps.status == 200 && caps.body.contains("<auid>org.openmobilealliance.groups</auid>"));
}

/// Proves XD-047.
#[tokio::test]
async fn hostile_documents_are_refused_and_cost_nothing() {
    let bench = Bench::with(Quotas::default(), |s| s.writes_per_minute = 1000).await;
    let mut laughs = String::from("<!DOCTYPE g [<!ENTITY l0 \"lol\">");
    for n in 1..12 {
        laughs += &format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10));
    }
    laughs += "]><group xmlns=\"urn:oma:xml:poc:list-service\">&l11;</group>";
    let cases = [
        ("billion laughs", laughs, "not-well-formed"),
        (
            "external entity",
            "<!DOCTYPE g [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><group>&x;</group>".into(),
            "not-well-formed",
        ),
        (
            "a DTD elsewhere",
            "<!DOCTYPE g SYSTEM \"http://192.0.2.1/x.dtd\"><group/>".into(),
            "not-well-formed",
        ),
        ("deep", format!("<group>{}", "<a>".repeat(100_000)), "not-well-formed"),
        ("NUL", team().replace("members", "mem\u{0}bers"), "not-well-formed"),
        (
            "two attributes of one name",
            team().replace("<list-service ", "<list-service uri=\"x\" "),
            "not-well-formed",
        ),
        ("undeclared prefix", team().replace("cp:rule ", "zz:rule "), "not-well-formed"),
        ("too large", " ".repeat(1024 * 1024 + 1), "constraint-failure"),
    ];
    for (name, text, want) in cases {
        let got = bench.put(ALICE, &own("x"), &text).await;
        assert_eq!(conflict(&got), want, "{name}");
        assert!(!got.body.contains("root:") && !got.body.contains("lollol"), "{name}");
    }
    let latin = team().replace("team", "t\u{e9}am");
    let latin: Vec<u8> =
        latin.chars().map(|c| u8::try_from(u32::from(c)).expect("latin")).collect();
    let headers = [("X-3GPP-Asserted-Identity", ALICE), ("Content-Type", GROUP_TYPE)];
    assert_eq!(conflict(&bench.send("PUT", &own("x"), &headers, &latin).await), "not-utf-8");
    // A body that never ends is cut at the bound, whatever it claims.
    let endless = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-3GPP-Asserted-Identity: {ALICE}\r\n\
         Content-Type: {GROUP_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n",
        own("x")
    );
    let mut request = endless.into_bytes();
    for _ in 0..17 {
        request.extend_from_slice(b"10000\r\n");
        request.extend_from_slice(&vec![b' '; 0x10000]);
        request.extend_from_slice(b"\r\n");
    }
    let mut stream = TcpStream::connect(bench.at).await.expect("listening");
    let _ = stream.write_all(&request).await; // the server may close before it is all there
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 409");
}

/// Proves XD-048.
#[tokio::test]
async fn users_have_quotas() {
    let quotas = Quotas { per_user: 2, members: 3, ..Quotas::default() };
    let bench = Bench::with(quotas, |s| s.writes_per_minute = 6).await;
    let named = |n: usize| new_document(&format!("sip:g{n}@groups.ims.test"), &[ALICE]);
    assert_eq!(bench.put(ALICE, &own("g1"), &named(1)).await.status, 201);
    assert_eq!(bench.put(ALICE, &own("g2"), &named(2)).await.status, 201);
    assert_eq!(conflict(&bench.put(ALICE, &own("g3"), &named(3)).await), "constraint-failure");
    assert_eq!(
        bench.put(ALICE, &own("g2"), &named(2)).await.status,
        200,
        "replacing needs no room"
    );
    let crowd =
        new_document("sip:g2@groups.ims.test", &["sip:a@h", "sip:b@h", "sip:c@h", "sip:d@h"]);
    assert_eq!(conflict(&bench.put(ALICE, &own("g2"), &crowd).await), "constraint-failure");
    let bobs = format!("{GROUPS}/users/sip:bob@ims.test/g4");
    assert_eq!(
        bench.put("sip:bob@ims.test", &bobs, &named(4)).await.status,
        201,
        "another one's room"
    );
    assert_eq!(bench.put(ALICE, &own("g2"), &named(2)).await.status, 200);
    assert_eq!(
        bench.put(ALICE, &own("g2"), &named(2)).await.status,
        429,
        "the seventh in a minute"
    );
}

#[tokio::test]
async fn documents_survive_a_restart_and_half_written_ones_do_not() {
    let bench = Bench::new().await;
    assert_eq!(bench.put(ALICE, &own("team"), &team()).await.status, 201);
    let odd = "/xcap-root/org.openmobilealliance.groups/users/tel:+1555/..%2f..%2fetc%2fpasswd";
    let other = new_document("sip:odd@groups.ims.test", &[ALICE]);
    assert_eq!(bench.put("tel:+1555", odd, &other).await.status, 201);
    let tag = bench.get(ALICE, &own("team")).await.headers["etag"].clone();
    let directory = bench.place.0.clone();
    let users = directory.join("org.openmobilealliance.groups/users");
    std::fs::write(users.join(ALICE).join(".new-crew"), "<group").expect("written");
    assert!(std::fs::read_dir(&users).expect("there").count() == 2, "nothing escaped the tree");

    bench.task.abort();
    let place = Place(directory.clone());
    let again = Bench::at(place, Quotas::default(), |_| {}).await;
    let found = again.get(ALICE, &view(TEAM)).await;
    assert_eq!((found.status, found.body, found.headers["etag"].clone()), (200, team(), tag));
    assert_eq!(again.get("tel:+1555", odd).await.status, 200);
    assert!(!users.join(ALICE).join(".new-crew").exists());
}

#[test]
fn shipped_documents_are_taken_over_once() {
    let (from, to) = (Place::new(), Place::new());
    let tree = from.0.join("org.openmobilealliance.groups");
    let write = |path: &str, text: &str| {
        let file = tree.join(path);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(file, text).expect("written");
    };
    write("users/sip:alice@ims.test/team", &team());
    write(
        "users/sip%3Abob%40ims.test/crew.xml",
        &new_document("sip:crew@groups.ims.test", &[ALICE]),
    );
    write(
        "global/byGroupID/sip:view@groups.ims.test",
        &new_document("sip:view@groups.ims.test", &[ALICE]),
    );
    write("users/sip:alice@ims.test/broken", "<group");
    let store = Store::open(&to.0, Quotas::default()).expect("opened");
    let (taken, refused) = store.import(&from.0, "sip:pagecast@ims.test").expect("readable");
    assert_eq!((taken, refused.len()), (3, 1), "{refused:?}");
    assert!(refused[0].0.ends_with("broken"));
    for group in [TEAM, "sip:crew@groups.ims.test", "sip:view@groups.ims.test"] {
        assert!(store.get(&DocumentPath::by_group(group)).is_some(), "{group}");
    }
    let changed = team().replace("sip:bob@ims.test", "sip:carol@ims.test");
    let path = DocumentPath::group(ALICE, "team");
    store.put(&path, Bytes::from(changed.clone()), &Condition::default()).expect("valid");
    assert_eq!(store.import(&from.0, "sip:pagecast@ims.test").expect("readable").0, 0);
    assert_eq!(store.get(&path).expect("there").bytes, changed, "what is there stays");
}

#[tokio::test]
async fn the_client_puts_gets_lists_and_removes() {
    let bench = Bench::new().await;
    let client = Client::new(&format!("http://{}/xcap-root/", bench.at)).expect("a root");
    let put = client.put(Bytes::from(team()), Some(ALICE)).await.expect("stored");
    assert_eq!((put.uri.as_str(), put.created, put.warning), (TEAM, true, None));
    let again = client.put(Bytes::from(team()), Some(ALICE)).await.expect("stored");
    assert!(!again.created && again.path == put.path);
    assert_eq!(client.get(TEAM, OPERATOR).await.expect("there"), team());
    let listed = client.list(OPERATOR).await.expect("listed");
    assert_eq!(listed.iter().map(|l| l.uri.as_str()).collect::<Vec<_>>(), [TEAM]);
    assert!(matches!(client.list(ALICE).await, Err(Failure::Refused { status: 403, .. })));
    client.rm(TEAM, OPERATOR).await.expect("removed");
    assert!(matches!(client.get(TEAM, OPERATOR).await, Err(Failure::Unknown(_))));
    assert!(matches!(client.rm(TEAM, OPERATOR).await, Err(Failure::Unknown(_))));

    let silent =
        team().replace("<allow-initiate-conference>true", "<allow-initiate-conference>false");
    let put = client.put(Bytes::from(silent), None).await.expect("stored");
    assert!(put.warning.is_some_and(|w| w.contains("nobody may send")));
    let taken = client.put(Bytes::from(team()), Some(ALICE)).await;
    assert!(
        matches!(taken, Err(Failure::Refused { status: 409, phrase }) if phrase.contains("in use"))
    );
    assert!(matches!(
        client.put(Bytes::from_static(b"<x/>"), Some(ALICE)).await,
        Err(Failure::Document(_))
    ));
    for root in ["https://h/x", "h/x", "http:///x", "http://u@h/x"] {
        assert!(Client::new(root).is_err(), "{root}");
    }
}

/// Proves XD-046.
#[tokio::test]
async fn every_commit_is_told_with_its_views() {
    let store = Store::in_memory(Quotas::default());
    let mut changes = store.watch();
    let path = DocumentPath::group(ALICE, "team");
    let view = DocumentPath::by_group(TEAM);
    let put = |text: &str| {
        let bytes = Bytes::from(text.to_owned());
        store.put(&path, bytes, &Condition::default()).expect("taken").etag
    };
    let first = put(&team());
    assert_eq!(store.etag(&path), Some(first.clone()));
    assert_eq!(store.etag(&view), Some(first.clone()));
    assert!(put(&team()) == first, "the same document again is no change");
    let spelled = team().replace("groups.ims.test", "GROUPS.ims.test");
    let second = put(&spelled);
    let other = DocumentPath::by_group("sip:crew@groups.ims.test");
    let third = put(&team().replace(TEAM, "sip:crew@groups.ims.test"));
    store.delete(&path, &Condition::default()).expect("there");
    let refused = store.put(&path, Bytes::from_static(b"<group"), &Condition::default());
    assert!(refused.is_err(), "what is refused is not told");
    drop(store);
    let want: &[(&DocumentPath, Option<&str>, Option<&str>)] = &[
        (&path, None, Some(&first)),
        (&view, None, Some(&first)),
        (&path, Some(&first), Some(&second)),
        (&view, Some(&first), Some(&second)),
        (&path, Some(&second), Some(&third)),
        (&other, None, Some(&third)),
        (&view, Some(&second), None),
        (&path, Some(&third), None),
        (&other, Some(&third), None),
    ];
    for (path, before, after) in want {
        let Some(Heard::Change(change)) = changes.next().await else { panic!("{path}") };
        let told = (&change.path, change.before.as_deref(), change.after.as_deref());
        assert_eq!(told, (*path, *before, *after));
    }
    assert_eq!(changes.next().await, None);
}

#[tokio::test]
async fn a_listener_that_sleeps_is_told_so_and_holds_nobody_up() {
    let store = Store::in_memory(Quotas::default());
    let mut changes = store.watch();
    let path = DocumentPath::group(ALICE, "team");
    for n in 0..1500 {
        let text = team().replace("members\">", &format!("members{n}\">"));
        store.put(&path, Bytes::from(text), &Condition::default()).expect("taken");
    }
    assert!(matches!(changes.next().await, Some(Heard::Missed(missed)) if missed > 1000));
    assert!(matches!(changes.next().await, Some(Heard::Change(_))));
}

/// Proves XD-018.
#[test]
fn a_watcher_reads_what_a_reader_may() {
    let store = Store::in_memory(Quotas::default());
    let path = DocumentPath::group(ALICE, "team");
    store.put(&path, Bytes::from(team()), &Condition::default()).expect("taken");
    let view = DocumentPath::by_group("sip:team@GROUPS.ims.test");
    for (who, tree, global) in [
        (ALICE, true, true),
        ("sip:alice@IMS.test", true, true),
        ("sip:bob@ims.test", false, true),
        (TEAM, false, true),
        ("sip:eve@ims.test", false, false),
    ] {
        assert_eq!(store.may_read(who, &path), tree, "{who}");
        assert_eq!(store.may_read(who, &view), global, "{who}");
    }
    assert!(!store.may_read(ALICE, &DocumentPath::by_group("sip:none@groups.ims.test")));
}
