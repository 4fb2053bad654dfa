//! Where a request came into the network, for logs and policy; never shown to a recipient.
//!
//! Start at [`best`]. Follows RFC 7315 §5.4, TS 24.229 5.7.1.3 and section L of the rules.

use super::syntax::{param, params, split};
use crate::isc::settings::CoreProfile;

/// One P-Access-Network-Info value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// `3GPP-E-UTRAN-FDD`, `3GPP2-1X-HRPD`, `IEEE-802.11`…
    pub kind: &'a str,
    /// The network vouches for it, not the phone.
    pub network_provided: bool,
}

/// The access of a request from a trusted peer: what the network provided wins over what the phone says.
///
/// ISC-032. Any access type is read, those of either core's list or not; a plain core tells none.
pub fn best<'a>(
    values: impl IntoIterator<Item = &'a str>,
    profile: CoreProfile,
) -> Option<Access<'a>> {
    let mut first = None;
    for value in values.into_iter().filter(|_| profile.is_ims()) {
        let kind = split(value, b';').next().unwrap_or(value).trim();
        // The first parameter would be taken for the access where nothing stands before it.
        if kind.is_empty() || params(kind).any(|(_, value)| value.is_some()) {
            continue;
        }
        let access = Access { kind, network_provided: param(value, "network-provided").is_some() };
        if access.network_provided {
            return Some(access);
        }
        first.get_or_insert(access);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves ISC-032.
    #[test]
    fn what_the_network_provides_wins() {
        let lte = "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000A0011A2B";
        let geran = "3GPP-GERAN; cgi-3gpp=1; Network-Provided";
        let cdma = "3GPP2-1X-HRPD;ci-3gpp2=\"1F;network-provided\"";
        let wlan = "IEEE-802.11;i-wlan-node-id=ffff;network-provided";
        for (values, want) in [
            (&[lte][..], Some(("3GPP-E-UTRAN-FDD", false))),
            (&[lte, geran, wlan][..], Some(("3GPP-GERAN", true))),
            (&[cdma, lte][..], Some(("3GPP2-1X-HRPD", false))),
            (&["3GPP2-UMB", wlan][..], Some(("IEEE-802.11", true))),
            (
                &["", ";network-provided", "a=b;network-provided", lte][..],
                Some(("3GPP-E-UTRAN-FDD", false)),
            ),
            (&[][..], None),
        ] {
            for profile in [CoreProfile::Gpp, CoreProfile::Gpp2] {
                let access = best(values.iter().copied(), profile);
                let access = access.map(|access| (access.kind, access.network_provided));
                assert_eq!(access, want, "{values:?}");
            }
            assert_eq!(best(values.iter().copied(), CoreProfile::SipIp), None);
        }
    }
}
