//! Documents of an XDMS elsewhere, as long as they may be used: by URI, with their entity tags.
//!
//! Start at [`Cache::look`]. Pure: asks nobody, and time is an argument. XD-008, XD-038, XD-039, XD-041. Bounded in
//! documents and in octets; when it is full, the document used longest ago leaves, and one that alone is larger than
//! all is not kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::path::DocumentPath;
use super::super::store::Document;

/// How long a document counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Without notices of changes.
    pub ttl: Duration,
    /// While changes are notified (XD-040).
    pub notified: Duration,
    /// How long beyond that during an outage.
    pub stale: Duration,
    /// After a failure an old document is given out for so long without asking again.
    pub rest: Duration,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub documents: usize,
    /// Of the documents as they are held: what was read and what was made of it.
    pub octets: usize,
}

/// What the cache has to say about a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// To be used as it is.
    Fresh(Arc<Document>),
    /// To be asked for again, with its tag.
    Old {
        document: Arc<Document>,
        /// It still counts if nobody answers (XD-039).
        counts: bool,
        /// Nobody answered just now.
        resting: bool,
    },
}

/// One cached document below the root, for whoever subscribes to changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub path: DocumentPath,
    pub etag: String,
}

/// All of them.
#[derive(Debug)]
pub struct Cache {
    times: Times,
    limits: Limits,
    entries: HashMap<Arc<str>, Entry>,
    /// By last use.
    order: BTreeMap<u64, Arc<str>>,
    uses: u64,
    octets: usize,
    /// Grows whenever the set of documents below the root changes.
    changes: u64,
    /// Until when a change may be held back by who notifies it.
    held_back: Option<Instant>,
}

/// XD-043 (RFC 5875 §4.10): after a NOTIFY the next one waits five seconds; a little longer, for the way here.
const HELD_BACK: Duration = Duration::from_secs(6);
/// How old a copy may be while changes are held back.
const MEANWHILE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    document: Arc<Document>,
    /// Its name below the root; `None` for a document elsewhere.
    path: Option<DocumentPath>,
    /// When the server last said that it is this one.
    validated: Instant,
    /// When a notice said that it has changed.
    doubted: Option<Instant>,
    notified: bool,
    failed: Option<Instant>,
    weight: usize,
    used: u64,
}

impl Cache {
    pub fn new(times: Times, limits: Limits) -> Self {
        Self {
            times,
            limits,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            octets: 0,
            changes: 0,
            held_back: None,
        }
    }

    /// What there is for a URI.
    pub fn look(&mut self, now: Instant, uri: &str) -> Found {
        let times = self.times;
        let Some(entry) = self.entries.get_mut(uri) else { return Found::Nothing };
        self.uses += 1;
        if let Some(key) = self.order.remove(&entry.used) {
            entry.used = self.uses;
            self.order.insert(self.uses, key);
        }
        let expires = entry.expires(&times);
        let document = Arc::clone(&entry.document);
        let held_back = entry.notified && self.held_back.is_some_and(|until| now < until);
        if now < expires && !(held_back && now >= entry.validated + MEANWHILE) {
            return Found::Fresh(document);
        }
        let counts = now < expires + times.stale;
        let resting = entry.failed.is_some_and(|at| now < at + times.rest);
        Found::Old { document, counts, resting }
    }

    /// A document as the server has it now.
    pub fn put(
        &mut self,
        now: Instant,
        uri: &str,
        path: Option<&DocumentPath>,
        document: Arc<Document>,
    ) {
        let notified = self.entries.get(uri).is_some_and(|entry| entry.notified);
        let known = self.take(uri);
        let weight = weight(&document);
        if weight > self.limits.octets || self.limits.documents == 0 {
            self.changes += u64::from(known);
            return;
        }
        while self.entries.len() >= self.limits.documents
            || self.octets + weight > self.limits.octets
        {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
        self.uses += 1;
        let key: Arc<str> = uri.into();
        self.order.insert(self.uses, Arc::clone(&key));
        self.octets += weight;
        self.changes += u64::from(!known && path.is_some());
        let entry = Entry {
            document,
            path: path.cloned(),
            validated: now,
            doubted: None,
            notified,
            failed: None,
            weight,
            used: self.uses,
        };
        self.entries.insert(key, entry);
    }

    /// The server said that it has not changed (XD-008).
    pub fn validated(&mut self, now: Instant, uri: &str) {
        if let Some(entry) = self.entries.get_mut(uri) {
            (entry.validated, entry.doubted, entry.failed) = (now, None, None);
        }
    }

    /// Nobody gave a document for it.
    pub fn failed(&mut self, now: Instant, uri: &str) {
        if let Some(entry) = self.entries.get_mut(uri) {
            entry.failed = Some(now);
        }
    }

    /// The document is no more, or not for us (XD-039). Tells whether there was one.
    pub fn remove(&mut self, uri: &str) -> bool {
        let had = self.take(uri);
        self.changes += u64::from(had);
        had
    }

    /// XD-041: a notice names the tag a document has now; one that is cached with another is asked for again when it
    /// is needed.
    pub fn doubt(&mut self, now: Instant, uri: &str, etag: &str) {
        if let Some(entry) = self.entries.get_mut(uri)
            && entry.document.etag != etag
        {
            entry.doubted.get_or_insert(now);
            entry.failed = None;
        }
    }

    /// A notice has come: until the next one may come, documents are asked for again after a second, so that a change
    /// still counts for the page that follows it.
    pub fn told(&mut self, now: Instant) {
        self.held_back = Some(now + HELD_BACK);
    }

    /// Whether changes of a document are notified from now on (XD-038, XD-042).
    pub fn notified(&mut self, uri: &str, notified: bool) {
        if let Some(entry) = self.entries.get_mut(uri) {
            entry.notified = notified;
        }
    }

    /// The documents below the root.
    pub fn list(&self) -> Vec<Cached> {
        let mut all: Vec<Cached> = self
            .entries
            .values()
            .filter_map(|entry| {
                Some(Cached { path: entry.path.clone()?, etag: entry.document.etag.clone() })
            })
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Grows whenever [`Cache::list`] names other documents than before.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Documents and octets held.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.octets)
    }

    fn take(&mut self, uri: &str) -> bool {
        let Some(entry) = self.entries.remove(uri) else { return false };
        self.order.remove(&entry.used);
        self.octets -= entry.weight;
        true
    }
}

impl Entry {
    fn expires(&self, times: &Times) -> Instant {
        let ttl = if self.notified { times.notified } else { times.ttl };
        let by_time = self.validated + ttl;
        self.doubted.map_or(by_time, |at| by_time.min(at))
    }
}

/// Roughly, and rather too much: the text, what was parsed out of it, and the tables.
fn weight(document: &Document) -> usize {
    2 * document.bytes.len() + 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const TIMES: Times = Times {
        ttl: Duration::from_secs(60),
        notified: Duration::from_secs(3600),
        stale: Duration::from_secs(300),
        rest: Duration::from_secs(5),
    };

    fn path(name: &str) -> DocumentPath {
        DocumentPath::group("sip:a@ims.test", name)
    }

    fn document(etag: &str, octets: usize) -> Arc<Document> {
        Arc::new(Document {
            path: path("x"),
            etag: etag.to_owned(),
            content_type: "application/resource-lists+xml",
            bytes: Bytes::from(vec![b' '; octets]),
            group: None,
        })
    }

    fn cache(documents: usize, octets: usize) -> (Cache, Instant) {
        let now = tokio::time::Instant::now().into_std();
        (Cache::new(TIMES, Limits { documents, octets }), now)
    }

    /// Proves XD-008, XD-038, XD-039.
    #[test]
    fn a_document_ages() {
        let (mut cache, start) = cache(10, 1 << 20);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(cache.look(start, "u"), Found::Nothing);
        let one = document("\"1\"", 10);
        cache.put(start, "u", Some(&path("u")), Arc::clone(&one));
        assert_eq!(cache.look(at(59), "u"), Found::Fresh(Arc::clone(&one)));
        let old = |counts, resting| Found::Old { document: Arc::clone(&one), counts, resting };
        assert_eq!(cache.look(at(60), "u"), old(true, false));
        cache.failed(at(60), "u");
        assert_eq!(cache.look(at(64), "u"), old(true, true));
        assert_eq!(cache.look(at(65), "u"), old(true, false));
        assert_eq!(cache.look(at(359), "u"), old(true, false));
        assert_eq!(cache.look(at(360), "u"), old(false, false));
        cache.validated(at(360), "u");
        assert_eq!(cache.look(at(419), "u"), Found::Fresh(Arc::clone(&one)));
        // Changes are notified: it stays fresh for an hour.
        cache.notified("u", true);
        assert_eq!(cache.look(at(3959), "u"), Found::Fresh(Arc::clone(&one)));
        assert_eq!(cache.look(at(3960), "u"), old(true, false));
        // Without a subscription the time without one counts.
        cache.notified("u", false);
        assert_eq!(cache.look(at(420), "u"), old(true, false));
        assert!(cache.remove("u"));
        assert_eq!(cache.look(at(420), "u"), Found::Nothing);
    }

    /// Proves XD-041.
    #[test]
    fn a_notice_makes_a_document_old_at_once() {
        let (mut cache, now) = cache(10, 1 << 20);
        let one = document("\"1\"", 10);
        cache.put(now, "u", Some(&path("u")), Arc::clone(&one));
        cache.notified("u", true);
        cache.doubt(now, "u", "\"1\"");
        assert_eq!(cache.look(now, "u"), Found::Fresh(Arc::clone(&one)), "it has this one");
        cache.doubt(now, "u", "\"2\"");
        assert!(matches!(cache.look(now, "u"), Found::Old { counts: true, .. }));
        // Nor does a subscription that comes later make it good again.
        cache.notified("u", false);
        cache.notified("u", true);
        assert!(matches!(cache.look(now, "u"), Found::Old { .. }));
        cache.put(now, "u", Some(&path("u")), document("\"2\"", 10));
        assert!(matches!(cache.look(now + TIMES.ttl, "u"), Found::Fresh(_)), "still notified");
        cache.doubt(now, "unknown", "\"1\"");
        assert_eq!(cache.size().0, 1);
    }

    /// Proves XD-041: the change after a change counts a second later, though its notice waits for five.
    #[test]
    fn after_a_notice_documents_are_asked_for_again() {
        let (mut cache, start) = cache(10, 1 << 20);
        let at = |millis: u64| start + Duration::from_millis(millis);
        let one = document("\"1\"", 10);
        for name in ["followed", "by time"] {
            cache.put(start, name, Some(&path(name)), Arc::clone(&one));
        }
        cache.notified("followed", true);
        assert_eq!(cache.look(at(50_000), "followed"), Found::Fresh(Arc::clone(&one)));
        cache.told(at(50_000));
        let old = |resting| Found::Old { document: Arc::clone(&one), counts: true, resting };
        assert_eq!(cache.look(at(50_000), "followed"), old(false), "of another it was told");
        assert_eq!(cache.look(at(50_000), "by time"), Found::Fresh(Arc::clone(&one)));
        cache.validated(at(50_000), "followed");
        assert_eq!(cache.look(at(50_999), "followed"), Found::Fresh(Arc::clone(&one)));
        assert_eq!(cache.look(at(51_000), "followed"), old(false));
        // Whoever does not answer is not asked for every page.
        cache.failed(at(51_000), "followed");
        assert_eq!(cache.look(at(52_000), "followed"), old(true));
        assert_eq!(cache.look(at(56_000), "followed"), Found::Fresh(Arc::clone(&one)));
    }

    #[test]
    fn the_longest_unused_leaves_a_full_cache() {
        let (mut cache, now) = cache(3, 9_500);
        for name in ["a", "b", "c"] {
            cache.put(now, name, Some(&path(name)), document("\"1\"", 100));
        }
        let names = |cache: &Cache| -> Vec<String> {
            cache.list().into_iter().map(|one| one.path.name[0].clone()).collect()
        };
        let changes = cache.changes();
        assert!(matches!(cache.look(now, "a"), Found::Fresh(_)));
        cache.put(now, "d", Some(&path("d")), document("\"1\"", 100));
        assert_eq!(names(&cache), ["a", "c", "d"], "b was used longest ago");
        assert!(cache.changes() > changes);
        // Octets count, too: 2 * 4000 + 512 leaves room for one small document.
        cache.put(now, "e", Some(&path("e")), document("\"1\"", 4000));
        assert_eq!(names(&cache), ["d", "e"]);
        let changes = cache.changes();
        cache.put(now, "e", Some(&path("e")), document("\"2\"", 4000));
        assert_eq!((names(&cache).len(), cache.changes()), (2, changes), "replaced in its place");
        // What is larger than all is not kept, and what it would replace is gone.
        cache.put(now, "d", Some(&path("d")), document("\"2\"", 9_500));
        assert_eq!(names(&cache), ["e"]);
        assert_eq!(cache.size(), (1, 8512));
        // A document elsewhere takes room and is not subscribed to.
        cache.put(now, "https://other.test/x", None, document("\"1\"", 10));
        assert_eq!((names(&cache).len(), cache.size().0), (1, 2));
        assert!(cache.remove("e") && !cache.remove("e"));
        assert_eq!(cache.size(), (1, 532));
    }
}
