//! One suite for every store: each test runs on memory, on a file and on a database (`database`).

use super::*;

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        /// Each with its name; they need a store without rows.
        pub const SUITE: &[(&str, fn(&Store))] = &[$((stringify!($name), $name)),*];

        mod on_memory {
            $(#[test]
            fn $name() {
                super::$name(&super::Store::memory());
            })*
        }

        mod on_a_file {
            $(#[test]
            fn $name() {
                let folder = super::Folder::new();
                super::$name(&folder.open());
            })*
        }
    };
}

suite! {
    rows_are_kept_changed_and_taken_away,
    times_beyond_what_stores_count_are_the_latest,
    ranges_go_by_the_octets_of_keys,
    what_lapsed_is_told_oldest_first_and_stays,
    conditions_hold_at_the_commit_or_nothing_is_written,
    an_unmet_batch_is_left_out_alone_and_others_see_what_came_before_them,
    sweeps_take_what_nobody_needs_any_more,
    large_values_are_kept_and_too_large_ones_refused,
    random_batches_end_as_in_memory,
}

fn rows_are_kept_changed_and_taken_away(store: &Store) {
    for table in Table::ALL {
        assert_eq!(get(store, table, "a"), None);
        assert_eq!(write(store, batch([keep(table, "a", "1"), keep(table, "b", "1")])), Kept::Yes);
        assert_eq!(get(store, table, "a"), Some(row("a", 100, b"1")));
        let again = Change { table, key: "a".into(), row: Some(row("a", 7, b"\0\xff")) };
        assert_eq!(write(store, batch([again, take_away(table, "b")])), Kept::Yes);
        assert_eq!(get(store, table, "a"), Some(row("a", 7, b"\0\xff")));
        assert_eq!((get(store, table, "b"), count(store, table)), (None, 1));
        let twice = [keep(table, "c", "1"), take_away(table, "c"), keep(table, "c", "2")];
        assert_eq!(write(store, batch(twice)), Kept::Yes);
        assert_eq!(get(store, table, "c"), Some(row("c", 100, b"2")));
        assert_eq!(write(store, batch([take_away(table, "nobody")])), Kept::Yes);
        assert_eq!(count(store, table), 2);
    }
}

fn times_beyond_what_stores_count_are_the_latest(store: &Store) {
    let long = Row { since: u64::MAX, ..row("a", u64::MAX, b"") };
    let change = Change { table: Table::Wait, key: "a".into(), row: Some(long) };
    assert_eq!(write(store, batch([change])), Kept::Yes);
    let latest = i64::MAX.cast_unsigned();
    let kept = get(store, Table::Wait, "a").expect("kept");
    assert_eq!((kept.since, kept.until), (latest, latest));
    assert!(lapsed(store, Table::Wait, latest - 1, 9).is_empty());
    assert_eq!(lapsed(store, Table::Wait, u64::MAX, 9), ["a"]);
}

fn ranges_go_by_the_octets_of_keys(store: &Store) {
    let keys = [
        "B",
        "a",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a/\u{e9}",
        "a/\u{10ffff}",
        "a/\u{10ffff}b",
        "a0",
        "b",
    ];
    let changes: Vec<_> = keys.iter().rev().map(|key| keep(Table::Wait, key, "")).collect();
    assert_eq!(write(store, batch(changes)), Kept::Yes);
    let of = |prefix, after, most| range(store, Table::Wait, prefix, after, most);
    assert_eq!(of("", None, 99), keys);
    assert_eq!(of("a/", None, 99), keys[2..9]);
    assert_eq!(of("a/", None, 3), keys[2..5]);
    assert_eq!(of("a/", Some("a/10"), 2), keys[5..7]);
    assert_eq!(of("a/", Some("a/3"), 99), keys[6..9]);
    assert_eq!(of("a/\u{10ffff}", None, 99), keys[7..9]);
    assert_eq!(of("a/", Some("A"), 1), keys[2..3], "what comes before the prefix is no bound");
    assert!(of("a/", Some("b"), 99).is_empty() && of("c", None, 99).is_empty());
    assert!(of("", None, 0).is_empty());
    assert!(range(store, Table::Held, "", None, 99).is_empty(), "tables are apart");
}

fn what_lapsed_is_told_oldest_first_and_stays(store: &Store) {
    let at = |key: &str, until| Change {
        table: Table::Page,
        key: key.into(),
        row: Some(row(key, until, b"x")),
    };
    let changes = [at("a", 300), at("b", 100), at("c", 200), at("d", 400)];
    assert_eq!(write(store, batch(changes)), Kept::Yes);
    assert_eq!(lapsed(store, Table::Page, 300, 9), ["b", "c", "a"]);
    assert_eq!(lapsed(store, Table::Page, 300, 2), ["b", "c"]);
    assert!(lapsed(store, Table::Page, 99, 9).is_empty());
    assert_eq!(count(store, Table::Page), 4);
    assert_eq!(write(store, batch([at("b", 500), take_away(Table::Page, "c")])), Kept::Yes);
    assert_eq!(lapsed(store, Table::Page, 1000, 9), ["a", "d", "b"]);
}

fn conditions_hold_at_the_commit_or_nothing_is_written(store: &Store) {
    let same = |value: &'static str| Condition::Same(Table::Node, "n".into(), Bytes::from(value));
    let there = || Condition::Present(Table::Page, "p".into());
    let fewer = |most| Condition::Fewer(Table::Wait, "u/".into(), most);
    let mut n = 0;
    let mut ask = |conditions: Vec<Condition>| {
        n += 1;
        let key = format!("r{n}");
        let kept = write(store, Batch { conditions, ..batch([keep(Table::Run, &key, "")]) });
        assert_eq!(get(store, Table::Run, &key).is_some(), kept == Kept::Yes);
        kept == Kept::Yes
    };
    assert!(!ask(vec![same("1")]) && !ask(vec![there()]) && ask(vec![fewer(1)]));
    assert!(!ask(vec![fewer(0)]));
    let rows = [
        keep(Table::Node, "n", "1"),
        keep(Table::Page, "p", ""),
        keep(Table::Wait, "u/1", ""),
        keep(Table::Wait, "u/2", ""),
        keep(Table::Wait, "u0", ""),
    ];
    assert_eq!(write(store, batch(rows)), Kept::Yes);
    assert!(ask(vec![same("1"), there(), fewer(3)]));
    assert!(!ask(vec![same("1"), there(), fewer(2)]));
    assert!(!ask(vec![same("2")]) && !ask(vec![same("")]));
    assert_eq!(write(store, batch([take_away(Table::Wait, "u/1")])), Kept::Yes);
    assert!(ask(vec![fewer(2)]));
}

fn an_unmet_batch_is_left_out_alone_and_others_see_what_came_before_them(store: &Store) {
    let quota = |n: usize| Batch {
        conditions: vec![Condition::Fewer(Table::Wait, "u/".into(), 3)],
        ..acceptance([
            keep(Table::Wait, &format!("u/{n}"), ""),
            keep(Table::Page, &format!("{n}"), ""),
        ])
    };
    let told: Vec<_> = (0..10).map(|n| give(store, quota(n))).collect();
    let kept: Vec<_> = told.iter().map(heard).collect();
    assert_eq!(kept[..3], [Kept::Yes; 3]);
    assert_eq!(kept[3..], [Kept::Unmet; 7]);
    assert_eq!((count(store, Table::Wait), count(store, Table::Page)), (3, 3));
    let fence = |value: &str, next: &str| Batch {
        conditions: vec![Condition::Same(
            Table::Node,
            "n".into(),
            Bytes::copy_from_slice(value.as_bytes()),
        )],
        ..batch([keep(Table::Node, "n", next)])
    };
    let told = [
        give(store, batch([keep(Table::Node, "n", "1")])),
        give(store, fence("1", "2")),
        give(store, fence("1", "3")),
        give(store, fence("2", "4")),
    ];
    assert_eq!(told.each_ref().map(heard), [Kept::Yes, Kept::Yes, Kept::Unmet, Kept::Yes]);
    assert_eq!(get(store, Table::Node, "n").expect("kept").value, "4");
}

fn sweeps_take_what_nobody_needs_any_more(store: &Store) {
    let rows = [
        keep(Table::Page, "p/", ""),
        keep(Table::Page, "q/", ""),
        keep(Table::Chunk, "p/0", ""),
        keep(Table::Chunk, "p/1", ""),
        keep(Table::Chunk, "q/0", ""),
        keep(Table::Wait, "p/1", ""),
        keep(Table::Held, "p/2", ""),
    ];
    assert_eq!(write(store, batch(rows)), Kept::Yes);
    let sweep = || Sweep {
        unless: vec![(Table::Wait, "p/".into()), (Table::Held, "p/".into())],
        rows: vec![(Table::Page, "p/".into()), (Table::Chunk, "p/".into())],
    };
    let gone = |change| Batch { sweeps: vec![sweep()], ..batch([change]) };
    let there = || (count(store, Table::Page), count(store, Table::Chunk));
    assert_eq!(write(store, gone(take_away(Table::Wait, "p/1"))), Kept::Yes);
    assert_eq!(there(), (2, 3));
    let unmet = Batch {
        conditions: vec![Condition::Present(Table::Reg, "x".into())],
        ..gone(take_away(Table::Held, "p/2"))
    };
    assert_eq!(write(store, unmet), Kept::Unmet);
    assert_eq!(there(), (2, 3));
    assert_eq!(write(store, gone(take_away(Table::Held, "p/2"))), Kept::Yes);
    assert_eq!(there(), (1, 1));
    assert_eq!(range(store, Table::Chunk, "", None, 9), ["q/0"]);
}

fn large_values_are_kept_and_too_large_ones_refused(store: &Store) {
    let change = |octets| Change {
        table: Table::Chunk,
        key: "c".into(),
        row: Some(row("c", 1, &vec![7; octets])),
    };
    assert_eq!(write(store, batch([change(300 << 10)])), Kept::Yes);
    assert_eq!(get(store, Table::Chunk, "c").expect("kept").value.len(), 300 << 10);
    assert_eq!(write(store, batch([change(MAX_VALUE + 1)])), Kept::Down);
    assert!(store.health().up, "it is the row's fault");
    assert_eq!(get(store, Table::Chunk, "c").expect("kept").value.len(), 300 << 10);
}

fn random_batches_end_as_in_memory(store: &Store) {
    let mut seed = 0x5eed_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let tables = [Table::Page, Table::Wait, Table::Run];
    let batches: Vec<Batch> = (0..600)
        .map(|_| {
            let mut key = || -> (Table, Arc<str>) {
                let table = tables[random(3) as usize];
                (table, format!("{}/{}", random(4), random(4)).into())
            };
            let (one, two, three) = (key(), key(), key());
            let prefix: Arc<str> = three.1[..2].into();
            let conditions = match random(6) {
                0 => vec![Condition::Present(three.0, three.1.clone())],
                1 => vec![Condition::Same(
                    three.0,
                    three.1.clone(),
                    Bytes::from(format!("{}", random(3))),
                )],
                2 => vec![Condition::Fewer(three.0, prefix.clone(), random(5) as u32)],
                _ => Vec::new(),
            };
            let sweep = Sweep {
                unless: vec![(Table::Wait, prefix.clone())],
                rows: vec![(Table::Page, prefix)],
            };
            Batch {
                conditions,
                changes: vec![
                    keep(one.0, &one.1, &random(3).to_string()),
                    if random(2) == 0 {
                        take_away(two.0, &two.1)
                    } else {
                        keep(two.0, &two.1, "2")
                    },
                ],
                sweeps: if random(4) == 0 { vec![sweep] } else { Vec::new() },
                unwritten: Unwritten::Drop,
            }
        })
        .collect();
    let run = |store: &Store| {
        let told: Vec<_> = batches.iter().map(|batch| give(store, batch.clone())).collect();
        let kept: Vec<_> = told.iter().map(heard).collect();
        let rows = tables.map(|table| {
            let rows = answer(|then| store.range(table, "", None, 999, then)).expect("read");
            assert_eq!(count(store, table), rows.len() as u64);
            rows
        });
        (kept, rows)
    };
    let (kept, rows) = run(store);
    assert!(kept.contains(&Kept::Unmet) && kept.contains(&Kept::Yes));
    assert_eq!((kept, rows), run(&Store::memory()));
}
