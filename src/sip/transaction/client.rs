//! The client transaction of every method but INVITE and ACK: RFC 3261 §17.1.2.

use std::time::Duration;

use super::{Action, Actions, Event, Terms, Timer};

/// One request we sent.
///
/// ```text
/// Trying ──1xx──► Proceeding ──2xx-6xx [deliver]──► Completed ──K──► Finished
///  │ └ E ↺ [transmit, doubling to T2]  └ E ↺ [transmit, every T2]
///  ├────────2xx-6xx [deliver]─────────────────────► Completed
///  └──F, transport failed (also from Proceeding: F) ► Finished
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Nothing was heard; `wait` is the present value of Timer E.
    Trying {
        wait: Duration,
    },
    Proceeding,
    Completed,
    Finished,
}

impl Client {
    /// The request leaves for the first time.
    pub fn start(terms: &Terms, out: &mut Actions) -> Self {
        let wait = terms.timers.t1;
        out.push(Action::Transmit);
        out.push(Action::Start(Timer::E, wait));
        out.push(Action::Start(Timer::F, terms.timers.give_up()));
        Self::Trying { wait }
    }

    /// Moves by one event.
    pub fn on(self, event: Event, terms: &Terms, out: &mut Actions) -> Self {
        match (self, event) {
            (Self::Trying { .. } | Self::Proceeding, Event::Reliable) => {
                out.push(Action::Stop(Timer::E));
                self
            }
            (Self::Trying { wait }, Event::Expired(Timer::E)) => {
                let wait = terms.timers.doubled(wait);
                out.push(Action::Transmit);
                out.push(Action::Start(Timer::E, wait));
                Self::Trying { wait }
            }
            (Self::Proceeding, Event::Expired(Timer::E)) => {
                out.push(Action::Transmit);
                out.push(Action::Start(Timer::E, terms.timers.t2));
                self
            }
            (Self::Trying { .. } | Self::Proceeding, Event::Expired(Timer::F)) => {
                out.push(Action::Stop(Timer::E));
                out.extend([Action::TimedOut, Action::Finish]);
                Self::Finished
            }
            // Only a request that nobody has answered can have failed to leave.
            (Self::Trying { .. }, Event::Broken) => {
                out.extend([Action::Failed, Action::Finish]);
                Self::Finished
            }
            (Self::Trying { .. } | Self::Proceeding, Event::Response(100..=199)) => {
                out.push(Action::Deliver);
                Self::Proceeding
            }
            (Self::Trying { .. } | Self::Proceeding, Event::Response(200..=699)) => {
                out.extend([Action::Stop(Timer::E), Action::Stop(Timer::F), Action::Deliver]);
                // Timer K is zero where nothing can be repeated.
                if terms.reliable {
                    out.push(Action::Finish);
                    Self::Finished
                } else {
                    out.push(Action::Start(Timer::K, terms.timers.t4));
                    Self::Completed
                }
            }
            (Self::Completed, Event::Expired(Timer::K)) => {
                out.push(Action::Finish);
                Self::Finished
            }
            (unmoved, _) => unmoved,
        }
    }
}
