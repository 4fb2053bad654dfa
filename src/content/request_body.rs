//! The body of an initial request: which part is the SDP, which are recipient lists, and what must be refused.
//!
//! Start at [`read`]. Looks at types and dispositions only; the SDP and the lists are read by [`super::sdp`] and
//! [`super::resource_lists`]. Follows IM-027, UL-006 to UL-008 and RFC 5621 §4, §8.

use bytes::Bytes;

use super::multipart::{BadBody, Disposition, Part, flatten};

/// The type of a recipient list.
pub const RESOURCE_LISTS: &str = "application/resource-lists+xml";
/// The disposition of the list recipients see (UL-021).
pub const HISTORY: &str = "recipient-list-history; handling=optional";
/// The type of a session description.
pub const SDP: &str = "application/sdp";
/// What a 415 says we take (IM-027).
pub const ACCEPT: &str = "application/sdp, application/resource-lists+xml, multipart/mixed";

/// The parts of a request's body that mean something to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestBody {
    /// The session description.
    pub sdp: Option<Bytes>,
    /// The recipient lists in order; several are one list (UL-008).
    pub lists: Vec<Bytes>,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefusal {
    /// 400: broken MIME.
    #[error("{0}")]
    Broken(#[from] BadBody),
    /// 415 with `Accept:` [`ACCEPT`]: a part we would have to understand and do not.
    #[error("a body part of a type that is not understood")]
    Unknown,
}

impl BodyRefusal {
    /// The SIP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Broken(_) => 400,
            Self::Unknown => 415,
        }
    }
}

/// Sorts the parts of a body. `content_type` and `disposition` are the header fields of the request itself; `strict` is
/// `ul.require_strict`.
///
/// # Errors
/// [`BodyRefusal::Broken`] for broken MIME, two session descriptions included; [`BodyRefusal::Unknown`] by IM-027.
pub fn read(
    content_type: &str,
    disposition: Option<&str>,
    body: &Bytes,
    strict: bool,
) -> Result<RequestBody, BodyRefusal> {
    let mut parts = flatten(content_type, body)?;
    if let (Some(text), [only]) = (disposition, parts.as_mut_slice())
        && only.disposition.is_none()
    {
        only.disposition = Disposition::parse(text);
    }
    let mut found = RequestBody::default();
    let bare: Vec<usize> = (0..parts.len()).filter(|n| is_bare_list(&parts[*n])).collect();
    for (n, part) in parts.iter().enumerate() {
        let optional = part.disposition.as_ref().is_some_and(|d| d.optional);
        match (purpose(part), is_plain(part)) {
            (Purpose::List, true) => found.lists.push(part.body.clone()),
            // UL-007: without a disposition it is a list only if it is the only such part and nobody insists.
            (Purpose::BareList, true) => {
                if !strict && bare == [n] {
                    found.lists.push(part.body.clone());
                }
            }
            // UL-007: a history list in a request to us names nobody we should reach.
            (Purpose::History, _) => {}
            (Purpose::Sdp, true) if found.sdp.is_none() => found.sdp = Some(part.body.clone()),
            (Purpose::Sdp, true) => {
                return Err(BodyRefusal::Broken(BadBody { what: "two session descriptions" }));
            }
            // IM-027 (RFC 5621 §4): what we may ignore is ignored, the rest must be refused.
            _ if optional => {}
            _ => return Err(BodyRefusal::Unknown),
        }
    }
    Ok(found)
}

/// What a part is for.
pub(super) enum Purpose {
    Sdp,
    List,
    BareList,
    History,
    Other,
}

pub(super) fn purpose(part: &Part) -> Purpose {
    let is_list = part.content_type.essence == RESOURCE_LISTS;
    match part.disposition.as_ref().map(|d| d.kind.as_str()) {
        Some("recipient-list") if is_list => Purpose::List,
        Some("recipient-list") => Purpose::Other,
        Some("recipient-list-history") => Purpose::History,
        None if is_list => Purpose::BareList,
        Some("session") | None if part.content_type.essence == SDP => Purpose::Sdp,
        _ => Purpose::Other,
    }
}

/// Whether a part looks like a recipient list and does not say so (UL-007).
pub(super) fn is_bare_list(part: &Part) -> bool {
    matches!(purpose(part), Purpose::BareList)
}

/// Whether the content stands there as it is; we undo no transfer encoding.
pub(super) fn is_plain(part: &Part) -> bool {
    part.header("content-transfer-encoding").is_none_or(|coding| {
        ["binary", "8bit", "7bit"].iter().any(|plain| coding.trim().eq_ignore_ascii_case(plain))
    }) && part
        .header("content-encoding")
        .is_none_or(|coding| coding.trim().eq_ignore_ascii_case("identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parts: &[(&str, &str)]) -> Bytes {
        let mut text = String::new();
        for (headers, content) in parts {
            text += &format!("--b\r\n{headers}\r\n{content}\r\n");
        }
        Bytes::from(text + "--b--\r\n")
    }

    const SDP_PART: (&str, &str) = ("Content-Type: application/sdp\r\n", "v=0");
    const LIST: &str = "Content-Type: application/resource-lists+xml\r\n";

    /// Header lines and content.
    type PartText<'a> = (&'a str, &'a str);

    /// Whether there was SDP, and the lists; or the status of the refusal.
    type Sorted = Result<(bool, Vec<Bytes>), u16>;

    fn sorted(parts: &[(&str, &str)], strict: bool) -> Sorted {
        read("multipart/mixed;boundary=b", None, &body(parts), strict)
            .map(|found| (found.sdp.is_some(), found.lists))
            .map_err(BodyRefusal::status)
    }

    /// Proves UL-007, UL-008.
    #[test]
    fn a_list_is_what_its_disposition_says() {
        let with = |d: &str| format!("{LIST}Content-Disposition: {d}\r\n");
        let one = Ok((true, vec![Bytes::from_static(b"L")]));
        let none = Ok((true, vec![]));
        let cases: &[(&str, String, bool, Sorted)] = &[
            ("as it should be", with("recipient-list"), true, one.clone()),
            ("case and parameters", with("Recipient-LIST; handling=required"), true, one.clone()),
            ("no disposition", LIST.to_owned(), false, one.clone()),
            ("no disposition, strict", LIST.to_owned(), true, none.clone()),
            ("history", with("recipient-list-history; handling=optional"), false, none.clone()),
            ("history, required", with("recipient-list-history"), false, none.clone()),
            (
                "another type with the disposition",
                "Content-Type: text/plain\r\nContent-Disposition: recipient-list\r\n".to_owned(),
                false,
                Err(415),
            ),
        ];
        for (name, headers, strict, want) in cases {
            assert_eq!(&sorted(&[SDP_PART, (headers, "L")], *strict), want, "{name}");
        }
        let two = [SDP_PART, (LIST, "1"), (LIST, "2")];
        assert_eq!(sorted(&two, false), Ok((true, vec![])), "two parts without disposition");
        let list = with("recipient-list");
        assert_eq!(
            sorted(&[(&list, "1"), SDP_PART, (&list, "2")], true),
            Ok((true, vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")])),
            "several parts are one list"
        );
    }

    /// Proves IM-027.
    #[test]
    fn unknown_parts_are_ignored_only_if_they_may_be() {
        let list = format!("{LIST}Content-Disposition: recipient-list\r\n");
        let photo = "Content-Type: image/png\r\n";
        let optional =
            "Content-Type: image/png\r\nContent-Disposition: icon; handling=optional\r\n";
        let required =
            "Content-Type: image/png\r\nContent-Disposition: icon; handling=required\r\n";
        let nested = "Content-Type: multipart/alternative;boundary=n\r\n";
        let inner = "--n\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--n--";
        let all = Ok((true, vec![Bytes::from_static(b"L")]));
        let cases: &[(&str, &[PartText<'_>], Sorted)] = &[
            ("sdp and list", &[SDP_PART, (&list, "L")], all.clone()),
            ("nested sdp", &[(nested, inner), (&list, "L")], all.clone()),
            ("optional", &[SDP_PART, (optional, "x"), (&list, "L")], all.clone()),
            ("required", &[SDP_PART, (required, "x"), (&list, "L")], Err(415)),
            ("handling absent", &[SDP_PART, (photo, "x"), (&list, "L")], Err(415)),
            ("no type at all is text", &[SDP_PART, ("", "x")], Err(415)),
            (
                "packed list",
                &[SDP_PART, (&(list.clone() + "Content-Transfer-Encoding: base64\r\n"), "TA==")],
                Err(415),
            ),
            ("two session descriptions", &[SDP_PART, SDP_PART], Err(400)),
        ];
        for (name, parts, want) in cases {
            assert_eq!(&sorted(parts, false), want, "{name}");
        }
        let broken = Bytes::from_static(b"--b\r\n\r\n");
        assert_eq!(
            read("multipart/mixed;boundary=b", None, &broken, false).map_err(BodyRefusal::status),
            Err(400)
        );
        assert_eq!(ACCEPT, "application/sdp, application/resource-lists+xml, multipart/mixed");
    }

    #[test]
    fn a_body_without_multipart_is_its_own_part() {
        let sdp = Bytes::from_static(b"v=0");
        assert_eq!(read("application/sdp", None, &sdp, true).unwrap().sdp, Some(sdp.clone()));
        assert_eq!(read("Application/SDP", Some("session"), &sdp, true).unwrap().sdp, Some(sdp));
        let list = Bytes::from_static(b"<x/>");
        let found = read(RESOURCE_LISTS, Some("recipient-list"), &list, true).unwrap();
        assert_eq!((found.sdp, found.lists), (None, vec![list]));
    }
}
