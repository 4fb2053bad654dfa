//! Where answers and later requests shall come back to: one of our addresses for each protocol and address family.
//!
//! Start at [`Doors::towards`]. The stack above writes the usual address into Via and Contact; once it is known which way
//! a message goes, [`Doors::addressed`] writes that of the right door in its place. It touches nothing but the topmost Via of a
//! request of ours and a Contact that names the usual address. Follows RFC 3261 §8.1.1.7, §8.1.1.8 and ISC-016.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};

use crate::sip::{Flow, Protocol};

/// One address we listen on, and what others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// `host:port`.
    pub told: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// `host:port` as the stack writes it.
    usual: String,
    doors: Vec<Door>,
}

/// How we are reached by one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub host_port: &'a str,
    /// `transport=` of a SIP URI that leads there, where it is not found without.
    pub transport: Option<&'static str>,
}

impl Doors {
    /// `usual` is the `host:port` the stack above writes into Via and Contact.
    pub fn new(usual: String, doors: Vec<Door>) -> Self {
        Self { usual, doors }
    }

    /// In the order of listening.
    pub fn all(&self) -> &[Door] {
        &self.doors
    }

    /// What others are told, each address once.
    pub fn told(&self) -> impl Iterator<Item = &str> {
        self.doors.iter().enumerate().filter_map(|(at, door)| {
            let before = &self.doors[..at];
            (!before.iter().any(|other| other.told == door.told)).then_some(door.told.as_str())
        })
    }

    /// The way back from a peer that is sent something: through a door of the same protocol, and of the same address
    /// family where there is one.
    ///
    /// ISC-016.
    pub(super) fn towards(&self, protocol: Protocol, peer: IpAddr) -> Told<'_> {
        let ipv4 = peer.to_canonical().is_ipv4();
        let of_protocol = || self.doors.iter().filter(|door| door.protocol == protocol);
        let door = of_protocol()
            .find(|door| door.address.ip().to_canonical().is_ipv4() == ipv4)
            .or_else(|| of_protocol().next());
        self.tell(door)
    }

    /// The door something came through.
    pub(super) fn of(&self, flow: &Flow) -> Told<'_> {
        let at = |door: &&Door| door.protocol == flow.protocol && door.address == flow.local;
        match self.doors.iter().find(at) {
            Some(door) => self.tell(Some(door)),
            None => self.towards(flow.protocol, flow.peer.ip()),
        }
    }

    fn tell<'a>(&'a self, door: Option<&'a Door>) -> Told<'a> {
        let Some(door) = door else { return Told { host_port: &self.usual, transport: None } };
        let udp = || {
            let mut all = self.doors.iter();
            all.any(|other| other.protocol == Protocol::Udp && other.told == door.told)
        };
        let transport = match door.protocol {
            Protocol::Tls => Some("tls"),
            Protocol::Tcp if !udp() => Some("tcp"),
            Protocol::Tcp | Protocol::Udp => None,
        };
        Told { host_port: &door.told, transport }
    }

    /// The message as it goes this way: protocol and sent-by of the topmost Via, where `via_at` says that it is ours,
    /// and our Contact.
    pub(super) fn addressed(
        &self,
        bytes: Bytes,
        via_at: Option<usize>,
        protocol: Protocol,
        told: Told<'_>,
    ) -> Bytes {
        let token = protocol.via_token().as_bytes();
        let same_token = via_at.is_none_or(|at| bytes.get(at..at + token.len()) == Some(token));
        let here = told.host_port == self.usual && told.transport.is_none();
        if same_token && (here || self.usual.is_empty()) {
            return bytes;
        }
        let mut out = BytesMut::with_capacity(bytes.len() + 64);
        let mut rest = &bytes[..];
        if let Some(at) = via_at.filter(|at| at + token.len() <= rest.len()) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(token);
            rest = &rest[at + token.len()..];
            let sent_by = [b" ", self.usual.as_bytes(), b";"].concat();
            if !self.usual.is_empty() && rest.starts_with(&sent_by) {
                out.extend_from_slice(&[b" ", told.host_port.as_bytes()].concat());
                rest = &rest[sent_by.len() - 1..];
            }
        }
        if !here
            && !self.usual.is_empty()
            && let Some((at, end)) = self.contact_in(rest, via_at)
        {
            out.extend_from_slice(&rest[..at]);
            self.write_contact(&mut out, &rest[at..end], told);
            rest = &rest[end..];
        }
        out.extend_from_slice(rest);
        out.freeze()
    }

    /// Where the URI of a Contact of ours stands. Requests that are only on their way through us have more than one Via
    /// and keep their Contact.
    fn contact_in(&self, text: &[u8], via_at: Option<usize>) -> Option<(usize, usize)> {
        let head = &text[..memchr::memmem::find(text, b"\r\n\r\n").unwrap_or(text.len())];
        if via_at.is_some() && memchr::memmem::find(head, b"\r\nVia: ").is_some() {
            return None;
        }
        const NAME: &[u8] = b"\r\nContact: <";
        let at = memchr::memmem::find(head, NAME)? + NAME.len();
        let end = at + memchr::memchr(b'>', &head[at..])?;
        let (host, after) = self.host_in(&head[at..end])?;
        (host < after).then_some((at, end))
    }

    /// Where the usual address stands as host and port of a URI.
    fn host_in(&self, uri: &[u8]) -> Option<(usize, usize)> {
        let colon = memchr::memchr(b':', uri)? + 1;
        let address = &uri[colon..];
        let address = &address[..memchr::memchr2(b';', b'?', address).unwrap_or(address.len())];
        let host = memchr::memrchr(b'@', address).map_or(0, |at| at + 1);
        (&address[host..] == self.usual.as_bytes()).then_some((colon + host, colon + address.len()))
    }

    /// A sips URI tells by itself that it wants TLS (RFC 3261 §19.1.2).
    fn write_contact(&self, out: &mut BytesMut, uri: &[u8], told: Told<'_>) {
        const PARAMETER: &[u8] = b";transport=";
        let Some((host, after)) = self.host_in(uri) else { return out.extend_from_slice(uri) };
        out.extend_from_slice(&uri[..host]);
        out.extend_from_slice(told.host_port.as_bytes());
        let parameters = &uri[after..];
        let secure = uri.len() >= 5 && uri[..5].eq_ignore_ascii_case(b"sips:");
        let Some(transport) = told.transport.filter(|_| !secure) else {
            return out.extend_from_slice(parameters);
        };
        out.extend_from_slice(PARAMETER);
        out.extend_from_slice(transport.as_bytes());
        // One that was there before gives way.
        match memchr::memmem::find(parameters, PARAMETER) {
            None => out.extend_from_slice(parameters),
            Some(at) => {
                let value = at + PARAMETER.len();
                let end = memchr::memchr2(b';', b'?', &parameters[value..])
                    .map_or(parameters.len(), |end| value + end);
                out.extend_from_slice(&parameters[..at]);
                out.extend_from_slice(&parameters[end..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Doors {
        let door = |protocol, address: &str| Door {
            protocol,
            address: address.parse().expect("an address"),
            told: address.to_owned(),
        };
        Doors::new(
            "192.0.2.1:5090".to_owned(),
            vec![
                door(Protocol::Udp, "192.0.2.1:5090"),
                door(Protocol::Tcp, "192.0.2.1:5090"),
                door(Protocol::Tls, "192.0.2.1:5091"),
                door(Protocol::Udp, "[2001:db8::1]:5090"),
                door(Protocol::Tcp, "[2001:db8::1]:5095"),
            ],
        )
    }

    /// Proves ISC-016.
    #[test]
    fn each_way_has_its_door() {
        for (protocol, peer, host_port, transport) in [
            (Protocol::Udp, "192.0.2.9", "192.0.2.1:5090", None),
            (Protocol::Tcp, "192.0.2.9", "192.0.2.1:5090", None),
            (Protocol::Tcp, "::ffff:192.0.2.9", "192.0.2.1:5090", None),
            (Protocol::Tls, "192.0.2.9", "192.0.2.1:5091", Some("tls")),
            (Protocol::Udp, "2001:db8::9", "[2001:db8::1]:5090", None),
            (Protocol::Tcp, "2001:db8::9", "[2001:db8::1]:5095", Some("tcp")),
            (Protocol::Tls, "2001:db8::9", "192.0.2.1:5091", Some("tls")),
        ] {
            let all = doors();
            let told = all.towards(protocol, peer.parse().expect("an address"));
            assert_eq!(told, Told { host_port, transport }, "{protocol:?} {peer}");
        }
        let none = Doors::new("192.0.2.1:5090".to_owned(), Vec::new());
        let told = none.towards(Protocol::Tls, IpAddr::from([192, 0, 2, 9]));
        assert_eq!(told, Told { host_port: "192.0.2.1:5090", transport: None });
    }

    /// Proves ISC-016.
    #[test]
    fn via_and_contact_name_the_door_of_the_way_taken() {
        let request = |via: &str, contact: &str| {
            format!(
                "INVITE sip:bob@x SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bK1;rport\r\nTo: <sip:bob@x>\r\n\
                 Contact: <{contact}>;+g.x\r\nContent-Length: 27\r\n\r\nContact: <sip:192.0.2.1:5090>"
            )
        };
        let usual = "UDP 192.0.2.1:5090";
        let at = "INVITE sip:bob@x SIP/2.0\r\nVia: SIP/2.0/".len();
        for (protocol, peer, contact, via, told) in [
            (
                Protocol::Udp,
                "192.0.2.9",
                "sip:lm-1@192.0.2.1:5090",
                usual,
                "sip:lm-1@192.0.2.1:5090",
            ),
            (
                Protocol::Tls,
                "192.0.2.9",
                "sip:lm-1@192.0.2.1:5090",
                "TLS 192.0.2.1:5091",
                "sip:lm-1@192.0.2.1:5091;transport=tls",
            ),
            (
                Protocol::Tls,
                "192.0.2.9",
                "sip:192.0.2.1:5090;transport=tcp;x=1",
                "TLS 192.0.2.1:5091",
                "sip:192.0.2.1:5091;transport=tls;x=1",
            ),
            (
                Protocol::Tls,
                "192.0.2.9",
                "sips:lm-1@192.0.2.1:5090",
                "TLS 192.0.2.1:5091",
                "sips:lm-1@192.0.2.1:5091",
            ),
            (
                Protocol::Udp,
                "2001:db8::9",
                "sip:lm-1@192.0.2.1:5090",
                "UDP [2001:db8::1]:5090",
                "sip:lm-1@[2001:db8::1]:5090",
            ),
            (
                Protocol::Tcp,
                "2001:db8::9",
                "sip:lm-1@192.0.2.1:50900",
                "TCP [2001:db8::1]:5095",
                "sip:lm-1@192.0.2.1:50900",
            ),
        ] {
            let doors = doors();
            let way = doors.towards(protocol, peer.parse().expect("an address"));
            let bytes = Bytes::from(request(usual, contact));
            let out = doors.addressed(bytes, Some(at), protocol, way);
            assert_eq!(String::from_utf8_lossy(&out), request(via, told));
        }
    }

    #[test]
    fn what_passes_through_keeps_its_contact() {
        let doors = doors();
        let told = doors.towards(Protocol::Tls, IpAddr::from([192, 0, 2, 9]));
        let text = "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5090;branch=z9hG4bK1\r\n\
                    Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK2\r\nContact: <sip:a@192.0.2.1:5090>\r\n\r\n";
        let at = "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/".len();
        let out = doors.addressed(Bytes::from(text), Some(at), Protocol::Tls, told);
        let want = text.replacen("UDP 192.0.2.1:5090", "TLS 192.0.2.1:5091", 1);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn an_answer_names_the_door_its_request_came_through() {
        let doors = doors();
        let answer = "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS 192.0.2.7;branch=z9hG4bK2\r\n\
                      Contact: <sip:lm-1@192.0.2.1:5090>\r\n\r\n";
        let flow = Flow {
            protocol: Protocol::Tls,
            local: "192.0.2.1:5091".parse().expect("an address"),
            peer: "192.0.2.7:40000".parse().expect("an address"),
            connection: 7,
            vouched: false,
        };
        let out = doors.addressed(Bytes::from(answer), None, Protocol::Tls, doors.of(&flow));
        let want = answer.replace("192.0.2.1:5090", "192.0.2.1:5091;transport=tls");
        assert_eq!(String::from_utf8_lossy(&out), want);
    }
}
