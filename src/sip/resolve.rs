//! Where a URI's requests go: RFC 3263, with every alternate in the order to try them.
//!
//! [`numeric`] answers at once for addresses written as such. [`Dns::hops`] asks NAPTR, SRV and A/AAAA. What is asked
//! and how answers are ordered is decided here; the queries themselves are made by the system's resolver or, for
//! tests, by a [`Zone`]. Never sends a SIP message and keeps no cache: see `transport`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::sip::Protocol;
use crate::sip::uri::{Scheme, Uri};

/// One place to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

/// Why there is no place to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    #[error("only sip and sips URIs name a host")]
    Scheme,
    #[error("the URI wants a transport that is not there")]
    Transport,
    #[error("no such host")]
    Unknown,
    #[error("name servers do not answer")]
    Dns,
}

/// A NAPTR record (RFC 3403).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub services: String,
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: String,
}

/// Records held in memory, for tests. Names in lower case, without the final dot.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    pub naptr: HashMap<String, Vec<Naptr>>,
    pub srv: HashMap<String, Vec<Srv>>,
    pub addresses: HashMap<String, Vec<IpAddr>>,
}

/// Who answers queries.
#[derive(Clone)]
pub enum Dns {
    /// The system's name servers and hosts file.
    System(Box<TokioResolver>),
    Zone(Zone),
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System(_) => "Dns::System",
            Self::Zone(_) => "Dns::Zone",
        })
    }
}

/// What a URI says about its place, before any query.
struct Wanted<'a> {
    host: &'a str,
    port: Option<u16>,
    /// From `transport=` or, for numeric hosts and explicit ports, by default.
    protocol: Option<Protocol>,
    secure: bool,
}

fn wanted(uri: &Uri) -> Result<Wanted<'_>, NoRoute> {
    let secure = match uri.scheme() {
        Scheme::Sip => false,
        Scheme::Sips => true,
        Scheme::Tel | Scheme::Urn | Scheme::Other => return Err(NoRoute::Scheme),
    };
    let protocol = match uri.param("transport") {
        None => None,
        Some(name) if name.eq_ignore_ascii_case("udp") && !secure => Some(Protocol::Udp),
        Some(name) if name.eq_ignore_ascii_case("tcp") => {
            Some(if secure { Protocol::Tls } else { Protocol::Tcp })
        }
        Some(name) if name.eq_ignore_ascii_case("tls") => Some(Protocol::Tls),
        Some(_) => return Err(NoRoute::Transport),
    };
    // RFC 3263 §4: maddr, where there is one, is the target.
    let host = uri.param("maddr").filter(|host| !host.is_empty()).unwrap_or(uri.host());
    Ok(Wanted { host, port: uri.port(), protocol, secure })
}

impl Wanted<'_> {
    /// RFC 3263 §4.1: without a word about it, numeric hosts and explicit ports mean UDP, or TLS for sips.
    fn protocol_or_default(&self) -> Protocol {
        self.protocol.unwrap_or(if self.secure { Protocol::Tls } else { Protocol::Udp })
    }
}

fn default_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Udp | Protocol::Tcp => 5060,
        Protocol::Tls => 5061,
    }
}

fn address_of(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    inner.parse().ok()
}

/// The place of a URI whose host is an address; `Ok(None)` where a name has to be looked up.
///
/// # Errors
/// [`NoRoute::Scheme`] and [`NoRoute::Transport`].
pub fn numeric(uri: &Uri, supported: &[Protocol]) -> Result<Option<Hop>, NoRoute> {
    let wanted = wanted(uri)?;
    let protocol = wanted.protocol_or_default();
    let Some(ip) = address_of(wanted.host) else { return Ok(None) };
    if !supported.contains(&protocol) {
        return Err(NoRoute::Transport);
    }
    let port = wanted.port.unwrap_or(default_port(protocol));
    Ok(Some(Hop { protocol, address: SocketAddr::new(ip, port) }))
}

/// ISC-067 (RFC 3261 §18.1.1): a request too large for UDP tries TCP at every address first and UDP, where that was
/// the choice, after it.
pub fn for_large(hops: &[Hop]) -> Vec<Hop> {
    let mut all = Vec::with_capacity(hops.len() * 2);
    for hop in hops {
        if hop.protocol == Protocol::Udp {
            let tcp = Hop { protocol: Protocol::Tcp, ..*hop };
            if !all.contains(&tcp) {
                all.push(tcp);
            }
        }
        if !all.contains(hop) {
            all.push(*hop);
        }
    }
    all
}

impl Dns {
    /// The system's resolver.
    ///
    /// # Errors
    /// When its configuration cannot be read.
    pub fn system() -> Result<Self, NoRoute> {
        let builder = TokioResolver::builder_tokio().map_err(|_| NoRoute::Dns)?;
        Ok(Self::System(Box::new(builder.build().map_err(|_| NoRoute::Dns)?)))
    }

    /// RFC 3263 §4: every place for a URI, best first. `random` spreads load over SRV records of one priority.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub async fn hops(
        &self,
        uri: &Uri,
        supported: &[Protocol],
        random: &mut (dyn FnMut() -> u32 + Send),
    ) -> Result<Vec<Hop>, NoRoute> {
        if let Some(hop) = numeric(uri, supported)? {
            return Ok(vec![hop]);
        }
        let wanted = wanted(uri)?;
        if let Some(protocol) = wanted.protocol
            && !supported.contains(&protocol)
        {
            return Err(NoRoute::Transport);
        }
        let host = wanted.host.to_ascii_lowercase();
        if let Some(port) = wanted.port {
            return self.plain(&host, wanted.protocol_or_default(), port, supported).await;
        }
        // §4.1: NAPTR tells the transport unless the URI did.
        let services = match wanted.protocol {
            Some(protocol) => vec![(protocol, srv_name(protocol, &host))],
            None => {
                let records = self.naptr(&host).await?;
                let chosen = by_naptr(records, supported, wanted.secure);
                if chosen.is_empty() {
                    every_service(&host, supported, wanted.secure)
                } else {
                    chosen
                }
            }
        };
        let mut hops = Vec::new();
        for (protocol, name) in services {
            for record in in_srv_order(self.srv(&name).await?, random) {
                // A target of "." says: decidedly not here (RFC 2782).
                if record.target.is_empty() {
                    continue;
                }
                let addresses = self.addresses(&record.target).await?;
                hops.extend(
                    addresses
                        .into_iter()
                        .map(|ip| Hop { protocol, address: SocketAddr::new(ip, record.port) }),
                );
            }
        }
        if hops.is_empty() {
            let protocol = wanted.protocol_or_default();
            return self.plain(&host, protocol, default_port(protocol), supported).await;
        }
        // Where the domain wants TLS most, nothing else stands in for it: whoever breaks TLS must not get the rest.
        if hops.first().is_some_and(|hop| hop.protocol == Protocol::Tls) {
            hops.retain(|hop| hop.protocol == Protocol::Tls);
        }
        Ok(hops)
    }

    /// A and AAAA only.
    async fn plain(
        &self,
        host: &str,
        protocol: Protocol,
        port: u16,
        supported: &[Protocol],
    ) -> Result<Vec<Hop>, NoRoute> {
        if !supported.contains(&protocol) {
            return Err(NoRoute::Transport);
        }
        let addresses = self.addresses(host).await?;
        if addresses.is_empty() {
            return Err(NoRoute::Unknown);
        }
        Ok(addresses
            .into_iter()
            .map(|ip| Hop { protocol, address: SocketAddr::new(ip, port) })
            .collect())
    }

    async fn naptr(&self, host: &str) -> Result<Vec<Naptr>, NoRoute> {
        let resolver = match self {
            Self::Zone(zone) => return Ok(zone.naptr.get(host).cloned().unwrap_or_default()),
            Self::System(resolver) => resolver,
        };
        let name = absolute(host);
        let found =
            match resolver.lookup(name, hickory_resolver::proto::rr::RecordType::NAPTR).await {
                Ok(found) => found,
                Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
                Err(_) => return Err(NoRoute::Dns),
            };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::NAPTR(naptr) => Some(Naptr {
                    order: naptr.order,
                    preference: naptr.preference,
                    flags: text(&naptr.flags),
                    services: text(&naptr.services),
                    replacement: relative(&naptr.replacement.to_ascii()),
                }),
                _ => None,
            })
            .collect())
    }

    async fn srv(&self, name: &str) -> Result<Vec<Srv>, NoRoute> {
        let resolver = match self {
            Self::Zone(zone) => return Ok(zone.srv.get(name).cloned().unwrap_or_default()),
            Self::System(resolver) => resolver,
        };
        let found = match resolver.srv_lookup(absolute(name)).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(_) => return Err(NoRoute::Dns),
        };
        Ok(found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: relative(&srv.target.to_ascii()),
                }),
                _ => None,
            })
            .collect())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NoRoute> {
        if let Some(ip) = address_of(host) {
            return Ok(vec![ip]);
        }
        match self {
            Self::Zone(zone) => Ok(zone.addresses.get(host).cloned().unwrap_or_default()),
            Self::System(resolver) => match resolver.lookup_ip(host).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) if error.is_no_records_found() => Ok(Vec::new()),
                Err(_) => Err(NoRoute::Dns),
            },
        }
    }
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn relative(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn srv_name(protocol: Protocol, host: &str) -> String {
    match protocol {
        Protocol::Udp => format!("_sip._udp.{host}"),
        Protocol::Tcp => format!("_sip._tcp.{host}"),
        Protocol::Tls => format!("_sips._tcp.{host}"),
    }
}

/// RFC 3263 §4.1, no NAPTR: ask for each transport we have, the cheapest first.
fn every_service(host: &str, supported: &[Protocol], secure: bool) -> Vec<(Protocol, String)> {
    let order: &[Protocol] =
        if secure { &[Protocol::Tls] } else { &[Protocol::Udp, Protocol::Tcp] };
    order
        .iter()
        .filter(|protocol| supported.contains(protocol))
        .map(|one| (*one, srv_name(*one, host)))
        .collect()
}

/// RFC 3263 §4.1: the services of NAPTR records we can use, by order, then preference.
fn by_naptr(
    mut records: Vec<Naptr>,
    supported: &[Protocol],
    secure: bool,
) -> Vec<(Protocol, String)> {
    records.sort_by_key(|record| (record.order, record.preference));
    let usable = records
        .into_iter()
        .filter(|record| record.flags.eq_ignore_ascii_case("s"))
        .filter_map(|record| {
            let protocol = match record.services.to_ascii_uppercase().as_str() {
                "SIP+D2U" if !secure => Protocol::Udp,
                "SIP+D2T" if !secure => Protocol::Tcp,
                "SIPS+D2T" => Protocol::Tls,
                _ => return None,
            };
            supported.contains(&protocol).then_some((record.order, protocol, record.replacement))
        });
    let mut first = None;
    usable
        .take_while(|(order, ..)| *first.get_or_insert(*order) == *order)
        .map(|(_, protocol, name)| (protocol, name))
        .collect()
}

/// RFC 2782: by priority, and within one by weighted lot without putting back.
fn in_srv_order(mut records: Vec<Srv>, random: &mut (dyn FnMut() -> u32 + Send)) -> Vec<Srv> {
    // Records of weight 0 stand first, so that they have a small chance.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let group = records.iter().take_while(|record| record.priority == priority).count();
        let total: u64 = records[..group].iter().map(|record| u64::from(record.weight)).sum();
        let lot = (u64::from(random()) * (total + 1)) >> 32;
        let mut sum = 0;
        let chosen = records[..group].iter().position(|record| {
            sum += u64::from(record.weight);
            sum >= lot
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Protocol] = &[Protocol::Udp, Protocol::Tcp];

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
        Srv { priority, weight, port, target: target.into() }
    }

    fn zone() -> Dns {
        let naptr = |order, preference, services: &str, replacement: &str| Naptr {
            order,
            preference,
            flags: "s".into(),
            services: services.into(),
            replacement: replacement.into(),
        };
        let ip = |text: &str| text.parse().unwrap();
        let mut zone = Zone::default();
        zone.naptr.insert(
            "a.example".into(),
            vec![
                naptr(50, 50, "SIPS+D2T", "_sips._tcp.a.example"),
                naptr(90, 60, "SIP+D2U", "_sip._udp.a.example"),
                naptr(90, 50, "SIP+D2T", "_sip._tcp.a.example"),
                naptr(100, 1, "SIP+D2U", "_never._udp.a.example"),
            ],
        );
        zone.srv.insert(
            "_sip._tcp.a.example".into(),
            vec![srv(2, 0, 5062, "two.a.example"), srv(1, 0, 5061, "one.a.example")],
        );
        zone.srv.insert("_sip._udp.a.example".into(), vec![srv(1, 0, 5060, "one.a.example")]);
        zone.srv.insert("_sip._tcp.b.example".into(), vec![srv(1, 0, 7000, "one.a.example")]);
        zone.srv.insert("_sip._udp.gone.example".into(), vec![srv(0, 0, 0, "")]);
        zone.addresses.insert("one.a.example".into(), vec![ip("192.0.2.1"), ip("2001:db8::1")]);
        zone.addresses.insert("two.a.example".into(), vec![ip("192.0.2.2")]);
        zone.addresses.insert("c.example".into(), vec![ip("192.0.2.3")]);
        Dns::Zone(zone)
    }

    async fn ask(uri: &str) -> Result<Vec<String>, NoRoute> {
        let hops = zone().hops(&Uri::parse(uri).unwrap(), BOTH, &mut || 0).await?;
        Ok(hops.iter().map(|hop| format!("{}:{}", hop.protocol.via_token(), hop.address)).collect())
    }

    #[tokio::test]
    async fn a_uri_leads_where_rfc_3263_says() {
        let rows: &[(&str, Result<&[&str], NoRoute>)] = &[
            ("sip:192.0.2.9", Ok(&["UDP:192.0.2.9:5060"])),
            ("sip:192.0.2.9:5070;transport=TCP", Ok(&["TCP:192.0.2.9:5070"])),
            ("sip:x@[2001:db8::9];transport=tcp", Ok(&["TCP:[2001:db8::9]:5060"])),
            ("sip:c.example:5080", Ok(&["UDP:192.0.2.3:5080"])),
            ("sip:c.example", Ok(&["UDP:192.0.2.3:5060"])),
            ("sip:C.example;transport=tcp", Ok(&["TCP:192.0.2.3:5060"])),
            ("sip:x;maddr=192.0.2.7", Ok(&["UDP:192.0.2.7:5060"])),
            ("sip:b.example;transport=tcp", Ok(&["TCP:192.0.2.1:7000", "TCP:[2001:db8::1]:7000"])),
            ("sip:b.example", Ok(&["TCP:192.0.2.1:7000", "TCP:[2001:db8::1]:7000"])),
            (
                "sip:a.example",
                Ok(&[
                    "TCP:192.0.2.1:5061",
                    "TCP:[2001:db8::1]:5061",
                    "TCP:192.0.2.2:5062",
                    "UDP:192.0.2.1:5060",
                    "UDP:[2001:db8::1]:5060",
                ]),
            ),
            ("sip:gone.example", Err(NoRoute::Unknown)),
            ("sip:nowhere.example", Err(NoRoute::Unknown)),
            ("sips:192.0.2.9", Err(NoRoute::Transport)),
            ("sip:192.0.2.9;transport=sctp", Err(NoRoute::Transport)),
            ("tel:+1", Err(NoRoute::Scheme)),
        ];
        for (uri, expected) in rows {
            let expected = expected
                .as_ref()
                .map(|hops| hops.iter().map(|hop| (*hop).to_owned()).collect())
                .map_err(|no| *no);
            assert_eq!(ask(uri).await, expected, "{uri}");
        }
    }

    /// RFC 3263 §4.1, §4.2 and RFC 3261 §26.2: what wants TLS gets TLS, first by NAPTR, then by SRV, then at port 5061.
    #[tokio::test]
    async fn secure_uris_lead_to_tls_and_nowhere_else() {
        let Dns::Zone(mut zone) = zone() else { panic!("a zone") };
        let ip = |text: &str| text.parse().unwrap();
        zone.srv.insert("_sips._tcp.a.example".into(), vec![srv(1, 0, 5063, "two.a.example")]);
        zone.srv.insert("_sips._tcp.b.example".into(), vec![srv(1, 0, 7001, "one.a.example")]);
        let naptr = |preference, services: &str, replacement: &str| Naptr {
            order: 10,
            preference,
            flags: "s".into(),
            services: services.into(),
            replacement: replacement.into(),
        };
        let both = |sips| {
            vec![
                naptr(sips, "SIPS+D2T", "_sips._tcp.b.example"),
                naptr(5, "SIP+D2T", "_sip._tcp.b.example"),
            ]
        };
        zone.naptr.insert("first.example".into(), both(1));
        zone.naptr.insert("second.example".into(), both(9));
        zone.addresses.insert("b.example".into(), vec![ip("192.0.2.8")]);
        let dns = Dns::Zone(zone);
        let all = &[Protocol::Udp, Protocol::Tcp, Protocol::Tls];
        let rows: &[(&str, Result<&[&str], NoRoute>)] = &[
            ("sips:192.0.2.9", Ok(&["TLS:192.0.2.9:5061"])),
            ("sips:[2001:db8::9]:5070", Ok(&["TLS:[2001:db8::9]:5070"])),
            ("sip:192.0.2.9;transport=tls", Ok(&["TLS:192.0.2.9:5061"])),
            ("sip:192.0.2.9:5080;transport=TLS", Ok(&["TLS:192.0.2.9:5080"])),
            ("sips:192.0.2.9;transport=tcp", Ok(&["TLS:192.0.2.9:5061"])),
            ("sips:192.0.2.9;transport=udp", Err(NoRoute::Transport)),
            ("sips:a.example", Ok(&["TLS:192.0.2.2:5063"])),
            ("sip:a.example", Ok(&["TLS:192.0.2.2:5063"])),
            ("sips:b.example", Ok(&["TLS:192.0.2.1:7001", "TLS:[2001:db8::1]:7001"])),
            ("sip:b.example;transport=tls", Ok(&["TLS:192.0.2.1:7001", "TLS:[2001:db8::1]:7001"])),
            ("sips:c.example", Ok(&["TLS:192.0.2.3:5061"])),
            ("sips:c.example:5090", Ok(&["TLS:192.0.2.3:5090"])),
            ("sip:c.example", Ok(&["UDP:192.0.2.3:5060"])),
            // TLS first: a broken handshake must not lead to plain TCP. TLS last: the domain does not mind.
            ("sip:first.example", Ok(&["TLS:192.0.2.1:7001", "TLS:[2001:db8::1]:7001"])),
            (
                "sip:second.example",
                Ok(&[
                    "TCP:192.0.2.1:7000",
                    "TCP:[2001:db8::1]:7000",
                    "TLS:192.0.2.1:7001",
                    "TLS:[2001:db8::1]:7001",
                ]),
            ),
        ];
        for (uri, expected) in rows {
            let found = dns.hops(&Uri::parse(uri).unwrap(), all, &mut || 0).await;
            let found = found.map(|hops| {
                let show = |hop: &Hop| format!("{}:{}", hop.protocol.via_token(), hop.address);
                hops.iter().map(show).collect::<Vec<_>>()
            });
            let expected = expected.map(|hops| hops.iter().map(|hop| (*hop).to_owned()).collect());
            assert_eq!(found, expected, "{uri}");
        }
    }

    #[test]
    fn weights_decide_how_often_a_server_comes_first() {
        let records = vec![
            srv(1, 3, 1, "three"),
            srv(1, 1, 1, "one"),
            srv(0, 0, 1, "first"),
            srv(2, 9, 1, "last"),
        ];
        let (mut seed, mut threes) = (0u32, 0);
        for _ in 0..4000 {
            let order = in_srv_order(records.clone(), &mut || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed
            });
            assert_eq!((order[0].target.as_str(), order[3].target.as_str()), ("first", "last"));
            threes += u32::from(order[1].target == "three");
        }
        // The lot is drawn from 0..=4 with "one" and "three" in this order or the other: 4 of 5, or 3 of 5.
        assert!((2000..3600).contains(&threes), "{threes}");
    }

    #[test]
    fn a_large_request_prefers_tcp_at_each_address() {
        let hop = |protocol, port| Hop {
            protocol,
            address: SocketAddr::new([192, 0, 2, 1].into(), port),
        };
        let (udp, tcp) = (Protocol::Udp, Protocol::Tcp);
        assert_eq!(
            for_large(&[hop(udp, 1), hop(udp, 2)]),
            [hop(tcp, 1), hop(udp, 1), hop(tcp, 2), hop(udp, 2)]
        );
        assert_eq!(for_large(&[hop(tcp, 1), hop(udp, 1)]), [hop(tcp, 1), hop(udp, 1)]);
    }
}
