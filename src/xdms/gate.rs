//! Who asks the embedded XDMS: a proxy says it, or the user proves it.
//!
//! Start at [`Gate::identify`]. Behind a proxy that is trusted the asserted identities count (XD-016). Everybody else is
//! on Ut directly and this server is its own authentication proxy: HTTP Digest, over TLS or from this machine alone, and
//! one of the user's own identities (XD-017; RFC 7616). A header that says what it may not say is refused, never passed
//! over. Knows no documents.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use ipnet::IpNet;

use super::server::OPERATOR;
use super::store::same_user;
use crate::sip::digest::server::{Guesser, Guesses, Nonces, Worth};
use crate::sip::digest::{Algorithm, Challenge, Credentials, Ha1};

const ASSERTED: [&str; 2] = ["x-3gpp-asserted-identity", "x-xcap-asserted-identity"];
const INTENDED: &str = "x-3gpp-intended-identity";

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// Over TLS.
    pub secure: bool,
}

/// Users who come with a password (XD-017).
#[derive(Debug, Clone)]
pub struct Ut {
    pub realm: String,
    /// By the user name of their credentials. Empty: nobody is challenged.
    pub users: Arc<BTreeMap<String, User>>,
    /// How long a nonce is good.
    pub nonce_life: Duration,
    /// Wrong credentials of one source in a minute; then it is refused.
    pub max_failures: u32,
}

impl Default for Ut {
    fn default() -> Self {
        Self {
            realm: String::new(),
            users: Arc::default(),
            nonce_life: Duration::from_secs(300),
            max_failures: 20,
        }
    }
}

impl Ut {
    /// What every user can be asked for.
    fn offered(&self) -> impl Iterator<Item = Algorithm> {
        let all = |one: &Algorithm| self.users.values().all(|user| user.ha1.contains_key(one));
        [Algorithm::Sha256, Algorithm::Md5].into_iter().filter(all)
    }

    /// Whether the response is right. A user nobody knows takes as long as a wrong password.
    fn proven(&self, user: Option<&User>, credentials: &Credentials, method: &str) -> bool {
        let offered = credentials.algorithm.filter(|one| self.offered().any(|a| a == *one));
        let Some(algorithm) = offered else { return false };
        let nobody = Ha1::of(Algorithm::Md5, "", "", b"");
        let known = user.and_then(|user| user.ha1.get(&algorithm));
        let right = credentials.answers(algorithm, known.unwrap_or(&nobody), method);
        right && known.is_some()
    }
}

/// One user with a password.
#[derive(Debug, Clone)]
pub struct User {
    pub ha1: BTreeMap<Algorithm, Ha1>,
    /// Public identities, the usual one first.
    pub identities: Vec<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requester {
    /// Any of these identities.
    Users(Vec<String>),
    /// The server itself, one of its services, or the operator.
    Own(Vec<String>),
}

impl Requester {
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::Users(names) | Self::Own(names) => names,
        }
    }

    pub(super) fn is(&self, user: &str) -> bool {
        self.names().iter().any(|name| same_user(name, user))
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// Why somebody is turned away.
#[derive(Debug)]
pub(super) enum Turned {
    /// 403.
    Away,
    /// 401 with these challenges.
    Ask(Vec<HeaderValue>),
    /// 429: it has guessed too often.
    Guessing,
    /// 400: right credentials for another request.
    Elsewhere,
}

/// What is remembered of nonces and guesses.
pub(super) struct Gate(Mutex<(Nonces, Guesses)>);

/// What the gate obeys.
pub(super) struct Rules<'a> {
    pub(super) trusted_proxies: &'a [IpNet],
    pub(super) own_identities: &'a [String],
    pub(super) ut: &'a Ut,
}

impl Gate {
    /// `key` is random.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Mutex::new((Nonces::new(key), Guesses::default())))
    }

    /// Who sent the request.
    pub(super) fn identify(
        &self,
        rules: &Rules<'_>,
        head: &Parts,
        peer: Peer,
        now: Instant,
    ) -> Result<Requester, Turned> {
        let address = peer.address.to_canonical();
        if rules.trusted_proxies.iter().any(|net| net.contains(&address)) {
            let names = asserted(&head.headers).ok_or(Turned::Away)?;
            let own = rules.own_identities.iter().map(String::as_str).chain([OPERATOR]);
            let is_own = own.into_iter().any(|own| names.iter().any(|name| same_user(name, own)));
            return Ok(if is_own { Requester::Own(names) } else { Requester::Users(names) });
        }
        // XD-016: from anybody else, whatever is in it.
        if ASSERTED.iter().any(|name| head.headers.contains_key(*name)) {
            return Err(Turned::Away);
        }
        // XD-015: a response that can be overheard can be guessed at.
        if rules.ut.users.is_empty() || !(peer.secure || address.is_loopback()) {
            return Err(Turned::Away);
        }
        let identities = self.login(rules.ut, head, address, now)?;
        let intended = identities_in(&head.headers, INTENDED);
        let name = match intended.as_slice() {
            [] => identities.first(),
            // XD-017: one may only intend to be somebody one is.
            all if all.iter().all(|one| identities.iter().any(|own| same_user(own, one))) => {
                all.first()
            }
            _ => None,
        };
        name.map(|name| Requester::Users(vec![name.clone()])).ok_or(Turned::Away)
    }

    /// The identities of the user whose credentials a request carries.
    fn login(
        &self,
        ut: &Ut,
        head: &Parts,
        address: IpAddr,
        now: Instant,
    ) -> Result<Vec<String>, Turned> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (nonces, guesses) = &mut *state;
        let credentials = head
            .headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .filter_map(|value| Credentials::read(value.as_bytes()))
            .find(|credentials| credentials.realm == ut.realm && !credentials.are_unproven());
        let Some(credentials) = credentials else {
            return Err(challenge(nonces, now, ut, false));
        };
        let source = Guesser::at(address);
        if guesses.are_too_many(now, &source, ut.max_failures) {
            return Err(Turned::Guessing);
        }
        let user = ut.users.get(&credentials.user);
        if !ut.proven(user, &credentials, head.method.as_str()) {
            tracing::info!(%address, user = ?credentials.user, "credentials are wrong");
            guesses.wrong(now, source);
            return Err(challenge(nonces, now, ut, false));
        }
        let (Some(user), Some(count)) = (user, credentials.count()) else {
            return Err(challenge(nonces, now, ut, false));
        };
        let target = head.uri.path_and_query().map(|target| target.as_str());
        if target != Some(&credentials.uri) && head.uri != *credentials.uri {
            // RFC 7616 §3.4.6: right, but for another request.
            return Err(Turned::Elsewhere);
        }
        let life = ut.nonce_life;
        match nonces.redeem(now, &ut.realm, life, &credentials.nonce, count) {
            Worth::Good => Ok(user.identities.clone()),
            Worth::Stale => Err(challenge(nonces, now, ut, true)),
        }
    }
}

/// A challenge for each algorithm, all with one nonce.
fn challenge(nonces: &mut Nonces, now: Instant, ut: &Ut, stale: bool) -> Turned {
    let nonce = nonces.make(now, &ut.realm);
    let one = |algorithm| {
        let (realm, nonce) = (ut.realm.clone(), nonce.clone());
        let challenge = Challenge { realm, nonce, opaque: None, algorithm, qop: true, stale };
        HeaderValue::from_str(&challenge.write()).ok()
    };
    Turned::Ask(ut.offered().filter_map(one).collect())
}

/// XD-016: the identities a trusted proxy vouches for. Where it names both, the intended ones have to be among the
/// asserted ones (XD-017).
fn asserted(headers: &HeaderMap) -> Option<Vec<String>> {
    let asserted: Vec<String> =
        ASSERTED.iter().flat_map(|name| identities_in(headers, name)).collect();
    let intended = identities_in(headers, INTENDED);
    match (asserted.is_empty(), intended.is_empty()) {
        (true, true) => None,
        (true, false) => Some(intended),
        (false, true) => Some(asserted),
        (false, false) => {
            let is_one = |name: &String| asserted.iter().any(|one| same_user(one, name));
            intended.iter().all(is_one).then_some(intended)
        }
    }
}

/// A comma list, each element bare, in quotes or in angle brackets (XD-016).
fn identities_in(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_matches('"').trim())
        .map(|one| one.strip_prefix('<').and_then(|o| o.strip_suffix('>')).unwrap_or(one).trim())
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}
