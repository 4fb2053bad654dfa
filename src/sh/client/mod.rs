//! The client: questions to the HSS, what is known already, and what it tells us by itself.
//!
//! ```text
//! questions        what the rest of the server asks; every answer is data, absent or unavailable
//! pull, subscribe  one request a key, whoever waits for it; subscriptions and their refresh
//! update           read, change, write
//! push             the HSS tells of a change
//! exchange         one request until its result is final: features, bindings, wildcards, repetition
//! cache, subscriptions, data, wildcard   what is known, by key; no I/O
//! hss              who carries the requests, who keeps things
//! ```
//!
//! Start at [`Client::new`] and `questions`. SIP never waits for it longer than [`PATIENCE`]; what comes later is of use to
//! the next question. Logs name nobody (SH-056).

mod cache;
mod data;
mod exchange;
mod hss;
mod pull;
mod push;
mod questions;
mod subscribe;
mod subscriptions;
mod update;
mod wildcard;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

pub use cache::Slot;
pub use data::{Data, IdentitySet, Kind, Operation, Subject};
pub use hss::{Asking, Binding, House, Hss, Moment};
pub use push::not_yet;
pub use questions::{Answer, Probed};
pub use subscriptions::Kept;
pub use update::NotWritten;

use cache::{Cache, Value};
use data::Key;
use subscriptions::Subscriptions;
use wildcard::Wildcard;

use super::codec::Message;
use super::identity::Identity;

/// ISC-059: longest wait of a question.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Section 10.1 of the rules: how long data is left alone that the HSS does not give us.
const SUSPENDED: Duration = Duration::from_secs(900);
/// Most HSSs whose features are remembered.
const MOST_HOSTS: usize = 256;
/// Most notifications whose repetition is recognised.
const MOST_PUSHES: usize = 4096;

/// What operators choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our own name, as the HSS addresses notifications (SH-045).
    pub origin_host: String,
    pub origin_realm: String,
    /// SH-050: `sh.cache_ttl`.
    pub cache_ttl: Duration,
    /// SH-047: `sh.subscription_time`.
    pub subscription_time: Duration,
    /// SH-049: `sh.max_subscriptions`; see [`Settings::most_known`].
    pub max_subscriptions: usize,
    /// SH-026: `sh.hss_binding_ttl`.
    pub binding_ttl: Duration,
    /// The slot with the service settings of users: `sh.service_indication`.
    pub service_indication: Arc<str>,
}

impl Settings {
    /// Most values known at a time, and most questions waiting for an answer: what is subscribed to and as much again.
    fn most_known(&self) -> usize {
        self.max_subscriptions.saturating_mul(2).saturating_add(1000)
    }
}

/// Everything this server knows of users by Sh. One for a node.
pub struct Client {
    settings: Settings,
    hss: Arc<dyn Hss>,
    house: Box<dyn House>,
    state: Mutex<State>,
    /// There is something to do for [`Client::run`].
    work: Notify,
    runtime: Handle,
    /// Makes pseudonyms in logs unlike those of any other run (SH-056).
    salt: u64,
}

struct State {
    cache: Cache,
    subscriptions: Subscriptions,
    /// Who is being asked about, and where the answer will be.
    flights: HashMap<Key, Flight>,
    /// Identities a subscription is being asked for, and how many.
    subscribing: HashMap<Identity, usize>,
    /// Given up and not yet told to the HSS.
    given_up: VecDeque<(Key, subscriptions::Subscription)>,
    bindings: Bounded<Identity, (Binding, Instant)>,
    wildcards: Bounded<Identity, Wildcard>,
    /// Feature bits of list 1, by HSS.
    features: Bounded<String, u32>,
    last_host: Option<String>,
    suspended: HashMap<(Operation, u32), Instant>,
    /// Answers to notifications, by who sent them and under which number.
    pushes: Bounded<(String, u32), Message>,
    /// How many changes were told when the last one of each key was: what was asked for before is older.
    told: Bounded<Key, u64>,
    tellings: u64,
    writing: HashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    last_error: Option<String>,
}

struct Flight {
    outcome: watch::Receiver<Option<Known>>,
    /// How much the HSS had told when the question left.
    told: u64,
}

/// What is known of a key in the end.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Value(Value),
    Absent,
    Unavailable,
}

impl From<Option<Value>> for Known {
    fn from(value: Option<Value>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

impl Client {
    /// A client that asks by `hss`. Its tasks run on the runtime this is called in; [`Client::run`] is one more.
    pub fn new(
        settings: Settings,
        hss: Arc<dyn Hss>,
        house: Box<dyn House>,
        salt: u64,
    ) -> Arc<Self> {
        let most = settings.most_known();
        let state = State {
            cache: Cache::new(most, settings.cache_ttl),
            subscriptions: Subscriptions::default(),
            flights: HashMap::new(),
            subscribing: HashMap::new(),
            given_up: VecDeque::new(),
            bindings: Bounded::new(most),
            wildcards: Bounded::new(most),
            features: Bounded::new(MOST_HOSTS),
            last_host: None,
            suspended: HashMap::new(),
            pushes: Bounded::new(MOST_PUSHES),
            told: Bounded::new(most),
            tellings: 0,
            writing: HashMap::new(),
            last_error: None,
        };
        Arc::new(Self {
            settings,
            hss,
            house,
            state: Mutex::new(state),
            work: Notify::new(),
            runtime: Handle::current(),
            salt,
        })
    }

    /// The last thing that went wrong with the HSS.
    pub fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// How many subscriptions and cached values there are.
    pub fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.subscriptions.len(), state.cache.len())
    }

    /// What is known may be out of date: an HSS was away or has started anew (SH-015, SH-016). Data is asked for again,
    /// subscriptions are asserted again within a minute.
    pub fn revalidate(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.cache.expire_all(now);
        state.subscriptions.reassert(now, Duration::from_secs(60));
        drop(state);
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.house.moment().now
    }

    /// SH-056: how logs name an identity.
    fn alias(&self, identity: &Identity) -> String {
        identity.pseudonym(self.salt)
    }

    /// The key something of that subject is kept under.
    fn key(state: &State, subject: &Subject, data: Data) -> Key {
        let wildcard = state.wildcards.get(&subject.identity).map(Wildcard::identity);
        Key { identity: wildcard.unwrap_or_else(|| subject.identity.clone()), data }
    }
}

impl State {
    /// Whether the HSS lets us.
    fn is_suspended(&mut self, operation: Operation, data: &Data, now: Instant) -> bool {
        let until = self.suspended.get(&(operation, data.reference()));
        until.is_some_and(|until| *until > now)
    }

    /// Until when changes of `key` are told.
    fn subscribed(&self, key: &Key) -> Option<Instant> {
        self.subscriptions.get(key).and_then(subscriptions::Subscription::valid_until)
    }
}

/// A map that forgets what came first when it is full.
struct Bounded<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most: most.max(1) }
    }

    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        // What was removed is still in the order; it counts until it comes off.
        while self.order.len() > self.most {
            let Some(oldest) = self.order.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        if self.entries.remove(key).is_some() {
            self.order.retain(|known| known.borrow() != key);
        }
    }
}

#[cfg(test)]
mod tests;
