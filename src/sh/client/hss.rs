//! What the client needs of others: somebody who reaches an HSS, and somebody who keeps and shows things.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use super::subscriptions::Kept;
use crate::sh::codec::{Avp, Message};

/// One request, without what stands at its head: session, application, origin and destination are written by whoever
/// routes it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub command: u32,
    /// The HSS that serves the identity, where it is known (SH-026).
    pub to: Option<Binding>,
    /// The home domain of the identity, where it has one.
    pub home: Option<String>,
    pub avps: Vec<Avp>,
    pub class: Class,
}

/// Which HSS serves an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub host: String,
    pub realm: String,
}

/// What a request is for; under overload the first are dropped first (SH-031).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Refresh,
    Subscription,
    StateCheck,
    Settings,
    Page,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody answered in time.
    #[error("no answer in time")]
    Silent,
    /// No HSS can be reached.
    #[error("no HSS can be reached")]
    Down,
    /// Not sent, for the HSS or this server has too much to do.
    #[error("held back under overload")]
    Shed,
}

/// The answer to come.
pub type Asking = Pin<Box<dyn Future<Output = Result<Message, NoAnswer>> + Send>>;

/// Whoever reaches an HSS.
pub trait Hss: Send + Sync {
    /// Asks once. The request is on its way, or waits for its turn, when this returns.
    fn ask(&self, ask: Ask) -> Asking;
}

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// What the rest of the server does for the client.
pub trait House: Send + Sync {
    /// Now.
    fn moment(&self) -> Moment;
    /// Has a subscription kept over a restart, or no longer; `key` names it.
    fn keep(&self, key: String, kept: Option<Kept>);
    /// A request was answered or not: its command and one of `ok`, `unknown`, `refused`, `unavailable`.
    fn answered(&self, command: &'static str, result: &'static str);
}
