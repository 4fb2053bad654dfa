//! Who is inside the trust domain.
//!
//! Start at [`Trust`]. Which headers live only there is in `boundary`. Follows RFC 3325 and TS 24.229 4.4.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::sip::Flow;

/// The core peers by address, or by the name in the certificate they have shown.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    peers: Vec<IpNet>,
}

impl Trust {
    pub fn new(peers: &[IpNet]) -> Self {
        Self { peers: peers.to_vec() }
    }

    /// Whether requests that came this way are served and their assertions believed: the transport has verified a
    /// certificate with one of the trusted names, or the address is one of the core.
    ///
    /// ISC-001, ISC-017 (TS 24.229 4.4, RFC 3325 §5).
    pub fn admits(&self, flow: &Flow) -> bool {
        flow.vouched || self.holds(flow.peer.ip())
    }

    /// Whether this is an address of the core.
    pub fn holds(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.peers.iter().any(|net| net.contains(&peer))
    }
}

/// Whether a recipient list may travel the way it came.
///
/// UL-035 (RFC 5363 §5.1): on TLS, or inside the trusted core.
pub fn list_is_confidential(trusted: bool, tls: bool, require_tls: bool) -> bool {
    trusted || tls || !require_tls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Protocol;

    /// Proves ISC-001.
    #[test]
    fn peers_are_known_by_network_in_either_address_form() {
        let trust = Trust::new(&[
            "10.1.0.0/16".parse().expect("a network"),
            "2001:db8::/32".parse().expect("a network"),
        ]);
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::9", true),
            ("10.2.0.1", false),
            ("2001:db9::9", false),
        ] {
            assert_eq!(trust.holds(peer.parse().expect("an address")), trusted, "{peer}");
        }
        assert!(!Trust::default().holds(IpAddr::from([127, 0, 0, 1])));
    }

    /// Proves ISC-001, ISC-017.
    #[test]
    fn a_certificate_vouches_where_the_address_does_not() {
        let trust = Trust::new(&["10.1.0.0/16".parse().expect("a network")]);
        for (peer, vouched, trusted) in [
            ("10.1.2.3:5061", false, true),
            ("192.0.2.1:5061", true, true),
            ("192.0.2.1:5061", false, false),
        ] {
            let peer = peer.parse().expect("an address");
            let flow = Flow { protocol: Protocol::Tls, local: peer, peer, connection: 1, vouched };
            assert_eq!(trust.admits(&flow), trusted, "{peer} {vouched}");
        }
    }

    /// Proves UL-035.
    #[test]
    fn lists_from_outside_need_tls_where_the_profile_says_so() {
        for (trusted, tls, require, allowed) in [
            (true, false, true, true),
            (false, true, true, true),
            (false, false, true, false),
            (false, false, false, true),
        ] {
            assert_eq!(list_is_confidential(trusted, tls, require), allowed);
        }
    }
}
