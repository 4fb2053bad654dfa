//! The store in PostgreSQL, or in what speaks its protocol and the SQL used here (CockroachDB, YugabyteDB).
//!
//! Start at [`open`]. Writer and reader each have a thread, a runtime and a connection. A commit is one SERIALIZABLE
//! transaction: conditions are asked, then changes sent, each in one go without waiting between statements; batches whose
//! conditions look at what others of the same commit change go in rounds. Keys are BYTEA, so that they are in the order of
//! their octets whatever the database's collation. `address` reads the URL, `tls` encrypts, `link` connects.

mod address;
mod link;
mod tls;

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;

use super::{
    Backend, Batch, Bytes, Change, Condition, Failed, Loaded, OpenError, Reader, Row, Sweep, Table,
    kept_time,
};
pub use address::{Address, BadAddress};
use link::{Fault, Link};

/// The format this version writes.
const FORMAT: i64 = 2;
/// A transaction that others were in the way of is tried so often again.
const AGAIN: u32 = 3;
/// Longest time for one transaction or one question.
const PATIENCE: Duration = Duration::from_secs(15);
/// Without a connection no other is tried so soon.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How old a count of rows may be, which other nodes change too.
const RECOUNT: Duration = Duration::from_secs(30);

/// Connects, makes tables that are missing and reads registrations and subscriptions that are of use at `now`; those that
/// are not are taken away. Waits for the database on a thread of its own.
pub fn open(address: &Address, now: u64) -> Result<(Writer, Reading, Loaded), OpenError> {
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| open_here(address, now)).join();
        opened.unwrap_or_else(|_| {
            Err(OpenError::Unreadable("the store's client panicked".to_owned()))
        })
    })
}

fn open_here(address: &Address, now: u64) -> Result<(Writer, Reading, Loaded), OpenError> {
    let unreadable = |fault: Fault| OpenError::Unreadable(fault.words);
    let mut writer = Writer(Client::new(address)?);
    let mut reader = Reading {
        client: Client::new(address)?,
        recount: RECOUNT,
        counts: [None; Table::ALL.len()],
    };
    let found = writer.0.run(bring_up).map_err(unreadable)?;
    if found > FORMAT {
        return Err(OpenError::Newer { found, known: FORMAT });
    }
    let mut rows = Vec::new();
    for table in Table::LOADED {
        let name = name(table);
        let sql = format!("DELETE FROM {name} WHERE until <= $1");
        let values = vec![Param::Number(kept_time(now))];
        writer.0.run(async |link| link.execute(&sql, &values).await).map_err(unreadable)?;
        let sql = format!("SELECT key, since, until, value FROM {name}");
        let found = reader.rows(&sql, &[]).map_err(OpenError::Unreadable)?;
        rows.extend(found.into_iter().map(|row| (table, row)));
    }
    Ok((writer, reader, rows))
}

/// Its name among the tables of others.
fn name(table: Table) -> String {
    format!("pagecast_{}", table.name())
}

/// Makes what is missing; returns the format that is there. Several nodes may do it at once, without a lock that all
/// databases know: whoever comes too late looks again.
async fn bring_up(link: &mut Link) -> Result<i64, Fault> {
    let mut tries = 0;
    loop {
        match look_or_make(link).await {
            Err(fault) if tries < 10 && (fault.is_race() || fault.is_serial()) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

async fn look_or_make(link: &mut Link) -> Result<i64, Fault> {
    let format = "SELECT value FROM pagecast_meta WHERE name = 'format'";
    match link.query(format, &[]).await {
        Ok(rows) => {
            if let Some(row) = rows.first() {
                return row.try_get(0).map_err(Fault::from);
            }
        }
        Err(fault) if fault.is_no_table() => {}
        Err(fault) => return Err(fault),
    }
    for table in Table::ALL {
        let name = name(table);
        link.simple(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (key BYTEA PRIMARY KEY, since BIGINT NOT NULL, \
             until BIGINT NOT NULL, value BYTEA NOT NULL)"
        ))
        .await?;
        link.simple(&format!("CREATE INDEX IF NOT EXISTS {name}_until ON {name} (until)")).await?;
    }
    // Comes last: with it everything is there.
    link.simple(
        "CREATE TABLE IF NOT EXISTS pagecast_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    )
    .await?;
    let mark = format!(
        "INSERT INTO pagecast_meta (name, value) VALUES ('format', {FORMAT}) ON CONFLICT (name) DO NOTHING"
    );
    link.simple(&mark).await?;
    Ok(FORMAT)
}

/// Some SQL, for tests.
#[cfg(test)]
pub fn execute(address: &Address, sql: &str) -> Result<(), String> {
    let mut client = Client::new(address).map_err(|error| error.to_string())?;
    client.run(async |link| link.simple(sql).await).map_err(|fault| fault.words)
}

/// A connection that is made when it is needed.
struct Client {
    runtime: Runtime,
    address: Address,
    link: Option<Link>,
    /// When the last try failed, and how.
    failed: Option<(Instant, Fault)>,
    warning: Option<String>,
}

impl Client {
    fn new(address: &Address) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| OpenError::Unreadable(error.to_string()))?;
        Ok(Self { runtime, address: address.clone(), link: None, failed: None, warning: None })
    }

    /// Does something with the connection. One that had been lost before is made again; one that is lost here is given up.
    fn run<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Link) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        loop {
            let old = self.link.is_some();
            let mut link = match self.link.take() {
                Some(link) => link,
                None => self.connect()?,
            };
            let done = self.runtime.block_on(async {
                match tokio::time::timeout(PATIENCE, work(&mut link)).await {
                    Ok(done) => done,
                    Err(_) => Err(Fault::slow(link.committing())),
                }
            });
            match done {
                Ok(done) => {
                    self.link = Some(link);
                    return Ok(done);
                }
                // It was lost while nobody used it.
                Err(fault) if fault.is_lost() && old && !fault.in_doubt => {}
                Err(fault) => {
                    if !fault.is_lost() && self.runtime.block_on(link.roll_back()) {
                        self.link = Some(link);
                    }
                    return Err(fault);
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Link, Fault> {
        if let Some((at, fault)) = self.failed.take_if(|(at, _)| at.elapsed() < BACK_OFF) {
            self.failed = Some((at, fault.clone()));
            return Err(fault);
        }
        let connected = self.runtime.block_on(async {
            let link = tokio::time::timeout(PATIENCE, Link::connect(&self.address)).await;
            link.unwrap_or_else(|_| Err(Fault::slow(false)))
        });
        match connected {
            Ok(link) => {
                self.failed = None;
                self.warning.clone_from(&link.warning);
                Ok(link)
            }
            Err(fault) => {
                self.failed = Some((now(), fault.clone()));
                Err(fault)
            }
        }
    }
}

/// The connection that writes.
pub struct Writer(Client);

impl Backend for Writer {
    fn commit(&mut self, batches: &[Batch]) -> Result<Vec<bool>, Failed> {
        let mut tries = 0;
        loop {
            match self.0.run(async |link| transaction(link, batches).await) {
                Err(fault) if fault.is_serial() && tries < AGAIN => tries += 1,
                done => return done.map_err(Failed::from),
            }
        }
    }

    fn probe(&mut self) -> Result<(), Failed> {
        let sql = "UPDATE pagecast_meta SET value = value WHERE name = 'format'";
        self.0.run(async |link| link.simple(sql).await).map_err(Failed::from)
    }

    fn warning(&self) -> Option<String> {
        self.0.warning.clone()
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { words: fault.words, in_doubt: fault.in_doubt }
    }
}

/// Applies batches in their order; says of each whether its conditions held.
async fn transaction(link: &mut Link, batches: &[Batch]) -> Result<Vec<bool>, Fault> {
    link.simple("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    let mut held = Vec::with_capacity(batches.len());
    while held.len() < batches.len() {
        let rest = &batches[held.len()..];
        let round = &rest[..independent(rest)];
        let met = conditions(link, round).await?;
        let met_batches = round.iter().zip(&met).filter(|(_, met)| **met);
        let mut statements = Vec::new();
        for (batch, _) in met_batches {
            statements.extend(batch.changes.iter().map(change));
            statements.extend(batch.sweeps.iter().flat_map(sweep));
        }
        link.all(&statements).await?;
        held.extend(met);
    }
    link.commit().await?;
    Ok(held)
}

/// How many of the batches can go together: those whose conditions do not look at what others among them change.
fn independent(batches: &[Batch]) -> usize {
    let mut rows: BTreeSet<(Table, &str)> = BTreeSet::new();
    let mut swept: Vec<(Table, &str)> = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let looks = |condition: &Condition| match condition {
            Condition::Present(table, key) | Condition::Same(table, key, _) => {
                rows.contains(&(*table, &**key))
                    || swept.iter().any(|(of, prefix)| of == table && key.starts_with(prefix))
            }
            Condition::Fewer(table, prefix, _) => {
                let first = rows.range((*table, &**prefix)..).next();
                let begins =
                    |other: &str| other.starts_with(&**prefix) || prefix.starts_with(other);
                first.is_some_and(|(of, key)| of == table && key.starts_with(&**prefix))
                    || swept.iter().any(|(of, other)| of == table && begins(other))
            }
        };
        if batch.conditions.iter().any(looks) {
            return n;
        }
        rows.extend(batch.changes.iter().map(|change| (change.table, &*change.key)));
        let sweeps = batch.sweeps.iter().flat_map(|sweep| &sweep.rows);
        swept.extend(sweeps.map(|(table, prefix)| (*table, &**prefix)));
    }
    batches.len()
}

/// Whether the conditions of each batch hold; those that several have are asked once.
async fn conditions(link: &mut Link, batches: &[Batch]) -> Result<Vec<bool>, Fault> {
    let mut asked: HashMap<&Condition, usize> = HashMap::new();
    let mut questions = Vec::new();
    for condition in batches.iter().flat_map(|batch| &batch.conditions) {
        asked.entry(condition).or_insert_with(|| {
            questions.push(question(condition));
            questions.len() - 1
        });
    }
    let answers = link.ask(&questions).await?;
    let holds = |condition: &Condition| -> Result<bool, Fault> {
        let rows = &answers[asked[condition]];
        Ok(match condition {
            Condition::Present(..) => !rows.is_empty(),
            Condition::Same(_, _, value) => match rows.first() {
                Some(row) => row.try_get::<_, &[u8]>(0)? == &value[..],
                None => false,
            },
            Condition::Fewer(_, _, most) => rows.len() < *most as usize,
        })
    };
    let mut held = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut all = true;
        for condition in &batch.conditions {
            all = all && holds(condition)?;
        }
        held.push(all);
    }
    Ok(held)
}

/// A value of a statement.
#[derive(Debug)]
enum Param {
    Octets(Bytes),
    Number(i64),
}

impl Param {
    fn text(text: &str) -> Self {
        Self::Octets(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// No key has this octet.
    fn end(prefix: &str) -> Self {
        Self::Octets(Bytes::from([prefix.as_bytes(), b"\xff"].concat()))
    }
}

impl ToSql for Param {
    fn to_sql(
        &self,
        kind: &tokio_postgres::types::Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Octets(octets) => (&octets[..]).to_sql(kind, out),
            Self::Number(number) => number.to_sql(kind, out),
        }
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        <i64 as ToSql>::accepts(kind) || <&[u8] as ToSql>::accepts(kind)
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A statement with its values.
type Statement = (String, Vec<Param>);

fn question(condition: &Condition) -> Statement {
    match condition {
        Condition::Present(table, key) => {
            (format!("SELECT 1 FROM {} WHERE key = $1", name(*table)), vec![Param::text(key)])
        }
        Condition::Same(table, key, _) => {
            (format!("SELECT value FROM {} WHERE key = $1", name(*table)), vec![Param::text(key)])
        }
        Condition::Fewer(table, prefix, most) => (
            format!("SELECT 1 FROM {} WHERE key >= $1 AND key < $2 LIMIT $3", name(*table)),
            vec![Param::text(prefix), Param::end(prefix), Param::Number(i64::from(*most))],
        ),
    }
}

fn change(change: &Change) -> Statement {
    let (name, key) = (name(change.table), Param::text(&change.key));
    match &change.row {
        None => (format!("DELETE FROM {name} WHERE key = $1"), vec![key]),
        Some(row) => (
            format!(
                "INSERT INTO {name} (key, since, until, value) VALUES ($1, $2, $3, $4) ON CONFLICT (key) \
                 DO UPDATE SET since = excluded.since, until = excluded.until, value = excluded.value"
            ),
            vec![
                key,
                Param::Number(kept_time(row.since)),
                Param::Number(kept_time(row.until)),
                Param::Octets(row.value.clone()),
            ],
        ),
    }
}

/// A statement for each table that is swept. What one of them takes away cannot keep the next from it: it only makes
/// fewer rows.
fn sweep(sweep: &Sweep) -> impl Iterator<Item = Statement> {
    sweep.rows.iter().map(|(table, prefix)| {
        let mut sql = format!("DELETE FROM {} WHERE key >= $1 AND key < $2", name(*table));
        let mut values = vec![Param::text(prefix), Param::end(prefix)];
        for (table, prefix) in &sweep.unless {
            let (from, to, name) = (values.len() + 1, values.len() + 2, name(*table));
            sql.push_str(&format!(
                " AND NOT EXISTS (SELECT 1 FROM {name} WHERE key >= ${from} AND key < ${to})"
            ));
            values.extend([Param::text(prefix), Param::end(prefix)]);
        }
        (sql, values)
    })
}

/// The connection that reads.
pub struct Reading {
    client: Client,
    /// How old a count may be.
    pub recount: Duration,
    counts: [Option<(Instant, u64)>; Table::ALL.len()],
}

impl Reading {
    fn rows(&mut self, sql: &str, values: &[Param]) -> Result<Vec<Row>, String> {
        let found = self.client.run(async |link| link.query(sql, values).await);
        let read = |row: &tokio_postgres::Row| -> Result<Row, Fault> {
            let key = std::str::from_utf8(row.try_get(0)?)
                .map_err(|_| Fault::strange("a key is no text"))?;
            Ok(Row {
                key: key.into(),
                since: row.try_get::<_, i64>(1)?.cast_unsigned(),
                until: row.try_get::<_, i64>(2)?.cast_unsigned(),
                value: Bytes::copy_from_slice(row.try_get(3)?),
            })
        };
        found.and_then(|rows| rows.iter().map(read).collect()).map_err(|fault| fault.words)
    }
}

fn limit(most: usize) -> Param {
    Param::Number(i64::try_from(most).unwrap_or(i64::MAX))
}

impl Reader for Reading {
    fn get(&mut self, table: Table, key: &str) -> Result<Option<Row>, String> {
        let sql = format!("SELECT key, since, until, value FROM {} WHERE key = $1", name(table));
        Ok(self.rows(&sql, &[Param::text(key)])?.pop())
    }

    fn range(
        &mut self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Row>, String> {
        let (than, from) = match after.filter(|after| *after >= prefix) {
            Some(after) => (">", after),
            None => (">=", prefix),
        };
        let sql = format!(
            "SELECT key, since, until, value FROM {} WHERE key {than} $1 AND key < $2 ORDER BY key LIMIT $3",
            name(table)
        );
        self.rows(&sql, &[Param::text(from), Param::end(prefix), limit(most)])
    }

    fn lapsed(&mut self, table: Table, now: u64, most: usize) -> Result<Vec<Row>, String> {
        let sql = format!(
            "SELECT key, since, until, value FROM {} WHERE until <= $1 ORDER BY until LIMIT $2",
            name(table)
        );
        self.rows(&sql, &[Param::Number(kept_time(now)), limit(most)])
    }

    fn count(&mut self, table: Table) -> Result<u64, String> {
        let at = table.index();
        if let Some((_, count)) = self.counts[at].filter(|(when, _)| when.elapsed() < self.recount)
        {
            return Ok(count);
        }
        let sql = format!("SELECT count(*) FROM {}", name(table));
        let count: Result<i64, Fault> = self.client.run(async |link| {
            let rows = link.query(&sql, &[]).await?;
            let row = rows.first().ok_or_else(|| Fault::strange("no count"))?;
            Ok(row.try_get(0)?)
        });
        let count = u64::try_from(count.map_err(|fault| fault.words)?).unwrap_or(0);
        self.counts[at] = Some((now(), count));
        Ok(count)
    }
}

/// Awaits all, of which each has begun before the first is waited for.
async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = Vec::with_capacity(futures.len());
    for future in &mut futures {
        let begun = std::future::poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        });
        done.push(begun.await);
    }
    let mut outputs = Vec::with_capacity(futures.len());
    for (future, done) in futures.into_iter().zip(done) {
        outputs.push(match done {
            Some(output) => output,
            None => future.await,
        });
    }
    outputs
}

#[expect(
    clippy::disallowed_methods,
    reason = "the store's threads are their own and time their own patience"
)]
fn now() -> Instant {
    Instant::now()
}
