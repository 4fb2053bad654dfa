//! What recipients say themselves: their access rules and their settings, asked before somebody reaches them.
//!
//! Start at [`Resolver::declines`] for one recipient, `ask_members` for all of a page. Only users of our own
//! domains and numbers have documents here; a document that is not there, or cannot be had, says nothing. IM-090, IM-091.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::access::{Class, Requester, Surroundings, decide};
use super::member_rules::{AccessRules, Answer, Invite};
use super::path::DocumentPath;
use super::resolver::{Query, Resolver};
use super::store::Document;
use crate::content::service_settings::ServiceSettings;
use crate::engine::party::{Audience, Declined, Party};
use crate::sip::uri::{Scheme, Uri};

/// Recipients that are asked for at a time.
const AT_A_TIME: usize = 16;
/// All of them have to be known within this time; whoever is not has said nothing.
const LIMIT: Duration = Duration::from_secs(2);
/// One recipient's documents, lists they point to included.
const ONE_LIMIT: Duration = Duration::from_secs(1);

/// Who wants to reach somebody.
#[derive(Debug, Clone)]
pub struct Sender {
    /// As the core vouches for it; any of them may be named by a rule (XD-031).
    pub identities: Vec<Party>,
    /// Asks to stay unknown.
    pub anonymous: bool,
    /// Wall clock, for rules with a validity.
    pub time: SystemTime,
}

impl Resolver {
    /// Whether this recipient does not want to be reached, by anybody or by this sender.
    pub async fn declines(&self, recipient: &str, sender: &Sender) -> Option<Declined> {
        let uri = Uri::parse(recipient).ok().filter(|uri| self.may_have_documents(uri))?;
        let asked = async {
            if self.is_inactive(uri.as_str()).await {
                return Some(Declined::Inactive);
            }
            self.is_rejected(uri.as_str(), sender).await.then_some(Declined::Rejected)
        };
        tokio::time::timeout(ONE_LIMIT, asked).await.unwrap_or_else(|_| {
            tracing::warn!(
                rule = "IM-090",
                "a recipient's documents take too long; they count as none"
            );
            None
        })
    }

    /// IM-090: asks all recipients of a page; what they say is added to the audience.
    pub(super) async fn ask_members(&self, audience: &mut Audience, query: &Query) {
        let sender = &Sender {
            identities: query.identities.clone(),
            anonymous: query.anonymous,
            time: query.time,
        };
        let mut declined: Vec<(Arc<str>, Declined)> = Vec::new();
        let questions = audience.recipients.iter().map(|recipient| async move {
            let party = &recipient.party;
            Some((Arc::clone(&party.key), self.declines(&party.uri, sender).await?))
        });
        let all = at_most(AT_A_TIME, questions, |answer| declined.extend(answer));
        if tokio::time::timeout(LIMIT, all).await.is_err() {
            tracing::warn!(
                rule = "IM-090",
                key = "im.apply_member_policy",
                "not all recipients could be asked in time; the others count as willing"
            );
        }
        for (_, why) in &declined {
            tracing::info!(
                rule = why.rule(),
                key = "im.apply_member_policy",
                "a recipient's own documents decline the page"
            );
        }
        audience.declined = declined;
    }

    /// A user elsewhere has documents elsewhere.
    fn may_have_documents(&self, uri: &Uri) -> bool {
        let homes = &self.settings.home_domains;
        let home = || homes.iter().any(|home| home.eq_ignore_ascii_case(uri.host()));
        uri.scheme() == Scheme::Tel || (uri.is_sip() && home())
    }

    /// IM-091.
    async fn is_inactive(&self, recipient: &str) -> bool {
        let Some(document) = self.document(DocumentPath::service_settings(recipient)).await else {
            return false;
        };
        match ServiceSettings::parse(&document.bytes) {
            Ok(settings) => !settings.is_reachable(),
            Err(why) => {
                tracing::warn!(rule = "IM-091", %why, "service settings cannot be read; they count as none");
                false
            }
        }
    }

    /// IM-090: by the same rules as those of groups, but that silence lets everybody through.
    async fn is_rejected(&self, recipient: &str, sender: &Sender) -> bool {
        let Some(document) = self.document(DocumentPath::access_rules(recipient)).await else {
            return false;
        };
        let rules = match AccessRules::parse(&document.bytes) {
            Ok(rules) => rules,
            Err(why) => {
                tracing::warn!(rule = "IM-090", %why, "access rules cannot be read; they count as none");
                return false;
            }
        };
        for warning in &rules.warnings {
            tracing::warn!(rule = "IM-090", warning, "access rules read leniently");
        }
        let external = self.lists_of(rules.rules.iter().flat_map(|rule| &rule.conditions)).await;
        let identities: Vec<Uri> =
            sender.identities.iter().filter_map(|party| Uri::parse(&party.uri).ok()).collect();
        let keys: Vec<String> = identities.iter().map(|uri| self.settings.key(uri)).collect();
        let key = |text: &str| Uri::parse(text).ok().map(|uri| self.settings.key(&uri));
        let decision = decide(
            &rules.rules,
            &Requester {
                identities: &identities,
                keys: &keys,
                anonymous: sender.anonymous,
                at: OffsetDateTime::from(sender.time),
            },
            &Surroundings {
                members: &HashSet::new(),
                external: &external,
                precedence: self.settings.oma_precedence,
                key: &key,
            },
        );
        // Nobody is shut out by a list nobody has seen.
        let rejects = |invite: Invite| invite.0 == Some(Answer::Reject);
        let rejected = rejects(decision.least) && rejects(decision.most);
        tracing::debug!(
            rule = "XD-035",
            class = decision.class.map_or("none", Class::as_str),
            rejected,
            uncertain = decision.is_uncertain(),
            "access rules applied"
        );
        rejected
    }

    async fn document(&self, path: DocumentPath) -> Option<Arc<Document>> {
        self.source.fetch(&path).await.unwrap_or_else(|why| {
            tracing::warn!(%why, "a recipient's document cannot be had; it counts as none");
            None
        })
    }
}

/// Runs so many jobs at a time, in their order; each result goes to `done` as it comes.
async fn at_most<F: Future>(
    most: usize,
    jobs: impl Iterator<Item = F>,
    mut done: impl FnMut(F::Output),
) {
    let mut jobs = jobs;
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            while running.len() < most
                && let Some(job) = jobs.next()
            {
                running.push(Box::pin(job));
            }
            let before = running.len();
            running.retain_mut(|job| match job.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    done(output);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && before == 0 {
                return Poll::Ready(());
            }
            // Those that took a free place have not been asked yet.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
}
