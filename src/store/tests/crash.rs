//! A process that writes is killed at any instant; what it was told to be kept is there afterwards.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// Tells the child where its store is, and from which number it is to write.
const CHILD: &str = "PAGECAST_TEST_CRASH";
/// Rows of each batch.
const TABLES: [Table; 3] = [Table::Page, Table::Run, Table::Wait];
const ROUNDS: u64 = 30;
const FLIGHT: usize = 16;

fn accepted(n: u64) -> Batch {
    let change = |table| {
        let key = format!("{n:08}");
        let row = Some(row(&key, 100 + n, &[u8::try_from(n % 251).expect("small"); 3000]));
        Change { table, key: key.into(), row }
    };
    acceptance(TABLES.map(change))
}

fn removed(n: u64) -> Batch {
    batch(TABLES.map(|table| take_away(table, &format!("{n:08}"))))
}

#[test]
#[ignore = "the test below starts it as a process of its own"]
fn child() {
    let told = std::env::var(CHILD).expect("started by the test below");
    let (folder, from) = told.split_once(' ').expect("two words");
    let from: u64 = from.parse().expect("a number");
    let store = Store::open(std::path::Path::new(folder), 0, Bounds::default()).expect("a store").0;
    let mut waiting = std::collections::VecDeque::new();
    let say = |what: &str, n: u64| {
        // The line is whole, or nobody reads it.
        std::io::stdout()
            .write_all(format!("\n{what} {n}\n").as_bytes())
            .expect("the parent reads");
    };
    for n in from.. {
        waiting.push_back(("kept", n, give(&store, accepted(n))));
        if n % 3 == 0 && n > from + 40 {
            say("going", n - 40);
            waiting.push_back(("gone", n - 40, give(&store, removed(n - 40))));
        }
        while waiting.len() >= FLIGHT {
            let Some((what, n, told)) = waiting.pop_front() else { break };
            assert_eq!(heard(&told), Kept::Yes);
            say(what, n);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = Folder::new();
    let (mut kept, mut going, mut gone) =
        <(BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>)>::default();
    for round in 0..ROUNDS {
        let from = round * 100_000;
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["store::tests::crash::child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, format!("{} {from}", folder.0.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lives = getrandom::u64().expect("random octets") % 400;
        let lines = BufReader::new(child.stdout.take().expect("its lines")).lines();
        for (line, number) in lines.zip(0..) {
            if number == lives {
                child.kill().expect("killed");
            }
            let line = line.expect("text");
            match line.split_once(' ').map(|(what, n)| (what, n.parse())) {
                Some(("kept", Ok(n))) => drop(kept.insert(n)),
                Some(("going", Ok(n))) => drop(going.insert(n)),
                Some(("gone", Ok(n))) => drop(gone.insert(n)),
                _ => {}
            }
        }
        child.wait().expect("ended");
        let store = folder.open();
        for n in &kept {
            let key = format!("{n:08}");
            let rows = TABLES.map(|table| get(&store, table, &key));
            let whole =
                rows.iter().zip(&accepted(*n).changes).all(|(row, change)| *row == change.row);
            let none = rows.iter().all(Option::is_none);
            match (gone.contains(n), going.contains(n)) {
                (true, _) => assert!(none, "{n} came back"),
                (false, true) => assert!(whole || none, "{n} is torn"),
                (false, false) => assert!(whole, "{n} is lost"),
            }
        }
        let counts = TABLES.map(|table| count(&store, table));
        assert!(counts.iter().all(|count| *count == counts[0]), "batches are whole: {counts:?}");
    }
    assert!(kept.len() > 100, "it wrote {} batches", kept.len());
}
