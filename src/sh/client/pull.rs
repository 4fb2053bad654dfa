//! Asking for data: from what is known, or one request for each key however many wait for it (SH-050).

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::cache::{Look, Slot, Value};
use super::data::{Data, IdentitySet, Key, Kind, Operation, Subject};
use super::exchange::{Exchange, Failed, What};
use super::{Client, Flight, Known, PATIENCE, State};
use crate::sh::codec::Message;
use crate::sh::dictionary as d;
use crate::sh::overload::Class;
use crate::sh::userdata::{Identities, IdentityType, Presence, Set, ShData, UserState};

/// How data is going to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Also when it is a little old and no HSS can be asked.
    Ordinary,
    /// SH-051: to decide whose an identity is; never old.
    Ownership,
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Now.
    Once,
    /// SH-049: a member of a group, or settings in use: worth being told of changes.
    Lasting,
}

/// One request to come: the keys it answers and those who wait for them.
struct Wanted {
    data: Data,
    key: Key,
    landing: Landing,
}

/// Ends a flight when dropped, whatever has happened.
struct Landing {
    client: Arc<Client>,
    key: Key,
    tell: watch::Sender<Option<Known>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.tell.borrow().is_none() {
            self.client.lock().flights.remove(&self.key);
            self.tell.send_replace(Some(Known::Unavailable));
        }
    }
}

impl Client {
    /// What is known of each of `data` in the end, in their order; at most [`PATIENCE`] later.
    ///
    /// SH-050: one question a key at a time. SH-051: old data where no HSS answers. SH-039: what the subject cannot have is
    /// not asked for.
    pub(super) async fn known(
        self: &Arc<Self>,
        subject: &Subject,
        data: &[Data],
        need: Need,
        usage: Use,
        class: Class,
    ) -> Vec<Known> {
        enum Found {
            Here(Known),
            Coming(watch::Receiver<Option<Known>>, Option<Known>),
        }
        let now = self.now();
        let mut found = Vec::with_capacity(data.len());
        let mut wanted = Vec::new();
        {
            let mut state = self.lock();
            let most = self.settings.most_known();
            for data in data {
                if !data.is_of(subject.kind) {
                    found.push(Found::Here(Known::Absent));
                    continue;
                }
                let key = Self::key(&state, subject, data.clone());
                state.subscriptions.used(&key);
                let stale = match state.cache.look(&key, now) {
                    Look::Fresh(value) => {
                        found.push(Found::Here(value.into()));
                        continue;
                    }
                    Look::Stale(value) if usage == Use::Ordinary => Some(value.into()),
                    Look::Stale(_) | Look::Unknown => None,
                };
                if let Some(flight) = state.flights.get(&key) {
                    found.push(Found::Coming(flight.outcome.clone(), stale));
                } else if state.flights.len() >= most {
                    found.push(Found::Here(stale.unwrap_or(Known::Unavailable)));
                } else {
                    let landing = self.take_off(&mut state, &key);
                    found.push(Found::Coming(landing.tell.subscribe(), stale));
                    wanted.push(Wanted { data: data.clone(), key, landing });
                }
            }
        }
        if !wanted.is_empty() {
            self.send(subject, wanted, need, class);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut known = Vec::with_capacity(found.len());
        for found in found {
            known.push(match found {
                Found::Here(known) => known,
                Found::Coming(mut coming, stale) => {
                    let landed = coming.wait_for(Option::is_some);
                    let landed = tokio::time::timeout_at(deadline, landed).await;
                    let landed = landed.ok().and_then(Result::ok).and_then(|known| known.clone());
                    match landed {
                        Some(known) if known != Known::Unavailable => known,
                        _ => stale.unwrap_or(Known::Unavailable),
                    }
                }
            });
        }
        known
    }

    /// What is stored just now, whatever is known already (SH-041).
    pub(super) async fn pull_now(
        &self,
        subject: &Subject,
        data: &Data,
    ) -> Result<Option<Value>, Failed> {
        let what = Exchange {
            operation: Operation::Pull,
            subject,
            wildcard: None,
            data: std::slice::from_ref(data),
            what: What::Pull,
            class: Class::Settings,
        };
        let answer = self.exchange(&what).await?;
        let document = read(&answer).map_err(|_| Failed::Unavailable)?;
        Ok(value_of(&document, data, subject.kind))
    }

    fn take_off(self: &Arc<Self>, state: &mut State, key: &Key) -> Landing {
        let (tell, outcome) = watch::channel(None);
        state.flights.insert(key.clone(), Flight { outcome, told: state.tellings });
        Landing { client: Arc::clone(self), key: key.clone(), tell }
    }

    /// Asks, in tasks of its own: whoever waits may give up, the answer is of use to the next one.
    fn send(self: &Arc<Self>, subject: &Subject, wanted: Vec<Wanted>, need: Need, class: Class) {
        let now = self.now();
        let mut together = Vec::new();
        for wanted in wanted {
            let follows = need == Need::Lasting && wanted.data.is_subscribed() && {
                let mut state = self.lock();
                !state.is_suspended(Operation::Subscribe, &wanted.data, now)
            };
            if follows {
                let (client, subject) = (Arc::clone(self), subject.clone());
                self.runtime.spawn(async move { client.follow(&subject, wanted, class).await });
            } else {
                together.push(wanted);
            }
        }
        if !together.is_empty() {
            let (client, subject) = (Arc::clone(self), subject.clone());
            self.runtime.spawn(async move { client.pull(&subject, together, class).await });
        }
    }

    /// SH-043: the answer to a subscription brings the data along; where there is none to be had, it is pulled.
    async fn follow(self: Arc<Self>, subject: &Subject, wanted: Wanted, class: Class) {
        match self.subscribe(subject, None, &wanted.data, Class::Subscription).await {
            Ok(Some(value)) => self.landed(wanted, Ok(Some(value))),
            Err(Failed::UnknownUser) => self.landed(wanted, Err(Failed::UnknownUser)),
            Err(Failed::Unavailable) => self.landed(wanted, Err(Failed::Unavailable)),
            Ok(None) | Err(_) => self.pull(subject, vec![wanted], class).await,
        }
    }

    /// SH-033: together where the HSS can, else one by one.
    async fn pull(self: Arc<Self>, subject: &Subject, wanted: Vec<Wanted>, class: Class) {
        for wanted in self.pull_together(subject, wanted, class).await {
            let (client, subject) = (Arc::clone(&self), subject.clone());
            self.runtime.spawn(async move {
                let left = client.pull_together(&subject, vec![wanted], class).await;
                debug_assert!(left.is_empty(), "one alone is never too many");
            });
        }
    }

    /// One request for all of it; returns what is to be asked for by itself.
    async fn pull_together(
        &self,
        subject: &Subject,
        wanted: Vec<Wanted>,
        class: Class,
    ) -> Vec<Wanted> {
        let now = self.now();
        let (suspended, wanted): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|wanted| self.lock().is_suspended(Operation::Pull, &wanted.data, now));
        for wanted in suspended {
            self.landed(wanted, Err(Failed::NotPermitted));
        }
        if wanted.is_empty() {
            return wanted;
        }
        let data: Vec<Data> = wanted.iter().map(|wanted| wanted.data.clone()).collect();
        let what = Exchange {
            operation: Operation::Pull,
            subject,
            wildcard: None,
            data: &data,
            what: What::Pull,
            class,
        };
        let document = match self.exchange(&what).await {
            Ok(answer) => read(&answer),
            Err(Failed::OneByOne) => return wanted,
            Err(why) => {
                wanted.into_iter().for_each(|wanted| self.landed(wanted, Err(why)));
                return Vec::new();
            }
        };
        match document {
            Ok(document) => {
                for wanted in wanted {
                    let value = value_of(&document, &wanted.data, subject.kind);
                    self.landed(wanted, Ok(value));
                }
            }
            Err(why) => {
                let user = self.alias(&subject.identity);
                tracing::error!(%why, user, "the HSS sent data nobody understands");
                self.lock().last_error = Some(format!("UDR: {why}"));
                wanted.into_iter().for_each(|wanted| self.landed(wanted, Err(Failed::Unavailable)));
            }
        }
        Vec::new()
    }

    /// Takes what came, and tells those who wait.
    fn landed(&self, wanted: Wanted, value: Result<Option<Value>, Failed>) {
        let Wanted { key, landing, .. } = wanted;
        let now = self.now();
        let mut state = self.lock();
        let flight = state.flights.remove(&key);
        let overtaken = flight.is_some_and(|flight| state.is_overtaken(&key, flight.told));
        let known = match value {
            // What the HSS has told meanwhile is newer.
            Ok(_) if overtaken => state.cache.peek(&key).cloned().into(),
            Ok(value) => state.take(&key, value, now).into(),
            // SH-050, SH-051: nobody knows the user, which is something else than that nobody answers.
            Err(Failed::UnknownUser) => {
                state.cache.put(key, None, None, now);
                Known::Absent
            }
            Err(_) => Known::Unavailable,
        };
        drop(state);
        landing.tell.send_replace(Some(known));
    }
}

impl State {
    /// Takes a value that was asked for; returns what is known then. What the key is kept under may have become known by
    /// the answer itself (SH-055): it is found under either name.
    pub(super) fn take(&mut self, key: &Key, value: Option<Value>, now: Instant) -> Option<Value> {
        let value = self.settled(key, value);
        let subscribed = self.subscribed(key);
        self.cache.put(key.clone(), value.clone(), subscribed, now);
        if let Some(wildcard) = self.wildcards.get(&key.identity) {
            let wide = Key { identity: wildcard.identity(), data: key.data.clone() };
            let subscribed = self.subscribed(&wide);
            self.cache.put(wide, value.clone(), subscribed, now);
        }
        value
    }

    /// SH-046: who is being authenticated is what it was before.
    pub(super) fn settled(&self, key: &Key, value: Option<Value>) -> Option<Value> {
        match value {
            Some(Value::UserState(UserState::AuthenticationPending)) => {
                self.cache.peek(key).cloned()
            }
            value => value,
        }
    }
}

/// The document in an answer. SH-038: none is one that says nothing.
pub fn read(answer: &Message) -> Result<ShData, crate::sh::userdata::BadData> {
    match answer.find(&d::USER_DATA) {
        Some(data) => ShData::parse(&data.data),
        None => Ok(ShData::default()),
    }
}

/// What a document says of one piece of data.
pub fn value_of(document: &ShData, data: &Data, kind: Kind) -> Option<Value> {
    match data {
        Data::Repository(slot) => {
            let named = document.repository.iter().find(|r| r.service_indication == **slot)?;
            Slot::new(named.sequence, &named.data).map(Value::Repository)
        }
        Data::Identities(set) => identities(&document.identities, *set, kind),
        Data::UserState => document.state.map(Value::UserState),
        Data::ServingCscf => match &document.scscf {
            Presence::Absent => None,
            Presence::Empty => Some(Value::ServingCscf(None)),
            Presence::Present(name) => Some(Value::ServingCscf(Some(name.as_str().into()))),
        },
        Data::Charging => document.charging.clone().map(|found| Value::Charging(Arc::new(found))),
        Data::PsiActivation => document.psi_active.map(Value::PsiActivation),
    }
}

/// Names of the set; those an older HSS gives without saying of which set they are count for all (section 12.9).
fn identities(blocks: &[Identities], set: IdentitySet, kind: Kind) -> Option<Value> {
    let of = |wanted: Set| -> Vec<String> {
        blocks
            .iter()
            .filter(|block| block.set == wanted)
            .filter(|block| {
                kind == Kind::Service
                    || matches!(
                        block.kind,
                        None | Some(IdentityType::User | IdentityType::WildcardedImpu)
                    )
            })
            .flat_map(|block| {
                let numbers = block.msisdns.iter().map(|digits| format!("tel:+{digits}"));
                block.uris.iter().cloned().chain(numbers)
            })
            .collect()
    };
    let wanted = match set {
        IdentitySet::Implicit => Set::Implicit,
        IdentitySet::Alias => Set::Alias,
    };
    let mut names = of(wanted);
    if names.is_empty() {
        names = of(Set::Unsaid);
    }
    (!names.is_empty()).then(|| Value::Identities(names.into()))
}
