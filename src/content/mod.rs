//! What bodies and attributes say, without knowing who asks: leaves every adapter may use.
//!
//! [`msrp_uri`] is the address form MSRP paths and SDP share.

pub mod msrp_uri;
