//! SIP on ISC: requests into arrivals, effects into requests.
//!
//! [`rules`] are the pure rules on header values; [`settings`] is what operators choose.

pub mod rules;
pub mod settings;
