//! A small XCAP client: what the `group` commands need (RFC 4825 §7).
//!
//! Start at [`Client`]. Speaks to one root over [`super::ut::http`], as the server does. Writes only conditionally (XD-009)
//! and says who it is (XD-013).

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode, header};
use ipnet::IpNet;

use super::groups::{self, Flaw, Group};
use super::path::{DIRECTORY, DocumentPath, GROUPS, Tree};
use super::server::OPERATOR;
use super::store::{GROUP_TYPE, MAX_DOCUMENT, document_name, group_key};
use super::ut::conflict::Conflict;
use super::ut::http::{self, Answer, Http, Outgoing};
use super::ut::link::Network;
use super::ut::url::Url;
use crate::content::xml::attribute;

/// XD-009: rounds of read and conditional write.
const ROUNDS: usize = 3;
/// Largest answer that is read.
const MAX_ANSWER: usize = 16 * MAX_DOCUMENT;

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The root is no `http://host[:port]/path`.
    #[error("the XCAP root {0} is no http URL; https needs a configuration with xdms.tls.ca")]
    BadRoot(String),
    /// Nobody answers.
    #[error("the XDMS at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// There is no such group.
    #[error("there is no group {0}")]
    Unknown(String),
    /// The server refused; with what it said of it and what to do, where it said something.
    #[error("the XDMS refused: {status}{phrase}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The phrase of an XCAP conflict, with a leading blank.
        phrase: String,
    },
    /// The document is none.
    #[error("the document is no group document: {0}")]
    Document(#[from] Flaw),
}

/// What a document was put as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The group.
    pub uri: String,
    /// Its path below the root.
    pub path: String,
    /// There was none before.
    pub created: bool,
    /// Nobody may send to the group, and why.
    pub warning: Option<&'static str>,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub uri: String,
    /// The document's path below the root.
    pub path: String,
}

/// A client of one XCAP root.
#[derive(Debug)]
pub struct Client {
    http: Http,
}

impl Client {
    /// A client of `http://host[:port]/root`, for somebody who named it by hand: it is told who asks wherever it is.
    ///
    /// # Errors
    /// [`Failure::BadRoot`].
    pub fn new(root: &str) -> Result<Self, Failure> {
        let url = Url::parse(root.trim_end_matches('/')).filter(|url| !url.is_secure());
        let url = url.ok_or_else(|| Failure::BadRoot(root.to_owned()))?;
        let trusted = ["0.0.0.0", "::"]
            .into_iter()
            .filter_map(|any| IpNet::new(any.parse().ok()?, 0).ok())
            .collect();
        let settings = http::Settings { trusted, ..http::Settings::new(url) };
        Ok(Self::with(settings, Network::default()))
    }

    /// A client that keeps to what the configuration says.
    pub fn with(settings: http::Settings, network: Network) -> Self {
        let settings = http::Settings { max_body: settings.max_body.max(MAX_ANSWER), ..settings };
        Self { http: Http::new(settings, Arc::new(network)) }
    }

    fn root(&self) -> &Url {
        &self.http.settings().root
    }

    /// Stores a group document: in the place where the group is already, else in a new one in the tree of `owner`.
    /// Without an owner the operator writes, wherever the group is.
    ///
    /// # Errors
    /// [`Failure`]; the document is looked at before anything is sent.
    pub async fn put(&self, document: Bytes, owner: Option<&str>) -> Result<Put, Failure> {
        let group = Group::parse(&document)?;
        if let Some(flaw) = group.flaw {
            return Err(flaw.into());
        }
        let service = group.services.first().ok_or(Flaw::Schema("a group without list-service"))?;
        let uri = service.uri.clone();
        let identity = owner.unwrap_or(OPERATOR);
        let tree = owner.map_or(Tree::Global, |owner| Tree::User(owner.to_owned()));
        let listed = match self.listed(&tree, identity).await {
            // Not every XDMS keeps a directory; an owner's own names are still ours to choose.
            Err(Failure::Refused { status: 403..=405, .. }) if owner.is_some() => Vec::new(),
            listed => listed?,
        };
        let key = group_key(&uri);
        let path = listed
            .into_iter()
            .find(|one| group_key(&one.uri) == key)
            .map(|one| one.path)
            .unwrap_or_else(|| DocumentPath::group(identity, &document_name(&uri)).to_string());
        let mut last = None;
        for _ in 0..ROUNDS {
            let before = self.send(Method::GET, &path, identity, None, None).await?;
            let condition = match (&before.status, &before.etag) {
                (&StatusCode::OK, Some(etag)) => (header::IF_MATCH, etag.clone()),
                (&StatusCode::NOT_FOUND, _) => (header::IF_NONE_MATCH, "*".to_owned()),
                _ => return Err(refused(&before)),
            };
            let reply = self
                .send(Method::PUT, &path, identity, Some(condition), Some(document.clone()))
                .await?;
            match reply.status {
                StatusCode::OK | StatusCode::CREATED => {
                    return Ok(Put {
                        uri,
                        path,
                        created: reply.status == StatusCode::CREATED,
                        warning: nobody_may_send(service),
                    });
                }
                StatusCode::PRECONDITION_FAILED => last = Some(refused(&reply)),
                _ => return Err(refused(&reply)),
            }
        }
        Err(last.unwrap_or(Failure::Refused { status: 412, phrase: String::new() }))
    }

    /// The document of a group.
    ///
    /// # Errors
    /// [`Failure::Unknown`] if there is none.
    pub async fn get(&self, uri: &str, identity: &str) -> Result<Bytes, Failure> {
        let path = DocumentPath::by_group(uri).to_string();
        let reply = self.send(Method::GET, &path, identity, None, None).await?;
        match reply.status {
            StatusCode::OK => Ok(reply.body),
            StatusCode::NOT_FOUND => Err(Failure::Unknown(uri.to_owned())),
            _ => Err(refused(&reply)),
        }
    }

    /// All groups; `identity` has to be the server's own or the operator's.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn list(&self, identity: &str) -> Result<Vec<Listed>, Failure> {
        self.listed(&Tree::Global, identity).await
    }

    /// Removes a group's document, wherever it is.
    ///
    /// # Errors
    /// [`Failure::Unknown`] if there is none.
    pub async fn rm(&self, uri: &str, identity: &str) -> Result<(), Failure> {
        let key = group_key(uri);
        let mut all = self.listed(&Tree::Global, identity).await?.into_iter();
        let found = all
            .find(|one| group_key(&one.uri) == key)
            .ok_or_else(|| Failure::Unknown(uri.to_owned()))?;
        let mut last = None;
        for _ in 0..ROUNDS {
            let before = self.send(Method::GET, &found.path, identity, None, None).await?;
            let condition = match (&before.status, before.etag.clone()) {
                (&StatusCode::OK, Some(etag)) => (header::IF_MATCH, etag),
                (&StatusCode::NOT_FOUND, _) => return Err(Failure::Unknown(uri.to_owned())),
                _ => return Err(refused(&before)),
            };
            let reply =
                self.send(Method::DELETE, &found.path, identity, Some(condition), None).await?;
            match reply.status {
                StatusCode::OK | StatusCode::NO_CONTENT => return Ok(()),
                StatusCode::NOT_FOUND => return Err(Failure::Unknown(uri.to_owned())),
                StatusCode::PRECONDITION_FAILED => last = Some(refused(&reply)),
                _ => return Err(refused(&reply)),
            }
        }
        Err(last.unwrap_or(Failure::Refused { status: 412, phrase: String::new() }))
    }

    async fn listed(&self, tree: &Tree, identity: &str) -> Result<Vec<Listed>, Failure> {
        let directory = DocumentPath {
            auid: DIRECTORY.to_owned(),
            tree: tree.clone(),
            name: vec!["directory.xml".to_owned()],
        };
        let reply = self.send(Method::GET, &directory.to_string(), identity, None, None).await?;
        if reply.status != StatusCode::OK {
            return Err(refused(&reply));
        }
        let not_xml = Flaw::NotWellFormed("the listing is no XML");
        let text = std::str::from_utf8(&reply.body).map_err(|_| Flaw::NotUtf8)?;
        let document = roxmltree::Document::parse(text).map_err(|_| not_xml)?;
        let entries = document.descendants().filter(|n| {
            n.tag_name().name() == "entry"
                && n.parent().is_some_and(|f| attribute(f, None, "auid") == Some(GROUPS))
        });
        // An absolute URI may name the server as others know it; only the path counts.
        let below = |uri: &str| {
            let path = uri.split_once("://").and_then(|(_, r)| r.find('/').map(|at| &r[at..]));
            let path = path.unwrap_or(uri).strip_prefix(self.root().path().trim_end_matches('/'));
            path.map(|p| p.trim_start_matches('/').to_owned())
        };
        Ok(entries
            .filter_map(|n| {
                let uri = attribute(n, Some(groups::LIST_SERVICE), "uri")?;
                Some(Listed { uri: uri.to_owned(), path: below(attribute(n, None, "uri")?)? })
            })
            .collect())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        identity: &str,
        condition: Option<(header::HeaderName, String)>,
        body: Option<Bytes>,
    ) -> Result<Answer, Failure> {
        let unreachable = |why: String| Failure::Unreachable(self.root().to_string(), why);
        let url = self.root().below(&format!("/{path}"));
        let url = url.ok_or_else(|| unreachable(format!("{path} is no place below it")))?;
        let outgoing = Outgoing {
            method,
            condition,
            body: body.map(|body| (GROUP_TYPE, body)),
            identity: Some(identity.to_owned()),
            ..Outgoing::get(url, None)
        };
        let sent = self.http.send(outgoing, &mut Vec::new()).await;
        sent.map_err(|failed| unreachable(failed.to_string()))
    }
}

fn refused(reply: &Answer) -> Failure {
    let status = reply.status.as_u16();
    let phrase = match status {
        409 => format!(" {}", Conflict::read(reply.content_type.as_deref(), &reply.body)),
        _ => String::new(),
    };
    Failure::Refused { status, phrase }
}

/// Whether a page to the group would be refused whoever sends it.
fn nobody_may_send(service: &groups::ListService) -> Option<&'static str> {
    if !service.invite_members {
        return Some("invite-members is not true: the server invites nobody");
    }
    match &service.rules {
        None => Some("there are no rules: nobody may send"),
        Some(rules) if !rules.iter().any(|rule| rule.grants.initiate && !rule.beyond_us) => {
            Some("no rule grants allow-initiate-conference: nobody may send")
        }
        Some(_) if service.list.is_empty() => Some("the group has no members"),
        Some(_) => None,
    }
}
