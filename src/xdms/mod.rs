//! Who is meant: groups and lists, who may use them, and the server that keeps them.
//!
//! [`resolver`] answers the engine's question; it reads documents of [`groups`], applies their rules ([`access`]) and
//! sifts names ([`lists`]); what recipients say themselves is asked in [`recipients`]. Documents come from a
//! [`resolver::Source`]: the [`store`], which [`server`] opens to XCAP clients over HTTP, or an XDMS elsewhere ([`ut`]).
//! [`client`] writes documents to either. What documents of each kind have to be is in [`usages`] and [`shape`], their
//! parts are named by [`selector`] and changed by [`edit`], and who wants to hear of changes listens to the [`feed`].
//! Sends no SIP and knows no page.

pub mod access;
mod answers;
pub mod client;
mod disk;
pub mod edit;
pub mod feed;
mod gate;
mod generated;
pub mod groups;
mod index;
pub mod lists;
pub mod member_rules;
pub mod path;
pub mod recipients;
pub mod resolver;
pub mod ruleset;
pub mod selector;
pub mod server;
pub mod shape;
pub mod store;
pub mod trail;
pub mod usages;
pub mod ut;

pub use resolver::{Query, Resolver};

use std::time::Duration;

use crate::sip::uri::{Psi, Uri};

/// `im.anon_reject` (IM-022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnonReject {
    /// 403 with a Warning.
    #[default]
    Oma,
    /// 433.
    Rfc,
}

/// `ul.consent` (UL-032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// By subscription, domains and the recipients' own policy.
    #[default]
    Static,
    /// Not asked; for tests.
    Off,
    /// Every target must have given permission.
    Rfc5360,
}

/// What the resolver obeys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The XCAP root without a trailing slash; references below it are resolved inside (XD-024).
    pub root: String,
    /// Our own domains: hosts that are not foreign (UL-033); with a number in the first of them a SIP URI is a tel URI.
    pub home_domains: Vec<String>,
    /// List services of ours (UL-034).
    pub factories: Vec<Psi>,
    /// Every user of these domains is a group.
    pub group_domains: Vec<String>,
    /// Single groups elsewhere.
    pub groups: Vec<Psi>,
    /// `host` or `host:port` of this node (UL-033).
    pub own_hosts: Vec<String>,
    /// Static consent: only these domains; empty for all (UL-032).
    pub allowed_domains: Vec<String>,
    /// `ul.allow_loopback_targets`
    pub allow_loopback: bool,
    /// `ul.normalise_tel` (UL-011).
    pub normalise_tel: bool,
    /// `ul.map_im` (UL-014).
    pub map_im: bool,
    /// Context of local numbers (UL-014).
    pub phone_context: Option<String>,
    /// The smaller of `im.max_recipients` and `ul.max_entries` (IM-032).
    pub max_recipients: usize,
    /// `im.max_members`
    pub max_members: usize,
    /// `ul.foreign_hosts`
    pub foreign_hosts: usize,
    /// `ul.budget_per_minute`
    pub budget_per_minute: usize,
    /// `ul.consent`
    pub consent: Consent,
    /// `im.anon_reject`
    pub anon_reject: AnonReject,
    /// `im.pager_to_chat_group`
    pub pager_to_chat_group: bool,
    /// `im.apply_member_policy` (IM-090).
    pub apply_member_policy: bool,
    /// `xdm.im_enabler_ids`; empty: any enabler.
    pub im_enabler_ids: Vec<String>,
    /// `xdm.absent_ruleset = "members"`
    pub absent_ruleset_members: bool,
    /// `xdm.oma_precedence`
    pub oma_precedence: bool,
    /// `xdm.partial_lists`
    pub partial_lists: bool,
    /// `xdm.max_refs`
    pub max_refs: usize,
    /// Deepest chain of references.
    pub max_nesting: usize,
    /// Longest a group may take to be found out, all its references included (XD-012).
    pub resolve_timeout: Duration,
    /// Seconds for Retry-After when documents cannot be had.
    pub retry_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "http://127.0.0.1:8080/xcap-root".to_owned(),
            home_domains: Vec::new(),
            factories: Vec::new(),
            group_domains: Vec::new(),
            groups: Vec::new(),
            own_hosts: Vec::new(),
            allowed_domains: Vec::new(),
            allow_loopback: false,
            normalise_tel: true,
            map_im: false,
            phone_context: None,
            max_recipients: 50,
            max_members: 1000,
            foreign_hosts: 20,
            budget_per_minute: 6000,
            consent: Consent::Static,
            anon_reject: AnonReject::Oma,
            pager_to_chat_group: false,
            apply_member_policy: false,
            im_enabler_ids: Vec::new(),
            absent_ruleset_members: false,
            oma_precedence: true,
            partial_lists: false,
            max_refs: 20,
            max_nesting: 5,
            resolve_timeout: Duration::from_secs(8),
            retry_after: 30,
        }
    }
}

impl Settings {
    /// UL-011: equal URIs have equal keys.
    pub fn key(&self, uri: &Uri) -> String {
        match self.home_domains.iter().find(|home| home.eq_ignore_ascii_case(uri.host())) {
            Some(home) if self.normalise_tel => uri.canonical_in(home),
            _ => uri.canonical(),
        }
    }

    /// As [`Settings::key`]; what is no URI is its own key.
    pub fn key_of(&self, text: &str) -> String {
        Uri::parse(text).map_or_else(|_| text.to_owned(), |uri| self.key(&uri))
    }

    /// Whether the URI is a group hosted here (IM-023).
    pub fn is_group(&self, uri: &Uri) -> bool {
        let in_domain = uri.is_sip()
            && uri.user().is_some()
            && self.group_domains.iter().any(|domain| domain.eq_ignore_ascii_case(uri.host()));
        in_domain || self.groups.iter().any(|group| group.matches(uri))
    }
}
