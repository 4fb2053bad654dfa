//! SIP Digest: what a challenge and credentials say, and what the right response is.
//!
//! Start at [`response`], the one computation; [`Challenge`] and [`Credentials`] are the two header values, [`Client`]
//! answers challenges, [`server`] makes them. Keeps no clock and no randomness: both are arguments. Knows `qop=auth` and no other protection;
//! a challenge without any is answered the old way (RFC 2617 §3.2.2.1). Never logs a password, HA1 or response.
//! Follows RFC 3261 §22, RFC 2617, RFC 7616, RFC 8760, and RFC 3310 for the name of its algorithm.

use std::fmt;

use md5::{Digest as _, Md5};
use sha2::Sha256;

pub mod server;
#[cfg(test)]
mod tests;

/// Parameters of one header value that are read; more is no Digest of anybody.
const MOST_PARAMS: usize = 32;

/// A hash that makes a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 8760 §2.1.
    Sha256,
    /// RFC 2617; what a challenge without an algorithm means.
    Md5,
    /// MD5 with the RES of a UMTS authentication as password (RFC 3310 §3.4).
    AkaV1Md5,
}

impl Algorithm {
    /// `None` for algorithms we do not compute.
    pub fn read(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Md5, Self::AkaV1Md5]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// As it stands in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
            Self::AkaV1Md5 => "AKAv1-MD5",
        }
    }

    /// Hexadecimal digits of a hash.
    pub fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Md5 | Self::AkaV1Md5 => 32,
        }
    }

    /// The hash of `parts` with a colon between them, in lower-case hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> String {
        let joined = parts.join(&b':');
        match self {
            Self::Sha256 => hex(&Sha256::digest(joined)),
            Self::Md5 | Self::AkaV1Md5 => hex(&Md5::digest(joined)),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `H(user:realm:password)`: as good as the password in its realm, and so never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1(String);

impl Ha1 {
    /// Of a password (RFC 7616 §3.4.2). AKA has octets for one.
    pub fn of(algorithm: Algorithm, user: &str, realm: &str, password: &[u8]) -> Self {
        Self(algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password]))
    }

    /// From its hexadecimal digits; `None` if they are not as many as the algorithm has.
    pub fn read(algorithm: Algorithm, digits: &str) -> Option<Self> {
        let right = digits.len() == algorithm.digits()
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        right.then(|| Self(digits.to_ascii_lowercase()))
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(left out)")
    }
}

/// What `qop=auth` adds to a response, as it stands in the header.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// Eight hexadecimal digits.
    pub nc: &'a str,
    pub cnonce: &'a str,
}

/// The right response for a request (RFC 7616 §3.4.1; without `counted` RFC 2617 §3.2.2.1).
pub fn response(
    algorithm: Algorithm,
    ha1: &Ha1,
    method: &str,
    uri: &str,
    nonce: &str,
    counted: Option<Counted<'_>>,
) -> String {
    let ha2 = algorithm.hash(&[method.as_bytes(), uri.as_bytes()]);
    let (ha1, ha2, nonce) = (ha1.0.as_bytes(), ha2.as_bytes(), nonce.as_bytes());
    match counted {
        Some(Counted { nc, cnonce }) => {
            algorithm.hash(&[ha1, nonce, nc.as_bytes(), cnonce.as_bytes(), b"auth", ha2])
        }
        None => algorithm.hash(&[ha1, nonce, ha2]),
    }
}

/// One WWW-Authenticate or Proxy-Authenticate value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub realm: String,
    pub nonce: String,
    pub opaque: Option<String>,
    pub algorithm: Algorithm,
    /// `qop` names `auth`. Without any qop it is the older response.
    pub qop: bool,
    /// The credentials were right and only the nonce was not.
    pub stale: bool,
}

impl Challenge {
    /// `None` for another scheme, an algorithm we do not know, or a `qop` without `auth`.
    pub fn read(value: &[u8]) -> Option<Self> {
        let params = Params::read(value)?;
        let algorithm = match params.get("algorithm") {
            Some(name) => Algorithm::read(name)?,
            None => Algorithm::Md5,
        };
        let offered = params.get("qop");
        let qop = offered
            .is_some_and(|qop| qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")));
        if offered.is_some() && !qop {
            return None;
        }
        Some(Self {
            realm: params.get("realm")?.to_owned(),
            nonce: params.get("nonce")?.to_owned(),
            opaque: params.get("opaque").map(str::to_owned),
            algorithm,
            qop,
            stale: params.get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The header value.
    pub fn write(&self) -> String {
        let mut value = format!(
            "Digest realm={}, nonce={}, algorithm={}",
            quoted(&self.realm),
            quoted(&self.nonce),
            self.algorithm.name()
        );
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        if self.qop {
            value.push_str(", qop=\"auth\"");
        }
        if self.stale {
            value.push_str(", stale=true");
        }
        value
    }
}

/// One Authorization or Proxy-Authorization value.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    /// As received; compare with [`Credentials::answers`].
    response: String,
    /// `None`: named, and unknown to us.
    pub algorithm: Option<Algorithm>,
    /// As received.
    pub qop: Option<String>,
    nc: Option<String>,
    cnonce: Option<String>,
    pub opaque: Option<String>,
}

impl Credentials {
    /// `None` for another scheme, or a value that lacks what every Digest has (RFC 3261 §22.4).
    pub fn read(value: &[u8]) -> Option<Self> {
        let params = Params::read(value)?;
        let text = |name| params.get(name).map(str::to_owned);
        Some(Self {
            user: text("username")?,
            realm: text("realm")?,
            nonce: text("nonce")?,
            uri: text("uri")?,
            response: text("response")?,
            algorithm: params.get("algorithm").map_or(Some(Algorithm::Md5), Algorithm::read),
            qop: text("qop"),
            nc: text("nc"),
            cnonce: text("cnonce"),
            opaque: text("opaque"),
        })
    }

    /// A name and nothing to prove it: what a client may send before it was challenged (TS 24.229 5.1.1.2).
    pub fn are_unproven(&self) -> bool {
        self.nonce.is_empty() && self.response.is_empty()
    }

    /// The nonce count; `None` where it is missing or no eight hexadecimal digits.
    pub fn count(&self) -> Option<u32> {
        let digits = self.nc.as_deref().filter(|nc| nc.len() == 8)?;
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    }

    /// Whether these are the credentials of whoever knows `ha1`, made with `qop=auth` for a request of this method.
    pub fn answers(&self, algorithm: Algorithm, ha1: &Ha1, method: &str) -> bool {
        let auth = self.qop.as_deref().is_some_and(|qop| qop.eq_ignore_ascii_case("auth"));
        let (Some(nc), Some(cnonce), true) = (&self.nc, &self.cnonce, auth) else {
            return false;
        };
        let counted = Some(Counted { nc, cnonce });
        let right = response(algorithm, ha1, method, &self.uri, &self.nonce, counted);
        same(right.as_bytes(), self.response.to_ascii_lowercase().as_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// Whether both are the same, in a time that does not tell where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

/// A client's side: answers one challenge, as often as its nonce is good.
///
/// Contract: one [`Client`] for one challenge; every request it makes credentials for counts (RFC 7616 §3.4).
#[derive(Debug, Clone)]
pub struct Client {
    user: String,
    challenge: Challenge,
    ha1: Ha1,
    sent: u32,
}

impl Client {
    pub fn new(user: &str, password: &[u8], challenge: Challenge) -> Self {
        let ha1 = Ha1::of(challenge.algorithm, user, &challenge.realm, password);
        Self { user: user.to_owned(), challenge, ha1, sent: 0 }
    }

    /// The value of Authorization for one more request. `cnonce` is fresh random text.
    pub fn credentials(&mut self, method: &str, uri: &str, cnonce: &str) -> String {
        self.sent = self.sent.saturating_add(1);
        let Challenge { realm, nonce, opaque, algorithm, qop, .. } = &self.challenge;
        let nc = format!("{:08x}", self.sent);
        let counted = qop.then_some(Counted { nc: &nc, cnonce });
        let right = response(*algorithm, &self.ha1, method, uri, nonce, counted);
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{right}\", algorithm={}",
            quoted(&self.user),
            quoted(realm),
            quoted(nonce),
            quoted(uri),
            algorithm.name()
        );
        if let Some(opaque) = opaque {
            value.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        if *qop {
            value.push_str(&format!(", qop=auth, nc={nc}, cnonce={}", quoted(cnonce)));
        }
        value
    }
}

/// What a client says of itself before it has a nonce (TS 24.229 5.1.1.2): who it is, and nothing proven.
pub fn unproven(user: &str, realm: &str, uri: &str) -> String {
    format!(
        "Digest username={}, realm={}, nonce=\"\", uri={}, response=\"\"",
        quoted(user),
        quoted(realm),
        quoted(uri)
    )
}

/// The realm of a Digest header value, other schemes included; `None` where there is none.
pub fn realm_of(value: &[u8]) -> Option<String> {
    Params::any(value)?.get("realm").map(str::to_owned)
}

/// Values keep their backslashes when read, so they are only written between quotes again.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// `name=value` pairs behind a scheme. Quoted values are without their quotes and otherwise as received: that is what
/// responses are computed over (RFC 7616 §3.4.2).
struct Params<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Params<'a> {
    /// Those of the scheme Digest.
    fn read(value: &'a [u8]) -> Option<Self> {
        let (scheme, _) = split_scheme(value)?;
        scheme.eq_ignore_ascii_case("Digest").then(|| Self::any(value)).flatten()
    }

    /// `None` for what is no list of parameters, names one twice, or has too many.
    fn any(value: &'a [u8]) -> Option<Self> {
        let (_, mut rest) = split_scheme(value)?;
        let mut params: Vec<(&str, &str)> = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return Some(Self(params));
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_end();
            let after = after.trim_start();
            let value;
            if let Some(inner) = after.strip_prefix('"') {
                let end = closing_quote(inner)?;
                value = &inner[..end];
                rest = inner[end + 1..].trim_start();
                if !rest.is_empty() && !rest.starts_with(',') {
                    return None;
                }
            } else {
                let end = after.find(',').unwrap_or(after.len());
                value = after[..end].trim_end();
                rest = &after[end..];
            }
            let known = params.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
            if name.is_empty() || known || params.len() == MOST_PARAMS {
                return None;
            }
            params.push((name, value));
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

fn split_scheme(value: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(value).ok()?.trim().split_once([' ', '\t'])
}

/// Where a quoted string ends, a quote behind a backslash being part of it.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}
