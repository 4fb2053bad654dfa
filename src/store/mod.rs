//! What survives a restart: rows by table and key, written by one thread, many at a time.
//!
//! Start at [`Store::open`], [`Store::write`] and [`Store::range`]. Whoever writes does not wait for the disk: the writer takes
//! every [`Batch`] that has come meanwhile into one transaction, which is on the disk before anybody is told. A batch is
//! written whole or not at all, in the order it came; its [`Condition`]s are looked at then. What rows mean is the business
//! of those who put them. `writer` is the thread, `embedded` one SQLite file, `memory` keeps rows as long as the process
//! lives.

mod embedded;
mod memory;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

pub use embedded::{FILE, FORMAT};
use memory::Rows;
use writer::Writer;

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Who is registered where.
    Reg,
    /// What the HSS tells us changes of.
    ShSub,
    /// Pages that were accepted.
    Page,
    /// Their larger bodies, in pieces.
    Chunk,
    /// Who serves which of their legs.
    Run,
    /// Legs that wait, by user.
    Wait,
    /// The same, by page.
    Held,
    /// Notifications that are owed.
    Imdn,
    /// The nodes of a cluster.
    Node,
}

impl Table {
    /// Every table there is.
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

    /// Those that are read as a whole at the start.
    const AT_START: [Self; 2] = [Self::Reg, Self::ShSub];

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

    /// Its values are large.
    fn is_large(self) -> bool {
        matches!(self, Self::Page | Self::Chunk)
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

/// One row that becomes another, or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub table: Table,
    pub key: Arc<str>,
    /// `None` takes the row away.
    pub row: Option<Row>,
}

/// Holds at the moment of the commit, or nothing of the batch is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This row is there.
    Present(Table, Arc<str>),
    /// This row is there, with this value.
    Same(Table, Arc<str>, Bytes),
    /// Fewer rows than that have keys that begin so.
    Fewer(Table, Arc<str>, u32),
}

/// Rows that go once nothing refers to them any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// As long as a row of these begins so, nothing goes.
    pub unless: Vec<(Table, Arc<str>)>,
    /// What goes: all rows whose keys begin so.
    pub rows: Vec<(Table, Arc<str>)>,
}

/// What is written together or not at all: first the conditions are looked at, then changes are made, then swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub conditions: Vec<Condition>,
    pub sweeps: Vec<Sweep>,
    pub unwritten: Unwritten,
}

impl Batch {
    /// An empty one.
    pub fn new(unwritten: Unwritten) -> Self {
        Self { changes: Vec::new(), conditions: Vec::new(), sweeps: Vec::new(), unwritten }
    }

    /// About what it takes while it waits.
    fn octets(&self) -> usize {
        let change = |change: &Change| {
            let value = change.row.as_ref().map_or(0, |row| row.value.len());
            64 + change.key.len() + value
        };
        self.changes.iter().map(change).sum()
    }

    /// The one row it is about, where it is about nothing else.
    fn sole_key(&self) -> Option<(Table, Arc<str>)> {
        match self.changes.as_slice() {
            [one] if self.conditions.is_empty() && self.sweeps.is_empty() => {
                Some((one.table, Arc::clone(&one.key)))
            }
            _ => None,
        }
    }
}

/// What becomes of a batch while the store cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// It waits in memory: what it says has happened. Of batches about one row the last one waits.
    Retry,
    /// It is dropped: nothing was promised.
    Drop,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It outlives the process.
    Yes,
    /// The store cannot be written, or too much waits for it.
    Down,
    /// A condition did not hold.
    Unmet,
}

/// The store cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct Down(pub String);

/// How much may wait to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches.
    pub batches: usize,
    /// Octets of them.
    pub octets: usize,
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

/// Hears what became of a batch.
type Hear = Box<dyn FnOnce(Kept) + Send>;

/// What is known of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The last write succeeded, or there was none.
    pub up: bool,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Batches that wait to be written.
    pub pending: usize,
}

/// Where rows go.
trait Backend: Send {
    /// Writes the batches in their order; of each, whether its conditions held. All of it is safe on return, or nothing
    /// is written.
    fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<bool>, String>;

    /// Nothing was to be written for a while.
    fn idle(&mut self) {}
}

/// Where rows come from.
trait Source: Send {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, Down>;
    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, Down>;
    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, Down>;
    fn count(&mut self, table: Table) -> Result<u64, Down>;
}

/// A store that is open.
pub struct Store(Inside);

enum Inside {
    Memory(Mutex<Rows>),
    Durable(Writer),
}

impl Store {
    /// Opens the store in `folder` and reads what is needed at the start and still of use at `now` (milliseconds since
    /// 1970).
    ///
    /// # Errors
    /// [`OpenError`]; what was there is left as it is.
    pub fn open(
        folder: &Path,
        now: u64,
        limits: Limits,
    ) -> Result<(Self, Vec<(Table, Row)>), OpenError> {
        let (backend, source, rows) = embedded::open(folder, now)?;
        let writer = Writer::start(Box::new(backend), Box::new(source), limits)
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        Ok((Self(Inside::Durable(writer)), rows))
    }

    /// A store that forgets everything with the process.
    pub fn memory() -> Self {
        Self(Inside::Memory(Mutex::default()))
    }

    /// Whether anything outlives the process.
    pub fn keeps(&self) -> bool {
        matches!(self.0, Inside::Durable(_))
    }

    /// Tells how long each commit takes. The first one to ask is told.
    pub fn on_commit(&self, hear: impl Fn(Duration) + Send + Sync + 'static) {
        if let Inside::Durable(writer) = &self.0 {
            writer.on_commit(Box::new(hear));
        }
    }

    /// Has a batch written. `told` hears what became of it, on another thread or at once; it must not block. A batch
    /// that waits for a store that is down has been told [`Kept::Down`], and is written later.
    pub fn write(&self, batch: Batch, told: impl FnOnce(Kept) + Send + 'static) {
        match &self.0 {
            Inside::Memory(rows) => {
                let met = rows.lock().unwrap_or_else(PoisonError::into_inner).apply(&batch);
                told(if met { Kept::Yes } else { Kept::Unmet });
            }
            Inside::Durable(writer) => writer.write(batch, Box::new(told)),
        }
    }

    /// Has a row kept, or taken away. `told` hears of it: at once where the store is known to be down, for then the row
    /// waits until it is back.
    pub fn put(&self, table: Table, key: Arc<str>, row: Option<Row>, told: Option<Told>) {
        let changes = vec![Change { table, key, row }];
        let batch = Batch { changes, ..Batch::new(Unwritten::Retry) };
        self.write(batch, move |kept| {
            told.into_iter().for_each(|told| told(kept == Kept::Yes));
        });
    }

    /// Reads one row.
    pub fn get(
        &self,
        table: Table,
        key: &str,
        then: impl FnOnce(Result<Option<Row>, Down>) + Send + 'static,
    ) {
        let key: Arc<str> = key.into();
        self.read(move |source| then(source.get(table, &key)));
    }

    /// Reads rows whose keys begin with `prefix` and come after `after`, in the order of their keys, at most `most`.
    pub fn range(
        &self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
        then: impl FnOnce(Result<Vec<Row>, Down>) + Send + 'static,
    ) {
        let (prefix, after): (Arc<str>, Option<Arc<str>>) = (prefix.into(), after.map(Arc::from));
        self.read(move |source| then(source.range(table, &prefix, after.as_deref(), most)));
    }

    /// Reads rows nobody needs any more at `now` (milliseconds since 1970), the oldest first, at most `most`.
    pub fn lapsed(
        &self,
        table: Table,
        now: u64,
        most: usize,
        then: impl FnOnce(Result<Vec<Row>, Down>) + Send + 'static,
    ) {
        self.read(move |source| then(source.lapsed(table, now, most)));
    }

    /// Counts the rows of a table.
    pub fn count(&self, table: Table, then: impl FnOnce(Result<u64, Down>) + Send + 'static) {
        self.read(move |source| then(source.count(table)));
    }

    /// Reads see everything that was told as kept before they were asked for, and do not wait for writes.
    fn read(&self, read: impl FnOnce(&mut dyn Source) + Send + 'static) {
        match &self.0 {
            Inside::Memory(rows) => {
                read(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Inside::Durable(writer) => writer.read(Box::new(read)),
        }
    }

    /// How the store is.
    pub fn health(&self) -> Health {
        match &self.0 {
            Inside::Memory(_) => Health { up: true, last_error: None, pending: 0 },
            Inside::Durable(writer) => writer.health(),
        }
    }

    /// Writes what waits, once, and ends.
    pub fn close(&self) {
        if let Inside::Durable(writer) = &self.0 {
            writer.close();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Behind every key that begins with `prefix`, and before every other that does not.
fn behind(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}
