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

/// A file whose disk has so many pages, and is let go by the test.
struct Limited {
    writer: embedded::Writer,
    pages: Arc<std::sync::atomic::AtomicU32>,
}

impl Limited {
    fn set(&self) {
        self.writer.limit(self.pages.load(std::sync::atomic::Ordering::Relaxed));
    }
}

impl Backend for Limited {
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed> {
        self.set();
        self.writer.commit(batches)
    }

    fn probe(&mut self) -> Result<(), Failed> {
        self.set();
        self.writer.probe()
    }
}

#[test]
fn a_full_disk_refuses_pages_keeps_outcomes_and_loses_nothing() {
    let folder = Folder::new();
    let (writer, reader, _) = embedded::open(&folder.0, 0).expect("a store");
    let pages = Arc::new(std::sync::atomic::AtomicU32::new(100));
    let limited = Limited { writer, pages: Arc::clone(&pages) };
    let store =
        Store::with(Box::new(limited), Box::new(reader), Bounds::default()).expect("threads");
    let page = |n: usize| {
        let key = format!("{n:04}");
        let row = Some(row(&key, 100, &[7; 3000]));
        acceptance([Change { table: Table::Page, key: key.into(), row }])
    };
    let kept = (0..200).take_while(|n| write(&store, page(*n)) == Kept::Yes).count();
    assert!((10..200).contains(&kept), "{kept}");
    let health = store.health();
    assert!(!health.up);
    let error = health.last_error.expect("an error");
    assert!(error.starts_with("the disk is full"), "{error}");
    assert_eq!(write(&store, batch([keep(Table::Run, "outcome", "1")])), Kept::Down);
    assert_eq!(count(&store, Table::Page), kept as u64, "what is there can be read");
    pages.store(1 << 20, std::sync::atomic::Ordering::Relaxed);
    store.close();
    drop(store);
    let store = folder.open();
    assert_eq!(count(&store, Table::Page), kept as u64);
    assert_eq!(get(&store, Table::Run, "outcome"), Some(row("outcome", 100, b"1")));
}

#[test]
fn reads_do_not_wait_for_a_slow_disk() {
    struct Held {
        writer: embedded::Writer,
        begun: mpsc::Sender<()>,
        goes_on: mpsc::Receiver<()>,
    }
    impl Backend for Held {
        fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed> {
            self.begun.send(()).expect("the test waits");
            heard(&self.goes_on);
            self.writer.commit(batches)
        }

        fn probe(&mut self) -> Result<(), Failed> {
            self.writer.probe()
        }
    }
    let folder = Folder::new();
    let (writer, reader, _) = embedded::open(&folder.0, 0).expect("a store");
    let ((begun, begins), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let held = Held { writer, begun, goes_on };
    let store = Store::with(Box::new(held), Box::new(reader), Bounds::default()).expect("threads");
    let first = give(&store, acceptance([keep(Table::Page, "0", "x")]));
    heard(&begins);
    let others: Vec<_> = (1..500)
        .map(|n| give(&store, acceptance([keep(Table::Page, &n.to_string(), "x")])))
        .collect();
    assert_eq!(get(&store, Table::Page, "0"), None, "read while the disk is busy");
    assert_eq!(store.health().pending, 499);
    go_on.send(()).expect("the writer waits");
    assert_eq!(heard(&first), Kept::Yes);
    heard(&begins);
    go_on.send(()).expect("the writer waits");
    assert!(others.iter().all(|told| heard(told) == Kept::Yes), "all in the second commit");
    assert_eq!(count(&store, Table::Page), 500);
}

#[test]
fn a_damaged_file_is_said_to_be_damaged() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 0..200 {
        let change = Change {
            table: Table::Reg,
            key: n.to_string().into(),
            row: Some(row("", 900, &[7; 900])),
        };
        give(&store, batch([change]));
    }
    drop(store);
    let mut octets = std::fs::read(folder.file()).expect("the file");
    octets[4096..].fill(0x5a);
    std::fs::write(folder.file(), octets).expect("written");
    let refused = Store::open(&folder.0, 0, Bounds::default()).err().expect("refused").to_string();
    assert!(refused.starts_with("the file is damaged"), "{refused}");
}
