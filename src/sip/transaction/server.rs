//! The server transaction of every method but INVITE and ACK: RFC 3261 §17.2.2 with RFC 4320.

use super::{Action, Actions, Event, Terms, Timer};

/// One request that came to us.
///
/// ```text
/// Trying ──2xx-6xx [transmit]──► Completed ──J──► Finished
///  │ └ request ↺ [nothing]          └ request ↺ [transmit]
///  └──J: nobody waits any more ► Finished
/// ```
///
/// ISC-068 (RFC 4320 §4.1): there is no Proceeding. No 1xx leaves for these requests, so a repeated one is absorbed
/// without an answer; and a request that was not answered in time is never answered, above all not with 408.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Trying,
    Completed,
    Finished,
}

impl Server {
    /// The request came for the first time.
    pub fn start(terms: &Terms, out: &mut Actions) -> Self {
        out.push(Action::Start(Timer::J, terms.timers.give_up()));
        Self::Trying
    }

    /// Moves by one event.
    pub fn on(self, event: Event, terms: &Terms, out: &mut Actions) -> Self {
        match (self, event) {
            // ISC-068 (RFC 4320 §4.2): a 408 helps nobody, the client has just given up as well.
            (Self::Trying, Event::Response(408)) => {
                out.extend([Action::Stop(Timer::J), Action::Finish]);
                Self::Finished
            }
            (Self::Trying, Event::Response(200..=699)) => {
                out.push(Action::Transmit);
                // Timer J is zero where nothing can be repeated.
                if terms.reliable {
                    out.extend([Action::Stop(Timer::J), Action::Finish]);
                    Self::Finished
                } else {
                    out.push(Action::Start(Timer::J, terms.timers.give_up()));
                    Self::Completed
                }
            }
            (Self::Completed, Event::Request) => {
                out.push(Action::Transmit);
                self
            }
            (Self::Trying | Self::Completed, Event::Expired(Timer::J)) => {
                out.push(Action::Finish);
                Self::Finished
            }
            (unmoved, _) => unmoved,
        }
    }
}
