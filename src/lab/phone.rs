//! A phone: registers, sends pages, takes pages.
//!
//! Start at [`Phone::start`]; [`Phone::page`] sends, [`Phone::received`] tells what came. How it takes a page is its
//! [`Behaviour`]. It keeps itself registered; [`Phone::standing`] tells when that goes wrong.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::auth::{Auth, Keyring};
use super::call::{address_of, hop};
use super::callee::{self, Callee};
use super::caller::{self, Caller};
use super::media::Media;
use super::registration::{self, Failed, Registration};
use super::tls::Identity;
use super::wire::{Arrived, Way, Wire};
use super::{Complaints, locked, token};
use crate::content::cpim;
use crate::sip::message::{Message, Method, Name, Writer, reason_phrase};
use crate::sip::uri::Uri;

/// Messages waiting for one call.
const CALL_QUEUE: usize = 64;
/// Calls a phone has at a time; beyond it is busy.
const MOST_CALLS: usize = 4096;
/// Pages that came and were not looked at; beyond it the oldest calls wait.
const RECEIVED_QUEUE: usize = 4096;
/// Seconds a registration is asked for.
const EXPIRES: u32 = 3600;
/// Between attempts to register again after one that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How a phone takes a page.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// What comes first, before [`Behaviour::after`].
    pub provisional: Provisional,
    /// How long it rings.
    pub after: Duration,
    pub answer: Answer,
    /// Which side of the connection it wants to be.
    pub setup: Setup,
    pub reads: Reads,
    /// `a=accept-types`, `a=accept-wrapped-types`, separated by spaces.
    pub accept_types: String,
    pub accept_wrapped: String,
    /// `a=max-size`
    pub max_size: Option<u64>,
    /// It says BYE as soon as it has the page.
    pub hangs_up_after_page: bool,
}

impl Default for Behaviour {
    /// Answers at once, lets the server connect, reads as fast as it can.
    fn default() -> Self {
        Self {
            provisional: Provisional::None,
            after: Duration::ZERO,
            answer: Answer::Accept,
            setup: Setup::Passive,
            reads: Reads::AtOnce,
            accept_types: "message/cpim".to_owned(),
            accept_wrapped: "*".to_owned(),
            max_size: None,
            hangs_up_after_page: false,
        }
    }
}

/// The response above 100 a phone sends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisional {
    None,
    Ringing,
    Progress,
    /// 183 with `Require: 100rel`; the call goes on with its PRACK.
    Reliable,
}

/// The final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accept,
    Refuse {
        status: u16,
    },
    Never,
    /// 200 with port 0.
    Unusable,
}

/// Who opens the MSRP connection, where the offer leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// The phone.
    Active,
    /// The server.
    Passive,
}

/// How a phone reads what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    AtOnce,
    Slowly {
        octets_per_second: u64,
    },
    /// Reads and never answers.
    Silently,
    /// Cuts the connection after so many octets.
    KillsAfter {
        octets: u64,
    },
    /// Answers the chunk in which so many octets are reached with this status.
    RefusesAfter {
        octets: u64,
        code: u16,
    },
}

/// What a phone is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SIP URI or `host:port` of the core.
    pub core: String,
    /// Address of record: the public identity.
    pub aor: String,
    pub display: Option<String>,
    /// What it proves its identity with, where it is asked.
    pub auth: Option<Auth>,
    /// The phone is its own P-CSCF, in this network.
    pub visited: Option<String>,
    /// Where SIP and MSRP are taken; port 0 takes a free one. `None`: the address towards the core.
    pub bind: Option<SocketAddr>,
    /// Sends no REGISTER: there is no core that would want one.
    pub unregistered: bool,
    /// Seconds a registration is asked for.
    pub expires: u32,
    pub behaviour: Behaviour,
    /// Speaks MSRP over TLS: offers it, and takes offers of it. Without, such offers are refused: 488.
    pub identity: Option<Identity>,
    /// How long it waits for the answer to a BYE of its own.
    pub farewell: Duration,
    /// Never acknowledges a 2xx.
    pub no_ack: bool,
    /// Never acknowledges a reliable provisional response.
    pub no_prack: bool,
}

impl Settings {
    /// A well-behaved phone.
    pub fn new(core: &str, aor: &str) -> Self {
        Self {
            core: core.to_owned(),
            aor: aor.to_owned(),
            display: None,
            auth: None,
            visited: None,
            bind: None,
            unregistered: false,
            expires: EXPIRES,
            behaviour: Behaviour::default(),
            identity: None,
            farewell: super::call::TIMEOUT,
            no_ack: false,
            no_prack: false,
        }
    }
}

/// Who a phone is, for its calls.
pub(super) struct Who {
    pub(super) aor: String,
    display: Option<String>,
    pub(super) contact: String,
    pub(super) core: SocketAddr,
    pub(super) auth: Option<Auth>,
    pub(super) visited: Option<String>,
    /// It talks to a server without a core between.
    pub(super) unproxied: bool,
    /// How long the answer to a BYE of its own is awaited.
    pub(super) farewell: Duration,
    /// Where its requests pass, by its registration.
    service_route: Mutex<Vec<String>>,
    pub(super) no_ack: bool,
    pub(super) no_prack: bool,
}

/// The way of a request that begins something.
pub(super) struct WayOut {
    pub(super) route: Vec<String>,
    pub(super) hop: SocketAddr,
}

impl Who {
    pub(super) fn name_addr(&self) -> String {
        match &self.display {
            Some(name) => format!("\"{}\" <{}>", name.replace(['"', '\\'], ""), self.aor),
            None => format!("<{}>", self.aor),
        }
    }

    /// The home domain: that of the public identity, or of the private one where that is a number.
    pub(super) fn domain(&self) -> String {
        let public = Uri::parse(&self.aor).ok().map(|uri| uri.host().to_owned());
        let private = self.auth.as_ref().and_then(|auth| auth.user().rsplit_once('@'));
        let private = private.map(|(_, domain)| domain.to_owned());
        public.filter(|domain| !domain.is_empty()).or(private).unwrap_or_default()
    }

    /// By the Service-Route (RFC 3608 §5); a phone that is no P-CSCF itself passes its own first.
    pub(super) async fn way_out(&self) -> WayOut {
        if self.unproxied {
            return WayOut { route: Vec::new(), hop: self.core };
        }
        let mut route = locked(&self.service_route).clone();
        let first = hop(route.first().map(String::as_str), "").await;
        if self.visited.is_none() && first != Some(self.core) {
            route.insert(0, format!("<sip:{};lr>", self.core));
            return WayOut { route, hop: self.core };
        }
        WayOut { route, hop: first.unwrap_or(self.core) }
    }
}

/// Whether a phone is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Registered,
    /// And why.
    Lost(String),
}

/// Who a page is for.
#[derive(Debug, Clone)]
pub enum Recipients {
    /// A list, sent to the factory that expands it.
    List { factory: String, entries: Vec<String> },
    /// A group hosted by the server.
    Group(String),
    /// One user, past the server.
    User(String),
}

/// A page to send.
#[derive(Debug, Clone)]
pub struct PageRequest {
    pub to: Recipients,
    /// Of the content inside the envelope.
    pub content_type: String,
    pub body: Bytes,
    pub file_name: Option<String>,
    pub subject: Option<String>,
    /// Value of a Privacy header.
    pub privacy: Option<String>,
    /// Octets of one MSRP chunk.
    pub chunk: usize,
    pub success_report: bool,
    /// Leaves the BYE to the server.
    pub waits_for_bye: bool,
    pub give_up: Option<GiveUp>,
    /// Longest wait for the final answer, and again for what is owed on MSRP.
    pub patience: Duration,
}

impl PageRequest {
    /// A page like any other.
    pub fn new(to: Recipients, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            to,
            content_type: content_type.to_owned(),
            body: body.into(),
            file_name: None,
            subject: None,
            privacy: None,
            chunk: 64 * 1024,
            success_report: true,
            waits_for_bye: false,
            give_up: None,
            patience: Duration::from_secs(180),
        }
    }

    pub(super) fn request_uri(&self) -> &str {
        match &self.to {
            Recipients::List { factory, .. } => factory,
            Recipients::Group(uri) | Recipients::User(uri) => uri,
        }
    }
}

/// How an originator changes its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// CANCEL this long after the INVITE, if there is no final answer.
    Cancel { after: Duration },
    /// `#` after so many octets.
    Abort { after_octets: u64 },
    /// The connection is cut after so many octets.
    Kill { after_octets: u64 },
}

/// What came of a page; times are counted from the INVITE.
#[derive(Debug, Clone, Default)]
pub struct PageOutcome {
    /// A 100 came.
    pub trying: bool,
    /// Responses above 100, repetitions of reliable ones left out.
    pub provisional: Vec<(Duration, u16)>,
    /// Final answer to the INVITE.
    pub status: Option<u16>,
    pub reason: String,
    pub warning: Option<String>,
    pub retry_after: Option<String>,
    /// When the final answer came.
    pub answered: Option<Duration>,
    /// Octets of the page with its envelope.
    pub octets: u64,
    pub sent: u64,
    pub acknowledged: u64,
    /// Every octet was acknowledged.
    pub whole: bool,
    /// When everything owed on MSRP was there.
    pub transferred: Option<Duration>,
    /// Status of the REPORT.
    pub report: Option<u16>,
    /// First MSRP response that was no 200.
    pub refused: Option<u16>,
    /// The server's BYE, if it said it first.
    pub bye: Option<Duration>,
    pub bye_reason: Option<String>,
    /// What went wrong on our side of it.
    pub problem: Option<String>,
    pub took: Duration,
}

impl PageOutcome {
    /// The server has the page: accepted, acknowledged, and reported if that was asked for.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
            && self.whole
            && self.report.is_none_or(|report| report == 200)
            && self.problem.is_none()
    }
}

/// How a call at a recipient ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody ended it.
    Silence,
    Refused(u16),
    /// The server said BYE.
    Bye,
    /// The phone said BYE.
    HungUp,
}

/// One call at a recipient, told when it is over.
#[derive(Debug, Clone)]
pub struct Received {
    /// Whose phone.
    pub aor: String,
    pub call_id: String,
    pub from: String,
    pub asserted: Option<String>,
    pub subject: Option<String>,
    /// The list of the other recipients, if one came.
    pub history: Option<String>,
    pub answered: Option<Duration>,
    /// Every octet came, and `$`.
    pub whole: bool,
    /// `#` came.
    pub aborted: bool,
    pub cancelled: bool,
    pub content_type: String,
    pub body: Bytes,
    pub octets: u64,
    pub chunks: u32,
    /// When the page was whole, from the INVITE.
    pub received: Option<Duration>,
    /// The same on the clock, to compare with other phones in this process.
    pub received_at: Option<Instant>,
    pub ended: Ended,
    pub bye_reason: Option<String>,
    pub took: Duration,
}

impl Received {
    pub(super) fn of(aor: &str, invite: &Message) -> Self {
        let text = |name| invite.text(name).map(str::to_owned);
        Self {
            aor: aor.to_owned(),
            call_id: String::from_utf8_lossy(invite.call_id()).into_owned(),
            from: invite.from().uri.to_owned(),
            asserted: text(Name::PAssertedIdentity),
            subject: text(Name::Subject),
            history: None,
            answered: None,
            whole: false,
            aborted: false,
            cancelled: false,
            content_type: String::new(),
            body: Bytes::new(),
            octets: 0,
            chunks: 0,
            received: None,
            received_at: None,
            ended: Ended::Silence,
            bye_reason: None,
            took: Duration::ZERO,
        }
    }

    /// SHA-256 of the body as it came, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.body)
    }

    /// The content inside the envelope with its type; `None` if it is no CPIM message.
    pub fn content(&self) -> Option<(String, Bytes)> {
        let head = cpim::parse(&self.body).ok()??;
        let content = self.body.slice(head.content_at.min(self.body.len())..);
        Some((head.content_type.essence, content))
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A running phone; falls silent when dropped. [`Phone::stop`] deregisters first.
pub struct Phone {
    shared: Arc<Shared>,
    received: AsyncMutex<mpsc::Receiver<Received>>,
    standing: watch::Receiver<Standing>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    who: Who,
    behaviour: Mutex<Behaviour>,
    wire: Wire,
    media: Media,
    calls: Mutex<BTreeMap<Vec<u8>, mpsc::Sender<Arrived>>>,
    complaints: Complaints,
    tell: mpsc::Sender<Received>,
    registration: AsyncMutex<Registration>,
}

impl Phone {
    /// Opens the phone's sockets and registers it.
    ///
    /// # Errors
    /// When the core's address cannot be found, nothing can be bound, or the core does not register it.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let core = core_address(&settings.core).await?;
        let bind = match settings.bind {
            Some(bind) => bind,
            None if core.ip().is_loopback() => SocketAddr::new(core.ip(), 0),
            None => {
                // The address the system would use towards the core.
                let any = if core.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let probe = std::net::UdpSocket::bind(any)?;
                probe.connect(core)?;
                SocketAddr::new(probe.local_addr()?.ip(), 0)
            }
        };
        let complaints = Complaints::default();
        let (wire, inbox) = Wire::open(bind).await?;
        let media = Media::open(bind.ip(), settings.identity.clone(), complaints.clone()).await?;
        let user = Uri::parse(&settings.aor)
            .map_err(io::Error::other)?
            .user()
            .map_or_else(|| "phone".to_owned(), str::to_owned);
        let (tell, received) = mpsc::channel(RECEIVED_QUEUE);
        let keyring = Keyring::new(settings.auth.clone());
        let shared = Arc::new(Shared {
            who: Who {
                aor: settings.aor,
                display: settings.display,
                contact: format!("sip:{user}@{}", wire.address()),
                core,
                auth: settings.auth,
                visited: settings.visited,
                unproxied: settings.unregistered,
                farewell: settings.farewell,
                service_route: Mutex::default(),
                no_ack: settings.no_ack,
                no_prack: settings.no_prack,
            },
            behaviour: Mutex::new(settings.behaviour),
            wire,
            media,
            calls: Mutex::default(),
            complaints,
            tell,
            registration: AsyncMutex::new(Registration::new(keyring, settings.expires)),
        });
        let (standing_is, standing) = watch::channel(Standing::Registered);
        let mut phone = Self {
            tasks: vec![tokio::spawn(shared.clone().run(inbox))],
            shared,
            received: AsyncMutex::new(received),
            standing,
        };
        if !settings.unregistered {
            let granted = phone.shared.register(false).await.map_err(io::Error::other)?;
            phone.tasks.push(tokio::spawn(phone.shared.clone().stay(granted, standing_is)));
        }
        Ok(phone)
    }

    /// Sends one page. Several may be under way at a time.
    pub async fn page(&self, request: &PageRequest) -> PageOutcome {
        let shared = &self.shared;
        let call_id = format!("{}@{}", token(10), shared.wire.address().ip());
        let mut call = shared.call(call_id.as_bytes());
        let Some(inbox) = &mut call.inbox else {
            let problem = Some("too many calls".to_owned());
            return PageOutcome { problem, ..PageOutcome::default() };
        };
        let caller = Caller {
            who: &shared.who,
            wire: &shared.wire,
            media: &shared.media,
            complaints: &shared.complaints,
            inbox,
            call_id,
        };
        caller::page(caller, request).await
    }

    /// The next call that is over; waits for it.
    pub async fn received(&self) -> Option<Received> {
        self.received.lock().await.recv().await
    }

    /// From now on it takes pages like this.
    pub fn behave(&self, behaviour: Behaviour) {
        *locked(&self.shared.behaviour) = behaviour;
    }

    /// Address of record.
    pub fn aor(&self) -> &str {
        &self.shared.who.aor
    }

    /// Where it takes SIP.
    pub fn address(&self) -> SocketAddr {
        self.shared.wire.address()
    }

    /// What it found wrong.
    pub fn complaints(&self) -> Vec<String> {
        self.shared.complaints.all()
    }

    /// Tells every change of the registration; first it is there.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Deregisters; the phone is offline from now on.
    ///
    /// # Errors
    /// When the core does not answer.
    pub async fn stop(self) -> io::Result<()> {
        if self.shared.who.unproxied {
            return Ok(());
        }
        self.shared.register(true).await.map_err(io::Error::other)?;
        Ok(())
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A call's place in the phone's table, given back when dropped.
struct Place<'a> {
    shared: &'a Shared,
    call_id: Vec<u8>,
    inbox: Option<mpsc::Receiver<Arrived>>,
}

impl Place<'_> {
    /// Another INVITE of a call that is over, tried again in another way; without one, the place is given back.
    fn next_invite(&mut self, before: &Message) -> Option<(Message, Way)> {
        // Whatever comes from now on waits for this lock and finds the place gone.
        let mut calls = locked(&self.shared.calls);
        while let Some(Ok(Arrived { message, way })) =
            self.inbox.as_mut().map(mpsc::Receiver::try_recv)
        {
            if let Ok(message) = message
                && message.method() == Some(Method::Invite)
                && message.to_tag().is_none()
                && message.text(Name::CSeq) != before.text(Name::CSeq)
            {
                return Some((message, way));
            }
        }
        self.inbox = None;
        calls.remove(&self.call_id);
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.inbox.is_some() {
            locked(&self.shared.calls).remove(&self.call_id);
        }
    }
}

impl Shared {
    fn call(&self, call_id: &[u8]) -> Place<'_> {
        let mut calls = locked(&self.calls);
        let inbox = (calls.len() < MOST_CALLS).then(|| {
            let (sender, inbox) = mpsc::channel(CALL_QUEUE);
            calls.insert(call_id.to_vec(), sender);
            inbox
        });
        Place { shared: self, call_id: call_id.to_vec(), inbox }
    }

    /// One REGISTER with what it takes; how long the registration holds.
    async fn register(&self, leaves: bool) -> Result<Duration, Failed> {
        let mut registration = self.registration.lock().await;
        let call_id = registration.call_id.clone();
        let mut call = self.call(call_id.as_bytes());
        let Some(inbox) = &mut call.inbox else {
            return Err(Failed::Refused("the phone has too many calls".to_owned()));
        };
        let granted = registration.attempt(&self.who, &self.wire, inbox, leaves).await?;
        *locked(&self.who.service_route) = granted.service_route;
        Ok(granted.expires)
    }

    /// Registers again and again, each time before the last one ends.
    async fn stay(self: Arc<Self>, granted: Duration, standing: watch::Sender<Standing>) {
        let mut until = Instant::now() + granted;
        let mut again = registration::refresh_after(granted);
        loop {
            tokio::time::sleep(again).await;
            match self.register(false).await {
                Ok(granted) => {
                    until = Instant::now() + granted;
                    again = registration::refresh_after(granted);
                    standing.send_if_modified(|was| {
                        std::mem::replace(was, Standing::Registered) != Standing::Registered
                    });
                }
                Err(failed) => {
                    let left = until.saturating_duration_since(Instant::now());
                    // What is silent may still know us until the time is over.
                    if !matches!(failed, Failed::Silence) || left.is_zero() {
                        let lost = Standing::Lost(failed.to_string());
                        standing
                            .send_if_modified(|was| std::mem::replace(was, lost.clone()) != lost);
                    }
                    again = if left.is_zero() { AGAIN_AFTER } else { left.min(AGAIN_AFTER) };
                }
            }
        }
    }

    /// Gives every message to its call; a new INVITE becomes one.
    async fn run(self: Arc<Self>, mut inbox: mpsc::Receiver<Arrived>) {
        // Calls end with their phone.
        let mut running = tokio::task::JoinSet::new();
        while let Some(Arrived { message, way }) = inbox.recv().await {
            while running.try_join_next().is_some() {}
            let message = match message {
                Ok(message) => message,
                Err(malformed) => {
                    self.complaints.add(format!("phone: {malformed}"));
                    continue;
                }
            };
            let known = locked(&self.calls).get(message.call_id()).cloned();
            match known {
                Some(call) => {
                    // A call that hears nothing any more, or not fast enough, gets it again.
                    if call.try_send(Arrived { message: Ok(message), way }).is_err() {
                        tracing::debug!("a message came to a call that is over or busy");
                    }
                }
                None if message.method() == Some(Method::Invite) && message.to_tag().is_none() => {
                    // In the table before the next message is looked at.
                    let shared = self.clone();
                    let (sender, inbox) = mpsc::channel(CALL_QUEUE);
                    locked(&self.calls).insert(message.call_id().to_vec(), sender);
                    running.spawn(async move { shared.take(message, way, inbox).await });
                }
                None => self.stray(&message, way).await,
            }
        }
    }

    async fn take(&self, mut invite: Message, mut way: Way, inbox: mpsc::Receiver<Arrived>) {
        let call_id = invite.call_id().to_vec();
        let mut place = Place { shared: self, call_id, inbox: Some(inbox) };
        loop {
            let behaviour = locked(&self.behaviour).clone();
            let Some(inbox) = &mut place.inbox else {
                return;
            };
            let callee = Callee {
                who: &self.who,
                behaviour: &behaviour,
                wire: &self.wire,
                media: &self.media,
                complaints: &self.complaints,
                inbox,
            };
            let received = callee::answer(callee, &invite, way).await;
            if self.tell.try_send(received).is_err() {
                tracing::debug!("nobody looks at what the phone received");
            }
            match place.next_invite(&invite) {
                Some(next) => (invite, way) = next,
                None => return,
            }
        }
    }

    /// Outside any call: what was repeated after its end is no fault.
    async fn stray(&self, message: &Message, way: Way) {
        let Some(method) = message.method() else {
            return;
        };
        let status = match method {
            Method::Ack => return,
            Method::Options => 200,
            _ => 481,
        };
        let answer = Writer::response(message, status, reason_phrase(status), Some(&token(6)));
        self.wire.send(way, answer.finish(None)).await;
    }
}

async fn core_address(text: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let uri = if text.contains("sip:") || text.contains("sips:") {
        text.to_owned()
    } else {
        format!("sip:{text}")
    };
    let address = address_of(&uri).await;
    address.ok_or_else(|| io::Error::other("no address can be found for the core"))
}
