//! Next hops that asked for a pause, for all threads of a node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many are remembered. A node speaks to few next hops; beyond, those whose time is over leave, then no new one
/// comes in.
const MOST: usize = 1024;

/// Addresses and until when they get no new requests.
///
/// ISC-069 (RFC 3261 §21.5.4).
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// Nothing is asked while this is false, which is nearly always.
    any: AtomicBool,
    until: Mutex<HashMap<SocketAddr, Instant, ahash::RandomState>>,
}

impl Pauses {
    /// Remembers one; a longer pause wins. Whether it was taken.
    pub fn add(&self, hop: SocketAddr, now: Instant, length: Duration) -> bool {
        let mut until = self.until();
        if until.len() >= MOST && !until.contains_key(&hop) {
            until.retain(|_, until| *until > now);
            if until.len() >= MOST {
                return false;
            }
        }
        let end = until.entry(hop).or_insert(now);
        *end = (*end).max(now + length);
        self.any.store(true, Ordering::Release);
        true
    }

    /// Whether this one pauses.
    pub fn holds(&self, hop: SocketAddr, now: Instant) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut until = self.until();
        match until.get(&hop) {
            Some(end) if *end > now => return true,
            Some(_) => drop(until.remove(&hop)),
            None => {}
        }
        self.any.store(!until.is_empty(), Ordering::Release);
        false
    }

    fn until(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant, ahash::RandomState>> {
        // Each change is one step, so a panic of another thread left nothing half done.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_an_end_and_the_memory_a_bound() {
        let (pauses, now, second) = (Pauses::default(), Instant::now(), Duration::from_secs(1));
        let hop = |port| SocketAddr::from(([192, 0, 2, 1], port));
        assert!(!pauses.holds(hop(1), now));
        assert!(pauses.add(hop(1), now, 5 * second));
        assert!(pauses.add(hop(1), now, second), "the longer one stays");
        assert!(pauses.holds(hop(1), now + 4 * second) && !pauses.holds(hop(2), now));
        assert!(!pauses.holds(hop(1), now + 5 * second));
        assert!(!pauses.any.load(Ordering::Acquire), "nothing is left");
        for port in 0..MOST as u16 {
            assert!(pauses.add(hop(port), now, second));
        }
        assert!(!pauses.add(hop(5000), now, second), "full");
        assert!(pauses.add(hop(5), now, 9 * second), "known already");
        assert!(pauses.add(hop(5000), now + second, second), "room again");
        assert_eq!(pauses.until().len(), 2);
    }
}
