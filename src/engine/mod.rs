//! The engine: decides what a page does next, whatever happens to it.
//!
//! No socket, no clock, no task, no SIP header: input goes in, effects come out, time is an argument.
#![deny(clippy::disallowed_methods)]

pub mod effect;
pub mod event;
pub mod ids;
pub mod input;
pub mod party;
pub mod policy;
