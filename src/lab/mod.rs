//! Neighbours for the demo, load and tests: a small core and phones, over real sockets. Never used by `serve`.
//!
//! Start at [`core::Core`] (a small S-CSCF), then [`phone::Phone`]; [`load`] runs many pages against them.
//! A phone speaks SIP and MSRP of its own: from the server it takes the codecs, not the stack, so that a mistake of the
//! server's dialogs does not hide behind the same mistake here. What it sees and is not right becomes a complaint
//! ([`Complaints`]); a scenario that ends with one has failed.
//! Follows RFC 3261, 3262, 4975 as a peer would, and TS 24.229 as far as the core's one service needs it.

mod auth;
mod call;
mod callee;
mod caller;
pub mod core;
pub mod load;
mod media;
mod milenage;
pub mod phone;
pub mod picture;
mod registration;
mod sdp;
#[cfg(test)]
mod tests;
pub mod tls;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use auth::Auth;

/// Complaints kept; more of the same tell nothing new.
const MOST_COMPLAINTS: usize = 1000;

/// What a neighbour found wrong with the messages it got, in order. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Complaints(Arc<Mutex<Vec<String>>>);

impl Complaints {
    /// What was found so far.
    pub fn all(&self) -> Vec<String> {
        locked(&self.0).clone()
    }

    pub(crate) fn add(&self, complaint: impl Into<String>) {
        let mut list = locked(&self.0);
        if list.len() < MOST_COMPLAINTS {
            let complaint = complaint.into();
            tracing::warn!(%complaint, "the lab complains");
            list.push(complaint);
        }
    }

    /// Complains unless `right`.
    pub(crate) fn check(&self, right: bool, complaint: impl FnOnce() -> String) {
        if !right {
            self.add(complaint());
        }
    }
}

/// A lock of ours, whoever panicked while holding it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Random hexadecimal digits for tags, branches and session-ids.
fn token(octets: usize) -> String {
    let mut random = vec![0; octets];
    getrandom::fill(&mut random).expect("the system has random bytes");
    random.iter().map(|octet| format!("{octet:02x}")).collect()
}
