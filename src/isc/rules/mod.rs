//! The rules of ISC as pure functions on header values, one concern a file.
//!
//! [`trust`] whom we believe, [`own`] which URIs are ours, [`route`] where requests came through and go,
//! [`served_user`] for whom, [`identity`] who asks and under which name a leg leaves, [`charging`] what joins the
//! bills, [`service`] what is asked for, [`refusal`] how we say no. [`syntax`] reads the shapes they share.
//!
//! Nothing here holds state, reads a clock or knows a socket.

pub mod charging;
pub mod identity;
pub mod own;
pub mod refusal;
pub mod route;
pub mod served_user;
pub mod service;
pub(crate) mod syntax;
pub mod trust;
