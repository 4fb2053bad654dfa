//! Short pages: a MESSAGE becomes an arrival or a refusal, and goes to every recipient as a MESSAGE of its own.
//!
//! Start at [`Isc::messaged`] for what comes and [`Isc::deliver`] for what leaves; [`Isc::accept`] answers the originator,
//! [`Isc::copy_answered`] reads a recipient's answer. Follows IM-079, IM-080, UL-025, UL-027, UL-028 and RFC 5365.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::inbound::{self, Desk, Facts, Origin};
use super::legs::{self, Page};
use super::outbound::{self, Block, Personal};
use super::rules::refusal;
use super::rules::service::LIST_MESSAGE;
use super::settings::{SizeBasis, SizeReject};
use super::{Happening, Isc};
use crate::content::message_body::{self, MessageBody, Piece};
use crate::content::request_body::{BodyRefusal, RESOURCE_LISTS};
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::{LegEvent, Mode, Refusal};
use crate::engine::party::{Audience, Recipient};
use crate::sip::message::Message;
use crate::sip::ua::{Failure, RequestKey};
use crate::sip::{Flow, Protocol};

/// What the SIP side has of a short page beside what all pages have.
#[derive(Debug)]
pub struct Short {
    /// The originator's MESSAGE, until it has its answer.
    pub request: Option<RequestKey>,
    /// What it says.
    pub payload: Vec<Piece>,
    /// The MESSAGE of each recipient it was sent to, the last one.
    pub copies: BTreeMap<u16, Sent>,
}

/// The MESSAGE one recipient was sent.
#[derive(Debug)]
pub struct Sent {
    pub key: RequestKey,
    pub random: u64,
    recipient: Recipient,
    audience: Arc<Audience>,
    /// It shows the history list.
    lists: bool,
}

/// The checks of a MESSAGE to a list service or a group, in their order; the first failure decides.
///
/// UL-031: who may ask comes first, then the size, then what it says.
///
/// # Errors
/// The refusal to answer with.
pub fn check(
    desk: &Desk<'_>,
    message: &Message,
    flow: &Flow,
    facts: &Facts,
) -> Result<(Box<Origin>, Vec<Piece>), Refusal> {
    let opening = inbound::opening(desk, message, flow, facts, LIST_MESSAGE)?;
    let body = message.body_bytes();
    // What is measured without its list has to be read first.
    let pager = &desk.settings.pager;
    let safe = pager.safe_path && flow.protocol != Protocol::Udp;
    let too_large = |octets: usize| !safe && octets > pager.max_size;
    if pager.size_basis == SizeBasis::Request && too_large(message.bytes().len()) {
        return Err(size_exceeded(desk));
    }
    let MessageBody { pieces, lists } = read(desk, message, &body)?;
    if pager.size_basis == SizeBasis::Body && too_large(message_body::size(&pieces)) {
        return Err(size_exceeded(desk));
    }
    let target = inbound::target(desk, message, flow, facts, &opening, &lists)?;
    if pieces.is_empty() {
        return Err(Refusal::new(400, "UL-028").warn("Message without content"));
    }
    Ok((opening.origin(desk, message, facts, (None, target)), pieces))
}

/// IM-079: never 513, a 5xx would have the S-CSCF go round us.
fn size_exceeded(desk: &Desk<'_>) -> Refusal {
    match desk.settings.pager.size_reject {
        SizeReject::TooLarge => Refusal::new(413, "IM-079"),
        SizeReject::Forbidden => Refusal::new(403, "IM-079").warn(refusal::SIZE),
    }
}

fn read(desk: &Desk<'_>, message: &Message, body: &bytes::Bytes) -> Result<MessageBody, Refusal> {
    let mut headers = Vec::new();
    for (name, value) in message.all_headers() {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            continue;
        };
        // RFC 3261 §7.3.3: their compact forms.
        let name = match name {
            "c" | "C" => "Content-Type",
            "e" | "E" => "Content-Encoding",
            name => name,
        };
        let starts = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("Content-"));
        if starts && !name.eq_ignore_ascii_case("Content-Length") {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    message_body::read(headers, body, desk.settings.ul.require_strict).map_err(
        |error| match error {
            BodyRefusal::Broken(_) => Refusal::new(400, "UL-006").warn(error.to_string()),
            BodyRefusal::Unknown => {
                let mut refusal = Refusal::new(415, "UL-007");
                refusal.headers.push(("Accept", format!("{RESOURCE_LISTS}, multipart/mixed, */*")));
                refusal
            }
        },
    )
}

impl Isc {
    /// A MESSAGE to a list service or a group.
    ///
    /// IM-079, IM-080.
    pub(super) fn messaged(
        &mut self,
        now: Instant,
        request: RequestKey,
        message: &Message,
        (flow, facts): (&Flow, Facts),
        out: &mut Vec<Happening>,
    ) {
        let id = PageId::new(self.house.thread, self.random.next_u64());
        match check(&self.desk(), message, flow, &facts) {
            Ok((origin, payload)) => {
                let size = message_body::size(&payload) as u64;
                let short = Short { request: Some(request), payload, copies: BTreeMap::new() };
                let page = Page { short: Some(short), ..super::page(now, origin, facts) };
                self.arrives(now, message, (id, Mode::Short, Some(size)), page, out);
            }
            Err(refusal) => {
                let refusal = refusal.for_message();
                let reply = outbound::refuse(&self.house, &facts, &refusal);
                if reply.status != 401 {
                    out.push(super::refused(Some(id), message, &facts, &refusal, reply.status));
                }
                self.ua.respond(now, request, reply);
            }
        }
    }

    /// 202 to the originator of a short page.
    ///
    /// UL-027.
    pub fn accept(&mut self, now: Instant, page: PageId, warnings: &[String]) {
        let Some(state) = self.pages.get_mut(&page) else { return };
        state.answered = true;
        let reply = outbound::accepted(&self.house, &state.origin, &state.facts, warnings);
        if let Some(request) = state.short.as_mut().and_then(|short| short.request.take()) {
            self.ua.respond(now, request, reply);
        }
    }

    /// Sends one recipient the page. Returns the Call-ID, for call flows.
    ///
    /// # Errors
    /// What the engine has to hear: the copy would be longer than may be sent (IM-079).
    pub fn deliver(
        &mut self,
        now: Instant,
        leg: LegId,
        recipient: &Recipient,
        audience: &Arc<Audience>,
    ) -> Result<String, LegEvent> {
        let plain = self.plain.knows(&recipient.party.key);
        self.send_copy(now, leg, recipient.clone(), Arc::clone(audience), plain)
    }

    fn send_copy(
        &mut self,
        now: Instant,
        leg: LegId,
        recipient: Recipient,
        audience: Arc<Audience>,
        plain: bool,
    ) -> Result<String, LegEvent> {
        let call_id = self.ua.fresh_call_id();
        let random = self.random.next_u64();
        let unknown = || LegEvent::Unreachable { timeout: false };
        let page = self.pages.get_mut(&leg.page).ok_or_else(unknown)?;
        let way = outbound::way(&self.house, &page.origin, page.answered);
        let (origin, facts) = (&page.origin, &page.facts);
        let block = page.block.get_or_insert_with(|| {
            Block::new(&self.house, (leg.page, Mode::Short), origin, facts, way.kind, &audience)
        });
        let short = page.short.as_mut().ok_or_else(unknown)?;
        let elapsed = now.saturating_duration_since(page.since).as_secs();
        let who = Personal {
            leg,
            call_id: &call_id,
            random,
            recipient: &recipient,
            audience: &audience,
            elapsed: u32::try_from(elapsed).unwrap_or(u32::MAX),
        };
        let payload = (short.payload.as_slice(), plain);
        let copy = outbound::message(&self.house, origin, facts, (block, way), &who, payload);
        if copy.too_large {
            tracing::info!(%leg, rule = "IM-079", "copy too large to be sent");
            let text = "larger than may be sent".to_owned();
            return Err(LegEvent::Refused { status: 413, text, retry_after: None });
        }
        let key = self.ua.request(now, copy.request);
        let sent = Sent { key, random, recipient, audience, lists: copy.lists };
        if let Some(before) = short.copies.insert(leg.n, sent) {
            self.copies.remove(&before.key);
        }
        self.copies.insert(key, leg);
        Ok(call_id)
    }

    /// The end of a MESSAGE of ours.
    ///
    /// UL-025: whoever cannot read a multipart gets it once more without the history list.
    pub(super) fn copy_answered(
        &mut self,
        now: Instant,
        request: RequestKey,
        status: u16,
        message: Option<&Message>,
    ) -> Option<(LegId, LegEvent)> {
        let leg = self.copies.remove(&request)?;
        let short = self.pages.get_mut(&leg.page)?.short.as_mut()?;
        let sent = short.copies.get(&leg.n)?;
        if sent.lists && matches!(status, 400 | 415) && message.is_some() {
            let (recipient, audience) = (sent.recipient.clone(), Arc::clone(&sent.audience));
            if status == 415 {
                self.plain.learn(&recipient.party.key);
            }
            tracing::info!(%leg, status, rule = "UL-025", "MESSAGE tried again without the history list");
            return match self.send_copy(now, leg, recipient, audience, true) {
                Ok(_) => None,
                Err(event) => Some((leg, event)),
            };
        }
        let event = match (status, message) {
            (200..=299, Some(_)) => LegEvent::Accepted { allow: None, contact: None },
            (_, Some(_)) => legs::rejected(status, message, Failure::Response),
            (408, None) => legs::rejected(status, None, Failure::Timeout),
            (_, None) => legs::rejected(status, None, Failure::Transport),
        };
        Some((leg, event))
    }
}
