//! Which URIs are ours: the server itself, its list services, the groups it hosts.
//!
//! Start at [`Own::classify`]. Follows ISC-002, ISC-057 and IM-023.

use crate::isc::settings::Settings;
use crate::sip::uri::{BadPsi, BadUri, Psi, Uri};

/// A setting is no URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: `{value}` is no SIP URI: {why}")]
pub struct BadSetting {
    pub key: &'static str,
    pub value: String,
    pub why: String,
}

/// What a Request-URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A list service; the URI as the operator wrote it, or that of the request where he wrote a pattern.
    Factory(String),
    /// A group hosted here; its identity without parameters.
    Group(String),
    /// The server itself.
    Server,
    /// The Contact of one of our pages.
    Session,
    /// The XDMS in this process, as an event server.
    Documents,
    /// A user, a foreign group, or nobody.
    Other,
}

/// The names of this server, read once.
#[derive(Debug, Clone)]
pub struct Own {
    hosts: Vec<(String, u16)>,
    factories: Vec<Psi>,
    groups: Vec<Psi>,
    group_domains: Vec<String>,
    documents: Option<Psi>,
}

/// How the user part of our session URIs begins.
pub const SESSION_PREFIX: &str = "lm-";

impl Own {
    /// # Errors
    /// [`BadSetting`] names the first setting that is no URI.
    pub fn new(settings: &Settings) -> Result<Self, BadSetting> {
        let mut hosts = vec![host_port(&uri("sip.uri", &settings.sip.uri)?)];
        for alias in &settings.sip.aliases {
            hosts.push(host_port(&uri_or_host("sip.aliases", alias)?));
        }
        if !settings.sip.advertise.is_empty() {
            hosts.push(host_port(&uri_or_host("sip.advertise", &settings.sip.advertise)?));
        }
        for told in &settings.sip.told {
            hosts.push(host_port(&uri_or_host("sip.listen", told)?));
        }
        let list = |key, values: &[String]| -> Result<Vec<Psi>, BadSetting> {
            values.iter().map(|value| psi(key, value)).collect()
        };
        Ok(Self {
            hosts,
            documents: match settings.documents.serve.as_str() {
                "" => None,
                serve => Some(psi("xdms.sip", serve)?),
            },
            factories: list("service.factories", &settings.service.factories)?,
            groups: list("service.groups", &settings.service.groups)?,
            group_domains: settings
                .service
                .group_domains
                .iter()
                .map(|domain| domain.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
        })
    }

    /// Whether a Route entry or Request-URI points at this server.
    ///
    /// ISC-002: host and port only, whatever parameters stand there.
    pub fn is_us(&self, text: &str) -> bool {
        Uri::parse(text).is_ok_and(|uri| uri.is_sip() && self.hosts.contains(&host_port(&uri)))
    }

    /// What a Request-URI names.
    ///
    /// IM-023, ISC-056, ISC-057: a distinct identity before one that stands for many (TS 23.003 §13.5).
    pub fn classify(&self, text: &str) -> Asked {
        let Ok(uri) = Uri::parse(text) else { return Asked::Other };
        if self.documents.as_ref().is_some_and(|documents| documents.matches(&uri)) {
            return Asked::Documents;
        }
        for wildcard in [false, true] {
            let find = |own: &[Psi]| {
                let found =
                    own.iter().find(|psi| psi.is_wildcard() == wildcard && psi.matches(&uri))?;
                Some(if wildcard { bare(&uri) } else { found.as_str().to_owned() })
            };
            if let Some(factory) = find(&self.factories) {
                return Asked::Factory(factory);
            }
            if let Some(group) = find(&self.groups) {
                return Asked::Group(group);
            }
        }
        if !uri.is_sip() {
            return Asked::Other;
        }
        let host = uri.host().trim_end_matches('.').to_ascii_lowercase();
        if uri.user().is_some() && self.group_domains.contains(&host) {
            return Asked::Group(bare(&uri));
        }
        match uri.user() {
            None if self.is_us(text) => Asked::Server,
            Some(user) if user.starts_with(SESSION_PREFIX) && self.is_us(text) => Asked::Session,
            _ => Asked::Other,
        }
    }
}

/// A SIP identity without parameters, in the form keys and answers have.
fn bare(uri: &Uri) -> String {
    let host = uri.host().trim_end_matches('.').to_ascii_lowercase();
    let user = uri.user().unwrap_or_default();
    match uri.port().filter(|port| *port != 5060) {
        Some(port) => format!("sip:{user}@{host}:{port}"),
        None => format!("sip:{user}@{host}"),
    }
}

fn psi(key: &'static str, value: &str) -> Result<Psi, BadSetting> {
    uri(key, value)?;
    Psi::parse(value).map_err(|error: BadPsi| BadSetting {
        key,
        value: value.to_owned(),
        why: error.to_string(),
    })
}

fn uri(key: &'static str, value: &str) -> Result<Uri, BadSetting> {
    let bad = |why: String| BadSetting { key, value: value.to_owned(), why };
    let uri = Uri::parse(value).map_err(|error: BadUri| bad(error.to_string()))?;
    if uri.is_sip() { Ok(uri) } else { Err(bad("sip: or sips: is wanted".to_owned())) }
}

fn uri_or_host(key: &'static str, value: &str) -> Result<Uri, BadSetting> {
    match uri(key, value) {
        Ok(uri) => Ok(uri),
        Err(_) => uri(key, &format!("sip:{value}"))
            .map_err(|bad| BadSetting { value: value.to_owned(), ..bad }),
    }
}

fn host_port(uri: &Uri) -> (String, u16) {
    let host = uri.host().trim_end_matches('.').to_ascii_lowercase();
    let default = if uri.scheme_str().eq_ignore_ascii_case("sips") { 5061 } else { 5060 };
    (host, uri.port().unwrap_or(default))
}

/// The domain a host belongs to; addresses and short names are their own.
pub fn domain(host: &str) -> &str {
    let is_name = host.bytes().any(|byte| byte.is_ascii_alphabetic()) && !host.starts_with('[');
    match host.split_once('.') {
        Some((_, rest)) if is_name && rest.contains('.') => rest,
        _ => host,
    }
}

/// The domain of our own URI; that of `host` where the URI names none.
pub fn own_domain(uri: &str, host: &str) -> String {
    let own = Uri::parse(uri).ok().map(|uri| uri.host().to_owned()).filter(|own| !own.is_empty());
    domain(&own.unwrap_or_else(|| host.to_owned())).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isc::settings::{Service, Sip};

    #[test]
    fn the_domain_of_a_host() {
        for (host, want) in [
            ("im-as1.home1.example", "home1.example"),
            ("ims.test", "ims.test"),
            ("localhost", "localhost"),
            ("127.0.0.50", "127.0.0.50"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(domain(host), want);
        }
    }

    #[test]
    fn our_domain_is_that_of_our_uri_whatever_address_we_listen_on() {
        assert_eq!(own_domain("sip:as1.ims.test:5090", "127.0.0.50"), "ims.test");
        assert_eq!(own_domain("", "im-as1.home1.example"), "home1.example");
    }

    fn own() -> Own {
        Own::new(&Settings {
            sip: Sip {
                uri: "sip:im-as1.home1.example".to_owned(),
                aliases: vec!["as.home1.example:5090".to_owned(), "sip:127.0.0.50:5090".to_owned()],
                ..Sip::default()
            },
            service: Service {
                factories: vec!["sip:im-exploder@im.home1.example".to_owned()],
                group_domains: vec!["Groups.home1.example".to_owned()],
                groups: vec!["sip:group1@ims.test".to_owned()],
                ..Service::default()
            },
            ..Settings::default()
        })
        .expect("the settings are URIs")
    }

    /// Proves ISC-002.
    #[test]
    fn we_are_known_by_host_and_port() {
        for (uri, ours) in [
            ("sip:im-as1.home1.example", true),
            ("sip:IM-AS1.home1.example:5060;lr;foo=bar", true),
            ("sip:orig@im-as1.home1.example;lr", true),
            ("sip:as.home1.example:5090;lr", true),
            ("sip:127.0.0.50:5090", true),
            ("sip:127.0.0.50:5060", false),
            ("sip:scscf1.home1.example;lr", false),
            ("tel:+1555", false),
        ] {
            assert_eq!(own().is_us(uri), ours, "{uri}");
        }
    }

    /// Proves ISC-056.
    #[test]
    fn a_distinct_identity_comes_before_one_that_stands_for_many() {
        let mut settings = Settings::default();
        settings.service.factories =
            vec!["sip:pages-!.*!@im.test".to_owned(), "sip:pages@im.test".to_owned()];
        settings.service.groups =
            vec!["sip:pages-g1@im.test".to_owned(), "sip:g-!\\d+!@im.test:5070".to_owned()];
        settings.service.group_domains = vec!["im.test".to_owned()];
        let own = Own::new(&settings).expect("the settings are URIs");
        let factory = |uri: &str| Asked::Factory(uri.to_owned());
        let group = |uri: &str| Asked::Group(uri.to_owned());
        for (uri, want) in [
            ("sip:pages@im.test;transport=tcp", factory("sip:pages@im.test")),
            // The identity that was asked for speaks for itself, not the pattern.
            ("sip:pages-7@IM.test:5060;transport=tcp", factory("sip:pages-7@im.test")),
            ("sip:pages-g1@im.test", group("sip:pages-g1@im.test")),
            ("sip:g-12@im.test:5070", group("sip:g-12@im.test:5070")),
            ("sip:g-1x@im.test:5070", group("sip:g-1x@im.test:5070")),
            ("sip:g-1x@elsewhere.test:5070", Asked::Other),
            ("tel:+1555", Asked::Other),
        ] {
            assert_eq!(own.classify(uri), want, "{uri}");
        }
        settings.service.groups = vec!["sip:!(!@im.test".to_owned()];
        let bad = Own::new(&settings).expect_err("no pattern");
        assert_eq!((bad.key, bad.value.as_str()), ("service.groups", "sip:!(!@im.test"));
        settings.service.groups = vec!["tel:+1555".to_owned()];
        assert_eq!(Own::new(&settings).expect_err("no SIP URI").key, "service.groups");
    }

    /// Proves IM-023, ISC-057.
    #[test]
    fn request_uris_are_told_apart() {
        let factory = Asked::Factory("sip:im-exploder@im.home1.example".to_owned());
        let group = |uri: &str| Asked::Group(uri.to_owned());
        for (uri, want) in [
            ("sip:im-exploder@im.home1.example", factory.clone()),
            ("SIP:im-exploder@IM.HOME1.EXAMPLE;transport=tcp", factory.clone()),
            ("sip:im%2Dexploder@im.home1.example:5060;user=phone", factory),
            ("sip:IM-exploder@im.home1.example", Asked::Other),
            ("sip:group1@ims.test", group("sip:group1@ims.test")),
            ("sip:team@groups.HOME1.example;transport=udp", group("sip:team@groups.home1.example")),
            ("sip:groups.home1.example", Asked::Other),
            ("sip:im-as1.home1.example", Asked::Server),
            ("sip:lm-7f3a@im-as1.home1.example", Asked::Session),
            ("sip:bob@home1.example", Asked::Other),
            ("sip:nobody@im.home1.example", Asked::Other),
            ("tel:+15551230002", Asked::Other),
        ] {
            assert_eq!(own().classify(uri), want, "{uri}");
        }
    }

    #[test]
    fn a_setting_that_is_no_uri_is_named() {
        let mut settings = Settings::default();
        settings.service.factories = vec!["pages".to_owned()];
        let bad = Own::new(&settings).expect_err("no URI");
        assert_eq!((bad.key, bad.value.as_str()), ("service.factories", "pages"));
    }

    /// Proves ISC-002.
    #[test]
    fn every_name_we_tell_is_ours() {
        let mut settings = Settings::default();
        settings.sip.uri = "sips:as.home1.example".to_owned();
        settings.sip.advertise = "192.0.2.10:5070".to_owned();
        let own = Own::new(&settings).expect("the settings are URIs");
        for (uri, ours) in [
            ("sips:as.home1.example", true),
            ("sip:as.home1.example.:5061", true),
            ("sip:as.home1.example", false),
            ("sip:192.0.2.10:5070;transport=tcp", true),
            ("sip:192.0.2.10", false),
            ("urn:x", false),
            ("nonsense", false),
        ] {
            assert_eq!(own.is_us(uri), ours, "{uri}");
        }
        for (key, change) in [
            ("sip.uri", (|s| s.sip.uri = "tel:+1".to_owned()) as fn(&mut Settings)),
            ("sip.aliases", |s| s.sip.aliases = vec!["a b".to_owned()]),
            ("sip.advertise", |s| s.sip.advertise = "<>".to_owned()),
        ] {
            let mut settings = Settings::default();
            change(&mut settings);
            assert_eq!(Own::new(&settings).expect_err("no URI").key, key);
        }
        let bad = Own::new(&Settings {
            sip: Sip { aliases: vec!["a b".to_owned()], ..Sip::default() },
            ..Settings::default()
        });
        assert_eq!(bad.expect_err("no host").value, "a b", "as the operator wrote it");
    }
}
