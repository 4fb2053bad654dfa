//! What is the file's own: formats, damage, full disks.

use rusqlite::Connection;

use super::*;

fn sql(folder: &Folder, sql: &str) {
    let other = Connection::open(folder.file()).expect("the file");
    other.execute_batch(sql).expect("done");
}

/// What a fresh start finds loaded.
fn loaded(folder: &Folder, now: u64) -> Vec<(Table, Row)> {
    Store::open(&folder.0, now, Bounds::default()).expect("the same store").1
}

#[test]
fn what_was_written_is_read_again_while_it_is_of_use() {
    let folder = Folder::new();
    let store = folder.open();
    for (key, until) in [("a", 100), ("b", 200), ("c", 300)] {
        let row = Some(row(key, until, b"x"));
        store.put(Table::Reg, key.into(), row.clone(), None);
        let page = Change { table: Table::Page, key: key.into(), row };
        assert_eq!(write(&store, batch([page])), Kept::Yes);
    }
    store.put(Table::Reg, "c".into(), None, None);
    drop(store);
    assert_eq!(loaded(&folder, 100), [(Table::Reg, row("b", 200, b"x"))]);
    assert_eq!(loaded(&folder, 0).len(), 1, "a is gone");
    let store = folder.open();
    assert_eq!(count(&store, Table::Page), 3, "pages are not anybody's to forget");
    assert_eq!(lapsed(&store, Table::Page, 200, 9), ["a", "b"]);
}

/// The file as version 0.1.0 made it.
const FORMAT_1: &str = "PRAGMA journal_mode=WAL;
    CREATE TABLE reg (key TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE shsub (key TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    INSERT INTO reg VALUES ('sip:alice@example.net', 5, 1000, x'01'), ('sip:bob@example.net', 5, 10, x'02');
    INSERT INTO shsub VALUES ('sip:alice@example.net', 5, -1, x'03');
    PRAGMA application_id=1885431653; PRAGMA user_version=1;";

#[test]
fn a_file_of_format_1_is_brought_up() {
    let folder = Folder::new();
    sql(&folder, FORMAT_1);
    let rows = loaded(&folder, 100);
    let latest = i64::MAX.cast_unsigned();
    let alice = "sip:alice@example.net";
    let expected = [(Table::Reg, row(alice, 1000, &[1])), (Table::ShSub, row(alice, latest, &[3]))];
    assert_eq!(rows, expected);
    let store = folder.open();
    assert_eq!(write(&store, batch([keep(Table::Page, "p", "x")])), Kept::Yes);
    drop(store);
    let file = Connection::open(folder.file()).expect("the file");
    let format: i64 =
        file.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    assert_eq!(format, FORMAT);
    drop(file);
    assert_eq!(loaded(&folder, 100), expected);
}

#[test]
fn a_file_of_a_newer_version_or_of_somebody_else_is_not_touched() {
    let folder = Folder::new();
    drop(folder.open());
    let refused = || Store::open(&folder.0, 0, Bounds::default()).err().expect("refused");
    sql(&folder, "PRAGMA user_version=3");
    let error = refused();
    assert!(matches!(error, OpenError::Newer { found: 3, known: 2 }), "{error}");
    sql(&folder, "PRAGMA user_version=2; PRAGMA application_id=7");
    let error = refused();
    assert!(matches!(error, OpenError::Foreign), "{error}");
    std::fs::write(folder.file(), "no database at all, but long enough to be looked at")
        .expect("written");
    let error = refused().to_string();
    assert!(error.starts_with("the file is no database"), "{error}");
}
