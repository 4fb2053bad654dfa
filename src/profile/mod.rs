//! The operator's choices: what operators differ in, as data.
//!
//! A profile is a TOML file; `extends` takes another one and changes what it names, over any number of steps but never
//! in a circle. [`Profile::load`] gives the typed values and, for `check`, every key with the file it came from. Each
//! module keeps its own settings type and obeys only that; `config::settings` builds those from here. Only keys that
//! are obeyed exist: every other is refused at load, those of later versions with a word about it.
//! The keys are those of the rule lists (OMA-IM 0.2, MSRP 0.3, URI lists, AS on ISC); defaults are those of `3gpp.toml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::layer::{ConfigError, Environment, Layer, Origin, Reader, Setting, resolve};
use crate::config::value::{Peers, Rate, Size, choice};
use crate::content::resource_lists::BccMode;
use crate::engine::policy::{
    DeferCause, Deferral, FailMap, OriginatorAnswer, SrPolicy, WhenNoneJoined,
};
use crate::isc::settings::{
    AnonReject, Attribution, CoreProfile, DefaultMode, FanoutRoute, ManyServedUsers, OfferTls,
    PsiRoute, Refresher, Relay, SendPsu, Source, TlsDowngrade,
};
use crate::xdms::Consent;
use crate::xdms::ut::http::AssertedHeader;
use crate::xdms::ut::url::Url;

/// XD-033: who may send to a group without rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsentRuleset {
    Deny,
    Members,
}

choice!(CoreProfile { Gpp = "3gpp", Gpp2 = "3gpp2", SipIp = "sipip" });
choice!(Source { Originator = "originator", Service = "service" });
choice!(AnonReject { Oma = "oma", Rfc = "rfc" });
choice!(Refresher { Omit = "omit", Uac = "uac", Uas = "uas" });
choice!(DefaultMode { Reject = "reject", Large = "large" });
choice!(PsiRoute { Icscf = "icscf", Scscf = "scscf" });
choice!(FanoutRoute {
    OrigScscf = "orig_scscf",
    Odi = "odi",
    Psi = "psi",
    TermIcscf = "term_icscf",
});
choice!(ManyServedUsers { Reject = "reject", First = "first" });
choice!(Relay { Proxy = "proxy", B2bua = "b2bua" });
choice!(SendPsu { Always = "always", IfDiffers = "if_differs", Never = "never" });
choice!(Attribution { Many = "many", Group = "group", Never = "never" });
choice!(OfferTls { AsOriginator = "as_originator", Always = "always" });
choice!(TlsDowngrade { Deny = "deny", Allow = "allow" });
choice!(AbsentRuleset { Deny = "deny", Members = "members" });
choice!(AssertedHeader { Gpp = "X-3GPP-Asserted-Identity", Oma = "X-XCAP-Asserted-Identity" });
choice!(Consent { Static = "static", Off = "off", Rfc5360 = "rfc5360" });
choice!(BccMode { Remove = "remove", KeepOwn = "keep_own" });
choice!(OriginatorAnswer { First200 = "first_200", Immediate = "immediate" });
choice!(WhenNoneJoined { Refuse = "refuse", Accept = "accept" });
choice!(FailMap { Safe = "safe", Plain = "plain" });
choice!(SrPolicy { Switch = "switch", FirstDelivery = "first_delivery" });

/// Declares one section: a field, its key, its default, and bounds where it has them. What stands before the field is
/// what `check --explain` says of the key.
macro_rules! section {
    ($(#[$about:meta])* $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $key:literal, $default:expr $(, $least:expr => $most:expr)?;)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl $name {
            /// What each key does.
            const ABOUT: &[(&str, &str)] = &[$(($key, concat!($($doc),+))),+];

            fn read(r: &mut Reader) -> Result<Self, ConfigError> {
                Ok(Self { $($field: section!(@take r, $key, $default $(, $least => $most)?),)+ })
            }
        }
    };
    (@take $r:ident, $key:literal, $default:expr) => { $r.take($key, $default)? };
    (@take $r:ident, $key:literal, $default:expr, $least:expr => $most:expr) => {
        $r.take_within($key, $default, $least, $most)?
    };
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

const DAY: Duration = secs(86_400);

section! {
    /// `im.*`
    Im {
        /// OMA release in the product token of User-Agent and Server (IM-044).
        release: String = "im.release", "1.0".to_owned();
        /// Refuse peers whose product token names another OMA release (IM-044).
        strict_release: bool = "im.strict_release", false;
        /// Appended to the Accept-Contact of legs: nothing, or `require;explicit` (IM-041).
        accept_contact_params: String = "im.accept_contact_params", String::new();
        /// When the originator hears 200: with the first recipient that joined, or at once (IM-051).
        originator_answer: OriginatorAnswer = "im.originator_answer", OriginatorAnswer::First200;
        /// Whose identity legs assert: the originator's, or that of the PSI or group (IM-039).
        pai_source: Source = "im.pai_source", Source::Originator;
        /// Who stands in From of legs: the originator, or the PSI or group (IM-038).
        from_source: Source = "im.from_source", Source::Originator;
        /// `isfocus` in the Contact of large-message sessions (IM-042).
        large_isfocus: bool = "im.large.isfocus", true;
        /// Largest complete page in octets; with `msrp.max_message` the smaller counts (IM-030).
        large_max_size: Size = "im.large.max_size", Size::mib(10), Size(1) => Size::mib(65_536);
        /// Service identifier that counts as the large-message tag and is asserted on legs; empty: none (IM-049, ISC-036).
        icsi: String = "im.icsi", String::new();
        /// Header fields copied to every leg besides the fixed ones (IM-048).
        pass_through: Vec<String> = "im.pass_through", vec!["Conversation-ID".to_owned(), "Contribution-ID".to_owned()];
        /// Ask for a session timer on large messages (IM-045).
        large_session_timer: bool = "im.large.session_timer", true;
        /// What an INVITE without a messaging feature tag is: refused, or a large message (IM-025).
        default_mode: DefaultMode = "im.default_mode", DefaultMode::Reject;
        /// Most recipients of one list; with `ul.max_entries` the smaller counts (IM-032).
        max_recipients: u16 = "im.max_recipients", 50, 1 => 10_000;
        /// Most members of one group after flattening (XD-026).
        max_members: u16 = "im.max_members", 1000, 1 => 10_000;
        /// A recipient without a final answer is given up after this time (IM-061).
        leg_timeout: Duration = "im.leg_timeout", secs(120), secs(1) => secs(3600);
        /// How a refused anonymous page is answered: 403 with a Warning, or 433 (IM-022).
        anon_reject: AnonReject = "im.anon_reject", AnonReject::Oma;
        /// Try a recipient that is elsewhere (3xx) there, once, where a list might name it (ISC-070).
        recurse_3xx: bool = "im.recurse_3xx", false;
        /// What the originator hears when nobody took the page: never 408 or 5xx, or the recipient's own code (IM-057).
        fail_map: FailMap = "im.fail_map", FailMap::Safe;
        /// Who refreshes the session, in the Session-Expires we send; `omit` leaves it open (IM-045).
        refresher: Refresher = "im.refresher", Refresher::Omit;
        /// Session-Expires we ask for; RFC 4028 allows no less than 90 s (IM-045).
        session_expires: Duration = "im.session_expires", secs(1800), secs(90) => DAY;
        /// The three-digit OMA number inside Warning texts (UL-036).
        warning_numbers: bool = "im.warning_numbers", true;
        /// How long the originator's own BYE is awaited after the page is whole (IM-064).
        originator_bye_timeout: Duration = "im.originator_bye_timeout", secs(30), secs(0) => secs(3600);
        /// First 183 at the latest, while the recipients are still being found out (IM-020).
        progress_after: Duration = "im.progress_after", millis(500), secs(0) => millis(1500);
        /// Recipients the HSS says are not registered are not invited (Sh; ISC-059).
        check_registration: bool = "im.check_registration", false;
        /// Recipients who are offered MSRP over TLS: those of pages that come over TLS, or all (IM-078).
        tls: OfferTls = "im.tls", OfferTls::AsOriginator;
        /// A recipient that refuses TLS gets nothing, or is asked once more without (IM-078).
        tls_downgrade: TlsDowngrade = "im.tls_downgrade", TlsDowngrade::Deny;
        /// Pages one user may have running (IM-036).
        max_parallel_per_user: u32 = "im.max_parallel_per_user", 20, 1 => 1_000_000;
        /// Pages one user may start in a second (IM-036).
        max_rate_per_user: Rate = "im.max_rate_per_user", Rate::per_second(10);
    }
}

section! {
    /// `isc.*`
    Isc {
        /// Where requests in the name of a PSI go: to the I-CSCF, or to the S-CSCF with `orig` (ISC-010).
        psi_route: PsiRoute = "isc.psi_route", PsiRoute::Icscf;
        /// Which way legs leave: by the originator's S-CSCF, by the received Route, as the PSI, or to the I-CSCF (ISC-012).
        fanout_route: FanoutRoute = "isc.fanout_route", FanoutRoute::OrigScscf;
        /// Two P-Served-User values in one request: refused, or the topmost counts (ISC-019).
        many_served_users: ManyServedUsers = "isc.many_served_users", ManyServedUsers::Reject;
        /// When legs carry P-Served-User; `never` does not read it either (ISC-022).
        send_psu: SendPsu = "isc.send_psu", SendPsu::Always;
        /// Legs name the icid of the originator's INVITE (ISC-028).
        related_icid: bool = "isc.related_icid", false;
        /// `Require: precondition` is accepted (ISC-063).
        preconditions: bool = "isc.preconditions", false;
        /// What stands before the operator in an IOI (ISC-029).
        ioi_prefix: String = "isc.ioi_prefix", "Type 3".to_owned();
        /// Our operator in IOI values; empty: as the core names it, else the domain of our URI (ISC-029).
        operator: String = "isc.operator", String::new();
        /// P-Asserted-Service is read and sent (ISC-034).
        asserted_service: bool = "isc.asserted_service", true;
        /// A registration lasts this much longer than its expiry (ISC-045).
        reg_grace: Duration = "isc.reg_grace", secs(60), secs(0) => secs(86_400);
        /// Subscribe to the registration state of users whose third-party REGISTER comes here (ISC-047).
        reg_event: bool = "isc.reg_event", false;
        /// `fe` of Response-Source in our refusals; empty: none (ISC-076).
        response_source: String = "isc.response_source", String::new();
        /// How what is for a single user passes: as through a proxy, or as a new dialog (ISC-053).
        relay: Relay = "isc.relay", Relay::Proxy;
        /// A relayed call without any message for so long is ended (ISC-053).
        relay_lifetime: Duration = "isc.relay_lifetime", DAY, secs(60) => secs(7 * 86_400);
    }
}

section! {
    /// `sip.*`: the timers of RFC 3261 §17 (ISC-065).
    SipTimers {
        /// T1 of RFC 3261: estimated round trip, first interval of retransmissions (ISC-065).
        t1: Duration = "sip.t1", millis(500), millis(10) => secs(10);
        /// T2 of RFC 3261: longest interval of retransmissions (ISC-065).
        t2: Duration = "sip.t2", secs(4), millis(10) => secs(60);
        /// T4 of RFC 3261: how long a finished exchange over UDP is remembered (ISC-065).
        t4: Duration = "sip.t4", secs(5), millis(10) => secs(60);
    }
}

section! {
    /// `msrp.*`
    Msrp {
        /// From the last octet of a SEND to its response (MS-077).
        tx_timeout: Duration = "msrp.tx_timeout", secs(30), millis(100) => secs(600);
        /// Until a session is bound to a connection (MS-035).
        bind_timeout: Duration = "msrp.bind_timeout", secs(30), millis(100) => secs(600);
        /// Longest silence of a sender in the middle of a page (MS-064).
        chunk_gap_timeout: Duration = "msrp.chunk_gap_timeout", secs(540), millis(100) => DAY;
        /// Largest page that is taken, in octets; with `im.large.max_size` the smaller counts (MS-017).
        max_message: Size = "msrp.max_message", Size::mib(10), Size(1) => Size::mib(65_536);
        /// Largest header section of an MSRP request, in octets (MS-113).
        max_header_section: Size = "msrp.max_header_section", Size::kib(16), Size::kib(1) => Size::mib(1);
        /// A recipient that takes no octet for this time is given up (MS-091).
        leg_stall_timeout: Duration = "msrp.leg_stall_timeout", secs(120), millis(100) => DAY;
        /// From the first octet of a page to forced clean-up (MS-110).
        page_deadline: Duration = "msrp.page_deadline", secs(600), millis(100) => DAY;
        /// Between the last MSRP response of a leg and its BYE (MS-108).
        drain_after_end: Duration = "msrp.drain_after_end", secs(5), secs(0) => secs(600);
        /// How long a connection without a session stays open (MS-038).
        conn_linger: Duration = "msrp.conn_linger", secs(10), secs(0) => secs(3600);
        /// Which pages name their sender in CPIM: to groups and to more than one, to groups, or none (MS-020).
        attribution: Attribution = "msrp.attribution", Attribution::Many;
        /// CEMA is offered and taken: media goes to the address of `c=` and `m=`, which a border may change (MS-026, MS-027).
        cema: bool = "msrp.cema", true;
        /// Recipients get nothing before the page is whole (MS-086).
        store_and_forward: bool = "msrp.store_and_forward", false;
        /// When the originator's success REPORT is due: when the page is here, or when one recipient has it (MS-089).
        sr_policy: SrPolicy = "msrp.sr_policy", SrPolicy::Switch;
        /// Incoming MSRP connections of the node (MS-115).
        max_connections: u32 = "msrp.max_connections", 20_000, 1 => 1_000_000;
        /// Incoming MSRP connections of one peer address; 0: no limit (MS-115).
        max_connections_per_ip: u32 = "msrp.max_connections_per_ip", 0;
        /// Incoming MSRP connections nothing is bound to yet (MS-115).
        max_unbound: u32 = "msrp.max_unbound", 1000, 1 => 1_000_000;
    }
}

section! {
    /// `xdm.*` and what else decides who is meant.
    Xdm {
        /// Who may send to a group without rules: nobody, or its members (XD-033).
        absent_ruleset: AbsentRuleset = "xdm.absent_ruleset", AbsentRuleset::Deny;
        /// Of the rules of a group those that match most closely decide alone (XD-035).
        oma_precedence: bool = "xdm.oma_precedence", true;
        /// A group whose references cannot all be followed counts as far as it is known (XD-024).
        partial_lists: bool = "xdm.partial_lists", false;
        /// References followed for one group (XD-024).
        max_refs: u16 = "xdm.max_refs", 20, 0 => 1000;
        /// Longest wait for an answer of an XDMS elsewhere, connecting included (XD-012).
        timeout: Duration = "xdm.timeout", secs(5), millis(10) => secs(60);
        /// Longest wait for a connection to it (XD-012).
        connect_timeout: Duration = "xdm.connect_timeout", secs(2), millis(10) => secs(60);
        /// Longest a group may take to be found out, all its references included (XD-012).
        resolve_timeout: Duration = "xdm.resolve_timeout", secs(8), millis(10) => secs(120);
        /// How long a document of an XDMS elsewhere counts; sixty times as long while its changes are notified (XD-038).
        cache_ttl: Duration = "xdm.cache_ttl", secs(60), secs(0) => DAY;
        /// How long beyond that while the XDMS does not answer (XD-039).
        stale_if_error: Duration = "xdm.stale_if_error", secs(300), secs(0) => DAY;
        /// Largest document in octets, here and elsewhere (XD-047).
        max_doc: Size = "xdm.max_doc", Size::mib(1), Size::kib(1) => Size::mib(64);
        /// Most elements of a document; 0: 20000, or with a larger `xdm.max_doc` as many more (XD-047).
        max_elements: u32 = "xdm.max_elements", 0, 0 => 10_000_000;
        /// How an XDMS elsewhere is told who asks (XD-013, XD-014).
        asserted_header: AssertedHeader = "xdm.asserted_header", AssertedHeader::Gpp;
        /// Hosts besides our XDMS that lists may lead to, over TLS: host or host:port; empty: none (XD-024).
        allowed_hosts: Vec<String> = "xdm.allowed_hosts", Vec::new();
        /// A group that is not found by its identity is looked for in the older place, too (XD-003).
        legacy_global: bool = "xdm.legacy_global", false;
        /// Enablers that `supported-services` of a group may name; empty: any (XD-029).
        im_enabler_ids: Vec<String> = "xdm.im_enabler_ids", Vec::new();
        /// A group of chat rooms takes pages (IM-033).
        pager_to_chat_group: bool = "im.pager_to_chat_group", false;
        /// Recipients whose own access rules or settings decline a page are not invited (IM-090, IM-091).
        apply_member_policy: bool = "im.apply_member_policy", false;
    }
}

section! {
    /// `ul.*`
    Ul {
        /// Most distinct entries of one list, and INVITEs of one page unanswered at a time (UL-020, UL-034).
        max_entries: u16 = "ul.max_entries", 50, 1 => 10_000;
        /// Largest list in octets (UL-017, UL-020).
        max_bytes: Size = "ul.max_bytes", Size::kib(64), Size(256) => Size::mib(16);
        /// A list needs its option tag in Require, its disposition and its namespaces (UL-002, UL-007).
        require_strict: bool = "ul.require_strict", false;
        /// Whether a blind-copy recipient sees itself in the list it gets (UL-023).
        bcc_mode: BccMode = "ul.bcc_mode", BccMode::Remove;
        /// `tel:+N` and `sip:+N@home;user=phone` are one recipient (UL-011).
        normalise_tel: bool = "ul.normalise_tel", true;
        /// Lists from outside the trusted core only over TLS (UL-035).
        require_tls: bool = "ul.require_tls", true;
        /// `im:` URIs are taken as SIP URIs (UL-014).
        map_im: bool = "ul.map_im", false;
        /// Context of local numbers in lists; empty: none (UL-014).
        phone_context: String = "ul.phone_context", String::new();
        /// Whose consent a list needs: by domains and subscription, nobody's (tests), or each recipient's (UL-032).
        consent: Consent = "ul.consent", Consent::Static;
        /// With static consent only recipients of these domains; empty: all (UL-032).
        allowed_domains: Vec<String> = "ul.allowed_domains", Vec::new();
        /// New legs of one page in a second; 0: all at once (UL-033).
        send_rate: u32 = "ul.send_rate", 0;
        /// Outgoing requests of one originator in a minute (UL-033).
        budget_per_minute: u32 = "ul.budget_per_minute", 6000, 1 => 100_000_000;
        /// Distinct hosts beyond our domains in one list (UL-033).
        foreign_hosts: u32 = "ul.foreign_hosts", 20, 0 => 10_000;
    }
}

section! {
    /// `sh.*`, what is asked of the HSS and how long it is known.
    Sh {
        /// Data nobody tells us changes of is known for this time, what changes as users come and go for a fifth (SH-050).
        cache_ttl: Duration = "sh.cache_ttl", secs(300), secs(1) => DAY;
        /// How long the HSS is asked to tell of changes (SH-047).
        subscription_time: Duration = "sh.subscription_time", DAY, secs(60) => secs(31_536_000);
        /// Most data the HSS tells us changes of; as much again is known without (SH-049).
        max_subscriptions: u32 = "sh.max_subscriptions", 50_000, 1 => 1_000_000;
        /// How long it is known which HSS serves a user (SH-026).
        hss_binding_ttl: Duration = "sh.hss_binding_ttl", secs(3600), secs(1) => DAY;
        /// Name of the slot that holds the service settings of users (SH-039).
        service_indication: String = "sh.service_indication", "oma-im-settings".to_owned();
    }
}

section! {
    /// `dia.*`, the connections Sh runs over, and how many requests they carry.
    Dia {
        /// Between two attempts to connect to a peer, give or take a tenth (SH-004).
        tc: Duration = "dia.tc", secs(30), secs(1) => secs(120);
        /// A peer that is silent for that long is asked whether it is there, give or take two seconds (SH-012).
        twinit: Duration = "dia.twinit", secs(30), secs(6) => secs(3600);
        /// How long a peer may take to say who it is (SH-009, SH-006).
        cea_timeout: Duration = "dia.cea_timeout", secs(10), secs(1) => secs(60);
        /// How long an answer may take before the request is tried once more elsewhere (SH-021).
        request_timeout: Duration = "dia.request_timeout", secs(4), millis(100) => secs(60);
        /// Octets of the longest message taken; a quarter of it is the longest sent (SH-018).
        max_message: Size = "dia.max_message", Size(256 * 1024), Size(4096) => Size::mib(15);
        /// Announce Sh also as a plain Auth-Application-Id, for old agents (SH-009).
        also_plain_auth_app: bool = "dia.also_plain_auth_app", false;
        /// Requests a peer may leave open; as many may wait for their turn (SH-027).
        max_inflight: u32 = "sh.max_inflight", 200, 1 => 100_000;
    }
}

section! {
    /// `deferred.*`, recipients who are waited for.
    Deferred {
        /// Pages wait for recipients who are not there (IM-097).
        enabled: bool = "deferred.enabled", true;
        /// What a recipient's failure has to be for that: final answers, and `timeout` for none, or a broken session (IM-097).
        causes: Vec<DeferCause> = "deferred.causes", Deferral::default().causes;
        /// How long a page waits; the originator's Expires may say less (IM-092).
        ttl: Duration = "deferred.ttl", secs(72 * 3600), secs(1) => secs(31_536_000);
        /// Most pages that wait for one user (IM-092).
        max_per_user: u32 = "deferred.max_per_user", 1000, 1 => 1_000_000;
        /// A page nobody joined though somebody may come back: refused as the recipients answered, or taken (IM-097).
        when_none_joined: WhenNoneJoined = "deferred.when_none_joined", WhenNoneJoined::Refuse;
    }
}

/// A whole profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub core: CoreProfile,
    pub im: Im,
    pub isc: Isc,
    pub sip: SipTimers,
    pub msrp: Msrp,
    /// MS-022: where we may connect to; `None`: everything but loopback, link-local, multicast and unspecified
    /// addresses, and loopback too where MSRP listens on loopback.
    pub connect_allow: Option<Vec<ipnet::IpNet>>,
    pub ul: Ul,
    pub xdm: Xdm,
    pub sh: Sh,
    pub dia: Dia,
    pub deferred: Deferred,
    /// UL-033: `ul.allow_loopback_targets`; unless set, on when listening on loopback.
    pub allow_loopback_targets: bool,
}

/// Keys of the rule lists that belong to later versions.
const LATER: &[(&str, &str)] = &[
    ("pager.", "the bounds of short pages are fixed"),
    ("imdn.", "disposition notifications"),
    ("session.", "session mode"),
    ("ft.", "file transfer"),
    ("dia.port", "it stands in the configuration: sh.peers"),
    ("xdm.root", "it stands in the configuration: xdms.root"),
    ("msrp.listen_port", "it stands in the configuration: msrp.listen"),
    ("im.late_offer", "INVITE without SDP"),
    ("msrp.cpim_rewrite", "rewriting CPIM"),
    ("msrp.deliver_all_forks", "delivery to all forks"),
    ("msrp.messages_per_session", "more than one page in a session"),
    ("msrp.nonsend_body", "fixed by RFC 4975"),
    ("ul.nested_groups", "groups inside lists"),
];

/// Whether a text is a URN of a functional entity, e.g. `urn:3gpp:fe:as.im`.
fn is_function(text: &str) -> bool {
    text.strip_prefix("urn:3gpp:fe:").is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    })
}

/// Keys that stand in no section, or whose default depends on something else.
const ABOUT: &[(&str, &str)] = &[
    ("core", "Which core the server stands behind: its header rules and its routes (IM-018)."),
    (
        "msrp.connect_allow",
        "Networks we may open MSRP connections to; unset: all but loopback (unless we listen there), link-local, \
         multicast and unspecified (MS-022).",
    ),
    (
        "ul.allow_loopback_targets",
        "Lists may name loopback addresses; unset: where we listen on loopback ourselves (UL-033).",
    ),
];

/// What a key does, in one clause.
pub fn about(key: &str) -> Option<&'static str> {
    let sections: [&[(&str, &str)]; 10] = [
        Im::ABOUT,
        Isc::ABOUT,
        SipTimers::ABOUT,
        Msrp::ABOUT,
        Xdm::ABOUT,
        Ul::ABOUT,
        Sh::ABOUT,
        Dia::ABOUT,
        Deferred::ABOUT,
        ABOUT,
    ];
    sections.into_iter().flatten().find(|(known, _)| *known == key).map(|(_, about)| about.trim())
}

/// Longest chain of `extends`.
const MOST_STEPS: usize = 16;

impl Profile {
    /// Loads `file` and what it extends, with `set` (keys without `profile.`) over it. `local` says that the server
    /// listens on loopback. Without a file the values are those of `3gpp`.
    ///
    /// # Errors
    /// The first mistake, at its file and line.
    pub fn load(
        file: Option<&Path>,
        set: Layer,
        local: bool,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<Setting>), ConfigError> {
        let mut layer = match file {
            Some(path) => chain(path, environment)?,
            None => Layer::default(),
        };
        layer = layer.under(set);
        let mut reader = Reader::new(layer);
        reader.prefix = "profile.";
        let profile = Self::read(&mut reader, local)?;
        Ok((profile, reader.finish(LATER)?))
    }

    fn read(r: &mut Reader, local: bool) -> Result<Self, ConfigError> {
        let profile = Self {
            core: r.take("core", CoreProfile::Gpp)?,
            im: Im::read(r)?,
            isc: Isc::read(r)?,
            sip: SipTimers::read(r)?,
            msrp: Msrp::read(r)?,
            connect_allow: r
                .take_if_set::<Vec<Peers>>("msrp.connect_allow")?
                .map(|peers| peers.into_iter().map(|peers| peers.0).collect()),
            ul: Ul::read(r)?,
            xdm: Xdm::read(r)?,
            sh: Sh::read(r)?,
            dia: Dia::read(r)?,
            deferred: Deferred::read(r)?,
            allow_loopback_targets: r.take("ul.allow_loopback_targets", local)?,
        };
        if profile.connect_allow.as_ref().is_some_and(Vec::is_empty) {
            return Err(r.wrong(
                "msrp.connect_allow",
                "names no network",
                "name one, or leave the key out",
            ));
        }
        if profile.sip.t2 < profile.sip.t1 {
            return Err(r.wrong("sip.t2", "is smaller than sip.t1", "write at least sip.t1"));
        }
        if profile.im.max_rate_per_user.a_second().is_none() {
            return Err(r.wrong(
                "im.max_rate_per_user",
                "is not a whole number a second, at least 1",
                "write \"10/s\" or \"600/m\"",
            ));
        }
        let slot = &profile.sh.service_indication;
        if slot.is_empty() || slot.len() > 256 || slot.chars().any(char::is_control) {
            return Err(r.wrong(
                "sh.service_indication",
                format!("{slot:?} names no slot"),
                "write \"oma-im-settings\"",
            ));
        }
        if !matches!(profile.im.release.as_str(), "1.0" | "2.0") {
            let wrong = format!("{:?} is no OMA release", profile.im.release);
            return Err(r.wrong("im.release", wrong, "write \"1.0\" or \"2.0\""));
        }
        if !matches!(profile.im.accept_contact_params.as_str(), "" | "require;explicit") {
            return Err(r.wrong(
                "im.accept_contact_params",
                format!("{:?} is none of the choices", profile.im.accept_contact_params),
                "write \"\" or \"require;explicit\"",
            ));
        }
        let source = &profile.isc.response_source;
        if !source.is_empty() && !is_function(source) {
            return Err(r.wrong(
                "isc.response_source",
                format!("{source:?} names no functional entity"),
                "write \"\" or \"urn:3gpp:fe:as.im\"",
            ));
        }
        let hosts = &profile.xdm.allowed_hosts;
        if let Some(host) =
            hosts.iter().find(|host| Url::parse(&format!("https://{host}/")).is_none())
        {
            let wrong = format!("{host:?} is no host");
            let right = "write names like \"lists.example.net\" or \"lists.example.net:8443\"";
            return Err(r.wrong("xdm.allowed_hosts", wrong, right));
        }
        let is_token = |name: &&String| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if let Some(name) = profile.im.pass_through.iter().find(|name| !is_token(name)) {
            return Err(r.wrong(
                "im.pass_through",
                format!("{name:?} is no header field name"),
                "write names like \"Conversation-ID\"",
            ));
        }
        Ok(profile)
    }

    /// The complete message that is taken: the smaller of the two keys that bound it, in octets.
    pub fn max_message(&self) -> u64 {
        self.im.large_max_size.0.min(self.msrp.max_message.0)
    }

    /// Most recipients of one list: the smaller of the two keys that bound it.
    pub fn max_list(&self) -> u16 {
        self.im.max_recipients.min(self.ul.max_entries)
    }
}

impl Default for Profile {
    /// The values of `3gpp.toml`, away from loopback.
    fn default() -> Self {
        Self::read(&mut Reader::new(Layer::default()), false).expect("defaults are within bounds")
    }
}

/// The file and everything it extends, the extended ones below.
fn chain(file: &Path, environment: Environment<'_>) -> Result<Layer, ConfigError> {
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut layers: Vec<Layer> = Vec::new();
    let mut next = Some((file.to_owned(), None::<(Origin, String)>));
    while let Some((path, named_by)) = next.take() {
        let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some((origin, text)) = &named_by {
            if seen.contains(&identity) {
                return Err(ConfigError::new(
                    origin,
                    "extends",
                    format!("{text:?} extends this file again, in a circle"),
                    "extend another profile or none",
                ));
            }
            if seen.len() >= MOST_STEPS {
                return Err(ConfigError::new(
                    origin,
                    "extends",
                    format!("more than {MOST_STEPS} profiles extend each other"),
                    "",
                ));
            }
            if !path.is_file() {
                return Err(ConfigError::new(
                    origin,
                    "extends",
                    format!("{} cannot be read", path.display()),
                    "name a profile beside this file or an absolute path",
                ));
            }
        }
        seen.push(identity);
        let mut layer = Layer::from_file(&path, environment)?;
        if let Some(item) = layer.items.remove("extends") {
            match &item.value {
                crate::config::layer::Raw::Text(text) if !text.is_empty() => {
                    let target = resolve(text, &item.origin);
                    next = Some((target, Some((item.origin.clone(), text.clone()))));
                }
                other => {
                    return Err(ConfigError::new(
                        &item.origin,
                        "extends",
                        format!("{} is no path", other.describe()),
                        "write extends = \"3gpp.toml\"",
                    ));
                }
            }
        }
        layers.push(layer);
    }
    Ok(layers.into_iter().rev().fold(Layer::default(), Layer::under))
}

/// The name of a profile for status pages: the file without folder and ending.
pub fn name_of(file: Option<&Path>) -> Arc<str> {
    file.and_then(Path::file_stem)
        .map_or_else(|| "3gpp".into(), |stem| stem.to_string_lossy().into())
}

#[cfg(test)]
mod tests;
