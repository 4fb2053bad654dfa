//! One MSRP session, seen from us: whose connection it is bound to, what it answers, what it sends next.
//!
//! Start at [`Session::admit`] for an arriving request; [`Incoming`] is the originator's page on its way into the
//! spool (steps 7 to 16 of the receiving procedure), [`Outgoing`] one recipient's copy on its way out. No socket, no
//! task; time and transact-ids are arguments, what the engine should hear is pushed to a list.

mod envelope;
mod incoming;
mod outgoing;
mod recipient;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use envelope::Envelope;
pub use incoming::{Incoming, Owed};
pub use outgoing::{Outgoing, Step, TxId};
pub use recipient::FromRecipient;

use super::codec::{FailureReport, Head};
use super::{PeerMedia, Side};
use crate::content::msrp_uri::MsrpUri;

/// What is decided about a chunk at some point of its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; the answer comes with the end-line.
    Take,
    /// Answer this code now, read on to the end-line, keep nothing.
    Skip(u16),
}

/// A response with this code may be sent to a request with this `Failure-Report`.
///
/// MS-069 (RFC 4975 §7.1.4, §7.2).
pub fn may_answer(report: FailureReport, code: u16) -> bool {
    match report {
        FailureReport::Yes => true,
        FailureReport::Partial => code != 200,
        FailureReport::No => false,
    }
}

/// `content_type` without its parameters matches an entry of `list`.
///
/// MS-010 (RFC 4975 §8.6): parameters do not narrow, `*` takes all, `type/*` takes any subtype.
pub fn accepts<S: AsRef<str>>(list: &[S], content_type: &str) -> bool {
    let essence = essence(content_type);
    let top = essence.split('/').next().unwrap_or("");
    list.iter().any(|entry| {
        let entry = self::essence(entry.as_ref());
        entry == "*"
            || entry.eq_ignore_ascii_case(essence)
            || entry.strip_suffix("/*").is_some_and(|t| t == "*" || t.eq_ignore_ascii_case(top))
    })
}

/// The types a list names, as [`accepts`] reads it.
#[derive(Debug, Clone)]
struct Types(
    /// `None`: all.
    Option<Box<[String]>>,
);

impl Types {
    fn of(list: &[String]) -> Self {
        let all = list.iter().any(|entry| essence(entry) == "*");
        Self((!all).then(|| list.into()))
    }

    fn take(&self, content_type: &str) -> bool {
        self.0.as_ref().is_none_or(|list| accepts(list, content_type))
    }
}

/// Type and subtype.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or("").trim()
}

/// The envelope that names sender and recipient.
const CPIM: &str = "message/cpim";

fn is_cpim(content_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case(CPIM)
}

/// Control content: never a page, never fanned out, not held up by a direction (MS-014, MS-106, IM-076).
fn is_control(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence.eq_ignore_ascii_case("message/imdn+xml")
        || essence.eq_ignore_ascii_case("application/im-iscomposing+xml")
}

/// MS-062: 400 for a range that cannot be, 413 for one that is too large; before any octet is kept.
fn check_range(head: &Head, max_message: u64) -> Result<(), u16> {
    let Some(range) = head.range else { return Ok(()) };
    if range.start == 0
        || range.end.is_some_and(|end| end < range.start - 1)
        || range.total.is_some_and(|total| range.start - 1 > total)
    {
        return Err(400);
    }
    if range.total.is_some_and(|total| total > max_message) || range.start - 1 > max_message {
        return Err(413);
    }
    Ok(())
}

/// Where a session stands with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Free,
    To(u64),
    /// Its connection broke, or it was never bound in time: only new SDP helps (MS-036).
    Broken,
}

/// What a session is for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most sessions are those of recipients, the largest")]
pub enum Part {
    /// Not agreed yet; `true` for a recipient, who may connect before its answer has reached us (MS-025).
    Reserved {
        leg: bool,
    },
    Originator(Incoming),
    Leg {
        send: Outgoing,
        receive: FromRecipient,
    },
}

/// One session and its binding.
#[derive(Debug)]
pub struct Session {
    pub side: Side,
    own: MsrpUri,
    /// Session-id of the peer's rightmost URI.
    peer: Option<String>,
    binding: Binding,
    /// Who bound it before the peer's SDP was known.
    bound_by: Option<String>,
    /// By when it has to be bound (MS-035).
    pub bind_by: Option<Instant>,
    pub part: Part,
}

impl Session {
    /// A session whose URI is about to leave in SDP.
    pub fn reserved(side: Side, own: MsrpUri) -> Self {
        Self {
            side,
            own,
            peer: None,
            binding: Binding::Free,
            bound_by: None,
            bind_by: None,
            part: Part::Reserved { leg: matches!(side, Side::Leg(_)) },
        }
    }

    /// Our URI.
    pub fn own(&self) -> &MsrpUri {
        &self.own
    }

    /// The connection it is bound to.
    pub fn bound_to(&self) -> Option<u64> {
        if let Binding::To(connection) = self.binding { Some(connection) } else { None }
    }

    /// It can still be bound.
    pub fn is_free(&self) -> bool {
        self.binding == Binding::Free
    }

    /// The peer's SDP is known and the session gets its purpose. A connection that bound it before, but does not
    /// belong to that peer, loses it: then `false`.
    pub fn agree(&mut self, peer: &PeerMedia, part: Part, bind_by: Option<Instant>) -> bool {
        self.peer = rightmost_id(&peer.path);
        self.part = part;
        self.bind_by = bind_by;
        let same = self.bound_by.is_none() || self.bound_by == self.peer;
        if !same {
            self.binding = Binding::Free;
        }
        self.bound_by = None;
        same
    }

    /// May a SEND on `connection` touch this session? Binds it if it is the first one; `Ok(true)` if it did.
    ///
    /// MS-032, MS-033, MS-034, MS-036 (RFC 4975 §5.4, §7.3).
    ///
    /// # Errors
    /// The code to answer, under the rules of `Failure-Report`.
    pub fn admit(&mut self, connection: u64, head: &Head) -> Result<bool, u16> {
        if head.to_path.len() != 1 || head.to_path[0] != self.own {
            return Err(481);
        }
        match self.binding {
            Binding::To(bound) if bound == connection => return Ok(false),
            Binding::To(_) => return Err(506),
            Binding::Broken => return Err(481),
            Binding::Free => {}
        }
        let from = rightmost_id(&head.from_path);
        match (&self.peer, &self.part) {
            (Some(_), _) if from != self.peer => return Err(481),
            (None, Part::Reserved { leg: true }) => self.bound_by = from,
            (None, _) => return Err(481),
            (Some(_), _) => {}
        }
        self.binding = Binding::To(connection);
        Ok(true)
    }

    /// A connection we opened, or share, is this session's.
    pub fn bind(&mut self, connection: u64) {
        self.binding = Binding::To(connection);
    }

    /// The binding is gone for good.
    pub fn unbind(&mut self) {
        self.binding = Binding::Broken;
    }

    /// When [`Session::bind_by`] has passed without a binding.
    pub fn is_bind_overdue(&self, now: Instant) -> bool {
        self.binding == Binding::Free && self.bind_by.is_some_and(|by| by <= now)
    }

    /// The next moment something here is due on its connection.
    pub fn next_wake(&self) -> Option<Instant> {
        match &self.part {
            Part::Reserved { .. } => None,
            Part::Originator(page) => page.next_wake(),
            Part::Leg { send, .. } => send.next_wake(),
        }
    }
}

fn rightmost_id(path: &[MsrpUri]) -> Option<String> {
    path.last().and_then(MsrpUri::session_id).map(str::to_owned)
}
