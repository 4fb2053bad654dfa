//! What goes into the user agent and what comes out of it, as plain data.

use bytes::Bytes;

use super::notifier::WatcherKey;
use super::subscribe::SubscriptionKey;
use super::table::Key;
pub use crate::sip::dialog::session::{Refresher, SessionTimer};
use crate::sip::message::{Message, Method};
use crate::sip::transaction::Timers;
use crate::sip::{Flow, Target};

/// Where the random bits come from: an input like the time, so that a seed replays a whole run.
pub trait RandomSource {
    /// The next 64 bits.
    fn next_u64(&mut self) -> u64;
}

impl<F: FnMut() -> u64> RandomSource for F {
    fn next_u64(&mut self) -> u64 {
        self()
    }
}

/// Everything the operator chooses about the user agent.
#[derive(Debug, Clone)]
pub struct Settings {
    pub timers: Timers,
    /// `host:port` of our Via headers: where responses shall come back to (ISC-016).
    pub sent_by: String,
    /// The thread this user agent runs on. Its two hex digits stand in our branches, tags and Call-IDs.
    pub thread: u8,
    /// The value of the Server header, on every response.
    pub server: String,
    /// The Allow header of responses the user agent makes itself.
    pub allow: String,
    /// Most transactions at once, both directions. In-dialog requests may use an eighth more.
    pub max_transactions: usize,
    /// Most calls at once.
    pub max_calls: usize,
    /// Most provisional responses that may wait behind one that is not acknowledged.
    pub max_queued_provisionals: usize,
    /// Most early and confirmed dialogs one of our INVITEs may grow by forking.
    pub max_forks: usize,
    /// Retry-After of a 503 for a full table, seconds.
    pub retry_after: u32,
    pub session: SessionTimer,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            sent_by: "localhost:5060".to_owned(),
            thread: 0,
            server: "pagecast".to_owned(),
            allow: "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS".to_owned(),
            max_transactions: 200_000,
            max_calls: 50_000,
            max_queued_provisionals: 16,
            max_forks: 16,
            retry_after: 5,
            session: SessionTimer::default(),
        }
    }
}

/// One INVITE usage: the INVITE, everything early and confirmed that grows from it, until [`super::Ua::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(pub(super) Key);

/// One request other than an initial INVITE: one of ours, or one that waits for our answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(pub(super) Key);

/// Names one message given to the transport, for [`super::Ua::sent`] and [`super::Ua::send_failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendKey(pub(super) Whose);

/// Who waits for the fate of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Nobody,
    Transaction(Key),
    Outside(u64),
}

impl SendKey {
    /// The key of a message whose fate nobody waits for.
    pub const NONE: Self = Self(Whose::Nobody);

    /// The key of a message that is not the user agent's: it knows nothing of it.
    pub fn outside(number: u64) -> Self {
        Self(Whose::Outside(number))
    }

    /// The number given to [`SendKey::outside`].
    pub fn number(self) -> Option<u64> {
        match self.0 {
            Whose::Outside(number) => Some(number),
            Whose::Nobody | Whose::Transaction(_) => None,
        }
    }
}

/// The To-tag of a response to our INVITE: which phone of a forked INVITE speaks. Empty when the peer sent none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fork(pub Box<[u8]>);

/// An INVITE to send. `..Invite::default()` fills what is not needed.
#[derive(Debug, Clone, Default)]
pub struct Invite {
    pub call_id: String,
    pub request_uri: String,
    /// The URI whose host the INVITE goes to: the topmost Route, else the Request-URI. Empty: exactly that.
    pub next_hop: String,
    /// The To header's value, without a tag.
    pub to: String,
    /// The From header's value, without a tag.
    pub from: String,
    pub max_forwards: u8,
    /// The Route headers' values, topmost first.
    pub route: Vec<String>,
    /// The Contact header's value.
    pub contact: String,
    /// All other lines, each ended by CRLF. Without Session-Expires and Min-SE: see `session_expires`.
    pub headers: Bytes,
    /// Lines added to PRACK, UPDATE, BYE and re-INVITE of this call, never to ACK and CANCEL.
    pub in_dialog: Bytes,
    /// Content type and body.
    pub body: Option<(String, Bytes)>,
    /// The session interval to ask for, seconds: the user agent writes Session-Expires and Min-SE itself (IM-045).
    pub session_expires: Option<u32>,
    /// Who shall refresh; `None` leaves the choice to the peer.
    pub refresher: Option<Refresher>,
    /// Our SDP alone, for refreshing re-INVITEs and for answers to re-INVITEs that change nothing.
    pub offer: Bytes,
}

/// A request outside of a dialog. `..OutRequest::new(method)` fills what is not needed.
#[derive(Debug, Clone)]
pub struct OutRequest {
    pub method: Method,
    /// Empty: one is made.
    pub call_id: String,
    pub cseq: u32,
    pub request_uri: String,
    /// As in [`Invite`].
    pub next_hop: String,
    pub to: String,
    /// The From header's value, without a tag.
    pub from: String,
    /// Where the From-tag has to be a certain one.
    pub from_tag: Option<String>,
    pub max_forwards: u8,
    pub route: Vec<String>,
    pub headers: Bytes,
    pub body: Option<(String, Bytes)>,
}

impl OutRequest {
    /// A request with nothing but its method, CSeq 1 and Max-Forwards 70.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            call_id: String::new(),
            cseq: 1,
            request_uri: String::new(),
            next_hop: String::new(),
            to: String::new(),
            from: String::new(),
            from_tag: None,
            max_forwards: 70,
            route: Vec::new(),
            headers: Bytes::new(),
            body: None,
        }
    }
}

/// An answer. The user agent adds Via, From, To with tag, Call-ID, CSeq, Record-Route, Server, and what 100rel and the
/// session timer ask for (RSeq, Require, Session-Expires).
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    /// `None`: the usual phrase.
    pub reason: Option<String>,
    /// Further lines, each ended by CRLF.
    pub headers: Bytes,
    /// Content type and body.
    pub body: Option<(String, Bytes)>,
    /// A provisional answer that shall be acknowledged, if the peer can (RFC 3262).
    pub reliable: bool,
    /// The Contact header's value; kept for the later messages of the call.
    pub contact: Option<String>,
    /// Lines for our later PRACK, UPDATE, BYE and re-INVITE of this call; kept like `contact`.
    pub in_dialog: Option<Bytes>,
}

impl Reply {
    /// An answer of nothing but a status.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

/// What the shell has to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Give these bytes to the transport.
    Send {
        key: SendKey,
        to: Target,
        bytes: Bytes,
        /// Where the three letters of the Via's protocol stand; `None` in responses.
        via_at: Option<usize>,
        /// The call they belong to, for call flows.
        call: Option<CallKey>,
    },
    /// Tell the layer above.
    Event(Event),
}

/// Why a call or request has no good end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The peer said so.
    Response,
    /// Nobody answered in time.
    Timeout,
    /// Nothing could be sent: no next hop left, or our own tables are full.
    Transport,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new INVITE. Its 100 has left.
    Invited { call: CallKey, message: Message, flow: Flow },
    /// Another request outside of a dialog: answer by [`super::Ua::respond`].
    Requested { request: RequestKey, message: Message, flow: Flow },
    /// A provisional response above 100 to our INVITE, each reliable one once and in order. Its PRACK has left.
    Provisional { call: CallKey, fork: Fork, message: Message, first_of_fork: bool },
    /// The first 2xx to our INVITE. Its ACK has left.
    Answered { call: CallKey, fork: Fork, message: Message },
    /// Our INVITE found its end without a 2xx. `status` is 408 after a timeout, 503 after a transport failure, and 487
    /// without a message when a 2xx crossed our CANCEL (it was acknowledged and ended by BYE already).
    Rejected { call: CallKey, status: u16, message: Option<Message>, cause: Failure },
    /// The final answer to one of our requests; 408 without a message after a timeout, 503 after a transport failure.
    Response { request: RequestKey, status: u16, message: Option<Message> },
    /// The peer cancelled its INVITE; 200 and 487 have left.
    Cancelled { call: CallKey },
    /// Our 2xx to the initial INVITE was acknowledged.
    Acked { call: CallKey },
    /// Nobody acknowledged a 2xx of ours for 64×T1 (IM-066): time for a BYE.
    AckMissing { call: CallKey },
    /// Nobody acknowledged a reliable 1xx of ours for 64×T1 (IM-053); 500 has left.
    PrackMissing { call: CallKey },
    /// The peer ended the call; 200 has left.
    Bye { call: CallKey, message: Message },
    /// The session timer ran out, or a refresh of ours found the peer gone; a BYE has left.
    SessionExpired { call: CallKey },
    /// A re-INVITE or UPDATE that changes the media: answer by [`super::Ua::in_dialog_answer`].
    Offer { call: CallKey, request: RequestKey, message: Message },
    /// Another request in the dialog: answer by [`super::Ua::in_dialog_answer`].
    InDialog { call: CallKey, request: RequestKey, message: Message },
    /// The final answer to one of our SUBSCRIBEs, as in `Response`.
    Subscribed { subscription: SubscriptionKey, status: u16, message: Option<Message> },
    /// A NOTIFY of one of our subscriptions: answer by [`super::Ua::respond`].
    Notified { subscription: SubscriptionKey, request: RequestKey, message: Message, flow: Flow },
    /// A watcher is owed a NOTIFY: give its body by [`super::Ua::notify`], soon; changes meanwhile are told by the next one.
    /// `whole` because it was asked for, else about what changed since the last one, which was taken unless `lost`.
    NotifyDue { watcher: WatcherKey, whole: bool, lost: bool },
    /// A SUBSCRIBE of a watcher: answer by [`super::Ua::renew_watcher`], or refuse by [`super::Ua::respond`], which
    /// leaves the subscription as it was.
    Resubscribed { watcher: WatcherKey, request: RequestKey, message: Message, flow: Flow },
    /// A subscription of the peer is over; `status` is the answer to its last NOTIFY, 408 after a timeout.
    WatcherGone { watcher: WatcherKey, status: u16 },
    /// A response nobody asked for.
    Stray { message: Message },
    /// Something of [`super::Ua::receive_through`] and [`super::Ua::pass`].
    Through(Through),
}

impl Event {
    /// The call it is about.
    pub fn call(&self) -> Option<CallKey> {
        match self {
            Self::Invited { call, .. }
            | Self::Provisional { call, .. }
            | Self::Answered { call, .. }
            | Self::Rejected { call, .. }
            | Self::Cancelled { call }
            | Self::Acked { call }
            | Self::AckMissing { call }
            | Self::PrackMissing { call }
            | Self::Bye { call, .. }
            | Self::SessionExpired { call }
            | Self::Offer { call, .. }
            | Self::InDialog { call, .. } => Some(*call),
            Self::Requested { .. }
            | Self::Response { .. }
            | Self::Subscribed { .. }
            | Self::Notified { .. }
            | Self::NotifyDue { .. }
            | Self::Resubscribed { .. }
            | Self::WatcherGone { .. }
            | Self::Stray { .. }
            | Self::Through(_) => None,
        }
    }
}

/// What happened to what passes through: transactions are the user agent's, dialogs are not.
#[derive(Debug, Clone)]
pub enum Through {
    /// A request. Its 100 has left if it is an INVITE. Answer by [`super::Ua::pass_back`] or [`super::Ua::respond`].
    Request { request: RequestKey, message: Message, flow: Flow },
    /// An ACK that acknowledges no refusal.
    Ack { message: Message },
    /// The CANCEL of this INVITE; its 200 has left.
    Cancel { request: RequestKey, message: Message },
    /// Any response to one of ours, 100 and repeated 2xx included.
    Response { request: RequestKey, message: Message },
    /// No answer to one of ours will come.
    Failed { request: RequestKey, cause: Failure },
    /// Nothing more comes of one of ours; it was answered, failed, or was abandoned.
    Over { request: RequestKey },
}

/// What the user agent holds and has done, for metrics and leak tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions that live now.
    pub client_transactions: usize,
    pub server_transactions: usize,
    /// Calls that live now.
    pub calls: usize,
    /// Subscriptions of ours that live now, and of peers.
    pub subscriptions: usize,
    pub watchers: usize,
    /// Timers that run now.
    pub timers: usize,
    /// Bytes of messages kept by live server transactions.
    pub kept_bytes: usize,
    /// Since the start: messages sent again, and messages received again.
    pub retransmissions_sent: u64,
    pub retransmissions_received: u64,
    /// Since the start: requests refused because a table was full.
    pub refused_full: u64,
    /// Since the start: bytes that were no message, responses and ACKs nobody waited for.
    pub malformed: u64,
    pub stray: u64,
    /// Since the start: sends the transport gave up.
    pub send_failures: u64,
}
