//! Next hops that are busy or dead: when a request goes to another one.
//!
//! The shell asks [`Ua::opening`] where a request that was sent is on its way to, and says by [`Ua::alternate`] which of
//! RFC 3263's alternates is at another address. A 503 or silence then leads there, in a new branch (ISC-071). What a 503
//! says about later is handed to the shell by [`Ua::unavailable`] (ISC-069).

use super::call::{Cancel, Phase};
use super::table::Key;
use super::transactions::{ClientTransaction, ClientUser};
use super::types::Whose;
use super::{SendKey, Ua};
use crate::sip::Target;
use crate::sip::message::{Message, Name};

/// A next hop that wants no new requests for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The way of the request it refused.
    pub to: Target,
    /// For how long, in seconds, as it said.
    pub seconds: u32,
}

/// How many of these wait to be fetched; the shell fetches them after each message.
const MOST_UNAVAILABLE: usize = 64;

impl Ua {
    /// The way of a request that opens something and has no final answer yet; `None` for everything else, which follows
    /// the way it belongs to.
    pub fn opening(&self, send: SendKey) -> Option<Target> {
        let Whose::Transaction(key) = send.0 else { return None };
        self.way_of_opening(key)
    }

    fn way_of_opening(&self, key: Key) -> Option<Target> {
        let client = self.client(key)?;
        if !self.opens(client) {
            return None;
        }
        let (uri, attempt, octets) = client.way();
        Some(Target::NextHop { uri, attempt, octets })
    }

    /// RFC 3263 knows another address for this request: attempt number `attempt`.
    pub fn alternate(&mut self, send: SendKey, attempt: u16) {
        if let Whose::Transaction(key) = send.0
            && let Some(client) = self.client_mut(key)
        {
            client.alternate = Some(attempt);
        }
    }

    /// The next hop that asked for a pause since the last time.
    pub fn unavailable(&mut self) -> Option<Unavailable> {
        self.unavailable.pop()
    }

    /// An initial INVITE that has no dialog and was not cancelled, or another request outside of dialogs.
    fn opens(&self, client: &ClientTransaction) -> bool {
        client.is_open()
            && match client.user() {
                ClientUser::OutOfDialog => true,
                ClientUser::Invite => {
                    let call = client.call().and_then(|call| self.calls.get(call));
                    call.is_some_and(|call| {
                        call.phase == Phase::Pending
                            && !call.closed
                            && call.dialogs.is_empty()
                            && call.caller().is_some_and(|caller| caller.cancel == Cancel::No)
                    })
                }
                ClientUser::Refresh
                | ClientUser::Silent
                | ClientUser::Subscribe(_)
                | ClientUser::Notify(_)
                | ClientUser::Through => false,
            }
    }

    /// ISC-071 (RFC 3263 §4.3): a 503 counts as a failure of the hop.
    pub(super) fn leaves_busy_hop(&mut self, key: Key) -> bool {
        let leaves =
            self.client(key).is_some_and(|client| client.alternate.is_some() && self.opens(client));
        if leaves {
            // CANCEL has to wait for a word of the next one.
            let call = self.client(key).and_then(|client| client.call());
            let caller = call.and_then(|call| self.calls.get_mut(call)?.caller_mut());
            if let Some(caller) = caller {
                caller.heard = false;
            }
        }
        leaves
    }

    /// ISC-071 (RFC 3263 §4.3): so does silence until the end.
    pub(super) fn leaves_silent_hop(&self, key: Key) -> bool {
        self.client(key).is_some_and(|client| {
            client.alternate.is_some() && client.is_unanswered() && self.opens(client)
        })
    }

    /// ISC-069 (RFC 3261 §21.5.4): a 503 may say until when.
    pub(super) fn note_unavailable(&mut self, key: Key, busy: &Message) {
        let Some(to) = self.way_of_opening(key) else { return };
        let Some(text) = busy.text(Name::RetryAfter) else { return };
        // Comments and parameters may follow (RFC 3261 §20.33).
        let digits = text.trim_start();
        let digits = &digits[..digits.bytes().take_while(u8::is_ascii_digit).count()];
        // More digits than fit are very long.
        let seconds = match digits.parse::<u32>() {
            Ok(seconds) => seconds,
            Err(_) if digits.is_empty() => return,
            Err(_) => u32::MAX,
        };
        if seconds > 0 && self.unavailable.len() < MOST_UNAVAILABLE {
            self.unavailable.push(Unavailable { to, seconds });
        }
    }
}
