//! Sh: what the HSS knows of a user, asked over Diameter (RFC 6733, 3GPP TS 29.328, 3GPP TS 29.329).
//!
//! ```text
//! codec, dictionary   octets <-> messages and AVPs; no I/O
//! identity, userdata  of whom, and what is said: URIs, numbers, XML
//! results             what an answer means for us
//! client              questions, cache, subscriptions, notifications
//! ```
//!
//! Nothing outside this module names the protocol.

pub mod client;
pub mod codec;
pub mod dictionary;
pub mod identity;
pub mod results;
pub mod userdata;
