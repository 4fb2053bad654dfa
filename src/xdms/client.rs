//! A small XCAP client: what the `group` commands need (RFC 4825 §7).
//!
//! Start at [`Client`]. Speaks to one root over plain HTTP, one connection for each request. Writes only conditionally
//! (XD-009) and says who it is (XD-013).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::groups::{self, Flaw, Group};
use super::path::{DIRECTORY, DocumentPath, GROUPS, Tree};
use super::server::OPERATOR;
use super::store::{GROUP_TYPE, MAX_DOCUMENT, document_name, group_key};
use crate::content::xml::attribute;

/// XD-012: connecting, and the whole exchange.
const CONNECT: Duration = Duration::from_secs(2);
const EXCHANGE: Duration = Duration::from_secs(5);
/// XD-009: rounds of read and conditional write.
const ROUNDS: usize = 3;
/// Largest answer that is read.
const MAX_ANSWER: usize = 16 * MAX_DOCUMENT;

/// Why a request did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The root is no `http://host[:port]/path`.
    #[error("the XCAP root {0} is no http URL")]
    BadRoot(String),
    /// Nobody answers.
    #[error("the XDMS at {0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// There is no such group.
    #[error("there is no group {0}")]
    Unknown(String),
    /// The server refused; with its own words where it gave some.
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
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    base: String,
    root: String,
}

struct Reply {
    status: StatusCode,
    etag: Option<String>,
    body: Bytes,
}

impl Client {
    /// A client of `http://host[:port]/root`.
    ///
    /// # Errors
    /// [`Failure::BadRoot`].
    pub fn new(root: &str) -> Result<Self, Failure> {
        let root = root.trim_end_matches('/');
        let bad = || Failure::BadRoot(root.to_owned());
        let rest = root.strip_prefix("http://").ok_or_else(bad)?;
        let (authority, base) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.is_empty() || authority.contains('@') {
            return Err(bad());
        }
        Ok(Self { authority: authority.into(), base: base.into(), root: root.into() })
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
        let reply = self.send(Method::DELETE, &found.path, identity, None, None).await?;
        match reply.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::NOT_FOUND => Err(Failure::Unknown(uri.to_owned())),
            _ => Err(refused(&reply)),
        }
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
        let below = |uri: &str| {
            let path = uri.strip_prefix("http://").and_then(|r| r.find('/').map(|at| &r[at..]));
            let path = path.unwrap_or(uri);
            path.strip_prefix(&self.base).map(|p| p.trim_start_matches('/').to_owned())
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
    ) -> Result<Reply, Failure> {
        let exchange = self.exchange(method, path, identity, condition, body);
        match tokio::time::timeout(EXCHANGE, exchange).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failure::Unreachable(self.root.clone(), error.to_string())),
            Err(_) => Err(Failure::Unreachable(self.root.clone(), "no answer in time".into())),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        identity: &str,
        condition: Option<(header::HeaderName, String)>,
        body: Option<Bytes>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let has_port = self
            .authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let address =
            if has_port { self.authority.clone() } else { format!("{}:80", self.authority) };
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, "XDM-client/OMA2.1 pagecast")
            .header("X-3GPP-Asserted-Identity", format!("\"{identity}\""));
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, GROUP_TYPE);
        }
        let request = request.body(Full::new(body.unwrap_or_default()))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            let etag = head.headers.get(header::ETAG).and_then(|v| v.to_str().ok());
            Ok(Reply { status: head.status, etag: etag.map(str::to_owned), body })
        };
        tokio::pin!(exchange, connection);
        let mut open = true;
        loop {
            tokio::select! {
                reply = &mut exchange => return reply,
                _ = &mut connection, if open => open = false,
            }
        }
    }
}

fn refused(reply: &Reply) -> Failure {
    let text = std::str::from_utf8(&reply.body).unwrap_or("");
    let phrase = roxmltree::Document::parse(text).ok().and_then(|document| {
        let conflict = document.root_element().first_element_child()?;
        let words = attribute(conflict, None, "phrase").unwrap_or(conflict.tag_name().name());
        Some(format!(" {words}"))
    });
    Failure::Refused { status: reply.status.as_u16(), phrase: phrase.unwrap_or_default() }
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
