//! The watchdog of one peer: is anybody there, and may requests go there (RFC 3539 §3.4, appendix A).
//!
//! [`Watchdog::on`] is the whole table. It knows no clock: whoever drives it sets Tw on [`Action::SetTw`] and tells of its
//! end. The states outlive connections, since REOPEN asks whether there was one before.

/// Where a peer stands.
///
/// ```text
///           up                 Tw, DWR open          Tw
/// Initial ─────► Okay ◄──────────────────────► Suspect ────► Down ◄─┐ lost, Tw
///                 ▲ │            any message                  │ up   │
///                 │ └────────────── lost ────────────────────►│      │
///                 └──────────── three DWAs ──────────────── Reopen ──┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Never connected.
    Initial,
    /// In service.
    Okay,
    /// Silent: what waits there goes elsewhere, nothing new is sent.
    Suspect,
    /// No connection.
    Down,
    /// Connected again, and not yet believed.
    Reopen,
}

/// What happens to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection is there and capabilities are exchanged.
    Up,
    Dwa,
    /// Any other message.
    Message,
    /// Tw ran out.
    Expired,
    /// The connection is gone.
    Lost,
}

/// What follows, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    SetTw,
    SendDwr,
    /// What waits for answers there goes to another peer; nothing new goes there.
    FailOver,
    /// The peer takes requests again.
    FailBack,
    /// Close the connection.
    Close,
    /// Try to connect.
    Open,
    /// The message is not looked at.
    ThrowAway,
}

/// State, and the two variables of RFC 3539 appendix A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    state: State,
    /// A DWR is not answered yet.
    pending: bool,
    /// DWAs seen in REOPEN; -1 after one was missed.
    heard: i8,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { state: State::Initial, pending: false, heard: 0 }
    }
}

impl Watchdog {
    pub fn state(&self) -> State {
        self.state
    }

    /// One cell of the table.
    ///
    /// SH-013, SH-014, SH-015 (RFC 3539 §3.4.1).
    pub fn on(&mut self, event: Event) -> &'static [Action] {
        use Action::{Close, FailBack, FailOver, Open, SendDwr, SetTw, ThrowAway};
        use State::{Down, Initial, Okay, Reopen, Suspect};
        if event == Event::Dwa {
            self.pending = false;
        }
        let (next, actions): (State, &'static [Action]) = match (self.state, event) {
            (Initial, Event::Up) => (Okay, &[SetTw]),
            (Initial | Down, Event::Expired) => (self.state, &[Open, SetTw]),
            (Initial | Down, Event::Dwa | Event::Message) => (self.state, &[ThrowAway]),
            (Initial | Down, Event::Lost) => (self.state, &[]),
            (Down, Event::Up) => {
                self.heard = 0;
                self.pending = true;
                (Reopen, &[SendDwr, SetTw])
            }

            (Okay, Event::Dwa | Event::Message) => (Okay, &[SetTw]),
            (Okay, Event::Expired) if self.pending => (Suspect, &[FailOver, SetTw]),
            (Okay, Event::Expired) => {
                self.pending = true;
                (Okay, &[SendDwr, SetTw])
            }
            (Okay, Event::Lost) => (Down, &[Close, FailOver, SetTw]),

            (Suspect, Event::Dwa | Event::Message) => (Okay, &[FailBack, SetTw]),
            (Suspect, Event::Expired | Event::Lost) => (Down, &[Close, SetTw]),

            (Reopen, Event::Dwa) if self.heard == 2 => {
                self.heard = 3;
                (Okay, &[FailBack, SetTw])
            }
            (Reopen, Event::Dwa) => {
                self.heard += 1;
                (Reopen, &[])
            }
            (Reopen, Event::Message) => (Reopen, &[ThrowAway]),
            (Reopen, Event::Expired) if !self.pending => {
                self.pending = true;
                (Reopen, &[SendDwr, SetTw])
            }
            (Reopen, Event::Expired) if self.heard >= 0 => {
                self.heard = -1;
                (Reopen, &[SetTw])
            }
            (Reopen, Event::Expired | Event::Lost) => (Down, &[Close, SetTw]),

            // A second connection is never brought up: see `peer`.
            (Okay | Suspect | Reopen, Event::Up) => (self.state, &[]),
        };
        // A connection takes its open DWR with it.
        if matches!(next, Initial | Down) {
            self.pending = false;
        }
        self.state = next;
        actions
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Every state with every event.
    const TABLE: &str = include_str!("watchdog/table.txt");

    fn line(from: Watchdog, event: Event) -> String {
        let mut dog = from;
        let actions = dog.on(event);
        let show = |dog: Watchdog| {
            let pending = if dog.pending { "+dwr" } else { "" };
            let heard =
                if dog.state == State::Reopen { format!("({})", dog.heard) } else { String::new() };
            format!("{:?}{heard}{pending}", dog.state)
        };
        format!("{:<14} {:<8} -> {:<14} {actions:?}", show(from), format!("{event:?}"), show(dog))
    }

    /// Proves SH-013, SH-014, SH-015.
    #[test]
    fn the_whole_table_is_as_written_down() {
        let at = |state, pending, heard| Watchdog { state, pending, heard };
        let mut states = vec![at(State::Initial, false, 0), at(State::Down, false, 0)];
        for pending in [false, true] {
            states.push(at(State::Okay, pending, 0));
        }
        states.push(at(State::Suspect, true, 0));
        for heard in [-1, 0, 1, 2] {
            for pending in [false, true] {
                states.push(at(State::Reopen, pending, heard));
            }
        }
        let mut table = String::new();
        for state in states {
            for event in [Event::Up, Event::Dwa, Event::Message, Event::Expired, Event::Lost] {
                writeln!(table, "{}", line(state, event)).unwrap();
            }
        }
        let kept: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(table.lines().collect::<Vec<_>>(), kept, "the table is now:\n{table}");
    }
}
