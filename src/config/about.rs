//! What each key of the configuration does, in one clause, for `check --explain`. Those of the profile tell themselves.

/// Key and clause, in the order of the file.
pub(super) const ABOUT: &[(&str, &str)] = &[
    ("profile", "The operator profile; unset: the built-in values, those of 3gpp.toml."),
    ("node.name", "Name of this node, unique in a cluster."),
    ("node.data_dir", "Folder for everything that must survive a restart, and the spool."),
    ("node.drain_timeout", "Longest wait for running pages after SIGTERM."),
    ("node.threads", "Threads that serve pages; 0: one per core."),
    ("node.max_pages", "Pages on their way at once; beyond it is overload (IM-036)."),
    ("node.max_lag", "How far a thread may be behind before it sends new requests away (ISC-069)."),
    (
        "node.max_registrations",
        "Identities whose registration is remembered at once; newcomers beyond it are not.",
    ),
    ("sip.listen", "Addresses SIP is taken on."),
    ("sip.uri", "Our own URI, as the filter criteria name it."),
    ("sip.aliases", "Other names for us in Route and Request-URI."),
    ("sip.trusted_peers", "Whose requests and asserted identities are believed (ISC-001)."),
    ("sip.advertise", "Host and port in Via and Contact."),
    ("sip.max_message", "Largest SIP message in octets."),
    ("sip.max_connections", "SIP connections held at once."),
    ("sip.tls.certificate", "Our certificates, in PEM, shown to clients and to servers alike."),
    ("sip.tls.key", "The key of our certificate, in PEM."),
    (
        "sip.tls.client_ca",
        "Who signs the certificates of clients; unset: they are not asked for one.",
    ),
    ("sip.tls.verify_client", "Clients must show a certificate."),
    ("sip.tls.ca", "Who signs the certificates of servers we connect to."),
    ("sip.tls.advertise", "Host and port in Via and Contact over TLS."),
    ("auth.realm", "Realm of SIP Digest; credentials for it go no further (UL-029)."),
    ("auth.users", "File of the users who may prove themselves by password, and of their hashes."),
    ("auth.nonce_life", "How long a challenge holds before a phone is asked again."),
    (
        "auth.max_failures",
        "Wrong passwords in a minute of one address, or of one name behind the core; beyond it 403.",
    ),
    ("core.scscf", "The S-CSCF, where neither a registration nor a Route names one (ISC-058)."),
    ("core.icscf", "The I-CSCF; empty: core.scscf stands in (ISC-009)."),
    ("core.outbound_proxy", "Profile sipip: where requests go; empty: by the Request-URI."),
    (
        "core.untrusted_hops",
        "Next hops outside the trust domain: they get none of the headers that stay inside (ISC-073).",
    ),
    ("service.factories", "PSIs that expand lists (IM-023)."),
    ("service.home_domains", "Our own domains; unset: those of the factories."),
    ("service.group_domains", "Domains in which every user is a group (IM-023)."),
    ("service.groups", "Single groups elsewhere (IM-023)."),
    (
        "service.subscribers",
        "Who may use the service; empty: everybody with an asserted identity (IM-024).",
    ),
    ("service.barred", "Who may not (IM-024)."),
    ("msrp.listen", "Addresses MSRP is taken on."),
    ("msrp.advertise", "Host and port in our MSRP paths."),
    (
        "msrp.advertise_also",
        "The same for peers whose addresses are of the other kind, IPv4 or IPv6.",
    ),
    ("msrp.spool_total", "Octets of all pages, in memory and on disk (MS-092)."),
    ("msrp.spool_memory", "Octets of all pages kept in memory."),
    (
        "xdms.mode",
        "Where group documents are: embedded, in this process, or ut, in an XDMS elsewhere.",
    ),
    ("xdms.root", "The XCAP root."),
    ("xdms.listen", "Address of the embedded XDMS; empty: closed, as it is in mode ut."),
    ("xdms.documents", "Documents loaded at start where they are not there yet."),
    ("xdms.trusted_proxies", "Who may assert identities to the XDMS."),
    (
        "xdms.trusted_peers",
        "Networks in which an XDMS elsewhere is told who we are; over TLS with certificates of both it is anyway (XD-013).",
    ),
    (
        "xdms.private_targets",
        "Networks that are not public and in which hosts of xdm.allowed_hosts may be all the same (XD-024).",
    ),
    (
        "xdms.asserted_identity",
        "Who we are to an XDMS elsewhere; unset: the first of the factories (XD-013).",
    ),
    ("xdms.tls.ca", "Who signs the certificates of XDMS elsewhere."),
    ("xdms.tls.certificate", "Our certificates, in PEM, shown to XDMS elsewhere."),
    ("xdms.tls.key", "The key of that certificate, in PEM."),
    ("xdms.user", "Name for an XDMS elsewhere that asks for proof, over TLS only (XD-015)."),
    ("xdms.password", "Password of that name."),
    ("xdms.allow_basic", "The password may be sent as it is, over TLS (XD-015)."),
    (
        "xdms.cache_documents",
        "Documents kept of an XDMS elsewhere; the longest unused leaves first.",
    ),
    ("xdms.cache_size", "Octets of these documents."),
    ("sh.enabled", "Ask the HSS over Sh."),
    ("store.url", "Where state is kept."),
    ("ops.listen", "Address of the operators' door; empty: closed."),
    ("ops.token", "Bearer token of /api and /admin."),
    ("ops.flow_memory", "Octets of call flows in memory."),
    ("ops.flow_keep", "Which pages' flows go to disk when they end."),
    ("ops.flow_disk", "Octets of call flows on disk."),
    ("ops.pages", "Pages that are shown; the oldest that ended leave first."),
    ("ops.max_connections", "HTTP connections at once."),
    ("log.level", "How much is logged."),
    ("log.format", "Form of a log line."),
];

/// What a key does; those of the profile begin with `profile.`.
pub fn about(key: &str) -> Option<&'static str> {
    match key.strip_prefix("profile.") {
        Some(key) => crate::profile::about(key),
        None => ABOUT.iter().find(|(known, _)| *known == key).map(|(_, about)| *about),
    }
}
