//! An XDMS elsewhere, asked over XCAP (RFC 4825), and what is kept of its answers.
//!
//! Start at [`Remote`], the [`super::resolver::Source`]: it keeps documents in a [`cache`] and asks over [`http`], whose
//! connections are opened by [`link`]. [`url`] compares references, [`conflict`] reads what a server says against a write.

pub mod cache;
pub mod conflict;
pub mod http;
pub mod link;
pub mod source;
pub mod url;

pub use source::{Embedded, Remote, Settings};

/// Whether a Content-Type is of this media type, whatever its parameters.
pub(super) fn is_type(given: &str, wanted: &str) -> bool {
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}
