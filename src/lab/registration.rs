//! A phone's registration: REGISTER, the answer to a challenge, and again before it ends.
//!
//! Start at [`Registration::attempt`]. With a visited network the phone is its own P-CSCF and adds what one would.
//! Follows RFC 3261 §10, RFC 3327, RFC 3608 and TS 24.229 5.1.1, 5.2.2.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::auth::Keyring;
use super::call::{CSeqOf, FEATURES, PRODUCT, Repeat};
use super::phone::Who;
use super::token;
use super::wire::{Arrived, Way, Wire};
use crate::sip::message::{Message, Method, Name, NameAddr, Writer};
use crate::sip::uri::Uri;

/// A registration that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// Challenges and corrections of one attempt; a core that wants more wants too much.
const MOST_ROUNDS: u32 = 8;
/// Before credentials that were refused are made once more: a Kamailio S-CSCF sends its challenge before it has noted
/// it, and challenges a phone again that answers within the millisecond.
const BREATH: Duration = Duration::from_millis(100);
/// Before a registration that failed inside the core is tried again: a Kamailio S-CSCF fails one that comes while it
/// drops the record of an earlier one that has ended.
const SETBACK: Duration = Duration::from_secs(1);
/// How often it is.
const MOST_SETBACKS: u32 = 2;

/// What a phone's REGISTERs have in common (RFC 3261 §10.2.4).
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) call_id: String,
    local_tag: String,
    cseq: u32,
    keyring: Keyring,
    /// Seconds asked for.
    wanted: u32,
}

/// What the core granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) expires: Duration,
    /// Routes of requests from now on, in their order.
    pub(super) service_route: Vec<String>,
}

/// Why there is no registration.
#[derive(Debug)]
pub(super) enum Failed {
    /// The core said no.
    Refused(String),
    /// It said nothing, and may know us still.
    Silence,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Silence => f.write_str("the core does not answer REGISTER"),
        }
    }
}

impl std::error::Error for Failed {}

impl Registration {
    pub(super) fn new(keyring: Keyring, wanted: u32) -> Self {
        Self { call_id: token(10), local_tag: token(6), cseq: 0, keyring, wanted }
    }

    /// Registers, or with `leaves` ends the registration; answers what is asked on the way.
    pub(super) async fn attempt(
        &mut self,
        who: &Who,
        wire: &Wire,
        inbox: &mut mpsc::Receiver<Arrived>,
        leaves: bool,
    ) -> Result<Granted, Failed> {
        // Answers to a challenge of this attempt that were refused.
        let (mut fresh, mut refusals) = (false, 0);
        let mut setbacks = 0;
        for _ in 0..MOST_ROUNDS {
            let expires = if leaves { 0 } else { self.wanted };
            let request = self.request(who, wire, expires);
            let repeat = Repeat::start(wire, Way::Udp(who.core), request);
            let answer = final_answer(inbox, self.cseq).await;
            drop(repeat);
            let answer = answer.ok_or(Failed::Silence)?;
            match answer.status() {
                Some(200) => return Ok(granted(&answer, &who.contact, expires)),
                Some(401 | 407) => {
                    let stale = self.keyring.challenged(&answer).map_err(Failed::Refused)?;
                    if fresh && !stale {
                        refusals += 1;
                        if refusals > 1 {
                            let why = "the core does not take the credentials".to_owned();
                            return Err(Failed::Refused(why));
                        }
                        tokio::time::sleep(BREATH).await;
                    }
                    fresh = true;
                }
                // RFC 3261 §10.2.8.
                Some(423) => match min_expires(&answer).filter(|least| *least > self.wanted) {
                    Some(least) => self.wanted = least,
                    None => return Err(refused(&answer)),
                },
                // TS 24.229 5.1.1.2.1: it may be tried again.
                Some(500 | 504) if setbacks < MOST_SETBACKS => {
                    setbacks += 1;
                    fresh = false;
                    tokio::time::sleep(SETBACK).await;
                }
                _ => return Err(refused(&answer)),
            }
        }
        Err(Failed::Refused("the core asks for credentials again and again".to_owned()))
    }

    fn request(&mut self, who: &Who, wire: &Wire, expires: u32) -> Bytes {
        self.cseq += 1;
        let own = wire.address();
        let domain = who.domain();
        let registrar = format!("sip:{domain}");
        let mut out = Writer::request(&Method::Register, &registrar);
        out.via(&own.to_string(), &format!("z9hG4bK{}", token(8)));
        out.header("Max-Forwards", "70");
        out.header("Route", format!("<sip:{};lr>", who.core));
        out.header("From", format!("<{}>;tag={}", who.aor, self.local_tag));
        out.header("To", format!("<{}>", who.aor));
        out.header("Call-ID", &self.call_id).header("CSeq", format!("{} REGISTER", self.cseq));
        out.header("Contact", format!("<{}>;{FEATURES}", who.contact));
        out.header("Expires", expires.to_string());
        if let Some((name, value)) = self.keyring.register_field(&domain, &registrar) {
            out.header(name, value);
        }
        match &who.visited {
            Some(network) => {
                out.header("Path", format!("<sip:{own};lr>")).header("Require", "path");
                out.header("Supported", "path").header("P-Visited-Network-ID", visited(network));
                out.header("P-Charging-Vector", charging(own));
            }
            None => {
                out.header("Supported", "path");
            }
        }
        out.header("User-Agent", PRODUCT);
        out.finish(None)
    }
}

/// A charging vector as a P-CSCF starts it (RFC 7315 §4.6).
pub(super) fn charging(own: SocketAddr) -> String {
    let host = match own {
        SocketAddr::V4(own) => own.ip().to_string(),
        SocketAddr::V6(own) => format!("\"[{}]\"", own.ip()),
    };
    format!("icid-value=\"{}\";icid-generated-at={host}", token(12))
}

/// A token where it is one, else between quotes (RFC 7315 §4.3).
fn visited(network: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    if network.bytes().all(token) {
        network.to_owned()
    } else {
        format!("\"{}\"", network.replace(['"', '\\'], ""))
    }
}

/// When to register again: ten minutes before the end, or half-way through what is shorter than twenty.
///
/// TS 24.229 5.1.1.4.1.
pub(super) fn refresh_after(expires: Duration) -> Duration {
    const LONG: Duration = Duration::from_secs(1200);
    if expires > LONG { expires - LONG / 2 } else { expires / 2 }
}

async fn final_answer(inbox: &mut mpsc::Receiver<Arrived>, cseq: u32) -> Option<Message> {
    let until = Instant::now() + LIMIT;
    while let Ok(Some(arrived)) = timeout_at(until, inbox.recv()).await {
        if let Ok(message) = arrived.message
            && message.status().is_some_and(|status| status >= 200)
            && CSeqOf::of(&message).number == cseq
        {
            return Some(message);
        }
    }
    None
}

fn refused(answer: &Message) -> Failed {
    let (status, reason) = (answer.status().unwrap_or(0), answer.reason());
    Failed::Refused(format!("the core answers REGISTER {status} {reason}"))
}

fn min_expires(answer: &Message) -> Option<u32> {
    answer.text(Name::MinExpires)?.trim().parse().ok()
}

/// What a 200 grants our contact (RFC 3261 §10.2.4).
fn granted(answer: &Message, contact: &str, asked: u32) -> Granted {
    let own = Uri::parse(contact).ok();
    let in_contact = answer.values(Name::Contact).filter_map(NameAddr::parse).find_map(|value| {
        let uri = Uri::parse(value.uri).ok()?;
        own.as_ref().filter(|own| own.equals(&uri))?;
        value.param("expires")?.trim().parse::<u32>().ok()
    });
    let header = || answer.text(Name::Expires)?.trim().parse().ok();
    let seconds = in_contact.or_else(header).unwrap_or(asked);
    let service_route = answer
        .values(Name::ServiceRoute)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect();
    Granted { expires: Duration::from_secs(seconds.into()), service_route }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Limits;

    #[test]
    fn what_is_granted_counts_not_what_was_asked() {
        let answer = |more: &str| {
            let text = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                 To: <sip:a@h>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n{more}\r\n"
            );
            Message::parse(Bytes::from(text), &Limits::default()).expect("a message")
        };
        for (more, seconds) in [
            (
                "Contact: <sip:x@10.0.0.2:9>;expires=7, <sip:a@10.0.0.1:9>;+g.oma.sip-im;expires=60\r\n",
                60,
            ),
            ("Contact: <sip:x@10.0.0.2:9>;expires=7\r\nExpires: 50\r\n", 50),
            ("", 3600),
        ] {
            let granted = granted(&answer(more), "sip:a@10.0.0.1:9", 3600);
            assert_eq!(granted.expires, Duration::from_secs(seconds), "{more}");
        }
        let routes =
            "Service-Route: <sip:orig@s1;lr>, <sip:s2;lr>\r\nService-Route: <sip:s3;lr>\r\n";
        let granted = granted(&answer(routes), "sip:a@10.0.0.1:9", 3600);
        assert_eq!(granted.service_route, ["<sip:orig@s1;lr>", "<sip:s2;lr>", "<sip:s3;lr>"]);
    }

    #[test]
    fn registrations_are_renewed_before_they_end() {
        for (expires, after) in [(3600, 3000), (1201, 601), (1200, 600), (60, 30)] {
            let after = Duration::from_secs(after);
            assert_eq!(refresh_after(Duration::from_secs(expires)), after, "{expires}");
        }
    }

    #[test]
    fn networks_are_named_as_the_header_wants_it() {
        for (network, value) in [("visited1.example", "visited1.example"), ("a b\"c", "\"a bc\"")] {
            assert_eq!(visited(network), value);
        }
    }
}
