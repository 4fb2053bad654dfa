//! What a user has set for the messaging service: reachable or not, and what steers deferral and history (OMA SIMPLE IM).
//!
//! Start at [`ServiceSettings::parse`]. The same XML lies in an XDMS or comes from the HSS as transparent data. Reads what
//! others wrote and can say what a strict server must not take ([`ServiceSettings::flaw`]). Decides nothing. IM-091.
//!
//! The names of the elements are those of deployed clients. Clients differ in where a value stands: in the attribute
//! `active` of its element, as RFC 4354 has it for push-to-talk settings, or as the element's text. Both are read.

use std::borrow::Cow;

use roxmltree::{Document, Node};

use super::xml::{self, BadXml, Bounds, attribute};

/// Namespace of the document.
pub const NAMESPACE: &str = "urn:oma:xml:im:service-settings";

/// XD-047: a user's settings are a handful of elements.
const BOUNDS: Bounds =
    Bounds { bytes: 64 * 1024, depth: 8, elements: 500, attributes: 32, text: 4096 };

/// What one user has set. A setting that is not there has not been made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Which service of the user's it is about.
    pub service_id: Option<String>,
    /// `false`: nobody may reach the user by this service (IM-091).
    pub active: Option<bool>,
    /// `deferred-settings/offline-delivery`: what comes while the user is away is kept (IM-092).
    pub offline_delivery: Option<bool>,
    /// `vis-settings/vis-status`: others may see that the user is there.
    pub visible: Option<bool>,
    /// `hist-settings/hist-activation`: which conversations are recorded (IM-093).
    pub history: History,
    /// The first thing a server must not take from a user.
    pub flaw: Option<&'static str>,
    /// What was passed over, for the log.
    pub warnings: Vec<&'static str>,
}

/// Which conversations are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// `session-mode`
    pub session_mode: Option<bool>,
    /// `pager-large-mode`: pages, short or large.
    pub pager_large_mode: Option<bool>,
}

/// Nothing can be made of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// No XML, or XML that is refused (XD-047).
    #[error(transparent)]
    Xml(#[from] BadXml),
    /// XML of another kind.
    #[error("the root is no service settings")]
    Root,
}

impl ServiceSettings {
    /// Reads a document, UTF-8 only. XD-019: by namespace and local name; what is foreign is passed over.
    ///
    /// # Errors
    /// [`BadSettings`] when there is nothing to read; what is only doubtful is in `warnings` and `flaw`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadSettings> {
        if bytes.len() > BOUNDS.bytes {
            return Err(BadXml::TooLarge.into());
        }
        let Cow::Borrowed(text) = xml::decode(bytes)? else {
            return Err(BadXml::Encoding.into()); // UTF-16
        };
        xml::check(text, &BOUNDS)?;
        let document =
            Document::parse(text).map_err(|_| BadXml::Malformed("not well-formed XML"))?;
        let root = document.root_element();
        if root.tag_name().namespace() != Some(NAMESPACE) {
            return Err(BadSettings::Root);
        }
        let mut settings = Self::default();
        // The name of the root is nowhere to be read in public; the namespace says what it is.
        if root.tag_name().name() != "service-settings" {
            settings.doubt("the root is not named service-settings");
        }
        settings.root(root);
        Ok(settings)
    }

    /// Whether the user may be reached at all.
    ///
    /// IM-091: only who has switched the service off cannot.
    pub fn is_reachable(&self) -> bool {
        self.active != Some(false)
    }

    fn root(&mut self, root: Node<'_, '_>) {
        if let Some(id) = attribute(root, None, "service-id") {
            self.service_id = Some(id.trim().to_owned());
        }
        if let Some(text) = attribute(root, None, "active") {
            self.active = self.boolean(text);
        }
        for node in own(root) {
            match node.tag_name().name() {
                "service-id" => self.service_id = Some(text(node).to_owned()),
                "active" => self.active = self.value(node),
                "deferred-settings" => {
                    if let Some(node) = named(node, "offline-delivery") {
                        self.offline_delivery = self.value(node);
                    }
                }
                "vis-settings" => {
                    if let Some(node) = named(node, "vis-status") {
                        self.visible = self.value(node);
                    }
                }
                "hist-settings" => {
                    for node in own(node).filter(|node| is(*node, "hist-activation")) {
                        self.activation(node);
                    }
                }
                _ => self.doubt("an unknown element"),
            }
        }
    }

    /// One `hist-activation`: for one kind of conversation by its type, for each that is named inside, or for all.
    fn activation(&mut self, node: Node<'_, '_>) {
        let kind = attribute(node, None, "type").map(str::trim);
        let inside: Vec<Node<'_, '_>> = own(node).collect();
        if !inside.is_empty() {
            for node in inside {
                let value = self.value(node);
                self.record(node.tag_name().name(), value);
            }
        } else if let Some(kind) = kind {
            let value = if is_bare(node) { Some(true) } else { self.value(node) };
            self.record(kind, value);
        } else if matches!(text(node), "session-mode" | "pager-large-mode") {
            self.record(text(node), Some(true));
        } else {
            let value = self.value(node);
            self.history = History { session_mode: value, pager_large_mode: value };
        }
    }

    fn record(&mut self, kind: &str, value: Option<bool>) {
        match kind {
            "session-mode" => self.history.session_mode = value,
            "pager-large-mode" => self.history.pager_large_mode = value,
            _ => self.doubt("an unknown kind of conversation"),
        }
    }

    /// The attribute `active`, else the text.
    fn value(&mut self, node: Node<'_, '_>) -> Option<bool> {
        let value = attribute(node, None, "active").unwrap_or_else(|| text(node));
        self.boolean(value)
    }

    /// What is no boolean has not been set.
    fn boolean(&mut self, text: &str) -> Option<bool> {
        match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                self.doubt("a setting that is no boolean");
                None
            }
        }
    }

    fn doubt(&mut self, what: &'static str) {
        self.flaw.get_or_insert(what);
        if !self.warnings.contains(&what) {
            self.warnings.push(what);
        }
    }
}

fn own<'a, 'i: 'a>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children()
        .filter(|node| node.is_element() && node.tag_name().namespace() == Some(NAMESPACE))
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.tag_name().name() == name
}

fn named<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    own(node).find(|node| is(*node, name))
}

fn is_bare(node: Node<'_, '_>) -> bool {
    attribute(node, None, "active").is_none() && text(node).is_empty()
}

fn text<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inside: &str) -> ServiceSettings {
        let text =
            format!("<s:service-settings xmlns:s='{NAMESPACE}'>{inside}</s:service-settings>");
        ServiceSettings::parse(text.as_bytes()).expect("service settings")
    }

    /// Proves IM-091.
    #[test]
    fn every_setting_is_read_in_either_form() {
        let by_text = "<s:service-id>im</s:service-id><s:active> false </s:active>\
            <s:deferred-settings><s:offline-delivery>true</s:offline-delivery></s:deferred-settings>\
            <s:vis-settings><s:vis-status>0</s:vis-status></s:vis-settings>\
            <s:hist-settings><s:hist-activation><s:session-mode>false</s:session-mode>\
            <s:pager-large-mode>1</s:pager-large-mode></s:hist-activation></s:hist-settings>";
        let want = ServiceSettings {
            service_id: Some("im".to_owned()),
            active: Some(false),
            offline_delivery: Some(true),
            visible: Some(false),
            history: History { session_mode: Some(false), pager_large_mode: Some(true) },
            ..ServiceSettings::default()
        };
        assert_eq!(read(by_text), want);
        let by_attribute = format!(
            "<service-settings xmlns='{NAMESPACE}' service-id='im' active='false'>\
             <deferred-settings><offline-delivery active='true'/></deferred-settings>\
             <vis-settings><vis-status active='false'/></vis-settings>\
             <hist-settings><hist-activation type='session-mode' active='false'/>\
             <hist-activation type='pager-large-mode'/></hist-settings></service-settings>"
        );
        assert_eq!(ServiceSettings::parse(by_attribute.as_bytes()), Ok(want));
    }

    /// Proves IM-091.
    #[test]
    fn only_who_said_so_is_not_to_be_reached() {
        for (inside, reachable, doubtful) in [
            ("", true, false),
            ("<s:active>true</s:active>", true, false),
            ("<s:active>1</s:active>", true, false),
            ("<s:active>false</s:active>", false, false),
            ("<s:active active='0'/>", false, false),
            ("<s:active>FALSE</s:active>", true, true),
            ("<s:active/>", true, true),
            ("<active xmlns='urn:other'>false</active>", true, false),
            ("<s:vis-settings><s:active>false</s:active></s:vis-settings>", true, false),
        ] {
            let settings = read(inside);
            assert_eq!(settings.is_reachable(), reachable, "{inside}");
            assert_eq!(settings.flaw.is_some(), doubtful, "{inside}");
            assert_eq!(settings.warnings.is_empty(), !doubtful, "{inside}");
        }
    }

    #[test]
    fn history_is_for_one_kind_or_for_all() {
        let of = |inside: &str| {
            let settings = read(&format!("<s:hist-settings>{inside}</s:hist-settings>"));
            let History { session_mode, pager_large_mode } = settings.history;
            (session_mode, pager_large_mode, settings.flaw.is_some())
        };
        for (inside, want) in [
            ("", (None, None, false)),
            ("<s:hist-activation>true</s:hist-activation>", (Some(true), Some(true), false)),
            ("<s:hist-activation active='0'/>", (Some(false), Some(false), false)),
            ("<s:hist-activation>session-mode</s:hist-activation>", (Some(true), None, false)),
            (
                "<s:hist-activation type='pager-large-mode'>false</s:hist-activation>",
                (None, Some(false), false),
            ),
            ("<s:hist-activation type='new'/>", (None, None, true)),
            ("<s:hist-activation><s:new>1</s:new></s:hist-activation>", (None, None, true)),
            ("<s:hist-activation>sometimes</s:hist-activation>", (None, None, true)),
        ] {
            assert_eq!(of(inside), want, "{inside}");
        }
    }

    /// Proves XD-019.
    #[test]
    fn another_root_is_read_where_the_namespace_is_ours() {
        let odd = format!("<im-settings xmlns='{NAMESPACE}'><active>0</active></im-settings>");
        let settings = ServiceSettings::parse(odd.as_bytes()).expect("read");
        assert!(!settings.is_reachable());
        assert_eq!(settings.flaw, Some("the root is not named service-settings"));
        assert_eq!(ServiceSettings::parse(b"<service-settings/>"), Err(BadSettings::Root));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = format!("<s xmlns='{NAMESPACE}'>{}", "<a>".repeat(100_000));
        let many = format!("<s xmlns='{NAMESPACE}'>{}</s>", "<a/>".repeat(501));
        let big = " ".repeat(BOUNDS.bytes + 1);
        let wide: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, what) in [
            (&b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"[..], "a DTD"),
            (deep.as_bytes(), "deep"),
            (many.as_bytes(), "many"),
            (big.as_bytes(), "large"),
            (&wide, "UTF-16"),
            (b"<service-settings", "cut"),
            (b"", "nothing"),
            (b"\xff", "no text"),
        ] {
            assert!(matches!(ServiceSettings::parse(bytes), Err(BadSettings::Xml(_))), "{what}");
        }
    }
}
