//! What a reload leaves to the next start.

use super::Setting;

/// Keys, and beginnings of keys, that are read once: at start. All others are in force from the reload on.
const AT_START: &[&str] = &[
    "charging.",
    "log.",
    "msrp.",
    "node.data_dir",
    "node.drain_timeout",
    "node.max_registrations",
    "node.name",
    "node.threads",
    "ops.",
    "profile.dia.",
    "profile.im.large.max_size",
    "profile.im.release",
    "profile.im.session_expires",
    "profile.msrp.",
    "profile.sh.",
    "profile.sip.",
    "profile.xdm.",
    "sh.",
    "sip.advertise",
    "sip.listen",
    "sip.max_",
    "sip.uri",
    "store.",
    "xdms.allow_basic",
    "xdms.asserted_identity",
    "xdms.cache_",
    "xdms.documents",
    "xdms.listen",
    "xdms.mode",
    "xdms.password",
    "xdms.private_targets",
    "xdms.root",
    "xdms.trusted_peers",
    "xdms.user",
];

/// What begins like one of those and is in force at once all the same.
const AT_ONCE: &[&str] = &[
    "msrp.tls.accept_sha1",
    "msrp.tls.ca",
    "msrp.tls.certificate",
    "msrp.tls.key",
    "profile.msrp.attribution",
    "profile.msrp.cema",
    "profile.msrp.drain_after_end",
    "profile.msrp.page_deadline",
    "profile.xdm.absent_ruleset",
    "profile.xdm.im_enabler_ids",
    "profile.xdm.max_refs",
    "profile.xdm.oma_precedence",
    "profile.xdm.partial_lists",
    "profile.xdm.resolve_timeout",
];

/// Keys that have another value than at start, and wait for the next one.
pub(super) fn waiting<'a>(at_start: &[Setting], now: &'a [Setting]) -> Vec<&'a str> {
    let old = |key: &str| at_start.iter().find(|setting| setting.key == key);
    now.iter()
        .filter(|new| waits(&new.key) && old(&new.key).is_none_or(|old| old.value != new.value))
        .map(|setting| setting.key.as_str())
        .collect()
}

fn waits(key: &str) -> bool {
    AT_START.iter().any(|start| key.starts_with(start)) && !AT_ONCE.contains(&key)
}
