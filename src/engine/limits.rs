//! How much one originator may have going: pages at a time and pages per second (IM-036).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::policy::Policy;

/// The window of `im.max_rate_per_user`.
const WINDOW: Duration = Duration::from_secs(1);

/// What all originators have going, for engines that share the limits of users: a user's pages may come to any of them.
#[derive(Debug, Clone, Default)]
pub struct SharedUsers(Arc<Mutex<Users>>);

impl SharedUsers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Users> {
        // Counts that a panic left a little wrong are better than none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every originator with a page on its way or one begun within the last second; nobody else takes room.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_key: BTreeMap<Arc<str>, Usage>,
    /// What began within the window, oldest first.
    recent: VecDeque<(Instant, Arc<str>)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    parallel: u32,
    recent: u32,
}

/// The limit that is reached, by its profile key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverLimit(pub(super) &'static str);

impl Users {
    /// Counts a page in under every name of its originator, if it may begin now by each of them. A page that may not is
    /// not counted. The names are distinct.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        names: &[Arc<str>],
        policy: &Policy,
    ) -> Result<(), OverLimit> {
        self.forget_old(now);
        let usage = |key| self.by_key.get(key).copied().unwrap_or_default();
        if names.iter().any(|key| usage(key).parallel >= policy.max_parallel_per_user) {
            return Err(OverLimit("im.max_parallel_per_user"));
        }
        if names.iter().any(|key| usage(key).recent >= policy.max_rate_per_user) {
            return Err(OverLimit("im.max_rate_per_user"));
        }
        for key in names {
            let usage = self.by_key.entry(key.clone()).or_default();
            usage.parallel += 1;
            usage.recent += 1;
            self.recent.push_back((now, key.clone()));
        }
        Ok(())
    }

    /// A page that began is over.
    pub(super) fn end(&mut self, names: &[Arc<str>]) {
        for key in names {
            self.change(key, |usage| usage.parallel -= 1);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, key)) = self.recent.front().cloned()
            && at + WINDOW <= now
        {
            self.recent.pop_front();
            self.change(&key, |usage| usage.recent -= 1);
        }
    }

    fn change(&mut self, key: &Arc<str>, by: impl FnOnce(&mut Usage)) {
        let usage = self.by_key.get_mut(key).expect("`begin` counted this originator in");
        by(usage);
        if usage.parallel == 0 && usage.recent == 0 {
            self.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::start;

    fn one(name: &Arc<str>) -> &[Arc<str>] {
        std::slice::from_ref(name)
    }

    /// Proves IM-036.
    #[test]
    fn a_user_is_one_user_by_whatever_name() {
        let names =
            |names: &[&str]| -> Vec<Arc<str>> { names.iter().map(|n| (*n).into()).collect() };
        let both = names(&["sip:alice@h", "tel:+1"]);
        let mut users = Users::default();
        let limits = policy(1, 10);
        let over = Err(OverLimit("im.max_parallel_per_user"));
        assert_eq!(users.begin(start(), &both, &limits), Ok(()));
        for other in
            [names(&["tel:+1"]), names(&["sip:alice@h"]), names(&["tel:+1", "sip:alice@h"])]
        {
            assert_eq!(users.begin(start(), &other, &limits), over, "{other:?}");
        }
        assert_eq!(users.begin(start(), &names(&["sip:bob@h"]), &limits), Ok(()));
        users.end(&both);
        assert_eq!(users.begin(start(), &names(&["tel:+1"]), &limits), Ok(()));
    }

    fn policy(parallel: u32, rate: u32) -> Policy {
        Policy { max_parallel_per_user: parallel, max_rate_per_user: rate, ..Policy::default() }
    }

    /// Proves IM-036.
    #[test]
    fn a_burst_is_cut_and_the_earlier_ones_stay() {
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let mut users = Users::default();
        let limits = policy(100, 2);
        let t = |ms| start() + Duration::from_millis(ms);
        assert_eq!(users.begin(t(0), one(&alice), &limits), Ok(()));
        assert_eq!(users.begin(t(300), one(&alice), &limits), Ok(()));
        let over = Err(OverLimit("im.max_rate_per_user"));
        assert_eq!(users.begin(t(999), one(&alice), &limits), over);
        assert_eq!(users.begin(t(999), one(&bob), &limits), Ok(()), "another user is unaffected");
        assert_eq!(users.begin(t(1000), one(&alice), &limits), Ok(()), "the first is a second old");
        assert_eq!(users.begin(t(1000), one(&alice), &limits), over);
    }

    /// Proves IM-036.
    #[test]
    fn so_many_pages_at_a_time_and_no_trace_of_who_is_done() {
        let alice: Arc<str> = "alice".into();
        let mut users = Users::default();
        let limits = policy(1, 10);
        let t = |s| start() + Duration::from_secs(s);
        assert_eq!(users.begin(t(0), one(&alice), &limits), Ok(()));
        let over = Err(OverLimit("im.max_parallel_per_user"));
        assert_eq!(users.begin(t(50), one(&alice), &limits), over);
        users.end(one(&alice));
        assert_eq!(users.begin(t(50), one(&alice), &limits), Ok(()));
        users.end(one(&alice));
        users.forget_old(t(60));
        assert!(users.by_key.is_empty() && users.recent.is_empty());
    }
}
