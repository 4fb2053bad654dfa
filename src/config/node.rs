//! Everything a node needs, built once from configuration and profile: each module gets the settings it obeys.
//!
//! Start at [`NodeSettings::new`]. Ports that were 0 are known only when the sockets are open: [`NodeSettings::bound`].

use super::value::HostPort;
use super::{Config, Loaded, MsrpTls, XdmsMode};
use crate::content::sdp::Families;
use crate::content::xml::Bounds;
use crate::engine::policy::{Deferral, Policy};
use crate::profile::{Profile, SipTimers};
use std::net::SocketAddr;
use std::time::Duration;

use crate::sip::Protocol;
use crate::sip::message::Limits;
use crate::sip::transaction::Timers;
use crate::sip::transport::doors::{Door, Doors};
use crate::sip::transport::tls::{Names, Tls};
use crate::sip::uri::Psi;
use crate::xdms::groups::BOUNDS;
use crate::xdms::ut::cache::{Limits as CacheLimits, Times};
use crate::xdms::ut::url::Url;
use crate::{flow, isc, msrp, ops, profile, sh, sip, xdms};

/// Settings of every part.
#[derive(Clone)]
pub struct NodeSettings {
    /// This process, for everything that no part's settings hold (addresses, `[ops]`, `[log]`).
    pub config: Config,
    pub profile: Profile,
    /// Every effective setting, as [`Loaded::settings`].
    pub all: Vec<super::Setting>,
    /// Name of the profile, for status pages.
    pub profile_name: std::sync::Arc<str>,
    /// OS threads, at least 1.
    pub threads: u8,
    /// For each thread's engine; counts that concern the node are divided among the threads.
    pub policy: Policy,
    pub isc: isc::settings::Settings,
    pub msrp: msrp::Settings,
    /// For each thread's user agent; `thread` is 0 here.
    pub ua: sip::ua::Settings,
    pub limits: Limits,
    pub flow: flow::Settings,
    /// For each thread's sockets.
    pub transport: sip::transport::Settings,
    /// What others are told of the way back, by each protocol and address family.
    pub doors: Doors,
    pub resolver: xdms::Settings,
    /// Connections to the HSS, where Sh is on.
    pub sh: Option<sh::settings::Settings>,
    /// What is asked of it.
    pub hss: sh::client::Settings,
    /// Whom it is asked about to see what it permits (SH-054).
    pub test_identity: Option<String>,
    pub xdms_server: xdms::server::Settings,
    /// `[xdms.server_tls]`
    pub xdms_tls: Option<Tls>,
    /// An XDMS elsewhere, or lists elsewhere.
    pub xdms_remote: xdms::ut::Settings,
    /// The way there.
    pub xdms_network: xdms::ut::link::Network,
    /// Bounds of the embedded documents.
    pub xdms_quotas: xdms::store::Quotas,
    pub charging: Option<crate::charging::Settings>,
    pub log: ops::log::Settings,
    pub door: ops::http::Settings,
}

/// Ports that were taken when listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of the first address of `sip.listen`.
    pub sip: u16,
    /// Of the first address of `msrp.listen`.
    pub msrp: u16,
    /// Of the first address of `msrp.listen` of the other kind, IPv4 or IPv6; 0 where there is none.
    pub msrp_also: u16,
    /// The same of `msrp.tls.listen`.
    pub msrp_tls: u16,
    pub msrp_tls_also: u16,
    /// Of `xdms.listen`; 0 where that door is closed.
    pub xcap: u16,
}

impl NodeSettings {
    /// Settings for a node; `cores` counts where `node.threads` does not.
    pub fn new(loaded: &Loaded, cores: usize) -> Self {
        let Loaded { config, profile, .. } = loaded;
        let threads = match config.node.threads {
            0 => u8::try_from(cores.clamp(1, 64)).unwrap_or(1),
            threads => threads,
        };
        let mut isc = isc_settings(config, profile);
        let each = isc.documents.max_subscriptions.div_ceil(usize::from(threads));
        isc.documents.max_subscriptions = each;
        Self {
            policy: policy(config, profile, threads),
            msrp: msrp_settings(config, profile),
            ua: ua_settings(config, profile, &isc),
            limits: Limits { max_message: config.sip.max_message, ..Limits::default() },
            flow: flow::Settings {
                memory: config.ops.flow_memory,
                threads: usize::from(threads),
                keep: config.ops.flow_keep,
                disk: config.ops.flow_disk,
                folder: Some(config.node.data_dir.join("flows")),
            },
            transport: transport_settings(config),
            doors: doors(config, &listening(config)),
            resolver: resolver_settings(config, profile),
            xdms_server: xdms_server_settings(config),
            xdms_tls: config.xdms.server_tls.clone().map(|material| Tls::new(material, Vec::new())),
            hss: hss_settings(config, profile),
            sh: config.sh.as_ref().map(|sh| super::sh::settings(sh, profile)),
            test_identity: config.sh.as_ref().and_then(|sh| sh.test_identity.clone()),
            xdms_remote: remote_settings(config, profile),
            xdms_network: xdms::ut::link::Network {
                tls: config.xdms.tls.clone(),
                private_targets: config.xdms.private_targets.clone(),
            },
            xdms_quotas: xdms::store::Quotas {
                members: usize::from(profile.im.max_members),
                bounds: document_bounds(profile),
                ..xdms::store::Quotas::default()
            },
            charging: config.charging.clone(),
            log: config.log,
            door: ops::http::Settings {
                token: config.ops.token.clone(),
                names: vec![config.node.name.clone(), config.sip.advertise.host.clone()],
                max_connections: config.ops.max_connections as usize,
            },
            isc,
            profile_name: profile::name_of(config.profile.as_deref()),
            threads,
            config: config.clone(),
            profile: profile.clone(),
            all: loaded.settings.clone(),
        }
    }

    /// Keys that have another value in `fresh` and wait for the next start with it.
    pub fn waiting_in<'a>(&self, fresh: &'a Loaded) -> Vec<&'a str> {
        super::reload::waiting(&self.all, &fresh.settings)
    }

    /// Tells the ports that were taken, and where the SIP stack listens: those that were 0 are now known, in what we
    /// tell others and in our own names.
    pub fn bound(&mut self, ports: Ports, sip: &[(Protocol, SocketAddr)]) {
        if self.config.sip.advertise.port == 0 {
            self.config.sip.advertise.port = ports.sip;
        }
        let told = self.config.sip.advertise.to_string();
        if self.config.sip.listen[0].address.port() == 0
            && self.isc.sip.uri != format!("sip:{told}")
        {
            // Neighbours find us by the port that was taken, too.
            self.isc.sip.aliases.push(told.clone());
        }
        self.isc.sip.advertise.clone_from(&told);
        self.resolver.own_hosts = own_hosts(&self.config, Some(ports.sip));
        self.ua.sent_by = told;
        self.doors = doors(&self.config, sip);
        self.isc.sip.told = self.doors.told().map(str::to_owned).collect();
        if self.config.msrp.advertise.port == 0 {
            self.config.msrp.advertise.port = ports.msrp;
            self.msrp.port = ports.msrp;
        }
        if let Some(also) = self.config.msrp.advertise_also.as_mut().filter(|also| also.port == 0) {
            also.port = ports.msrp_also;
            self.msrp.also = Some((bare(&also.host).to_owned(), also.port));
        }
        if let Some(tls) = &mut self.config.msrp.tls {
            if tls.advertise.port == 0 {
                tls.advertise.port = ports.msrp_tls;
                self.msrp.tls_at.1 = ports.msrp_tls;
            }
            if let Some(also) = tls.advertise_also.as_mut().filter(|also| also.port == 0) {
                also.port = ports.msrp_tls_also;
                self.msrp.tls_also = Some((bare(&also.host).to_owned(), also.port));
            }
        }
        if let Some(listen) = self.config.xdms.listen.filter(|address| address.port() == 0) {
            let root = &self.config.xdms.root;
            let authority = format!("//{}:{}", listen.ip(), ports.xcap);
            let path = root.splitn(4, '/').nth(3).unwrap_or_default();
            let scheme = if self.xdms_tls.is_some() { "https" } else { "http" };
            self.config.xdms.root = format!("{scheme}:{authority}/{path}");
            self.resolver.root.clone_from(&self.config.xdms.root);
            self.isc.documents.root.clone_from(&self.config.xdms.root);
            self.xdms_server.origin = format!("{scheme}:{authority}");
            if let Some(root) = Url::parse(&self.config.xdms.root) {
                self.xdms_remote.http.root = root;
            }
        }
    }
}

fn policy(config: &Config, profile: &Profile, threads: u8) -> Policy {
    let Profile { im, msrp, ul, deferred, .. } = profile;
    Policy {
        originator_answer: im.originator_answer,
        leg_timeout: im.leg_timeout,
        fail_map: im.fail_map,
        page_deadline: msrp.page_deadline,
        drain_after_end: msrp.drain_after_end,
        quiet_timeout: msrp.tx_timeout,
        originator_bye_timeout: im.originator_bye_timeout,
        progress_after: im.progress_after,
        sr_policy: msrp.sr_policy,
        send_rate: ul.send_rate,
        max_entries: ul.max_entries,
        max_parallel_per_user: im.max_parallel_per_user,
        max_rate_per_user: im.max_rate_per_user.a_second().unwrap_or(1),
        max_pages: (config.node.max_pages as usize).div_ceil(usize::from(threads)),
        deferral: Deferral {
            enabled: deferred.enabled,
            causes: deferred.causes.clone(),
            ttl: deferred.ttl,
            max_per_user: deferred.max_per_user,
            when_none_joined: deferred.when_none_joined,
        },
        ..Policy::default()
    }
}

fn isc_settings(config: &Config, profile: &Profile) -> isc::settings::Settings {
    use isc::settings::{
        Auth, Core, Documents, Im, IscKeys, Large, Media, Pager, Service, Settings, Sip, Ul,
    };
    let Config { sip, core, service, auth, .. } = config;
    let Profile { im, isc, msrp, ul, .. } = profile;
    let seconds = u32::try_from(im.session_expires.as_secs()).unwrap_or(u32::MAX);
    let elsewhere = config.xdms.mode == XdmsMode::Ut;
    Settings {
        profile: profile.core,
        sip: Sip {
            uri: sip.uri.clone(),
            aliases: sip.aliases.clone(),
            trusted_peers: sip.trusted_peers.clone(),
            advertise: sip.advertise.to_string(),
            secure: sip.listen.iter().any(|listen| listen.protocol == Protocol::Tls),
            told: doors(config, &listening(config)).told().map(str::to_owned).collect(),
        },
        core: Core {
            scscf: core.scscf.clone(),
            icscf: core.icscf.clone(),
            outbound_proxy: core.outbound_proxy.clone(),
            untrusted_hops: core.untrusted_hops.clone(),
        },
        service: Service {
            home_domains: service.home_domains.clone(),
            factories: service.factories.clone(),
            group_domains: service.group_domains.clone(),
            groups: service.groups.clone(),
            subscribers: service.subscribers.clone(),
            barred: service.barred.clone(),
        },
        im: Im {
            release: im.release.clone(),
            strict_release: im.strict_release,
            accept_contact_params: im.accept_contact_params.clone(),
            pai_source: im.pai_source,
            from_source: im.from_source,
            large: Large {
                isfocus: im.large_isfocus,
                max_size: profile.max_message(),
                by_msrp: msrp.max_message < im.large_max_size,
                session_timer: im.large_session_timer,
            },
            max_recipients: usize::from(im.max_recipients),
            anon_reject: im.anon_reject,
            refresher: im.refresher,
            warning_numbers: im.warning_numbers,
            default_mode: im.default_mode,
            icsi: im.icsi.clone(),
            session_expires: seconds,
            pass_through: im.pass_through.clone(),
            recurse_3xx: im.recurse_3xx,
            ..Im::default()
        },
        isc: IscKeys {
            fanout_route: isc.fanout_route,
            psi_route: isc.psi_route,
            many_served_users: isc.many_served_users,
            send_psu: isc.send_psu,
            related_icid: isc.related_icid,
            preconditions: isc.preconditions,
            ioi_prefix: isc.ioi_prefix.clone(),
            operator: isc.operator.clone(),
            asserted_service: isc.asserted_service,
            reg_grace: isc.reg_grace,
            reg_event: isc.reg_event,
            response_source: isc.response_source.clone(),
            relay: isc.relay,
            relay_lifetime: isc.relay_lifetime,
        },
        ul: Ul {
            max_entries: usize::from(ul.max_entries),
            max_bytes: ul.max_bytes.as_usize(),
            require_strict: ul.require_strict,
            bcc_mode: ul.bcc_mode,
            normalise_tel: ul.normalise_tel,
            require_tls: ul.require_tls,
        },
        pager: Pager::default(),
        media: Media {
            attribution: msrp.attribution,
            cema: msrp.cema,
            families: Families::of(
                std::iter::once(&config.msrp.advertise)
                    .chain(&config.msrp.advertise_also)
                    .map(|at| bare(&at.host)),
            ),
            tls: config.msrp.tls.as_ref().map(MsrpTls::served),
            offer_tls: im.tls,
            tls_downgrade: im.tls_downgrade,
            ..Media::default()
        },
        documents: Documents {
            follow: if elsewhere { config.xdms.sip.clone() } else { String::new() },
            serve: if elsewhere { String::new() } else { config.xdms.sip.clone() },
            root: config.xdms.root.clone(),
            identity: config
                .xdms
                .asserted_identity
                .as_ref()
                .or(service.factories.first())
                .unwrap_or(&sip.uri)
                .clone(),
            max_subscriptions: config.xdms.max_subscriptions as usize,
            max_entries: config.xdms.max_entries as usize,
        },
        realm: auth.realm.clone(),
        auth: Auth {
            users: auth.users.clone(),
            nonce_life: auth.nonce_life,
            max_failures: auth.max_failures,
        },
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn msrp_settings(config: &Config, profile: &Profile) -> msrp::Settings {
    let keys = &profile.msrp;
    let place = |at: &HostPort| (bare(&at.host).to_owned(), at.port);
    let usual = msrp::Settings::default();
    let tls = config.msrp.tls.as_ref();
    msrp::Settings {
        tls_at: tls.map_or(usual.tls_at, |tls| place(&tls.advertise)),
        tls_also: tls.and_then(|tls| tls.advertise_also.as_ref()).map(place),
        handshake_timeout: tls.map_or(usual.handshake_timeout, |tls| tls.handshake_timeout),
        max_handshakes: tls.map_or(usual.max_handshakes, |tls| tls.max_handshakes as usize),
        host: bare(&config.msrp.advertise.host).to_owned(),
        port: config.msrp.advertise.port,
        also: config.msrp.advertise_also.as_ref().map(place),
        spool_dir: Some(config.node.data_dir.join("spool")),
        await_confirmation: true,
        connect_allow: profile.connect_allow.clone().unwrap_or_default(),
        connect_loopback: config.msrp.listen.iter().all(|address| address.ip().is_loopback()),
        tx_timeout: keys.tx_timeout,
        bind_timeout: keys.bind_timeout,
        chunk_gap_timeout: keys.chunk_gap_timeout,
        leg_stall_timeout: keys.leg_stall_timeout,
        conn_linger: keys.conn_linger,
        max_message: profile.max_message(),
        max_header_section: keys.max_header_section.0,
        max_connections: keys.max_connections as usize,
        max_connections_per_ip: keys.max_connections_per_ip as usize,
        max_unbound: keys.max_unbound as usize,
        spool_total: config.msrp.spool_total,
        spool_memory: config.msrp.spool_memory,
        sr_policy: keys.sr_policy,
        store_and_forward: keys.store_and_forward,
        ..msrp::Settings::default()
    }
}

fn transport_settings(config: &Config) -> sip::transport::Settings {
    let listening = |protocol: Protocol| {
        let of = config.sip.listen.iter().filter(|listen| listen.protocol == protocol);
        of.map(|listen| listen.address).collect()
    };
    sip::transport::Settings {
        udp: listening(Protocol::Udp),
        tcp: listening(Protocol::Tcp),
        tls: listening(Protocol::Tls),
        security: config.sip.tls.as_ref().map(|material| {
            // Configuration refuses what is no name.
            let names = config.sip.trusted_names.iter().filter_map(|name| Names::fold(name));
            Tls::new(material.clone(), names.collect())
        }),
        limits: Limits { max_message: config.sip.max_message, ..Limits::default() },
        max_connections: config.sip.max_connections as usize,
        ..sip::transport::Settings::default()
    }
}

fn listening(config: &Config) -> Vec<(Protocol, SocketAddr)> {
    config.sip.listen.iter().map(|listen| (listen.protocol, listen.address)).collect()
}

/// ISC-016: what Via and Contact say of each address. `sip.advertise`, where it is set, speaks for UDP and TCP, and its
/// host for TLS with the port listened on unless `sip.tls.advertise` says more. An address there speaks only for doors of
/// its own family.
fn doors(config: &Config, listening: &[(Protocol, SocketAddr)]) -> Doors {
    let sip = &config.sip;
    let door = |(protocol, address): &(Protocol, SocketAddr)| {
        let own = HostPort::of(*address);
        let speaks = |told: &HostPort| {
            let literal = told.host.trim_start_matches('[').trim_end_matches(']');
            let family = literal.parse::<std::net::IpAddr>().ok().map(|ip| ip.is_ipv4());
            address.ip().is_unspecified() || family.is_none_or(|ipv4| ipv4 == address.is_ipv4())
        };
        let general = Some(&sip.advertise).filter(|told| sip.advertise_set && speaks(told));
        let told =
            match protocol {
                Protocol::Udp | Protocol::Tcp => general.cloned(),
                Protocol::Tls => sip.tls_advertise.clone().filter(speaks).or_else(|| {
                    general.map(|told| HostPort { port: address.port(), ..told.clone() })
                }),
            };
        Door { protocol: *protocol, address: *address, told: told.unwrap_or(own).to_string() }
    };
    Doors::new(sip.advertise.to_string(), listening.iter().map(door).collect())
}

fn xdms_server_settings(config: &Config) -> xdms::server::Settings {
    let Config { xdms, service, sip, auth, .. } = config;
    let root = root_path(&xdms.root);
    let users = auth.users.iter().map(|(name, account)| {
        let (ha1, identities) = (account.ha1.clone(), account.identities.clone());
        (name.clone(), xdms::server::User { ha1, identities })
    });
    xdms::server::Settings {
        origin: xdms.root.strip_suffix(&root).unwrap_or_default().to_owned(),
        root,
        trusted_proxies: xdms.trusted_proxies.clone(),
        own_identities: service.factories.iter().chain([&sip.uri]).cloned().collect(),
        ut: xdms::server::Ut {
            realm: auth.realm.clone(),
            users: std::sync::Arc::new(users.collect()),
            nonce_life: auth.nonce_life,
            max_failures: auth.max_failures,
        },
        ..xdms::server::Settings::default()
    }
}

fn hss_settings(config: &Config, profile: &Profile) -> sh::client::Settings {
    let own = config.sh.as_ref();
    let sh = &profile.sh;
    sh::client::Settings {
        origin_host: own.map(|own| own.origin_host.clone()).unwrap_or_default(),
        origin_realm: own.map(|own| own.origin_realm.clone()).unwrap_or_default(),
        cache_ttl: sh.cache_ttl,
        subscription_time: sh.subscription_time,
        max_subscriptions: sh.max_subscriptions as usize,
        binding_ttl: sh.hss_binding_ttl,
        service_indication: sh.service_indication.as_str().into(),
    }
}

fn resolver_settings(config: &Config, profile: &Profile) -> xdms::Settings {
    let Profile { im, ul, xdm, .. } = profile;
    let service = &config.service;
    // Configuration refuses what is no identity of a service.
    let psis =
        |psis: &[String]| psis.iter().filter_map(|psi| Psi::parse(psi).ok()).collect::<Vec<_>>();
    xdms::Settings {
        root: config.xdms.root.clone(),
        home_domains: service.home_domains.clone(),
        factories: psis(&service.factories),
        group_domains: service.group_domains.clone(),
        groups: psis(&service.groups),
        own_hosts: own_hosts(config, None),
        allowed_domains: ul.allowed_domains.clone(),
        allow_loopback: profile.allow_loopback_targets,
        normalise_tel: ul.normalise_tel,
        map_im: ul.map_im,
        phone_context: Some(ul.phone_context.clone()).filter(|context| !context.is_empty()),
        max_recipients: usize::from(profile.max_list()),
        max_members: usize::from(im.max_members),
        foreign_hosts: ul.foreign_hosts as usize,
        budget_per_minute: ul.budget_per_minute as usize,
        consent: ul.consent,
        anon_reject: match im.anon_reject {
            isc::settings::AnonReject::Oma => xdms::AnonReject::Oma,
            isc::settings::AnonReject::Rfc => xdms::AnonReject::Rfc,
        },
        pager_to_chat_group: xdm.pager_to_chat_group,
        apply_member_policy: xdm.apply_member_policy,
        im_enabler_ids: xdm.im_enabler_ids.clone(),
        absent_ruleset_members: xdm.absent_ruleset == profile::AbsentRuleset::Members,
        oma_precedence: xdm.oma_precedence,
        partial_lists: xdm.partial_lists,
        max_refs: usize::from(xdm.max_refs),
        resolve_timeout: xdm.resolve_timeout,
        ..xdms::Settings::default()
    }
}

/// XD-047: elements grow with the octets they are made of.
fn document_bounds(profile: &Profile) -> Bounds {
    let (octets, usual) = (profile.xdm.max_doc.as_usize(), BOUNDS);
    let elements = match profile.xdm.max_elements {
        0 => usual.elements.max(usual.elements.saturating_mul(octets / usual.bytes)),
        elements => elements as usize,
    };
    Bounds { bytes: octets, elements, ..usual }
}

fn remote_settings(config: &Config, profile: &Profile) -> xdms::ut::Settings {
    let (xdms, keys) = (&config.xdms, &profile.xdm);
    // XD-013: our PSI; one that stands for many is nobody's name.
    let own = config.service.factories.iter().find(|factory| !factory.contains('!'));
    let identity = xdms.asserted_identity.as_ref().or(own).unwrap_or(&config.sip.uri);
    // Configuration refuses what is no root. Port 0 is known later.
    let root = Url::parse(&xdms.root).or_else(|| Url::parse("http://127.0.0.1/"));
    let root = root.expect("the second one is a root");
    xdms::ut::Settings {
        http: xdms::ut::http::Settings {
            allowed_hosts: keys.allowed_hosts.clone(),
            connect: keys.connect_timeout,
            exchange: keys.timeout,
            max_body: keys.max_doc.as_usize(),
            identity: identity.clone(),
            asserted_header: keys.asserted_header,
            trusted: xdms.trusted_peers.clone(),
            account: xdms.account.clone(),
            ..xdms::ut::http::Settings::new(root)
        },
        times: Times {
            ttl: keys.cache_ttl,
            notified: keys.cache_ttl.saturating_mul(60),
            stale: keys.stale_if_error,
            rest: keys.cache_ttl.min(Duration::from_secs(5)),
        },
        limits: CacheLimits { documents: xdms.cache_documents as usize, octets: xdms.cache_size },
        bounds: document_bounds(profile),
        legacy_global: keys.legacy_global,
    }
}

/// UL-033: how a list would name this node, with `taken` as the port where that was left free.
fn own_hosts(config: &Config, taken: Option<u16>) -> Vec<String> {
    let sip = &config.sip;
    let uris = std::iter::once(&sip.uri).chain(&sip.aliases);
    let named = uris.map(|name| {
        let name = name.trim_start_matches("sips:").trim_start_matches("sip:");
        name.split([';', '?']).next().unwrap_or(name).rsplit('@').next().unwrap_or(name).to_owned()
    });
    let port = |port: u16| if port == 0 { taken.unwrap_or(0) } else { port };
    let bound = sip
        .listen
        .iter()
        .filter(|listen| !listen.address.ip().is_unspecified())
        .map(|listen| HostPort::of(listen.address))
        .chain([sip.advertise.clone()])
        .map(|at| format!("{}:{}", at.host, port(at.port)));
    let mut hosts: Vec<String> = Vec::new();
    for host in named.chain(bound) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// `/xcap-root` of `http://host:port/xcap-root`.
fn root_path(root: &str) -> String {
    root.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default()
}

fn ua_settings(
    config: &Config,
    profile: &Profile,
    isc: &isc::settings::Settings,
) -> sip::ua::Settings {
    let SipTimers { t1, t2, t4 } = profile.sip;
    let mut session = sip::ua::SessionTimer::default();
    if session.expires.is_some() {
        session.expires = Some(isc.im.session_expires);
    }
    sip::ua::Settings {
        timers: Timers { t1, t2, t4 },
        sent_by: config.sip.advertise.to_string(),
        server: isc::Isc::product(isc),
        session,
        ..sip::ua::Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[&str]) -> NodeSettings {
        let set: Vec<String> = set.iter().map(|argument| (*argument).to_owned()).collect();
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
        let loaded = Loaded::load_with(Some(&shipped), &set, &|_| None).expect("all is right");
        NodeSettings::new(&loaded, 2)
    }

    /// The shipped file leaves every part as that part's own defaults have it.
    #[test]
    fn the_shipped_file_means_the_defaults_of_every_part() {
        let settings = settings(&[]);
        assert_eq!(settings.threads, 2);
        let policy = Policy { max_pages: 5_000, ..Policy::default() };
        assert_eq!(settings.policy, policy);
        let mut isc = isc::settings::Settings::default();
        isc.media.families = Families { v4: true, v6: false };
        isc.sip.advertise = "127.0.0.1:5090".into();
        isc.sip.told = vec!["127.0.0.1:5090".into()];
        isc.core.icscf = "sip:127.0.0.1:5060".into();
        isc.service.factories = vec!["sip:pages@ims.test".into()];
        isc.service.home_domains = vec!["ims.test".into()];
        isc.service.group_domains = vec!["groups.ims.test".into()];
        isc.documents.identity = "sip:pages@ims.test".into();
        isc.documents.max_subscriptions = 500;
        isc.sip.trusted_peers = isc.sip.trusted_peers.iter().map(ipnet::IpNet::trunc).collect();
        assert_eq!(settings.isc, isc);
        let msrp = msrp::Settings {
            spool_dir: settings.msrp.spool_dir.clone(),
            await_confirmation: true,
            connect_loopback: true,
            ..msrp::Settings::default()
        };
        assert_eq!(settings.msrp, msrp);
        let resolver = &settings.resolver;
        let defaults = xdms::Settings::default();
        assert_eq!(resolver.root, defaults.root);
        assert_eq!(resolver.home_domains, ["ims.test"]);
        assert_eq!(resolver.own_hosts, ["127.0.0.1:5090"]);
        assert!(resolver.allow_loopback, "on loopback");
        assert_eq!(
            (resolver.max_recipients, resolver.max_members, resolver.max_refs),
            (defaults.max_recipients, defaults.max_members, defaults.max_refs)
        );
        assert_eq!(settings.xdms_server.root, "/xcap-root");
        assert_eq!(settings.transport.udp, settings.transport.tcp);
        assert_eq!(
            settings.transport.max_connections,
            sip::transport::Settings::default().max_connections
        );
        assert!(settings.msrp.spool_dir.is_some_and(|folder| folder.ends_with("var/spool")));
        assert_eq!(
            settings.ua.server,
            format!("IM-serv/OMA1.0 pagecast/{}", env!("CARGO_PKG_VERSION"))
        );
    }

    /// Every profile has what its core wants, besides what isc itself says of that core.
    #[test]
    fn profiles_of_cores_agree_with_isc() {
        use isc::settings::{CoreProfile, Settings};
        for (name, core) in [
            ("3gpp", CoreProfile::Gpp),
            ("3gpp2", CoreProfile::Gpp2),
            ("sipip", CoreProfile::SipIp),
        ] {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("ims-profiles/{name}.toml"));
            let settings = settings(&[&format!("profile={}", file.display())]);
            let expected = Settings::of(core);
            assert_eq!(settings.isc.profile, core);
            assert_eq!(settings.isc.isc, expected.isc, "{name}");
            assert_eq!(settings.isc.im, expected.im, "{name}");
            assert_eq!(&*settings.profile_name, name);
        }
    }

    #[test]
    fn each_key_reaches_the_part_that_obeys_it() {
        let settings = settings(&[
            "profile.msrp.max_message=2MiB",
            "profile.im.large.max_size=3MiB",
            "profile.im.max_recipients=70",
            "profile.ul.max_entries=60",
            "profile.im.max_rate_per_user=120/m",
            "profile.sip.t1=200ms",
            "profile.msrp.tx_timeout=7s",
            "profile.msrp.connect_allow=['10.0.0.0/8']",
            "profile.im.session_expires=10m",
            "profile.isc.fanout_route=odi",
            "sip.max_message=64KiB",
            "node.threads=4",
            "node.max_pages=10",
            "msrp.spool_memory=1MiB",
        ]);
        assert_eq!(settings.msrp.max_message, 2 << 20, "the smaller of the two");
        assert_eq!(settings.isc.im.large.max_size, 2 << 20);
        assert_eq!((settings.isc.im.max_recipients, settings.isc.ul.max_entries), (70, 60));
        assert_eq!(settings.resolver.max_recipients, 60, "the smaller of the two");
        assert_eq!(settings.policy.max_rate_per_user, 2);
        assert_eq!(settings.policy.quiet_timeout, std::time::Duration::from_secs(7));
        assert_eq!(settings.policy.max_pages, 3);
        assert_eq!(settings.ua.timers.t1, std::time::Duration::from_millis(200));
        assert_eq!(settings.ua.session.expires, Some(600));
        assert_eq!(settings.isc.isc.fanout_route, isc::settings::FanoutRoute::Odi);
        assert_eq!(settings.msrp.connect_allow.len(), 1);
        assert_eq!(settings.msrp.spool_memory, 1 << 20);
        assert_eq!(settings.limits.max_message, 64 << 10);
    }

    /// What the parts were given.
    fn given(settings: &NodeSettings) -> String {
        let NodeSettings { policy, isc, resolver, .. } = settings;
        let server = &settings.xdms_server.root;
        let check = settings.profile.im.check_registration; // the node's own
        format!("{policy:?} {isc:?} {resolver:?} {server:?} {check} {}", given_once(settings))
    }

    /// What those were given that are told once, at start.
    fn given_once(settings: &NodeSettings) -> String {
        let NodeSettings { msrp, ua, limits, flow, transport, .. } = settings;
        let (remote, sh, hss) = (&settings.xdms_remote, &settings.sh, &settings.hss);
        format!("{msrp:?} {ua:?} {limits:?} {flow:?} {transport:?} {remote:?} {sh:?} {hss:?}")
    }

    /// Another value for a key: of its own where its form does not tell one.
    fn another(key: &str, value: &str) -> String {
        use super::super::layer::{Origin, Raw};
        use super::super::value::{Size, Value};
        let own = match key {
            "core" => "\"sipip\"",
            "im.release" => "\"2.0\"",
            "im.accept_contact_params" => "\"require;explicit\"",
            "im.originator_answer" => "\"immediate\"",
            "im.pai_source" | "im.from_source" => "\"service\"",
            "im.default_mode" => "\"large\"",
            "im.anon_reject" => "\"rfc\"",
            "im.fail_map" => "\"plain\"",
            "im.refresher" => "\"uas\"",
            "im.tls" => "\"always\"",
            "im.tls_downgrade" => "\"allow\"",
            "im.max_rate_per_user" => "\"5/s\"",
            "isc.psi_route" => "\"scscf\"",
            "isc.fanout_route" => "\"odi\"",
            "isc.many_served_users" => "\"first\"",
            "isc.send_psu" => "\"never\"",
            "isc.response_source" => "\"urn:3gpp:fe:as.im\"",
            "isc.relay" => "\"b2bua\"",
            "sh.service_indication" => "\"other\"",
            "deferred.causes" => "[480]",
            "deferred.when_none_joined" => "\"accept\"",
            "msrp.attribution" => "\"never\"",
            "msrp.sr_policy" => "\"first_delivery\"",
            "msrp.connect_allow" => "[\"10.0.0.0/8\"]",
            "ul.bcc_mode" => "\"keep_own\"",
            "ul.consent" => "\"off\"",
            "xdm.absent_ruleset" => "\"members\"",
            "xdm.asserted_header" => "\"X-XCAP-Asserted-Identity\"",
            "xdm.allowed_hosts" => "[\"else\"]",
            "im.icsi" | "isc.ioi_prefix" | "isc.operator" | "ul.phone_context" => "\"else\"",
            "im.pass_through" | "ul.allowed_domains" | "xdm.im_enabler_ids" => "[\"else\"]",
            _ => "",
        };
        if !own.is_empty() {
            return own.to_owned();
        }
        let text = Raw::Text(value.trim_matches('"').to_owned());
        if let Ok(on) = value.parse::<bool>() {
            return (!on).to_string();
        }
        if let Ok(number) = value.parse::<u64>() {
            return number.checked_sub(1).unwrap_or(1).to_string();
        }
        if let Ok(time) = std::time::Duration::read(&text, &Origin::BuiltIn) {
            return (time + std::time::Duration::from_secs(1)).show();
        }
        let size =
            Size::read(&text, &Origin::BuiltIn).unwrap_or_else(|_| panic!("{key} = {value}"));
        Size(size.0 / 2).show()
    }

    /// Proves ISC-064.
    #[test]
    fn where_msrp_listens_at_both_kinds_of_addresses_both_are_told() {
        for (set, host, also, v4, v6) in [
            (
                &["msrp.listen=['127.0.0.1:2855', '[::1]:2856']", "msrp.advertise=127.0.0.1:2855"]
                    [..],
                "127.0.0.1",
                Some("::1"),
                true,
                true,
            ),
            (
                &["msrp.listen=['[::1]:2856']", "msrp.advertise=[::1]:2856"][..],
                "::1",
                None,
                false,
                true,
            ),
            (&["msrp.advertise=media.ims.test:2855"][..], "media.ims.test", None, true, true),
            (
                &["msrp.advertise=192.0.2.1:2855", "msrp.advertise_also=[2001:db8::1]:2855"][..],
                "192.0.2.1",
                Some("2001:db8::1"),
                true,
                true,
            ),
            (
                &["msrp.advertise=192.0.2.1:2855", "msrp.advertise_also=six.ims.test:2855"][..],
                "192.0.2.1",
                Some("six.ims.test"),
                true,
                true,
            ),
            (&[][..], "127.0.0.1", None, true, false),
        ] {
            let settings = settings(set);
            assert_eq!(settings.msrp.host, host, "{set:?}");
            assert_eq!(settings.msrp.also.as_ref().map(|(host, _)| host.as_str()), also, "{set:?}");
            let families = settings.isc.media.families;
            assert_eq!((families.v4, families.v6), (v4, v6), "{set:?}");
        }
        let mut settings =
            settings(&["msrp.listen=['127.0.0.1:0', '[::1]:0']", "msrp.advertise=127.0.0.1:0"]);
        settings.bound(
            Ports {
                sip: 40001,
                msrp: 40002,
                msrp_also: 40004,
                msrp_tls: 0,
                msrp_tls_also: 0,
                xcap: 40003,
            },
            &[],
        );
        assert_eq!(settings.msrp.told(Some(crate::content::sdp::Family::V6)), ("::1", 40004));
        assert_eq!(settings.msrp.told(Some(crate::content::sdp::Family::V4)), ("127.0.0.1", 40002));
    }

    /// A key that nothing obeys would be a promise we do not keep.
    #[test]
    fn every_key_of_the_profile_reaches_a_part() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pagecast.toml");
        let load = |set: &[String]| {
            Loaded::load_with(Some(&file), set, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"))
        };
        let with = ["sh.enabled=true".to_owned(), "msrp.tls.listen=['127.0.0.1:2856']".to_owned()];
        let plain = load(&with);
        let before = NodeSettings::new(&plain, 2);
        let mut keys = 0;
        for setting in &plain.settings {
            let Some(key) = setting.key.strip_prefix("profile.") else { continue };
            let value = another(key, &setting.value);
            let changed = load(&[&with[..], &[format!("profile.{key}={value}")]].concat());
            let after = NodeSettings::new(&changed, 2);
            assert_ne!(given(&before), given(&after), "{key} = {value} changes nothing");
            // And whoever reloads is told what does not count yet.
            let once = given_once(&before) != given_once(&after);
            let told = before.waiting_in(&changed).contains(&setting.key.as_str());
            assert_eq!(once, told, "{key}");
            keys += 1;
        }
        assert!(keys > 60, "{keys}");
    }

    /// ISC-016: one row for each address, and `advertise` speaks where it can.
    #[test]
    fn others_are_told_an_address_of_their_protocol_and_family() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let listening = [
            (Protocol::Udp, address("192.0.2.1:5090")),
            (Protocol::Tcp, address("192.0.2.1:5090")),
            (Protocol::Tls, address("192.0.2.1:5091")),
            (Protocol::Udp, address("[2001:db8::1]:5090")),
            (Protocol::Tls, address("[2001:db8::1]:5092")),
        ];
        for (set, want) in [
            (
                &[][..],
                ["192.0.2.1:5090", "192.0.2.1:5091", "[2001:db8::1]:5090", "[2001:db8::1]:5092"],
            ),
            (
                &["sip.advertise=as.example:5060"],
                ["as.example:5060", "as.example:5091", "as.example:5060", "as.example:5092"],
            ),
            (
                &["sip.advertise=192.0.2.77:5060", "sip.tls.advertise=tls.example:5061"],
                ["192.0.2.77:5060", "tls.example:5061", "[2001:db8::1]:5090", "tls.example:5061"],
            ),
        ] {
            let mut all = vec!["sip.listen=['udp:192.0.2.1:5090']"];
            all.extend(set);
            let config = settings(&all).config;
            let doors = doors(&config, &listening);
            let told: Vec<&str> =
                [0, 2, 3, 4].iter().map(|at| doors.all()[*at].told.as_str()).collect();
            assert_eq!(told, want, "{set:?}");
        }
    }

    #[test]
    fn ports_that_were_free_are_told_once_they_are_taken() {
        let mut settings = settings(&[
            "sip.listen=['udp:127.0.0.1:0', 'tcp:127.0.0.1:0']",
            "msrp.listen=['127.0.0.1:0']",
            "xdms.listen=127.0.0.1:0",
        ]);
        let at = "127.0.0.1:40001".parse().expect("an address");
        let sip = [(Protocol::Udp, at), (Protocol::Tcp, at)];
        settings.bound(
            Ports {
                sip: 40001,
                msrp: 40002,
                msrp_also: 0,
                msrp_tls: 0,
                msrp_tls_also: 0,
                xcap: 40003,
            },
            &sip,
        );
        assert_eq!(settings.isc.sip.advertise, "127.0.0.1:40001");
        assert_eq!(settings.isc.sip.aliases, ["127.0.0.1:40001"]);
        assert_eq!(settings.ua.sent_by, "127.0.0.1:40001");
        assert_eq!(settings.resolver.own_hosts, ["127.0.0.1:5090", "127.0.0.1:40001"]);
        assert_eq!(settings.resolver.root, "http://127.0.0.1:40003/xcap-root");
        assert_eq!(settings.msrp.port, 40002);
        assert_eq!(settings.config.xdms.root, "http://127.0.0.1:40003/xcap-root");
    }
}
