//! What waits for the disk, and the writer that takes all of it into one transaction.
//!
//! ```text
//! write ─► waiting ───────────────► commit ─► told Yes or Unmet
//!             │ full, or down          │ fails
//!             ├─ Drop ─► told Down     ├─ Drop ─► told Down
//!             └─ Retry ─► late ◄───────┘ Retry; told Down, too, for nobody waits for a store that is down
//! ```
//! `late` goes before anything newer; while something is in it, nothing is put into `waiting`, so that batches stay in
//! their order.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::{
    Arc, Backend, Batch, Bounds, Change, Condition, Failed, Health, Kept, Row, Sweep, Table,
    Unwritten,
};

/// How often a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A batch and who hears of it.
pub struct Entry {
    pub batch: Batch,
    pub told: Box<dyn FnOnce(Kept) + Send>,
}

/// See the module.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bounds: Bounds,
    commits: OnceLock<Box<dyn Fn(Duration) + Send + Sync>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Entry>,
    /// Of what waits.
    octets: usize,
    changes: usize,
    late: Late,
    down: bool,
    last_error: Option<String>,
    warning: Option<String>,
    /// Changes were left out because too many waited.
    overran: bool,
    stop: bool,
}

impl Queue {
    pub fn new(bounds: Bounds, warning: Option<String>) -> Self {
        let bounds = Bounds {
            batches: bounds.batches.max(1),
            octets: bounds.octets.max(1),
            reads: bounds.reads,
        };
        if let Some(warning) = &warning {
            tracing::warn!(warning, "the store ought to be seen to");
        }
        let state = Mutex::new(State { warning, ..State::default() });
        Self { state, changed: Condvar::new(), bounds, commits: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn on_commit(&self, hear: Box<dyn Fn(Duration) + Send + Sync>) {
        // A second listener is one too many.
        let _ = self.commits.set(hear);
    }

    pub fn health(&self) -> Health {
        let state = self.lock();
        Health {
            up: !state.down,
            last_error: state.last_error.clone(),
            warning: state.warning.clone(),
            pending: state.changes + state.late.len(),
        }
    }

    /// Takes a batch; whoever is not told by the writer is told here.
    pub fn write(&self, entry: Entry) {
        let Entry { batch, told } = entry;
        if !batch.fits() {
            tracing::error!("a row is too large for the store and is not kept");
            told(Kept::Down);
            return;
        }
        let mut state = self.lock();
        let octets = batch.octets();
        let room = state.waiting.is_empty()
            || (state.waiting.len() < self.bounds.batches
                && state.octets + octets <= self.bounds.octets);
        if room && !state.down && !state.stop && state.late.is_empty() {
            state.octets += octets;
            state.changes += batch.changes.len();
            let first = state.waiting.is_empty();
            state.waiting.push(Entry { batch, told });
            drop(state);
            if first {
                self.changed.notify_all();
            }
            return;
        }
        if batch.unwritten == Unwritten::Retry && !state.stop {
            let taken = state.late.add(batch, Some(&self.bounds));
            if !taken && !std::mem::replace(&mut state.overran, true) {
                tracing::warn!(
                    waiting = self.bounds.batches,
                    "too many changes wait for the store; more are not kept"
                );
            }
        }
        drop(state);
        told(Kept::Down);
    }

    /// The writer is to write what waits, once, and end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// The writer's life.
    pub fn run(&self, backend: &mut dyn Backend) {
        while let Some((batches, told)) = self.next() {
            let begun = now();
            let done = if batches.is_empty() {
                backend.probe().map(|()| Vec::new())
            } else {
                backend.commit(&batches)
            };
            let took = now().saturating_duration_since(begun);
            match done {
                Ok(held) => {
                    self.succeeded(backend.warning());
                    if let Some(hear) = self.commits.get().filter(|_| !batches.is_empty()) {
                        hear(took);
                    }
                    for (told, held) in told.into_iter().zip(held) {
                        tell(told, if held { Kept::Yes } else { Kept::Unmet });
                    }
                }
                Err(failed) => {
                    let unheard = self.failed(batches, failed);
                    told.into_iter().chain(unheard).for_each(|told| tell(told, Kept::Down));
                    self.rest();
                }
            }
        }
        self.lock().stop = true;
    }

    /// What to write next; nothing at all to try a store that is down. `None` to end.
    fn next(&self) -> Option<(Vec<Batch>, Vec<Told>)> {
        let mut state = self.lock();
        while state.waiting.is_empty() && state.late.is_empty() && !state.down && !state.stop {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop && state.waiting.is_empty() && state.late.is_empty() {
            return None;
        }
        let (mut batches, told): (Vec<_>, Vec<_>) =
            state.waiting.drain(..).map(|entry| (entry.batch, entry.told)).unzip();
        (state.octets, state.changes) = (0, 0);
        // Nobody waits to hear of these.
        batches.extend(std::mem::take(&mut state.late).into_batches());
        Some((batches, told))
    }

    fn succeeded(&self, warning: Option<String>) {
        let mut state = self.lock();
        state.overran = false;
        state.warning = warning;
        if std::mem::replace(&mut state.down, false) {
            tracing::info!("the store is back");
        }
    }

    /// Keeps what is to be tried again. Returns who waited meanwhile.
    fn failed(&self, batches: Vec<Batch>, failed: Failed) -> Vec<Told> {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.down, true) {
            tracing::error!(
                error = failed.words,
                "the store cannot be written; outcomes wait in memory"
            );
        }
        state.last_error = Some(failed.words);
        (state.octets, state.changes) = (0, 0);
        let mut unheard = Vec::new();
        let newer = std::mem::take(&mut state.late).into_batches();
        let waiting = std::mem::take(&mut state.waiting);
        for batch in batches {
            if batch.unwritten == Unwritten::Retry {
                state.late.add(batch, None);
            } else if failed.in_doubt {
                withdrawn(batch).for_each(|batch| {
                    state.late.add(batch, None);
                });
            }
        }
        for entry in waiting {
            if entry.batch.unwritten == Unwritten::Retry {
                state.late.add(entry.batch, None);
            }
            unheard.push(entry.told);
        }
        // What came last is the newest.
        for batch in newer {
            state.late.add(batch, None);
        }
        if state.stop {
            if !state.late.is_empty() {
                tracing::error!(lost = state.late.len(), "changes are lost with the process");
            }
            state.late = Late::default();
        }
        unheard
    }

    /// Waits a moment before the next try.
    fn rest(&self) {
        let state = self.lock();
        let going = |state: &mut State| !state.stop;
        let rested = self.changed.wait_timeout_while(state, RETRY, going);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }
}

type Told = Box<dyn FnOnce(Kept) + Send>;

/// Tells one of those who wait. Whoever panics over it does not take the writer along, on which all others wait.
fn tell(told: Told, kept: Kept) {
    if catch_unwind(AssertUnwindSafe(|| told(kept))).is_err() {
        tracing::error!("whoever heard of a write panicked");
    }
}

/// Takes back what a batch may have written though it was said not to be: rows that have its very value.
fn withdrawn(batch: Batch) -> impl Iterator<Item = Batch> {
    batch.changes.into_iter().filter_map(|change| {
        let row = change.row?;
        Some(Batch {
            conditions: vec![Condition::Same(change.table, Arc::clone(&change.key), row.value)],
            changes: vec![Change { row: None, ..change }],
            ..Batch::default()
        })
    })
}

/// Outcomes that wait for the store to be back: the last change of each key, together with those that need the same
/// conditions.
#[derive(Default)]
struct Late {
    next: u64,
    groups: BTreeMap<u64, Group>,
    /// Which group has which conditions.
    conditions: HashMap<Vec<Condition>, u64>,
    /// Which group has which row.
    rows: HashMap<(Table, Arc<str>), u64>,
    sweeps: usize,
    octets: usize,
}

#[derive(Default)]
struct Group {
    conditions: Vec<Condition>,
    changes: HashMap<(Table, Arc<str>), Option<Row>>,
    sweeps: Vec<Sweep>,
}

impl Late {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds a batch unless that would be more than the bounds allow. Whether it was added.
    fn add(&mut self, batch: Batch, bounds: Option<&Bounds>) -> bool {
        if let Some(bounds) = bounds {
            let of = |change: &Change| (change.table, Arc::clone(&change.key));
            let new =
                batch.changes.iter().filter(|change| !self.rows.contains_key(&of(change))).count();
            let much = self.octets + batch.octets() > bounds.octets;
            let many = self.rows.len() + self.sweeps + new + batch.sweeps.len() > bounds.batches;
            if (many && new + batch.sweeps.len() > 0) || (much && !self.is_empty()) {
                return false;
            }
        }
        let at = *self.conditions.entry(batch.conditions).or_insert_with_key(|conditions| {
            let at = self.next;
            self.next += 1;
            self.groups.insert(at, Group { conditions: conditions.clone(), ..Group::default() });
            at
        });
        for change in batch.changes {
            self.octets += change.octets();
            let row = (change.table, Arc::clone(&change.key));
            if let Some(before) = self.rows.insert(row.clone(), at) {
                self.supersede(before, &row, before != at);
            }
            if let Some(group) = self.groups.get_mut(&at) {
                group.changes.insert(row, change.row);
            }
        }
        if let Some(group) = self.groups.get_mut(&at) {
            for sweep in batch.sweeps {
                if !group.sweeps.contains(&sweep) {
                    self.sweeps += 1;
                    group.sweeps.push(sweep);
                }
            }
        }
        true
    }

    /// A row of a group is of no use any more.
    fn supersede(&mut self, group: u64, row: &(Table, Arc<str>), may_end: bool) {
        let Some(before) = self.groups.get_mut(&group) else { return };
        if let Some(old) = before.changes.remove(row) {
            let change = Change { table: row.0, key: Arc::clone(&row.1), row: old };
            self.octets -= change.octets();
        }
        if may_end && before.changes.is_empty() && before.sweeps.is_empty() {
            self.conditions.remove(&before.conditions);
            self.groups.remove(&group);
        }
    }

    fn into_batches(self) -> impl Iterator<Item = Batch> {
        self.groups.into_values().map(|group| Batch {
            changes: group
                .changes
                .into_iter()
                .map(|((table, key), row)| Change { table, key, row })
                .collect(),
            conditions: group.conditions,
            sweeps: group.sweeps,
            unwritten: Unwritten::Retry,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the writer has a thread of its own and times its work"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
