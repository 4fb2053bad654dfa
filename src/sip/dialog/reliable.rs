//! Provisional responses that are acknowledged: RFC 3262, both sides.

use std::collections::VecDeque;

use crate::sip::message::{Message, Name};

/// What a reliable provisional response to our INVITE is, in its early dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one: PRACK it and hand it on.
    Next,
    /// Seen before: nothing.
    Repeated,
    /// One before it is still missing: nothing, it will be sent again.
    TooEarly,
}

/// The receiving side: the numbers of one early dialog.
///
/// IM-012 (RFC 3262 §4): only the next number counts; the first one may be any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receiver {
    last: Option<u32>,
}

impl Receiver {
    pub fn on(&mut self, rseq: u32) -> Arrival {
        let arrival = match self.last {
            Some(last) if rseq <= last => Arrival::Repeated,
            Some(last) if rseq - last > 1 => Arrival::TooEarly,
            _ => Arrival::Next,
        };
        if arrival == Arrival::Next {
            self.last = Some(rseq);
        }
        arrival
    }
}

/// The value of an RAck header: which response, of which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    pub rseq: u32,
    pub cseq: u32,
    pub invite: bool,
}

impl RAck {
    /// Reads `RSeq CSeq-number Method` (RFC 3262 §7.2).
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (rseq, cseq, method) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        Some(Self {
            rseq: rseq.parse().ok()?,
            cseq: cseq.parse().ok()?,
            invite: method == "INVITE",
        })
    }
}

/// Reads the RSeq of a response: 1 to 2^32 - 1 (RFC 3262 §7.1).
pub fn rseq(response: &Message) -> Option<u32> {
    let number = response.text(Name::RSeq)?.trim().parse().ok()?;
    (number > 0).then_some(number)
}

/// The sending side: one response on its way, the others behind it.
///
/// ISC-062 (RFC 3262 §3): the first number is random in 1..2^31, each further one greater by one, and none is sent
/// before the one in front of it is acknowledged.
#[derive(Debug)]
pub struct Sender<T> {
    next: u32,
    outstanding: Option<Outstanding<T>>,
    waiting: VecDeque<T>,
    bound: usize,
}

/// The response that is repeated until its PRACK comes.
#[derive(Debug)]
pub struct Outstanding<T> {
    pub rseq: u32,
    pub response: T,
}

impl<T> Sender<T> {
    /// `random` chooses the first number; at most `bound` responses wait.
    pub fn new(random: u64, bound: usize) -> Self {
        // 2^31 - 1 values from 1 on.
        let first = random % ((1 << 31) - 1) + 1;
        Self {
            next: u32::try_from(first).expect("a remainder below 2^31"),
            outstanding: None,
            waiting: VecDeque::new(),
            bound,
        }
    }

    /// The response on its way.
    pub fn outstanding(&self) -> Option<&Outstanding<T>> {
        self.outstanding.as_ref()
    }

    /// The same, to count its repetitions.
    pub fn outstanding_mut(&mut self) -> Option<&mut Outstanding<T>> {
        self.outstanding.as_mut()
    }

    /// Puts a response behind the one on its way. Gives it back if none is: then it is to be sent by
    /// [`Sender::number`] and [`Sender::sent`]. When the queue is full the oldest waiting one is dropped; the newest says most.
    pub fn enqueue(&mut self, response: T) -> Option<T> {
        if self.outstanding.is_none() {
            return Some(response);
        }
        if self.waiting.len() >= self.bound {
            self.waiting.pop_front();
        }
        if self.bound > 0 {
            self.waiting.push_back(response);
        }
        None
    }

    /// The number for the response that goes out now.
    pub fn number(&mut self) -> u32 {
        let rseq = self.next;
        self.next += 1;
        rseq
    }

    /// Remembers what went out under this number.
    pub fn sent(&mut self, rseq: u32, response: T) {
        self.outstanding = Some(Outstanding { rseq, response });
    }

    /// A PRACK for this number: the response it acknowledges, if that is the one on its way.
    pub fn acknowledge(&mut self, rseq: u32) -> Option<T> {
        if self.outstanding.as_ref()?.rseq != rseq {
            return None;
        }
        self.outstanding.take().map(|outstanding| outstanding.response)
    }

    /// The next one to send, once nothing is outstanding.
    pub fn take_waiting(&mut self) -> Option<T> {
        if self.outstanding.is_some() {
            return None;
        }
        self.waiting.pop_front()
    }

    /// A final answer is there: what waits says nothing new.
    pub fn drop_waiting(&mut self) {
        self.waiting.clear();
    }
}
