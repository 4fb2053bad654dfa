//! The node: opens the doors, starts one thread per core, and stops them again.
//!
//! Start at [`Node::start`]; [`Doorless`] is the same node without sockets, for tests. Each thread is a
//! [`shard::Shard`]; what watches is in [`watch`]. `media` translates what SDP agreed on for the MSRP switch. No rule is here.

mod charging;
pub mod control;
mod documents;
mod doorless;
mod hss;
mod keeping;
mod load;
mod media;
mod names;
mod shard;
mod slots;
mod watch;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch as signal};
use tokio::task::JoinSet;

use hss::{Directory, Ear, Ends, Sh};
use keeping::Keeping;
use slots::Slots;

pub use control::Controls;
use documents::Documents as Carried;
pub use doorless::Doorless;
pub use load::Load;
pub use shard::{Agenda, Left, Shard, ToShard, Watcher};
pub use watch::{Clock, Gauges, Ladder, Watch};

use self::charging::Charging;
use crate::charging::Records;
use crate::config::node::{NodeSettings, Ports};
use crate::config::{self, Source, XdmsMode};
use crate::engine::{Engine, SharedLanes, SharedUsers};
use crate::flow::Flows;
use crate::isc::login::Guard;
use crate::isc::reachable::Registration;
use crate::isc::registry::{Due, Registry};
use crate::isc::rules::own::{BadSetting, Own};
use crate::isc::{self, Isc};
use crate::msrp::{self, MediaEvent, Sink, Switch};
use crate::ops::board::Board;
use crate::ops::metrics::Metrics;
use crate::ops::{Control, NeighbourState, http, log};
use crate::sh::router::Router;
use crate::sip::resolve::Dns;
use crate::sip::transport::{Bound, Transport};
use crate::sip::ua::{RandomSource, SendKey, Ua};
use crate::sip::{Protocol, transport};
use crate::store::{self, Bounds, OpenError, Row, Store, Table};
use crate::xdms::resolver::Source as Documents;
use crate::xdms::ut::{Embedded, Remote};
use crate::xdms::{self, Resolver};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {door} {address}: {cause}")]
    Listen { door: &'static str, address: String, cause: io::Error },
    #[error("cannot use {path}: {cause}", path = path.display())]
    Data { path: PathBuf, cause: io::Error },
    #[error("cannot use the store {place}: {cause}")]
    Store { place: String, cause: OpenError },
    #[error("no certificate for MSRP: {0}")]
    Certificate(io::Error),
    #[error("no random octets: {0}")]
    Random(io::Error),
    #[error("name servers: {0}")]
    Dns(String),
    #[error("{0}")]
    Setting(#[from] BadSetting),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was left, or the time for it was over.
    Drained,
    /// Somebody could not wait.
    Interrupted,
}

/// Where a running node listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    pub sip: Vec<(Protocol, SocketAddr)>,
    pub msrp: Vec<SocketAddr>,
    /// Over TLS.
    pub msrps: Vec<SocketAddr>,
    pub xcap: Option<SocketAddr>,
    pub ops: Option<SocketAddr>,
}

/// A running server.
pub struct Node {
    doors: Doors,
    control: Arc<Controls>,
    threads: Vec<JoinHandle<()>>,
    /// Tasks of the caller's runtime: the HTTP servers and what samples the parts.
    tasks: JoinSet<()>,
    /// `node.data_dir` is ours as long as this is open.
    _data: File,
}

/// Random octets of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    fn next_u64(&mut self) -> u64 {
        getrandom::u64()
            .expect("the operating system gave random octets at start and has them ever after")
    }
}

impl Node {
    /// Opens every door, then starts serving. The HTTP servers run as tasks of the caller's runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left open.
    pub async fn start(
        mut settings: NodeSettings,
        source: Option<Source>,
        log: Option<log::Handle>,
    ) -> Result<Self, StartError> {
        getrandom::u64().map_err(|error| StartError::Random(io::Error::other(error)))?;
        let dns = Dns::system().map_err(|error| StartError::Dns(error.to_string()))?;
        let threads = usize::from(settings.threads.max(1));

        let data = take_folder(&settings.config.node.data_dir)?;
        let mut doors = Doors::default();
        let sip = open_sip(&settings.transport, threads, &dns)?;
        doors.sip = sip
            .first()
            .map(Bound::addresses)
            .transpose()
            .map_err(|cause| listen_error("SIP", "socket", cause))?
            .unwrap_or_default();
        let msrp = open_msrp(&settings.config.msrp.listen)?;
        doors.msrp = msrp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let tls = settings.config.msrp.tls.as_ref();
        let msrps = open_msrp(tls.map_or(&[][..], |tls| &tls.listen))?;
        doors.msrps = msrps.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let xcap = open_tcp("XDMS", settings.config.xdms.listen).await?;
        doors.xcap = xcap.as_ref().and_then(|listener| listener.local_addr().ok());
        let ops = open_tcp("operators", settings.config.ops.listen).await?;
        doors.ops = ops.as_ref().and_then(|listener| listener.local_addr().ok());
        let port = |at: Option<&SocketAddr>| at.map_or(0, SocketAddr::port);
        settings.bound(
            Ports {
                sip: port(doors.sip.first().map(|(_, at)| at)),
                msrp: port(doors.msrp.first()),
                msrp_also: port(of_other_kind(&doors.msrp)),
                msrp_tls: port(doors.msrps.first()),
                msrp_tls_also: port(of_other_kind(&doors.msrps)),
                xcap: port(doors.xcap.as_ref()),
            },
            &doors.sip,
        );
        if let Some(bound) = sip.first() {
            bound.tell(settings.doors.clone());
        }

        let Library { shelf, remote, documents } = open_library(&settings)?;
        let kept = open_store(&settings)?;
        let sip_address = doors.sip.first().map(|(_, at)| *at);
        let sh = start_sh(&settings).await?;
        let xdms_server = settings.xdms_server.clone();
        let (parts, control) =
            assemble(settings, threads, sip_address, documents, kept, sh, (source, log))?;

        let mut running = Vec::new();
        for (parts, bound) in parts.into_iter().zip(sip) {
            let clones = |all: &[std::net::TcpListener]| {
                let all = all.iter().map(std::net::TcpListener::try_clone);
                all.collect::<io::Result<Vec<_>>>()
                    .map_err(|cause| listen_error("MSRP", "socket", cause))
            };
            running.push(start_thread(parts, bound, clones(&msrp)?, clones(&msrps)?)?);
        }

        let mut tasks = JoinSet::new();
        if let Some(remote) = remote {
            tasks.spawn(remote.watch_capabilities());
        }
        if let (Some(listener), Some(shelf)) = (xcap, shelf) {
            let server = Arc::new(xdms::server::Server::new(xdms_server, shelf));
            control.serves_documents(Arc::clone(&server));
            let security = control.settings.xdms_tls.clone();
            let security = security.map(|tls| xdms::server::Security::new(move || tls.acceptor()));
            tasks.spawn(xdms::server::serve(listener, server, security));
        }
        if let Some(listener) = ops {
            let (metrics, board, flows) = (
                control.watch.metrics.clone(),
                control.watch.board.clone(),
                control.watch.flows.clone(),
            );
            let door = control.settings.door.clone();
            let door = http::Door::new(
                door,
                metrics,
                board,
                flows,
                Arc::clone(&control) as Arc<dyn Control>,
            );
            tasks.spawn(http::serve(listener, Arc::new(door)));
        }
        Ok(Self { doors, control, threads: running, tasks, _data: data })
    }

    /// Where it listens.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// What operators can do to it.
    pub fn control(&self) -> &Arc<Controls> {
        &self.control
    }

    /// The line that says where it listens.
    pub fn ready_line(&self) -> String {
        let list =
            |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
        let doors = &self.doors;
        let sip = doors
            .sip
            .iter()
            .map(|(protocol, at)| format!("{}:{at}", protocol.via_token().to_ascii_lowercase()));
        format!(
            "ready node={} sip={} msrp={} xcap={} ops={}",
            self.control.settings.config.node.name,
            list(sip.collect()),
            list(
                doors
                    .msrp
                    .iter()
                    .map(ToString::to_string)
                    .chain(doors.msrps.iter().map(|at| format!("tls:{at}")))
                    .collect()
            ),
            list(doors.xcap.iter().map(ToString::to_string).collect()),
            list(doors.ops.iter().map(ToString::to_string).collect()),
        )
    }

    /// Takes no new pages and waits until the running ones are over, at most `node.drain_timeout`.
    pub async fn drain(&self) {
        self.control.start_drain();
        let limit = self.control.settings.config.node.drain_timeout;
        let idle = async {
            for left in &self.control.left {
                // A thread that is gone has nothing left.
                let _ = left.clone().wait_for(|left| *left == Left::Nothing).await;
            }
        };
        if tokio::time::timeout(limit, idle).await.is_err() {
            tracing::warn!(?limit, "pages are still running; node.drain_timeout ends them");
        }
        self.control.leave_hss().await;
    }

    /// Ends every thread and task.
    pub fn stop(mut self) {
        self.tasks.abort_all();
        self.control.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the node had panicked");
            }
        }
        self.control.close_store();
    }
}

/// Makes everything that needs no socket: what each of `threads` takes along, and what operators hold.
fn assemble(
    settings: NodeSettings,
    threads: usize,
    sip_address: Option<SocketAddr>,
    documents: Arc<dyn Documents>,
    (store, rows): (Store, Vec<(Table, Row)>),
    sh: Option<(Router, Arc<Ear>)>,
    (source, log): (Option<Source>, Option<log::Handle>),
) -> Result<(Vec<Parts>, Arc<Controls>), StartError> {
    let metrics = Arc::new(Metrics::new());
    let flows = Flows::new(&settings.flow).map_err(|cause| StartError::Data {
        path: settings.flow.folder.clone().unwrap_or_default(),
        cause,
    })?;
    let watch = Arc::new(Watch {
        name: settings.config.node.name.as_str().into(),
        sip_address,
        board: Arc::new(Board::new(settings.config.ops.pages as usize, Arc::clone(&metrics))),
        gauges: (0..threads).map(|_| Gauges::default()).collect(),
        ended: signal::channel(None).0,
        core: Mutex::new((NeighbourState::Unknown, None)),
        metrics,
        flows: Arc::new(flows),
    });

    let carried = Carried::new(Arc::clone(&documents), &settings.xdms_server.own_identities);
    let metrics = Arc::clone(&watch.metrics);
    documents.hears(Arc::new(move |exchange| metrics.xdms_request(exchange.result())));
    let store = Arc::new(store);
    let metrics = Arc::clone(&watch.metrics);
    store.on_commit(move |took| metrics.store_commit_seconds(took.as_secs_f64()));
    let most = settings.config.node.max_registrations as usize;
    let registry = Arc::new(Registry::new(most, settings.isc.isc.reg_grace));
    let (subscriptions, rows): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(table, _)| *table == Table::ShSub);
    let mut restored = restore(&registry, settings.isc.ul.normalise_tel, rows);
    let sh = sh.map(|(router, ear)| {
        let ends = Ends { store: Arc::clone(&store), watch: Arc::clone(&watch) };
        let rows = subscriptions.into_iter().map(|(_, row)| row);
        Sh::start(settings.hss.clone(), router, &ear, ends, SystemRandom.next_u64(), rows)
    });
    let documents = match &sh {
        Some(sh) => Arc::new(Slots { documents, client: Arc::clone(&sh.client) }),
        None => documents,
    };
    let resolver = Arc::new(Resolver::new(settings.resolver.clone(), documents));
    resolver.set_barred(settings.isc.service.barred.iter().map(String::as_str));
    let directory = Arc::new(Directory::new(
        sh.as_ref().map(|sh| Arc::clone(&sh.client)),
        settings.profile.im.check_registration,
        settings.resolver.home_domains.clone(),
        Arc::clone(&watch),
    ));

    let (inboxes, outboxes): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let switch = Switch::new(settings.msrp.clone(), sink(inboxes.clone())).map_err(|cause| {
        StartError::Data { path: settings.msrp.spool_dir.clone().unwrap_or_default(), cause }
    })?;
    if let Some(tls) = &settings.config.msrp.tls {
        let host = &settings.msrp.tls_at.0;
        let made = msrp::tls::Tls::new(tls.material.clone(), host);
        switch.secure(made.map_err(StartError::Certificate)?);
    }
    switch.tap(Arc::clone(&watch.flows), Arc::clone(&watch.name));

    let records = match &settings.charging {
        Some(charging) => {
            let opened = Records::open(charging.clone());
            let path = charging.folder.clone();
            Some(Arc::new(opened.map_err(|cause| StartError::Data { path, cause })?))
        }
        None => None,
    };
    let guard = Guard::new(std::array::from_fn(|_| SystemRandom.next_u64()));
    let users = SharedUsers::default();
    let lanes = SharedLanes::default();
    let mut left = Vec::new();
    let mut parts = Vec::new();
    for (thread, inbox) in outboxes.into_iter().enumerate() {
        let (told, heard) = signal::channel(Left::Open);
        left.push(heard);
        parts.push(Parts {
            thread: thread as u8,
            settings: settings.clone(),
            switch: switch.clone(),
            resolver: Arc::clone(&resolver),
            documents: carried.clone(),
            directory: Arc::clone(&directory),
            watch: Arc::clone(&watch),
            inbox,
            own: inboxes[thread].clone(),
            all: inboxes.clone(),
            store: Arc::clone(&store),
            registry: Arc::clone(&registry),
            // One thread looks after what was there before; the others after what comes to them.
            restored: std::mem::take(&mut restored),
            guard: guard.clone(),
            users: users.clone(),
            lanes: lanes.clone(),
            records: records.clone(),
            left: told,
        });
    }
    let shared =
        control::Shared { switch, resolver, registry, store, sh, directory, watch, records };
    let control = Arc::new(Controls::new(settings, source, log, inboxes, left, shared));
    if let Some(identity) = control.settings.test_identity.clone() {
        let control = Arc::downgrade(&control);
        tokio::spawn(async move { control::probe_permissions(&control, &identity).await });
    }
    Ok((parts, control))
}

/// What a thread takes along.
struct Parts {
    thread: u8,
    settings: NodeSettings,
    switch: Switch,
    resolver: Arc<Resolver>,
    documents: Carried,
    directory: Arc<Directory>,
    watch: Arc<Watch>,
    inbox: mpsc::UnboundedReceiver<ToShard>,
    own: mpsc::UnboundedSender<ToShard>,
    all: Vec<mpsc::UnboundedSender<ToShard>>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    restored: Vec<(Arc<str>, Instant)>,
    guard: Guard,
    users: SharedUsers,
    lanes: SharedLanes,
    records: Option<Arc<Records>>,
    left: signal::Sender<Left>,
}

impl Parts {
    fn shard(self, transport: Transport<SendKey>) -> Result<Shard, BadSetting> {
        let ua = Ua::new(
            crate::sip::ua::Settings { thread: self.thread, ..self.settings.ua },
            SystemRandom,
        );
        let mut isc = Isc::new(self.settings.isc, ua, SystemRandom)?.guarded_by(self.guard);
        isc.share(self.registry, self.store.keeps());
        isc.look_after(self.restored);
        isc.ask_at_the_door();
        let (own, all) = (self.own.clone(), self.all.clone());
        let store = Arc::clone(&self.store);
        let who = (Arc::clone(&self.watch.name), Arc::clone(&self.watch.metrics));
        let most = self.settings.policy.deferral.max_per_user;
        Ok(Shard {
            keeping: Keeping::new(store, who, own, all, most),
            thread: self.thread,
            transport,
            limits: self.settings.transport.limits,
            isc,
            engine: Engine::sharing(self.settings.policy, self.users, self.lanes),
            switch: self.switch,
            resolver: self.resolver,
            documents: self.documents,
            directory: self.directory,
            names: names::Lookup::default(),
            store: self.store,
            inbox: self.inbox,
            own: self.own,
            all: self.all,
            charging: self.records.map(|records| Charging::new(&self.watch.name, records)),
            watch: self.watch,
            left: self.left,
            pages: HashMap::new(),
            ladder: Ladder::default(),
            over: Vec::new(),
            load: Load::new(self.settings.config.node.max_lag),
            due: Agenda::default(),
            about: None,
            message: None,
            watched: None,
        })
    }
}

fn start_thread(
    parts: Parts,
    bound: Bound<SendKey>,
    msrp: Vec<std::net::TcpListener>,
    msrps: Vec<std::net::TcpListener>,
) -> Result<JoinHandle<()>, StartError> {
    // Whatever can be wrong with the settings is found here, not inside the thread.
    Own::new(&parts.settings.isc)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let name = format!("pagecast-{}", parts.thread);
    let main = move || {
        runtime.block_on(async move {
            let switch = parts.switch.clone();
            let plain = msrp.into_iter().map(|listener| (listener, false));
            for (listener, secure) in plain.chain(msrps.into_iter().map(|one| (one, true))) {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let switch = switch.clone();
                        tokio::spawn(async move {
                            match secure {
                                true => switch.listen_secure(listener).await,
                                false => switch.listen(listener).await,
                            }
                        });
                    }
                    Err(error) => tracing::error!(%error, "an MSRP listener is lost"),
                }
            }
            let started = bound.start().map_err(|error| error.to_string());
            match started.and_then(|sip| parts.shard(sip).map_err(|error| error.to_string())) {
                Ok(shard) => drop(shard.run().await),
                Err(error) => tracing::error!(error, "a thread of the node cannot serve"),
            }
        });
    };
    std::thread::Builder::new().name(name).spawn(main).map_err(StartError::Thread)
}

/// Sends media events to the thread that owns the page.
fn sink(shards: Vec<mpsc::UnboundedSender<ToShard>>) -> Sink {
    Arc::new(move |event: MediaEvent| {
        let page = match &event {
            MediaEvent::Originator { page, .. } => *page,
            MediaEvent::Leg { leg, .. } => leg.page,
        };
        if let Some(shard) = keeping::shard_of(&shards, page) {
            // Without a receiver the thread is gone and so is the page.
            let _ = shard.send(ToShard::Media(event));
        }
    })
}

fn listen_error(door: &'static str, address: impl ToString, cause: io::Error) -> StartError {
    StartError::Listen { door, address: address.to_string(), cause }
}

fn open_sip(
    settings: &transport::Settings,
    threads: usize,
    dns: &Dns,
) -> Result<Vec<Bound<SendKey>>, StartError> {
    Transport::bind(settings, threads, dns).map_err(|cause| {
        let addresses: Vec<String> = settings
            .udp
            .iter()
            .chain(&settings.tcp)
            .chain(&settings.tls)
            .map(ToString::to_string)
            .collect();
        listen_error("SIP", addresses.join(", "), cause)
    })
}

/// The first address that is not of the first one's kind.
fn of_other_kind(all: &[SocketAddr]) -> Option<&SocketAddr> {
    all.iter().find(|at| all.first().is_some_and(|first| first.is_ipv6() != at.is_ipv6()))
}

fn open_msrp(addresses: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, StartError> {
    let open = |address: &SocketAddr| {
        let domain = socket2::Domain::for_address(*address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&(*address).into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(std::net::TcpListener::from(socket))
    };
    addresses
        .iter()
        .map(|address| open(address).map_err(|cause| listen_error("MSRP", address, cause)))
        .collect()
}

async fn open_tcp(
    door: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|cause| listen_error(door, address, cause))
}

/// Makes `node.data_dir` and takes it: a second process there would sweep away the pages of the first.
fn take_folder(folder: &Path) -> Result<File, StartError> {
    let failed = |cause| StartError::Data { path: folder.to_owned(), cause };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let lock = File::create(folder.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(failed(io::Error::other(
            "another pagecast runs there; give each its node.data_dir",
        ))),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

/// Connects to the HSS, where Sh is on.
async fn start_sh(settings: &NodeSettings) -> Result<Option<(Router, Arc<Ear>)>, StartError> {
    let Some(sh) = settings.sh.clone() else { return Ok(None) };
    let ear = Arc::new(Ear::new(&sh.origin_host, &sh.origin_realm));
    let failed = |cause| listen_error("Sh", "the doors for it", cause);
    let router = Router::start(sh, Arc::clone(&ear) as _, unix()).await.map_err(failed)?;
    Ok(Some((router, ear)))
}

/// Seconds since 1970.
fn unix() -> u64 {
    let clock = Clock { now: shard::now(), time: watch::wall_clock() };
    clock.millis(clock.now) / 1000
}

/// Opens what survives restarts.
fn open_store(settings: &NodeSettings) -> Result<(Store, Vec<(Table, Row)>), StartError> {
    let folder = &settings.config.node.data_dir;
    let clock = Clock { now: shard::now(), time: watch::wall_clock() };
    // Every identity may change while the store is down, and go as well; every subscription, and every page, too.
    let of_users = settings.config.node.max_registrations as usize + settings.hss.max_subscriptions;
    let most = 2 * (of_users + settings.config.node.max_pages as usize);
    let bounds = settings.config.store_bounds;
    let bounds = Bounds { batches: bounds.batches.max(most), ..bounds };
    let now = clock.millis(clock.now);
    match &settings.config.store {
        config::Store::Memory => Ok((Store::memory(), Vec::new())),
        config::Store::Embedded => Store::open(folder, now, bounds).map_err(|cause| {
            StartError::Store { place: folder.join(store::FILE).display().to_string(), cause }
        }),
        config::Store::Postgres(address) => Store::connect(address, now, bounds)
            .map_err(|cause| StartError::Store { place: address.to_string(), cause }),
    }
}

/// Takes back who was registered; each with the time to look at it again.
fn restore(
    registry: &Registry,
    normalise_tel: bool,
    rows: Vec<(Table, Row)>,
) -> Vec<(Arc<str>, Instant)> {
    let clock = Clock { now: shard::now(), time: watch::wall_clock() };
    let mut restored = Vec::with_capacity(rows.len());
    for (_, row) in rows {
        let age = Duration::from_millis(clock.millis(clock.now).saturating_sub(row.since));
        let keys = |registration: &Registration| isc::keys_of(normalise_tel, registration);
        match registry.restore(clock.now, keys, age, &row.value) {
            Some(taken) => match registry.due(clock.now, &taken.kept.key) {
                Due::Later(at) | Due::Lapsed(at) => restored.push((taken.kept.key, at)),
                Due::Forgotten | Due::Unknown => {}
            },
            None => tracing::warn!(user = &*row.key, "a kept registration cannot be taken back"),
        }
    }
    if !restored.is_empty() {
        tracing::info!(registrations = registry.registered(), "registrations taken back");
    }
    restored
}

/// Where documents come from.
struct Library {
    /// What the embedded XDMS opens to others.
    shelf: Option<Arc<xdms::store::Store>>,
    /// The XDMS elsewhere, in mode `ut`.
    remote: Option<Arc<Remote>>,
    documents: Arc<dyn Documents>,
}

fn open_library(settings: &NodeSettings) -> Result<Library, StartError> {
    let network = Arc::new(settings.xdms_network.clone());
    let remote = Arc::new(Remote::new(settings.xdms_remote.clone(), network));
    if settings.config.xdms.mode == XdmsMode::Ut {
        let documents = Arc::clone(&remote) as Arc<dyn Documents>;
        return Ok(Library { shelf: None, remote: Some(remote), documents });
    }
    let shelf = open_documents(settings)?;
    let documents: Arc<dyn Documents> = if settings.profile.xdm.allowed_hosts.is_empty() {
        Arc::clone(&shelf) as Arc<dyn Documents>
    } else {
        Arc::new(Embedded { store: Arc::clone(&shelf), remote })
    };
    Ok(Library { shelf: Some(shelf), remote: None, documents })
}

fn open_documents(settings: &NodeSettings) -> Result<Arc<xdms::store::Store>, StartError> {
    let path = settings.config.node.data_dir.join("xdms");
    let failed = |cause| StartError::Data { path: path.clone(), cause };
    let quotas = settings.xdms_quotas;
    let store = match settings.config.store {
        config::Store::Embedded | config::Store::Postgres(_) => {
            xdms::store::Store::open(&path, quotas).map_err(failed)?
        }
        config::Store::Memory => xdms::store::Store::in_memory(quotas),
    };
    if let Some(from) = &settings.config.xdms.documents {
        let (taken, refused) = store
            .import(from, xdms::server::OPERATOR)
            .map_err(|cause| StartError::Data { path: from.clone(), cause })?;
        for (path, why) in refused {
            tracing::warn!(path = %path.display(), why, "document not taken");
        }
        tracing::info!(taken, "documents loaded");
    }
    Ok(Arc::new(store))
}
