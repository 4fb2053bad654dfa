//! Sh: what the HSS knows of a user, asked over Diameter (RFC 6733, 3GPP TS 29.328, 3GPP TS 29.329).
//!
//! ```text
//! codec, dictionary   octets <-> messages and AVPs; no I/O
//! peer, watchdog      one peer: its connection, its watchdog, its open requests; no I/O
//! ```
//!
//! Nothing outside this module names the protocol.

pub mod codec;
pub mod dictionary;
pub mod peer;
pub mod settings;
pub mod watchdog;
