//! The embedded XDMS as an event server: who watches which documents, and what each has been told.
//!
//! Start at [`Isc::watch_documents`]. A SUBSCRIBE is judged by [`judge`]; when a NOTIFY is due, [`Look`] asks for the state
//! of the documents and [`Isc::tell`] writes what is new in it. The stack decides when (`sip::ua`), the store what may be
//! seen. Tells of whole documents only, whatever mode was asked for. XD-043 (RFC 5875, RFC 6665).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::inbound::{Desk, Facts, texts};
use super::rules::refusal;
use super::settings::Documents;
use super::subscribing::Package as Event;
use super::{Happening, Isc, outbound, refused};
use crate::content::resource_lists::{self, Limits};
use crate::content::xcap_diff::{self, Fate, MEDIA_TYPE, PACKAGE, bare_tag, normal};
use crate::engine::input::Refusal;
use crate::sip::Flow;
use crate::sip::message::{Message, Method, Name};
use crate::sip::ua::{Package, RequestKey, Unwatched, WatcherKey};

const LIST_TYPE: &str = "application/resource-lists+xml";
/// Retry-After where there are too many subscriptions, seconds.
const FULL_RETRY: u32 = 60;

/// RFC 5875 §4.5, §4.10: an hour where nothing is said, a NOTIFY in five seconds at most.
const DOCUMENTS: Package = Package {
    name: PACKAGE,
    usual: xcap_diff::DEFAULT_DURATION,
    least: 60,
    most: 24 * 3600,
    pause: Duration::from_secs(5),
};

/// What a watcher may have to be told: give [`Isc::tell`] the state of each document, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub watcher: WatcherKey,
    /// Who asks: any of these identities.
    pub who: Vec<String>,
    /// As [`normal`] spells them.
    pub documents: Vec<Arc<str>>,
}

/// How a document stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentState {
    /// The name under which [`Isc::document_changed`] will tell of it; `None` if there can be none of that name.
    pub name: Option<Arc<str>>,
    /// `None` where there is none, or none for those who ask.
    pub etag: Option<String>,
}

/// This thread's watchers.
#[derive(Default)]
pub(super) struct Notifying {
    watchers: HashMap<WatcherKey, Watcher>,
    /// By the names changes are told under.
    by_name: HashMap<Arc<str>, BTreeSet<WatcherKey>>,
}

#[derive(Debug, Default)]
struct Watcher {
    who: Vec<String>,
    documents: Vec<Arc<str>>,
    names: BTreeSet<Arc<str>>,
    /// The tags it has confirmed to have heard of, and those of the NOTIFY after that.
    told: BTreeMap<Arc<str>, String>,
    sent: Option<BTreeMap<Arc<str>, String>>,
    /// The NOTIFY that is due tells everything.
    whole: bool,
}

impl Notifying {
    fn forget(&mut self, watcher: WatcherKey) {
        if let Some(gone) = self.watchers.remove(&watcher) {
            for name in gone.names {
                self.leave(&name, watcher);
            }
        }
    }

    fn leave(&mut self, name: &Arc<str>, watcher: WatcherKey) {
        if let Some(watchers) = self.by_name.get_mut(name) {
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.by_name.remove(name);
            }
        }
    }
}

/// The documents a SUBSCRIBE asks for, each once; `None` if it has no list.
///
/// XD-040, XD-043 (RFC 5875 §4.4): entries that name no document of ours are left out, as are parts of documents.
///
/// # Errors
/// 489, 420, 406, 415, 400, or 403 for more documents than one subscription may have.
pub(super) fn judge(
    settings: &Documents,
    message: &Message,
) -> Result<Option<Vec<Arc<str>>>, Refusal> {
    let with = |status, name, value: &str| {
        let mut refusal = Refusal::new(status, "XD-043");
        refusal.headers.push((name, value.to_owned()));
        refusal
    };
    if !(Event { name: PACKAGE, usual: 0, hopeless: &[] }).is_of(message) {
        return Err(with(489, "Allow-Events", PACKAGE));
    }
    let required: Vec<&str> = texts(message, Name::Require).collect();
    if !required.is_empty() {
        return Err(refusal::unsupported(&required, "XD-043"));
    }
    let mut accepted = texts(message, Name::Accept).peekable();
    let is = |kind: &str, wanted: &str| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(wanted)
    };
    let fits = |kind: &str| is(kind, MEDIA_TYPE) || is(kind, "*/*") || is(kind, "application/*");
    if accepted.peek().is_some() && !accepted.any(fits) {
        return Err(with(406, "Accept", MEDIA_TYPE));
    }
    let body = message.body();
    if body.is_empty() {
        return Ok(None);
    }
    if !message.content_type().is_some_and(|kind| is(kind, LIST_TYPE)) {
        return Err(with(415, "Accept", LIST_TYPE));
    }
    let list = resource_lists::read(body, &Limits { max_bytes: body.len(), strict: false })
        .map_err(|bad| Refusal::new(400, "XD-043").warn(bad.to_string()))?;
    let mut documents: Vec<Arc<str>> = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in &list.entries {
        let below = entry.uri.strip_prefix(&settings.root).unwrap_or(&entry.uri);
        let Some(document) = normal(below) else { continue };
        if document.split('/').any(|segment| segment == "~~") || !seen.insert(document.clone()) {
            continue;
        }
        documents.push(document.into());
    }
    if documents.len() > settings.max_entries {
        let refusal = Refusal::new(403, "XD-043").warn("Too many documents");
        return Err(refusal.key("xdms.max_entries"));
    }
    Ok(Some(documents))
}

impl Isc {
    /// How many watch documents by this thread.
    pub fn watchers(&self) -> usize {
        self.notifying.watchers.len()
    }

    /// A SUBSCRIBE to the XDMS, admitted and from somebody known.
    ///
    /// XD-043: too many are refused so that the core does not go on without us (ISC-066).
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(super) fn watch_documents(
        &mut self,
        now: Instant,
        request: RequestKey,
        message: &Message,
        facts: &Facts,
    ) -> Result<(), Refusal> {
        let settings = &self.house.settings.documents;
        let documents = judge(settings, message)?;
        let Some(documents) = documents else {
            return Err(Refusal::new(400, "XD-043").warn("No list of documents"));
        };
        let full = || {
            let refusal = Refusal::new(480, "XD-043").warn("Too many subscriptions");
            Refusal { retry_after: Some(FULL_RETRY), ..refusal }.key("xdms.max_subscriptions")
        };
        if self.notifying.watchers.len() >= settings.max_subscriptions {
            return Err(full());
        }
        let mut lines = format!("User-Agent: {}\r\n", self.house.product);
        if self.house.settings.profile.is_ims() {
            let _ = write!(lines, "P-Asserted-Identity: <{}>\r\n", settings.serve);
            if let Some(charging) = &facts.charging {
                let vector = charging.in_dialog(&self.house.ioi(Some(charging)));
                let _ = write!(lines, "P-Charging-Vector: {vector}\r\n");
            }
        }
        let contact = format!("<sip:{}>", self.house.contact);
        let accepted =
            self.ua.accept_watcher(now, request, DOCUMENTS, &contact, Bytes::from(lines));
        match accepted {
            Ok(key) => {
                let who = facts.identities.iter().map(|one| one.uri.clone()).collect();
                tracing::info!(
                    rule = "XD-043",
                    ?who,
                    documents = documents.len(),
                    "documents are watched"
                );
                let watcher = Watcher { who, documents, ..Watcher::default() };
                self.notifying.watchers.insert(key, watcher);
                Ok(())
            }
            Err(Unwatched::Answered(status)) => {
                tracing::info!(rule = "XD-043", status, "SUBSCRIBE refused");
                Ok(())
            }
            Err(Unwatched::Full) => Err(full()),
        }
    }

    /// A SUBSCRIBE of a watcher: longer, over, or another list.
    pub(super) fn watch_again(
        &mut self,
        now: Instant,
        watcher: WatcherKey,
        request: RequestKey,
        message: &Message,
        flow: &Flow,
        out: &mut Vec<Happening>,
    ) {
        let facts = super::inbound::facts(&self.desk(), now, message, flow);
        let judged = self.may_go_on(watcher, &facts, flow).and_then(|()| {
            let documents = judge(&self.house.settings.documents, message)?;
            Ok(documents)
        });
        match judged {
            Ok(documents) => {
                if self.ua.renew_watcher(now, watcher, request) == 200
                    && let (Some(state), Some(documents)) =
                        (self.notifying.watchers.get_mut(&watcher), documents)
                {
                    state.documents = documents;
                }
            }
            Err(refusal) => {
                out.push(refused(None, message, &facts, &refusal, refusal.status));
                let reply = outbound::refuse(&self.house, &facts, &refusal);
                self.ua.respond(now, request, reply);
            }
        }
    }

    /// Whether it is the one who subscribed.
    fn may_go_on(&self, watcher: WatcherKey, facts: &Facts, flow: &Flow) -> Result<(), Refusal> {
        super::inbound::identify(flow, facts)?;
        let known = self.notifying.watchers.get(&watcher);
        let same = known.is_some_and(|known| {
            facts.identities.iter().any(|identity| known.who.contains(&identity.uri))
        });
        if same { Ok(()) } else { Err(Refusal::new(403, "XD-018")) }
    }

    /// A NOTIFY is due.
    pub(super) fn notify_due(
        &mut self,
        now: Instant,
        watcher: WatcherKey,
        (whole, lost): (bool, bool),
        out: &mut Vec<Happening>,
    ) {
        let Some(state) = self.notifying.watchers.get_mut(&watcher) else {
            self.ua.notify(now, watcher, None);
            return;
        };
        state.whole = whole;
        if let Some(sent) = state.sent.take().filter(|_| !lost) {
            state.told = sent;
        }
        let (who, documents) = (state.who.clone(), state.documents.clone());
        out.push(Happening::Look(Box::new(Look { watcher, who, documents })));
    }

    /// How the documents of a [`Look`] stand.
    ///
    /// XD-043: what is not there, or may not be read, is left out, and one that was told of before is removed for this
    /// watcher.
    pub fn tell(&mut self, now: Instant, look: &Look, states: &[DocumentState]) {
        let watcher = look.watcher;
        let Some(state) = self.notifying.watchers.get_mut(&watcher) else {
            self.ua.notify(now, watcher, None);
            return;
        };
        let mut there = BTreeMap::new();
        let mut changes = Vec::new();
        for (document, found) in look.documents.iter().zip(states) {
            let before = state.told.get(document);
            let after = found.etag.as_deref().map(bare_tag);
            if let Some(etag) = after {
                there.insert(Arc::clone(document), etag.to_owned());
            }
            let fate = match (before, after) {
                (None, Some(etag)) => Fate::Exists { etag: etag.to_owned() },
                (Some(before), Some(etag)) if before != etag => {
                    Fate::Changed { previous: before.clone(), etag: etag.to_owned() }
                }
                (Some(_), Some(etag)) if state.whole => Fate::Exists { etag: etag.to_owned() },
                (Some(before), None) => Fate::Removed { previous: before.clone() },
                _ => continue,
            };
            changes.push((Arc::clone(document), fate));
        }
        let names: BTreeSet<Arc<str>> =
            states.iter().filter_map(|state| state.name.clone()).collect();
        let tells = state.whole || !changes.is_empty();
        if tells {
            state.sent = Some(there);
        }
        let old = std::mem::replace(&mut state.names, names.clone());
        for name in old.difference(&names) {
            self.notifying.leave(name, watcher);
        }
        for name in names {
            self.notifying.by_name.entry(name).or_default().insert(watcher);
        }
        let root = &self.house.settings.documents.root;
        let body = tells.then(|| {
            xcap_diff::write(root, changes.iter().map(|(document, fate)| (&**document, fate)))
        });
        let body = body.as_ref().map(|body| (MEDIA_TYPE, body.as_bytes()));
        self.ua.notify(now, watcher, body);
    }

    /// A document is another one now, or gone; `None`: any may be.
    pub fn document_changed(&mut self, now: Instant, name: Option<&str>) {
        let watchers: Vec<WatcherKey> = match name {
            Some(name) => self.notifying.by_name.get(name).into_iter().flatten().copied().collect(),
            None => {
                let mut all: Vec<_> = self.notifying.watchers.keys().copied().collect();
                all.sort();
                all
            }
        };
        for watcher in watchers {
            self.ua.watcher_changed(now, watcher);
        }
    }

    /// Ends all subscriptions: the node will stop, and another one may take them.
    pub fn end_watchers(&mut self, now: Instant) {
        let mut all: Vec<_> = self.notifying.watchers.keys().copied().collect();
        all.sort();
        for watcher in all {
            self.ua.end_watcher(now, watcher, "deactivated");
        }
    }

    pub(super) fn watcher_gone(&mut self, watcher: WatcherKey, status: u16) {
        tracing::debug!(rule = "XD-043", status, "documents are watched no more");
        self.notifying.forget(watcher);
    }
}

/// Whether a request is a SUBSCRIBE to the XDMS.
pub(super) fn is_asked(desk: &Desk<'_>, message: &Message) -> bool {
    message.method() == Some(Method::Subscribe)
        && desk.own.classify(message.uri()) == super::Asked::Documents
}
