//! The switch as its neighbours see it: raw MSRP peers on one side, events for the engine on the other.

mod fanout;
mod flows;
mod limits;
mod model;
mod receive;
mod sessions;
mod support;
mod timers;
mod tls;
mod whole;
