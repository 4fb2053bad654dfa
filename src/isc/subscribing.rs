//! Subscriptions of ours to an event package: asked for, refreshed, asked for again later and later.
//!
//! Start at [`Subscriptions`]; what is subscribed to and what a NOTIFY says is known by those who hold one (`watching`,
//! `following`). Pure: time is an argument, and everything is sent through the [`Ua`]. RFC 6665, the subscriber's side.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::rules::syntax::param;
use crate::sip::message::{Message, Name};
use crate::sip::ua::{OutRequest, SubscriptionKey, Ua};

/// The first wait after a failure; each one more doubles it, up to an hour.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(30);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// So long before its end a subscription is refreshed, if it lasts more than twice that; else at half its time.
const REFRESH_BEFORE: u32 = 600;

/// What an event package lays down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package {
    /// As Event names it.
    pub name: &'static str,
    /// Seconds a subscription lasts where the notifier does not say it.
    pub usual: u32,
    /// Answers after which there is no use in asking again.
    pub hopeless: &'static [u16],
}

impl Package {
    /// Whether a message is about it.
    pub fn is_of(&self, message: &Message) -> bool {
        let event = message.text(Name::Event).and_then(|event| event.split(';').next());
        event.is_some_and(|event| event.trim().eq_ignore_ascii_case(self.name))
    }
}

/// What became of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It stands, or is asked for.
    Goes,
    /// It is over, and asked for again in time.
    Waits,
    /// It is over and there is no use in asking again: [`Subscriptions::end`] or [`Subscriptions::later`].
    Hopeless,
}

/// Subscriptions by what they are to; `T` is what one has told so far, made anew with each.
///
/// Contract: [`Subscriptions::due`] at [`Subscriptions::next_wake`] at the latest, until it gives nothing.
pub(super) struct Subscriptions<K, T> {
    entries: HashMap<K, Entry<T>>,
    of: HashMap<SubscriptionKey, K>,
    due: BTreeSet<(Instant, K)>,
}

impl<K, T> Default for Subscriptions<K, T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), of: HashMap::new(), due: BTreeSet::new() }
    }
}

struct Entry<T> {
    /// `None` while the next try is awaited.
    subscription: Option<SubscriptionKey>,
    /// A SUBSCRIBE has no answer yet.
    asked: bool,
    told: T,
    /// When the notifier granted it.
    granted: Option<Instant>,
    /// How often it failed, or did not last.
    failures: u32,
    /// When to refresh or to try again.
    at: Option<Instant>,
    /// Least time the notifier grants, once it has said so.
    least: u32,
}

impl<T> Entry<T> {
    /// It was granted, and not just now.
    fn lasted(&self, now: Instant) -> bool {
        self.granted.is_some_and(|since| now.saturating_duration_since(since) >= FIRST_WAIT)
    }
}

impl<K: Clone + Eq + Hash + Ord, T: Default> Subscriptions<K, T> {
    pub fn next_wake(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a subscription is to.
    pub fn key_of(&self, subscription: SubscriptionKey) -> Option<K> {
        self.of.get(&subscription).cloned()
    }

    /// `None` for what was never asked for, or ended.
    pub fn is_subscribed(&self, key: &K) -> Option<bool> {
        self.entries.get(key).map(|entry| entry.subscription.is_some())
    }

    pub fn told(&self, key: &K) -> Option<&T> {
        self.entries.get(key).map(|entry| &entry.told)
    }

    pub fn told_mut(&mut self, key: &K) -> Option<&mut T> {
        self.entries.get_mut(key).map(|entry| &mut entry.told)
    }

    /// Least time to ask for, seconds.
    pub fn least(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.least)
    }

    fn set(&mut self, key: &K, at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut entry.at, at) {
            self.due.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, key.clone()));
        }
    }

    /// The first SUBSCRIBE of a subscription; `false` where there is no room for it.
    pub fn begin(&mut self, now: Instant, ua: &mut Ua, key: &K, request: OutRequest) -> bool {
        let Some(subscription) = ua.subscribe(now, request) else { return false };
        self.set(key, None);
        let old = self.entries.get(key);
        let (failures, least) = old.map_or((0, 0), |old| (old.failures, old.least));
        if let Some(old) = old.and_then(|old| old.subscription) {
            self.of.remove(&old);
            ua.forget_subscription(old);
        }
        self.of.insert(subscription, key.clone());
        let entry = Entry {
            subscription: Some(subscription),
            asked: true,
            told: T::default(),
            granted: None,
            failures,
            at: None,
            least,
        };
        self.entries.insert(key.clone(), entry);
        true
    }

    /// SUBSCRIBE in the dialog, with these lines and body; `false` while the one before has no answer.
    pub fn again(
        &mut self,
        now: Instant,
        ua: &mut Ua,
        key: &K,
        (lines, body): (Bytes, Option<(String, Bytes)>),
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(subscription) = entry.subscription.filter(|_| !entry.asked) else { return false };
        entry.asked = true;
        ua.subscribe_again(now, subscription, lines, body);
        true
    }

    /// Nothing more is asked about this.
    pub fn end(&mut self, ua: &mut Ua, key: &K) {
        self.set(key, None);
        if let Some(entry) = self.entries.remove(key)
            && let Some(subscription) = entry.subscription
        {
            self.of.remove(&subscription);
            ua.forget_subscription(subscription);
        }
    }

    /// The subscription is over, and another one may be asked for at once: but not again and again of a notifier that
    /// grants none, or none that lasts.
    fn anew(&mut self, now: Instant, ua: &mut Ua, key: &K) {
        let entry = self.entries.get(key);
        let first = entry.is_some_and(|entry| entry.failures == 0 || entry.lasted(now));
        self.later(now, ua, key, first.then_some(Duration::ZERO));
    }

    /// The subscription is over or never was: another one after a while.
    pub fn later(&mut self, now: Instant, ua: &mut Ua, key: &K, wait: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.lasted(now) {
            entry.failures = 0;
        }
        entry.granted = None;
        let own = FIRST_WAIT * 2_u32.pow(entry.failures.min(7));
        entry.failures += 1;
        entry.asked = false;
        entry.told = T::default();
        if let Some(subscription) = entry.subscription.take() {
            self.of.remove(&subscription);
            ua.forget_subscription(subscription);
        }
        let wait = wait.unwrap_or(own).min(LONGEST_WAIT);
        self.set(key, Some(now + wait));
    }

    /// The subscription ends in so many seconds: it is refreshed before.
    fn lasts(&mut self, now: Instant, key: &K, seconds: u32) {
        let refresh =
            if seconds > 2 * REFRESH_BEFORE { seconds - REFRESH_BEFORE } else { seconds / 2 };
        let wait = Duration::from_secs(refresh.max(1).into()).min(10 * 24 * LONGEST_WAIT);
        self.set(key, Some(now + wait));
    }

    /// The answer to a SUBSCRIBE; anything but a grant or what is hopeless is tried again, later and later.
    pub fn answered(
        &mut self,
        now: Instant,
        ua: &mut Ua,
        key: &K,
        (status, message): (u16, Option<&Message>),
        package: &Package,
    ) -> Standing {
        let number = |name| message.and_then(|message| message.text(name)?.trim().parse().ok());
        match status {
            200..=299 => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.asked = false;
                    entry.granted.get_or_insert(now);
                }
                self.lasts(now, key, number(Name::Expires).unwrap_or(package.usual));
                return Standing::Goes;
            }
            status if package.hopeless.contains(&status) => return Standing::Hopeless,
            // RFC 6665 §4.1.2.1: the dialog is gone there.
            481 => self.anew(now, ua, key),
            423 => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.least = number(Name::MinExpires).unwrap_or(package.usual);
                }
                self.anew(now, ua, key);
            }
            _ => {
                let wait = number(Name::RetryAfter).map(|wait| Duration::from_secs(wait.into()));
                self.later(now, ua, key, wait);
            }
        }
        Standing::Waits
    }

    /// What the Subscription-State of a NOTIFY means.
    pub fn notified(&mut self, now: Instant, ua: &mut Ua, key: &K, message: &Message) -> Standing {
        let state = message.text(Name::SubscriptionState).unwrap_or_default();
        let (state, params) = state.split_at(state.find(';').unwrap_or(state.len()));
        let seconds =
            |name| param(params, name).flatten().and_then(|text| text.trim().parse().ok());
        if !state.trim().eq_ignore_ascii_case("terminated") {
            if let Some(left) = seconds("expires") {
                self.lasts(now, key, left);
            }
            return Standing::Goes;
        }
        let reason = param(params, "reason").flatten().unwrap_or_default().to_ascii_lowercase();
        tracing::debug!(reason, "a subscription of ours ended");
        match reason.as_str() {
            // RFC 6665 §4.1.3: there is no use in asking again, or at once.
            "rejected" | "noresource" | "invariant" => return Standing::Hopeless,
            "deactivated" | "timeout" => self.anew(now, ua, key),
            _ => {
                let wait = seconds("retry-after").map(|wait: u32| Duration::from_secs(wait.into()));
                self.later(now, ua, key, wait);
            }
        }
        Standing::Waits
    }

    /// The next one that is due: to be refreshed if it is subscribed, else to be begun. Nothing more is due for it before
    /// it is set again by what follows.
    pub fn due(&mut self, now: Instant) -> Option<(K, bool)> {
        let (at, key) = self.due.first().filter(|(at, _)| *at <= now).cloned()?;
        self.due.remove(&(at, key.clone()));
        let entry = self.entries.get_mut(&key)?;
        entry.at = None;
        Some((key, entry.subscription.is_some()))
    }
}
