//! Requests for one user that wait at his door: what his own documents say is asked before they pass.
//!
//! Start at [`Isc::waits`]. In the terminating case we are the recipient's participating function: his access rules and
//! settings decide whether a messaging request reaches him (IM-090, IM-091). Who is asked and how is none of this module's
//! business: [`Happening::AtTheDoor`] goes out, [`Isc::let_in`] comes back. Bounded in number and time; what cannot be
//! asked in time passes. Nothing else waits: no answer, no request in a dialog, no emergency.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::inbound::{self, Facts, texts};
use super::rules::overload;
use super::rules::served_user::{self, Case, Clues};
use super::rules::service::{self, Mode};
use super::rules::{identity, route::Arrived};
use super::{Happening, Isc, forward, outbound, refused};
use crate::engine::input::Refusal;
use crate::engine::party::{Declined, Party};
use crate::sip::Flow;
use crate::sip::message::{Message, Method, Name};

/// Most requests that wait; beyond it they pass unasked.
const MOST: usize = 4096;
/// Most messages of one request: itself, and what its sender says before it could pass.
const MOST_OF_ONE: usize = 4;
/// Whoever does not answer in this time has nothing against it. An S-CSCF waits two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Requests that were sent away, for their ACKs and repetitions; the oldest go first.
const MOST_REFUSED: usize = 4096;

/// A request for one user, and who wants to reach him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtTheDoor {
    /// To be given to [`Isc::let_in`].
    pub ticket: u64,
    /// The served user.
    pub recipient: String,
    /// As the core vouches for them.
    pub identities: Vec<Party>,
    /// The sender asks to stay unknown.
    pub anonymous: bool,
}

struct Held {
    id: u64,
    until: Instant,
    facts: Facts,
    messages: Vec<(Message, Flow)>,
}

/// What waits, and what was sent away.
#[derive(Default)]
pub(super) struct Doorstep {
    /// Somebody answers [`Happening::AtTheDoor`].
    pub(super) asks: bool,
    held: BTreeMap<u64, Held>,
    by_id: HashMap<u64, u64>,
    tickets: u64,
    refused: HashMap<u64, Declined>,
    order: VecDeque<u64>,
}

impl Doorstep {
    pub(super) fn next_wake(&self) -> Option<Instant> {
        // Tickets and times grow together.
        self.held.first_key_value().map(|(_, held)| held.until)
    }

    fn remember(&mut self, id: u64, why: Declined) {
        if self.refused.insert(id, why).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MOST_REFUSED {
            if let Some(oldest) = self.order.pop_front() {
                self.refused.remove(&oldest);
            }
        }
    }
}

impl Isc {
    /// From now on [`Happening::AtTheDoor`] is answered with [`Isc::let_in`].
    pub fn ask_at_the_door(&mut self) {
        self.doorstep.asks = true;
    }

    /// Whether a new message waits for what the user says it is for, or belongs to one that does or was sent away.
    pub(super) fn waits(&mut self, now: Instant, message: &Message, flow: Flow) -> bool {
        if !self.doorstep.asks {
            return false;
        }
        let id = forward::id(message);
        if let Some(held) =
            self.doorstep.by_id.get(&id).and_then(|ticket| self.doorstep.held.get_mut(ticket))
        {
            // A repetition is dropped; a CANCEL follows what it cancels.
            let first = held.messages.first().and_then(|(first, _)| first.method());
            if message.method() != first && held.messages.len() < MOST_OF_ONE {
                held.messages.push((message.clone(), flow));
            }
            return true;
        }
        if let Some(why) = self.doorstep.refused.get(&id).copied() {
            return match message.method() {
                Some(Method::Ack) => true,
                Some(Method::Invite | Method::Message) => {
                    let facts = inbound::facts(&self.desk(), now, message, &flow);
                    let reply = outbound::refuse(&self.house, &facts, &refusal(why));
                    self.ua.refuse(message, flow, &reply);
                    true
                }
                _ => false,
            };
        }
        let Some(recipient) = self.recipient_of(now, message, flow) else { return false };
        if self.doorstep.held.len() >= MOST {
            tracing::warn!(rule = "IM-090", "too many requests wait for what their recipients say");
            return false;
        }
        let facts = inbound::facts(&self.desk(), now, message, &flow);
        self.doorstep.tickets += 1;
        let ticket = self.doorstep.tickets;
        let wishes: Vec<_> =
            message.lines(Name::Privacy).map(|line| String::from_utf8_lossy(line)).collect();
        let privacy = (!wishes.is_empty()).then(|| wishes.join(";"));
        self.happened.push(Happening::AtTheDoor(Box::new(AtTheDoor {
            ticket,
            recipient,
            identities: facts.parties.clone(),
            anonymous: facts.hidden || identity::is_anonymous(privacy.as_deref()),
        })));
        let messages = vec![(message.clone(), flow)];
        let held = Held { id, until: now + PATIENCE, facts, messages };
        self.doorstep.by_id.insert(id, ticket);
        self.doorstep.held.insert(ticket, held);
        true
    }

    /// The user whose documents decide, where there is one.
    ///
    /// IM-090, IM-091: messaging requests that pass in the terminating case. ISC-079: an emergency asks nobody.
    fn recipient_of(&self, now: Instant, message: &Message, flow: Flow) -> Option<String> {
        let method = message.method();
        if !matches!(method, Some(Method::Invite | Method::Message))
            || message.to_tag().is_some()
            || self.draining
            || !self.believes(&flow)
            || overload::is_emergency(message)
            || self.forward.knows(message)
        {
            return None;
        }
        let arrived: Arrived = self.passes(message, flow)?;
        let settings = &self.house.settings;
        if method == Some(Method::Invite) {
            let icsi = if settings.profile.is_ims() { settings.im.icsi.as_str() } else { "" };
            let mode = service::mode(
                texts(message, Name::AcceptContact),
                texts(message, Name::Contact).next(),
                texts(message, Name::PAssertedService).next().map(str::trim),
                icsi,
            );
            if mode == Mode::Unknown {
                return None;
            }
        }
        let header =
            served_user::read(texts(message, Name::PServedUser), settings.isc.many_served_users)
                .ok()?;
        let facts = inbound::facts(&self.desk(), now, message, &flow);
        let clues = Clues {
            originating: arrived.is_originating(),
            asserted: facts.identities.first().map(|identity| identity.uri.as_str()),
            request_uri: message.uri(),
        };
        let (user, case) = served_user::decide(header.as_ref(), clues);
        user.filter(|_| case == Case::Terminating)
    }

    /// What the user says to the request with this ticket: it passes, or its sender is told.
    pub fn let_in(&mut self, now: Instant, ticket: u64, declined: Option<Declined>) {
        let Some(held) = self.doorstep.held.remove(&ticket) else { return };
        self.doorstep.by_id.remove(&held.id);
        let mut messages = held.messages.into_iter();
        if let Some(why) = declined
            && let Some((message, flow)) = messages.next()
        {
            let refusal = refusal(why);
            let reply = outbound::refuse(&self.house, &held.facts, &refusal);
            self.happened.push(refused(None, &message, &held.facts, &refusal, reply.status));
            self.ua.refuse(&message, flow, &reply);
            self.doorstep.remember(held.id, why);
        }
        for (message, flow) in messages {
            self.takes_its_course(now, message, flow);
        }
    }

    pub(super) fn doorstep_due(&mut self, now: Instant) {
        while let Some((ticket, _)) =
            self.doorstep.held.first_key_value().filter(|(_, held)| held.until <= now)
        {
            let ticket = *ticket;
            tracing::warn!(
                rule = "IM-090",
                "what a recipient says takes too long; the request passes"
            );
            self.let_in(now, ticket, None);
        }
    }
}

/// IM-090, IM-091: nothing tells a rule from any other reason to refuse.
fn refusal(why: Declined) -> Refusal {
    Refusal::new(why.status(), why.rule())
}
