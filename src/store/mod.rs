//! What survives a restart: rows by table and key, written by one thread, many at a time.
//!
//! Start at [`Store::open`] and [`Store::put`]. Whoever puts a row does not wait for the disk: the writer takes everything
//! that has come meanwhile into one transaction and then tells those who asked. A store that cannot be written is tried
//! again every second; what is to be written waits in memory, the last change of each key only, and is bounded. What rows
//! mean is the business of those who put them. `embedded` is one SQLite file; [`Store::memory`] keeps nothing.

mod embedded;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

pub use embedded::{FILE, FORMAT};

/// How often a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Who is registered where.
    Reg,
    /// What the HSS tells us changes of.
    ShSub,
}

impl Table {
    /// Every table there is.
    pub const ALL: [Self; 2] = [Self::Reg, Self::ShSub];

    fn name(self) -> &'static str {
        match self {
            Self::Reg => "reg",
            Self::ShSub => "shsub",
        }
    }
}

/// One row. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Arc<str>,
    pub since: u64,
    /// Nobody needs it from then on.
    pub until: u64,
    pub value: Bytes,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("it was written by a newer version (format {found}, this version knows {known})")]
    Newer { found: i64, known: i64 },
    #[error("it is no store of pagecast")]
    Foreign,
    #[error("{0}")]
    Unreadable(String),
}

/// Hears what became of a change: whether it is kept now.
pub type Told = Box<dyn FnOnce(bool) + Send>;

/// What is known of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The last write succeeded, or there was none.
    pub up: bool,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Changes that wait to be written.
    pub pending: usize,
}

/// The rows a commit changes; `None` takes a row away.
type Batch = HashMap<(Table, Arc<str>), Option<Row>>;

/// Where rows go.
trait Backend: Send {
    /// All of it or nothing.
    fn commit(&mut self, batch: &Batch) -> Result<(), String>;
}

/// A store that is open.
pub struct Store {
    /// `None`: nothing is kept.
    writer: Option<Writer>,
}

struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Most changes that wait.
    most: usize,
    commits: OnceLock<Box<dyn Fn(Duration) + Send + Sync>>,
}

#[derive(Default)]
struct State {
    pending: Batch,
    told: Vec<Told>,
    down: bool,
    last_error: Option<String>,
    /// Changes were left out because too many waited.
    overran: bool,
    stop: bool,
}

impl Store {
    /// Opens the store in `folder` and reads every row that is still of use at `now` (milliseconds since 1970). At most
    /// `most` changes wait to be written; what comes beyond it is not kept.
    ///
    /// # Errors
    /// [`OpenError`]; what was there is left as it is.
    pub fn open(
        folder: &Path,
        now: u64,
        most: usize,
    ) -> Result<(Self, Vec<(Table, Row)>), OpenError> {
        let (backend, rows) = embedded::open(folder, now)?;
        Ok((Self::with(Box::new(backend), most)?, rows))
    }

    /// A store that forgets everything with the process.
    pub fn memory() -> Self {
        Self { writer: None }
    }

    fn with(mut backend: Box<dyn Backend>, most: usize) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            most: most.max(1),
            commits: OnceLock::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("pagecast-store".to_owned())
            .spawn(move || for_thread.write(backend.as_mut()))
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        Ok(Self { writer: Some(Writer { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Whether anything is kept at all.
    pub fn keeps(&self) -> bool {
        self.writer.is_some()
    }

    /// Tells how long each commit takes. The first one to ask is told.
    pub fn on_commit(&self, hear: impl Fn(Duration) + Send + Sync + 'static) {
        if let Some(writer) = &self.writer {
            // A second listener is one too many.
            let _ = writer.shared.commits.set(Box::new(hear));
        }
    }

    /// Has a row kept, or taken away. `told` hears of it: at once where the store is known to be down, for then the row
    /// waits until it is back.
    pub fn put(&self, table: Table, key: Arc<str>, row: Option<Row>, told: Option<Told>) {
        let Some(writer) = &self.writer else {
            told.into_iter().for_each(|told| told(true));
            return;
        };
        let unheard = writer.shared.put((table, key), row, told);
        unheard.into_iter().for_each(|told| told(false));
    }

    /// How the store is.
    pub fn health(&self) -> Health {
        match &self.writer {
            None => Health { up: true, last_error: None, pending: 0 },
            Some(writer) => {
                let state = writer.shared.lock();
                Health {
                    up: !state.down,
                    last_error: state.last_error.clone(),
                    pending: state.pending.len(),
                }
            }
        }
    }

    /// Writes what waits, once, and ends.
    pub fn close(&self) {
        let Some(writer) = &self.writer else { return };
        writer.shared.lock().stop = true;
        writer.shared.changed.notify_all();
        let thread = writer.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer had panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whom nobody will tell.
    fn put(&self, at: (Table, Arc<str>), row: Option<Row>, told: Option<Told>) -> Option<Told> {
        let mut state = self.lock();
        if state.pending.len() >= self.most && !state.pending.contains_key(&at) {
            if !std::mem::replace(&mut state.overran, true) {
                tracing::warn!(
                    waiting = self.most,
                    "too many changes wait for the store; more are not kept"
                );
            }
            return told;
        }
        state.pending.insert(at, row);
        if state.down || state.stop {
            return told;
        }
        state.told.extend(told);
        drop(state);
        self.changed.notify_all();
        None
    }

    /// The writer's life.
    fn write(&self, backend: &mut dyn Backend) {
        loop {
            let (batch, told) = {
                let mut state = self.lock();
                while state.pending.is_empty() && !state.stop {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.pending.is_empty() {
                    return;
                }
                (std::mem::take(&mut state.pending), std::mem::take(&mut state.told))
            };
            let begun = now();
            let done = backend.commit(&batch);
            let took = now().saturating_duration_since(begun);
            let kept = done.is_ok();
            let again = match done {
                Ok(()) => {
                    self.succeeded();
                    if let Some(hear) = self.commits.get() {
                        hear(took);
                    }
                    true
                }
                Err(error) => self.failed(batch, error),
            };
            told.into_iter().for_each(|told| told(kept));
            if !again {
                return;
            }
        }
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        state.overran = false;
        if std::mem::replace(&mut state.down, false) {
            tracing::info!("the store is back");
        }
    }

    /// Keeps what was to be written and waits a moment. Whether to go on.
    fn failed(&self, batch: Batch, error: String) -> bool {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.down, true) {
            tracing::error!(error, "the store cannot be written; changes wait in memory");
        }
        state.last_error = Some(error);
        for (at, row) in batch {
            // What came meanwhile is newer.
            state.pending.entry(at).or_insert(row);
        }
        // Nobody is to wait for a store that is down.
        let told = std::mem::take(&mut state.told);
        if state.stop {
            tracing::error!(lost = state.pending.len(), "changes are lost with the process");
            state.pending.clear();
        } else {
            let stopped = |state: &mut State| !state.stop;
            let waited = self.changed.wait_timeout_while(state, RETRY, stopped);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let go_on = !state.pending.is_empty();
        drop(state);
        told.into_iter().for_each(|told| told(false));
        go_on
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer has a thread of its own and times its work"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A backend in the hands of a test.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Inside>>);

    #[derive(Default)]
    struct Inside {
        broken: bool,
        commits: usize,
        rows: HashMap<Arc<str>, Row>,
    }

    impl Backend for Fake {
        fn commit(&mut self, batch: &Batch) -> Result<(), String> {
            let mut inside = self.0.lock().expect("no panic");
            if inside.broken {
                return Err("disk full".to_owned());
            }
            inside.commits += 1;
            for ((_, key), row) in batch {
                match row {
                    Some(row) => inside.rows.insert(key.clone(), row.clone()),
                    None => inside.rows.remove(key),
                };
            }
            Ok(())
        }
    }

    fn row(key: &str, value: &str) -> Row {
        Row { key: key.into(), since: 1, until: 2, value: Bytes::copy_from_slice(value.as_bytes()) }
    }

    fn put(store: &Store, key: &str, value: &str) -> mpsc::Receiver<bool> {
        let (tell, told) = mpsc::channel();
        let told_by: Told = Box::new(move |kept| tell.send(kept).expect("the test waits"));
        store.put(Table::Reg, key.into(), Some(row(key, value)), Some(told_by));
        told
    }

    fn hears(told: &mpsc::Receiver<bool>) -> bool {
        told.recv_timeout(Duration::from_secs(10)).expect("told in time")
    }

    #[test]
    fn what_is_put_is_kept_and_told() {
        let fake = Fake::default();
        let store = Store::with(Box::new(fake.clone()), 10).expect("a thread");
        assert!(hears(&put(&store, "a", "1")) && hears(&put(&store, "a", "2")));
        let (tell, told) = mpsc::channel();
        store.put(
            Table::Reg,
            "b".into(),
            None,
            Some(Box::new(move |kept| tell.send(kept).expect("the test waits"))),
        );
        assert!(hears(&told));
        assert_eq!(fake.0.lock().expect("no panic").rows.get("a"), Some(&row("a", "2")));
        assert_eq!(store.health(), Health { up: true, last_error: None, pending: 0 });
    }

    /// Proves ISC-046.
    #[test]
    fn a_store_that_is_down_holds_nobody_up_and_gets_everything_when_it_is_back() {
        let fake = Fake::default();
        let store = Store::with(Box::new(fake.clone()), 3).expect("a thread");
        fake.0.lock().expect("no panic").broken = true;
        assert!(!hears(&put(&store, "a", "1")), "told that it is not kept yet");
        let health = store.health();
        assert_eq!((health.up, health.pending), (false, 1));
        assert_eq!(health.last_error.as_deref(), Some("disk full"));
        for (key, value) in [("b", "1"), ("c", "1"), ("a", "2"), ("d", "beyond the bound")] {
            assert!(!hears(&put(&store, key, value)));
        }
        assert_eq!(store.health().pending, 3);
        fake.0.lock().expect("no panic").broken = false;
        // The next try is at most a second away; closing is one, too.
        store.close();
        let inside = fake.0.lock().expect("no panic");
        let mut kept: Vec<_> =
            inside.rows.values().map(|row| (&*row.key, &row.value[..])).collect();
        kept.sort_unstable();
        assert_eq!(kept, [("a", &b"2"[..]), ("b", b"1"), ("c", b"1")]);
        drop(inside);
        assert_eq!((store.health().up, store.health().pending), (true, 0));
    }

    #[test]
    fn many_changes_share_a_commit() {
        let fake = Fake::default();
        let store = Store::with(Box::new(fake.clone()), 1000).expect("a thread");
        let holds = fake.0.lock().expect("no panic");
        let told: Vec<_> = (0..500).map(|n| put(&store, &format!("k{n}"), "x")).collect();
        drop(holds);
        assert!(told.iter().all(hears));
        let inside = fake.0.lock().expect("no panic");
        assert_eq!(inside.rows.len(), 500);
        assert!(inside.commits <= 2, "{} commits", inside.commits);
    }
}
