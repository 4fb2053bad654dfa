//! The connections and the routing at work: one task that owns them, and the handle everybody else holds.
//!
//! Start at [`Router::start`], then [`Router::request`]. The task reads the clock, gives `routing` its inputs and carries
//! out its effects; each connection has a task that moves octets (`link`); notifications of the HSS are handed to
//! [`Inbound`] by a task of their own, in their order. So a DWR never waits for any of that.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::codec::Message;
use super::dictionary::result;
use super::link::{self, Event, Handle, Opened, Tcp, Transport};
use super::peer;
use super::peer::{Alarm, LinkId, Ticket};
use super::routing::{Effect, Failure, Input, PeerStatus, Request, Routing, Why};
use super::settings::Settings;

/// Events of all connections that may wait for the task.
const EVENTS: usize = 1024;
/// Connections taken and not yet looked at.
const TAKEN: usize = 16;
/// Most connections of peers that have not said who they are.
const STRANGERS: usize = 64;

/// Whoever takes what the HSS says by itself.
pub trait Inbound: Send + Sync + 'static {
    /// Takes a Push-Notification-Request and gives its answer. Called one after the other, and may compute for a while.
    fn notified(&self, request: &Message) -> Message;

    /// What is known from the HSS may be old: a peer was away, or has started anew (SH-015, SH-016).
    fn revalidate(&self) {}
}

enum Command {
    Request(Box<Request>, oneshot::Sender<Result<Message, Failure>>),
    Answer { link: LinkId, message: Message },
    Shutdown(oneshot::Sender<()>),
}

/// The handle: asks, tells how the peers are, ends. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    commands: mpsc::Sender<Command>,
    shown: Arc<Mutex<Vec<PeerStatus>>>,
    listening: Arc<[SocketAddr]>,
}

impl Router {
    /// Connects to the peers over TCP or TLS, and listens where configured. `unix`: seconds since 1970.
    ///
    /// # Errors
    /// A certificate that cannot be used, an address that cannot be listened on.
    pub async fn start(
        settings: Settings,
        inbound: Arc<dyn Inbound>,
        unix: u64,
    ) -> io::Result<Self> {
        let tcp =
            Arc::new(Tcp::new(settings.tls.as_ref(), settings.nodelay).map_err(io::Error::other)?);
        let (sender, taken) = mpsc::channel(TAKEN);
        let mut listening = Vec::new();
        for address in &settings.listen {
            let listener = TcpListener::bind(address).await?;
            listening.push(listener.local_addr()?);
            let patience = settings.timers.cea_timeout;
            tokio::spawn(link::listen(listener, Arc::clone(&tcp), patience, sender.clone()));
        }
        Ok(Self::run(settings, Arc::new(tcp), inbound, unix, taken, listening))
    }

    /// The same over any transport, without a listening side.
    pub fn start_over(
        settings: Settings,
        transport: Arc<dyn Transport>,
        inbound: Arc<dyn Inbound>,
        unix: u64,
    ) -> Self {
        let (_, taken) = mpsc::channel(1);
        Self::run(settings, transport, inbound, unix, taken, Vec::new())
    }

    fn run(
        settings: Settings,
        transport: Arc<dyn Transport>,
        inbound: Arc<dyn Inbound>,
        unix: u64,
        taken: mpsc::Receiver<(Opened, SocketAddr)>,
        listening: Vec<SocketAddr>,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(settings.max_inflight.saturating_mul(4).max(64));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (pushes, queue) = mpsc::channel(settings.max_inflight.max(1));
        tokio::spawn(push(Arc::clone(&inbound), queue, commands.clone()));
        let (events, heard) = mpsc::channel(EVENTS);
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            // Identifiers then differ by the start of the process alone.
            seed = unix.to_be_bytes();
        }
        let routing = Routing::new(settings.clone(), now(), unix, u64::from_be_bytes(seed));
        let task = Task {
            routing,
            transport,
            inbound,
            pushes,
            events,
            links: HashMap::new(),
            next_link: 0,
            asked: HashMap::new(),
            next_ticket: 0,
            shown: Arc::clone(&shown),
            show: true,
            ending: None,
            gone: false,
            settings,
        };
        tokio::spawn(task.run(heard, receiver, taken));
        Self { commands, shown, listening: listening.into() }
    }

    /// One request and its answer, whatever its result. SIP never waits for it without a limit of its own.
    ///
    /// # Errors
    /// See [`Failure`]; an answer that says no is not one.
    pub async fn request(&self, request: Request) -> Result<Message, Failure> {
        let (sender, answer) = oneshot::channel();
        match self.commands.try_send(Command::Request(Box::new(request), sender)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Failure::Saturated),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Failure::Unavailable(Why::Closing));
            }
        }
        answer.await.unwrap_or(Err(Failure::Unavailable(Why::Closing)))
    }

    /// Every peer in order of preference.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where peers may connect to us.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Parts from every peer; done when that is done, ten seconds at most.
    ///
    /// SH-011 (RFC 6733 §5.4).
    pub async fn shutdown(&self) {
        let (sender, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown(sender)).await.is_ok() {
            // An error says that the task is gone, which is what was wanted.
            let _ = done.await;
        }
    }
}

/// Gives notifications to whoever takes them, one after the other.
async fn push(
    inbound: Arc<dyn Inbound>,
    mut queue: mpsc::Receiver<(LinkId, Message)>,
    commands: mpsc::Sender<Command>,
) {
    while let Some((link, request)) = queue.recv().await {
        let inbound = Arc::clone(&inbound);
        // Reading a large document takes a while, and no thread of the runtime waits for it.
        let answer = tokio::task::spawn_blocking(move || inbound.notified(&request)).await;
        let Ok(message) = answer else {
            tracing::error!("a notification of the HSS was not taken: a mistake in this server");
            continue;
        };
        if commands.send(Command::Answer { link, message }).await.is_err() {
            return;
        }
    }
}

struct Task {
    settings: Settings,
    routing: Routing,
    transport: Arc<dyn Transport>,
    inbound: Arc<dyn Inbound>,
    pushes: mpsc::Sender<(LinkId, Message)>,
    events: mpsc::Sender<Event>,
    links: HashMap<LinkId, Link>,
    next_link: u64,
    asked: HashMap<Ticket, oneshot::Sender<Result<Message, Failure>>>,
    next_ticket: u64,
    shown: Arc<Mutex<Vec<PeerStatus>>>,
    /// What is shown is to be made anew.
    show: bool,
    ending: Option<oneshot::Sender<()>>,
    gone: bool,
}

struct Link {
    handle: Handle,
    /// Who connected to us and has not said a word yet.
    stranger: Option<(SocketAddr, Vec<std::net::IpAddr>)>,
}

impl Task {
    async fn run(
        mut self,
        mut heard: mpsc::Receiver<Event>,
        mut commands: mpsc::Receiver<Command>,
        mut taken: mpsc::Receiver<(Opened, SocketAddr)>,
    ) {
        let mut out = Vec::new();
        self.routing.start(now(), &mut out);
        self.perform(&mut out);
        let (mut asking, mut taking) = (true, true);
        while !self.gone {
            let wake = self.routing.next_wake();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = heard.recv() => self.on_event(event, &mut out),
                () = sleep => self.routing.wake(now(), &mut out),
                command = commands.recv(), if asking => match command {
                    Some(command) => self.on_command(command, &mut out),
                    // Nobody is left to ask: the handles are gone.
                    None => {
                        asking = false;
                        self.routing.handle(now(), Input::Shutdown, &mut out);
                    }
                },
                arrived = taken.recv(), if taking => match arrived {
                    Some((opened, remote)) => self.on_taken(opened, remote),
                    None => taking = false,
                },
            }
            self.perform(&mut out);
        }
        for (_, asked) in self.asked.drain() {
            // Whoever asked may have stopped waiting.
            let _ = asked.send(Err(Failure::Unavailable(Why::Closing)));
        }
        if let Some(ending) = self.ending.take() {
            let _ = ending.send(());
        }
    }

    fn on_command(&mut self, command: Command, out: &mut Vec<Effect>) {
        let input = match command {
            Command::Request(request, sender) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.asked.insert(ticket, sender);
                Input::Request { ticket, request: *request }
            }
            Command::Answer { link, message } => Input::Answer { link, message },
            Command::Shutdown(done) => {
                self.ending = Some(done);
                Input::Shutdown
            }
        };
        self.routing.handle(now(), input, out);
    }

    fn on_event(&mut self, event: Event, out: &mut Vec<Effect>) {
        self.show |= !matches!(event, Event::Received { .. });
        let input = match event {
            Event::Opened { peer, link, addresses } => {
                Input::Peer { peer, input: peer::Input::Connected { link, addresses } }
            }
            Event::Unreachable { peer, error } => {
                tracing::warn!(peer = self.name(peer), error, "a Diameter peer cannot be reached");
                self.routing.note(peer, error);
                Input::Peer { peer, input: peer::Input::Unreachable }
            }
            Event::Received { link, octets } => {
                match self.links.get_mut(&link).and_then(|link| link.stranger.take()) {
                    Some((remote, addresses)) => Input::Arrived { link, remote, addresses, octets },
                    None => Input::Received { link, octets },
                }
            }
            Event::Broken { link, error } => {
                tracing::warn!(%error, rule = "SH-007", "a Diameter stream makes no sense");
                self.links.remove(&link);
                Input::Lost { link }
            }
            Event::Lost { link } => {
                self.links.remove(&link);
                Input::Lost { link }
            }
        };
        self.routing.handle(now(), input, out);
    }

    /// SH-006: its first message must be a CER, and must come soon.
    fn on_taken(&mut self, opened: Opened, remote: SocketAddr) {
        let strangers = self.links.values().filter(|link| link.stranger.is_some()).count();
        if strangers >= STRANGERS {
            return;
        }
        let addresses = opened.addresses.clone();
        let first = Some(self.settings.timers.cea_timeout);
        let (link, handle, work) = self.new_link();
        let stranger = Some((remote, addresses));
        self.links.insert(link, Link { handle, stranger });
        let limit = self.settings.max_message;
        tokio::spawn(link::run(link, opened, work, self.events.clone(), limit, first));
    }

    fn new_link(&mut self) -> (LinkId, Handle, link::Work) {
        self.next_link += 1;
        // Room for every open request, every notification's answer and the base protocol.
        let (handle, work) = link::handle(self.settings.max_inflight * 2 + 64);
        (LinkId(self.next_link), handle, work)
    }

    fn name(&self, peer: usize) -> String {
        self.routing.name(peer)
    }

    fn perform(&mut self, out: &mut Vec<Effect>) {
        let mut round = std::mem::take(out);
        for effect in round.drain(..) {
            match effect {
                Effect::Connect { peer, address } => {
                    self.show = true;
                    self.connect(peer, address);
                }
                Effect::Send { link, octets } => {
                    let full = self.links.get(&link).is_some_and(|link| !link.handle.send(octets));
                    if full {
                        tracing::warn!("a Diameter peer takes nothing any more");
                        self.reset(link);
                    }
                }
                // Dropping the handle closes once everything is sent.
                Effect::Close { link } => drop(self.links.remove(&link)),
                Effect::Reset { link } => self.reset(link),
                Effect::Done { ticket, result } => {
                    if let Some(asked) = self.asked.remove(&ticket) {
                        // Whoever asked may have stopped waiting.
                        let _ = asked.send(*result);
                    }
                }
                Effect::Inbound { link, message } => self.hand_over(link, message),
                Effect::Revalidate { .. } => self.inbound.revalidate(),
                Effect::Service { peer, up } => {
                    self.show = true;
                    let peer = self.name(peer);
                    if up {
                        tracing::info!(peer, "a Diameter peer is in service");
                    } else {
                        tracing::warn!(peer, "a Diameter peer is out of service");
                    }
                }
                Effect::Alarm { peer, alarm } => {
                    self.show = true;
                    let what = describe(&alarm);
                    tracing::error!(peer = self.name(peer), what, rule = "SH-010", "no Sh");
                    self.routing.note(peer, what);
                }
                Effect::Loop { peer } => {
                    let peer = self.name(peer);
                    tracing::error!(peer, rule = "SH-030", "Sh requests go in circles");
                }
                Effect::Gone => self.gone = true,
            }
        }
        *out = round;
        if std::mem::take(&mut self.show) {
            let status = self.routing.status();
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = status;
        }
    }

    fn connect(&mut self, peer: usize, address: super::settings::PeerAddress) {
        let (link, handle, work) = self.new_link();
        self.links.insert(link, Link { handle, stranger: None });
        let opening = self.transport.open(address);
        let (events, limit) = (self.events.clone(), self.settings.max_message);
        let patience = self.settings.timers.cea_timeout;
        tokio::spawn(async move {
            let error = match timeout(patience, opening).await {
                Ok(Ok(opened)) => {
                    let addresses = opened.addresses.clone();
                    if events.send(Event::Opened { peer, link, addresses }).await.is_ok() {
                        link::run(link, opened, work, events, limit, None).await;
                    }
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no connection in time".to_owned(),
            };
            // Nobody is left to hear it after a shutdown.
            let _ = events.send(Event::Unreachable { peer, error }).await;
            let _ = events.send(Event::Lost { link }).await;
        });
    }

    fn reset(&mut self, link: LinkId) {
        if let Some(link) = self.links.remove(&link) {
            link.handle.reset();
        }
    }

    /// Hands a notification over, or tells the HSS that there are too many.
    fn hand_over(&mut self, link: LinkId, message: Message) {
        let full = match self.pushes.try_send((link, message)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full((_, message)))
            | Err(mpsc::error::TrySendError::Closed((_, message))) => message,
        };
        let busy = self.routing.identity().protocol_error(&full, result::TOO_BUSY);
        if let Some(entry) = self.links.get(&link)
            && !entry.handle.send(busy.encode())
        {
            self.reset(link);
        }
    }
}

fn describe(alarm: &Alarm) -> String {
    match alarm {
        Alarm::Refused(code) => format!("the peer refuses with {code}"),
        Alarm::NoSh => "the peer has no Sh".to_owned(),
        Alarm::WrongPeer { is } => format!("{is} answers instead"),
        Alarm::Silent => "no answer to the CER".to_owned(),
        Alarm::Nonsense => "the answer to the CER makes no sense".to_owned(),
        Alarm::Unwanted(cause) => format!("the peer parts with cause {cause}"),
    }
}

/// The clock of the runtime, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
