//! The subscription to the documents of an XDMS elsewhere: what changes in those that are cached.
//!
//! Start at [`Isc::follow`], which is told what is cached, and [`News`], which is what comes of it. One thread of the node
//! does it. While there is no subscription nothing is told and documents live by their time. XD-040, XD-041, XD-042
//! (RFC 5874, RFC 5875).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::rules::route::{self, Arrived, Fanout};
use super::settings::FanoutRoute;
use super::subscribing::{FIRST_WAIT, LONGEST_WAIT, Package, Standing, Subscriptions};
use super::{Happening, Isc, rules};
use crate::content::resource_lists;
use crate::content::xcap_diff::{self, DEFAULT_DURATION, Fate, MEDIA_TYPE, PACKAGE, normal};
use crate::sip::message::{Message, Method};
use crate::sip::ua::OutRequest;

/// Changes of what is cached are gathered for so long before the XDMS hears of them.
const GATHER: Duration = Duration::from_secs(1);

/// XD-042: 489 and 403 mean that changes are not told here; it is tried again in an hour.
pub(super) const DOCUMENTS: Package =
    Package { name: PACKAGE, usual: DEFAULT_DURATION, hopeless: &[403, 489] };

/// What the cache has to hear. Documents are named relative to the root, in the spelling of [`normal`]; tags are bare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It has this tag now, and any change from now on is told.
    Has { document: String, etag: String },
    /// It may have changed: ask again before it is used.
    Doubted(String),
    /// It is gone.
    Removed(String),
    /// Changes of these are told, and were before they were cached.
    Covered(Vec<String>),
    /// Changes of these are told no more.
    Silent(Vec<String>),
    /// All may have changed.
    Lost,
}

/// What one subscription has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// A first NOTIFY has come: it tells of everything that is there.
    begun: bool,
    /// Bodies that could not be read, one after the other.
    unread: u32,
}

/// The subscription.
#[derive(Default)]
pub(super) struct Following {
    subscription: Subscriptions<(), Told>,
    /// What is cached.
    wanted: BTreeSet<String>,
    /// What the last SUBSCRIBE asked for.
    asked: BTreeSet<String>,
    /// What the XDMS has told of: changes of these will be told.
    known: BTreeSet<String>,
    /// When to look at what is wanted.
    look: Option<Instant>,
    /// SUBSCRIBE though nothing else is wanted.
    again: bool,
    /// Whom the subscription was asked of.
    target: String,
    /// Charging identifier of its dialog.
    icid: String,
}

impl Following {
    pub fn next_wake(&self) -> Option<Instant> {
        [self.look, self.subscription.next_wake()].into_iter().flatten().min()
    }

    /// Whether this is the subscription.
    pub fn is(&self, subscription: crate::sip::ua::SubscriptionKey) -> bool {
        self.subscription.key_of(subscription).is_some()
    }

    fn look_at(&mut self, at: Instant) {
        self.look = Some(self.look.map_or(at, |known| known.min(at)));
    }
}

impl Isc {
    /// What is cached now of the XDMS's documents, relative to the root. More than `xdms.max_entries` are not followed.
    ///
    /// XD-040: a new list is asked for once it has stayed for a moment.
    pub fn follow(&mut self, now: Instant, documents: impl IntoIterator<Item = String>) {
        let most = self.house.settings.documents.max_entries;
        let mut wanted: BTreeSet<String> =
            documents.into_iter().filter_map(|document| normal(&document)).collect();
        if wanted.len() > most {
            // Those that are told of already stay.
            let mut kept: BTreeSet<String> =
                wanted.intersection(&self.following.asked).take(most).cloned().collect();
            let room = most - kept.len();
            kept.extend(wanted.difference(&self.following.asked).take(room).cloned());
            tracing::debug!(key = "xdms.max_entries", "not all documents are followed");
            wanted = kept;
        }
        if wanted == self.following.wanted {
            return;
        }
        let new = wanted.difference(&self.following.wanted);
        let covered: Vec<String> =
            new.filter(|document| self.following.known.contains(*document)).cloned().collect();
        if !covered.is_empty() {
            self.happened.push(Happening::Documents(vec![News::Covered(covered)]));
        }
        self.following.wanted = wanted;
        self.following.look_at(now + GATHER);
    }

    /// Whether changes are told at the moment.
    pub fn is_following(&self) -> bool {
        !self.following.known.is_empty()
    }

    /// Does what is due.
    pub(super) fn following_due(&mut self, now: Instant, out: &mut Vec<Happening>) {
        while let Some(((), subscribed)) = self.following.subscription.due(now) {
            if self.following.wanted.is_empty() || self.house.settings.documents.follow.is_empty() {
                self.following.subscription.end(&mut self.ua, &());
            } else if subscribed {
                self.ask_documents(now);
            } else {
                self.begin_following(now);
            }
        }
        if self.following.look.is_some_and(|at| at <= now) {
            self.following.look = None;
            self.look_at_wanted(now);
        }
        self.settle_following(out);
    }

    /// Has the subscription ask for what is wanted.
    fn look_at_wanted(&mut self, now: Instant) {
        let following = &mut self.following;
        let follow = &self.house.settings.documents.follow;
        if following.target != *follow {
            following.subscription.end(&mut self.ua, &());
        }
        if follow.is_empty() || (following.wanted.is_empty() && !following.again) {
            return;
        }
        match following.subscription.is_subscribed(&()) {
            None => self.begin_following(now),
            // It is waited for; the list is read when it is due.
            Some(false) => {}
            Some(true) => {
                let same = following.wanted == following.asked && !following.again;
                if !same && !self.ask_documents(now) {
                    self.following.look_at(now + GATHER);
                }
            }
        }
    }

    fn begin_following(&mut self, now: Instant) {
        let settings = &self.house.settings;
        let target = settings.documents.follow.clone();
        self.following.icid = format!("{:016x}", self.random.next_u64());
        let (headers, body) = self.document_lines();
        let settings = &self.house.settings;
        let request = OutRequest {
            request_uri: target.clone(),
            to: format!("<{target}>"),
            from: format!("<{}>", settings.documents.identity),
            route: way(settings, &target),
            headers,
            body,
            ..OutRequest::new(Method::Subscribe)
        };
        self.following.target = target;
        self.following.again = false;
        self.following.asked.clone_from(&self.following.wanted);
        if !self.following.subscription.begin(now, &mut self.ua, &(), request) {
            tracing::warn!("no room for a subscription to the documents of the XDMS");
            self.following.subscription.end(&mut self.ua, &());
            self.following.look_at(now + FIRST_WAIT);
        }
    }

    /// SUBSCRIBE in the dialog with the full list (RFC 5875 §4.4).
    fn ask_documents(&mut self, now: Instant) -> bool {
        let lines = self.document_lines();
        let asked = self.following.subscription.again(now, &mut self.ua, &(), lines);
        if asked {
            self.following.again = false;
            self.following.asked.clone_from(&self.following.wanted);
        }
        asked
    }

    /// What every SUBSCRIBE says, and its list.
    ///
    /// XD-040: no patches, a flat list relative to the root. XD-013: in the server's own name.
    fn document_lines(&self) -> (Bytes, Option<(String, Bytes)>) {
        let (house, documents) = (&self.house, &self.house.settings.documents);
        let expires = DEFAULT_DURATION.max(self.following.subscription.least(&()));
        let mut lines = String::new();
        let _ = write!(
            lines,
            "Contact: <sip:{}>\r\nEvent: {PACKAGE};diff-processing=no-patching\r\nAccept: {MEDIA_TYPE}\r\n\
             Expires: {expires}\r\nUser-Agent: {}\r\n",
            house.contact, house.product
        );
        if house.settings.profile.is_ims() {
            let (icid, ioi) = (&self.following.icid, house.ioi(None));
            let vector = rules::charging::new_leg(icid, &house.host, &ioi, None);
            let _ = write!(
                lines,
                "P-Asserted-Identity: <{}>\r\nP-Charging-Vector: {vector}\r\n",
                documents.identity
            );
        }
        let list = resource_lists::flat(self.following.wanted.iter().map(String::as_str));
        let body = ("application/resource-lists+xml".to_owned(), Bytes::from(list));
        (Bytes::from(lines), Some(body))
    }

    /// The answer to a SUBSCRIBE.
    ///
    /// XD-042: whatever is no grant leaves the documents to their time, and is tried again.
    pub(super) fn follow_answered(
        &mut self,
        now: Instant,
        status: u16,
        message: Option<&Message>,
        out: &mut Vec<Happening>,
    ) {
        let following = &mut self.following;
        let answer = (status, message);
        let standing = following.subscription.answered(now, &mut self.ua, &(), answer, &DOCUMENTS);
        if standing != Standing::Goes {
            tracing::info!(rule = "XD-042", status, "changes of documents are not told");
        }
        self.follow_on(now, standing);
        self.settle_following(out);
    }

    fn follow_on(&mut self, now: Instant, standing: Standing) {
        let following = &mut self.following;
        match standing {
            Standing::Goes if following.wanted != following.asked => {
                following.look_at(now + GATHER);
            }
            Standing::Goes | Standing::Waits => {}
            Standing::Hopeless => {
                following.subscription.later(now, &mut self.ua, &(), Some(LONGEST_WAIT));
            }
        }
    }

    /// A NOTIFY of it; it has been answered.
    ///
    /// XD-042: what cannot be read may have meant anything.
    pub(super) fn follow_notified(
        &mut self,
        now: Instant,
        message: &Message,
        out: &mut Vec<Happening>,
    ) {
        let body = message.body();
        let news = match (body.is_empty(), is_diff(message)) {
            (true, _) => Ok(Vec::new()),
            (false, false) => Err("another media type".to_owned()),
            (false, true) => match xcap_diff::parse(body) {
                Ok(diff) => Ok(self.read_diff(&diff)),
                Err(bad) => Err(bad.to_string()),
            },
        };
        match news {
            Ok(news) => {
                if let Some(told) = self.following.subscription.told_mut(&()) {
                    told.unread = 0;
                    told.begun |= !body.is_empty();
                }
                if !news.is_empty() {
                    out.push(Happening::Documents(news));
                }
            }
            Err(why) => {
                tracing::warn!(
                    rule = "XD-042",
                    why,
                    "what changed is not known: all is asked for again"
                );
                out.push(Happening::Documents(vec![News::Lost]));
                if let Some(told) = self.following.subscription.told_mut(&()) {
                    // The first time at once; one who never makes sense is not asked in a circle.
                    let wait = match told.unread {
                        0 => Duration::ZERO,
                        n => (FIRST_WAIT * 2_u32.pow((n - 1).min(7))).min(LONGEST_WAIT),
                    };
                    told.unread += 1;
                    self.following.again = true;
                    self.following.look_at(now + wait);
                }
            }
        }
        let standing = self.following.subscription.notified(now, &mut self.ua, &(), message);
        self.follow_on(now, standing);
        if self.following.look.is_some_and(|at| at <= now) {
            self.following.look = None;
            self.look_at_wanted(now);
        }
        self.settle_following(out);
    }

    /// What a body means for the cache.
    ///
    /// XD-041: by the tags; a node that is there or gone, or no tag at all, is a reason to look. Patches are not applied.
    fn read_diff(&mut self, diff: &xcap_diff::Diff) -> Vec<News> {
        let following = &mut self.following;
        let first = following.subscription.told(&()).is_some_and(|told| !told.begun);
        let mut news = Vec::new();
        let mut there = BTreeSet::new();
        for change in &diff.changes {
            let document = &change.document;
            if !following.wanted.contains(document) && !following.asked.contains(document) {
                tracing::debug!(document, "a change of what is not cached");
                continue;
            }
            if change.patched {
                tracing::debug!(rule = "XD-041", document, "a patch is not applied");
            }
            let document = document.clone();
            match &change.fate {
                Fate::Exists { etag } | Fate::Changed { etag, .. } => {
                    following.known.insert(document.clone());
                    there.insert(document.clone());
                    news.push(News::Has { document, etag: etag.clone() });
                }
                Fate::Removed { .. } => {
                    following.known.remove(&document);
                    there.insert(document.clone());
                    news.push(News::Removed(document));
                }
                Fate::Unsaid => news.push(News::Doubted(document)),
            }
        }
        for node in &diff.nodes {
            if following.wanted.contains(&node.document) && !there.contains(&node.document) {
                news.push(News::Doubted(node.document.clone()));
            }
        }
        // The first one tells of everything that is there; what it leaves out is gone, or not for us to hear of.
        if first {
            let missing = following.asked.iter().filter(|asked| !there.contains(*asked));
            news.extend(missing.cloned().map(News::Doubted));
        }
        news
    }

    /// Without a subscription nothing is told, and nothing of what is cached no more.
    fn settle_following(&mut self, out: &mut Vec<Happening>) {
        let following = &mut self.following;
        let stands = following.subscription.is_subscribed(&()) == Some(true);
        let lost: Vec<String> = if stands {
            following.known.difference(&following.asked).cloned().collect()
        } else {
            following.known.iter().cloned().collect()
        };
        if !lost.is_empty() {
            following.known.retain(|known| !lost.contains(known));
            out.push(Happening::Documents(vec![News::Silent(lost)]));
        }
    }
}

fn is_diff(message: &Message) -> bool {
    let kind = message.content_type().and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// The Route to the XDMS: none where its URI says where it is, else as for whatever the service asks for itself.
fn way(settings: &super::Settings, target: &str) -> Vec<String> {
    let uri = crate::sip::uri::Uri::parse(target);
    let placed = uri.is_ok_and(|uri| {
        let host = uri.host().trim_start_matches('[').trim_end_matches(']');
        uri.port().is_some() || host.parse::<std::net::IpAddr>().is_ok()
    });
    if placed && settings.profile.is_ims() {
        return Vec::new();
    }
    let arrived = Arrived::default();
    let fanout = Fanout {
        profile: settings.profile,
        route: FanoutRoute::Psi,
        psi_route: settings.isc.psi_route,
        core: &settings.core,
        arrived: &arrived,
        odi_valid: false,
        same_user: false,
        stored: None,
        asked: None,
    };
    route::fanout(fanout).route
}
