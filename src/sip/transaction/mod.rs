//! The four transaction machines of RFC 3261 §17, with the corrections of RFC 6026 and RFC 4320.
//!
//! Each machine is one small enum that is moved by [`Event`]s and answers with [`Action`]s. It holds no message, no
//! socket and no clock: "transmit" means the request or the last response its owner keeps, and a timer is an action
//! with a length. The owner is `sip::ua`. Start at [`InviteClient`]; the other three are read the same way.
//!
//! Timers (ISC-065): T1, T2 and T4 come from [`Timers`], everything else is derived from them.

mod client;
mod invite_client;
mod invite_server;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

use smallvec::SmallVec;

pub use client::Client;
pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use server::Server;

/// The three lengths everything else follows from (RFC 3261 §17.1.1.1).
///
/// ISC-065 (TS 24.229 table 7.7.1): towards the core T1 = 500 ms, T2 = 4 s, T4 = 5 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// An estimate of the round trip; the first retransmission comes after it.
    pub t1: Duration,
    /// The longest wait between two retransmissions of a request other than INVITE, and of an INVITE's answer.
    pub t2: Duration,
    /// How long a message can stay in the network.
    pub t4: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}

impl Timers {
    /// 64×T1: timers B, F, H, J, L and M, and how long a 2xx or a reliable 1xx is repeated.
    pub fn give_up(&self) -> Duration {
        self.t1 * 64
    }

    /// Timer D: more than 32 s on UDP (RFC 3261 §17.1.1.2), and never less than the peer's Timer H.
    fn d(&self) -> Duration {
        self.give_up().max(Duration::from_secs(32))
    }

    /// The wait after `last` of a retransmission that doubles up to T2.
    pub fn doubled(&self, last: Duration) -> Duration {
        (last * 2).min(self.t2)
    }
}

/// The timers of RFC 3261 table 4 and RFC 6026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    A,
    B,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
    K,
    L,
    M,
}

impl Timer {
    /// Whether it paces retransmissions; the others end a state. A transaction runs at most one of each sort.
    pub fn repeats(self) -> bool {
        matches!(self, Self::A | Self::E | Self::G)
    }
}

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The transport put the request on a reliable protocol: nothing is to be repeated.
    Reliable,
    /// Client: a response came. Server: our user answers. The status code.
    Response(u16),
    /// Server: the request came once more.
    Request,
    /// Server, INVITE: an ACK in the INVITE's own branch.
    Ack,
    /// A timer of this transaction ran out.
    Expired(Timer),
    /// The transport gave the message up.
    Broken,
}

/// What the owner of the transaction has to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send the request (client) or the last response (server), for the first time or again.
    Transmit,
    /// Send the ACK that belongs to a final answer other than 2xx.
    Ack,
    /// Hand the response to the user of the transaction.
    Deliver,
    /// Tell the user that nobody answered (client) or acknowledged (server).
    TimedOut,
    /// Tell the user that the transport failed.
    Failed,
    /// Start this timer; one that runs already starts anew.
    Start(Timer, Duration),
    /// Stop this timer if it runs.
    Stop(Timer),
    /// Forget the transaction.
    Finish,
}

/// The actions of one event.
pub type Actions = SmallVec<[Action; 4]>;

/// What a machine needs to know of the world.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub timers: Timers,
    /// The protocol repeats lost bytes itself.
    pub reliable: bool,
}
