//! What operators see and do: pages, metrics, call flows, the console, the log level.
//!
//! [`board`] builds from the engine's events what `/api/pages` shows, [`metrics`] counts, [`http`] answers on
//! `ops.listen` and asks the node through [`Control`] where something is to be done. Message bodies never pass here.
//! [`client`] is the other end of the door, for the command line. [`log`] sets the log up.

pub mod board;
pub mod log;
pub mod metrics;
