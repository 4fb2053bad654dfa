//! A page's octets, held once for all recipients.
//!
//! Start at [`Spools`], one per node, which makes a [`Spool`] per page. One writer puts octets in by position, in any
//! order; readers take them with cursors of their own as soon as everything before them is there. The newest part of a
//! page stays in memory, older blocks go to a file that is written behind, and leave memory once a reader has had them
//! or there is no more room; small pages never touch the disk. The file goes away with the page. Knows no protocol. Follows MS-063, MS-085, MS-091, MS-092, IM-071.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::Notify;

/// Octets of one block: the unit of sealing and reading back.
pub const BLOCK: usize = 64 * 1024;
/// Octets that are kept where they are rather than copied. They may keep a read buffer of [`BLOCK`] octets alive, so
/// that a page can hold up to eight times the memory it is counted with, if its sender wraps little into much.
const SHARE: usize = 8 * 1024;
/// Octets written to the file in one go, about.
const BATCH: usize = 2 << 20;
/// The file is not written for less than this, unless the page is whole or there is no more room.
const PIECE: u64 = 1 << 20;
/// Octets a page may have in memory while its file is written and its readers catch up, even if it is to keep few.
const WINDOW: u64 = 8 << 20;
/// Octets read back in one go.
const BACK: usize = 4 * BLOCK;

/// How much pages may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of all pages, memory and disk.
    pub total: u64,
    /// Octets of one page kept in memory; while the rest is written as many again, or 8 MiB if that is more.
    pub page_memory: u64,
    /// Octets of all pages in memory; above it a page keeps one block only.
    pub total_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 4 << 30, page_memory: 4 << 20, total_memory: 256 << 20 }
    }
}

/// All spools of a node.
#[derive(Debug, Clone)]
pub struct Spools(Arc<Node>);

#[derive(Debug)]
struct Node {
    dir: Option<PathBuf>,
    limits: Limits,
    octets: AtomicU64,
    memory: AtomicU64,
    files: AtomicU64,
    spools: AtomicU64,
    room: Notify,
}

/// What spools hold at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub spools: u64,
    pub octets: u64,
    pub memory: u64,
    pub files: u64,
}

impl Spools {
    /// Spools whose files lie in `dir`; without one everything stays in memory. Files a former process left are removed.
    ///
    /// # Errors
    /// `dir` cannot be made or read.
    pub fn new(dir: Option<&Path>, limits: Limits) -> io::Result<Self> {
        if let Some(dir) = dir {
            std::fs::create_dir_all(dir)?;
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "page") {
                    std::fs::remove_file(path)?;
                }
            }
        }
        Ok(Self(Arc::new(Node {
            dir: dir.map(Path::to_path_buf),
            limits,
            octets: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            files: AtomicU64::new(0),
            spools: AtomicU64::new(0),
            room: Notify::new(),
        })))
    }

    /// An empty spool. `name` is unique and fit for a file name.
    pub fn open(&self, name: String) -> Arc<Spool> {
        self.0.spools.fetch_add(1, Ordering::Relaxed);
        Arc::new(Spool {
            node: Arc::clone(&self.0),
            name,
            about: OnceLock::new(),
            inner: Mutex::new(Inner::default()),
        })
    }

    /// What is held now.
    pub fn stats(&self) -> Stats {
        Stats {
            spools: self.0.spools.load(Ordering::Relaxed),
            octets: self.0.octets.load(Ordering::Relaxed),
            memory: self.0.memory.load(Ordering::Relaxed),
            files: self.0.files.load(Ordering::Relaxed),
        }
    }

    /// Tells when a refused write may fit.
    pub fn room(&self) -> &Notify {
        &self.0.room
    }
}

/// What the octets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// As the sender wrote it.
    pub content_type: Arc<str>,
    /// The type inside a `message/cpim`, where it could be read.
    pub inner: Option<Arc<str>>,
    /// The sender's word about the whole size.
    pub total: Option<u64>,
    /// When its first octets came.
    pub since: Instant,
}

/// The octets of one page.
#[derive(Debug)]
pub struct Spool {
    node: Arc<Node>,
    name: String,
    about: OnceLock<About>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Everything from `spilled` to `stored`, in order.
    blocks: VecDeque<Block>,
    /// Octets from the start without a hole.
    stored: u64,
    /// Octets behind a hole, by position; they never overlap.
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_octets: u64,
    /// Octets some reader has taken, or whose content was judged: they cannot change any more.
    fixed: u64,
    /// Readers may look.
    open: bool,
    /// Length of the whole, once known.
    len: Option<u64>,
    /// All of it was here when its end was last told.
    done: bool,
    /// It will never be whole.
    lost: bool,
    /// Octets that are on disk: the first ones.
    written: u64,
    /// Octets that are on disk only.
    spilled: u64,
    /// The furthest any reader has come.
    seen: u64,
    spilling: bool,
    /// Times it was cleared.
    cleared: u32,
    disk_failed: bool,
    file: Option<Arc<File>>,
    /// Readers to wake, by their numbers.
    waiters: SmallVec<[(u32, Waker); 1]>,
    /// Counted in the node's totals.
    octets: u64,
    memory: u64,
}

#[derive(Debug)]
struct Block {
    /// Position of its first octet.
    at: u64,
    octets: Octets,
    /// It holds no seven hyphens in a row.
    plain: bool,
}

#[derive(Debug)]
enum Octets {
    /// At most [`BLOCK`].
    Growing(Vec<u8>),
    Sealed(Bytes),
}

/// No room now; nothing was written (MS-092).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool has no room")]
pub struct Full;

/// The page's end lies before octets that are here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page ends before octets already received")]
pub struct Short;

/// What a reader gets.
#[derive(Debug)]
pub enum Read {
    /// The next octets, at least one.
    Data(Bytes),
    /// The same, and there are no seven hyphens in a row among them.
    Plain(Bytes),
    /// They are on disk; [`DiskRead::run`] blocks.
    Disk(DiskRead),
    /// Nothing there yet.
    Wait,
    /// The cursor is behind the last octet.
    End,
    /// The page will never be whole.
    Lost,
}

/// A part of a page that is on disk.
#[derive(Debug)]
pub struct DiskRead {
    file: Arc<File>,
    at: u64,
    len: usize,
}

impl DiskRead {
    /// Reads it; blocks.
    ///
    /// # Errors
    /// What the file system says.
    pub fn run(self) -> io::Result<Bytes> {
        let mut octets = vec![0; self.len];
        self.file.read_exact_at(&mut octets, self.at)?;
        Ok(octets.into())
    }
}

impl Spool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held half changed; going on is better than losing the node.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `octets` at position `at` (0 is the first) and returns how many of them came too late, because those
    /// before them had been read already.
    ///
    /// MS-063: what comes last wins unless it was forwarded.
    ///
    /// # Errors
    /// [`Full`]; nothing was written, try again after [`Spools::room`].
    pub fn write(self: &Arc<Self>, at: u64, octets: &[u8]) -> Result<u64, Full> {
        self.take_in(at, octets, None)
    }

    /// The same for octets that may be kept without a copy. `plain`: there are no seven hyphens in a row among them.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn share(self: &Arc<Self>, at: u64, octets: &Bytes, plain: bool) -> Result<u64, Full> {
        self.take_in(at, octets, Some((octets, plain)))
    }

    fn take_in(
        self: &Arc<Self>,
        at: u64,
        octets: &[u8],
        shared: Option<(&Bytes, bool)>,
    ) -> Result<u64, Full> {
        let mut inner = self.lock();
        if inner.lost {
            return Ok(octets.len() as u64);
        }
        let limit = inner.len.unwrap_or(u64::MAX);
        let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let octets = &octets[..octets.len().min(room)];
        let hard = self.hard_bound();
        if inner.in_blocks() >= hard {
            inner.shed(self.page_memory(), false);
            inner.shed(hard.saturating_sub(octets.len() as u64 + BLOCK as u64), true);
        }
        let crowded = self.node.dir.is_some() && inner.in_blocks() >= hard;
        let total = self.node.octets.load(Ordering::Relaxed) + octets.len() as u64;
        if (total > self.node.limits.total || crowded) && !octets.is_empty() {
            self.count(&mut inner);
            drop(inner);
            self.spill();
            return Err(Full);
        }
        let late = inner.put(at, octets, shared);
        self.settle(inner);
        Ok(late)
    }

    /// Says where the page ends. Octets behind it are dropped. It is whole if they are all here; else this has to be told
    /// again when more are: what fills a hole may still be taken back.
    ///
    /// # Errors
    /// [`Short`] when more than `len` octets are there already.
    pub fn finish(self: &Arc<Self>, len: u64) -> Result<(), Short> {
        let mut inner = self.lock();
        if inner.stored > len {
            return Err(Short);
        }
        inner.len = Some(len);
        inner.cut_ahead(len, u64::MAX);
        inner.done = inner.stored == len;
        if inner.is_whole()
            && let Some(last) = inner.blocks.back_mut()
        {
            last.seal();
        }
        self.settle(inner);
        Ok(())
    }

    /// The page will never be whole: readers hear it at their next read.
    pub fn lose(self: &Arc<Self>) {
        let mut inner = self.lock();
        if !(inner.is_whole() && inner.open) {
            (inner.lost, inner.open) = (true, true);
            // Nobody reads any of it again.
            inner.blocks.clear();
            inner.ahead.clear();
            (inner.stored, inner.ahead_octets) = (0, 0);
            (inner.written, inner.spilled) = (0, 0);
        }
        self.settle(inner);
    }

    /// Lets readers look; the first `judged` octets cannot be replaced any more.
    pub fn publish(self: &Arc<Self>, about: About, judged: u64) {
        // The first description stays: there is one page in a spool.
        let _ = self.about.set(about);
        let mut inner = self.lock();
        inner.open = true;
        inner.fixed = inner.fixed.max(judged);
        self.settle(inner);
    }

    /// Forgets everything written so far; only before [`Spool::publish`].
    pub fn clear(self: &Arc<Self>) {
        let mut inner = self.lock();
        if !inner.open {
            let before = std::mem::take(&mut *inner);
            *inner = Inner {
                waiters: before.waiters,
                octets: before.octets,
                memory: before.memory,
                file: before.file,
                spilling: before.spilling,
                cleared: before.cleared + 1,
                ..Inner::default()
            };
        }
        self.settle(inner);
    }

    /// What the octets are, once published.
    pub fn about(&self) -> Option<&About> {
        self.about.get()
    }

    /// Octets from the start without a hole.
    pub fn stored(&self) -> u64 {
        self.lock().stored
    }

    /// Octets a reader can get now.
    pub fn readable(&self) -> u64 {
        let inner = self.lock();
        if inner.open { inner.stored } else { 0 }
    }

    /// Length of the whole page, once every octet is here.
    pub fn whole(&self) -> Option<u64> {
        let inner = self.lock();
        inner.len.filter(|_| inner.is_whole())
    }

    /// The page was given up.
    pub fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Shows the first octets, at most one block, whether published or not.
    pub fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let inner = self.lock();
        match inner.blocks.front() {
            Some(first) if first.at == 0 => look(first.octets.as_slice()),
            Some(_) | None => look(&[]),
        }
    }

    /// The octets from `at` on, at most `max` of them. With [`Read::Wait`] the waker of reader `who` is kept and woken
    /// at the next change.
    pub fn read(&self, at: u64, max: usize, who: u32, waker: Option<&Waker>) -> Read {
        let mut inner = self.lock();
        if inner.lost {
            return Read::Lost;
        }
        if inner.open && at < inner.stored {
            return inner.take(at, max);
        }
        if inner.open && inner.is_whole() {
            return Read::End;
        }
        if let Some(waker) = waker {
            match inner.waiters.binary_search_by_key(&who, |(who, _)| *who) {
                Ok(at) => inner.waiters[at].1.clone_from(waker),
                Err(at) => inner.waiters.insert(at, (who, waker.clone())),
            }
        }
        Read::Wait
    }

    /// Drops the waker of a reader that has gone.
    pub fn leave(&self, who: u32) {
        self.lock().waiters.retain(|(other, _)| *other != who);
    }

    fn page_memory(&self) -> u64 {
        let limits = &self.node.limits;
        if self.node.memory.load(Ordering::Relaxed) > limits.total_memory {
            BLOCK as u64
        } else {
            limits.page_memory
        }
    }

    /// Octets of one page in memory at which its sender has to wait.
    fn hard_bound(&self) -> u64 {
        let crowded = self.node.memory.load(Ordering::Relaxed) > self.node.limits.total_memory;
        let window = if crowded { 2 * BLOCK as u64 } else { WINDOW };
        self.page_memory().saturating_mul(2).max(window)
    }

    /// After every change: totals, wakers, spilling.
    fn settle(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>) {
        self.count(&mut inner);
        let waiters = if inner.open { std::mem::take(&mut inner.waiters) } else { SmallVec::new() };
        let spill = self.wants_spill(&inner);
        drop(inner);
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
        if spill {
            self.spill();
        }
    }

    fn count(&self, inner: &mut Inner) {
        let memory = inner.in_blocks() + inner.ahead_octets;
        let octets = inner.stored + inner.ahead_octets;
        let moved = |total: &AtomicU64, from: u64, to: u64| {
            if to >= from {
                total.fetch_add(to - from, Ordering::Relaxed);
            } else {
                total.fetch_sub(from - to, Ordering::Relaxed);
            }
        };
        moved(&self.node.octets, inner.octets, octets);
        moved(&self.node.memory, inner.memory, memory);
        (inner.octets, inner.memory) = (octets, memory);
    }

    fn wants_spill(&self, inner: &Inner) -> bool {
        if self.node.dir.is_none() || inner.spilling || inner.disk_failed || inner.lost {
            return false;
        }
        let surplus = (inner.stored - inner.written).saturating_sub(self.page_memory());
        surplus > 0
            && (surplus >= PIECE || inner.done || inner.in_blocks() >= self.hard_bound())
            && matches!(inner.unwritten().next(), Some(Block { octets: Octets::Sealed(_), .. }))
    }

    /// Starts writing old blocks to the file, away from the thread that serves sockets.
    fn spill(self: &Arc<Self>) {
        {
            let mut inner = self.lock();
            if !self.wants_spill(&inner) {
                return;
            }
            inner.spilling = true;
        }
        let spool = Arc::clone(self);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || spool.spill_blocks())),
            Err(_) => spool.spill_blocks(),
        }
    }

    fn spill_blocks(&self) {
        loop {
            let (batch, start, end, file, cleared) = {
                let mut inner = self.lock();
                inner.spilling = false;
                if !self.wants_spill(&inner) {
                    return;
                }
                inner.spilling = true;
                let (mut batch, mut octets) = (Vec::new(), 0);
                for block in inner.unwritten() {
                    let Octets::Sealed(sealed) = &block.octets else { break };
                    batch.push(sealed.clone());
                    octets += sealed.len();
                    if octets >= BATCH {
                        break;
                    }
                }
                let (start, end) = (inner.written, inner.written + octets as u64);
                // What is being written cannot be replaced any more.
                inner.fixed = inner.fixed.max(end);
                (batch, start, end, inner.file.clone(), inner.cleared)
            };
            let written = file
                .map_or_else(|| self.make_file(), Ok)
                .and_then(|file| write_out(&file, start, &batch).map(|()| file));
            drop(batch);
            let mut inner = self.lock();
            match written {
                Ok(file) => {
                    inner.file = Some(file);
                    if inner.lost {
                        inner.spilling = false;
                        return;
                    }
                    if inner.cleared == cleared {
                        inner.written = end;
                        inner.shed(self.page_memory(), false);
                    }
                }
                Err(error) => {
                    // The page stays in memory; the hard bound stops its sender.
                    tracing::error!(page = %self.name, %error, "spool file cannot be written");
                    inner.disk_failed = true;
                    inner.spilling = false;
                    return;
                }
            }
            self.count(&mut inner);
            drop(inner);
            self.node.room.notify_waiters();
        }
    }

    fn path(&self) -> Option<PathBuf> {
        self.node.dir.as_ref().map(|dir| dir.join(format!("{}.page", self.name)))
    }

    fn make_file(&self) -> io::Result<Arc<File>> {
        let path = self.path().ok_or(io::ErrorKind::NotFound)?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        self.node.files.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(file))
    }
}

/// Writes `octets` from position `at` on. The only one who moves the file's cursor.
fn write_out(mut file: &File, at: u64, octets: &[Bytes]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut slices: Vec<_> = octets.iter().map(|octets| IoSlice::new(octets)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Spool {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.node.octets.fetch_sub(inner.octets, Ordering::Relaxed);
        self.node.memory.fetch_sub(inner.memory, Ordering::Relaxed);
        self.node.spools.fetch_sub(1, Ordering::Relaxed);
        if inner.file.take().is_some() {
            self.node.files.fetch_sub(1, Ordering::Relaxed);
            if let Some(path) = self.path()
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(page = %self.name, %error, "spool file cannot be removed");
            }
        }
        self.node.room.notify_waiters();
    }
}

impl Inner {
    fn is_whole(&self) -> bool {
        self.done
    }

    /// Octets in blocks that are in memory.
    fn in_blocks(&self) -> u64 {
        self.stored - self.spilled
    }

    /// Blocks that are not on disk yet.
    fn unwritten(&self) -> impl Iterator<Item = &Block> {
        let from = self.blocks.partition_point(|block| block.at < self.written);
        self.blocks.range(from..)
    }

    /// Drops blocks that are on disk while there are more than `keep` octets in memory; those nobody has read only if
    /// `unread`.
    fn shed(&mut self, keep: u64, unread: bool) {
        let reach = if unread { self.written } else { self.written.min(self.seen) };
        while self.in_blocks() > keep
            && let Some(first) = self.blocks.front()
            && first.at + first.len() as u64 <= reach
        {
            self.spilled = first.at + first.len() as u64;
            self.blocks.pop_front();
        }
    }

    fn take(&mut self, at: u64, max: usize) -> Read {
        let read = if at < self.spilled {
            let Some(file) = self.file.clone() else { return Read::Lost };
            let there = usize::try_from(self.spilled - at).unwrap_or(usize::MAX);
            Read::Disk(DiskRead { file, at, len: max.min(BACK).min(there) })
        } else {
            let block = &self.blocks[self.block_at(at)];
            let offset = (at - block.at) as usize;
            let end = block.len().min(offset.saturating_add(max));
            match &block.octets {
                Octets::Growing(octets) => Read::Data(Bytes::copy_from_slice(&octets[offset..end])),
                Octets::Sealed(octets) if block.plain => Read::Plain(octets.slice(offset..end)),
                Octets::Sealed(octets) => Read::Data(octets.slice(offset..end)),
            }
        };
        let taken = match &read {
            Read::Data(octets) | Read::Plain(octets) => octets.len(),
            Read::Disk(disk) => disk.len,
            Read::Wait | Read::End | Read::Lost => 0,
        };
        self.seen = self.seen.max(at + taken as u64);
        self.fixed = self.fixed.max(self.seen);
        read
    }

    /// The block that holds the octet at `at`, which is in memory.
    fn block_at(&self, at: u64) -> usize {
        self.blocks.partition_point(|block| block.at <= at) - 1
    }

    /// Stores `octets`, which `shared` may hold as well; returns how many were too late.
    fn put(&mut self, at: u64, octets: &[u8], shared: Option<(&Bytes, bool)>) -> u64 {
        let end = at + octets.len() as u64;
        let late = self.fixed.min(end).saturating_sub(at);
        let old = self.stored.min(end).saturating_sub(at);
        if late < old {
            self.replace(at + late, &octets[late as usize..old as usize]);
        }
        if end <= self.stored {
            return late;
        }
        let (at, octets) = (at + old, &octets[old as usize..]);
        let shared = shared.map(|(shared, plain)| (shared.slice_ref(octets), plain));
        self.cut_ahead(at, end);
        if at > self.stored {
            self.ahead_octets += octets.len() as u64;
            match self.ahead.range_mut(..at).next_back() {
                Some((start, before)) if start + before.len() as u64 == at => {
                    before.extend_from_slice(octets);
                }
                _ => {
                    self.ahead.insert(at, octets.to_vec());
                }
            }
            return late;
        }
        match shared {
            // Before that the first octets may still be looked at, in one piece.
            Some((shared, plain)) if octets.len() >= SHARE && (self.open || at >= BLOCK as u64) => {
                self.append_block(Octets::Sealed(shared), plain);
            }
            Some(_) | None => self.append(octets),
        }
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() == self.stored
        {
            let octets = entry.remove();
            self.ahead_octets -= octets.len() as u64;
            self.append(&octets);
        }
        late
    }

    fn append(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            match self.blocks.back_mut() {
                Some(Block { octets: Octets::Growing(block), .. }) if block.len() < BLOCK => {
                    let taken = octets.len().min(BLOCK - block.len());
                    block.extend_from_slice(&octets[..taken]);
                    self.stored += taken as u64;
                    octets = &octets[taken..];
                }
                _ => self.append_block(Octets::Growing(Vec::new()), false),
            }
        }
        if let Some(last) = self.blocks.back_mut()
            && last.len() == BLOCK
        {
            last.seal();
        }
    }

    fn append_block(&mut self, octets: Octets, plain: bool) {
        if let Some(last) = self.blocks.back_mut() {
            last.seal();
        }
        let at = self.stored;
        self.stored += octets.as_slice().len() as u64;
        self.blocks.push_back(Block { at, octets, plain });
    }

    /// Removes [from, to) of what lies behind a hole: newer octets take its place.
    fn cut_ahead(&mut self, from: u64, to: u64) {
        let before = self.ahead.range(..from).next_back().map(|(start, _)| *start);
        let within = self.ahead.range(from..to).map(|(start, _)| *start);
        let touched: Vec<u64> = before.into_iter().chain(within).collect();
        for start in touched {
            let Some(mut octets) = self.ahead.remove(&start) else { continue };
            self.ahead_octets -= octets.len() as u64;
            let end = start + octets.len() as u64;
            if end > to {
                self.keep_ahead(to, octets[(to - start) as usize..].to_vec());
            }
            if start < from {
                octets.truncate((from - start) as usize);
                self.keep_ahead(start, octets);
            }
        }
    }

    fn keep_ahead(&mut self, at: u64, octets: Vec<u8>) {
        self.ahead_octets += octets.len() as u64;
        self.ahead.insert(at, octets);
    }

    /// Replaces octets nobody has seen; what is on disk stays.
    fn replace(&mut self, at: u64, octets: &[u8]) {
        let on_disk = self.spilled.saturating_sub(at).min(octets.len() as u64);
        let (mut at, mut octets) = (at + on_disk, &octets[on_disk as usize..]);
        while !octets.is_empty() {
            let index = self.block_at(at);
            let block = &mut self.blocks[index];
            let offset = (at - block.at) as usize;
            let taken = octets.len().min(block.len() - offset);
            let place = offset..offset + taken;
            block.plain = false;
            match &mut block.octets {
                Octets::Growing(block) => block[place].copy_from_slice(&octets[..taken]),
                Octets::Sealed(block) => {
                    let mut copy = block.to_vec();
                    copy[place].copy_from_slice(&octets[..taken]);
                    *block = copy.into();
                }
            }
            octets = &octets[taken..];
            at += taken as u64;
        }
    }
}

impl Block {
    fn len(&self) -> usize {
        self.octets.as_slice().len()
    }

    fn seal(&mut self) {
        if let Octets::Growing(octets) = &mut self.octets {
            self.octets = Octets::Sealed(std::mem::take(octets).into());
        }
    }
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Growing(octets) => octets,
            Self::Sealed(octets) => octets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn about() -> About {
        let since = tokio::time::Instant::now().into_std();
        About { content_type: Arc::from("text/plain"), inner: None, total: None, since }
    }

    fn octets(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 253) as u8).collect()
    }

    fn read_all(spool: &Spool) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match spool.read(all.len() as u64, 1 << 20, 1, None) {
                Read::Data(octets) => all.extend_from_slice(&octets),
                Read::Plain(octets) => {
                    assert!(!octets.windows(7).any(|run| run == b"-------"));
                    all.extend_from_slice(&octets);
                }
                Read::Disk(disk) => all.extend_from_slice(&disk.run().expect("the file is there")),
                Read::Wait | Read::End | Read::Lost => return all,
            }
        }
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("pagecast-{name}-{}", std::process::id()))
    }

    #[test]
    fn old_blocks_go_to_a_file_that_goes_with_the_page() {
        let dir = temporary("spill");
        let limits = Limits { page_memory: 2 * BLOCK as u64, ..Limits::default() };
        let spools = Spools::new(Some(&dir), limits).expect("a directory");
        let spool = spools.open("p1".into());
        let page = octets(200 * BLOCK + 17);
        spool.write(0, &page[..2 * BLOCK]).expect("room");
        assert_eq!(spools.stats().files, 0, "small pages never touch the disk");
        for (n, part) in page[2 * BLOCK..].chunks(1000).enumerate() {
            spool.write((2 * BLOCK + n * 1000) as u64, part).expect("room");
        }
        spool.publish(about(), 0);
        spool.finish(page.len() as u64).expect("nothing is behind it");
        let stats = spools.stats();
        assert_eq!((stats.octets, stats.files), (page.len() as u64, 1));
        assert!(stats.memory <= WINDOW + BLOCK as u64, "{stats:?}");
        let unwritten = spool.stored() - spool.lock().written;
        assert!(unwritten <= limits.page_memory, "{unwritten}");
        assert_eq!(read_all(&spool), page);
        let held = spool.read(0, 100, 1, None);
        drop(spool);
        assert_eq!(spools.stats(), Stats::default());
        assert_eq!(std::fs::read_dir(&dir).expect("a directory").count(), 0);
        // Who holds a part of the file can still read it.
        let Read::Disk(disk) = held else { panic!("{held:?}") };
        assert_eq!(disk.run().expect("still open"), page[..100]);
        // What a dead process left is removed.
        std::fs::write(dir.join("old.page"), b"x").expect("written");
        drop(Spools::new(Some(&dir), limits).expect("a directory"));
        assert_eq!(std::fs::read_dir(&dir).expect("a directory").count(), 0);
        std::fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn a_page_of_the_disk_that_fails_stays_in_memory() {
        let dir = temporary("nodisk");
        let limits = Limits { page_memory: BLOCK as u64, ..Limits::default() };
        let spools = Spools::new(Some(&dir), limits).expect("a directory");
        std::fs::remove_dir(&dir).expect("empty");
        let spool = spools.open("p1".into());
        let page = octets(WINDOW as usize);
        spool.write(0, &page).expect("room");
        assert_eq!(spool.write(WINDOW, b"x"), Err(Full), "the hard bound holds");
        spool.publish(about(), 0);
        assert_eq!(read_all(&spool), page);
    }

    #[test]
    fn the_node_total_bounds_all_pages() {
        let limits = Limits { total: 100, ..Limits::default() };
        let spools = Spools::new(None, limits).expect("no directory needed");
        let (a, b) = (spools.open("a".into()), spools.open("b".into()));
        assert_eq!(a.write(0, &[0; 60]), Ok(0));
        assert_eq!(b.write(0, &[0; 41]), Err(Full));
        assert_eq!(b.write(5, &[0; 40]), Ok(0));
        assert_eq!(spools.stats().octets, 100);
        assert_eq!(b.write(0, &[]), Ok(0));
        drop(a);
        assert_eq!(b.write(0, &[0; 5]), Ok(0));
        assert_eq!((b.stored(), spools.stats().octets), (45, 45));
        b.lose();
        assert_eq!(spools.stats().octets, 0);
        assert!(matches!(b.read(0, 1, 1, None), Read::Lost));
    }

    #[test]
    fn what_a_reader_has_had_leaves_memory_once_it_is_on_disk() {
        let dir = temporary("seen");
        let limits = Limits { page_memory: 2 * BLOCK as u64, ..Limits::default() };
        let spools = Spools::new(Some(&dir), limits).expect("a directory");
        let spool = spools.open("p1".into());
        spool.publish(about(), 0);
        let page = octets(9 * BLOCK);
        let mut got = Vec::new();
        for (n, part) in page.chunks(BLOCK).enumerate() {
            spool.write((n * BLOCK) as u64, part).expect("room");
            if n < 7 {
                match spool.read(got.len() as u64, BLOCK, 1, None) {
                    Read::Data(octets) => got.extend_from_slice(&octets),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(spools.stats().memory, 9 * BLOCK as u64, "too few to write them");
        spool.finish(page.len() as u64).expect("right");
        assert_eq!(spool.lock().written, 9 * BLOCK as u64);
        assert_eq!(spools.stats().memory, 2 * BLOCK as u64);
        assert!(matches!(spool.read(0, 10, 1, None), Read::Disk(_)));
        assert!(matches!(spool.read(7 * BLOCK as u64, 10, 1, None), Read::Data(_)));
        assert_eq!(read_all(&spool), page);
        drop(spool);
        std::fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn crowded_nodes_keep_one_block_of_a_page() {
        let dir = temporary("crowd");
        let limits = Limits { total_memory: BLOCK as u64, ..Limits::default() };
        let spools = Spools::new(Some(&dir), limits).expect("a directory");
        let spool = spools.open("p1".into());
        for n in 0..6 {
            spool.write((n * BLOCK) as u64, &octets(BLOCK)).expect("room");
        }
        assert!(spools.stats().memory <= 2 * BLOCK as u64, "{:?}", spools.stats());
        drop(spool);
        std::fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn readers_wait_for_what_is_not_there_yet() {
        use std::sync::atomic::AtomicUsize;
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::Relaxed);
        let spools = Spools::new(None, Limits::default()).expect("no directory needed");
        let spool = spools.open("p1".into());
        let wait = |at| matches!(spool.read(at, 10, 1, Some(&waker)), Read::Wait);
        assert!(wait(0));
        spool.write(0, b"hello").expect("room");
        assert!(wait(0), "not published yet");
        assert_eq!((woken(), spool.readable(), spool.stored()), (0, 0, 5));
        spool.publish(about(), 0);
        assert_eq!((woken(), spool.readable()), (1, 5));
        assert!(matches!(spool.read(2, 2, 1, Some(&waker)), Read::Data(o) if o == b"ll"[..]));
        assert!(wait(5));
        spool.write(8, b"x").expect("room");
        spool.leave(1);
        spool.write(5, b"abc").expect("room");
        assert_eq!(woken(), 2);
        assert_eq!((spool.readable(), spool.whole()), (9, None));
        assert!(wait(9));
        assert_eq!(spool.finish(8), Err(Short));
        spool.finish(9).expect("right");
        assert_eq!((woken(), spool.whole()), (3, Some(9)));
        assert!(matches!(spool.read(9, 1, 1, None), Read::End));
        assert_eq!(read_all(&spool), b"helloabcx");
        spool.lose();
        assert!(!spool.is_lost(), "a whole page cannot be lost any more");
        assert_eq!(spool.about().map(|about| &*about.content_type), Some("text/plain"));
    }

    #[test]
    fn judged_octets_stay_and_clearing_starts_again() {
        let spools = Spools::new(None, Limits::default()).expect("no directory needed");
        let spool = spools.open("p1".into());
        spool.write(0, b"control").expect("room");
        spool.finish(7).expect("right");
        assert_eq!(spool.peek(<[u8]>::to_vec), b"control");
        spool.clear();
        assert_eq!((spool.stored(), spools.stats().octets, spool.whole()), (0, 0, None));
        spool.write(0, b"From: a..").expect("room");
        spool.publish(about(), 5);
        assert_eq!(spool.write(0, b"Evil: bcdef"), Ok(5));
        assert_eq!(read_all(&spool), b"From: bcdef");
        spool.clear();
        assert_eq!(spool.stored(), 11, "too late");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_last_write_wins_wherever_nobody_has_read(
            writes in prop::collection::vec((0..200_000_usize, 1..70_000_usize, b'*'..b'0', any::<bool>()), 1..25),
            reads in prop::collection::vec(any::<bool>(), 25),
        ) {
            let spools = Spools::new(None, Limits::default()).expect("no directory needed");
            let spool = spools.open("p1".into());
            spool.publish(about(), 0);
            let mut model: Vec<Option<u8>> = Vec::new();
            let mut seen = Vec::new();
            for ((at, len, value, shared), read) in writes.into_iter().zip(reads) {
                let octets = vec![value; len];
                let late = if shared {
                    spool.share(at as u64, &octets.into(), value != b'-')
                } else {
                    spool.write(at as u64, &octets)
                };
                let late = late.expect("room");
                prop_assert_eq!(late as usize, seen.len().min(at + len).saturating_sub(at));
                model.resize(model.len().max(at + len), None);
                model[at.max(seen.len())..(at + len).max(seen.len())].fill(Some(value));
                if read {
                    seen = read_all(&spool);
                }
                let there = model.iter().take_while(|octet| octet.is_some()).count();
                prop_assert_eq!(spool.stored() as usize, there);
                let known = model.iter().flatten().count() as u64;
                prop_assert_eq!((spools.stats().octets, spools.stats().memory), (known, known));
            }
            let expect: Vec<u8> = model.into_iter().map_while(|octet| octet).collect();
            prop_assert_eq!(read_all(&spool), expect);
        }
    }
}
