//! The INVITE client transaction: RFC 3261 §17.1.1 as replaced by RFC 6026 §8.4.

use std::time::Duration;

use super::{Action, Actions, Event, Terms, Timer};

/// One INVITE we sent, until its final answer can no longer be repeated.
///
/// ```text
/// Calling ──1xx──► Proceeding ──3xx-6xx [ACK]──► Completed ──D──► Finished
///    │  └──────────────┐ │ └──────2xx──┐            ↺ 3xx-6xx [ACK]
///    │ A ↺ [transmit]  │ │             ▼
///    │                 └─┴──2xx────► Accepted ──M──► Finished
///    └──B, transport failed ► Finished  ↺ 2xx [deliver: the user sends the ACK]
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteClient {
    /// Nothing was heard; `wait` is the present value of Timer A.
    Calling {
        wait: Duration,
    },
    Proceeding,
    Completed,
    Accepted,
    Finished,
}

impl InviteClient {
    /// The INVITE leaves for the first time.
    pub fn start(terms: &Terms, out: &mut Actions) -> Self {
        let wait = terms.timers.t1;
        out.push(Action::Transmit);
        out.push(Action::Start(Timer::A, wait));
        out.push(Action::Start(Timer::B, terms.timers.give_up()));
        Self::Calling { wait }
    }

    /// Moves by one event.
    pub fn on(self, event: Event, terms: &Terms, out: &mut Actions) -> Self {
        match (self, event) {
            (Self::Calling { .. }, Event::Reliable) => {
                out.push(Action::Stop(Timer::A));
                self
            }
            (Self::Calling { wait }, Event::Expired(Timer::A)) => {
                let wait = wait * 2;
                out.push(Action::Transmit);
                out.push(Action::Start(Timer::A, wait));
                Self::Calling { wait }
            }
            (Self::Calling { .. }, Event::Expired(Timer::B)) => {
                out.extend([Action::TimedOut, Action::Finish]);
                Self::Finished
            }
            // Only a request that nobody has answered can have failed to leave.
            (Self::Calling { .. }, Event::Broken) => {
                out.extend([Action::Failed, Action::Finish]);
                Self::Finished
            }
            (Self::Calling { .. }, Event::Response(100..=199)) => {
                out.extend([Action::Stop(Timer::A), Action::Stop(Timer::B), Action::Deliver]);
                Self::Proceeding
            }
            (Self::Proceeding, Event::Response(100..=199)) => {
                out.push(Action::Deliver);
                self
            }
            // RFC 6026 §7.2: the transaction stays, so that every repeated or forked 2xx reaches the user.
            (Self::Calling { .. } | Self::Proceeding, Event::Response(200..=299)) => {
                out.extend([Action::Stop(Timer::A), Action::Stop(Timer::B), Action::Deliver]);
                out.push(Action::Start(Timer::M, terms.timers.give_up()));
                Self::Accepted
            }
            (Self::Accepted, Event::Response(200..=299)) => {
                out.push(Action::Deliver);
                self
            }
            (Self::Calling { .. } | Self::Proceeding, Event::Response(300..=699)) => {
                out.extend([Action::Stop(Timer::A), Action::Stop(Timer::B)]);
                out.extend([Action::Ack, Action::Deliver]);
                // Timer D is zero where nothing can be repeated.
                if terms.reliable {
                    out.push(Action::Finish);
                    Self::Finished
                } else {
                    out.push(Action::Start(Timer::D, terms.timers.d()));
                    Self::Completed
                }
            }
            (Self::Completed, Event::Response(300..=699)) => {
                out.push(Action::Ack);
                self
            }
            (Self::Completed, Event::Expired(Timer::D))
            | (Self::Accepted, Event::Expired(Timer::M)) => {
                out.push(Action::Finish);
                Self::Finished
            }
            (unmoved, _) => unmoved,
        }
    }
}
