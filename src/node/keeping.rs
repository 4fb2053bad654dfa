//! Pages that outlive the process: what is written of them, and how they come back.
//!
//! Start at [`Keeping::keep`]. A page that was acknowledged has one row of `Page` (what the engine and the SIP side need, and
//! a small body), rows of `Chunk` (a large body), and a row of `Run` for the node that serves it: the legs that are open.
//! A leg that waits for its recipient has a row of `Wait`, by user and time of acceptance, and one of `Held`, by page. When no
//! `Run` and no `Held` is left of a page, its rows go. [`Parcel`] is how a page stands in its row.
//!
//! A recipient who is back is served by [`serve`], one page after the other in the order they were accepted; each leg is
//! claimed from the store first, so that no two nodes serve it. Follows IM-092, IM-097.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::shard::ToShard;
use super::watch::{Clock, wall_clock};
use crate::engine::ids::{LegId, PageId};
use crate::engine::record::Record;
use crate::msrp::Body;
use crate::ops::metrics::Metrics;
use crate::store::{Batch, Change, Condition, Kept, Row, Store, Sweep, Table, Unwritten};

/// Octets of a body that stand in the page's own row.
const IN_ROW: u64 = 64 << 10;
/// Octets of one row of a larger body.
const CHUNK: usize = 256 << 10;
/// How often it is looked for pages whose time is over.
const SWEEP: Duration = Duration::from_secs(10);
/// Rows asked for in one go.
const ROWS: usize = 64;
/// A store that is down is asked again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// What one thread keeps of its pages.
pub struct Keeping {
    store: Arc<Store>,
    /// What the time of day was when we began: it runs on from there, whatever is done to the system's clock.
    pub clock: Clock,
    node: Arc<str>,
    metrics: Arc<Metrics>,
    own: mpsc::UnboundedSender<ToShard>,
    all: Vec<mpsc::UnboundedSender<ToShard>>,
    /// `deferred.max_per_user`
    pub max_per_user: u32,
    pages: HashMap<PageId, Active>,
    /// Pages whose open legs changed since they were written.
    changed: BTreeSet<PageId>,
    /// Users who are being served, and those who came back once more meanwhile.
    serving: HashSet<Arc<str>>,
    again: HashSet<Arc<str>>,
    /// Users whose legs are on their way into the store: how many, and whether the user came back meanwhile.
    deferring: HashMap<Arc<str>, (u32, bool)>,
    /// Pages whose octets are on their way, with the legs to serve then.
    filling: HashMap<PageId, Vec<u16>>,
}

/// A page that is kept and served here.
struct Active {
    open: BTreeSet<u16>,
    /// Milliseconds since 1970: when it was accepted, and when nobody shall be tried any more.
    since: u64,
    until: u64,
    /// Who waits for the end of a leg.
    ends: HashMap<u16, oneshot::Sender<End>>,
    /// Its `Page` row is on its way into the store, or there.
    kept: bool,
    /// It could not be read the last time: its open legs are served by nobody.
    stuck: bool,
}

/// How serving a leg that waited ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The recipient has the page, or never will.
    Settled,
    /// The recipient is still not there.
    Waits,
    /// Somebody else serves it.
    Taken,
}

/// A leg that waits, to be served by the thread its page belongs to.
pub struct Claim {
    pub leg: LegId,
    key: Arc<str>,
    since: u64,
    until: u64,
    done: oneshot::Sender<End>,
}

/// What a page needs to go on.
pub struct Loaded {
    pub page: PageId,
    pub parcel: Parcel,
    pub open: Vec<u16>,
    /// Milliseconds since 1970.
    pub since: u64,
    pub until: u64,
}

impl Keeping {
    /// For one thread of the node of this name.
    pub fn new(
        store: Arc<Store>,
        (node, metrics): (Arc<str>, Arc<Metrics>),
        own: mpsc::UnboundedSender<ToShard>,
        all: Vec<mpsc::UnboundedSender<ToShard>>,
        max_per_user: u32,
    ) -> Self {
        Self {
            store,
            clock: Clock { now: super::shard::now(), time: wall_clock() },
            node,
            metrics,
            own,
            all,
            max_per_user,
            pages: HashMap::new(),
            changed: BTreeSet::new(),
            serving: HashSet::new(),
            again: HashSet::new(),
            deferring: HashMap::new(),
            filling: HashMap::new(),
        }
    }

    // ---- pages of ours --------------------------------------------------------------------------------------------

    /// Has a page written down, in one piece. The answer comes as [`ToShard::Stored`].
    pub fn keep(
        &mut self,
        now: Instant,
        (record, keepsake): (Record, Bytes),
        body: Option<Body>,
        open: Vec<u16>,
        until: Instant,
    ) {
        let page = record.arrival.page;
        let (since, until) = (self.clock.millis(now), self.clock.millis(until));
        let active = Active {
            open: open.into_iter().collect(),
            since,
            until,
            ends: HashMap::new(),
            kept: false,
            stuck: false,
        };
        let run = self.run_row(page, &active);
        self.pages.insert(page, active);
        let (store, own) = (Arc::clone(&self.store), self.own.clone());
        let large = body.as_ref().is_some_and(|body| body.size() > IN_ROW);
        let write = move || {
            let told = own.clone();
            match page_rows(page, &record, &keepsake, body.as_ref(), since, until) {
                Ok(mut changes) => {
                    changes.push(run);
                    let batch = Batch { changes, unwritten: Unwritten::Drop, ..Batch::default() };
                    store.write(batch, move |kept| {
                        // Without a receiver the thread is gone and nobody waits.
                        let _ = told.send(ToShard::Stored { page, kept: kept == Kept::Yes });
                    });
                }
                Err(error) => {
                    tracing::error!(%page, %error, "the page's octets cannot be read to be kept");
                    let _ = told.send(ToShard::Stored { page, kept: false });
                }
            }
        };
        match large {
            true => drop(tokio::task::spawn_blocking(write)),
            false => write(),
        }
    }

    /// The store's answer for a page of ours.
    pub fn stored(&mut self, page: PageId, kept: bool) {
        if kept {
            if let Some(active) = self.pages.get_mut(&page) {
                active.kept = true;
            }
        } else {
            self.pages.remove(&page);
        }
    }

    /// A leg has had its end.
    pub fn settled(&mut self, leg: LegId) {
        let Some(active) = self.pages.get_mut(&leg.page) else { return };
        if active.open.remove(&leg.n) {
            self.changed.insert(leg.page);
        }
        if let Some(done) = active.ends.remove(&leg.n) {
            // Nobody has to wait for it.
            let _ = done.send(End::Settled);
        }
    }

    /// A leg waits from now on. [`ToShard::Deferred`] says so, or that the user has too many.
    pub fn defer(&mut self, leg: LegId, user: &Arc<str>, until: Instant) {
        let Some(active) = self.pages.get_mut(&leg.page) else { return };
        active.open.remove(&leg.n);
        if let Some(done) = active.ends.remove(&leg.n) {
            let _ = done.send(End::Waits);
        }
        let (since, until) = (active.since, self.clock.millis(until));
        let key: Arc<str> = format!("{user} {since:016x} {leg}").into();
        let wait = Row { key: Arc::clone(&key), since, until, value: Bytes::new() };
        let at: Arc<str> = leg.to_string().into();
        let value = Bytes::copy_from_slice(key.as_bytes());
        let held = Row { key: Arc::clone(&at), since, until, value };
        let changes = vec![
            Change { table: Table::Wait, key, row: Some(wait) },
            Change { table: Table::Held, key: at, row: Some(held) },
        ];
        let conditions =
            vec![Condition::Fewer(Table::Wait, format!("{user} ").into(), self.max_per_user)];
        let batch = Batch { changes, conditions, unwritten: Unwritten::Retry, ..Batch::default() };
        self.deferring.entry(Arc::clone(user)).or_default().0 += 1;
        let (own, user) = (self.own.clone(), Arc::clone(user));
        self.store.write(batch, move |kept| {
            let _ = own.send(ToShard::Deferred { leg, user, waits: kept != Kept::Unmet });
        });
        self.count();
        self.changed.insert(leg.page);
    }

    /// A leg waits now. Whoever came back before it did is served all the same.
    pub fn deferred(&mut self, user: &Arc<str>) {
        let Some((left, back)) = self.deferring.get_mut(user) else { return };
        *left -= 1;
        if *left == 0 {
            let back = *back;
            self.deferring.remove(user);
            for shard in self.all.iter().filter(|_| back) {
                let _ = shard.send(ToShard::Waits(Arc::clone(user)));
            }
        }
    }

    /// A user is back: legs on their way into the store have to be looked for once they are there.
    pub fn is_back(&mut self, user: &Arc<str>) {
        if let Some((_, back)) = self.deferring.get_mut(user) {
            *back = true;
        }
    }

    /// Tells operators how many legs wait, as of what is written now.
    fn count(&self) {
        let metrics = Arc::clone(&self.metrics);
        self.store.count(Table::Wait, move |count| {
            if let Ok(count) = count {
                metrics.deferred_messages.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        });
    }

    /// The engine knows the page no more.
    pub fn forget(&mut self, page: PageId) {
        // A leg that was claimed meanwhile goes on by itself.
        if self.pages.get(&page).is_none_or(|active| !active.open.is_empty()) {
            return;
        }
        self.changed.remove(&page);
        if self.pages.remove(&page).is_some_and(|active| active.kept) {
            self.sweep(page);
        }
    }

    /// The page was dropped: it is tried again after a restart. Its open legs stay known, so that no other leg of it is
    /// written down in their place.
    pub fn lost(&mut self, page: PageId) {
        if let Some(active) = self.pages.get_mut(&page) {
            active.ends.clear();
        }
    }

    /// Takes our row of the page away, and with it the page if nobody is open for it.
    fn sweep(&self, page: PageId) {
        let text: Arc<str> = page.to_string().into();
        let run = Change { table: Table::Run, key: self.run_key(page), row: None };
        let rows = [Table::Page, Table::Chunk].map(|table| (table, Arc::clone(&text)));
        let unless = [Table::Run, Table::Held].map(|table| (table, Arc::clone(&text)));
        let sweep = Sweep { unless: unless.to_vec(), rows: rows.to_vec() };
        let batch = Batch {
            changes: vec![run],
            sweeps: vec![sweep],
            unwritten: Unwritten::Retry,
            ..Batch::default()
        };
        self.store.write(batch, |_| {});
    }

    /// Writes which legs are open, once a turn.
    pub fn flush(&mut self) {
        for page in std::mem::take(&mut self.changed) {
            let Some(active) = self.pages.get(&page) else { continue };
            let batch = Batch {
                changes: vec![self.run_row(page, active)],
                unwritten: Unwritten::Retry,
                ..Batch::default()
            };
            self.store.write(batch, |_| {});
        }
    }

    fn run_key(&self, page: PageId) -> Arc<str> {
        format!("{page}/{}", self.node).into()
    }

    /// The legs of a page this node serves.
    fn run_row(&self, page: PageId, active: &Active) -> Change {
        let mut open = String::new();
        for n in &active.open {
            let _ = write!(open, "{n} ");
        }
        let key = self.run_key(page);
        let (since, until) = (active.since, active.until);
        let row = Row { key: Arc::clone(&key), since, until, value: open.into() };
        Change { table: Table::Run, key, row: Some(row) }
    }

    // ---- pages that come back -------------------------------------------------------------------------------------

    /// A user can be reached now: what waits is served, by the one thread that serves this user.
    pub fn reachable(&mut self, user: &Arc<str>) {
        if !self.serving.insert(Arc::clone(user)) {
            self.again.insert(Arc::clone(user));
            return;
        }
        let (store, all, own) = (Arc::clone(&self.store), self.all.clone(), self.own.clone());
        let user = Arc::clone(user);
        tokio::spawn(async move {
            serve(&store, &all, &user).await;
            let _ = own.send(ToShard::Served(user));
        });
    }

    /// Everything that waited for the user has been tried.
    pub fn served(&mut self, user: &Arc<str>) {
        self.serving.remove(user);
        if self.again.remove(user) {
            self.reachable(user);
        }
    }

    /// Takes a leg that waits for this node; [`ToShard::Claimed`] says whether it got it.
    pub fn claim(&mut self, claim: Claim) {
        let LegId { page, n } = claim.leg;
        let (since, until) = (claim.since, claim.until);
        let active = self.pages.entry(page).or_insert_with(|| Active {
            open: BTreeSet::new(),
            since,
            until,
            ends: HashMap::new(),
            kept: true,
            stuck: false,
        });
        if !active.open.insert(n) {
            // It is on its way: it cannot wait as well.
            let _ = claim.done.send(End::Taken);
            return;
        }
        active.ends.insert(n, claim.done);
        let key = claim.key;
        let gone = |table, key: Arc<str>| Change { table, key, row: None };
        let run = match self.pages.get(&page) {
            Some(active) => self.run_row(page, active),
            None => return,
        };
        let changes = vec![
            gone(Table::Wait, Arc::clone(&key)),
            gone(Table::Held, claim.leg.to_string().into()),
            run,
        ];
        let conditions = vec![Condition::Present(Table::Wait, key)];
        let batch = Batch { changes, conditions, unwritten: Unwritten::Drop, ..Batch::default() };
        let (own, leg) = (self.own.clone(), claim.leg);
        self.store.write(batch, move |kept| {
            let _ = own.send(ToShard::Claimed { leg, kept });
        });
    }

    /// The store's answer to a claim.
    pub fn claimed(&mut self, leg: LegId, kept: Kept) {
        let Some(active) = self.pages.get_mut(&leg.page) else { return };
        if kept == Kept::Yes {
            let open = match std::mem::take(&mut active.stuck) {
                true => active.open.iter().copied().collect(),
                false => vec![leg.n],
            };
            let times = (active.since, active.until);
            self.load(leg.page, open, times, None);
            self.count();
            return;
        }
        active.open.remove(&leg.n);
        if let Some(done) = active.ends.remove(&leg.n) {
            let _ = done.send(if kept == Kept::Unmet { End::Taken } else { End::Waits });
        }
        if active.open.is_empty() && active.ends.is_empty() {
            self.pages.remove(&leg.page);
        }
    }

    /// A page this node was serving when it ended goes on.
    pub fn resume(&mut self, resume: Resume) {
        let Resume { page, open, since, until, done } = resume;
        let active = Active {
            open: open.iter().copied().collect(),
            since,
            until,
            ends: HashMap::new(),
            kept: true,
            stuck: false,
        };
        if open.is_empty() {
            self.sweep(page);
            let _ = done.send(());
        } else if let Entry::Vacant(place) = self.pages.entry(page) {
            place.insert(active);
            self.load(page, open, (since, until), Some(done));
        }
    }

    /// Reads a page from the store; it comes as [`ToShard::Loaded`].
    fn load(
        &self,
        page: PageId,
        open: Vec<u16>,
        (since, until): (u64, u64),
        done: Option<oneshot::Sender<()>>,
    ) {
        let (store, own) = (Arc::clone(&self.store), self.own.clone());
        tokio::spawn(async move {
            match load(&store, page).await {
                Ok(parcel) => {
                    let loaded = Box::new(Loaded { page, parcel, open, since, until });
                    let _ = own.send(ToShard::Loaded(loaded));
                }
                Err(error) => {
                    tracing::error!(%page, %error, "a kept page cannot be read");
                    let _ = own.send(ToShard::Unreadable(page));
                }
            }
            if let Some(done) = done {
                let _ = done.send(());
            }
        });
    }

    /// A page that cannot be read, or finds no room, is tried again with its next leg, or after a restart. Its open legs
    /// stay known, as in [`Keeping::lost`].
    pub fn unreadable(&mut self, page: PageId) {
        if let Some(active) = self.pages.get_mut(&page) {
            active.stuck = true;
            for (_, done) in active.ends.drain() {
                let _ = done.send(End::Waits);
            }
        }
    }

    /// Whether the page's octets are on their way already: then these legs are served with them.
    pub fn is_filling(&mut self, page: PageId, open: &[u16]) -> bool {
        match self.filling.get_mut(&page) {
            Some(legs) => {
                legs.extend(open);
                true
            }
            None => {
                self.filling.insert(page, open.to_vec());
                false
            }
        }
    }

    /// The octets are here, or cannot be had: the legs that wait for them.
    pub fn filled(&mut self, page: PageId) -> Vec<u16> {
        self.filling.remove(&page).unwrap_or_default()
    }

    /// Starts what one thread of the node does for all: the pages of before go on, and those whose time is over end.
    pub fn look_after_all(&self) {
        let (store, all, node) = (Arc::clone(&self.store), self.all.clone(), self.node.clone());
        let (own, clock) = (self.own.clone(), self.clock);
        self.count();
        tokio::spawn(async move {
            recover(&store, &all, &node).await;
            loop {
                tokio::time::sleep(SWEEP).await;
                expire(&store, &all, clock.millis(super::shard::now())).await;
                if own.is_closed() {
                    return;
                }
            }
        });
    }
}

/// A page this node was serving when it ended.
pub struct Resume {
    page: PageId,
    open: Vec<u16>,
    since: u64,
    until: u64,
    done: oneshot::Sender<()>,
}

/// The thread a page belongs to; pages come from nodes with more threads, too.
pub fn shard_of(
    all: &[mpsc::UnboundedSender<ToShard>],
    page: PageId,
) -> Option<&mpsc::UnboundedSender<ToShard>> {
    all.get(usize::from(page.thread()) % all.len().max(1))
}

/// Serves what waits for a user, one page after the other, until there is no more or the user is not there.
async fn serve(store: &Store, all: &[mpsc::UnboundedSender<ToShard>], user: &str) {
    let mut after: Option<Arc<str>> = None;
    let prefix = format!("{user} ");
    while let Ok(rows) = range(store, Table::Wait, &prefix, after.as_deref(), 1).await {
        let Some(row) = rows.into_iter().next() else { return };
        let key = Arc::clone(&row.key);
        match one(all, row).await {
            Some(End::Settled) => {}
            Some(End::Taken) => after = Some(key),
            Some(End::Waits) | None => return,
        }
    }
}

/// Ends what waited too long.
async fn expire(store: &Store, all: &[mpsc::UnboundedSender<ToShard>], now: u64) {
    let (tell, told) = oneshot::channel();
    store.lapsed(Table::Wait, now, ROWS, move |rows| {
        let _ = tell.send(rows);
    });
    let Ok(Ok(rows)) = told.await else { return };
    for row in rows {
        one(all, row).await;
    }
}

/// One leg that waits, to its end.
async fn one(all: &[mpsc::UnboundedSender<ToShard>], row: Row) -> Option<End> {
    let leg = leg_of(&row.key)?;
    let (done, ended) = oneshot::channel();
    let claim = Claim { leg, key: row.key, since: row.since, until: row.until, done };
    shard_of(all, leg.page)?.send(ToShard::Claim(Box::new(claim))).ok()?;
    ended.await.ok()
}

/// The leg in the key of a row of `Wait`.
fn leg_of(key: &str) -> Option<LegId> {
    let (page, n) = key.rsplit_once(' ')?.1.split_once('/')?;
    Some(LegId { page: page.parse().ok()?, n: n.parse().ok()? })
}

/// Goes on with what this node was serving when it ended, page after page.
async fn recover(store: &Store, all: &[mpsc::UnboundedSender<ToShard>], node: &str) {
    let mut after: Option<Arc<str>> = None;
    let mut resumed = 0_u64;
    loop {
        let rows = match range(store, Table::Run, "", after.as_deref(), ROWS).await {
            Ok(rows) => rows,
            Err(_) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(last) = rows.last().map(|row| Arc::clone(&row.key)) else { break };
        after = Some(last);
        for row in rows {
            let Some((page, of)) = row.key.split_once('/') else { continue };
            let (Ok(page), true) = (page.parse::<PageId>(), of == node) else { continue };
            let text = String::from_utf8_lossy(&row.value);
            let open = text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            let (done, ready) = oneshot::channel();
            let resume = Resume { page, open, since: row.since, until: row.until, done };
            let sent = shard_of(all, page)
                .is_some_and(|shard| shard.send(ToShard::Resume(Box::new(resume))).is_ok());
            if sent {
                resumed += 1;
                // One that is being served already says nothing.
                let _ = ready.await;
            }
        }
    }
    if resumed > 0 {
        tracing::info!(pages = resumed, "pages taken back");
    }
}

async fn range(
    store: &Store,
    table: Table,
    prefix: &str,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<Row>, io::Error> {
    let (tell, told) = oneshot::channel();
    store.range(table, prefix, after, most, move |rows| {
        let _ = tell.send(rows);
    });
    let rows = told.await.map_err(|_| io::Error::other("the store has ended"))?;
    rows.map_err(|_| io::Error::other("the store is down"))
}

/// Reads a page with its whole body.
async fn load(store: &Store, page: PageId) -> Result<Parcel, io::Error> {
    let text = page.to_string();
    let mut rows = range(store, Table::Page, &text, None, 1).await?;
    let row = rows.pop().ok_or_else(|| io::Error::other("it is not there"))?;
    let mut parcel = Parcel::read(&row.value)?;
    let mut after: Option<Arc<str>> = None;
    loop {
        let rows = range(store, Table::Chunk, &text, after.as_deref(), ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = Some(Arc::clone(&last.key));
        parcel.body.extend(rows.into_iter().map(|row| row.value));
    }
    let octets: u64 = parcel.body.iter().map(|piece| piece.len() as u64).sum();
    if parcel.content.is_some() && octets != parcel.record.size {
        return Err(io::Error::other("its body is not whole"));
    }
    Ok(parcel)
}

/// The rows of a page and its body.
fn page_rows(
    page: PageId,
    record: &Record,
    keepsake: &[u8],
    body: Option<&Body>,
    since: u64,
    until: u64,
) -> io::Result<Vec<Change>> {
    let key: Arc<str> = page.to_string().into();
    let content = body.map(|body| {
        let inner = body.about.inner.as_ref().map(ToString::to_string);
        (body.about.content_type.to_string(), inner)
    });
    let pieces = body.map_or_else(|| Ok(Vec::new()), |body| body.read(CHUNK))?;
    let in_row = pieces.len() == 1 && pieces[0].len() as u64 <= IN_ROW;
    let small = pieces.first().filter(|_| in_row).cloned().unwrap_or_default();
    let value = Parcel::write(record, content.as_ref(), keepsake, &small)?;
    let row = |key: Arc<str>, value| Some(Row { key, since, until, value });
    let first = Change { table: Table::Page, row: row(Arc::clone(&key), value), key };
    let mut changes = vec![first];
    for (number, piece) in pieces.into_iter().enumerate().filter(|_| !in_row) {
        let key: Arc<str> = format!("{page}/{number:08}").into();
        changes.push(Change { table: Table::Chunk, row: row(Arc::clone(&key), piece), key });
    }
    Ok(changes)
}

/// A page as its row holds it.
#[derive(Debug)]
pub struct Parcel {
    pub record: Record,
    /// The content type of a large page's body, and the type inside an envelope.
    pub content: Option<(String, Option<String>)>,
    /// What the SIP side needs.
    pub keepsake: Bytes,
    /// The body of a large page, in order.
    pub body: Vec<Bytes>,
}

/// What stands first in a page's row.
const FORMAT: u8 = 1;

impl Parcel {
    fn write(
        record: &Record,
        content: Option<&(String, Option<String>)>,
        keepsake: &[u8],
        small: &[u8],
    ) -> io::Result<Bytes> {
        let head = serde_json::to_vec(&(record, content))?;
        let mut out = BytesMut::with_capacity(9 + head.len() + keepsake.len() + small.len());
        out.put_u8(FORMAT);
        for part in [head.as_slice(), keepsake] {
            let len = u32::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            out.put_u32(len);
            out.put_slice(part);
        }
        out.put_slice(small);
        Ok(out.freeze())
    }

    /// # Errors
    /// The octets are none this version wrote.
    fn read(octets: &Bytes) -> io::Result<Self> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let mut rest = octets.clone();
        if rest.is_empty() || rest.split_to(1)[0] != FORMAT {
            return Err(io::Error::other("it is of another format"));
        }
        let mut part = || {
            let len: [u8; 4] = rest.get(..4).and_then(|len| len.try_into().ok()).ok_or_else(cut)?;
            let len = u32::from_be_bytes(len) as usize;
            let all = rest.split_off(4);
            if all.len() < len {
                return Err(cut());
            }
            rest = all;
            Ok(rest.split_to(len))
        };
        let (head, keepsake) = (part()?, part()?);
        let (record, content) = serde_json::from_slice(&head)?;
        let body = if rest.is_empty() { Vec::new() } else { vec![rest] };
        Ok(Self { record, content, keepsake, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(keeping: &mut Keeping, leg: LegId) {
        let key: Arc<str> = format!("sip:user{}@ims.test 0000000000000001 {leg}", leg.n).into();
        let row = Row { key: Arc::clone(&key), since: 1, until: 2, value: Bytes::new() };
        let wait = Change { table: Table::Wait, key: Arc::clone(&key), row: Some(row) };
        keeping.store.write(Batch { changes: vec![wait], ..Batch::default() }, |_| {});
        let (done, _) = oneshot::channel();
        keeping.claim(Claim { leg, key, since: 1, until: 2, done });
    }

    /// Of a page that could not be read, or was dropped, no open leg is forgotten for another one of it.
    #[tokio::test]
    async fn the_legs_of_a_page_that_is_stuck_stay_open() {
        let (own, mut inbox) = mpsc::unbounded_channel();
        let store = Arc::new(Store::memory());
        let who = ("as1".into(), Arc::new(Metrics::new()));
        let mut keeping = Keeping::new(Arc::clone(&store), who, own.clone(), vec![own], 9);
        let page = PageId::new(0, 7);
        claim(&mut keeping, LegId { page, n: 1 });
        keeping.claimed(LegId { page, n: 1 }, Kept::Yes);
        // There is no such page in the store.
        while !matches!(inbox.recv().await, Some(ToShard::Unreadable(_))) {}
        keeping.unreadable(page);
        claim(&mut keeping, LegId { page, n: 2 });
        keeping.lost(page);
        claim(&mut keeping, LegId { page, n: 3 });
        let runs = range(&store, Table::Run, "", None, 9).await.expect("memory can be read");
        let open: Vec<_> = runs.iter().map(|row| (&*row.key, &row.value[..])).collect();
        assert_eq!(open, [("0000000000000007/as1", &b"1 2 3 "[..])]);
        keeping.claimed(LegId { page, n: 3 }, Kept::Yes);
        assert!(!keeping.pages[&page].stuck, "all of it is tried again");
    }

    #[test]
    fn a_parcel_that_is_cut_is_refused_and_panics_nobody() {
        for octets in
            [&b""[..], b"\x02", b"\x01\0\0\0", b"\x01\0\0\0\x09{}", b"\x01\xff\xff\xff\xff"]
        {
            assert!(Parcel::read(&Bytes::from_static(octets)).is_err(), "{octets:?}");
        }
    }
}
