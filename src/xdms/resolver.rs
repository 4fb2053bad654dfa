//! Who is meant: a request's own list, or the members of a group, and whether the originator may reach them.
//!
//! Start at [`Resolver::resolve`]. Lists follow IM-031, IM-032, IM-035 and the UL rules; groups the procedure of the XDM
//! rules, section 7.1 (IM-004, IM-022, IM-033, XD-023, XD-024, XD-026, XD-036, XD-037). Documents come from a [`Source`];
//! which one is none of this module's business. Sends nothing and asks no DNS.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;

use super::access::{Class, Decision, Requester, Surroundings, decide};
use super::groups::{Grants, ListChild, ListService, Member};
use super::lists::{Sieve, Sifted};
use super::path::{DocumentPath, Resource};
use super::ruleset::{Condition, Rule};
use super::selector;
use super::store::{Document, Store};
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
}

impl Source for Store {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        Box::pin(std::future::ready(Ok(self.get(path))))
    }
}

/// Finds out who gets a page. One for a node, shared by its threads.
pub struct Resolver {
    pub(super) settings: Settings,
    pub(super) source: Arc<dyn Source>,
    /// As configured.
    barred: RwLock<HashSet<String>>,
    /// By operators, since the start.
    shut_out: RwLock<HashSet<String>>,
    budget: Mutex<Budget>,
}

impl Resolver {
    /// A resolver over a source of documents.
    pub fn new(settings: Settings, source: Arc<dyn Source>) -> Self {
        let (barred, shut_out) = (RwLock::default(), RwLock::default());
        Self { settings, source, barred, shut_out, budget: Mutex::new(Budget::default()) }
    }

    /// Replaces the set of those who are not to be reached, by URI (IM-035).
    pub fn set_barred<'a>(&self, uris: impl IntoIterator<Item = &'a str>) {
        let keys = uris.into_iter().map(|uri| self.settings.key_of(uri)).collect();
        *self.barred.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// An operator bars a user, or lets one in again; what is configured stands.
    pub fn bar(&self, uri: &str, barred: bool) {
        let key = self.settings.key_of(uri);
        let mut shut_out = self.shut_out.write().unwrap_or_else(PoisonError::into_inner);
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
        let originator = self.keys_of(&query.identities);
        let audience = match &query.target {
            Target::List(entries) => self.list(entries, &originator)?,
            Target::Group(group) => self.group(group, &query, &originator).await?,
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
        let mut barred = read(&self.barred);
        barred.extend(read(&self.shut_out));
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
        let members =
            self.flatten(&document, service).await.map_err(|why| self.unresolvable(&why))?;
        // 5, 6: may the originator send.
        let member_keys: HashSet<String> = members.iter().map(|uri| settings.key_of(uri)).collect();
        let conditions = service.rules.iter().flatten().flat_map(|rule| &rule.conditions);
        let world = World { external: self.lists_of(conditions).await, members: member_keys, at };
        let identities: Vec<Uri> =
            query.identities.iter().filter_map(|p| Uri::parse(&p.uri).ok()).collect();
        let grants = self.permission(service, &world, &identities, query.anonymous)?;
        if query.anonymous && !grants.anonymity {
            return Err(self.anonymity_refused());
        }
        // 7, 8: who is left, and whether that is too many.
        let barred = self.barred();
        let sieve = self.sieve(originator, &barred, Some(&group_key));
        let Sifted { mut recipients, removed, .. } = sieve.members(&members);
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
        Ok(Audience { recipients, removed, ..Audience::default() })
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
                let keys = match self.walk(walk).await {
                    Ok(uris) => Some(uris.iter().map(|uri| self.settings.key_of(uri)).collect()),
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

    /// XD-023, XD-024: all members in document order, lists elsewhere included.
    async fn flatten(
        &self,
        document: &Document,
        service: &ListService,
    ) -> Result<Vec<String>, Broken> {
        let start = format!("{}/{}", self.settings.root, document.path);
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
        self.walk(walk).await
    }

    /// Depth first, in document order, without recursion.
    async fn walk(&self, mut walk: Walk) -> Result<Vec<String>, Broken> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        while let Some(step) = walk.open.pop() {
            let outcome = match step {
                Step::Entry(uri) => {
                    if seen.insert(self.settings.key_of(&uri)) {
                        found.push(uri);
                    }
                    // One more than is ever allowed is enough to say so.
                    if found.len() > self.settings.max_members + 1 {
                        return Ok(found);
                    }
                    Ok(())
                }
                Step::External { anchor, above } => {
                    self.follow(&anchor, "list", above, &mut walk).await
                }
                Step::EntryRef { reference, above } => {
                    let absolute = format!("{}/{reference}", self.settings.root);
                    self.follow(&absolute, "entry", above, &mut walk).await
                }
            };
            if let Err(why) = outcome {
                if walk.whole || !self.settings.partial_lists {
                    return Err(why);
                }
                tracing::warn!(%why, "a reference in a group was skipped");
            }
        }
        Ok(found)
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
        // XD-024: below our own root it is resolved inside; nothing else is fetched.
        let Some(resource) = anchor
            .split('?') // a query only binds prefixes, and lists need none
            .next()
            .and_then(|anchor| anchor.strip_prefix(&self.settings.root))
            .and_then(|below| Resource::parse(below, "").ok())
        else {
            return fail("a reference outside the XCAP root");
        };
        let name = format!("{}~~{:?}", resource.document, resource.selector);
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
        let Some(document) = self.source.fetch(&resource.document).await? else {
            return fail("a reference to nothing");
        };
        let Some(children) =
            selector::list_at(&document.bytes, resource.selector.as_deref(), wanted)
        else {
            return fail("a reference to something else");
        };
        above.push(name);
        for child in children.into_iter().rev() {
            walk.open.push(match child {
                ListChild::Entry(uri) => Step::Entry(uri),
                ListChild::External(anchor) => Step::External { anchor, above: above.clone() },
                ListChild::EntryRef(reference) => {
                    Step::EntryRef { reference, above: above.clone() }
                }
            });
        }
        Ok(())
    }

    /// UL-033, IM-036: requests of one originator in a minute.
    fn spend(&self, query: &Query, requests: usize) -> Result<(), Refusal> {
        let Some(originator) = query.identities.first() else { return Ok(()) };
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
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
    members: HashSet<String>,
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
