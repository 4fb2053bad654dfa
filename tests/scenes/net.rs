//! The whole node with its neighbours in the hands of a scene: start at [`Net::new`], end with [`Net::ends`].
//!
//! The S-CSCF is everybody's way in and out; whatever the node sends waits at it until somebody in the scene takes it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pagecast::config::node::NodeSettings;
use pagecast::config::{Loaded, XdmsMode};
use pagecast::engine::input::Input;
use pagecast::node::{Controls, Doorless, Shard, Watcher};
use pagecast::ops::Control as _;
use pagecast::ops::board::Query;
use pagecast::sip::message::{Limits, Message};
use pagecast::sip::resolve::{Dns, Zone};
use pagecast::sip::{Flow, Protocol};
use pagecast::xdms::groups::Group;
use pagecast::xdms::path::{DocumentPath, Resource};
use pagecast::xdms::resolver::{Fetching, Source, Unavailable};
use pagecast::xdms::store::{Document, GROUP_TYPE};
use pagecast::xdms::ut::Remote;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::callee::Callee;
use crate::caller::Caller;
use crate::elsewhere::Elsewhere;
use crate::hss::{Hss, Line};
use crate::text::{self, Invite};

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How long a scene waits for what is due at once.
pub const SOON: Duration = Duration::from_millis(200);

/// What the node sent, and when.
pub struct Heard {
    pub message: Message,
    /// Where the node sent it.
    pub to: SocketAddr,
    pub at: Instant,
}

/// Everybody the node talks SIP with, and the way to its MSRP side.
pub struct Scscf {
    unheard: Mutex<Vec<Heard>>,
    arrived: Notify,
    out: mpsc::UnboundedSender<Bytes>,
    pub control: Arc<Controls>,
    calls: AtomicUsize,
    /// Everything goes over UDP, as far as its size allows.
    udp: AtomicBool,
}

pub struct Net {
    core: Arc<Scscf>,
    pub shelf: Arc<Shelf>,
    hss: Option<Arc<Hss>>,
    /// Where documents come from in mode `ut`.
    pub elsewhere: Elsewhere,
    threads: Vec<JoinHandle<Shard>>,
    pump: JoinHandle<()>,
}

/// A folder for one scene.
pub struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody needs it; if it stays, the system clears it away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Net {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A node with these settings besides the shipped ones. Nothing touches the disk.
    pub async fn with(set: &[&str]) -> Self {
        Self::start(set, None, Zone::default(), None).await
    }

    /// A node that finds names in this zone.
    pub async fn with_zone(set: &[&str], zone: Zone) -> Self {
        Self::start(set, None, zone, None).await
    }

    /// A node that does this before the engine hears of an input: where a scene breaks things.
    pub async fn watched(by: impl FnMut(&Input) + Send + 'static) -> Self {
        Self::start(&[], None, Zone::default(), Some(Box::new(by))).await
    }

    /// A node that may spool to disk, and the folder, which goes with the scene.
    pub async fn with_disk() -> (Self, Folder) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pagecast-scenes-{}-{n}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        (Self::start(&[], Some(folder.0.clone()), Zone::default(), None).await, folder)
    }

    /// A node that has its documents from there, with these settings and what `change` makes of them.
    pub async fn reading(
        set: &[&str],
        documents: Arc<dyn Source>,
        change: impl FnOnce(&mut NodeSettings),
    ) -> Self {
        Self::start_with(set, Zone::default(), Some(documents), change, None).await
    }

    async fn start(
        set: &[&str],
        spool: Option<PathBuf>,
        zone: Zone,
        watched: Option<Watcher>,
    ) -> Self {
        let spools = |settings: &mut NodeSettings| settings.msrp.spool_dir = spool;
        Self::start_with(set, zone, None, spools, watched).await
    }

    async fn start_with(
        set: &[&str],
        zone: Zone,
        documents: Option<Arc<dyn Source>>,
        change: impl FnOnce(&mut NodeSettings),
        watched: Option<Watcher>,
    ) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
        let mut all = vec!["node.threads=1", "ops.flow_keep=none"];
        all.extend(set);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let loaded = Loaded::load_with(Some(&file), &all, &|_| None).expect("good settings");
        let mut settings = NodeSettings::new(&loaded, 1);
        settings.msrp.spool_dir = None;
        settings.flow.folder = None;
        change(&mut settings);
        let hss = settings.sh.is_some().then(Hss::new);
        let line = hss.clone().map(|hss| Arc::new(Line(hss)) as _);
        let shelf = Arc::new(Shelf::default());
        let elsewhere = Elsewhere::default();
        let documents = documents.unwrap_or_else(|| match settings.config.xdms.mode {
            XdmsMode::Embedded => Arc::clone(&shelf) as Arc<dyn Source>,
            XdmsMode::Ut => {
                let network = Arc::new(elsewhere.clone());
                Arc::new(Remote::new(settings.xdms_remote.clone(), network))
            }
        });
        let Doorless { mut shards, control, wire } =
            Doorless::with_hss(settings, documents, &Dns::Zone(zone), line).expect("a node");
        let (out, mut inward) = mpsc::unbounded_channel::<Bytes>();
        let core = Arc::new(Scscf {
            unheard: Mutex::default(),
            arrived: Notify::new(),
            out,
            control,
            calls: AtomicUsize::new(0),
            udp: AtomicBool::new(false),
        });
        let at_core = Arc::clone(&core);
        let pump = tokio::spawn(async move {
            let mut wire = wire;
            loop {
                tokio::select! {
                    bytes = inward.recv() => {
                        let Some(bytes) = bytes else { return };
                        wire.deliver(bytes, at_core.flow()).await;
                    }
                    sent = wire.sent() => {
                        let Some(sent) = sent else { return };
                        at_core.hears(sent.bytes, sent.to);
                    }
                }
            }
        });
        shards[0].watched = watched;
        let threads = shards.into_iter().map(|shard| tokio::spawn(shard.run())).collect();
        Self { core, shelf, hss, elsewhere, threads, pump }
    }

    /// The HSS, where `sh.enabled` is set.
    pub fn hss(&self) -> &Arc<Hss> {
        self.hss.as_ref().expect("sh.enabled is set")
    }

    pub fn scscf(&self) -> &Arc<Scscf> {
        &self.core
    }

    /// Lets virtual time pass.
    pub async fn after(&self, time: Duration) -> &Self {
        tokio::time::sleep(time).await;
        self
    }

    /// Nothing is left that the node sent and nobody heard.
    pub fn is_quiet(&self) -> &Self {
        assert!(self.core.lock().is_empty(), "unheard:\n{}", self.core.left());
        self
    }

    /// What operators see of the page that came last.
    pub fn page(&self) -> Value {
        let board = &self.core.control.watch().board;
        let list = board.list(&Query { limit: 1, ..Query::default() });
        let id = list["pages"][0]["id"].as_str().expect("a page was shown");
        board.page(id.parse().expect("an id")).expect("it is still shown")
    }

    /// Name and result of every recipient of that page, e.g. `bob delivered`, `carol failed SIP 486`.
    pub fn results(&self) -> Vec<String> {
        let page = self.page();
        let of = |recipient: &Value| {
            let uri = recipient["uri"].as_str().expect("a URI");
            let name = uri.trim_start_matches("sip:").split('@').next().unwrap_or(uri);
            let state = recipient["state"].as_str().expect("a state");
            match (&recipient["cause"]["protocol"], &recipient["cause"]["code"]) {
                (Value::String(protocol), code) => format!("{name} {state} {protocol} {code}"),
                _ => format!("{name} {state}"),
            }
        };
        page["recipients"].as_array().expect("recipients").iter().map(of).collect()
    }

    /// The sum of a counter over its labels.
    pub fn counted(&self, name: &str) -> usize {
        counts(&self.core.control.watch().metrics.text(), name)
    }

    /// What the switch holds now.
    pub fn switch(&self) -> pagecast::msrp::Stats {
        self.core.control.switch().stats()
    }

    /// The scene is over: nothing more is said, nothing is held, and every recipient has exactly one result.
    pub async fn ends(self) {
        // Whatever waits for a repetition of what is over waits 64 × T1 at most.
        self.after(seconds(70)).await.is_quiet();
        self.ends_somehow().await;
    }

    /// As [`Net::ends`], whatever was said and not heard.
    pub async fn ends_somehow(self) {
        self.holds_nothing();
        let Self { core, threads, pump, .. } = self;
        let control = Arc::clone(&core.control);
        pump.abort();
        let all = control.watch().board.list(&Query { limit: 1000, ..Query::default() });
        let (mut recipients, mut waiting) = (0, 0);
        for page in all["pages"].as_array().expect("pages") {
            let id = page["id"].as_str().expect("an id").parse().expect("an id");
            let detail = control.watch().board.page(id).expect("it is shown");
            for recipient in detail["recipients"].as_array().expect("recipients") {
                let state = recipient["state"].as_str().expect("a state");
                assert!(
                    ["delivered", "failed", "deferred", "removed"].contains(&state),
                    "{detail:#}"
                );
                assert!(!recipient["ended"].is_null(), "{detail:#}");
                recipients += usize::from(state != "deferred");
                waiting += usize::from(state == "deferred");
            }
        }
        control.measure(&control.watch().metrics);
        let text = control.watch().metrics.text();
        let told = counts(&text, "pagecast_recipients_total");
        let deferred = counts(&text, "pagecast_recipients_total{result=\"deferred\"");
        assert_eq!(told - deferred, recipients, "each recipient has one result");
        assert!(deferred >= waiting, "or waits for one");
        control.stop();
        for thread in threads {
            left_over(thread.await.expect("the node did not panic"));
        }
    }

    fn holds_nothing(&self) {
        let stats = self.switch();
        assert_eq!((stats.pages, stats.sessions), (0, 0), "{stats:?}");
        assert_eq!((stats.connections, stats.unbound), (0, 0), "{stats:?}");
        assert_eq!((stats.spool_octets, stats.spool_memory, stats.spool_files), (0, 0, 0));
        assert_eq!(self.core.control.watch().board.running(), 0);
    }
}

/// What one thread holds when nothing goes on: nothing.
fn left_over(mut shard: Shard) {
    let stats = shard.isc.ua().stats();
    assert_eq!((stats.client_transactions, stats.server_transactions), (0, 0), "{stats:?}");
    assert_eq!((stats.calls, stats.timers, stats.kept_bytes), (0, 0, 0), "{stats:?}");
    assert_eq!((shard.isc.pages(), shard.pages.len()), (0, 0));
    assert_eq!((shard.engine.pages(), shard.engine.timers()), (0, 0));
}

/// The sum of a counter over its labels.
fn counts(metrics: &str, name: &str) -> usize {
    let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
    metrics.lines().filter(|line| line.starts_with(name)).filter_map(value).sum()
}

impl Scscf {
    /// From now on the core speaks UDP.
    pub fn speaks_udp(&self) {
        self.udp.store(true, Ordering::Relaxed);
    }

    fn is_udp(&self) -> bool {
        self.udp.load(Ordering::Relaxed)
    }

    /// The way the core's messages come.
    fn flow(&self) -> Flow {
        let (protocol, connection) =
            if self.is_udp() { (Protocol::Udp, 0) } else { (Protocol::Tcp, 1) };
        Flow {
            protocol,
            local: "127.0.0.1:5090".parse().expect("an address"),
            peer: "127.0.0.1:5060".parse().expect("an address"),
            connection,
            vouched: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hears(&self, bytes: Bytes, to: SocketAddr) {
        let message = Message::parse(bytes, &Limits::default()).expect("the node writes SIP");
        self.lock().push(Heard { message, to, at: Instant::now() });
        self.arrived.notify_waiters();
    }

    /// Start lines of what nobody has heard yet.
    pub fn left(&self) -> String {
        let line = |heard: &Heard| {
            format!("  {} ({})\n", text::start_line(&heard.message), text::to_user(&heard.message))
        };
        self.lock().iter().map(line).collect()
    }

    pub fn delivers(&self, message: &str) {
        let over_udp;
        let message = if self.is_udp() {
            let via = "SIP/2.0/UDP 127.0.0.1:5060;rport;";
            over_udp =
                message.replace(";transport=tcp", "").replace("SIP/2.0/TCP 127.0.0.1:5060;", via);
            &over_udp
        } else {
            message
        };
        self.out.send(text::bytes(message)).expect("the node is there");
    }

    /// A new number for what must not be the same twice.
    pub fn number(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes the first message that is wanted, waiting for it.
    pub async fn hears_of(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Heard {
        let until = Instant::now() + within;
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(heard) = self.takes(&wanted) {
                return heard;
            }
            if timeout_at(until, arrived).await.is_err() {
                panic!("no {what} within {within:?}, but\n{}", self.left());
            }
        }
    }

    /// Takes whatever was said first.
    pub fn takes_any(&self) -> Option<Message> {
        self.takes(&|_| true).map(|heard| heard.message)
    }

    /// Takes the first message that is wanted, if it is here.
    pub fn takes(&self, wanted: &impl Fn(&Message) -> bool) -> Option<Heard> {
        let mut unheard = self.lock();
        let at = unheard.iter().position(|heard| wanted(&heard.message))?;
        Some(unheard.remove(at))
    }

    /// A user's INVITE comes through the core. Its 100 is here at once (IM-020).
    pub async fn sends(self: &Arc<Self>, invite: Invite) -> Caller {
        let sent = Instant::now();
        let caller = Caller::new(Arc::clone(self), invite);
        let trying = caller.hears_response("INVITE", 100, SOON).await;
        assert!(trying.at - sent <= SOON, "100 within 200 ms");
        caller
    }

    /// The next invitation to that user.
    pub async fn invites(self: &Arc<Self>, user: &str) -> Callee {
        let initial =
            |message: &Message| text::is_initial(message) && text::to_user(message) == user;
        let heard = self.hears_of(&format!("INVITE to {user}"), SOON, initial).await;
        Callee::new(Arc::clone(self), heard.message)
    }

    /// The next invitation to that user, if it is here.
    pub fn may_invite(self: &Arc<Self>, user: &str) -> Option<Callee> {
        let initial =
            |message: &Message| text::is_initial(message) && text::to_user(message) == user;
        Some(Callee::new(Arc::clone(self), self.takes(&initial)?.message))
    }

    /// Exactly so many invitations, in the order of their leaving.
    pub async fn gets_invites<const N: usize>(self: &Arc<Self>) -> [Callee; N] {
        let mut callees = Vec::new();
        for _ in 0..N {
            let heard = self.hears_of("INVITE", SOON, text::is_initial).await;
            callees.push(Callee::new(Arc::clone(self), heard.message));
        }
        self.gets_no_invite().await;
        callees.try_into().unwrap_or_else(|_| unreachable!("N were pushed"))
    }

    /// The node has nothing more to do, and no INVITE has left that nobody took.
    pub async fn gets_no_invite(&self) {
        tokio::time::sleep(millis(1)).await;
        let invite = |heard: &Heard| text::is_initial(&heard.message);
        assert!(!self.lock().iter().any(invite), "one INVITE more:\n{}", self.left());
    }
}

/// The XDMS: group documents by identity, and how often it was asked.
#[derive(Default)]
pub struct Shelf {
    groups: Mutex<HashMap<String, Arc<Document>>>,
    /// Other documents, by their place below the root.
    lists: Mutex<HashMap<String, Arc<Document>>>,
    down: Mutex<bool>,
    slow: Mutex<Duration>,
    fetches: AtomicUsize,
}

impl Shelf {
    pub fn holds(&self, text: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let group = Group::parse(&bytes).expect("a group document");
        let uri = group.services[0].uri.clone();
        let path = DocumentPath::by_group(&uri);
        let document = Document {
            path,
            etag: "\"1\"".to_owned(),
            content_type: GROUP_TYPE,
            bytes,
            group: Some(Arc::new(group)),
        };
        self.groups.lock().expect("no panic").insert(uri, Arc::new(document));
    }

    /// A document of lists at that place below the root.
    pub fn holds_lists(&self, place: &str, text: &str) {
        let path = Resource::below_root(place).expect("a place below the root").document;
        let document = Document {
            path,
            etag: "\"1\"".to_owned(),
            content_type: "application/resource-lists+xml",
            bytes: Bytes::copy_from_slice(text.as_bytes()),
            group: None,
        };
        let name = document.path.to_string();
        self.lists.lock().expect("no panic").insert(name, Arc::new(document));
    }

    /// Whoever asks waits so long for the answer.
    pub fn takes_time(&self, time: Duration) {
        *self.slow.lock().expect("no panic") = time;
    }

    pub fn is_down(&self) {
        *self.down.lock().expect("no panic") = true;
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

impl Source for Shelf {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let answer = if *self.down.lock().expect("no panic") {
            Err(Unavailable("told to fail".into()))
        } else {
            let groups = self.groups.lock().expect("no panic");
            let group = path.group_identity().and_then(|uri| groups.get(uri));
            let lists = self.lists.lock().expect("no panic");
            Ok(group.or_else(|| lists.get(&path.to_string())).cloned())
        };
        let slow = *self.slow.lock().expect("no panic");
        Box::pin(async move {
            if !slow.is_zero() {
                tokio::time::sleep(slow).await;
            }
            answer
        })
    }
}
