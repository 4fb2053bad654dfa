//! What operators see and do: pages, metrics, call flows, the console, the log level.
//!
//! [`board`] builds from the engine's events what `/api/pages` shows, [`metrics`] counts, [`http`] answers on
//! `ops.listen` and asks the node through [`Control`] where something is to be done. Message bodies never pass here.
//! [`client`] is the other end of the door, for the command line. [`log`] sets the log up.

pub mod board;
pub mod client;
pub mod http;
pub mod log;
pub mod metrics;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use board::Board;
pub use metrics::Metrics;

use crate::engine::ids::PageId;

/// The result of something that is done elsewhere.
pub type Done<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the door asks of the node. Each future is ready when the thing is done, not when it is begun.
pub trait Control: Send + Sync + 'static {
    /// The node and its neighbours, for `/api/status`.
    fn status(&self) -> Status;

    /// Why no traffic should come here: `draining`, `store`, `listener`; empty when it should.
    fn not_ready(&self) -> Vec<&'static str>;

    /// Called before each scrape: sets the gauges that are read and not counted.
    fn measure(&self, metrics: &Metrics);

    /// Takes no new page from now on, as SIGTERM does.
    fn drain(&self) -> Done<()>;

    /// Reads configuration and profile again, as SIGHUP does; says in one line what is wrong.
    fn reload(&self) -> Done<Result<(), String>>;

    /// Ends a page; `false` if it is not running here.
    fn end_page(&self, page: PageId) -> Done<bool>;

    /// Bars a user, or lets the user in again; says what is wrong with the URI.
    fn bar(&self, uri: &str, barred: bool) -> Done<Result<(), String>>;

    /// Changes how much is logged.
    ///
    /// # Errors
    /// Why it cannot be changed.
    fn set_log_level(&self, level: log::Level) -> Result<(), String>;
}

/// The node and its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub node: String,
    pub profile: String,
    pub uptime: Duration,
    pub neighbours: Vec<Neighbour>,
    /// Identities that are registered, as the core told us.
    pub registrations: usize,
}

/// Somebody we depend on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Neighbour {
    /// `S-CSCF`, `XDMS`, `HSS`, `store`.
    pub name: String,
    pub state: NeighbourState,
    /// Where it is.
    pub address: String,
    pub last_error: Option<String>,
}

/// Whether a neighbour answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourState {
    Up,
    Down,
    /// Not asked yet.
    Unknown,
    /// Not used.
    Off,
}

impl Status {
    /// The answer to `GET /api/status`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node,
            "profile": self.profile,
            "uptime": self.uptime.as_secs(),
            "neighbours": self.neighbours,
            "registrations": self.registrations,
        })
    }
}
