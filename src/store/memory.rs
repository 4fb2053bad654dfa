//! Rows in memory, by the rules of every other store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Batch, Condition, Down, Row, Source, Table};

/// All rows.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<(Table, Arc<str>), Row>);

impl Rows {
    /// Whether the batch's conditions held; only then it is written.
    pub fn apply(&mut self, batch: &Batch) -> bool {
        if !batch.conditions.iter().all(|condition| self.holds(condition)) {
            return false;
        }
        for change in &batch.changes {
            let at = (change.table, Arc::clone(&change.key));
            match &change.row {
                Some(row) => self.0.insert(at, row.clone()),
                None => self.0.remove(&at),
            };
        }
        for sweep in &batch.sweeps {
            let held = sweep
                .unless
                .iter()
                .any(|(table, prefix)| self.beginning(*table, prefix, None).next().is_some());
            for (table, prefix) in sweep.rows.iter().filter(|_| !held) {
                let gone: Vec<Arc<str>> =
                    self.beginning(*table, prefix, None).map(|row| Arc::clone(&row.key)).collect();
                for key in gone {
                    self.0.remove(&(*table, key));
                }
            }
        }
        true
    }

    fn holds(&self, condition: &Condition) -> bool {
        let row = |table: Table, key: &Arc<str>| self.0.get(&(table, Arc::clone(key)));
        match condition {
            Condition::Present(table, key) => row(*table, key).is_some(),
            Condition::Same(table, key, value) => {
                row(*table, key).is_some_and(|row| row.value == *value)
            }
            Condition::Fewer(table, prefix, most) => {
                self.beginning(*table, prefix, None).take(*most as usize).count() < *most as usize
            }
        }
    }

    fn beginning<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Row> {
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded((table, Arc::from(after))),
            None => Bound::Included((table, Arc::from(prefix))),
        };
        self.0
            .range((from, Bound::Unbounded))
            .take_while(move |((of, key), _)| *of == table && key.starts_with(prefix))
            .map(|(_, row)| row)
    }
}

impl Source for Rows {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, Down> {
        Ok(self.0.get(&(table, Arc::from(key))).cloned())
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, Down> {
        Ok(self.beginning(table, prefix, after).take(most).cloned().collect())
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, Down> {
        let all = self.beginning(table, "", None);
        let mut lapsed: Vec<&Row> = all.filter(|row| row.until <= now).collect();
        lapsed.sort_by(|a, b| (a.until, &a.key).cmp(&(b.until, &b.key)));
        Ok(lapsed.into_iter().take(most).cloned().collect())
    }

    fn count(&mut self, table: Table) -> Result<u64, Down> {
        Ok(self.beginning(table, "", None).count() as u64)
    }
}
