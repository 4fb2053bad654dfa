//! Names of documents: XCAP paths read and written (RFC 4825 §6).
//!
//! Start at [`Resource::parse`] for a request path, [`DocumentPath`] for a name. XD-001 to XD-004. Touches no disk.

use std::fmt;

use crate::sip::uri::Uri;

/// Application usage of group documents.
pub const GROUPS: &str = "org.openmobilealliance.groups";
/// Application usage of lists.
pub const RESOURCE_LISTS: &str = "resource-lists";
/// Application usage of what a user lets others do (OMA XDM; XD section 4): one document of this name for each user.
pub const ACCESS_RULES: &str = "org.openmobilealliance.access-rules";
/// Name of the document in a user's tree.
pub const ACCESS_RULES_DOCUMENT: &str = "access-rules";
/// Type of its documents (RFC 4745 §16.1).
pub const ACCESS_RULES_TYPE: &str = "application/auth-policy+xml";
/// Application usage of a user's settings for the messaging service (IM-091). The namespace of the document is in use;
/// the names of usage, document and type are made after those of the other usages of OMA IM.
pub const SERVICE_SETTINGS: &str = "org.openmobilealliance.im-service-settings";
/// Name of the document in a user's tree.
pub const SERVICE_SETTINGS_DOCUMENT: &str = "im-service-settings";
/// Type of its documents.
pub const SERVICE_SETTINGS_TYPE: &str = "application/vnd.oma.im.service-settings+xml";
/// Application usage that tells which usages there are.
pub const CAPS: &str = "xcap-caps";
/// Application usage that tells which documents there are.
pub const DIRECTORY: &str = "org.openmobilealliance.xcap-directory";

/// Longest decoded segment of a path, in octets.
const MAX_SEGMENT: usize = 255;

/// Whose tree a document is in. Case matters (XD-001).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// `users/<XUI>`, decoded (XD-002).
    User(String),
    /// `global`.
    Global,
}

/// The name of one document below the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentPath {
    /// Application usage.
    pub auid: String,
    /// The tree.
    pub tree: Tree,
    /// What follows, segment by segment, decoded; never empty.
    pub name: Vec<String>,
}

/// What a request names: a document, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The document.
    pub document: DocumentPath,
    /// Decoded steps behind `/~~/`, still escaped where they were (XD-004); `None` for the whole document.
    pub selector: Option<String>,
}

impl DocumentPath {
    /// A group document in its owner's tree.
    pub fn group(owner: &str, name: &str) -> Self {
        Self { auid: GROUPS.to_owned(), tree: Tree::User(user(owner)), name: vec![name.to_owned()] }
    }

    /// What this user lets others do (XD section 4).
    pub fn access_rules(xui: &str) -> Self {
        let name = vec![ACCESS_RULES_DOCUMENT.to_owned()];
        Self { auid: ACCESS_RULES.to_owned(), tree: Tree::User(user(xui)), name }
    }

    /// What this user has set for the messaging service (IM-091).
    pub fn service_settings(xui: &str) -> Self {
        let name = vec![SERVICE_SETTINGS_DOCUMENT.to_owned()];
        Self { auid: SERVICE_SETTINGS.to_owned(), tree: Tree::User(user(xui)), name }
    }

    /// XD-003: where a group document is found by the group's identity.
    pub fn by_group(uri: &str) -> Self {
        Self {
            auid: GROUPS.to_owned(),
            tree: Tree::Global,
            name: vec!["byGroupID".to_owned(), uri.to_owned()],
        }
    }

    /// The group identity, if this is the view of a group by its identity.
    pub fn group_identity(&self) -> Option<&str> {
        match (self.auid.as_str(), &self.tree, self.name.as_slice()) {
            (GROUPS, Tree::Global, [view, uri]) if view == "byGroupID" => Some(uri),
            _ => None,
        }
    }
}

/// As it stands in a request below the root, without a leading slash.
impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.auid)?;
        match &self.tree {
            Tree::User(xui) => write!(f, "/users/{}", encode_segment(xui))?,
            Tree::Global => f.write_str("/global")?,
        }
        self.name.iter().try_for_each(|segment| write!(f, "/{}", encode_segment(segment)))
    }
}

/// The path names nothing that can exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no XCAP path")]
pub struct BadPath;

impl Resource {
    /// Reads the path of a request URI that is below `root` (the root's own path, without trailing slash). A query is no
    /// part of it.
    ///
    /// # Errors
    /// [`BadPath`] for a path outside the root, broken escapes, empty or over-long segments.
    pub fn parse(path: &str, root: &str) -> Result<Self, BadPath> {
        let below = path.strip_prefix(root).and_then(|p| p.strip_prefix('/')).ok_or(BadPath)?;
        Self::below_root(below)
    }

    /// Reads a path relative to the root.
    ///
    /// # Errors
    /// As [`Resource::parse`].
    pub fn below_root(path: &str) -> Result<Self, BadPath> {
        let mut segments = path.split('/');
        let mut document = Vec::new();
        let mut selector = None;
        while let Some(segment) = segments.next() {
            let decoded = decode(segment)?;
            if decoded == "~~" {
                selector = Some(decode(&segments.collect::<Vec<_>>().join("/"))?);
                break;
            }
            if decoded.is_empty() || decoded.len() > MAX_SEGMENT || decoded.contains('\0') {
                return Err(BadPath);
            }
            document.push(decoded);
        }
        let mut parts = document.into_iter();
        let auid = parts.next().ok_or(BadPath)?;
        let tree = match parts.next().as_deref() {
            Some("users") => Tree::User(user(&parts.next().ok_or(BadPath)?)),
            Some("global") => Tree::Global,
            _ => return Err(BadPath),
        };
        let name: Vec<String> = parts.collect();
        if name.is_empty() || name.len() > 4 {
            return Err(BadPath);
        }
        Ok(Self { document: DocumentPath { auid, tree, name }, selector })
    }
}

/// XD-002, XD-025: one spelling for one user.
fn user(xui: &str) -> String {
    Uri::parse(xui).map_or_else(|_| xui.to_owned(), |uri| uri.canonical())
}

/// XD-002 (RFC 3986 §3.3): what is no `pchar` is percent-encoded, `:` `@` `;` `=` `+` stay.
pub fn encode_segment(text: &str) -> String {
    encode(text, |b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b))
}

/// Percent-encodes what `plain` does not let through.
pub(super) fn encode(text: &str, plain: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(digit), 16).expect("a nibble is below 16");
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    out
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> Result<String, BadPath> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut nibble = || {
            bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
        };
        let (high, low) = (nibble().ok_or(BadPath)?, nibble().ok_or(BadPath)?);
        out.push((high << 4) | low);
    }
    String::from_utf8(out).map_err(|_| BadPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves XD-001, XD-002.
    #[test]
    fn document_names_are_read_and_written() {
        let at = |path: &str| Resource::parse(path, "/xcap-root").map(|r| r.document);
        let alice = DocumentPath::group("sip:alice@ims.test", "team7");
        assert_eq!(
            alice.to_string(),
            "org.openmobilealliance.groups/users/sip:alice@ims.test/team7"
        );
        for path in [
            "/xcap-root/org.openmobilealliance.groups/users/sip:alice@ims.test/team7",
            "/xcap-root/org.openmobilealliance.groups/users/sip:alice%40ims.test/team7",
            "/xcap-root/org.openmobilealliance.groups/users/sip%3aalice%40ims.test/%74eam7",
            "/xcap-root/org.openmobilealliance.groups/users/SIP:alice@IMS.test/team7",
        ] {
            assert_eq!(at(path), Ok(alice.clone()), "{path}");
        }
        let odd = DocumentPath::group("sip:a?b#c%d\"e f/g\u{e9}@h;x=y+z", "n");
        assert_eq!(
            odd.to_string(),
            "org.openmobilealliance.groups/users/sip:a%3Fb%23c%25d%22e%20f%2Fg%C3%A9@h;x=y+z/n"
        );
        assert_eq!(at(&format!("/xcap-root/{odd}")), Ok(odd));
        let view = DocumentPath::by_group("sip:team7@groups.ims.test");
        assert_eq!(
            view.to_string(),
            "org.openmobilealliance.groups/global/byGroupID/sip:team7@groups.ims.test"
        );
        assert_eq!(
            at(&format!("/xcap-root/{view}")).unwrap().group_identity(),
            Some("sip:team7@groups.ims.test")
        );
        for bad in [
            "/other/resource-lists/users/a/index",
            "/xcap-root",
            "/xcap-root/",
            "/xcap-root/resource-lists",
            "/xcap-root/resource-lists/users",
            "/xcap-root/resource-lists/users/a",
            "/xcap-root/resource-lists/Users/a/index",
            "/xcap-root/resource-lists/users//index",
            "/xcap-root/resource-lists/users/a/index/",
            "/xcap-root/resource-lists/users/a/%zz",
            "/xcap-root/resource-lists/users/a/%ff",
            "/xcap-root/resource-lists/users/a/%00",
        ] {
            assert_eq!(at(bad), Err(BadPath), "{bad}");
        }
    }

    #[test]
    fn a_user_has_one_document_of_each_usage() {
        for (path, text) in [
            (
                DocumentPath::access_rules("sip:bob@IMS.test"),
                "org.openmobilealliance.access-rules/users/sip:bob@ims.test/access-rules",
            ),
            (
                DocumentPath::service_settings("tel:+1-555-1"),
                "org.openmobilealliance.im-service-settings/users/tel:+15551/im-service-settings",
            ),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(Resource::below_root(text).map(|r| r.document), Ok(path));
        }
    }

    #[test]
    fn a_selector_is_what_follows_the_tildes() {
        for path in [
            "/r/resource-lists/users/a/index/~~/resource-lists/list%5b@name=%22x%22%5d",
            "/r/resource-lists/users/a/index/%7E%7e/resource-lists/list[@name=%22x%22]",
        ] {
            let resource = Resource::parse(path, "/r").unwrap();
            assert_eq!(resource.selector.as_deref(), Some("resource-lists/list[@name=\"x\"]"));
            assert_eq!(resource.document.name, ["index"]);
        }
    }
}
