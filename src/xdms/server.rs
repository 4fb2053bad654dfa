//! The embedded XDMS: XCAP over HTTP on the store (RFC 4825 §8).
//!
//! Start at [`serve`]; [`Server::answer`] is one request. Documents, elements and attributes are read, written and
//! removed, namespaces are read. Who asks is found out by the `gate` (XD-016, XD-017), what they may do is here (XD-018).
//! Follows XD-044 to XD-048; the order of checks is that of XD-045.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use roxmltree::Document as Xml;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::answers::{
    About, Answer, bad_body, conflict, limited, not_allowed, plain, refusal, tagged, turned,
};
use super::edit::{self, Edit};
use super::gate::{Gate, Rules};
use super::generated::{self, CAPS_NAMESPACE, DIRECTORY_NAMESPACE};
use super::groups::{Flaw, admitted};
use super::path::{self, CAPS, DIRECTORY, DocumentPath, Resource, Tree};
use super::selector::{Bad, Bindings, End, Selected, Selector};
use super::store::{Condition, Document, Refused, Store, Tags, Written, group_key};
use super::usages::Usage;
use crate::content::xml::{BadXml, Bounds, Gauge};

pub use super::gate::{Peer, Requester, User, Ut};

/// Who the operator's own commands are towards the server: no user can be asserted under `.invalid`, so only a trusted
/// neighbour can be this (XD-018).
pub const OPERATOR: &str = "sip:operator@pagecast.invalid";

const ELEMENT_TYPE: &str = "application/xcap-el+xml";
const ATTRIBUTE_TYPE: &str = "application/xcap-att+xml";
const NAMESPACES_TYPE: &str = "application/xcap-ns+xml";
/// What may be done with a document.
const ALLOW: &str = "GET, PUT, DELETE";

/// What the server obeys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the XCAP root, without trailing slash: `/xcap-root`.
    pub root: String,
    /// What goes before it in a URI of ours: `https://host:port`; may be empty.
    pub origin: String,
    /// Who may say who asks (XD-016).
    pub trusted_proxies: Vec<IpNet>,
    /// Identities of this server and its services: they may read everything (XD-018).
    pub own_identities: Vec<String>,
    /// Users who come without a proxy (XD-017).
    pub ut: Ut,
    /// XD-048: writes of one user in a minute.
    pub writes_per_minute: u32,
    /// Most connections at a time; more have to wait.
    pub connections: usize,
    /// Longest wait for a handshake, for a request's header, and for its body.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/xcap-root".to_owned(),
            origin: String::new(),
            trusted_proxies: Vec::new(),
            own_identities: Vec::new(),
            ut: Ut::default(),
            writes_per_minute: 20,
            connections: 256,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Gives the TLS of a connection. Asked for each of them, so that new certificates count from the next one on.
#[derive(Clone)]
pub struct Security(Arc<dyn Fn() -> TlsAcceptor + Send + Sync>);

impl Security {
    pub fn new(acceptor: impl Fn() -> TlsAcceptor + Send + Sync + 'static) -> Self {
        Self(Arc::new(acceptor))
    }
}

/// The server's state, shared by its connections.
pub struct Server {
    settings: RwLock<Arc<Settings>>,
    store: Arc<Store>,
    gate: Gate,
    writes: Mutex<HashMap<String, (Instant, u32)>>,
}

/// Accepts connections until the task is dropped; over TLS where there is a [`Security`].
pub async fn serve(listener: TcpListener, server: Arc<Server>, security: Option<Security>) {
    let slots = Arc::new(Semaphore::new(server.settings().connections));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: give others time to close theirs.
                tracing::warn!(%error, "the XDMS cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (server, security) = (server.clone(), security.clone());
        tokio::spawn(async move {
            connection(stream, peer, server, security).await;
            drop(slot);
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    server: Arc<Server>,
    security: Option<Security>,
) {
    let from = Peer { address: peer.ip(), secure: security.is_some() };
    let Some(security) = security else { return requests(stream, peer, from, server).await };
    let shaken = tokio::time::timeout(server.settings().timeout, security.0().accept(stream)).await;
    match shaken {
        Ok(Ok(stream)) => requests(stream, peer, from, server).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
        Err(_) => tracing::debug!(%peer, "no TLS in time"),
    }
}

async fn requests<S>(stream: S, peer: SocketAddr, from: Peer, server: Arc<Server>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let timeout = server.settings().timeout;
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, from).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_headers(64)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "XCAP connection ended");
    }
}

/// What a request is about, once its URI is understood.
struct Target {
    path: DocumentPath,
    selector: Option<Selector>,
    query: Option<String>,
}

impl Server {
    /// A server over a store.
    pub fn new(mut settings: Settings, store: Arc<Store>) -> Self {
        let mut key = [0; 32];
        if let Err(error) = getrandom::fill(&mut key) {
            tracing::error!(%error, "no random octets: nobody can log in to the XDMS");
            settings.ut.users = Arc::default();
        }
        let settings = RwLock::new(Arc::new(settings));
        Self { settings, store, gate: Gate::new(key), writes: Mutex::default() }
    }

    /// Obeys other settings from the next request on. Root, connections and addresses stay as they are.
    pub fn obey(&self, fresh: Settings) {
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let Settings { root, origin, connections, .. } = Settings::clone(&settings);
        *settings = Arc::new(Settings { root, origin, connections, ..fresh });
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers one request that came from `peer`.
    pub async fn answer<B>(&self, request: Request<B>, peer: Peer) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let path = head.uri.path().to_owned();
        let (answer, who) = self.handle(&self.settings(), head, body, peer).await;
        let status = answer.status().as_u16();
        if method == Method::GET {
            tracing::debug!(%method, path, status, who, "XCAP");
        } else {
            tracing::info!(%method, path, status, who, "XCAP");
        }
        answer
    }

    async fn handle<B>(
        &self,
        settings: &Settings,
        head: Parts,
        body: B,
        peer: Peer,
    ) -> (Answer, String)
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let nobody = String::new;
        // XD-045: method and selector first.
        if ![Method::GET, Method::PUT, Method::DELETE].contains(&head.method) {
            return (not_allowed(ALLOW), nobody());
        }
        let target = match target(&head, &settings.root) {
            Ok(target) => target,
            Err(status) => return (plain(status), nobody()),
        };
        let namespaces = target.selector.as_ref().is_some_and(|s| s.end == End::Namespaces);
        if namespaces && head.method != Method::GET {
            return (not_allowed("GET"), nobody());
        }
        let rules = Rules {
            trusted_proxies: &settings.trusted_proxies,
            own_identities: &settings.own_identities,
            ut: &settings.ut,
        };
        let now = Instant::now();
        let requester = match self.gate.identify(&rules, &head, peer, now.into_std()) {
            Ok(requester) => requester,
            Err(away) => return (turned(away), nobody()),
        };
        let who = requester.names().join(", ");
        if head.method == Method::GET {
            return (self.get(settings, &target, &head, &requester), who);
        }
        match self.may_write(settings, &target.path, &requester) {
            Ok(()) => {}
            Err(StatusCode::TOO_MANY_REQUESTS) => return (limited(), who),
            Err(status) => return (plain(status), who),
        }
        let answer = self.write(settings, target, &head, body, &who).await;
        (answer, who)
    }

    fn get(
        &self,
        settings: &Settings,
        target: &Target,
        head: &Parts,
        requester: &Requester,
    ) -> Answer {
        let document = match self.readable(settings, &target.path, requester) {
            Ok(document) => document,
            Err(status) => return plain(status),
        };
        let condition = condition(&head.headers);
        let must_match = Condition { matches: condition.matches.clone(), none_matches: None };
        if !must_match.holds(Some(&document.etag)) {
            return plain(StatusCode::PRECONDITION_FAILED);
        }
        let content = match &target.selector {
            None => (document.content_type, document.bytes.clone()),
            Some(selector) => match part(&document, selector) {
                Some(Selected::Element(text)) => (ELEMENT_TYPE, text.into()),
                Some(Selected::Attribute(text)) => (ATTRIBUTE_TYPE, text.into()),
                Some(Selected::Namespaces(text)) => (NAMESPACES_TYPE, text.into()),
                None => return plain(StatusCode::NOT_FOUND),
            },
        };
        // XD-008: one tag for the document and all its parts.
        if !condition.holds(Some(&document.etag)) {
            return tagged(StatusCode::NOT_MODIFIED, &document.etag, None);
        }
        tagged(StatusCode::OK, &document.etag, Some(content))
    }

    /// XD-018: what the requester may read.
    fn readable(
        &self,
        settings: &Settings,
        path: &DocumentPath,
        requester: &Requester,
    ) -> Result<Arc<Document>, StatusCode> {
        match (path.auid.as_str(), path.name.as_slice()) {
            (CAPS, [name]) if name == "index" && path.tree == Tree::Global => {
                return Ok(generated::capabilities(path));
            }
            (DIRECTORY, [name]) if name == "directory.xml" => {
                let owner = match &path.tree {
                    Tree::User(xui) if requester.is_own() || requester.is(xui) => {
                        Some(xui.as_str())
                    }
                    Tree::Global if requester.is_own() => None,
                    _ => return Err(StatusCode::FORBIDDEN),
                };
                return Ok(generated::directory(path, &settings.root, &self.store.list(owner)));
            }
            _ => {}
        }
        if Usage::of(&path.auid).is_none() {
            return Err(StatusCode::NOT_FOUND);
        }
        // XD-018: another user's tree is closed, whether there is something or not; so is the index of services.
        let closed = match &path.tree {
            Tree::User(xui) => !requester.is(xui),
            Tree::Global => path.group_identity().is_none(),
        };
        if closed && !requester.is_own() {
            return Err(StatusCode::FORBIDDEN);
        }
        if self.store.is_unreadable(path) {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let document = self.store.get(path).ok_or(StatusCode::NOT_FOUND)?;
        let may = requester.is_own()
            || requester.names().iter().any(|name| self.store.may_read(name, path));
        if may { Ok(document) } else { Err(StatusCode::FORBIDDEN) }
    }

    /// XD-018, XD-046: users write their own trees and nothing else.
    fn may_write(
        &self,
        settings: &Settings,
        path: &DocumentPath,
        requester: &Requester,
    ) -> Result<(), StatusCode> {
        let operator = requester.is(OPERATOR);
        let made = matches!(path.auid.as_str(), CAPS | DIRECTORY);
        if !made && Usage::of(&path.auid).is_none() {
            return Err(StatusCode::NOT_FOUND);
        }
        match &path.tree {
            Tree::User(xui) if !made && (requester.is(xui) || operator) => {}
            _ => return Err(StatusCode::FORBIDDEN),
        }
        if !operator && !self.within_rate(settings, requester) {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        Ok(())
    }

    /// XD-048. The table is bounded: when it is full those whose minute is over are forgotten.
    fn within_rate(&self, settings: &Settings, requester: &Requester) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        const MOST: usize = 100_000;
        let Some(user) = requester.names().first() else { return false };
        // However it is spelled this time.
        let user = group_key(user).unwrap_or_else(|| user.clone());
        let now = Instant::now();
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if writes.len() >= MOST && !writes.contains_key(&user) {
            writes.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
            if writes.len() >= MOST {
                return false;
            }
        }
        let (since, count) = writes.entry(user).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= settings.writes_per_minute
    }

    /// PUT and DELETE of somebody who may.
    async fn write<B>(
        &self,
        settings: &Settings,
        target: Target,
        head: &Parts,
        body: B,
        who: &str,
    ) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let condition = condition(&head.headers);
        let change = if head.method == Method::DELETE {
            Change::Delete
        } else {
            let current = self.store.etag(&target.path);
            if !condition.holds(current.as_deref()) && !self.store.is_unreadable(&target.path) {
                return plain(StatusCode::PRECONDITION_FAILED);
            }
            let bounds = *self.store.bounds();
            match sent(settings, &target, &head.headers, body, bounds).await {
                Ok(change) => change,
                Err(answer) => return answer,
            }
        };
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = change.make(&store, &target, &condition);
            (done, target)
        });
        let Ok((done, target)) = done.await else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let Target { path, selector, query } = &target;
        match done {
            Ok(done) => {
                // XD-048: the audit log.
                let (before, after) = (done.before.as_deref(), done.after.as_deref());
                let (old, new) = (before.unwrap_or("-"), after.unwrap_or("-"));
                let (method, uri) = (&head.method, head.uri.path());
                tracing::info!(who, %method, uri, %path, old, new, "document written");
                match after {
                    Some(tag) if done.created => tagged(StatusCode::CREATED, tag, None),
                    Some(tag) => tagged(StatusCode::OK, tag, None),
                    None => plain(StatusCode::OK),
                }
            }
            Err(refused) => {
                let root = format!("{}{}", settings.origin, settings.root);
                let (selector, query) = (selector.as_ref(), query.as_deref());
                refusal(&About { path, root: &root, selector, query }, &refused)
            }
        }
    }
}

/// What is to be written.
enum Change {
    /// A whole document, or the content of a node.
    Put(Bytes),
    Delete,
}

/// What was done to a document.
struct Done {
    /// A document or node that was not there before.
    created: bool,
    /// Its tag before and now.
    before: Option<String>,
    after: Option<String>,
}

impl From<Written> for Done {
    fn from(written: Written) -> Self {
        let Written { created, before, etag } = written;
        Self { created, before, after: Some(etag) }
    }
}

impl Change {
    fn make(&self, store: &Store, target: &Target, condition: &Condition) -> Result<Done, Refused> {
        let path = &target.path;
        let written = match (self, &target.selector) {
            (Self::Put(bytes), None) => store.put(path, bytes.clone(), condition),
            (Self::Put(bytes), Some(selector)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Flaw::NotUtf8)?;
                let text = text.strip_prefix('\u{feff}').unwrap_or(text);
                store.change(path, condition, selector, Edit::Put(text))
            }
            (Self::Delete, Some(selector)) => store.change(path, condition, selector, Edit::Delete),
            (Self::Delete, None) => {
                let before = store.delete(path, condition)?;
                return Ok(Done { created: false, before: Some(before), after: None });
            }
        };
        written.map(Done::from)
    }
}

/// XD-044: what the URI names; 404 for what cannot be there, 400 for a prefix nobody declared.
fn target(head: &Parts, root: &str) -> Result<Target, StatusCode> {
    let Resource { document: path, selector } =
        Resource::parse(head.uri.path(), root).map_err(|_| StatusCode::NOT_FOUND)?;
    let Some(selector) = selector else { return Ok(Target { path, selector: None, query: None }) };
    let namespace = match path.auid.as_str() {
        CAPS => CAPS_NAMESPACE,
        DIRECTORY => DIRECTORY_NAMESPACE,
        auid => Usage::of(auid).ok_or(StatusCode::NOT_FOUND)?.namespace,
    };
    let query = head.uri.query();
    let decoded = path::decode(query.unwrap_or("")).map_err(|_| StatusCode::BAD_REQUEST)?;
    let bindings = Bindings::parse(&decoded);
    let selector =
        Selector::parse(&selector, &bindings, Some(namespace)).map_err(|bad| match bad {
            Bad::Undeclared => StatusCode::BAD_REQUEST,
            Bad::Unknown => StatusCode::NOT_FOUND,
        })?;
    Ok(Target { path, selector: Some(selector), query: query.map(str::to_owned) })
}

/// The body of a PUT: of the right type, complete, and within its bounds while it comes (XD-006, XD-047).
async fn sent<B>(
    settings: &Settings,
    target: &Target,
    headers: &HeaderMap,
    body: B,
    bounds: Bounds,
) -> Result<Change, Answer>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let wanted = match target.selector.as_ref().map(|selector| &selector.end) {
        None => Usage::of(&target.path.auid).map_or("", |usage| usage.content_type),
        Some(End::Attribute(..)) => ATTRIBUTE_TYPE,
        Some(_) => ELEMENT_TYPE,
    };
    let sent = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let sent = sent.split(';').next().unwrap_or("").trim();
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity");
    if encoded || !sent.eq_ignore_ascii_case(wanted) {
        return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    match tokio::time::timeout(settings.timeout, collect(body, wanted, bounds)).await {
        Ok(Ok(bytes)) => Ok(Change::Put(bytes)),
        Ok(Err(answer)) => Err(answer),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT)),
    }
}

async fn collect<B>(body: B, content_type: &str, bounds: Bounds) -> Result<Bytes, Answer>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    let mut gauge = Gauge::new(bounds);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| plain(StatusCode::BAD_REQUEST))?;
        let Ok(piece) = frame.into_data() else { continue };
        let fits = match content_type {
            // A value is no markup.
            ATTRIBUTE_TYPE if bytes.len() + piece.len() > bounds.text => Err(BadXml::TooLarge),
            ATTRIBUTE_TYPE => Ok(()),
            _ => gauge.feed(&piece),
        };
        fits.map_err(|bad| match (bad, content_type) {
            (BadXml::Malformed(_), ELEMENT_TYPE) => bad_body(&edit::Refusal::NotFragment),
            (bad, _) => conflict(&Flaw::from(bad)),
        })?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// The node of a document that was checked when it was taken.
fn part(document: &Document, selector: &Selector) -> Option<Selected> {
    let text = admitted(&document.bytes)?;
    selector.select(text, &Xml::parse(text).ok()?)
}

fn condition(headers: &HeaderMap) -> Condition {
    let tags = |name| {
        let values: Vec<&str> =
            headers.get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok()).collect();
        (!values.is_empty()).then(|| Tags::parse(&values.join(",")))
    };
    Condition { matches: tags(header::IF_MATCH), none_matches: tags(header::IF_NONE_MATCH) }
}
