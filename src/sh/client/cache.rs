//! What is known, and how long it may be used: no I/O, `now` is an argument.
//!
//! Start at [`Cache::look`]. Bounded: what was used last stays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::data::{Data, IdentitySet, Key};
use crate::sh::identity::Identity;
use crate::sh::userdata::{Charging, Presence, UserState};

/// SH-050: longest life of "there is none".
pub const NEGATIVE: Duration = Duration::from_secs(60);
/// SH-051: how long after its end data may still be used when there is no HSS.
pub const STALE: Duration = Duration::from_secs(600);

/// One piece of data.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Repository(Slot),
    Identities(Arc<[String]>),
    UserState(UserState),
    /// `None`: no S-CSCF serves the user.
    ServingCscf(Option<Arc<str>>),
    Charging(Arc<Charging>),
    PsiActivation(bool),
}

/// What a slot of the repository holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    pub sequence: u16,
    /// The XML inside `ServiceData`; `None` where that is empty.
    pub xml: Option<Arc<str>>,
}

/// SH-056: what users have stored is printed nowhere.
impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({}, {:?} octets)", self.sequence, self.xml.as_ref().map(|xml| xml.len()))
    }
}

impl Slot {
    /// A slot from what stands in a document; `None`: it is absent.
    pub fn new(sequence: u16, data: &Presence<String>) -> Option<Self> {
        match data {
            Presence::Absent => None,
            Presence::Empty => Some(Self { sequence, xml: None }),
            Presence::Present(xml) => Some(Self { sequence, xml: Some(xml.as_str().into()) }),
        }
    }
}

/// What a look at the cache finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Valid; `None`: known to be absent.
    Fresh(Option<Value>),
    /// Over, but of use where nothing better can be had (SH-051).
    Stale(Option<Value>),
    Unknown,
}

#[derive(Debug)]
struct Entry {
    value: Option<Value>,
    until: Instant,
    used: u64,
}

/// Everything known of users and services.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// By last use, for the bound.
    order: BTreeMap<u64, Key>,
    uses: u64,
    most: usize,
    ttl: Duration,
}

impl Cache {
    /// At most `most` entries; `ttl` without a subscription, a fifth of it for what changes as users come and go.
    ///
    /// SH-050: by default 300 s and 60 s.
    pub fn new(most: usize, ttl: Duration) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), uses: 0, most: most.max(1), ttl }
    }

    /// What is known of `key`.
    pub fn look(&mut self, key: &Key, now: Instant) -> Look {
        let Some(entry) = self.entries.get_mut(key) else { return Look::Unknown };
        if entry.until + STALE <= now {
            let used = entry.used;
            self.entries.remove(key);
            self.order.remove(&used);
            return Look::Unknown;
        }
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, key);
        }
        entry.used = self.uses;
        let value = entry.value.clone();
        if entry.until > now { Look::Fresh(value) } else { Look::Stale(value) }
    }

    /// What is known, whether it is still valid or not; nobody uses it by this.
    pub fn peek(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).and_then(|entry| entry.value.as_ref())
    }

    /// Takes what an answer said. `subscribed`: until when changes are told.
    ///
    /// SH-050: what is absent is absent for [`NEGATIVE`] at most.
    pub fn put(
        &mut self,
        key: Key,
        value: Option<Value>,
        subscribed: Option<Instant>,
        now: Instant,
    ) {
        let ttl = if key.data.is_state() { self.ttl / 5 } else { self.ttl };
        let until = match (&value, subscribed) {
            (None, _) => now + ttl.min(NEGATIVE),
            (Some(_), Some(until)) => until,
            (Some(_), None) => now + ttl,
        };
        self.remove(&key);
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, until, used: self.uses });
        self.shrink();
    }

    /// Changes are told until then, or no longer: an entry that is there is valid as long.
    pub fn extend(&mut self, key: &Key, subscribed: Option<Instant>, now: Instant) {
        let ttl = if key.data.is_state() { self.ttl / 5 } else { self.ttl };
        if let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.value.is_some()) {
            entry.until = subscribed.unwrap_or_else(|| entry.until.min(now + ttl));
        }
    }

    /// It is asked for again next time; of use until then where there is no HSS.
    pub fn expire(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.until = entry.until.min(now);
        }
    }

    /// Everything is asked for again (SH-016).
    pub fn expire_all(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.until = entry.until.min(now);
        }
    }

    /// Drops one entry.
    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
        }
    }

    /// Drops everything of an identity that is no longer (SH-046).
    pub fn purge(&mut self, identity: &Identity) {
        let gone: Vec<Key> =
            self.entries.keys().filter(|key| key.identity == *identity).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// SH-050: the same slot under the other names of the user, as far as they are known.
    pub fn siblings(&self, key: &Key) -> Vec<Key> {
        let names = Key { data: Data::Identities(IdentitySet::Alias), ..key.clone() };
        let Some(Value::Identities(names)) = self.peek(&names) else { return Vec::new() };
        names
            .iter()
            .filter_map(|name| Identity::canonical(name))
            .filter(|name| *name != key.identity)
            .map(|identity| Key { identity, data: key.data.clone() })
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn shrink(&mut self) {
        while self.entries.len() > self.most {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn key(user: &str, data: Data) -> Key {
        Key { identity: Identity::canonical(user).expect("a URI"), data }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Proves SH-050, SH-051.
    #[test]
    fn data_is_fresh_then_stale_then_unknown() {
        let t = start();
        let mut cache = Cache::new(10, TTL);
        let charging = key("sip:a@b", Data::Charging);
        let state = key("sip:a@b", Data::UserState);
        let none = key("sip:a@b", Data::PsiActivation);
        let followed = key("sip:c@b", Data::UserState);
        let registered = Some(Value::UserState(UserState::Registered));
        let functions = Some(Value::Charging(Arc::default()));
        cache.put(charging.clone(), functions.clone(), None, t);
        cache.put(state.clone(), registered.clone(), None, t);
        cache.put(none.clone(), None, Some(t + secs(86_400)), t);
        cache.put(followed.clone(), registered.clone(), Some(t + secs(1000)), t);
        for (key, value, life) in [
            (&charging, &functions, 300),
            (&state, &registered, 60),
            (&none, &None, 60),
            (&followed, &registered, 1000),
        ] {
            assert_eq!(cache.look(key, t + secs(life - 1)), Look::Fresh(value.clone()), "{key:?}");
            assert_eq!(cache.look(key, t + secs(life)), Look::Stale(value.clone()), "{key:?}");
            assert_eq!(cache.look(key, t + secs(life + 599)), Look::Stale(value.clone()));
            assert_eq!(cache.look(key, t + secs(life + 600)), Look::Unknown, "{key:?}");
        }
        assert!(cache.len() == 0 && cache.order.is_empty());
    }

    #[test]
    fn what_was_used_last_stays() {
        let t = start();
        let mut cache = Cache::new(3, TTL);
        let keys: Vec<Key> =
            (0..4).map(|n| key(&format!("sip:u{n}@b"), Data::PsiActivation)).collect();
        for known in &keys[..3] {
            cache.put(known.clone(), Some(Value::PsiActivation(true)), None, t);
        }
        assert!(matches!(cache.look(&keys[0], t), Look::Fresh(_)));
        cache.put(keys[3].clone(), Some(Value::PsiActivation(true)), None, t);
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.look(&keys[1], t), Look::Unknown);
        assert!(matches!(cache.look(&keys[0], t), Look::Fresh(_)));
    }

    /// Proves SH-046, SH-050.
    #[test]
    fn an_identity_that_is_gone_leaves_nothing_and_aliases_share_slots() {
        let t = start();
        let mut cache = Cache::new(10, TTL);
        let slot = Data::Repository("s".into());
        let alice = key("sip:alice@b", slot.clone());
        let names: Arc<[String]> = vec!["sip:alice@b".to_owned(), "tel:+49170".to_owned()].into();
        let aliases = key("sip:alice@b", Data::Identities(IdentitySet::Alias));
        cache.put(aliases.clone(), Some(Value::Identities(names)), None, t);
        cache.put(alice.clone(), Some(Value::Repository(Slot { sequence: 1, xml: None })), None, t);
        assert_eq!(cache.siblings(&alice), [key("tel:+49170", slot)]);
        cache.purge(&alice.identity);
        assert!(cache.len() == 0 && cache.order.is_empty());
        assert_eq!(cache.siblings(&alice), []);
    }
}
