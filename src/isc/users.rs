//! What one thread does about registrations: takes the core's word, has it kept, and looks again when it ends.
//!
//! Start at [`Isc::registered`]. The table itself is [`super::registry`], shared by all threads; who wrote an entry here
//! last looks after it here. The answer to a REGISTER waits for the store, but never long. A plain SIP core may tell of
//! its users in the same way; what is learnt there releases who waits, and changes no header. ISC-039 to ISC-046.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbound::{Facts, Origin, texts};
use super::reachable::{self, Registration};
use super::registry::{Due, Kept, Outcome, Registry, Taken, View};
use super::rules::syntax::Address;
use super::{Happening, Isc};
use crate::sip::message::{Message, Name};
use crate::sip::ua::{Reply, RequestKey};
use crate::sip::uri::Uri;

/// How long a REGISTER waits for the store; well below the 500 ms of a retransmission (ISC-046).
const STORE_WAIT: Duration = Duration::from_millis(300);
/// Most REGISTERs that wait for the store; beyond it they are answered at once.
const MAX_WAITING: usize = 10_000;

/// A change of the table that is to be kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Arc<str>,
    /// `None`: nothing is to be kept any more.
    pub kept: Option<Kept>,
    /// To be given to [`Isc::kept`] once it is in the store, or cannot be.
    pub ticket: Option<u64>,
}

/// This thread's part in the registrations.
pub(super) struct Users {
    pub(super) registry: Arc<Registry>,
    /// Answers wait until changes are kept.
    keeps: bool,
    /// Answers that wait, with the time they are sent anyway.
    waiting: BTreeMap<u64, (Instant, RequestKey, Reply)>,
    tickets: u64,
    /// Entries to look at, by time.
    looks: BTreeSet<(Instant, Arc<str>)>,
    at: HashMap<Arc<str>, Instant>,
}

impl Users {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            keeps: false,
            waiting: BTreeMap::new(),
            tickets: 0,
            looks: BTreeSet::new(),
            at: HashMap::new(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let look = self.looks.first().map(|(at, _)| *at);
        let answer = self.waiting.first_key_value().map(|(_, (at, ..))| *at);
        look.into_iter().chain(answer).min()
    }

    fn look(&mut self, key: &Arc<str>, at: Instant) {
        if let Some(old) = self.at.insert(Arc::clone(key), at) {
            self.looks.remove(&(old, Arc::clone(key)));
        }
        self.looks.insert((at, Arc::clone(key)));
    }
}

impl Isc {
    /// Shares the node's registrations. With `keeps`, answers to REGISTER wait for [`Isc::kept`].
    pub fn share(&mut self, registry: Arc<Registry>, keeps: bool) {
        self.users = Users::new(registry);
        self.users.keeps = keeps;
    }

    /// The registrations this thread knows.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.users.registry
    }

    /// Looks after entries that were taken back, from the times given.
    pub fn look_after(&mut self, entries: impl IntoIterator<Item = (Arc<str>, Instant)>) {
        for (key, at) in entries {
            self.users.look(&key, at);
        }
    }

    /// The one key of a user, however the URI is written (UL-011).
    pub(super) fn user_key(&self, uri: &str) -> Arc<str> {
        user_key(self.house.settings.ul.normalise_tel, uri)
    }

    /// What is known of a user.
    pub(super) fn known(&self, now: Instant, uri: &str) -> Option<View> {
        self.users.registry.view(now, &self.user_key(uri))
    }

    /// All names a user is known by, asserted or registered together: limits count the user and not the name (IM-036).
    pub(super) fn aliases(&self, now: Instant, facts: &Facts) -> Vec<Arc<str>> {
        let normalise = self.house.settings.ul.normalise_tel;
        let mut keys: Vec<Arc<str>> = Vec::new();
        for party in &facts.parties {
            let view = self.known(now, &party.uri);
            let registered = view.map(|view| keys_of(normalise, &view.registration));
            for key in [Arc::clone(&party.key)].into_iter().chain(registered.into_iter().flatten())
            {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        keys
    }

    /// Adds to what the originator's request told what its registration did.
    ///
    /// ISC-022, ISC-031, ISC-058: the request's own word counts where it has one, but the S-CSCF is that of the
    /// registration.
    pub(super) fn inform(&self, now: Instant, origin: &mut Origin) {
        if !self.house.settings.profile.is_ims() {
            return;
        }
        let Some(view) = self.known(now, &origin.acting_for) else { return };
        origin.registered = origin.registered.or(Some(view.registered));
        let registration = view.registration;
        if view.registered {
            let good = |uri: &String| Uri::parse(uri).is_ok_and(|uri| uri.is_sip());
            origin.scscf = Some(registration.scscf).filter(good);
        }
        if origin.charging_functions.is_none() {
            origin.charging_functions = registration.charging_functions;
        }
    }

    /// A third-party REGISTER that was found good: its word is taken, whatever becomes of the store.
    ///
    /// ISC-041, ISC-044, ISC-046.
    pub(super) fn registered(
        &mut self,
        now: Instant,
        message: &Message,
        (request, reply): (RequestKey, Reply),
        out: &mut Vec<Happening>,
    ) {
        let contact = texts(message, Name::Contact).next().and_then(Address::parse);
        let read = reachable::read(message, contact);
        for fault in read.faults {
            tracing::info!(
                rule = "ISC-043",
                identity = read.registration.identity,
                fault,
                "part of a third-party REGISTER not read"
            );
        }
        let identity = read.registration.identity.clone();
        let (expires, scscf) = (read.registration.expires, read.registration.scscf.clone());
        let keys = keys_of(self.house.settings.ul.normalise_tel, &read.registration);
        match self.users.registry.register(now, keys, read.registration) {
            Outcome::Old => {
                tracing::debug!(identity, "REGISTER older than what is known");
            }
            Outcome::Full => {
                tracing::warn!(
                    identity,
                    key = "node.max_registrations",
                    "registration not remembered: the table is full"
                );
            }
            Outcome::Taken(taken) => {
                match (taken.before, taken.after) {
                    (false, true) => tracing::debug!(identity, expires, scscf, "registered"),
                    (true, true) => tracing::debug!(identity, expires, scscf, "registered again"),
                    (_, false) => tracing::debug!(identity, scscf, "registered no more"),
                }
                let ticket = self.wait_for_store(now, request, &reply);
                let waits = ticket.is_some();
                let (key, after) = (Arc::clone(&taken.kept.key), taken.after);
                self.changed(*taken, ticket, after, out);
                if !waits {
                    self.ua.respond(now, request, reply);
                }
                self.watch(now, &key, after);
                return;
            }
        }
        self.ua.respond(now, request, reply);
    }

    /// What follows from an entry that was written; `reachable` if whoever could not be found can be found now.
    pub(super) fn changed(
        &mut self,
        taken: Taken,
        ticket: Option<u64>,
        reachable: bool,
        out: &mut Vec<Happening>,
    ) {
        let Taken { look, kept, keys, .. } = taken;
        self.users.look(&kept.key, look);
        let key = Arc::clone(&kept.key);
        out.push(Happening::Kept(Box::new(Change { key, kept: Some(kept), ticket })));
        if reachable {
            out.push(Happening::Reachable(keys.into()));
        }
    }

    fn wait_for_store(&mut self, now: Instant, request: RequestKey, reply: &Reply) -> Option<u64> {
        if !self.users.keeps || self.users.waiting.len() >= MAX_WAITING {
            return None;
        }
        self.users.tickets += 1;
        let ticket = self.users.tickets;
        self.users.waiting.insert(ticket, (now + STORE_WAIT, request, reply.clone()));
        Some(ticket)
    }

    /// The change with this ticket is in the store, or cannot be now: its REGISTER is answered.
    pub fn kept(&mut self, now: Instant, ticket: u64) {
        if let Some((_, request, reply)) = self.users.waiting.remove(&ticket) {
            self.ua.respond(now, request, reply);
        }
    }

    /// Does what is due for registrations.
    ///
    /// ISC-045: those that nobody refreshed end. ISC-046: an answer does not wait for a slow store.
    pub(super) fn users_due(&mut self, now: Instant, out: &mut Vec<Happening>) {
        while let Some(entry) =
            self.users.waiting.first_entry().filter(|entry| entry.get().0 <= now)
        {
            let (_, request, reply) = entry.remove();
            self.ua.respond(now, request, reply);
        }
        while let Some((at, key)) = self.users.looks.first().filter(|(at, _)| *at <= now).cloned() {
            self.users.looks.remove(&(at, Arc::clone(&key)));
            self.users.at.remove(&key);
            match self.users.registry.due(now, &key) {
                Due::Later(at) => self.users.look(&key, at.max(now + Duration::from_millis(1))),
                Due::Lapsed(at) => {
                    tracing::debug!(rule = "ISC-045", user = &*key, "registration ran out");
                    self.users.look(&key, at);
                }
                Due::Forgotten => {
                    out.push(Happening::Kept(Box::new(Change { key, kept: None, ticket: None })));
                }
                Due::Unknown => {}
            }
        }
    }
}

fn user_key(normalise_tel: bool, uri: &str) -> Arc<str> {
    let Ok(parsed) = Uri::parse(uri) else { return uri.into() };
    if normalise_tel && parsed.is_sip() {
        parsed.canonical_in(parsed.host()).into()
    } else {
        parsed.canonical().into()
    }
}

/// The keys a registration goes by: that of its identity, then those of its implicit registration set.
pub fn keys_of(normalise_tel: bool, registration: &Registration) -> Vec<Arc<str>> {
    let mut keys = vec![user_key(normalise_tel, &registration.identity)];
    for uri in registration.associated.iter().take(reachable::MAX_IDENTITIES) {
        let key = user_key(normalise_tel, uri);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}
