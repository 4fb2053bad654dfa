//! The rules of ISC as pure functions on header values, one concern a file.
//!
//! In the order of the clauses of TS 24.229 5.7, as a request meets them:
//!
//! 1. [`trust::Trust::admits`]: whom we serve (4.4; ISC-001, ISC-017).
//! 2. [`overload::Pressure::sheds`]: what a busy node sends away at once (4.12; ISC-069).
//! 3. [`boundary::Boundary::arriving`]: what strangers may not say (4.4.2 to 4.4.20; ISC-074).
//! 4. [`route::Arrived::read`], [`own::Own::is_us`]: our Route entry and the dialog identifier (5.7.1; ISC-002 to ISC-005).
//! 5. [`own::Own::classify`]: which PSI, group or session is asked for (5.7.1.17; ISC-056, ISC-057).
//! 6. [`served_user::read`], [`served_user::decide`]: for whom, in which case (5.7.1.3A; ISC-019 to ISC-021).
//! 7. [`identity::asserted`], [`identity::is_anonymous`]: who asks (5.7.1.4; ISC-018, ISC-024).
//! 8. [`charging::ChargingVector::parse`]: what the bills are joined by (5.7.1.2; ISC-025, ISC-030).
//!    [`access::best`]: through which access it came (5.7.1.3; ISC-032).
//! 9. [`service::mode`], [`service::missing_options`]: what is asked for (7.2A.8; ISC-034 to ISC-036, ISC-063).
//! 10. [`refusal::status`], [`refusal::lines`]: how we say no (5.7.1.0; ISC-066).
//! 11. [`charging::ChargingVector::answer`], [`charging::ChargingVector::in_dialog`]: what answers and later requests
//!     repeat (5.7.2; ISC-026, ISC-027).
//! 12. [`route::fanout`]: where what we start goes, and in whose name (5.7.3, 5.7.5; ISC-006 to ISC-012, ISC-058).
//! 13. [`identity::from_header`], [`identity::assert`], [`served_user::write`], [`charging::new_leg`],
//!     [`service::accept_contact`]: what it carries (5.7.3; ISC-022, ISC-028, ISC-029, ISC-051, ISC-060).
//! 14. [`boundary::Boundary::leaving`], [`boundary::Boundary::answering`]: what does not leave (4.4, 4.5.5; ISC-031,
//!     ISC-073, ISC-075).
//!
//! [`syntax`] reads the shapes they share. Nothing here holds state, reads a clock or knows a socket.

pub mod access;
pub mod boundary;
pub mod charging;
pub mod identity;
pub mod overload;
pub mod own;
pub mod refusal;
pub mod route;
pub mod served_user;
pub mod service;
pub(crate) mod syntax;
pub mod trust;
