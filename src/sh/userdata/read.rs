//! Reading Sh-Data as others write it.

use roxmltree::{Document, Node};

use super::{
    Charging, Identities, IdentityType, MAX_DEPTH, MAX_OCTETS, Presence, Repository, Set, ShData,
    UserState,
};
use crate::content::xml::{self, BadXml, Bounds};

const BOUNDS: Bounds = Bounds {
    bytes: MAX_OCTETS,
    depth: MAX_DEPTH,
    elements: 16_384,
    attributes: 64,
    text: MAX_OCTETS,
};

/// Why a document is not understood; names no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadData {
    /// Larger than is taken.
    #[error("the document is too large")]
    TooLarge,
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<BadXml> for BadData {
    fn from(bad: BadXml) -> Self {
        match bad {
            BadXml::TooLarge => Self::TooLarge,
            BadXml::Encoding => Self::Malformed("the encoding is not supported"),
            BadXml::Malformed(what) => Self::Malformed(what),
        }
    }
}

impl ShData {
    /// Reads one document.
    ///
    /// SH-035: in any order, unknown elements passed over, `Extension` transparent, no document type, bounded. SH-036: by
    /// either spelling. SH-037, SH-038.
    ///
    /// # Errors
    /// [`BadData`] for what is no such document, or says something else than the schema allows where we look.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadData> {
        if bytes.len() > MAX_OCTETS {
            return Err(BadData::TooLarge);
        }
        let text = xml::decode(bytes)?;
        xml::check(&text, &BOUNDS)?;
        let document = Document::parse(&text).map_err(|_| BadData::Malformed("not well-formed"))?;
        let root = document.root_element();
        if root.tag_name().name() != "Sh-Data" {
            return Err(BadData::Malformed("the root is no Sh-Data"));
        }
        let mut data = Self::default();
        for node in inside(root) {
            let set = match node.tag_name().name() {
                "RepositoryData" => {
                    data.repository.push(repository(node, &text)?);
                    continue;
                }
                "Sh-IMS-Data" => {
                    data.ims(node)?;
                    continue;
                }
                "PublicIdentifiers" => Set::Unsaid,
                "RegisteredIdentites" | "RegisteredIdentities" => Set::Registered,
                "ImplicitIdentities" => Set::Implicit,
                "AllIdentities" => Set::All,
                "AliasIdentities" => Set::Alias,
                "DeletedIdentities" => Set::Deleted,
                _ => continue,
            };
            data.identities.push(identities(node, set)?);
        }
        Ok(data)
    }

    fn ims(&mut self, ims: Node<'_, '_>) -> Result<(), BadData> {
        for node in inside(ims) {
            match node.tag_name().name() {
                "SCSCFName" | "S-CSCFName" => {
                    self.scscf = match text_of(node) {
                        "" => Presence::Empty,
                        name => Presence::Present(name.to_owned()),
                    };
                }
                "IFCs" => {
                    let named =
                        |node: &Node<'_, '_>| node.tag_name().name() == "InitialFilterCriteria";
                    self.filter_criteria = match inside(node).filter(named).count() {
                        0 => Presence::Empty,
                        some => Presence::Present(some),
                    };
                }
                "IMSUserState" => self.state = Some(one_of(node, &UserState::ALL)?),
                "ChargingInformation" => self.charging = Some(charging(node)),
                "PSIActivation" => self.psi_active = Some(one_of(node, &[false, true])?),
                "DSAI" => {
                    let tag =
                        child(node, "DSAI-Tag").ok_or(BadData::Malformed("a DSAI without tag"))?;
                    let value = child(node, "DSAI-Value")
                        .ok_or(BadData::Malformed("a DSAI without value"))?;
                    // SH-037: 0 is active here.
                    let active = one_of(value, &[true, false])?;
                    self.dsai.push((text_of(tag).to_owned(), active));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The child elements in the namespace of their parent, those inside extensions among them.
///
/// SH-035, SH-036: an extension only says in which release its content was added.
fn inside<'a, 'i>(parent: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let mut open: Vec<Node<'a, 'i>> = Vec::new();
    let push = |open: &mut Vec<Node<'a, 'i>>, of: Node<'a, 'i>| {
        open.extend(of.children().filter(Node::is_element).rev());
    };
    push(&mut open, parent);
    let namespace = parent.tag_name().namespace().map(str::to_owned);
    std::iter::from_fn(move || {
        loop {
            let node = open.pop()?;
            if node.tag_name().namespace() != namespace.as_deref() {
                continue;
            }
            if !matches!(node.tag_name().name(), "Extension" | "Extention") {
                return Some(node);
            }
            push(&mut open, node);
        }
    })
}

fn child<'a, 'i>(parent: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    inside(parent).find(|node| node.tag_name().name() == name)
}

fn text_of<'a>(node: Node<'a, '_>) -> &'a str {
    node.text().unwrap_or_default().trim()
}

/// The value an integer stands for.
fn one_of<T: Copy>(node: Node<'_, '_>, values: &[T]) -> Result<T, BadData> {
    let number: Option<usize> = text_of(node).parse().ok();
    number
        .and_then(|number| values.get(number).copied())
        .ok_or(BadData::Malformed("an enumeration with another value"))
}

fn repository(node: Node<'_, '_>, source: &str) -> Result<Repository, BadData> {
    let (mut service_indication, mut sequence, mut data) = (None, None, Presence::Absent);
    for part in inside(node) {
        match part.tag_name().name() {
            "ServiceIndication" => service_indication = Some(text_of(part).to_owned()),
            "SequenceNumber" => {
                let number = text_of(part).parse::<u16>();
                sequence = Some(number.map_err(|_| BadData::Malformed("a wrong SequenceNumber"))?);
            }
            "ServiceData" => data = service_data(part, source),
            _ => {}
        }
    }
    Ok(Repository {
        service_indication: service_indication.ok_or(BadData::Malformed("no ServiceIndication"))?,
        sequence: sequence.ok_or(BadData::Malformed("no SequenceNumber"))?,
        data,
    })
}

/// What stands inside, byte for byte; prefixes it takes from outside are declared with it.
fn service_data(node: Node<'_, '_>, source: &str) -> Presence<String> {
    let content: Vec<Node<'_, '_>> = node.children().collect();
    let (Some(first), Some(last)) = (content.first(), content.last()) else {
        return Presence::Empty;
    };
    let inner = source[first.range().start..last.range().end].trim();
    if inner.is_empty() {
        return Presence::Empty;
    }
    let Some(element) = content.iter().find(|node| node.is_element()) else {
        return Presence::Present(inner.to_owned());
    };
    let start = &source[element.range()];
    let name_end = start
        .find(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/')
        .unwrap_or(start.len());
    let own = declared(&start[name_end..]);
    let mut missing = String::new();
    for namespace in node.namespaces() {
        let attribute = namespace.name().map_or("xmlns".to_owned(), |name| format!("xmlns:{name}"));
        if namespace.name() == Some("xml") || own.contains(&attribute.as_str()) {
            continue;
        }
        missing.push_str(&format!(" {attribute}=\"{}\"", xml::escape(namespace.uri())));
    }
    if missing.is_empty() {
        return Presence::Present(inner.to_owned());
    }
    let at = element.range().start + name_end;
    let end = last.range().end;
    let begin = first.range().start;
    Presence::Present(
        format!("{}{missing}{}", &source[begin..at], &source[at..end]).trim().to_owned(),
    )
}

/// Names of the attributes of a start tag that is well-formed; `tag` begins behind the element's name.
fn declared(tag: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = tag.trim_start();
    while !rest.starts_with(['>', '/']) {
        let Some((name, value)) = rest.split_once('=') else { break };
        names.push(name.trim());
        let value = value.trim_start();
        let Some(quote) = value.chars().next() else { break };
        let Some((_, after)) = value[1..].split_once(quote) else { break };
        rest = after.trim_start();
    }
    names
}

fn identities(node: Node<'_, '_>, set: Set) -> Result<Identities, BadData> {
    let mut found = Identities { set, ..Identities::default() };
    let text = |node| text_of(node).to_owned();
    for part in inside(node) {
        match part.tag_name().name() {
            "IMSPublicIdentity" if !text_of(part).is_empty() => found.uris.push(text(part)),
            "MSISDN" if !text_of(part).is_empty() => found.msisdns.push(text(part)),
            "IdentityType" => found.kind = Some(one_of(part, &IdentityType::ALL)?),
            "WildcardedPSI" => found.wildcarded_psi = Some(text(part)),
            "WildcardedIMPU" => found.wildcarded_impu = Some(text(part)),
            _ => {}
        }
    }
    Ok(found)
}

fn charging(node: Node<'_, '_>) -> Charging {
    let named =
        |name| child(node, name).map(text_of).filter(|text| !text.is_empty()).map(str::to_owned);
    Charging {
        primary_event: named("PrimaryEventChargingFunctionName"),
        secondary_event: named("SecondaryEventChargingFunctionName"),
        primary_collection: named("PrimaryChargingCollectionFunctionName"),
        secondary_collection: named("SecondaryChargingCollectionFunctionName"),
    }
}
