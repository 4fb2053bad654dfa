//! The program itself between a small core and phones, over real sockets of loopback: what it costs, what it leaves
//! behind, and what it says for itself.
//!
//! Start at [`support::Server`]: `pagecast serve` as a process of its own. Core and phones run in the test's process.

mod api;
mod charged;
mod commands;
mod crashing;
mod documents;
mod elsewhere;
mod failed;
mod families;
mod kill;
mod login;
mod memory;
mod msrps;
mod noise;
mod notices;
mod pressure;
mod raw;
mod readme;
mod registering;
mod speed;
mod support;
mod tls;
