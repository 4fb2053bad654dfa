//! An XDMS elsewhere, asked over XCAP (RFC 4825), and what is kept of its answers.
//!
//! [`url`] compares references, [`cache`] keeps documents, [`conflict`] reads what a server says against a write.

pub mod cache;
pub mod conflict;
pub mod url;

/// Whether a Content-Type is of this media type, whatever its parameters.
pub(super) fn is_type(given: &str, wanted: &str) -> bool {
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}
