//! What the client needs of others: somebody who reaches an HSS, and somebody who keeps and shows things.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use super::subscriptions::Kept;
use crate::sh::codec::Message;
use crate::sh::router::Router;
use crate::sh::routing::{Failure, Request, Why};

/// Which HSS serves an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub host: String,
    pub realm: String,
}

/// The answer to come.
pub type Asking = Pin<Box<dyn Future<Output = Result<Message, Failure>> + Send>>;

/// Whoever reaches an HSS.
pub trait Hss: Send + Sync {
    /// Asks once. The request is on its way, or waits for its turn, when this returns.
    fn ask(&self, request: Request) -> Asking;
}

impl Hss for Router {
    fn ask(&self, request: Request) -> Asking {
        let router = self.clone();
        Box::pin(async move { router.request(request).await })
    }
}

/// Whether the HSS that was named may be the wrong one (SH-026).
pub fn is_silent(failure: &Failure) -> bool {
    matches!(failure, Failure::Unavailable(Why::TimedOut | Why::LinkFailed | Why::Undeliverable))
}

/// Whether something more important might have passed (SH-031).
pub fn is_shed(failure: &Failure) -> bool {
    matches!(failure, Failure::Overloaded | Failure::Saturated)
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
