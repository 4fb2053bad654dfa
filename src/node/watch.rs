//! What the node shows of itself: one place that turns events, messages and refusals into the board, metrics, call flows
//! and log lines.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch as signal;

use crate::engine::event::Event;
use crate::engine::ids::{LegId, PageId};
use crate::engine::input::Refusal;
use crate::flow::{Crossing, Flows, Proto, Transport};
use crate::isc::Refused;
use crate::ops::NeighbourState;
use crate::ops::board::Board;
use crate::ops::metrics::{Direction, Metrics};
use crate::sip::message::Message;
use crate::sip::ua::{CallKey, Stats};
use crate::sip::uri::Uri;
use crate::sip::{Flow, Protocol, Target};
use crate::xdms::path::DocumentPath;
use crate::xdms::ut::http::Exchange;

/// Everything of a node that watches. Shared by its threads.
pub struct Watch {
    /// Our name in call flows.
    pub name: Arc<str>,
    /// Where we send SIP from, in call flows.
    pub sip_address: Option<SocketAddr>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub flows: Arc<Flows>,
    /// One for each thread.
    pub gauges: Box<[Gauges]>,
    /// The page that came to its end last.
    pub ended: signal::Sender<Option<PageId>>,
    /// What is known of the core, and the last thing that went wrong with it.
    pub core: Mutex<(NeighbourState, Option<String>)>,
}

/// What a thread has and has done, as far as it is read and not counted.
#[derive(Debug, Default)]
pub struct Gauges {
    pub transactions: AtomicU64,
    pub retransmissions: AtomicU64,
}

/// The wall clock, for events and call flows only; no decision depends on it.
#[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The same moment on both clocks, to tell one from the other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub now: Instant,
    pub time: SystemTime,
}

impl Clock {
    /// A moment as milliseconds since 1970; nothing was before that.
    pub fn millis(&self, at: Instant) -> u64 {
        let time = if at >= self.now {
            self.time.checked_add(at - self.now)
        } else {
            self.time.checked_sub(self.now - at)
        };
        let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Watch {
    /// A message between us and one side of a page, now; whoever has them fills in the addresses.
    pub fn crossing(&self, page: PageId, leg: Option<LegId>, sent: bool) -> Crossing {
        let peer: Arc<str> = match leg {
            None => "originator".into(),
            Some(leg) => format!("recipient {}", leg.n).into(),
        };
        let (from, to) = if sent { (self.name.clone(), peer) } else { (peer, self.name.clone()) };
        Crossing {
            page: page.as_u64(),
            leg: leg.map(|leg| leg.n),
            time: wall_clock(),
            transport: Transport::Tcp,
            sent,
            from,
            to,
            local: None,
            remote: None,
        }
    }

    /// One event of the engine.
    pub fn event(&self, event: &Event) {
        log_event(event);
        self.board.on_event(wall_clock(), event);
    }

    /// A page came to its end and its last message is in the call flow.
    pub fn over(&self, page: PageId, failed: bool) {
        self.flows.ended(page.as_u64(), failed);
        self.ended.send_replace(Some(page));
    }

    /// A group was looked up; `refusal` is what its sender is told instead of an audience.
    ///
    /// What went over the wire for it is shown as it was, and was counted then.
    pub fn asked(
        &self,
        page: PageId,
        group: &str,
        refusal: Option<&Refusal>,
        exchanges: &[Exchange],
    ) {
        if !exchanges.is_empty() {
            exchanges.iter().for_each(|exchange| self.exchanged(page, exchange));
            return;
        }
        let (result, answer) = match refusal.map(|refusal| refusal.status) {
            None => ("ok", "200 OK"),
            Some(404) => ("not_found", "404 Not Found"),
            Some(480) => ("unavailable", "503 Service Unavailable"),
            // The document was there and its rules, or its size, decided.
            Some(_) => ("denied", "200 OK"),
        };
        self.metrics.xdms_request(result);
        let xdms: Arc<str> = "XDMS".into();
        let step = |sent: bool| Crossing {
            transport: Transport::Inside,
            from: if sent { self.name.clone() } else { xdms.clone() },
            to: if sent { xdms.clone() } else { self.name.clone() },
            ..self.crossing(page, None, sent)
        };
        let get = format!("GET {} XCAP/1.0\r\n", DocumentPath::by_group(group));
        self.flows.record_note(step(true), Proto::Xcap, &get, 0);
        self.flows.record_note(step(false), Proto::Xcap, &format!("XCAP/1.0 {answer}\r\n"), 0);
    }

    /// The HSS was asked about whoever sends a page, or what it said before was looked up.
    pub fn asked_hss(&self, page: PageId, what: &str, answer: &str) {
        if self.flows.is_off() {
            return;
        }
        let hss: Arc<str> = "HSS".into();
        let step = |sent: bool| Crossing {
            transport: Transport::Inside,
            from: if sent { self.name.clone() } else { hss.clone() },
            to: if sent { hss.clone() } else { self.name.clone() },
            ..self.crossing(page, None, sent)
        };
        self.flows.record_note(step(true), Proto::Sh, &format!("Sh-Pull {what}\r\n"), 0);
        self.flows.record_note(step(false), Proto::Sh, &format!("Sh-Pull {what} {answer}\r\n"), 0);
    }

    /// One exchange with an XDMS elsewhere.
    fn exchanged(&self, page: PageId, exchange: &Exchange) {
        let (ticks, time) = (tokio::time::Instant::now(), wall_clock());
        let xdms: Arc<str> = "XDMS".into();
        let step = |sent: bool, at: tokio::time::Instant| Crossing {
            time: time.checked_sub(ticks.saturating_duration_since(at)).unwrap_or(time),
            transport: Transport::Inside,
            from: if sent { self.name.clone() } else { xdms.clone() },
            to: if sent { xdms.clone() } else { self.name.clone() },
            local: exchange.local,
            remote: exchange.remote,
            ..self.crossing(page, None, sent)
        };
        self.flows.record_note(step(true, exchange.began), Proto::Xcap, &exchange.request, 0);
        if let Some(answer) = &exchange.answer {
            let octets = exchange.octets as u64;
            self.flows.record_note(step(false, exchange.ended), Proto::Xcap, answer, octets);
        }
    }

    /// A request was refused before the engine heard of it; `isc` has written its log line.
    pub fn refused(&self, refused: &Refused) {
        self.metrics.refused(refused.rule);
    }

    /// A SIP message was received.
    pub fn received(&self, message: &Message) {
        let cseq = message.cseq();
        self.metrics.sip_message(Direction::In, cseq.method.as_str(), message.status());
        if message.status().is_some() {
            self.core_is(NeighbourState::Up, None);
        }
    }

    /// A request found no way to the core.
    pub fn unreachable(&self) {
        self.core_is(NeighbourState::Down, Some("no next hop takes our requests".to_owned()));
    }

    fn core_is(&self, state: NeighbourState, error: Option<String>) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.0 = state;
        if error.is_some() {
            core.1 = error;
        }
    }

    /// What a thread has now.
    pub fn gauge(&self, thread: u8, stats: Stats) {
        let Some(gauges) = self.gauges.get(usize::from(thread)) else { return };
        let transactions = stats.client_transactions + stats.server_transactions;
        gauges.transactions.store(transactions as u64, Ordering::Relaxed);
        gauges.retransmissions.store(stats.retransmissions_sent, Ordering::Relaxed);
    }

    /// A SIP message leaves.
    pub fn sent(&self, bytes: &Bytes) {
        let Some((method, status)) = start_of(bytes) else { return };
        self.metrics.sip_message(Direction::Out, method, status);
    }
}

/// Method and status of a message of ours: the start line of a request, the CSeq of a response.
fn start_of(bytes: &[u8]) -> Option<(&str, Option<u16>)> {
    let line = &bytes[..memchr::memchr(b'\r', bytes)?];
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let first = words.next()?;
    if first != "SIP/2.0" {
        return Some((first, None));
    }
    let status = words.next()?.parse().ok()?;
    let cseq = header(bytes, b"\r\nCSeq: ")?;
    Some((cseq.split(' ').nth(1)?, Some(status)))
}

/// The value of a header as we and most others write it.
fn header<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let at = memchr::memmem::find(bytes, name)? + name.len();
    let end = at + memchr::memchr(b'\r', &bytes[at..])?;
    std::str::from_utf8(&bytes[at..end]).ok().map(str::trim)
}

/// The address in a URI that needs no resolving.
fn numeric(uri: &str) -> Option<SocketAddr> {
    let uri = Uri::parse(uri).ok()?;
    let ip: IpAddr = uri.host().trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(ip, uri.port().unwrap_or(5060)))
}

fn log_event(event: &Event) {
    match event {
        Event::PageArrived { page, mode, originator, dialled, size } => {
            tracing::info!(%page, ?mode, originator = %originator.uri, dialled = %dialled.uri, size, "page arrived");
        }
        Event::PageRefused { page, status, text } => {
            tracing::debug!(%page, status, text, "page over before it began");
        }
        Event::PageLost { page, cause } => {
            tracing::info!(%page, ?cause.protocol, cause.code, cause.text, "page lost");
        }
        Event::PageComplete { page, size } => tracing::info!(%page, size, "page complete"),
        Event::Delivered { leg, octets } => tracing::info!(%leg, octets, "delivered"),
        Event::Failed { leg, cause, octets } => {
            tracing::info!(%leg, octets, ?cause.protocol, cause.code, cause.text, "not delivered");
        }
        Event::PageEnded { page, delivered, failed, deferred } => {
            tracing::info!(%page, delivered, failed, deferred, "page ended");
        }
        Event::PageRestored { page, mode, originator, .. } => {
            tracing::info!(%page, ?mode, originator = %originator.uri, "page goes on");
        }
        Event::Deferred { leg, cause } => {
            tracing::info!(%leg, ?cause.protocol, cause.code, cause.text, "waits for the recipient");
        }
        Event::Expired { leg, .. } => tracing::info!(%leg, "not delivered in time"),
        Event::RecipientRemoved { page, why, .. } => {
            tracing::info!(%page, ?why, "recipient removed")
        }
        other => tracing::debug!(event = ?other, "event"),
    }
}

/// One SIP message on its way into the call flow: whose it is may be known only at the end of the turn.
struct Pending {
    call_id: Bytes,
    /// The call it belongs to, where the SIP stack said so.
    call: Option<CallKey>,
    bytes: Bytes,
    time: SystemTime,
    sent: bool,
    protocol: Protocol,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
}

/// Which Call-ID belongs to which page, and the messages of this turn.
#[derive(Default)]
pub struct Ladder {
    trails: HashMap<Bytes, (PageId, Option<LegId>)>,
    of_page: HashMap<PageId, Vec<Bytes>>,
    /// Pages that are over, and until when their last answers are awaited.
    over: VecDeque<(Instant, PageId)>,
    pending: Vec<Pending>,
}

impl Ladder {
    /// Notes a received message.
    pub fn received(&mut self, message: &Message, flow: &Flow) {
        self.pending.push(Pending {
            call_id: Bytes::copy_from_slice(message.call_id()),
            call: None,
            bytes: message.bytes().clone(),
            time: wall_clock(),
            sent: false,
            protocol: flow.protocol,
            local: Some(flow.local),
            remote: Some(flow.peer),
        });
    }

    /// Notes a message that leaves.
    pub fn sent(
        &mut self,
        bytes: &Bytes,
        to: &Target,
        protocol: Option<Protocol>,
        call: Option<CallKey>,
    ) {
        let Some(call_id) = header(bytes, b"\r\nCall-ID: ") else { return };
        let (local, remote) = match to {
            Target::Flow(flow) => (Some(flow.local), Some(flow.peer)),
            Target::NextHop { uri, .. } => (None, numeric(uri)),
        };
        self.pending.push(Pending {
            call_id: Bytes::copy_from_slice(call_id.as_bytes()),
            call,
            bytes: bytes.clone(),
            time: wall_clock(),
            sent: true,
            protocol: protocol.unwrap_or(Protocol::Tcp),
            local,
            remote,
        });
    }

    /// Messages with this Call-ID, outside of any call, are about that page.
    pub fn belongs(&mut self, call_id: &[u8], page: PageId, leg: Option<LegId>) {
        let call_id = Bytes::copy_from_slice(call_id);
        self.of_page.entry(page).or_default().push(call_id.clone());
        self.trails.insert(call_id, (page, leg));
    }

    /// Ends the turn: what belongs to a page goes into its call flow, the rest is dropped.
    pub fn settle(
        &mut self,
        watch: &Watch,
        trail_of: impl Fn(CallKey) -> Option<(PageId, Option<LegId>)>,
    ) {
        for pending in &self.pending {
            if let Some(trail) = pending.call.and_then(&trail_of)
                && !self.trails.contains_key(&pending.call_id)
            {
                self.of_page.entry(trail.0).or_default().push(pending.call_id.clone());
                self.trails.insert(pending.call_id.clone(), trail);
            }
        }
        for pending in self.pending.drain(..) {
            let Some((page, leg)) = self.trails.get(&pending.call_id) else { continue };
            let crossing = Crossing {
                time: pending.time,
                transport: match pending.protocol {
                    Protocol::Udp => Transport::Udp,
                    Protocol::Tcp | Protocol::Tls => Transport::Tcp,
                },
                local: pending.local.or(watch.sip_address),
                remote: pending.remote,
                ..watch.crossing(*page, *leg, pending.sent)
            };
            watch.flows.record_sip(crossing, &pending.bytes);
        }
    }

    /// The page is over: what still comes within the life of a transaction is its own.
    pub fn forget(&mut self, now: Instant, page: PageId) {
        while self.over.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, page)) = self.over.pop_front() else { break };
            for call_id in self.of_page.remove(&page).into_iter().flatten() {
                self.trails.remove(&call_id);
            }
        }
        self.over.push_back((now + LAST_ANSWERS, page));
    }
}

/// 64 × T1 (RFC 3261 §17): after it no transaction of a page is left.
const LAST_ANSWERS: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_messages_are_counted_by_method_and_status() {
        type Case<'a> = (&'a [u8], Option<(&'a str, Option<u16>)>);
        let cases: [Case<'_>; 3] = [
            (b"INVITE sip:a@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n", Some(("INVITE", None))),
            (b"SIP/2.0 200 OK\r\nCSeq: 7 BYE\r\n\r\n", Some(("BYE", Some(200)))),
            (b"\r\n", None),
        ];
        for (bytes, counted) in cases {
            let found = start_of(bytes).filter(|(method, _)| !method.is_empty());
            assert_eq!(found, counted);
        }
    }

    #[test]
    fn the_call_of_a_message_is_found_by_its_call_id() {
        let bytes = b"BYE sip:a@b SIP/2.0\r\nCall-ID: lm-00ab@h\r\n\r\n";
        assert_eq!(header(bytes, b"\r\nCall-ID: "), Some("lm-00ab@h"));
    }
}
