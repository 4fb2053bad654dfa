//! What is written as one: changes, the conditions they need, and what goes with them.

use std::sync::Arc;

use super::{Bytes, MAX_VALUE, Row, Table};

/// What a row takes of memory besides its key and value, about.
const ROW: usize = 128;

/// A row to keep, or to take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub table: Table,
    pub key: Arc<str>,
    /// `None` takes the row away.
    pub row: Option<Row>,
}

/// Holds at the moment of the commit, or nothing of the batch is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// This row is there.
    Present(Table, Arc<str>),
    /// This row is there with this value: the fence of a node's lease.
    Same(Table, Arc<str>, Bytes),
    /// Fewer rows than that begin with the prefix: quotas.
    Fewer(Table, Arc<str>, u32),
}

/// Rows that go with the batch once no row of the others begins with their prefix any more: body and record of a page go
/// with its last recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sweep {
    /// Tables and prefixes; looked at after the batch's changes.
    pub unless: Vec<(Table, Arc<str>)>,
    /// Tables and prefixes.
    pub rows: Vec<(Table, Arc<str>)>,
}

/// What becomes of a batch that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwritten {
    /// Waits in memory until the store is back, the last change of each key only: outcomes.
    #[default]
    Retry,
    /// Nothing was promised, it is withdrawn: acceptances.
    Drop,
}

/// Is written whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub conditions: Vec<Condition>,
    pub sweeps: Vec<Sweep>,
    pub unwritten: Unwritten,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is on the disk.
    Yes,
    /// It cannot be written now; [`Unwritten`] says what that means.
    Down,
    /// A condition did not hold.
    Unmet,
}

impl Change {
    /// Octets of memory, about.
    pub(super) fn octets(&self) -> usize {
        ROW + self.key.len() + self.row.as_ref().map_or(0, |row| row.value.len())
    }
}

impl Batch {
    /// Octets of memory, about.
    pub(super) fn octets(&self) -> usize {
        let changes: usize = self.changes.iter().map(Change::octets).sum();
        changes + ROW * (1 + self.conditions.len() + self.sweeps.len())
    }

    /// Whether every store can keep it.
    pub(super) fn fits(&self) -> bool {
        self.changes
            .iter()
            .all(|change| change.row.as_ref().is_none_or(|row| row.value.len() <= MAX_VALUE))
    }
}

/// The first string after all that begin with `prefix`; `None` where there is none.
pub(super) fn after_all(prefix: &str) -> Option<String> {
    let mut rest = prefix.chars();
    while let Some(last) = rest.next_back() {
        // A range of characters steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            let mut after = rest.as_str().to_owned();
            after.push(next);
            return Some(after);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_everything_that_begins_with_it() {
        let cases = [
            ("a", Some("b")),
            ("a/", Some("a0")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
            ("", None),
        ];
        for (prefix, after) in cases {
            assert_eq!(after_all(prefix).as_deref(), after, "{prefix:?}");
        }
    }
}
