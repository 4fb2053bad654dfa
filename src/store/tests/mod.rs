//! What every store does (`suite`), how the queue behaves when the disk does not (`failing`), and what is the file's own
//! (`file`), the database's own (`database`), and left by a process that was killed (`crash`).

mod crash;
mod database;
mod failing;
mod file;
mod suite;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let random = getrandom::u64().expect("random octets");
        let path = std::env::temp_dir().join(format!("pagecast-store-{random:016x}"));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn open(&self) -> Store {
        Store::open(&self.0, 0, Bounds::default()).expect("a store").0
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of a failed test is no second failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn row(key: &str, until: u64, value: &[u8]) -> Row {
    Row { key: key.into(), since: 5, until, value: Bytes::copy_from_slice(value) }
}

fn keep(table: Table, key: &str, value: &str) -> Change {
    Change { table, key: key.into(), row: Some(row(key, 100, value.as_bytes())) }
}

fn take_away(table: Table, key: &str) -> Change {
    Change { table, key: key.into(), row: None }
}

fn batch(changes: impl Into<Vec<Change>>) -> Batch {
    Batch { changes: changes.into(), ..Batch::default() }
}

/// An acceptance: withdrawn if it cannot be written.
fn acceptance(changes: impl Into<Vec<Change>>) -> Batch {
    Batch { unwritten: Unwritten::Drop, ..batch(changes) }
}

fn heard<T>(answer: &mpsc::Receiver<T>) -> T {
    answer.recv_timeout(Duration::from_secs(60)).expect("told in time")
}

/// Gives a batch and returns where its fate will be told.
fn give(store: &Store, batch: Batch) -> mpsc::Receiver<Kept> {
    let (tell, told) = mpsc::channel();
    store.write(batch, move |kept| {
        // A test may not care.
        let _ = tell.send(kept);
    });
    told
}

fn write(store: &Store, batch: Batch) -> Kept {
    heard(&give(store, batch))
}

/// Waits for an answer.
fn answer<T: Send + 'static>(
    ask: impl FnOnce(Box<dyn FnOnce(Result<T, Down>) + Send>),
) -> Result<T, Down> {
    let (tell, told) = mpsc::channel();
    ask(Box::new(move |answer| tell.send(answer).expect("the test waits")));
    heard(&told)
}

fn get(store: &Store, table: Table, key: &str) -> Option<Row> {
    answer(|then| store.get(table, key, then)).expect("read")
}

fn range(
    store: &Store,
    table: Table,
    prefix: &str,
    after: Option<&str>,
    most: usize,
) -> Vec<String> {
    let rows = answer(|then| store.range(table, prefix, after, most, then)).expect("read");
    rows.iter().map(|row| row.key.to_string()).collect()
}

fn lapsed(store: &Store, table: Table, now: u64, most: usize) -> Vec<String> {
    let rows = answer(|then| store.lapsed(table, now, most, then)).expect("read");
    rows.iter().map(|row| row.key.to_string()).collect()
}

fn count(store: &Store, table: Table) -> u64 {
    answer(|then| store.count(table, then)).expect("read")
}
