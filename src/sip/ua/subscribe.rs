//! Subscriptions of ours: SUBSCRIBE, its answers, and the NOTIFYs that come back (RFC 6665, the subscriber's side).
//!
//! A subscription is named from its first SUBSCRIBE on. Its dialog is made by whatever comes first, the NOTIFY or the
//! 2xx; of a forked SUBSCRIBE the first branch counts and the others are refused. When to refresh, and what a NOTIFY
//! means, is decided above.

use std::time::Instant;

use bytes::Bytes;

use super::table::Key;
use super::transactions::ClientUser;
use super::types::{Event, OutRequest, Reply};
use super::{Ua, wire};
use crate::sip::Flow;
use crate::sip::dialog::{Dialog, Order};
use crate::sip::message::{Message, Method};

/// One subscription, until [`Ua::forget_subscription`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey(Key);

#[derive(Debug)]
pub(super) struct Subscription {
    /// As it was sent first, Call-ID and tag filled in.
    request: OutRequest,
    /// The From header's value with our tag.
    local: Box<[u8]>,
    /// Where NOTIFYs find it.
    index: u128,
    dialog: Option<Dialog>,
}

impl Ua {
    /// Sends the first SUBSCRIBE; Event, Expires, Contact and Accept stand in its `headers`. `None` where there are as
    /// many subscriptions as calls may be.
    pub fn subscribe(&mut self, now: Instant, mut request: OutRequest) -> Option<SubscriptionKey> {
        self.latest = Some(now);
        if self.subscriptions.len() >= self.settings.max_calls {
            return None;
        }
        if request.call_id.is_empty() {
            request.call_id = self.fresh_call_id();
        }
        let tag = request.from_tag.take().unwrap_or_else(|| self.fresh_token());
        let local = [request.from.as_bytes(), b";tag=", tag.as_bytes()].concat().into_boxed_slice();
        let index = self.dialog_key(request.call_id.as_bytes(), tag.as_bytes());
        let subscription = Subscription { request, local, index, dialog: None };
        let key = self.subscriptions.insert(Box::new(subscription));
        self.subscribed.insert(index, key);
        self.send_subscribe(now, key);
        Some(SubscriptionKey(key))
    }

    /// Sends SUBSCRIBE once more, in the dialog if there is one; `headers` and `body` as in the first.
    pub fn subscribe_again(
        &mut self,
        now: Instant,
        subscription: SubscriptionKey,
        headers: Bytes,
        body: Option<(String, Bytes)>,
    ) {
        self.latest = Some(now);
        let (branch, via) = self.fresh_via();
        let key = subscription.0;
        let Some(state) = self.subscriptions.get_mut(key) else { return };
        state.request.headers = headers;
        state.request.body = body;
        let Some(dialog) = &mut state.dialog else {
            state.request.cseq += 1;
            self.send_subscribe(now, key);
            return;
        };
        let cseq = dialog.next_cseq();
        let mut writer = dialog.request(&Method::Subscribe, cseq, &via);
        writer.lines(&state.request.headers);
        let body = state.request.body.as_ref().map(|(kind, body)| (kind.as_str(), &body[..]));
        let (bytes, next_hop) = (writer.finish(body), dialog.next_hop().to_owned());
        self.open_client(now, bytes, branch, next_hop, ClientUser::Subscribe(key), None);
    }

    fn send_subscribe(&mut self, now: Instant, key: Key) {
        let (branch, via) = self.fresh_via();
        let Some(Subscription { request, local, .. }) =
            self.subscriptions.get(key).map(Box::as_ref)
        else {
            return;
        };
        let bytes = wire::request(request, &request.call_id, local, &via);
        let next_hop = wire::next_hop(&request.next_hop, &request.route, &request.request_uri);
        self.open_client(now, bytes, branch, next_hop, ClientUser::Subscribe(key), None);
    }

    /// Forgets a subscription: its NOTIFYs get 481 from now on.
    pub fn forget_subscription(&mut self, subscription: SubscriptionKey) {
        if let Some(state) = self.subscriptions.remove(subscription.0) {
            self.subscribed.remove(&state.index);
        }
    }

    /// The final answer to a SUBSCRIBE; `message` is `None` where nobody answered.
    pub(super) fn subscribe_response(&mut self, key: Key, status: u16, message: Option<&Message>) {
        let Some(state) = self.subscriptions.get_mut(key) else { return };
        if let Some(response) = message.filter(|_| (200..300).contains(&status)) {
            match &mut state.dialog {
                Some(dialog) if response.to_tag() == Some(dialog.remote_tag()) => {
                    dialog.learn_from(response);
                }
                Some(_) => {}
                None => {
                    let uri = &state.request.request_uri;
                    state.dialog = Some(Dialog::of_response(&state.local, uri, response));
                }
            }
        }
        let subscription = SubscriptionKey(key);
        self.event(Event::Subscribed { subscription, status, message: message.cloned() });
    }

    /// A NOTIFY of one of our subscriptions; `false` if it is of none.
    pub(super) fn receive_notify(
        &mut self,
        now: Instant,
        message: &Message,
        flow: Flow,
        server: u128,
    ) -> bool {
        let Some(tag) = message.to_tag() else { return false };
        let index = self.dialog_key(message.call_id(), tag);
        let Some(key) = self.subscribed.get(&index).copied() else { return false };
        let refusal = self.refusal_of_notify(key, message);
        let subscription = SubscriptionKey(key);
        self.judged(now, (message, flow, server), refusal, |request| Event::Notified {
            subscription,
            request,
            message: message.clone(),
            flow,
        });
        true
    }

    /// Why a NOTIFY is refused before it is looked at. Makes the dialog if there is none (RFC 6665 §4.4.1).
    fn refusal_of_notify(&mut self, key: Key, message: &Message) -> Option<Reply> {
        if let Some(refusal) = self.refusal_of_any(message) {
            return Some(refusal);
        }
        let state = self.subscriptions.get_mut(key)?;
        let remote = message.from_tag().unwrap_or(b"");
        match &mut state.dialog {
            Some(dialog) if dialog.remote_tag() != remote => Some(Reply::new(481)),
            Some(dialog) => match dialog.receive_cseq(message.cseq().number) {
                Order::Old => Some(Reply::new(500)),
                Order::New => {
                    dialog.refresh(message);
                    None
                }
            },
            None => match Dialog::of_notify(message, state.request.cseq) {
                Some(dialog) => {
                    state.dialog = Some(dialog);
                    None
                }
                None => {
                    let reason = Some("Contact missing or unreadable".to_owned());
                    Some(Reply { reason, ..Reply::new(400) })
                }
            },
        }
    }
}
