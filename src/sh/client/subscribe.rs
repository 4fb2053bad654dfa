//! Being told of changes: subscriptions, their refresh and their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::Value;
use super::data::{Data, Key, Operation, Subject};
use super::exchange::{Exchange, Failed, What};
use super::hss::Moment;
use super::pull::{read, value_of};
use super::subscriptions::{Kept, Subscription, refresh_at};
use super::wildcard::Wildcard;
use super::{Client, State};
use crate::sh::codec::Message;
use crate::sh::dictionary as d;
use crate::sh::identity::Identity;
use crate::sh::overload::Class;

/// Most subscriptions that are refreshed or ended at the same time.
const AT_ONCE: usize = 16;
/// Most subscriptions that wait to be ended; beyond it the HSS hears of it at its next notification (5107).
const MOST_GIVEN_UP: usize = 1024;
/// SH-048: those of before a restart are asserted again within this time.
const SPREAD: Duration = Duration::from_secs(10);

/// An identity a subscription is being asked for: a notification may overtake the answer.
struct Expected<'a> {
    client: &'a Client,
    identity: Identity,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut state = self.client.lock();
        if let Some(count) = state.subscribing.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                state.subscribing.remove(&self.identity);
            }
        }
    }
}

impl Client {
    /// Subscribes, or asserts a subscription again. Returns the data that came along.
    ///
    /// SH-043, SH-047: what the HSS says of its end counts; not said, it has none.
    pub(super) async fn subscribe(
        &self,
        subject: &Subject,
        wildcard: Option<&Wildcard>,
        data: &Data,
        class: Class,
    ) -> Result<Option<Value>, Failed> {
        let moment = self.house.moment();
        let until = unix_secs(moment) + whole_secs(self.settings.subscription_time);
        let known = self.lock().wildcards.get(&subject.identity).cloned();
        let identity = wildcard.or(known.as_ref()).map(Wildcard::identity);
        let _expected = self.expect(identity.unwrap_or_else(|| subject.identity.clone()));
        let what = Exchange {
            operation: Operation::Subscribe,
            subject,
            wildcard,
            data: std::slice::from_ref(data),
            what: What::Subscribe(until),
            class,
        };
        let answer = self.exchange(&what).await?;
        let Ok(document) = read(&answer) else {
            tracing::error!(
                user = self.alias(&subject.identity),
                "the HSS sent data nobody understands"
            );
            return Err(Failed::Unavailable);
        };
        let moment = self.house.moment();
        let expires = expiry(&answer, moment)?;
        let wildcard = Wildcard::of(&answer).or_else(|| wildcard.cloned());
        let identity = wildcard.as_ref().map_or(subject.identity.clone(), Wildcard::identity);
        let key = Key { identity, data: data.clone() };
        let subscription = Subscription {
            subject: subject.clone(),
            wildcard,
            expires,
            refresh: refresh_at(moment.now, expires),
            confirmed: true,
        };
        self.keep(&key, &subscription, moment);
        let value =
            answer.find(&d::USER_DATA).and_then(|_| value_of(&document, data, subject.kind));
        let mut state = self.lock();
        let given_up =
            state.subscriptions.keep(key.clone(), subscription, self.settings.max_subscriptions);
        let until = state.subscribed(&key);
        state.cache.extend(&key, until, moment.now);
        for (key, subscription) in given_up {
            self.house.keep(key.text(), None);
            state.cache.extend(&key, None, moment.now);
            if state.given_up.len() < MOST_GIVEN_UP {
                state.given_up.push_back((key, subscription));
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(value)
    }

    /// Looks after subscriptions for as long as it is polled: refreshes them, and ends those given up.
    pub async fn run(self: Arc<Self>) {
        loop {
            let now = self.now();
            let (due, given_up, next) = {
                let mut state = self.lock();
                let given_up: Vec<_> = {
                    let most = state.given_up.len().min(AT_ONCE);
                    state.given_up.drain(..most).collect()
                };
                (state.subscriptions.take_due(now, AT_ONCE), given_up, state.subscriptions.next())
            };
            if due.is_empty() && given_up.is_empty() {
                let sleep = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = sleep => {}
                    () = self.work.notified() => {}
                }
                continue;
            }
            let mut tasks = tokio::task::JoinSet::new();
            for (key, subscription) in due {
                let client = Arc::clone(&self);
                tasks.spawn(async move { client.refresh(key, subscription).await });
            }
            for (key, subscription) in given_up {
                let client = Arc::clone(&self);
                tasks.spawn(async move { client.unsubscribe(&key, &subscription).await });
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    /// SH-047: at four fifths of its time; where that fails data lives by its own time again, and while the HSS is away
    /// it is tried again until the subscription is over.
    async fn refresh(&self, key: Key, subscription: Subscription) {
        let now = self.now();
        if subscription.expires.is_some_and(|expires| expires <= now) {
            self.ended(&key, "it was not refreshed in time");
            return;
        }
        let Subscription { subject, wildcard, .. } = &subscription;
        let told = self.lock().tellings;
        match self.subscribe(subject, wildcard.as_ref(), &key.data, Class::Refresh).await {
            Ok(value) => {
                let now = self.now();
                let mut state = self.lock();
                match value {
                    // What was told meanwhile is newer.
                    Some(_) if state.is_overtaken(&key, told) => {}
                    Some(value) => {
                        state.take(&key, Some(value), now);
                    }
                    // Not said: asked for when somebody needs it.
                    None => state.cache.expire(&key, now),
                }
            }
            Err(Failed::Unavailable | Failed::Shed) => {
                let mut state = self.lock();
                state.cache.extend(&key, None, now);
                drop(state);
                tracing::warn!(
                    data = key.data.name(),
                    "a subscription is not refreshed: no HSS; trying again"
                );
            }
            Err(Failed::UnknownUser) => {
                self.ended(&key, "the user is not known any more");
                self.lock().cache.purge(&key.identity);
            }
            Err(Failed::NothingToSubscribe) => {
                self.ended(&key, "there is no such data any more");
                self.lock().cache.remove(&key);
            }
            Err(_) => self.ended(&key, "the HSS refuses"),
        }
    }

    /// SH-044: success also where there was none.
    pub(super) async fn unsubscribe(&self, key: &Key, subscription: &Subscription) {
        let what = Exchange {
            operation: Operation::Subscribe,
            subject: &subscription.subject,
            wildcard: subscription.wildcard.as_ref(),
            data: std::slice::from_ref(&key.data),
            what: What::Unsubscribe,
            class: Class::Subscription,
        };
        if let Err(why) = self.exchange(&what).await {
            tracing::info!(data = key.data.name(), ?why, "a subscription is left to end by itself");
        }
    }

    /// The subscription is over: data lives by its own time.
    pub(super) fn ended(&self, key: &Key, why: &str) {
        let now = self.now();
        let mut state = self.lock();
        let had = state.subscriptions.remove(key).is_some();
        state.cache.extend(key, None, now);
        drop(state);
        if had {
            self.house.keep(key.text(), None);
            tracing::info!(data = key.data.name(), why, "a subscription is over");
        }
    }

    fn keep(&self, key: &Key, subscription: &Subscription, moment: Moment) {
        let expires = subscription.expires.map(|at| {
            let left = at.saturating_duration_since(moment.now).as_millis();
            moment.unix_ms.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
        });
        let kept = Kept {
            identity: subscription.subject.identity.as_str().to_owned(),
            kind: subscription.subject.kind,
            wildcard: subscription.wildcard.clone(),
            data: key.data.clone(),
            expires,
        };
        self.house.keep(key.text(), Some(kept));
    }

    /// Takes back what was subscribed to before a restart; returns how many there are.
    ///
    /// SH-048: each is asserted again before anything is trusted, and notifications for it are taken meanwhile.
    pub fn restore(&self, kept: impl IntoIterator<Item = Kept>) -> usize {
        let moment = self.house.moment();
        let mut state = self.lock();
        for kept in kept {
            let Some(identity) = Identity::canonical(&kept.identity) else { continue };
            let expires = match kept.expires {
                Some(at) if at <= moment.unix_ms => continue,
                Some(at) => Some(moment.now + Duration::from_millis(at - moment.unix_ms)),
                None => None,
            };
            let name = kept.wildcard.as_ref().map_or(identity.clone(), Wildcard::identity);
            if let Some(wildcard) = &kept.wildcard {
                state.wildcards.insert(identity.clone(), wildcard.clone());
            }
            let subscription = Subscription {
                subject: Subject { identity, kind: kept.kind },
                wildcard: kept.wildcard,
                expires,
                refresh: moment.now + SPREAD,
                confirmed: false,
            };
            let key = Key { identity: name, data: kept.data };
            state.subscriptions.keep(key, subscription, self.settings.max_subscriptions);
        }
        state.subscriptions.reassert(moment.now, SPREAD);
        let count = state.subscriptions.len();
        drop(state);
        self.work.notify_one();
        count
    }

    fn expect(&self, identity: Identity) -> Expected<'_> {
        *self.lock().subscribing.entry(identity.clone()).or_insert(0) += 1;
        Expected { client: self, identity }
    }
}

impl State {
    /// Whether notifications for that identity are awaited.
    pub(super) fn awaits(&self, identity: &Identity) -> bool {
        self.subscriptions.knows(identity) || self.subscribing.contains_key(identity)
    }

    /// Whether that very data is subscribed to, or about to be.
    pub(super) fn follows(&self, key: &Key) -> bool {
        self.subscriptions.get(key).is_some()
            || (self.subscribing.contains_key(&key.identity) && self.flights.contains_key(key))
    }

    /// A change was told: what is on its way may be older.
    pub(super) fn overtake(&mut self, key: &Key) {
        self.tellings += 1;
        self.told.insert(key.clone(), self.tellings);
    }

    /// Whether a change was told since that many had been.
    pub(super) fn is_overtaken(&self, key: &Key, told: u64) -> bool {
        self.told.get(key).is_some_and(|last| *last > told)
    }
}

/// SH-047: until when changes are told; an end in the past is no subscription.
fn expiry(answer: &Message, moment: Moment) -> Result<Option<Instant>, Failed> {
    let Some(avp) = answer.find(&d::EXPIRY_TIME) else { return Ok(None) };
    let Ok(at) = avp.as_time() else { return Err(Failed::Unavailable) };
    match u64::try_from(at - unix_secs(moment)) {
        Ok(left) if left > 0 => Ok(Some(moment.now + Duration::from_secs(left))),
        _ => {
            tracing::warn!(rule = "SH-047", "the HSS ends a subscription before it began");
            Err(Failed::Wrong)
        }
    }
}

fn unix_secs(moment: Moment) -> i64 {
    i64::try_from(moment.unix_ms / 1000).unwrap_or(i64::MAX)
}

fn whole_secs(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
