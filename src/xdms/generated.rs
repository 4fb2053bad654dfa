//! Documents the embedded XDMS makes itself: which usages there are (RFC 4825 §12), and which documents (OMA XDM).
//!
//! Start at [`capabilities`], [`directory`]. They are read like any other document, nodes and tags included, and never
//! written.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::path::{CAPS, DIRECTORY, DocumentPath};
use super::store::Document;
use super::usages::USAGES;
use crate::content::xml::escape;

/// Namespace of `xcap-caps`.
pub(super) const CAPS_NAMESPACE: &str = "urn:ietf:params:xml:ns:xcap-caps";
/// Namespace of the directory.
pub(super) const DIRECTORY_NAMESPACE: &str = "urn:oma:xml:xdm:xcap-directory";

/// Namespaces documents may use besides those of the usages.
const OTHERS: [&str; 4] = [
    CAPS_NAMESPACE,
    DIRECTORY_NAMESPACE,
    "urn:ietf:params:xml:ns:xcap-error",
    "urn:oma:xml:xdm:common-policy",
];

fn made(path: &DocumentPath, content_type: &'static str, text: String) -> Arc<Document> {
    let digest = Sha256::digest(&text);
    let etag = digest[..12].iter().fold(String::from("\""), |tag, b| tag + &format!("{b:02x}"));
    let bytes = Bytes::from(text);
    Arc::new(Document { path: path.clone(), etag: etag + "\"", content_type, bytes, group: None })
}

/// `xcap-caps/global/index`.
pub(super) fn capabilities(path: &DocumentPath) -> Arc<Document> {
    let usages = USAGES.iter().map(|usage| usage.auid);
    let auids: String =
        [CAPS, DIRECTORY].into_iter().chain(usages).map(|a| format!("<auid>{a}</auid>")).collect();
    let mut namespaces: Vec<&str> = USAGES.iter().map(|usage| usage.namespace).collect();
    namespaces.extend(OTHERS);
    namespaces.sort_unstable();
    namespaces.dedup();
    let namespaces: String =
        namespaces.iter().map(|ns| format!("<namespace>{ns}</namespace>")).collect();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xcap-caps xmlns=\"{CAPS_NAMESPACE}\"><auids>{auids}</auids><extensions/>\
         <namespaces>{namespaces}</namespaces></xcap-caps>\n"
    );
    made(path, "application/xcap-caps+xml", text)
}

/// `directory.xml` of a user or of everybody, over these documents.
pub(super) fn directory(
    path: &DocumentPath,
    root: &str,
    documents: &[Arc<Document>],
) -> Arc<Document> {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xcap-directory xmlns=\"{DIRECTORY_NAMESPACE}\" xmlns:g=\"urn:oma:xml:poc:list-service\">\n"
    );
    for usage in &USAGES {
        out.push_str(&format!("<folder auid=\"{}\">\n", usage.auid));
        for d in documents.iter().filter(|d| d.path.auid == usage.auid) {
            let uri = format!("{root}/{}", d.path);
            out.push_str(&format!(
                "<entry uri=\"{}\" etag=\"{}\" size=\"{}\"",
                escape(&uri),
                escape(d.etag.trim_matches('"')),
                d.bytes.len()
            ));
            if let Some(service) = d.group.as_ref().and_then(|g| g.services.first()) {
                out.push_str(&format!(" g:uri=\"{}\"", escape(&service.uri)));
            }
            out.push_str("/>\n");
        }
        out.push_str("</folder>\n");
    }
    out.push_str("</xcap-directory>\n");
    made(path, "application/vnd.oma.xcap-directory+xml", out)
}
