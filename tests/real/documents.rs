//! The embedded XDMS of a process: killed while it writes, on a disk that is full, and as curl sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{Folder, LIMIT, Server, arguments, run, until};
use super::tls::Authority;

const LISTS: &str = "urn:ietf:params:xml:ns:resource-lists";
/// Nobody is asked there.
const NO_CORE: &str = "sip:127.0.0.1:9";
const OPERATOR: &str = "sip:operator@pagecast.invalid";

/// One request over HTTP; `None` if there was no whole answer.
async fn ask(
    server: std::net::SocketAddr,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await.ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-3GPP-Asserted-Identity: {OPERATOR}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    timeout(LIMIT, exchange).await.expect("an end in time")
}

/// What a document of lists says; `None` where there is none.
type Version = Option<u64>;

/// A document of about 40 KiB, so that writing takes a while, that says which version it is.
fn document(version: u64) -> String {
    let padding = "x".repeat(40_000);
    format!(
        "<resource-lists xmlns=\"{LISTS}\"><list><display-name>{padding}</display-name>\
         <entry uri=\"sip:v{version}@ims.test\"/></list></resource-lists>"
    )
}

fn version_of(text: &str) -> u64 {
    let tree = roxmltree::Document::parse(text).expect("a whole document");
    let entry = tree.descendants().find(|n| n.has_tag_name((LISTS, "entry")));
    let uri = entry.and_then(|entry| entry.attribute("uri")).expect("an entry");
    uri.trim_start_matches("sip:v").trim_end_matches("@ims.test").parse().expect("a version")
}

/// What a writer knows of one document: what was confirmed last, and what may or may not have happened since.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    confirmed: Version,
    open: Option<Version>,
}

fn path_of(writer: usize, name: usize) -> String {
    format!("/xcap-root/resource-lists/users/sip:w{writer}@ims.test/d{name}")
}

type Book = Arc<Mutex<BTreeMap<String, Known>>>;

/// Writes until the server is gone.
async fn writes(
    server: std::net::SocketAddr,
    writer: usize,
    first: u64,
    book: Book,
    done: Arc<AtomicUsize>,
) {
    for version in first.. {
        let path = path_of(writer, version as usize % 3);
        let known = book.lock().expect("no panic").get(&path).copied().unwrap_or_default();
        let (method, at, kind, body, next) = match (version % 5, known.confirmed) {
            (4, Some(_)) => ("DELETE", path.clone(), "", String::new(), None),
            (1 | 3, Some(_)) => (
                "PUT",
                format!("{path}/~~/resource-lists/list/entry/@uri"),
                "application/xcap-att+xml",
                format!("sip:v{version}@ims.test"),
                Some(version),
            ),
            _ => (
                "PUT",
                path.clone(),
                "application/resource-lists+xml",
                document(version),
                Some(version),
            ),
        };
        let open = Known { open: Some(next), ..known };
        book.lock().expect("no panic").insert(path.clone(), open);
        let Some((status, answer)) = ask(server, method, &at, kind, &body).await else { return };
        assert!(matches!(status, 200 | 201), "{method} {at}: {status} {answer}");
        book.lock().expect("no panic").insert(path, Known { confirmed: next, open: None });
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Killed at any instant, the server has afterwards what it confirmed, and of what it did not confirm all or nothing.
///
/// Proves XD-045.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_kill() {
    const ROUNDS: u64 = 6;
    const WRITERS: usize = 4;
    let folder = Folder::new();
    let book: Book = Arc::default();
    let mut undecided = 0;
    for round in 0..=ROUNDS {
        let mut server = Server::start(&folder, NO_CORE, &[]).await;
        let known = book.lock().expect("no panic").clone();
        for (path, known) in known {
            let (status, text) = ask(server.xcap, "GET", &path, "", "").await.expect("an answer");
            let found = (status == 200).then(|| version_of(&text));
            assert!(status == 200 || status == 404, "{path}: {status}");
            assert!(
                found == known.confirmed || Some(found) == known.open,
                "round {round}, {path}: {found:?} but {known:?}"
            );
            undecided += usize::from(known.open.is_some());
            book.lock().expect("no panic").insert(path, Known { confirmed: found, open: None });
        }
        if round == ROUNDS {
            server.ends().await;
            break;
        }
        let done = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (book, done) = (Arc::clone(&book), Arc::clone(&done));
                tokio::spawn(writes(server.xcap, n, 1 + round * 1_000_000, book, done))
            })
            .collect();
        let enough = 5 + (getrandom::u32().expect("random bytes") % 40) as usize;
        until("writes", async || (done.load(Ordering::Relaxed) >= enough).then_some(())).await;
        server.program.signal("KILL");
        server.program.ended().await;
        for writer in writers {
            writer.await.expect("no panic");
        }
    }
    eprintln!("{undecided} changes were under way when the server died");
    assert!(undecided > 0, "no kill came while somebody waited");
    let left = std::process::Command::new("find")
        .arg(folder.join("var/xdms"))
        .args(["-name", ".new-*"])
        .output();
    assert!(left.expect("find is there").stdout.is_empty(), "leftovers are taken away");
}

/// A disk that is full: writes are refused, reads go on, and what is there stays whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    let folder = Folder::new();
    let mut all = vec!["serve".to_owned()];
    all.extend(arguments(&folder, NO_CORE, &[]));
    let (out, err) = (folder.join("full.out"), folder.join("full.err"));
    let file = |path: &Path| Stdio::from(File::create(path).expect("a file"));
    // No file may have more than 600 KiB: to the server that is a disk without room.
    let child = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 1200; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_pagecast"),
        ])
        .args(&all)
        .current_dir(folder.path())
        .env_remove("PAGECAST_CONFIG")
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("sh is there");
    let server = Server::ready(super::support::Program::of(child, out, err)).await;
    let path = path_of(0, 0);
    let kind = "application/resource-lists+xml";
    let small = document(1);
    let put =
        async |text: &str| ask(server.xcap, "PUT", &path, kind, text).await.expect("an answer").0;
    assert_eq!(put(&small).await, 201);
    let pieces: String = (0..15)
        .map(|n| {
            format!("<list name=\"{n}\"><display-name>{}</display-name></list>", "y".repeat(60_000))
        })
        .collect();
    let big = format!("<resource-lists xmlns=\"{LISTS}\">{pieces}</resource-lists>");
    for _ in 0..3 {
        assert_eq!(put(&big).await, 507);
        let (status, text) = ask(server.xcap, "GET", &path, "", "").await.expect("an answer");
        assert!(status == 200 && text == small, "{status}");
    }
    assert_eq!(put(&document(2)).await, 200, "what has room is taken");
    server.ends().await;
}

fn curl(folder: &Folder, arguments: &[&str]) -> String {
    let ran = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "30"])
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .expect("curl is there");
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("UTF-8")
}

/// Status and body of the last answer curl saw.
fn last(text: &str) -> (u16, &str) {
    let start = text.rfind("HTTP/1.1 ").expect("an answer");
    let (head, body) = text[start..].split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body)
}

fn etag(text: &str) -> &str {
    let line = text.lines().find_map(|line| line.strip_prefix("etag: "));
    line.expect("a tag").trim()
}

const TEAM: &str = "sip:team@groups.ims.test";

/// A group is written, changed by its nodes and removed with nothing but curl.
///
/// Proves XD-010, XD-045.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_an_xcap_client() {
    let folder = Folder::new();
    let server = Server::start(&folder, NO_CORE, &[]).await;
    let made = run(
        &folder,
        &["group", "new", "--uri", TEAM, "--members", "sip:alice@ims.test,sip:bob@ims.test"],
    )
    .await;
    std::fs::write(folder.join("team.xml"), &made.out).expect("written");
    std::fs::write(folder.join("entry.xml"), "<entry uri=\"sip:henry@ims.test\"/>\r\n")
        .expect("written");
    let root = format!("http://{}/xcap-root/org.openmobilealliance.groups", server.xcap);
    let document = format!("{root}/users/sip:alice@ims.test/team");
    let henry =
        format!("{document}/~~/group/list-service/list/entry%5b@uri=%22sip:henry@ims.test%22%5d");
    let who = ["-H", "X-3GPP-Asserted-Identity: \"sip:alice@ims.test\""];
    let put = |kind: &str, file: &str, more: &[&str], to: &str| {
        let (kind, file) = (format!("Content-Type: {kind}"), format!("@{file}"));
        let all =
            [&who[..], &["-X", "PUT", "-H", &kind, "--data-binary", &file], more, &[to]].concat();
        curl(&folder, &all)
    };
    let created = put("application/vnd.oma.poc.groups+xml", "team.xml", &[], &document);
    assert_eq!(last(&created), (201, ""));
    let tag = format!("If-Match: {}", etag(&created));
    let inserted = put("application/xcap-el+xml", "entry.xml", &["-H", &tag], &henry);
    assert_eq!(last(&inserted), (201, ""));
    let again = put("application/xcap-el+xml", "entry.xml", &["-H", &tag], &henry);
    assert_eq!(last(&again), (412, ""));
    let get = |more: &[&str], from: &str| curl(&folder, &[&who[..], more, &[from]].concat());
    assert_eq!(last(&get(&[], &henry)), (200, "<entry uri=\"sip:henry@ims.test\"/>"));
    let view = format!("{root}/global/byGroupID/{TEAM}");
    let want = made.out.replace(
        "<entry uri=\"sip:bob@ims.test\"/>",
        "<entry uri=\"sip:bob@ims.test\"/><entry uri=\"sip:henry@ims.test\"/>",
    );
    assert_eq!(last(&get(&[], &view)), (200, want.as_str()));
    let fresh = format!("If-None-Match: {}", etag(&inserted));
    assert_eq!(last(&get(&["-H", &fresh], &view)), (304, ""));
    let gone = get(&["-X", "DELETE"], &henry);
    assert_eq!(last(&gone), (200, ""));
    assert_eq!(etag(&gone), etag(&created), "the same document has the same tag");
    assert_eq!(last(&get(&["-X", "DELETE"], &document)), (200, ""));
    assert_eq!(last(&get(&[], &view)).0, 404);
    server.ends().await;
}

/// A user without a proxy: HTTPS, Digest, and a new certificate without a restart.
///
/// Proves XD-015, XD-017.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_over_tls() {
    let folder = Folder::new();
    let first = Authority::new(folder.path());
    first.issue(folder.path(), "xdms", "xcap.ims.test");
    std::fs::rename(folder.join("ca.pem"), folder.join("first.pem")).expect("renamed");
    let users = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/users.example.toml");
    let config = format!(
        "[auth]\nrealm = \"ims.test\"\nusers = {users:?}\n[xdms]\ntrusted_proxies = []\n\
         root = \"https://127.0.0.1:0/services\"\n[xdms.server_tls]\ncertificate = \"xdms.pem\"\nkey = \"xdms.key\"\n"
    );
    std::fs::write(folder.join("pagecast.toml"), config).expect("written");
    let file = folder.join("pagecast.toml").display().to_string();
    let mut all = vec!["serve".to_owned(), "--config".to_owned(), file];
    all.extend(arguments(&folder, NO_CORE, &[]));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let server = Server::ready(super::support::Program::start(&folder, &all)).await;
    std::fs::write(
        folder.join("lists.xml"),
        format!("<resource-lists xmlns=\"{LISTS}\"><list name=\"a\"/></resource-lists>"),
    )
    .expect("written");
    let url =
        format!("https://{}/services/resource-lists/users/sip:alice@ims.test/index", server.xcap);
    let login = ["--digest", "--user", "alice@ims.test:alice-pw"];
    let put = [
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/resource-lists+xml",
        "--data-binary",
        "@lists.xml",
    ];
    let trust = |ca| ["--cacert", ca];
    let ask = |ca, more: &[&str]| curl(&folder, &[&trust(ca)[..], more, &[&url]].concat());
    assert_eq!(last(&ask("first.pem", &[])).0, 401);
    let created = ask("first.pem", &[&login[..], &put].concat());
    assert_eq!(last(&created).0, 201, "{created}");
    let node = format!("{url}/~~/resource-lists/list/@name");
    let read = curl(&folder, &[&trust("first.pem")[..], &login, &[&node]].concat());
    assert_eq!(last(&read), (200, "a"));
    let wrong = ["--digest", "--user", "alice@ims.test:guess"];
    assert_eq!(last(&ask("first.pem", &wrong)).0, 401);
    let other = ["-H", "X-3GPP-Intended-Identity: \"sip:bob@ims.test\""];
    assert_eq!(last(&ask("first.pem", &[&login[..], &other].concat())).0, 403);
    let spoofed = ["-H", "X-3GPP-Asserted-Identity: \"sip:alice@ims.test\""];
    assert_eq!(last(&ask("first.pem", &spoofed)).0, 403);

    let second = Authority::new(folder.path());
    second.issue(folder.path(), "xdms", "xcap.ims.test");
    server.program.signal("HUP");
    until("the new certificate", async || {
        let ran = Command::new("curl")
            .args(["--silent", "--output", "/dev/null", "--cacert", "ca.pem", &url])
            .current_dir(folder.path())
            .status();
        ran.expect("curl is there").success().then_some(())
    })
    .await;
    assert_eq!(last(&ask("ca.pem", &login)).0, 200, "and the document is still there");
    server.ends().await;
}
