//! The durable store of pages on this disk: accepts a second, latency, a million rows. Prints both sides of each ratio.
//!
//! Run by `integration/bench/store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use pagecast::store::{Batch, Bounds, Change, FILE, Kept, Row, Store, Table, Unwritten};
use rusqlite::{Connection, params};

/// Octets of a page's row.
const PAGE: usize = 3 << 10;
/// Octets of the small rows beside it.
const SMALL: usize = 200;
/// Accepts in flight.
const FLIGHT: usize = 64;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where files are made; on the disk that is to be measured
    folder: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rows of the large store
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let time = Duration::from_secs(arguments.seconds);
    throughput(&arguments.folder, time);
    latency(&arguments.folder, time);
    million(&arguments.folder, arguments.rows, time);
}

/// A folder of its own, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(below: &Path, name: &str) -> Self {
        let path = below.join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn open(&self) -> Store {
        let bounds = Bounds { batches: 100_000, octets: 1 << 30, reads: 1000 };
        Store::open(&self.0, 0, bounds).expect("a store").0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keys as a node makes them: in the order of time.
fn key(n: u64) -> Arc<str> {
    format!("{n:016x}/{:08x}", n.wrapping_mul(0x9e37_79b9)).into()
}

fn change(table: Table, n: u64, octets: usize) -> Change {
    let key = key(n);
    let value = Bytes::from(vec![b'x'; octets]);
    Change { table, key: key.clone(), row: Some(Row { key, since: n, until: 1 << 50, value }) }
}

fn accept(n: u64) -> Batch {
    Batch {
        changes: vec![change(Table::Page, n, PAGE), change(Table::Run, n, SMALL)],
        unwritten: Unwritten::Drop,
        ..Batch::default()
    }
}

fn removal(n: u64) -> Batch {
    let gone = |table| Change { table, key: key(n), row: None };
    Batch { changes: vec![gone(Table::Page), gone(Table::Run)], ..Batch::default() }
}

/// Accepts and removals with [`FLIGHT`] accepts in flight; returns accepts a second.
fn accepts(store: &Store, from: u64, time: Duration) -> f64 {
    let (tell, told) = mpsc::channel();
    let give = |n| {
        let tell = tell.clone();
        store.write(accept(n), move |kept| tell.send((n, kept)).expect("we listen"));
    };
    let (begun, mut next, mut kept) = (Instant::now(), from, 0u64);
    while next < from + FLIGHT as u64 {
        give(next);
        next += 1;
    }
    while begun.elapsed() < time {
        let (n, how) = told.recv().expect("the store answers");
        assert_eq!(how, Kept::Yes);
        store.write(removal(n), |_| {});
        kept += 1;
        give(next);
        next += 1;
    }
    let rate = kept as f64 / begun.elapsed().as_secs_f64();
    for _ in 0..FLIGHT {
        let (n, how) = told.recv().expect("the store answers");
        assert_eq!(how, Kept::Yes);
        store.write(removal(n), |_| {});
    }
    rate
}

/// The same rows by a bare loop of SQL, [`FLIGHT`] accepts and as many removals in a transaction.
fn raw(folder: &Folder, time: Duration) -> f64 {
    drop(folder.open());
    let mut file = Connection::open(folder.0.join(FILE)).expect("the file");
    file.execute_batch("PRAGMA synchronous=FULL").expect("set");
    let value = [vec![b'x'; PAGE], vec![b'x'; SMALL]];
    let (begun, mut n) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        let transaction = file.transaction().expect("begun");
        for (table, value) in ["page", "run"].iter().zip(&value) {
            let insert =
                format!("INSERT INTO {table} (key, since, until, value) VALUES (?1, ?2, ?3, ?4)");
            let mut insert = transaction.prepare_cached(&insert).expect("prepared");
            let mut delete = transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))
                .expect("prepared");
            for i in n..n + FLIGHT as u64 {
                insert.execute(params![&*key(i), 0, 1i64 << 50, value]).expect("inserted");
                if let Some(old) = i.checked_sub(FLIGHT as u64) {
                    delete.execute([&*key(old)]).expect("deleted");
                }
            }
        }
        transaction.commit().expect("committed");
        n += FLIGHT as u64;
    }
    n as f64 / begun.elapsed().as_secs_f64()
}

fn throughput(below: &Path, time: Duration) {
    // They take turns, so that a disk that changes its mind changes both.
    let (mut ours, mut bare) = (0.0, 0.0);
    for turn in 0..3 {
        let folder = Folder::new(below, &format!("raw{turn}"));
        bare += raw(&folder, time / 3) / 3.0;
        let folder = Folder::new(below, &format!("ours{turn}"));
        ours += accepts(&folder.open(), 0, time / 3) / 3.0;
    }
    println!(
        "throughput: store {ours:.0} accepts/s, bare SQL {bare:.0} accepts/s, ratio {:.2} (to reach 0.70)",
        ours / bare
    );
}

fn quantile(times: &mut [Duration], of: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * of) as usize]
}

fn latency(below: &Path, time: Duration) {
    let folder = Folder::new(below, "latency");
    let store = folder.open();
    let mut syncs = Vec::new();
    let mut ours = Vec::new();
    let mut file = std::fs::File::create(folder.0.join("plain")).expect("a file");
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < time {
        std::thread::park_timeout(Duration::from_millis(50));
        let at = Instant::now();
        std::io::Write::write_all(&mut file, &[7; 3 * 4096]).expect("written");
        file.sync_data().expect("synced");
        syncs.push(at.elapsed());
        std::thread::park_timeout(Duration::from_millis(50));
        let (tell, told) = mpsc::channel();
        let at = Instant::now();
        store.write(accept(n), move |kept| tell.send(kept).expect("we listen"));
        assert_eq!(told.recv(), Ok(Kept::Yes));
        ours.push(at.elapsed());
        n += 1;
    }
    let (ours, sync) = (quantile(&mut ours, 0.99), quantile(&mut syncs, 0.99));
    let bound = 2 * sync + Duration::from_millis(2);
    let good = if ours <= bound { "within" } else { "BEYOND" };
    println!(
        "latency at 10/s: store p99 {ours:.2?}, fsync p99 {sync:.2?}; {good} two fsyncs + 2 ms = {bound:.2?}"
    );
}

/// Resident memory in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") >> 10
}

fn fill(store: &Store, from: u64, to: u64) {
    let (tell, told) = mpsc::channel();
    let mut waiting = 0;
    for n in (from..to).step_by(100) {
        let rows = n..(n + 100).min(to);
        let changes = rows.flat_map(|n| {
            [
                change(Table::Page, n, PAGE),
                change(Table::Wait, n, SMALL),
                change(Table::Held, n, SMALL),
            ]
        });
        let tell = tell.clone();
        let batch = Batch { changes: changes.collect(), ..Batch::default() };
        store.write(batch, move |kept| tell.send(kept).expect("we listen"));
        waiting += 1;
        if waiting > 20 {
            assert_eq!(told.recv(), Ok(Kept::Yes));
            waiting -= 1;
        }
    }
    (0..waiting).for_each(|_| assert_eq!(told.recv(), Ok(Kept::Yes)));
}

fn million(below: &Path, rows: u64, time: Duration) {
    let folder = Folder::new(below, "million");
    let store = folder.open();
    fill(&store, 0, 1000);
    let few = accepts(&store, 1 << 40, time);
    fill(&store, 1000, rows);
    drop(store);
    let (before, begun) = (resident(), Instant::now());
    let store = folder.open();
    let (took, more) = (begun.elapsed(), resident().saturating_sub(before));
    let (tell, told) = mpsc::channel();
    store.count(Table::Page, move |count| tell.send(count).expect("we listen"));
    assert!(told.recv().expect("told").expect("counted") >= rows);
    println!(
        "{rows} deferred pages: opened in {took:.2?} (at most 10 s), {more} MiB more, {} MiB resident (at most 512 MiB)",
        resident()
    );
    let many = accepts(&store, 1 << 41, time);
    println!(
        "accepts among 1000 rows {few:.0}/s, among {rows} {many:.0}/s: cost ratio {:.2} (at most 1.30); {} MiB resident",
        few / many,
        resident()
    );
}
