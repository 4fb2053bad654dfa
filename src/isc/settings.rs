//! What operators choose about ISC and the OMA rules, in the names of the configuration and the profile.
//!
//! Start at [`Settings`]. `Default` is the profile `3gpp` on loopback. The profile and configuration loaders fill these
//! structures; nothing here reads a file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::content::fingerprint::Terms;
use crate::content::resource_lists::BccMode;
use crate::content::sdp::{AcceptTypes, Families, Tls};
use crate::sip::digest::{Algorithm, Ha1};

/// Which core the server stands behind: decides the header rules of a call (IM-018).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CoreProfile {
    /// 3GPP TS 24.229.
    #[default]
    #[serde(rename = "3gpp")]
    Gpp,
    /// 3GPP2 X.S0013-004.
    #[serde(rename = "3gpp2")]
    Gpp2,
    /// A plain SIP core: none of the IMS headers.
    #[serde(rename = "sipip")]
    SipIp,
}

impl CoreProfile {
    /// Whether the core speaks IMS: P-headers, ODI, `orig`.
    pub fn is_ims(self) -> bool {
        !matches!(self, Self::SipIp)
    }
}

/// Everything `isc` obeys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `core` at the top of a profile.
    pub profile: CoreProfile,
    /// `[sip]` of the configuration, as far as `isc` looks at it.
    pub sip: Sip,
    /// `[core]` of the configuration.
    pub core: Core,
    /// `[service]` of the configuration.
    pub service: Service,
    /// `im.*` of the profile.
    pub im: Im,
    /// `isc.*` of the profile.
    pub isc: IscKeys,
    /// `ul.*` of the profile.
    pub ul: Ul,
    /// The bounds of short pages; no profile changes them yet.
    pub pager: Pager,
    /// What the media plane serves.
    pub media: Media,
    /// Changes of documents.
    pub documents: Documents,
    /// `[auth] realm`: credentials for it are ours and go no further (UL-029).
    pub realm: String,
    /// `[auth]`, the rest of it: who may come without the core's word.
    #[serde(skip)]
    pub auth: Auth,
}

/// SIP Digest with users who come without a core (profile `sipip`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// By the user name of their credentials. Empty: nobody is challenged.
    pub users: Arc<BTreeMap<String, Account>>,
    /// How long a nonce is good.
    pub nonce_life: Duration,
    /// Wrong credentials of one source in a minute; then it is refused.
    pub max_failures: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self { users: Arc::default(), nonce_life: Duration::from_secs(300), max_failures: 20 }
    }
}

impl Auth {
    /// What challenges offer, the best first (RFC 8760 §2.3): only what every user can answer.
    pub fn offered(&self) -> impl Iterator<Item = Algorithm> {
        [Algorithm::Sha256, Algorithm::Md5].into_iter().filter(|algorithm| {
            let mut users = self.users.values();
            !self.users.is_empty() && users.all(|user| user.ha1.contains_key(algorithm))
        })
    }
}

/// One user with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub ha1: BTreeMap<Algorithm, Ha1>,
    /// Public identities the user may speak as, the usual one first. Never empty.
    pub identities: Vec<String>,
}

/// IM-078: which recipients are offered TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferTls {
    /// Those of pages that come over TLS.
    #[default]
    AsOriginator,
    Always,
}

/// IM-078: what becomes of a recipient that takes no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsDowngrade {
    /// It gets nothing.
    #[default]
    Deny,
    /// It is asked once more, without.
    Allow,
}

impl Media {
    /// Recipients of a page that came over TLS or not are offered TLS.
    ///
    /// IM-078.
    pub fn secures(&self, origin: bool) -> bool {
        self.tls.is_some() && (origin || self.offer_tls == OfferTls::Always)
    }

    /// What peers over TLS may prove themselves with.
    pub fn terms(&self) -> Terms {
        self.tls.unwrap_or_default().terms
    }
}

/// What offers and answers say of the media plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// `msrp.attribution`
    pub attribution: Attribution,
    /// `msrp.cema`: offered and taken (MS-026, MS-027).
    pub cema: bool,
    /// Content types we take.
    #[serde(skip)]
    pub accept: AcceptTypes,
    /// Kinds of addresses MSRP can be reached at.
    #[serde(skip)]
    pub families: Families,
    /// How MSRP over TLS is served, if it is.
    #[serde(skip)]
    pub tls: Option<Tls>,
    /// `im.tls`
    pub offer_tls: OfferTls,
    /// `im.tls_downgrade`
    pub tls_downgrade: TlsDowngrade,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            attribution: Attribution::Many,
            cema: true,
            accept: AcceptTypes::default(),
            families: Families::default(),
            tls: None,
            offer_tls: OfferTls::default(),
            tls_downgrade: TlsDowngrade::default(),
        }
    }
}

/// Notification of changes in documents (XD-040 to XD-043).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Documents {
    /// `xdms.sip` of an XDMS elsewhere, which is asked to tell; empty: none.
    pub follow: String,
    /// `xdms.sip` of the XDMS in this process, which tells; empty: it does not.
    pub serve: String,
    /// The XCAP root without trailing slash.
    pub root: String,
    /// As whom an XDMS elsewhere is asked (XD-013).
    pub identity: String,
    /// Most subscriptions one thread serves.
    pub max_subscriptions: usize,
    /// Most documents of one subscription, of either direction.
    pub max_entries: usize,
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            follow: String::new(),
            serve: String::new(),
            root: "http://127.0.0.1:8080/xcap-root".to_owned(),
            identity: "sip:127.0.0.1:5090".to_owned(),
            max_subscriptions: 1000,
            max_entries: 1000,
        }
    }
}

/// Which pages say in CPIM who sent them (MS-020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// To a group or to more than one recipient.
    #[default]
    Many,
    /// To a group.
    Group,
    Never,
}

/// Who we are on SIP and whom we trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sip {
    /// The AS's own URI, as the filter criteria name it.
    pub uri: String,
    /// Other names for us in Route and Request-URI: URIs or `host[:port]`.
    pub aliases: Vec<String>,
    /// Networks of the core peers (ISC-001).
    pub trusted_peers: Vec<IpNet>,
    /// `host:port` for Contact; empty: that of `uri`.
    pub advertise: String,
    /// We listen for TLS, so that a sips Contact leads to us.
    pub secure: bool,
    /// `host:port` as others are told it, for each protocol and address family: all of them are us.
    pub told: Vec<String>,
}

impl Default for Sip {
    fn default() -> Self {
        Self {
            uri: "sip:127.0.0.1:5090".to_owned(),
            aliases: Vec::new(),
            trusted_peers: vec![IpNet::V4(
                ipnet::Ipv4Net::new(std::net::Ipv4Addr::LOCALHOST, 8)
                    .expect("8 is a prefix length of IPv4"),
            )],
            advertise: String::new(),
            secure: false,
            told: Vec::new(),
        }
    }
}

/// The neighbours in the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Core {
    /// Used where neither a registration nor the request's Route names the S-CSCF (ISC-058).
    pub scscf: String,
    /// Entry point of the network; empty: `scscf` stands in.
    pub icscf: String,
    /// Profile `sipip`: where requests go; empty: RFC 3263 on the Request-URI.
    pub outbound_proxy: String,
    /// Neighbours outside the trust domain: addresses, CIDR blocks, domains (ISC-073, ISC-074).
    pub untrusted_hops: Vec<String>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            scscf: "sip:127.0.0.1:5060".to_owned(),
            icscf: String::new(),
            outbound_proxy: String::new(),
            untrusted_hops: Vec::new(),
        }
    }
}

/// What the server serves, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// PSIs that expand URI-lists.
    pub factories: Vec<String>,
    /// Our own domains besides that of our URI (ISC-031).
    pub home_domains: Vec<String>,
    /// Hosts whose every SIP URI is an IM Group Identity.
    pub group_domains: Vec<String>,
    /// Single group identities elsewhere.
    pub groups: Vec<String>,
    /// Who may use the service; empty: every asserted identity.
    pub subscribers: Vec<String>,
    /// Who may not.
    pub barred: Vec<String>,
}

/// Whose name a fan-out carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    #[default]
    Originator,
    /// The PSI or group identity.
    Service,
}

/// What happens to a request that carries neither messaging feature tag (IM-025).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultMode {
    #[default]
    Reject,
    Large,
}

/// How a refused anonymous request is answered (IM-022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnonReject {
    /// 403 with a Warning.
    #[default]
    Oma,
    /// 433 (RFC 5079).
    Rfc,
}

/// Who refreshes the session, where we say so (IM-045).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresher {
    /// No `refresher` parameter.
    #[default]
    Omit,
    Uac,
    Uas,
}

/// `im.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Im {
    /// Release in the product token (IM-044).
    pub release: String,
    /// Vendor and version behind the product token.
    pub vendor: String,
    /// Refuse peers whose token names another OMA release (IM-044).
    pub strict_release: bool,
    /// `require;explicit` or nothing, appended to Accept-Contact (IM-041).
    pub accept_contact_params: String,
    pub pai_source: Source,
    pub from_source: Source,
    pub large: Large,
    /// Most recipients of one list (IM-032).
    pub max_recipients: usize,
    pub anon_reject: AnonReject,
    pub refresher: Refresher,
    /// OMA number inside the Warning text.
    pub warning_numbers: bool,
    pub default_mode: DefaultMode,
    /// Service identifier; counts as the large-message tag and is asserted on legs (IM-049, ISC-036).
    pub icsi: String,
    /// Session-Expires we ask for, in seconds (IM-045).
    pub session_expires: u32,
    /// Header fields copied from the originator's INVITE to every leg, besides the fixed ones (IM-048).
    pub pass_through: Vec<String>,
    /// Try a leg once more where a changed request may succeed (IM-062).
    pub retry: bool,
    /// Follow one redirection of a leg (ISC-070).
    pub recurse_3xx: bool,
}

impl Default for Im {
    fn default() -> Self {
        Self {
            release: "1.0".to_owned(),
            vendor: concat!("pagecast/", env!("CARGO_PKG_VERSION")).to_owned(),
            strict_release: false,
            accept_contact_params: String::new(),
            pai_source: Source::Originator,
            from_source: Source::Originator,
            large: Large::default(),
            max_recipients: 50,
            anon_reject: AnonReject::Oma,
            refresher: Refresher::Omit,
            warning_numbers: true,
            default_mode: DefaultMode::Reject,
            icsi: String::new(),
            session_expires: 1800,
            pass_through: vec!["Conversation-ID".to_owned(), "Contribution-ID".to_owned()],
            retry: true,
            recurse_3xx: false,
        }
    }
}

/// `im.large.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Large {
    /// `isfocus` in the Contact of large-message legs (IM-042).
    pub isfocus: bool,
    /// Largest complete page in octets (IM-030).
    pub max_size: u64,
    /// That bound is `msrp.max_message`, the smaller of the two keys.
    #[serde(skip)]
    pub by_msrp: bool,
    /// Session-Expires on large-message legs (IM-045).
    pub session_timer: bool,
}

impl Default for Large {
    fn default() -> Self {
        Self { isfocus: true, max_size: 10 * 1024 * 1024, by_msrp: false, session_timer: true }
    }
}

/// Which way the fan-out leaves (ISC-012).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FanoutRoute {
    /// A new originating request through the originator's S-CSCF.
    #[default]
    OrigScscf,
    /// The remaining Route of the originator's request, while it is valid.
    Odi,
    /// In the name of the PSI.
    Psi,
    /// Straight to the terminating case.
    TermIcscf,
}

/// Where requests in the name of a PSI go (ISC-010).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PsiRoute {
    #[default]
    Icscf,
    Scscf,
}

/// What two P-Served-User values in one request mean (ISC-019).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManyServedUsers {
    #[default]
    Reject,
    /// The topmost counts.
    First,
}

/// When our requests carry P-Served-User (ISC-022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendPsu {
    #[default]
    Always,
    /// Only if the served user is not the first asserted identity.
    IfDiffers,
    Never,
}

/// How a request that is only on its way through us passes (TS 24.229 5.7.4, 5.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// As through a stateless proxy.
    #[default]
    Proxy,
    /// As a new dialog derived from the one that came.
    B2bua,
}

/// `isc.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IscKeys {
    pub fanout_route: FanoutRoute,
    pub psi_route: PsiRoute,
    pub many_served_users: ManyServedUsers,
    pub send_psu: SendPsu,
    /// `related-icid` with the originator's icid on new legs (ISC-028).
    pub related_icid: bool,
    /// Accept `Require: precondition` (ISC-063).
    pub preconditions: bool,
    /// What stands before the operator in an IOI of type 3 (ISC-029).
    pub ioi_prefix: String,
    /// Our operator in IOI values; empty: as the core names it, else the domain of our URI.
    pub operator: String,
    /// Read and assert P-Asserted-Service (ISC-034).
    pub asserted_service: bool,
    /// A registration lasts this much longer than its expiry (ISC-045).
    pub reg_grace: Duration,
    /// Subscribe to the registration state of users whose third-party REGISTER comes here (ISC-047).
    pub reg_event: bool,
    /// `fe` of Response-Source in our refusals; empty: none (ISC-076).
    pub response_source: String,
    /// How what is not for us passes (ISC-053).
    pub relay: Relay,
    /// A relayed call without messages for so long is ended.
    pub relay_lifetime: Duration,
}

impl Default for IscKeys {
    fn default() -> Self {
        Self {
            fanout_route: FanoutRoute::OrigScscf,
            psi_route: PsiRoute::Icscf,
            many_served_users: ManyServedUsers::Reject,
            send_psu: SendPsu::Always,
            related_icid: false,
            preconditions: false,
            ioi_prefix: "Type 3".to_owned(),
            operator: String::new(),
            asserted_service: true,
            reg_grace: Duration::from_secs(60),
            reg_event: false,
            response_source: String::new(),
            relay: Relay::Proxy,
            relay_lifetime: Duration::from_secs(86_400),
        }
    }
}

/// `ul.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ul {
    /// Most distinct entries of one list (UL-020).
    pub max_entries: usize,
    /// Most octets of one list part (UL-020).
    pub max_bytes: usize,
    /// Insist on the option tag, the disposition and the namespace (UL-002, UL-007, UL-018).
    pub require_strict: bool,
    pub bcc_mode: BccMode,
    /// `tel:+N` and `sip:+N@home;user=phone` are one recipient (UL-011).
    pub normalise_tel: bool,
    /// Lists from peers outside the trusted core only over TLS (UL-035).
    pub require_tls: bool,
}

impl Default for Ul {
    fn default() -> Self {
        Self {
            max_entries: 50,
            max_bytes: 65_536,
            require_strict: false,
            bcc_mode: BccMode::Remove,
            normalise_tel: true,
            require_tls: true,
        }
    }
}

/// What the size of a short page is measured by (IM-079).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeBasis {
    /// The whole SIP request (RFC 3428 §8).
    Request,
    /// What it says, without the list.
    #[default]
    Body,
}

/// How a short page that is too large is refused (IM-079).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SizeReject {
    #[default]
    #[serde(rename = "413")]
    TooLarge,
    /// With a Warning, as OMA has it.
    #[serde(rename = "403")]
    Forbidden,
}

/// The bounds of short pages (IM-079).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pager {
    /// Largest short page in octets, as it comes and as it leaves (IM-079).
    pub max_size: usize,
    pub size_basis: SizeBasis,
    pub size_reject: SizeReject,
    /// Every hop controls congestion: what leaves may be longer, and what comes over TCP or TLS (IM-079).
    pub safe_path: bool,
}

impl Default for Pager {
    fn default() -> Self {
        Self {
            max_size: 1300,
            size_basis: SizeBasis::Body,
            size_reject: SizeReject::TooLarge,
            safe_path: false,
        }
    }
}

impl Settings {
    /// The defaults of one core profile (TS 24.229 checklist, section L).
    pub fn of(profile: CoreProfile) -> Self {
        let mut settings = Self { profile, ..Self::default() };
        match profile {
            CoreProfile::Gpp => {}
            CoreProfile::Gpp2 => {
                settings.isc.ioi_prefix = String::new();
                settings.isc.send_psu = SendPsu::Never;
                settings.isc.asserted_service = false;
            }
            CoreProfile::SipIp => settings.im.default_mode = DefaultMode::Large,
        }
        settings
    }
}
