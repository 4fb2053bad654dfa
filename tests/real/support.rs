//! `pagecast` as a process: started in a folder of its own, watched over HTTP and `/proc`, ended with the test.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pagecast::lab::core::{Core, Settings as CoreSettings};
use pagecast::lab::phone::{Behaviour, PageRequest, Phone, Recipients, Settings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut beat = interval(Duration::from_millis(25));
    let asking = async {
        loop {
            beat.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A folder that goes with its owner.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let random = getrandom::u64().expect("random bytes");
        let path = std::env::temp_dir().join(format!("pagecast-real-{random:016x}"));
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of a failed test is no second failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One run of the program; killed when dropped.
pub struct Program {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Program {
    /// Starts it in `folder`, far from any configuration of this machine.
    pub fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let number = getrandom::u64().expect("random bytes");
        let (out, err) =
            (folder.join(&format!("{number:x}.out")), folder.join(&format!("{number:x}.err")));
        let file = |path: &Path| Stdio::from(File::create(path).expect("a file"));
        let child = Command::new(env!("CARGO_BIN_EXE_pagecast"))
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("PAGECAST_CONFIG")
            .env_remove("PAGECAST_OPS_TOKEN")
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .expect("the program was built");
        Self { child, out, err }
    }

    /// One that was started another way, with its output in these files.
    pub fn of(child: Child, out: PathBuf, err: PathBuf) -> Self {
        Self { child, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Its first whole line on stdout.
    pub async fn first_line(&mut self) -> String {
        until("the first line", async || {
            if let Some((line, _)) = self.out().split_once('\n') {
                return Some(line.to_owned());
            }
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{ended:?}: {}", self.err());
            None
        })
        .await
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .expect("kill is there");
        assert!(sent.success(), "{name} was not sent");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Run {
        let status =
            until("the end of the program", async || self.child.try_wait().expect("our child"))
                .await;
        Run { status: status.code(), out: self.out(), err: self.err() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub async fn run(folder: &Folder, arguments: &[&str]) -> Run {
    Program::start(folder, arguments).ended().await
}

/// `pagecast serve` on free ports.
pub struct Server {
    pub program: Program,
    pub ready: String,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub msrp: SocketAddr,
    pub xcap: SocketAddr,
    pub ops: SocketAddr,
}

/// What makes it run on free ports with `folder` as its own.
pub fn arguments(folder: &Folder, core: &str, set: &[&str]) -> Vec<String> {
    let data = format!("node.data_dir=\"{}\"", folder.join("var").display());
    let core = format!("core.scscf=\"{core}\"");
    let fixed = [
        data.as_str(),
        core.as_str(),
        "sip.listen=[\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]",
        "msrp.listen=[\"127.0.0.1:0\"]",
        "xdms.listen=127.0.0.1:0",
        "ops.listen=127.0.0.1:0",
    ];
    fixed.iter().chain(set).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect()
}

impl Server {
    /// Starts it and waits for its `ready` line.
    pub async fn start(folder: &Folder, core: &str, set: &[&str]) -> Self {
        let mut all = vec!["serve".to_owned()];
        all.extend(arguments(folder, core, set));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Self::ready(Program::start(folder, &all)).await
    }

    /// Waits for the `ready` line of a server; a door that is closed has no address.
    pub async fn ready(mut program: Program) -> Self {
        let ready = program.first_line().await;
        let field = |name: &str| {
            let value =
                ready.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        let address = |text: &str| -> SocketAddr {
            let text = if text == "-" { "0.0.0.0:0" } else { text };
            text.parse().expect("an address")
        };
        let sip = field("sip");
        let of = |protocol: &str| {
            let door =
                sip.split(',').find_map(|door| door.strip_prefix(protocol)?.strip_prefix(':'));
            address(door.unwrap_or_else(|| panic!("no {protocol} in {ready:?}")))
        };
        let (udp, tcp) = (of("udp"), of("tcp"));
        // Of several addresses the first.
        let [msrp, ops] =
            ["msrp", "ops"].map(|name| address(field(name).split(',').next().unwrap_or_default()));
        // With an XDMS elsewhere that door is closed.
        let xcap = field("xcap");
        let xcap = address(if xcap == "-" { "0.0.0.0:0" } else { &xcap });
        Self { program, ready, udp, tcp, msrp, xcap, ops }
    }

    pub async fn get(&self, path: &str) -> Answer {
        http(self.ops, "GET", path, &[]).await
    }

    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// The sum of all samples of a family, or of those with `label`.
    pub async fn metric(&self, family: &str, label: &str) -> u64 {
        let answer = self.get("/metrics").await;
        let text = String::from_utf8(answer.body).expect("text");
        let mut found = false;
        let of_family = text.lines().filter_map(|line| line.strip_prefix(family)).filter(|rest| {
            found |= rest.starts_with(['{', ' ']);
            rest.starts_with(['{', ' ']) && rest.contains(label)
        });
        let sum =
            of_family.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        assert!(found, "no {family} in the metrics");
        sum as u64
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.program.pid()))
            .expect("the server runs");
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let value = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {line}"))
    }

    /// How many descriptors it holds.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.program.pid())).expect("the server runs").count()
    }

    /// Files below its folder of spool files.
    pub fn spooled(&self, folder: &Folder) -> usize {
        match fs::read_dir(folder.join("var/spool")) {
            Ok(files) => files.count(),
            Err(_) => 0,
        }
    }

    /// The newest page as `/api/pages/{id}` shows it, once it is over.
    pub async fn newest(&self) -> Value {
        until("the end of the newest page", async || {
            let list = self.json("/api/pages?limit=1").await;
            let page = list["pages"].get(0)?.clone();
            let over = matches!(page["state"].as_str(), Some("done" | "refused" | "deferred"));
            let id = page["id"].as_str()?.to_owned();
            if over { Some(self.json(&format!("/api/pages/{id}")).await) } else { None }
        })
        .await
    }

    /// Nothing of any page is left.
    pub async fn idle(&self) {
        let families = [
            "pagecast_legs",
            "pagecast_msrp_connections",
            "pagecast_spool_bytes",
            "pagecast_sip_transactions",
        ];
        for family in families {
            until(family, async || (self.metric(family, "").await == 0).then_some(())).await;
        }
        for state in ["resolving", "inviting", "running"] {
            let pages = self.json(&format!("/api/pages?state={state}")).await;
            assert_eq!(pages["pages"].as_array().map(Vec::len), Some(0), "{pages}");
        }
    }

    /// An idle server ends at once and well, and nothing in it has panicked.
    pub async fn ends(mut self) {
        assert_eq!(self.metric("pagecast_panics_total", "").await, 0);
        self.program.signal("TERM");
        let run = self.program.ended().await;
        assert_eq!(run.status, Some(0), "{run:?}");
        assert!(!run.err.contains("panicked"), "{}", run.err);
    }
}

/// What of a recipient of a page is expected: state, protocol and code of the cause.
pub fn result_of(page: &Value, user: &str) -> (String, String, u64) {
    let uri = format!("sip:{user}@ims.test");
    let found =
        page["recipients"].as_array().and_then(|all| all.iter().find(|r| r["uri"] == uri.as_str()));
    let found = found.unwrap_or_else(|| panic!("no {user} in {page}"));
    (
        found["state"].as_str().unwrap_or_default().to_owned(),
        found["cause"]["protocol"].as_str().unwrap_or_default().to_owned(),
        found["cause"]["code"].as_u64().unwrap_or_default(),
    )
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// One request on a connection of its own.
pub async fn http(to: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Answer {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str(&format!("Host: {to}\r\n"));
    }
    headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
    request.push_str("\r\n");
    let octets = raw(to, request.as_bytes()).await;
    let at = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&octets[..at]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: octets[at..].to_vec() }
}

/// Writes `octets`, says that this is all, and reads to the end; a reset is an end.
pub async fn pour(to: SocketAddr, octets: &[u8]) {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    // It may have heard enough before everything is written.
    let _ = stream.write_all(octets).await;
    let _ = stream.shutdown().await;
    let read = timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    let _ = read.expect("the connection ends");
}

/// Writes `octets` and reads to the end; a reset is an end.
pub async fn raw(to: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    // It may have heard enough before everything is written.
    let _ = stream.write_all(octets).await;
    let mut answer = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection ends");
    answer
}

/// A server, its core and the sender.
pub struct Net {
    pub core: Core,
    pub server: Server,
    pub alice: Phone,
    pub folder: Folder,
}

impl Net {
    /// With fast timers of SIP, and what else is set.
    pub async fn new(set: &[&str]) -> Self {
        let folder = Folder::new();
        let core = Core::start(CoreSettings::demo()).await.expect("loopback");
        let mut all = vec![
            "profile.msrp.drain_after_end=100ms",
            "profile.msrp.conn_linger=100ms",
            "profile.im.max_parallel_per_user=1000",
            "profile.im.max_rate_per_user=1000/s",
            "profile.ul.budget_per_minute=1000000",
        ];
        all.extend(set);
        let server = Server::start(&folder, &core.uri(), &all).await;
        core.serve(&format!("sip:{}", server.udp)).expect("an address");
        let alice = phone(&core, "alice", Behaviour::default()).await;
        Self { core, server, alice, folder }
    }

    pub async fn phone(&self, name: &str, behaviour: Behaviour) -> Phone {
        phone(&self.core, name, behaviour).await
    }

    /// A good page from alice reaches a new phone: the server is as well as before.
    pub async fn works(&self) {
        let name = format!("check{:08x}", getrandom::u32().expect("random bytes"));
        let phone = self.phone(&name, Behaviour::default()).await;
        let request = page(&[&name], 20_000);
        let outcome = self.alice.page(&request).await;
        assert!(outcome.succeeded(), "{outcome:?}\n{}", self.server.program.err());
        let got = timeout(LIMIT, phone.received()).await.expect("in time").expect("it runs");
        assert_eq!(got.content().expect("CPIM").1, request.body);
    }
}

/// A registered phone.
pub async fn phone(core: &Core, name: &str, behaviour: Behaviour) -> Phone {
    let settings = Settings { behaviour, ..Settings::new(&core.uri(), &user(name)) };
    Phone::start(settings).await.expect("registered")
}

pub fn user(name: &str) -> String {
    format!("sip:{name}@ims.test")
}

/// A page to a list.
pub fn page(names: &[&str], octets: usize) -> PageRequest {
    let body: Vec<u8> = (0..octets).map(|at| b'a' + (at % 26) as u8).collect();
    let entries = names.iter().map(|name| user(name)).collect();
    let to = Recipients::List { factory: "sip:pages@ims.test".to_owned(), entries };
    PageRequest { patience: Duration::from_secs(60), ..PageRequest::new(to, "text/plain", body) }
}
