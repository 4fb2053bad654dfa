//! Documents of an XDMS elsewhere: from the cache while they count, else over the wire, one exchange at a time for each.
//!
//! Start at [`Remote::fetch`]. What an answer means is XD-007; what is kept of it XD-008, XD-038, XD-039; notices of
//! changes come in by [`Remote::invalidate`] and [`Remote::purge`] (XD-041). [`Remote::watch_capabilities`] is XD-020.
//! Never gives a shorter document than the server has, and never a partial one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{Mutex as Gate, watch};
use tokio::time::Instant;

use super::super::groups::{self, Flaw, Group};
use super::super::path::{
    ACCESS_RULES, ACCESS_RULES_TYPE, CAPS, DIRECTORY, DocumentPath, GROUPS, RESOURCE_LISTS,
    SERVICE_SETTINGS, SERVICE_SETTINGS_TYPE, Tree,
};
use super::super::resolver::{Copies, Fetching, Health, Source, Unavailable};
use super::super::store::{Document, GROUP_TYPE, LIST_TYPE};
use super::super::trail;
use super::cache::{Cache, Cached, Found, Limits, Times};
use super::http::{self, Answer, Exchange, Heard, Http, Outgoing};
use super::link::Connect;
use super::url::Url;
use crate::content::xml::Bounds;
use crate::sip::uri::Uri;

/// What a remote source obeys.
#[derive(Debug, Clone)]
pub struct Settings {
    pub http: http::Settings,
    pub times: Times,
    pub limits: Limits,
    /// Of one document.
    pub bounds: Bounds,
    /// `xdm.legacy_global` (XD-003).
    pub legacy_global: bool,
}

/// An XDMS elsewhere. One for a node, shared by its threads.
pub struct Remote {
    settings: Settings,
    http: Http,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<String, Arc<Flight>>>,
    health: Mutex<Health>,
    heard: OnceLock<Heard>,
    /// Tells those who subscribe that other documents are cached than before.
    changes: watch::Sender<u64>,
}

type Outcome = Result<Option<Arc<Document>>, Unavailable>;

/// The one exchange about a document that everybody who wants it waits for.
#[derive(Default)]
struct Flight {
    /// What the last one brought, and when it was over.
    gate: Gate<Option<(Instant, Outcome, Vec<Exchange>)>>,
    /// What was notified meanwhile.
    notice: Mutex<Option<Notice>>,
}

#[derive(Clone)]
enum Notice {
    Changed(String),
    Gone,
}

/// How a usage's documents come, and what they are.
struct Usage {
    content_type: &'static str,
    root: Option<(&'static str, &'static str)>,
}

/// XD-020: how often the usages are asked for, and how soon again after a failure.
const CAPABILITIES: Duration = Duration::from_secs(3600);
const CAPABILITIES_AGAIN: Duration = Duration::from_secs(60);
const CAPS_NS: &str = "urn:ietf:params:xml:ns:xcap-caps";
const LISTS_NS: &str = "urn:ietf:params:xml:ns:resource-lists";
const POLICY_NS: &str = "urn:ietf:params:xml:ns:common-policy";

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Source for Remote {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        Box::pin(self.below_root(path))
    }

    fn elsewhere<'a>(&'a self, url: &'a Url) -> Option<Fetching<'a>> {
        if !self.http.may_lead_to(url) {
            return None;
        }
        Some(Box::pin(async move { self.document(url, None, &usage(RESOURCE_LISTS)).await }))
    }

    fn health(&self) -> Health {
        self.condition().clone()
    }

    fn hears(&self, heard: Heard) {
        // The first one stays.
        let _ = self.heard.set(heard);
    }

    fn copies(&self) -> Option<&dyn Copies> {
        Some(self)
    }
}

impl Copies for Remote {
    fn cached(&self) -> Vec<(DocumentPath, String)> {
        Self::cached(self).into_iter().map(|cached| (cached.path, cached.etag)).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }

    fn invalidate(&self, document: &DocumentPath, etag: &str) {
        Self::invalidate(self, document, etag);
    }

    fn purge(&self, document: &DocumentPath) {
        Self::purge(self, document);
    }

    fn notified(&self, document: &DocumentPath, notified: bool) {
        Self::notified(self, document, notified);
    }
}

impl Remote {
    /// A source over a network.
    pub fn new(settings: Settings, connector: Arc<dyn Connect>) -> Self {
        Self {
            http: Http::new(settings.http.clone(), connector),
            cache: Mutex::new(Cache::new(settings.times, settings.limits)),
            flights: Mutex::default(),
            health: Mutex::new(Health { up: None, last_error: None }),
            heard: OnceLock::new(),
            changes: watch::channel(0).0,
            settings,
        }
    }

    async fn below_root(&self, path: &DocumentPath) -> Outcome {
        let usage = usage(&path.auid);
        let Some(group) = path.group_identity() else {
            return self.document(&self.place(path)?, Some(path), &usage).await;
        };
        // One spelling for one group, whoever dialled it how.
        let group = Uri::parse(group).map_or_else(|_| group.to_owned(), |uri| uri.canonical());
        let by_id = DocumentPath::by_group(&group);
        let place = self.place(&by_id)?;
        if !self.settings.legacy_global {
            return self.document(&place, Some(&by_id), &usage).await;
        }
        // XD-003: the older spelling, where the other one names nothing; first where it is what is cached.
        let legacy = DocumentPath { name: vec!["byGroup".to_owned(), group], ..by_id.clone() };
        let legacy_place = self.place(&legacy)?;
        let known = matches!(self.look(&legacy_place), Found::Fresh(_));
        if !known && let Some(document) = self.document(&place, Some(&by_id), &usage).await? {
            return Ok(Some(document));
        }
        self.document(&legacy_place, Some(&legacy), &usage).await
    }

    fn place(&self, path: &DocumentPath) -> Result<Url, Unavailable> {
        let root = &self.settings.http.root;
        root.below(&format!("/{path}"))
            .ok_or_else(|| Unavailable(format!("{path} is no place below {root}")))
    }

    fn look(&self, url: &Url) -> Found {
        self.cache().look(now(), &url.to_string())
    }

    /// XD-012: one exchange about a document at a time; whoever came while it ran takes what it brought.
    async fn document(&self, url: &Url, path: Option<&DocumentPath>, usage: &Usage) -> Outcome {
        let began = Instant::now();
        match self.look(url) {
            Found::Fresh(document) => {
                trail::note(&[from_cache(url, &document)]);
                return Ok(Some(document));
            }
            Found::Old { document, counts: true, resting: true } => {
                trail::note(&[from_cache(url, &document)]);
                return Ok(Some(document));
            }
            _ => {}
        }
        let key = url.to_string();
        let flight = Arc::clone(self.flights().entry(key.clone()).or_default());
        let leaving = Leaving { remote: self, key: &key, flight: Some(flight) };
        let flight = leaving.flight();
        let mut last = flight.gate.lock().await;
        if let Some((ended, outcome, seen)) = &*last
            && *ended >= began
        {
            trail::note(seen);
            return outcome.clone();
        }
        let mut seen = Vec::new();
        let outcome = self.ask(url, path, usage, &mut seen).await;
        self.obey_notice(&key, flight);
        trail::note(&seen);
        *last = Some((Instant::now(), outcome.clone(), seen));
        outcome
    }

    /// What came over the wire may be older than what was notified meanwhile.
    fn obey_notice(&self, key: &str, flight: &Flight) {
        let notice = flight.notice.lock().unwrap_or_else(PoisonError::into_inner).take();
        match notice {
            Some(Notice::Changed(etag)) => self.cache().doubt(now(), key, &etag),
            Some(Notice::Gone) => {
                self.cache().remove(key);
                self.tell_changes();
            }
            None => {}
        }
    }

    /// XD-007, XD-039: asks, and what the answer means.
    async fn ask(
        &self,
        url: &Url,
        path: Option<&DocumentPath>,
        usage: &Usage,
        seen: &mut Vec<Exchange>,
    ) -> Outcome {
        let key = url.to_string();
        let (known, counts) = match self.look(url) {
            Found::Nothing => (None, false),
            Found::Fresh(document) => (Some(document), true),
            Found::Old { document, counts, .. } => (Some(document), counts),
        };
        let etag = known.as_ref().map(|known| known.etag.as_str()).filter(|etag| !etag.is_empty());
        let outgoing =
            Outgoing { accept: Some(usage.content_type), ..Outgoing::get(url.clone(), etag) };
        let result = self.http.send(outgoing, seen).await;
        self.tell(seen);
        let why = match result {
            Ok(answer) => match answer.status.as_u16() {
                200 => match self.read(url, path, usage, answer) {
                    Ok(document) => {
                        self.cache().put(now(), &key, path, Arc::clone(&document));
                        self.tell_changes();
                        self.is_up(url);
                        return Ok(Some(document));
                    }
                    Err(why) => why,
                },
                304 if known.is_some() => {
                    self.cache().validated(now(), &key);
                    self.is_up(url);
                    return Ok(known);
                }
                404 | 410 => {
                    self.cache().remove(&key);
                    self.tell_changes();
                    self.is_up(url);
                    return Ok(None);
                }
                status @ (401 | 403) => {
                    tracing::error!(document = %url, status, rule = "XD-007", "the XDMS does not let us read");
                    if status == 403 {
                        // No outage: what we may not have is not used any longer.
                        self.cache().remove(&key);
                        self.tell_changes();
                        return Err(self.is_down(url, format!("{url}: {status}, we lack rights")));
                    }
                    format!("{url}: {status}, we lack rights")
                }
                status => format!("{url}: the XDMS answered {status}"),
            },
            Err(failed) => format!("{url}: {failed}"),
        };
        let unavailable = self.is_down(url, why);
        self.cache().failed(now(), &key);
        match known {
            // XD-039.
            Some(document) if counts => {
                tracing::warn!(why = %unavailable, rule = "XD-039", "an older document is used");
                Ok(Some(document))
            }
            _ => Err(unavailable),
        }
    }

    /// XD-006, XD-007, XD-047: whether a 200 brought the document it should.
    fn read(
        &self,
        url: &Url,
        path: Option<&DocumentPath>,
        usage: &Usage,
        answer: Answer,
    ) -> Result<Arc<Document>, String> {
        let given = answer.content_type.as_deref().unwrap_or_default();
        let right = match usage.root {
            Some(_) => super::is_type(given, usage.content_type),
            None => given.split(';').next().is_some_and(|kind| kind.trim().ends_with("xml")),
        };
        if !right {
            return Err(format!("{url}: the Content-Type is {given:?}"));
        }
        let flawed = |flaw: Flaw| format!("{url}: {flaw}");
        let bounds = &self.settings.bounds;
        let group = match path.filter(|path| path.auid == GROUPS) {
            Some(_) => Some(Arc::new(Group::parse_within(&answer.body, bounds).map_err(flawed)?)),
            None => {
                check_root(&answer.body, bounds, usage.root).map_err(flawed)?;
                None
            }
        };
        let path = path.cloned().unwrap_or_else(|| DocumentPath {
            auid: RESOURCE_LISTS.to_owned(),
            tree: Tree::Global,
            name: vec![url.to_string()],
        });
        Ok(Arc::new(Document {
            path,
            etag: answer.etag.unwrap_or_default(),
            content_type: usage.content_type,
            bytes: answer.body,
            group,
        }))
    }

    // --- changes ---

    /// XD-041: the server has another version than the one with that tag; what is cached is asked for again before it
    /// is used the next time.
    pub fn invalidate(&self, document: &DocumentPath, etag: &str) {
        let Ok(place) = self.place(document) else { return };
        let key = place.to_string();
        self.notice(&key, Notice::Changed(etag.to_owned()));
        let mut cache = self.cache();
        cache.doubt(now(), &key, etag);
        cache.told(now());
    }

    /// XD-041: the document is gone, or it is not known any more what the server has.
    pub fn purge(&self, document: &DocumentPath) {
        let Ok(place) = self.place(document) else { return };
        let key = place.to_string();
        self.notice(&key, Notice::Gone);
        let mut cache = self.cache();
        cache.remove(&key);
        cache.told(now());
        drop(cache);
        self.tell_changes();
    }

    /// XD-038: changes of the document are notified from now on, or no longer.
    pub fn notified(&self, document: &DocumentPath, notified: bool) {
        if let Ok(place) = self.place(document) {
            self.cache().notified(&place.to_string(), notified);
        }
    }

    /// The cached documents below the root, in order: what a subscription would name (XD-040).
    pub fn cached(&self) -> Vec<Cached> {
        self.cache().list()
    }

    /// Changes whenever [`Remote::cached`] names other documents.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The root documents are named relative to.
    pub fn root(&self) -> &Url {
        &self.settings.http.root
    }

    fn notice(&self, key: &str, notice: Notice) {
        if let Some(flight) = self.flights().get(key) {
            *flight.notice.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
        }
    }

    fn tell_changes(&self) {
        let now = self.cache().changes();
        self.changes.send_if_modified(|told| std::mem::replace(told, now) != now);
    }

    // --- capabilities ---

    /// XD-020: asks for the usages the server has.
    ///
    /// # Errors
    /// Why they cannot be known, in words for people.
    pub async fn capabilities(&self) -> Result<Vec<String>, String> {
        let path = DocumentPath {
            auid: CAPS.to_owned(),
            tree: Tree::Global,
            name: vec!["index".to_owned()],
        };
        let url = self.place(&path).map_err(|why| why.0)?;
        let usage = usage(CAPS);
        let mut seen = Vec::new();
        let outgoing =
            Outgoing { accept: Some(usage.content_type), ..Outgoing::get(url.clone(), None) };
        let result = self.http.send(outgoing, &mut seen).await;
        self.tell(&seen);
        let answer = match result {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            Ok(answer) => {
                let why = format!("{url}: the XDMS answered {}", answer.status.as_u16());
                return Err(self.is_down(&url, why).0);
            }
            Err(failed) => return Err(self.is_down(&url, format!("{url}: {failed}")).0),
        };
        let document = self
            .read(&url, Some(&path), &usage, answer)
            .map_err(|why| self.is_down(&url, why).0)?;
        self.is_up(&url);
        let text = groups::admitted(&document.bytes).unwrap_or_default();
        let Ok(tree) = roxmltree::Document::parse(text) else { return Ok(Vec::new()) };
        let auids = tree.descendants().filter(|node| {
            node.tag_name().namespace() == Some(CAPS_NS) && node.tag_name().name() == "auid"
        });
        Ok(auids.filter_map(|node| node.text()).map(|auid| auid.trim().to_owned()).collect())
    }

    /// XD-020: looks at the usages once an hour. A missing one is an alarm and no more. Runs until it is dropped.
    pub async fn watch_capabilities(self: Arc<Self>) {
        loop {
            let wait = match self.capabilities().await {
                Ok(auids) => {
                    for needed in [GROUPS, RESOURCE_LISTS] {
                        if !auids.iter().any(|auid| auid == needed) {
                            let what = format!("the XDMS does not serve {needed}");
                            tracing::error!(rule = "XD-020", what);
                            self.condition().last_error = Some(what);
                        }
                    }
                    CAPABILITIES
                }
                Err(why) => {
                    tracing::warn!(why, rule = "XD-020", "the usages of the XDMS are not known");
                    CAPABILITIES_AGAIN
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    // --- helpers ---

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condition(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, seen: &[Exchange]) {
        if let Some(heard) = self.heard.get() {
            seen.iter().for_each(|exchange| heard(exchange));
        }
    }

    fn is_up(&self, url: &Url) {
        if self.settings.http.root.same_origin(url) {
            self.condition().up = Some(true);
        }
    }

    fn is_down(&self, url: &Url, why: String) -> Unavailable {
        if self.settings.http.root.same_origin(url) {
            *self.condition() = Health { up: Some(false), last_error: Some(why.clone()) };
        }
        Unavailable(why)
    }
}

/// Forgets a flight when nobody is on it any more.
struct Leaving<'a> {
    remote: &'a Remote,
    key: &'a str,
    flight: Option<Arc<Flight>>,
}

impl Leaving<'_> {
    fn flight(&self) -> &Flight {
        self.flight.as_ref().expect("it is taken in `drop` alone")
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut flights = self.remote.flights();
        drop(self.flight.take());
        if flights.get(self.key).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flights.remove(self.key);
        }
    }
}

/// What is told of a document that was not asked for.
fn from_cache(url: &Url, document: &Document) -> Exchange {
    let now = Instant::now();
    Exchange {
        request: format!("GET {} XCAP/1.0\r\nHost: {}\r\n", url.target(), url.authority()),
        answer: Some(format!("XCAP/1.0 200 OK (cached)\r\nETag: {}\r\n", document.etag)),
        octets: 0,
        status: None,
        began: now,
        ended: now,
        local: None,
        remote: None,
    }
}

/// Section 4 of the XDM rules.
fn usage(auid: &str) -> Usage {
    let (content_type, root) = match auid {
        GROUPS => (GROUP_TYPE, Some((groups::LIST_SERVICE, "group"))),
        RESOURCE_LISTS => (LIST_TYPE, Some((LISTS_NS, "resource-lists"))),
        "org.openmobilealliance.group-usage-list" => {
            ("application/vnd.oma.group-usage-list+xml", Some((LISTS_NS, "resource-lists")))
        }
        CAPS => ("application/xcap-caps+xml", Some((CAPS_NS, "xcap-caps"))),
        ACCESS_RULES => (ACCESS_RULES_TYPE, Some((POLICY_NS, "ruleset"))),
        SERVICE_SETTINGS => (SERVICE_SETTINGS_TYPE, None),
        DIRECTORY => ("application/vnd.oma.xcap-directory+xml", None),
        _ => ("application/xml", None),
    };
    Usage { content_type, root }
}

/// XD-047, and XD-007 for the root.
fn check_root(
    bytes: &[u8],
    bounds: &Bounds,
    wanted: Option<(&'static str, &'static str)>,
) -> Result<(), Flaw> {
    let text = groups::checked_within(bytes, bounds)?;
    let document =
        roxmltree::Document::parse(text).map_err(|_| Flaw::NotWellFormed("not well-formed XML"))?;
    let name = document.root_element().tag_name();
    match wanted {
        Some((namespace, local)) if name.namespace() != Some(namespace) || name.name() != local => {
            Err(Flaw::Schema("the root is another one"))
        }
        _ => Ok(()),
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The embedded store, and lists that groups in it name elsewhere (XD-024).
pub struct Embedded {
    pub store: Arc<super::super::store::Store>,
    pub remote: Arc<Remote>,
}

impl Source for Embedded {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        self.store.fetch(path)
    }

    fn elsewhere<'a>(&'a self, url: &'a Url) -> Option<Fetching<'a>> {
        // What is ours is never asked for over the wire.
        if self.remote.root().same_origin(url) { None } else { self.remote.elsewhere(url) }
    }

    fn hears(&self, heard: Heard) {
        self.remote.hears(heard);
    }

    fn store(&self) -> Option<&super::super::store::Store> {
        Some(&self.store)
    }
}
