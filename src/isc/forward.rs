//! Requests that are somebody else's: on their way through us without a trace, once for each time the core asks.
//!
//! Start at [`Forward::request`] and [`Forward::response`]. No transaction, no dialog, no Record-Route; the received
//! Route minus our own entry says where a request goes (ISC-005), the Via below ours where its answers go. Legs of our
//! own fan-outs that come back through the core are among them (IM-037). Follows RFC 3261 §16.11.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

use super::rules::route::Arrived;
use super::rules::syntax::Address;
use crate::sip::message::{Elements, Message, Name, Via};
use crate::sip::ua::{Output, SendKey};
use crate::sip::{Flow, Protocol, Target};

/// How many ways back are remembered; the oldest go first, and a lost one is found by its Via.
const MAX_WAYS: usize = 16_384;

/// How many requests are kept until it is sure that they left; the oldest go first and are then only lost.
const MAX_LEAVING: usize = 2048;

/// How many octets they may have: over a stream large ones are kept, too.
const MAX_LEAVING_OCTETS: usize = 32 << 20;

/// What follows the thread's digits in branches of forwarded requests.
const MARK: &str = "-fw-";

/// How one request came, and where it went.
#[derive(Debug)]
struct Way {
    flow: Flow,
    arrived: Arrived,
}

/// A forwarded request on its way to the transport.
#[derive(Debug)]
struct Leaving {
    asked: Message,
    flow: Flow,
    to: (String, u16),
    bytes: Bytes,
    via_at: usize,
}

impl Leaving {
    fn octets(&self) -> usize {
        self.asked.bytes().len() + self.bytes.len()
    }
}

/// Forwards without state but a bounded memory of the ways requests came.
#[derive(Debug)]
pub struct Forward {
    sent_by: String,
    thread: u8,
    ways: HashMap<u64, Way>,
    order: VecDeque<u64>,
    leaving: BTreeMap<u64, Leaving>,
    /// Of all in `leaving`.
    octets: usize,
    next: u64,
}

impl Forward {
    /// `sent_by` is `host:port` of our Via.
    pub fn new(sent_by: &str, thread: u8) -> Self {
        Self {
            sent_by: sent_by.to_owned(),
            thread,
            ways: HashMap::new(),
            order: VecDeque::new(),
            leaving: BTreeMap::new(),
            octets: 0,
            next: 0,
        }
    }

    /// The request as it goes on: our Via on top, our Route entry gone, one hop less.
    ///
    /// ISC-002, ISC-003, ISC-005, ISC-015, ISC-052: everything else as it came. `None` where the Route ends here.
    pub fn request(&mut self, message: &Message, flow: Flow, arrived: &Arrived) -> Option<Output> {
        let next = Address::parse(arrived.rest.first()?)?.uri.to_owned();
        let method = message.method()?;
        let hops =
            message.text(Name::MaxForwards).map_or(Some(70), |text| text.trim().parse().ok());
        let hops: u32 = hops.filter(|hops| *hops > 0)?;
        let id = self.remember(message, flow, arrived);
        let mut out = BytesMut::with_capacity(message.bytes().len() + 128);
        line(&mut out, &[method.as_str().as_bytes(), b" ", message.uri().as_bytes(), b" SIP/2.0"]);
        let via_at = out.len() + "Via: SIP/2.0/".len();
        let thread = self.thread;
        let branch = format!("z9hG4bK{thread:02x}{MARK}{id:016x}");
        let ours = format!("Via: SIP/2.0/UDP {};branch={branch};rport", self.sent_by);
        line(&mut out, &[ours.as_bytes()]);
        line(&mut out, &[b"Route: ", arrived.rest.join(", ").as_bytes()]);
        let mut via_done = false;
        for (name, value) in message.all_headers() {
            if is(name, "Via", b'v') && !via_done {
                via_done = true;
                line(&mut out, &[b"Via: ", &marked(value, flow)]);
            } else if is(name, "Max-Forwards", 0) {
                line(&mut out, &[name, b": ", (hops - 1).to_string().as_bytes()]);
            } else if !is(name, "Route", 0) {
                line(&mut out, &[name, b": ", value]);
            }
        }
        if message.header(Name::MaxForwards).is_none() {
            line(&mut out, &[b"Max-Forwards: ", hops.to_string().as_bytes()]);
        }
        out.put_slice(b"\r\n");
        out.put_slice(message.body());
        let leaving =
            Leaving { asked: message.clone(), flow, to: (next, 0), bytes: out.freeze(), via_at };
        Some(self.leave(leaving))
    }

    fn leave(&mut self, leaving: Leaving) -> Output {
        let number = self.next;
        self.next += 1;
        let ((uri, attempt), bytes) = (leaving.to.clone(), leaving.bytes.clone());
        let via_at = Some(leaving.via_at);
        self.octets += leaving.octets();
        self.leaving.insert(number, leaving);
        while self.leaving.len() > MAX_LEAVING || self.octets > MAX_LEAVING_OCTETS {
            let Some((_, oldest)) = self.leaving.pop_first() else { break };
            self.octets -= oldest.octets();
        }
        let to = Target::NextHop { uri, attempt, octets: 0 };
        Output::Send { key: SendKey::outside(number), to, bytes, via_at, call: None }
    }

    /// The transport has it; a datagram cannot fail any more.
    pub fn sent(&mut self, number: u64, protocol: Protocol) {
        if !protocol.is_reliable() {
            self.left(number);
        }
    }

    fn left(&mut self, number: u64) -> Option<Leaving> {
        let leaving = self.leaving.remove(&number)?;
        self.octets -= leaving.octets();
        Some(leaving)
    }

    /// The transport could not send it: it goes to the next alternate (RFC 3263 §4.3), or somebody has to tell who
    /// asked.
    pub fn send_failed(&mut self, number: u64, more: bool) -> Option<Unsent> {
        let mut leaving = self.left(number)?;
        if more {
            leaving.to.1 = leaving.to.1.saturating_add(1);
            return Some(Unsent::Again(self.leave(leaving)));
        }
        Some(Unsent::Lost(leaving.asked, leaving.flow))
    }

    /// Whether this very request was forwarded before.
    pub fn knows(&self, message: &Message) -> bool {
        self.ways.contains_key(&id(message))
    }

    /// The response to a forwarded request on its way back; `None` where it is none, or nobody waits for it. Who is not
    /// `believed` answers only what is remembered: its Via would send anything anywhere.
    pub fn response(&self, message: &Message, flow: Flow, believed: bool) -> Option<Output> {
        let id = self.id_of(message.via().branch?)?;
        if !believed && !self.ways.contains_key(&id) {
            return None;
        }
        let status = message.status()?;
        let mut out = BytesMut::with_capacity(message.bytes().len());
        let status = status.to_string();
        line(&mut out, &[b"SIP/2.0 ", status.as_bytes(), b" ", message.reason().as_bytes()]);
        let (mut first, mut below) = (true, None);
        for (name, value) in message.all_headers() {
            if !is(name, "Via", b'v') {
                line(&mut out, &[name, b": ", value]);
                continue;
            }
            let mut elements: Vec<&[u8]> = Elements::new(value).collect();
            if std::mem::take(&mut first) && !elements.is_empty() {
                elements.remove(0);
            }
            for element in elements {
                below = below.or_else(|| Via::parse(element));
                line(&mut out, &[b"Via: ", element]);
            }
        }
        out.put_slice(b"\r\n");
        out.put_slice(message.body());
        let below = below?;
        let to = match self.ways.get(&id) {
            Some(way) => Target::Flow(way.flow),
            None => way_back(&below, flow)?,
        };
        Some(send(to, out.freeze(), None))
    }

    /// The Route of the request that this CANCEL or ACK belongs to.
    pub fn route_of(&self, message: &Message) -> Option<Arrived> {
        self.ways.get(&id(message)).map(|way| way.arrived.clone())
    }

    fn remember(&mut self, message: &Message, flow: Flow, arrived: &Arrived) -> u64 {
        let id = id(message);
        if self.ways.insert(id, Way { flow, arrived: arrived.clone() }).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MAX_WAYS {
            if let Some(oldest) = self.order.pop_front() {
                self.ways.remove(&oldest);
            }
        }
        id
    }

    fn id_of(&self, branch: &str) -> Option<u64> {
        let rest = branch.strip_prefix("z9hG4bK")?;
        let (thread, rest) = rest.split_at_checked(2)?;
        u8::from_str_radix(thread, 16).ok()?;
        let digits = rest.strip_prefix(MARK).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    }
}

/// What becomes of a request that did not leave.
#[derive(Debug)]
pub enum Unsent {
    Again(Output),
    /// Nothing takes it.
    Lost(Message, Flow),
}

/// A number that retransmissions, CANCEL and ACK of one request share and other requests do not: the sender's branch is
/// unique (RFC 3261 §8.1.1.7), also when the same request comes by again.
pub(super) fn id(message: &Message) -> u64 {
    let via = message.via();
    let mut hasher = DefaultHasher::new();
    (via.branch, via.host, via.port, message.uri(), message.call_id()).hash(&mut hasher);
    hasher.finish()
}

fn send(to: Target, bytes: Bytes, via_at: Option<usize>) -> Output {
    Output::Send { key: SendKey::NONE, to, bytes, via_at, call: None }
}

fn line(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.put_slice(part));
    out.put_slice(b"\r\n");
}

fn is(name: &[u8], long: &str, compact: u8) -> bool {
    name.eq_ignore_ascii_case(long.as_bytes())
        || matches!(name, [letter] if letter.to_ascii_lowercase() == compact)
}

/// RFC 3261 §18.2.1, RFC 3581 §4: the sender's Via says where the request came from.
fn marked(value: &[u8], flow: Flow) -> Vec<u8> {
    let mut elements = Elements::new(value);
    let first = elements.next().unwrap_or(value);
    let mut out = first.to_vec();
    if let Some(via) = Via::parse(first) {
        if via.received.is_none() {
            out.extend_from_slice(format!(";received={}", flow.peer.ip()).as_bytes());
        }
        if via.rport == Some(None) {
            let lower = out.to_ascii_lowercase();
            if let Some(at) = memchr::memmem::find(&lower, b";rport") {
                let end = at + b";rport".len();
                out.splice(end..end, format!("={}", flow.peer.port()).bytes());
            }
        }
    }
    for element in elements {
        out.extend_from_slice(b", ");
        out.extend_from_slice(element);
    }
    out
}

/// RFC 3261 §18.2.2 where the way a request came is forgotten: by the Via of who sent it.
fn way_back(via: &Via<'_>, flow: Flow) -> Option<Target> {
    let host = via.received.unwrap_or(via.host);
    let port = via.rport.flatten().or(via.port).unwrap_or(5060);
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let protocol = match via.transport.to_ascii_uppercase().as_str() {
        "UDP" => Protocol::Udp,
        "TCP" => Protocol::Tcp,
        "TLS" => Protocol::Tls,
        _ => return None,
    };
    if protocol == Protocol::Udp && flow.protocol == Protocol::Udp {
        let peer = format!("{host}:{port}").parse().ok()?;
        return Some(Target::Flow(Flow { peer, connection: 0, vouched: false, ..flow }));
    }
    let transport = via.transport.to_ascii_lowercase();
    Some(Target::NextHop {
        uri: format!("sip:{host}:{port};transport={transport}"),
        attempt: 0,
        octets: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Limits;

    #[test]
    fn what_waits_for_a_stream_has_a_bound_in_octets() {
        let peer = "192.0.2.40:5060".parse().expect("an address");
        let flow =
            Flow { protocol: Protocol::Tcp, local: peer, peer, connection: 1, vouched: false };
        let arrived = Arrived { rest: vec!["<sip:scscf.h;lr>".to_owned()], ..Arrived::default() };
        let mut forward = Forward::new("as.h:5060", 0);
        let body = "x".repeat(1 << 20);
        for n in 0..64 {
            let text = format!(
                "MESSAGE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{n}\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:b@h>\r\nCall-ID: {n}\r\nCSeq: 1 MESSAGE\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let limits = Limits { max_message: usize::MAX, ..Limits::default() };
            let message = Message::parse(text.into(), &limits).expect("a request");
            forward.request(&message, flow, &arrived).expect("it goes on");
            forward.sent(n, Protocol::Tcp);
        }
        let held: usize = forward.leaving.values().map(Leaving::octets).sum();
        assert_eq!(held, forward.octets);
        assert!((1..=MAX_LEAVING_OCTETS).contains(&held), "{held}");
        assert!(forward.send_failed(0, true).is_none(), "the oldest is given up");
        assert!(forward.send_failed(63, false).is_some());
        let numbers: Vec<u64> = forward.leaving.keys().copied().collect();
        for number in numbers {
            forward.sent(number, Protocol::Udp);
        }
        assert_eq!((forward.octets, forward.leaving.len()), (0, 0));
    }
}
