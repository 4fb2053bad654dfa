//! The store in one SQLite file of the data directory.
//!
//! Every commit is one transaction that is on the disk when it returns (WAL, `synchronous=FULL`). What the log holds is
//! carried into the file by a thread of its own, so that no commit waits for that. The file says which format it has; one
//! of a newer version is refused and not touched, one of an older version is taken along.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{Backend, Batch, Condition, Down, OpenError, Row, Source, Sweep, Table, behind};

/// The file's name in the data directory.
pub const FILE: &str = "pagecast.db";
/// The format this version writes. 1 had registrations and subscriptions only.
pub const FORMAT: i64 = 2;
/// How SQLite knows our files: "page".
const APPLICATION: i64 = 0x7061_6765;
/// How long another process may hold the file; a commit of ours fails after it.
const BUSY: Duration = Duration::from_millis(200);
/// The log is carried into the file once it has grown by so many commits, or nothing is written.
const CARRY_AFTER: u32 = 500;
/// Pages of the file given back in one go when nothing else is to be done.
const SHRINK: u32 = 2000;

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<rusqlite::Error> for Down {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

/// Both sides of the file, and what is of use at the start.
type Opened = (Embedded, Reader, Vec<(Table, Row)>);

/// Opens or makes the file and reads what is of use at the start; of that, what is of no use at `now` is taken away.
pub fn open(folder: &Path, now: u64) -> Result<Opened, OpenError> {
    let path = folder.join(FILE);
    let mut connection = connect(&path, true)?;
    let number = |name: &str| -> Result<i64, rusqlite::Error> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let (format, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (tables > 0 || application != 0 || format != 0) {
        return Err(OpenError::Foreign);
    }
    if format > FORMAT {
        return Err(OpenError::Newer { found: format, known: FORMAT });
    }
    if tables == 0 {
        // Only a file without tables can be made one that shrinks.
        connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
    }
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=33554432",
    )?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in Table::ALL {
        make(&transaction, table)?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}"
    ))?;
    let mut rows = Vec::new();
    for table in Table::AT_START {
        let name = table.name();
        transaction.execute(&format!("DELETE FROM {name} WHERE until <= ?1"), [sql(now)])?;
        let all = format!("SELECT key, since, until, value FROM {name}");
        let mut statement = transaction.prepare(&all)?;
        for row in statement.query_map([], row)? {
            rows.push((table, row?));
        }
    }
    transaction.commit()?;
    let carrier = Carrier::start(&path)?;
    Ok((Embedded { connection, carrier, commits: 0 }, Reader { path, connection: None }, rows))
}

fn connect(path: &Path, writes: bool) -> Result<Connection, rusqlite::Error> {
    let how = match writes {
        true => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        false => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes a table that is not there. Large values do not stand in the tree of the keys.
fn make(transaction: &Transaction<'_>, table: Table) -> Result<(), rusqlite::Error> {
    let name = table.name();
    let rowid = if table.is_large() { "" } else { " WITHOUT ROWID" };
    transaction.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, since INTEGER NOT NULL, \
         until INTEGER NOT NULL, value BLOB NOT NULL){rowid}"
    ))?;
    if table == Table::Wait {
        let index = format!("CREATE INDEX IF NOT EXISTS {name}_until ON {name} (until, key)");
        transaction.execute_batch(&index)?;
    }
    Ok(())
}

fn sql(number: u64) -> i64 {
    number.cast_signed()
}

fn row(of: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    Ok(Row {
        key: of.get::<_, String>(0)?.into(),
        since: of.get::<_, i64>(1)?.cast_unsigned(),
        until: of.get::<_, i64>(2)?.cast_unsigned(),
        value: Bytes::from(of.get::<_, Vec<u8>>(3)?),
    })
}

/// The side that writes.
pub struct Embedded {
    connection: Connection,
    carrier: Carrier,
    commits: u32,
}

impl Backend for Embedded {
    fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<bool>, String> {
        let held = self.try_commit(batches).map_err(|error| error.to_string())?;
        self.commits += 1;
        if self.commits >= CARRY_AFTER {
            self.commits = 0;
            self.carrier.carry();
        }
        Ok(held)
    }

    fn idle(&mut self) {
        if self.commits > 0 {
            self.commits = 0;
            // What was taken away gives its room back, a piece at a time.
            if let Err(error) = self.shrink() {
                tracing::debug!(%error, "the store's file is not made smaller now");
            }
            self.carrier.carry();
        }
    }
}

impl Embedded {
    /// Each step of the statement gives one page of the file back.
    fn shrink(&self) -> Result<(), rusqlite::Error> {
        let shrink = format!("PRAGMA incremental_vacuum({SHRINK})");
        let mut statement = self.connection.prepare(&shrink)?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        Ok(())
    }

    fn try_commit(&mut self, batches: &[&Batch]) -> Result<Vec<bool>, rusqlite::Error> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut held = Vec::with_capacity(batches.len());
        for batch in batches {
            held.push(apply(&transaction, batch)?);
        }
        if batches.is_empty() {
            // Whether it can be written is known only by writing.
            transaction.execute_batch(&format!("PRAGMA user_version={FORMAT}"))?;
        }
        transaction.commit()?;
        Ok(held)
    }
}

/// Whether the batch's conditions hold; only then it is written.
fn apply(transaction: &Transaction<'_>, batch: &Batch) -> Result<bool, rusqlite::Error> {
    for condition in &batch.conditions {
        if !holds(transaction, condition)? {
            return Ok(false);
        }
    }
    for change in &batch.changes {
        let name = change.table.name();
        match &change.row {
            None => {
                let delete = format!("DELETE FROM {name} WHERE key = ?1");
                transaction.prepare_cached(&delete)?.execute([&*change.key])?;
            }
            Some(row) => {
                let upsert = format!(
                    "INSERT INTO {name} (key, since, until, value) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (key) DO UPDATE SET since = ?2, until = ?3, value = ?4"
                );
                let (since, until) = (sql(row.since), sql(row.until));
                let values = params![&*change.key, since, until, &row.value[..]];
                transaction.prepare_cached(&upsert)?.execute(values)?;
            }
        }
    }
    for sweep in &batch.sweeps {
        clear(transaction, sweep)?;
    }
    Ok(true)
}

fn holds(transaction: &Transaction<'_>, condition: &Condition) -> Result<bool, rusqlite::Error> {
    match condition {
        Condition::Present(table, key) => {
            let one = format!("SELECT 1 FROM {} WHERE key = ?1", table.name());
            transaction.prepare_cached(&one)?.exists([&**key])
        }
        Condition::Same(table, key, value) => {
            let one = format!("SELECT 1 FROM {} WHERE key = ?1 AND value = ?2", table.name());
            transaction.prepare_cached(&one)?.exists(params![&**key, &value[..]])
        }
        Condition::Fewer(table, prefix, most) => {
            let some = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {} WHERE key >= ?1 AND key < ?2 LIMIT ?3)",
                table.name()
            );
            let values = params![&**prefix, behind(prefix), most];
            let count: u32 =
                transaction.prepare_cached(&some)?.query_row(values, |row| row.get(0))?;
            Ok(count < *most)
        }
    }
}

fn clear(transaction: &Transaction<'_>, sweep: &Sweep) -> Result<(), rusqlite::Error> {
    for (table, prefix) in &sweep.unless {
        let any = format!("SELECT 1 FROM {} WHERE key >= ?1 AND key < ?2", table.name());
        if transaction.prepare_cached(&any)?.exists(params![&**prefix, behind(prefix)])? {
            return Ok(());
        }
    }
    for (table, prefix) in &sweep.rows {
        let all = format!("DELETE FROM {} WHERE key >= ?1 AND key < ?2", table.name());
        transaction.prepare_cached(&all)?.execute(params![&**prefix, behind(prefix)])?;
    }
    Ok(())
}

/// The side that reads. Opened when it is first asked.
pub struct Reader {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Reader {
    fn rows(
        &mut self,
        query: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<Row>, rusqlite::Error> {
        let mut statement = self.connected()?.prepare_cached(query)?;
        statement.query_map(values, row)?.collect()
    }

    fn connected(&mut self) -> Result<&Connection, rusqlite::Error> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(connect(&self.path, false)?)),
        }
    }
}

impl Source for Reader {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, Down> {
        let one = format!("SELECT key, since, until, value FROM {} WHERE key = ?1", table.name());
        Ok(self.rows(&one, [key])?.pop())
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, Down> {
        let after = after.filter(|after| *after >= prefix);
        let from = if after.is_some() { ">" } else { ">=" };
        let some = format!(
            "SELECT key, since, until, value FROM {} WHERE key {from} ?1 AND key < ?2 ORDER BY key LIMIT ?3",
            table.name()
        );
        let values = params![after.unwrap_or(prefix), behind(prefix), most as i64];
        Ok(self.rows(&some, values)?)
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, Down> {
        let some = format!(
            "SELECT key, since, until, value FROM {} WHERE until <= ?1 ORDER BY until, key LIMIT ?2",
            table.name()
        );
        Ok(self.rows(&some, params![sql(now), most as i64])?)
    }

    fn count(&mut self, table: Table) -> Result<u64, Down> {
        let count = format!("SELECT count(*) FROM {}", table.name());
        let connection = self.connected()?;
        let count: i64 = connection.prepare_cached(&count)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }
}

/// Carries the log into the file, beside the commits: as far as it can without anybody waiting for it.
struct Carrier {
    wishes: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    fn start(path: &Path) -> Result<Self, OpenError> {
        // One wish that waits stands for all.
        let (wishes, wished) = mpsc::sync_channel(1);
        let connection = connect(path, true)?;
        connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")?;
        let carry = move || {
            for () in wished {
                let carried =
                    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                if let Err(error) = carried {
                    // It is tried again after more commits; until then the log is read as well.
                    tracing::debug!(%error, "the store's log is not carried over now");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("pagecast-log".to_owned())
            .spawn(carry)
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        Ok(Self { wishes: Some(wishes), thread: Some(thread) })
    }

    fn carry(&self) {
        if let Some(wishes) = &self.wishes {
            // Where one waits already, it will do.
            let _ = wishes.try_send(());
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.carry();
        drop(self.wishes.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the store's log had panicked");
        }
    }
}
