//! Answers of the embedded XDMS: statuses, headers, and conflicts as XML (RFC 4825 §8, §11).
//!
//! Start at [`refusal`]: what the store refuses, as a status and the one element that says why (XD-044).

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::edit;
use super::gate::Turned;
use super::groups::Flaw;
use super::path::DocumentPath;
use super::selector::Selector;
use super::store::Refused;
use crate::content::xml::escape;

/// A whole answer.
pub(super) type Answer = Response<Full<Bytes>>;

const ERROR_TYPE: &str = "application/xcap-error+xml";

/// What a request was about, for those answers that say so.
pub(super) struct About<'a> {
    pub(super) path: &'a DocumentPath,
    /// The root as others address it: `https://host/root`.
    pub(super) root: &'a str,
    pub(super) selector: Option<&'a Selector>,
    /// As received.
    pub(super) query: Option<&'a str>,
}

/// XD-044: what the store refuses, as a status.
pub(super) fn refusal(about: &About<'_>, refused: &Refused) -> Answer {
    match refused {
        Refused::NotFound => plain(StatusCode::NOT_FOUND),
        Refused::Precondition => plain(StatusCode::PRECONDITION_FAILED),
        Refused::Flaw(flaw) => conflict(flaw),
        Refused::Node(refusal) => node(about, refusal),
        Refused::NoParent => conflict_with("<no-parent/>"),
        Refused::Taken { field, free } => {
            let free: String =
                free.iter().map(|uri| format!("<alt-value>{}</alt-value>", escape(uri))).collect();
            let phrase = match field.starts_with("group/") {
                true => "Group identity already in use",
                false => "Service identity already in use",
            };
            conflict_with(&format!(
                "<uniqueness-failure phrase=\"{phrase}\"><exists field=\"{}\">{free}</exists></uniqueness-failure>",
                escape(field)
            ))
        }
        Refused::Disk(error) => {
            tracing::error!(path = %about.path, %error, "a document cannot be stored");
            plain(match error.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::ReadOnlyFilesystem => StatusCode::INSUFFICIENT_STORAGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            })
        }
    }
}

fn node(about: &About<'_>, refusal: &edit::Refusal) -> Answer {
    let phrase = refusal.to_string();
    let phrase = escape(&phrase);
    let child = |name: &str| format!("<{name} phrase=\"{phrase}\"/>");
    conflict_with(&match refusal {
        edit::Refusal::NotFound => return plain(StatusCode::NOT_FOUND),
        edit::Refusal::Flaw(flaw) => return conflict(flaw),
        edit::Refusal::NoParent { steps } => {
            let ancestor = escape(&ancestor(about, *steps)).into_owned();
            format!("<no-parent phrase=\"{phrase}\"><ancestor>{ancestor}</ancestor></no-parent>")
        }
        edit::Refusal::CannotInsert => child("cannot-insert"),
        edit::Refusal::CannotDelete => child("cannot-delete"),
        edit::Refusal::NotFragment => child("not-xml-frag"),
        edit::Refusal::NotValue => child("not-xml-att-value"),
    })
}

/// RFC 4825 §11: the URI of the closest ancestor that exists.
fn ancestor(about: &About<'_>, steps: usize) -> String {
    let document = format!("{}/{}", about.root, about.path);
    let (written, prefixed) = about.selector.map(|s| s.written(steps)).unwrap_or_default();
    match (written.is_empty(), about.query.filter(|_| prefixed)) {
        (true, _) => document,
        (false, None) => format!("{document}/~~/{written}"),
        (false, Some(query)) => format!("{document}/~~/{written}?{query}"),
    }
}

/// RFC 4825 §11.
pub(super) fn conflict(flaw: &Flaw) -> Answer {
    let phrase = escape(&flaw.to_string()).into_owned();
    conflict_with(&match flaw {
        Flaw::NotUtf8 => format!("<not-utf-8 phrase=\"{phrase}\"/>"),
        Flaw::NotWellFormed(_) => format!("<not-well-formed phrase=\"{phrase}\"/>"),
        Flaw::Schema(_) => format!("<schema-validation-error phrase=\"{phrase}\"/>"),
        Flaw::NotUnique(field) => format!(
            "<uniqueness-failure phrase=\"{phrase}\"><exists field=\"{}\"/></uniqueness-failure>",
            escape(field)
        ),
        Flaw::Constraint(_) => format!("<constraint-failure phrase=\"{phrase}\"/>"),
    })
}

/// A node's body that is no such thing, whatever else is wrong.
pub(super) fn bad_body(refusal: &edit::Refusal) -> Answer {
    let phrase = refusal.to_string();
    let name = match refusal {
        edit::Refusal::NotValue => "not-xml-att-value",
        _ => "not-xml-frag",
    };
    conflict_with(&format!("<{name} phrase=\"{}\"/>", escape(&phrase)))
}

fn conflict_with(child: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xcap-error xmlns=\"urn:ietf:params:xml:ns:xcap-error\">{child}</xcap-error>\n"
    );
    let mut answer = plain(StatusCode::CONFLICT);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(ERROR_TYPE));
    *answer.body_mut() = Full::new(body.into());
    answer
}

/// Somebody is turned away.
pub(super) fn turned(turned: Turned) -> Answer {
    match turned {
        Turned::Away => plain(StatusCode::FORBIDDEN),
        Turned::Elsewhere => plain(StatusCode::BAD_REQUEST),
        Turned::Guessing => limited(),
        Turned::Ask(challenges) => {
            let mut answer = plain(StatusCode::UNAUTHORIZED);
            for challenge in challenges {
                answer.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
            }
            answer
        }
    }
}

/// XD-048: too much in a minute.
pub(super) fn limited() -> Answer {
    let mut answer = plain(StatusCode::TOO_MANY_REQUESTS);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    answer
}

/// A status and nothing else.
pub(super) fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// 405.
pub(super) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}

/// An answer about a document that has that tag.
pub(super) fn tagged(
    status: StatusCode,
    etag: &str,
    content: Option<(&'static str, Bytes)>,
) -> Answer {
    let mut answer = plain(status);
    let tag = HeaderValue::from_str(etag).expect("tags of the store are quoted hex digits");
    answer.headers_mut().insert(header::ETAG, tag);
    if let Some((content_type, bytes)) = content {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        *answer.body_mut() = Full::new(bytes);
    }
    answer
}
