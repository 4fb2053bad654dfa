//! A node without doors: the real threads, with the neighbours' side of every connection in the hands of a test.
//!
//! Start at [`Doorless::new`]. SIP goes over a [`FakeWire`] of whole messages, MSRP connections are handed to
//! [`Controls::switch`] by `serve_connection`, documents come from any source. Each [`Shard`] is a future the caller
//! runs, so that all of it lives in one runtime whose clock can be paused. Opens no socket, starts no thread and keeps
//! nothing over a restart.

use std::sync::Arc;

use super::hss::Ear;
use super::{Controls, Shard, StartError, assemble, unix};
use crate::config::node::NodeSettings;
use crate::sh::router::Router;
use crate::sip::resolve::Dns;
use crate::sip::transport::{FakeWire, Transport};
use crate::sip::ua::SendKey;
use crate::store::Store;
use crate::xdms::resolver::Source;

/// Everything of a node but its doors.
pub struct Doorless {
    /// One for each of `settings.threads`; they serve while [`Shard::run`] is polled.
    pub shards: Vec<Shard>,
    pub control: Arc<Controls>,
    /// The far side of all SIP connections.
    pub wire: FakeWire<SendKey>,
}

impl Doorless {
    /// Assembles the parts as `Node::start` does. Addresses in `settings` are names only: none is listened on.
    ///
    /// # Errors
    /// [`StartError`], for folders and settings that cannot be used.
    pub fn new(
        settings: NodeSettings,
        documents: Arc<dyn Source>,
        dns: &Dns,
    ) -> Result<Self, StartError> {
        Self::with_hss(settings, documents, dns, None)
    }

    /// The same, with connections to the HSS made by `hss`. Sh is off without it.
    ///
    /// # Errors
    /// As [`Doorless::new`].
    pub fn with_hss(
        settings: NodeSettings,
        documents: Arc<dyn Source>,
        dns: &Dns,
        hss: Option<Arc<dyn crate::sh::link::Transport>>,
    ) -> Result<Self, StartError> {
        let threads = usize::from(settings.threads.max(1));
        let (transports, wire) = Transport::fake(&settings.transport, threads, dns);
        wire.tell(settings.doors.clone());
        let sip_address = settings.config.sip.listen.first().map(|listen| listen.address);
        let kept = (Store::memory(), Vec::new());
        let sh = settings.sh.clone().zip(hss).map(|(sh, transport)| {
            let ear = Arc::new(Ear::new(&sh.origin_host, &sh.origin_realm));
            let router = Router::start_over(sh, transport, Arc::clone(&ear) as _, unix());
            (router, ear)
        });
        let (parts, control) =
            assemble(settings, threads, sip_address, documents, kept, sh, (None, None))?;
        let shards = parts
            .into_iter()
            .zip(transports)
            .map(|(parts, transport)| parts.shard(transport))
            .collect::<Result<_, _>>()?;
        Ok(Self { shards, control, wire })
    }
}
