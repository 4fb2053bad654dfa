//! The HSS tells of a change (Push-Notification).
//!
//! Start at [`Client::notified`]: the checks in their order, what is known afterwards, the answer.

use super::cache::{Slot, Value};
use super::data::{Data, IdentitySet, Key, is_newer};
use super::exchange::{NOTIF_EFF, features};
use super::wildcard::Wildcard;
use super::{Client, State};
use crate::sh::codec::{Avp, Fault, Header, Message, Outcome};
use crate::sh::dictionary::{self as d, APPLICATION_SH, Def, VENDOR_3GPP, result};
use crate::sh::identity::{Identity, digits};
use crate::sh::results::experimental as e;
use crate::sh::userdata::{BadData, Presence, Set, ShData};

/// What the command cannot be without (3GPP TS 29.329 §6.1.7), in the order it is looked for.
const REQUIRED: [&Def; 9] = [
    &d::SESSION_ID,
    &d::VENDOR_SPECIFIC_APPLICATION_ID,
    &d::AUTH_SESSION_STATE,
    &d::ORIGIN_HOST,
    &d::ORIGIN_REALM,
    &d::DESTINATION_HOST,
    &d::DESTINATION_REALM,
    &d::USER_IDENTITY,
    &d::USER_DATA,
];

/// Why a notification is not taken.
enum Refused {
    Base(u32),
    Fault(Fault),
    Sh(u32),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Client {
    /// Takes a notification; returns the answer. Nobody is asked and nothing is waited for.
    ///
    /// SH-045, SH-046, SH-053: repeated by the same HSS it gets the same answer and changes nothing.
    pub fn notified(&self, request: &Message) -> Message {
        let origin = request.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        let name = origin.map(|host| (host, request.header.end_to_end));
        if let Some(answer) = name.as_ref().and_then(|name| self.lock().pushes.get(name).cloned()) {
            self.house.answered("PNR", "ok");
            let header = Header { hop_by_hop: request.header.hop_by_hop, ..answer.header };
            return Message { header, avps: answer.avps };
        }
        let done = self.take_notification(request);
        self.house.answered("PNR", if done.is_ok() { "ok" } else { "refused" });
        let answer = self.answer(request, done);
        if let Some(name) = name {
            self.lock().pushes.insert(name, answer.clone());
        }
        answer
    }

    fn take_notification(&self, request: &Message) -> Result<(), Refused> {
        // (1) The message itself.
        if let Some(fault) = request.unknown_mandatory() {
            return Err(fault.into());
        }
        for def in REQUIRED {
            request.required(def)?;
            request.single(def)?;
        }
        let named = named(request)?;
        // (2) Whether it is for us.
        let to = request.required(&d::DESTINATION_HOST)?.as_identity()?;
        if !to.eq_ignore_ascii_case(&self.settings.origin_host) {
            return Err(Refused::Base(result::UNABLE_TO_DELIVER));
        }
        // (3) Whose data: that of the range, where one is named.
        let identity = match Wildcard::of(request) {
            Some(wildcard) => wildcard.identity(),
            None => named.ok_or(Refused::Sh(e::USER_UNKNOWN))?,
        };
        // (4) Nobody here wants to know anything of it: the HSS drops all there is.
        if !self.lock().awaits(&identity) {
            return Err(Refused::Sh(e::USER_UNKNOWN));
        }
        // (6) before (5): what is told of is known once it is read.
        let document = request.required(&d::USER_DATA)?;
        let document = ShData::parse(&document.data).map_err(|why| {
            tracing::warn!(%why, user = self.alias(&identity), rule = "SH-045", "a notification nobody understands");
            Refused::Sh(match why {
                BadData::TooLarge => e::TOO_MUCH_DATA,
                BadData::Malformed(_) => e::USER_DATA_NOT_RECOGNIZED,
            })
        })?;
        // (5) Something of it has to be subscribed to; the rest is passed over.
        let now = self.now();
        let mut over = Vec::new();
        let mut state = self.lock();
        let told = told(&document, &identity);
        let (ours, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(key, _)| state.follows(key));
        let gone = gone(&document);
        if ours.is_empty() && (!others.is_empty() || gone.is_empty()) {
            return Err(Refused::Sh(e::NO_SUBSCRIPTION_TO_DATA));
        }
        for (key, value) in ours {
            if state.change(&key, value, now) {
                over.push(key);
            }
        }
        for identity in gone {
            state.cache.purge(&identity);
            over.extend(state.subscriptions.of(&identity));
        }
        drop(state);
        over.iter().for_each(|key| self.ended(key, "the HSS says that it is gone"));
        Ok(())
    }

    /// SH-025, SH-052 (RFC 6733 §6.2, TS 29.229 §6.2): what Sh defines is an Experimental-Result, all else a Result-Code.
    fn answer(&self, request: &Message, done: Result<(), Refused>) -> Message {
        let (outcome, failed) = match done {
            Ok(()) => (Outcome::Base(result::SUCCESS), None),
            Err(Refused::Base(code)) => (Outcome::Base(code), None),
            Err(Refused::Fault(fault)) => {
                (Outcome::Base(fault.result_code()), Some(fault.failed_avp()))
            }
            Err(Refused::Sh(code)) => (Outcome::Experimental { vendor: VENDOR_3GPP, code }, None),
        };
        let mut avps: Vec<Avp> = request.find(&d::SESSION_ID).cloned().into_iter().collect();
        avps.push(Avp::grouped(
            &d::VENDOR_SPECIFIC_APPLICATION_ID,
            &[
                Avp::u32(&d::VENDOR_ID, VENDOR_3GPP),
                Avp::u32(&d::AUTH_APPLICATION_ID, APPLICATION_SH),
            ],
        ));
        avps.push(match outcome {
            Outcome::Base(code) => Avp::u32(&d::RESULT_CODE, code),
            Outcome::Experimental { vendor, code } => Avp::grouped(
                &d::EXPERIMENTAL_RESULT,
                &[Avp::u32(&d::VENDOR_ID, vendor), Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, code)],
            ),
        });
        avps.push(Avp::u32(&d::AUTH_SESSION_STATE, 1));
        avps.push(Avp::text(&d::ORIGIN_HOST, &self.settings.origin_host));
        avps.push(Avp::text(&d::ORIGIN_REALM, &self.settings.origin_realm));
        if request.find(&d::SUPPORTED_FEATURES).is_some() {
            avps.push(features(NOTIF_EFF));
        }
        avps.extend(failed);
        avps.extend(request.find_all(&d::PROXY_INFO).cloned());
        let mut answer = request.answer(avps);
        if matches!(outcome, Outcome::Base(code) if code / 1000 == 3) {
            answer.header.flags |= Header::ERROR;
        }
        answer
    }
}

/// The answer of a server that is only just starting: come again.
///
/// SH-025: a protocol error in the generic format.
pub fn not_yet(request: &Message, host: &str, realm: &str) -> Message {
    let mut avps: Vec<Avp> = request.find(&d::SESSION_ID).cloned().into_iter().collect();
    avps.push(Avp::u32(&d::RESULT_CODE, result::TOO_BUSY));
    avps.push(Avp::text(&d::ORIGIN_HOST, host));
    avps.push(Avp::text(&d::ORIGIN_REALM, realm));
    avps.extend(request.find_all(&d::PROXY_INFO).cloned());
    let mut answer = request.answer(avps);
    answer.header.flags |= Header::ERROR;
    answer
}

/// The identity in User-Identity; `None` for one we have no name for.
fn named(request: &Message) -> Result<Option<Identity>, Fault> {
    let group = request.required(&d::USER_IDENTITY)?.as_group()?;
    let member = |def: &Def| group.iter().find(|member| member.is(def));
    if let Some(identity) = member(&d::PUBLIC_IDENTITY) {
        return Ok(Identity::canonical(identity.as_text()?));
    }
    let number = member(&d::MSISDN).and_then(|number| digits(&number.data));
    Ok(number.and_then(|number| Identity::canonical(&format!("tel:+{number}"))))
}

/// What a notification says, by key.
fn told(document: &ShData, identity: &Identity) -> Vec<(Key, Told)> {
    let mut told = Vec::new();
    let mut add = |data, value| told.push((Key { identity: identity.clone(), data }, value));
    for slot in &document.repository {
        let data = Data::Repository(slot.service_indication.as_str().into());
        add(data, Told::Slot(slot.sequence, Slot::new(slot.sequence, &slot.data)));
    }
    if let Some(state) = document.state {
        add(Data::UserState, Told::Value(Some(Value::UserState(state))));
    }
    match &document.scscf {
        Presence::Absent => {}
        Presence::Empty => add(Data::ServingCscf, Told::Value(Some(Value::ServingCscf(None)))),
        Presence::Present(name) => {
            let name = Some(name.as_str().into());
            add(Data::ServingCscf, Told::Value(Some(Value::ServingCscf(name))));
        }
    }
    if let Some(active) = document.psi_active {
        add(Data::PsiActivation, Told::Value(Some(Value::PsiActivation(active))));
    }
    if let Some(charging) = document.charging.clone() {
        add(Data::Charging, Told::Value(Some(Value::Charging(charging.into()))));
    }
    // Which of the sets changed is not always said: each is asked for again.
    if document.identities.iter().any(|block| block.set != Set::Deleted) {
        add(Data::Identities(IdentitySet::Implicit), Told::Changed);
        add(Data::Identities(IdentitySet::Alias), Told::Changed);
    }
    told
}

/// Identities that are no longer.
fn gone(document: &ShData) -> Vec<Identity> {
    let deleted = document.identities.iter().filter(|block| block.set == Set::Deleted);
    deleted.flat_map(|block| &block.uris).filter_map(|uri| Identity::canonical(uri)).collect()
}

/// What is said of one piece of data.
enum Told {
    /// `None`: it is gone.
    Slot(u16, Option<Slot>),
    Value(Option<Value>),
    /// It is another one now.
    Changed,
}

impl State {
    /// Takes a change; whether the subscription has ended with it.
    fn change(&mut self, key: &Key, told: Told, now: std::time::Instant) -> bool {
        match told {
            Told::Slot(sequence, slot) => {
                if let Some(Value::Repository(known)) = self.cache.peek(key)
                    && !is_newer(sequence, known.sequence)
                {
                    return false;
                }
                self.overtake(key);
                let is_gone = slot.is_none();
                let subscribed = self.subscribed(key);
                self.cache.put(key.clone(), slot.map(Value::Repository), subscribed, now);
                self.expire_siblings(key, now);
                is_gone
            }
            Told::Value(value) => {
                self.overtake(key);
                let value = self.settled(key, value);
                let subscribed = self.subscribed(key);
                self.cache.put(key.clone(), value, subscribed, now);
                false
            }
            Told::Changed => {
                self.overtake(key);
                // Not of use any more, not even where there is no HSS.
                self.cache.remove(key);
                false
            }
        }
    }
}
