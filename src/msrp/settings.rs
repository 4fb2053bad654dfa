//! What operators choose about MSRP. Defaults are those of the profile `3gpp`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::codec;
use crate::content::sdp::Family;
use crate::engine::policy::SrPolicy;

/// All keys the MSRP switch obeys. Durations read as `"30s"`, `"10m"`, `"500ms"` or seconds, sizes as `"10MiB"` or octets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Host written into our URIs (`msrp.advertise`).
    pub host: String,
    /// Port written into our URIs.
    pub port: u16,
    /// The same for peers whose addresses are of the other kind (`msrp.advertise_also`, ISC-064).
    pub also: Option<(String, u16)>,
    /// Host and port written into our `msrps` URIs (`msrp.tls.advertise`).
    pub tls_at: (String, u16),
    /// The same for peers whose addresses are of the other kind.
    pub tls_also: Option<(String, u16)>,
    /// MS-112: from the end of TCP's handshake to the end of TLS's, either way.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// Handshakes of clients in progress; beyond, connections are closed at once.
    pub max_handshakes: usize,
    /// Directory of spool files; without one pages stay in memory.
    pub spool_dir: Option<PathBuf>,
    /// What says to an originator that its page is taken waits for [`super::Switch::confirm`].
    pub await_confirmation: bool,
    /// Networks we may connect to; empty: all but loopback, link-local, multicast and unspecified (MS-022).
    pub connect_allow: Vec<IpNet>,
    /// With an empty `connect_allow`: loopback too. True when we listen on loopback.
    pub connect_loopback: bool,
    /// MS-077: wait for a response after the last octet of a SEND.
    #[serde(deserialize_with = "duration")]
    pub tx_timeout: Duration,
    /// MS-035: from SDP to the first request, and an incoming connection without one.
    #[serde(deserialize_with = "duration")]
    pub bind_timeout: Duration,
    /// MS-064: between octets of an incomplete page.
    #[serde(deserialize_with = "duration")]
    pub chunk_gap_timeout: Duration,
    /// MS-091: no progress of a recipient.
    #[serde(deserialize_with = "duration")]
    pub leg_stall_timeout: Duration,
    /// MS-038: a connection without a session.
    #[serde(deserialize_with = "duration")]
    pub conn_linger: Duration,
    /// MS-114: from the first octet of a header section to its end.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// MS-092: how long reading stops for want of room before 413.
    #[serde(deserialize_with = "duration")]
    pub full_timeout: Duration,
    /// MS-062, IM-074: largest page in octets.
    #[serde(deserialize_with = "size")]
    pub max_message: u64,
    /// MS-113.
    #[serde(deserialize_with = "size")]
    pub max_header_section: u64,
    /// MS-113.
    pub max_header_lines: usize,
    /// MS-113.
    #[serde(deserialize_with = "size")]
    pub max_header_line: u64,
    /// MS-115: chunks of one message.
    pub max_chunks: u64,
    /// MS-115: smallest mean size of a chunk, over more than `min_chunk_after` chunks.
    pub min_chunk: u64,
    /// MS-115.
    pub min_chunk_after: u64,
    /// MS-115: answers not yet written on one connection before reading stops.
    pub max_in_flight: usize,
    /// MS-115: sessions of one connection.
    pub max_sessions_per_connection: usize,
    /// MS-115: sessions reserved or open.
    pub max_sessions: usize,
    /// MS-115: incoming connections.
    pub max_connections: usize,
    /// MS-115: incoming connections of one address; 0 means any number.
    pub max_connections_per_ip: usize,
    /// MS-115: incoming connections no session is bound to.
    pub max_unbound: usize,
    /// Octets waiting for one socket.
    #[serde(deserialize_with = "size")]
    pub write_buffer: u64,
    /// MS-058: octets of one session before another on the same connection has its turn.
    #[serde(deserialize_with = "size")]
    pub slice: u64,
    /// MS-092: octets of all pages, in memory and on disk.
    #[serde(deserialize_with = "size")]
    pub spool_total: u64,
    /// Octets of one page kept in memory.
    #[serde(deserialize_with = "size")]
    pub spool_page_memory: u64,
    /// Octets of all pages kept in memory.
    #[serde(deserialize_with = "size")]
    pub spool_memory: u64,
    /// MS-088: copies ask recipients for a success REPORT.
    pub copy_success_report: bool,
    /// MS-089.
    pub sr_policy: SrPolicy,
    /// MS-086: recipients get nothing before the page is whole.
    pub store_and_forward: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 2855,
            also: None,
            tls_at: ("127.0.0.1".into(), 2856),
            tls_also: None,
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            spool_dir: None,
            await_confirmation: false,
            connect_allow: Vec::new(),
            connect_loopback: false,
            tx_timeout: Duration::from_secs(30),
            bind_timeout: Duration::from_secs(30),
            chunk_gap_timeout: Duration::from_secs(540),
            leg_stall_timeout: Duration::from_secs(120),
            conn_linger: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            full_timeout: Duration::from_secs(10),
            max_message: 10 << 20,
            max_header_section: 16 << 10,
            max_header_lines: 64,
            max_header_line: 8 << 10,
            max_chunks: 131_072,
            min_chunk: 64,
            min_chunk_after: 1000,
            max_in_flight: 256,
            max_sessions_per_connection: 1000,
            max_sessions: 200_000,
            max_connections: 20_000,
            max_connections_per_ip: 0,
            max_unbound: 1000,
            write_buffer: 128 << 10,
            slice: 16 << 10,
            spool_total: 4 << 30,
            spool_page_memory: 4 << 20,
            spool_memory: 256 << 20,
            copy_success_report: true,
            sr_policy: SrPolicy::Switch,
            store_and_forward: false,
        }
    }
}

impl Settings {
    /// Limits of the decoder (MS-113).
    pub fn decoder(&self) -> codec::Limits {
        let octets = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        codec::Limits {
            section: octets(self.max_header_section),
            lines: self.max_header_lines,
            line: octets(self.max_header_line),
        }
    }

    /// Host and port to tell a peer with an address of this kind; a name suits everybody.
    ///
    /// ISC-064.
    pub fn told(&self, family: Option<Family>) -> (&str, u16) {
        choose((&self.host, self.port), self.also.as_ref(), family)
    }

    /// The same for sessions over TLS.
    pub fn told_secure(&self, family: Option<Family>) -> (&str, u16) {
        choose((&self.tls_at.0, self.tls_at.1), self.tls_also.as_ref(), family)
    }

    /// We may connect to `ip`.
    ///
    /// MS-022 (RFC 4975 §14.5): else a caller could aim our connects at a third party.
    pub fn may_connect(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if !self.connect_allow.is_empty() {
            return self.connect_allow.iter().any(|net| net.contains(&ip));
        }
        if ip.is_loopback() {
            return self.connect_loopback;
        }
        let special = match ip {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !(ip.is_multicast() || ip.is_unspecified() || special)
    }
}

fn choose<'a>(
    first: (&'a str, u16),
    also: Option<&'a (String, u16)>,
    family: Option<Family>,
) -> (&'a str, u16) {
    let suits =
        |host: &str| family.is_none_or(|family| Family::of(host).is_none_or(|own| own == family));
    match also {
        Some((host, port)) if !suits(first.0) && suits(host) => (host, *port),
        _ => first,
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

/// Splits `"10MiB"` into 10 and `MiB`.
fn number(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..unit].parse().ok()?, text[unit..].trim()))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let millis = match Number::deserialize(from)? {
        Number::Plain(seconds) => seconds.checked_mul(1000),
        Number::Text(text) => number(&text).and_then(|(n, unit)| {
            let unit = match unit {
                "ms" => 1,
                "s" | "" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            n.checked_mul(unit)
        }),
    };
    millis.map(Duration::from_millis).ok_or_else(|| de::Error::custom("no duration like \"30s\""))
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let octets = match Number::deserialize(from)? {
        Number::Plain(octets) => Some(octets),
        Number::Text(text) => number(&text).and_then(|(n, unit)| {
            let unit = match unit {
                "" | "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                _ => return None,
            };
            n.checked_mul(unit)
        }),
    };
    octets.ok_or_else(|| de::Error::custom("no size like \"10MiB\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_the_units_operators_write() {
        let text = "tx_timeout = \"5s\"\nbind_timeout = 7\nfull_timeout = \"250ms\"\nchunk_gap_timeout = \"9m\"\n\
                    max_message = \"2MiB\"\nslice = 2048\nsr_policy = \"first_delivery\"";
        let settings: Settings = toml::from_str(text).expect("valid keys");
        assert_eq!(settings.tx_timeout, Duration::from_secs(5));
        assert_eq!(settings.bind_timeout, Duration::from_secs(7));
        assert_eq!(settings.full_timeout, Duration::from_millis(250));
        assert_eq!(settings.chunk_gap_timeout, Duration::from_secs(540));
        assert_eq!(settings.max_message, 2 << 20);
        assert_eq!(settings.slice, 2048);
        assert_eq!(settings.sr_policy, SrPolicy::FirstDelivery);
        for wrong in ["tx_timeout = \"5 parsecs\"", "max_message = \"x\"", "no_such_key = 1"] {
            assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }

    /// Proves ISC-064.
    #[test]
    fn everybody_is_told_an_address_of_his_own_kind() {
        let with = |host: &str, also: Option<&str>| Settings {
            host: host.to_owned(),
            also: also.map(|host| (host.to_owned(), 2856)),
            ..Settings::default()
        };
        let (v4, v6) = (Some(Family::V4), Some(Family::V6));
        for (host, also, family, told) in [
            ("192.0.2.1", Some("2001:db8::1"), v4, ("192.0.2.1", 2855)),
            ("192.0.2.1", Some("2001:db8::1"), v6, ("2001:db8::1", 2856)),
            ("192.0.2.1", Some("2001:db8::1"), None, ("192.0.2.1", 2855)),
            ("2001:db8::1", Some("192.0.2.1"), v4, ("192.0.2.1", 2856)),
            ("2001:db8::1", Some("192.0.2.1"), v6, ("2001:db8::1", 2855)),
            ("192.0.2.1", Some("six.example"), v6, ("six.example", 2856)),
            ("media.example", Some("2001:db8::1"), v6, ("media.example", 2855)),
            ("192.0.2.1", None, v6, ("192.0.2.1", 2855)),
            ("192.0.2.1", Some("192.0.2.2"), v6, ("192.0.2.1", 2855)),
        ] {
            assert_eq!(with(host, also).told(family), told, "{host} {also:?} {family:?}");
        }
    }

    #[test]
    fn only_allowed_networks_are_connected_to() {
        let plain = Settings::default();
        let local = Settings { connect_loopback: true, ..Settings::default() };
        let listed = Settings {
            connect_allow: vec!["10.0.0.0/8".parse().expect("a network")],
            connect_loopback: true,
            ..Settings::default()
        };
        let cases = [
            ("203.0.113.9", [true, true, false]),
            ("10.1.2.3", [true, true, true]),
            ("127.0.0.1", [false, true, false]),
            ("::1", [false, true, false]),
            ("::ffff:127.0.0.1", [false, true, false]),
            ("::ffff:10.1.2.3", [true, true, true]),
            ("169.254.1.1", [false, false, false]),
            ("fe80::1", [false, false, false]),
            ("224.0.0.1", [false, false, false]),
            ("ff02::1", [false, false, false]),
            ("255.255.255.255", [false, false, false]),
            ("0.0.0.0", [false, false, false]),
            ("::", [false, false, false]),
            ("2001:db8::1", [true, true, false]),
        ];
        for (ip, expect) in cases {
            let ip = ip.parse().expect("an address");
            let got = [&plain, &local, &listed].map(|s| s.may_connect(ip));
            assert_eq!(got, expect, "{ip}");
        }
    }
}
