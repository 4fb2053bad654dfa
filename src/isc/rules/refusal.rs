//! Refusals in the words of the rules: status, Warning text, further fields.
//!
//! Start at [`Texts`]; [`lines`] turns a [`Refusal`] into header lines. Follows OMA Warning texts and RFC 3261 §20.43.

use std::fmt::Write as _;

use super::syntax::quote;
use crate::engine::input::Refusal;
use crate::isc::settings::CoreProfile;
use crate::sip::uri::{Scheme, Uri};

/// Body types we take in an INVITE (IM-027).
pub const ACCEPT: &str = "application/sdp, application/resource-lists+xml, multipart/mixed";

/// Methods we serve: what our requests and answers say (IM-046).
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, MESSAGE, OPTIONS";

/// Methods we serve where no MESSAGE is taken: inside dialogs, and at other places than list services and groups.
pub const ALLOW_WITHOUT_MESSAGE: &str = "INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS";

/// Warning texts, with their OMA number where the profile sends numbers.
#[derive(Debug, Clone, Copy)]
pub struct Texts {
    pub numbers: bool,
}

impl Texts {
    fn numbered(self, number: &str, text: &str) -> String {
        if self.numbers { format!("{number} {text}") } else { text.to_owned() }
    }

    /// IM-024: the originator may not use the service.
    pub fn not_authorised(self) -> String {
        self.numbered("127", "Service not authorised")
    }

    /// IM-032: more recipients than allowed.
    pub fn too_many(self) -> String {
        self.numbered("102", "Too many participants")
    }

    /// IM-044: the peer's OMA release is not served.
    pub fn version(self) -> String {
        self.numbered("132", "Version not supported")
    }
}

/// IM-030: the page is larger than allowed. No number is known for this text.
pub const SIZE: &str = "Size exceeded";

/// IM-031: nobody is left to invite. No number is known for this text.
pub const NO_DESTINATIONS: &str = "No destinations";

/// 420 that names what we do not do.
///
/// IM-026, IM-034, UL-002.
pub fn unsupported(tags: &[&str], rule: &'static str) -> Refusal {
    with(Refusal::new(420, rule), "Unsupported", tags.join(", "))
}

/// Nobody we serve has that Request-URI: 404, or 416 where it could be nobody's (RFC 3261 §8.2.2.1).
///
/// IM-023.
pub fn nobody(uri: &str) -> Refusal {
    let known = Uri::parse(uri).is_ok_and(|uri| uri.is_sip() || uri.scheme() == Scheme::Tel);
    let status = if known { 404 } else { 416 };
    Refusal::new(status, "IM-023").key("service.factories")
}

/// 415 that names what we take.
///
/// IM-027, UL-007.
pub fn media_type(rule: &'static str) -> Refusal {
    with(Refusal::new(415, rule), "Accept", ACCEPT.to_owned())
}

/// 405 that names what we serve.
pub fn method(rule: &'static str, allow: &str) -> Refusal {
    with(Refusal::new(405, rule), "Allow", allow.to_owned())
}

fn with(mut refusal: Refusal, name: &'static str, value: String) -> Refusal {
    refusal.headers.push((name, value));
    refusal
}

/// The status that goes on the wire.
///
/// ISC-066: behind an S-CSCF a 408 or 5xx means "go on without me", so a refusal never is one; only 503, sent in
/// overload and while draining, means just that. What recipients answered is mapped already, as `im.fail_map` wants it
/// (IM-057).
pub fn status(refusal: &Refusal, profile: CoreProfile) -> u16 {
    match refusal.status {
        503 => 503,
        status if refusal.rule == "IM-057" => status,
        408 | 500..=599 if profile.is_ims() => 480,
        status => status,
    }
}

/// Takes the OMA number off a Warning text, whoever wrote it: `102 Too many participants` becomes `Too many participants`.
pub fn leave_number_out(refusal: &mut Refusal) {
    if let Some((399, text)) = &mut refusal.warning
        && let Some((number, rest)) = text.split_once(' ')
        && number.len() == 3
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        *text = rest.to_owned();
    }
}

/// A line of its own (RFC 3261 §20.43).
pub fn warning(code: u16, host: &str, text: &str) -> String {
    format!("Warning: {code} {host} {}\r\n", quote(text))
}

/// The header lines of a refusal, each ended by CRLF.
pub fn lines(refusal: &Refusal, host: &str) -> String {
    let mut out = String::new();
    if let Some((code, text)) = &refusal.warning {
        out.push_str(&warning(*code, host, text));
    }
    if let Some(seconds) = refusal.retry_after {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    for (name, value) in &refusal.headers {
        let value = value.replace(['\r', '\n', '\0'], " ");
        let _ = write!(out, "{name}: {value}\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves UL-036.
    #[test]
    fn refusals_are_written_as_the_rules_spell_them() {
        let texts = Texts { numbers: true };
        for (refusal, want) in [
            (
                Refusal::new(403, "IM-024").warn(texts.not_authorised()),
                "Warning: 399 im-as1.home1.example \"127 Service not authorised\"\r\n",
            ),
            (
                Refusal::new(486, "IM-032").warn(texts.too_many()),
                "Warning: 399 im-as1.home1.example \"102 Too many participants\"\r\n",
            ),
            (
                Refusal::new(403, "IM-031").warn(NO_DESTINATIONS),
                "Warning: 399 im-as1.home1.example \"No destinations\"\r\n",
            ),
            (unsupported(&["foo", "bar"], "IM-026"), "Unsupported: foo, bar\r\n"),
            (
                media_type("IM-027"),
                "Accept: application/sdp, application/resource-lists+xml, multipart/mixed\r\n",
            ),
        ] {
            assert_eq!(lines(&refusal, "im-as1.home1.example"), want);
        }
        assert_eq!(Texts { numbers: false }.too_many(), "Too many participants");
        let busy = Refusal { retry_after: Some(5), ..Refusal::new(503, "IM-036") };
        assert_eq!(lines(&busy, "h"), "Retry-After: 5\r\n");
    }

    /// Proves ISC-066.
    #[test]
    fn no_refusal_makes_the_s_cscf_go_around_us() {
        for (status_in, ims, plain) in
            [(403, 403, 403), (500, 480, 500), (408, 480, 408), (503, 503, 503), (603, 603, 603)]
        {
            let refusal = Refusal::new(status_in, "test");
            assert_eq!(status(&refusal, CoreProfile::Gpp), ims);
            assert_eq!(status(&refusal, CoreProfile::Gpp2), ims);
            assert_eq!(status(&refusal, CoreProfile::SipIp), plain);
        }
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let mut refusal = Refusal::new(403, "test").warn("a\"\r\nX: y");
        refusal.headers.push(("Unsupported", "foo\r\nX: y".to_owned()));
        assert_eq!(lines(&refusal, "h").matches("\r\n").count(), 2);
    }

    /// Proves IM-023.
    #[test]
    fn nobody_is_404_and_what_could_be_nobody_416() {
        for (uri, status) in [
            ("sip:x@home1.example", 404),
            ("SIPS:x@home1.example", 404),
            ("tel:+15550001", 404),
            ("urn:service:x", 416),
            ("mailto:a@b", 416),
            ("http://a", 416),
            ("x", 416),
            ("", 416),
        ] {
            let refusal = nobody(uri);
            assert_eq!((refusal.status, refusal.rule), (status, "IM-023"), "{uri}");
            assert_eq!(refusal.key, Some("service.factories"));
        }
        let refusal = method("IM-046", ALLOW);
        assert_eq!((refusal.status, refusal.rule), (405, "IM-046"));
        assert_eq!(lines(&refusal, "h"), format!("Allow: {ALLOW}\r\n"));
        assert_eq!(media_type("IM-027").status, 415);
        assert_eq!(unsupported(&["x"], "IM-026").status, 420);
    }

    /// Proves ISC-066.
    #[test]
    fn only_5xx_and_408_are_told_otherwise() {
        for (sent, ims) in [
            (407, 407),
            (408, 480),
            (409, 409),
            (499, 499),
            (500, 480),
            (502, 480),
            (504, 480),
            (599, 480),
            (600, 600),
        ] {
            let refusal = Refusal::new(sent, "test");
            assert_eq!(status(&refusal, CoreProfile::Gpp), ims, "{sent}");
            assert_eq!(status(&refusal, CoreProfile::SipIp), sent, "{sent}");
        }
    }

    /// Proves ISC-066.
    #[test]
    fn a_refusal_is_never_one_the_core_takes_for_silence() {
        for (status_of, rule, profile, want) in [
            (408, "ISC-015", CoreProfile::Gpp, 480),
            (500, "ISC-015", CoreProfile::Gpp2, 480),
            (599, "ISC-015", CoreProfile::Gpp, 480),
            (600, "ISC-015", CoreProfile::Gpp, 600),
            (499, "ISC-015", CoreProfile::Gpp, 499),
            (503, "IM-036", CoreProfile::Gpp, 503),
            // As `im.fail_map` has mapped it.
            (500, "IM-057", CoreProfile::Gpp, 500),
            (500, "ISC-015", CoreProfile::SipIp, 500),
        ] {
            assert_eq!(status(&Refusal::new(status_of, rule), profile), want, "{status_of} {rule}");
        }
    }

    /// Proves IM-044.
    #[test]
    fn the_number_of_a_warning_is_left_out_and_nothing_else() {
        assert_eq!(Texts { numbers: true }.version(), "132 Version not supported");
        let left = |code, text: &str| {
            let mut refusal = Refusal::new(403, "IM-044");
            refusal.warning = Some((code, text.to_owned()));
            leave_number_out(&mut refusal);
            refusal.warning.expect("it had one").1
        };
        for (code, text, want) in [
            (399, "132 Version not supported", "Version not supported"),
            (399, "Size exceeded", "Size exceeded"),
            (399, "13a Version", "13a Version"),
            (399, "1320 Version", "1320 Version"),
            (370, "132 Version not supported", "132 Version not supported"),
        ] {
            assert_eq!(left(code, text), want);
        }
    }
}
