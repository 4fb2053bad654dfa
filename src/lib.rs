//! pagecast: an IMS messaging application server, the OMA SIMPLE IM Controlling IM Function behind an S-CSCF.
//!
//! A user sends one page to a list or a group; pagecast finds out who is meant, invites every recipient through the
//! core and hands each of them the same bytes. The modules, and who may use whom:
//!
//! ```text
//! main -> cli -> node -> isc, msrp, xdms, sh, store, charging, ops, config -> engine
//!                        isc -> sip        msrp -> spool        config -> profile
//!         cli -> lab  -> sip, msrp::codec
//!         content, flow, handshake, pem: leaves every adapter may use
//! ```
//!
//! * [`engine`] decides what a page does next. No socket, no clock, no task, no SIP header.
//! * [`sip`] is the SIP stack (RFC 3261 and friends); it knows no IMS and no page.
//! * [`isc`] applies TS 24.229 and the OMA rules on top of `sip`: requests into arrivals, effects into requests.
//! * [`msrp`] moves the page's bytes, [`spool`] holds them once for all recipients.
//! * [`store`] keeps what has to survive a restart. [`xdms`] answers who is meant, [`sh`] what the HSS knows of them.
//!   [`profile`] and [`config`] hold what operators choose.
//! * [`charging`] writes what became of each page for billing. [`ops`] and [`flow`] show what happens. [`lab`] plays the
//!   neighbours and is never used by `serve`.
//! * [`node`] is where they meet: input, engine, effects. It holds no rule. [`cli`] holds the commands.
//!
//! One INVITE passes `sip::ua` (transaction, dialog), `isc::inbound` (the checks in their order), `engine::page`
//! (accept), `xdms` (who), `engine::fanout` (legs), `isc::outbound` (one INVITE per leg), `msrp` (bytes) and back. A MESSAGE
//! passes `isc::messages` and `engine::short` instead, without `msrp`.
#![forbid(unsafe_code)]

pub mod charging;
pub mod cli;
pub mod config;
pub mod content;
pub mod engine;
pub mod flow;
pub mod handshake;
pub mod isc;
pub mod lab;
pub mod msrp;
pub mod node;
pub mod ops;
pub mod pem;
pub mod profile;
pub mod sh;
pub mod sip;
pub mod spool;
pub mod store;
pub mod xdms;
