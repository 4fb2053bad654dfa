//! Whose MESSAGE may be on its way to whom: one at a time to each target, the others in the order they were accepted.
//!
//! Follows IM-079 (RFC 3428 §8).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ids::LegId;

/// All targets of a node, for engines that share them: pages for one user may be on any of them.
#[derive(Debug, Clone, Default)]
pub struct SharedLanes(Arc<Mutex<Lanes>>);

impl SharedLanes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lanes> {
        // Every change is one insertion or removal: what a panic left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every target with somebody in its lane. The first in a lane has its turn.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_target: BTreeMap<Arc<str>, VecDeque<LegId>>,
}

/// Where a leg stands in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is its turn.
    First,
    Behind,
    /// So many stand there that it does not get in.
    Full,
}

impl Lanes {
    /// Puts a leg that stands nowhere at the end of the lane of its target.
    pub(super) fn enter(&mut self, target: &Arc<str>, leg: LegId, most: u32) -> Place {
        let lane = self.by_target.entry(Arc::clone(target)).or_default();
        if !lane.is_empty() && lane.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return Place::Full;
        }
        lane.push_back(leg);
        if lane.len() == 1 { Place::First } else { Place::Behind }
    }

    /// Takes a leg out of its lane. Returns whose turn it has become.
    pub(super) fn leave(&mut self, target: &str, leg: LegId) -> Option<LegId> {
        let lane = self.by_target.get_mut(target)?;
        let at = lane.iter().position(|other| *other == leg)?;
        lane.remove(at);
        let next = lane.front().copied();
        if next.is_none() {
            self.by_target.remove(target);
        }
        next.filter(|_| at == 0)
    }

    /// Whether it is this leg's turn.
    pub(super) fn is_first(&self, target: &str, leg: LegId) -> bool {
        self.by_target.get(target).and_then(VecDeque::front) == Some(&leg)
    }

    /// How many stand in lanes.
    pub(super) fn len(&self) -> usize {
        self.by_target.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::PageId;

    /// Part of IM-079.
    #[test]
    fn turns_come_in_the_order_of_entering() {
        let leg = |page| LegId { page: PageId::new(0, page), n: 1 };
        let (bob, carol): (Arc<str>, Arc<str>) = ("bob".into(), "carol".into());
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter(&bob, leg(1), 3), Place::First);
        assert_eq!(lanes.enter(&bob, leg(2), 3), Place::Behind);
        assert_eq!(lanes.enter(&bob, leg(3), 3), Place::Behind);
        assert_eq!(lanes.enter(&bob, leg(4), 3), Place::Full);
        assert_eq!(lanes.enter(&carol, leg(4), 0), Place::First, "an empty lane takes one");
        assert_eq!(lanes.leave("bob", leg(2)), None, "it was not its turn");
        assert_eq!(lanes.leave("bob", leg(2)), None, "it is gone");
        assert!(lanes.is_first("bob", leg(1)) && !lanes.is_first("bob", leg(3)));
        assert_eq!(lanes.leave("bob", leg(1)), Some(leg(3)));
        assert!(lanes.is_first("bob", leg(3)));
        assert_eq!(lanes.leave("bob", leg(3)), None);
        assert_eq!(lanes.leave("carol", leg(4)), None);
        assert!(lanes.by_target.is_empty());
    }
}
