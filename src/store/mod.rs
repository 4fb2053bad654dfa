//! What survives a restart: rows by table and ordered key, written by one thread, many batches at a time.
//!
//! Start at [`Store::open`], [`Store::write`] and [`Store::range`]. Whoever writes does not wait for the disk: the writer
//! takes every [`Batch`] that has come meanwhile into one transaction and then tells those who asked (`queue`). Whoever
//! reads does not wait for the writer: readers have a connection and a thread of their own (`reads`). A store that cannot
//! be written is tried again every second. What rows mean is the business of those who write them.
//!
//! `embedded` is one SQLite file, `postgres` a database several nodes share; `memory` forgets with the process.

mod batch;
mod embedded;
mod memory;
mod postgres;
mod queue;
mod reads;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

pub use batch::{Batch, Change, Condition, Kept, Sweep, Unwritten};
pub use embedded::{FILE, FORMAT};
use memory::Memory;
pub use postgres::{Address, BadAddress};
use queue::{Entry, Queue};
use reads::Reads;

/// Largest value of a row, in octets. Larger ones are not kept.
pub const MAX_VALUE: usize = 16 << 20;

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Who is registered where.
    Reg,
    /// What the HSS tells us changes of.
    ShSub,
    /// Pages that were accepted, with a short body.
    Page,
    /// Pieces of longer bodies.
    Chunk,
    /// What became of a page's recipients so far.
    Run,
    /// Recipients that are waited for.
    Wait,
    /// What is held for a user until it is fetched.
    Held,
    /// Dispositions that are still awaited.
    Imdn,
    /// Nodes and their leases.
    Node,
}

impl Table {
    /// Every table there is, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Reg,
        Self::ShSub,
        Self::Page,
        Self::Chunk,
        Self::Run,
        Self::Wait,
        Self::Held,
        Self::Imdn,
        Self::Node,
    ];

    /// Those that are read into memory at start.
    const LOADED: [Self; 2] = [Self::Reg, Self::ShSub];

    fn name(self) -> &'static str {
        match self {
            Self::Reg => "reg",
            Self::ShSub => "shsub",
            Self::Page => "page",
            Self::Chunk => "chunk",
            Self::Run => "run",
            Self::Wait => "wait",
            Self::Held => "held",
            Self::Imdn => "imdn",
            Self::Node => "node",
        }
    }

    /// Its place in an array over [`Table::ALL`].
    fn index(self) -> usize {
        self as usize
    }
}

/// One row. Times are milliseconds since 1970, at most [`i64::MAX`]; later ones are kept as that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Arc<str>,
    pub since: u64,
    /// Nobody needs it from then on.
    pub until: u64,
    pub value: Bytes,
}

/// What is read at start.
pub type Loaded = Vec<(Table, Row)>;

/// A time as stores keep it: their integers have a sign.
fn kept_time(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// The store cannot be read, or too many wait to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read")]
pub struct Down;

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

/// Most of what may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Batches that wait for the disk, and rows that wait for the store to be back.
    pub batches: usize,
    /// Octets of these; as many again of those that are being written.
    pub octets: usize,
    /// Questions that wait for the reader.
    pub reads: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { batches: 10_000, octets: 64 << 20, reads: 10_000 }
    }
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
    /// It works, but something about it ought to be seen to.
    pub warning: Option<String>,
    /// Changes that wait to be written.
    pub pending: usize,
}

/// Why a commit failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed {
    /// In an operator's words.
    words: String,
    /// Nobody knows whether it was written: the connection was lost on the way.
    in_doubt: bool,
}

/// Where rows go. Used by one thread.
trait Backend: Send {
    /// Applies batches in their order as one transaction that is on the disk when it returns; says of each whether its
    /// conditions held. A failure leaves nothing of any, unless it is in doubt.
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed>;

    /// Tries whether a commit would succeed now.
    fn probe(&mut self) -> Result<(), Failed>;

    /// What ought to be seen to, as of the last commit.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// Where rows come from. Used by one thread, and sees whatever was committed. Errors are in an operator's words.
trait Reader: Send {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, String>;
    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, String>;
    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, String>;
    fn count(&mut self, table: Table) -> Result<u64, String>;
}

/// A store that is open.
pub struct Store {
    inside: Inside,
}

enum Inside {
    /// Answers at once, on the thread that asks.
    Memory(Box<Mutex<Memory>>),
    Kept {
        queue: Arc<Queue>,
        writer: Mutex<Option<JoinHandle<()>>>,
        reads: Reads,
    },
}

impl Store {
    /// Opens the store in `folder` and reads registrations and subscriptions that are still of use at `now`
    /// (milliseconds since 1970); the rest is read when it is asked for.
    ///
    /// # Errors
    /// [`OpenError`]; what was there is left as it is.
    pub fn open(folder: &Path, now: u64, bounds: Bounds) -> Result<(Self, Loaded), OpenError> {
        let (backend, reader, rows) = embedded::open(folder, now)?;
        Ok((Self::with(Box::new(backend), Box::new(reader), bounds)?, rows))
    }

    /// Opens the store in a database and reads of it as [`Store::open`] does. Waits for the database.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn connect(
        address: &Address,
        now: u64,
        bounds: Bounds,
    ) -> Result<(Self, Loaded), OpenError> {
        let (backend, reader, rows) = postgres::open(address, now)?;
        Ok((Self::with(Box::new(backend), Box::new(reader), bounds)?, rows))
    }

    /// Connects to a database, makes what is missing in it and writes; says how good it is.
    ///
    /// # Errors
    /// In an operator's words.
    pub fn probe(address: &Address) -> Result<String, String> {
        let (mut backend, _, _) = postgres::open(address, 0).map_err(|error| error.to_string())?;
        backend.probe().map_err(|failed| failed.words)?;
        let warning = backend.warning().map_or_else(String::new, |warning| format!("; {warning}"));
        Ok(format!("written{warning}"))
    }

    /// A store that forgets everything with the process. It answers before its functions return.
    pub fn memory() -> Self {
        Self { inside: Inside::Memory(Box::default()) }
    }

    fn with(
        mut backend: Box<dyn Backend>,
        reader: Box<dyn Reader>,
        bounds: Bounds,
    ) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue::new(bounds, backend.warning()));
        let for_thread = Arc::clone(&queue);
        let reads = Reads::start(reader, bounds.reads)
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("pagecast-store".to_owned())
            .spawn(move || for_thread.run(backend.as_mut()))
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        Ok(Self { inside: Inside::Kept { queue, writer: Mutex::new(Some(thread)), reads } })
    }

    /// Whether anything outlives the process.
    pub fn keeps(&self) -> bool {
        matches!(self.inside, Inside::Kept { .. })
    }

    /// Tells how long each commit takes. The first one to ask is told.
    pub fn on_commit(&self, hear: impl Fn(Duration) + Send + Sync + 'static) {
        if let Inside::Kept { queue, .. } = &self.inside {
            queue.on_commit(Box::new(hear));
        }
    }

    /// Writes a batch after all that were given before it. `told` hears once what became of it, on the writer's thread or
    /// before this returns.
    pub fn write(&self, batch: Batch, told: impl FnOnce(Kept) + Send + 'static) {
        match &self.inside {
            Inside::Memory(memory) => {
                let kept =
                    memory.lock().unwrap_or_else(PoisonError::into_inner).write_checked(&batch);
                told(kept);
            }
            Inside::Kept { queue, .. } => queue.write(Entry { batch, told: Box::new(told) }),
        }
    }

    /// Has a row kept, or taken away. `told` hears of it: at once where the store is known to be down, for then the row
    /// waits until it is back.
    pub fn put(&self, table: Table, key: Arc<str>, row: Option<Row>, told: Option<Told>) {
        let batch = Batch {
            changes: vec![Change { table, key, row }],
            unwritten: Unwritten::Retry,
            ..Batch::default()
        };
        self.write(batch, move |kept| {
            if let Some(told) = told {
                told(kept == Kept::Yes);
            }
        });
    }

    /// Reads one row.
    pub fn get(
        &self,
        table: Table,
        key: &str,
        then: impl FnOnce(Result<Option<Row>, Down>) + Send + 'static,
    ) {
        let key = key.to_owned();
        self.ask(move |reader| reader.get(table, &key), then);
    }

    /// Reads rows whose key begins with `prefix` and is greater than `after`, in the order of their keys' octets, at most
    /// `most`.
    pub fn range(
        &self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
        then: impl FnOnce(Result<Vec<Row>, Down>) + Send + 'static,
    ) {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.ask(move |reader| reader.range(table, &prefix, after.as_deref(), most), then);
    }

    /// Reads rows that nobody needs any more at `now` (milliseconds since 1970), the oldest first, at most `most`. They
    /// stay until they are taken away.
    pub fn lapsed(
        &self,
        table: Table,
        now: u64,
        most: usize,
        then: impl FnOnce(Result<Vec<Row>, Down>) + Send + 'static,
    ) {
        self.ask(move |reader| reader.lapsed(table, now, most), then);
    }

    /// How many rows there are. Counted at start and kept along, so that it costs nothing.
    pub fn count(&self, table: Table, then: impl FnOnce(Result<u64, Down>) + Send + 'static) {
        self.ask(move |reader| reader.count(table), then);
    }

    fn ask<T: 'static>(
        &self,
        question: impl FnOnce(&mut dyn Reader) -> Result<T, String> + Send + 'static,
        then: impl FnOnce(Result<T, Down>) + Send + 'static,
    ) {
        match &self.inside {
            Inside::Memory(memory) => {
                let answer = question(&mut *memory.lock().unwrap_or_else(PoisonError::into_inner));
                then(answer.map_err(|_| Down));
            }
            Inside::Kept { reads, .. } => reads.ask(question, then),
        }
    }

    /// How the store is.
    pub fn health(&self) -> Health {
        match &self.inside {
            Inside::Memory(_) => Health { up: true, last_error: None, warning: None, pending: 0 },
            Inside::Kept { queue, .. } => queue.health(),
        }
    }

    /// Writes what waits, once, and ends. What comes later is not kept.
    pub fn close(&self) {
        let Inside::Kept { queue, writer, reads } = &self.inside else { return };
        queue.stop();
        let thread = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer had panicked");
        }
        reads.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
