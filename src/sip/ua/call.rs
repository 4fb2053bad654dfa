//! What the user agent keeps of one call: the INVITE under way and the dialogs that grow from it.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::table::Key;
use super::timers::Token;
use super::types::Reply;
use crate::sip::Flow;
use crate::sip::dialog::Dialog;
use crate::sip::dialog::reliable::{Receiver, Sender};
use crate::sip::dialog::session::Agreement;

/// How far a call is.
///
/// ```text
/// Pending ──2xx──► Confirmed ──BYE either way, session expired──► Ended
///    └──3xx-6xx, timeout, cancelled ──────────────────────────► Ended
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Confirmed,
    Ended,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    pub phase: Phase,
    pub side: Side,
    /// The dialogs: one for a callee, one per To-tag for a caller.
    pub dialogs: Vec<Leg>,
    /// Which of them the call goes on in, once that is known.
    pub main: Option<usize>,
    /// Where requests of the peer find this call.
    pub index: u128,
    pub local_tag: String,
    pub contact: String,
    pub in_dialog: Bytes,
    /// Our session description, for refreshes and answers to them.
    pub sdp: Bytes,
    /// What the peer's last description said, as [`super::Ua::media_key`].
    pub peer_media: Option<u128>,
    /// 2xx answers nobody acknowledged yet.
    pub unacknowledged: SmallVec<[Unacknowledged; 1]>,
    /// A BYE that waits for the ACK (RFC 3261 §15).
    pub pending_bye: Option<Bytes>,
    pub session: Option<Session>,
    /// A re-INVITE or UPDATE of the peer that the layer above has not answered.
    pub offer: Option<Key>,
    /// A re-INVITE or UPDATE of ours that the peer has not answered.
    pub refresh: Option<Key>,
    /// The layer above has forgotten the call.
    pub closed: bool,
    /// Transactions that still come back to this call.
    pub holds: usize,
}

/// One dialog of a call.
#[derive(Debug)]
pub struct Leg {
    pub dialog: Dialog,
    pub receiver: Receiver,
    /// The ACKs of the 2xx seen here, by CSeq number, to be sent again with each repeated 2xx.
    pub acks: SmallVec<[(u32, Bytes); 1]>,
    /// Ended by us at once: another phone had answered before, or nobody wants the call any more.
    pub surplus: bool,
}

impl Leg {
    pub fn new(dialog: Dialog) -> Self {
        Self { dialog, receiver: Receiver::default(), acks: SmallVec::new(), surplus: false }
    }
}

/// Who sent the initial INVITE.
#[derive(Debug)]
pub enum Side {
    Caller(Box<Caller>),
    Callee(Box<Callee>),
}

/// Whether our INVITE is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    No,
    /// Wanted, but nothing was heard yet (RFC 3261 §9.1). The Reason header's value.
    Wanted(Option<String>),
    Sent,
}

/// Our INVITE.
#[derive(Debug)]
pub struct Caller {
    pub call_id: String,
    pub request_uri: String,
    /// The From header's value with our tag.
    pub from: Box<[u8]>,
    pub cseq: u32,
    /// The transaction, while it lives.
    pub transaction: Option<Key>,
    /// A provisional response came.
    pub heard: bool,
    pub cancel: Cancel,
    /// When to give up waiting for the answer to a cancelled INVITE.
    pub give_up: Option<Token>,
}

/// The peer's INVITE.
#[derive(Debug)]
pub struct Callee {
    pub flow: Flow,
    pub cseq: u32,
    pub transaction: Key,
    pub requires_100rel: bool,
    pub supports_100rel: bool,
    pub sender: Sender<Provisional>,
    /// The 2xx that waits for a PRACK.
    pub held: Option<Reply>,
    /// What our 2xx will say about the session timer.
    pub agreement: Option<Agreement>,
}

/// A provisional response of ours that is sent reliably.
#[derive(Debug)]
pub struct Provisional {
    pub reply: Reply,
    /// Empty until sent.
    pub bytes: Bytes,
    pub wait: Duration,
    pub again: Option<Token>,
    pub deadline: Option<Token>,
}

impl Provisional {
    pub fn new(reply: Reply) -> Self {
        Self { reply, bytes: Bytes::new(), wait: Duration::ZERO, again: None, deadline: None }
    }

    /// Whether it carries a session description (IM-053).
    pub fn describes(&self) -> bool {
        self.reply.body.is_some()
    }
}

/// A 2xx of ours to an INVITE, repeated until its ACK comes.
#[derive(Debug)]
pub struct Unacknowledged {
    pub cseq: u32,
    pub bytes: Bytes,
    pub flow: Flow,
    pub wait: Duration,
    pub again: Token,
    pub deadline: Token,
    /// Of the INVITE that opened the call.
    pub initial: bool,
}

/// A running session timer.
#[derive(Debug)]
pub struct Session {
    pub interval: u32,
    pub end: Token,
    pub refresh: Option<Token>,
}
