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
use crate::engine::policy::{FailMap, OriginatorAnswer, SrPolicy};
use crate::isc::settings::{
    AnonReject, Attribution, CoreProfile, DefaultMode, FanoutRoute, ManyServedUsers, PsiRoute,
    Refresher, Relay, SendPsu, Source,
};
use crate::xdms::Consent;

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
choice!(AbsentRuleset { Deny = "deny", Members = "members" });
choice!(Consent { Static = "static", Off = "off", Rfc5360 = "rfc5360" });
choice!(BccMode { Remove = "remove", KeepOwn = "keep_own" });
choice!(OriginatorAnswer { First200 = "first_200", Immediate = "immediate" });
choice!(FailMap { Safe = "safe", Plain = "plain" });
choice!(SrPolicy { Switch = "switch", FirstDelivery = "first_delivery" });

/// Declares one section: a field, its key, its default, and bounds where it has them.
macro_rules! section {
    ($(#[$about:meta])* $name:ident {
        $($(#[$doc:meta])* $field:ident: $kind:ty = $key:literal, $default:expr $(, $least:expr => $most:expr)?;)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)+
        }

        impl $name {
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
        /// IM-044: release in the product token.
        release: String = "im.release", "1.0".to_owned();
        /// IM-044: peers of another release are refused.
        strict_release: bool = "im.strict_release", false;
        /// IM-041.
        accept_contact_params: String = "im.accept_contact_params", String::new();
        /// IM-051.
        originator_answer: OriginatorAnswer = "im.originator_answer", OriginatorAnswer::First200;
        /// IM-039.
        pai_source: Source = "im.pai_source", Source::Originator;
        /// IM-038.
        from_source: Source = "im.from_source", Source::Originator;
        /// IM-042: `isfocus` in the Contact of large-message legs.
        large_isfocus: bool = "im.large.isfocus", true;
        /// IM-030: octets of a complete message; with `msrp.max_message` the smaller counts.
        large_max_size: Size = "im.large.max_size", Size::mib(10), Size(1) => Size::mib(65_536);
        /// IM-049, ISC-036: the service identifier; empty: none.
        icsi: String = "im.icsi", String::new();
        /// IM-048: header fields copied to every leg besides the fixed ones.
        pass_through: Vec<String> = "im.pass_through", vec!["Conversation-ID".to_owned(), "Contribution-ID".to_owned()];
        /// IM-045: Session-Expires on large messages.
        large_session_timer: bool = "im.large.session_timer", true;
        /// IM-025.
        default_mode: DefaultMode = "im.default_mode", DefaultMode::Reject;
        /// IM-032: entries of one list; with `ul.max_entries` the smaller counts.
        max_recipients: u16 = "im.max_recipients", 50, 1 => 10_000;
        /// XD-026: members of one group after flattening.
        max_members: u16 = "im.max_members", 1000, 1 => 10_000;
        /// IM-061: no final answer from a recipient.
        leg_timeout: Duration = "im.leg_timeout", secs(120), secs(1) => secs(3600);
        /// IM-022.
        anon_reject: AnonReject = "im.anon_reject", AnonReject::Oma;
        /// IM-057.
        fail_map: FailMap = "im.fail_map", FailMap::Safe;
        /// IM-045.
        refresher: Refresher = "im.refresher", Refresher::Omit;
        /// IM-045: Session-Expires we send; RFC 4028 allows no less than 90 s.
        session_expires: Duration = "im.session_expires", secs(1800), secs(90) => DAY;
        /// The three-digit OMA number inside the warning text.
        warning_numbers: bool = "im.warning_numbers", true;
        /// IM-064: how long the originator's own BYE is awaited.
        originator_bye_timeout: Duration = "im.originator_bye_timeout", secs(30), secs(0) => secs(3600);
        /// IM-020: first 183 at the latest.
        progress_after: Duration = "im.progress_after", millis(500), secs(0) => millis(1500);
        /// IM-036: pages one user may have running.
        max_parallel_per_user: u32 = "im.max_parallel_per_user", 20, 1 => 1_000_000;
        /// IM-036: pages one user may start.
        max_rate_per_user: Rate = "im.max_rate_per_user", Rate::per_second(10);
    }
}

section! {
    /// `isc.*`
    Isc {
        /// ISC-010.
        psi_route: PsiRoute = "isc.psi_route", PsiRoute::Icscf;
        /// ISC-012.
        fanout_route: FanoutRoute = "isc.fanout_route", FanoutRoute::OrigScscf;
        /// ISC-019.
        many_served_users: ManyServedUsers = "isc.many_served_users", ManyServedUsers::Reject;
        /// ISC-022.
        send_psu: SendPsu = "isc.send_psu", SendPsu::Always;
        /// ISC-028.
        related_icid: bool = "isc.related_icid", false;
        /// ISC-063.
        preconditions: bool = "isc.preconditions", false;
        /// ISC-029: what stands before the operator in an IOI.
        ioi_prefix: String = "isc.ioi_prefix", "Type 3".to_owned();
        /// ISC-029: our operator in IOI values; empty: as the core names it, else the domain of our URI.
        operator: String = "isc.operator", String::new();
        /// ISC-034: P-Asserted-Service is read and sent.
        asserted_service: bool = "isc.asserted_service", true;
        /// ISC-045: a registration lasts this much longer than its expiry.
        reg_grace: Duration = "isc.reg_grace", secs(60), secs(0) => secs(86_400);
        /// ISC-076: `fe` of Response-Source in our refusals; empty: none.
        response_source: String = "isc.response_source", String::new();
        /// ISC-053: how what is not for us passes.
        relay: Relay = "isc.relay", Relay::Proxy;
        /// ISC-053: a relayed call without messages for so long is ended.
        relay_lifetime: Duration = "isc.relay_lifetime", DAY, secs(60) => secs(7 * 86_400);
    }
}

section! {
    /// `sip.*`: the timers of RFC 3261 §17 (ISC-065).
    SipTimers {
        t1: Duration = "sip.t1", millis(500), millis(10) => secs(10);
        t2: Duration = "sip.t2", secs(4), millis(10) => secs(60);
        t4: Duration = "sip.t4", secs(5), millis(10) => secs(60);
    }
}

section! {
    /// `msrp.*`
    Msrp {
        /// MS-077: from the last octet of a SEND to its response.
        tx_timeout: Duration = "msrp.tx_timeout", secs(30), millis(100) => secs(600);
        /// MS-035.
        bind_timeout: Duration = "msrp.bind_timeout", secs(30), millis(100) => secs(600);
        /// MS-064.
        chunk_gap_timeout: Duration = "msrp.chunk_gap_timeout", secs(540), millis(100) => DAY;
        /// MS-017.
        max_message: Size = "msrp.max_message", Size::mib(10), Size(1) => Size::mib(65_536);
        /// MS-113.
        max_header_section: Size = "msrp.max_header_section", Size::kib(16), Size::kib(1) => Size::mib(1);
        /// MS-091.
        leg_stall_timeout: Duration = "msrp.leg_stall_timeout", secs(120), millis(100) => DAY;
        /// MS-110: from the first octet of the page to forced clean-up.
        page_deadline: Duration = "msrp.page_deadline", secs(600), millis(100) => DAY;
        /// MS-108: between the last response and BYE.
        drain_after_end: Duration = "msrp.drain_after_end", secs(5), secs(0) => secs(600);
        /// MS-038.
        conn_linger: Duration = "msrp.conn_linger", secs(10), secs(0) => secs(3600);
        /// MS-020.
        attribution: Attribution = "msrp.attribution", Attribution::Many;
        /// MS-086: recipients get nothing before the page is whole.
        store_and_forward: bool = "msrp.store_and_forward", false;
        /// When the originator's success REPORT is due.
        sr_policy: SrPolicy = "msrp.sr_policy", SrPolicy::Switch;
        /// MS-115: connections of the node.
        max_connections: u32 = "msrp.max_connections", 20_000, 1 => 1_000_000;
        /// MS-115: connections of one peer address; 0: no limit.
        max_connections_per_ip: u32 = "msrp.max_connections_per_ip", 0;
        /// MS-115: connections nothing is bound to yet.
        max_unbound: u32 = "msrp.max_unbound", 1000, 1 => 1_000_000;
    }
}

section! {
    /// `xdm.*` and what else decides who is meant.
    Xdm {
        /// XD-033: a group without rules lets its members send.
        absent_ruleset: AbsentRuleset = "xdm.absent_ruleset", AbsentRuleset::Deny;
        /// XD-035.
        oma_precedence: bool = "xdm.oma_precedence", true;
        /// XD-024: a list with references that cannot be followed counts as far as it is known.
        partial_lists: bool = "xdm.partial_lists", false;
        /// XD-024.
        max_refs: u16 = "xdm.max_refs", 20, 0 => 1000;
        /// Enablers that `supported-services` of a group may name; empty: any.
        im_enabler_ids: Vec<String> = "xdm.im_enabler_ids", Vec::new();
        /// Whether a group of chat rooms takes pages.
        pager_to_chat_group: bool = "im.pager_to_chat_group", false;
    }
}

section! {
    /// `ul.*`
    Ul {
        /// UL-020: after removal of duplicates.
        max_entries: u16 = "ul.max_entries", 50, 1 => 10_000;
        /// UL-017, UL-020.
        max_bytes: Size = "ul.max_bytes", Size::kib(64), Size(256) => Size::mib(16);
        /// UL-002, UL-007.
        require_strict: bool = "ul.require_strict", false;
        /// UL-023.
        bcc_mode: BccMode = "ul.bcc_mode", BccMode::Remove;
        /// UL-011: `tel:+N` and `sip:+N@home;user=phone` are one recipient.
        normalise_tel: bool = "ul.normalise_tel", true;
        /// UL-035: lists from outside the trusted core only over TLS.
        require_tls: bool = "ul.require_tls", true;
        /// UL-014: `im:` URIs are taken as SIP URIs.
        map_im: bool = "ul.map_im", false;
        /// UL-014: context of local numbers; empty: none.
        phone_context: String = "ul.phone_context", String::new();
        /// UL-032.
        consent: Consent = "ul.consent", Consent::Static;
        /// UL-032: with static consent only these domains; empty: all.
        allowed_domains: Vec<String> = "ul.allowed_domains", Vec::new();
        /// UL-033: new legs per second of one page, 0 for all at once.
        send_rate: u32 = "ul.send_rate", 0;
        /// UL-033: outgoing requests of one originator.
        budget_per_minute: u32 = "ul.budget_per_minute", 6000, 1 => 100_000_000;
        /// UL-033: distinct foreign hosts in one list.
        foreign_hosts: u32 = "ul.foreign_hosts", 20, 0 => 10_000;
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
    /// UL-033: `ul.allow_loopback_targets`; unless set, on when listening on loopback.
    pub allow_loopback_targets: bool,
}

/// Keys of the rule lists that belong to later versions.
const LATER: &[(&str, &str)] = &[
    ("pager.", "short messages"),
    ("deferred.", "deferred delivery"),
    ("imdn.", "disposition notifications"),
    ("session.", "session mode"),
    ("ft.", "file transfer"),
    ("sh.", "Sh"),
    ("dia.", "Sh"),
    ("xdm.timeout", "an XDMS elsewhere"),
    ("xdm.cache_ttl", "an XDMS elsewhere"),
    ("xdm.stale_if_error", "an XDMS elsewhere"),
    ("xdm.max_doc", "fixed bounds of documents"),
    ("xdm.asserted_header", "an XDMS elsewhere"),
    ("xdm.allowed_hosts", "an XDMS elsewhere"),
    ("xdm.legacy_global", "an XDMS elsewhere"),
    ("xdm.root", "it stands in the configuration: xdms.root"),
    ("msrp.listen_port", "it stands in the configuration: msrp.listen"),
    ("im.apply_member_policy", "policies of recipients"),
    ("im.late_offer", "INVITE without SDP"),
    ("im.recurse_3xx", "redirection"),
    ("im.tls_downgrade", "TLS"),
    ("im.check_registration", "Sh"),
    ("msrp.cema", "CEMA"),
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
            allow_loopback_targets: r.take("ul.allow_loopback_targets", local)?,
        };
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
