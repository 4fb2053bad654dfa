//! Which peer a request goes to, and what becomes of it: failover, repetition, redirects, limits (RFC 6733 §6).
//!
//! Start at [`Routing::handle`]: one [`Input`] in, [`Effect`]s out. It holds the peers and drives them; every request it
//! takes ends in exactly one [`Effect::Done`]. Does no I/O; time and random numbers are arguments. Whoever asks writes
//! the AVPs of its command, the head of a request (session, application, origin, destination) is written here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{Avp, Fault, Header, Message, Outcome};
use super::dictionary::{self as d, command, result};
use super::overload::{self, Class, Overload};
use super::peer::{self, Alarm, Dice, Identity, LinkId, Peer, Returned, Ticket, sh_application};
use super::settings::{PeerAddress, Settings};

/// How long a request waits for a free place at a peer (SH-027).
const QUEUE: Duration = Duration::from_secs(1);
/// Most redirects of one request (SH-029).
const REDIRECTS: u8 = 3;
/// Most peers redirects lead to at a time, besides the configured ones.
const MOST_ON_DEMAND: usize = 16;
/// Most hosts taken from one redirect.
const MOST_HOSTS: usize = 8;
/// Most identities whose redirect is remembered.
const MOST_ROUTES: usize = 10_000;
/// Attempts of one request: the first, and one more (SH-021, SH-030).
const ATTEMPTS: u8 = 2;

/// One request to an HSS.
#[derive(Debug, Clone)]
pub struct Request {
    /// [`command`] code.
    pub code: u32,
    /// The HSS that serves the identity, if that is known; in lower case.
    pub destination_host: Option<String>,
    /// `None`: the configured one.
    pub destination_realm: Option<String>,
    /// Whom it is about: what a redirect is remembered by.
    pub identity: Option<String>,
    /// The AVPs of the command, without the head every Sh request has.
    pub avps: Vec<Avp>,
    pub class: Class,
    /// DRMP, 0 highest to 15 lowest (SH-032).
    pub priority: Option<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The HSS cannot be asked, or does not answer.
    #[error("HSS unavailable: {0}")]
    Unavailable(Why),
    /// The HSS asked for fewer requests, and this was one of those held back.
    #[error("held back under overload")]
    Overloaded,
    /// Too many requests are open already.
    #[error("too many open requests")]
    Saturated,
    /// The request is longer than what is sent.
    #[error("a request of {0} octets is too long")]
    TooLong(usize),
    /// The answer cannot be read.
    #[error("the answer is broken: {0}")]
    Broken(Fault),
}

/// What stands between us and an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("no peer is in service")]
    NoPeer,
    #[error("no answer in time")]
    TimedOut,
    #[error("the connection failed")]
    LinkFailed,
    /// Destination-Host is a peer that is away, and nobody else leads there: a 3002 of our own (SH-028).
    #[error("nobody leads to the host")]
    Undeliverable,
    #[error("redirected in vain")]
    Redirects,
    #[error("shutting down")]
    Closing,
}

/// Peers by their number, in order of preference; those of redirects come last.
pub type Index = usize;

/// What happens.
#[derive(Debug)]
pub enum Input {
    Request {
        ticket: Ticket,
        request: Request,
    },
    /// Something about a connection we opened, or tried to.
    Peer {
        peer: Index,
        input: peer::Input,
    },
    /// A whole message on a connection that belongs to a peer.
    Received {
        link: LinkId,
        octets: Bytes,
    },
    Lost {
        link: LinkId,
    },
    /// The first message of a connection somebody opened.
    Arrived {
        link: LinkId,
        remote: SocketAddr,
        addresses: Vec<IpAddr>,
        octets: Bytes,
    },
    /// Our answer to a request of the HSS.
    Answer {
        link: LinkId,
        message: Message,
    },
    Shutdown,
}

/// What follows, to be done in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Connect {
        peer: Index,
        address: PeerAddress,
    },
    Send {
        link: LinkId,
        octets: Bytes,
    },
    Close {
        link: LinkId,
    },
    Reset {
        link: LinkId,
    },
    Done {
        ticket: Ticket,
        result: Box<Result<Message, Failure>>,
    },
    /// A request of the HSS, to be answered by [`Input::Answer`].
    Inbound {
        link: LinkId,
        message: Message,
    },
    /// What is remembered from this peer may be old.
    Revalidate {
        peer: Index,
    },
    /// A peer came into service or left it.
    Service {
        peer: Index,
        up: bool,
    },
    Alarm {
        peer: Index,
        alarm: Alarm,
    },
    /// An answer says that requests go in circles (SH-030).
    Loop {
        peer: Index,
    },
    /// After [`Input::Shutdown`]: every connection is ended.
    Gone,
}

/// One peer for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    pub address: String,
    /// Its Origin-Host, once known.
    pub name: Option<String>,
    /// `up`, `suspect`, `reopening`, `connecting`, `closing` or `down`.
    pub state: &'static str,
    /// What went wrong last, if anything did.
    pub error: Option<String>,
}

struct Slot {
    address: PeerAddress,
    peer: Peer,
    /// It answers Sh requests itself, so it leads to nobody else unless it says that it relays.
    is_hss: bool,
    /// Made for a redirect.
    on_demand: bool,
    gone: bool,
    error: Option<String>,
}

/// One request until it is done.
struct Job {
    request: Request,
    host: Option<String>,
    realm: String,
    session: String,
    end_to_end: u32,
    /// T: sent already, by a connection that failed.
    retransmitted: bool,
    attempts: u8,
    /// Peers that have had it.
    tried: Vec<Index>,
    at: Option<Index>,
    deadline: Instant,
    place: Place,
    redirects: u8,
    /// Hosts of the last redirect not tried yet.
    alternatives: VecDeque<(String, PeerAddress)>,
    /// The answer to give if the repetition cannot even be sent.
    answer: Option<Message>,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Sent,
    /// Every peer that could take it is full.
    Queued {
        until: Instant,
    },
    /// The peer a redirect led to is being connected to.
    Awaits {
        peer: Index,
        until: Instant,
    },
}

/// A redirect that holds for an identity.
struct Route {
    host: String,
    realm: String,
    until: Instant,
}

/// All peers and all requests.
///
/// Contract: [`Routing::start`] once, then one input, all of its effects in order, the next input; [`Routing::wake`] at
/// [`Routing::next_wake`].
pub struct Routing {
    settings: Settings,
    own: Identity,
    slots: Vec<Slot>,
    links: HashMap<LinkId, Index>,
    jobs: BTreeMap<Ticket, Job>,
    queue: VecDeque<Ticket>,
    routes: HashMap<String, Route>,
    overload: Overload,
    dice: Dice,
    started: (Instant, u64),
    sessions: u64,
    counter: u32,
    closing: bool,
}

impl Routing {
    /// `unix` are seconds since 1970 at `now`.
    pub fn new(settings: Settings, now: Instant, unix: u64, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let own = Identity {
            host: settings.origin_host.to_ascii_lowercase(),
            realm: settings.origin_realm.to_ascii_lowercase(),
            state: low(unix),
            also_plain_auth_app: settings.also_plain_auth_app,
        };
        let counter = dice.word();
        let mut routing = Self {
            own,
            slots: Vec::new(),
            links: HashMap::new(),
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            routes: HashMap::new(),
            overload: Overload::default(),
            dice,
            started: (now, unix),
            sessions: 0,
            counter,
            closing: false,
            settings,
        };
        for address in routing.settings.peers.clone() {
            routing.add(address, false);
        }
        routing
    }

    fn add(&mut self, address: PeerAddress, on_demand: bool) -> Index {
        let timers = self.settings.timers.clone();
        let seed = self.dice.draw();
        let peer = Peer::new(self.own.clone(), timers, address.identity.clone(), seed);
        let slot = Slot { address, peer, is_hss: false, on_demand, gone: false, error: None };
        if let Some(free) = self.slots.iter().position(|slot| slot.on_demand && slot.gone) {
            self.slots[free] = slot;
            return free;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.own
    }

    /// What a peer is called in logs.
    pub fn name(&self, index: Index) -> String {
        self.slots.get(index).map_or_else(String::new, |slot| slot.address.to_string())
    }

    /// Begins to connect to every peer.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for index in 0..self.slots.len() {
            let mut effects = Vec::new();
            self.slots[index].peer.start(&mut effects);
            self.follow(now, index, effects, out);
        }
    }

    /// Every peer, in order of preference.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.slots
            .iter()
            .filter(|slot| !(slot.on_demand && slot.gone))
            .map(|slot| PeerStatus {
                address: slot.address.to_string(),
                name: slot.peer.name().map(str::to_owned),
                state: slot.peer.state(),
                error: slot.error.clone(),
            })
            .collect()
    }

    /// Notes for people what went wrong with a peer.
    pub fn note(&mut self, index: Index, error: String) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.error = Some(error);
        }
    }

    /// When to call [`Routing::wake`] at the latest.
    pub fn next_wake(&self) -> Option<Instant> {
        let peers = self.slots.iter().filter_map(|slot| slot.peer.next_wake());
        let waiting = self.jobs.values().filter_map(|job| match job.place {
            Place::Sent => None,
            Place::Queued { until } | Place::Awaits { until, .. } => Some(until),
        });
        peers.chain(waiting).min()
    }

    /// What the passing of time brings.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for index in 0..self.slots.len() {
            if self.slots[index].peer.next_wake().is_some_and(|at| at <= now) {
                let mut effects = Vec::new();
                self.slots[index].peer.wake(now, &mut effects);
                self.follow(now, index, effects, out);
            }
        }
        let late: Vec<(Ticket, bool)> = self
            .jobs
            .iter()
            .filter_map(|(ticket, job)| match job.place {
                Place::Queued { until } if until <= now => Some((*ticket, true)),
                Place::Awaits { until, .. } if until <= now => Some((*ticket, false)),
                _ => None,
            })
            .collect();
        for (ticket, queued) in late {
            if queued {
                self.done(ticket, Err(Failure::Saturated), out);
            } else {
                self.next_alternative(now, ticket, out);
            }
        }
        self.drain(now, out);
    }

    /// One input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Request { ticket, request } => self.on_request(now, ticket, request, out),
            Input::Peer { peer, input } => {
                if let peer::Input::Connected { link, .. } = &input {
                    self.links.insert(*link, peer);
                }
                self.tell(now, peer, input, out);
            }
            Input::Received { link, octets } => {
                if let Some(peer) = self.links.get(&link).copied() {
                    self.tell(now, peer, peer::Input::Received { link, octets }, out);
                }
            }
            Input::Lost { link } => {
                if let Some(peer) = self.links.remove(&link) {
                    self.tell(now, peer, peer::Input::Lost { link }, out);
                }
            }
            Input::Arrived { link, remote, addresses, octets } => {
                self.on_arrived(now, link, remote, addresses, octets, out);
            }
            Input::Answer { link, message } => {
                if let Some(peer) = self.links.get(&link).copied() {
                    self.tell(now, peer, peer::Input::Answer { link, message }, out);
                }
            }
            Input::Shutdown => self.on_shutdown(now, out),
        }
        self.drain(now, out);
    }

    // --- peers ----------------------------------------------------------------------------------------------------------

    fn tell(&mut self, now: Instant, index: Index, input: peer::Input, out: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let mut effects = Vec::new();
        let unreachable = matches!(input, peer::Input::Unreachable);
        slot.peer.handle(now, input, &mut effects);
        self.follow(now, index, effects, out);
        if unreachable {
            self.unreached(now, index, out);
        }
    }

    /// Carries out what a peer decided.
    fn follow(
        &mut self,
        now: Instant,
        index: Index,
        effects: Vec<peer::Effect>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                peer::Effect::Connect if self.slots[index].gone => {}
                peer::Effect::Connect => {
                    let address = self.slots[index].address.clone();
                    out.push(Effect::Connect { peer: index, address });
                }
                peer::Effect::Send { link, octets } => out.push(Effect::Send { link, octets }),
                peer::Effect::Close { link } => {
                    self.links.remove(&link);
                    out.push(Effect::Close { link });
                }
                peer::Effect::Reset { link } => {
                    self.links.remove(&link);
                    out.push(Effect::Reset { link });
                }
                peer::Effect::Answered { ticket, answer } => {
                    self.on_answer(now, index, ticket, answer, out);
                }
                peer::Effect::Returned { ticket, why } => self.on_returned(now, ticket, why, out),
                peer::Effect::Request { link, message } => {
                    out.push(Effect::Inbound { link, message });
                }
                peer::Effect::Service { up } => {
                    out.push(Effect::Service { peer: index, up });
                    if up {
                        self.reached(now, index, out);
                    } else if self.slots[index].on_demand && !self.slots[index].gone {
                        // A host of a redirect is not called again until the next redirect.
                        self.tell(now, index, peer::Input::Shutdown, out);
                    }
                }
                peer::Effect::Revalidate => out.push(Effect::Revalidate { peer: index }),
                peer::Effect::Alarm(alarm) => {
                    out.push(Effect::Alarm { peer: index, alarm });
                    self.unreached(now, index, out);
                }
                peer::Effect::Gone => {
                    self.slots[index].gone = true;
                    if self.closing && self.slots.iter().all(|slot| slot.gone) {
                        out.push(Effect::Gone);
                    }
                }
            }
        }
    }

    /// Somebody connected and said something.
    ///
    /// SH-005, SH-006 (RFC 6733 §5.3, §5.6): only peers we know, and nothing before a CER.
    fn on_arrived(
        &mut self,
        now: Instant,
        link: LinkId,
        remote: SocketAddr,
        addresses: Vec<IpAddr>,
        octets: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let cer = match Message::decode(octets) {
            Ok(cer)
                if cer.header.is_request()
                    && cer.header.application == d::APPLICATION_BASE
                    && cer.header.code == command::CAPABILITIES =>
            {
                cer
            }
            _ => {
                out.push(Effect::Reset { link });
                return;
            }
        };
        let name = cer.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        let known = self.slots.iter().position(|slot| {
            !slot.gone
                && match &slot.address.identity {
                    Some(identity) => name.as_ref() == Some(identity),
                    None => slot.address.host.parse::<IpAddr>().is_ok_and(|ip| ip == remote.ip()),
                }
        });
        match known {
            Some(index) if !self.closing => {
                self.links.insert(link, index);
                self.tell(now, index, peer::Input::Taken { link, addresses, cer }, out);
            }
            _ => {
                let mut avps = vec![Avp::u32(&d::RESULT_CODE, result::UNKNOWN_PEER)];
                avps.extend(self.own.origin());
                let mut cea = cer.answer(avps);
                cea.header.flags |= Header::ERROR;
                out.push(Effect::Send { link, octets: cea.encode() });
                out.push(Effect::Close { link });
            }
        }
    }

    fn on_shutdown(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.closing = true;
        for ticket in std::mem::take(&mut self.queue) {
            self.done(ticket, Err(Failure::Unavailable(Why::Closing)), out);
        }
        for index in 0..self.slots.len() {
            if !self.slots[index].gone {
                self.tell(now, index, peer::Input::Shutdown, out);
            }
        }
        if self.slots.is_empty() {
            out.push(Effect::Gone);
        }
    }

    // --- requests -------------------------------------------------------------------------------------------------------

    fn on_request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        let refuse = |why| Effect::Done { ticket, result: Box::new(Err(why)) };
        if self.closing {
            out.push(refuse(Failure::Unavailable(Why::Closing)));
            return;
        }
        let route = request
            .identity
            .as_ref()
            .and_then(|identity| self.routes.get(identity))
            .filter(|route| route.until > now);
        let (host, realm) = match route {
            Some(route) => (Some(route.host.clone()), route.realm.clone()),
            None => {
                // SH-026 (3GPP TS 29.328 §6.5): the realm always, the host only if it is known.
                let host = request.destination_host.clone();
                let host = host.or_else(|| self.settings.destination_host.clone());
                let realm = request.destination_realm.clone();
                (host, realm.unwrap_or_else(|| self.settings.destination_realm.clone()))
            }
        };
        let next = self.slots.iter().find(|slot| slot.peer.in_service());
        let next = next.and_then(|slot| slot.peer.name());
        let towards = (host.as_deref(), next, realm.as_str());
        if self.overload.sheds(now, request.class, towards, &mut self.dice) {
            out.push(refuse(Failure::Overloaded));
            return;
        }
        let job = Job {
            host,
            realm,
            session: self.new_session(),
            end_to_end: self.new_end_to_end(now),
            retransmitted: false,
            attempts: 1,
            tried: Vec::new(),
            at: None,
            deadline: now + self.settings.timers.request_timeout * u32::from(ATTEMPTS),
            place: Place::Sent,
            redirects: 0,
            alternatives: VecDeque::new(),
            answer: None,
            request,
        };
        let size = self.message(&job).size();
        if size > self.settings.max_sent {
            out.push(refuse(Failure::TooLong(size)));
            return;
        }
        self.jobs.insert(ticket, job);
        self.place(now, ticket, Why::NoPeer, out);
    }

    /// SH-019 (RFC 6733 §8.8): our name, when we started, a counter.
    fn new_session(&mut self) -> String {
        self.sessions += 1;
        // The counter's upper half only moves after 2^32 requests of one run.
        let high = u64::from(low(self.started.1)) + (self.sessions >> 32);
        format!("{};{};{};sh", self.own.host, low(high), low(self.sessions))
    }

    /// SH-017 (RFC 6733 §3): 12 bits of the clock, 20 that count from a random start.
    fn new_end_to_end(&mut self, now: Instant) -> u32 {
        let seconds = self.started.1 + now.duration_since(self.started.0).as_secs();
        self.counter = self.counter.wrapping_add(1);
        (low(seconds) << 20) | (self.counter & 0x000f_ffff)
    }

    /// The request as it leaves, but for Hop-by-Hop.
    ///
    /// SH-020, SH-022, SH-031, SH-032 (3GPP TS 29.329 §6.1, 3GPP TS 29.229 §5.3).
    fn message(&self, job: &Job) -> Message {
        let mut avps = Vec::with_capacity(job.request.avps.len() + 10);
        avps.push(Avp::text(&d::SESSION_ID, &job.session));
        avps.extend(job.request.priority.map(|n| Avp::u32(&d::DRMP, u32::from(n.min(15)))));
        avps.push(sh_application());
        avps.push(Avp::u32(&d::AUTH_SESSION_STATE, 1));
        avps.extend(self.own.origin());
        avps.extend(job.host.as_ref().map(|host| Avp::text(&d::DESTINATION_HOST, host)));
        avps.push(Avp::text(&d::DESTINATION_REALM, &job.realm));
        avps.extend(job.request.avps.iter().cloned());
        avps.push(overload::supported());
        let mut message = Message::request(job.request.code, d::APPLICATION_SH, avps);
        message.header.end_to_end = job.end_to_end;
        if job.retransmitted {
            message.header.flags |= Header::RETRANSMITTED;
        }
        message
    }

    /// Finds a peer for a request and sends it there; `why` is said if there is none.
    ///
    /// SH-027, SH-028 (RFC 6733 §6.1.6).
    fn place(&mut self, now: Instant, ticket: Ticket, why: Why, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&ticket) else { return };
        if now >= job.deadline {
            self.give_up(ticket, Failure::Unavailable(Why::TimedOut), out);
            return;
        }
        let usable: Vec<Index> = self.usable(job.host.as_deref());
        let unused = |index: &&Index| !job.tried.contains(index) || job.retransmitted;
        let room =
            |index: &&Index| self.slots[**index].peer.open_requests() < self.settings.max_inflight;
        let free = usable.iter().filter(unused).find(room);
        // Where nobody else is left, the one that was silent is asked again; one that refused is not.
        let again = usable.iter().filter(|_| job.answer.is_none()).find(room);
        if let Some(index) = free.or(again).copied() {
            self.send(now, ticket, index, out);
        } else if usable.iter().any(|index| !job.tried.contains(index) || job.answer.is_none()) {
            if self.queue.len() >= self.settings.max_inflight {
                self.give_up(ticket, Failure::Saturated, out);
            } else if let Some(job) = self.jobs.get_mut(&ticket) {
                job.place = Place::Queued { until: job.deadline.min(now + QUEUE) };
                self.queue.push_back(ticket);
            }
        } else {
            let elsewhere = self.slots.iter().any(|slot| slot.peer.in_service());
            let why = if usable.is_empty() && elsewhere { Why::Undeliverable } else { why };
            self.give_up(ticket, Failure::Unavailable(why), out);
        }
    }

    /// Peers in service a request may go to, best first.
    fn usable(&self, host: Option<&str>) -> Vec<Index> {
        let is_host = |slot: &Slot| host.is_some() && slot.peer.name() == host;
        let is_a_peer = self.slots.iter().any(is_host);
        let leads = |slot: &Slot| {
            // A peer of ours is reached by itself or over somebody who passes things on.
            !is_a_peer || is_host(slot) || slot.peer.is_relay() || !slot.is_hss
        };
        let up = |slot: &Slot| slot.peer.in_service() && (!slot.on_demand || is_host(slot));
        let mut usable: Vec<Index> = (0..self.slots.len())
            .filter(|index| up(&self.slots[*index]) && leads(&self.slots[*index]))
            .collect();
        usable.sort_by_key(|index| !is_host(&self.slots[*index]));
        usable
    }

    fn send(&mut self, now: Instant, ticket: Ticket, index: Index, out: &mut Vec<Effect>) {
        let timeout = self.settings.timers.request_timeout;
        let Some(job) = self.jobs.get_mut(&ticket) else { return };
        job.place = Place::Sent;
        job.at = Some(index);
        if !job.tried.contains(&index) {
            job.tried.push(index);
        }
        let until = job.deadline.min(now + timeout);
        let Some(job) = self.jobs.get(&ticket) else { return };
        let message = self.message(job);
        self.tell(now, index, peer::Input::Send { ticket, message, until }, out);
    }

    /// Whoever waits for a place at a peer takes what has become free.
    fn drain(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for _ in 0..self.queue.len() {
            let Some(ticket) = self.queue.front().copied() else { return };
            let Some(job) = self.jobs.get(&ticket) else {
                self.queue.pop_front();
                continue;
            };
            let place = job.place;
            let usable = self.usable(job.host.as_deref());
            let room = usable
                .iter()
                .any(|index| self.slots[*index].peer.open_requests() < self.settings.max_inflight);
            if !room && !usable.is_empty() {
                return;
            }
            self.queue.pop_front();
            self.place(now, ticket, Why::NoPeer, out);
            // Put back: it keeps the end of its wait.
            if let Some(job) = self.jobs.get_mut(&ticket)
                && matches!(job.place, Place::Queued { .. })
            {
                job.place = place;
            }
        }
    }

    /// SH-030 (RFC 6733 §7.1.3-§7.1.5).
    fn on_answer(
        &mut self,
        now: Instant,
        index: Index,
        ticket: Ticket,
        answer: Result<Message, Fault>,
        out: &mut Vec<Effect>,
    ) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return self.done(ticket, Err(Failure::Broken(fault)), out),
        };
        self.overload.hear(now, &answer);
        let from = answer.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        let slot = &mut self.slots[index];
        let outcome = answer.outcome();
        let forwarded = matches!(outcome, Ok(Outcome::Base(code)) if code / 1000 == 3);
        if !forwarded && from.is_some() && from.as_deref() == slot.peer.name() {
            slot.is_hss = true;
        }
        match outcome {
            Ok(Outcome::Base(result::REDIRECT_INDICATION)) if answer.header.is_error() => {
                self.on_redirect(now, ticket, &answer, out);
            }
            Ok(Outcome::Base(code)) if may_be_tried_elsewhere(code) => {
                self.elsewhere(now, ticket, answer, out);
            }
            Ok(Outcome::Base(result::LOOP_DETECTED)) => {
                out.push(Effect::Loop { peer: index });
                self.done(ticket, Ok(answer), out);
            }
            _ => self.done(ticket, Ok(answer), out),
        }
    }

    /// Once more as a new request, at somebody who has not had it.
    fn elsewhere(&mut self, now: Instant, ticket: Ticket, answer: Message, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&ticket) else { return };
        job.answer = Some(answer);
        if !job.alternatives.is_empty() {
            self.next_alternative(now, ticket, out);
        } else if job.attempts < ATTEMPTS {
            self.renew(now, ticket);
            self.place(now, ticket, Why::NoPeer, out);
        } else {
            self.give_up(ticket, Failure::Unavailable(Why::TimedOut), out);
        }
    }

    /// SH-022 (RFC 6733 §5.5.4): a new request has new identifiers and no T.
    fn renew(&mut self, now: Instant, ticket: Ticket) {
        let (session, end_to_end) = (self.new_session(), self.new_end_to_end(now));
        if let Some(job) = self.jobs.get_mut(&ticket) {
            job.attempts += 1;
            job.retransmitted = false;
            (job.session, job.end_to_end) = (session, end_to_end);
        }
    }

    /// SH-021, SH-028 (RFC 6733 §5.5.4).
    fn on_returned(&mut self, now: Instant, ticket: Ticket, why: Returned, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&ticket) else { return };
        if !job.alternatives.is_empty() {
            self.next_alternative(now, ticket, out);
            return;
        }
        match why {
            Returned::LinkFailed if self.closing => {
                self.give_up(ticket, Failure::Unavailable(Why::Closing), out);
            }
            Returned::LinkFailed => {
                job.retransmitted = true;
                job.answer = None;
                self.place(now, ticket, Why::LinkFailed, out);
            }
            Returned::TimedOut if job.attempts < ATTEMPTS => {
                job.answer = None;
                self.renew(now, ticket);
                self.place(now, ticket, Why::TimedOut, out);
            }
            Returned::TimedOut => {
                job.answer = None;
                self.give_up(ticket, Failure::Unavailable(Why::TimedOut), out);
            }
        }
    }

    /// Ends with the answer there was, or with the failure.
    fn give_up(&mut self, ticket: Ticket, failure: Failure, out: &mut Vec<Effect>) {
        let answer = self.jobs.get_mut(&ticket).and_then(|job| job.answer.take());
        self.done(ticket, answer.ok_or(failure), out);
    }

    fn done(&mut self, ticket: Ticket, result: Result<Message, Failure>, out: &mut Vec<Effect>) {
        if self.jobs.remove(&ticket).is_some() {
            out.push(Effect::Done { ticket, result: Box::new(result) });
        }
    }

    // --- redirects ------------------------------------------------------------------------------------------------------

    /// SH-029 (RFC 6733 §6.1.8, §6.12-§6.14).
    fn on_redirect(
        &mut self,
        now: Instant,
        ticket: Ticket,
        answer: &Message,
        out: &mut Vec<Effect>,
    ) {
        let hosts: VecDeque<_> = answer
            .find_all(&d::REDIRECT_HOST)
            .filter_map(|avp| redirect_host(avp.as_text().ok()?))
            .take(MOST_HOSTS)
            .collect();
        let Some(job) = self.jobs.get_mut(&ticket) else { return };
        job.redirects += 1;
        if job.redirects > REDIRECTS || hosts.is_empty() {
            self.done(ticket, Err(Failure::Unavailable(Why::Redirects)), out);
            return;
        }
        let number = |def| answer.find(def).and_then(|avp| avp.as_u32().ok());
        let lasts = number(&d::REDIRECT_HOST_USAGE)
            .filter(|usage| *usage != 0)
            .and_then(|_| number(&d::REDIRECT_MAX_CACHE_TIME))
            .filter(|seconds| *seconds > 0);
        job.alternatives = hosts;
        let first = job.alternatives.front().map(|(host, _)| host.clone());
        if let (Some(lasts), Some(identity), Some(host)) =
            (lasts, job.request.identity.clone(), first)
        {
            let realm = realm_of(&host, &job.realm);
            if self.routes.len() >= MOST_ROUTES {
                self.routes.retain(|_, route| route.until > now);
            }
            if self.routes.len() < MOST_ROUTES {
                let until = now + Duration::from_secs(u64::from(lasts.min(86_400)));
                self.routes.insert(identity, Route { host, realm, until });
            }
        }
        self.next_alternative(now, ticket, out);
    }

    /// Sends to the next host of a redirect: the same request, T clear.
    fn next_alternative(&mut self, now: Instant, ticket: Ticket, out: &mut Vec<Effect>) {
        loop {
            let Some(job) = self.jobs.get_mut(&ticket) else { return };
            let Some((host, address)) = job.alternatives.pop_front() else {
                self.give_up(ticket, Failure::Unavailable(Why::Redirects), out);
                return;
            };
            if now >= job.deadline {
                self.give_up(ticket, Failure::Unavailable(Why::TimedOut), out);
                return;
            }
            job.realm = realm_of(&host, &job.realm);
            job.host = Some(host.clone());
            job.retransmitted = false;
            job.answer = None;
            job.tried.clear();
            let until = job.deadline.min(now + self.settings.timers.request_timeout);
            let known = self
                .slots
                .iter()
                .position(|slot| !slot.gone && slot.peer.name() == Some(host.as_str()));
            match known {
                Some(index) if self.slots[index].peer.in_service() => {
                    self.send(now, ticket, index, out);
                    return;
                }
                Some(index) if self.slots[index].peer.state() == "connecting" => {
                    if let Some(job) = self.jobs.get_mut(&ticket) {
                        job.place = Place::Awaits { peer: index, until };
                    }
                    return;
                }
                Some(_) => continue,
                None => {}
            }
            let on_demand = self.slots.iter().filter(|slot| slot.on_demand && !slot.gone).count();
            if self.settings.redirect_hosts.contains(&host) && on_demand < MOST_ON_DEMAND {
                let index = self.add(address, true);
                if let Some(job) = self.jobs.get_mut(&ticket) {
                    job.place = Place::Awaits { peer: index, until };
                }
                let mut effects = Vec::new();
                self.slots[index].peer.start(&mut effects);
                self.follow(now, index, effects, out);
                return;
            }
            // Not to be connected to, so whoever passes things on may know the way.
            if let Some(index) =
                self.usable(Some(&host)).into_iter().find(|index| !self.slots[*index].is_hss)
            {
                self.send(now, ticket, index, out);
                return;
            }
        }
    }

    fn awaiting(&self, index: Index) -> Vec<Ticket> {
        let awaits = |job: &Job| matches!(job.place, Place::Awaits { peer, .. } if peer == index);
        self.jobs.iter().filter(|(_, job)| awaits(job)).map(|(ticket, _)| *ticket).collect()
    }

    fn reached(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        for ticket in self.awaiting(index) {
            self.send(now, ticket, index, out);
        }
    }

    fn unreached(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        let waiting = self.awaiting(index);
        if self.slots[index].on_demand && !self.slots[index].gone {
            self.tell(now, index, peer::Input::Shutdown, out);
        }
        for ticket in waiting {
            self.next_alternative(now, ticket, out);
        }
    }
}

/// SH-030.
fn may_be_tried_elsewhere(code: u32) -> bool {
    matches!(code, result::UNABLE_TO_DELIVER | result::TOO_BUSY) || code / 1000 == 4
}

/// `aaa://host[:port][;transport=tcp]`: the host's name and where it is. `None` for what cannot be reached by TCP.
fn redirect_host(uri: &str) -> Option<(String, PeerAddress)> {
    let (scheme, rest) = uri.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("aaa") && !scheme.eq_ignore_ascii_case("aaas") {
        return None;
    }
    let mut parts = rest.split(';');
    let authority = parts.next()?;
    let transport = parts.find_map(|part| part.strip_prefix("transport="));
    if transport.is_some_and(|transport| !transport.eq_ignore_ascii_case("tcp")) {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 3868),
    };
    let name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(name) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    Some((host.clone(), PeerAddress { identity: Some(host.clone()), host, port }))
}

/// The realm of a host: what follows its own label; the realm before, if nothing does.
fn realm_of(host: &str, before: &str) -> String {
    match host.split_once('.') {
        Some((_, realm)) if !realm.is_empty() => realm.to_owned(),
        _ => before.to_owned(),
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests;
