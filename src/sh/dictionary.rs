//! AVPs and commands: numbers, flags and types, in one table each.
//!
//! An [`Def`] is how the rest of `sh` names an AVP: building one takes code, vendor and flags from here, so that no flag
//! is written twice. Sources: RFC 6733 §4.5, 3GPP TS 29.329 table 6.3.1, 3GPP TS 29.229 §6.3, RFC 7683 §7, RFC 7944,
//! RFC 8583.

/// Enterprise number of 3GPP, Vendor-Id of every Sh AVP.
pub const VENDOR_3GPP: u32 = 10415;
/// Application-Id of Sh.
pub const APPLICATION_SH: u32 = 16_777_217;
/// Application-Id of the base commands.
pub const APPLICATION_BASE: u32 = 0;
/// Application-Id a relay announces.
pub const APPLICATION_RELAY: u32 = 0xffff_ffff;

/// Command codes; a request and its answer share one.
pub mod command {
    /// Capabilities-Exchange.
    pub const CAPABILITIES: u32 = 257;
    /// Device-Watchdog.
    pub const WATCHDOG: u32 = 280;
    /// Disconnect-Peer.
    pub const DISCONNECT: u32 = 282;
    /// User-Data, Sh-Pull.
    pub const USER_DATA: u32 = 306;
    /// Profile-Update, Sh-Update.
    pub const PROFILE_UPDATE: u32 = 307;
    /// Subscribe-Notifications, Sh-Subs-Notif.
    pub const SUBSCRIBE: u32 = 308;
    /// Push-Notification, Sh-Notif: the only one the HSS begins.
    pub const PUSH: u32 = 309;

    /// What people call the command, for logs and metrics: `UDR`, `CER` and so on; `other` when we do not know it.
    pub fn name(code: u32) -> &'static str {
        match code {
            CAPABILITIES => "CER",
            WATCHDOG => "DWR",
            DISCONNECT => "DPR",
            USER_DATA => "UDR",
            PROFILE_UPDATE => "PUR",
            SUBSCRIBE => "SNR",
            PUSH => "PNR",
            _ => "other",
        }
    }
}

/// Result-Code values of the base protocol that decide something here.
pub mod result {
    pub const SUCCESS: u32 = 2001;
    pub const COMMAND_UNSUPPORTED: u32 = 3001;
    pub const UNABLE_TO_DELIVER: u32 = 3002;
    pub const REALM_NOT_SERVED: u32 = 3003;
    pub const TOO_BUSY: u32 = 3004;
    pub const LOOP_DETECTED: u32 = 3005;
    pub const REDIRECT_INDICATION: u32 = 3006;
    pub const APPLICATION_UNSUPPORTED: u32 = 3007;
    pub const INVALID_HDR_BITS: u32 = 3008;
    pub const INVALID_AVP_BITS: u32 = 3009;
    pub const UNKNOWN_PEER: u32 = 3010;
    pub const AVP_UNSUPPORTED: u32 = 5001;
    pub const INVALID_AVP_VALUE: u32 = 5004;
    pub const MISSING_AVP: u32 = 5005;
    pub const AVP_NOT_ALLOWED: u32 = 5008;
    pub const AVP_OCCURS_TOO_MANY_TIMES: u32 = 5009;
    pub const NO_COMMON_APPLICATION: u32 = 5010;
    pub const UNABLE_TO_COMPLY: u32 = 5012;
    pub const INVALID_AVP_LENGTH: u32 = 5014;
    pub const NO_COMMON_SECURITY: u32 = 5017;
}

/// Data type of an AVP (RFC 6733 §4.2, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Octets,
    Text,
    /// DiameterIdentity: a host or realm name, compared without regard to case.
    Identity,
    /// DiameterURI, `aaa://host:port;transport=tcp`.
    Uri,
    Address,
    Time,
    /// Unsigned32 and Enumerated, which only differ in what the numbers mean.
    U32,
    U64,
    Grouped,
}

impl Kind {
    /// Fewest octets of data a value of this type has: what a Failed-AVP for a bad length is filled with.
    pub fn least(self) -> usize {
        match self {
            Self::Time | Self::U32 => 4,
            Self::U64 => 8,
            Self::Address => 6,
            Self::Octets | Self::Text | Self::Identity | Self::Uri | Self::Grouped => 0,
        }
    }
}

/// One AVP as its standard defines it.
#[derive(Debug, PartialEq, Eq)]
pub struct Def {
    pub name: &'static str,
    pub code: u32,
    /// `None` is the IETF space.
    pub vendor: Option<u32>,
    /// The M bit when we send it.
    pub mandatory: bool,
    pub kind: Kind,
}

impl Def {
    /// The table's entry, if this is an AVP we understand. Vendor 0 is the IETF space.
    pub fn of(code: u32, vendor: Option<u32>) -> Option<&'static Self> {
        let vendor = vendor.filter(|vendor| *vendor != 0);
        ALL.iter().copied().find(|def| def.code == code && def.vendor == vendor)
    }
}

macro_rules! avps {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:literal, $vendor:expr, $flag:ident, $kind:ident;)*) => {
        $($(#[$doc])* pub const $name: Def =
            Def { name: $text, code: $code, vendor: $vendor, mandatory: avps!($flag), kind: Kind::$kind };)*
        /// Every AVP this application understands.
        pub const ALL: &[&Def] = &[$(&$name),*];
    };
    (M) => { true };
    (m) => { false };
}

const TGPP: Option<u32> = Some(VENDOR_3GPP);

avps! {
    USER_NAME = "User-Name", 1, None, M, Text;
    PROXY_STATE = "Proxy-State", 33, None, M, Octets;
    EVENT_TIMESTAMP = "Event-Timestamp", 55, None, M, Time;
    HOST_IP_ADDRESS = "Host-IP-Address", 257, None, M, Address;
    AUTH_APPLICATION_ID = "Auth-Application-Id", 258, None, M, U32;
    ACCT_APPLICATION_ID = "Acct-Application-Id", 259, None, M, U32;
    VENDOR_SPECIFIC_APPLICATION_ID = "Vendor-Specific-Application-Id", 260, None, M, Grouped;
    REDIRECT_HOST_USAGE = "Redirect-Host-Usage", 261, None, M, U32;
    REDIRECT_MAX_CACHE_TIME = "Redirect-Max-Cache-Time", 262, None, M, U32;
    SESSION_ID = "Session-Id", 263, None, M, Text;
    ORIGIN_HOST = "Origin-Host", 264, None, M, Identity;
    SUPPORTED_VENDOR_ID = "Supported-Vendor-Id", 265, None, M, U32;
    VENDOR_ID = "Vendor-Id", 266, None, M, U32;
    FIRMWARE_REVISION = "Firmware-Revision", 267, None, m, U32;
    RESULT_CODE = "Result-Code", 268, None, M, U32;
    PRODUCT_NAME = "Product-Name", 269, None, m, Text;
    DISCONNECT_CAUSE = "Disconnect-Cause", 273, None, M, U32;
    /// 1 is NO_STATE_MAINTAINED, the only value Sh has.
    AUTH_SESSION_STATE = "Auth-Session-State", 277, None, M, U32;
    ORIGIN_STATE_ID = "Origin-State-Id", 278, None, M, U32;
    FAILED_AVP = "Failed-AVP", 279, None, M, Grouped;
    PROXY_HOST = "Proxy-Host", 280, None, M, Identity;
    ERROR_MESSAGE = "Error-Message", 281, None, m, Text;
    ROUTE_RECORD = "Route-Record", 282, None, M, Identity;
    DESTINATION_REALM = "Destination-Realm", 283, None, M, Identity;
    PROXY_INFO = "Proxy-Info", 284, None, M, Grouped;
    REDIRECT_HOST = "Redirect-Host", 292, None, M, Uri;
    DESTINATION_HOST = "Destination-Host", 293, None, M, Identity;
    ERROR_REPORTING_HOST = "Error-Reporting-Host", 294, None, m, Identity;
    ORIGIN_REALM = "Origin-Realm", 296, None, M, Identity;
    EXPERIMENTAL_RESULT = "Experimental-Result", 297, None, M, Grouped;
    EXPERIMENTAL_RESULT_CODE = "Experimental-Result-Code", 298, None, M, U32;
    INBAND_SECURITY_ID = "Inband-Security-Id", 299, None, M, U32;
    /// Priority of the request, 0 highest to 15 lowest.
    DRMP = "DRMP", 301, None, m, U32;
    OC_SUPPORTED_FEATURES = "OC-Supported-Features", 621, None, m, Grouped;
    OC_FEATURE_VECTOR = "OC-Feature-Vector", 622, None, m, U64;
    OC_OLR = "OC-OLR", 623, None, m, Grouped;
    OC_SEQUENCE_NUMBER = "OC-Sequence-Number", 624, None, m, U64;
    OC_VALIDITY_DURATION = "OC-Validity-Duration", 625, None, m, U32;
    /// 0 host, 1 realm.
    OC_REPORT_TYPE = "OC-Report-Type", 626, None, m, U32;
    OC_REDUCTION_PERCENTAGE = "OC-Reduction-Percentage", 627, None, m, U32;
    SOURCE_ID = "SourceID", 649, None, m, Identity;
    /// In the IETF space; 3GPP's 650 is [`SESSION_PRIORITY`].
    LOAD = "Load", 650, None, m, Grouped;
    LOAD_TYPE = "Load-Type", 651, None, m, U32;
    LOAD_VALUE = "Load-Value", 652, None, m, U64;

    PUBLIC_IDENTITY = "Public-Identity", 601, TGPP, M, Text;
    SERVER_NAME = "Server-Name", 602, TGPP, M, Text;
    /// M only in requests that depend on a feature: see [`super::codec::Avp::require`].
    SUPPORTED_FEATURES = "Supported-Features", 628, TGPP, m, Grouped;
    FEATURE_LIST_ID = "Feature-List-ID", 629, TGPP, m, U32;
    FEATURE_LIST = "Feature-List", 630, TGPP, m, U32;
    SUPPORTED_APPLICATIONS = "Supported-Applications", 631, TGPP, m, Grouped;
    WILDCARDED_PUBLIC_IDENTITY = "Wildcarded-Public-Identity", 634, TGPP, m, Text;
    WILDCARDED_IMPU = "Wildcarded-IMPU", 636, TGPP, m, Text;
    SESSION_PRIORITY = "Session-Priority", 650, TGPP, m, U32;
    USER_IDENTITY = "User-Identity", 700, TGPP, M, Grouped;
    /// TBCD digits.
    MSISDN = "MSISDN", 701, TGPP, M, Octets;
    /// `Sh-Data` as XML.
    USER_DATA = "User-Data", 702, TGPP, M, Octets;
    DATA_REFERENCE = "Data-Reference", 703, TGPP, M, U32;
    SERVICE_INDICATION = "Service-Indication", 704, TGPP, M, Octets;
    /// 0 subscribe, 1 unsubscribe.
    SUBS_REQ_TYPE = "Subs-Req-Type", 705, TGPP, M, U32;
    REQUESTED_DOMAIN = "Requested-Domain", 706, TGPP, M, U32;
    CURRENT_LOCATION = "Current-Location", 707, TGPP, M, U32;
    /// 0 all, 1 registered, 2 implicit, 3 alias identities.
    IDENTITY_SET = "Identity-Set", 708, TGPP, m, U32;
    EXPIRY_TIME = "Expiry-Time", 709, TGPP, m, Time;
    SEND_DATA_INDICATION = "Send-Data-Indication", 710, TGPP, m, U32;
    DSAI_TAG = "DSAI-Tag", 711, TGPP, M, Octets;
    ONE_TIME_NOTIFICATION = "One-Time-Notification", 712, TGPP, m, U32;
    REQUESTED_NODES = "Requested-Nodes", 713, TGPP, m, U32;
    SERVING_NODE_INDICATION = "Serving-Node-Indication", 714, TGPP, m, U32;
    REPOSITORY_DATA_ID = "Repository-Data-ID", 715, TGPP, m, Grouped;
    SEQUENCE_NUMBER = "Sequence-Number", 716, TGPP, m, U32;
    PRE_PAGING_SUPPORTED = "Pre-paging-Supported", 717, TGPP, m, U32;
    LOCAL_TIME_ZONE_INDICATION = "Local-Time-Zone-Indication", 718, TGPP, m, U32;
    UDR_FLAGS = "UDR-Flags", 719, TGPP, m, U32;
    CALL_REFERENCE_INFO = "Call-Reference-Info", 720, TGPP, m, Grouped;
    CALL_REFERENCE_NUMBER = "Call-Reference-Number", 721, TGPP, m, Octets;
    AS_NUMBER = "AS-Number", 722, TGPP, m, Octets;
    EXTERNAL_IDENTIFIER = "External-Identifier", 3111, TGPP, M, Text;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_avp_stands_twice_and_each_is_found() {
        let keys: BTreeSet<_> = ALL.iter().map(|def| (def.code, def.vendor)).collect();
        assert_eq!(keys.len(), ALL.len());
        for def in ALL {
            assert_eq!(Def::of(def.code, def.vendor), Some(*def));
        }
        assert_eq!(Def::of(650, None).map(|def| def.name), Some("Load"));
        assert_eq!(Def::of(650, Some(VENDOR_3GPP)).map(|def| def.name), Some("Session-Priority"));
        assert_eq!(Def::of(264, Some(0)).map(|def| def.name), Some("Origin-Host"));
        assert_eq!(Def::of(264, Some(VENDOR_3GPP)), None);
    }
}
