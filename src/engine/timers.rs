//! Timers as data: one ordered set of when what is due. Nothing here ticks; the engine asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::ids::PageId;

/// What a timer is for. A page has one of each kind, a leg has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The recipients should be known by now.
    Resolve,
    /// A provisional response is due (IM-020).
    Progress,
    /// The next recipient may be invited (UL-033).
    Pace,
    /// The page as a whole is over (MS-110).
    Deadline,
    /// Something is due on the originator's session: its BYE, or ours.
    Originator,
    /// The leg of this number; what it means depends on the leg's state.
    Leg(u16),
}

/// Every timer of every page.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, PageId, Kind)>,
    at: BTreeMap<(PageId, Kind), Instant>,
}

impl Timers {
    /// Makes `kind` due at `at`, or not at all. What was set before is replaced.
    pub(super) fn set(&mut self, page: PageId, kind: Kind, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.at.insert((page, kind), at),
            None => self.at.remove(&(page, kind)),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, page, kind));
        }
        if let Some(at) = at {
            self.due.insert((at, page, kind));
        }
    }

    /// Takes out the earliest timer that is due by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(PageId, Kind)> {
        let &(at, page, kind) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at.remove(&(page, kind));
        Some((page, kind))
    }

    /// When the earliest timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _, _)| at)
    }

    /// Removes whatever is set for `page`.
    pub(super) fn clear(&mut self, page: PageId) {
        let all = (page, Kind::Resolve)..=(page, Kind::Leg(u16::MAX));
        let keys: Vec<_> = self.at.range(all).map(|(&key, &at)| (key, at)).collect();
        for ((page, kind), at) in keys {
            self.at.remove(&(page, kind));
            self.due.remove(&(at, page, kind));
        }
    }

    /// How many timers are set.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::testing::start;

    #[test]
    fn a_timer_set_again_is_due_once_and_at_the_new_time() {
        let page = PageId::new(0, 1);
        let t = |s| start() + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set(page, Kind::Leg(1), Some(t(5)));
        timers.set(page, Kind::Pace, Some(t(7)));
        timers.set(page, Kind::Leg(1), Some(t(9)));
        timers.set(page, Kind::Leg(1), Some(t(9)));
        assert_eq!(timers.next(), Some(t(7)));
        assert_eq!(timers.pop(t(6)), None);
        assert_eq!(timers.pop(t(7)), Some((page, Kind::Pace)));
        assert_eq!(timers.pop(t(8)), None);
        timers.set(page, Kind::Leg(1), None);
        assert_eq!((timers.next(), timers.len()), (None, 0));
    }

    #[test]
    fn clearing_one_page_leaves_the_others() {
        let (one, two) = (PageId::new(0, 1), PageId::new(0, 2));
        let mut timers = Timers::default();
        for page in [one, two] {
            for kind in [Kind::Resolve, Kind::Deadline, Kind::Leg(0), Kind::Leg(u16::MAX)] {
                timers.set(page, kind, Some(start()));
            }
        }
        timers.clear(one);
        assert_eq!(timers.len(), 4);
        while let Some((page, _)) = timers.pop(start()) {
            assert_eq!(page, two);
        }
        assert_eq!(timers.len(), 0);
    }
}
