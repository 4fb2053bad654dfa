//! What both ends of a phone's call share: the dialog, requests in it, and repeating until answered.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::wire::{Way, Wire};
use super::{Complaints, token};
use crate::sip::message::{Message, Method, Name, NameAddr, Writer, reason_phrase};
use crate::sip::uri::Uri;

/// RFC 3261 §17.1.1.1.
pub(super) const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64 × T1.
pub(super) const TIMEOUT: Duration = Duration::from_secs(32);

/// What a phone says it is (RFC 3261 §20.41 and the OMA product token).
pub(super) const PRODUCT: &str = "IM-client/OMA1.0 pagecast-lab";
pub(super) const FEATURE: &str = "+g.oma.sip-im.large-message";
/// What a phone registers that it can.
pub(super) const FEATURES: &str = "+g.oma.sip-im;+g.oma.sip-im.large-message";
pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS";

/// Sends again and again until dropped, or until it is of no use any more.
pub(super) struct Repeat(JoinHandle<()>);

impl Repeat {
    /// Sends once now, then after T1, doubling up to T2.
    pub(super) fn start(wire: &Wire, way: Way, bytes: Bytes) -> Self {
        let wire = wire.clone();
        Self(tokio::spawn(async move {
            let (mut gap, mut spent) = (T1, Duration::ZERO);
            while spent < TIMEOUT {
                wire.send(way, bytes.clone()).await;
                tokio::time::sleep(gap).await;
                spent += gap;
                gap = (gap * 2).min(T2);
            }
        }))
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One dialog, from this end.
pub(super) struct Dialog {
    pub(super) wire: Wire,
    pub(super) complaints: Complaints,
    pub(super) call_id: String,
    /// From of our requests, with its tag.
    pub(super) local: String,
    pub(super) local_tag: String,
    /// To of our requests, with its tag once there is one.
    pub(super) remote: String,
    pub(super) remote_tag: Option<Vec<u8>>,
    pub(super) target: String,
    pub(super) route: Vec<String>,
    pub(super) contact: String,
    pub(super) cseq: u32,
    /// CSeq of the last request of the peer, and what it was answered.
    pub(super) last: Option<(u32, Method, Bytes)>,
    /// Where the first request goes, whatever the route.
    pub(super) core: SocketAddr,
    /// There is no core between the two ends.
    pub(super) unproxied: bool,
}

impl Dialog {
    /// A request in this dialog, with a CSeq and a branch of its own.
    pub(super) fn request(&mut self, method: &Method, more: &[(&str, String)]) -> Bytes {
        self.cseq += 1;
        let cseq = self.cseq;
        self.request_as(method, cseq, more)
    }

    /// The same with a CSeq given: ACK has that of its INVITE.
    pub(super) fn request_as(&self, method: &Method, cseq: u32, more: &[(&str, String)]) -> Bytes {
        let mut out = Writer::request(method, &self.target);
        out.via(&self.wire.address().to_string(), &format!("z9hG4bK{}", token(8)));
        out.header("Max-Forwards", "70");
        for route in &self.route {
            out.header("Route", route);
        }
        out.header("From", &self.local).header("To", &self.remote);
        out.header("Call-ID", &self.call_id);
        out.header("CSeq", format!("{cseq} {}", method.as_str()));
        for (name, value) in more {
            out.header(name, value);
        }
        out.header("User-Agent", PRODUCT);
        out.finish(None)
    }

    /// Where requests in this dialog go.
    pub(super) async fn next_hop(&self) -> Way {
        let first = self.route.first().map(String::as_str);
        Way::Udp(hop(first, &self.target).await.unwrap_or(self.core))
    }

    /// Takes the remote end out of a response to our INVITE.
    pub(super) fn learn(&mut self, response: &Message) {
        if let Some(tag) = response.to_tag() {
            self.remote_tag = Some(tag.to_vec());
            self.remote = String::from_utf8_lossy(response.to().raw).into_owned();
        }
        match response.contact() {
            Some(contact) => contact.uri.clone_into(&mut self.target),
            None => self.complaints.add(format!("phone: no Contact in {response:?}")),
        }
        let mut route = record_route(response);
        route.reverse();
        self.complaints.check(!route.is_empty() || self.unproxied, || {
            format!("phone: {response:?} has lost the core's Record-Route")
        });
        self.route = route;
    }

    /// Whether a request belongs to this dialog and comes in its order; answers it 481 or again if not.
    pub(super) async fn admits(&mut self, request: &Message, way: Way) -> bool {
        let CSeqOf { number, method } = CSeqOf::of(request);
        if let Some((last, of, answer)) = &self.last
            && *last == number
            && *of == method
        {
            if method != Method::Ack {
                self.wire.send(way, answer.clone()).await;
            }
            return false;
        }
        let fits = request.to_tag() == Some(self.local_tag.as_bytes())
            && request.from_tag() == self.remote_tag.as_deref();
        if !fits {
            self.complaints.add(format!("phone: {request:?} with tags of another dialog"));
            self.answer(request, way, 481, &[]).await;
            return false;
        }
        if method != Method::Ack {
            let last = self.last.as_ref().map_or(0, |(last, _, _)| *last);
            self.complaints.check(number > last, || {
                format!("phone: {request:?} with CSeq {number} after {last}")
            });
        }
        self.complaints.check(same_address(request.uri(), &self.contact), || {
            format!("phone: {request:?} is not sent to our Contact")
        });
        self.complaints.check(request.header(Name::Route).is_none(), || {
            format!("phone: {request:?} has a Route left")
        });
        true
    }

    /// Answers a request of this dialog and keeps the answer for when it comes again.
    pub(super) async fn answer(
        &mut self,
        request: &Message,
        way: Way,
        status: u16,
        more: &[(&str, String)],
    ) {
        let CSeqOf { number, method } = CSeqOf::of(request);
        let mut out =
            Writer::response(request, status, reason_phrase(status), Some(&self.local_tag));
        for (name, value) in more {
            out.header(name, value);
        }
        out.header("Server", PRODUCT);
        let bytes = out.finish(None);
        self.wire.send(way, bytes.clone()).await;
        if status >= 200 && method != Method::Cancel {
            self.last = Some((number, method, bytes));
        }
    }

    /// UPDATE or re-INVITE without a change: the session goes on (RFC 4028).
    pub(super) async fn refresh(&mut self, request: &Message, way: Way, sdp: &str) {
        let CSeqOf { number, method } = CSeqOf::of(request);
        let mut out = Writer::response(request, 200, "OK", Some(&self.local_tag));
        out.echo(request, Name::RecordRoute).echo(request, Name::SessionExpires);
        out.header("Contact", format!("<{}>;{FEATURE}", self.contact));
        out.header("Server", PRODUCT);
        let body = (!request.body().is_empty()).then_some(("application/sdp", sdp.as_bytes()));
        let bytes = out.finish(body);
        self.wire.send(way, bytes.clone()).await;
        self.last = Some((number, method, bytes));
    }

    /// Sends BYE and waits for its answer.
    pub(super) async fn bye(&mut self) -> Repeat {
        let bytes = self.request(&Method::Bye, &[]);
        Repeat::start(&self.wire, self.next_hop().await, bytes)
    }
}

/// The address a request goes to: that of its topmost Route, else of its target. Names are asked of the system.
pub(super) async fn hop(route: Option<&str>, target: &str) -> Option<SocketAddr> {
    let route = route.and_then(|route| NameAddr::parse(route.as_bytes())).map(|route| route.uri);
    address_of(route.unwrap_or(target)).await
}

/// The address behind a SIP URI; A and AAAA records only, the first one there is.
pub(super) async fn address_of(uri: &str) -> Option<SocketAddr> {
    let uri = Uri::parse(uri).ok()?;
    let host = uri.host().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port().unwrap_or(5060);
    if let Ok(ip) = host.parse() {
        return Some(SocketAddr::new(ip, port));
    }
    tokio::net::lookup_host((host, port)).await.ok()?.next()
}

/// The CSeq, taken apart.
pub(super) struct CSeqOf {
    pub(super) number: u32,
    pub(super) method: Method,
}

impl CSeqOf {
    pub(super) fn of(message: &Message) -> Self {
        let cseq = message.cseq();
        Self { number: cseq.number, method: cseq.method }
    }
}

/// The Record-Route values, in their order.
pub(super) fn record_route(message: &Message) -> Vec<String> {
    message
        .values(Name::RecordRoute)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

/// Same user, host and port.
fn same_address(one: &str, other: &str) -> bool {
    match (Uri::parse(one), Uri::parse(other)) {
        (Ok(one), Ok(other)) => {
            one.user() == other.user() && one.host() == other.host() && one.port() == other.port()
        }
        _ => false,
    }
}
