//! What a busy node sends away, and in which order.
//!
//! Start at [`Pressure::sheds`]. Follows ISC-069 (TS 24.229 4.12, RFC 3261 §21.5.4, RFC 4412).

use crate::sip::message::{Message, Method, Name};

/// How busy a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    #[default]
    None,
    /// Too much: new calls go elsewhere.
    Busy,
    /// Far too much: everything new goes elsewhere.
    Full,
}

/// Requests are sent away with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    pub pressure: Pressure,
    /// Seconds for Retry-After, 1 to 30.
    pub retry_after: u32,
}

impl Pressure {
    /// Whether this request is sent away, whoever it is for.
    ///
    /// ISC-069: initial INVITEs first, then MESSAGE and what else opens something. Never a request in a dialog, an ACK,
    /// a CANCEL, or what the core says about registrations (ISC-046). What is urgent stays, from peers whose word counts.
    pub fn sheds(self, message: &Message, trusted: bool) -> bool {
        if self == Self::None || message.to_tag().is_some() || (trusted && is_urgent(message)) {
            return false;
        }
        match message.method() {
            Some(Method::Invite) => true,
            Some(Method::Ack | Method::Cancel | Method::Register) | None => false,
            Some(_) => self == Self::Full,
        }
    }
}

/// Whether the core asks for precedence: Resource-Priority (RFC 4412) or an emergency. Priority does not count: every
/// user may write what he likes there.
pub fn is_urgent(message: &Message) -> bool {
    is_emergency(message) || message.header(Name::ResourcePriority).is_some()
}

/// ISC-079: `urn:service:sos` and what is below it.
pub fn is_emergency(message: &Message) -> bool {
    let uri = message.uri();
    const SOS: &str = "urn:service:sos";
    uri.get(..SOS.len()).is_some_and(|start| start.eq_ignore_ascii_case(SOS))
        && matches!(uri.as_bytes().get(SOS.len()), None | Some(b'.'))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sip::message::Limits;

    fn request(method: &str, uri: &str, tag: &str, more: &str) -> Message {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:b@h>{tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text), &Limits::default()).expect("a request")
    }

    /// The rows of ISC-069, in its order.
    #[test]
    fn new_calls_go_first_then_messages_and_dialogs_never() {
        let (none, busy, full) = (Pressure::None, Pressure::Busy, Pressure::Full);
        for (method, uri, tag, more, first) in [
            ("INVITE", "sip:b@h", "", "", Some(busy)),
            ("MESSAGE", "sip:b@h", "", "", Some(full)),
            ("SUBSCRIBE", "sip:b@h", "", "", Some(full)),
            ("OPTIONS", "sip:h", "", "", Some(full)),
            ("REGISTER", "sip:h", "", "Expires: 0\r\n", None),
            ("REGISTER", "sip:h", "", "Expires: 600\r\n", None),
            ("CANCEL", "sip:b@h", "", "", None),
            ("ACK", "sip:b@h", "", "", None),
            ("INVITE", "sip:b@h", ";tag=2", "", None),
            ("BYE", "sip:b@h", ";tag=2", "", None),
            ("MESSAGE", "sip:b@h", ";tag=2", "", None),
            ("INVITE", "sip:b@h", "", "Resource-Priority: wps.0\r\n", None),
            ("INVITE", "sip:b@h", "", "Priority: emergency\r\n", Some(busy)),
            ("INVITE", "urn:service:sos", "", "", None),
            ("MESSAGE", "urn:service:SOS.police", "", "", None),
        ] {
            let message = request(method, uri, tag, more);
            for pressure in [none, busy, full] {
                let sheds = first.is_some_and(|first| pressure >= first);
                assert_eq!(pressure.sheds(&message, true), sheds, "{method} {more} {pressure:?}");
            }
        }
        // A stranger's own word makes nothing urgent.
        let claimed = request("INVITE", "sip:b@h", "", "Resource-Priority: wps.0\r\n");
        assert!(Pressure::Busy.sheds(&claimed, false));
    }

    /// Proves ISC-079.
    #[test]
    fn emergencies_are_known_by_their_uri() {
        for (uri, is) in [
            ("urn:service:sos", true),
            ("urn:service:sos.fire", true),
            ("URN:Service:SOS", true),
            ("urn:service:sosx", false),
            ("urn:service:counseling", false),
            ("sip:sos@h", false),
        ] {
            assert_eq!(is_emergency(&request("INVITE", uri, "", "")), is, "{uri}");
        }
    }
}
