//! What the file looks like, and how one of an older version is brought up to it.
//!
//! | format | tables |
//! |---|---|
//! | 1 | `reg`, `shsub` |
//! | 2 | those of [`Table::ALL`], each in the order of its keys and by the time its rows lapse |

use rusqlite::{Connection, Transaction};

use super::super::{OpenError, Table};

/// The format this version writes.
pub const FORMAT: i64 = 2;
/// How SQLite knows our files: "page".
const APPLICATION: i64 = 0x7061_6765;

/// Refuses what is not ours or too new. A file that is still empty is set to give back room it does not need.
pub fn check(connection: &Connection) -> Result<(), OpenError> {
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
        connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
    }
    Ok(())
}

/// Makes what is missing.
pub fn bring_up(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let format: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for table in Table::ALL {
        let name = table.name();
        // Rows of a table without row ids lie in the order of their keys: one tree less, and good for small values only.
        let form = if is_large(table) { "" } else { " WITHOUT ROWID" };
        transaction.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (key TEXT NOT NULL PRIMARY KEY, since INTEGER NOT NULL, \
             until INTEGER NOT NULL, value BLOB NOT NULL){form}; \
             CREATE INDEX IF NOT EXISTS {name}_until ON {name} (until)"
        ))?;
        if format == 1 {
            // Times beyond what it counts had a sign in format 1.
            let latest = i64::MAX;
            transaction
                .execute_batch(&format!("UPDATE {name} SET until = {latest} WHERE until < 0"))?;
        }
    }
    stamp(transaction)
}

/// Says whose file it is, and of which format.
pub fn stamp(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(&format!(
        "PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}"
    ))
}

/// Whether its rows are often as large as a page of the file.
fn is_large(table: Table) -> bool {
    matches!(table, Table::Page | Table::Chunk | Table::Held)
}
