//! One connection: how it begins, its prepared statements, and what can be wrong with it.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use super::address::Address;
use super::{Param, Statement, together};

/// Prepared statements of a connection; beyond it all are forgotten.
const STATEMENTS: usize = 256;
/// The database gives up a statement after it.
const STATEMENT: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For operators.
    pub words: String,
    /// What the database says it was; `None`: it said nothing, the connection is lost.
    code: Option<SqlState>,
    /// The transaction may have been committed.
    pub in_doubt: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            Some(told) => Self {
                words: format!("the database says: {} ({})", told.message(), told.code().code()),
                code: Some(told.code().clone()),
                in_doubt: *told.code() == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN,
            },
            None => {
                let mut words = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(because) = cause {
                    words = format!("{words}: {because}");
                    cause = because.source();
                }
                Self { words, code: None, in_doubt: false }
            }
        }
    }
}

impl Fault {
    /// No answer in time.
    pub fn slow(committing: bool) -> Self {
        Self { words: "the database does not answer".to_owned(), code: None, in_doubt: committing }
    }

    /// What the database answers makes no sense.
    pub fn strange(what: &str) -> Self {
        Self { words: what.to_owned(), code: None, in_doubt: false }
    }

    /// The connection is of no more use.
    pub fn is_lost(&self) -> bool {
        let of_no_use = |code: &SqlState| {
            // Class 08: connection; class 57: the database is going down, or is no more the one that may be written.
            code.code().starts_with("08")
                || code.code().starts_with("57P")
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        };
        self.in_doubt || self.code.as_ref().is_none_or(of_no_use)
    }

    /// Another transaction was in the way: to be tried again.
    pub fn is_serial(&self) -> bool {
        let again = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.code.as_ref().is_some_and(|code| again.contains(code))
    }

    pub fn is_no_table(&self) -> bool {
        self.code.as_ref() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// Another node makes the same table.
    pub fn is_race(&self) -> bool {
        let made =
            [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT];
        self.code.as_ref().is_some_and(|code| made.contains(code))
    }
}

/// A connection that is up.
pub struct Link {
    client: Client,
    prepared: HashMap<String, tokio_postgres::Statement>,
    committing: bool,
    /// How this database keeps less than it might.
    pub warning: Option<String>,
}

impl Link {
    /// To the first host of the address that answers and may be written, if the address asks for that.
    pub async fn connect(address: &Address) -> Result<Self, Fault> {
        let (client, connection) = address.config.connect(address.connector()).await?;
        // Runs while somebody waits for an answer.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        let mut link = Self { client, prepared: HashMap::new(), committing: false, warning: None };
        link.simple(&format!("SET statement_timeout = {}", STATEMENT.as_millis())).await?;
        link.warning = link.look().await?;
        if link.warning.is_none() && address.is_unverified() {
            link.warning =
                Some("the database's certificate is not checked; set sslrootcert".to_owned());
        }
        Ok(link)
    }

    /// Looks at what a commit is worth.
    async fn look(&mut self) -> Result<Option<String>, Fault> {
        let version = self.show("SELECT version()").await?;
        if version.contains("CockroachDB") || version.contains("-YB-") {
            // These answer when most of their nodes have it.
            return Ok(None);
        }
        if self.show("SHOW fsync").await? == "off" {
            return Ok(Some(
                "fsync is off: a crash of the database loses what was acknowledged".to_owned(),
            ));
        }
        if self.show("SHOW synchronous_commit").await? != "remote_apply" {
            self.simple("SET synchronous_commit = on").await?;
        }
        let standby = self.show("SHOW synchronous_standby_names").await?;
        Ok(standby.is_empty().then(|| {
            "no synchronous standby: what was acknowledged is lost with the database's disk"
                .to_owned()
        }))
    }

    async fn show(&mut self, sql: &str) -> Result<String, Fault> {
        let rows = self.query(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| Fault::strange("no answer to a question"))?;
        Ok(row.try_get(0)?)
    }

    /// Whether COMMIT is under way.
    pub fn committing(&self) -> bool {
        self.committing
    }

    /// One statement without values.
    pub async fn simple(&mut self, sql: &str) -> Result<(), Fault> {
        Ok(self.client.batch_execute(sql).await?)
    }

    pub async fn commit(&mut self) -> Result<(), Fault> {
        self.committing = true;
        let done = self.simple("COMMIT").await;
        self.committing = false;
        done.map_err(|fault| Fault { in_doubt: fault.in_doubt || fault.code.is_none(), ..fault })
    }

    /// Ends a transaction that failed; whether the connection is still good.
    pub async fn roll_back(&mut self) -> bool {
        let ended = tokio::time::timeout(STATEMENT, self.simple("ROLLBACK")).await;
        matches!(ended, Ok(Ok(())))
    }

    async fn prepare(&mut self, sql: &str) -> Result<tokio_postgres::Statement, Fault> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.prepared.len() >= STATEMENTS {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub async fn query(&mut self, sql: &str, values: &[Param]) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql).await?;
        Ok(self.client.query(&statement, &references(values)).await?)
    }

    pub async fn execute(&mut self, sql: &str, values: &[Param]) -> Result<u64, Fault> {
        let statement = self.prepare(sql).await?;
        Ok(self.client.execute(&statement, &references(values)).await?)
    }

    /// Questions in one go.
    pub async fn ask(&mut self, questions: &[Statement]) -> Result<Vec<Vec<Row>>, Fault> {
        let mut asked = Vec::with_capacity(questions.len());
        for (sql, values) in questions {
            asked.push((self.prepare(sql).await?, references(values)));
        }
        let client = &self.client;
        let answers = together(
            asked.iter().map(|(statement, values)| client.query(statement, values)).collect(),
        );
        answers.await.into_iter().map(|answer| answer.map_err(Fault::from)).collect()
    }

    /// Changes in one go, in their order.
    pub async fn all(&mut self, statements: &[Statement]) -> Result<(), Fault> {
        let mut given = Vec::with_capacity(statements.len());
        for (sql, values) in statements {
            given.push((self.prepare(sql).await?, references(values)));
        }
        let client = &self.client;
        let done = together(
            given.iter().map(|(statement, values)| client.execute(statement, values)).collect(),
        );
        done.await.into_iter().try_for_each(|done| done.map(drop).map_err(Fault::from))
    }
}

fn references(values: &[Param]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}
