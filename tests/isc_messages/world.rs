//! One thread's SIP side in virtual time, with everything it sent and said. Peers are texts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pagecast::engine::ids::LegId;
use pagecast::engine::input::{Arrival, Input};
use pagecast::engine::party::{Audience, Copy, Party, Recipient, Target};
use pagecast::isc::settings::Settings;
use pagecast::isc::{Happening, Isc, Refused};
use pagecast::sip::message::{Limits, Message, Name};
use pagecast::sip::ua::{self, Output, SendKey, Ua};
use pagecast::sip::uri::Uri;
use pagecast::sip::{Flow, Protocol, Target as Hop};

/// The MSRP URI the tests let a leg use.
pub const LEG_PATH: &str = "msrp://192.0.2.10:2855/b4Jx9ZpQ0tR2sKd8aaaaaaaa;tcp";
/// The MSRP URI the tests answer the originator with.
pub const OWN_PATH: &str = "msrp://192.0.2.10:2855/o4Jx9ZpQ0tR2sKd8aaaaaaaa;tcp";

/// A message that left.
pub struct Sent {
    pub message: Message,
    pub text: String,
    pub to: Hop,
    pub key: SendKey,
}

pub struct World {
    pub isc: Isc,
    pub now: Instant,
    pub sent: Vec<Sent>,
    pub happened: Vec<Happening>,
}

/// The settings of the examples: home1.example behind scscf1.
pub fn home() -> Settings {
    let mut settings = Settings::default();
    settings.sip.uri = "sip:im-as1.home1.example".to_owned();
    settings.sip.trusted_peers = vec!["192.0.2.0/24".parse().expect("a network")];
    settings.core.scscf = "sip:scscf9.home1.example".to_owned();
    settings.core.icscf = "sip:icscf1.home1.example".to_owned();
    settings.service.factories = vec!["sip:im-exploder@im.home1.example".to_owned()];
    settings.service.group_domains = vec!["groups.home1.example".to_owned()];
    settings.im.vendor = "ExampleIM/2.1".to_owned();
    settings
}

impl World {
    pub fn new(settings: Settings) -> Self {
        Self::at("im-as1.home1.example:5060", settings)
    }

    pub fn at(sent_by: &str, settings: Settings) -> Self {
        let ua_settings = ua::Settings {
            sent_by: sent_by.to_owned(),
            thread: 7,
            server: Isc::product(&settings),
            ..ua::Settings::default()
        };
        let ua = Ua::new(ua_settings, random(1));
        let isc = Isc::new(settings, ua, random(2)).expect("the settings are good");
        let now = tokio::time::Instant::now().into_std();
        Self { isc, now, sent: Vec::new(), happened: Vec::new() }
    }

    /// A message comes from the S-CSCF.
    pub fn receive(&mut self, text: &str) {
        self.receive_from("192.0.2.40:5060", text);
    }

    pub fn receive_from(&mut self, peer: &str, text: &str) {
        let flow = Flow {
            protocol: Protocol::Udp,
            local: "192.0.2.10:5060".parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            connection: 0,
            vouched: false,
        };
        let message = parse(text);
        self.isc.receive(self.now, message, flow);
        self.drive();
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.isc.next_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.isc.wake(self.now);
            self.happened.extend(self.isc.happened());
            self.drive();
        }
        self.now = end;
    }

    pub fn drive(&mut self) {
        while let Some(output) = self.isc.poll() {
            match output {
                Output::Send { key, to, bytes, .. } => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    match Message::parse(bytes, &Limits::default()) {
                        Ok(message) => self.sent.push(Sent { message, text, to, key }),
                        // The refusal of a request that lacks what every response repeats.
                        Err(_) if text.starts_with("SIP/2.0 ") => {}
                        Err(malformed) => panic!("we wrote {malformed}:\n{text}"),
                    }
                }
                Output::Event(event) => self.isc.on_event(self.now, event, &mut self.happened),
            }
        }
        self.happened.extend(self.isc.happened());
    }

    /// The transport gives the last message up.
    pub fn fails(&mut self, more: bool) {
        let key = self.sent.last().expect("something was sent").key;
        self.isc.send_failed(self.now, key, more);
        self.drive();
    }

    /// The page that arrived; fails if the INVITE was refused.
    pub fn arrival(&self) -> Arrival {
        match self.happened.iter().find_map(arrived) {
            Some(arrival) => arrival.clone(),
            None => panic!("no arrival: {:?} {:?}", self.happened, self.statuses()),
        }
    }

    pub fn has_arrived(&self) -> bool {
        self.happened.iter().any(|happening| arrived(happening).is_some())
    }

    pub fn refused(&self) -> &Refused {
        let found = self.happened.iter().find_map(|happening| match happening {
            Happening::Refused(refused) => Some(refused),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("not refused: {:?}", self.happened))
    }

    pub fn statuses(&self) -> Vec<u16> {
        self.sent.iter().filter_map(|sent| sent.message.status()).collect()
    }

    /// The last response, which is the final one of a refusal.
    pub fn answer(&self) -> &Sent {
        let found = self.sent.iter().rev().find(|sent| sent.message.status().is_some());
        found.expect("something was answered")
    }

    pub fn requests(&self, method: &str) -> Vec<&Sent> {
        let is = |sent: &&Sent| sent.message.method().is_some_and(|m| m.as_str() == method);
        self.sent.iter().filter(is).collect()
    }

    pub fn last_request(&self, method: &str) -> &Sent {
        self.requests(method).pop().expect("such a request was sent")
    }

    /// What the resolver would say to the arrival's list: everybody with an address but the originator.
    pub fn audience(&self) -> Arc<Audience> {
        let arrival = self.arrival();
        let Target::List(list) = arrival.target else { return group_audience() };
        let own = |entry: &&Recipient| {
            let uri = Uri::parse(&entry.party.uri);
            uri.is_ok_and(|uri| uri.user().is_some())
                && !arrival.identities.iter().any(|party| party.key == entry.party.key)
        };
        Arc::new(Audience {
            recipients: list.iter().filter(own).cloned().collect(),
            history: list,
            ..Audience::default()
        })
    }

    /// Invites the nth recipient, counted from 1.
    pub fn invite(&mut self, n: u16) -> LegId {
        let audience = self.audience();
        let leg = LegId { page: self.arrival().page, n };
        let recipient = &audience.recipients[usize::from(n) - 1];
        self.isc.invite(self.now, leg, recipient, LEG_PATH, &audience);
        self.drive();
        leg
    }

    /// The events the engine heard, without the arrival.
    pub fn inputs(&self) -> Vec<&Input> {
        let inputs = self.happened.iter().filter_map(|happening| match happening {
            Happening::Input(Input::Arrived(_)) => None,
            Happening::Input(input) => Some(input),
            _ => None,
        });
        inputs.collect()
    }
}

fn arrived(happening: &Happening) -> Option<&Arrival> {
    match happening {
        Happening::Input(Input::Arrived(arrival)) => Some(arrival),
        _ => None,
    }
}

pub fn group_audience() -> Arc<Audience> {
    let member = |uri: &str| Recipient {
        party: Party { uri: uri.into(), key: uri.into(), display: None },
        copy: Copy::Bcc,
        anonymize: false,
        headers: Vec::new(),
    };
    Arc::new(Audience {
        recipients: vec![member("sip:bob@home1.example"), member("sip:carol@home2.example")],
        ..Audience::default()
    })
}

fn random(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut state = seed;
    move || {
        // SplitMix64: every call another number, the same in every run.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A message written with plain line ends; Content-Length is put right.
pub fn parse(text: &str) -> Message {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
    let body = body.replace('\n', "\r\n");
    let head: Vec<&str> = head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("content-length"))
        .collect();
    let whole = format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len());
    Message::parse(Bytes::from(whole), &Limits::default()).expect("tests write messages")
}

pub fn header<'a>(sent: &'a Sent, name: &'static str) -> Option<&'a str> {
    let mut values = headers(sent, name).into_iter();
    let first = values.next();
    assert!(values.next().is_none(), "{name} stands there twice:\n{}", sent.text);
    first
}

pub fn headers<'a>(sent: &'a Sent, name: &str) -> Vec<&'a str> {
    let head = sent.text.split("\r\n\r\n").next().unwrap_or_default();
    let field = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    };
    head.lines().skip(1).filter_map(field).collect()
}

/// The response of a peer to a request we sent, with extra lines and a body.
pub fn reply(to: &Sent, status: u16, tag: &str, lines: &str, body: &str) -> String {
    let mut out = format!("SIP/2.0 {status} Text\n");
    for via in to.message.lines(Name::Via) {
        out += &format!("Via: {}\n", String::from_utf8_lossy(via));
    }
    let text = |name: &'static str| headers(to, name)[0].to_owned();
    out += &format!("From: {}\nTo: {}", text("From"), text("To"));
    if !tag.is_empty() {
        out += &format!(";tag={tag}");
    }
    out += &format!("\nCall-ID: {}\nCSeq: {}\n{lines}", text("Call-ID"), text("CSeq"));
    out + "\n" + body
}

/// Compares a message line by line; `…` in the expectation stands for anything within a line.
pub fn assert_lines(text: &str, expected: &str) {
    let got: Vec<&str> = text.trim_end().lines().collect();
    let want: Vec<&str> = expected.trim().lines().map(str::trim_start).collect();
    for (n, line) in want.iter().enumerate() {
        let found = got.get(n).copied().unwrap_or("<nothing>");
        assert!(matches(found, line), "line {n}\n want {line}\n  got {found}\n\n{text}");
    }
    assert_eq!(got.len(), want.len(), "more than was expected:\n{text}");
}

fn matches(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The originator's INVITE of the examples: a URI-list with bob (to), carol (to, anonymised) and dan (bcc).
pub const INVITE: &str = r#"INVITE sip:im-exploder@im.home1.example SIP/2.0
Via: SIP/2.0/TCP scscf1.home1.example:5060;branch=z9hG4bK-sc-71a
Via: SIP/2.0/UDP pcscf1.home1.example:5060;branch=z9hG4bK-pc-33
Via: SIP/2.0/UDP [2001:db8::a1]:1357;branch=z9hG4bK-ue-1
Max-Forwards: 67
Route: <sip:im-as1.home1.example;lr>, <sip:odi-8f2c51@scscf1.home1.example;lr;orig>
Record-Route: <sip:scscf1.home1.example;lr>, <sip:pcscf1.home1.example;lr>
P-Asserted-Identity: "Alice" <sip:alice@home1.example>, <tel:+15551230001>
P-Served-User: <sip:alice@home1.example>;sescase=orig;regstate=reg
P-Charging-Vector: icid-value="pc1-20240101-00042";icid-generated-at=pcscf1.home1.example;orig-ioi="Type 3home1.example"
P-Charging-Function-Addresses: ccf="aaa://cdf1.home1.example"
P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000A0011A2B
From: "Alice" <sip:alice@home1.example>;tag=a1c9
To: <sip:im-exploder@im.home1.example>
Call-ID: 5f0c-1@ue.example
CSeq: 1 INVITE
Contact: <sip:alice@[2001:db8::a1]:1357>;+g.oma.sip-im.large-message
Accept-Contact: *;+g.oma.sip-im.large-message
User-Agent: IM-client/OMA1.0 ExampleUE/1.2
Require: recipient-list-invite
Supported: 100rel, timer
Session-Expires: 1800
Min-SE: 90
Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS
Accept: application/sdp, message/sipfrag
Subject: Minutes
Content-Type: multipart/mixed;boundary=bnd1

--bnd1
Content-Type: application/sdp

v=0
o=alice 2890844526 1 IN IP6 2001:db8::a1
s=-
c=IN IP6 2001:db8::a1
t=0 0
m=message 9 TCP/MSRP *
a=path:msrp://[2001:db8::a1]:2855/ue7Qm2k0;tcp
a=setup:active
a=accept-types:message/cpim text/plain
a=accept-wrapped-types:text/plain image/png
a=file-selector:size:20480 type:message/cpim
a=sendonly
--bnd1
Content-Type: application/resource-lists+xml
Content-Disposition: recipient-list

<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"
    xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
  <list>
    <entry uri="sip:bob@home1.example" cp:copyControl="to"/>
    <entry uri="sip:carol@home2.example" cp:copyControl="to" cp:anonymize="true"/>
    <entry uri="sip:dan@home1.example" cp:copyControl="bcc"/>
  </list>
</resource-lists>
--bnd1--
"#;

/// The same to a group: no list.
pub fn group_invite() -> String {
    let sdp =
        INVITE.split("application/sdp\n\n").nth(1).and_then(|rest| rest.split("--bnd1").next());
    let head = INVITE.split("\n\n").next().unwrap_or_default();
    head.replace("sip:im-exploder@im.home1.example", "sip:team@groups.home1.example")
        .replace("Require: recipient-list-invite\n", "")
        .replace("multipart/mixed;boundary=bnd1", "application/sdp")
        + "\n\n"
        + sdp.unwrap_or_default()
}

/// The answer of a phone that takes the page.
pub const ANSWER_SDP: &str = "v=0
o=- 99 1 IN IP4 192.0.2.77
s=-
c=IN IP4 192.0.2.77
t=0 0
m=message 9 TCP/MSRP *
a=path:msrp://192.0.2.77:2855/bobZ81;tcp
a=setup:active
a=accept-types:message/cpim text/plain
a=recvonly
";
