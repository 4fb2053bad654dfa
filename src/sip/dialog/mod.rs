//! A dialog of RFC 3261 §12 as plain data: who, which way, which number comes next.
//!
//! [`Dialog`] is made from the messages that create it and then writes the head of each request inside it. Beside it
//! stand [`reliable`] (RFC 3262, both sides) and [`session`] (RFC 4028), which are as pure. Nothing here sends, waits
//! or knows a transaction; `sip::ua` does.

pub mod reliable;
pub mod session;
#[cfg(test)]
mod tests;

use crate::sip::message::{Message, Method, Name, NameAddr, Writer};

/// How an arriving CSeq number stands to what came before (RFC 3261 §12.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Above all before it. Gaps are fine: a request of the peer may have been refused on its way.
    New,
    /// Not above what was seen: 500.
    Old,
}

/// One early or confirmed dialog, seen from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    call_id: Box<[u8]>,
    remote_tag: Box<[u8]>,
    /// Our From header's value with its tag, and the peer's To.
    local: Box<[u8]>,
    remote: Box<[u8]>,
    target: String,
    routes: Vec<Box<[u8]>>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    peer_updates: bool,
}

impl Dialog {
    /// The dialog a response to our INVITE creates (RFC 3261 §12.1.2): the route set is its Record-Route reversed, the
    /// remote target its Contact. `request_uri` stands in where a provisional response has no Contact.
    /// A 2xx without a To-tag (a peer of RFC 2543) makes a dialog with an empty one.
    ///
    /// IM-011, IM-013, IM-014.
    pub fn of_response(local: &[u8], request_uri: &str, response: &Message) -> Self {
        let mut dialog = Self {
            call_id: response.call_id().into(),
            remote_tag: response.to_tag().unwrap_or(b"").into(),
            local: local.into(),
            remote: response.header(Name::To).unwrap_or(b"").into(),
            target: request_uri.to_owned(),
            routes: Vec::new(),
            local_cseq: response.cseq().number,
            remote_cseq: None,
            peer_updates: false,
        };
        dialog.learn_from(response);
        dialog
    }

    /// Takes over what a later response of the same dialog says: Contact, Record-Route, Allow. The route set of a
    /// confirmed dialog is final; that of an early one is computed anew from each response (RFC 3261 §13.2.2.4).
    ///
    /// IM-013, IM-014, IM-015, IM-016: each replaces what was known; an absent Allow or Contact changes nothing.
    pub fn learn_from(&mut self, response: &Message) {
        let mut routes: Vec<Box<[u8]>> =
            response.values(Name::RecordRoute).map(Box::from).collect();
        routes.reverse();
        // A reliable network of proxies repeats Record-Route in each response; one that strips it later must not cut
        // the way that an earlier response has shown.
        if !routes.is_empty() || self.routes.is_empty() {
            self.routes = routes;
        }
        self.refresh(response);
    }

    /// The dialog an INVITE to us creates (RFC 3261 §12.1.1): Record-Route in its order, the Contact as remote target.
    /// `local_tag` is the tag of our answers. `None` if the INVITE has no Contact to send requests to.
    pub fn of_request(request: &Message, local_tag: &str) -> Option<Self> {
        let mut local = request.header(Name::To)?.to_vec();
        local.extend_from_slice(b";tag=");
        local.extend_from_slice(local_tag.as_bytes());
        let mut dialog = Self {
            call_id: request.call_id().into(),
            // A peer of RFC 2543 has no tag (RFC 3261 §12.1.1).
            remote_tag: request.from_tag().unwrap_or(b"").into(),
            local: local.into(),
            remote: request.header(Name::From)?.into(),
            target: request.contact()?.uri.to_owned(),
            routes: request.values(Name::RecordRoute).map(Box::from).collect(),
            local_cseq: 0,
            remote_cseq: Some(request.cseq().number),
            peer_updates: false,
        };
        dialog.refresh(request);
        Some(dialog)
    }

    /// The dialog a NOTIFY creates when it comes before the 2xx to our SUBSCRIBE (RFC 6665 §4.4.1): Record-Route in its
    /// order, the Contact as remote target. `None` if it has none.
    pub fn of_notify(notify: &Message, local_cseq: u32) -> Option<Self> {
        let mut dialog = Self {
            call_id: notify.call_id().into(),
            remote_tag: notify.from_tag().unwrap_or(b"").into(),
            local: notify.header(Name::To)?.into(),
            remote: notify.header(Name::From)?.into(),
            target: notify.contact()?.uri.to_owned(),
            routes: notify.values(Name::RecordRoute).map(Box::from).collect(),
            local_cseq,
            remote_cseq: Some(notify.cseq().number),
            peer_updates: false,
        };
        dialog.refresh(notify);
        Some(dialog)
    }

    /// Takes over Contact and Allow of a request or a 2xx that refreshes the target (RFC 3261 §12.2).
    pub fn refresh(&mut self, message: &Message) {
        if let Some(contact) = message.contact() {
            self.target = contact.uri.to_owned();
        }
        if message.header(Name::Allow).is_some() {
            self.peer_updates = message.has_token(Name::Allow, "UPDATE");
        }
    }

    /// The peer's tag.
    pub fn remote_tag(&self) -> &[u8] {
        &self.remote_tag
    }

    /// The Request-URI of the next request.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether the peer's Allow names UPDATE (IM-013, IM-015).
    pub fn peer_updates(&self) -> bool {
        self.peer_updates
    }

    /// UPDATE was refused though it was announced.
    pub fn forget_updates(&mut self) {
        self.peer_updates = false;
    }

    /// The number of our last request.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// The number of our next request.
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// Judges the number of an arriving request and remembers it.
    pub fn receive_cseq(&mut self, number: u32) -> Order {
        if self.remote_cseq.is_some_and(|seen| number <= seen) {
            return Order::Old;
        }
        self.remote_cseq = Some(number);
        Order::New
    }

    /// The URI whose host the next request goes to: the topmost route, else the remote target.
    pub fn next_hop(&self) -> &str {
        let top = self.routes.first().and_then(|route| NameAddr::parse(route));
        top.map_or(&self.target, |route| route.uri)
    }

    /// The head of a request in this dialog: Via, Route, Max-Forwards, From, To, Call-ID, CSeq.
    ///
    /// ISC-014 (RFC 3261 §12.2.1.1): remote target and route set, and nothing that belongs to initial requests.
    pub fn request(&self, method: &Method, cseq: u32, via: &str) -> Writer {
        let mut writer = Writer::request(method, &self.target);
        writer.header("Via", via);
        for route in &self.routes {
            writer.header("Route", route);
        }
        writer
            .header("Max-Forwards", "70")
            .header("From", &self.local)
            .header("To", &self.remote)
            .header("Call-ID", &self.call_id)
            .header("CSeq", format!("{cseq} {}", method.as_str()));
        writer
    }
}
