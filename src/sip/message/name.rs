//! Header names: the ones this server looks for have a number, all others are compared as text.

/// Declares [`Name`] together with its spellings, so that no name can be in one list and miss in another.
macro_rules! names {
    ($($variant:ident = $long:literal $(, $compact:literal)? ;)+) => {
        /// A header name. Known ones are found by number; [`Name::Other`] compares as text, case-insensitively.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Name { $($variant,)+ Other(&'static str) }

        /// The numbers: positions in [`LONG`].
        enum Number { $($variant),+ }

        impl Name {
            pub(super) const fn number(self) -> u8 {
                match self {
                    $(Self::$variant => Number::$variant as u8,)+
                    Self::Other(_) => UNKNOWN,
                }
            }
        }

        /// The long form of every known name; the position is the number.
        const LONG: &[&str] = &[$($long),+];
        const KNOWN: &[Name] = &[$(Name::$variant),+];
        /// Compact forms (RFC 3261 §7.3.3 and the registry) with their names.
        const COMPACT: &[(u8, Name)] = &[$($(($compact, Name::$variant),)?)+];
    };
}

names! {
    Via = "Via", b'v';
    From = "From", b'f';
    To = "To", b't';
    CallId = "Call-ID", b'i';
    CSeq = "CSeq";
    Contact = "Contact", b'm';
    MaxForwards = "Max-Forwards";
    Route = "Route";
    RecordRoute = "Record-Route";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Supported = "Supported", b'k';
    Unsupported = "Unsupported";
    Allow = "Allow";
    AllowEvents = "Allow-Events", b'u';
    Accept = "Accept";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AcceptContact = "Accept-Contact", b'a';
    RejectContact = "Reject-Contact", b'j';
    RequestDisposition = "Request-Disposition", b'd';
    Expires = "Expires";
    MinExpires = "Min-Expires";
    MinSe = "Min-SE";
    SessionExpires = "Session-Expires", b'x';
    RSeq = "RSeq";
    RAck = "RAck";
    Reason = "Reason";
    Warning = "Warning";
    RetryAfter = "Retry-After";
    Server = "Server";
    UserAgent = "User-Agent";
    ContentType = "Content-Type", b'c';
    ContentLength = "Content-Length", b'l';
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding", b'e';
    ContentLanguage = "Content-Language";
    ContentId = "Content-ID";
    MimeVersion = "MIME-Version";
    Subject = "Subject", b's';
    Priority = "Priority";
    Date = "Date";
    Timestamp = "Timestamp";
    Organization = "Organization";
    Event = "Event", b'o';
    SubscriptionState = "Subscription-State";
    ReferTo = "Refer-To", b'r';
    ReferredBy = "Referred-By", b'b';
    Replaces = "Replaces";
    InReplyTo = "In-Reply-To";
    ReplyTo = "Reply-To";
    Privacy = "Privacy";
    Path = "Path";
    ServiceRoute = "Service-Route";
    HistoryInfo = "History-Info";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    PServedUser = "P-Served-User";
    PChargingVector = "P-Charging-Vector";
    PChargingFunctionAddresses = "P-Charging-Function-Addresses";
    PAccessNetworkInfo = "P-Access-Network-Info";
    PVisitedNetworkId = "P-Visited-Network-ID";
    PCalledPartyId = "P-Called-Party-ID";
    PAssociatedUri = "P-Associated-URI";
    PAssertedService = "P-Asserted-Service";
    PPreferredService = "P-Preferred-Service";
    PProfileKey = "P-Profile-Key";
    PUserDatabase = "P-User-Database";
    PEarlyMedia = "P-Early-Media";
    ResourcePriority = "Resource-Priority";
    FeatureCaps = "Feature-Caps";
    ConversationId = "Conversation-ID";
    ContributionId = "Contribution-ID";
}

/// The number of a name that is in no list.
pub(super) const UNKNOWN: u8 = u8::MAX;
const SLOTS: usize = 256;
/// Open addressing over [`bucket`]; `UNKNOWN` is an empty slot. Built at compile time.
const TABLE: [u8; SLOTS] = {
    let mut table = [UNKNOWN; SLOTS];
    let mut at = 0;
    while at < LONG.len() {
        let mut slot = bucket(LONG[at].as_bytes());
        while table[slot] != UNKNOWN {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = at as u8;
        at += 1;
    }
    table
};

const fn bucket(name: &[u8]) -> usize {
    let first = (name[0] | 0x20) as usize;
    let last = (name[name.len() - 1] | 0x20) as usize;
    let middle = (name[name.len() / 2] | 0x20) as usize;
    (first * 7 + last * 31 + middle * 13 + name.len() * 67) % SLOTS
}

/// The number of a name as it stands on the wire, [`UNKNOWN`] for names without one.
pub(super) fn number(name: &[u8]) -> u8 {
    match name {
        [] => UNKNOWN,
        [letter] => {
            let letter = letter.to_ascii_lowercase();
            COMPACT
                .iter()
                .find(|(compact, _)| *compact == letter)
                .map_or(UNKNOWN, |(_, name)| name.number())
        }
        _ => {
            let mut slot = bucket(name);
            while TABLE[slot] != UNKNOWN {
                let candidate = TABLE[slot];
                if LONG[candidate as usize].as_bytes().eq_ignore_ascii_case(name) {
                    return candidate;
                }
                slot = (slot + 1) % SLOTS;
            }
            UNKNOWN
        }
    }
}

impl Name {
    /// The name as we write it: always the long form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Other(text) => text,
            known => LONG[known.number() as usize],
        }
    }

    /// The known name of a header as received (long or compact, any case).
    pub fn known(name: &[u8]) -> Option<Self> {
        KNOWN.get(number(name) as usize).copied()
    }
}
