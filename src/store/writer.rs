//! The thread that writes, the one that reads, and what waits for them.
//!
//! A store that cannot be written is tried again every second, whether anything waits or not, so that it is known when
//! it is back.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Backend, Batch, Health, Hear, Kept, Limits, Source, Table, Unwritten};

/// How often a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// So long without a write, and the store may tidy up.
const IDLE: Duration = Duration::from_secs(1);
/// Most batches of one transaction, and octets of them, about.
const TOGETHER: usize = 4096;
const TOGETHER_OCTETS: usize = 16 << 20;

/// A read that is to be done.
type Read = Box<dyn FnOnce(&mut dyn Source) + Send>;

/// Both threads of a store.
pub struct Writer {
    shared: Arc<Shared>,
    reads: Mutex<Option<mpsc::Sender<Read>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    limits: Limits,
    commits: OnceLock<Box<dyn Fn(Duration) + Send + Sync>>,
}

#[derive(Default)]
struct State {
    /// By the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    /// Of batches about one row: the one that waits.
    of_row: HashMap<(Table, Arc<str>), u64>,
    octets: usize,
    next: u64,
    down: bool,
    last_error: Option<String>,
    /// Batches were left out because too many waited.
    overran: bool,
    stop: bool,
}

struct Waiting {
    batch: Batch,
    /// Whom nobody has told so far.
    told: Vec<Hear>,
}

impl State {
    fn push(&mut self, batch: Batch, told: Vec<Hear>) {
        let number = self.next;
        self.next += 1;
        self.octets += batch.octets();
        if batch.unwritten == Unwritten::Retry
            && let Some(row) = batch.sole_key()
        {
            self.of_row.insert(row, number);
        }
        self.waiting.insert(number, Waiting { batch, told });
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.octets -= waiting.batch.octets();
        if let Some(row) = waiting.batch.sole_key()
            && self.of_row.get(&row) == Some(&number)
        {
            self.of_row.remove(&row);
        }
        Some(waiting)
    }

    /// What goes into the next transaction.
    fn take(&mut self) -> Vec<(u64, Waiting)> {
        let (mut taken, mut octets) = (Vec::new(), 0);
        while taken.len() < TOGETHER && octets < TOGETHER_OCTETS {
            let Some(number) = self.waiting.keys().next().copied() else { break };
            let Some(waiting) = self.remove(number) else { break };
            octets += waiting.batch.octets();
            taken.push((number, waiting));
        }
        taken
    }
}

impl Writer {
    /// Starts both threads.
    pub fn start(
        mut backend: Box<dyn Backend>,
        mut source: Box<dyn Source>,
        limits: Limits,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            limits,
            commits: OnceLock::new(),
        });
        let (reads, asked) = mpsc::channel::<Read>();
        let for_thread = Arc::clone(&shared);
        let writing = std::thread::Builder::new()
            .name("pagecast-store".to_owned())
            .spawn(move || for_thread.write(backend.as_mut()))?;
        let reading =
            std::thread::Builder::new().name("pagecast-reads".to_owned()).spawn(move || {
                for read in asked {
                    read(source.as_mut());
                }
            })?;
        let threads = Mutex::new(vec![writing, reading]);
        Ok(Self { shared, reads: Mutex::new(Some(reads)), threads })
    }

    pub fn on_commit(&self, hear: Box<dyn Fn(Duration) + Send + Sync>) {
        // A second listener is one too many.
        let _ = self.shared.commits.set(hear);
    }

    pub fn write(&self, batch: Batch, told: Hear) {
        if let Some(told) = self.shared.enqueue(batch, told) {
            told(Kept::Down);
        }
    }

    pub fn read(&self, read: Read) {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reads) = reads.as_ref() {
            // A thread that is gone reads nothing: whoever asked finds the answer's channel closed.
            let _ = reads.send(read);
        }
    }

    pub fn health(&self) -> Health {
        let state = self.shared.lock();
        Health {
            up: !state.down,
            last_error: state.last_error.clone(),
            pending: state.waiting.len(),
        }
    }

    pub fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        drop(self.reads.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whom nobody will tell.
    fn enqueue(&self, batch: Batch, told: Hear) -> Option<Hear> {
        let mut state = self.lock();
        let drops = batch.unwritten == Unwritten::Drop;
        if drops && (state.down || state.stop) {
            return Some(told);
        }
        // What was to be written of the same row is out of date.
        let old =
            batch.sole_key().filter(|_| !drops).and_then(|row| state.of_row.get(&row).copied());
        let mut before = Vec::new();
        if let Some(old) = old.and_then(|old| state.remove(old)) {
            before = old.told;
        } else if state.waiting.len() >= self.limits.batches
            || state.octets.saturating_add(batch.octets()) > self.limits.octets
        {
            if !std::mem::replace(&mut state.overran, true) {
                tracing::warn!(
                    batches = state.waiting.len(),
                    octets = state.octets,
                    "too much waits for the store; more is not kept"
                );
            }
            return Some(told);
        }
        if state.down || state.stop {
            state.push(batch, before);
            return Some(told);
        }
        before.push(told);
        state.push(batch, before);
        drop(state);
        self.changed.notify_all();
        None
    }

    /// The writer's life.
    fn write(&self, backend: &mut dyn Backend) {
        loop {
            let Some(taken) = self.wait(backend) else { return };
            let batches: Vec<&Batch> = taken.iter().map(|(_, waiting)| &waiting.batch).collect();
            let begun = now();
            let done = backend.commit(&batches);
            let took = now().saturating_duration_since(begun);
            match done {
                Ok(held) => {
                    self.succeeded();
                    if let Some(hear) = self.commits.get().filter(|_| !held.is_empty()) {
                        hear(took);
                    }
                    for ((_, waiting), held) in taken.into_iter().zip(held) {
                        let kept = if held { Kept::Yes } else { Kept::Unmet };
                        waiting.told.into_iter().for_each(|told| told(kept));
                    }
                }
                Err(error) => {
                    if !self.failed(taken, error) {
                        return;
                    }
                }
            }
        }
    }

    /// What is to be written next; nothing while the store is down is a question whether it is back. `None`: the end.
    fn wait(&self, backend: &mut dyn Backend) -> Option<Vec<(u64, Waiting)>> {
        let mut state = self.lock();
        let mut tidied = false;
        loop {
            if !state.waiting.is_empty() {
                return Some(state.take());
            }
            if state.stop {
                return None;
            }
            if state.down {
                return Some(Vec::new());
            }
            if tidied {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.changed.wait_timeout(state, IDLE);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if timeout.timed_out() && state.waiting.is_empty() && !state.stop {
                drop(state);
                backend.idle();
                tidied = true;
                state = self.lock();
            }
        }
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        state.overran = false;
        if std::mem::replace(&mut state.down, false) {
            tracing::info!("the store is back");
        }
    }

    /// Keeps what has to be written, drops what was not promised, and waits a moment. Whether to go on.
    fn failed(&self, taken: Vec<(u64, Waiting)>, error: String) -> bool {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.down, true) {
            tracing::error!(
                error,
                "the store cannot be written; what has happened waits in memory"
            );
        }
        state.last_error = Some(error);
        let mut told = Vec::new();
        for (number, waiting) in taken {
            told.extend(waiting.told);
            let row = waiting.batch.sole_key();
            // What came meanwhile is newer.
            let newer = row.as_ref().is_some_and(|row| state.of_row.contains_key(row));
            if waiting.batch.unwritten == Unwritten::Retry && !newer {
                state.octets += waiting.batch.octets();
                state.of_row.extend(row.map(|row| (row, number)));
                state.waiting.insert(number, Waiting { told: Vec::new(), ..waiting });
            }
        }
        // Nobody is to wait for a store that is down, and nothing more is promised.
        let numbers: Vec<u64> = state.waiting.keys().copied().collect();
        for number in numbers {
            let drops = state.waiting.get(&number).map(|w| w.batch.unwritten == Unwritten::Drop);
            if drops == Some(true) {
                told.extend(state.remove(number).into_iter().flat_map(|waiting| waiting.told));
            } else if let Some(waiting) = state.waiting.get_mut(&number) {
                told.append(&mut waiting.told);
            }
        }
        if state.stop {
            if !state.waiting.is_empty() {
                tracing::error!(lost = state.waiting.len(), "changes are lost with the process");
            }
            state.waiting.clear();
        }
        drop(state);
        told.into_iter().for_each(|told| told(Kept::Down));
        let state = self.lock();
        let stopped = |state: &mut State| !state.stop;
        let waited = self.changed.wait_timeout_while(state, RETRY, stopped);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        !(state.stop && state.waiting.is_empty())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer has a thread of its own and times its work"
)]
fn now() -> Instant {
    Instant::now()
}
