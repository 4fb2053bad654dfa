//! Subscriptions to the registration state of users: asked for after their REGISTER, refreshed, and read.
//!
//! Start at [`Isc::watch`] and [`Isc::notified`]. One thread of the node watches a user; it is whoever took the REGISTER
//! first. What the registrar tells is more exact than its REGISTER and goes into the same table. After a restart nobody is
//! watched until the next REGISTER: the registrar hears 481 and forgets us. ISC-047, ISC-048 (RFC 3680, RFC 6665).

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reachable::{Contact, MAX_CONTACTS};
use super::registry::View;
use super::rules::charging::{self, ChargingVector};
use super::rules::route;
use super::rules::syntax::{param, quote};
use super::{Happening, Isc};
use crate::content::reginfo::{self, DEFAULT_DURATION, Sequence, Taken as Step};
use crate::sip::Flow;
use crate::sip::message::{Message, Method, Name};
use crate::sip::ua::{OutRequest, Reply, RequestKey, SubscriptionKey};

/// The first wait after a failure; each one more doubles it, up to an hour.
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// So long before its end a subscription is refreshed, if it lasts more than twice that; else at half its time.
const REFRESH_BEFORE: u32 = 600;

/// This thread's subscriptions.
#[derive(Default)]
pub(super) struct Watching {
    watches: HashMap<Arc<str>, Watch>,
    of: HashMap<SubscriptionKey, Arc<str>>,
    due: BTreeSet<(Instant, Arc<str>)>,
}

/// One user.
struct Watch {
    /// `None` while the next try is awaited.
    subscription: Option<SubscriptionKey>,
    /// A SUBSCRIBE has no answer yet.
    asked: bool,
    sequence: Sequence,
    /// When the registrar granted it.
    granted: Option<Instant>,
    /// How often it failed, or did not last.
    failures: u32,
    /// When to refresh or to try again.
    at: Option<Instant>,
    /// Least time the registrar grants, once it has said so.
    least: u32,
}

impl Watch {
    /// It was granted, and not just now.
    fn lasted(&self, now: Instant) -> bool {
        self.granted.is_some_and(|since| now.saturating_duration_since(since) >= FIRST_WAIT)
    }
}

impl Watching {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many users are watched.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    fn set(&mut self, key: &Arc<str>, at: Option<Instant>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut watch.at, at) {
            self.due.remove(&(old, Arc::clone(key)));
        }
        if let Some(at) = at {
            self.due.insert((at, Arc::clone(key)));
        }
    }
}

impl Isc {
    /// How many users' registration states this thread is subscribed to.
    pub fn watched(&self) -> usize {
        self.watching.len()
    }

    fn may_watch(&self) -> bool {
        self.house.settings.isc.reg_event && self.house.settings.profile.is_ims()
    }

    /// A REGISTER was taken: subscribe, or have the subscription say what is true now.
    ///
    /// ISC-047; ISC-044: whoever is registered no more here may have other contacts.
    pub(super) fn watch(&mut self, now: Instant, key: &Arc<str>, registered: bool) {
        if !self.may_watch() {
            return;
        }
        match self.watching.watches.get(key) {
            Some(watch) if watch.subscription.is_some() => self.ask_again(now, key),
            Some(_) if registered => self.begin_watch(now, key),
            Some(_) => {}
            None => {
                let thread = self.house.thread;
                if registered && self.users.registry.claim(key, thread) {
                    self.begin_watch(now, key);
                }
            }
        }
    }

    /// The first SUBSCRIBE of a subscription.
    fn begin_watch(&mut self, now: Instant, key: &Arc<str>) {
        let view = self.users.registry.view(now, key).filter(|view| view.registered);
        let Some(view) = view.filter(|_| self.may_watch()) else {
            self.end_watch(key);
            return;
        };
        let failed = self.watching.watches.get(key).map_or((0, 0), |old| (old.failures, old.least));
        let own = format!("<{}>", self.house.settings.sip.uri);
        let request = OutRequest {
            request_uri: view.registration.identity.clone(),
            to: format!("<{}>", view.registration.identity),
            from: own,
            route: vec![route::entry(&view.registration.scscf, false)],
            headers: self.subscribe_lines(now, &view, failed.1),
            ..OutRequest::new(Method::Subscribe)
        };
        let Some(subscription) = self.ua.subscribe(now, request) else {
            tracing::warn!(user = &**key, "no room for a subscription to its registration state");
            self.end_watch(key);
            return;
        };
        self.watching.set(key, None);
        self.watching.of.insert(subscription, Arc::clone(key));
        let watch = Watch {
            subscription: Some(subscription),
            asked: true,
            sequence: Sequence::default(),
            granted: None,
            failures: failed.0,
            at: None,
            least: failed.1,
        };
        self.watching.watches.insert(Arc::clone(key), watch);
    }

    /// SUBSCRIBE in the dialog: longer, and all of it once more (RFC 3680 §4.7).
    fn ask_again(&mut self, now: Instant, key: &Arc<str>) {
        let Some(view) = self.users.registry.view(now, key) else { return };
        let Some(watch) = self.watching.watches.get_mut(key) else { return };
        let Some(subscription) = watch.subscription.filter(|_| !watch.asked) else { return };
        watch.asked = true;
        let least = watch.least;
        let lines = self.subscribe_lines(now, &view, least);
        self.ua.subscribe_again(now, subscription, lines);
    }

    /// What stands in every SUBSCRIBE of ours.
    ///
    /// ISC-047: our URI as the filter criteria name it, at least as long as the registration, the stored icid.
    fn subscribe_lines(&self, now: Instant, view: &View, least: u32) -> Bytes {
        let house = &self.house;
        let left = u32::try_from(view.ends.saturating_duration_since(now).as_secs());
        let left = if view.registered { left.unwrap_or(u32::MAX) } else { 0 };
        let expires = view.registration.expires.max(left).max(least);
        let expires = if expires == 0 { DEFAULT_DURATION } else { expires };
        let stored = view.registration.icid.as_deref().and_then(|icid| {
            let ioi = view.registration.orig_ioi.as_deref().map(quote);
            let ioi = ioi.map_or(String::new(), |ioi| format!(";orig-ioi={ioi}"));
            ChargingVector::parse(&format!("icid-value={}{ioi}", quote(icid)))
        });
        let ioi = house.ioi(stored.as_ref());
        let vector = match &stored {
            Some(stored) => stored.in_dialog(&ioi),
            None => charging::new_leg(
                &format!("{}-reg", view.registration.call_id),
                &house.host,
                &ioi,
                None,
            ),
        };
        let mut lines = String::new();
        let _ = write!(
            lines,
            "Contact: <sip:{}>\r\nEvent: reg\r\nAccept: {}\r\nExpires: {expires}\r\n\
             P-Asserted-Identity: <{}>\r\nP-Charging-Vector: {vector}\r\nUser-Agent: {}\r\n",
            house.contact,
            reginfo::MEDIA_TYPE,
            house.settings.sip.uri,
            house.product
        );
        Bytes::from(lines)
    }

    /// Nothing more is asked about this user before its next REGISTER.
    fn end_watch(&mut self, key: &Arc<str>) {
        self.watching.set(key, None);
        if let Some(watch) = self.watching.watches.remove(key)
            && let Some(subscription) = watch.subscription
        {
            self.watching.of.remove(&subscription);
            self.ua.forget_subscription(subscription);
        }
        self.users.registry.unclaim(key, self.house.thread);
    }

    /// The subscription is over, and another one may be asked for at once: but not again and again of a registrar that
    /// grants none, or none that lasts.
    fn watch_anew(&mut self, now: Instant, key: &Arc<str>) {
        let watch = self.watching.watches.get(key);
        let first = watch.is_some_and(|watch| watch.failures == 0 || watch.lasted(now));
        self.watch_later(now, key, first.then_some(Duration::ZERO));
    }

    /// The subscription is over or never was: another one after a while.
    fn watch_later(&mut self, now: Instant, key: &Arc<str>, wait: Option<Duration>) {
        let Some(watch) = self.watching.watches.get_mut(key) else { return };
        if watch.lasted(now) {
            watch.failures = 0;
        }
        watch.granted = None;
        let own = FIRST_WAIT * 2_u32.pow(watch.failures.min(7));
        watch.failures += 1;
        watch.asked = false;
        watch.sequence = Sequence::default();
        if let Some(subscription) = watch.subscription.take() {
            self.watching.of.remove(&subscription);
            self.ua.forget_subscription(subscription);
        }
        let wait = wait.unwrap_or(own).min(LONGEST_WAIT);
        self.watching.set(key, Some(now + wait));
    }

    /// The answer to a SUBSCRIBE.
    ///
    /// ISC-047: 480 (registered no more) and 403 (not in the user's filter criteria) are final until the next REGISTER;
    /// anything else is tried again, later and later.
    pub(super) fn subscribed(
        &mut self,
        now: Instant,
        subscription: SubscriptionKey,
        status: u16,
        message: Option<&Message>,
    ) {
        let Some(key) = self.watching.of.get(&subscription).cloned() else { return };
        let number = |name| message.and_then(|message| message.text(name)?.trim().parse().ok());
        match status {
            200..=299 => {
                if let Some(watch) = self.watching.watches.get_mut(&key) {
                    watch.asked = false;
                    watch.granted.get_or_insert(now);
                }
                self.lasts(now, &key, number(Name::Expires).unwrap_or(DEFAULT_DURATION));
            }
            403 | 480 => {
                tracing::info!(
                    rule = "ISC-047",
                    user = &*key,
                    status,
                    "registration state not told"
                );
                self.end_watch(&key);
            }
            // RFC 6665 §4.1.2.1: the dialog is gone there.
            481 => self.watch_anew(now, &key),
            423 => {
                if let Some(watch) = self.watching.watches.get_mut(&key) {
                    watch.least = number(Name::MinExpires).unwrap_or(DEFAULT_DURATION);
                }
                self.watch_anew(now, &key);
            }
            _ => {
                tracing::info!(rule = "ISC-047", user = &*key, status, "SUBSCRIBE failed");
                let wait = number(Name::RetryAfter).map(|wait| Duration::from_secs(wait.into()));
                self.watch_later(now, &key, wait);
            }
        }
    }

    /// The subscription ends in so many seconds: it is refreshed before.
    fn lasts(&mut self, now: Instant, key: &Arc<str>, seconds: u32) {
        let refresh =
            if seconds > 2 * REFRESH_BEFORE { seconds - REFRESH_BEFORE } else { seconds / 2 };
        let wait = Duration::from_secs(refresh.max(1).into()).min(10 * 24 * LONGEST_WAIT);
        self.watching.set(key, Some(now + wait));
    }

    /// Does what is due for subscriptions.
    pub(super) fn watching_due(&mut self, now: Instant) {
        while let Some((at, key)) = self.watching.due.first().filter(|(at, _)| *at <= now).cloned()
        {
            self.watching.due.remove(&(at, Arc::clone(&key)));
            let Some(watch) = self.watching.watches.get_mut(&key) else { continue };
            watch.at = None;
            let subscribed = watch.subscription.is_some();
            let known = self.users.registry.view(now, &key);
            if !known.is_some_and(|view| view.registered) || !self.may_watch() {
                self.end_watch(&key);
            } else if subscribed {
                self.ask_again(now, &key);
            } else {
                self.begin_watch(now, &key);
            }
        }
    }

    /// A NOTIFY of one of our subscriptions.
    ///
    /// ISC-048: 200 at once, whatever it holds.
    pub(super) fn notified(
        &mut self,
        now: Instant,
        (subscription, request): (SubscriptionKey, RequestKey),
        message: &Message,
        flow: &Flow,
        out: &mut Vec<Happening>,
    ) {
        let key = self.watching.of.get(&subscription).cloned();
        let event = message.text(Name::Event).map(|event| event.split(';').next().unwrap_or(event));
        let is_reg = event.is_some_and(|event| event.trim().eq_ignore_ascii_case("reg"));
        let status = match () {
            () if !self.believes(flow) => 403,
            () if key.is_none() => 481,
            () if !is_reg => 489,
            () => 200,
        };
        self.ua.respond(now, request, Reply::new(status));
        let Some(key) = key.filter(|_| status == 200) else { return };
        self.read_reginfo(now, &key, message, out);
        let state = message.text(Name::SubscriptionState).unwrap_or_default();
        let (state, params) = state.split_at(state.find(';').unwrap_or(state.len()));
        let seconds =
            |name| param(params, name).flatten().and_then(|text| text.trim().parse().ok());
        if !state.trim().eq_ignore_ascii_case("terminated") {
            if let Some(left) = seconds("expires") {
                self.lasts(now, &key, left);
            }
            return;
        }
        let reason = param(params, "reason").flatten().unwrap_or_default().to_ascii_lowercase();
        tracing::debug!(user = &*key, reason, "subscription to its registration state ended");
        match reason.as_str() {
            // RFC 6665 §4.1.3: there is no use in asking again, or at once.
            "rejected" | "noresource" | "invariant" => self.end_watch(&key),
            "deactivated" | "timeout" => self.watch_anew(now, &key),
            _ => {
                let wait = seconds("retry-after").map(|wait: u32| Duration::from_secs(wait.into()));
                self.watch_later(now, &key, wait);
            }
        }
    }

    /// ISC-048: a document that cannot be read changes nothing; one that is missing is asked for.
    fn read_reginfo(
        &mut self,
        now: Instant,
        key: &Arc<str>,
        message: &Message,
        out: &mut Vec<Happening>,
    ) {
        if message.body().is_empty() {
            return;
        }
        let document = match reginfo::parse(message.body()) {
            Ok(document) => document,
            Err(bad) => {
                tracing::info!(rule = "ISC-048", user = &**key, %bad, "registration state not read");
                return;
            }
        };
        let Some(watch) = self.watching.watches.get_mut(key) else { return };
        match watch.sequence.take(document) {
            Step::Yes => self.conclude(now, key, out),
            Step::Old => tracing::debug!(user = &**key, "registration state known already"),
            Step::Gap => {
                tracing::debug!(user = &**key, "a part of the registration state is missing");
                self.ask_again(now, key);
            }
        }
    }

    /// What all documents together say of the user.
    ///
    /// ISC-048: registered by any active contact that takes pages. A contact's own REGISTER knows its tags best.
    fn conclude(&mut self, now: Instant, key: &Arc<str>, out: &mut Vec<Happening>) {
        let Some(watch) = self.watching.watches.get(key) else { return };
        let Some(view) = self.users.registry.view(now, key) else { return };
        let icsi = self.house.icsi();
        let mut contacts = Vec::new();
        let mut lasts = None;
        let registrations = watch.sequence.registrations();
        for told in registrations.filter(|told| self.user_key(&told.aor) == *key) {
            for told in told.reachable().take(MAX_CONTACTS) {
                let mut known = view.registration.contacts.iter();
                let known = known.find(|known| known.told && known.uri == told.uri);
                let contact = Contact {
                    uri: told.uri.clone(),
                    expires: told.expires,
                    tags: known.map_or_else(|| told.params.clone(), |known| known.tags.clone()),
                    told: known.is_some() || told.params.iter().any(|(_, value)| value.is_none()),
                };
                if contact.takes_pages(icsi) {
                    lasts = lasts.max(Some(told.expires.unwrap_or(DEFAULT_DURATION)));
                }
                contacts.push(contact);
            }
        }
        contacts.truncate(MAX_CONTACTS);
        let count = contacts.len();
        if let Some(taken) = self.users.registry.reported(now, key, contacts, lasts) {
            let (before, after) = (taken.before, taken.after);
            tracing::debug!(
                user = &**key,
                contacts = count,
                before,
                after,
                "registration state told"
            );
            self.changed(taken, None, !before && after, out);
        }
    }
}
