//! What passes through: a transaction of ours on either side, and nothing else of ours.
//!
//! Start at [`Ua::receive_through`] and [`Ua::pass`]. Transactions do here what they do everywhere: 100 to an INVITE, its
//! repetitions absorbed, CANCEL answered, refusals acknowledged. Dialogs, tags, PRACK, ACK of a 2xx, the session timer
//! and every 2xx that comes again belong to the layer above, which sees each message and writes each one whole.
//! Follows RFC 3261 §17, RFC 6026 and RFC 4320.

use std::time::Instant;

use bytes::Bytes;

use super::transactions::{ClientUser, ServerUser};
use super::types::{Event, Reply, RequestKey, SendKey, Through};
use super::{Ua, wire};
use crate::sip::message::{Message, Method};
use crate::sip::transaction::Event as Move;
use crate::sip::{Flow, Target};

impl Ua {
    /// Whether a request belongs to a transaction that lives: a repeated one, or ACK and CANCEL of an INVITE that came.
    pub fn knows(&self, request: &Message) -> bool {
        let Some(method) = request.method() else { return false };
        let known =
            |method: &Method| self.servers.contains_key(&self.server_key_as(request, method));
        match method {
            Method::Ack | Method::Cancel => known(&Method::Invite) || known(&method),
            _ => known(&method),
        }
    }

    /// A request came that the layer above answers whole, within a dialog of its own or none.
    pub fn receive_through(&mut self, now: Instant, message: Message, flow: Flow) {
        self.latest = Some(now);
        let Some(method) = message.method() else { return };
        let key = self.server_key(&message, &method);
        let known = self.servers.get(&key).copied();
        match (&method, known) {
            (Method::Ack, Some(refused))
                if self.server(refused).is_some_and(|s| s.is_refused()) =>
            {
                self.drive_server(now, refused, Move::Ack);
            }
            (Method::Ack, _) => self.event(Event::Through(Through::Ack { message })),
            (_, Some(known)) => {
                self.counts.retransmissions_received += 1;
                self.drive_server(now, known, Move::Request);
            }
            (Method::Cancel, None) => self.receive_cancel(now, message, flow, key),
            (_, None) => self.open_through(now, &method, message, flow, key),
        }
    }

    fn open_through(
        &mut self,
        now: Instant,
        method: &Method,
        message: Message,
        flow: Flow,
        key: u128,
    ) {
        let inside = message.to_tag().is_some();
        let bound = self.settings.max_transactions;
        let bound = if inside { bound + bound / 8 } else { bound };
        if self.transactions.len() >= bound {
            self.refuse_full(&message, flow);
            return;
        }
        let arrival = self.arrival_key(&message);
        let merged = !inside && self.arrivals.contains_key(&arrival);
        let tag = self.fresh_token();
        let user = if merged { ServerUser::Own } else { ServerUser::Through };
        let transaction = self.open_server(now, message.clone(), flow, key, tag, user);
        if merged {
            // RFC 3261 §8.2.2.2.
            self.reply(now, transaction, &Reply::new(482), &[]);
            return;
        }
        if !inside {
            self.mark_arrival(transaction, arrival);
        }
        if *method == Method::Invite {
            self.reply(now, transaction, &Reply::new(100), &[]);
        }
        let request = RequestKey(transaction);
        self.event(Event::Through(Through::Request { request, message, flow }));
    }

    /// Sends a response to a request that passes through, as written. A 2xx to an INVITE may be sent again and again.
    pub fn pass_back(&mut self, now: Instant, request: RequestKey, status: u16, bytes: Bytes) {
        self.latest = Some(now);
        self.reply_with(now, request.0, status, bytes);
    }

    /// Sends a request as `write` writes it for the Via it is given, which must be its first line. `None`: no room.
    pub fn pass(
        &mut self,
        now: Instant,
        next_hop: String,
        write: impl FnOnce(&str) -> Bytes,
    ) -> Option<RequestKey> {
        self.latest = Some(now);
        if self.transactions.len() >= self.settings.max_transactions {
            self.counts.refused_full += 1;
            return None;
        }
        let (branch, via) = self.fresh_via();
        let bytes = write(&via);
        let key = self.open_client(now, bytes, branch, next_hop, ClientUser::Through, None);
        Some(RequestKey(key))
    }

    /// Sends an ACK.
    pub fn pass_once(&mut self, next_hop: String, write: impl FnOnce(&str) -> Bytes) {
        let (_, via) = self.fresh_via();
        let to = Target::NextHop { uri: next_hop, attempt: 0, octets: 0 };
        self.send(SendKey::NONE, to, write(&via), None);
    }

    /// Cancels an INVITE of [`Ua::pass`], with further lines. `false` while it was not answered provisionally
    /// (RFC 3261 §9.1): then it is to be asked again once it was.
    pub fn pass_cancel(&mut self, now: Instant, request: RequestKey, lines: &[u8]) -> bool {
        self.latest = Some(now);
        let Some(invite) = self.client(request.0).filter(|invite| invite.is_proceeding()) else {
            return false;
        };
        let bytes = wire::cancel_with(&invite.request, lines);
        let (branch, way) = (invite.branch(), invite.way());
        self.open_client_at(now, bytes, branch, way, ClientUser::Silent, None);
        true
    }

    /// Waits no longer for an answer to a request of [`Ua::pass`].
    pub fn abandon(&mut self, request: RequestKey) {
        self.drop_client(request.0);
    }
}
