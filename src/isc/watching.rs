//! Subscriptions to the registration state of users: asked for after their REGISTER, refreshed, and read.
//!
//! Start at [`Isc::watch`] and [`Isc::watch_notified`]; how a subscription lives is in `subscribing`. One thread of the node watches a user; it is whoever took the REGISTER
//! first. What the registrar tells is more exact than its REGISTER and goes into the same table. After a restart nobody is
//! watched until the next REGISTER: the registrar hears 481 and forgets us. ISC-047, ISC-048 (RFC 3680, RFC 6665).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::reachable::{Contact, MAX_CONTACTS};
use super::registry::View;
use super::rules::charging::{self, ChargingVector};
use super::rules::route;
use super::rules::syntax::quote;
use super::subscribing::{Package, Standing, Subscriptions};
use super::{Happening, Isc};
use crate::content::reginfo::{self, DEFAULT_DURATION, Sequence, Taken as Step};
use crate::sip::message::{Message, Method};
use crate::sip::ua::OutRequest;

/// This thread's subscriptions, by user.
pub(super) type Watching = Subscriptions<Arc<str>, Sequence>;

/// ISC-047: 480 (registered no more) and 403 (not in the user's filter criteria) are final until the next REGISTER.
pub(super) const REG: Package =
    Package { name: "reg", usual: DEFAULT_DURATION, hopeless: &[403, 480] };

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
        match self.watching.is_subscribed(key) {
            Some(true) => self.ask_again(now, key),
            Some(false) if registered => self.begin_watch(now, key),
            Some(false) => {}
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
        let own = format!("<{}>", self.house.settings.sip.uri);
        let request = OutRequest {
            request_uri: view.registration.identity.clone(),
            to: format!("<{}>", view.registration.identity),
            from: own,
            route: vec![route::entry(&view.registration.scscf, false)],
            headers: self.subscribe_lines(now, &view, self.watching.least(key)),
            ..OutRequest::new(Method::Subscribe)
        };
        if !self.watching.begin(now, &mut self.ua, key, request) {
            tracing::warn!(user = &**key, "no room for a subscription to its registration state");
            self.end_watch(key);
        }
    }

    /// SUBSCRIBE in the dialog: longer, and all of it once more (RFC 3680 §4.7).
    fn ask_again(&mut self, now: Instant, key: &Arc<str>) {
        let Some(view) = self.users.registry.view(now, key) else { return };
        let lines = self.subscribe_lines(now, &view, self.watching.least(key));
        self.watching.again(now, &mut self.ua, key, (lines, None));
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
        self.watching.end(&mut self.ua, key);
        self.users.registry.unclaim(key, self.house.thread);
    }

    /// The answer to a SUBSCRIBE.
    ///
    /// ISC-047: what is final, see [`REG`]; anything else is tried again, later and later.
    pub(super) fn watch_answered(
        &mut self,
        now: Instant,
        key: &Arc<str>,
        status: u16,
        message: Option<&Message>,
    ) {
        let answer = (status, message);
        let standing = self.watching.answered(now, &mut self.ua, key, answer, &REG);
        if standing != Standing::Goes {
            tracing::info!(rule = "ISC-047", user = &**key, status, "registration state not told");
        }
        if standing == Standing::Hopeless {
            self.end_watch(key);
        }
    }

    /// Does what is due for subscriptions.
    pub(super) fn watching_due(&mut self, now: Instant) {
        while let Some((key, subscribed)) = self.watching.due(now) {
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

    /// A NOTIFY of one of these subscriptions; it has been answered.
    pub(super) fn watch_notified(
        &mut self,
        now: Instant,
        key: &Arc<str>,
        message: &Message,
        out: &mut Vec<Happening>,
    ) {
        self.read_reginfo(now, key, message, out);
        if self.watching.notified(now, &mut self.ua, key, message) == Standing::Hopeless {
            self.end_watch(key);
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
        let Some(sequence) = self.watching.told_mut(key) else { return };
        match sequence.take(document) {
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
        let Some(sequence) = self.watching.told(key) else { return };
        let Some(view) = self.users.registry.view(now, key) else { return };
        let icsi = self.house.icsi();
        let mut contacts = Vec::new();
        let mut lasts = None;
        let registrations = sequence.registrations();
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
