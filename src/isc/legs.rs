//! Which call is which page's: the dialogs of a page, and what happened in them in the engine's words.
//!
//! Start at [`Page`] and [`Leg`]. Follows IM-013 to IM-017, IM-060, IM-062, MS-026 and UL-025.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::inbound::{Facts, Origin, texts};
use super::messages::Short;
use super::outbound::{Block, Variant};
use crate::content::fingerprint::Terms;
use crate::content::media_address::Fit;
use crate::content::request_body;
use crate::content::sdp::{self, End, Peer, Session};
use crate::engine::input::LegEvent;
use crate::engine::party::{Audience, Recipient};
use crate::sip::message::{Message, Name, reason_phrase};
use crate::sip::ua::{CallKey, Failure, Fork};

/// The dialogs of one page.
#[derive(Debug)]
pub struct Page {
    /// The originator's, while there is one.
    pub call: Option<CallKey>,
    pub origin: Box<Origin>,
    pub facts: Facts,
    /// When the INVITE came.
    pub since: Instant,
    /// The originator has our final answer.
    pub answered: bool,
    pub block: Option<Block>,
    /// Version of our description (MS-015).
    pub version: u64,
    pub legs: BTreeMap<u16, Leg>,
    /// What a short page has instead of dialogs.
    pub short: Option<Short>,
}

/// The dialog with one recipient.
#[derive(Debug)]
pub struct Leg {
    /// `None` only while its INVITE is being made.
    pub call: Option<CallKey>,
    pub recipient: Recipient,
    pub audience: Arc<Audience>,
    pub own: End,
    /// Version of our description (MS-015).
    pub version: u64,
    /// Kept so that a second try carries the same icid and session id.
    pub random: u64,
    pub call_id: String,
    pub variant: Variant,
    /// Our offer says CEMA (MS-026).
    pub cema: bool,
    /// The body of the last try was multipart.
    pub multipart: bool,
    pub retried: bool,
    /// Nobody wants an answer any more.
    pub cancelled: bool,
    /// Session descriptions of reliable provisional responses, by fork.
    pub early: Option<(Fork, Bytes)>,
    pub peer: Option<Peer>,
    /// The description `peer` was read from.
    pub theirs: Option<Session>,
}

/// IM-013, IM-015: the methods a response says its sender takes; `None` if it says nothing.
pub fn allow(message: &Message) -> Option<Vec<Arc<str>>> {
    message.header(Name::Allow)?;
    Some(texts(message, Name::Allow).map(Arc::from).collect())
}

/// IM-014, IM-016.
pub fn contact(message: &Message) -> Option<Arc<str>> {
    message.contact().map(|contact| Arc::from(contact.uri))
}

/// The session description in a response.
pub fn description(message: &Message) -> Option<Bytes> {
    let body = message.body_bytes();
    if body.is_empty() {
        return None;
    }
    let disposition = message.text(Name::ContentDisposition);
    request_body::read(message.content_type()?, disposition, &body, false).ok()?.sdp
}

impl Leg {
    /// A provisional response above 100.
    ///
    /// IM-013, IM-014. A description in a reliable one is the answer already (RFC 3262 §5).
    pub fn provisional(&mut self, fork: Fork, message: &Message) -> LegEvent {
        if message.has_token(Name::Require, "100rel")
            && let Some(sdp) = description(message)
        {
            self.early = Some((fork, sdp));
        }
        LegEvent::Early {
            ringing: message.status() == Some(180),
            allow: allow(message),
            contact: contact(message),
        }
    }

    /// The first 2xx.
    ///
    /// IM-015, IM-016, IM-017, IM-060, IM-078: what was offered over TLS is answered over TLS. MS-026 by the second
    /// value.
    pub fn answered(&mut self, fork: &Fork, message: &Message, terms: Terms) -> (LegEvent, Fit) {
        let early = self.early.take().filter(|(of, _)| of == fork).map(|(_, sdp)| sdp);
        let unusable = |text: &str| (LegEvent::Unusable { text: text.to_owned() }, Fit::Same);
        let Some(sdp) = description(message).or(early) else {
            return unusable("answer without SDP");
        };
        let Ok(session) = Session::parse(&sdp) else { return unusable("malformed SDP") };
        let tls = self.own.path.is_secure().then_some(terms);
        match sdp::read_answer(&session, tls, self.cema) {
            Ok(answer) => {
                self.peer = Some(answer.peer);
                self.theirs = Some(session);
                let event = LegEvent::Accepted { allow: allow(message), contact: contact(message) };
                (event, answer.fit)
            }
            Err(why) => unusable(why.text),
        }
    }

    /// How the INVITE has to change so that one more try makes sense.
    ///
    /// IM-062, UL-025: once a leg; not for 401, 407 or 3xx.
    pub fn second_try(&self, status: u16, message: &Message) -> Option<Variant> {
        if self.retried || self.cancelled {
            return None;
        }
        let variant = self.variant.clone();
        match status {
            422 => {
                let min_se = message.text(Name::MinSe)?.split(';').next()?.trim().parse().ok()?;
                Some(Variant { min_se: Some(min_se), ..variant })
            }
            415 if self.multipart && !takes_multipart(message) => {
                Some(Variant { plain: true, ..variant })
            }
            400 if self.multipart => Some(Variant { plain: true, ..variant }),
            420 => {
                let offered = ["100rel", "timer"];
                let without: Vec<String> = texts(message, Name::Unsupported)
                    .filter(|tag| offered.iter().any(|own| own.eq_ignore_ascii_case(tag)))
                    .map(str::to_owned)
                    .collect();
                (!without.is_empty()).then_some(Variant { without, ..variant })
            }
            _ => None,
        }
    }
}

fn takes_multipart(message: &Message) -> bool {
    texts(message, Name::Accept).any(|range| {
        let range = range.split(';').next().unwrap_or(range).trim();
        ["multipart/mixed", "multipart/*", "*/*"].iter().any(|own| own.eq_ignore_ascii_case(range))
    })
}

/// The end of an INVITE without 2xx.
pub fn rejected(status: u16, message: Option<&Message>, cause: Failure) -> LegEvent {
    match cause {
        Failure::Timeout => LegEvent::Unreachable { timeout: true },
        Failure::Transport => LegEvent::Unreachable { timeout: false },
        Failure::Response => {
            let text = message.map(Message::reason).filter(|text| !text.is_empty());
            LegEvent::Refused {
                status,
                text: text.unwrap_or_else(|| reason_phrase(status)).to_owned(),
                retry_after: message.and_then(retry_after),
            }
        }
    }
}

/// Seconds of Retry-After; what cannot be read says nothing (RFC 3261 §20.33).
fn retry_after(message: &Message) -> Option<u32> {
    let text = message.text(Name::RetryAfter)?;
    text.split([';', '(', ' ']).next()?.parse().ok()
}

/// Recipients whose clients refused multipart, the oldest forgotten first.
///
/// IM-047.
#[derive(Debug, Default)]
pub struct Plain {
    known: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Plain {
    const MOST: usize = 4096;

    pub fn learn(&mut self, key: &Arc<str>) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key.clone());
        }
        while self.order.len() > Self::MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    pub fn knows(&self, key: &str) -> bool {
        self.known.contains(key)
    }
}
