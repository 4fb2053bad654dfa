//! A wire without sockets: the other end of [`super::Transport::fake`], for tests under a paused clock.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::doors::Doors;
use super::hub::{Arrival, Hub};
use super::owner::owner_of;
use super::{Inbound, Key};
use crate::sip::{Flow, Protocol};

/// One message a node under test has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSent {
    pub protocol: Protocol,
    pub to: SocketAddr,
    /// The connection of a stream flow it went back on, 0 otherwise.
    pub connection: u64,
    pub bytes: Bytes,
}

/// The far side of all threads of a node under test.
#[derive(Debug)]
pub struct FakeWire<K> {
    pub(super) hub: Arc<Hub<K>>,
    pub(super) sent: mpsc::UnboundedReceiver<FakeSent>,
}

impl<K> std::fmt::Debug for Hub<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

impl<K: Key> FakeWire<K> {
    /// As [`super::Bound::tell`].
    pub fn tell(&self, doors: Doors) {
        // The first word counts.
        let _ = self.hub.doors.set(doors);
    }

    /// Hands one message to the thread that owns it, as if it had come this way.
    pub async fn deliver(&self, bytes: Bytes, flow: Flow) {
        let owner = owner_of(&bytes, self.hub.inboxes.len());
        self.hub.post(owner, Arrival::Up(Inbound::Message { bytes, flow })).await;
    }

    /// The next message that was sent; `None` once every thread's transport is gone.
    pub async fn sent(&mut self) -> Option<FakeSent> {
        self.sent.recv().await
    }

    /// The next message if one was sent already.
    pub fn try_sent(&mut self) -> Option<FakeSent> {
        self.sent.try_recv().ok()
    }
}
