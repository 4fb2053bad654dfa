//! One request to an XDMS and its answer: connections that are used again, bounds in time and size, who we say we are,
//! and how we prove it.
//!
//! Start at [`Http::send`]. XD-006, XD-012 to XD-015; redirections and the hosts they may lead to are XD-007 and XD-024.
//! Knows no document: see `source` for what answers mean. No compression is asked for, and an answer that comes in one
//! is refused, so that nothing is ever inflated (XD-047). Passwords and their proofs are in no error and no log line.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::{Connect, Link};
use super::url::Url;
use crate::sip::digest::{Algorithm, Challenge, Client as Digest};

/// The header that says who asks (XD-013, XD-014).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AssertedHeader {
    #[default]
    Gpp,
    Oma,
}

impl AssertedHeader {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpp => "X-3GPP-Asserted-Identity",
            Self::Oma => "X-XCAP-Asserted-Identity",
        }
    }
}

/// Name and password for the XDMS (XD-015).
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub user: String,
    pub password: String,
    /// Basic is answered, too; over TLS as everything is.
    pub basic: bool,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("user", &self.user)
            .field("basic", &self.basic)
            .finish_non_exhaustive()
    }
}

/// What exchanges obey.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The XCAP root, which is asked whatever its scheme and address are.
    pub root: Url,
    /// `host` (then at port 443) or `host:port`: who else may be asked, over TLS only.
    pub allowed_hosts: Vec<String>,
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest wait for a whole exchange, connecting included.
    pub exchange: Duration,
    /// Largest body that is read, in octets.
    pub max_body: usize,
    /// Who we are; nothing is said where it is empty.
    pub identity: String,
    pub asserted_header: AssertedHeader,
    /// Addresses inside the trust domain.
    pub trusted: Vec<IpNet>,
    pub account: Option<Account>,
    /// Exchanges with one host at a time; more wait.
    pub parallel: usize,
}

impl Settings {
    /// Defaults of XD-012 for a root.
    pub fn new(root: Url) -> Self {
        Self {
            root,
            allowed_hosts: Vec::new(),
            connect: Duration::from_secs(2),
            exchange: Duration::from_secs(5),
            max_body: 1024 * 1024,
            identity: String::new(),
            asserted_header: AssertedHeader::default(),
            trusted: Vec::new(),
            account: None,
            parallel: 32,
        }
    }

    /// XD-024: whether a host may be asked that is not our root's.
    fn allows(&self, url: &Url) -> bool {
        let (host, port) = (url.host(), url.port());
        url.is_secure()
            && self.allowed_hosts.iter().any(|allowed| {
                let (name, at) = match allowed.rsplit_once(':') {
                    Some((name, at)) if !name.ends_with(':') => match at.parse::<u16>() {
                        Ok(at) if !name.contains(':') || name.ends_with(']') => (name, at),
                        _ => (allowed.as_str(), 443),
                    },
                    _ => (allowed.as_str(), 443),
                };
                let name = name.trim_start_matches('[').trim_end_matches(']');
                name.eq_ignore_ascii_case(host) && at == port
            })
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub method: Method,
    pub url: Url,
    /// If-Match or If-None-Match.
    pub condition: Option<(HeaderName, String)>,
    /// Of the media type.
    pub body: Option<(&'static str, Bytes)>,
    pub accept: Option<&'static str>,
    /// Instead of our own identity.
    pub identity: Option<String>,
}

impl Outgoing {
    /// A GET, with the tag of what is known already.
    pub fn get(url: Url, etag: Option<&str>) -> Self {
        Self {
            method: Method::GET,
            url,
            condition: etag.map(|etag| (header::IF_NONE_MATCH, etag.to_owned())),
            body: None,
            accept: None,
            identity: None,
        }
    }

    /// XD-012: a GET changes nothing, and a condition that held once holds no second time.
    fn may_repeat(&self) -> bool {
        self.method == Method::GET || self.condition.is_some()
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub content_type: Option<String>,
    pub body: Bytes,
    location: Option<String>,
    challenges: Vec<HeaderValue>,
}

/// Why nothing came back that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The URI is not one that may be asked (XD-024).
    #[error("{0} may not be asked (xdm.allowed_hosts)")]
    NotAllowed(String),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// What took too long.
    #[error("{0} did not answer in time ({1})")]
    Timeout(String, &'static str),
    /// The exchange broke off, or what came is no HTTP.
    #[error("the exchange with {0} broke: {1}")]
    Broken(String, String),
    #[error("the answer of {0} is too large (xdm.max_doc)")]
    TooLarge(String),
    #[error("{0} sends an encoding nobody asked for")]
    Encoded(String),
    /// XD-007: more than two hops, or one that leads nowhere.
    #[error("{0} redirects without end, or to nowhere")]
    Redirected(String),
}

/// One request that left and what became of it, for call flows and counters.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request line and header fields worth showing, in lines that end in CRLF.
    pub request: String,
    /// The same of the answer; `None` where none came.
    pub answer: Option<String>,
    pub octets: usize,
    pub status: Option<u16>,
    pub began: Instant,
    pub ended: Instant,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
}

impl Exchange {
    /// What it is counted as.
    pub fn result(&self) -> &'static str {
        match self.status {
            Some(200..=299) => "ok",
            Some(304) => "not_modified",
            Some(404 | 410) => "not_found",
            Some(401 | 403) => "denied",
            _ => "unavailable",
        }
    }
}

/// Hears of every exchange when it is over.
pub type Heard = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// A client of one XDMS, and of those that lists lead to.
pub struct Http {
    settings: Settings,
    connector: Arc<dyn Connect>,
    /// By authority; only hosts that may be asked get here, so that settings bound them.
    hosts: Mutex<HashMap<String, Host>>,
    /// The last challenge of the root, answered as long as its nonce holds.
    digest: Mutex<Option<Digest>>,
}

struct Host {
    slots: Arc<Semaphore>,
    idle: Vec<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// We may say who we are (XD-013).
    trusted: bool,
    used: bool,
}

/// Idle connections kept for one host.
const MOST_IDLE: usize = 8;
/// XD-007.
const MOST_HOPS: usize = 2;
const USER_AGENT: &str = concat!("XDM-client/OMA2.1 pagecast/", env!("CARGO_PKG_VERSION"));

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Http {
    pub fn new(settings: Settings, connector: Arc<dyn Connect>) -> Self {
        Self { settings, connector, hosts: Mutex::default(), digest: Mutex::default() }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks and gives the answer, whatever its status; what was exchanged on the way goes to `seen`.
    ///
    /// XD-012: one more attempt where none could connect and on 502, 503 and 504, if that can do no harm. A GET follows
    /// redirections (XD-007); a challenge of the root is answered once (XD-015).
    ///
    /// # Errors
    /// [`Failed`]; a 3xx that leads nowhere is one, too.
    pub async fn send(
        &self,
        mut outgoing: Outgoing,
        seen: &mut Vec<Exchange>,
    ) -> Result<Answer, Failed> {
        let (mut repeated, mut proven, mut hops) = (false, false, 0);
        loop {
            self.may_ask(&outgoing.url)?;
            let result = self.attempt(&outgoing, seen).await;
            let again = match &result {
                Err(Failed::Connect(..)) => true,
                Err(Failed::Timeout(_, what)) => *what == CONNECTING,
                Err(_) => false,
                Ok(answer) => matches!(answer.status.as_u16(), 502..=504),
            };
            if again && !repeated && outgoing.may_repeat() {
                repeated = true;
                continue;
            }
            let answer = result?;
            if answer.status == StatusCode::UNAUTHORIZED
                && !proven
                && self.takes_challenge(&outgoing.url, &answer)
            {
                proven = true;
                continue;
            }
            let redirects = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirects {
                return Ok(answer);
            }
            let lost = || Failed::Redirected(outgoing.url.authority());
            hops += 1;
            let next = answer.location.as_deref().and_then(|place| outgoing.url.join(place));
            match next {
                Some(next) if hops <= MOST_HOPS && outgoing.method == Method::GET => {
                    outgoing.url = next;
                }
                _ => return Err(lost()),
            }
        }
    }

    /// XD-024: the root's host as it is configured; any other only if it is named, and over TLS.
    pub fn may_lead_to(&self, url: &Url) -> bool {
        self.is_root(url) || self.settings.allows(url)
    }

    fn may_ask(&self, url: &Url) -> Result<(), Failed> {
        if self.may_lead_to(url) { Ok(()) } else { Err(Failed::NotAllowed(url.authority())) }
    }

    fn is_root(&self, url: &Url) -> bool {
        self.settings.root.same_origin(url)
    }

    /// One exchange within its time.
    async fn attempt(
        &self,
        outgoing: &Outgoing,
        seen: &mut Vec<Exchange>,
    ) -> Result<Answer, Failed> {
        let whom = outgoing.url.authority();
        let by = Instant::now() + self.settings.exchange;
        let late = |what| Failed::Timeout(whom.clone(), what);
        let slot = match timeout_at(by, self.slot(&whom)).await {
            Ok(slot) => slot,
            Err(_) => return Err(late("too many at once")),
        };
        // A connection that waited may have been closed meanwhile; that is nobody's failure.
        while let Some(mut connection) = self.idle(&whom) {
            match self.over(&mut connection, outgoing, by, seen).await {
                Err(Failed::Broken(..)) if connection.used && outgoing.may_repeat() => continue,
                result => {
                    self.put_back(&whom, connection, &result);
                    return result;
                }
            }
        }
        let mut connection = self.connect(&outgoing.url, by).await.inspect_err(|_| {
            seen.push(self.unanswered(outgoing, None, Instant::now()));
        })?;
        let result = self.over(&mut connection, outgoing, by, seen).await;
        self.put_back(&whom, connection, &result);
        drop(slot);
        result
    }

    async fn slot(&self, whom: &str) -> Option<OwnedSemaphorePermit> {
        let slots = Arc::clone(&self.host(whom).get_mut(whom)?.slots);
        // Nobody closes it.
        slots.acquire_owned().await.ok()
    }

    fn host(&self, whom: &str) -> MutexGuard<'_, HashMap<String, Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.contains_key(whom) {
            let slots = Arc::new(Semaphore::new(self.settings.parallel));
            hosts.insert(whom.to_owned(), Host { slots, idle: Vec::new() });
        }
        hosts
    }

    fn idle(&self, whom: &str) -> Option<Connection> {
        let mut hosts = self.host(whom);
        let idle = &mut hosts.get_mut(whom)?.idle;
        idle.retain(|connection| !connection.sender.is_closed());
        idle.pop()
    }

    /// After a whole answer the connection may serve again.
    fn put_back(&self, whom: &str, mut connection: Connection, result: &Result<Answer, Failed>) {
        if result.is_err() || connection.sender.is_closed() {
            return;
        }
        connection.used = true;
        if let Some(host) = self.host(whom).get_mut(whom)
            && host.idle.len() < MOST_IDLE
        {
            host.idle.push(connection);
        }
    }

    async fn connect(&self, url: &Url, by: Instant) -> Result<Connection, Failed> {
        let whom = url.authority();
        let failed = |error: &dyn fmt::Display| Failed::Connect(whom.clone(), error.to_string());
        let guarded = !self.is_root(url);
        let opening = async {
            let link =
                self.connector.connect(url, guarded).await.map_err(|error| failed(&error))?;
            let Link { stream, local, remote, mutual } = link;
            let (sender, connection) = http1::Builder::new()
                .max_headers(MOST_HEADERS)
                .max_buf_size(MOST_HEAD)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(&error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to an XDMS ended");
                }
            });
            let inside = |at: &SocketAddr| {
                let ip = at.ip().to_canonical();
                self.settings.trusted.iter().any(|net| net.contains(&ip))
            };
            let trusted = mutual || remote.as_ref().is_some_and(inside);
            Ok(Connection { sender, local, remote, trusted, used: false })
        };
        let limit = self.settings.connect.min(by.saturating_duration_since(Instant::now()));
        match timeout(limit, opening).await {
            Ok(result) => result,
            Err(_) => Err(Failed::Timeout(whom.clone(), CONNECTING)),
        }
    }

    /// The exchange itself.
    async fn over(
        &self,
        connection: &mut Connection,
        outgoing: &Outgoing,
        by: Instant,
        seen: &mut Vec<Exchange>,
    ) -> Result<Answer, Failed> {
        let whom = outgoing.url.authority();
        let began = Instant::now();
        let request = self.request(outgoing, connection.trusted)?;
        let sender = &mut connection.sender;
        let exchange = async {
            let broken = |error: hyper::Error| Failed::Broken(whom.clone(), error.to_string());
            sender.ready().await.map_err(broken)?;
            let response = sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            // Asked for in clear; what is packed stays so.
            let coded = head.headers.get(header::CONTENT_ENCODING);
            if coded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
                return Err(Failed::Encoded(whom.clone()));
            }
            let body = Limited::new(body, self.settings.max_body).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Failed::TooLarge(whom.clone()),
                None => Failed::Broken(whom.clone(), error.to_string()),
            })?;
            Ok(read(head.status, &head.headers, body.to_bytes()))
        };
        let result = match timeout_at(by, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Failed::Timeout(whom.clone(), "the answer")),
        };
        let mut exchange = self.unanswered(outgoing, Some(connection), began);
        if let Ok(answer) = &result {
            exchange.answer = Some(answer.shown());
            (exchange.octets, exchange.status) = (answer.body.len(), Some(answer.status.as_u16()));
        }
        seen.push(exchange);
        result
    }

    fn request(&self, outgoing: &Outgoing, trusted: bool) -> Result<Request<Full<Bytes>>, Failed> {
        let url = &outgoing.url;
        let target = url.target();
        let mut request = Request::builder()
            .method(outgoing.method.clone())
            .uri(&target)
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in self.shown_headers(outgoing, trusted) {
            request = request.header(name, value);
        }
        if self.is_root(url)
            && let Some(proof) = self.proof(outgoing.method.as_str(), &target, url.is_secure())
        {
            request = request.header(header::AUTHORIZATION, proof);
        }
        let body = outgoing.body.as_ref().map_or_else(Bytes::new, |(_, body)| body.clone());
        request
            .body(Full::new(body))
            .map_err(|error| Failed::Broken(url.authority(), error.to_string()))
    }

    /// What a request says besides how it is carried.
    fn shown_headers(&self, outgoing: &Outgoing, trusted: bool) -> Vec<(HeaderName, String)> {
        let mut headers = Vec::new();
        // XD-013: one of both headers, and only where it is believed and not abused.
        let identity = outgoing.identity.as_ref().unwrap_or(&self.settings.identity);
        if trusted && !identity.is_empty() {
            let name = self.settings.asserted_header.name().to_ascii_lowercase();
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                headers.push((name, format!("\"{identity}\"")));
            }
        }
        if let Some(accept) = outgoing.accept {
            headers.push((header::ACCEPT, accept.to_owned()));
        }
        if let Some((name, value)) = &outgoing.condition {
            headers.push((name.clone(), value.clone()));
            // XD-038: between us and the server nobody's memory counts.
            if outgoing.method == Method::GET {
                headers.push((header::CACHE_CONTROL, "no-cache".to_owned()));
            }
        }
        if let Some((content_type, _)) = &outgoing.body {
            headers.push((header::CONTENT_TYPE, (*content_type).to_owned()));
        }
        headers
    }

    fn unanswered(
        &self,
        outgoing: &Outgoing,
        connection: Option<&Connection>,
        began: Instant,
    ) -> Exchange {
        let url = &outgoing.url;
        let mut request = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            outgoing.method,
            url.target(),
            url.authority()
        );
        let trusted = connection.is_some_and(|connection| connection.trusted);
        for (name, value) in self.shown_headers(outgoing, trusted) {
            request.push_str(&format!("{}: {value}\r\n", title(name.as_str())));
        }
        Exchange {
            request,
            answer: None,
            octets: 0,
            status: None,
            began,
            ended: Instant::now(),
            local: connection.and_then(|connection| connection.local),
            remote: connection.and_then(|connection| connection.remote),
        }
    }

    /// XD-015: Digest over TLS; Basic over TLS and only if it is wanted. Whether it is worth asking again.
    fn takes_challenge(&self, url: &Url, answer: &Answer) -> bool {
        let Some(account) = &self.settings.account else { return false };
        if !self.is_root(url) {
            return false;
        }
        if !url.is_secure() {
            tracing::error!(
                xdms = url.authority(),
                rule = "XD-015",
                "a challenge without TLS is not answered"
            );
            return false;
        }
        let values = answer.challenges.iter().map(HeaderValue::as_bytes);
        let best = values
            .clone()
            .filter_map(Challenge::read)
            .filter(|challenge| challenge.algorithm != Algorithm::AkaV1Md5)
            .min_by_key(|challenge| challenge.algorithm);
        match best {
            Some(challenge) => {
                let password = account.password.as_bytes();
                *self.digest() = Some(Digest::new(&account.user, password, challenge));
                true
            }
            None => {
                // It was sent already if it is wanted; then it is wrong.
                *self.digest() = None;
                false
            }
        }
    }

    fn digest(&self) -> MutexGuard<'_, Option<Digest>> {
        self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proof(&self, method: &str, target: &str, secure: bool) -> Option<HeaderValue> {
        let account = self.settings.account.as_ref().filter(|_| secure)?;
        let mut value = match self.digest().as_mut() {
            Some(digest) => {
                let cnonce = getrandom::u64().ok()?;
                HeaderValue::from_str(&digest.credentials(
                    method,
                    target,
                    &format!("{cnonce:016x}"),
                ))
            }
            None if account.basic => {
                let pair = format!("{}:{}", account.user, account.password);
                HeaderValue::from_str(&format!("Basic {}", base64(pair.as_bytes())))
            }
            None => return None,
        }
        .ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

const CONNECTING: &str = "connecting";
/// Header fields of an answer, and octets of them together.
const MOST_HEADERS: usize = 64;
const MOST_HEAD: usize = 64 * 1024;

fn read(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
    let text = |name: HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.trim().to_owned())
    };
    Answer {
        status,
        etag: text(header::ETAG).filter(|etag| !etag.is_empty() && etag.len() <= 1024),
        content_type: text(header::CONTENT_TYPE),
        body,
        location: text(header::LOCATION),
        challenges: headers.get_all(header::WWW_AUTHENTICATE).iter().take(8).cloned().collect(),
    }
}

impl Answer {
    fn shown(&self) -> String {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        for (name, value) in [("ETag", &self.etag), ("Content-Type", &self.content_type)] {
            if let Some(value) = value {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text
    }
}

/// A header field name as people write it.
fn title(name: &str) -> String {
    let word = |word: &str| match word {
        "3gpp" | "xcap" => word.to_ascii_uppercase(),
        _ => {
            let (first, rest) = word.split_at(1.min(word.len()));
            first.to_ascii_uppercase() + rest
        }
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves XD-024.
    #[test]
    fn only_hosts_that_are_named_are_asked() {
        let root = Url::parse("http://127.0.0.1:8080/xcap-root").expect("a URL");
        let settings = Settings {
            allowed_hosts: ["lists.test", "other.test:8443", "[2001:db9::1]", "::2"]
                .map(str::to_owned)
                .to_vec(),
            ..Settings::new(root)
        };
        for (url, allowed) in [
            ("https://lists.test/a", true),
            ("https://LISTS.test:443/a", true),
            ("http://lists.test/a", false),
            ("https://lists.test:8443/a", false),
            ("https://other.test:8443/a", true),
            ("https://other.test/a", false),
            ("https://evil.lists.test/a", false),
            ("https://[2001:db9::1]/a", true),
            ("https://[::2]/a", true),
            ("https://127.0.0.1/a", false),
        ] {
            assert_eq!(settings.allows(&Url::parse(url).expect("a URL")), allowed, "{url}");
        }
    }

    #[test]
    fn names_and_passwords_are_written_in_base64() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(title("x-3gpp-asserted-identity"), "X-3GPP-Asserted-Identity");
        assert_eq!(title("if-none-match"), "If-None-Match");
        let account = Account { user: "as1".into(), password: "secret".into(), basic: true };
        assert!(!format!("{account:?}").contains("secret"));
    }
}
