//! Files of records: one is written, those that are closed wait to be fetched.
//!
//! Start at [`Records`]. A thread of its own writes what has come meanwhile, syncs it, and closes the file when it is large
//! or old enough: `charging-TIME-N.jsonl.part` becomes `charging-TIME-N.jsonl`, which never changes again. Whoever fetches
//! closed files removes them. Nobody waits for the disk: what cannot be written yet waits in memory and is tried again
//! every second.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::Record;

/// How often a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Octets that are given to the disk at a time.
const BATCH: usize = 1 << 20;

/// `[charging]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the files lie.
    pub folder: PathBuf,
    /// `charging.max_file`: a file is closed when it has so many octets,
    pub max_file: u64,
    /// `charging.max_age`: or when its first record is so old.
    pub max_age: Duration,
    /// `charging.disk`: octets of closed files; beyond it the oldest is removed.
    pub disk: u64,
    /// `charging.max_waiting`: records that wait for the disk; beyond it new ones are lost.
    pub max_waiting: usize,
}

/// What became of records since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// On disk.
    pub written: u64,
    /// Never written: too many waited for the disk.
    pub lost: u64,
    /// Closed files that were removed unfetched, for want of room.
    pub removed_files: u64,
}

/// Where records are kept. One for a node, shared by its threads; closed when it is dropped.
#[derive(Debug)]
pub struct Records {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    come: Condvar,
    most: usize,
    written: AtomicU64,
    lost: AtomicU64,
    removed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    closed: bool,
    /// The log has been told that records are lost.
    told: bool,
}

impl Records {
    /// Opens the folder and closes what an earlier run left open; a line that was half written at a crash is cut off.
    ///
    /// # Errors
    /// The folder cannot be made, read or written.
    pub fn open(settings: Settings) -> io::Result<Self> {
        fs::create_dir_all(&settings.folder)?;
        close_left_over(&settings.folder)?;
        let mut files = Files::new(settings)?;
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            come: Condvar::new(),
            most: files.settings.max_waiting,
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            removed: AtomicU64::new(0),
        });
        let writing = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("charging".to_owned())
            .spawn(move || writing.write(&mut files))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Keeps records. Never waits; what there is no room for is lost, counted and told in the log.
    pub fn keep(&self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let mut waiting = self.shared.lock();
        for record in records {
            if waiting.lines.len() >= self.shared.most {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut waiting.told, true) {
                    tracing::error!(
                        key = "charging.max_waiting",
                        "charging records are lost: too many wait for the disk"
                    );
                }
                continue;
            }
            let mut line = serde_json::to_vec(record).expect("texts, numbers and times");
            line.push(b'\n');
            waiting.lines.push_back(line);
        }
        drop(waiting);
        self.shared.come.notify_one();
    }

    /// What became of records so far.
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.shared.written.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            removed_files: self.shared.removed.load(Ordering::Relaxed),
        }
    }

    /// Writes what waits, if that can be done, and closes the file.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.come.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the writer of charging records has panicked");
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A push cannot leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, files: &mut Files) {
        loop {
            let (lines, closed) = self.next(files.closes_in());
            let count = lines.len() as u64;
            if let Err(error) = files.append(&lines) {
                tracing::error!(%error, folder = %files.settings.folder.display(), "charging records cannot be written");
                let mut waiting = self.lock();
                for line in lines.into_iter().rev() {
                    waiting.lines.push_front(line);
                }
                if closed {
                    let lost = waiting.lines.len();
                    self.lost.fetch_add(lost as u64, Ordering::Relaxed);
                    tracing::error!(lost, "charging records are lost");
                    return;
                }
                drop(self.come.wait_timeout_while(waiting, RETRY, |waiting| !waiting.closed));
                continue;
            }
            self.written.fetch_add(count, Ordering::Relaxed);
            if count > 0 {
                self.lock().told = false;
            }
            let left = closed && self.lock().lines.is_empty();
            match files.turn(left) {
                Ok(removed) => {
                    self.removed.fetch_add(removed, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::error!(%error, "a file of charging records cannot be closed")
                }
            }
            if left {
                return;
            }
        }
    }

    /// Lines to write; none when a file is to be closed or the end has come.
    fn next(&self, patience: Option<Duration>) -> (Vec<Vec<u8>>, bool) {
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.closed;
        let mut waiting = match patience {
            None => self.come.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.come.wait_timeout_while(self.lock(), patience, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mut octets = 0;
        let mut fits = |line: &Vec<u8>| {
            octets += line.len();
            octets <= BATCH
        };
        let count = waiting.lines.iter().take_while(|line| fits(line)).count().max(1);
        let count = count.min(waiting.lines.len());
        (waiting.lines.drain(..count).collect(), waiting.closed)
    }
}

/// The file that is written, and the closed ones.
struct Files {
    settings: Settings,
    open: Option<Open>,
    /// Closed, oldest first, with their sizes.
    closed: VecDeque<(PathBuf, u64)>,
    number: u64,
}

struct Open {
    file: File,
    path: PathBuf,
    size: u64,
    since: Instant,
}

const PART: &str = "part";
const CLOSED: &str = "jsonl";

impl Files {
    fn new(settings: Settings) -> io::Result<Self> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&settings.folder)? {
            let path = entry?.path();
            if is_ours(&path) && path.extension().is_some_and(|end| end == CLOSED) {
                let size = fs::metadata(&path)?.len();
                closed.push((path, size));
            }
        }
        // By their names, which begin with the time.
        closed.sort();
        Ok(Self { settings, open: None, closed: closed.into(), number: 0 })
    }

    /// How long the open file may stay open.
    fn closes_in(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        Some(self.settings.max_age.saturating_sub(now().duration_since(open.since)))
    }

    /// Writes lines and has them on disk, all or none.
    fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                self.number += 1;
                none.insert(Open::begin(&self.settings.folder, self.number)?)
            }
        };
        let octets = lines.concat();
        let written = open.file.write_all(&octets).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // Whatever is there now is written anew: here, or in another file where this one cannot be cut any more.
            let cut = open.file.set_len(open.size);
            if cut.and_then(|()| open.file.seek(SeekFrom::Start(open.size))).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.size += octets.len() as u64;
        Ok(())
    }

    /// Closes the open file if it is time, and makes room; tells how many files were removed for that.
    fn turn(&mut self, over: bool) -> io::Result<u64> {
        let due = self.open.as_ref().is_some_and(|open| {
            over || open.size >= self.settings.max_file
                || now().duration_since(open.since) >= self.settings.max_age
        });
        if due && let Some(open) = self.open.take() {
            let name = open.path.with_extension("");
            fs::rename(&open.path, &name)?;
            sync_folder(&self.settings.folder)?;
            self.closed.push_back((name, open.size));
        }
        // Those that were fetched take no room any more.
        let mut octets: u64 = 0;
        self.closed.retain(|(path, size)| {
            let there = path.exists();
            octets += if there { *size } else { 0 };
            there
        });
        let mut removed = 0;
        while octets > self.settings.disk
            && let Some((path, size)) = self.closed.pop_front()
        {
            tracing::error!(
                key = "charging.disk",
                file = %path.display(),
                "charging records that nobody has fetched are removed: there is no room for more"
            );
            fs::remove_file(&path)?;
            octets -= size;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Open {
    fn begin(folder: &Path, number: u64) -> io::Result<Self> {
        let at = crate::flow::rfc3339(wall_clock()).replace([':', '-', '.'], "");
        let path = folder.join(format!("charging-{at}-{number}.{CLOSED}.{PART}"));
        let file = OpenOptions::new().create_new(true).write(true).open(&path)?;
        sync_folder(folder)?;
        Ok(Self { file, path, size: 0, since: now() })
    }
}

/// The writer is a thread of its own, with real time.
#[expect(clippy::disallowed_methods, reason = "a file is named and closed by the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "a file is named and closed by the clock")]
fn now() -> Instant {
    Instant::now()
}

fn is_ours(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("charging-"))
}

/// What a crash left open is cut behind its last whole line and closed.
fn close_left_over(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !is_ours(&path) || path.extension().is_none_or(|end| end != PART) {
            continue;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let whole = whole_lines(&mut file)?;
        if whole == 0 {
            fs::remove_file(&path)?;
            continue;
        }
        file.set_len(whole)?;
        file.sync_all()?;
        fs::rename(&path, path.with_extension(""))?;
    }
    sync_folder(folder)
}

/// The octets up to the last line feed.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let piece = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// So that a name is there after a crash.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
