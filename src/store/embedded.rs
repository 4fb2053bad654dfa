//! The store in one SQLite file of the data directory.
//!
//! Every commit is one transaction that is on the disk when it returns (WAL, `synchronous=FULL`). The file says which
//! format it has; one of a newer version is refused and not touched.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::{Backend, Batch, Bytes, OpenError, Row, Table};

/// The file's name in the data directory.
pub const FILE: &str = "pagecast.db";
/// The format this version writes.
pub const FORMAT: i64 = 1;
/// How SQLite knows our files: "page".
const APPLICATION: i64 = 0x7061_6765;
/// How long another process may hold the file; a commit of ours fails after it.
const BUSY: Duration = Duration::from_millis(200);

/// The open file.
pub struct Embedded {
    connection: Connection,
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Opens or makes the file and reads what is of use at `now`; what is not is taken away.
pub fn open(folder: &Path, now: u64) -> Result<(Embedded, Vec<(Table, Row)>), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(folder.join(FILE), flags)?;
    connection.busy_timeout(BUSY)?;
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
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous=FULL")?;
    let transaction = connection.transaction()?;
    for table in Table::ALL {
        transaction.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} (key TEXT PRIMARY KEY, since INTEGER NOT NULL, \
             until INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
            table.name()
        ))?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}"
    ))?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        read(&transaction, table, now, &mut rows)?;
    }
    transaction.commit()?;
    Ok((Embedded { connection }, rows))
}

fn read(
    transaction: &rusqlite::Transaction<'_>,
    table: Table,
    now: u64,
    into: &mut Vec<(Table, Row)>,
) -> Result<(), rusqlite::Error> {
    let name = table.name();
    transaction.execute(&format!("DELETE FROM {name} WHERE until <= ?1"), [now.cast_signed()])?;
    let mut statement =
        transaction.prepare(&format!("SELECT key, since, until, value FROM {name}"))?;
    let found = statement.query_map([], |row| {
        Ok(Row {
            key: row.get::<_, String>(0)?.into(),
            since: row.get::<_, i64>(1)?.cast_unsigned(),
            until: row.get::<_, i64>(2)?.cast_unsigned(),
            value: Bytes::from(row.get::<_, Vec<u8>>(3)?),
        })
    })?;
    for row in found {
        into.push((table, row?));
    }
    Ok(())
}

impl Backend for Embedded {
    fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        self.try_commit(batch).map_err(|error| error.to_string())
    }
}

impl Embedded {
    fn try_commit(&mut self, batch: &Batch) -> Result<(), rusqlite::Error> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for table in Table::ALL {
            let name = table.name();
            let mut insert = transaction.prepare_cached(&format!(
                "INSERT INTO {name} (key, since, until, value) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (key) DO UPDATE SET since = ?2, until = ?3, value = ?4"
            ))?;
            let mut delete =
                transaction.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?1"))?;
            for ((_, key), row) in batch.iter().filter(|((of, _), _)| *of == table) {
                match row {
                    None => delete.execute([&**key])?,
                    Some(row) => insert.execute(params![
                        &**key,
                        row.since.cast_signed(),
                        row.until.cast_signed(),
                        &row.value[..]
                    ])?,
                };
            }
        }
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Store;
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let random = getrandom::u64().expect("random octets");
            let path = std::env::temp_dir().join(format!("pagecast-store-{random:016x}"));
            std::fs::create_dir(&path).expect("a folder");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What is left of a failed test is no second failure.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn row(key: &str, until: u64) -> Row {
        Row { key: key.into(), since: 5, until, value: Bytes::from(format!("value of {key}")) }
    }

    #[test]
    fn what_was_written_is_read_again_while_it_is_of_use() {
        let folder = Folder::new();
        let (store, rows) = Store::open(&folder.0, 0, 10).expect("a new store");
        assert!(rows.is_empty());
        for (key, until) in [("a", 100), ("b", 200), ("c", 300)] {
            store.put(Table::Reg, key.into(), Some(row(key, until)), None);
        }
        store.put(Table::Reg, "c".into(), None, None);
        drop(store);
        let (store, rows) = Store::open(&folder.0, 100, 10).expect("the same store");
        assert_eq!(rows, [(Table::Reg, row("b", 200))]);
        drop(store);
        assert_eq!(Store::open(&folder.0, 0, 10).expect("the same").1.len(), 1, "a is gone");
    }

    #[test]
    fn a_file_of_a_newer_version_or_of_somebody_else_is_not_touched() {
        let folder = Folder::new();
        drop(Store::open(&folder.0, 0, 10).expect("a new store"));
        let set = |pragma: &str| {
            let other = Connection::open(folder.0.join(FILE)).expect("the file");
            other.execute_batch(pragma).expect("written");
        };
        set("PRAGMA user_version=2");
        let refused = Store::open(&folder.0, 0, 10).err().expect("refused");
        assert!(matches!(refused, OpenError::Newer { found: 2, known: 1 }), "{refused}");
        set("PRAGMA user_version=1; PRAGMA application_id=7");
        let refused = Store::open(&folder.0, 0, 10).err().expect("refused");
        assert!(matches!(refused, OpenError::Foreign), "{refused}");
        std::fs::write(folder.0.join(FILE), "no database at all, but long enough to be looked at")
            .expect("written");
        let refused = Store::open(&folder.0, 0, 10).err().expect("refused");
        assert!(matches!(refused, OpenError::Unreadable(_)), "{refused}");
    }
}
