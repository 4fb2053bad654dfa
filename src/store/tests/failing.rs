//! The queue over a disk in the hands of the test.

use std::sync::MutexGuard;

use super::*;

/// A backend that can be broken or held.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    broken: bool,
    in_doubt: bool,
    commits: usize,
    succeeded: Option<mpsc::Sender<()>>,
    memory: Memory,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().expect("no panic")
    }

    fn store(&self, batches: usize, octets: usize) -> Store {
        let bounds = Bounds { batches, octets, reads: 9 };
        Store::with(Box::new(self.clone()), Box::new(self.clone()), bounds).expect("threads")
    }
}

impl Inside {
    fn succeed(&mut self) {
        // A test listens once.
        let _ = self.succeeded.take().map(|tell| tell.send(()));
    }
}

impl Backend for Fake {
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed> {
        let mut inside = self.lock();
        let failed = Failed { words: "disk full".to_owned(), in_doubt: inside.in_doubt };
        if inside.broken && !inside.in_doubt {
            return Err(failed);
        }
        inside.commits += 1;
        let held = batches.iter().map(|batch| inside.memory.write(batch)).collect();
        if inside.broken {
            return Err(failed);
        }
        inside.succeed();
        Ok(held)
    }

    fn probe(&mut self) -> Result<(), Failed> {
        let mut inside = self.lock();
        if inside.broken {
            return Err(Failed { words: "still full".to_owned(), in_doubt: false });
        }
        inside.succeed();
        Ok(())
    }

    fn warning(&self) -> Option<String> {
        Some("a fake".to_owned())
    }
}

impl Reader for Fake {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, String> {
        if self.lock().broken {
            Err("disk lost".to_owned())
        } else {
            self.lock().memory.get(table, key)
        }
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, String> {
        self.lock().memory.range(table, prefix, after, most)
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, String> {
        self.lock().memory.lapsed(table, now, most)
    }

    fn count(&mut self, table: Table) -> Result<u64, String> {
        self.lock().memory.count(table)
    }
}

fn one(key: &str, value: &str) -> Batch {
    batch([keep(Table::Run, key, value)])
}

fn put(store: &Store, key: &str, value: &str) -> mpsc::Receiver<bool> {
    let (tell, told) = mpsc::channel();
    let told_by: Told = Box::new(move |kept| tell.send(kept).expect("the test waits"));
    store.put(Table::Reg, key.into(), Some(row(key, 2, value.as_bytes())), Some(told_by));
    told
}

/// The value of a row.
fn value(store: &Store, key: &str) -> Option<Bytes> {
    get(store, Table::Run, key).map(|row| row.value)
}

/// Waits until the store says it is up again, which a commit or a try tells in a moment.
fn is_back(fake: &Fake, store: &Store) {
    let (tell, told) = mpsc::channel();
    fake.lock().succeeded = Some(tell);
    heard(&told);
    while !store.health().up {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_put_is_kept_and_told() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    assert!(heard(&put(&store, "a", "1")) && heard(&put(&store, "a", "2")));
    assert_eq!(get(&store, Table::Reg, "a"), Some(row("a", 2, b"2")));
    let health = store.health();
    assert_eq!((health.up, health.last_error, health.pending), (true, None, 0));
    assert_eq!(health.warning.as_deref(), Some("a fake"));
}

/// Proves ISC-046.
#[test]
fn a_store_that_is_down_holds_nobody_up_and_gets_everything_when_it_is_back() {
    let fake = Fake::default();
    let store = fake.store(3, 1 << 20);
    fake.lock().broken = true;
    assert!(!heard(&put(&store, "a", "1")), "told that it is not kept yet");
    let health = store.health();
    assert_eq!((health.up, health.pending), (false, 1));
    assert_eq!(health.last_error.as_deref(), Some("disk full"));
    for (key, value) in [("b", "1"), ("c", "1"), ("a", "2"), ("d", "beyond the bound")] {
        assert!(!heard(&put(&store, key, value)));
    }
    assert_eq!(store.health().pending, 3);
    fake.lock().broken = false;
    // The next try is at most a second away; closing is one, too.
    store.close();
    let kept = fake.lock().memory.range(Table::Reg, "", None, 9).expect("memory");
    let kept: Vec<_> = kept.iter().map(|row| (&*row.key, &row.value[..])).collect();
    assert_eq!(kept, [("a", &b"2"[..]), ("b", b"1"), ("c", b"1")]);
    assert_eq!((store.health().up, store.health().pending), (true, 0));
}

#[test]
fn many_batches_share_a_commit() {
    let fake = Fake::default();
    let store = fake.store(1000, 1 << 20);
    let holds = fake.lock();
    let told: Vec<_> = (0..500).map(|n| give(&store, one(&format!("k{n}"), "x"))).collect();
    drop(holds);
    assert!(told.iter().all(|told| heard(told) == Kept::Yes));
    assert_eq!(count(&store, Table::Run), 500);
    let commits = fake.lock().commits;
    assert!(commits <= 2, "{commits} commits");
}

#[test]
fn acceptances_are_withdrawn_and_outcomes_wait_while_the_store_is_down() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    fake.lock().broken = true;
    assert_eq!(write(&store, acceptance([keep(Table::Page, "p", "")])), Kept::Down);
    assert_eq!(write(&store, acceptance([keep(Table::Page, "q", "")])), Kept::Down);
    assert_eq!(store.health().pending, 0, "nothing was promised");
    let fence = |value: &'static str| vec![Condition::Same(Table::Node, "n".into(), value.into())];
    let fenced = |key: &str, with| Batch { conditions: fence(with), ..one(key, with) };
    for outcome in [
        one("a", "1"),
        batch([keep(Table::Node, "n", "ours")]),
        fenced("b", "ours"),
        fenced("c", "theirs"),
        fenced("a", "ours"),
        one("d", "1"),
        batch([take_away(Table::Run, "d")]),
    ] {
        assert_eq!(write(&store, outcome), Kept::Down);
    }
    assert_eq!(store.health().pending, 5);
    assert_eq!(answer(|then| store.get(Table::Run, "a", then)), Err(Down));
    fake.lock().broken = false;
    is_back(&fake, &store);
    assert_eq!(value(&store, "a").as_deref(), Some(&b"ours"[..]), "the last one");
    assert_eq!(value(&store, "b").as_deref(), Some(&b"ours"[..]));
    assert_eq!((value(&store, "c"), value(&store, "d")), (None, None));
    assert_eq!(count(&store, Table::Page), 0);
    assert_eq!(store.health().pending, 0);
}

/// Nobody has to write for the store to be found up again.
#[test]
fn a_store_that_is_down_is_tried_though_nothing_waits() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    fake.lock().broken = true;
    assert_eq!(write(&store, acceptance([keep(Table::Page, "p", "")])), Kept::Down);
    assert!(!store.health().up);
    fake.lock().broken = false;
    is_back(&fake, &store);
    assert_eq!(write(&store, acceptance([keep(Table::Page, "p", "")])), Kept::Yes);
}

#[test]
fn a_full_queue_refuses_acceptances_and_merges_outcomes() {
    for (batches, octets) in [(3, 1 << 20), (100, 700)] {
        let fake = Fake::default();
        let store = fake.store(batches, octets);
        let holds = fake.lock();
        // One is in the writer's hands, or will be; at most three more wait.
        let told: Vec<_> = (0..8)
            .map(|n| give(&store, acceptance([keep(Table::Page, &n.to_string(), "")])))
            .collect();
        assert_eq!(heard(&told[7]), Kept::Down, "at once");
        for value in ["1", "2", "3"] {
            assert_eq!(write(&store, one("a", value)), Kept::Down, "not yet");
        }
        assert_eq!(heard(&give(&store, acceptance([keep(Table::Page, "x", "")]))), Kept::Down);
        drop(holds);
        let kept = told[..7].iter().filter(|told| heard(told) == Kept::Yes).count();
        assert!((1..7).contains(&kept), "{kept}");
        store.close();
        let mut inside = fake.lock();
        assert_eq!(inside.memory.get(Table::Run, "a"), Ok(Some(row("a", 100, b"3"))));
        assert_eq!(inside.memory.count(Table::Page), Ok(kept as u64));
    }
}

/// A connection that was lost on the way may have written what nobody was promised.
#[test]
fn what_is_in_doubt_is_taken_back_unless_somebody_has_written_since() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    {
        let mut inside = fake.lock();
        (inside.broken, inside.in_doubt) = (true, true);
    }
    assert_eq!(
        write(&store, acceptance([keep(Table::Page, "p", "1"), keep(Table::Wait, "w", "1")])),
        Kept::Down
    );
    {
        let mut inside = fake.lock();
        assert_eq!(inside.memory.count(Table::Page), Ok(1), "it was written");
        inside.memory.write(&batch([keep(Table::Wait, "w", "of another")]));
        inside.broken = false;
    }
    is_back(&fake, &store);
    assert_eq!((count(&store, Table::Page), count(&store, Table::Wait)), (0, 1));
}

/// One listener's mistake is not everybody's.
#[test]
fn whoever_panics_over_an_answer_leaves_the_store_working() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    let holds = fake.lock();
    store.write(one("a", "1"), |kept| panic!("told {kept:?}"));
    store.count(Table::Run, |count| panic!("told {count:?}"));
    drop(holds);
    assert_eq!(write(&store, one("b", "1")), Kept::Yes);
    assert_eq!(count(&store, Table::Run), 2);
}

#[test]
fn too_many_questions_hear_that_nobody_answers() {
    let fake = Fake::default();
    let store = fake.store(10, 1 << 20);
    let holds = fake.lock();
    let (tell, told) = mpsc::channel();
    for _ in 0..20 {
        let tell = tell.clone();
        store.count(Table::Page, move |answer| tell.send(answer).expect("the test waits"));
    }
    assert_eq!(heard(&told), Err(Down));
    drop(holds);
    let answered = told.iter().take(19).filter(Result::is_ok).count();
    assert!((9..=10).contains(&answered), "{answered}");
    store.close();
    assert_eq!(answer(|then| store.count(Table::Page, then)), Err(Down));
    assert_eq!(write(&store, one("a", "1")), Kept::Down);
}
