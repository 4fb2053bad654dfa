//! Sh: what the HSS knows of users, over Diameter.
//!
//! [`userdata`] is what is said, [`identity`] of whom.

pub mod identity;
pub mod userdata;
