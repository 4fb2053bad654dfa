//! Whether the `c=` and `m=` lines of an MSRP session name the place its path leads to (RFC 6714 §4.4).
//!
//! Start at [`Fit::of`]. Resolves no name: where only addresses can tell, [`Names`] says whose.

use std::net::IpAddr;

use super::msrp_uri::MsrpUri;

/// How a media address stands to the next hop of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// The same place.
    Same,
    /// Another place.
    Differs,
    /// The ports agree; whether the hosts do, their addresses have to tell.
    Names(Names),
}

/// Two hosts of which one at least is a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names {
    /// Of the `c=` line.
    pub media: String,
    /// Of the leftmost URI of the path.
    pub path: String,
}

impl Fit {
    /// Compares. `media` is the address of the `c=` line; without one nothing speaks against the path. `port` is that of
    /// the `m=` line, where it means anything.
    ///
    /// MS-028 (RFC 6714 §4.4).
    pub fn of(media: Option<&str>, port: Option<u16>, next_hop: &MsrpUri) -> Self {
        if port.is_some_and(|port| next_hop.port() != Some(port)) {
            return Self::Differs;
        }
        let Some(media) = media else { return Self::Same };
        match (media.parse::<IpAddr>(), next_hop.ip()) {
            (Ok(media), Some(path)) if media == path => Self::Same,
            (Ok(_), Some(_)) => Self::Differs,
            _ if media.eq_ignore_ascii_case(next_hop.host()) => Self::Same,
            _ => Self::Names(Names {
                media: media.to_owned(),
                path: next_hop.bare_host().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves MS-028.
    #[test]
    fn a_media_address_is_compared_with_the_next_hop() {
        let names = |media: &str, path: &str| {
            Fit::Names(Names { media: media.to_owned(), path: path.to_owned() })
        };
        let cases = [
            (Some("192.0.2.55"), Some(7394), "192.0.2.55:7394", Fit::Same),
            (Some("192.0.2.55"), Some(7395), "192.0.2.55:7394", Fit::Differs),
            (Some("192.0.2.55"), None, "192.0.2.55:7394", Fit::Same),
            (Some("192.0.2.56"), None, "192.0.2.55:7394", Fit::Differs),
            (Some("2001:db8::1"), Some(7394), "[2001:0db8:0:0::1]:7394", Fit::Same),
            (Some("2001:DB8::1"), Some(7394), "[2001:db8::2]:7394", Fit::Differs),
            (Some("UE.example"), Some(7394), "ue.example:7394", Fit::Same),
            (Some("ue.example"), Some(7395), "ue.example:7394", Fit::Differs),
            (Some("ue.example"), Some(7394), "192.0.2.55:7394", names("ue.example", "192.0.2.55")),
            (Some("2001:db8::1"), None, "ue.example:1", names("2001:db8::1", "ue.example")),
            (Some("ue.example"), None, "[2001:db8::1]:1", names("ue.example", "2001:db8::1")),
            (Some("a.example"), None, "b.example:1", names("a.example", "b.example")),
            (None, Some(7394), "192.0.2.55:7394", Fit::Same),
            (None, Some(9), "192.0.2.55:7394", Fit::Differs),
        ];
        for (media, port, path, fit) in cases {
            let path = MsrpUri::parse(&format!("msrp://{path}/x;tcp")).unwrap();
            assert_eq!(Fit::of(media, port, &path), fit, "{media:?} {port:?} {path:?}");
        }
    }
}
