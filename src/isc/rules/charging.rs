//! Charging correlation: what the core told us, what our answers repeat, what new legs carry.
//!
//! Start at [`ChargingVector`]. Follows RFC 7315 §4.5, §4.6 and TS 24.229 4.5, 7.2A.5.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::syntax::{params, quote, split, unquote};

/// One P-Charging-Vector as received.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct ChargingVector {
    /// Parameters in order, values as written.
    params: Vec<(String, Option<String>)>,
}

impl ChargingVector {
    /// Reads a header value; `None` without an `icid-value`.
    ///
    /// ISC-025, ISC-030 (RFC 7315 §5.6): values are tokens, hosts or quoted strings, unknown parameters parse. There is one
    /// vector in a message and one value to a name; of more the first counts.
    pub fn parse(value: &str) -> Option<Self> {
        let value = split(value, b',').next().unwrap_or(value);
        let mut vector = Self::default();
        for (name, value) in params(value) {
            if !vector.params.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                vector.params.push((name.to_owned(), value.map(str::to_owned)));
            }
        }
        vector.icid().is_some_and(|icid| !icid.is_empty()).then_some(vector)
    }

    /// The value of a parameter as written.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| value.as_deref())
    }

    /// The id that charging records are joined by.
    pub fn icid(&self) -> Option<Cow<'_, str>> {
        self.raw("icid-value").map(unquote)
    }

    /// The operator the core named, without the type prefix (ISC-029: values without a prefix are accepted).
    pub fn orig_operator(&self) -> Option<String> {
        let ioi = unquote(self.raw("orig-ioi")?).into_owned();
        let bare = ["Type 1", "Type 2", "Type 3"].iter().find_map(|kind| ioi.strip_prefix(kind));
        Some(bare.unwrap_or(&ioi).trim_start().to_owned()).filter(|name| !name.is_empty())
    }

    /// The vector in our answers to the request it came with.
    ///
    /// ISC-026 (TS 24.229 4.5.4): the icid and `orig-ioi` of the request and our own `term-ioi`.
    pub fn answer(&self, ioi: &str) -> String {
        let mut out = String::from("icid-value=");
        out.push_str(self.raw("icid-value").unwrap_or_default());
        for name in ["icid-generated-at", "orig-ioi"] {
            if let Some(value) = self.raw(name) {
                let _ = write!(out, ";{name}={value}");
            }
        }
        let _ = write!(out, ";term-ioi={}", quote(ioi));
        out
    }

    /// The vector in later requests of ours inside that dialog.
    ///
    /// ISC-027: the icid of the dialog's first request and our own `orig-ioi`, never `term-ioi`.
    pub fn in_dialog(&self, ioi: &str) -> String {
        let icid = self.raw("icid-value").unwrap_or_default();
        format!("icid-value={icid};orig-ioi={}", quote(ioi))
    }

    /// The vector of a leg that carries the received icid on (routing by ODI).
    ///
    /// ISC-028, ISC-030: everything the core put there is kept but an answer's `term-ioi`.
    pub fn forward(&self) -> String {
        let mut out = String::new();
        let (icid, rest): (Vec<_>, Vec<_>) = self
            .params
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("term-ioi"))
            .partition(|(name, _)| name.eq_ignore_ascii_case("icid-value"));
        for (name, value) in icid.into_iter().chain(rest) {
            if !out.is_empty() {
                out.push(';');
            }
            out.push_str(name);
            if let Some(value) = value {
                let _ = write!(out, "={value}");
            }
        }
        out
    }
}

/// The vector of a leg we start ourselves.
///
/// ISC-028 (RFC 7315 §4.6.4): a new icid, generated here, our `orig-ioi`, no `term-ioi`; the originator's icid only as
/// `related-icid` and only where the operator wants it.
pub fn new_leg(icid: &str, host: &str, ioi: &str, related: Option<&str>) -> String {
    let mut out =
        format!("icid-value={};icid-generated-at={host};orig-ioi={}", quote(icid), quote(ioi));
    if let Some(related) = related {
        let _ = write!(out, ";related-icid={}", quote(related));
    }
    out
}

/// An inter-operator identifier of type 3.
///
/// ISC-029 (TS 24.229 7.2A.5): the prefix is directly followed by the operator.
pub fn ioi(prefix: &str, operator: &str) -> String {
    format!("{prefix}{operator}")
}

/// A P-Charging-Function-Addresses value from names of charging functions, primary ones first; `None` without any.
///
/// ISC-031 (RFC 7315 §4.6): the addresses are quoted, as none of them is a token. What cannot be quoted is left out.
pub fn functions(collection: &[String], event: &[String]) -> Option<String> {
    let fits = |name: &&String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b))
    };
    let of = |kinds: [&'static str; 2], names: &[String]| -> Vec<String> {
        let names = names.iter().filter(fits).take(2).zip(kinds);
        names.map(|(name, kind)| format!("{kind}=\"{name}\"")).collect()
    };
    let mut all = of(["ccf", "ccf-2"], collection);
    all.extend(of(["ecf", "ecf-2"], event));
    (!all.is_empty()).then(|| all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves ISC-031.
    #[test]
    fn charging_functions_are_quoted_with_the_primary_ones_first() {
        let name = |text: &str| text.to_owned();
        let (ccf, ecf) = (name("aaa://ccf1.ims.test;transport=tcp"), name("aaa://ecf1.ims.test"));
        assert_eq!(
            functions(&[ccf.clone(), name("aaa://ccf2.ims.test")], std::slice::from_ref(&ecf))
                .as_deref(),
            Some(
                "ccf=\"aaa://ccf1.ims.test;transport=tcp\"; ccf-2=\"aaa://ccf2.ims.test\"; \
                 ecf=\"aaa://ecf1.ims.test\""
            )
        );
        assert_eq!(functions(&[], &[]), None);
        assert_eq!(functions(&[name("a\"\r\nX: y")], &[]), None, "no header of its own");
        assert_eq!(functions(&[], &[ecf]).as_deref(), Some("ecf=\"aaa://ecf1.ims.test\""));
    }

    const RECEIVED: &str = "icid-value=\"pc1-20240101-00042\";icid-generated-at=pcscf1.home1.example;orig-ioi=\"Type 3home1.example\"";

    /// Proves ISC-030.
    #[test]
    fn a_vector_is_read_with_tokens_quotes_and_unknown_parameters() {
        let vector = ChargingVector::parse(
            "orig-ioi=home1.example; ICID-VALUE = abc ;fe-identifier=\"x;y\";transit-ioi",
        )
        .expect("has an icid");
        assert_eq!(vector.icid().as_deref(), Some("abc"));
        assert_eq!(vector.orig_operator().as_deref(), Some("home1.example"));
        assert_eq!(
            vector.forward(),
            "ICID-VALUE=abc;orig-ioi=home1.example;fe-identifier=\"x;y\";transit-ioi"
        );
        for (value, forward) in [
            ("icid-value=1;term-ioi=x;ICID-Value=2", "icid-value=1"),
            ("icid-value=\"a,b\", icid-value=2", "icid-value=\"a,b\""),
            (
                "icid-value=1;transit-ioi=\"a.1,b.2\";Term-Ioi=\"t\"",
                "icid-value=1;transit-ioi=\"a.1,b.2\"",
            ),
        ] {
            let vector = ChargingVector::parse(value).expect("has an icid");
            assert_eq!(vector.forward(), forward);
        }
        for value in ["icid-value", "icid-value=", "icid-value=\"\"", ", icid-value=1", ";;="] {
            assert_eq!(ChargingVector::parse(value), None, "{value}");
        }
        assert_eq!(ChargingVector::parse("orig-ioi=x"), None);
        assert_eq!(ChargingVector::parse(""), None);
    }

    /// Proves ISC-026, ISC-029.
    #[test]
    fn an_answer_repeats_the_vector_and_adds_our_term_ioi() {
        let vector = ChargingVector::parse(RECEIVED).expect("has an icid");
        let ioi = ioi("Type 3", "home1.example");
        assert_eq!(vector.answer(&ioi), format!("{RECEIVED};term-ioi=\"Type 3home1.example\""));
    }

    /// Proves ISC-027.
    #[test]
    fn requests_inside_the_dialog_keep_its_icid_and_have_no_term_ioi() {
        let vector = ChargingVector::parse(RECEIVED).expect("has an icid");
        assert_eq!(
            vector.in_dialog("Type 3home1.example"),
            "icid-value=\"pc1-20240101-00042\";orig-ioi=\"Type 3home1.example\""
        );
    }

    /// Proves ISC-029.
    #[test]
    fn the_operator_is_read_with_and_without_a_prefix() {
        for (ioi, want) in [
            ("\"Type 3home1.example\"", Some("home1.example")),
            ("\"Type 1 home1.example\"", Some("home1.example")),
            ("\"Type 2home1.example\"", Some("home1.example")),
            ("home1.example", Some("home1.example")),
            ("\"Type 4home1.example\"", Some("Type 4home1.example")),
            ("\"Type 3\"", None),
            ("\"\"", None),
        ] {
            let vector = ChargingVector::parse(&format!("icid-value=1;orig-ioi={ioi}"));
            let vector = vector.expect("has an icid");
            assert_eq!(vector.orig_operator().as_deref(), want, "{ioi}");
        }
        let bare = ChargingVector::parse("icid-value=1").expect("has an icid");
        assert_eq!(bare.orig_operator(), None);
        assert_eq!(bare.answer("o\"p"), "icid-value=1;term-ioi=\"o\\\"p\"");
    }

    /// Proves ISC-028, ISC-029.
    #[test]
    fn a_new_leg_has_its_own_icid_and_the_prefix_of_the_profile() {
        assert_eq!(
            new_leg("as1-1", "im-as1.home1.example", &ioi("Type 3", "home1.example"), None),
            "icid-value=\"as1-1\";icid-generated-at=im-as1.home1.example;orig-ioi=\"Type 3home1.example\""
        );
        assert_eq!(
            new_leg("as1-1", "h", &ioi("", "home1.example"), Some("pc1")),
            "icid-value=\"as1-1\";icid-generated-at=h;orig-ioi=\"home1.example\";related-icid=\"pc1\""
        );
    }
}
