//! Bytes into values and back: multipart, recipient lists, SDP, CPIM and MSRP URIs.
//!
//! A leaf every adapter and the lab may use; it imports nothing of ours, does no I/O and reads no clock. Start at
//! [`request_body`] for what an INVITE carries, [`message_body`] for a MESSAGE, [`sdp`] for offers and answers, [`cpim`] for what a page carries.

pub mod cpim;
pub mod fingerprint;
pub mod media_address;
pub mod message_body;
mod mime;
pub mod msrp_uri;
pub mod multipart;
pub mod reginfo;
pub mod request_body;
pub mod resource_lists;
pub mod sdp;
pub mod service_settings;
pub mod xcap_diff;
pub mod xml;
