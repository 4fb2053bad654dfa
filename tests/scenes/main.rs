//! Scenes: what the S-CSCF sends and must see back, told over the whole node with paused time.
//!
//! `net` is the node and its core, `caller` the originator, `callee` a recipient, `line` their MSRP connections, `text`
//! their SIP, `xdms` an XDMS elsewhere. Scenes are told in `inviting` (who is invited, and how), `answering` (what the originator hears),
//! `sending` (the page), `leaving` (somebody disappears), `moving` (somebody is elsewhere),
//! `registering` (somebody comes back), `changing` (refreshes, relays, limits, operators), `hops` (a next hop is busy or dead), `faults` (of our own),
//! `rcs` (a core of another kind) and `leaks`; in `chaos`
//! everybody does what a die says. `keys` walks the profile: each key, two values, two outcomes. The node is the real one; only its doors are
//! missing, and every phone is the side that connects.

mod answering;
mod callee;
mod caller;
mod changing;
mod chaos;
mod faults;
mod hops;
mod inviting;
mod keys;
mod leaks;
mod leaving;
mod line;
mod moving;
mod net;
mod rcs;
mod registering;
mod sending;
mod text;
mod xdms;
