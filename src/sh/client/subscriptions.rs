//! Which changes the HSS tells us of, and until when: no I/O, `now` is an argument.
//!
//! Start at [`Subscriptions::keep`]. Bounded: what nobody has used for longest is given up (SH-049).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::data::{Data, Key, Kind, Subject};
use super::wildcard::Wildcard;
use crate::sh::identity::Identity;

/// SH-047: what never ends is asserted again after this time.
pub const REASSERT: Duration = Duration::from_secs(86_400);
/// One that could not be refreshed is tried again after this time.
pub const AGAIN: Duration = Duration::from_secs(30);

/// One subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub subject: Subject,
    pub wildcard: Option<Wildcard>,
    /// Nothing is told after it; `None`: for ever.
    pub expires: Option<Instant>,
    /// When to ask again.
    pub refresh: Instant,
    /// The HSS has said so since this process began.
    pub confirmed: bool,
}

impl Subscription {
    /// Until when data may be trusted that changes are told of; `None` while nobody has confirmed it (SH-048).
    pub fn valid_until(&self) -> Option<Instant> {
        // A little past the next refresh, which ends it where it fails.
        let end = self.expires.unwrap_or(self.refresh + 2 * AGAIN);
        self.confirmed.then_some(end)
    }
}

/// What survives a restart. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The identity that is subscribed to, as named to the HSS.
    pub identity: String,
    pub kind: Kind,
    pub wildcard: Option<Wildcard>,
    pub data: Data,
    /// `None`: for ever.
    pub expires: Option<u64>,
}

#[derive(Debug)]
struct Held {
    subscription: Subscription,
    used: u64,
    due: (Instant, u64),
}

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    held: HashMap<Key, Held>,
    by_use: BTreeMap<u64, Key>,
    due: BTreeMap<(Instant, u64), Key>,
    /// How many there are of each identity.
    identities: HashMap<Identity, usize>,
    serial: u64,
}

impl Subscriptions {
    /// Notes a subscription, new or renewed. Returns those given up for it.
    pub fn keep(
        &mut self,
        key: Key,
        subscription: Subscription,
        most: usize,
    ) -> Vec<(Key, Subscription)> {
        let due = (subscription.refresh, self.next_serial());
        match self.held.get_mut(&key) {
            Some(held) => {
                self.due.remove(&held.due);
                (held.subscription, held.due) = (subscription, due);
            }
            None => {
                let used = self.next_serial();
                self.by_use.insert(used, key.clone());
                *self.identities.entry(key.identity.clone()).or_insert(0) += 1;
                self.held.insert(key.clone(), Held { subscription, used, due });
            }
        }
        self.due.insert(due, key);
        let mut given_up = Vec::new();
        while self.held.len() > most.max(1) {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = oldest.clone();
            given_up.extend(self.remove(&oldest).map(|subscription| (oldest, subscription)));
        }
        given_up
    }

    /// Somebody needs it.
    pub fn used(&mut self, key: &Key) {
        let used = self.next_serial();
        if let Some(held) = self.held.get_mut(key) {
            self.by_use.remove(&std::mem::replace(&mut held.used, used));
            self.by_use.insert(used, key.clone());
        }
    }

    /// The subscription of a key.
    pub fn get(&self, key: &Key) -> Option<&Subscription> {
        self.held.get(key).map(|held| &held.subscription)
    }

    /// Ends one.
    pub fn remove(&mut self, key: &Key) -> Option<Subscription> {
        let held = self.held.remove(key)?;
        self.by_use.remove(&held.used);
        self.due.remove(&held.due);
        if let Some(count) = self.identities.get_mut(&key.identity) {
            *count -= 1;
            if *count == 0 {
                self.identities.remove(&key.identity);
            }
        }
        Some(held.subscription)
    }

    /// Whether anything of that identity is subscribed to.
    pub fn knows(&self, identity: &Identity) -> bool {
        self.identities.contains_key(identity)
    }

    /// Everything subscribed to of an identity.
    pub fn of(&self, identity: &Identity) -> Vec<Key> {
        if !self.knows(identity) {
            return Vec::new();
        }
        self.held.keys().filter(|key| key.identity == *identity).cloned().collect()
    }

    /// When the next one has to be asked for again.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes at most `most` of those due. Each is due again a while later unless it was renewed by then.
    pub fn take_due(&mut self, now: Instant, most: usize) -> Vec<(Key, Subscription)> {
        let mut taken = Vec::new();
        while taken.len() < most && self.next().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            let due = (now + AGAIN, self.next_serial());
            if let Some(held) = self.held.get_mut(&key) {
                held.due = due;
                taken.push((key.clone(), held.subscription.clone()));
                self.due.insert(due, key);
            }
        }
        taken
    }

    /// All of them are asked for again, spread over a while.
    pub fn reassert(&mut self, now: Instant, over: Duration) {
        let keys: Vec<Key> = self.held.keys().cloned().collect();
        let step = over / u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX);
        for (at, key) in keys.into_iter().enumerate() {
            let wait = step * u32::try_from(at).unwrap_or(u32::MAX);
            let due = (now + wait, self.next_serial());
            if let Some(held) = self.held.get_mut(&key)
                && due.0 < held.due.0
            {
                self.due.remove(&held.due);
                held.due = due;
                self.due.insert(due, key);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// SH-047: when to ask again for what ends at `expires`: once four fifths of the time are over.
pub fn refresh_at(now: Instant, expires: Option<Instant>) -> Instant {
    match expires {
        Some(expires) => now + expires.saturating_duration_since(now).mul_f64(0.8),
        None => now + REASSERT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> Key {
        let identity = Identity::canonical(&format!("sip:{user}@b")).expect("a URI");
        Key { identity, data: Data::UserState }
    }

    fn subscription(user: &str, refresh: Instant) -> Subscription {
        Subscription {
            subject: Subject { identity: key(user).identity, kind: Kind::User },
            wildcard: None,
            expires: None,
            refresh,
            confirmed: true,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Proves SH-049.
    #[test]
    fn what_nobody_used_for_longest_is_given_up() {
        let t = start();
        let mut all = Subscriptions::default();
        for user in ["a", "b", "c"] {
            assert!(all.keep(key(user), subscription(user, t), 3).is_empty());
        }
        all.used(&key("a"));
        let given_up = all.keep(key("d"), subscription("d", t), 3);
        assert_eq!(given_up.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key("b")]);
        assert!(!all.knows(&key("b").identity) && all.knows(&key("a").identity));
        assert_eq!(
            (all.len(), all.due.len(), all.by_use.len(), all.identities.len()),
            (3, 3, 3, 3)
        );
        // Renewing is no use.
        all.keep(key("c"), subscription("c", t), 3);
        let given_up = all.keep(key("e"), subscription("e", t), 3);
        assert_eq!(given_up[0].0, key("c"));
    }

    /// Proves SH-047.
    #[test]
    fn each_is_due_at_its_time_and_again_until_it_is_renewed() {
        let t = start();
        let mut all = Subscriptions::default();
        all.keep(key("a"), subscription("a", t + secs(48)), 9);
        all.keep(key("b"), subscription("b", t + secs(10)), 9);
        assert_eq!(all.next(), Some(t + secs(10)));
        assert!(all.take_due(t + secs(9), 9).is_empty());
        assert_eq!(all.take_due(t + secs(10), 9)[0].0, key("b"));
        assert_eq!(all.next(), Some(t + secs(40)), "again after a while");
        all.keep(key("b"), subscription("b", t + secs(100)), 9);
        assert_eq!(all.next(), Some(t + secs(48)));
        all.remove(&key("a"));
        assert_eq!(all.next(), Some(t + secs(100)));
        all.reassert(t + secs(50), secs(10));
        assert_eq!(all.next(), Some(t + secs(50)));
        assert_eq!(refresh_at(t, Some(t + secs(60))), t + secs(48));
        assert_eq!(refresh_at(t, None), t + secs(86_400));
        assert_eq!(refresh_at(t + secs(5), Some(t)), t + secs(5));
    }
}
