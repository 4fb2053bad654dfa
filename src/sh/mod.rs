//! Sh: what the HSS knows of a user, asked over Diameter (RFC 6733, 3GPP TS 29.328, 3GPP TS 29.329).
//!
//! ```text
//! codec, dictionary   octets <-> messages and AVPs; no I/O
//! identity, userdata  of whom, and what is said: URIs, numbers, XML
//! results             what an answer means for us
//! client              questions, cache, subscriptions, notifications
//! peer, watchdog      one peer: its connection, its watchdog, its open requests; no I/O
//! routing, overload   which peer a request goes to, and what becomes of it; no I/O
//! router, link        the task that drives them, and the sockets
//! ```
//!
//! Nothing outside this module names the protocol.

pub mod client;
pub mod codec;
pub mod dictionary;
pub mod identity;
pub mod link;
pub mod overload;
pub mod peer;
pub mod results;
pub mod router;
pub mod routing;
pub mod settings;
pub mod userdata;
pub mod watchdog;
