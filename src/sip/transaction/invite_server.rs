//! The INVITE server transaction: RFC 3261 §17.2.1 as replaced by RFC 6026 §8.5.

use std::time::Duration;

use super::{Action, Actions, Event, Terms, Timer};

/// One INVITE that came to us.
///
/// ```text
///             ┌─ INVITE, 1xx ↺ [transmit]
/// Proceeding ─┤                             ┌ INVITE, G ↺ [transmit]
///             ├──3xx-6xx [transmit]──► Completed ──ACK──► Confirmed ──I──► Finished
///             │                             └──H [timed out]──────────────► Finished
///             └──2xx [transmit]──────► Accepted ──L───────────────────────► Finished
///                                           └ 2xx ↺ [transmit: the user repeats it], INVITE ↺ [nothing]
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteServer {
    Proceeding,
    /// Refused; `wait` is the present value of Timer G.
    Completed {
        wait: Duration,
    },
    Confirmed,
    Accepted,
    Finished,
}

impl InviteServer {
    /// Moves by one event. A new transaction is [`InviteServer::Proceeding`].
    pub fn on(self, event: Event, terms: &Terms, out: &mut Actions) -> Self {
        match (self, event) {
            // The user answers with 1xx, or the INVITE came again: its last 1xx goes out (RFC 3261 §17.2.1).
            (Self::Proceeding, Event::Request | Event::Response(100..=199)) => {
                out.push(Action::Transmit);
                self
            }
            // RFC 6026 §7.1: the user repeats the 2xx, the transaction absorbs repeated INVITEs.
            (Self::Proceeding, Event::Response(200..=299)) => {
                out.push(Action::Transmit);
                out.push(Action::Start(Timer::L, terms.timers.give_up()));
                Self::Accepted
            }
            (Self::Accepted, Event::Response(200..=299)) => {
                out.push(Action::Transmit);
                self
            }
            (Self::Proceeding, Event::Response(300..=699)) => {
                let wait = terms.timers.t1;
                out.push(Action::Transmit);
                if !terms.reliable {
                    out.push(Action::Start(Timer::G, wait));
                }
                out.push(Action::Start(Timer::H, terms.timers.give_up()));
                Self::Completed { wait }
            }
            (Self::Completed { .. }, Event::Request) => {
                out.push(Action::Transmit);
                self
            }
            (Self::Completed { wait }, Event::Expired(Timer::G)) => {
                let wait = terms.timers.doubled(wait);
                out.push(Action::Transmit);
                out.push(Action::Start(Timer::G, wait));
                Self::Completed { wait }
            }
            (Self::Completed { .. }, Event::Ack) => {
                out.extend([Action::Stop(Timer::G), Action::Stop(Timer::H)]);
                // Timer I is zero where nothing can be repeated.
                if terms.reliable {
                    out.push(Action::Finish);
                    Self::Finished
                } else {
                    out.push(Action::Start(Timer::I, terms.timers.t4));
                    Self::Confirmed
                }
            }
            (Self::Completed { .. }, Event::Expired(Timer::H)) => {
                out.push(Action::Stop(Timer::G));
                out.extend([Action::TimedOut, Action::Finish]);
                Self::Finished
            }
            (Self::Confirmed, Event::Expired(Timer::I))
            | (Self::Accepted, Event::Expired(Timer::L)) => {
                out.push(Action::Finish);
                Self::Finished
            }
            (unmoved, _) => unmoved,
        }
    }
}
