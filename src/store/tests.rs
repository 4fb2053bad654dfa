//! Every store by the same rules, and what is special about some.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use super::memory::Rows;
use super::writer::Writer;
use super::*;

const ROOM: Limits = Limits { batches: 10_000, octets: 64 << 20 };

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let random = getrandom::u64().expect("random octets");
        let path = std::env::temp_dir().join(format!("pagecast-store-{random:016x}"));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn open(&self) -> Store {
        Store::open(&self.0, 0, ROOM).expect("a store").0
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

fn set(table: Table, key: &str, until: u64) -> Change {
    Change { table, key: key.into(), row: Some(row(key, until)) }
}

fn gone(table: Table, key: &str) -> Change {
    Change { table, key: key.into(), row: None }
}

fn changes(changes: impl Into<Vec<Change>>) -> Batch {
    Batch { changes: changes.into(), ..Batch::new(Unwritten::Drop) }
}

fn told<T: Send + 'static>(ask: impl FnOnce(mpsc::Sender<T>)) -> T {
    let (tell, told) = mpsc::channel();
    ask(tell);
    told.recv_timeout(Duration::from_secs(10)).expect("told in time")
}

fn write(store: &Store, batch: Batch) -> Kept {
    told(|tell| store.write(batch, move |kept| tell.send(kept).expect("the test waits")))
}

fn range(
    store: &Store,
    table: Table,
    prefix: &str,
    after: Option<&str>,
    most: usize,
) -> Vec<String> {
    let rows = told(|tell| {
        store.range(table, prefix, after, most, move |rows| tell.send(rows).expect("as above"));
    });
    rows.expect("readable").into_iter().map(|row| row.key.to_string()).collect()
}

fn all(store: &Store, table: Table) -> Vec<String> {
    range(store, table, "", None, usize::MAX >> 1)
}

fn count(store: &Store, table: Table) -> u64 {
    told(|tell| store.count(table, move |n| tell.send(n).expect("as above"))).expect("readable")
}

/// Runs a test on every kind of store.
fn every_store(test: impl Fn(&Store)) {
    test(&Store::memory());
    let folder = Folder::new();
    test(&folder.open());
}

#[test]
fn what_is_written_is_read_in_the_order_of_keys() {
    every_store(|store| {
        let keys = ["b 2", "a 1", "b 10", "b 1", "c", "b\u{e9}"];
        let batch: Vec<Change> = keys.iter().map(|key| set(Table::Wait, key, 9)).collect();
        assert_eq!(write(store, changes(batch)), Kept::Yes);
        assert_eq!(range(store, Table::Wait, "b ", None, 10), ["b 1", "b 10", "b 2"]);
        assert_eq!(range(store, Table::Wait, "b ", None, 2), ["b 1", "b 10"]);
        assert_eq!(range(store, Table::Wait, "b ", Some("b 10"), 10), ["b 2"]);
        assert_eq!(range(store, Table::Wait, "b", Some("a 1"), 1), ["b 1"]);
        assert_eq!(range(store, Table::Wait, "d", None, 10), [""; 0]);
        assert_eq!(all(store, Table::Held), [""; 0], "tables are apart");
        assert_eq!(count(store, Table::Wait), 6);
        let found = told(|tell| {
            store.get(Table::Wait, "a 1", move |row| tell.send(row).expect("the test waits"));
        });
        assert_eq!(found, Ok(Some(row("a 1", 9))));
        assert_eq!(
            write(store, changes([gone(Table::Wait, "a 1"), gone(Table::Wait, "z")])),
            Kept::Yes
        );
        let found = told(|tell| {
            store.get(Table::Wait, "a 1", move |row| tell.send(row).expect("the test waits"));
        });
        assert_eq!(found, Ok(None));
    });
}

#[test]
fn a_batch_whose_conditions_do_not_hold_leaves_everything_as_it_is() {
    every_store(|store| {
        write(store, changes([set(Table::Wait, "bob 1", 9), set(Table::Node, "as1", 9)]));
        let with = |condition: Condition| Batch {
            conditions: vec![condition],
            ..changes([gone(Table::Wait, "bob 1"), set(Table::Run, "page/as1", 9)])
        };
        let value = Bytes::from_static(b"value of as1");
        for (condition, holds) in [
            (Condition::Present(Table::Wait, "bob 2".into()), false),
            (Condition::Present(Table::Held, "bob 1".into()), false),
            (Condition::Same(Table::Node, "as1".into(), Bytes::from_static(b"other")), false),
            (Condition::Same(Table::Node, "as2".into(), value.clone()), false),
            (Condition::Fewer(Table::Wait, "bob ".into(), 1), false),
            (Condition::Fewer(Table::Wait, "bob ".into(), 2), true),
            (Condition::Fewer(Table::Wait, "carol ".into(), 1), true),
            (Condition::Same(Table::Node, "as1".into(), value), true),
        ] {
            write(store, changes([set(Table::Wait, "bob 1", 9), gone(Table::Run, "page/as1")]));
            let kept = write(store, with(condition.clone()));
            assert_eq!(kept, if holds { Kept::Yes } else { Kept::Unmet }, "{condition:?}");
            let here = all(store, Table::Wait).is_empty();
            assert_eq!((here, all(store, Table::Run).len()), (holds, usize::from(holds)));
        }
        let claim = Batch {
            conditions: vec![Condition::Present(Table::Wait, "bob 1".into())],
            ..changes([gone(Table::Wait, "bob 1")])
        };
        write(store, changes([set(Table::Wait, "bob 1", 9)]));
        let claims = [write(store, claim.clone()), write(store, claim)];
        assert_eq!(claims, [Kept::Yes, Kept::Unmet], "one of two gets it");
    });
}

#[test]
fn what_nobody_refers_to_goes() {
    every_store(|store| {
        let sweep = || Batch {
            sweeps: vec![Sweep {
                unless: vec![(Table::Run, "p1".into()), (Table::Held, "p1".into())],
                rows: vec![(Table::Page, "p1".into()), (Table::Chunk, "p1".into())],
            }],
            ..changes([])
        };
        let body =
            [set(Table::Page, "p1", 9), set(Table::Chunk, "p1/0", 9), set(Table::Chunk, "p1/1", 9)];
        write(store, changes(body));
        write(store, changes([set(Table::Page, "p2", 9), set(Table::Held, "p1/3", 9)]));
        assert_eq!(write(store, sweep()), Kept::Yes);
        assert_eq!(all(store, Table::Page), ["p1", "p2"], "a leg waits");
        write(store, changes([gone(Table::Held, "p1/3"), set(Table::Run, "p1/as2", 9)]));
        write(store, sweep());
        assert_eq!(all(store, Table::Page), ["p1", "p2"], "a node serves it");
        write(store, Batch { changes: vec![gone(Table::Run, "p1/as2")], ..sweep() });
        assert_eq!(all(store, Table::Page), ["p2"]);
        assert_eq!(all(store, Table::Chunk), [""; 0]);
    });
}

#[test]
fn what_is_past_is_found_the_oldest_first() {
    every_store(|store| {
        let rows = [("a", 50), ("b", 10), ("c", 30), ("d", 31)];
        write(store, changes(rows.map(|(key, until)| set(Table::Wait, key, until))));
        let lapsed = |now, most| {
            let rows = told(|tell| {
                store.lapsed(Table::Wait, now, most, move |rows| {
                    tell.send(rows).expect("the test waits");
                });
            });
            rows.expect("readable").into_iter().map(|row| row.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(lapsed(30, 10), ["b", "c"]);
        assert_eq!(lapsed(99, 3), ["b", "c", "d"]);
        assert_eq!(lapsed(9, 3), [""; 0]);
    });
}

// ---- the file ---------------------------------------------------------------------------------------------------

#[test]
fn what_was_written_is_there_after_a_restart_while_it_is_of_use() {
    let folder = Folder::new();
    let (store, rows) = Store::open(&folder.0, 0, ROOM).expect("a new store");
    assert!(rows.is_empty());
    for (key, until) in [("a", 100), ("b", 200), ("c", 300)] {
        store.put(Table::Reg, key.into(), Some(row(key, until)), None);
    }
    store.put(Table::Reg, "c".into(), None, None);
    write(&store, changes([set(Table::Wait, "bob 1", 50), set(Table::Page, "p1", 50)]));
    drop(store);
    let (store, rows) = Store::open(&folder.0, 100, ROOM).expect("the same store");
    assert_eq!(rows, [(Table::Reg, row("b", 200))]);
    assert_eq!(all(&store, Table::Wait), ["bob 1"], "what waits is not taken away unasked");
    assert_eq!(all(&store, Table::Page), ["p1"]);
    drop(store);
    assert_eq!(Store::open(&folder.0, 0, ROOM).expect("the same").1.len(), 1, "a is gone");
}

/// The file as version 0.1.0 made it.
#[test]
fn a_file_of_an_older_version_is_taken_along() {
    let folder = Folder::new();
    let old = Connection::open(folder.0.join(FILE)).expect("a file");
    old.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("WAL");
    for table in ["reg", "shsub"] {
        let make = format!(
            "CREATE TABLE {table} (key TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER NOT NULL, \
             value BLOB NOT NULL) WITHOUT ROWID; INSERT INTO {table} VALUES ('of {table}', 5, 900, x'01')"
        );
        old.execute_batch(&make).expect("made");
    }
    old.execute_batch("PRAGMA application_id=0x70616765; PRAGMA user_version=1").expect("marked");
    drop(old);
    let (store, rows) = Store::open(&folder.0, 100, ROOM).expect("opened");
    let keys: BTreeSet<&str> = rows.iter().map(|(_, row)| &*row.key).collect();
    assert_eq!(keys, BTreeSet::from(["of reg", "of shsub"]));
    assert_eq!(write(&store, changes([set(Table::Page, "p1", 9)])), Kept::Yes);
    drop(store);
    let new = Connection::open(folder.0.join(FILE)).expect("the file");
    let format: i64 = new.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    assert_eq!(format, FORMAT);
}

#[test]
fn a_file_of_a_newer_version_or_of_somebody_else_is_not_touched() {
    let folder = Folder::new();
    drop(folder.open());
    let set = |pragma: &str| {
        let other = Connection::open(folder.0.join(FILE)).expect("the file");
        other.execute_batch(pragma).expect("written");
    };
    set("PRAGMA user_version=3");
    let refused = Store::open(&folder.0, 0, ROOM).err().expect("refused");
    assert!(matches!(refused, OpenError::Newer { found: 3, known: 2 }), "{refused}");
    set("PRAGMA user_version=2; PRAGMA application_id=7");
    let refused = Store::open(&folder.0, 0, ROOM).err().expect("refused");
    assert!(matches!(refused, OpenError::Foreign), "{refused}");
    // The shared memory of the log goes with its file.
    for name in [FILE.to_owned(), format!("{FILE}-wal"), format!("{FILE}-shm")] {
        let _ = std::fs::remove_file(folder.0.join(name));
    }
    std::fs::write(folder.0.join(FILE), "no database at all, but long enough to be looked at")
        .expect("written");
    let refused = Store::open(&folder.0, 0, ROOM).err().expect("refused");
    assert!(matches!(refused, OpenError::Unreadable(_)), "{refused}");
}

/// What was taken away leaves no room behind for ever.
#[test]
#[expect(clippy::disallowed_methods, reason = "another thread is waited for")]
fn the_file_becomes_smaller_again() {
    let folder = Folder::new();
    let (mut file, _, _) = embedded::open(&folder.0, 0).expect("a new file");
    let big = |n: usize| {
        let key: Arc<str> = format!("p/{n}").into();
        let value = Bytes::from(vec![7; 200_000]);
        let row = Row { key: Arc::clone(&key), since: 0, until: 9, value };
        Change { table: Table::Chunk, key, row: Some(row) }
    };
    file.commit(&[&changes((0..50).map(big).collect::<Vec<_>>())]).expect("written");
    let size = || std::fs::metadata(folder.0.join(FILE)).expect("the file").len();
    // With nothing else to do the log is carried over, by another thread, and room is given back.
    let until = |what: &str, reached: &dyn Fn() -> bool| {
        let begun = std::time::Instant::now();
        while !reached() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {} octets", size());
            std::thread::yield_now();
        }
    };
    file.idle();
    until("it does not grow", &|| size() > 8_000_000);
    let gone: Vec<Change> = (0..50).map(|n| gone(Table::Chunk, &format!("p/{n}"))).collect();
    file.commit(&[&changes(gone)]).expect("written");
    file.idle();
    until("it does not shrink", &|| size() < 3_000_000);
}

// ---- the writer -------------------------------------------------------------------------------------------------

/// A backend in the hands of a test.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    broken: bool,
    commits: usize,
    rows: Rows,
}

impl Backend for Fake {
    fn commit(&mut self, batches: &[&Batch]) -> Result<Vec<bool>, String> {
        let mut inside = self.0.lock().expect("no panic");
        if inside.broken {
            return Err("disk full".to_owned());
        }
        inside.commits += usize::from(!batches.is_empty());
        Ok(batches.iter().map(|batch| inside.rows.apply(batch)).collect())
    }
}

impl Fake {
    fn store(&self, batches: usize) -> Store {
        let limits = Limits { batches, ..ROOM };
        let writer = Writer::start(Box::new(self.clone()), Box::new(Rows::default()), limits);
        Store(Inside::Durable(writer.expect("threads")))
    }

    fn breaks(&self, broken: bool) {
        self.0.lock().expect("no panic").broken = broken;
    }

    fn values(&self) -> Vec<(String, Bytes)> {
        let rows = self.0.lock().expect("no panic").rows.range(Table::Reg, "", None, 1000);
        let rows = rows.expect("memory can be read").into_iter();
        rows.map(|row| (row.key.to_string(), row.value)).collect()
    }
}

fn put(store: &Store, key: &str, value: &'static str) -> bool {
    let row =
        Row { key: key.into(), since: 1, until: 2, value: Bytes::from_static(value.as_bytes()) };
    told(|tell| {
        let told: Told = Box::new(move |kept| tell.send(kept).expect("the test waits"));
        store.put(Table::Reg, key.into(), Some(row), Some(told));
    })
}

#[test]
fn what_is_put_is_kept_and_told() {
    let fake = Fake::default();
    let store = fake.store(10);
    assert!(put(&store, "a", "1") && put(&store, "a", "2"));
    assert_eq!(fake.values(), [("a".to_owned(), Bytes::from_static(b"2"))]);
    assert_eq!(store.health(), Health { up: true, last_error: None, pending: 0 });
}

/// Proves ISC-046.
#[test]
fn a_store_that_is_down_holds_nobody_up_and_gets_what_has_happened_when_it_is_back() {
    let fake = Fake::default();
    let store = fake.store(3);
    fake.breaks(true);
    assert!(!put(&store, "a", "1"), "told that it is not kept yet");
    let health = store.health();
    assert_eq!((health.up, health.pending), (false, 1));
    assert_eq!(health.last_error.as_deref(), Some("disk full"));
    for (key, value) in [("b", "1"), ("c", "1"), ("a", "2"), ("d", "beyond the bound")] {
        assert!(!put(&store, key, value));
    }
    assert_eq!(store.health().pending, 3);
    assert_eq!(write(&store, changes([set(Table::Page, "p", 9)])), Kept::Down, "not promised");
    assert_eq!(store.health().pending, 3, "and dropped");
    fake.breaks(false);
    // The next try is at most a second away; closing is one, too.
    store.close();
    let kept = fake.values();
    let expected = [("a", "2"), ("b", "1"), ("c", "1")];
    assert_eq!(kept, expected.map(|(k, v)| (k.to_owned(), Bytes::from_static(v.as_bytes()))));
    assert_eq!((store.health().up, store.health().pending), (true, 0));
}

/// It is known when the store is back, though nothing waits for it.
#[test]
#[expect(clippy::disallowed_methods, reason = "another thread is waited for")]
fn a_store_that_is_back_says_so_by_itself() {
    let fake = Fake::default();
    let store = fake.store(3);
    fake.breaks(true);
    assert_eq!(write(&store, changes([set(Table::Page, "p", 9)])), Kept::Down);
    assert_eq!((store.health().up, store.health().pending), (false, 0));
    fake.breaks(false);
    let begun = std::time::Instant::now();
    while !store.health().up {
        assert!(begun.elapsed() < Duration::from_secs(10), "it stays down");
        std::thread::yield_now();
    }
    assert_eq!(write(&store, changes([set(Table::Page, "p", 9)])), Kept::Yes);
}

#[test]
fn many_batches_share_a_commit() {
    let fake = Fake::default();
    let store = fake.store(1000);
    let (tell, told) = mpsc::channel();
    let holds = fake.0.lock().expect("no panic");
    for n in 0..500 {
        let tell = tell.clone();
        let batch = changes([set(Table::Page, &format!("p{n}"), 9)]);
        store.write(batch, move |kept| tell.send(kept).expect("the test waits"));
    }
    drop(holds);
    for _ in 0..500 {
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Kept::Yes));
    }
    let commits = fake.0.lock().expect("no panic").commits;
    assert!(commits <= 2, "{commits} commits");
}

#[test]
fn so_many_octets_wait_and_no_more() {
    let fake = Fake::default();
    let limits = Limits { batches: 100, octets: 10_000 };
    let writer = Writer::start(Box::new(fake.clone()), Box::new(Rows::default()), limits);
    let store = Store(Inside::Durable(writer.expect("threads")));
    let big = |key: &str| {
        let value = Bytes::from(vec![1; 4000]);
        let row = Row { key: key.into(), since: 1, until: 2, value };
        changes([Change { table: Table::Page, key: key.into(), row: Some(row) }])
    };
    let (tell, told) = mpsc::channel();
    let holds = fake.0.lock().expect("no panic");
    for n in 0..6 {
        let tell = tell.clone();
        store.write(big(&n.to_string()), move |kept| tell.send(kept).expect("the test waits"));
    }
    drop(holds);
    let mut heard: Vec<Kept> =
        (0..6).map(|_| told.recv_timeout(Duration::from_secs(10)).expect("told")).collect();
    heard.sort_by_key(|kept| *kept == Kept::Yes);
    // One may be in the writer's hands already.
    assert!(heard[..3].iter().all(|kept| *kept == Kept::Down), "{heard:?}");
    assert_eq!(heard[5], Kept::Yes);
    assert_eq!(write(&store, big("later")), Kept::Yes);
}
