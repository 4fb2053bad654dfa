//! The user agent against a peer whose messages stand here, in virtual time.
//!
//! [`Bench`] is the user agent with everything it sent and said so far; [`Ask`] writes a request of the peer, and
//! [`answer`] a response to one of ours.

mod callee;
mod caller;
mod chaos;
mod inside;
mod notifier;
mod pair;
mod refresh;
mod subscribe;
mod transport;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::sip::message::{Limits, Writer, reason_phrase};

/// Some moment to count from.
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
pub fn epoch() -> Instant {
    Instant::now()
}

pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.9:2855/peer;tcp\r\n";
pub const OUR_SDP: &str = "v=0\r\no=- 7 7 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=message 2856 TCP/MSRP *\r\na=path:msrp://192.0.2.1:2856/ours;tcp\r\n";

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn parse(bytes: Bytes) -> Message {
    Message::parse(bytes, &Limits::default()).expect("a message the codec takes")
}

pub fn flow(protocol: Protocol) -> Flow {
    Flow {
        protocol,
        local: "192.0.2.1:5060".parse().expect("an address"),
        peer: "192.0.2.9:5060".parse().expect("an address"),
        connection: 0,
        vouched: false,
    }
}

/// One message that left.
#[derive(Debug, Clone)]
pub struct Sent {
    pub at: Duration,
    pub key: SendKey,
    pub to: Target,
    pub via_at: Option<usize>,
    pub message: Message,
    pub call: Option<CallKey>,
}

impl Sent {
    /// `0.500 INVITE`, `0.500 183 INVITE`.
    fn line(&self) -> String {
        let (secs, millis) = (self.at.as_secs(), self.at.subsec_millis());
        let cseq = self.message.cseq();
        match self.message.status() {
            Some(status) => format!("{secs}.{millis:03} {status} {}", cseq.method.as_str()),
            None => format!("{secs}.{millis:03} {}", cseq.method.as_str()),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.message.bytes()).into_owned()
    }

    /// The values of a header, one a line.
    pub fn all(&self, name: Name) -> Vec<String> {
        self.message.lines(name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    pub fn one(&self, name: Name) -> String {
        self.all(name).join(" | ")
    }

    /// How large it counts at least for the choice between UDP and TCP.
    pub fn counts_as(&self) -> usize {
        match self.to {
            Target::NextHop { octets, .. } => octets,
            Target::Flow(_) => 0,
        }
    }

    pub fn next_hop(&self) -> String {
        match &self.to {
            Target::NextHop { uri, attempt, .. } => format!("{uri} #{attempt}"),
            Target::Flow(_) => "the flow".to_owned(),
        }
    }
}

/// The user agent and what came out of it.
pub struct Bench {
    pub ua: Ua,
    start: Instant,
    pub now: Instant,
    sent: Vec<Sent>,
    events: Vec<Event>,
    pub protocol: Protocol,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Settings { sent_by: "192.0.2.1:5060".into(), thread: 3, ..Settings::default() })
    }

    pub fn with(settings: Settings) -> Self {
        let mut seed = 0x1234_5678_9abc_def0_u64;
        let random = move || {
            // xorshift64*
            seed ^= seed >> 12;
            seed ^= seed << 25;
            seed ^= seed >> 27;
            seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let start = epoch();
        Self {
            ua: Ua::new(settings, random),
            start,
            now: start,
            sent: Vec::new(),
            events: Vec::new(),
            protocol: Protocol::Udp,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.ua.poll() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Send { key, to, bytes, via_at, call } => {
                    let at = self.now - self.start;
                    self.sent.push(Sent { at, key, to, via_at, message: parse(bytes), call });
                }
            }
        }
    }

    /// Does something with the user agent at the present time.
    pub fn act<T>(&mut self, act: impl FnOnce(&mut Ua, Instant) -> T) -> T {
        let result = act(&mut self.ua, self.now);
        self.drain();
        result
    }

    /// The peer's message arrives.
    pub fn gets(&mut self, message: Message) {
        let flow = flow(self.protocol);
        self.act(|ua, now| ua.receive(now, message, flow));
    }

    /// Time passes, timer by timer.
    pub fn after(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.ua.next_wake().filter(|next| *next <= until) {
            self.now = next.max(self.now);
            self.act(Ua::wake);
        }
        self.now = until;
        self.act(Ua::wake);
    }

    /// What was sent since the last time, as lines of time and kind.
    pub fn lines(&mut self) -> String {
        self.sends().iter().map(Sent::line).collect::<Vec<_>>().join("\n")
    }

    /// The same without the times.
    pub fn kinds(&mut self) -> String {
        let line = |sent: &Sent| sent.line().split_once(' ').map(|(_, kind)| kind.to_owned());
        self.sends().iter().filter_map(line).collect::<Vec<_>>().join(", ")
    }

    pub fn sends(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The only message sent since the last time.
    pub fn send(&mut self) -> Sent {
        let mut sent = self.sends();
        assert_eq!(sent.len(), 1, "{:?}", sent.iter().map(Sent::line).collect::<Vec<_>>());
        sent.remove(0)
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The names of the events since the last time.
    pub fn heard(&mut self) -> String {
        self.events().iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The transport says it put this on a reliable protocol.
    pub fn went_by_tcp(&mut self, sent: &Sent) {
        let key = sent.key;
        self.act(|ua, now| ua.sent(now, key, Protocol::Tcp));
    }

    /// Nothing is left but what the layer above holds.
    pub fn is_empty(&self) -> bool {
        let stats = self.ua.stats();
        let held =
            stats.client_transactions + stats.server_transactions + stats.calls + stats.timers;
        held == 0 && stats.kept_bytes == 0 && self.ua.indexes() == 0
    }
}

/// What an event says, shortly.
pub fn name(event: &Event) -> String {
    match event {
        Event::Invited { .. } => "Invited".into(),
        Event::Requested { message, .. } => format!("Requested {}", message.cseq().method.as_str()),
        Event::Provisional { fork, message, first_of_fork, .. } => {
            let status = message.status().unwrap_or_default();
            let fork = String::from_utf8_lossy(&fork.0);
            format!("Provisional {status} {fork}{}", if *first_of_fork { " new" } else { "" })
        }
        Event::Answered { fork, .. } => format!("Answered {}", String::from_utf8_lossy(&fork.0)),
        Event::Rejected { status, cause, .. } => format!("Rejected {status} {cause:?}"),
        Event::Response { status, .. } => format!("Response {status}"),
        Event::Cancelled { .. } => "Cancelled".into(),
        Event::Acked { .. } => "Acked".into(),
        Event::AckMissing { .. } => "AckMissing".into(),
        Event::PrackMissing { .. } => "PrackMissing".into(),
        Event::Bye { .. } => "Bye".into(),
        Event::SessionExpired { .. } => "SessionExpired".into(),
        Event::Offer { message, .. } => format!("Offer {}", message.cseq().method.as_str()),
        Event::InDialog { message, .. } => format!("InDialog {}", message.cseq().method.as_str()),
        Event::Subscribed { status, .. } => format!("Subscribed {status}"),
        Event::Notified { .. } => "Notified".into(),
        Event::NotifyDue { whole, lost, .. } => {
            let word = if *whole { "NotifyDue whole" } else { "NotifyDue" };
            format!("{word}{}", if *lost { " lost" } else { "" })
        }
        Event::Resubscribed { .. } => "Resubscribed".into(),
        Event::WatcherGone { status, .. } => format!("WatcherGone {status}"),
        Event::Stray { .. } => "Stray".into(),
        Event::Through(_) => "Through".into(),
    }
}

/// A request of the peer.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: &'static str,
    pub uri: String,
    pub branch: String,
    pub from_tag: String,
    pub to_tag: Option<String>,
    pub call_id: String,
    pub cseq: u32,
    pub lines: String,
    pub body: Option<(&'static str, String)>,
}

impl Ask {
    /// An initial request.
    pub fn new(method: &'static str) -> Self {
        Self {
            method,
            uri: "sip:list@im.example".into(),
            branch: format!("z9hG4bK-{method}-1"),
            from_tag: "alice".into(),
            to_tag: None,
            call_id: "call@ue.example".into(),
            cseq: 1,
            lines: String::new(),
            body: None,
        }
    }

    /// An INVITE with a Contact, an SDP and two Record-Routes.
    pub fn invite() -> Self {
        Self::new("INVITE")
            .line("Contact: <sip:alice@192.0.2.9;transport=udp>")
            .line("Record-Route: <sip:scscf.example;lr>, <sip:pcscf.example;lr>")
            .sdp(SDP)
    }

    pub fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push_str("\r\n");
        self
    }

    pub fn sdp(mut self, sdp: &str) -> Self {
        self.body = Some(("application/sdp", sdp.into()));
        self
    }

    pub fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    pub fn branch(mut self, branch: &str) -> Self {
        self.branch = format!("z9hG4bK-{branch}");
        self
    }

    /// In the dialog that a response of ours to an INVITE of the peer opened.
    pub fn inside(method: &'static str, cseq: u32, response: &Message) -> Self {
        let tag = response.to_tag().map(|tag| String::from_utf8_lossy(tag).into_owned());
        let mut ask = Self::new(method).cseq(cseq).branch(&format!("{method}-{cseq}"));
        ask.to_tag = tag;
        ask
    }

    /// In the dialog of an INVITE of ours, from the phone with this tag.
    pub fn back(method: &'static str, cseq: u32, invite: &Message, tag: &str) -> Self {
        let ours = invite.from_tag().map(|tag| String::from_utf8_lossy(tag).into_owned());
        let mut ask = Self::new(method).cseq(cseq).branch(&format!("back-{method}-{cseq}"));
        ask.to_tag = ours;
        ask.from_tag = tag.into();
        ask.call_id = String::from_utf8_lossy(invite.call_id()).into_owned();
        ask
    }

    pub fn write(&self) -> Message {
        let method = Method::known(self.method.as_bytes()).expect("a known method");
        let mut writer = Writer::request(&method, &self.uri);
        writer.header("Via", format!("SIP/2.0/UDP 192.0.2.9:5060;branch={}", self.branch));
        writer.header("Max-Forwards", "66");
        let tag = self.to_tag.as_ref().map_or(String::new(), |tag| format!(";tag={tag}"));
        writer.header("From", format!("<sip:alice@ue.example>;tag={}", self.from_tag));
        writer.header("To", format!("<sip:list@im.example>{tag}"));
        writer.header("Call-ID", &self.call_id);
        writer.header("CSeq", format!("{} {}", self.cseq, self.method));
        writer.lines(self.lines.as_bytes());
        parse(writer.finish(self.body.as_ref().map(|(kind, body)| (*kind, body.as_bytes()))))
    }
}

/// A response to a request of ours. An empty tag adds none.
pub fn answer(
    request: &Message,
    status: u16,
    tag: &str,
    lines: &str,
    sdp: Option<&str>,
) -> Message {
    let tag = Some(tag).filter(|tag| !tag.is_empty());
    let mut writer = Writer::response(request, status, reason_phrase(status), tag);
    writer.lines(lines.as_bytes());
    parse(writer.finish(sdp.map(|sdp| ("application/sdp", sdp.as_bytes()))))
}

/// An INVITE of ours.
pub fn our_invite() -> Invite {
    Invite {
        call_id: "lm-03aa@192.0.2.1".into(),
        request_uri: "sip:bob@home.example".into(),
        to: "<sip:bob@home.example>".into(),
        from: "\"Alice\" <sip:alice@home.example>".into(),
        max_forwards: 65,
        route: vec!["<sip:orig@scscf.example;lr>".into(), "<sip:two.example;lr>".into()],
        contact: "<sip:page1@192.0.2.1>".into(),
        headers: Bytes::from_static(
            b"Supported: 100rel, timer\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n",
        ),
        in_dialog: Bytes::from_static(b"User-Agent: pagecast\r\n"),
        body: Some(("application/sdp".into(), Bytes::from_static(OUR_SDP.as_bytes()))),
        offer: Bytes::from_static(OUR_SDP.as_bytes()),
        ..Invite::default()
    }
}

/// The lines of a phone's answer.
pub const PHONE: &str = "Contact: <sip:bob@198.51.100.7:5066;gr=x>\r\n\
    Record-Route: <sip:first.example;lr>\r\nRecord-Route: <sip:second.example;lr>, <sip:near.example;lr>\r\n";

/// Our answer with a description.
pub fn our_answer(status: u16) -> Reply {
    Reply {
        body: Some(("application/sdp".into(), Bytes::from_static(OUR_SDP.as_bytes()))),
        contact: Some("<sip:session1@192.0.2.1>".into()),
        in_dialog: Some(Bytes::from_static(b"User-Agent: pagecast\r\n")),
        ..Reply::new(status)
    }
}
