//! One peer: how a connection to it comes up, is watched, carries requests and ends (RFC 6733 §5).
//!
//! Start at [`Peer::handle`]: one [`Input`] in, [`Effect`]s out, time and random numbers are arguments. A peer has one
//! connection that counts; while both sides open one at once, it has two until the election. Requests it carries are known
//! by the [`Ticket`] of whoever sends them. Does no I/O, and chooses no other peer: see `routing`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{Avp, DecodeError, Fault, Header, Message, Outcome};
use super::dictionary::{self as d, command, result};
use super::settings::Timers;
use super::watchdog::{Action, Event, State as Watch, Watchdog};

/// How long the end of a connection is waited for, in each of its steps (SH-011).
const PARTING: Duration = Duration::from_secs(5);
/// After a peer asked to be left alone (SH-004).
const UNWANTED: Duration = Duration::from_secs(600);

/// A connection, numbered by whoever opens and takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A request, numbered by whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Who we are to every peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub host: String,
    pub realm: String,
    /// Origin-State-Id: when we started.
    pub state: u32,
    /// Announce Sh also as a plain Auth-Application-Id.
    pub also_plain_auth_app: bool,
}

impl Identity {
    /// Origin-Host and Origin-Realm.
    pub fn origin(&self) -> [Avp; 2] {
        [Avp::text(&d::ORIGIN_HOST, &self.host), Avp::text(&d::ORIGIN_REALM, &self.realm)]
    }

    /// What CER and CEA say of us.
    ///
    /// SH-009 (RFC 6733 §5.3.1, 3GPP TS 29.229 §5.6).
    fn capabilities(&self, addresses: &[IpAddr]) -> Vec<Avp> {
        let mut avps = Vec::from(self.origin());
        avps.extend(addresses.iter().map(|ip| Avp::address(&d::HOST_IP_ADDRESS, *ip)));
        avps.push(Avp::u32(&d::VENDOR_ID, 0));
        avps.push(Avp::text(&d::PRODUCT_NAME, "pagecast"));
        avps.push(Avp::u32(&d::ORIGIN_STATE_ID, self.state));
        avps.push(Avp::u32(&d::SUPPORTED_VENDOR_ID, d::VENDOR_3GPP));
        if self.also_plain_auth_app {
            avps.push(Avp::u32(&d::AUTH_APPLICATION_ID, d::APPLICATION_SH));
        }
        avps.push(sh_application());
        avps
    }

    /// The generic answer with E set.
    ///
    /// SH-025 (RFC 6733 §6.2, §7.2).
    pub fn protocol_error(&self, request: &Message, code: u32) -> Message {
        let mut answer = request.answer(self.answer_head(request, code));
        answer.header.flags |= Header::ERROR;
        answer
    }

    /// The answer to a request with a broken AVP.
    ///
    /// SH-018, SH-025 (RFC 6733 §7.1.5, §7.5).
    pub fn fault_answer(&self, request: &Message, fault: &Fault) -> Message {
        let mut avps = self.answer_head(request, fault.result_code());
        let at = avps.iter().position(|avp| avp.is(&d::PROXY_INFO)).unwrap_or(avps.len());
        avps.insert(at, fault.failed_avp());
        request.answer(avps)
    }

    fn answer_head(&self, request: &Message, code: u32) -> Vec<Avp> {
        let mut avps: Vec<Avp> = request.find(&d::SESSION_ID).cloned().into_iter().collect();
        avps.extend(self.origin());
        avps.push(Avp::u32(&d::RESULT_CODE, code));
        avps.extend(request.find_all(&d::PROXY_INFO).cloned());
        avps
    }

    /// Whether we keep the connection we received when both sides opened one.
    ///
    /// SH-006 (RFC 6733 §5.6.4): the names as octets, a to z equal to A to Z; a longer one wins over its beginning.
    pub fn wins_against(&self, peer: &str) -> bool {
        self.host.to_ascii_lowercase().as_bytes() > peer.to_ascii_lowercase().as_bytes()
    }
}

/// Vendor-Specific-Application-Id of Sh.
pub fn sh_application() -> Avp {
    Avp::grouped(
        &d::VENDOR_SPECIFIC_APPLICATION_ID,
        &[
            Avp::u32(&d::VENDOR_ID, d::VENDOR_3GPP),
            Avp::u32(&d::AUTH_APPLICATION_ID, d::APPLICATION_SH),
        ],
    )
}

/// What happens to a peer.
#[derive(Debug)]
pub enum Input {
    /// The transport asked for by [`Effect::Connect`] is up; our addresses on it.
    Connected { link: LinkId, addresses: Vec<IpAddr> },
    /// It is not to be had.
    Unreachable,
    /// The peer opened a connection; its CER came and names this peer.
    Taken { link: LinkId, addresses: Vec<IpAddr>, cer: Message },
    /// A whole message.
    Received { link: LinkId, octets: Bytes },
    /// The connection is closed, by whichever side.
    Lost { link: LinkId },
    /// A request to carry; only when [`Peer::in_service`].
    Send { ticket: Ticket, message: Message, until: Instant },
    /// Our answer to what [`Effect::Request`] handed out.
    Answer { link: LinkId, message: Message },
    /// Part from the peer for good.
    Shutdown,
}

/// Why a request comes back without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// Nobody answered in time.
    TimedOut,
    /// The connection failed, or the peer parts from us: it may have been seen.
    LinkFailed,
}

/// What an operator has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The peer does not take us, with its Result-Code.
    Refused(u32),
    /// Sh is not among what the peer does.
    NoSh,
    /// Somebody else answers there.
    WrongPeer { is: String },
    /// No CEA came.
    Silent,
    /// Something else than a CEA came, or one that says nothing.
    Nonsense,
    /// The peer asked to be left alone, with its Disconnect-Cause.
    Unwanted(u32),
}

/// What follows, to be done in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a transport and tell how it went.
    Connect,
    Send {
        link: LinkId,
        octets: Bytes,
    },
    /// Close once everything is sent.
    Close {
        link: LinkId,
    },
    /// Close without a word: RST.
    Reset {
        link: LinkId,
    },
    /// A request has its answer, or one with a broken AVP.
    Answered {
        ticket: Ticket,
        answer: Result<Message, Fault>,
    },
    /// A request has none.
    Returned {
        ticket: Ticket,
        why: Returned,
    },
    /// A request of the peer, to be answered by [`Input::Answer`].
    Request {
        link: LinkId,
        message: Message,
    },
    /// [`Peer::in_service`] changed.
    Service {
        up: bool,
    },
    /// The peer started anew, or was away: what is remembered of it may be old.
    Revalidate,
    Alarm(Alarm),
    /// The parting of [`Input::Shutdown`] is over.
    Gone,
}

/// A connection the peer opened, waiting for the election.
#[derive(Debug)]
struct Taken {
    link: LinkId,
    addresses: Vec<IpAddr>,
    cer: Message,
}

/// Where the connection stands (RFC 6733 §5.6; its names in quotes).
#[derive(Debug)]
enum Conn {
    /// "Closed".
    Closed,
    /// "Wait-Conn-Ack", and with a connection of the peer's "Wait-Conn-Ack/Elect".
    Dialing { taken: Option<Taken> },
    /// "Wait-I-CEA", and with a connection of the peer's "Wait-Returns".
    WaitCea { link: LinkId, until: Instant, hop_by_hop: u32, taken: Option<Taken> },
    /// "I-Open", "R-Open".
    Open { link: LinkId },
    /// The peer said DPR and will close "Closing".
    Parting { link: LinkId, until: Instant },
    /// We are shutting down: first answers are waited for, then our DPR is answered "Closing".
    Leaving { link: LinkId, until: Instant, asked: bool },
}

/// Random numbers, from a seed so that a test can repeat them.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The lower 32 bits of one.
    pub fn word(&mut self) -> u32 {
        u32::try_from(self.draw() & 0xffff_ffff).expect("masked to 32 bits")
    }

    /// From `least` to `most`, both possible.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        least + Duration::from_millis(self.draw() % span)
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    until: Instant,
    code: u32,
    end_to_end: u32,
}

/// One peer and its connection.
///
/// Contract: after [`Peer::new`], [`Peer::start`] once; then one input, all of its effects in order, the next input.
/// [`Peer::wake`] at [`Peer::next_wake`]. Links not named by a peer's effects any more may be forgotten.
#[derive(Debug)]
pub struct Peer {
    own: Identity,
    timers: Timers,
    /// Who it must be, if anybody in particular.
    must: Option<String>,
    /// Who it is: what it must be, or said last.
    name: Option<String>,
    /// Its realm, from its capabilities.
    realm: Option<String>,
    /// It announced itself as a relay.
    relay: bool,
    /// Its Origin-State-Id.
    origin_state: Option<u32>,
    conn: Conn,
    watchdog: Watchdog,
    /// End of Tw, or the next attempt to connect; `None` while a connection is coming up or we are leaving for good.
    tw: Option<Instant>,
    /// The next attempt to connect waits that long, for a reason the peer gave.
    hold: Option<Duration>,
    pending: HashMap<u32, Pending>,
    deadlines: BTreeSet<(Instant, u32)>,
    hop_by_hop: u32,
    dice: Dice,
    /// Base requests have an End-to-End of their own making.
    end_to_end: u32,
    served: bool,
    finished: bool,
    /// Messages thrown away: answers nobody waits for, and what came in REOPEN.
    pub discarded: u64,
}

impl Peer {
    /// `name` is its Origin-Host if that is known before it says so.
    pub fn new(own: Identity, timers: Timers, name: Option<String>, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            own,
            timers,
            must: name.clone(),
            name,
            realm: None,
            relay: false,
            origin_state: None,
            conn: Conn::Closed,
            watchdog: Watchdog::default(),
            tw: None,
            hold: None,
            pending: HashMap::new(),
            deadlines: BTreeSet::new(),
            hop_by_hop: dice.word(),
            end_to_end: dice.word(),
            dice,
            served: false,
            finished: false,
            discarded: 0,
        }
    }

    /// Its Origin-Host, as configured or as it said.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its Origin-Realm, once it said so.
    pub fn realm(&self) -> Option<&str> {
        self.realm.as_deref()
    }

    /// It forwards to others whatever they serve.
    pub fn is_relay(&self) -> bool {
        self.relay
    }

    /// Requests may be sent there.
    pub fn in_service(&self) -> bool {
        matches!(self.conn, Conn::Open { .. }) && self.watchdog.state() == Watch::Okay
    }

    /// Requests without an answer yet.
    pub fn open_requests(&self) -> usize {
        self.pending.len()
    }

    /// For people.
    pub fn state(&self) -> &'static str {
        match (&self.conn, self.watchdog.state()) {
            (Conn::Closed, _) => "down",
            (Conn::Dialing { .. } | Conn::WaitCea { .. }, _) => "connecting",
            (Conn::Parting { .. } | Conn::Leaving { .. }, _) => "closing",
            (Conn::Open { .. }, Watch::Okay) => "up",
            (Conn::Open { .. }, Watch::Suspect) => "suspect",
            (Conn::Open { .. }, _) => "reopening",
        }
    }

    /// Begins to connect.
    pub fn start(&mut self, out: &mut Vec<Effect>) {
        self.dial(out);
    }

    /// When to call [`Peer::wake`] at the latest.
    pub fn next_wake(&self) -> Option<Instant> {
        let conn = match self.conn {
            Conn::WaitCea { until, .. }
            | Conn::Parting { until, .. }
            | Conn::Leaving { until, .. } => Some(until),
            Conn::Closed | Conn::Dialing { .. } | Conn::Open { .. } => None,
        };
        let request = self.deadlines.first().map(|(until, _)| *until);
        [conn, request, self.tw].into_iter().flatten().min()
    }

    /// What the passing of time brings.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some((until, hop)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)
        {
            self.deadlines.remove(&(until, hop));
            if let Some(pending) = self.pending.remove(&hop) {
                out.push(Effect::Returned { ticket: pending.ticket, why: Returned::TimedOut });
            }
        }
        match self.conn {
            Conn::WaitCea { link, until, .. } if until <= now => {
                out.push(Effect::Alarm(Alarm::Silent));
                out.push(Effect::Close { link });
                self.on_own_link_ended(now, out);
            }
            Conn::Parting { link, until } if until <= now => {
                out.push(Effect::Close { link });
                self.on_down(now, out);
            }
            Conn::Leaving { link, until, asked: true } if until <= now => {
                out.push(Effect::Close { link });
                self.on_gone(out);
            }
            Conn::Leaving { link, until, asked: false }
                if until <= now || self.pending.is_empty() =>
            {
                self.ask_to_leave(now, link, out);
            }
            _ => {}
        }
        if self.tw.is_some_and(|at| at <= now) {
            self.tw = None;
            self.watch(now, Event::Expired, out);
        }
    }

    /// One input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Connected { link, addresses } => self.on_connected(now, link, &addresses, out),
            Input::Unreachable => self.on_unreachable(now, out),
            Input::Taken { link, addresses, cer } => {
                self.on_taken(now, Taken { link, addresses, cer }, out);
            }
            Input::Received { link, octets } => self.on_received(now, link, octets, out),
            Input::Lost { link } => self.on_lost(now, link, out),
            Input::Send { ticket, message, until } => self.send(ticket, message, until, out),
            Input::Answer { link, message } => {
                if self.carries(link) {
                    out.push(Effect::Send { link, octets: message.encode() });
                }
            }
            Input::Shutdown => self.on_shutdown(now, out),
        }
    }

    // --- bringing up ----------------------------------------------------------------------------------------------------

    fn dial(&mut self, out: &mut Vec<Effect>) {
        self.tw = None;
        self.conn = Conn::Dialing { taken: None };
        out.push(Effect::Connect);
    }

    fn on_connected(
        &mut self,
        now: Instant,
        link: LinkId,
        addresses: &[IpAddr],
        out: &mut Vec<Effect>,
    ) {
        let Conn::Dialing { taken } = &mut self.conn else {
            out.push(Effect::Close { link });
            return;
        };
        let taken = taken.take();
        let avps = self.own.capabilities(addresses);
        let hop_by_hop = self.send_base(link, command::CAPABILITIES, avps, out);
        let until = now + self.timers.cea_timeout;
        self.conn = Conn::WaitCea { link, until, hop_by_hop, taken: None };
        if let Some(taken) = taken {
            self.elect(now, link, until, hop_by_hop, taken, out);
        }
    }

    fn on_unreachable(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Conn::Dialing { taken } = &mut self.conn else { return };
        match taken.take() {
            Some(taken) => self.accept(now, taken, out),
            None => {
                self.conn = Conn::Closed;
                self.retry_later(now);
            }
        }
    }

    /// SH-006 (RFC 6733 §5.6): what a connection of the peer's means depends on where ours is.
    fn on_taken(&mut self, now: Instant, taken: Taken, out: &mut Vec<Effect>) {
        match &mut self.conn {
            Conn::Closed if !self.finished => self.accept(now, taken, out),
            Conn::Dialing { taken: none @ None } => *none = Some(taken),
            Conn::WaitCea { link, until, hop_by_hop, taken: None } => {
                let (link, until, hop_by_hop) = (*link, *until, *hop_by_hop);
                self.elect(now, link, until, hop_by_hop, taken, out);
            }
            _ => out.push(Effect::Close { link: taken.link }),
        }
    }

    fn elect(
        &mut self,
        now: Instant,
        link: LinkId,
        until: Instant,
        hop_by_hop: u32,
        taken: Taken,
        out: &mut Vec<Effect>,
    ) {
        let peer = taken.cer.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        if peer.is_some_and(|peer| self.own.wins_against(&peer)) {
            out.push(Effect::Close { link });
            self.accept(now, taken, out);
        } else {
            // The peer won and closes what it opened; until then both are there.
            self.conn = Conn::WaitCea { link, until, hop_by_hop, taken: Some(taken) };
        }
    }

    /// Answers the CER of a connection the peer opened, and uses it if we have Sh in common.
    fn accept(&mut self, now: Instant, taken: Taken, out: &mut Vec<Effect>) {
        let Taken { link, addresses, cer } = taken;
        let (code, fault) = self.judge(&cer);
        let mut avps = vec![Avp::u32(&d::RESULT_CODE, code)];
        avps.extend(self.own.capabilities(&addresses));
        avps.extend(fault.map(|fault| fault.failed_avp()));
        out.push(Effect::Send { link, octets: cer.answer(avps).encode() });
        if code == result::SUCCESS {
            self.on_open(now, link, &cer, out);
        } else {
            out.push(Effect::Close { link });
            self.conn = Conn::Closed;
            if self.tw.is_none() {
                self.hold = Some(self.timers.tc * 4);
                self.retry_later(now);
            }
        }
    }

    /// The Result-Code a CER deserves.
    fn judge(&self, cer: &Message) -> (u32, Option<Fault>) {
        let origin = cer.required(&d::ORIGIN_HOST).and_then(Avp::as_identity);
        let fault = match &origin {
            Err(fault) => Some(fault.clone()),
            Ok(_) => cer.required(&d::ORIGIN_REALM).and_then(Avp::as_identity).err(),
        };
        if let Some(fault) = fault {
            return (fault.result_code(), Some(fault));
        }
        if self.must.as_ref().is_some_and(|must| origin.is_ok_and(|is| is != *must)) {
            return (result::UNKNOWN_PEER, None);
        }
        match common_application(cer) {
            Ok(true) => (result::SUCCESS, None),
            Ok(false) => (result::NO_COMMON_APPLICATION, None),
            Err(fault) => (fault.result_code(), Some(fault)),
        }
    }

    /// SH-010 (RFC 6733 §5.3, §5.6).
    fn on_cea(&mut self, now: Instant, link: LinkId, cea: &Message, out: &mut Vec<Effect>) {
        let alarm = match cea.outcome() {
            Ok(Outcome::Base(result::SUCCESS)) => match common_application(cea) {
                Ok(true) => match cea.required(&d::ORIGIN_HOST).and_then(Avp::as_identity) {
                    Ok(is) if self.must.as_ref().is_none_or(|must| *must == is) => None,
                    Ok(is) => Some(Alarm::WrongPeer { is }),
                    Err(_) => Some(Alarm::Nonsense),
                },
                Ok(false) => Some(Alarm::NoSh),
                Err(_) => Some(Alarm::Nonsense),
            },
            Ok(outcome) => Some(Alarm::Refused(outcome.code())),
            Err(_) => Some(Alarm::Nonsense),
        };
        match alarm {
            None => {
                if let Conn::WaitCea { taken: Some(taken), .. } = &self.conn {
                    out.push(Effect::Close { link: taken.link });
                }
                self.on_open(now, link, cea, out);
            }
            Some(alarm) => {
                out.push(Effect::Alarm(alarm));
                out.push(Effect::Close { link });
                self.hold = Some(self.timers.tc * 4);
                self.on_own_link_ended(now, out);
            }
        }
    }

    fn on_open(&mut self, now: Instant, link: LinkId, said: &Message, out: &mut Vec<Effect>) {
        self.conn = Conn::Open { link };
        self.hold = None;
        self.hop_by_hop = self.dice.word();
        let identity = |def| said.find(def).and_then(|avp| avp.as_identity().ok());
        self.name = identity(&d::ORIGIN_HOST).or(self.name.take());
        self.realm = identity(&d::ORIGIN_REALM);
        self.relay = applications(said).is_ok_and(|ids| ids.contains(&d::APPLICATION_RELAY));
        self.hear_state(said, out);
        self.watch(now, Event::Up, out);
    }

    /// Our own attempt failed; a connection the peer opened meanwhile is as good.
    fn on_own_link_ended(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let taken = match &mut self.conn {
            Conn::WaitCea { taken, .. } => taken.take(),
            _ => None,
        };
        match taken {
            Some(taken) => self.accept(now, taken, out),
            None => {
                self.conn = Conn::Closed;
                self.retry_later(now);
            }
        }
    }

    /// SH-004 (RFC 6733 §2.1).
    ///
    /// RFC 3539 tries again at each end of Tw; here Tc, its name in RFC 6733, takes that place, so that there is one.
    fn retry_later(&mut self, now: Instant) {
        if self.finished {
            self.tw = None;
            return;
        }
        let wait = self.hold.take().unwrap_or(self.timers.tc);
        self.tw = Some(now + self.dice.between(wait * 9 / 10, wait * 11 / 10));
    }

    // --- while it is up -------------------------------------------------------------------------------------------------

    fn carries(&self, link: LinkId) -> bool {
        match self.conn {
            Conn::Open { link: own } | Conn::Leaving { link: own, .. } => own == link,
            _ => false,
        }
    }

    fn on_received(&mut self, now: Instant, link: LinkId, octets: Bytes, out: &mut Vec<Effect>) {
        let message = Message::decode(octets);
        match &self.conn {
            Conn::WaitCea { link: own, hop_by_hop, taken, .. } => {
                if *own == link {
                    match message {
                        Ok(cea) if is_answer(&cea, command::CAPABILITIES, *hop_by_hop) => {
                            self.on_cea(now, link, &cea, out);
                        }
                        _ => {
                            out.push(Effect::Alarm(Alarm::Nonsense));
                            out.push(Effect::Close { link });
                            self.hold = Some(self.timers.tc * 4);
                            self.on_own_link_ended(now, out);
                        }
                    }
                } else if taken.as_ref().is_some_and(|taken| taken.link == link) {
                    // Before the election nothing but the CER was to come.
                    out.push(Effect::Reset { link });
                    self.forget_taken(link);
                }
            }
            Conn::Open { link: own } if *own == link => self.on_message(now, link, message, out),
            Conn::Leaving { link: own, .. } if *own == link => {
                self.on_message(now, link, message, out);
            }
            Conn::Parting { .. } | Conn::Closed | Conn::Dialing { .. } => self.discarded += 1,
            Conn::Open { .. } | Conn::Leaving { .. } => self.discarded += 1,
        }
    }

    fn on_message(
        &mut self,
        now: Instant,
        link: LinkId,
        message: Result<Message, DecodeError>,
        out: &mut Vec<Effect>,
    ) {
        let (message, fault) = match message {
            Ok(message) => (message, None),
            Err(DecodeError::Avp { read, fault }) => (*read, Some(*fault)),
            Err(DecodeError::Frame(_)) => {
                out.push(Effect::Reset { link });
                self.on_lost(now, link, out);
                return;
            }
        };
        let header = message.header;
        let base = header.application == d::APPLICATION_BASE;
        let dwa = base && !header.is_request() && header.code == command::WATCHDOG;
        let believed = self.watch(now, if dwa { Event::Dwa } else { Event::Message }, out);
        match (header.is_request(), header.code) {
            (true, command::WATCHDOG) if base && fault.is_none() => {
                self.on_dwr(link, &message, out);
            }
            (true, command::DISCONNECT) if base && fault.is_none() => {
                self.on_dpr(now, link, &message, out);
            }
            (false, command::WATCHDOG) if base => self.hear_state(&message, out),
            (false, command::DISCONNECT) if base => {
                if let Conn::Leaving { link, asked: true, .. } = self.conn {
                    out.push(Effect::Close { link });
                    self.on_gone(out);
                }
            }
            _ if !believed => self.discarded += 1,
            (true, _) => self.on_request(link, message, fault, out),
            (false, _) => self.on_answer(now, message, fault, out),
        }
    }

    /// SH-016 (RFC 6733 §5.5.1, §5.5.2): also in REOPEN, where the peer may be waiting for the same as we are.
    fn on_dwr(&mut self, link: LinkId, dwr: &Message, out: &mut Vec<Effect>) {
        self.hear_state(dwr, out);
        let mut avps = vec![Avp::u32(&d::RESULT_CODE, result::SUCCESS)];
        avps.extend(self.own.origin());
        avps.push(Avp::u32(&d::ORIGIN_STATE_ID, self.own.state));
        out.push(Effect::Send { link, octets: dwr.answer(avps).encode() });
    }

    /// SH-004, SH-011 (RFC 6733 §5.4).
    fn on_dpr(&mut self, now: Instant, link: LinkId, dpr: &Message, out: &mut Vec<Effect>) {
        let mut avps = vec![Avp::u32(&d::RESULT_CODE, result::SUCCESS)];
        avps.extend(self.own.origin());
        out.push(Effect::Send { link, octets: dpr.answer(avps).encode() });
        let leaving = matches!(self.conn, Conn::Leaving { .. });
        self.conn = Conn::Parting { link, until: now + PARTING };
        self.tw = None;
        self.finished |= leaving;
        let cause = dpr.find(&d::DISCONNECT_CAUSE).and_then(|avp| avp.as_u32().ok());
        if let Some(cause @ (1 | 2)) = cause {
            self.hold = Some(UNWANTED);
            out.push(Effect::Alarm(Alarm::Unwanted(cause)));
        }
        self.tell_service(out);
        self.give_back(out);
    }

    fn on_request(
        &mut self,
        link: LinkId,
        message: Message,
        fault: Option<Fault>,
        out: &mut Vec<Effect>,
    ) {
        let header = message.header;
        let refuse = if header.is_error() {
            Some(result::INVALID_HDR_BITS)
        } else if header.application == d::APPLICATION_BASE {
            match header.code {
                command::CAPABILITIES if fault.is_none() => {
                    return self.on_late_cer(link, &message, out);
                }
                command::CAPABILITIES | command::WATCHDOG | command::DISCONNECT => None,
                _ => Some(result::COMMAND_UNSUPPORTED),
            }
        } else if header.application != d::APPLICATION_SH {
            Some(result::APPLICATION_UNSUPPORTED)
        } else if header.code != command::PUSH {
            Some(result::COMMAND_UNSUPPORTED)
        } else {
            None
        };
        let answer = match (refuse, fault) {
            (Some(code), _) => self.own.protocol_error(&message, code),
            (None, Some(fault)) => self.own.fault_answer(&message, &fault),
            (None, None) => {
                out.push(Effect::Request { link, message });
                return;
            }
        };
        out.push(Effect::Send { link, octets: answer.encode() });
    }

    /// A CER on an open connection is answered again (RFC 6733 §5.6).
    fn on_late_cer(&mut self, link: LinkId, cer: &Message, out: &mut Vec<Effect>) {
        let (code, fault) = self.judge(cer);
        let mut avps = vec![Avp::u32(&d::RESULT_CODE, code)];
        avps.extend(self.own.capabilities(&[]));
        avps.extend(fault.map(|fault| fault.failed_avp()));
        out.push(Effect::Send { link, octets: cer.answer(avps).encode() });
    }

    /// SH-021 (RFC 6733 §3): known by Hop-by-Hop on this connection; whatever does not fit is nobody's.
    fn on_answer(
        &mut self,
        now: Instant,
        message: Message,
        fault: Option<Fault>,
        out: &mut Vec<Effect>,
    ) {
        let header = message.header;
        let fits = |pending: &&Pending| {
            pending.code == header.code
                && pending.end_to_end == header.end_to_end
                && header.application == d::APPLICATION_SH
        };
        if self.pending.get(&header.hop_by_hop).filter(fits).is_none() {
            self.discarded += 1;
            return;
        }
        let Some(pending) = self.pending.remove(&header.hop_by_hop) else { return };
        self.deadlines.remove(&(pending.until, header.hop_by_hop));
        let answer = match fault {
            Some(fault) => Err(fault),
            None => Ok(message),
        };
        out.push(Effect::Answered { ticket: pending.ticket, answer });
        if let Conn::Leaving { link, asked: false, .. } = self.conn
            && self.pending.is_empty()
        {
            self.ask_to_leave(now, link, out);
        }
    }

    fn send(
        &mut self,
        ticket: Ticket,
        mut message: Message,
        until: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Conn::Open { link } = self.conn else {
            out.push(Effect::Returned { ticket, why: Returned::LinkFailed });
            return;
        };
        let hop = self.next_hop();
        message.header.hop_by_hop = hop;
        let header = message.header;
        self.deadlines.insert((until, hop));
        let (code, end_to_end) = (header.code, header.end_to_end);
        self.pending.insert(hop, Pending { ticket, until, code, end_to_end });
        out.push(Effect::Send { link, octets: message.encode() });
    }

    /// SH-017 (RFC 6733 §3): unique among the open requests of a connection.
    fn next_hop(&mut self) -> u32 {
        loop {
            self.hop_by_hop = self.hop_by_hop.wrapping_add(1);
            if !self.pending.contains_key(&self.hop_by_hop) {
                return self.hop_by_hop;
            }
        }
    }

    /// A request of the base protocol; no P, no T (SH-011). Its Hop-by-Hop.
    fn send_base(&mut self, link: LinkId, code: u32, avps: Vec<Avp>, out: &mut Vec<Effect>) -> u32 {
        let mut message = Message::request(code, d::APPLICATION_BASE, avps);
        message.header.hop_by_hop = self.next_hop();
        self.end_to_end = self.end_to_end.wrapping_add(1);
        message.header.end_to_end = self.end_to_end;
        out.push(Effect::Send { link, octets: message.encode() });
        message.header.hop_by_hop
    }

    /// SH-016 (RFC 6733 §8.16): a changed Origin-State-Id tells of a restart.
    fn hear_state(&mut self, said: &Message, out: &mut Vec<Effect>) {
        let Some(state) = said.find(&d::ORIGIN_STATE_ID).and_then(|avp| avp.as_u32().ok()) else {
            return;
        };
        // Zero says that the peer does not keep one.
        let before = self.origin_state.replace(state);
        if state != 0 && before.is_some_and(|before| before != 0 && before != state) {
            out.push(Effect::Revalidate);
        }
    }

    // --- the watchdog ---------------------------------------------------------------------------------------------------

    /// Moves the watchdog; `false` if the message that moved it is to be thrown away.
    fn watch(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) -> bool {
        let before = self.watchdog.state();
        let actions = self.watchdog.on(event);
        for action in actions {
            match action {
                Action::SetTw => self.set_tw(now),
                Action::SendDwr => {
                    if let Conn::Open { link } = self.conn {
                        let mut avps = Vec::from(self.own.origin());
                        avps.push(Avp::u32(&d::ORIGIN_STATE_ID, self.own.state));
                        self.send_base(link, command::WATCHDOG, avps, out);
                    }
                }
                Action::FailOver => self.give_back(out),
                Action::FailBack => {
                    if before == Watch::Reopen {
                        out.push(Effect::Revalidate);
                    }
                }
                Action::Close => {
                    if let Conn::Open { link } = self.conn {
                        out.push(Effect::Close { link });
                        self.conn = Conn::Closed;
                        self.give_back(out);
                    }
                }
                Action::Open => self.dial(out),
                Action::ThrowAway => {}
            }
        }
        self.tell_service(out);
        !actions.contains(&Action::ThrowAway)
    }

    /// SH-012 (RFC 3539 §3.4.1): drawn anew each time.
    fn set_tw(&mut self, now: Instant) {
        match self.conn {
            Conn::Open { .. } => {
                let twinit = self.timers.twinit.max(Duration::from_secs(6));
                let two = Duration::from_secs(2);
                self.tw = Some(now + self.dice.between(twinit - two, twinit + two));
            }
            Conn::Closed => self.retry_later(now),
            // The attempt that has just begun, or the parting, has its own end.
            _ => {}
        }
    }

    fn tell_service(&mut self, out: &mut Vec<Effect>) {
        let up = self.in_service();
        if up != self.served {
            self.served = up;
            out.push(Effect::Service { up });
        }
    }

    /// All open requests go back to who sent them.
    fn give_back(&mut self, out: &mut Vec<Effect>) {
        self.deadlines.clear();
        let mut back: Vec<Ticket> = self.pending.drain().map(|(_, open)| open.ticket).collect();
        back.sort_unstable();
        out.extend(
            back.into_iter().map(|ticket| Effect::Returned { ticket, why: Returned::LinkFailed }),
        );
    }

    // --- the end --------------------------------------------------------------------------------------------------------

    fn on_lost(&mut self, now: Instant, link: LinkId, out: &mut Vec<Effect>) {
        match &self.conn {
            Conn::Dialing { taken: Some(taken) } if taken.link == link => self.forget_taken(link),
            Conn::WaitCea { link: own, taken, .. } => {
                if *own == link {
                    self.on_own_link_ended(now, out);
                } else if taken.as_ref().is_some_and(|taken| taken.link == link) {
                    self.forget_taken(link);
                }
            }
            Conn::Open { link: own } if *own == link => self.on_down(now, out),
            Conn::Parting { link: own, .. } if *own == link => self.on_down(now, out),
            Conn::Leaving { link: own, .. } if *own == link => self.on_gone(out),
            _ => {}
        }
    }

    fn forget_taken(&mut self, gone: LinkId) {
        if let Conn::Dialing { taken } | Conn::WaitCea { taken, .. } = &mut self.conn
            && taken.as_ref().is_some_and(|taken| taken.link == gone)
        {
            *taken = None;
        }
    }

    /// The connection is no more.
    fn on_down(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.conn = Conn::Closed;
        self.give_back(out);
        self.watch(now, Event::Lost, out);
        if self.finished {
            self.tw = None;
            out.push(Effect::Gone);
        } else if self.tw.is_none() {
            self.retry_later(now);
        }
    }

    /// SH-011 (RFC 6733 §5.4): answers first, then DPR, then DPA.
    fn on_shutdown(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match &mut self.conn {
            Conn::Open { link } => {
                let link = *link;
                self.tw = None;
                self.conn = Conn::Leaving { link, until: now + PARTING, asked: false };
                self.tell_service(out);
                if self.pending.is_empty() {
                    self.ask_to_leave(now, link, out);
                }
            }
            Conn::Leaving { .. } => {}
            Conn::Parting { .. } => self.finished = true,
            Conn::WaitCea { link, taken, .. } => {
                out.push(Effect::Close { link: *link });
                out.extend(taken.take().map(|taken| Effect::Close { link: taken.link }));
                self.on_gone(out);
            }
            Conn::Dialing { taken } => {
                out.extend(taken.take().map(|taken| Effect::Close { link: taken.link }));
                self.on_gone(out);
            }
            Conn::Closed => self.on_gone(out),
        }
    }

    fn ask_to_leave(&mut self, now: Instant, link: LinkId, out: &mut Vec<Effect>) {
        self.give_back(out);
        let mut avps = Vec::from(self.own.origin());
        // REBOOTING: we mean to be back.
        avps.push(Avp::u32(&d::DISCONNECT_CAUSE, 0));
        self.send_base(link, command::DISCONNECT, avps, out);
        self.conn = Conn::Leaving { link, until: now + PARTING, asked: true };
    }

    fn on_gone(&mut self, out: &mut Vec<Effect>) {
        self.conn = Conn::Closed;
        self.tw = None;
        self.finished = true;
        self.give_back(out);
        self.tell_service(out);
        out.push(Effect::Gone);
    }
}

fn is_answer(message: &Message, code: u32, hop_by_hop: u32) -> bool {
    let header = message.header;
    !header.is_request()
        && header.code == code
        && header.application == d::APPLICATION_BASE
        && header.hop_by_hop == hop_by_hop
}

/// Sh is among what the peer announces, or it relays everything.
///
/// SH-010 (RFC 6733 §5.3): the Vendor-Id beside an application does not count.
fn common_application(said: &Message) -> Result<bool, Fault> {
    let ids = applications(said)?;
    Ok(ids.contains(&d::APPLICATION_SH) || ids.contains(&d::APPLICATION_RELAY))
}

/// The applications announced, in whichever way.
fn applications(said: &Message) -> Result<Vec<u32>, Fault> {
    let mut ids = Vec::new();
    for avp in &said.avps {
        if avp.is(&d::AUTH_APPLICATION_ID) {
            ids.push(avp.as_u32()?);
        } else if avp.is(&d::ACCT_APPLICATION_ID) {
            // Of accounting only what a relay says matters here.
            ids.extend(Some(avp.as_u32()?).filter(|id| *id == d::APPLICATION_RELAY));
        } else if avp.is(&d::VENDOR_SPECIFIC_APPLICATION_ID) {
            for member in avp.as_group()? {
                if member.is(&d::AUTH_APPLICATION_ID) {
                    ids.push(member.as_u32()?);
                }
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
