//! Scenes: what the S-CSCF sends and must see back, told over the whole node with paused time.
//!
//! `net` is the node and its core, `caller` the originator, `callee` a recipient, `line` their MSRP connections, `text`
//! their SIP, `elsewhere` and `xdms` an XDMS elsewhere, the one without SIP. Scenes are told in `inviting` (who is invited,
//! and how), `answering` (what the originator hears), `asking` (what the HSS, played by `hss`, adds),
//! `sending` (the page), `leaving` (somebody disappears), `moving` (somebody is elsewhere),
//! `securing` (over TLS, with certificates of `identity`),
//! `registering` (somebody comes back), `waiting` (pages wait for those who are not there), `policy` (what is allowed for whom), `changing` (refreshes, relays, limits,
//! operators), `hops` (a next hop is busy or dead), `borders` (a border changes media addresses), `faults` (of our own), `rcs` (a core of another kind), `wrapping` (an envelope that is ours), `following`
//! (documents of an XDMS elsewhere, which `xdms` plays, change), `notifying` (documents here change, and others watch
//! them) and `leaks`; in `chaos`
//! everybody does what a die says. `keys` walks the profile: each key, two values, two outcomes. The node is the real one; only its doors are
//! missing, and every phone is the side that connects.

mod answering;
mod asking;
mod borders;
mod callee;
mod caller;
mod changing;
mod chaos;
mod elsewhere;
mod faults;
mod following;
mod hops;
mod hss;
mod identity;
mod inviting;
mod keys;
mod leaks;
mod leaving;
mod line;
mod moving;
mod net;
mod notifying;
mod policy;
mod rcs;
mod registering;
mod securing;
mod sending;
mod short;
mod text;
mod waiting;
mod wrapping;
mod xdms;
