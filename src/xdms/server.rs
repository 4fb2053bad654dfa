//! The embedded XDMS: XCAP over HTTP on the store (RFC 4825 §8).
//!
//! Start at [`serve`]; [`Server::answer`] is one request. Whole documents are read, written and removed; parts of them
//! are read only, and writing to a part is answered 501. Who asks is said by trusted proxies (XD-016, XD-018). Follows
//! XD-044 to XD-048; the order of checks is that of XD-045.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::groups::Flaw;
use super::path::{self, CAPS, DIRECTORY, DocumentPath, GROUPS, RESOURCE_LISTS, Resource, Tree};
use super::selector::{self, Bindings, Selected, Undeclared};
use super::store::{self, Condition, GROUP_TYPE, LIST_TYPE, Refused, Store, Tags, same_user};
use crate::content::xml::escape;

/// Who the operator's own commands are towards the server: no user can be asserted under `.invalid`, so only a trusted
/// neighbour can be this (XD-018).
pub const OPERATOR: &str = "sip:operator@pagecast.invalid";

const ERROR_TYPE: &str = "application/xcap-error+xml";
/// What may be done with a document.
const ALLOW: &str = "GET, PUT, DELETE";

/// What the server obeys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the XCAP root, without trailing slash: `/xcap-root`.
    pub root: String,
    /// Who may say who asks (XD-016).
    pub trusted_proxies: Vec<IpNet>,
    /// Identities of this server and its services: they may read everything (XD-018).
    pub own_identities: Vec<String>,
    /// XD-048: writes of one user in a minute.
    pub writes_per_minute: u32,
    /// Most connections at a time; more have to wait.
    pub connections: usize,
    /// Longest wait for a request's header, and for its body.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/xcap-root".to_owned(),
            trusted_proxies: Vec::new(),
            own_identities: Vec::new(),
            writes_per_minute: 20,
            connections: 256,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The server's state, shared by its connections.
pub struct Server {
    settings: Settings,
    store: Arc<Store>,
    writes: Mutex<HashMap<String, (Instant, u32)>>,
}

/// Accepts connections until the task is dropped.
pub async fn serve(listener: TcpListener, server: Arc<Server>) {
    let slots = Arc::new(Semaphore::new(server.settings.connections));
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
        let server = server.clone();
        tokio::spawn(async move {
            connection(stream, peer, server).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, server: Arc<Server>) {
    let timeout = server.settings.timeout;
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, peer.ip()).await) }
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

type Answer = Response<Full<Bytes>>;

/// Who asks.
enum Requester {
    /// Any of these identities.
    Users(Vec<String>),
    /// The server itself, one of its services, or the operator.
    Own(Vec<String>),
}

impl Requester {
    fn names(&self) -> &[String] {
        match self {
            Self::Users(names) | Self::Own(names) => names,
        }
    }

    fn is(&self, user: &str) -> bool {
        self.names().iter().any(|name| same_user(name, user))
    }
}

impl Server {
    /// A server over a store.
    pub fn new(settings: Settings, store: Arc<Store>) -> Self {
        Self { settings, store, writes: Mutex::default() }
    }

    /// Answers one request that came from `peer`.
    pub async fn answer<B>(&self, request: Request<B>, peer: IpAddr) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let path = head.uri.path().to_owned();
        let (answer, who) = self.handle(head, body, peer).await;
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
        head: hyper::http::request::Parts,
        body: B,
        peer: IpAddr,
    ) -> (Answer, String)
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let nobody = String::new;
        // XD-045: method and selector first.
        let writes = match head.method {
            Method::GET => false,
            Method::PUT | Method::DELETE => true,
            _ => return (not_allowed(ALLOW), nobody()),
        };
        let Ok(resource) = Resource::parse(head.uri.path(), &self.settings.root) else {
            return (plain(StatusCode::NOT_FOUND), nobody());
        };
        if writes && resource.selector.is_some() {
            let namespaces =
                resource.selector.as_deref().is_some_and(|s| s.ends_with("namespace::*"));
            let answer =
                if namespaces { not_allowed("GET") } else { plain(StatusCode::NOT_IMPLEMENTED) };
            return (answer, nobody());
        }
        let requester = match self.identify(&head.headers, peer) {
            Ok(requester) => requester,
            Err(status) => return (plain(status), nobody()),
        };
        let who = requester.names().join(", ");
        let answer = match head.method {
            Method::GET => self.get(&resource, &head, &requester),
            Method::DELETE => self.delete(&resource.document, &head.headers, &requester),
            _ => self.put(&resource.document, &head.headers, body, &requester).await,
        };
        (answer, who)
    }

    /// XD-016, XD-017: identities are believed from trusted proxies only.
    fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Requester, StatusCode> {
        if !self.settings.trusted_proxies.iter().any(|net| net.contains(&peer.to_canonical())) {
            return Err(StatusCode::FORBIDDEN);
        }
        let asserted: Vec<String> = ["x-3gpp-asserted-identity", "x-xcap-asserted-identity"]
            .iter()
            .flat_map(|name| identities(headers, name))
            .collect();
        let intended: Vec<String> = identities(headers, "x-3gpp-intended-identity");
        let names = match (asserted.is_empty(), intended.is_empty()) {
            (true, true) => return Err(StatusCode::FORBIDDEN),
            (true, false) => intended,
            (false, true) => asserted,
            // XD-017: one may only intend to be somebody one is.
            (false, false) => {
                let is_one = |name: &String| asserted.iter().any(|one| same_user(one, name));
                if !intended.iter().all(is_one) {
                    return Err(StatusCode::FORBIDDEN);
                }
                intended
            }
        };
        let own = self.settings.own_identities.iter().map(String::as_str).chain([OPERATOR]);
        let is_own = own.into_iter().any(|own| names.iter().any(|name| same_user(name, own)));
        Ok(if is_own { Requester::Own(names) } else { Requester::Users(names) })
    }

    fn get(
        &self,
        resource: &Resource,
        head: &hyper::http::request::Parts,
        requester: &Requester,
    ) -> Answer {
        let path = &resource.document;
        if let Some(answer) = self.generated(resource, requester) {
            return answer;
        }
        if !matches!(path.auid.as_str(), GROUPS | RESOURCE_LISTS) {
            return plain(StatusCode::NOT_FOUND);
        }
        // XD-018: another user's tree is closed, whether there is something or not.
        if let Tree::User(xui) = &path.tree
            && !requester.is(xui)
            && matches!(requester, Requester::Users(_))
        {
            return plain(StatusCode::FORBIDDEN);
        }
        let Some(document) = self.store.get(path) else {
            return plain(StatusCode::NOT_FOUND);
        };
        if path.tree == Tree::Global && !may_see(requester, &document) {
            return plain(StatusCode::FORBIDDEN);
        }
        let condition = condition(&head.headers);
        let must_match = Condition { matches: condition.matches.clone(), none_matches: None };
        if !must_match.holds(Some(&document.etag)) {
            return plain(StatusCode::PRECONDITION_FAILED);
        }
        // XD-008: one tag for the document and all its parts.
        if !condition.holds(Some(&document.etag)) {
            return tagged(StatusCode::NOT_MODIFIED, &document.etag, None);
        }
        let (content_type, body) = match resource.selector.as_deref() {
            None => (document.content_type, document.bytes.clone()),
            Some(selector) => match part(&document.bytes, selector, head.uri.query()) {
                Ok(Some(Selected::Element(text))) => ("application/xcap-el+xml", text.into()),
                Ok(Some(Selected::Attribute(text))) => ("application/xcap-att+xml", text.into()),
                Ok(None) => return plain(StatusCode::NOT_FOUND),
                Err(_) => return plain(StatusCode::BAD_REQUEST),
            },
        };
        tagged(StatusCode::OK, &document.etag, Some((content_type, body)))
    }

    /// Documents the server makes itself: which usages there are, and which documents.
    fn generated(&self, resource: &Resource, requester: &Requester) -> Option<Answer> {
        let path = &resource.document;
        if resource.selector.is_some() {
            return None;
        }
        match (path.auid.as_str(), &path.tree, path.name.as_slice()) {
            (CAPS, Tree::Global, [name]) if name == "index" => {
                Some(document("application/xcap-caps+xml", capabilities()))
            }
            (DIRECTORY, tree, [name]) if name == "directory.xml" => {
                let owner = match (tree, requester) {
                    (Tree::User(xui), Requester::Own(_)) => Some(xui.as_str()),
                    (Tree::User(xui), _) if requester.is(xui) => Some(xui.as_str()),
                    (Tree::Global, Requester::Own(_)) => None,
                    _ => return Some(plain(StatusCode::FORBIDDEN)),
                };
                let listing = self.directory(owner);
                Some(document("application/vnd.oma.xcap-directory+xml", listing))
            }
            _ => None,
        }
    }

    fn directory(&self, owner: Option<&str>) -> String {
        let mut out = String::from(concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
            "<xcap-directory xmlns=\"urn:oma:xml:xdm:xcap-directory\" xmlns:g=\"urn:oma:xml:poc:list-service\">\n"
        ));
        let documents = self.store.list(owner);
        for auid in [GROUPS, RESOURCE_LISTS] {
            out.push_str(&format!("<folder auid=\"{auid}\">\n"));
            for d in documents.iter().filter(|d| d.path.auid == auid) {
                let uri = format!("{}/{}", self.settings.root, d.path);
                out.push_str(&format!(
                    "<entry uri=\"{}\" etag=\"{}\" size=\"{}\"",
                    escape(&uri),
                    escape(d.etag.trim_matches('"')),
                    d.bytes.len()
                ));
                if let Some(service) = d.group.as_ref().and_then(|g| g.services.first()) {
                    out.push_str(&format!(" g:uri=\"{}\"", escape(&service.uri)));
                }
                out.push_str("/>\n");
            }
            out.push_str("</folder>\n");
        }
        out.push_str("</xcap-directory>\n");
        out
    }

    /// XD-018, XD-046: users write their own trees and nothing else.
    fn may_write(&self, path: &DocumentPath, requester: &Requester) -> Result<(), StatusCode> {
        if !matches!(path.auid.as_str(), GROUPS | RESOURCE_LISTS) {
            return Err(StatusCode::NOT_FOUND);
        }
        let operator = requester.is(OPERATOR);
        match &path.tree {
            Tree::User(xui) if requester.is(xui) || operator => {}
            _ => return Err(StatusCode::FORBIDDEN),
        }
        if !operator && !self.within_rate(requester) {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        Ok(())
    }

    /// XD-048. The table is bounded: when it is full those whose minute is over are forgotten.
    fn within_rate(&self, requester: &Requester) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        const MOST: usize = 100_000;
        let Some(user) = requester.names().first() else { return false };
        let now = Instant::now();
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if writes.len() >= MOST && !writes.contains_key(user) {
            writes.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
            if writes.len() >= MOST {
                return false;
            }
        }
        let (since, count) = writes.entry(user.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= self.settings.writes_per_minute
    }

    async fn put<B>(
        &self,
        path: &DocumentPath,
        headers: &HeaderMap,
        body: B,
        requester: &Requester,
    ) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(status) = self.may_write(path, requester) {
            return plain(status);
        }
        let condition = condition(headers);
        let current = self.store.get(path);
        if !condition.holds(current.as_ref().map(|d| d.etag.as_str())) {
            return plain(StatusCode::PRECONDITION_FAILED);
        }
        // XD-006: the usage's own type.
        let wanted = if path.auid == GROUPS { GROUP_TYPE } else { LIST_TYPE };
        let sent = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        if !sent.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity");
        if encoded {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let read = Limited::new(body, self.store.max_document()).collect();
        let bytes = match tokio::time::timeout(self.settings.timeout, read).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return conflict(&Flaw::Constraint("the document is too large"));
            }
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
        };
        let (store, name) = (self.store.clone(), path.clone());
        let written =
            tokio::task::spawn_blocking(move || store.put(&name, bytes, &condition)).await;
        match written {
            Ok(Ok(written)) => {
                let before = written.before.as_deref().unwrap_or("-");
                tracing::info!(%path, before, after = %written.etag, "document written");
                let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
                tagged(status, &written.etag, None)
            }
            Ok(Err(refused)) => refusal(path, &refused),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn delete(&self, path: &DocumentPath, headers: &HeaderMap, requester: &Requester) -> Answer {
        if let Err(status) = self.may_write(path, requester) {
            return plain(status);
        }
        match self.store.delete(path, &condition(headers)) {
            Ok(before) => {
                tracing::info!(%path, before, after = "-", "document removed");
                plain(StatusCode::OK)
            }
            Err(refused) => refusal(path, &refused),
        }
    }
}

/// XD-005: the query binds the selector's prefixes.
fn part(
    document: &[u8],
    selector: &str,
    query: Option<&str>,
) -> Result<Option<Selected>, Undeclared> {
    let query = path::decode(query.unwrap_or("")).unwrap_or_default();
    selector::select(document, selector, &Bindings::parse(&query))
}

/// XD-018: a group is shown to those it concerns, and to the server.
fn may_see(requester: &Requester, document: &store::Document) -> bool {
    matches!(requester, Requester::Own(_))
        || requester.names().iter().any(|name| document.is_shown_to(name))
}

/// A comma list, each element bare, in quotes or in angle brackets (XD-016).
fn identities(headers: &HeaderMap, name: &str) -> Vec<String> {
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

fn condition(headers: &HeaderMap) -> Condition {
    let tags = |name| {
        let values: Vec<&str> =
            headers.get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok()).collect();
        (!values.is_empty()).then(|| Tags::parse(&values.join(",")))
    };
    Condition { matches: tags(header::IF_MATCH), none_matches: tags(header::IF_NONE_MATCH) }
}

fn capabilities() -> String {
    let auids: String = [CAPS, GROUPS, RESOURCE_LISTS, DIRECTORY]
        .iter()
        .map(|auid| format!("<auid>{auid}</auid>"))
        .collect();
    let namespaces: String = [
        "urn:ietf:params:xml:ns:xcap-caps",
        "urn:ietf:params:xml:ns:xcap-error",
        "urn:oma:xml:poc:list-service",
        "urn:ietf:params:xml:ns:resource-lists",
        "urn:ietf:params:xml:ns:common-policy",
    ]
    .iter()
    .map(|ns| format!("<namespace>{ns}</namespace>"))
    .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xcap-caps xmlns=\"urn:ietf:params:xml:ns:xcap-caps\"><auids>{auids}</auids>\
         <namespaces>{namespaces}</namespaces></xcap-caps>\n"
    )
}

/// XD-044: what the store refuses, as a status.
fn refusal(path: &DocumentPath, refused: &Refused) -> Answer {
    match refused {
        Refused::NotFound => plain(StatusCode::NOT_FOUND),
        Refused::Precondition => plain(StatusCode::PRECONDITION_FAILED),
        Refused::Flaw(flaw) => conflict(flaw),
        Refused::NoParent => conflict_with("<no-parent/>"),
        Refused::Taken(free) => {
            let free: String =
                free.iter().map(|uri| format!("<alt-value>{}</alt-value>", escape(uri))).collect();
            conflict_with(&format!(
                "<uniqueness-failure phrase=\"Group identity already in use\">\
                 <exists field=\"group/list-service/@uri\">{free}</exists></uniqueness-failure>"
            ))
        }
        Refused::Disk(error) => {
            tracing::error!(%path, %error, "a document cannot be stored");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// RFC 4825 §11.
fn conflict(flaw: &Flaw) -> Answer {
    let phrase = escape(&flaw.to_string()).into_owned();
    conflict_with(&match flaw {
        Flaw::NotUtf8 => format!("<not-utf-8 phrase=\"{phrase}\"/>"),
        Flaw::NotWellFormed(_) => format!("<not-well-formed phrase=\"{phrase}\"/>"),
        Flaw::Schema(_) => format!("<schema-validation-error phrase=\"{phrase}\"/>"),
        Flaw::NotUnique(field) => format!(
            "<uniqueness-failure phrase=\"{phrase}\"><exists field=\"{}\"/></uniqueness-failure>",
            escape(field)
        ),
        Flaw::Constraint(_) => format!("<constraint-failure phrase=\"{phrase}\"/>"),
    })
}

fn conflict_with(child: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xcap-error xmlns=\"urn:ietf:params:xml:ns:xcap-error\">{child}</xcap-error>\n"
    );
    let mut answer = document(ERROR_TYPE, body);
    *answer.status_mut() = StatusCode::CONFLICT;
    answer
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

fn document(content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn tagged(status: StatusCode, etag: &str, content: Option<(&'static str, Bytes)>) -> Answer {
    let mut answer = plain(status);
    let tag = HeaderValue::from_str(etag).expect("tags of the store are quoted hex digits");
    answer.headers_mut().insert(header::ETAG, tag);
    if let Some((content_type, bytes)) = content {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        *answer.body_mut() = Full::new(bytes);
    }
    answer
}
