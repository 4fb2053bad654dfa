//! What survives of a page that was acknowledged: plain data, as little as it takes to go on.
//!
//! The engine writes a [`Record`] once, when the page is whole, and says afterwards which legs are done and which wait. What
//! adapters need to serve it again is theirs and kept beside it. Instants do not survive a process: whoever keeps a record
//! turns them into times of day and back.

use std::time::Instant;

use super::input::Arrival;
use super::party::Audience;

/// A page that is kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    pub arrival: Arrival,
    pub audience: Audience,
    /// Octets of the whole body.
    pub size: u64,
}

/// A kept page that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub record: Record,
    /// The legs to serve now, by number; the others are done, or wait.
    pub open: Vec<u16>,
    /// When nobody shall be tried any more.
    pub until: Instant,
}
