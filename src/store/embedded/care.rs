//! Keeps the file small while nobody waits: works the log into it, and gives back what is free.
//!
//! SQLite would do the first within a commit once the log has some length, and that commit would take as long as the disk
//! needs for all of it. Here a thread does it beside the commits (`PASSIVE`). Commits that follow each other closely keep
//! the log from being begun again, so that it grows; then they wait for a short rest (`RESTART`).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::words;

/// Octets of the log after which it is worked in.
const GROWN: usize = 16 << 20;
/// Frames of the log (4 KiB each) after which commits are made to wait.
const LONG: i64 = 32_768;
/// Without a commit for so long the store is idle.
const IDLE: Duration = Duration::from_secs(2);
/// Pages given back at a time.
const STEP: u32 = 256;

/// The thread, and the turns writers take with it.
pub struct Care {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Held by whoever writes.
    turn: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Octets written since the log was looked at, about.
    grown: usize,
    commits: u64,
    stop: bool,
}

impl Care {
    pub fn start(connection: Connection) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("pagecast-care".to_owned())
            .spawn(move || for_thread.run(&connection))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the thread from writing meanwhile.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was committed.
    pub fn committed(&self, octets: usize) {
        let mut state = self.shared.lock();
        state.commits += 1;
        state.grown += octets;
        if state.grown >= GROWN {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the keeper of the store's file had panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, connection: &Connection) {
        // The log may be long from before.
        let (mut seen, mut tidy) = (0, false);
        loop {
            let state = self.lock();
            let nothing = |state: &mut State| !state.stop && state.grown < GROWN;
            let (mut state, waited) = self
                .changed
                .wait_timeout_while(state, IDLE, nothing)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
            let idle = waited.timed_out() && state.commits == seen;
            tidy = tidy && state.commits == seen;
            seen = state.commits;
            let grown = state.grown >= GROWN;
            if grown {
                state.grown = 0;
            }
            drop(state);
            let done = match (grown, idle && !tidy) {
                (true, _) => self.work_in(connection),
                (false, true) => self.tidy(connection, seen).map(|whole| tidy = whole),
                (false, false) => Ok(()),
            };
            if let Err(error) = done {
                // Commits go on as long as the log may grow; they will say what is wrong with the disk.
                tracing::warn!(error = words(&error), "the store's log cannot be worked in");
            }
        }
    }

    /// Works the log into the file beside the commits; if it has grown long, they wait until it can begin again.
    fn work_in(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        if checkpoint(connection, "PASSIVE")? < LONG {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(connection, "RESTART").map(|_| ())
    }

    /// Gives back what is free and ends the log. Whether all of it was done before another commit came.
    fn tidy(&self, connection: &Connection, commits: u64) -> Result<bool, rusqlite::Error> {
        checkpoint(connection, "PASSIVE")?;
        loop {
            let wanted = {
                let state = self.lock();
                state.stop || state.commits != commits
            };
            if wanted {
                return Ok(false);
            }
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            let gives: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
            if free == 0 || gives == 0 {
                break;
            }
            let mut step =
                connection.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP})"))?;
            let mut rows = step.query([])?;
            while rows.next()?.is_some() {}
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(connection, "TRUNCATE")?;
        self.lock().grown = 0;
        Ok(true)
    }
}

/// Returns the frames of the log.
fn checkpoint(connection: &Connection, how: &str) -> Result<i64, rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| row.get(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_given_back_and_the_log_ends() {
        let random = getrandom::u64().expect("random octets");
        let path = std::env::temp_dir().join(format!("pagecast-care-{random:016x}"));
        let file = Connection::open(&path).expect("a file");
        let sql =
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
            CREATE TABLE page (value BLOB)";
        file.execute_batch(sql).expect("made");
        for _ in 0..1000 {
            file.execute("INSERT INTO page VALUES (zeroblob(3000))", []).expect("inserted");
        }
        let log = path
            .with_extension("")
            .with_file_name(format!("{}-wal", path.file_name().expect("a name").to_string_lossy()));
        let size = |path: &std::path::Path| std::fs::metadata(path).expect("there").len();
        let shared = Shared::default();
        assert!(size(&log) > 4_000_000 && size(&path) < 100_000, "commits leave the log alone");
        shared.work_in(&file).expect("worked in");
        assert!(size(&path) > 4_000_000);
        file.execute("DELETE FROM page", []).expect("deleted");
        assert!(shared.tidy(&file, 1).is_ok_and(|whole| !whole), "a commit came meanwhile");
        assert_eq!(shared.tidy(&file, 0), Ok(true));
        assert!(size(&path) < 100_000 && size(&log) == 0, "{} {}", size(&path), size(&log));
        drop(file);
        std::fs::remove_file(&path).expect("removed");
    }
}
