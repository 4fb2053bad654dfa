//! The store that forgets with the process, with the rules of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{Batch, Condition, Kept, Reader, Row, Table, kept_time};

/// Rows in the order of their keys, and by the time they lapse.
#[derive(Default)]
pub struct Memory {
    tables: [Rows; Table::ALL.len()],
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<Arc<str>, Row>,
    lapse: BTreeSet<(u64, Arc<str>)>,
}

impl Rows {
    fn from<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Row> {
        let begin = (Bound::Included(prefix), Bound::Unbounded);
        self.rows
            .range::<str, _>(begin)
            .map(|(_, row)| row)
            .take_while(move |row| row.key.starts_with(prefix))
    }

    fn set(&mut self, key: &Arc<str>, row: Option<&Row>) {
        if let Some(old) = self.rows.remove(key) {
            self.lapse.remove(&(old.until, old.key));
        }
        if let Some(row) = row {
            let at_most = |time| kept_time(time).cast_unsigned();
            let row = Row {
                key: Arc::clone(key),
                since: at_most(row.since),
                until: at_most(row.until),
                value: row.value.clone(),
            };
            self.lapse.insert((row.until, Arc::clone(key)));
            self.rows.insert(Arc::clone(key), row);
        }
    }
}

impl Memory {
    fn of(&self, table: Table) -> &Rows {
        &self.tables[table.index()]
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Present(table, key) => self.of(*table).rows.contains_key(key),
            Condition::Same(table, key, value) => {
                self.of(*table).rows.get(key).is_some_and(|row| row.value == *value)
            }
            Condition::Fewer(table, prefix, most) => {
                let most = *most as usize;
                self.of(*table).from(prefix).take(most).count() < most
            }
        }
    }

    /// Applies a batch if its conditions hold and it fits.
    pub fn write_checked(&mut self, batch: &Batch) -> Kept {
        if !batch.fits() {
            return Kept::Down;
        }
        if self.write(batch) { Kept::Yes } else { Kept::Unmet }
    }

    /// Applies a batch if its conditions hold; says whether they did.
    pub fn write(&mut self, batch: &Batch) -> bool {
        if !batch.conditions.iter().all(|condition| self.holds(condition)) {
            return false;
        }
        for change in &batch.changes {
            self.tables[change.table.index()].set(&change.key, change.row.as_ref());
        }
        for sweep in &batch.sweeps {
            let stays =
                |(table, prefix): &(Table, Arc<str>)| self.of(*table).from(prefix).next().is_some();
            if sweep.unless.iter().any(stays) {
                continue;
            }
            for (table, prefix) in &sweep.rows {
                let rows = &mut self.tables[table.index()];
                let gone: Vec<_> = rows.from(prefix).map(|row| Arc::clone(&row.key)).collect();
                gone.iter().for_each(|key| rows.set(key, None));
            }
        }
        true
    }
}

impl Reader for Memory {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, String> {
        Ok(self.of(table).rows.get(key).cloned())
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, String> {
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.of(table).rows.range::<str, _>((begin, Bound::Unbounded));
        let ours = rows.map(|(_, row)| row).take_while(|row| row.key.starts_with(prefix));
        Ok(ours.take(most).cloned().collect())
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, String> {
        let rows = self.of(table);
        let lapsed = rows.lapse.iter().take_while(|(until, _)| *until <= now);
        Ok(lapsed.filter_map(|(_, key)| rows.rows.get(key)).take(most).cloned().collect())
    }

    fn count(&mut self, table: Table) -> Result<u64, String> {
        Ok(self.of(table).rows.len() as u64)
    }
}
