//! Who is registered where: one table for all threads of the node, read and written in place.
//!
//! Start at [`Registry::register`] and [`Registry::view`]. Each identity has an entry in one of several locked parts;
//! identities of its implicit registration set lead to it. At most one part is locked at a time, never over anything that
//! waits; those who change entries do so one after the other, so that an entry and what leads to it change together. The
//! table has a bound: beyond it newcomers are not remembered, and whatever is unknown is routed as if nobody had
//! registered. Opens no file: what is to be kept over a restart leaves as [`Kept`] and comes back by
//! [`Registry::restore`]. ISC-041, ISC-044 to ISC-046, ISC-058.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reachable::{Contact, Registration};

/// How many parts are locked on their own.
const PARTS: usize = 32;
/// How long it is remembered that somebody is registered no more: requests that were under way are not mistaken for
/// newer ones, and `regstate` is known.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What nobody registers longer for: some clocks end sooner than the largest number of seconds.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// All registrations of a node.
#[derive(Debug)]
pub struct Registry {
    parts: Box<[Mutex<Part>]>,
    changes: Mutex<()>,
    hasher: ahash::RandomState,
    /// Most identities that are remembered.
    most: usize,
    /// `isc.reg_grace` in milliseconds.
    grace: AtomicU64,
    entries: AtomicUsize,
    registered: AtomicUsize,
}

/// What is locked as one.
type Part = HashMap<Arc<str>, Slot>;

/// What one identity is to us.
#[derive(Debug, Default)]
struct Slot {
    own: Option<Box<Known>>,
    /// The identity in whose implicit registration set it is.
    of: Option<Arc<str>>,
}

#[derive(Debug)]
struct Known {
    registration: Registration,
    /// When its REGISTER came.
    since: Instant,
    /// Its own key and those of its implicit registration set.
    keys: Vec<Arc<str>>,
    /// Counted among the registered ones.
    counted: bool,
    /// The thread that subscribed to its registration state.
    watcher: Option<u8>,
}

/// What a request needs to know of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub registered: bool,
    pub registration: Registration,
    /// When the registration ends without another REGISTER, grace included.
    pub ends: Instant,
    /// The keys it goes by, its own first.
    pub keys: Vec<Arc<str>>,
}

/// What a REGISTER changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: a later one of the same Call-ID was here before.
    Old,
    /// Nothing: the table is full.
    Full,
    Taken(Box<Taken>),
}

/// An entry that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Registered before and now.
    pub before: bool,
    pub after: bool,
    /// When to look at it again ([`Registry::due`]).
    pub look: Instant,
    pub kept: Kept,
    pub keys: Vec<Arc<str>>,
}

/// What survives a restart of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Arc<str>,
    pub since: Instant,
    /// Nobody needs it any more from then on.
    pub until: Instant,
    pub value: Bytes,
}

/// What becomes of an entry with time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet; look again then.
    Later(Instant),
    /// Its registration has just ended without another REGISTER; look again then.
    Lapsed(Instant),
    /// It is not remembered any more.
    Forgotten,
    /// It was not known.
    Unknown,
}

impl Known {
    fn ends(&self, grace: Duration) -> Instant {
        let lasts = Duration::from_secs(self.registration.expires.into()).min(LONGEST);
        self.since + lasts + grace
    }

    /// ISC-044, ISC-045.
    fn is_registered(&self, now: Instant, grace: Duration) -> bool {
        self.registration.expires > 0 && now < self.ends(grace)
    }

    fn kept(&self, key: Arc<str>, grace: Duration) -> Kept {
        let value = serde_json::to_vec(&self.registration)
            .expect("a registration is made of texts and numbers");
        let until = self.ends(grace) + REMEMBERED;
        Kept { key, since: self.since, until, value: Bytes::from(value) }
    }
}

impl Registry {
    /// An empty table for at most `most` identities.
    pub fn new(most: usize, grace: Duration) -> Self {
        let registry = Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            changes: Mutex::default(),
            hasher: ahash::RandomState::new(),
            most: most.max(1),
            grace: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            registered: AtomicUsize::new(0),
        };
        registry.set_grace(grace);
        registry
    }

    /// `isc.reg_grace`, from now on.
    pub fn set_grace(&self, grace: Duration) {
        self.grace.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.grace.load(Ordering::Relaxed)).min(LONGEST)
    }

    /// How many identities are registered, those of implicit sets aside.
    pub fn registered(&self) -> usize {
        self.registered.load(Ordering::Relaxed)
    }

    /// How many are remembered, registered or not.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, key: &str) -> MutexGuard<'_, Part> {
        let at = self.hasher.hash_one(key) as usize % self.parts.len();
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry and the aliases that lead to it lie in several parts: who changes them is alone, who reads does not wait.
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, known: &mut Known, counts: bool) {
        match (known.counted, counts) {
            (false, true) => self.registered.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.registered.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        known.counted = counts;
    }

    /// Takes a REGISTER. `keys` are those of its identity and of its implicit registration set, its own first.
    ///
    /// ISC-041, ISC-044, ISC-045: by arrival, and under one Call-ID by CSeq.
    pub fn register(
        &self,
        now: Instant,
        keys: Vec<Arc<str>>,
        registration: Registration,
    ) -> Outcome {
        let Some(key) = keys.first().cloned() else { return Outcome::Old };
        let _alone = self.alone();
        let grace = self.grace();
        let (taken, old_keys) = {
            let mut part = self.part(&key);
            let slot = part.get(&key).and_then(|slot| slot.own.as_ref());
            let old = slot.map(|known| &known.registration);
            if old.is_some_and(|old| {
                old.call_id == registration.call_id && old.cseq >= registration.cseq
            }) {
                return Outcome::Old;
            }
            if old.is_none() && self.entries.fetch_add(1, Ordering::Relaxed) >= self.most {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                return Outcome::Full;
            }
            let slot = part.entry(Arc::clone(&key)).or_default();
            let before = slot.own.as_ref().is_some_and(|known| known.is_registered(now, grace));
            let old = slot.own.take();
            let old_keys = old.as_ref().map(|known| known.keys.clone()).unwrap_or_default();
            let mut known = Known {
                registration,
                since: now,
                keys: keys.clone(),
                counted: old.as_ref().is_some_and(|known| known.counted),
                watcher: old.and_then(|known| known.watcher),
            };
            let after = known.is_registered(now, grace);
            self.recount(&mut known, after);
            let kept = known.kept(Arc::clone(&key), grace);
            let look = if after { known.ends(grace) } else { kept.until };
            slot.own = Some(Box::new(known));
            (Taken { before, after, look, kept, keys: keys.clone() }, old_keys)
        };
        self.point(&key, &old_keys, &keys);
        Outcome::Taken(Box::new(taken))
    }

    /// Identities of an implicit registration set lead to `key`; those that are in it no more do not.
    fn point(&self, key: &Arc<str>, old: &[Arc<str>], new: &[Arc<str>]) {
        for alias in old.iter().filter(|alias| !new.contains(alias)) {
            self.unpoint(key, alias);
        }
        for alias in new.iter().filter(|alias| *alias != key) {
            self.part(alias).entry(Arc::clone(alias)).or_default().of = Some(Arc::clone(key));
        }
    }

    fn unpoint(&self, key: &Arc<str>, alias: &Arc<str>) {
        let mut part = self.part(alias);
        let Some(slot) = part.get_mut(alias) else { return };
        if slot.of.as_ref() == Some(key) {
            slot.of = None;
        }
        if slot.own.is_none() && slot.of.is_none() {
            part.remove(alias);
        }
    }

    /// What is known of a user, by any identity of its implicit registration set.
    pub fn view(&self, now: Instant, key: &str) -> Option<View> {
        let of = {
            let part = self.part(key);
            let slot = part.get(key)?;
            match &slot.own {
                Some(known) => return Some(self.see(now, known)),
                None => slot.of.clone()?,
            }
        };
        let part = self.part(&of);
        part.get(&of)?.own.as_ref().map(|known| self.see(now, known))
    }

    fn see(&self, now: Instant, known: &Known) -> View {
        let grace = self.grace();
        View {
            registered: known.is_registered(now, grace),
            registration: known.registration.clone(),
            ends: known.ends(grace),
            keys: known.keys.clone(),
        }
    }

    /// Takes what the registrar told a subscriber: all active contacts of `key`, and how long those of them that take
    /// pages have, in seconds; `None` if there is no such contact.
    ///
    /// ISC-044, ISC-048: more exact than the last REGISTER.
    pub fn reported(
        &self,
        now: Instant,
        key: &Arc<str>,
        contacts: Vec<Contact>,
        lasts: Option<u32>,
    ) -> Option<Taken> {
        let grace = self.grace();
        let mut part = self.part(key);
        let known = part.get_mut(key)?.own.as_mut()?;
        let before = known.is_registered(now, grace);
        known.registration.expires = match lasts {
            None => 0,
            Some(lasts) => {
                let age = now.saturating_duration_since(known.since).as_secs();
                let age = u32::try_from(age).unwrap_or(u32::MAX);
                known.registration.expires.max(age.saturating_add(lasts.max(1)))
            }
        };
        known.registration.contacts = contacts;
        let after = known.is_registered(now, grace);
        self.recount(known, after);
        let kept = known.kept(Arc::clone(key), grace);
        let look = if after { known.ends(grace) } else { kept.until };
        Some(Taken { before, after, look, kept, keys: known.keys.clone() })
    }

    /// Looks at an entry whose time may have come.
    ///
    /// ISC-045: a registration ends at its expiry and the grace, if no REGISTER came.
    pub fn due(&self, now: Instant, key: &Arc<str>) -> Due {
        let _alone = self.alone();
        let grace = self.grace();
        let keys = {
            let mut part = self.part(key);
            let Some(slot) = part.get_mut(key) else { return Due::Unknown };
            let Some(known) = slot.own.as_mut() else { return Due::Unknown };
            let until = known.ends(grace) + REMEMBERED;
            if known.is_registered(now, grace) {
                return Due::Later(known.ends(grace));
            }
            if known.counted {
                self.recount(known, false);
                return Due::Lapsed(until);
            }
            if now < until {
                return Due::Later(until);
            }
            let keys = std::mem::take(&mut known.keys);
            slot.own = None;
            if slot.of.is_none() {
                part.remove(key);
            }
            keys
        };
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.point(key, &keys, &[]);
        Due::Forgotten
    }

    /// Takes back what was kept, `age` after it was. What cannot be read, or has ended, is left out.
    pub fn restore(
        &self,
        now: Instant,
        keys: impl FnOnce(&Registration) -> Vec<Arc<str>>,
        age: Duration,
        value: &[u8],
    ) -> Option<Taken> {
        let mut registration: Registration = serde_json::from_slice(value).ok()?;
        if registration.identity.is_empty() {
            return None;
        }
        let keys = keys(&registration);
        // How long ago it was, where the clock began before.
        let since = now.checked_sub(age).unwrap_or_else(|| {
            let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            registration.expires = registration.expires.saturating_sub(age);
            now
        });
        match self.register(since, keys, registration) {
            Outcome::Taken(taken) => Some(*taken),
            Outcome::Old | Outcome::Full => None,
        }
    }

    /// One thread at a time subscribes to a user's registration state.
    pub fn claim(&self, key: &str, thread: u8) -> bool {
        let mut part = self.part(key);
        let Some(known) = part.get_mut(key).and_then(|slot| slot.own.as_mut()) else {
            return false;
        };
        match known.watcher {
            Some(other) => other == thread,
            None => {
                known.watcher = Some(thread);
                true
            }
        }
    }

    /// That thread's subscription is over.
    pub fn unclaim(&self, key: &str, thread: u8) {
        let mut part = self.part(key);
        let known = part.get_mut(key).and_then(|slot| slot.own.as_mut());
        if let Some(known) = known.filter(|known| known.watcher == Some(thread)) {
            known.watcher = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "an Instant cannot be made of nothing")]
    fn start() -> Instant {
        Instant::now()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn keys(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn told(call_id: &str, expires: u32) -> Registration {
        Registration {
            identity: "sip:alice@h".to_owned(),
            scscf: "sip:scscf.h".to_owned(),
            call_id: call_id.to_owned(),
            cseq: 1,
            expires,
            ..Registration::default()
        }
    }

    fn taken(outcome: Outcome) -> Taken {
        match outcome {
            Outcome::Taken(taken) => *taken,
            other => panic!("{other:?}"),
        }
    }

    fn is_registered(registry: &Registry, now: Instant, key: &str) -> Option<bool> {
        registry.view(now, key).map(|view| view.registered)
    }

    #[test]
    fn a_user_is_known_by_every_name_of_its_implicit_set_and_by_no_other() {
        let registry = Registry::new(10, GRACE);
        let now = start();
        registry.register(now, keys(&["alice", "tel", "alias"]), told("1", 600));
        registry.register(now, keys(&["bob"]), told("2", 600));
        for key in ["alice", "tel", "alias"] {
            assert_eq!(is_registered(&registry, now, key), Some(true), "{key}");
        }
        assert_eq!((registry.registered(), registry.len()), (2, 2));
        // The set gets smaller, and an identity of it registers on its own.
        registry.register(now, keys(&["alice", "tel"]), told("3", 600));
        assert_eq!(is_registered(&registry, now, "alias"), None);
        registry.register(now, keys(&["tel"]), told("4", 0));
        assert_eq!(is_registered(&registry, now, "tel"), Some(false));
        assert_eq!(is_registered(&registry, now, "alice"), Some(true));
        assert_eq!((registry.registered(), registry.len()), (2, 3));
        // In the end nothing is left of anybody.
        let later = now + seconds(600 + 60 + 3600);
        for key in ["alice", "bob", "tel"] {
            assert!(matches!(
                registry.due(now + seconds(661), &key.into()),
                Due::Lapsed(_) | Due::Later(_)
            ));
            assert_eq!(registry.due(later, &key.into()), Due::Forgotten, "{key}");
            assert_eq!(registry.due(later, &key.into()), Due::Unknown, "{key}");
        }
        assert_eq!((registry.registered(), registry.len()), (0, 0));
        assert!(registry.parts.iter().all(|part| part.lock().expect("no panic").is_empty()));
    }

    #[test]
    fn a_full_table_takes_no_newcomers_but_goes_on_for_those_it_knows() {
        let registry = Registry::new(2, GRACE);
        let now = start();
        for (key, call) in [("alice", "1"), ("bob", "2")] {
            taken(registry.register(now, keys(&[key]), told(call, 600)));
        }
        assert_eq!(registry.register(now, keys(&["carol"]), told("3", 600)), Outcome::Full);
        assert_eq!(is_registered(&registry, now, "carol"), None);
        let again = taken(registry.register(now, keys(&["alice"]), told("4", 0)));
        assert_eq!((again.before, again.after), (true, false));
        // Room is made by time.
        assert_eq!(registry.due(now + seconds(3660), &"alice".into()), Due::Forgotten);
        taken(registry.register(now, keys(&["carol"]), told("5", 600)));
    }

    /// Proves ISC-045.
    #[test]
    fn one_registration_after_the_other() {
        let registry = Registry::new(10, GRACE);
        let now = start();
        let first = taken(registry.register(now, keys(&["alice"]), told("1", 600)));
        assert_eq!((first.before, first.after, first.look), (false, true, now + seconds(660)));
        // The same once more is no news.
        assert_eq!(registry.register(now, keys(&["alice"]), told("1", 600)), Outcome::Old);
        let second = taken(registry.register(now + seconds(599), keys(&["alice"]), told("2", 600)));
        assert_eq!((second.before, second.after), (true, true));
        assert_eq!(registry.due(now + seconds(660), &"alice".into()), Due::Later(second.look));
        assert_eq!(is_registered(&registry, second.look - seconds(1), "alice"), Some(true));
        assert_eq!(is_registered(&registry, second.look, "alice"), Some(false));
        assert_eq!(
            registry.due(second.look, &"alice".into()),
            Due::Lapsed(second.look + REMEMBERED)
        );
        registry.set_grace(Duration::ZERO);
        let third = taken(registry.register(second.look, keys(&["alice"]), told("3", 10)));
        assert_eq!((third.before, third.look), (false, second.look + seconds(10)));
        // Longer than any clock: still some time that can be told.
        let ever = taken(registry.register(second.look, keys(&["alice"]), told("4", u32::MAX)));
        assert!(ever.look > second.look + seconds(86_400 * 3650));
    }

    #[test]
    fn what_was_kept_comes_back_with_its_age() {
        let registry = Registry::new(10, GRACE);
        let now = start() + seconds(10_000);
        let kept = taken(registry.register(now, keys(&["alice", "tel"]), told("1", 600))).kept;
        let other = Registry::new(10, GRACE);
        let of = |_: &Registration| keys(&["alice", "tel"]);
        other.restore(now, of, seconds(100), &kept.value).expect("it reads back");
        assert_eq!(is_registered(&other, now + seconds(559), "tel"), Some(true));
        assert_eq!(is_registered(&other, now + seconds(560), "tel"), Some(false));
        for broken in [&b"{"[..], b"[]", b"{\"expires\":\"x\"}"] {
            assert!(other.restore(now, of, seconds(0), broken).is_none());
        }
    }

    #[test]
    fn one_thread_watches_a_user() {
        let registry = Registry::new(10, GRACE);
        let now = start();
        assert!(!registry.claim("alice", 1), "nobody knows her");
        registry.register(now, keys(&["alice"]), told("1", 600));
        assert!(registry.claim("alice", 1) && registry.claim("alice", 1));
        assert!(!registry.claim("alice", 2));
        registry.unclaim("alice", 2);
        registry.register(now, keys(&["alice"]), told("2", 600));
        assert!(!registry.claim("alice", 2), "a REGISTER changes nothing about that");
        registry.unclaim("alice", 1);
        assert!(registry.claim("alice", 2));
    }

    #[test]
    fn many_threads_at_once_leave_it_whole() {
        let registry = Registry::new(1000, GRACE);
        let now = start();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let registry = &registry;
                scope.spawn(move || {
                    for n in 0..500_u32 {
                        let (user, other) = (format!("u{}", n % 20), format!("u{}", (n + 1) % 20));
                        let expires = if (n + thread) % 3 == 0 { 0 } else { 600 };
                        let call = format!("{thread}-{n}");
                        registry.register(now, keys(&[&user, &other]), told(&call, expires));
                        registry.view(now, &other);
                        registry.due(now, &user.as_str().into());
                    }
                });
            }
        });
        let all = (0..20).filter(|n| is_registered(&registry, now, &format!("u{n}")) == Some(true));
        assert_eq!(registry.registered(), all.count());
        assert_eq!(registry.len(), 20);
    }
}
