//! What operators can do to a running node, from any thread.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch as signal};
use tokio::time::Instant;

use super::hss::{Directory, Sh};
use super::keeping;
use super::shard::{Left, ToShard};
use super::watch::Watch;
use crate::charging::Records;
use crate::config::node::NodeSettings;
use crate::config::{Source, Store};
use crate::engine::ids::PageId;
use crate::isc::registry::Registry;
use crate::isc::rules::own::Own;
use crate::msrp::Switch;
use crate::ops::board::PageState;
use crate::ops::metrics::{Direction, HANDSHAKES_FAILED, Metrics};
use crate::ops::{Control, Done, Neighbour, NeighbourState, Status, log};
use crate::sh::client::{Client, Subject};
use crate::sip::uri::Uri;
use crate::store;
use crate::xdms::{self, Resolver};

/// A running node, as operators see it.
pub struct Controls {
    pub(super) settings: NodeSettings,
    source: Option<Source>,
    log: Option<log::Handle>,
    pub(super) shards: Vec<mpsc::UnboundedSender<ToShard>>,
    pub(super) left: Vec<signal::Receiver<Left>>,
    switch: Switch,
    resolver: Arc<Resolver>,
    registry: Arc<Registry>,
    store: Arc<store::Store>,
    /// The embedded XDMS, where it has a door.
    documents: OnceLock<Arc<xdms::server::Server>>,
    sh: Option<Sh>,
    directory: Arc<Directory>,
    pub(super) watch: Arc<Watch>,
    records: Option<Arc<Records>>,
    drain: signal::Sender<bool>,
    started: Instant,
    /// What was counted at the last scrape: octets in and out, retransmissions, charging records written and lost,
    /// failed handshakes by their reasons.
    counted: Mutex<[u64; 9]>,
}

/// What all threads share, and the controls with them.
pub(super) struct Shared {
    pub switch: Switch,
    pub resolver: Arc<Resolver>,
    pub registry: Arc<Registry>,
    pub store: Arc<store::Store>,
    pub sh: Option<Sh>,
    pub directory: Arc<Directory>,
    pub watch: Arc<Watch>,
    pub records: Option<Arc<Records>>,
}

impl Controls {
    /// Joins what `Node::start` has made.
    pub(super) fn new(
        settings: NodeSettings,
        source: Option<Source>,
        log: Option<log::Handle>,
        shards: Vec<mpsc::UnboundedSender<ToShard>>,
        left: Vec<signal::Receiver<Left>>,
        shared: Shared,
    ) -> Self {
        let Shared { switch, resolver, registry, store, sh, directory, watch, records } = shared;
        Self {
            settings,
            source,
            log,
            shards,
            left,
            switch,
            resolver,
            registry,
            store,
            documents: OnceLock::new(),
            sh,
            directory,
            watch,
            records,
            drain: signal::channel(false).0,
            started: Instant::now(),
            counted: Mutex::default(),
        }
    }

    /// Has the embedded XDMS follow a reload.
    pub(super) fn serves_documents(&self, server: Arc<xdms::server::Server>) {
        // A node has one.
        let _ = self.documents.set(server);
    }

    /// From now on no new pages.
    pub fn start_drain(&self) {
        self.drain.send_replace(true);
        for shard in &self.shards {
            // A thread that is gone takes no pages.
            let _ = shard.send(ToShard::Drain);
        }
    }

    /// Ends every thread, whatever it is doing.
    pub fn stop(&self) {
        if let Some(sh) = &self.sh {
            sh.task.abort();
        }
        for shard in &self.shards {
            // A thread that is gone needs no telling.
            let _ = shard.send(ToShard::Stop);
        }
    }

    /// Resolves once somebody has asked to drain.
    pub async fn drain_requested(&self) {
        let mut asked = self.drain.subscribe();
        // The sender lives as long as `self`.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Reads configuration and profile again and puts them in force, all or nothing. What waits for the next start
    /// (addresses, threads, paths, timers of SIP, the bounds of MSRP) is named in the log. Connections stay, whatever
    /// their certificates.
    ///
    /// # Errors
    /// What is wrong with the new configuration; the old one stays in force.
    pub fn reload_now(&self) -> Result<(), String> {
        let Some(source) = &self.source else {
            return Err("this node was started without a configuration file".to_owned());
        };
        let loaded = source.load().map_err(|error| error.to_string())?;
        let mut fresh = NodeSettings::new(&loaded, usize::from(self.settings.threads));
        fresh.isc.sip.advertise.clone_from(&self.settings.isc.sip.advertise);
        fresh.isc.sip.uri.clone_from(&self.settings.isc.sip.uri);
        fresh.isc.sip.told.clone_from(&self.settings.isc.sip.told);
        fresh.isc.sip.secure = self.settings.isc.sip.secure;
        Own::new(&fresh.isc).map_err(|error| error.to_string())?;
        // From here on nothing can go wrong any more.
        match (&self.settings.transport.security, &fresh.transport.security) {
            (Some(running), Some(fresh)) => running.replace(fresh),
            (None, Some(_)) => tracing::warn!("[sip.tls] is new and waits for the next start"),
            (Some(running), None) => {
                tracing::warn!(
                    "[sip.tls] is gone: its doors stay until the next start, and no certificate is trusted"
                );
                running.trust_nobody();
            }
            (None, None) => {}
        }
        match (&self.settings.xdms_tls, &fresh.xdms_tls) {
            (Some(running), Some(fresh)) => running.replace(fresh),
            (None, None) => {}
            _ => tracing::warn!("[xdms.server_tls] came or went: that waits for the next start"),
        }
        match (&self.settings.xdms_network.tls, &fresh.xdms_network.tls) {
            (Some(running), Some(fresh)) => running.replace(fresh),
            (None, None) => {}
            _ => tracing::warn!("[xdms.tls] came or went: that waits for the next start"),
        }
        match (self.switch.tls(), &fresh.config.msrp.tls) {
            (Some(running), Some(fresh)) => running.replace(&fresh.material),
            (None, None) => {}
            _ => tracing::warn!("[msrp.tls] came or went: that waits for the next start"),
        }
        let running = self.settings.isc.media.tls;
        fresh.isc.media.tls = running.map(|running| fresh.isc.media.tls.unwrap_or(running));
        if let Some(server) = self.documents.get() {
            server.obey(fresh.xdms_server.clone());
        }
        fresh.resolver.own_hosts.clone_from(&self.settings.resolver.own_hosts);
        let resolver = Arc::new(self.resolver.obeying(fresh.resolver.clone()));
        resolver.set_barred(fresh.isc.service.barred.iter().map(String::as_str));
        self.directory.set_check_registration(fresh.profile.im.check_registration);
        let max_lag = fresh.config.node.max_lag;
        for shard in &self.shards {
            let (isc, policy) = (Box::new(fresh.isc.clone()), Box::new(fresh.policy.clone()));
            let resolver = Arc::clone(&resolver);
            // A thread that is gone obeys nothing.
            let _ = shard.send(ToShard::Settings { isc, policy, resolver, max_lag });
        }
        let waits = self.settings.waiting_in(&loaded);
        if !waits.is_empty() {
            tracing::warn!(keys = waits.join(", "), "changed, but in force at the next start only");
        }
        Ok(())
    }

    /// Parts from the HSS, as far as it takes part (SH-011).
    pub(super) async fn leave_hss(&self) {
        if let Some(sh) = &self.sh {
            sh.router.shutdown().await;
        }
    }

    /// What the HSS tells, where Sh is on.
    pub fn sh(&self) -> Option<&Arc<Client>> {
        self.sh.as_ref().map(|sh| &sh.client)
    }

    /// What watches the node.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Writes what is left to be kept; nothing is kept after it.
    pub(super) fn close_store(&self) {
        self.store.close();
        if let Some(records) = &self.records {
            records.close();
        }
    }

    /// The XCAP root of the embedded XDMS.
    pub fn xcap_root(&self) -> &str {
        &self.settings.resolver.root
    }

    /// The MSRP switch, for its counters.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }
}

/// Asks everything about a test identity once there is an HSS, and says in the log what it permits (SH-054).
pub(super) async fn probe_permissions(control: &Weak<Controls>, identity: &str) {
    let Some(user) = Subject::user(identity) else {
        tracing::error!(key = "sh.test_identity", "it is no identity of a user");
        return;
    };
    loop {
        {
            let Some(control) = control.upgrade() else { return };
            let Some(sh) = &control.sh else { return };
            if sh.neighbour().state == NeighbourState::Up {
                sh.client.probe(&user).await;
                return;
            }
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

/// How often it is looked whether there is an HSS to be probed.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Sh is off.
fn off() -> Neighbour {
    Neighbour {
        name: "HSS".to_owned(),
        state: NeighbourState::Off,
        address: String::new(),
        last_error: None,
    }
}

fn ready<T: Send + 'static>(value: T) -> Done<T> {
    Box::pin(std::future::ready(value))
}

impl Control for Controls {
    fn status(&self) -> Status {
        let (state, last_error) =
            self.watch.core.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let health = self.store.health();
        let path = |path: PathBuf| path.display().to_string();
        let xdms = self.resolver.source().health();
        Status {
            node: self.settings.config.node.name.clone(),
            profile: self.settings.profile_name.to_string(),
            uptime: self.started.elapsed(),
            neighbours: vec![
                Neighbour {
                    name: "S-CSCF".to_owned(),
                    state,
                    address: self.settings.config.core.scscf.clone(),
                    last_error,
                },
                Neighbour {
                    name: "XDMS".to_owned(),
                    state: match xdms.up {
                        Some(true) => NeighbourState::Up,
                        Some(false) => NeighbourState::Down,
                        None => NeighbourState::Unknown,
                    },
                    address: self.settings.resolver.root.clone(),
                    last_error: xdms.last_error,
                },
                self.sh.as_ref().map_or_else(off, Sh::neighbour),
                Neighbour {
                    name: "store".to_owned(),
                    state: if health.up { NeighbourState::Up } else { NeighbourState::Down },
                    address: match &self.settings.config.store {
                        Store::Embedded => path(self.settings.config.node.data_dir.clone()),
                        Store::Memory => "memory:".to_owned(),
                        Store::Postgres(address) => address.to_string(),
                    },
                    last_error: health.last_error.or(health.warning),
                },
            ],
            registrations: self.registry.registered(),
        }
    }

    fn not_ready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if *self.drain.borrow() {
            reasons.push("draining");
        }
        if !self.store.health().up {
            reasons.push("store");
        }
        // A thread that is gone has dropped its end, and nobody reads its sockets.
        if self.left.iter().any(|left| left.has_changed().is_err()) {
            reasons.push("listener");
        }
        reasons
    }

    fn measure(&self, metrics: &Metrics) {
        let msrp = self.switch.stats();
        metrics.msrp_connections.set(msrp.connections.cast_signed());
        metrics.spool_bytes.set(msrp.spool_octets.cast_signed());
        let registrations = i64::try_from(self.registry.registered()).unwrap_or(i64::MAX);
        metrics.registrations.set(registrations);
        let sum =
            |of: fn(&super::watch::Gauges) -> u64| self.watch.gauges.iter().map(of).sum::<u64>();
        let transactions = sum(|gauges| gauges.transactions.load(Ordering::Relaxed));
        metrics.sip_transactions.set(transactions.cast_signed());
        let records = self.records.as_ref().map(|records| records.counts()).unwrap_or_default();
        let failed = msrp.handshakes_failed;
        let now = [
            msrp.octets_in,
            msrp.octets_out,
            sum(|gauges| gauges.retransmissions.load(Ordering::Relaxed)),
            records.written,
            records.lost,
            failed.slow,
            failed.protocol,
            failed.certificate,
            failed.busy,
        ];
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = |which: usize| now[which].saturating_sub(counted[which]);
        metrics.msrp_bytes(Direction::In, grown(0));
        metrics.msrp_bytes(Direction::Out, grown(1));
        metrics.sip_retransmissions.inc_by(grown(2));
        metrics.charging_records("written", grown(3));
        metrics.charging_records("lost", grown(4));
        for (at, reason) in HANDSHAKES_FAILED.into_iter().enumerate() {
            metrics.msrp_handshakes_failed(reason, grown(5 + at));
        }
        *counted = now;
    }

    fn drain(&self) -> Done<()> {
        self.start_drain();
        ready(())
    }

    fn reload(&self) -> Done<Result<(), String>> {
        ready(self.reload_now())
    }

    fn end_page(&self, page: PageId) -> Done<bool> {
        let running = self
            .watch
            .board
            .state(page)
            .is_some_and(|state| !matches!(state, PageState::Done | PageState::Refused));
        let shard = keeping::shard_of(&self.shards, page).filter(|_| running);
        ready(shard.is_some_and(|shard| shard.send(ToShard::EndPage(page)).is_ok()))
    }

    fn bar(&self, uri: &str, barred: bool) -> Done<Result<(), String>> {
        if let Err(error) = Uri::parse(uri) {
            return ready(Err(format!("{uri:?} is no URI: {error}")));
        }
        self.resolver.bar(uri, barred);
        for shard in &self.shards {
            // A thread that is gone serves nobody.
            let _ = shard.send(ToShard::Bar { uri: uri.to_owned(), barred });
        }
        ready(Ok(()))
    }

    fn set_log_level(&self, level: log::Level) -> Result<(), String> {
        match &self.log {
            Some(log) => log.set(level),
            None => Err("the log belongs to whoever started this node".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loaded;
    use crate::node::Node;

    #[tokio::test]
    async fn a_node_that_has_lost_a_thread_wants_no_traffic() {
        let random = getrandom::u64().expect("random bytes");
        let folder = std::env::temp_dir().join(format!("pagecast-control-{random:016x}"));
        let set = [
            format!("node.data_dir={}", folder.display()),
            "sip.listen=[\"udp:127.0.0.1:0\"]".to_owned(),
            "msrp.listen=[\"127.0.0.1:0\"]".to_owned(),
            "xdms.listen=".to_owned(),
            "ops.listen=".to_owned(),
        ];
        let loaded = Loaded::load_with(None, &set, &|_| None).expect("a good configuration");
        let node = Node::start(NodeSettings::new(&loaded, 2), None, None).await.expect("started");
        let control = Arc::clone(node.control());
        assert_eq!(control.not_ready(), [""; 0]);
        control.shards[1].send(ToShard::Stop).expect("it runs");
        let mut left = control.left[1].clone();
        left.wait_for(|_| false).await.expect_err("its end is dropped");
        assert_eq!(control.not_ready(), ["listener"]);
        control.start_drain();
        assert_eq!(control.not_ready(), ["draining", "listener"]);
        node.stop();
        std::fs::remove_dir_all(&folder).expect("our own folder");
    }
}
