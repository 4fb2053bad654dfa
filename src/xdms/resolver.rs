//! Who is meant: a request's own list, or the members of a group, and whether the originator may reach them.
//!
//! Start at [`Resolver::resolve`]. Lists follow IM-031, IM-032, IM-035 and the UL rules; groups the procedure of the XDM
//! rules, section 7.1 (IM-004, IM-022, IM-033, XD-023, XD-024, XD-026, XD-036, XD-037). Documents come from a [`Source`];
//! which one is none of this module's business. Sends nothing and asks no DNS.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use tokio::sync::watch;

use super::access::{Class, Decision, Requester, Surroundings, decide};
use super::groups::{Grants, ListChild, ListService, Member};
use super::lists::{Sieve, Sifted};
use super::path::{DocumentPath, Resource};
use super::ruleset::{Condition, Rule};
use super::selector;
use super::store::{Document, Store};
use super::ut::http::Heard;
use super::ut::url::Url;
use super::{AnonReject, Consent, Settings};
use crate::engine::input::Refusal;
use crate::engine::party::{Audience, Copy, Party, Recipient, Removal, Target};
use crate::sip::uri::Uri;

/// The question.
#[derive(Debug, Clone)]
pub struct Query {
    /// What the page is addressed to.
    pub target: Target,
    /// Asserted identities of the originator.
    pub identities: Vec<Party>,
    /// Other URIs the originator goes by: none of them is a recipient of its own page (UL-013).
    pub names: Vec<String>,
    /// The originator asks to stay unknown (IM-022).
    pub anonymous: bool,
    /// Now, for budgets.
    pub now: Instant,
    /// Wall clock, for rules with a validity.
    pub time: SystemTime,
}

/// The documents cannot be had at the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("XDMS unavailable: {0}")]
pub struct Unavailable(pub String);

/// What a [`Source`] promises: the document, that there is none, or that nobody knows.
pub type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<Document>>, Unavailable>> + Send + 'a>>;

/// Where documents come from.
pub trait Source: Send + Sync {
    /// Fetches one document (XD-003, XD-007).
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a>;

    /// A document of lists that is not below our root; `None` if nothing may be asked there (XD-024).
    fn elsewhere<'a>(&'a self, _url: &'a Url) -> Option<Fetching<'a>> {
        None
    }

    /// How the server does that documents come from.
    fn health(&self) -> Health {
        Health { up: Some(true), last_error: None }
    }

    /// Whoever wants to hear of exchanges over the wire, if there are any.
    fn hears(&self, _heard: Heard) {}

    /// The store it reads, where the documents are kept here.
    fn store(&self) -> Option<&Store> {
        None
    }

    /// Its copies, where the documents are kept elsewhere.
    fn copies(&self) -> Option<&dyn Copies> {
        None
    }
}

/// Copies of documents of an XDMS elsewhere, for those who hear of changes there (XD-041).
pub trait Copies: Send + Sync {
    /// Those below the root, each with its tag as HTTP has it.
    fn cached(&self) -> Vec<(DocumentPath, String)>;

    /// Changes whenever [`Copies::cached`] names other documents.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The XDMS has the document with this tag: a copy with another one is asked for again before it is used.
    fn invalidate(&self, document: &DocumentPath, etag: &str);

    /// The XDMS has no such document any more.
    fn purge(&self, document: &DocumentPath);

    /// Changes of it are told from now on, or no longer (XD-038).
    fn notified(&self, document: &DocumentPath, notified: bool);
}

/// What is known of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// It gave the last answer that was needed; `None` before the first.
    pub up: Option<bool>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Source for Store {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        Box::pin(std::future::ready(Ok(self.get(path))))
    }

    fn store(&self) -> Option<&Store> {
        Some(self)
    }
}

/// Finds out who gets a page. One for a node, shared by its threads.
pub struct Resolver {
    pub(super) settings: Settings,
    /// `None`: the root is none; then nothing is below it.
    root: Option<Url>,
    pub(super) source: Arc<dyn Source>,
    flats: Mutex<Flats>,
    /// What stays when it obeys other settings.
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    /// As configured.
    barred: RwLock<HashSet<String>>,
    /// By operators, since the start.
    shut_out: RwLock<HashSet<String>>,
    budget: Mutex<Budget>,
}

impl Resolver {
    /// A resolver over a source of documents.
    pub fn new(settings: Settings, source: Arc<dyn Source>) -> Self {
        Self {
            root: Url::parse(&settings.root),
            settings,
            source,
            flats: Mutex::default(),
            kept: Arc::default(),
        }
    }

    /// The same resolver under other settings; the root stays. Whoever is barred, and what everybody has spent, is shared.
    #[must_use]
    pub fn obeying(&self, settings: Settings) -> Self {
        let settings = Settings { root: self.settings.root.clone(), ..settings };
        let kept = Arc::clone(&self.kept);
        Self { kept, ..Self::new(settings, Arc::clone(&self.source)) }
    }

    /// Where documents come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Replaces the set of those who are not to be reached, by URI (IM-035).
    pub fn set_barred<'a>(&self, uris: impl IntoIterator<Item = &'a str>) {
        let keys = uris.into_iter().map(|uri| self.settings.key_of(uri)).collect();
        *self.kept.barred.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// An operator bars a user, or lets one in again; what is configured stands.
    pub fn bar(&self, uri: &str, barred: bool) {
        let key = self.settings.key_of(uri);
        let mut shut_out = self.kept.shut_out.write().unwrap_or_else(PoisonError::into_inner);
        if barred {
            shut_out.insert(key);
        } else {
            shut_out.remove(&key);
        }
    }

    /// Answers the question once; the answer is frozen for the page (XD-037).
    ///
    /// # Errors
    /// The refusal the originator gets. It is final and nobody is invited.
    pub async fn resolve(&self, query: Query) -> Result<Audience, Refusal> {
        let mut originator = self.keys_of(&query.identities);
        originator.extend(query.names.iter().map(|name| self.key_of(name)));
        let audience = match &query.target {
            Target::List(entries) => self.list(entries, &originator)?,
            Target::Group(group) => self.group_in_time(group, &query, &originator).await?,
        };
        self.spend(&query, audience.recipients.len())?;
        let mut audience = audience;
        if self.settings.apply_member_policy {
            self.ask_members(&mut audience, &query).await;
        }
        Ok(audience)
    }

    /// The first of the URIs that may be asked in a recipient's place, as it would be requested, and which one it is.
    ///
    /// ISC-070: by the rules for an entry of a list, and never a number: nobody vouches for what it costs.
    pub fn redirect<'a>(
        &self,
        uris: impl IntoIterator<Item = &'a str>,
        query: &Query,
    ) -> Option<(usize, Party)> {
        let originator = self.keys_of(&query.identities);
        let barred = self.barred();
        let sieve = self.sieve(&originator, &barred, None);
        let settings = &self.settings;
        let (at, party) = uris.into_iter().enumerate().find_map(|(at, text)| {
            let uri = Uri::parse(text).ok()?;
            if !uri.is_sip() || is_number(&uri) || settings.consent == Consent::Rfc5360 {
                return None;
            }
            let entry = Recipient {
                party: Party { uri: text.into(), key: text.into(), display: None },
                copy: Copy::To,
                anonymize: false,
                headers: Vec::new(),
            };
            let recipients = sieve.list(&[entry]).recipients;
            if sieve.foreign_hosts(&recipients) > settings.foreign_hosts {
                return None;
            }
            recipients.into_iter().next().map(|recipient| (at, recipient.party))
        })?;
        self.spend(query, 1).ok()?;
        Some((at, party))
    }

    /// As [`Settings::key_of`].
    pub fn key_of(&self, uri: &str) -> String {
        self.settings.key_of(uri)
    }

    /// Who would be asked is away, every one of them: what the originator gets if they had been asked (IM-057).
    pub fn nobody_here(&self) -> Refusal {
        Refusal::new(480, "IM-057").key("im.check_registration")
    }

    fn keys_of(&self, identities: &[Party]) -> HashSet<String> {
        identities
            .iter()
            .flat_map(|party| [party.key.to_string(), self.settings.key_of(&party.uri)])
            .collect()
    }

    fn sieve<'a>(
        &'a self,
        originator: &'a HashSet<String>,
        barred: &'a HashSet<String>,
        group: Option<&'a str>,
    ) -> Sieve<'a> {
        Sieve { settings: &self.settings, originator, barred, group }
    }

    fn barred(&self) -> HashSet<String> {
        let read = |set: &RwLock<HashSet<String>>| {
            set.read().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let mut barred = read(&self.kept.barred);
        barred.extend(read(&self.kept.shut_out));
        barred
    }

    fn list(
        &self,
        entries: &[Recipient],
        originator: &HashSet<String>,
    ) -> Result<Audience, Refusal> {
        let barred = self.barred();
        let sieve = self.sieve(originator, &barred, None);
        let Sifted { recipients, removed, history } = sieve.list(entries);
        report(&removed);
        // IM-031.
        if recipients.is_empty() {
            return Err(nobody_left("IM-031", sieve.key_against(&removed)));
        }
        // IM-032, UL-020: all or nothing.
        if recipients.len() > self.settings.max_recipients {
            return Err(too_many("IM-032").key("im.max_recipients"));
        }
        if sieve.foreign_hosts(&recipients) > self.settings.foreign_hosts {
            return Err(Refusal::new(403, "UL-033")
                .warn("Function not allowed")
                .key("ul.foreign_hosts"));
        }
        // UL-032: nobody has given a permission that could be looked up, so none is there.
        if self.settings.consent == Consent::Rfc5360 {
            let missing: Vec<String> =
                recipients.iter().map(|r| format!("<{}>", r.party.uri)).collect();
            let mut refusal = Refusal::new(470, "UL-032").key("ul.consent");
            refusal.headers.push(("Permission-Missing", missing.join(", ")));
            return Err(refusal);
        }
        Ok(Audience { recipients, removed, history, ..Audience::default() })
    }

    /// XD-012, XD-024: a group is found out in a bounded time, whatever its references lead to.
    async fn group_in_time(
        &self,
        group: &Party,
        query: &Query,
        originator: &HashSet<String>,
    ) -> Result<Audience, Refusal> {
        let limit = self.settings.resolve_timeout;
        match tokio::time::timeout(limit, self.group(group, query, originator)).await {
            Ok(result) => result,
            Err(_) => {
                let why = Unavailable(format!("{} took longer than {limit:?}", group.uri));
                Err(self.unavailable(&why).key("xdm.resolve_timeout"))
            }
        }
    }

    /// Section 7.1 of the XDM rules, step by step.
    async fn group(
        &self,
        group: &Party,
        query: &Query,
        originator: &HashSet<String>,
    ) -> Result<Audience, Refusal> {
        let settings = &self.settings;
        // 1: the document.
        let path = DocumentPath::by_group(&group.uri);
        let document = match self.source.fetch(&path).await {
            Ok(Some(document)) => document,
            Ok(None) => return Err(Refusal::new(404, "IM-033")),
            Err(why) => return Err(self.unavailable(&why)),
        };
        let Some(parsed) = &document.group else {
            return Err(self.unavailable(&Unavailable(format!("{path} is no group document"))));
        };
        // 2: the service of that identity.
        let group_key = settings.key_of(&group.uri);
        let service = parsed
            .services
            .iter()
            .find(|s| settings.key_of(&s.uri) == group_key)
            .ok_or_else(|| Refusal::new(404, "XD-029"))?;
        for warning in &service.warnings {
            tracing::warn!(group = %group.uri, warning, "group document read leniently");
        }
        // 3: what the group is for.
        let at = OffsetDateTime::from(query.time);
        self.usable(service, at)?;
        // 4: its members.
        let flat = self.flatten(&document, service).await.map_err(|why| self.unresolvable(&why))?;
        let members = &flat.members;
        // 5, 6: may the originator send.
        let conditions = service.rules.iter().flatten().flat_map(|rule| &rule.conditions);
        let world = World {
            external: self.lists_of(conditions).await,
            members: Arc::clone(&flat.keys),
            at,
        };
        let identities: Vec<Uri> =
            query.identities.iter().filter_map(|p| Uri::parse(&p.uri).ok()).collect();
        let grants = self.permission(service, &world, &identities, query.anonymous)?;
        if query.anonymous && !grants.anonymity {
            return Err(self.anonymity_refused());
        }
        // 7, 8: who is left, and whether that is too many.
        let barred = self.barred();
        let sieve = self.sieve(originator, &barred, Some(&group_key));
        let Sifted { mut recipients, removed, .. } = sieve.members(members);
        report(&removed);
        if recipients.is_empty() {
            return Err(nobody_left("XD-026", sieve.key_against(&removed)));
        }
        if recipients.len() > settings.max_members {
            return Err(too_many("XD-026").key("im.max_members"));
        }
        if service.max_participants.is_some_and(|most| recipients.len() as u64 > most) {
            return Err(too_many("IM-032"));
        }
        let is_key = |recipient: &Recipient| self.is_key_participant(service, &world, recipient);
        // Stable: document order within both parts.
        recipients.sort_by_cached_key(|recipient| !is_key(recipient));
        let warnings = flat.skipped.iter().take(MOST_WARNINGS).cloned().collect();
        Ok(Audience { recipients, removed, warnings, ..Audience::default() })
    }

    fn usable(&self, service: &ListService, at: OffsetDateTime) -> Result<(), Refusal> {
        let settings = &self.settings;
        if let Some(supported) = &service.supported
            && !supported.admits_pages(&settings.im_enabler_ids)
        {
            return Err(Refusal::new(488, "XD-029")
                .warn("Function not allowed")
                .key("xdm.im_enabler_ids"));
        }
        if !service.invite_members && !settings.pager_to_chat_group {
            return Err(Refusal::new(403, "IM-033")
                .warn("Function not allowed")
                .key("im.pager_to_chat_group"));
        }
        if !service.is_in_use(at) {
            tracing::info!(rule = "XD-037", group = %service.uri, "the group's schedule excludes now");
            return Err(self.later("XD-037"));
        }
        Ok(())
    }

    /// IM-033, XD-033, XD-037.
    fn permission(
        &self,
        service: &ListService,
        world: &World,
        identities: &[Uri],
        anonymous: bool,
    ) -> Result<Grants, Refusal> {
        let keys: Vec<String> = identities.iter().map(|uri| self.settings.key(uri)).collect();
        let Some(rules) = &service.rules else {
            let member = keys.iter().any(|key| world.members.contains(key));
            let initiate = self.settings.absent_ruleset_members && member;
            return match initiate {
                true => Ok(Grants { initiate, ..Grants::default() }),
                false => Err(self.not_allowed("xdm.absent_ruleset")),
            };
        };
        let decision = self.evaluate(rules, world, identities, &keys, anonymous);
        // XD-035.
        tracing::info!(
            rule = "XD-035",
            group = %service.uri,
            class = decision.class.map_or("none", Class::as_str),
            initiate = decision.grants.initiate,
            anonymity = decision.grants.anonymity,
            "group rules applied"
        );
        // XD-037: whatever a missing list could take away is not given, and what it could give is not denied for good.
        let (least, most) = (decision.least, decision.most);
        let open = (most.initiate && !least.initiate)
            || (anonymous && least.initiate && most.anonymity && !least.anonymity);
        if open {
            tracing::warn!(group = %service.uri, "a list in the group's rules cannot be had");
            return Err(self.later("XD-034"));
        }
        if !least.initiate {
            return Err(self.not_allowed("xdm.oma_precedence"));
        }
        Ok(least)
    }

    fn evaluate(
        &self,
        rules: &[Rule],
        world: &World,
        identities: &[Uri],
        keys: &[String],
        anonymous: bool,
    ) -> Decision<Grants> {
        let key = |text: &str| Uri::parse(text).ok().map(|uri| self.settings.key(&uri));
        decide(
            rules,
            &Requester { identities, keys, anonymous, at: world.at },
            &Surroundings {
                members: &world.members,
                external: &world.external,
                precedence: self.settings.oma_precedence,
                key: &key,
            },
        )
    }

    fn is_key_participant(
        &self,
        service: &ListService,
        world: &World,
        recipient: &Recipient,
    ) -> bool {
        let (Some(rules), Ok(uri)) = (&service.rules, Uri::parse(&recipient.party.uri)) else {
            return false;
        };
        if !rules.iter().any(|rule| rule.grants.key_participant) {
            return false;
        }
        let keys = [recipient.party.key.to_string()];
        let identities = [uri];
        self.evaluate(rules, world, &identities, &keys, false).grants.key_participant
    }

    /// XD-034: the lists that rules ask about; `None` for one that cannot be had.
    pub(super) async fn lists_of(
        &self,
        conditions: impl Iterator<Item = &Condition>,
    ) -> HashMap<String, Option<HashSet<String>>> {
        let mut lists = HashMap::new();
        for condition in conditions {
            let Condition::ExternalList(anchors) = condition else { continue };
            for anchor in anchors {
                if lists.contains_key(anchor) || lists.len() >= self.settings.max_refs {
                    continue;
                }
                // What a setting may leave out of a group must not let anybody slip past a rule.
                let mut walk = Walk { whole: true, ..Walk::default() };
                let above = vec![String::new()]; // the document of the rules
                walk.open.push(Step::External { anchor: anchor.clone(), above });
                let keys = match self.walk(&mut walk).await {
                    Ok((_, keys)) => Some(keys),
                    Err(why) => {
                        tracing::warn!(%why, "a list that rules point to");
                        None
                    }
                };
                lists.insert(anchor.clone(), keys);
            }
        }
        lists
    }

    /// XD-023, XD-024: all members in document order, lists elsewhere included. What was made of documents that are all
    /// still the same is used again (XD-038).
    async fn flatten(
        &self,
        document: &Arc<Document>,
        service: &ListService,
    ) -> Result<Arc<Flat>, Broken> {
        let start = format!("{}/{}", self.settings.root, document.path);
        let name = format!("{start} {}", service.uri);
        let known = self.flats().get(&name);
        if let Some(known) = known
            && Arc::ptr_eq(&known.document, document)
            && self.still_valid(&known).await
        {
            return Ok(known);
        }
        let mut walk = Walk::default();
        walk.traversed.insert(start.clone());
        for member in service.list.iter().rev() {
            walk.open.push(match member {
                Member::Entry(uri) => Step::Entry(uri.clone()),
                Member::External(anchor) => {
                    Step::External { anchor: anchor.clone(), above: vec![start.clone()] }
                }
            });
        }
        let (members, keys) = self.walk(&mut walk).await?;
        let flat = Arc::new(Flat {
            document: Arc::clone(document),
            references: walk
                .documents
                .into_iter()
                .filter_map(|(place, got)| Some((place, got.ok().flatten()?)))
                .collect(),
            members,
            keys: Arc::new(keys),
            skipped: walk.skipped,
        });
        if flat.skipped.is_empty() {
            self.flats().put(name, Arc::clone(&flat));
        }
        Ok(flat)
    }

    fn flats(&self) -> MutexGuard<'_, Flats> {
        self.flats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the source still gives every document a result was made of.
    async fn still_valid(&self, flat: &Flat) -> bool {
        let fetches =
            flat.references.iter().filter_map(|(place, _)| self.fetching(place)).collect();
        let now = together(fetches, PARALLEL).await;
        now.len() == flat.references.len()
            && now
                .iter()
                .zip(&flat.references)
                .all(|(now, (_, then))| matches!(now, Ok(Some(now)) if Arc::ptr_eq(now, then)))
    }

    /// `None` if nothing may be asked there.
    fn fetching<'a>(&'a self, place: &'a Place) -> Option<Fetching<'a>> {
        match place {
            Place::Own(path) => Some(self.source.fetch(path)),
            Place::Elsewhere(url) => self.source.elsewhere(url),
        }
    }

    /// The document and the part of it that a reference is to.
    fn refers_to(&self, reference: &str) -> Option<(Place, Option<String>)> {
        let (url, selector) = Url::parse(reference)?.split_selector()?;
        // XD-024: what is below our own root is found there.
        match self.root.as_ref().and_then(|root| root.strip(&url)) {
            Some(below) => {
                let resource = Resource::parse(below, "").ok()?;
                Some((Place::Own(resource.document), selector))
            }
            None => Some((Place::Elsewhere(url), selector)),
        }
    }

    /// XD-022: relative to the root, without a leading slash.
    fn absolute(&self, reference: &str) -> Option<String> {
        let relative = !reference.starts_with('/') && !reference.contains("://");
        relative.then(|| format!("{}/{reference}", self.settings.root))
    }

    /// XD-024: fetches what the references still open on top of the walk are to, some at a time.
    async fn fetch_ahead(&self, walk: &mut Walk, news: usize) {
        let from = walk.open.len().saturating_sub(news);
        let mut places: Vec<Place> = Vec::new();
        for step in walk.open[from..].iter().rev() {
            let place = match step {
                Step::Entry(_) => continue,
                Step::External { anchor, .. } => self.refers_to(anchor),
                Step::EntryRef { reference, .. } => {
                    self.absolute(reference).and_then(|absolute| self.refers_to(&absolute))
                }
            };
            let Some((place, _)) = place else { continue };
            let room = walk.fetched + places.len() < self.settings.max_refs;
            if room && !walk.documents.contains_key(&place) && !places.contains(&place) {
                places.push(place);
            }
        }
        // One alone is fetched when it is its turn.
        if places.len() < 2 {
            return;
        }
        let (places, fetches): (Vec<&Place>, Vec<Fetching<'_>>) =
            places.iter().filter_map(|place| Some((place, self.fetching(place)?))).unzip();
        let got = together(fetches, PARALLEL).await;
        walk.documents.extend(places.into_iter().cloned().zip(got));
    }

    /// Depth first, in document order, without recursion.
    ///
    /// Gives what was found, and its keys.
    async fn walk(&self, walk: &mut Walk) -> Result<(Vec<String>, HashSet<String>), Broken> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        self.fetch_ahead(walk, walk.open.len()).await;
        while let Some(step) = walk.open.pop() {
            let outcome = match step {
                Step::Entry(uri) => {
                    if seen.insert(self.settings.key_of(&uri)) {
                        found.push(uri);
                    }
                    // One more than is ever allowed is enough to say so.
                    if found.len() > self.settings.max_members + 1 {
                        return Ok((found, seen));
                    }
                    Ok(())
                }
                Step::External { anchor, above } => self.follow(&anchor, "list", above, walk).await,
                Step::EntryRef { reference, above } => {
                    // What is not relative refers to nothing.
                    let absolute = self.absolute(&reference).unwrap_or(reference);
                    self.follow(&absolute, "entry", above, walk).await
                }
            };
            if let Err(why) = outcome {
                if walk.whole || !self.settings.partial_lists {
                    return Err(why);
                }
                tracing::warn!(%why, key = "xdm.partial_lists", "a reference in a group was skipped");
                walk.skipped.push(why.to_string());
            }
        }
        Ok((found, seen))
    }

    async fn follow(
        &self,
        anchor: &str,
        wanted: &str,
        mut above: Vec<String>,
        walk: &mut Walk,
    ) -> Result<(), Broken> {
        let broken =
            |what: &str, key| Err(Broken::Reference { what: format!("{what}: {anchor}"), key });
        let fail = |what: &str| broken(what, "xdm.partial_lists");
        let Some((place, selector)) = self.refers_to(anchor) else {
            return fail("no reference to a list");
        };
        let name = format!("{place}~~{selector:?}");
        if above.contains(&name) {
            return fail("a reference that loops");
        }
        if !walk.traversed.insert(name.clone()) {
            return Ok(()); // named twice, without a loop: its members are there already
        }
        walk.fetched += 1;
        if walk.fetched > self.settings.max_refs {
            return broken("too many references", "xdm.max_refs");
        }
        // Where it all begins is no reference.
        if above.len() > self.settings.max_nesting {
            return fail("references too deep");
        }
        let document = match walk.documents.get(&place) {
            Some(got) => got.clone(),
            None => {
                let Some(fetching) = self.fetching(&place) else {
                    return broken("a reference nobody may follow", "xdm.allowed_hosts");
                };
                let got = fetching.await;
                walk.documents.insert(place.clone(), got.clone());
                got
            }
        };
        let Some(document) = document? else {
            return fail("a reference to nothing");
        };
        let Some(children) = selector::list_at(&document.bytes, selector.as_deref(), wanted) else {
            return fail("a reference to something else");
        };
        above.push(name);
        let news = children.len();
        for child in children.into_iter().rev() {
            walk.open.push(match child {
                ListChild::Entry(uri) => Step::Entry(uri),
                ListChild::External(anchor) => Step::External { anchor, above: above.clone() },
                ListChild::EntryRef(reference) => {
                    Step::EntryRef { reference, above: above.clone() }
                }
            });
        }
        self.fetch_ahead(walk, news).await;
        Ok(())
    }

    /// UL-033, IM-036: requests of one originator in a minute.
    fn spend(&self, query: &Query, requests: usize) -> Result<(), Refusal> {
        let Some(originator) = query.identities.first() else { return Ok(()) };
        let mut budget = self.kept.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.spend(&originator.key, requests, self.settings.budget_per_minute, query.now) {
            return Ok(());
        }
        Err(Refusal::new(486, "UL-033").key("ul.budget_per_minute"))
    }

    fn unavailable(&self, why: &Unavailable) -> Refusal {
        tracing::error!(%why, "the recipients of a page cannot be found out");
        self.later("IM-033")
    }

    /// XD-024: a group is its whole list or nothing.
    fn unresolvable(&self, why: &Broken) -> Refusal {
        match why {
            Broken::Source(why) => self.unavailable(why),
            Broken::Reference { key, .. } => {
                tracing::error!(%why, "the recipients of a page cannot be found out");
                self.later("XD-024").key(key)
            }
        }
    }

    fn later(&self, rule: &'static str) -> Refusal {
        let mut refusal = Refusal::new(480, rule);
        refusal.retry_after = Some(self.settings.retry_after);
        refusal
    }

    fn not_allowed(&self, key: &'static str) -> Refusal {
        Refusal::new(403, "IM-033").warn("Function not allowed").key(key)
    }

    /// IM-022, XD-036.
    fn anonymity_refused(&self) -> Refusal {
        let refusal = match self.settings.anon_reject {
            AnonReject::Oma => Refusal::new(403, "IM-022").warn("Anonymity not allowed"),
            AnonReject::Rfc => Refusal::new(433, "IM-022"),
        };
        refusal.key("im.anon_reject")
    }
}

/// IM-031, XD-026: with the key that would let somebody in, where there is one.
fn nobody_left(rule: &'static str, key: Option<&'static str>) -> Refusal {
    Refusal { key, ..Refusal::new(403, rule).warn("No destinations") }
}

/// Whether a SIP URI is a telephone number in disguise.
fn is_number(uri: &Uri) -> bool {
    let user = uri.user().unwrap_or_default();
    let digits = user.bytes().filter(u8::is_ascii_digit).count();
    let dialled = |b: u8| b.is_ascii_digit() || b"+-.()".contains(&b);
    uri.param("user").is_some_and(|user| user.eq_ignore_ascii_case("phone"))
        || (user.bytes().all(dialled) && (user.starts_with('+') || digits >= 5))
}

fn too_many(rule: &'static str) -> Refusal {
    Refusal::new(486, rule).warn("102 Too many participants")
}

/// IM-035: each removal is logged; only the reason, for the URI may be one nobody else may learn (UL-035).
fn report(removed: &[(Party, Removal)]) {
    for (_, why) in removed {
        let (rule, key) = reason(*why);
        tracing::info!(rule, key, ?why, "an entry is not invited");
    }
}

/// The rule that takes an entry out, and the key that would leave it in, where there is one.
fn reason(why: Removal) -> (&'static str, Option<&'static str>) {
    match why {
        Removal::Originator => ("UL-013", None),
        Removal::Duplicate => ("UL-010", None),
        Removal::Barred => ("IM-035", Some("service.barred")),
        Removal::Unroutable => ("UL-014", None),
        Removal::NestedGroup => ("UL-016", None),
        Removal::Away => ("IM-057", Some("im.check_registration")),
        Removal::Refused => ("UL-033", None),
    }
}

/// Why a group's list cannot be had as a whole.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Source(#[from] Unavailable),
    /// `key` is what would change it.
    #[error("{what}")]
    Reference { what: String, key: &'static str },
}

struct World {
    members: Arc<HashSet<String>>,
    external: HashMap<String, Option<HashSet<String>>>,
    at: OffsetDateTime,
}

/// What is still to be looked at, last first, and what has been.
#[derive(Default)]
struct Walk {
    open: Vec<Step>,
    traversed: HashSet<String>,
    fetched: usize,
    /// All of it or nothing, whatever `xdm.partial_lists` says.
    whole: bool,
    /// What was fetched already: within one walk a document does not change.
    documents: HashMap<Place, Result<Option<Arc<Document>>, Unavailable>>,
    /// References that were not followed, and why.
    skipped: Vec<String>,
}

/// Skipped references the originator is warned of; the log names them all.
const MOST_WARNINGS: usize = 5;

/// XD-024: references followed at a time.
const PARALLEL: usize = 4;

/// Where a reference leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Own(DocumentPath),
    Elsewhere(Url),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(path) => path.fmt(f),
            Self::Elsewhere(url) => url.fmt(f),
        }
    }
}

/// The members of a group, and the documents they were found in.
struct Flat {
    document: Arc<Document>,
    references: Vec<(Place, Arc<Document>)>,
    members: Vec<String>,
    keys: Arc<HashSet<String>>,
    /// References that are missing in it, and why; then it is made anew for each page.
    skipped: Vec<String>,
}

/// Members as they were found the last time. Bounded by their number: the group found out longest ago leaves, and one
/// that alone is larger is not kept.
#[derive(Default)]
struct Flats {
    known: HashMap<String, Arc<Flat>>,
    order: VecDeque<String>,
    members: usize,
}

impl Flats {
    const MOST_MEMBERS: usize = 250_000;
    const MOST_GROUPS: usize = 10_000;

    fn get(&self, name: &str) -> Option<Arc<Flat>> {
        self.known.get(name).cloned()
    }

    fn put(&mut self, name: String, flat: Arc<Flat>) {
        self.remove(&name);
        let members = flat.members.len();
        if members > Self::MOST_MEMBERS {
            return;
        }
        while self.members + members > Self::MOST_MEMBERS || self.known.len() >= Self::MOST_GROUPS {
            let Some(oldest) = self.order.front().cloned() else { break };
            self.remove(&oldest);
        }
        self.members += members;
        self.order.push_back(name.clone());
        self.known.insert(name, flat);
    }

    fn remove(&mut self, name: &str) {
        if let Some(flat) = self.known.remove(name) {
            self.members -= flat.members.len();
            self.order.retain(|known| known != name);
        }
    }
}

/// The outputs of all, in their order; at most so many are under way at a time.
async fn together<F: Future + Unpin>(futures: Vec<F>, most: usize) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    let mut waiting = futures.into_iter().enumerate();
    let mut running: Vec<(usize, F)> = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            running.extend(waiting.by_ref().take(most - running.len()));
            let before = running.len();
            running.retain_mut(|(at, future)| match Pin::new(future).poll(cx) {
                Poll::Ready(output) => {
                    outputs[*at] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && waiting.len() == 0 {
                return Poll::Ready(());
            }
            if running.len() == before || waiting.len() == 0 {
                return Poll::Pending;
            }
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

enum Step {
    Entry(String),
    External { anchor: String, above: Vec<String> },
    EntryRef { reference: String, above: Vec<String> },
}

/// Requests of each originator in the running minute. Bounded: a full table forgets everybody with their minute over,
/// and refuses newcomers if that frees nothing.
#[derive(Default)]
struct Budget {
    spent: HashMap<Arc<str>, (Instant, usize)>,
}

impl Budget {
    const MINUTE: Duration = Duration::from_secs(60);
    const MOST: usize = 100_000;

    fn spend(&mut self, who: &Arc<str>, requests: usize, most: usize, now: Instant) -> bool {
        if self.spent.len() >= Self::MOST && !self.spent.contains_key(who) {
            self.spent.retain(|_, (since, _)| now.duration_since(*since) < Self::MINUTE);
            if self.spent.len() >= Self::MOST {
                return false;
            }
        }
        let (since, spent) = self.spent.entry(who.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= Self::MINUTE {
            (*since, *spent) = (now, 0);
        }
        if *spent + requests > most {
            return false;
        }
        *spent += requests;
        true
    }
}
