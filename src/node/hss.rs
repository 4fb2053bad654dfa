//! What the HSS adds to a page: other names of its originator and recipients, S-CSCF, charging functions, who is away.
//!
//! Start at [`Directory::originator`] and [`Directory::members`], asked while recipients are found out. Without an HSS, or
//! when it takes too long, everything goes on without (section 11.1 of the rules, ISC-059): both together last at most
//! [`PATIENCE`]. Also holds the ends of the client: what it has kept, counted and told.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::shard;
use super::watch::{Clock, Watch, wall_clock};
use crate::engine::ids::PageId;
use crate::engine::party::{Audience, Party, Removal};
use crate::isc::{Behalf, Learnt, Unknown};
use crate::ops::{Neighbour, NeighbourState};
use crate::sh::client::{
    self, Answer, Client, House, Hss, Kept, Moment, PATIENCE, Subject, not_yet,
};
use crate::sh::codec::Message;
use crate::sh::router::{Inbound, Router};
use crate::sh::userdata::UserState;
use crate::sip::uri::Uri;
use crate::store::{Row, Store, Table};

/// Recipients that are asked about at a time.
const AT_A_TIME: usize = 32;

/// What is found out about whoever sends a page.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Other names it goes by, as URIs.
    pub names: Vec<String>,
    /// Those that are sure enough to say whose an identity is (SH-051).
    pub own: Vec<String>,
    pub learnt: Learnt,
}

/// Asks the HSS where there is one.
pub struct Directory {
    client: Option<Arc<Client>>,
    /// `im.check_registration`
    check_registration: AtomicBool,
    /// Domains whose users the HSS knows; empty: any.
    home_domains: Vec<String>,
    watch: Arc<Watch>,
}

impl Directory {
    pub fn new(
        client: Option<Arc<Client>>,
        check_registration: bool,
        home_domains: Vec<String>,
        watch: Arc<Watch>,
    ) -> Self {
        let check_registration = AtomicBool::new(check_registration);
        Self { client, check_registration, home_domains, watch }
    }

    /// The client, where Sh is on.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// Another value of `im.check_registration`.
    pub fn set_check_registration(&self, on: bool) {
        self.check_registration.store(on, Ordering::Relaxed);
    }

    /// What is to be known of the originator before anybody is invited.
    pub async fn originator(&self, page: PageId, identities: &[Party], unknown: Unknown) -> Found {
        let Some(client) = &self.client else { return Found::default() };
        let user = identities.iter().find_map(|party| self.user(&party.uri));
        let names = async {
            let Some(user) = &user else { return (Vec::new(), Vec::new()) };
            // One question, however it is used: what is old is enough to leave a name out.
            let (sure, any) = tokio::join!(client.names(user, true), client.names(user, false));
            self.shown(page, "IMSPublicIdentity", &sure);
            (any.data().unwrap_or_default(), sure.data().unwrap_or_default())
        };
        let scscf = async {
            let subject = unknown.scscf_of.as_ref().and_then(subject)?;
            let answer = client.serving_cscf(&subject).await;
            self.shown(page, "S-CSCFName", &answer);
            answer.data().map(|name| name.to_string())
        };
        let charging = async {
            let subject = unknown.charging_of.as_ref().and_then(subject)?;
            let answer = client.charging(&subject).await;
            self.shown(page, "ChargingInformation", &answer);
            answer.data()
        };
        let ((names, own), scscf, charging) = tokio::join!(names, scscf, charging);
        let mut learnt = Learnt { scscf, ..Learnt::default() };
        if let Some(charging) = charging {
            let of = |names: [&Option<String>; 2]| names.into_iter().flatten().cloned().collect();
            learnt.collection = of([&charging.primary_collection, &charging.secondary_collection]);
            learnt.event = of([&charging.primary_event, &charging.secondary_event]);
        }
        Found { names, own, learnt }
    }

    /// Takes out of an audience who is there twice under two names and, with `im.check_registration`, who is away; what is
    /// not known by `deadline` changes nothing. `is_group`: they will be asked about again.
    pub async fn members(
        &self,
        audience: &mut Audience,
        originator: &Found,
        is_group: bool,
        key_of: impl Fn(&str) -> String,
        deadline: Instant,
    ) {
        let Some(client) = &self.client else { return };
        let check = self.check_registration.load(Ordering::Relaxed);
        let several = audience.recipients.len() > 1;
        if !several && !check {
            return;
        }
        let told: Mutex<HashMap<usize, (Vec<String>, bool)>> = Mutex::default();
        let gate = Semaphore::new(AT_A_TIME);
        let questions = audience.recipients.iter().enumerate().filter_map(|(n, recipient)| {
            let user = self.user(&recipient.party.uri)?;
            let (told, gate) = (&told, &gate);
            let question: Pin<Box<dyn Future<Output = ()> + Send + '_>> = Box::pin(async move {
                let Ok(_turn) = gate.acquire().await else { return };
                let names =
                    async { if several { client.names(&user, false).await.data() } else { None } };
                let away = async {
                    let asked = check.then(|| client.state(&user, is_group));
                    match asked {
                        Some(asked) => asked.await == Answer::Data(UserState::NotRegistered),
                        None => false,
                    }
                };
                let (names, away) = tokio::join!(names, away);
                let known = (names.unwrap_or_default(), away);
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(n, known);
            });
            Some(question)
        });
        let all = all(questions.collect());
        if tokio::time::timeout_at(deadline, all).await.is_err() {
            tracing::info!(rule = "ISC-059", "the HSS has not told everything in time");
        }
        let mut told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut seen: HashSet<String> = HashSet::new();
        let own: HashSet<String> = originator.names.iter().map(|name| key_of(name)).collect();
        let mut kept = Vec::with_capacity(audience.recipients.len());
        for (n, recipient) in std::mem::take(&mut audience.recipients).into_iter().enumerate() {
            let (names, away) = told.remove(&n).unwrap_or_default();
            let mut keys: Vec<String> = names.iter().map(|name| key_of(name)).collect();
            keys.push(recipient.party.key.to_string());
            // UL-010, UL-013: by every name.
            let why = if keys.iter().any(|key| own.contains(key)) {
                Some(Removal::Originator)
            } else if keys.iter().any(|key| seen.contains(key)) {
                Some(Removal::Duplicate)
            } else if away {
                Some(Removal::Away)
            } else {
                None
            };
            match why {
                Some(why) => {
                    tracing::info!(?why, "an entry is not invited");
                    audience.removed.push((recipient.party, why));
                }
                None => {
                    seen.extend(keys);
                    kept.push(recipient);
                }
            }
        }
        audience.recipients = kept;
    }

    /// A user the HSS may know.
    fn user(&self, uri: &str) -> Option<Subject> {
        let parsed = Uri::parse(uri).ok()?;
        let home =
            |host: &str| self.home_domains.iter().any(|home| home.eq_ignore_ascii_case(host));
        let ours = self.home_domains.is_empty() || !parsed.is_sip() || home(parsed.host());
        Subject::user(uri).filter(|_| ours)
    }

    /// SH-056: the call flow says what was asked and what kind of answer came, and nothing else.
    fn shown<T>(&self, page: PageId, what: &'static str, answer: &Answer<T>) {
        let answer = match answer {
            Answer::Data(_) => "data",
            Answer::Absent => "absent",
            Answer::Unavailable => "unavailable",
        };
        self.watch.asked_hss(page, what, answer);
    }
}

fn subject(behalf: &Behalf) -> Option<Subject> {
    if behalf.is_service { Subject::service(&behalf.uri) } else { Subject::user(&behalf.uri) }
}

/// Runs all of them to their end, each in its turn.
async fn all(mut jobs: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>>) {
    std::future::poll_fn(|cx| {
        jobs.retain_mut(|job| job.as_mut().poll(cx).is_pending());
        if jobs.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What the client has of the node.
pub struct Ends {
    pub store: Arc<Store>,
    pub watch: Arc<Watch>,
}

/// A subscription without an end is looked at again at every start; its row does not grow old.
const FOR_EVER: u64 = i64::MAX as u64;

impl House for Ends {
    fn moment(&self) -> Moment {
        let clock = Clock { now: shard::now(), time: wall_clock() };
        Moment { now: clock.now, unix_ms: clock.millis(clock.now) }
    }

    fn keep(&self, key: String, kept: Option<Kept>) {
        let since = self.moment().unix_ms;
        let key: Arc<str> = key.into();
        let row = kept.and_then(|kept| {
            let until = kept.expires.unwrap_or(FOR_EVER);
            match serde_json::to_vec(&kept) {
                Ok(value) => {
                    Some(Row { key: Arc::clone(&key), since, until, value: Bytes::from(value) })
                }
                Err(error) => {
                    tracing::error!(%error, "a subscription cannot be written");
                    None
                }
            }
        });
        self.store.put(Table::ShSub, key, row, None);
    }

    fn answered(&self, command: &'static str, result: &'static str) {
        self.watch.metrics.sh_request(command, result);
    }
}

/// Hears what the HSS says by itself, from the moment there is a client on.
pub struct Ear {
    client: OnceLock<Arc<Client>>,
    /// Our name and realm.
    own: (String, String),
}

impl Ear {
    /// `host` and `realm` are our own.
    pub fn new(host: &str, realm: &str) -> Self {
        Self { client: OnceLock::new(), own: (host.to_owned(), realm.to_owned()) }
    }

    /// From now on this client hears it.
    pub fn open(&self, client: &Arc<Client>) {
        // There is one client to an ear.
        let _ = self.client.set(Arc::clone(client));
    }
}

impl Inbound for Ear {
    fn notified(&self, request: &Message) -> Message {
        match self.client.get() {
            Some(client) => client.notified(request),
            None => not_yet(request, &self.own.0, &self.own.1),
        }
    }

    fn revalidate(&self) {
        if let Some(client) = self.client.get() {
            client.revalidate();
        }
    }
}

/// Sh at work: who asks, who carries it.
pub struct Sh {
    pub client: Arc<Client>,
    pub router: Router,
    /// Looks after subscriptions.
    pub task: AbortHandle,
}

impl Sh {
    /// Puts a client on a router; `rows` are what was subscribed to before.
    pub fn start(
        settings: client::Settings,
        router: Router,
        ear: &Ear,
        ends: Ends,
        salt: u64,
        rows: impl IntoIterator<Item = Row>,
    ) -> Self {
        let asks = Arc::new(router.clone()) as Arc<dyn Hss>;
        let client = Client::new(settings, asks, Box::new(ends), salt);
        ear.open(&client);
        let kept = rows.into_iter().filter_map(|row| {
            serde_json::from_slice::<Kept>(&row.value)
                .inspect_err(
                    |error| tracing::warn!(%error, "a kept subscription cannot be taken back"),
                )
                .ok()
        });
        let restored = client.restore(kept);
        if restored > 0 {
            tracing::info!(subscriptions = restored, rule = "SH-048", "subscriptions taken back");
        }
        let task = tokio::spawn(Arc::clone(&client).run()).abort_handle();
        Self { client, router, task }
    }

    /// How the HSS is.
    pub fn neighbour(&self) -> Neighbour {
        let peers = self.router.status();
        let is = |state: &str| peers.iter().any(|peer| peer.state == state);
        let state = if is("up") {
            NeighbourState::Up
        } else if peers.is_empty() || is("connecting") {
            NeighbourState::Unknown
        } else {
            NeighbourState::Down
        };
        let address: Vec<String> =
            peers.iter().map(|peer| format!("{} ({})", peer.address, peer.state)).collect();
        Neighbour {
            name: "HSS".to_owned(),
            state,
            address: address.join(", "),
            last_error: self.client.last_error(),
        }
    }
}

/// Longest time an originator's names, and then those of its recipients, are waited for.
pub const WAIT: Duration = PATIENCE;
