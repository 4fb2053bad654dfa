//! The store in one SQLite file of the data directory.
//!
//! Every commit is one transaction that is on the disk when it returns (WAL, `synchronous=FULL`). The log is worked into
//! the file by a thread of its own (`care`), never by a commit. The file says which format it has (`format`); one of a
//! newer version is refused and not touched.

mod care;
mod format;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use super::batch::after_all;
use super::{
    Backend, Batch, Bytes, Change, Condition, Failed, Loaded, OpenError, Reader, Row, Table,
    kept_time,
};
use care::Care;
pub use format::FORMAT;

/// The file's name in the data directory.
pub const FILE: &str = "pagecast.db";
/// How long another process may hold the file; a commit of ours fails after it.
const BUSY: Duration = Duration::from_millis(200);
/// Statements each connection keeps ready.
const STATEMENTS: usize = 128;
/// Pages each connection keeps, in KiB (SQLite counts these below zero).
const CACHE: i64 = -16_384;

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unreadable(words(&error))
    }
}

/// What went wrong, in words that say who has to act.
fn words(error: &rusqlite::Error) -> String {
    let what = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "the file or its disk can only be read",
        Some(ErrorCode::DatabaseCorrupt) => "the file is damaged",
        Some(ErrorCode::NotADatabase) => "the file is no database",
        Some(ErrorCode::SystemIoFailure) => "the disk fails",
        Some(ErrorCode::CannotOpen) => "the file cannot be opened",
        Some(ErrorCode::PermissionDenied) => "the file may not be used",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds the file"
        }
        _ => return error.to_string(),
    };
    format!("{what} ({error})")
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self { words: words(&error), in_doubt: false }
    }
}

/// A connection with the settings all of ours have.
fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(&format!("PRAGMA cache_size={CACHE}"))?;
    Ok(connection)
}

/// How the file keeps what is committed.
fn set_log(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous=FULL")?;
    connection.query_row("PRAGMA wal_autocheckpoint=0", [], |_| Ok(()))
}

/// Opens or makes the file and reads registrations and subscriptions that are of use at `now`; those that are not are
/// taken away.
pub fn open(folder: &Path, now: u64) -> Result<(Writer, Reading, Loaded), OpenError> {
    let path = folder.join(FILE);
    let mut connection = connect(&path)?;
    format::check(&connection)?;
    set_log(&connection)?;
    let transaction = connection.transaction()?;
    format::bring_up(&transaction)?;
    let mut rows = Vec::new();
    for table in Table::LOADED {
        read_loaded(&transaction, table, now, &mut rows)?;
    }
    transaction.commit()?;
    let counts = Arc::new(Counts::default());
    for table in Table::ALL {
        let sql = format!("SELECT count(*) FROM {}", table.name());
        counts.add(table, connection.query_row(&sql, [], |row| row.get(0))?);
    }
    let (reader, keeper) = (connect(&path)?, connect(&path)?);
    set_log(&reader)?;
    reader.execute_batch("PRAGMA query_only=1")?;
    set_log(&keeper)?;
    let care = Care::start(keeper).map_err(|error| OpenError::Unreadable(error.to_string()))?;
    let writer = Writer { connection, counts: Arc::clone(&counts), care };
    Ok((writer, Reading { connection: reader, counts }, rows))
}

fn read_loaded(
    transaction: &Transaction<'_>,
    table: Table,
    now: u64,
    into: &mut Loaded,
) -> Result<(), rusqlite::Error> {
    let name = table.name();
    transaction.execute(&format!("DELETE FROM {name} WHERE until <= ?1"), [kept_time(now)])?;
    let mut statement =
        transaction.prepare(&format!("SELECT key, since, until, value FROM {name}"))?;
    for row in statement.query_map([], read_row)? {
        into.push((table, row?));
    }
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    Ok(Row {
        key: row.get_ref(0)?.as_str()?.into(),
        since: row.get::<_, i64>(1)?.cast_unsigned(),
        until: row.get::<_, i64>(2)?.cast_unsigned(),
        value: Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?),
    })
}

/// The end of the keys that begin with a prefix.
struct End(Option<String>);

impl End {
    fn of(prefix: &str) -> Self {
        Self(after_all(prefix))
    }
}

impl ToSql for End {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(match &self.0 {
            Some(end) => ToSqlOutput::Borrowed(ValueRef::Text(end.as_bytes())),
            // Every blob comes after every text.
            None => ToSqlOutput::Owned(Value::Blob(Vec::new())),
        })
    }
}

/// Rows of each table.
#[derive(Default)]
struct Counts([AtomicI64; Table::ALL.len()]);

impl Counts {
    fn add(&self, table: Table, more: i64) {
        self.0[table.index()].fetch_add(more, Ordering::Relaxed);
    }

    fn of(&self, table: Table) -> u64 {
        u64::try_from(self.0[table.index()].load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// The connection that writes.
pub struct Writer {
    connection: Connection,
    counts: Arc<Counts>,
    care: Care,
}

#[cfg(test)]
impl Writer {
    /// Has the file grow no more than to so many pages.
    pub fn limit(&self, pages: u32) {
        let sql = format!("PRAGMA max_page_count={pages}");
        self.connection.query_row(&sql, [], |_| Ok(())).expect("set");
    }
}

impl Backend for Writer {
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed> {
        let turn = self.care.turn();
        let mut grown = Grown::default();
        let transaction = begin(&mut self.connection)?;
        let held = batches
            .iter()
            .map(|batch| apply(&transaction, batch, &mut grown))
            .collect::<Result<_, _>>()?;
        transaction.commit()?;
        drop(turn);
        for table in Table::ALL {
            self.counts.add(table, grown.rows[table.index()]);
        }
        self.care.committed(grown.octets);
        Ok(held)
    }

    fn probe(&mut self) -> Result<(), Failed> {
        let _turn = self.care.turn();
        let transaction = begin(&mut self.connection)?;
        // Writes the first page, whatever stands in it.
        format::stamp(&transaction)?;
        Ok(transaction.commit()?)
    }
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
}

/// What a commit adds.
#[derive(Default)]
struct Grown {
    rows: [i64; Table::ALL.len()],
    /// To the log, about.
    octets: usize,
}

/// Applies a batch if its conditions hold; says whether they did.
fn apply(
    transaction: &Transaction<'_>,
    batch: &Batch,
    grown: &mut Grown,
) -> Result<bool, rusqlite::Error> {
    for condition in &batch.conditions {
        if !holds(transaction, condition)? {
            return Ok(false);
        }
    }
    for change in &batch.changes {
        grown.rows[change.table.index()] += set(transaction, change)?;
        // A page of the table, one of the order by time.
        grown.octets += 8192 + change.row.as_ref().map_or(0, |row| row.value.len());
    }
    for sweep in &batch.sweeps {
        let mut stays = false;
        for (table, prefix) in &sweep.unless {
            stays = stays || !fewer(transaction, *table, prefix, 1)?;
        }
        for (table, prefix) in sweep.rows.iter().filter(|_| !stays) {
            let gone = transaction
                .prepare_cached(sql(*table).sweep)?
                .execute(params![&**prefix, End::of(prefix)])?;
            grown.rows[table.index()] -= i64::try_from(gone).unwrap_or(i64::MAX);
            grown.octets += 8192 * gone;
        }
    }
    Ok(true)
}

/// Keeps or takes away a row; returns how many rows more there are.
fn set(transaction: &Transaction<'_>, change: &Change) -> Result<i64, rusqlite::Error> {
    let sql = sql(change.table);
    let key = &*change.key;
    let Some(row) = &change.row else {
        let gone = transaction.prepare_cached(sql.delete)?.execute([key])?;
        return Ok(-i64::from(gone > 0));
    };
    let values = params![key, kept_time(row.since), kept_time(row.until), &row.value[..]];
    if transaction.prepare_cached(sql.insert)?.execute(values)? > 0 {
        return Ok(1);
    }
    transaction.prepare_cached(sql.update)?.execute(values)?;
    Ok(0)
}

fn holds(transaction: &Transaction<'_>, condition: &Condition) -> Result<bool, rusqlite::Error> {
    match condition {
        Condition::Present(table, key) => {
            transaction.prepare_cached(sql(*table).present)?.exists([&**key])
        }
        Condition::Same(table, key, value) => {
            let mut statement = transaction.prepare_cached(sql(*table).value)?;
            let same = statement.query_row([&**key], |row| Ok(row.get_ref(0)?.as_blob()? == value));
            Ok(same.optional()?.unwrap_or(false))
        }
        Condition::Fewer(table, prefix, most) => fewer(transaction, *table, prefix, *most),
    }
}

fn fewer(
    transaction: &Transaction<'_>,
    table: Table,
    prefix: &str,
    most: u32,
) -> Result<bool, rusqlite::Error> {
    let mut statement = transaction.prepare_cached(sql(table).some)?;
    let found: u32 =
        statement.query_row(params![prefix, End::of(prefix), most], |row| row.get(0))?;
    Ok(found < most)
}

/// The connection that reads.
pub struct Reading {
    connection: Connection,
    counts: Arc<Counts>,
}

impl Reading {
    fn rows(&self, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<Row>, String> {
        let rows = || -> Result<Vec<Row>, rusqlite::Error> {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(values, read_row)?.collect()
        };
        rows().map_err(|error| words(&error))
    }
}

/// At most so many rows.
fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

impl Reader for Reading {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, String> {
        Ok(self.rows(sql(table).get, &[&key])?.pop())
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, String> {
        let (end, most) = (End::of(prefix), limit(most));
        match after.filter(|after| *after >= prefix) {
            Some(after) => self.rows(sql(table).after, &[&after, &end, &most]),
            None => self.rows(sql(table).range, &[&prefix, &end, &most]),
        }
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, String> {
        self.rows(sql(table).lapsed, &[&kept_time(now), &limit(most)])
    }

    fn count(&mut self, table: Table) -> Result<u64, String> {
        Ok(self.counts.of(table))
    }
}

/// The statements of one table.
struct Sql {
    insert: &'static str,
    update: &'static str,
    delete: &'static str,
    sweep: &'static str,
    present: &'static str,
    value: &'static str,
    some: &'static str,
    get: &'static str,
    range: &'static str,
    after: &'static str,
    lapsed: &'static str,
}

macro_rules! statements {
    ($name:literal) => {
        Sql {
            insert: concat!(
                "INSERT OR IGNORE INTO ",
                $name,
                " (key, since, until, value) VALUES (?1, ?2, ?3, ?4)"
            ),
            update: concat!(
                "UPDATE ",
                $name,
                " SET since = ?2, until = ?3, value = ?4 WHERE key = ?1"
            ),
            delete: concat!("DELETE FROM ", $name, " WHERE key = ?1"),
            sweep: concat!("DELETE FROM ", $name, " WHERE key >= ?1 AND key < ?2"),
            present: concat!("SELECT 1 FROM ", $name, " WHERE key = ?1"),
            value: concat!("SELECT value FROM ", $name, " WHERE key = ?1"),
            some: concat!(
                "SELECT count(*) FROM (SELECT 1 FROM ",
                $name,
                " WHERE key >= ?1 AND key < ?2 LIMIT ?3)"
            ),
            get: concat!("SELECT key, since, until, value FROM ", $name, " WHERE key = ?1"),
            range: concat!(
                "SELECT key, since, until, value FROM ",
                $name,
                " WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            ),
            after: concat!(
                "SELECT key, since, until, value FROM ",
                $name,
                " WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            ),
            lapsed: concat!(
                "SELECT key, since, until, value FROM ",
                $name,
                " WHERE until <= ?1 ORDER BY until LIMIT ?2"
            ),
        }
    };
}

fn sql(table: Table) -> &'static Sql {
    match table {
        Table::Reg => &const { statements!("reg") },
        Table::ShSub => &const { statements!("shsub") },
        Table::Page => &const { statements!("page") },
        Table::Chunk => &const { statements!("chunk") },
        Table::Run => &const { statements!("run") },
        Table::Wait => &const { statements!("wait") },
        Table::Held => &const { statements!("held") },
        Table::Imdn => &const { statements!("imdn") },
        Table::Node => &const { statements!("node") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_who_has_to_act() {
        let cases = [
            (rusqlite::ffi::SQLITE_FULL, "the disk is full"),
            (rusqlite::ffi::SQLITE_READONLY, "the file or its disk can only be read"),
            (rusqlite::ffi::SQLITE_CORRUPT, "the file is damaged"),
            (rusqlite::ffi::SQLITE_IOERR, "the disk fails"),
            (rusqlite::ffi::SQLITE_CANTOPEN, "the file cannot be opened"),
            (rusqlite::ffi::SQLITE_BUSY, "another process holds the file"),
        ];
        for (code, what) in cases {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let words = words(&error);
            assert!(words.starts_with(what), "{words}");
        }
    }
}
